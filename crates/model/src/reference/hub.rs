//! Models from the Hugging Face hub, or from a server that speaks its protocol.
//!
//! `GET <endpoint>/api/models/<repository>/revision/<revision>` names the commit and the files;
//! `GET <endpoint>/<repository>/resolve/<commit>/<file>` is a file, mostly by way of a redirect to
//! a storage server. Only what a model needs is fetched: configuration, tokenizer, chat template
//! and safetensors, all from the top level of the repository. Code is never fetched.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::Read;
use std::path::Path;

use serde::Deserialize;

use super::cache::{self, Record, RecordedFile};
use super::download::download;
use super::http::{Client, Failure};
use super::hub_address::{HubConfig, Repository, is_commit};
use super::{Progress, Resolved};
use crate::error::{ModelError, Result};

const INDEX: &str = "model.safetensors.index.json";
const SINGLE: &str = "model.safetensors";
/// Files beside the weights; the first two cannot be missed.
const COMPANIONS: [&str; 6] = [
    "config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "generation_config.json",
    "special_tokens_map.json",
    "chat_template.jinja",
];
/// Longest list of files that is read, in bytes.
const LONGEST_LISTING: u64 = 32 << 20;

/// The repository's model, if the cache has it whole.
pub(crate) fn cached(repository: &Repository, cache: &Path) -> Option<Resolved> {
    let commit = fs::read_to_string(repository.commit_file(cache))
        .unwrap_or_else(|_| repository.revision.clone());
    if !is_commit(&commit) {
        return None;
    }
    let folder = repository.folder(cache).join(commit);
    let record = cache::whole(&folder)?;
    Some(Resolved {
        path: record.model(&folder),
        reference: record.reference,
    })
}

/// The repository's model, fetched into the cache unless it is there.
///
/// # Errors
/// The hub cannot be reached or refuses, the repository is not a model this crate can load, a
/// file is not what was announced, or the disk refuses.
pub(crate) fn fetch(
    repository: &Repository,
    cache: &Path,
    config: &HubConfig,
    progress: &mut dyn FnMut(Progress),
) -> Result<Resolved> {
    if let Some(found) = cached(repository, cache) {
        return Ok(found);
    }
    let hub = Hub {
        repository,
        config,
        client: Client::new(&config.endpoint, config.token.as_deref(), &config.network),
    };
    if config.offline {
        return Err(hub.refuse(
            "it is not in the cache, and HF_HUB_OFFLINE forbids to fetch it".to_owned(),
            hub.by_hand(),
        ));
    }
    let place = repository.folder(cache);
    let _lock = cache::lock(&place, progress)?;
    if let Some(found) = cached(repository, cache) {
        return Ok(found);
    }
    let listing = hub.listing(progress)?;
    let folder = place.join(&listing.sha);
    if cache::whole(&folder).is_none() {
        let staging = place.join(format!("{}.partial", listing.sha));
        cache::create_folder(&staging)?;
        let mut files = Vec::new();
        for name in hub.companions(&listing)? {
            files.push(hub.file(&listing.sha, name, &staging, progress)?);
        }
        for name in hub.weights(&listing, &staging)? {
            files.push(hub.file(&listing.sha, &name, &staging, progress)?);
        }
        let record = Record {
            reference: format!("hf:{}@{}", repository.name, listing.sha),
            gguf: None,
            files,
        };
        cache::write_record(&staging, &record)?;
        cache::install(&staging, &folder, progress)?;
    }
    let commit_file = repository.commit_file(cache);
    if let Some(parent) = commit_file.parent() {
        cache::create_folder(parent)?;
    }
    cache::write_whole(&commit_file, listing.sha.as_bytes())?;
    cached(repository, cache).ok_or_else(|| ModelError::Format {
        path: folder,
        what: "changed while it was written".to_owned(),
        fix: "remove that folder and run the command again".to_owned(),
    })
}

/// What the hub says of a revision.
#[derive(Deserialize)]
struct Listing {
    sha: String,
    siblings: Vec<Sibling>,
}

#[derive(Deserialize)]
struct Sibling {
    rfilename: String,
}

impl Listing {
    fn has(&self, name: &str) -> bool {
        self.siblings
            .iter()
            .any(|sibling| sibling.rfilename == name)
    }
}

/// The part of a safetensors index that names the shards.
#[derive(Deserialize)]
struct Index {
    weight_map: BTreeMap<String, String>,
}

/// A conversation with the hub about one repository.
struct Hub<'a> {
    repository: &'a Repository,
    config: &'a HubConfig,
    client: Client,
}

impl Hub<'_> {
    /// The commit and the names of its files.
    fn listing(&self, progress: &mut dyn FnMut(Progress)) -> Result<Listing> {
        let url = format!(
            "{}/api/models/{}/revision/{}",
            self.config.endpoint,
            self.repository.name,
            self.repository.revision.replace('/', "%2F")
        );
        let mut attempts = self.client.attempts();
        let text = loop {
            match self.small(&url) {
                Ok(text) => break text,
                // Whoever has no way to the hub wants to know at once.
                Err(failure @ Failure::Unreachable(_)) => {
                    return Err(self.explain(&url, None, &failure));
                }
                Err(failure) => {
                    if !attempts.again(&failure, &mut |text| progress(Progress::Note(text))) {
                        return Err(self.explain(&url, None, &failure));
                    }
                }
            }
        };
        let listing: Listing = serde_json::from_slice(&text).map_err(|error| {
            let what = format!("the answer is not a list of files ({error})");
            self.refuse(what, "check HF_ENDPOINT".to_owned())
        })?;
        let hostile = |name: &str| {
            name.starts_with('/')
                || name.contains('\\')
                || name.chars().any(char::is_control)
                || name.split('/').any(|part| part == "..")
        };
        let names = listing
            .siblings
            .iter()
            .map(|sibling| sibling.rfilename.as_str());
        if let Some(name) = names.clone().find(|name| {
            hostile(name)
                || (name.ends_with(".safetensors") && !name.contains('/') && !is_plain(name))
        }) {
            return Err(self.refuse(
                format!("the repository has a file named {name:?}, which no model has"),
                "do not use this repository, or fetch its files by hand".to_owned(),
            ));
        }
        if !is_commit(&listing.sha) {
            return Err(self.refuse(
                "the answer names no commit".to_owned(),
                "check HF_ENDPOINT".to_owned(),
            ));
        }
        Ok(listing)
    }

    /// A small document in one go.
    fn small(&self, url: &str) -> Result<Vec<u8>, Failure> {
        let mut answer = self.client.get(url, 0)?;
        let mut text = Vec::new();
        answer
            .body
            .as_reader()
            .take(LONGEST_LISTING)
            .read_to_end(&mut text)
            .map_err(|error| Failure::Broken(error.to_string()))?;
        Ok(text)
    }

    /// The files beside the weights, after a check that the repository is a model at all.
    fn companions<'a>(&self, listing: &'a Listing) -> Result<Vec<&'a str>> {
        let weights = |sibling: &Sibling| {
            sibling.rfilename.ends_with(".safetensors") && !sibling.rfilename.contains('/')
        };
        if !listing.siblings.iter().any(weights) {
            return Err(self.refuse(
                "the repository has no safetensors weights at its top level".to_owned(),
                "choose a repository with safetensors, or convert it with transformers' \
                 save_pretrained and pass the folder; for a .gguf file, pass its path"
                    .to_owned(),
            ));
        }
        for (needed, fix) in [
            (
                "config.json",
                "choose the repository of a whole model, not of an adapter",
            ),
            (
                "tokenizer.json",
                "write one with transformers' AutoTokenizer.save_pretrained into a folder with the model, and pass that folder",
            ),
        ] {
            if !listing.has(needed) {
                return Err(self.refuse(format!("the repository has no {needed}"), fix.to_owned()));
            }
        }
        Ok(COMPANIONS
            .iter()
            .copied()
            .chain([INDEX].into_iter().filter(|_| !listing.has(SINGLE)))
            .filter_map(|name| {
                let found = listing
                    .siblings
                    .iter()
                    .find(|sibling| sibling.rfilename == name);
                found.map(|sibling| sibling.rfilename.as_str())
            })
            .collect())
    }

    /// The weights: one file, or the shards that the index in `staging` names, or all there are.
    fn weights(&self, listing: &Listing, staging: &Path) -> Result<BTreeSet<String>> {
        if listing.has(SINGLE) {
            return Ok(BTreeSet::from([SINGLE.to_owned()]));
        }
        if !listing.has(INDEX) {
            let names = listing.siblings.iter().map(|sibling| &sibling.rfilename);
            return Ok(names
                .filter(|name| name.ends_with(".safetensors") && is_plain(name))
                .cloned()
                .collect());
        }
        let path = staging.join(INDEX);
        let text = fs::read(&path).map_err(cache::read_error(&path))?;
        let index: Index = serde_json::from_slice(&text).map_err(|error| {
            let what = format!("{INDEX} is not an index of weights ({error})");
            self.refuse(what, "choose another revision".to_owned())
        })?;
        let shards: BTreeSet<String> = index.weight_map.into_values().collect();
        let absent = |name: &&String| {
            !is_plain(name) || !name.ends_with(".safetensors") || !listing.has(name)
        };
        match shards.iter().find(absent) {
            Some(name) => Err(self.refuse(
                format!("{INDEX} names {name:?}, which is not a file of the repository"),
                "choose another revision".to_owned(),
            )),
            None => Ok(shards),
        }
    }

    /// Fetches one file into `staging`, unless an earlier call got so far.
    fn file(
        &self,
        commit: &str,
        name: &str,
        staging: &Path,
        progress: &mut dyn FnMut(Progress),
    ) -> Result<RecordedFile> {
        let target = staging.join(name);
        let bytes = match fs::metadata(&target) {
            Ok(found) if found.is_file() => found.len(),
            _ => {
                let (endpoint, repository) = (&self.config.endpoint, &self.repository.name);
                let url = format!("{endpoint}/{repository}/resolve/{commit}/{name}");
                let explain = |failure: &Failure| self.explain(&url, Some(name), failure);
                download(&self.client, &url, name, &target, &explain, progress)?
            }
        };
        Ok(RecordedFile {
            name: name.to_owned(),
            bytes,
        })
    }

    fn refuse(&self, what: String, fix: String) -> ModelError {
        ModelError::Reference {
            reference: self.repository.to_string(),
            what,
            fix,
        }
    }

    fn by_hand(&self) -> String {
        format!(
            "fetch config.json, tokenizer.json, tokenizer_config.json, generation_config.json and \
             the .safetensors files of {} where there is a network, put them into one folder and \
             pass its path as the model",
            self.repository.name
        )
    }

    /// What a failure means for the user; `file` is nothing for the list of files.
    fn explain(&self, url: &str, file: Option<&str>, failure: &Failure) -> ModelError {
        let Repository { name, revision } = self.repository;
        let part = file.map_or_else(String::new, |file| format!(" for {file}"));
        let licence = format!("{}/{name}", self.config.endpoint);
        match failure {
            Failure::Status {
                code: 401 | 403, ..
            } if self.config.token.is_some() => self.refuse(
                format!("the hub refuses access{part} although HF_TOKEN is set ({failure})"),
                format!(
                    "accept the model's licence at {licence} with the account of the token, and \
                     check the spelling and that the token may read this repository"
                ),
            ),
            Failure::Status {
                code: 401 | 403, ..
            } => self.refuse(
                format!(
                    "the hub refuses access{part}: the repository is gated, private or does not \
                     exist ({failure})"
                ),
                format!(
                    "check the spelling; if it is right, accept the model's licence at {licence} \
                     and set HF_TOKEN to a token of that account"
                ),
            ),
            Failure::Status { code: 404, .. } => self.refuse(
                match file {
                    Some(file) => format!("the hub has no file {file} in {name} at {revision}"),
                    None => format!("the hub has no repository {name} with a revision {revision}"),
                },
                "check the spelling".to_owned(),
            ),
            _ => ModelError::Download {
                url: url.to_owned(),
                what: failure.to_string(),
                fix: match failure {
                    Failure::Unreachable(_) => format!(
                        "check the network, HTTPS_PROXY and HF_ENDPOINT; without a network, {}",
                        self.by_hand()
                    ),
                    Failure::Status { code: 429, .. } => {
                        "wait some minutes or set HF_TOKEN, and run the command again; it \
                         continues where it stopped"
                            .to_owned()
                    }
                    _ => "run the command again; it continues where it stopped".to_owned(),
                },
            },
        }
    }
}

/// Whether a file without folder belongs to a model.
pub(crate) fn is_model_file(name: &str) -> bool {
    COMPANIONS.contains(&name)
        || name == INDEX
        || (name.ends_with(".safetensors") && is_plain(name))
}

/// A file name without folder that is safe on every system.
fn is_plain(name: &str) -> bool {
    name.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '_')
        && name
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || "._-+=".contains(c))
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::super::test_server::{Reply, Request, TestServer, impatient};
    use super::*;

    const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";
    const WEIGHTS: &str = "weights weights weights";

    fn listing(names: &[&str]) -> String {
        let siblings: Vec<_> = names
            .iter()
            .map(|name| serde_json::json!({ "rfilename": name }))
            .collect();
        serde_json::json!({ "sha": COMMIT, "siblings": siblings }).to_string()
    }

    /// A hub whose one repository has these files; the content of a file is its name, except for
    /// the weights.
    fn repository(names: &'static [&str]) -> impl Fn(usize, &Request) -> Reply + Send + 'static {
        move |_, request| {
            if request.path == "/api/models/o/n/revision/main" {
                return Reply::new(200, listing(names));
            }
            let prefix = format!("/o/n/resolve/{COMMIT}/");
            match request.path.strip_prefix(&prefix) {
                Some("model.safetensors") => Reply::file(request, WEIGHTS.as_bytes()),
                Some(name) if names.contains(&name) => Reply::file(request, name.as_bytes()),
                _ => Reply::new(404, ""),
            }
        }
    }

    const WHOLE: &[&str] = &[
        ".gitattributes",
        "README.md",
        "config.json",
        "modeling_evil.py",
        "model.safetensors",
        "consolidated.safetensors",
        "onnx/model.onnx",
        "pytorch_model.bin",
        "tokenizer.json",
        "tokenizer_config.json",
    ];

    struct Outcome {
        result: Result<Resolved>,
        requests: Vec<Request>,
        notes: Vec<String>,
        cache: tempfile::TempDir,
    }

    impl Outcome {
        fn error(&self) -> String {
            self.result.as_ref().unwrap_err().to_string()
        }
    }

    fn config(endpoint: String, token: Option<&str>) -> HubConfig {
        HubConfig {
            endpoint,
            token: token.map(str::to_owned),
            offline: false,
            network: impatient(),
        }
    }

    fn run(
        token: Option<&str>,
        answer: impl Fn(usize, &Request) -> Reply + Send + 'static,
    ) -> Outcome {
        let cache = tempfile::tempdir().unwrap();
        let server = TestServer::start(answer);
        let mut notes = Vec::new();
        let result = fetch(
            &Repository::parse("o/n").unwrap(),
            cache.path(),
            &config(server.url(), token),
            &mut |event| {
                if let Progress::Note(text) = event {
                    notes.push(text.to_owned());
                }
            },
        );
        Outcome {
            result,
            requests: server.requests(),
            notes,
            cache,
        }
    }

    fn names(folder: &Path) -> Vec<String> {
        let mut names: Vec<String> = fs::read_dir(folder)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    #[test]
    fn a_model_is_fetched_once_and_only_what_it_needs() {
        let outcome = run(None, repository(WHOLE));
        let resolved = outcome.result.unwrap();
        let folder = outcome.cache.path().join("hf/o--n").join(COMMIT);
        assert_eq!(resolved.path, folder);
        assert_eq!(resolved.reference, format!("hf:o/n@{COMMIT}"));
        assert_eq!(
            names(&folder),
            [
                "config.json",
                "distil-source.json",
                "model.safetensors",
                "tokenizer.json",
                "tokenizer_config.json"
            ]
        );
        assert_eq!(
            fs::read_to_string(folder.join("model.safetensors")).unwrap(),
            WEIGHTS
        );
        assert_eq!(
            names(&outcome.cache.path().join("hf/o--n")),
            [COMMIT, "refs"]
        );
        assert_eq!(outcome.requests.len(), 5);

        // Again, by branch and by commit, with nothing listening any more.
        let nowhere = config("http://127.0.0.1:1".to_owned(), None);
        for text in ["o/n", "o/n@main", &format!("o/n@{COMMIT}")] {
            let repository = Repository::parse(text).unwrap();
            let again = fetch(&repository, outcome.cache.path(), &nowhere, &mut |_| ()).unwrap();
            assert_eq!(again, resolved);
        }
    }

    #[test]
    fn a_break_in_the_weights_is_mended_by_a_range() {
        let whole = repository(WHOLE);
        let outcome = run(None, move |before, request| {
            let reply = whole(before, request);
            let first = request.path.ends_with("model.safetensors") && request.start() == 0;
            if first { reply.cut_at(8) } else { reply }
        });
        let folder = outcome.result.unwrap().path;
        assert_eq!(
            fs::read_to_string(folder.join("model.safetensors")).unwrap(),
            WEIGHTS
        );
        assert_eq!(
            outcome.requests.last().unwrap().header("range"),
            Some("bytes=8-")
        );
        assert!(
            outcome.notes[0].contains("attempt 2 of 5"),
            "{:?}",
            outcome.notes
        );
    }

    #[test]
    fn a_second_run_continues_the_first() {
        let whole = repository(WHOLE);
        let cache = tempfile::tempdir().unwrap();
        let server = TestServer::start(move |before, request| {
            let reply = whole(before, request);
            match request.path.ends_with("model.safetensors") {
                true if before < 5 => reply.cut_at(8),
                true if before < 9 => Reply::new(500, ""),
                _ => reply,
            }
        });
        let config = config(server.url(), None);
        let repository = Repository::parse("o/n").unwrap();
        let error = fetch(&repository, cache.path(), &config, &mut |_| ()).unwrap_err();
        assert!(
            error.to_string().contains("continues where it stopped"),
            "{error}"
        );
        assert_eq!(cached(&repository, cache.path()), None);
        let before = server.requests().len();
        fetch(&repository, cache.path(), &config, &mut |_| ()).unwrap();
        let second = server.requests().split_off(before);
        assert_eq!(second.len(), 2, "{second:?}");
        assert_eq!(second[1].header("range"), Some("bytes=8-"));
    }

    #[test]
    fn shards_come_from_the_index() {
        let shards: &[&str] = &[
            "config.json",
            "tokenizer.json",
            "model.safetensors.index.json",
            "model-00001-of-00002.safetensors",
            "model-00002-of-00002.safetensors",
            "consolidated.safetensors",
        ];
        let serve = |second: &'static str| {
            let whole = repository(shards);
            run(None, move |before, request| {
                if request.path.ends_with(INDEX) {
                    let map = serde_json::json!({ "weight_map": {
                        "a": "model-00001-of-00002.safetensors", "b": second } });
                    return Reply::new(200, map.to_string());
                }
                whole(before, request)
            })
        };
        let outcome = serve("model-00002-of-00002.safetensors");
        let folder = outcome.result.unwrap().path;
        assert!(folder.join("model-00002-of-00002.safetensors").exists());
        assert!(!folder.join("consolidated.safetensors").exists());
        for wrong in ["model-00003-of-00003.safetensors", "../config.json"] {
            let outcome = serve(wrong);
            assert!(outcome.error().contains("not a file of the repository"));
            assert!(outcome.error().contains(wrong));
        }
    }

    #[test]
    fn the_token_stays_with_the_hub() {
        let store = TestServer::start(|_, request| {
            // A storage server's own tag of 64 digits is no sha256.
            Reply::file(request, WEIGHTS.as_bytes()).with("etag", &"f".repeat(64))
        });
        let away = format!("{}/blob?signature=secret", store.url());
        let whole = repository(WHOLE);
        let outcome = run(Some("hf_secret"), move |before, request| {
            match request.path.as_str() {
                path if path.ends_with("/model.safetensors") => Reply::redirect("/moved/here"),
                "/moved/here" => {
                    Reply::redirect(&away).with("x-linked-size", &WEIGHTS.len().to_string())
                }
                _ => whole(before, request),
            }
        });
        let folder = outcome.result.unwrap().path;
        assert_eq!(
            fs::read_to_string(folder.join("model.safetensors")).unwrap(),
            WEIGHTS
        );
        assert_eq!(store.requests().len(), 1);
        assert_eq!(store.requests()[0].header("authorization"), None);
        for request in &outcome.requests {
            assert_eq!(
                request.header("authorization"),
                Some("Bearer hf_secret"),
                "{request:?}"
            );
        }
    }

    #[test]
    fn the_sha256_of_the_redirect_is_checked() {
        let store = TestServer::start(|_, request| Reply::file(request, WEIGHTS.as_bytes()));
        let away = store.url();
        let whole = repository(WHOLE);
        let outcome = run(None, move |before, request| {
            if request.path.ends_with("/model.safetensors") {
                let tag = format!("\"{}\"", "e".repeat(64));
                return Reply::redirect(&away).with("x-linked-etag", &tag);
            }
            whole(before, request)
        });
        assert!(
            matches!(outcome.result, Err(ModelError::Checksum { .. })),
            "{}",
            outcome.error()
        );
        assert_eq!(
            names(&outcome.cache.path().join("hf")),
            ["o--n", "o--n.lock"]
        );
        assert_eq!(cache::list(outcome.cache.path()).unwrap(), []);
    }

    #[test]
    fn refusals_say_what_to_do_and_never_the_token() {
        let status = |code, token| run(token, move |_, _| Reply::new(code, "no"));
        let unknown = status(401, None);
        assert!(unknown.error().contains("set HF_TOKEN") && unknown.error().contains("licence"));
        let known = status(403, Some("hf_secret"));
        assert!(
            known.error().contains("although HF_TOKEN is set"),
            "{}",
            known.error()
        );
        assert!(!known.error().contains("hf_secret"));
        let lost = status(404, None);
        assert!(
            lost.error()
                .contains("no repository o/n with a revision main"),
            "{}",
            lost.error()
        );
        assert!(lost.result.as_ref().unwrap_err().is_input());
        assert_eq!(lost.requests.len(), 1);
        let broken = status(500, None);
        assert!(broken.error().contains("status 500"), "{}", broken.error());
        assert!(!broken.result.as_ref().unwrap_err().is_input());
        assert_eq!(broken.requests.len(), 5);

        let whole = repository(WHOLE);
        let gone = run(None, move |before, request| {
            match request.path.ends_with("tokenizer.json") {
                true => Reply::new(404, ""),
                false => whole(before, request),
            }
        });
        assert!(
            gone.error()
                .contains("no file tokenizer.json in o/n at main"),
            "{}",
            gone.error()
        );
    }

    #[test]
    fn a_busy_hub_is_asked_again() {
        let whole = repository(WHOLE);
        let outcome = run(None, move |before, request| match before {
            0 | 3 => Reply::new(429, "").with("retry-after", "120"),
            _ => whole(before, request),
        });
        assert!(outcome.result.is_ok());
        assert_eq!(outcome.requests.len(), 7);
        assert_eq!(outcome.notes.len(), 2, "{:?}", outcome.notes);
    }

    #[test]
    fn names_that_leave_the_folder_are_refused() {
        for name in [
            "../evil.safetensors",
            "a/../../evil.safetensors",
            "/etc/evil.safetensors",
            "..\\evil.safetensors",
            ".hidden.safetensors",
            "c:evil.safetensors",
            "new\nline.safetensors",
        ] {
            let outcome = run(None, move |_, _| {
                Reply::new(
                    200,
                    listing(&["config.json", "tokenizer.json", "model.safetensors", name]),
                )
            });
            assert!(
                outcome.error().contains("which no model has"),
                "{name:?}: {}",
                outcome.error()
            );
            assert_eq!(outcome.requests.len(), 1);
        }
        let outcome = run(None, |_, _| {
            Reply::new(200, r#"{"sha": "../../x", "siblings": []}"#)
        });
        assert!(outcome.error().contains("no commit"), "{}", outcome.error());
    }

    #[test]
    fn repositories_that_are_no_model_are_refused_before_a_download() {
        for (names, expected) in [
            (&["config.json", "pytorch_model.bin"][..], "no safetensors"),
            (&["config.json", "old/model.safetensors"], "no safetensors"),
            (
                &["adapter_model.safetensors", "tokenizer.json"],
                "no config.json",
            ),
            (&["config.json", "model.safetensors"], "no tokenizer.json"),
        ] {
            let outcome = run(None, move |_, _| Reply::new(200, listing(names)));
            assert!(outcome.error().contains(expected), "{}", outcome.error());
            assert_eq!(outcome.requests.len(), 1);
        }
        let outcome = run(None, |_, _| Reply::new(200, "<html>log in</html>"));
        assert!(
            outcome.error().contains("HF_ENDPOINT"),
            "{}",
            outcome.error()
        );
    }

    #[test]
    fn without_a_hub_the_message_says_which_files_to_bring() {
        let cache = tempfile::tempdir().unwrap();
        let repository = Repository::parse("o/n").unwrap();
        let begin = Instant::now();
        let nowhere = config("http://127.0.0.1:1".to_owned(), None);
        let error = fetch(&repository, cache.path(), &nowhere, &mut |_| ()).unwrap_err();
        assert!(begin.elapsed().as_secs() < 5);
        assert!(error.to_string().contains("config.json"), "{error}");
        assert!(error.to_string().contains("pass its path"), "{error}");
        let server = TestServer::start(|_, _| Reply::new(500, ""));
        let offline = HubConfig {
            offline: true,
            ..config(server.url(), None)
        };
        let error = fetch(&repository, cache.path(), &offline, &mut |_| ()).unwrap_err();
        assert!(error.to_string().contains("HF_HUB_OFFLINE"), "{error}");
        assert!(server.requests().is_empty());
    }

    #[test]
    fn two_at_once_fetch_one_model_once() {
        let server = TestServer::start(repository(WHOLE));
        let cache = tempfile::tempdir().unwrap();
        let config = config(server.url(), None);
        let one = || {
            let repository = Repository::parse("o/n").unwrap();
            fetch(&repository, cache.path(), &config, &mut |_| ()).unwrap()
        };
        std::thread::scope(|scope| {
            let other = scope.spawn(one);
            assert_eq!(one(), other.join().unwrap());
        });
        assert_eq!(server.requests().len(), 5);
    }
}
