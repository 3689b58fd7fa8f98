//! A small blocking HTTP client: GET with a byte range, redirects, and a schedule for retries.
//!
//! Redirects are followed here and not in the HTTP library for two reasons. The Hugging Face hub
//! states a file's size and sha256 in `X-Linked-*` headers of the redirect itself, not of the
//! answer behind it. And the access token must reach the hub's own origin (scheme, host and
//! port) only, never the storage server that a redirect names.

use std::time::Duration;

use ureq::http::{HeaderMap, Uri};
use ureq::tls::{RootCerts, TlsConfig};

/// Redirects that are followed for one request.
const LONGEST_CHAIN: usize = 10;
/// Attempts in a row that may fail without a new byte.
const ATTEMPTS: u32 = 5;

/// How to reach a server, and how patiently.
#[derive(Clone)]
pub(crate) struct Network {
    /// The proxy, if there is one.
    pub(crate) proxy: Option<ureq::Proxy>,
    /// Longest wait for a name to be resolved, and again for a connection.
    pub(crate) connect_timeout: Duration,
    /// Longest silence of a connected server.
    pub(crate) read_timeout: Duration,
    /// Wait before the second attempt; it doubles with every further one.
    pub(crate) first_delay: Duration,
    /// Longest wait between attempts, whatever the server asks for.
    pub(crate) longest_delay: Duration,
}

impl Network {
    /// Patience for the internet; the proxy from `ALL_PROXY`, `HTTPS_PROXY`, `HTTP_PROXY` and
    /// `NO_PROXY`.
    pub(crate) fn from_environment() -> Self {
        Self {
            proxy: ureq::Proxy::try_from_env(),
            connect_timeout: Duration::from_secs(5),
            read_timeout: Duration::from_secs(60),
            first_delay: Duration::from_secs(1),
            longest_delay: Duration::from_secs(60),
        }
    }
}

/// Why a request got no usable answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Failure {
    /// No connection came about.
    Unreachable(String),
    /// The connection broke, or the answer is not what was announced.
    Broken(String),
    /// The server answered with an error status.
    Status {
        /// The HTTP status.
        code: u16,
        /// How long the server asks to wait.
        retry_after: Option<Duration>,
    },
    /// Something that another attempt does not cure.
    Refused(String),
}

impl Failure {
    /// Whether another attempt may succeed.
    fn is_passing(&self) -> bool {
        match self {
            Self::Unreachable(_) | Self::Broken(_) => true,
            Self::Status { code, .. } => matches!(code, 408 | 429 | 500..=599),
            Self::Refused(_) => false,
        }
    }
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Unreachable(why) => write!(f, "the server cannot be reached ({why})"),
            Self::Broken(why) => write!(f, "the connection broke ({why})"),
            Self::Status { code, .. } => write!(f, "the server answered with status {code}"),
            Self::Refused(why) => write!(f, "{why}"),
        }
    }
}

/// An answer of status 200, 206 or 416.
pub(crate) struct Answer {
    /// The HTTP status.
    pub(crate) status: u16,
    /// Size of the body in bytes, as announced.
    pub(crate) content_length: Option<u64>,
    /// First byte and size of the whole file, from `Content-Range`.
    pub(crate) range: (Option<u64>, Option<u64>),
    /// Size of the file as the hub states it.
    pub(crate) linked_size: Option<u64>,
    /// The file's sha256 as the hub states it, lower-case hexadecimal.
    pub(crate) sha256: Option<String>,
    /// The bytes.
    pub(crate) body: ureq::Body,
}

/// A client of one server.
pub(crate) struct Client {
    agent: ureq::Agent,
    network: Network,
    home: Option<Origin>,
    authorization: Option<String>,
}

impl Client {
    /// A client that shows `token` to the origin of `endpoint` and to nobody else.
    pub(crate) fn new(endpoint: &str, token: Option<&str>, network: &Network) -> Self {
        let tls = TlsConfig::builder()
            .root_certs(RootCerts::PlatformVerifier)
            .build();
        let config = ureq::Agent::config_builder()
            .tls_config(tls)
            .proxy(network.proxy.clone())
            .http_status_as_error(false)
            .max_redirects(0)
            .user_agent(concat!("distil/", env!("CARGO_PKG_VERSION")))
            .timeout_resolve(Some(network.connect_timeout))
            .timeout_connect(Some(network.connect_timeout))
            .timeout_recv_response(Some(network.read_timeout))
            .timeout_per_read(Some(network.read_timeout))
            .build();
        Self {
            agent: ureq::Agent::new_with_config(config),
            network: network.clone(),
            home: Origin::of(endpoint),
            authorization: token.map(|token| format!("Bearer {token}")),
        }
    }

    /// A fresh count of attempts.
    pub(crate) fn attempts(&self) -> Attempts<'_> {
        Attempts {
            network: &self.network,
            failed: 0,
        }
    }

    /// Asks for `url`, from byte `start` on if that is not 0.
    pub(crate) fn get(&self, url: &str, start: u64) -> Result<Answer, Failure> {
        let mut url = url.to_owned();
        let mut linked_size = None;
        let mut sha256 = None;
        for _ in 0..=LONGEST_CHAIN {
            let at_home = self.home.is_some() && Origin::of(&url) == self.home;
            let mut request = self.agent.get(&url).header("accept-encoding", "identity");
            if start > 0 {
                request = request.header("range", format!("bytes={start}-"));
            }
            if let (true, Some(authorization)) = (at_home, &self.authorization) {
                request = request.header("authorization", authorization);
            }
            let answer = request.call().map_err(failure)?;
            let status = answer.status().as_u16();
            let headers = answer.headers();
            if at_home {
                linked_size = number(headers, "x-linked-size").or(linked_size);
                sha256 = digest(headers, "x-linked-etag").or(sha256);
            }
            match status {
                301 | 302 | 303 | 307 | 308 => {
                    url = text(headers, "location")
                        .and_then(|location| join(&url, location))
                        .ok_or_else(|| {
                            Failure::Refused("the server redirects to an unusable address".into())
                        })?;
                }
                200 | 206 | 416 => {
                    // An ETag of another host's storage may be anything of 64 digits.
                    if at_home && sha256.is_none() {
                        sha256 = digest(headers, "etag");
                    }
                    return Ok(Answer {
                        status,
                        content_length: number(headers, "content-length"),
                        range: content_range(headers),
                        linked_size,
                        sha256,
                        body: answer.into_body(),
                    });
                }
                code => {
                    return Err(Failure::Status {
                        code,
                        retry_after: number(headers, "retry-after").map(Duration::from_secs),
                    });
                }
            }
        }
        Err(Failure::Refused(format!(
            "the server redirects more than {LONGEST_CHAIN} times"
        )))
    }
}

/// Counts failed attempts and waits between them.
pub(crate) struct Attempts<'a> {
    network: &'a Network,
    failed: u32,
}

impl Attempts<'_> {
    /// Forgets earlier failures, because something was achieved since.
    pub(crate) fn reset(&mut self) {
        self.failed = 0;
    }

    /// Whether to try again after `failure`; if so, says so through `note` and waits first.
    pub(crate) fn again(&mut self, failure: &Failure, note: &mut dyn FnMut(&str)) -> bool {
        self.failed += 1;
        if self.failed >= ATTEMPTS || !failure.is_passing() {
            return false;
        }
        let asked = match failure {
            Failure::Status { retry_after, .. } => *retry_after,
            _ => None,
        };
        let usual = self.network.first_delay * 2_u32.saturating_pow(self.failed - 1);
        let delay = asked.unwrap_or(usual).min(self.network.longest_delay);
        note(&format!(
            "{failure}; attempt {} of {ATTEMPTS} in {:.0} s",
            self.failed + 1,
            delay.as_secs_f64()
        ));
        std::thread::sleep(delay);
        true
    }
}

/// Scheme, host and port.
#[derive(Debug, PartialEq, Eq)]
struct Origin {
    scheme: String,
    host: String,
    port: u16,
}

impl Origin {
    fn of(url: &str) -> Option<Self> {
        let uri: Uri = url.parse().ok()?;
        let scheme = uri.scheme_str()?.to_ascii_lowercase();
        let usual = match scheme.as_str() {
            "https" => 443,
            "http" => 80,
            _ => return None,
        };
        Some(Self {
            host: uri.host()?.to_ascii_lowercase(),
            port: uri.port_u16().unwrap_or(usual),
            scheme,
        })
    }
}

/// Where `location`, found in an answer of `url`, points (RFC 3986, section 5.2, without `..`).
/// Nothing if it is not HTTP, or would leave HTTPS for plain HTTP.
fn join(url: &str, location: &str) -> Option<String> {
    let (scheme, rest) = url.split_once("://")?;
    let path_start = rest.find(['/', '?']).unwrap_or(rest.len());
    let (authority, path) = rest.split_at(path_start);
    let path = path.split('?').next().unwrap_or("");
    let joined = if location.contains("://") && !location.starts_with(['/', '?']) {
        location.to_owned()
    } else if location.starts_with("//") {
        format!("{scheme}:{location}")
    } else if location.starts_with('/') {
        format!("{scheme}://{authority}{location}")
    } else {
        let folder = path.rsplit_once('/').map_or("", |(folder, _)| folder);
        format!("{scheme}://{authority}{folder}/{location}")
    };
    let (from, to) = (Origin::of(url)?, Origin::of(&joined)?);
    (from.scheme == to.scheme || to.scheme == "https").then_some(joined)
}

/// What a library error means for us. Its text is passed on only where it cannot hold an address
/// with a signature in it.
fn failure(error: ureq::Error) -> Failure {
    use std::io::ErrorKind;
    use ureq::{Error, Timeout};
    match error {
        Error::HostNotFound => Failure::Unreachable("its name is not known here".to_owned()),
        Error::ConnectionFailed
        | Error::ConnectProxyFailed(_)
        | Error::InvalidProxyUrl
        | Error::Timeout(Timeout::Resolve | Timeout::Connect) => {
            Failure::Unreachable(error.to_string())
        }
        Error::Io(error) => match error.kind() {
            ErrorKind::ConnectionReset
            | ErrorKind::ConnectionAborted
            | ErrorKind::BrokenPipe
            | ErrorKind::UnexpectedEof
            | ErrorKind::TimedOut
            | ErrorKind::WouldBlock
            | ErrorKind::Interrupted => Failure::Broken(error.to_string()),
            // What TLS finds wrong (a certificate nobody vouches for) stays wrong.
            ErrorKind::InvalidData => {
                Failure::Refused(format!("the connection is not safe: {error}"))
            }
            _ => Failure::Unreachable(error.to_string()),
        },
        Error::Tls(_) | Error::Rustls(_) => {
            Failure::Refused(format!("the connection is not safe: {error}"))
        }
        Error::BadUri(_) | Error::Http(_) => {
            Failure::Refused("the server's address is malformed".to_owned())
        }
        error => Failure::Broken(error.to_string()),
    }
}

fn text<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name)?.to_str().ok().map(str::trim)
}

fn number(headers: &HeaderMap, name: &str) -> Option<u64> {
    text(headers, name)?.parse().ok()
}

/// The sha256 in an entity tag, if it is one: 64 hexadecimal digits, possibly quoted or weak.
fn digest(headers: &HeaderMap, name: &str) -> Option<String> {
    let tag = text(headers, name)?;
    let tag = tag.strip_prefix("W/").unwrap_or(tag).trim_matches('"');
    (tag.len() == 64 && tag.chars().all(|c| c.is_ascii_hexdigit()))
        .then(|| tag.to_ascii_lowercase())
}

/// First byte and whole size from `bytes 5-9/10`, `bytes 5-9/*` or `bytes */10` (RFC 9110, 14.4).
fn content_range(headers: &HeaderMap) -> (Option<u64>, Option<u64>) {
    let Some((range, size)) = text(headers, "content-range")
        .and_then(|value| value.strip_prefix("bytes "))
        .and_then(|value| value.split_once('/'))
    else {
        return (None, None);
    };
    let start = range
        .split_once('-')
        .and_then(|(start, _)| start.parse().ok());
    (start, size.parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn redirects_are_joined_and_never_leave_https() {
        let base = "https://hub.test:8443/a/b/c?x=/y";
        for (location, expected) in [
            (
                "https://store.test/f?sig=://1",
                Some("https://store.test/f?sig=://1"),
            ),
            ("//store.test/f", Some("https://store.test/f")),
            ("/z?u=http://q", Some("https://hub.test:8443/z?u=http://q")),
            ("d", Some("https://hub.test:8443/a/b/d")),
            ("http://hub.test:8443/z", None),
            ("file:///etc/passwd", None),
        ] {
            assert_eq!(join(base, location).as_deref(), expected, "{location}");
        }
        assert_eq!(
            join("http://h.test", "f").as_deref(),
            Some("http://h.test/f")
        );
        assert_eq!(
            join("http://h.test/a", "https://h.test/a").as_deref(),
            Some("https://h.test/a")
        );
    }

    #[test]
    fn origins_differ_by_scheme_host_and_port() {
        let origin = |url| Origin::of(url).unwrap();
        assert_eq!(origin("https://Hub.test/x"), origin("https://hub.test:443"));
        assert_ne!(origin("https://hub.test"), origin("http://hub.test"));
        assert_ne!(origin("https://hub.test"), origin("https://hub.test:444"));
        assert_ne!(
            origin("https://hub.test"),
            origin("https://hub.test.evil.test")
        );
        assert_eq!(Origin::of("ftp://hub.test"), None);
    }

    #[test]
    fn entity_tags_and_ranges_are_read() {
        let headers = |name: &'static str, value: &str| {
            let mut map = HeaderMap::new();
            map.insert(name, value.parse().unwrap());
            map
        };
        let hex = "AB".repeat(32);
        for (tag, expected) in [
            (format!("\"{hex}\""), Some("ab".repeat(32))),
            (format!("W/\"{hex}\""), Some("ab".repeat(32))),
            (format!("\"{}\"", &hex[..40]), None),
            ("x".repeat(64), None),
        ] {
            assert_eq!(digest(&headers("etag", &tag), "etag"), expected, "{tag}");
        }
        for (range, expected) in [
            ("bytes 5-9/10", (Some(5), Some(10))),
            ("bytes 5-9/*", (Some(5), None)),
            ("bytes */10", (None, Some(10))),
            ("lines 5-9/10", (None, None)),
        ] {
            assert_eq!(
                content_range(&headers("content-range", range)),
                expected,
                "{range}"
            );
        }
    }

    #[test]
    fn waits_double_up_to_the_longest_and_heed_the_server() {
        let network = Network {
            first_delay: Duration::from_millis(2),
            longest_delay: Duration::from_millis(5),
            ..Network::from_environment()
        };
        let mut attempts = Attempts {
            network: &network,
            failed: 0,
        };
        let limited = Failure::Status {
            code: 429,
            retry_after: Some(Duration::from_secs(3600)),
        };
        let begin = std::time::Instant::now();
        let mut notes = 0;
        while attempts.again(&limited, &mut |_| notes += 1) {}
        assert_eq!(notes, 4);
        assert!(begin.elapsed() >= Duration::from_millis(20));
        assert!(begin.elapsed() < Duration::from_secs(5));
        attempts.reset();
        let lost = Failure::Status {
            code: 404,
            retry_after: None,
        };
        assert!(!attempts.again(&lost, &mut |_| ()));
        assert!(!attempts.again(&Failure::Refused("no".to_owned()), &mut |_| ()));
        assert!(attempts.again(&Failure::Broken("cut".to_owned()), &mut |_| ()));
    }
}
