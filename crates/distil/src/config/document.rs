//! First stage, what was typed: the values of a TOML file (<https://toml.io/en/v1.0.0>) and of
//! `--set` overrides, each with the place it came from, nothing judged yet.

use std::path::{Path, PathBuf};

use toml::de::DeTable;
use toml::{Table, Value};

use super::keys;
use crate::{Error, Result};

/// Where a value was typed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Origin {
    /// In the file: byte offset of the key, and its line from 1.
    File {
        /// Byte offset.
        offset: usize,
        /// Line, from 1.
        line: usize,
    },
    /// As this override.
    Override(String),
}

/// One typed value.
#[derive(Debug, Clone)]
pub(crate) struct Entry {
    /// Full name, `table.key`.
    pub(crate) path: String,
    /// The value as typed.
    pub(crate) value: Value,
    /// Where.
    pub(crate) origin: Origin,
}

/// Everything that was typed, in the order of the file, overrides after it.
#[derive(Debug)]
pub(crate) struct Document {
    file: PathBuf,
    pub(crate) entries: Vec<Entry>,
}

impl Document {
    /// Reads `text`, the contents of `file`, and lays `overrides` (`table.key=value`) over it.
    pub(crate) fn new(text: &str, file: &Path, overrides: &[String]) -> Result<Self> {
        let Typed { entries, stages } = Typed::read(text, file)?;
        let mut document = Self {
            file: file.to_owned(),
            entries,
        };
        if !stages.is_empty() {
            let fix =
                "take the [[stage]] tables out, or use a command that knows them (`distil train`)";
            return Err(document.refuse("stage", "one run is asked for here, not stages", fix));
        }
        let typed = overrides
            .iter()
            .map(|text| parse_override(text, text))
            .collect::<Result<Vec<_>>>()?;
        document.lay_over(typed.into_iter().flatten().collect());
        Ok(document)
    }

    /// The documents of a file's `[[stage]]`s: what stands outside of them, a stage's own keys laid
    /// over it, and the overrides (`table.key=value` for all, `stage.2.table.key=value` for one)
    /// over both. None for a file without stages.
    pub(crate) fn stages(text: &str, file: &Path, overrides: &[String]) -> Result<Vec<Self>> {
        let typed = Typed::read(text, file)?;
        let shared = Self {
            file: file.to_owned(),
            entries: typed.entries,
        };
        if typed.stages.is_empty() {
            return Ok(Vec::new());
        }
        if let Some(entry) = shared
            .entries
            .iter()
            .find(|entry| entry.path.starts_with("method."))
        {
            let fix = "move it into the [[stage]] it belongs to, as [stage.method]";
            return Err(shared.refuse(&entry.path, "stands outside of the stages", fix));
        }
        let mut over: Vec<(Option<usize>, Entry)> = Vec::new();
        for text in overrides {
            let (stage, rest) = of_stage(text, typed.stages.len())?;
            let entries = parse_override(rest, text)?;
            over.extend(entries.into_iter().map(|entry| (stage, entry)));
        }
        // What the first stage's student starts from stands in for the later ones' start, too.
        let of_start = |entry: &&Entry| {
            let path = entry.path.as_str();
            path.starts_with("student") && !keys::STUDENT_PRECISIONS.contains(&path)
        };
        let first = typed.stages.first().into_iter().flatten();
        let start: Vec<Entry> = first.filter(of_start).cloned().collect();
        let documents = typed.stages.into_iter().enumerate().map(|(index, own)| {
            let mut document = Self {
                file: file.to_owned(),
                entries: shared.entries.clone(),
            };
            if let Some(entry) = own.iter().find(|entry| index > 0 && of_start(entry)) {
                let here = Self {
                    entries: own.clone(),
                    ..document
                };
                let what = "a stage starts from the student of the one before";
                let fix = "remove it; only the first stage may say what the student starts from";
                return Err(here.refuse(&entry.path, what, fix));
            }
            document.lay_over(start.clone());
            document.lay_over(own);
            let mine = over
                .iter()
                .filter(|(stage, _)| stage.is_none_or(|stage| stage == index + 1));
            document.lay_over(mine.map(|(_, entry)| entry.clone()).collect());
            Ok(document)
        });
        documents.collect()
    }

    /// The last override of a key wins; one of several exclusive keys displaces the file's others.
    fn lay_over(&mut self, overrides: Vec<Entry>) {
        self.entries.retain(|entry| {
            !overrides.iter().any(|over| {
                let rivals = keys::EXCLUSIVE
                    .iter()
                    .find(|group| group.contains(&over.path.as_str()));
                over.path == entry.path
                    || rivals.is_some_and(|group| group.contains(&entry.path.as_str()))
            })
        });
        for over in overrides {
            self.entries.retain(|entry| entry.path != over.path);
            self.entries.push(over);
        }
    }

    /// The text typed for `path`, if it is text.
    pub(crate) fn text(&self, path: &str) -> Option<&str> {
        self.entries
            .iter()
            .find(|entry| entry.path == path)?
            .value
            .as_str()
    }

    /// Where `path` was typed, or where it should have been.
    pub(crate) fn place(&self, path: &str) -> String {
        let file = self.file.display();
        match self
            .entries
            .iter()
            .find(|entry| entry.path == path)
            .map(|entry| &entry.origin)
        {
            Some(Origin::File { line, .. }) => format!("{file}:{line}: {path}"),
            Some(Origin::Override(text)) => format!("--set {text}: {path}"),
            None => format!("{file}: {path}"),
        }
    }

    /// The error that `path` is wrong.
    pub(crate) fn refuse(
        &self,
        path: &str,
        what: impl Into<String>,
        fix: impl Into<String>,
    ) -> Error {
        Error::Config {
            place: self.place(path),
            what: what.into(),
            fix: fix.into(),
        }
    }

    /// The entries as nested tables again.
    pub(crate) fn nested(&self) -> Table {
        let mut root = Table::new();
        for entry in &self.entries {
            let mut parts: Vec<&str> = entry.path.split('.').collect();
            let name = parts.pop().unwrap_or_default();
            insert(&mut root, &parts, name, entry.value.clone());
        }
        root
    }
}

/// The entries outside of any stage, and those of each stage.
struct Typed {
    entries: Vec<Entry>,
    stages: Vec<Vec<Entry>>,
}

impl Typed {
    fn read(text: &str, file: &Path) -> Result<Self> {
        let spans = DeTable::parse(text).map_err(|error| syntax(text, file, &error))?;
        let mut values: Table = toml::from_str(text).map_err(|error| syntax(text, file, &error))?;
        let spans = spans.get_ref();
        let place = |offset: usize| Origin::File {
            offset,
            line: line(text, offset),
        };
        let stage_spans = spans
            .iter()
            .find(|(key, _)| key.get_ref().as_ref() == "stage");
        let mut stages = Vec::new();
        if let (Some(tables), Some((key, span))) = (values.remove("stage"), stage_spans) {
            let refuse = || Error::Config {
                place: format!("{}:{}: stage", file.display(), line(text, key.span().start)),
                what: "is not a list of tables".into(),
                fix: "write [[stage]] before the keys of each stage, and [stage.method] and so on \
                      below it"
                    .into(),
            };
            let Value::Array(tables) = tables else {
                return Err(refuse());
            };
            let spans = span.get_ref().as_array().ok_or_else(refuse)?;
            for (table, span) in tables.into_iter().zip(spans.iter()) {
                let (true, Some(inner)) = (table.is_table(), span.get_ref().as_table()) else {
                    return Err(refuse());
                };
                stages.push(entries(table, span.span().start, inner, &place));
            }
        }
        Ok(Self {
            entries: entries(Value::Table(values), 0, spans, &place),
            stages,
        })
    }
}

/// A table's entries in the order of the file.
fn entries(
    table: Value,
    offset: usize,
    spans: &DeTable<'_>,
    place: &dyn Fn(usize) -> Origin,
) -> Vec<Entry> {
    let mut found = Vec::new();
    flatten("", table, offset, Some(spans), &mut found);
    found.sort_by_key(|(_, _, offset)| *offset);
    let entry = |(path, value, offset)| Entry {
        path,
        value,
        origin: place(offset),
    };
    found.into_iter().map(entry).collect()
}

/// The stage that an override is for, if it names one, and the override without it.
fn of_stage(text: &str, stages: usize) -> Result<(Option<usize>, &str)> {
    let Some((number, rest)) = text
        .trim_start()
        .strip_prefix("stage.")
        .and_then(|rest| rest.split_once('.'))
    else {
        return Ok((None, text));
    };
    match number.parse() {
        Ok(number) if (1..=stages).contains(&number) => Ok((Some(number), rest)),
        _ => Err(Error::Config {
            place: format!("--set {text}"),
            what: format!("there is no stage {number}"),
            fix: format!("the file has stages 1 to {stages}"),
        }),
    }
}

fn insert(table: &mut Table, parents: &[&str], name: &str, value: Value) {
    let Some((first, rest)) = parents.split_first() else {
        table.insert(name.to_owned(), value);
        return;
    };
    let inner = table
        .entry(*first)
        .or_insert_with(|| Value::Table(Table::new()));
    if let Value::Table(inner) = inner {
        insert(inner, rest, name, value);
    }
}

/// Descends into the tables that the configuration knows; everything else stays one value, to be judged later.
fn flatten(
    path: &str,
    value: Value,
    offset: usize,
    spans: Option<&DeTable<'_>>,
    found: &mut Vec<(String, Value, usize)>,
) {
    let Value::Table(table) = value else {
        found.push((path.to_owned(), value, offset));
        return;
    };
    if !keys::is_table(path) {
        found.push((path.to_owned(), Value::Table(table), offset));
        return;
    }
    for (name, value) in table {
        let span =
            spans.and_then(|spans| spans.iter().find(|(key, _)| key.get_ref().as_ref() == name));
        let offset = span.map_or(offset, |(key, _)| key.span().start);
        let inner = span.and_then(|(_, value)| value.get_ref().as_table());
        // A quoted key with a dot in it is not two keys.
        let name = if name.contains('.') {
            format!("{name:?}")
        } else {
            name
        };
        let path = if path.is_empty() {
            name
        } else {
            format!("{path}.{name}")
        };
        flatten(&path, value, offset, inner, found);
    }
}

fn line(text: &str, offset: usize) -> usize {
    text.bytes()
        .take(offset)
        .filter(|byte| *byte == b'\n')
        .count()
        + 1
}

fn syntax(text: &str, file: &Path, error: &toml::de::Error) -> Error {
    let place = match error.span() {
        Some(span) => format!("{}:{}", file.display(), line(text, span.start)),
        None => file.display().to_string(),
    };
    Error::Config {
        place,
        what: format!("not valid TOML: {}", error.message().replace('\n', ", ")),
        fix: "correct this line; text stands in quotes, a key is written once".into(),
    }
}

/// `table.key=value`: the value is TOML, or text without quotes. An inline table sets several keys.
///
/// `origin` is the override as it was typed.
fn parse_override(text: &str, origin: &str) -> Result<Vec<Entry>> {
    let refuse = |what: &str, fix: &str| Error::Config {
        place: format!("--set {origin}"),
        what: what.into(),
        fix: fix.into(),
    };
    let example = "write --set table.key=value, for example --set train.learning_rate=2e-5";
    let (path, typed) = text
        .split_once('=')
        .ok_or_else(|| refuse("has no `=`", example))?;
    let (path, typed) = (path.trim(), typed.trim());
    if path.is_empty() || path.split('.').any(str::is_empty) {
        return Err(refuse("does not name a key", example));
    }
    if typed.is_empty() {
        return Err(refuse("has no value", example));
    }
    let value =
        match toml::de::ValueDeserializer::parse(typed).and_then(serde::Deserialize::deserialize) {
            Ok(value) => value,
            Err(_) if is_bare(typed) => Value::String(typed.to_owned()),
            Err(error) => {
                let what = format!(
                    "the value is not valid TOML: {}",
                    error.message().replace('\n', ", ")
                );
                return Err(refuse(
                    &what,
                    "close brackets and quotes, and put texts inside lists in quotes",
                ));
            }
        };
    let mut found = Vec::new();
    flatten(path, value, 0, None, &mut found);
    Ok(found
        .into_iter()
        .map(|(path, value, _)| Entry {
            path,
            value,
            origin: Origin::Override(origin.to_owned()),
        })
        .collect())
}

/// Whether a value that is not TOML is meant as text; a Jinja template (`{{`, `{%`, `{#`) is, an open bracket is not.
fn is_bare(typed: &str) -> bool {
    let jinja = ["{{", "{%", "{#"]
        .iter()
        .any(|start| typed.starts_with(start));
    jinja || !typed.starts_with(['[', '{', '"', '\''])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn document(text: &str, overrides: &[&str]) -> Result<Document> {
        let overrides: Vec<String> = overrides.iter().map(|text| text.to_string()).collect();
        Document::new(text, Path::new("run.toml"), &overrides)
    }

    fn has(document: &Document, path: &str) -> bool {
        document.entries.iter().any(|entry| entry.path == path)
    }

    fn value(document: &Document, path: &str) -> String {
        document
            .entries
            .iter()
            .find(|entry| entry.path == path)
            .unwrap()
            .value
            .to_string()
    }

    #[test]
    fn entries_keep_the_order_and_lines_of_the_file() {
        let document = document(
            "seed = 3\n\n[train]\nsteps = 5\n[student]\nprune = { layers = 2 }\n",
            &[],
        )
        .unwrap();
        let paths: Vec<&str> = document
            .entries
            .iter()
            .map(|entry| entry.path.as_str())
            .collect();
        assert_eq!(paths, ["seed", "train.steps", "student.prune.layers"]);
        assert_eq!(document.place("train.steps"), "run.toml:4: train.steps");
        assert_eq!(
            document.place("student.prune.layers"),
            "run.toml:6: student.prune.layers"
        );
        assert_eq!(document.place("data.train"), "run.toml: data.train");
    }

    #[test]
    fn overrides_are_toml_or_bare_words_and_the_last_wins() {
        let overrides = [
            "train.steps=7",
            "method.name=kd",
            "data.template={{ prompt }}",
            "train.steps = 8",
            "data.train=[\"a\"]",
        ];
        let document = document("[train]\nsteps = 5\n", &overrides).unwrap();
        assert_eq!(value(&document, "train.steps"), "8");
        assert_eq!(value(&document, "method.name"), "\"kd\"");
        assert_eq!(value(&document, "data.template"), "\"{{ prompt }}\"");
        assert_eq!(value(&document, "data.train"), "[\"a\"]");
        assert_eq!(
            document.place("train.steps"),
            "--set train.steps = 8: train.steps"
        );
        assert_eq!(document.entries.len(), 4);
    }

    #[test]
    fn an_override_displaces_what_it_excludes() {
        let document = document(
            "[train]\nsteps = 5\n[student]\nmodel = 'x'\n",
            &["train.epochs=2", "student.prune={layers=3}"],
        )
        .unwrap();
        assert!(has(&document, "train.epochs") && !has(&document, "train.steps"));
        assert!(has(&document, "student.prune.layers") && !has(&document, "student.model"));
    }

    #[test]
    fn two_exclusive_overrides_both_stay_to_be_refused_later() {
        let document = document("", &["train.epochs=2", "train.steps=3"]).unwrap();
        assert!(has(&document, "train.epochs") && has(&document, "train.steps"));
    }

    #[test]
    fn a_quoted_dot_does_not_reach_into_a_table() {
        let document = document("\"train.steps\" = 5\n", &[]).unwrap();
        assert_eq!(document.entries[0].path, "\"train.steps\"");
    }

    #[test]
    fn broken_toml_names_the_line() {
        let error = document("seed = 1\n[train]\nsteps = \n", &[])
            .unwrap_err()
            .to_string();
        assert!(error.starts_with("run.toml:3: not valid TOML"), "{error}");
        let error = document("seed = 1\nseed = 2\n", &[])
            .unwrap_err()
            .to_string();
        assert!(
            error.starts_with("run.toml:2: not valid TOML: duplicate key"),
            "{error}"
        );
    }

    #[test]
    fn broken_overrides_are_named() {
        for (text, part) in [
            ("train.steps", "has no `=`"),
            ("=5", "does not name a key"),
            ("train.=5", "does not name a key"),
            ("train.steps=", "has no value"),
            ("data.train=[a, b]", "not valid TOML"),
        ] {
            let error = document("", &[text]).unwrap_err().to_string();
            assert!(
                error.starts_with(&format!("--set {text}")) && error.contains(part),
                "{error}"
            );
        }
    }
}
