//! A run's folder: who may write it, and its files.

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use distil_model::config::Config as Shape;
use distil_model::files;
use serde::Serialize;
use serde_json::{Value, json};

use crate::config::Config;
use crate::data::counts::Counts;
use crate::error::{Error, Result};
use crate::eval::evaluate::EvalSet;
use crate::lock::lock;

/// A run's folder, locked for this process.
#[derive(Debug)]
pub struct Folder {
    path: PathBuf,
    /// Whether this process made it.
    new: bool,
    _lock: File,
}

impl Folder {
    /// Makes the folder of a new run, or opens that of a run to be resumed, and writes or checks
    /// its `config.toml`.
    ///
    /// # Errors
    /// The folder exists and the run is not to be resumed; it belongs to another configuration;
    /// another process works in it; it cannot be written.
    pub fn open(path: &Path, config: &Config, resume: bool) -> Result<Self> {
        // A kill in a run's first moments leaves nothing but its lock and half a configuration.
        let begun = |name: &std::ffi::OsStr| name != ".lock" && name != ".config.toml.partial";
        let exists = fs::read_dir(path)
            .is_ok_and(|entries| entries.flatten().any(|entry| begun(&entry.file_name())));
        let resolved = path.join("config.toml");
        if exists && !resume {
            return Err(Error::Run {
                path: path.to_owned(),
                what: "the output folder exists already".into(),
                fix: "continue that run with --resume, or choose another --out".into(),
            });
        }
        if exists && !resolved.exists() {
            return Err(Error::Run {
                path: path.to_owned(),
                what: "there is no config.toml, so this is not a run's folder".into(),
                fix: "choose another --out".into(),
            });
        }
        fs::create_dir_all(path).map_err(|source| Error::Write {
            path: path.to_owned(),
            source,
        })?;
        let lock = lock(path)?;
        match exists {
            true => same_configuration(&resolved, config)?,
            false => files::write_whole(&resolved, config.to_toml().as_bytes())?,
        }
        Ok(Self {
            path: path.to_owned(),
            new: !exists,
            _lock: lock,
        })
    }

    /// Removes a folder that this process made and in which nothing has been done yet, so that the
    /// user can mend the input and try again with the same --out.
    pub(crate) fn forget(&self) {
        let work = [
            "checkpoints",
            "metrics.jsonl",
            "teacher-samples.partial.jsonl",
            "teacher-samples.jsonl",
            "student-samples.partial.jsonl",
            "student-samples.jsonl",
            "teacher-states.partial.f32",
            "teacher-states.f32",
        ];
        if !self.new || work.iter().any(|name| self.path.join(name).exists()) {
            return;
        }
        let begun = [
            "config.toml",
            "environment.json",
            "teacher-samples.key",
            ".lock",
        ];
        for name in begun {
            let _ = fs::remove_file(self.path.join(name));
        }
        // Fails where the user keeps something else in it, which is right.
        let _ = fs::remove_dir(&self.path);
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The student that the run ends with.
    pub fn student(&self) -> PathBuf {
        self.path.join("student")
    }

    /// Writes a JSON file whole.
    pub(crate) fn write_json(&self, name: &str, value: &Value) -> Result<()> {
        let text = format!("{value:#}\n");
        Ok(files::write_whole(&self.path.join(name), text.as_bytes())?)
    }

    /// Checks that a resumed run still has the inputs it was started with.
    ///
    /// # Errors
    /// A file of data or weights has changed: the run would end with neither the old result nor
    /// that of the new input.
    pub(crate) fn same_inputs(&self, sha256: &[(String, String)]) -> Result<()> {
        let text = fs::read_to_string(self.path.join("environment.json")).unwrap_or_default();
        let known: Value = serde_json::from_str(&text).unwrap_or_default();
        for (name, digest) in sha256 {
            let before = known["sha256"].get(name).and_then(Value::as_str);
            if before.is_some_and(|before| before != digest) {
                return Err(Error::Run {
                    path: self.path.clone(),
                    what: format!("{name} has changed since the run was started"),
                    fix: "restore the file, or start a new run in another --out".into(),
                });
            }
        }
        Ok(())
    }

    /// Adds a line to a JSONL file.
    pub(crate) fn append(&self, name: &str, line: &impl Serialize) -> Result<()> {
        let path = self.path.join(name);
        let text = serde_json::to_string(line).unwrap_or_default() + "\n";
        let file = OpenOptions::new().create(true).append(true).open(&path);
        file.and_then(|mut file| file.write_all(text.as_bytes()))
            .map_err(|source| Error::Write { path, source })
    }

    /// Drops the lines of a JSONL file that are later than `step` (all, if there is none), and half
    /// a line at its end.
    pub(crate) fn keep_until(&self, name: &str, step: Option<usize>) -> Result<()> {
        let path = self.path.join(name);
        let Ok(bytes) = fs::read(&path) else {
            return Ok(());
        };
        let text = String::from_utf8_lossy(&bytes);
        let kept: String = text
            .lines()
            .filter(|line| {
                let line: Option<Value> = serde_json::from_str(line).ok();
                let of = line
                    .as_ref()
                    .and_then(|l| l.get("step"))
                    .and_then(Value::as_u64);
                of.zip(step).is_some_and(|(of, step)| of <= step as u64)
            })
            .flat_map(|line| [line, "\n"])
            .collect();
        match kept == text {
            true => Ok(()),
            false => Ok(files::write_whole(&path, kept.as_bytes())?),
        }
    }
}

fn same_configuration(path: &Path, config: &Config) -> Result<()> {
    let text = fs::read_to_string(path).map_err(|source| Error::Read {
        path: path.to_owned(),
        source,
    })?;
    let new = config.to_toml();
    // An older version's file lacks the keys that are newer; they have their defaults.
    if Config::from_resolved(path).is_ok_and(|before| before == *config) {
        return Ok(());
    }
    let difference = text.lines().zip(new.lines()).find(|(old, new)| old != new);
    let what = match difference {
        Some((old, new)) => format!("the run was started with `{old}`, not `{new}`"),
        None if text.lines().count() != new.lines().count() => {
            "the run was started with another configuration".to_owned()
        }
        None => return Ok(()),
    };
    Err(Error::Run {
        path: path.to_owned(),
        what,
        fix: "resume with the run's own config.toml, or start a new run in another --out".into(),
    })
}

/// What a run starts from, as far as its folder says it.
pub(crate) struct Inputs<'a> {
    /// Name and sha256 of every input file.
    pub(crate) sha256: Vec<(String, String)>,
    /// What became of the training rows.
    pub(crate) counts: &'a Counts,
    /// Held-out rows.
    pub(crate) eval: Option<&'a EvalSet>,
    /// The teacher's shape.
    pub(crate) teacher: Option<&'a Shape>,
    /// The student's shape.
    pub(crate) student: &'a Shape,
}

/// Facts about the machine and the inputs that decide a run's numbers, and when it began.
pub(crate) fn environment(config: &Config, inputs: Inputs<'_>) -> Value {
    let sha256: serde_json::Map<String, Value> = inputs
        .sha256
        .into_iter()
        .map(|(name, digest)| (name, digest.into()))
        .collect();
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    let used = inputs
        .counts
        .kept
        .min(config.data.limit.unwrap_or(usize::MAX));
    let network = |shape: &Shape| json!({"layers": shape.layers, "width": shape.width, "parameters": shape.parameters()});
    json!({
        "version": env!("CARGO_PKG_VERSION"),
        "commit": option_env!("DISTIL_COMMIT"),
        "os": std::env::consts::OS,
        "architecture": std::env::consts::ARCH,
        "cpu": cpu_name(),
        "cores": std::thread::available_parallelism().map_or(1, usize::from),
        "device": "cpu (flex)",
        "seed": config.seed,
        "started_at": now.map_or(0, |time| time.as_secs()),
        "models": {
            "teacher": inputs.teacher.map(network),
            "student": network(inputs.student),
        },
        "rows": {"read": inputs.counts.rows, "used": used},
        "held_out": inputs.eval.map(|set| {
            json!({"prompts": set.prompts.len(), "references": set.examples.len()})
        }),
        "sha256": sha256,
    })
}

/// The processor's name where the system tells it.
fn cpu_name() -> Option<String> {
    let text = fs::read_to_string("/proc/cpuinfo").ok()?;
    let line = text.lines().find(|line| line.starts_with("model name"))?;
    Some(line.split_once(':')?.1.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_of_a_version_with_fewer_keys_is_resumed_and_another_run_is_not() {
        let config = |text: &str| {
            let text = format!(
                "teacher.model = \"x.gguf\"\nstudent.prune.layers = 1\ndata.train = \"a.jsonl\"\n\
                 method.name = \"kd\"\n{text}"
            );
            Config::parse(&text, Path::new("/base/run.toml"), &[]).unwrap()
        };
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("run");
        drop(Folder::open(&path, &config(""), false).unwrap());
        let file = path.join("config.toml");
        let text = fs::read_to_string(&file).unwrap();
        let newer = |line: &&str| line.contains("cache = ") || line.contains("precision = ");
        assert_eq!(text.lines().filter(newer).count(), 4);
        let older: Vec<&str> = text.lines().filter(|line| !newer(line)).collect();
        fs::write(&file, older.join("\n") + "\n").unwrap();
        drop(Folder::open(&path, &config(""), true).unwrap());
        for change in [
            "train.batch = 7",
            "teacher.precision = \"bf16\"",
            "student.precision = \"bf16\"",
        ] {
            let other = Folder::open(&path, &config(change), true).unwrap_err();
            assert!(matches!(other, Error::Run { .. }), "{other}");
        }
    }
}
