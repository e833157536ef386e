//! What every request's head must satisfy before anyone looks at it, whatever
//! its route (RFC 9110 §7.2, RFC 9112 §3.2 and §6.1, RFC 9113 §8.3.1).
//!
//! hyper checks none of this. Two parties that read one head in two ways are
//! how requests are smuggled, and how a check by path or host is passed by.

use std::net::Ipv6Addr;

use http::header::{HOST, HeaderValue, TRANSFER_ENCODING, VIA};
use http::request::Parts;
use http::uri::PathAndQuery;
use http::{HeaderMap, Method, Request, Uri, Version};
use hyper::body::Incoming;

/// Bytes of a request's target at most.
pub(super) const MAX_TARGET: usize = 16 << 10;
/// Bytes of a method's name at most.
const MAX_METHOD: usize = 32;
/// Proxies of ours on a request's way at most: an engine's address may be one
/// of them by mistake.
const MAX_PASSES: usize = 8;
/// Bytes of a host's name at most, as in DNS.
const MAX_HOST: usize = 255;

/// A request whose head may be looked at, or why not.
pub type Asked = Result<Request<Incoming>, Box<Refused>>;

/// A request that nobody is to look at.
#[derive(Debug)]
pub struct Refused {
    /// Its head.
    pub head: Parts,
    /// What is wrong with it.
    pub fault: HeadFault,
}

/// What is wrong with a head that is HTTP.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HeadFault {
    /// A method that makes no sense here.
    #[error("Method {0} is not supported by this proxy.")]
    Method(String),
    /// None, two, or something that is no `host[:port]`.
    #[error("Invalid request: {0}. Give the host once, as name or name:port.")]
    Host(&'static str),
    /// A target of a form that makes no sense here.
    #[error("Invalid request: {0}. Give the target as /path or /path?query.")]
    Target(&'static str),
    /// A target that nobody has a use for.
    #[error("The request's target is longer than {MAX_TARGET} bytes.")]
    TargetLong,
    /// A body whose end two parties could see in two places.
    #[error("Invalid request: {0}. Give one Content-Length, or one Transfer-Encoding: chunked.")]
    Framing(&'static str),
    /// It has come by here too often.
    #[error("This request goes round: it has passed {MAX_PASSES} proxies like this one.")]
    Loop,
    /// A body in a coding that we do not know.
    #[error("No Transfer-Encoding but chunked is supported, and that once.")]
    Coding,
}

impl HeadFault {
    /// Whether what follows on the connection is not to be read as a request.
    #[must_use]
    pub fn ends_connection(&self) -> bool {
        match self {
            // What follows the head of a CONNECT would be the tunnel's.
            Self::Method(name) => name == "CONNECT",
            Self::Loop => false,
            _ => true,
        }
    }
}

/// The request, or what is left of it when something is wrong.
pub(super) fn asked(request: Request<Incoming>, found: Result<(), HeadFault>) -> Asked {
    match found {
        Ok(()) => Ok(request),
        Err(fault) => {
            let (head, _) = request.into_parts();
            Err(Box::new(Refused { head, fault }))
        }
    }
}

/// Whether a request of HTTP/2 is malformed, beyond what the library refuses
/// (RFC 9113 §8.1.1): its stream is reset, and it gets no answer.
pub(super) fn is_malformed<B>(request: &Request<B>) -> bool {
    let (authority, headers) = (request.uri().authority(), request.headers());
    let differs =
        |host: &HeaderValue| authority.is_some_and(|named| !same(named.as_str(), host.as_bytes()));
    let is_blank = |byte: Option<&u8>| matches!(byte, Some(b' ' | b'\t'));
    let is_padded = |value: &HeaderValue| {
        let bytes = value.as_bytes();
        is_blank(bytes.first()) || is_blank(bytes.last())
    };
    headers.get_all(HOST).iter().any(differs)
        || (request.method() == Method::CONNECT && authority.is_none())
        || headers.values().any(is_padded)
}

/// The first thing that is wrong with a head.
pub(super) fn check<B>(request: &Request<B>) -> Result<(), HeadFault> {
    let (uri, headers) = (request.uri(), request.headers());
    let is_http2 = request.version() == Version::HTTP_2;
    method(request.method())?;
    coding(headers)?;
    passes(headers)?;
    target(request.method(), uri)?;
    // One that the target names is as binding as a field.
    if let Some(authority) = uri.authority() {
        let authority = authority.as_str().as_bytes();
        if authority.contains(&b'@') && !is_http2 {
            return Err(HeadFault::Target("the target names a user"));
        }
        valid(authority)?;
    }
    let mut hosts = headers.get_all(HOST).iter();
    match (hosts.next(), hosts.next()) {
        (Some(_), Some(_)) => Err(HeadFault::Host("there is more than one Host")),
        (Some(host), None) => valid(host.as_bytes()),
        // HTTP/1.0 knows no Host.
        (None, _) => match request.version() {
            Version::HTTP_11 => Err(HeadFault::Host("there is no Host")),
            Version::HTTP_2 if uri.authority().is_none() => {
                Err(HeadFault::Host("there is neither :authority nor Host"))
            }
            _ => Ok(()),
        },
    }
}

fn method(method: &Method) -> Result<(), HeadFault> {
    let refused = matches!(*method, Method::CONNECT | Method::TRACE);
    if refused || method.as_str().len() > MAX_METHOD {
        let shown = method.as_str().chars().take(MAX_METHOD).collect();
        return Err(HeadFault::Method(shown));
    }
    Ok(())
}

/// hyper has seen to it that `chunked` comes last, not that it comes alone.
fn coding(headers: &HeaderMap) -> Result<(), HeadFault> {
    let mut codings = headers.get_all(TRANSFER_ENCODING).iter();
    match (codings.next(), codings.next()) {
        (None, _) => Ok(()),
        (Some(one), None) if one.as_bytes().eq_ignore_ascii_case(b"chunked") => Ok(()),
        _ => Err(HeadFault::Coding),
    }
}

/// As `Via` tells.
fn passes(headers: &HeaderMap) -> Result<(), HeadFault> {
    let steps = headers.get_all(VIA).iter();
    let steps = steps.flat_map(|via| via.as_bytes().split(|byte| *byte == b','));
    let ours = steps.filter(|step| step.trim_ascii().ends_with(b" pilotfish"));
    if ours.count() < MAX_PASSES {
        return Ok(());
    }
    Err(HeadFault::Loop)
}

fn target(method: &Method, uri: &Uri) -> Result<(), HeadFault> {
    let authority = uri.authority();
    let path = uri.path_and_query().map_or("", PathAndQuery::as_str);
    if path.len() + authority.map_or(0, |named| named.as_str().len()) > MAX_TARGET {
        return Err(HeadFault::TargetLong);
    }
    if let Some(scheme) = uri.scheme_str() {
        if !matches!(scheme, "http" | "https") {
            return Err(HeadFault::Target("the target's scheme is not http"));
        }
    } else if authority.is_some() {
        return Err(HeadFault::Target("the target is a mere authority"));
    }
    match path.bytes().next() {
        Some(b'/') => Ok(()),
        // `http://host` and `http://host?query`.
        Some(b'?') | None if authority.is_some() => Ok(()),
        Some(b'*') if path == "*" && *method == Method::OPTIONS => Ok(()),
        Some(b'*') if path == "*" => Err(HeadFault::Target("the target * is for OPTIONS")),
        _ => Err(HeadFault::Target("the target is no path")),
    }
}

fn valid(host: &[u8]) -> Result<(), HeadFault> {
    is_host(host)
        .then_some(())
        .ok_or(HeadFault::Host("the host makes no sense"))
}

/// `name`, `address` or `[address]`, with or without `:port`. RFC 3986 allows
/// more in a name (`%41`, `!`, `,`); no name that resolves has any of it.
fn is_host(text: &[u8]) -> bool {
    let (is_name, rest) = if let Some(literal) = text.strip_prefix(b"[") {
        let end = literal.iter().position(|byte| *byte == b']');
        let Some(end) = end else {
            return false;
        };
        let address = std::str::from_utf8(&literal[..end]);
        let is_address = address.is_ok_and(|address| address.parse::<Ipv6Addr>().is_ok());
        (is_address, &literal[end + 1..])
    } else {
        let end = text.iter().position(|byte| *byte == b':');
        let (name, rest) = text.split_at(end.unwrap_or(text.len()));
        let known = |byte: &u8| byte.is_ascii_alphanumeric() || b"-._".contains(byte);
        let is_name = (1..=MAX_HOST).contains(&name.len()) && name.iter().all(known);
        (is_name, rest)
    };
    is_name && is_port(rest)
}

/// Nothing, or `:` and a number, which may be left out.
fn is_port(text: &[u8]) -> bool {
    let Some(digits) = text.strip_prefix(b":") else {
        return text.is_empty();
    };
    let number = digits.iter().try_fold(0u16, |number, byte| {
        let digit = byte.is_ascii_digit().then(|| u16::from(byte - b'0'))?;
        number.checked_mul(10)?.checked_add(digit)
    });
    digits.len() <= 5 && number.is_some()
}

fn same(authority: &str, host: &[u8]) -> bool {
    authority.as_bytes().eq_ignore_ascii_case(host)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_are_names_or_addresses_with_or_without_a_port() {
        let long = "x".repeat(MAX_HOST + 1);
        for (text, good) in [
            ("a", true),
            ("a.example", true),
            ("A_b-c.example.:8001", true),
            ("10.0.0.1:80", true),
            ("[::1]", true),
            ("[fe80::1]:65535", true),
            ("a:", true),
            ("", false),
            (":80", false),
            ("a:65536", false),
            ("a:000080", false),
            ("a:8x", false),
            ("a:80:80", false),
            ("u@a", false),
            ("a,b", false),
            ("a b", false),
            ("a/b", false),
            ("a?b", false),
            ("a#b", false),
            ("a\\b", false),
            ("a%41", false),
            ("http://a", false),
            ("[::1", false),
            ("[::1]x", false),
            ("[1.2.3.4]", false),
            ("[::1%25eth0]", false),
            ("::1", false),
            ("\u{e4}", false),
            (&long, false),
            (&long[1..], true),
        ] {
            assert_eq!(is_host(text.as_bytes()), good, "{text:?}");
        }
    }

    fn asked(method: &str, uri: &str, version: Version, fields: &[(&str, &str)]) -> HeadFault {
        let mut request = Request::builder().method(method).uri(uri).version(version);
        for (name, value) in fields {
            request = request.header(*name, *value);
        }
        match check(&request.body(()).unwrap()) {
            Ok(()) => HeadFault::Target("none"),
            Err(fault) => fault,
        }
    }

    const NONE: HeadFault = HeadFault::Target("none");

    #[test]
    #[expect(clippy::too_many_lines, reason = "a table")]
    fn heads_are_checked_in_each_version() {
        use HeadFault::{Host, Target};
        let (v0, v1, v2) = (Version::HTTP_10, Version::HTTP_11, Version::HTTP_2);
        let host: &[_] = &[("host", "a")];
        let two: &[_] = &[("host", "a"), ("host", "a")];
        for (method, uri, version, fields, fault) in [
            ("GET", "/x", v1, host, NONE),
            ("GET", "/x", v1, &[], Host("there is no Host")),
            ("GET", "/x", v0, &[], NONE),
            ("GET", "/x", v1, two, Host("there is more than one Host")),
            ("GET", "/x", v0, two, Host("there is more than one Host")),
            (
                "GET",
                "http://a/x",
                v2,
                two,
                Host("there is more than one Host"),
            ),
            ("GET", "http://a/x", v2, &[], NONE),
            ("GET", "http://A/x", v2, host, NONE),
            ("GET", "/x", v2, host, NONE),
            (
                "GET",
                "/x",
                v2,
                &[],
                Host("there is neither :authority nor Host"),
            ),
            (
                "GET",
                "http://u@a/x",
                v2,
                &[],
                Host("the host makes no sense"),
            ),
            (
                "GET",
                "/x",
                v1,
                &[("host", "a/b")],
                Host("the host makes no sense"),
            ),
            ("GET", "http://b/x", v1, host, NONE),
            ("GET", "http://b?x", v1, host, NONE),
            ("GET", "http://b/x", v1, &[], Host("there is no Host")),
            (
                "GET",
                "http://u:p@a/x",
                v1,
                host,
                Target("the target names a user"),
            ),
            (
                "GET",
                "ftp://a/x",
                v1,
                host,
                Target("the target's scheme is not http"),
            ),
            (
                "GET",
                "a:80",
                v1,
                host,
                Target("the target is a mere authority"),
            ),
            ("GET", "*", v1, host, Target("the target * is for OPTIONS")),
            ("OPTIONS", "*", v1, host, NONE),
            (
                "CONNECT",
                "a:80",
                v1,
                host,
                HeadFault::Method("CONNECT".to_owned()),
            ),
            (
                "TRACE",
                "/",
                v1,
                host,
                HeadFault::Method("TRACE".to_owned()),
            ),
        ] {
            let found = asked(method, uri, version, fields);
            assert_eq!(found, fault, "{method} {uri} {version:?} {fields:?}");
        }
    }

    #[test]
    fn what_is_malformed_on_http2_gets_no_answer() {
        for (method, uri, (name, value), is) in [
            ("GET", "http://a/x", ("host", "a"), false),
            ("GET", "http://a/x", ("host", "A"), false),
            ("GET", "http://a/x", ("host", "b"), true),
            ("GET", "/x", ("host", "b"), false),
            ("GET", "http://a/x", ("x", "a b"), false),
            ("GET", "http://a/x", ("x", " a"), true),
            ("GET", "http://a/x", ("x", "a\t"), true),
            ("GET", "http://a/x", ("x", ""), false),
            ("CONNECT", "/", ("x", "a"), true),
            ("CONNECT", "a:80", ("x", "a"), false),
        ] {
            let request = Request::builder().method(method).uri(uri);
            let request = request.header(name, value).body(()).unwrap();
            assert_eq!(
                is_malformed(&request),
                is,
                "{method} {uri} {name}: {value:?}"
            );
        }
    }

    #[test]
    fn methods_targets_and_codings_are_bounded() {
        let host = ("host", "a");
        let ask = |method: &str, uri: &str| asked(method, uri, Version::HTTP_11, &[host]);
        assert_eq!(ask(&"M".repeat(MAX_METHOD), "/"), NONE);
        let long = HeadFault::Method("M".repeat(MAX_METHOD));
        assert_eq!(ask(&"M".repeat(MAX_METHOD + 1), "/"), long);
        let via = ["1.1 pilotfish"; MAX_PASSES - 1].join(", ");
        let passed = |via: &str, more: &str| {
            asked(
                "GET",
                "/",
                Version::HTTP_11,
                &[host, ("via", via), ("via", more)],
            )
        };
        assert_eq!(passed(&via, "1.1 other, 2 xpilotfish"), NONE);
        assert_eq!(passed(&via, "2 pilotfish"), HeadFault::Loop);
        let path = format!("/{}", "x".repeat(MAX_TARGET - 1));
        assert_eq!(ask("GET", &path), NONE);
        assert_eq!(ask("GET", &format!("{path}x")), HeadFault::TargetLong);
        let coded = |codings: &[&str]| {
            let fields = codings.iter().map(|coding| ("transfer-encoding", *coding));
            let fields: Vec<_> = fields.chain([host]).collect();
            asked("POST", "/", Version::HTTP_11, &fields)
        };
        assert_eq!(coded(&["chunked"]), NONE);
        assert_eq!(coded(&["Chunked"]), NONE);
        for codings in [
            &["gzip, chunked"] as &[_],
            &["chunked, chunked"],
            &["chunked", "chunked"],
            &["identity", "chunked"],
            &["x"],
            &[""],
        ] {
            assert_eq!(coded(codings), HeadFault::Coding, "{codings:?}");
        }
    }
}
