//! One process at a time works in a run's folder.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::path::Path;

use crate::error::{Error, Result};

/// One process a folder; the lock goes with the process, however it ends.
pub(crate) fn lock(folder: &Path) -> Result<File> {
    let path = folder.join(".lock");
    let failed = |source| Error::Write {
        path: path.clone(),
        source,
    };
    let file = OpenOptions::new()
        .create(true)
        .append(true)
        .open(&path)
        .map_err(failed)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(Error::Run {
            path: folder.to_owned(),
            what: "another distil process is working in this folder".into(),
            fix: "wait for it to end, or choose another --out".into(),
        }),
        Err(TryLockError::Error(source)) => Err(failed(source)),
    }
}

/// Whether a process of this machine is known to work in the folder. The lock itself is not touched,
/// so that no run is refused because somebody looked; where the system keeps no list of locks, or the
/// run is elsewhere, the answer is no.
pub(crate) fn is_in_use(folder: &Path) -> bool {
    #[cfg(target_os = "linux")]
    {
        use std::os::unix::fs::MetadataExt;
        let Ok(file) = fs::metadata(folder.join(".lock")) else {
            return false;
        };
        let locks = fs::read_to_string("/proc/locks").unwrap_or_default();
        // `1: FLOCK  ADVISORY  WRITE 4711 08:01:131 0 EOF`, with device and inode before the range.
        locks.lines().any(|line| {
            let words: Vec<&str> = line.split_whitespace().collect();
            let [_, "FLOCK", _, "WRITE", _, place, ..] = words[..] else {
                return false;
            };
            // Of a layered file system the list has another device than the file.
            place
                .rsplit(':')
                .next()
                .and_then(|inode| inode.parse().ok())
                == Some(file.ino())
        })
    }
    #[cfg(not(target_os = "linux"))]
    {
        let _ = folder;
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[cfg(target_os = "linux")]
    #[test]
    fn whoever_works_in_a_folder_is_seen() {
        let home = tempfile::tempdir().unwrap();
        assert!(!is_in_use(home.path()));
        let held = lock(home.path()).unwrap();
        assert!(is_in_use(home.path()));
        drop(held);
        assert!(!is_in_use(home.path()));
    }
}
