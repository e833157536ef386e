//! What goes wrong with an API server: in a word for counters, in a sentence that
//! tells what to do, and what it means for the next try.

use std::borrow::Cow;
use std::time::Duration;

use serde::Deserialize;

/// Characters of a server's own message that we repeat.
const MOST_MESSAGE: usize = 300;

/// Why a request, a list or a watch failed.
#[derive(Debug, thiserror::Error)]
pub enum Fault {
    /// No connection.
    #[error("the Kubernetes API server {server} cannot be reached: {why}")]
    Unreachable {
        /// Its URL.
        server: String,
        /// The system's words.
        why: String,
    },
    /// A connection, but no trust in it.
    #[error(
        "the Kubernetes API server {server} cannot be trusted: {why}; check the cluster's certificate authority"
    )]
    Tls {
        /// Its URL.
        server: String,
        /// The library's words.
        why: String,
    },
    /// Our own configuration or credentials cannot be used.
    #[error("the credentials for the Kubernetes API server {server} cannot be used: {why}")]
    Credentials {
        /// Its URL.
        server: String,
        /// The library's words.
        why: String,
    },
    /// It says nothing.
    #[error("the Kubernetes API server {server} sent no {what} within {within:?}")]
    Late {
        /// Its URL.
        server: String,
        /// What is missing.
        what: &'static str,
        /// For how long we waited.
        within: Duration,
    },
    /// It says no.
    #[error("{0}")]
    Refused(Box<Refused>),
    /// An answer ended before its end.
    #[error("an answer of the Kubernetes API server broke off: {0}")]
    Broken(String),
    /// An answer is not what API servers say.
    #[error("that is no answer of a Kubernetes API server: {0}; check the server's address")]
    Garbled(String),
    /// A version, or a list's token, that the server remembers no more.
    #[error("the Kubernetes API server no longer knows the version that we have: {0}")]
    Expired(String),
}

impl Fault {
    /// For counters.
    #[must_use]
    pub fn reason(&self) -> Reason {
        match self {
            Self::Unreachable { .. } => Reason::Unreachable,
            Self::Tls { .. } => Reason::Tls,
            Self::Credentials { .. } => Reason::Credentials,
            Self::Late { .. } => Reason::Late,
            Self::Broken(_) => Reason::Broken,
            Self::Garbled(_) => Reason::Garbled,
            Self::Expired(_) => Reason::Expired,
            Self::Refused(refused) => match refused.told.code {
                401 => Reason::Credentials,
                403 => Reason::Forbidden,
                429 => Reason::Throttled,
                500.. => Reason::Server,
                _ => Reason::Refused,
            },
        }
    }

    /// For how long the server wants to be left alone.
    #[must_use]
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Refused(refused) => refused.told.retry_after,
            _ => None,
        }
    }

    /// Whether a watch that failed so cannot go on where it was.
    #[must_use]
    pub fn needs_list(&self) -> bool {
        match self {
            Self::Expired(_) | Self::Garbled(_) => true,
            // What comes back may have been put back in time, and then says nothing
            // of what was lost: a watch from a version that is yet to come is silent.
            Self::Unreachable { .. } => true,
            // Its load, or our permission, says nothing of the version.
            Self::Refused(refused) => !matches!(refused.told.code, 401 | 403 | 429 | 503),
            _ => false,
        }
    }
}

/// Why things fail, for counters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Reason {
    /// No connection.
    Unreachable,
    /// No trust in the connection.
    Tls,
    /// Ours are refused (401), or cannot be used.
    Credentials,
    /// 403.
    Forbidden,
    /// 429.
    Throttled,
    /// 410, or as much in a watch.
    Expired,
    /// Any other refusal.
    Refused,
    /// 5xx.
    Server,
    /// Nothing came in time.
    Late,
    /// An answer broke off.
    Broken,
    /// Not what API servers say.
    Garbled,
    /// An object, or a list, that was left out.
    TooLarge,
}

impl Reason {
    /// How many there are.
    pub const COUNT: usize = 12;
    /// All of them, in the order of their counters.
    pub const ALL: [Self; Self::COUNT] = [
        Self::Unreachable,
        Self::Tls,
        Self::Credentials,
        Self::Forbidden,
        Self::Throttled,
        Self::Expired,
        Self::Refused,
        Self::Server,
        Self::Late,
        Self::Broken,
        Self::Garbled,
        Self::TooLarge,
    ];

    /// As a label says it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Unreachable => "unreachable",
            Self::Tls => "tls",
            Self::Credentials => "credentials",
            Self::Forbidden => "forbidden",
            Self::Throttled => "throttled",
            Self::Expired => "expired",
            Self::Refused => "refused",
            Self::Server => "server",
            Self::Late => "late",
            Self::Broken => "broken",
            Self::Garbled => "garbled",
            Self::TooLarge => "too_large",
        }
    }
}

/// A refusal, and what was refused.
#[derive(Debug, thiserror::Error)]
#[error("{}", self.text())]
pub struct Refused {
    /// What the server said.
    pub told: Told,
    /// `list` or `watch`.
    pub verb: &'static str,
    /// What of, and where.
    pub of: Collection,
}

impl Refused {
    fn text(&self) -> String {
        let (verb, resource, place) = (self.verb, &self.of.resource, self.of.place());
        let Told { code, message, .. } = &self.told;
        let whole = self.of.whole_resource();
        match code {
            401 => format!(
                "the Kubernetes API server does not know who we are (401: {message}): check that this pod's \
                 service account token is mounted, or the user of the kubeconfig"
            ),
            403 => format!(
                "the Kubernetes API server does not let us {verb} {resource} {place} (403: {message}): apply a \
                 Role that allows list and watch on {whole} {place} to this pod's service account, with a \
                 RoleBinding (see manifests/ and docs/kubernetes.md)"
            ),
            404 => format!(
                "the Kubernetes API server has no {whole} (404: {message}): {}, or choose another source",
                self.of.whence()
            ),
            _ => format!(
                "the Kubernetes API server refused to {verb} {resource} {place} ({code} {}: {message})",
                self.told.reason
            ),
        }
    }
}

/// A collection of objects, as a path tells of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Collection {
    /// Of the API; empty: the core.
    pub group: String,
    /// As `pods`.
    pub resource: String,
    /// `None`: of all of them.
    pub namespace: Option<String>,
}

impl Collection {
    /// The collection at `/api/v1/...` or `/apis/GROUP/VERSION/...`.
    #[must_use]
    pub fn of(path: &str) -> Self {
        let path = path.split('?').next().unwrap_or_default();
        let parts: Vec<&str> = path.trim_matches('/').split('/').collect();
        let (group, rest) = match &*parts {
            ["api", _version, rest @ ..] => ("", rest),
            ["apis", group, _version, rest @ ..] => (*group, rest),
            rest => ("", rest),
        };
        let (namespace, resource) = match rest {
            ["namespaces", namespace, resource, ..] => (Some((*namespace).to_owned()), *resource),
            rest => (None, rest.last().copied().unwrap_or_default()),
        };
        Self {
            group: group.to_owned(),
            resource: resource.to_owned(),
            namespace,
        }
    }

    fn place(&self) -> String {
        match &self.namespace {
            Some(namespace) => format!("in namespace {namespace}"),
            None => "in all namespaces".to_owned(),
        }
    }

    /// What a server needs to have it.
    fn whence(&self) -> &'static str {
        match &*self.group {
            "inference.networking.k8s.io" => {
                "check that their CustomResourceDefinition is installed"
            }
            "discovery.k8s.io" => "they need Kubernetes 1.21 or later",
            _ => "check the server's address",
        }
    }

    /// As a Role would have it: with its group.
    fn whole_resource(&self) -> String {
        match &*self.group {
            "" => self.resource.clone(),
            group => format!("{}.{group}", self.resource),
        }
    }
}

/// What a server says when it refuses: a `Status` object, or what a head has of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Told {
    /// An HTTP status.
    pub code: u16,
    /// Kubernetes' own word, as `Expired`; may be empty.
    pub reason: String,
    /// In the server's words, shortened and without control characters.
    pub message: String,
    /// For how long it wants to be left alone.
    pub retry_after: Option<Duration>,
}

impl Told {
    /// Reads a `Status`; whatever it does not say is taken from the head's status.
    #[must_use]
    pub fn read(code: Option<u16>, body: &[u8]) -> Self {
        let status = serde_json::from_slice::<Status<'_>>(body);
        let status = status.ok().filter(|status| status.kind == "Status");
        let Some(status) = status else {
            return Self {
                code: code.unwrap_or(500),
                reason: String::new(),
                message: shortened(&String::from_utf8_lossy(body)),
                retry_after: None,
            };
        };
        let seconds = status.details.and_then(|details| details.retry_after);
        Self {
            code: code.or(status.code).unwrap_or(500),
            reason: shortened(&status.reason),
            message: shortened(&status.message),
            retry_after: seconds.filter(|s| *s > 0).map(Duration::from_secs),
        }
    }

    /// The fault that it is of a request for that.
    #[must_use]
    pub fn into_fault(self, verb: &'static str, path: &str) -> Fault {
        if self.code == 410 {
            return Fault::Expired(self.message);
        }
        Fault::Refused(Box::new(Refused {
            told: self,
            verb,
            of: Collection::of(path),
        }))
    }
}

/// `Status` of `meta/v1`, as much as we need.
#[derive(Debug, Deserialize)]
struct Status<'a> {
    #[serde(borrow, default)]
    kind: Cow<'a, str>,
    #[serde(default)]
    code: Option<u16>,
    #[serde(borrow, default)]
    reason: Cow<'a, str>,
    #[serde(borrow, default)]
    message: Cow<'a, str>,
    #[serde(default)]
    details: Option<Details>,
}

#[derive(Debug, Deserialize)]
struct Details {
    #[serde(default, rename = "retryAfterSeconds")]
    retry_after: Option<u64>,
}

/// Of a peer's text what may stand in a line of the log.
#[must_use]
pub fn shortened(text: &str) -> String {
    let text = text.trim();
    let clean = |c: char| if c.is_control() { ' ' } else { c };
    let mut short: String = text.chars().take(MOST_MESSAGE).map(clean).collect();
    if text.chars().nth(MOST_MESSAGE).is_some() {
        short.push('…');
    }
    short
}

#[cfg(test)]
mod tests {
    use super::*;

    const PODS: &str = "/api/v1/namespaces/ns/pods?watch=1";

    fn refused(code: u16) -> Fault {
        Told::read(Some(code), b"no").into_fault("watch", PODS)
    }

    #[test]
    fn collections() {
        let cases = [
            (PODS, "", "pods", Some("ns")),
            ("/api/v1/pods", "", "pods", None),
            (
                "/apis/discovery.k8s.io/v1/namespaces/a/endpointslices",
                "discovery.k8s.io",
                "endpointslices",
                Some("a"),
            ),
            ("/", "", "", None),
        ];
        for (path, group, resource, namespace) in cases {
            let expected = Collection {
                group: group.into(),
                resource: resource.into(),
                namespace: namespace.map(str::to_owned),
            };
            assert_eq!(Collection::of(path), expected);
        }
    }

    #[test]
    fn what_a_server_says() {
        let status = br#"{"kind":"Status","apiVersion":"v1","metadata":{},"status":"Failure",
            "message":"too old resource version: 1 (2)","reason":"Expired","code":410}"#;
        let told = Told::read(None, status);
        assert_eq!((told.code, &*told.reason), (410, "Expired"));
        assert!(told.message.starts_with("too old"));
        let status = br#"{"kind":"Status","reason":"TooManyRequests","details":{"retryAfterSeconds":3,"causes":[]}}"#;
        let told = Told::read(Some(429), status);
        assert_eq!(told.retry_after, Some(Duration::from_secs(3)));
        for body in [&b""[..], b"<html>\n\x1b[31m", b"{}", b"[1]", b"null"] {
            let told = Told::read(Some(502), body);
            assert_eq!((told.code, told.retry_after), (502, None));
            assert!(!told.message.contains(char::is_control));
        }
        let long = Told::read(Some(500), "ä".repeat(1000).as_bytes());
        assert_eq!(long.message.chars().count(), MOST_MESSAGE + 1);
    }

    #[test]
    fn a_refusal_says_what_to_do() {
        let text = refused(403).to_string();
        for part in [
            "watch pods",
            "in namespace ns",
            "apply a Role that allows list and watch on pods in namespace ns to this pod's service account",
            "RoleBinding",
            "manifests/",
        ] {
            assert!(text.contains(part), "{text}");
        }
        assert!(!text.contains("get"), "{text}");
        for (path, resource, part) in [
            (
                "/apis/inference.networking.k8s.io/v1/namespaces/ns/inferencepools",
                "inferencepools.inference.networking.k8s.io",
                "CustomResourceDefinition",
            ),
            (
                "/apis/discovery.k8s.io/v1/namespaces/ns/endpointslices",
                "endpointslices.discovery.k8s.io",
                "Kubernetes 1.21",
            ),
            (PODS, "pods", "address"),
        ] {
            let fault = Told::read(Some(404), b"404 page not found").into_fault("list", path);
            let text = fault.to_string();
            assert!(text.contains(resource) && text.contains(part), "{text}");
            let is_custom = text.contains("CustomResourceDefinition");
            assert_eq!(is_custom, part == "CustomResourceDefinition");
        }
        assert!(refused(401).to_string().contains("token"));
    }

    #[test]
    fn what_each_means() {
        // Status, reason, whether a watch must list anew.
        let cases = [
            (400, Reason::Refused, true),
            (401, Reason::Credentials, false),
            (403, Reason::Forbidden, false),
            (404, Reason::Refused, true),
            (410, Reason::Expired, true),
            (422, Reason::Refused, true),
            (429, Reason::Throttled, false),
            (500, Reason::Server, true),
            (503, Reason::Server, false),
            (504, Reason::Server, true),
        ];
        for (code, reason, needs_list) in cases {
            let fault = refused(code);
            assert_eq!(fault.reason(), reason, "{code}");
            assert_eq!(fault.needs_list(), needs_list, "{code}");
        }
        for (at, reason) in Reason::ALL.into_iter().enumerate() {
            assert_eq!(reason as usize, at);
        }
    }
}
