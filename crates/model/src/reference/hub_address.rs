//! Which hub is asked, as whom, and for which repository.
//!
//! Both come from outside (the environment, the command line) and end up in addresses, headers and
//! folder names; what could do harm there is refused here.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use super::http::Network;
use crate::error::{ModelError, Result};

/// Which hub, and as whom.
#[derive(Clone)]
pub(crate) struct HubConfig {
    /// Address without a final slash.
    pub(crate) endpoint: String,
    /// Access token. It is sent to the endpoint's origin only and never printed.
    pub(crate) token: Option<String>,
    /// Whether the hub must not be contacted.
    pub(crate) offline: bool,
    /// Timeouts, retries and proxy.
    pub(crate) network: Network,
}

impl HubConfig {
    /// From `HF_ENDPOINT`, `HF_TOKEN` and `HF_HUB_OFFLINE`.
    pub(crate) fn new(
        variable: &dyn Fn(&str) -> Option<OsString>,
        network: Network,
    ) -> Result<Self> {
        let set = |name: &str| {
            variable(name)
                .map(|value| value.to_string_lossy().trim().to_owned())
                .filter(|value| !value.is_empty())
        };
        let endpoint = set("HF_ENDPOINT").unwrap_or_else(|| "https://huggingface.co".to_owned());
        let authority = endpoint
            .strip_prefix("https://")
            .or_else(|| endpoint.strip_prefix("http://"))
            .and_then(|rest| rest.split('/').next())
            .unwrap_or("");
        if authority.is_empty() || authority.contains('@') || endpoint.contains(['?', '#', ' ']) {
            return Err(ModelError::Request {
                what: "HF_ENDPOINT is not the address of a hub".to_owned(),
                fix: "write it as https://host, without user name; a token goes into HF_TOKEN"
                    .to_owned(),
            });
        }
        let token = set("HF_TOKEN");
        if token
            .iter()
            .flat_map(|token| token.chars())
            .any(|c| !c.is_ascii_graphic())
        {
            return Err(ModelError::Request {
                what: "HF_TOKEN holds characters that no token has".to_owned(),
                fix: "copy it again from your account's settings, or unset it".to_owned(),
            });
        }
        Ok(Self {
            endpoint: endpoint.trim_end_matches('/').to_owned(),
            token,
            offline: set("HF_HUB_OFFLINE").is_some_and(|value| {
                matches!(
                    value.to_ascii_lowercase().as_str(),
                    "1" | "true" | "yes" | "on"
                )
            }),
            network,
        })
    }
}

/// A repository at a revision.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Repository {
    /// `org/name`.
    pub(crate) name: String,
    /// Branch, tag or commit.
    pub(crate) revision: String,
}

impl Repository {
    /// Reads `org/name[@revision]`; nothing if it is not of that form.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let (name, revision) = text.split_once('@').unwrap_or((text, "main"));
        let (organisation, model) = name.split_once('/')?;
        // The hub forbids `--` and `..` in names; our folder names rely on it.
        let is_name = |part: &str| {
            part.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '_')
                && part
                    .chars()
                    .all(|c| c.is_ascii_alphanumeric() || "._-".contains(c))
                && !part.contains("--")
                && !part.contains("..")
        };
        let is_revision = revision.split('/').all(|part| {
            !part.is_empty()
                && !part.starts_with('.')
                && part
                    .chars()
                    .all(|c| c.is_ascii_alphanumeric() || "._-+".contains(c))
        });
        (is_name(organisation) && is_name(model) && is_revision).then(|| Self {
            name: name.to_owned(),
            revision: revision.to_owned(),
        })
    }

    /// The folder of the cache for all its commits.
    pub(crate) fn folder(&self, cache: &Path) -> PathBuf {
        cache.join("hf").join(self.name.replace('/', "--"))
    }

    /// The file that holds the commit of this revision.
    pub(crate) fn commit_file(&self, cache: &Path) -> PathBuf {
        let revision = self.revision.replace('/', "%2F");
        self.folder(cache).join("refs").join(revision)
    }
}

impl std::fmt::Display for Repository {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "hf:{}@{}", self.name, self.revision)
    }
}

/// Whether a text is a commit's digest: it becomes the name of a folder.
pub(crate) fn is_commit(text: &str) -> bool {
    (7..=64).contains(&text.len()) && text.chars().all(|c| matches!(c, '0'..='9' | 'a'..='f'))
}

#[cfg(test)]
mod tests {
    use super::super::test_server::impatient;
    use super::*;

    #[test]
    fn references_are_read_strictly() {
        let shown = |text| Repository::parse(text).map(|repository| repository.to_string());
        assert_eq!(shown("o/n").as_deref(), Some("hf:o/n@main"));
        assert_eq!(
            shown("O.x/n-1_b@refs/pr/1").as_deref(),
            Some("hf:O.x/n-1_b@refs/pr/1")
        );
        for wrong in [
            "",
            "o",
            "o/",
            "/n",
            "o/n/m",
            "o/..",
            "../n",
            "o/n@",
            "o/n@..",
            "o/n@a//b",
            "o--x/n",
            "o/n@a?b",
            "-o/n",
            "o/n m",
            "o/n@refs/../x",
        ] {
            assert_eq!(shown(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn the_environment_is_heeded_and_checked() {
        let with = |pairs: &'static [(&str, &str)]| {
            HubConfig::new(
                &move |name| {
                    pairs
                        .iter()
                        .find(|pair| pair.0 == name)
                        .map(|pair| pair.1.into())
                },
                impatient(),
            )
        };
        let plain = with(&[]).unwrap();
        assert_eq!(
            (plain.endpoint.as_str(), plain.token, plain.offline),
            ("https://huggingface.co", None, false)
        );
        let set = with(&[
            ("HF_ENDPOINT", "http://mirror.test/hub/"),
            ("HF_TOKEN", " hf_x\n"),
            ("HF_HUB_OFFLINE", "YES"),
        ])
        .unwrap();
        assert_eq!(set.endpoint, "http://mirror.test/hub");
        assert_eq!((set.token.as_deref(), set.offline), (Some("hf_x"), true));
        assert!(!with(&[("HF_HUB_OFFLINE", "0")]).unwrap().offline);
        for wrong in [
            "mirror.test",
            "ftp://mirror.test",
            "https://",
            "https://me:pw@mirror.test",
        ] {
            let pairs: &'static [(&str, &str)] = Box::leak(Box::new([("HF_ENDPOINT", wrong)]));
            let error = with(pairs).map(|_| ()).unwrap_err().to_string();
            assert!(
                error.contains("HF_ENDPOINT") && !error.contains("pw"),
                "{error}"
            );
        }
        let error = with(&[("HF_TOKEN", "hf\u{a0}x")])
            .map(|_| ())
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("HF_TOKEN") && !error.contains("hf\u{a0}x"),
            "{error}"
        );
    }
}
