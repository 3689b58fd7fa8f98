//! Files and folders that appear whole or not at all, and what tells files apart.
//!
//! Everything is written beside its destination under a temporary name, flushed to the disk and
//! renamed: a reader never sees half a file, and an interrupted write leaves the old one.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use crate::error::{ModelError, Result};

/// Writes `bytes` to `path`, replacing what is there.
///
/// # Errors
/// The folder cannot be written, or the disk is full; `path` is then what it was.
pub fn write_whole(path: &Path, bytes: &[u8]) -> Result<()> {
    write_whole_by(path, |temporary| {
        File::create(temporary).and_then(|mut file| file.write_all(bytes))
    })
}

/// Lets `write` make a file under a temporary name, and puts it in the place of what is at `path`.
///
/// # Errors
/// As [`write_whole`].
pub fn write_whole_by(path: &Path, write: impl FnOnce(&Path) -> io::Result<()>) -> Result<()> {
    let temporary = beside(path);
    let failed = |source| ModelError::Write {
        path: path.to_owned(),
        source,
    };
    let flush = || OpenOptions::new().write(true).open(&temporary)?.sync_all();
    let result = write(&temporary)
        .and_then(|()| flush())
        .and_then(|()| fs::rename(&temporary, path));
    if result.is_err() {
        // The temporary file is of no use; that it cannot be removed either changes nothing.
        let _ = fs::remove_file(&temporary);
    }
    result.map_err(failed)
}

/// Fills a new folder `path` through `fill`, which gets the temporary folder's path.
///
/// # Errors
/// `path` exists already, `fill` fails, or the disk is full; nothing is left behind.
pub fn folder_whole<T, E: From<ModelError>>(
    path: &Path,
    fill: impl FnOnce(&Path) -> Result<T, E>,
) -> Result<T, E> {
    let failed = |source| ModelError::Write {
        path: path.to_owned(),
        source,
    };
    let temporary = beside(path);
    let result = (|| {
        if temporary.exists() {
            fs::remove_dir_all(&temporary).map_err(failed)?;
        }
        fs::create_dir_all(&temporary).map_err(failed)?;
        let value = fill(&temporary)?;
        fs::rename(&temporary, path).map_err(failed)?;
        sync_parent(path);
        Ok(value)
    })();
    if result.is_err() {
        let _ = fs::remove_dir_all(&temporary);
    }
    result
}

/// `.NAME.partial` in the same folder.
fn beside(path: &Path) -> PathBuf {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    path.with_file_name(format!(".{name}.partial"))
}

/// Makes a rename last through a power cut where the system allows it.
fn sync_parent(path: &Path) {
    let parent = path.parent().filter(|p| !p.as_os_str().is_empty());
    if let Ok(folder) = File::open(parent.unwrap_or(Path::new("."))) {
        let _ = folder.sync_all();
    }
}

/// The sha256 of a file in lower-case hexadecimal, read piece by piece.
///
/// # Errors
/// The file cannot be read.
pub fn sha256_of(path: &Path) -> Result<String> {
    let failed = |source| ModelError::Read {
        path: path.to_owned(),
        source,
    };
    let mut file = File::open(path).map_err(failed)?;
    let mut digest = Sha256::new();
    let mut piece = vec![0; 1 << 20];
    loop {
        match file.read(&mut piece) {
            Ok(0) => break,
            Ok(length) => digest.update(piece.get(..length).unwrap_or_default()),
            Err(source) if source.kind() == std::io::ErrorKind::Interrupted => {}
            Err(source) => return Err(failed(source)),
        }
    }
    Ok(digest
        .finalize()
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_write_leaves_what_was_there() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        write_whole(&path, b"old").unwrap();
        // The temporary name is taken by a folder: creating the file must fail.
        fs::create_dir(beside(&path)).unwrap();
        assert!(write_whole(&path, b"new").is_err());
        assert_eq!(fs::read(&path).unwrap(), b"old");
    }

    #[test]
    fn a_failed_folder_leaves_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("folder");
        let failed: Result<()> = folder_whole(&path, |inside| {
            write_whole(&inside.join("a"), b"1")?;
            Err(ModelError::Template { what: "no".into() })
        });
        assert!(failed.is_err());
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
        folder_whole(&path, |inside| write_whole(&inside.join("a"), b"1")).unwrap();
        assert_eq!(fs::read(path.join("a")).unwrap(), b"1");
    }

    #[test]
    fn the_digest_is_that_of_the_standard() {
        // FIPS 180-2, example B.1, and the same over more than one piece (checked with sha256sum).
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("abc");
        std::fs::write(&path, "abc").unwrap();
        let abc = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(sha256_of(&path).unwrap(), abc);
        std::fs::write(&path, vec![b'a'; 3_000_000]).unwrap();
        let long = "2a152c894398719c0570f83fac34ac03a0f6e8e474b995c2403aa5434f7b9dd4";
        assert_eq!(sha256_of(&path).unwrap(), long);
    }
}
