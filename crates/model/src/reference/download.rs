//! One address to one file: resumed, counted and checked.
//!
//! Bytes go to `<target>.partial`. After a break, in this process or an earlier one, the download
//! continues from there with an HTTP range (RFC 9110, section 14); a server that ignores the range
//! makes it begin anew. The file gets its name when its size and, where the server states one, its
//! sha256 are right.

use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use super::Progress;
use super::cache;
use super::http::{Answer, Client, Failure};
use crate::error::{ModelError, Result};

/// Fetches `url` into `target`, whose folder exists; `name` is what the user sees of it. Returns
/// the size in bytes.
///
/// # Errors
/// What `explain` makes of the last failure once no attempt is left; a digest that is not the
/// stated one; a disk that cannot be written.
pub(crate) fn download(
    client: &Client,
    url: &str,
    name: &str,
    target: &Path,
    explain: &dyn Fn(&Failure) -> ModelError,
    progress: &mut dyn FnMut(Progress),
) -> Result<u64> {
    let mut partial = Partial::open(cache::with_suffix(target, ".partial"))?;
    let mut attempts = client.attempts();
    // Bytes of an earlier attempt may be stale; a wrong digest then says little about the server.
    let mut resumed = partial.bytes > 0;
    let mut furthest = partial.bytes;
    loop {
        match attempt(client, url, name, &mut partial, progress) {
            Ok(expected) => {
                let got = partial.sha256();
                match expected.filter(|expected| *expected != got) {
                    None => return partial.finish(target, progress),
                    Some(_) if resumed => {
                        progress(Progress::Note(&format!(
                            "{name}: what an earlier attempt left is not usable, beginning anew"
                        )));
                        partial.restart()?;
                        (resumed, furthest) = (false, 0);
                    }
                    Some(expected) => {
                        partial.remove()?;
                        return Err(ModelError::Checksum {
                            path: target.to_owned(),
                            expected,
                            got,
                        });
                    }
                }
            }
            Err(Stop::Model(error)) => return Err(error),
            Err(Stop::Network(failure)) => {
                // Only bytes never had before count as headway: a server that ignores ranges and
                // always breaks at the same place must not keep us for ever.
                if partial.bytes > furthest {
                    furthest = partial.bytes;
                    attempts.reset();
                }
                resumed = partial.bytes > 0;
                let mut note = |text: &str| progress(Progress::Note(&format!("{name}: {text}")));
                if !attempts.again(&failure, &mut note) {
                    return Err(explain(&failure));
                }
            }
        }
    }
}

/// Why an attempt ended early.
enum Stop {
    Network(Failure),
    Model(ModelError),
}

impl From<Failure> for Stop {
    fn from(failure: Failure) -> Self {
        Self::Network(failure)
    }
}

impl From<ModelError> for Stop {
    fn from(error: ModelError) -> Self {
        Self::Model(error)
    }
}

/// Completes `partial` with one request; returns the sha256 that the server states.
fn attempt(
    client: &Client,
    url: &str,
    name: &str,
    partial: &mut Partial,
    progress: &mut dyn FnMut(Progress),
) -> Result<Option<String>, Stop> {
    let answer = client.get(url, partial.bytes)?;
    let size = expected_size(&answer, partial)?;
    progress(Progress::Start {
        file: name,
        bytes: size,
    });
    progress(Progress::Advance {
        bytes: partial.bytes,
    });
    let Answer {
        status,
        mut body,
        sha256,
        ..
    } = answer;
    if status == 416 {
        return Ok(sha256);
    }
    let mut reader = body.as_reader();
    let mut buffer = vec![0; 1 << 16];
    loop {
        let count = reader
            .read(&mut buffer)
            .map_err(|error| Failure::Broken(error.to_string()))?;
        let Some(chunk) = buffer.get(..count).filter(|chunk| !chunk.is_empty()) else {
            break;
        };
        if size.is_some_and(|size| count as u64 > size.saturating_sub(partial.bytes)) {
            partial.restart()?;
            return Err(Failure::Broken("more bytes came than were announced".to_owned()).into());
        }
        partial.append(chunk)?;
        progress(Progress::Advance {
            bytes: count as u64,
        });
    }
    match size {
        Some(size) if partial.bytes != size => {
            Err(Failure::Broken(format!("{} of {size} bytes came", partial.bytes)).into())
        }
        _ => Ok(sha256),
    }
}

/// Brings `partial` in line with where the answer begins; returns the size of the whole file.
fn expected_size(answer: &Answer, partial: &mut Partial) -> Result<Option<u64>, Stop> {
    let (start, whole) = answer.range;
    let size = match answer.status {
        206 if start == Some(partial.bytes) => whole,
        // All bytes are here already: the file only lacks its name.
        416 if whole == Some(partial.bytes) => whole,
        200 => {
            partial.restart()?;
            answer.content_length
        }
        _ => {
            partial.restart()?;
            return Err(Failure::Broken("another part came than was asked for".to_owned()).into());
        }
    };
    match (size, answer.linked_size) {
        (Some(size), Some(linked)) if size != linked => Err(Failure::Broken(format!(
            "{size} bytes are offered where the file has {linked}"
        ))
        .into()),
        (size, linked) => Ok(size.or(linked)),
    }
}

/// A file that is not complete, with the digest of what it holds.
struct Partial {
    path: PathBuf,
    file: File,
    hasher: Sha256,
    bytes: u64,
}

impl Partial {
    fn open(path: PathBuf) -> Result<Self> {
        let mut file = File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .open(&path)
            .map_err(cache::write_error(&path))?;
        let mut hasher = Sha256::new();
        let bytes = cache::hash_file(&path, &mut hasher)?;
        file.seek(SeekFrom::Start(bytes))
            .map_err(cache::write_error(&path))?;
        Ok(Self {
            path,
            file,
            hasher,
            bytes,
        })
    }

    fn restart(&mut self) -> Result<()> {
        self.file
            .set_len(0)
            .and_then(|()| self.file.rewind())
            .map_err(cache::write_error(&self.path))?;
        self.hasher = Sha256::new();
        self.bytes = 0;
        Ok(())
    }

    fn append(&mut self, chunk: &[u8]) -> Result<()> {
        self.file
            .write_all(chunk)
            .map_err(cache::write_error(&self.path))?;
        self.hasher.update(chunk);
        self.bytes += chunk.len() as u64;
        Ok(())
    }

    fn sha256(&self) -> String {
        cache::hexadecimal(self.hasher.clone())
    }

    fn remove(self) -> Result<()> {
        fs::remove_file(&self.path).map_err(cache::write_error(&self.path))
    }

    fn finish(self, target: &Path, progress: &mut dyn FnMut(Progress)) -> Result<u64> {
        self.file
            .sync_all()
            .and_then(|()| fs::rename(&self.path, target))
            .map_err(cache::write_error(target))?;
        progress(Progress::Done);
        Ok(self.bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::super::test_server::{Reply, Request, TestServer, impatient};
    use super::*;

    /// 100 kB in which every position is told from its neighbours.
    fn content() -> Vec<u8> {
        (0..100_000_u32).map(|i| (i * 7 % 251) as u8).collect()
    }

    fn sha256(bytes: &[u8]) -> String {
        cache::hexadecimal(Sha256::new_with_prefix(bytes))
    }

    struct Outcome {
        result: Result<Vec<u8>>,
        notes: Vec<String>,
        left: Vec<String>,
        starts: Vec<usize>,
    }

    /// Downloads `/f` from a server that answers so, with `before` left by an earlier attempt.
    fn run(before: &[u8], answer: impl Fn(usize, &Request) -> Reply + Send + 'static) -> Outcome {
        let folder = tempfile::tempdir().unwrap();
        let target = folder.path().join("f");
        if !before.is_empty() {
            fs::write(folder.path().join("f.partial"), before).unwrap();
        }
        let server = TestServer::start(answer);
        let client = Client::new(&server.url(), None, &impatient());
        let mut notes = Vec::new();
        let mut counted = 0;
        let explain = |failure: &Failure| ModelError::Request {
            what: failure.to_string(),
            fix: String::new(),
        };
        let result = download(
            &client,
            &format!("{}/f", server.url()),
            "f",
            &target,
            &explain,
            &mut |event| match event {
                Progress::Start { .. } => counted = 0,
                Progress::Advance { bytes } => counted += bytes,
                Progress::Done => notes.push("done".to_owned()),
                Progress::Note(text) => notes.push(text.to_owned()),
            },
        );
        let result = result.map(|bytes| {
            assert_eq!(counted, bytes);
            fs::read(&target).unwrap()
        });
        let mut left: Vec<String> = fs::read_dir(folder.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        left.sort();
        Outcome {
            result,
            notes,
            left,
            starts: server.requests().iter().map(Request::start).collect(),
        }
    }

    #[test]
    fn a_whole_file_arrives_and_nothing_else_stays() {
        let outcome = run(&[], |_, request| Reply::file(request, &content()));
        assert_eq!(outcome.result.unwrap(), content());
        assert_eq!(outcome.left, ["f"]);
        assert_eq!(outcome.notes, ["done"]);
    }

    #[test]
    fn a_broken_download_continues_where_it_stopped() {
        let outcome = run(&[], |before, request| {
            let reply = Reply::file(request, &content()).with("etag", &sha256(&content()));
            if before == 0 {
                reply.cut_at(40_000)
            } else {
                reply
            }
        });
        assert_eq!(outcome.result.unwrap(), content());
        assert_eq!(outcome.starts.len(), 2);
        assert!(
            outcome.starts[1] > 0 && outcome.starts[1] <= 40_000,
            "{:?}",
            outcome.starts
        );
    }

    #[test]
    fn an_earlier_process_left_a_part() {
        let outcome = run(&content()[..30_000], |_, request| {
            Reply::file(request, &content()).with("etag", &sha256(&content()))
        });
        assert_eq!(outcome.result.unwrap(), content());
        assert_eq!(outcome.starts, [30_000]);
    }

    #[test]
    fn an_earlier_process_left_all_but_the_name() {
        let outcome = run(&content(), |_, request| Reply::file(request, &content()));
        assert_eq!(outcome.result.unwrap(), content());
        assert_eq!(outcome.starts, [100_000]);
    }

    #[test]
    fn a_stale_part_is_thrown_away() {
        for stale in [vec![1; 30_000], vec![1; 200_000]] {
            let outcome = run(&stale, |_, request| {
                Reply::file(request, &content()).with("etag", &sha256(&content()))
            });
            assert_eq!(outcome.result.unwrap(), content());
            assert_eq!(outcome.starts, [stale.len(), 0]);
        }
    }

    #[test]
    fn a_server_that_ignores_ranges_makes_it_begin_anew() {
        let outcome = run(&content()[..30_000], |_, _| Reply::new(200, content()));
        assert_eq!(outcome.result.unwrap(), content());
        assert_eq!(outcome.starts, [30_000]);
    }

    #[test]
    fn a_server_that_answers_another_range_is_not_believed() {
        let outcome = run(&content()[..30_000], |_, request| match request.start() {
            0 => Reply::new(200, content()),
            // As many bytes as are missing, but from elsewhere.
            _ => Reply::new(206, &content()[20_000..90_000])
                .with("content-range", "bytes 20000-89999/100000"),
        });
        assert_eq!(outcome.result.unwrap(), content());
        assert_eq!(outcome.starts, [30_000, 0]);
    }

    #[test]
    fn a_body_that_always_ends_short_is_given_up() {
        let outcome = run(&[], |_, _| Reply::new(200, content()).cut_at(10));
        let error = outcome.result.unwrap_err().to_string();
        assert!(error.contains("connection broke"), "{error}");
        // Ten bytes are headway once; the same ten bytes again are not.
        assert_eq!(outcome.starts.len(), 5, "{:?}", outcome.starts);
        assert_eq!(outcome.left, ["f.partial"]);
    }

    #[test]
    fn wrong_bytes_are_refused_and_removed() {
        let outcome = run(&[], |_, request| {
            Reply::file(request, &content()).with("x-linked-etag", &"0".repeat(64))
        });
        let error = outcome.result.unwrap_err();
        assert!(
            matches!(&error, ModelError::Checksum { expected, got, .. }
                if *expected == "0".repeat(64) && *got == sha256(&content())),
            "{error}"
        );
        assert!(outcome.left.is_empty(), "{:?}", outcome.left);
        assert_eq!(outcome.starts, [0]);
    }

    #[test]
    fn a_size_the_hub_does_not_know_is_refused() {
        let outcome = run(&[], |_, _| {
            Reply::new(200, content()).with("x-linked-size", "100001")
        });
        let error = outcome.result.unwrap_err().to_string();
        assert!(
            error.contains("100000 bytes are offered where the file has 100001"),
            "{error}"
        );
    }

    #[test]
    fn busy_servers_are_asked_again_and_lost_files_are_not() {
        let outcome = run(&[], |before, request| match before {
            0 => Reply::new(429, "").with("retry-after", "3600"),
            1 => Reply::new(503, ""),
            _ => Reply::file(request, &content()),
        });
        assert_eq!(outcome.result.unwrap(), content());
        assert_eq!(outcome.starts.len(), 3);
        assert!(outcome.notes[0].contains("429"), "{:?}", outcome.notes);

        let outcome = run(&[], |_, _| Reply::new(500, "oops"));
        assert!(outcome.result.unwrap_err().to_string().contains("500"));
        assert_eq!(outcome.starts.len(), 5);

        let outcome = run(&[], |_, _| Reply::new(404, ""));
        assert!(outcome.result.unwrap_err().to_string().contains("404"));
        assert_eq!(outcome.starts.len(), 1);
    }

    #[test]
    fn a_disk_that_refuses_is_a_write_error() {
        let server = TestServer::start(|_, request| Reply::file(request, &content()));
        let client = Client::new(&server.url(), None, &impatient());
        let explain = |failure: &Failure| panic!("{failure}");
        let folder = tempfile::tempdir().unwrap();
        let target = folder.path().join("absent").join("f");
        let result = download(&client, &server.url(), "f", &target, &explain, &mut |_| ());
        assert!(
            matches!(result, Err(ModelError::Write { .. })),
            "{result:?}"
        );
    }

    /// Linux has a device that is always full.
    #[cfg(target_os = "linux")]
    #[test]
    fn a_full_disk_is_a_write_error() {
        let mut partial = Partial {
            path: "/dev/full".into(),
            file: File::options().write(true).open("/dev/full").unwrap(),
            hasher: Sha256::new(),
            bytes: 0,
        };
        let error = partial.append(b"x").unwrap_err();
        assert!(
            matches!(&error, ModelError::Write { source, .. }
            if source.kind() == std::io::ErrorKind::StorageFull),
            "{error}"
        );
        assert!(!error.is_input());
    }
}
