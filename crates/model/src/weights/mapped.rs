//! Read-only memory maps: the operating system reads a page of weights when it is first touched, so that
//! opening a model costs its header and not its size.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use memmap2::Mmap;
use sha2::{Digest, Sha256};

use crate::error::{ModelError, Result};

/// A file and its bytes.
#[derive(Debug)]
pub(crate) struct MappedFile {
    path: PathBuf,
    map: Mmap,
}

impl MappedFile {
    /// Maps the whole of a regular, non-empty file.
    ///
    /// # Errors
    /// The file cannot be read, is not a regular file, or is empty.
    pub(crate) fn open(path: &Path) -> Result<Self> {
        let file = File::open(path).map_err(|source| read_error(path, source))?;
        let facts = file.metadata().map_err(|source| read_error(path, source))?;
        if !facts.is_file() || facts.len() == 0 {
            return Err(ModelError::Format {
                path: path.to_owned(),
                what: if facts.is_file() {
                    "the file is empty"
                } else {
                    "not a regular file"
                }
                .to_owned(),
                fix: "fetch the weights again".to_owned(),
            });
        }
        let map = map(&file).map_err(|source| read_error(path, source))?;
        Ok(Self {
            path: path.to_owned(),
            map,
        })
    }

    /// Where the file is.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// The file's contents.
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.map
    }
}

/// Maps `file` for reading.
#[allow(unsafe_code)]
fn map(file: &File) -> std::io::Result<Mmap> {
    // SAFETY: the map is private and read-only, and every view of it is a byte slice, for which any content
    // is valid. What remains is the caveat of every map: a file that another process overwrites while it is
    // open changes under the reader, and one that is cut short ends the process with SIGBUS. This program
    // never does either: it writes weights to a temporary name and renames, which leaves open maps alone.
    unsafe { Mmap::map(file) }
}

/// The sha256 of a file in lower-case hexadecimal, read piece by piece.
///
/// # Errors
/// The file cannot be read.
pub(crate) fn sha256_of(path: &Path) -> Result<String> {
    let mut file = File::open(path).map_err(|source| read_error(path, source))?;
    let mut digest = Sha256::new();
    let mut piece = vec![0; 1 << 20];
    loop {
        match file.read(&mut piece) {
            Ok(0) => break,
            Ok(length) => digest.update(piece.get(..length).unwrap_or_default()),
            Err(source) if source.kind() == std::io::ErrorKind::Interrupted => {}
            Err(source) => return Err(read_error(path, source)),
        }
    }
    Ok(digest
        .finalize()
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect())
}

/// The system's reason why `path` cannot be read.
pub(crate) fn read_error(path: &Path, source: std::io::Error) -> ModelError {
    ModelError::Read {
        path: path.to_owned(),
        source,
    }
}

#[cfg(test)]
impl MappedFile {
    /// The same from bytes in memory (an anonymous map), for tests that try thousands of damaged files.
    pub(crate) fn from_bytes(path: &Path, bytes: &[u8]) -> Self {
        let mut map = memmap2::MmapMut::map_anon(bytes.len()).unwrap();
        map.copy_from_slice(bytes);
        Self {
            path: path.to_owned(),
            map: map.make_read_only().unwrap(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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

    #[test]
    fn empty_absent_and_irregular_files_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("model.gguf");
        assert!(matches!(
            MappedFile::open(&path),
            Err(ModelError::Read { .. })
        ));
        std::fs::write(&path, "").unwrap();
        let message = MappedFile::open(&path).unwrap_err().to_string();
        assert!(
            message.contains("model.gguf") && message.contains("empty"),
            "{message}"
        );
        assert!(MappedFile::open(dir.path()).is_err());
    }
}
