//! Rows from `.parquet` files, the format of data sets on the Hugging Face hub.
//!
//! Only the columns that decide what a row is are read, as JSON values: strings, lists and structs.
//! Pages may be uncompressed or compressed with Snappy, gzip or LZ4; Zstandard and Brotli are refused
//! by name. A damaged file is an error as a whole: its rows cannot be told apart.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use ::parquet::errors::ParquetError;
use ::parquet::file::reader::{FileReader, SerializedFileReader};
use ::parquet::record;
use ::parquet::schema::types::Type;
use serde_json::Value;

use super::read::{RowSink, open};
use super::shape::{BESIDE, KEYS, quoted};
use crate::error::{Error, Result};

/// Calls `sink` with the number of each row, from 1, and its JSON.
pub(crate) fn each_row(path: &Path, sink: &mut RowSink) -> Result<()> {
    let file = open(path)?;
    let unreadable = |what| Error::Data {
        path: path.to_owned(),
        what,
        fix: "write the file again, compressed with snappy, or as .jsonl".into(),
    };
    let reader = guarded(|| SerializedFileReader::new(file)).map_err(unreadable)?;
    let columns = known_columns(&reader).map_err(unreadable)?;
    let mut rows = guarded(|| reader.get_row_iter(Some(columns))).map_err(unreadable)?;
    let mut number = 0;
    while let Some(row) = guarded(|| rows.next().transpose()).map_err(unreadable)? {
        number += 1;
        sink(number, Ok(object(&row)))?;
    }
    Ok(())
}

/// Calls the reader, which panics on some damaged files where it should return an error.
fn guarded<T>(work: impl FnOnce() -> Result<T, ParquetError>) -> Result<T, String> {
    match catch_unwind(AssertUnwindSafe(work)) {
        Ok(result) => result.map_err(|error| describe(&error)),
        Err(_) => Err("not a whole parquet file".into()),
    }
}

/// The file's schema with only the columns that matter, or what is wrong with it.
fn known_columns(reader: &impl FileReader) -> Result<Type, String> {
    let schema = reader.metadata().file_metadata().schema();
    let all = schema.get_fields();
    let known: Vec<_> = all
        .iter()
        .filter(|field| KEYS.contains(&field.name()) || BESIDE.contains(&field.name()))
        .cloned()
        .collect();
    if !known.iter().any(|field| KEYS.contains(&field.name())) {
        let names: Vec<String> = all.iter().map(|field| field.name().to_owned()).collect();
        return Err(format!("no known shape has the columns {}", quoted(&names)));
    }
    guarded(|| {
        Type::group_type_builder(schema.name())
            .with_fields(known)
            .build()
    })
}

fn describe(error: &ParquetError) -> String {
    let text = error.to_string();
    match ["zstd", "brotli", "lzo"]
        .into_iter()
        .find(|codec| text.to_lowercase().contains(codec))
    {
        Some(codec) => format!("compression with {codec} is not supported"),
        None => format!("not readable as parquet: {text}"),
    }
}

fn object(row: &record::Row) -> Value {
    row.get_column_iter()
        .map(|(name, field)| (name.clone(), value(field)))
        .collect()
}

fn value(field: &record::Field) -> Value {
    use record::Field;
    match field {
        Field::Str(text) => Value::from(text.as_str()),
        // Some writers leave text columns without the mark that says they are text.
        Field::Bytes(bytes) => Value::from(String::from_utf8_lossy(bytes.data())),
        Field::Group(row) => object(row),
        Field::ListInternal(list) => list.elements().iter().map(value).collect(),
        Field::Bool(flag) => Value::from(*flag),
        Field::Int(number) => Value::from(*number),
        Field::Long(number) => Value::from(*number),
        Field::Float(number) => Value::from(*number),
        Field::Double(number) => Value::from(*number),
        // Dates, decimals and maps hold no text.
        _ => Value::Null,
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::PathBuf;

    use super::super::read::{DataSet, OnBadRow};
    use super::super::row::{Content, Prompt};
    use super::*;

    /// Made by pyarrow: see oracles/parquet_rows.py.
    fn fixture(name: &str) -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("tests/fixtures")
            .join(name)
    }

    fn read_bytes(bytes: &[u8]) -> Result<DataSet> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.parquet");
        fs::write(&path, bytes).unwrap();
        DataSet::read(&[path], OnBadRow::Fail)
    }

    #[test]
    fn rows_of_pyarrow() {
        for name in [
            "rows_snappy.parquet",
            "rows_gzip.parquet",
            "rows_lz4.parquet",
            "rows_none.parquet",
        ] {
            let data = DataSet::read(&[fixture(name)], OnBadRow::Fail).unwrap();
            assert_eq!(data.rows.len(), 3, "{name}");
            let Content::Completion {
                prompt: Prompt::Messages(messages),
                references,
            } = &data.rows[0].content
            else {
                panic!("{:?}", data.rows[0]);
            };
            assert_eq!(
                (messages[0].role.as_str(), messages[0].content.as_str()),
                ("user", "Hi")
            );
            assert_eq!(references, &["Grüße"]);
            assert_eq!(
                data.rows[1].content,
                Content::Completion {
                    prompt: Prompt::Instruction {
                        instruction: "Add".into(),
                        input: "1+1".into()
                    },
                    references: vec!["2".into(), "two".into()],
                }
            );
            assert_eq!(data.rows[2].content, Content::Text("plain".into()));
            assert_eq!(data.rows[2].source.line, 3);
        }
    }

    #[test]
    fn what_cannot_be_read_is_named() {
        for (name, part) in [
            (
                "rows_zstd.parquet",
                "compression with zstd is not supported",
            ),
            (
                "rows_unknown.parquet",
                "no known shape has the columns `score`, `when`",
            ),
        ] {
            let error = DataSet::read(&[fixture(name)], OnBadRow::Skip).unwrap_err();
            assert!(matches!(error, Error::Data { .. }));
            assert!(error.to_string().contains(part), "{error}");
        }
        assert!(matches!(read_bytes(b""), Err(Error::Data { .. })));
        assert!(matches!(
            read_bytes(b"{\"prompt\": \"a\"}"),
            Err(Error::Data { .. })
        ));
    }

    #[test]
    fn damaged_files_do_not_bring_the_program_down() {
        let whole = fs::read(fixture("rows_snappy.parquet")).unwrap();
        for length in (0..whole.len()).step_by(97) {
            assert!(read_bytes(&whole[..length]).is_err());
        }
        for place in (0..whole.len()).step_by(41) {
            let mut bytes = whole.clone();
            bytes[place] ^= 0x55;
            // Whatever it says, it returns.
            let _ = read_bytes(&bytes);
        }
    }
}
