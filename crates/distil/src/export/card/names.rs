//! What a card calls models and files: no path of the machine, and the hub's names where they are known.

use std::path::Path;

use distil_model::reference::catalogue;
use toml::{Table, Value};

use crate::config::{KEYS, Kind};
use crate::record::Record;

/// A model reference without the folders that it is in; of a schedule, with the stage.
pub(super) fn model(reference: &str) -> String {
    match stage(reference) {
        Some(stage) => format!("stages/{stage}/student"),
        None if Path::new(reference).is_absolute() => file(reference),
        None => reference.to_owned(),
    }
}

/// A path's last part.
pub(super) fn file(path: &str) -> String {
    let name = Path::new(path).file_name();
    name.map_or_else(|| path.to_owned(), |n| n.to_string_lossy().into_owned())
}

/// The model's name on the Hugging Face hub, if the reference says it.
pub(super) fn on_the_hub(reference: &str) -> Option<String> {
    let entry = catalogue().iter().find(|entry| entry.name == reference);
    let mut references = match entry {
        Some(entry) => entry
            .sources
            .iter()
            .map(|source| source.reference)
            .collect(),
        None => vec![reference],
    };
    references.retain(|reference| reference.starts_with("hf:"));
    let name = references.first()?.strip_prefix("hf:")?;
    Some(name.split('@').next().unwrap_or(name).to_owned())
}

/// The licence of a model of the catalogue.
pub(super) fn licence(reference: &str) -> Option<&'static str> {
    let entry = catalogue().iter().find(|entry| entry.name == reference)?;
    Some(entry.licence)
}

/// The stage whose student this reference is, `1-kd`.
pub(super) fn stage(reference: &str) -> Option<String> {
    let folder = Path::new(reference).parent()?;
    let inside = Path::new(reference).ends_with("student") && folder.parent()?.ends_with("stages");
    let name = folder.file_name()?.to_string_lossy().into_owned();
    inside.then_some(name)
}

/// The paths of a configuration's key: one, several or none.
pub(super) fn paths<'a>(record: &'a Record, key: &str) -> Vec<&'a str> {
    match record.config.get("data").and_then(|data| data.get(key)) {
        Some(Value::String(path)) => vec![path],
        Some(Value::Array(paths)) => paths.iter().filter_map(Value::as_str).collect(),
        _ => Vec::new(),
    }
}

/// The configuration as TOML, paths without their folders.
pub(super) fn configuration(record: &Record) -> String {
    let mut config = record.config.clone();
    for key in KEYS {
        let shorten: fn(&str) -> String = match key.kind {
            Kind::Model => model,
            Kind::Path | Kind::Paths => file,
            _ => continue,
        };
        let Some((table, name)) = key.path.split_once('.') else {
            continue;
        };
        let table: Option<&mut Table> = config.get_mut(table).and_then(Value::as_table_mut);
        match table.and_then(|table| table.get_mut(name)) {
            Some(Value::String(text)) => *text = shorten(text),
            Some(Value::Array(values)) => {
                for value in values {
                    if let Value::String(text) = value {
                        *text = shorten(text);
                    }
                }
            }
            _ => {}
        }
    }
    toml::to_string(&config).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn models_are_called_by_their_public_names() {
        let hub = |reference: &str| on_the_hub(reference);
        assert_eq!(hub("hf:a/b@main").as_deref(), Some("a/b"));
        assert_eq!(
            hub("smollm2-135m-instruct").as_deref(),
            Some("HuggingFaceTB/SmolLM2-135M-Instruct")
        );
        assert_eq!(licence("smollm2-135m-instruct"), Some("Apache-2.0"));
        assert_eq!(hub("pypi:a==1"), None);
        assert_eq!(licence("hf:a/b"), None);
        assert_eq!(stage("runs/x/stages/1-kd/student").as_deref(), Some("1-kd"));
        assert_eq!(stage("runs/x/student"), None);
    }

    #[cfg(unix)]
    #[test]
    fn no_folder_of_the_machine_is_named() {
        assert_eq!(model("/home/someone/models/teacher"), "teacher");
        assert_eq!(model("hf:a/b"), "hf:a/b");
        assert_eq!(model("/srv/x/stages/1-kd/student"), "stages/1-kd/student");
        let home = tempfile::tempdir().unwrap();
        let config = "seed = 0\n[teacher]\nmodel = \"/home/someone/t.gguf\"\n\
                      [data]\ntrain = [\"/home/someone/a.jsonl\", \"/srv/b.jsonl\"]\n\
                      eval = \"/home/someone/c.jsonl\"\ntemplate = \"/think {{ prompt }}\"\n";
        super::super::super::tests::run(home.path(), config, "");
        let record = Record::read(home.path()).unwrap();
        let text = configuration(&record);
        assert!(!text.contains("someone") && !text.contains("srv"), "{text}");
        for part in [
            "\"t.gguf\"",
            "\"a.jsonl\"",
            "\"b.jsonl\"",
            "\"c.jsonl\"",
            "/think",
        ] {
            assert!(text.contains(part), "{part}: {text}");
        }
        assert_eq!(paths(&record, "eval"), ["/home/someone/c.jsonl"]);
        assert_eq!(paths(&record, "corpus").len(), 0);
    }
}
