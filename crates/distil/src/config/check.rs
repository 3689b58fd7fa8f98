//! Second stage, validated: every typed value is held against the list of keys. An unknown key, a wrong
//! type, a value out of range and a key of another method are refused; paths become absolute. What a
//! combination of keys may be is decided later, where defaults are known.

use std::path::Path;

use toml::Value;

use super::document::{Document, Entry, Origin};
use super::keys::{self, Key, Kind, Preset};
use super::paths::{Bases, References, Refusal, absolute, model};
use super::suggest::{belongs, names_in, nearest, short, unknown};
use crate::Result;

/// Checks every entry, in the order of the file, and makes paths absolute.
///
/// # Errors
/// [`crate::Error::Config`] for the first entry that cannot stand.
pub(crate) fn check(document: &mut Document, bases: &Bases, references: References) -> Result<()> {
    let mut checked = Vec::with_capacity(document.entries.len());
    for entry in &document.entries {
        let key = find(document, entry)?;
        let base = match entry.origin {
            Origin::File { .. } => &bases.file,
            Origin::Override(_) => &bases.overrides,
        };
        let value = accept(key, &entry.value, base, references)
            .map_err(|(what, fix)| document.refuse(&entry.path, what, fix))?;
        checked.push(Entry {
            value,
            ..entry.clone()
        });
    }
    document.entries = checked;
    Ok(())
}

/// The key that an entry sets, for the method that the document chooses.
fn find(document: &Document, entry: &Entry) -> Result<&'static Key> {
    let mut candidates = keys::named(&entry.path).peekable();
    let Some(first) = candidates.peek().copied() else {
        return Err(unknown(document, entry));
    };
    let name = document.text("method.name");
    let Some(method) = name.filter(|name| keys::METHODS.contains(name)) else {
        // Without a valid name no owner can be told; the name is refused itself.
        return Ok(first);
    };
    let owners: Vec<String> = keys::named(&entry.path)
        .map(|key| key.owner.to_string())
        .collect();
    candidates
        .find(|key| belongs(key.owner, method))
        .ok_or_else(|| {
            document.refuse(
                &entry.path,
                format!("belongs to {}, not to `{method}`", owners.join(", ")),
                format!(
                    "remove it, or choose such a method; `{method}` has {}",
                    names_in("method", method)
                ),
            )
        })
}

/// The value in the form that the key has: numbers in range, paths absolute, one path as a list of one.
fn accept(key: &Key, value: &Value, base: &Path, references: References) -> Result<Value, Refusal> {
    let wrong = |what: &str| {
        let default = match key.default {
            Preset::Value(default) => format!(" (default {default})"),
            _ => String::new(),
        };
        (
            format!("{} {what}", short(value)),
            format!("allowed: {}{default}", key.kind),
        )
    };
    let text = || value.as_str().filter(|text| !text.trim().is_empty());
    match key.kind {
        Kind::Whole { low, high } => {
            let number = value
                .as_integer()
                .ok_or_else(|| wrong("is not a whole number"))?;
            let fits = u64::try_from(number).is_ok_and(|number| (low..=high).contains(&number));
            fits.then(|| value.clone())
                .ok_or_else(|| wrong("is out of range"))
        }
        Kind::Number(interval) => {
            let number = value
                .as_float()
                .or_else(|| value.as_integer().map(|whole| whole as f64));
            let number = number.ok_or_else(|| wrong("is not a number"))?;
            interval
                .contains(number)
                .then_some(Value::Float(number))
                .ok_or_else(|| wrong("is out of range"))
        }
        Kind::Switch => value
            .as_bool()
            .map(Value::Boolean)
            .ok_or_else(|| wrong("is neither true nor false")),
        Kind::Template => {
            let template = text().ok_or_else(|| wrong("is not a text"))?;
            is_template(template)
                .then(|| Value::from(template))
                .ok_or_else(|| wrong("is neither a known template nor a Jinja text with {{ … }}"))
        }
        Kind::Templates => {
            let list = value.as_array().ok_or_else(|| wrong("is not a list"))?;
            let all = list
                .iter()
                .all(|item| item.as_str().is_some_and(is_template));
            all.then(|| value.clone()).ok_or_else(|| {
                wrong("holds something that is neither a known template nor a Jinja text")
            })
        }
        Kind::Choice(names) => choice(value, names).ok_or_else(|| not_among(value, names, key)),
        Kind::Choices(names) => {
            let list = value.as_array().ok_or_else(|| wrong("is not a list"))?;
            if let Some(bad) = list.iter().find(|item| choice(item, names).is_none()) {
                return Err(not_among(bad, names, key));
            }
            let twice = list
                .iter()
                .enumerate()
                .any(|(at, item)| list.iter().take(at).any(|before| before == item));
            if twice {
                Err(wrong("names one twice"))
            } else {
                Ok(value.clone())
            }
        }
        Kind::Model => {
            let reference = text().ok_or_else(|| wrong("is not a model reference in quotes"))?;
            if references == References::Absolute {
                Ok(Value::from(reference))
            } else {
                model(reference, base)
            }
        }
        Kind::Path => text()
            .ok_or_else(|| wrong("is not a path in quotes"))
            .and_then(|path| absolute(path, base)),
        Kind::Paths => {
            let one = [value.clone()];
            let list = value.as_array().map_or(one.as_slice(), Vec::as_slice);
            let paths = list.iter().map(|item| {
                let path = item.as_str().filter(|path| !path.trim().is_empty());
                path.ok_or_else(|| wrong("is neither a path nor a list of paths, each in quotes"))
                    .and_then(|path| absolute(path, base))
            });
            Ok(Value::Array(paths.collect::<Result<_, _>>()?))
        }
        Kind::Layers => {
            let list = value.as_array().ok_or_else(|| wrong("is not a list"))?;
            let layers: Option<Vec<u32>> = list
                .iter()
                .map(|item| u32::try_from(item.as_integer()?).ok())
                .collect();
            let layers =
                layers.ok_or_else(|| wrong("holds something that is not a layer number"))?;
            let ascending = layers
                .windows(2)
                .all(|pair| matches!(pair, [a, b] if a < b));
            if layers.is_empty() || !ascending {
                Err(wrong(
                    "is empty, repeats a layer or is not in ascending order",
                ))
            } else {
                Ok(value.clone())
            }
        }
    }
}

fn is_template(text: &str) -> bool {
    matches!(text, "chat" | "alpaca") || text.contains("{{") || text.contains("{%")
}

fn choice(value: &Value, names: &[&str]) -> Option<Value> {
    value
        .as_str()
        .filter(|name| names.contains(name))
        .map(Value::from)
}

fn not_among(value: &Value, names: &[&str], key: &Key) -> Refusal {
    let near = value
        .as_str()
        .and_then(|name| nearest(name, names.iter().copied()));
    let hint = match value.as_str() {
        // Methods elsewhere, one loss of a method here.
        Some(loss @ ("dpo" | "ipo" | "cpo" | "simpo")) if key.path == "method.name" => {
            format!("it is name = \"dpkd\" with loss = \"{loss}\"; ")
        }
        _ => near
            .map(|name| format!("did you mean \"{name}\"? "))
            .unwrap_or_default(),
    };
    (
        format!("{} is not one of its values", short(value)),
        format!("{hint}allowed: {}", key.kind),
    )
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;

    /// The checked value of `path`, or the error.
    fn checked(text: &str, path: &str) -> Result<String, String> {
        let mut document =
            Document::new(text, Path::new("run.toml"), &[]).map_err(|error| error.to_string())?;
        let bases = Bases {
            file: PathBuf::from("/base"),
            overrides: PathBuf::from("/here"),
        };
        check(&mut document, &bases, References::MayBeRelative)
            .map_err(|error| error.to_string())?;
        Ok(document
            .entries
            .iter()
            .find(|entry| entry.path == path)
            .unwrap()
            .value
            .to_string())
    }

    #[track_caller]
    fn refused(text: &str, parts: &[&str]) {
        let error = checked(text, "").unwrap_err();
        for part in parts {
            assert!(error.contains(part), "`{part}` is not in: {error}");
        }
    }

    #[test]
    fn misspelt_keys_and_tables_get_a_suggestion_and_the_list() {
        refused(
            "[train]\nlerning_rate = 1e-5\n",
            &[
                "run.toml:2: train.lerning_rate",
                "did you mean `learning_rate`?",
                "[train] has `steps`, `epochs`",
            ],
        );
        refused(
            "[trian]\nsteps = 1\n",
            &[
                "run.toml:1: trian: there is no such table",
                "did you mean `train`?",
                "[teacher], [student]",
            ],
        );
        refused("sed = 1\n", &["run.toml:1: sed", "did you mean `seed`?"]);
        refused(
            "learning_rate = 1e-5\n",
            &["did you mean `train.learning_rate`?"],
        );
        refused(
            "[method]\nname = \"kd\"\nce_shar = 0.5\n",
            &[
                "did you mean `ce_share`?",
                "[method] has `name`, `divergence`",
            ],
        );
        refused(
            "[student.prune]\nlayer = 2\n",
            &[
                "did you mean `layers`?",
                "[student.prune] has `layers`, `keep`",
            ],
        );
        refused(
            "student = \"x\"\n",
            &["student: is a table, not a value", "`prune.layers`"],
        );
        refused(
            "[[train]]\nsteps = 3\n",
            &["train: is a table, not a value"],
        );
        refused(
            "xyzzy = 1\n",
            &["there is no such key; the file has `seed` and the tables"],
        );
    }

    #[test]
    fn the_first_error_in_the_file_is_the_one_reported() {
        refused(
            "[train]\nzzz = 1\naaa = 1\n[data]\nbbb = 1\n",
            &["run.toml:2: train.zzz"],
        );
    }

    #[test]
    fn keys_of_other_methods_are_refused_by_name() {
        refused(
            "[method]\nname = \"kd\"\nbeta = 0.1\n",
            &[
                "run.toml:3: method.beta: belongs to `dpkd`, not to `kd`",
                "`kd` has `name`, `divergence`",
            ],
        );
        refused(
            "[method]\nname = \"sft\"\ntop_k = 1\n",
            &["belongs to `kd`, `seqkd`, `gkd`", "not to `sft`"],
        );
        refused(
            "[method]\nname = \"seqkd\"\nce_share = 1\n",
            &["`seqkd` has `name`, `samples_per_prompt`"],
        );
    }

    #[test]
    fn types_and_ranges() {
        refused(
            "[train]\nsteps = 3.5\n",
            &["run.toml:2: train.steps: 3.5 is not a whole number; allowed: whole number from 1"],
        );
        refused("[train]\nsteps = -1\n", &["-1 is out of range"]);
        refused("[train]\nsteps = \"3\"\n", &["\"3\" is not a whole number"]);
        refused(
            "[train]\nlearning_rate = 2.0\n",
            &["2.0 is out of range; allowed: number > 0 and ≤ 1 (default 1e-5)"],
        );
        refused("[train]\nlearning_rate = 0\n", &["out of range"]);
        refused("[train]\nlearning_rate = nan\n", &["nan is out of range"]);
        refused("[train]\nclip_norm = inf\n", &["inf is out of range"]);
        refused(
            "[method]\nname = \"dpkd\"\nlabel_smoothing = 0.5\n",
            &["allowed: number ≥ 0 and < 0.5"],
        );
        refused("[train]\nkeep_best = 1\n", &["1 is neither true nor false"]);
        refused(
            "[train]\nschedule = \"cosin\"\n",
            &["did you mean \"cosine\"?"],
        );
        refused(
            "[method]\nname = \"dpkd\"\nce_share = 0.1\nform = \"tokn\"\n",
            &["run.toml:4: method.form", "did you mean \"token\"?"],
        );
        refused(
            "[method]\nname = \"dpdk\"\nbeta = 1\n",
            &[
                "run.toml:2: method.name",
                "\"dpdk\" is not one of its values",
                "allowed: `\"sft\"`",
            ],
        );
        refused(
            "[method]\nname = \"dpo\"\n",
            &[
                "run.toml:2: method.name",
                "name = \"dpkd\" with loss = \"dpo\"",
            ],
        );
        refused(
            "[data]\ntemplate = \"chatt\"\n",
            &["\"chatt\" is neither a known template"],
        );
        refused(
            "[eval]\nmetrics = [\"rouge_l\", \"rouge_l\"]\n",
            &["names one twice"],
        );
        refused(
            "[eval]\nmetrics = [\"rougel\"]\n",
            &["did you mean \"rouge_l\"?"],
        );
        refused(
            "[student]\nprune.keep = [0, 2, 2]\n",
            &["[0, 2, 2] is empty, repeats a layer"],
        );
        refused("[student]\nprune.keep = []\n", &["is empty"]);
        refused("[student]\nprune.keep = [0, -1]\n", &["not a layer number"]);
        refused(
            "[data]\ntrain = [\"a\", 5]\n",
            &["neither a path nor a list of paths"],
        );
        refused("[data]\neval = \"\"\n", &["is not a path"]);
        assert_eq!(
            checked("[train]\nepochs = 2\n", "train.epochs"),
            Ok("2.0".into())
        );
    }

    #[test]
    fn paths_become_absolute_and_names_stay() {
        assert_eq!(
            checked("[data]\ntrain = \"a.jsonl\"\n", "data.train"),
            Ok("[\"/base/a.jsonl\"]".into())
        );
        assert_eq!(
            checked("[data]\ntrain = [\"../a\", \"/b\"]\n", "data.train"),
            Ok("[\"/base/../a\", \"/b\"]".into())
        );
        for (reference, expected) in [
            ("smollm2-135m-instruct", "smollm2-135m-instruct"),
            ("hf:org/name@main", "hf:org/name@main"),
            ("pypi:llm==1", "pypi:llm==1"),
            ("./here", "/base/./here"),
            ("x.gguf", "/base/x.gguf"),
            ("/abs/model", "/abs/model"),
        ] {
            let text = format!("[teacher]\nmodel = \"{reference}\"\n");
            assert_eq!(
                checked(&text, "teacher.model"),
                Ok(format!("\"{expected}\""))
            );
        }
        refused(
            "[teacher]\nmodel = \"org/name\"\n",
            &["there is no `org/name` in /base", "write hf:org/name"],
        );
    }
}
