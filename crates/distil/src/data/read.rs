//! Data files to rows: `.jsonl`, `.json`, `.parquet`.
//!
//! - `.jsonl`: an object a line. A byte order mark, CRLF line ends and blank lines are accepted. Read
//!   line by line.
//! - `.json`: an array of objects, or the same as `.jsonl` if it does not begin with `[`.
//! - `.parquet`: the same rows as columns; pages uncompressed or compressed with Snappy, gzip or LZ4.
//!   Rows are numbered from 1.

use std::collections::HashMap;
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::answers::Answers;
use super::parquet;
use super::row::{Row, RowSource};
use super::shape::{FINISH_REASON, Malformed, REFERENCE, recognise};
use crate::error::{Error, Result};

/// What to do with a row that is malformed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum OnBadRow {
    /// Stop with its file and line.
    #[default]
    Fail,
    /// Leave it out and count it.
    Skip,
}

/// All rows of some data files, in their order.
#[derive(Debug, Clone, Default)]
pub struct DataSet {
    /// The files, as they were named.
    pub files: Vec<PathBuf>,
    /// The rows that were understood.
    pub rows: Vec<Row>,
    /// Rows left out as malformed.
    pub malformed: usize,
    /// The first of them.
    pub first_malformed: Option<MalformedRow>,
}

/// A row that was left out as malformed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MalformedRow {
    /// Where it was found.
    pub source: RowSource,
    /// What is wrong with it, with file and line.
    pub error: String,
}

impl DataSet {
    /// Reads files one after another.
    ///
    /// # Errors
    /// [`Error::Read`] if a file cannot be read; [`Error::Data`] if its name or structure is none of
    /// the known formats or if there is no row in any of them; [`Error::Row`] for a malformed row
    /// unless those are skipped.
    pub fn read(files: &[PathBuf], on_bad_row: OnBadRow) -> Result<Self> {
        Self::read_each(files, on_bad_row, &Ok)
    }

    /// Reads questions whose reference answers stand in a file of their own, joined by their
    /// `question_id`. A malformed row is an error.
    ///
    /// # Errors
    /// As [`DataSet::read`], and [`Error::Row`] for a question without an answer there.
    pub fn read_with_answers(questions: &Path, answers: &Path) -> Result<Self> {
        let answers = Answers::read(answers)?;
        let join = |row| answers.join(row);
        Self::read_each(&[questions.to_owned()], OnBadRow::Fail, &join)
    }

    /// `prepare` makes of a file's row what is recognised.
    fn read_each(
        files: &[PathBuf],
        on_bad_row: OnBadRow,
        prepare: &dyn Fn(Value) -> Result<Value, Malformed>,
    ) -> Result<Self> {
        let mut data = Self {
            files: files.to_vec(),
            ..Self::default()
        };
        for (file, path) in files.iter().enumerate() {
            each_row(path, &mut |line, content| {
                let cut = content
                    .as_ref()
                    .is_ok_and(|row| row.get(FINISH_REASON).is_some_and(|why| why == "length"));
                let source = RowSource { file, line };
                let error = match content.and_then(prepare).and_then(recognise) {
                    Ok(content) => {
                        let row = Row {
                            source,
                            content,
                            cut,
                        };
                        data.rows.push(row);
                        return Ok(());
                    }
                    Err(Malformed { what, fix }) => Error::Row {
                        path: path.clone(),
                        line,
                        what,
                        fix,
                    },
                };
                data.skip(source, error, on_bad_row)
            })?;
        }
        if data.rows.is_empty() {
            let what = match (&data.first_malformed, files.len()) {
                (Some(first), _) => {
                    format!(
                        "all {} rows are malformed, the first: {}",
                        data.malformed, first.error
                    )
                }
                (None, 0) => "no data files are given".to_owned(),
                (None, 1) => "the file has no rows".to_owned(),
                (None, files) => format!("this and the other {} files have no rows", files - 1),
            };
            return Err(data.unusable(what, "name a file with at least one row"));
        }
        Ok(data)
    }

    /// The file and line of a row, for messages: `train.jsonl:12`.
    pub fn place(&self, source: RowSource) -> String {
        format!("{}:{}", self.path(source).display(), source.line)
    }

    /// An error about a row.
    pub(crate) fn row_error(&self, source: RowSource, what: String, fix: &str) -> Error {
        Error::Row {
            path: self.path(source),
            line: source.line,
            what,
            fix: fix.to_owned(),
        }
    }

    /// An error about the data set as a whole; it names the first file.
    pub(crate) fn unusable(&self, what: String, fix: &str) -> Error {
        let path = self.files.first().cloned().unwrap_or_default();
        Error::Data {
            path,
            what,
            fix: fix.to_owned(),
        }
    }

    fn path(&self, source: RowSource) -> PathBuf {
        self.files.get(source.file).cloned().unwrap_or_default()
    }

    fn skip(&mut self, source: RowSource, error: Error, on_bad_row: OnBadRow) -> Result<()> {
        if on_bad_row == OnBadRow::Fail {
            return Err(error);
        }
        self.malformed += 1;
        self.first_malformed.get_or_insert_with(|| MalformedRow {
            source,
            error: error.to_string(),
        });
        Ok(())
    }
}

/// What the key `reference` of a file's rows says, by the row's number from 0: a text or several that the
/// row's answer is measured against. Rows without it have no entry.
///
/// # Errors
/// As [`DataSet::read`], and [`Error::Row`] for a `reference` that is neither a text nor a list of
/// texts. Rows that are no objects are passed over.
pub fn references(path: &Path) -> Result<HashMap<usize, Vec<String>>> {
    let mut found = HashMap::new();
    // Not the line: a .json array may hold several rows on one.
    let mut numbers = 0..;
    each_row(path, &mut |line, row| {
        let number = numbers.next().unwrap_or_default();
        let Some(value) = row
            .ok()
            .and_then(|mut row| Some(row.get_mut(REFERENCE)?.take()))
        else {
            return Ok(());
        };
        let items = match value {
            Value::Null => return Ok(()),
            Value::Array(items) => items,
            value => vec![value],
        };
        let texts: Option<Vec<String>> = items
            .iter()
            .map(|item| item.as_str().map(str::to_owned))
            .collect();
        match texts {
            Some(texts) if !texts.is_empty() => {
                found.insert(number, texts);
                Ok(())
            }
            _ => Err(Error::Row {
                path: path.to_owned(),
                line,
                what: "`reference` is neither a text nor a list of texts".into(),
                fix: "give the text that the answer is measured against, or leave it out".into(),
            }),
        }
    })?;
    Ok(found)
}

/// Receives each row's line number with its JSON, or with what is wrong with it.
pub(crate) type RowSink<'a> = dyn FnMut(usize, Result<Value, Malformed>) -> Result<()> + 'a;

pub(crate) fn each_row(path: &Path, sink: &mut RowSink) -> Result<()> {
    let format = path
        .extension()
        .and_then(|extension| extension.to_str())
        .unwrap_or_default();
    match format.to_ascii_lowercase().as_str() {
        "jsonl" => json_lines(path, sink),
        "json" => json(path, sink),
        "parquet" => parquet::each_row(path, sink),
        _ => {
            // That nothing is there, or a folder, says more than its name's ending.
            open(path)?;
            let what = match format {
                "" => "the file's name does not say its format".to_owned(),
                format => format!("`{format}` is not a known file format"),
            };
            Err(Error::Data {
                path: path.to_owned(),
                what,
                fix: "use a .jsonl, .json or .parquet file".into(),
            })
        }
    }
}

pub(crate) fn open(path: &Path) -> Result<File> {
    let read = |source| Error::Read {
        path: path.to_owned(),
        source,
    };
    let file = File::open(path).map_err(read)?;
    if file.metadata().map_err(read)?.is_dir() {
        return Err(read(std::io::ErrorKind::IsADirectory.into()));
    }
    Ok(file)
}

const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

fn json_lines(path: &Path, sink: &mut RowSink) -> Result<()> {
    let mut reader = BufReader::new(open(path)?);
    let mut bytes = Vec::new();
    for line in 1.. {
        bytes.clear();
        let read = reader
            .read_until(b'\n', &mut bytes)
            .map_err(|source| Error::Read {
                path: path.to_owned(),
                source,
            })?;
        if read == 0 {
            break;
        }
        if line == 1 {
            refuse_foreign(path, &bytes)?;
        }
        let text = if line == 1 {
            without_mark(&bytes)
        } else {
            &bytes
        };
        if !text.trim_ascii().is_empty() {
            sink(line, parse_line(text))?;
        }
    }
    Ok(())
}

fn without_mark(bytes: &[u8]) -> &[u8] {
    bytes.strip_prefix(BYTE_ORDER_MARK).unwrap_or(bytes)
}

/// Files of another kind by their first bytes, and what to do with them.
const FOREIGN: [(&[u8], &str, &str); 6] = [
    (b"PAR1", "a Parquet file", "let its name end with .parquet"),
    (b"\x1f\x8b", "compressed with gzip", "unpack it with gunzip"),
    (
        b"\x28\xb5\x2f\xfd",
        "compressed with zstd",
        "unpack it with unzstd",
    ),
    (
        b"PK\x03\x04",
        "a ZIP archive or a spreadsheet",
        "unpack it, or save its rows as .jsonl",
    ),
    (b"\xff\xfe", "text in UTF-16", "save it as UTF-8"),
    (b"\xfe\xff", "text in UTF-16", "save it as UTF-8"),
];

/// Refuses what is no text at all: "not JSON" would be true and no help, and with rows that may be
/// skipped every line of it would be one.
fn refuse_foreign(path: &Path, begin: &[u8]) -> Result<()> {
    match FOREIGN.iter().find(|(mark, ..)| begin.starts_with(mark)) {
        None => Ok(()),
        Some((_, kind, fix)) => Err(Error::Data {
            path: path.to_owned(),
            what: format!("the file is {kind}, not lines of JSON"),
            fix: (*fix).to_owned(),
        }),
    }
}

fn parse_line(text: &[u8]) -> Result<Value, Malformed> {
    if let Err(error) = std::str::from_utf8(text) {
        return Err(Malformed::new(
            format!("byte {} of the line is not UTF-8", error.valid_up_to() + 1),
            "save the file as UTF-8",
        ));
    }
    serde_json::from_slice(text.trim_ascii()).map_err(|error| {
        Malformed::new(
            format!("not JSON: {}, column {}", reason(&error), error.column()),
            "write one object on each line, or in a .json file one array of objects",
        )
    })
}

fn json(path: &Path, sink: &mut RowSink) -> Result<()> {
    open(path)?;
    let bytes = std::fs::read(path).map_err(|source| Error::Read {
        path: path.to_owned(),
        source,
    })?;
    let mut array = ArrayReader {
        rest: without_mark(&bytes),
        line: 1,
    };
    if !array.take(b'[') {
        return json_lines(path, sink);
    }
    let broken = |line, what| Error::Row {
        path: path.to_owned(),
        line,
        what,
        fix: "a .json file must be one array of objects, or one object on each line".into(),
    };
    let mut more = !array.take(b']');
    while more {
        let line = array.line;
        let value = array.value().map_err(|(line, what)| broken(line, what))?;
        sink(line, Ok(value))?;
        more = array.take(b',');
        if !more && !array.take(b']') {
            return Err(broken(
                array.line,
                "a comma or the array's end is missing".into(),
            ));
        }
    }
    if !array.rest.is_empty() {
        return Err(broken(
            array.line,
            "there is more after the array's end".into(),
        ));
    }
    Ok(())
}

/// Walks through a JSON array and knows the line it is on. At rest it stands on what follows white
/// space.
struct ArrayReader<'a> {
    rest: &'a [u8],
    line: usize,
}

impl ArrayReader<'_> {
    /// Steps over a delimiter, if it comes next.
    fn take(&mut self, delimiter: u8) -> bool {
        self.skip_space();
        let found = self.rest.first() == Some(&delimiter);
        if found {
            self.advance(1);
            self.skip_space();
        }
        found
    }

    /// Reads an element; an error is the line and what is wrong there.
    fn value(&mut self) -> Result<Value, (usize, String)> {
        let mut values = serde_json::Deserializer::from_slice(self.rest).into_iter::<Value>();
        match values.next() {
            Some(Ok(value)) => {
                let length = values.byte_offset();
                self.advance(length);
                Ok(value)
            }
            Some(Err(error)) => {
                let line = self.line + error.line().saturating_sub(1);
                Err((line, format!("not JSON: {}", reason(&error))))
            }
            None => Err((self.line, "the array does not end".into())),
        }
    }

    fn skip_space(&mut self) {
        self.advance(self.rest.len() - self.rest.trim_ascii_start().len());
    }

    fn advance(&mut self, bytes: usize) {
        let (passed, rest) = self
            .rest
            .split_at_checked(bytes)
            .unwrap_or((self.rest, &[]));
        self.line += passed.iter().filter(|&&byte| byte == b'\n').count();
        self.rest = rest;
    }
}

/// What a JSON error says, without the place: that is given within the part being read and would
/// mislead.
fn reason(error: &serde_json::Error) -> String {
    let message = error.to_string();
    message
        .split(" at line ")
        .next()
        .unwrap_or(&message)
        .to_owned()
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::data::row::{Content, Prompt};

    fn read(name: &str, bytes: &[u8], on_bad_row: OnBadRow) -> Result<DataSet> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(name);
        fs::write(&path, bytes).unwrap();
        DataSet::read(&[path], on_bad_row)
    }

    /// Line and prompt of each row.
    fn prompts(data: &DataSet) -> Vec<(usize, &str)> {
        fn line_and_prompt(row: &Row) -> (usize, &str) {
            match &row.content {
                Content::Prompt(Prompt::Raw(text)) => (row.source.line, text.as_str()),
                other => panic!("{other:?}"),
            }
        }
        data.rows.iter().map(line_and_prompt).collect()
    }

    #[test]
    fn lines_with_mark_crlf_and_blanks() {
        let text =
            b"\xef\xbb\xbf{\"prompt\": \"a\"}\r\n\r\n  \n{\"prompt\": \"b\"}\r\n{\"prompt\":\"c\"}";
        let data = read("x.jsonl", text, OnBadRow::Fail).unwrap();
        assert_eq!(prompts(&data), [(1, "a"), (4, "b"), (5, "c")]);
        assert_eq!(data.malformed, 0);
    }

    #[test]
    fn arrays_know_their_lines() {
        let text = b"\xef\xbb\xbf \n[\n  {\"prompt\": \"a\"},\n  {\n\"prompt\":\n \"b\"\n},\n{\"prompt\":\"c\"} ]\n";
        let data = read("x.json", text, OnBadRow::Fail).unwrap();
        assert_eq!(prompts(&data), [(3, "a"), (4, "b"), (8, "c")]);
    }

    #[test]
    fn a_json_file_of_lines_is_read_as_lines() {
        let data = read(
            "x.json",
            b"{\"prompt\":\"a\"}\n{\"prompt\":\"b\"}\n",
            OnBadRow::Fail,
        )
        .unwrap();
        assert_eq!(prompts(&data), [(1, "a"), (2, "b")]);
    }

    #[test]
    fn a_malformed_row_stops_with_its_line() {
        for (name, text, part) in [
            (
                "x.jsonl",
                &b"{\"prompt\":\"a\"}\n\n{\"prompt\": \"b\n"[..],
                "x.jsonl:3: not JSON: ",
            ),
            (
                "x.jsonl",
                b"{\"q\":\"a\"}",
                "x.jsonl:1: no known shape has the keys `q`",
            ),
            (
                "x.jsonl",
                b"{\"prompt\":\"\xff\"}",
                "x.jsonl:1: byte 12 of the line is not UTF-8; save the file as UTF-8",
            ),
            (
                "x.json",
                b"[{\"prompt\":\"a\"},\n\n7]",
                "x.json:3: the row is a number",
            ),
            (
                "x.json",
                b"[{\"prompt\":\"a\"}\n{\"prompt\":\"b\"}]",
                "x.json:2: a comma",
            ),
            (
                "x.json",
                b"[{\"prompt\":\"a\"},\n",
                "x.json:2: the array does not end",
            ),
            (
                "x.json",
                b"[{\"prompt\":\n\"a\",\n}]",
                "x.json:3: not JSON: ",
            ),
            (
                "x.json",
                b"[{\"prompt\":\"a\"}]\n]",
                "x.json:2: there is more",
            ),
        ] {
            let error = read(name, text, OnBadRow::Fail).unwrap_err();
            assert!(matches!(error, Error::Row { .. }), "{error:?}");
            assert!(error.to_string().contains(part), "{error}");
        }
    }

    #[test]
    fn malformed_rows_are_skipped_and_counted() {
        let text = b"{\"prompt\":\"a\"}\nnonsense\n{\"q\":1}\n{\"prompt\":\"b\"}\n";
        let data = read("x.jsonl", text, OnBadRow::Skip).unwrap();
        assert_eq!(prompts(&data), [(1, "a"), (4, "b")]);
        assert_eq!(data.malformed, 2);
        let first = data.first_malformed.unwrap();
        assert_eq!(first.source, RowSource { file: 0, line: 2 });
        assert!(first.error.contains("x.jsonl:2: not JSON"), "{first:?}");
    }

    #[test]
    fn data_without_rows_is_an_error() {
        for (name, text, part) in [
            ("x.jsonl", &b"\n\n"[..], "the file has no rows"),
            ("x.json", b"[ ]", "the file has no rows"),
            ("x.json", b"", "the file has no rows"),
            (
                "x.jsonl",
                b"1\n2\n",
                "all 2 rows are malformed, the first: ",
            ),
            ("x.csv", b"prompt\na\n", "`csv` is not a known file format"),
            ("x", b"", "the file's name does not say its format"),
            // Not as so many malformed lines, which would be skipped.
            ("x.jsonl", b"\x1f\x8b\x08\n\0", "compressed with gzip"),
            (
                "x.json",
                b"PK\x03\x04\x14",
                "a ZIP archive or a spreadsheet",
            ),
            ("x.jsonl", b"PAR1\x15", "let its name end with .parquet"),
            ("x.jsonl", b"\xff\xfe{\0", "text in UTF-16"),
        ] {
            let error = read(name, text, OnBadRow::Skip).unwrap_err();
            assert!(matches!(error, Error::Data { .. }), "{error:?}");
            assert!(error.to_string().contains(part), "{error}");
        }
        assert!(matches!(
            DataSet::read(&[], OnBadRow::Fail),
            Err(Error::Data { .. })
        ));
    }

    #[test]
    fn unreadable_files_are_named() {
        let folder = tempfile::tempdir().unwrap();
        for name in ["d", "d.jsonl"] {
            fs::create_dir(folder.path().join(name)).unwrap();
        }
        for (name, fix) in [
            ("none.jsonl", "check the path"),
            ("none.json", "check the path"),
            ("none.parquet", "check the path"),
            ("none", "check the path"),
            ("d.jsonl", "name a file"),
            ("d", "name a file"),
        ] {
            let error = DataSet::read(&[folder.path().join(name)], OnBadRow::Skip).unwrap_err();
            assert!(matches!(error, Error::Read { .. }), "{error:?}");
            assert!(error.to_string().contains(name), "{error}");
            assert!(error.to_string().contains(fix), "{error}");
        }
    }

    /// Two rows of an array may stand on one line.
    #[test]
    fn references_belong_to_their_rows() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.json");
        let text = "[{\"prompt\":\"a\",\"reference\":\"r\"},{\"prompt\":\"b\"},\
                    {\"prompt\":\"c\",\"reference\":[\"s\",\"t\"]}]";
        fs::write(&path, text).unwrap();
        let found = references(&path).unwrap();
        assert_eq!(found.len(), 2);
        assert_eq!(
            (&found[&0][..], &found[&2][..]),
            (&["r".into()][..], &["s".into(), "t".into()][..])
        );
    }

    #[test]
    fn files_are_told_apart() {
        let folder = tempfile::tempdir().unwrap();
        let files = ["a.jsonl", "b.json"].map(|name| folder.path().join(name));
        fs::write(&files[0], "{\"prompt\":\"a\"}\n").unwrap();
        fs::write(&files[1], "[{\"prompt\":\"b\"}]").unwrap();
        let data = DataSet::read(&files, OnBadRow::Fail).unwrap();
        assert_eq!(data.rows[1].source, RowSource { file: 1, line: 1 });
        assert!(data.place(data.rows[1].source).ends_with("b.json:1"));
    }
}
