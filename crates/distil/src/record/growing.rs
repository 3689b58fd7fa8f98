//! A file of lines that somebody may be writing, read on from where it was left.
//!
//! A run that is resumed puts a new file in the old one's place, without the lines after its last
//! checkpoint, and writes on. The place where reading stopped then means nothing, even if the new
//! file has become longer than the old one was. So the newest line that was read is looked at again
//! each time: where it is no longer in its place, the file is read from its beginning.

use std::fs::File;
use std::io::{BufRead, BufReader, ErrorKind, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};

/// Such a file.
#[derive(Debug, Clone)]
pub(super) struct Growing {
    path: PathBuf,
    /// Bytes read, whole lines only.
    read: u64,
    /// The newest line that was read, its end included.
    last: Vec<u8>,
    /// Bytes of the file when it was last looked at.
    length: u64,
}

/// What there is to take in.
pub(super) enum News<'a> {
    /// What was taken in before counts no more.
    Afresh,
    /// The next line.
    Line(&'a str),
}

impl Growing {
    /// The file, of which nothing is read yet. It need not exist yet.
    pub(super) fn new(path: &Path) -> Self {
        Self {
            path: path.to_owned(),
            read: 0,
            last: Vec::new(),
            length: 0,
        }
    }

    /// Bytes that were there and not read; half a line at the end is among them.
    pub(super) fn unread(&self) -> u64 {
        self.length.saturating_sub(self.read)
    }

    /// Reads whole lines until `most` bytes are read or no whole line is left, and says whether the
    /// latter is so.
    ///
    /// # Errors
    /// [`Error::Read`] for anything but a file that does not exist.
    pub(super) fn read_on(&mut self, most: u64, take: &mut dyn FnMut(News<'_>)) -> Result<bool> {
        let path = self.path.clone();
        let failed = |source| Error::Read {
            path: path.clone(),
            source,
        };
        let mut file = match File::open(&self.path) {
            Ok(file) => file,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(true),
            Err(error) => return Err(failed(error)),
        };
        self.length = file.metadata().map_err(failed)?.len();
        if self.read > 0 && !self.is_the_same(&mut file).map_err(failed)? {
            (self.read, self.last) = (0, Vec::new());
            take(News::Afresh);
        }
        file.seek(SeekFrom::Start(self.read)).map_err(failed)?;
        let mut lines = BufReader::with_capacity(1 << 18, file);
        let (start, mut line) = (self.read, Vec::new());
        while self.read - start < most {
            line.clear();
            let bytes = lines.read_until(b'\n', &mut line).map_err(failed)?;
            if line.last() != Some(&b'\n') {
                return Ok(true);
            }
            self.read += bytes as u64;
            take(News::Line(&String::from_utf8_lossy(&line)));
            self.last.clone_from(&line);
        }
        Ok(false)
    }

    /// Whether the newest line is still where it was.
    fn is_the_same(&self, file: &mut File) -> std::io::Result<bool> {
        if self.length < self.read {
            return Ok(false);
        }
        file.seek(SeekFrom::Start(self.read - self.last.len() as u64))?;
        let mut there = vec![0; self.last.len()];
        match file.read_exact(&mut there) {
            Err(error) if error.kind() == ErrorKind::UnexpectedEof => Ok(false),
            read => read.map(|()| there == self.last),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn read(file: &mut Growing, most: u64) -> (String, bool) {
        let mut seen = String::new();
        let mut take = |news: News<'_>| match news {
            News::Afresh => seen.push('!'),
            News::Line(line) => seen.push_str(line.trim_end()),
        };
        let end = file.read_on(most, &mut take).unwrap();
        (seen, end)
    }

    #[test]
    fn a_file_is_read_in_parts() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("lines");
        fs::write(&path, "a\nb\nc\nd").unwrap();
        let mut file = Growing::new(&path);
        assert_eq!(read(&mut file, 3), ("ab".into(), false));
        assert_eq!(file.unread(), 3);
        assert_eq!(read(&mut file, u64::MAX), ("c".into(), true));
        assert_eq!(file.unread(), 1);
        fs::remove_file(&path).unwrap();
        assert_eq!(read(&mut file, u64::MAX), (String::new(), true));
    }

    #[test]
    fn a_file_that_took_the_place_of_another_is_read_from_its_beginning() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("lines");
        let mut file = Growing::new(&path);
        fs::write(&path, "1a\n2a\n3a\n").unwrap();
        assert_eq!(read(&mut file, u64::MAX).0, "1a2a3a");
        fs::write(&path, "1a\n2a\n3b\n4b\n").unwrap();
        assert_eq!(read(&mut file, u64::MAX).0, "!1a2a3b4b", "it is longer");
        fs::write(&path, "1a\n2a\n").unwrap();
        assert_eq!(read(&mut file, u64::MAX).0, "!1a2a", "it is shorter");
        fs::write(&path, "1a\n2a\n3c\n").unwrap();
        assert_eq!(
            read(&mut file, u64::MAX).0,
            "3c",
            "nothing that was read is lost"
        );
        fs::write(&path, "").unwrap();
        assert_eq!(read(&mut file, u64::MAX).0, "!");
    }
}
