//! Read-only memory maps: the operating system reads a page of weights when it is first touched, so that
//! opening a model costs its header and not its size.

use std::fs::File;
use std::path::{Path, PathBuf};

use memmap2::Mmap;

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
