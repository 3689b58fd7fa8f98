//! Python for the gate: packages at fixed versions in a folder of their own, and scripts that use them.
//!
//! The interpreter is `DISTIL_PYTHON`, else the system's, as for models in wheels. pip is asked once; a
//! folder that has the packages is used again.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Installs these packages into `folder`, unless they are in it already.
pub(crate) fn packages(folder: &Path, packages: &[&str]) -> Result<PathBuf, String> {
    let list = folder.join("installed.txt");
    let wanted = packages.join("\n");
    if fs::read_to_string(&list).is_ok_and(|installed| installed == wanted) {
        return Ok(folder.to_owned());
    }
    // What an interrupted installation left would be taken for whole.
    if folder.exists() {
        fs::remove_dir_all(folder).map_err(|error| format!("{}: {error}", folder.display()))?;
    }
    println!("   pip install {}", packages.join(" "));
    let mut pip = Command::new(interpreter());
    pip.args([
        "-m",
        "pip",
        "install",
        "--quiet",
        "--disable-pip-version-check",
    ])
    .args(["--only-binary", ":all:", "--target"])
    .arg(folder)
    .args(packages)
    .stdin(Stdio::null());
    let repeat = format!("{pip:?}");
    match pip.status() {
        Ok(status) if status.success() => {}
        Ok(_) => {
            return Err(format!(
                "{repeat} (pip cannot install the packages that read the exports back: it needs a \
                 package index or a mirror of one)"
            ));
        }
        Err(error) => {
            return Err(format!(
                "{repeat} ({error}: install Python, or name it in DISTIL_PYTHON)"
            ));
        }
    }
    fs::write(&list, wanted).map_err(|error| format!("{}: {error}", list.display()))?;
    Ok(folder.to_owned())
}

/// A script of this repository.
pub(crate) fn script(path: &str) -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.parent().unwrap_or(here).join(path)
}

/// Whether the script ends well, with these packages and in this folder.
pub(crate) fn run(packages: &Path, script: &Path, arguments: &[&str], folder: &Path) -> bool {
    let status = Command::new(interpreter())
        .arg(script)
        .args(arguments)
        .env("PYTHONPATH", packages)
        .current_dir(folder)
        .stdin(Stdio::null())
        .status();
    status.is_ok_and(|status| status.success())
}

fn interpreter() -> OsString {
    let usual = if cfg!(windows) { "python" } else { "python3" };
    std::env::var_os("DISTIL_PYTHON")
        .filter(|value| !value.is_empty())
        .unwrap_or_else(|| usual.into())
}
