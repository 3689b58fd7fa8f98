//! Suites: several sets of rows to measure a model on, named in one file.
//!
//! ```toml
//! [[set]]
//! name = "dolly"                      # of its files and its column
//! data = "dolly/test.jsonl"           # relative paths start from this file's folder
//! references = "dolly/answers.jsonl"  # optional: good answers in a file of their own, joined by question_id
//! template = "chat"                   # optional, like what follows: else as on the command line
//! max_new_tokens = 256
//! rows = 500                          # the first so many
//! ```

use std::fs;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use crate::error::{Error, Result};

/// A set of a suite.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SuiteSet {
    /// What it is called, in file names too.
    pub name: String,
    /// The file of its rows.
    pub data: PathBuf,
    /// The file of good answers to them, where they have one of their own; joined by `question_id`.
    pub references: Option<PathBuf>,
    /// How its rows become prompts.
    pub template: Option<String>,
    /// Length limit of answers, in tokens.
    pub max_new_tokens: Option<usize>,
    /// The first so many rows.
    pub rows: Option<usize>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Suite {
    set: Vec<SuiteSet>,
}

/// The sets of a suite, in the order of its file.
///
/// # Errors
/// [`Error::Read`] if the file cannot be read; [`Error::Config`] if it is no suite, or a set is without
/// sense.
pub fn read(path: &Path) -> Result<Vec<SuiteSet>> {
    let text = fs::read_to_string(path).map_err(|source| Error::Read {
        path: path.to_owned(),
        source,
    })?;
    let refuse = |place: String, what: String, fix: &str| Error::Config {
        place,
        what,
        fix: fix.to_owned(),
    };
    let suite: Suite = toml::from_str(&text).map_err(|error| {
        let line = error.span().and_then(|span| text.get(..span.start));
        let line = line.map_or(1, |before| before.matches('\n').count() + 1);
        refuse(
            format!("{}:{line}", path.display()),
            error.message().to_owned(),
            "write [[set]] tables with `name` and `data`, and `references`, `template`, \
             `max_new_tokens` and `rows` where wanted",
        )
    })?;
    let folder = path.parent().unwrap_or(Path::new(""));
    let mut sets: Vec<SuiteSet> = Vec::new();
    for (index, mut set) in suite.set.into_iter().enumerate() {
        let place = format!("{}: set {} ({:?})", path.display(), index + 1, set.name);
        let plain = |c: char| c.is_alphanumeric() || "-_.".contains(c);
        if set.name.is_empty() || set.name.starts_with('.') || !set.name.chars().all(plain) {
            let what = "the name is no part of a file's name".to_owned();
            return Err(refuse(place, what, "use letters, digits, `-` and `_`"));
        }
        if sets.iter().any(|other| other.name == set.name) {
            let what = "another set has this name".to_owned();
            return Err(refuse(place, what, "give each set a name of its own"));
        }
        if set.max_new_tokens == Some(0) || set.rows == Some(0) {
            let what = "`max_new_tokens` or `rows` is 0".to_owned();
            return Err(refuse(place, what, "give at least 1, or leave the key out"));
        }
        set.data = folder.join(&set.data);
        set.references = set.references.map(|path| folder.join(path));
        sets.push(set);
    }
    match sets.is_empty() {
        false => Ok(sets),
        true => Err(refuse(
            path.display().to_string(),
            "the suite has no set".into(),
            "write at least one [[set]]",
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Vec<SuiteSet>> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("suite.toml");
        fs::write(&path, text).unwrap();
        let sets = read(&path)?;
        let within = |path: PathBuf| {
            let inner = path.strip_prefix(folder.path()).map(Path::to_owned);
            inner.unwrap_or(path)
        };
        let relative = |set: SuiteSet| SuiteSet {
            data: within(set.data),
            references: set.references.map(within),
            ..set
        };
        Ok(sets.into_iter().map(relative).collect())
    }

    #[test]
    fn paths_start_from_the_file() {
        let text = "[[set]]\nname = \"a\"\ndata = \"x/a.jsonl\"\nreferences = \"y.jsonl\"\n\
                    [[set]]\nname = \"b\"\ndata = \"/b.jsonl\"\nrows = 3\ntemplate = \"alpaca\"\n";
        let sets = parse(text).unwrap();
        assert_eq!(sets[0].data, Path::new("x/a.jsonl"));
        assert_eq!((sets[0].rows, sets[0].max_new_tokens), (None, None));
        assert_eq!(sets[0].references.as_deref(), Some(Path::new("y.jsonl")));
        assert_eq!(sets[1].references, None);
        assert_eq!(sets[1].data, Path::new("/b.jsonl"));
        assert_eq!(
            (sets[1].rows, sets[1].template.as_deref()),
            (Some(3), Some("alpaca"))
        );
    }

    #[test]
    fn what_is_no_suite() {
        let set = "[[set]]\nname = \"a\"\ndata = \"a.jsonl\"\n";
        for (text, expected) in [
            (String::new(), "missing field `set`"),
            ("set = []".into(), "no set"),
            (
                format!("{set}row = 3\n"),
                "suite.toml:4: unknown field `row`",
            ),
            (format!("{set}rows = 0\n"), "is 0"),
            (format!("{set}{set}"), "another set has this name"),
            (set.replace("\"a\"", "\"../a\""), "no part of a file's name"),
            ("[[set]]\nname = \"a\"\n".into(), "missing field `data`"),
            ("[[set".into(), "suite.toml:1"),
        ] {
            let error = parse(&text).unwrap_err();
            assert!(error.to_string().contains(expected), "{error} / {expected}");
            assert!(error.is_input());
        }
    }

    /// The one that users copy.
    #[test]
    fn the_example_is_a_suite() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../examples/suite.toml");
        let sets = read(Path::new(path)).unwrap();
        assert!(sets.iter().any(|set| set.name == "vicuna"));
    }
}
