//! The folder that keeps fetched models.
//!
//! ```text
//! <cache>/hf/<org>--<name>/<commit>/            a model: its files and distil-source.json
//! <cache>/hf/<org>--<name>/<commit>.partial/    the same while it is fetched
//! <cache>/hf/<org>--<name>/refs/<revision>      the commit a revision stood for
//! <cache>/pypi/<package>==<version>/            a model out of a wheel
//! ```
//!
//! A folder gets its final name by one rename after everything in it was checked and flushed, so
//! what has that name is whole. Writers hold an exclusive lock of the operating system on
//! `<folder>.lock`; it vanishes with the process that held it.

use std::ffi::OsString;
use std::fs::{self, File, TryLockError};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::Progress;
use crate::error::{ModelError, Result};

/// Name of the file that says where a cached model came from and what belongs to it.
const RECORD: &str = "distil-source.json";

/// A model in the cache.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CachedModel {
    /// Where it came from: an `hf:` reference with its commit, or a `pypi:` reference.
    pub reference: String,
    /// The folder or `.gguf` file, ready to open.
    pub path: PathBuf,
    /// Size of all its files in bytes.
    pub bytes: u64,
}

/// What distil knows of a folder in the cache.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Record {
    /// The reference that yields the same bytes again.
    pub(crate) reference: String,
    /// The `.gguf` file inside the folder, or nothing if the folder itself is the model.
    pub(crate) gguf: Option<String>,
    /// All files of the model.
    pub(crate) files: Vec<RecordedFile>,
}

/// A file of a cached model.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct RecordedFile {
    /// Name inside the folder.
    pub(crate) name: String,
    /// Size in bytes.
    pub(crate) bytes: u64,
}

impl Record {
    /// What is to be opened, for a model in `folder`.
    pub(crate) fn model(&self, folder: &Path) -> PathBuf {
        match &self.gguf {
            Some(name) => folder.join(name),
            None => folder.to_owned(),
        }
    }
}

/// Lists the models that are whole in the cache, sorted by reference.
///
/// # Errors
/// No cache folder can be determined, or it cannot be read. A cache that does not exist is empty.
pub fn cached() -> Result<Vec<CachedModel>> {
    list(&folder(&|name| std::env::var_os(name))?)
}

/// The cache folder: `DISTIL_CACHE`, else the place the platform has for caches.
pub(crate) fn folder(variable: &dyn Fn(&str) -> Option<OsString>) -> Result<PathBuf> {
    let set = |name: &str| {
        variable(name)
            .filter(|value| !value.is_empty())
            .map(PathBuf::from)
    };
    let home = || set("HOME").filter(|path| path.is_absolute());
    let found = if let Some(path) = set("DISTIL_CACHE") {
        Some(std::path::absolute(&path).map_err(|source| ModelError::Read { path, source })?)
    } else if cfg!(windows) {
        set("LOCALAPPDATA").map(|path| path.join("distil").join("cache"))
    } else if cfg!(target_os = "macos") {
        home().map(|path| path.join("Library/Caches/distil"))
    } else {
        // A relative XDG_CACHE_HOME is invalid and to be ignored (XDG Base Directory Specification).
        set("XDG_CACHE_HOME")
            .filter(|path| path.is_absolute())
            .or_else(|| home().map(|path| path.join(".cache")))
            .map(|path| path.join("distil"))
    };
    found.ok_or_else(|| ModelError::Request {
        what: "no folder for fetched models is known".to_owned(),
        fix: "set DISTIL_CACHE to a folder on a disk with room for models".to_owned(),
    })
}

/// The models below `cache` that are whole.
pub(crate) fn list(cache: &Path) -> Result<Vec<CachedModel>> {
    let mut folders = Vec::new();
    for repository in subfolders(&cache.join("hf"))? {
        folders.extend(subfolders(&repository)?);
    }
    folders.extend(subfolders(&cache.join("pypi"))?);
    let mut models: Vec<CachedModel> = folders
        .iter()
        .filter(|folder| !is_partial(folder))
        .filter_map(|folder| {
            whole(folder).map(|record| CachedModel {
                path: record.model(folder),
                bytes: record.files.iter().map(|file| file.bytes).sum(),
                reference: record.reference,
            })
        })
        .collect();
    models.sort_by(|a, b| a.reference.cmp(&b.reference));
    Ok(models)
}

/// The record of a folder whose files are all there with their sizes; nothing if it is not whole.
pub(crate) fn whole(folder: &Path) -> Option<Record> {
    let record: Record = serde_json::from_slice(&fs::read(folder.join(RECORD)).ok()?).ok()?;
    let complete = record.files.iter().all(|file| {
        fs::metadata(folder.join(&file.name))
            .is_ok_and(|found| found.is_file() && found.len() == file.bytes)
    });
    complete.then_some(record)
}

/// Whether distil put this folder there, whole or since damaged.
pub(crate) fn is_recorded(folder: &Path) -> bool {
    folder.join(RECORD).exists()
}

/// Writes the record into a folder whose files are complete.
pub(crate) fn write_record(folder: &Path, record: &Record) -> Result<()> {
    let path = folder.join(RECORD);
    let text = serde_json::to_vec_pretty(record).map_err(|error| ModelError::Write {
        path: path.clone(),
        source: error.into(),
    })?;
    write_whole(&path, &text)
}

/// Gives a complete folder its final name.
///
/// # Errors
/// The name is taken by something that distil did not put there, or the disk refuses.
pub(crate) fn install(
    staging: &Path,
    folder: &Path,
    progress: &mut dyn FnMut(Progress),
) -> Result<()> {
    if is_recorded(folder) {
        progress(Progress::Note(&format!(
            "{} was damaged and is replaced",
            folder.display()
        )));
        fs::remove_dir_all(folder).map_err(write_error(folder))?;
    } else if folder.exists() && fs::remove_dir(folder).is_err() {
        return Err(ModelError::Format {
            path: folder.to_owned(),
            what: "is in the way: it holds files that distil did not put there".to_owned(),
            fix: "remove that folder, or give its path as the model".to_owned(),
        });
    }
    fs::rename(staging, folder).map_err(write_error(folder))?;
    folder.parent().map_or(Ok(()), flush_folder)
}

/// Takes the lock that guards writing `folder`, waiting for another process that holds it.
/// It is held until the returned file is dropped.
pub(crate) fn lock(folder: &Path, progress: &mut dyn FnMut(Progress)) -> Result<File> {
    let path = with_suffix(folder, ".lock");
    if let Some(parent) = path.parent() {
        create_folder(parent)?;
    }
    let file = File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .open(&path)
        .map_err(write_error(&path))?;
    let taken = match file.try_lock() {
        Ok(()) => Ok(()),
        Err(TryLockError::WouldBlock) => {
            progress(Progress::Note(
                "waiting for another process that fetches the same model",
            ));
            file.lock()
        }
        Err(TryLockError::Error(error)) => Err(error),
    };
    taken.map_err(|error| ModelError::Write {
        path,
        source: io::Error::new(
            error.kind(),
            format!("this file system cannot lock ({error}); set DISTIL_CACHE to a local folder"),
        ),
    })?;
    Ok(file)
}

/// Writes a file so that a reader sees all of it or nothing.
pub(crate) fn write_whole(path: &Path, content: &[u8]) -> Result<()> {
    let temporary = with_suffix(path, ".partial");
    let write = || {
        let mut file = File::create(&temporary)?;
        file.write_all(content)?;
        file.sync_all()?;
        fs::rename(&temporary, path)
    };
    write().map_err(write_error(path))
}

/// Makes a folder and those above it.
pub(crate) fn create_folder(path: &Path) -> Result<()> {
    fs::create_dir_all(path).map_err(write_error(path))
}

/// `path` with `suffix` behind its last part.
pub(crate) fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}

/// Turns the system's reason into an error about writing `path`.
pub(crate) fn write_error(path: &Path) -> impl Fn(io::Error) -> ModelError {
    let path = path.to_owned();
    move |source| ModelError::Write {
        path: path.clone(),
        source,
    }
}

/// Turns the system's reason into an error about reading `path`.
pub(crate) fn read_error(path: &Path) -> impl Fn(io::Error) -> ModelError {
    let path = path.to_owned();
    move |source| ModelError::Read {
        path: path.clone(),
        source,
    }
}

/// A digest as lower-case hexadecimal.
pub(crate) fn hexadecimal(hasher: Sha256) -> String {
    hasher
        .finalize()
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

/// Feeds a file to a hasher; returns its size in bytes.
pub(crate) fn hash_file(path: &Path, hasher: &mut Sha256) -> Result<u64> {
    let mut file = File::open(path).map_err(read_error(path))?;
    let mut buffer = vec![0; 1 << 16];
    let mut bytes = 0;
    loop {
        let count = file.read(&mut buffer).map_err(read_error(path))?;
        match buffer.get(..count) {
            Some(chunk) if count > 0 => hasher.update(chunk),
            _ => return Ok(bytes),
        }
        bytes += count as u64;
    }
}

fn is_partial(folder: &Path) -> bool {
    folder
        .extension()
        .is_some_and(|extension| extension == "partial")
}

/// The folders directly below `folder`; none if it does not exist.
fn subfolders(folder: &Path) -> Result<Vec<PathBuf>> {
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(read_error(folder)(error)),
    };
    let mut found = Vec::new();
    for entry in entries {
        let path = entry.map_err(read_error(folder))?.path();
        if path.is_dir() {
            found.push(path);
        }
    }
    Ok(found)
}

/// Makes a rename inside `folder` last through a power cut. Windows does that by itself.
fn flush_folder(folder: &Path) -> Result<()> {
    if cfg!(unix) {
        File::open(folder)
            .and_then(|opened| opened.sync_all())
            .map_err(write_error(folder))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(reference: &str, gguf: Option<&str>, files: &[(&str, u64)]) -> Record {
        Record {
            reference: reference.to_owned(),
            gguf: gguf.map(str::to_owned),
            files: files
                .iter()
                .map(|&(name, bytes)| RecordedFile {
                    name: name.to_owned(),
                    bytes,
                })
                .collect(),
        }
    }

    fn put(folder: &Path, record: &Record) {
        fs::create_dir_all(folder).unwrap();
        for file in &record.files {
            fs::write(folder.join(&file.name), vec![7; file.bytes as usize]).unwrap();
        }
        write_record(folder, record).unwrap();
    }

    #[test]
    fn the_folder_follows_the_environment() {
        let with = |pairs: &'static [(&str, &str)]| {
            folder(&move |name| {
                pairs
                    .iter()
                    .find(|pair| pair.0 == name)
                    .map(|pair| pair.1.into())
            })
        };
        assert_eq!(
            with(&[("DISTIL_CACHE", "/a/b"), ("HOME", "/h")]).unwrap(),
            Path::new("/a/b")
        );
        assert!(with(&[("DISTIL_CACHE", "here")]).unwrap().is_absolute());
        let error = with(&[]).unwrap_err().to_string();
        assert!(error.contains("DISTIL_CACHE"), "{error}");
        if cfg!(target_os = "linux") {
            let home = Path::new("/h/.cache/distil");
            assert_eq!(with(&[("HOME", "/h")]).unwrap(), home);
            assert_eq!(with(&[("DISTIL_CACHE", ""), ("HOME", "/h")]).unwrap(), home);
            assert_eq!(
                with(&[("XDG_CACHE_HOME", "rel"), ("HOME", "/h")]).unwrap(),
                home
            );
            assert_eq!(
                with(&[("XDG_CACHE_HOME", "/x"), ("HOME", "/h")]).unwrap(),
                Path::new("/x/distil")
            );
        }
    }

    #[test]
    fn only_whole_models_are_listed() {
        let cache = tempfile::tempdir().unwrap();
        assert_eq!(list(&cache.path().join("absent")).unwrap(), []);
        let hub = record(
            "hf:o/n@c1",
            None,
            &[("config.json", 3), ("model.safetensors", 5)],
        );
        put(&cache.path().join("hf/o--n/c1"), &hub);
        put(&cache.path().join("hf/o--n/c2.partial"), &hub);
        let wheel = record("pypi:p==1", Some("m.gguf"), &[("m.gguf", 9)]);
        put(&cache.path().join("pypi/p==1"), &wheel);
        // A file that lost a byte, a file that is gone, and a folder without a record.
        put(&cache.path().join("pypi/p==2"), &wheel);
        fs::write(cache.path().join("pypi/p==2/m.gguf"), [7; 8]).unwrap();
        put(&cache.path().join("pypi/p==3"), &wheel);
        fs::remove_file(cache.path().join("pypi/p==3/m.gguf")).unwrap();
        fs::create_dir_all(cache.path().join("pypi/p==4")).unwrap();
        assert_eq!(
            list(cache.path()).unwrap(),
            [
                CachedModel {
                    reference: "hf:o/n@c1".to_owned(),
                    path: cache.path().join("hf/o--n/c1"),
                    bytes: 8
                },
                CachedModel {
                    reference: "pypi:p==1".to_owned(),
                    path: cache.path().join("pypi/p==1/m.gguf"),
                    bytes: 9
                },
            ]
        );
    }

    #[test]
    fn install_replaces_what_is_ours_and_spares_what_is_not() {
        let cache = tempfile::tempdir().unwrap();
        let (staging, folder) = (cache.path().join("m.partial"), cache.path().join("m"));
        let model = record("pypi:p==1", Some("m.gguf"), &[("m.gguf", 9)]);
        let mut notes = Vec::new();
        put(&folder, &model);
        fs::write(folder.join("m.gguf"), [1]).unwrap();
        put(&staging, &model);
        install(&staging, &folder, &mut |event| {
            notes.push(format!("{event:?}"))
        })
        .unwrap();
        assert_eq!(whole(&folder), Some(model.clone()));
        assert!(!staging.exists());
        assert!(
            notes.iter().any(|note| note.contains("damaged")),
            "{notes:?}"
        );

        fs::remove_dir_all(&folder).unwrap();
        fs::create_dir(&folder).unwrap();
        fs::write(folder.join("thesis.txt"), "years of work").unwrap();
        put(&staging, &model);
        let error = install(&staging, &folder, &mut |_| ())
            .unwrap_err()
            .to_string();
        assert!(error.contains("did not put there"), "{error}");
        assert!(folder.join("thesis.txt").exists());
    }

    #[test]
    fn the_lock_keeps_a_second_writer_waiting() {
        let cache = tempfile::tempdir().unwrap();
        let folder = cache.path().join("hf/o--n");
        let held = lock(&folder, &mut |_| ()).unwrap();
        let (waiting, waits) = std::sync::mpsc::channel();
        let second = std::thread::spawn({
            let folder = folder.clone();
            move || lock(&folder, &mut |_| waiting.send(()).unwrap()).map(|_| ())
        });
        waits.recv().unwrap();
        assert!(!second.is_finished());
        drop(held);
        second.join().unwrap().unwrap();
    }

    #[test]
    fn a_file_hashes_to_its_known_digest() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("abc");
        fs::write(&path, "abc").unwrap();
        let mut hasher = Sha256::new();
        assert_eq!(hash_file(&path, &mut hasher).unwrap(), 3);
        // FIPS 180-2, appendix B.1.
        assert_eq!(
            hexadecimal(hasher),
            "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
        );
    }
}
