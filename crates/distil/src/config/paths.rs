//! Relative paths become absolute, so that a run can be resumed from any folder.

use std::path::{Path, PathBuf, is_separator};

use toml::Value;

/// What is wrong, and what to do.
pub(crate) type Refusal = (String, String);

/// Folders that relative paths start from.
#[derive(Debug)]
pub(crate) struct Bases {
    /// Of paths in the file: its folder.
    pub(crate) file: PathBuf,
    /// Of paths in overrides: the current folder, as in any command line.
    pub(crate) overrides: PathBuf,
}

/// What to do with a model reference.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum References {
    /// A reference may be a path, relative to the file's folder.
    MayBeRelative,
    /// Paths are absolute already (a resolved file); every other reference is a name and stays one.
    Absolute,
}

/// `path`, from `base` if it is relative.
pub(crate) fn absolute(path: &str, base: &Path) -> Result<Value, Refusal> {
    let joined = base.join(path);
    let text = joined.to_str().map(Value::from);
    text.ok_or_else(|| {
        let what = format!(
            "`{}` is not valid Unicode, so it cannot be written to a run's config.toml",
            joined.display()
        );
        (
            what,
            "rename the folder, or move the files to another one".into(),
        )
    })
}

/// A path becomes absolute, a name stays as it is. A bare word is a path only where something of that
/// name lies beside the file.
pub(crate) fn model(reference: &str, base: &Path) -> Result<Value, Refusal> {
    if ["hf:", "pypi:"]
        .iter()
        .any(|scheme| reference.starts_with(scheme))
    {
        return Ok(Value::from(reference));
    }
    let exists = base.join(reference).exists();
    let parts = reference.split(is_separator).count();
    let is_path = Path::new(reference).is_absolute()
        || reference.starts_with('.')
        || reference.ends_with(".gguf")
        || parts > 2;
    if exists || is_path {
        return absolute(reference, base);
    }
    if parts == 2 {
        let what = format!("there is no `{reference}` in {}", base.display());
        return Err((
            what,
            format!(
                "write hf:{reference} for a model on the Hugging Face Hub, or correct the path"
            ),
        ));
    }
    Ok(Value::from(reference))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_model_folder_beside_the_file_is_found_by_its_bare_name() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("mine")).unwrap();
        let expected = folder.path().join("mine");
        assert_eq!(
            model("mine", folder.path()).unwrap().as_str(),
            expected.to_str()
        );
        assert_eq!(
            model("other", folder.path()).unwrap().as_str(),
            Some("other")
        );
    }
}
