//! A row by its file and line.

use std::fmt;
use std::path::PathBuf;

use serde::{Serialize, Serializer};

use crate::data::read::DataSet;
use crate::data::row::RowSource;

/// Where a row stands. Written for people as `folder/file:line`, in JSON with the whole path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// The file.
    pub path: PathBuf,
    /// Line of the file, or row number in formats without lines, from 1.
    pub line: usize,
}

impl Place {
    /// Of a row's source.
    pub(super) fn new(data: &DataSet, source: RowSource) -> Self {
        Self {
            path: data.files.get(source.file).cloned().unwrap_or_default(),
            line: source.line,
        }
    }

    /// Of row number `row` of the data set.
    pub(super) fn of_row(data: &DataSet, row: usize) -> Option<Self> {
        Some(Self::new(data, data.rows.get(row)?.source))
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Files of one name are told apart by their folders; the configuration has the whole paths.
        let folder = self.path.parent().and_then(|folder| folder.file_name());
        if let Some(folder) = folder {
            write!(f, "{}/", folder.to_string_lossy())?;
        }
        let name = self.path.file_name().unwrap_or(self.path.as_os_str());
        write!(f, "{}:{}", name.to_string_lossy(), self.line)
    }
}

impl Serialize for Place {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(&format_args!("{}:{}", self.path.display(), self.line))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn people_see_the_end_of_the_path_and_scripts_all_of_it() {
        for (path, shown) in [
            ("/a/b/c.jsonl", "b/c.jsonl:7"),
            ("c.jsonl", "c.jsonl:7"),
            ("/c.jsonl", "c.jsonl:7"),
        ] {
            let place = Place {
                path: path.into(),
                line: 7,
            };
            assert_eq!(place.to_string(), shown);
            let json = serde_json::to_value(&place).unwrap();
            assert_eq!(json, format!("{path}:7"));
        }
    }
}
