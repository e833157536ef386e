//! The one place where a head is altered (RFC 9110 §7.6).
//!
//! Hop-by-hop fields and those that `Connection` names are dropped both ways,
//! but for fields whose loss would change the request's meaning. What says who
//! the client is comes from the socket, never from the client.

mod forwarded;
mod key;
mod retry_after;
mod targets;

use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::{Method, StatusCode, Version, request};

use super::orca;
use crate::digits::decimal;
use crate::fleet::orca::Answers;
use crate::fleet::{Engine, EngineUrl};
use crate::trace::context::{Onward, TRACEPARENT, TRACESTATE};
use crate::upstream::{AnswerHead, Framing};
pub use key::ClientsKey;
pub use retry_after::retry_after;
pub use targets::{Pinned, strip_root, take_pin};

/// The request's id, both ways.
pub const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// What our own fields' names start with; no engine sees them.
pub const OWN_PREFIX: &str = "x-pilotfish-";
/// Request ids longer than this are replaced.
const MAX_REQUEST_ID: usize = 128;

const VIA: HeaderValue = HeaderValue::from_static("1.1 pilotfish");

/// How a request's body is framed towards the engine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RequestFraming {
    /// No body, and no field that says so.
    None,
    /// So many bytes.
    Length(u64),
    /// Unknown until it ends.
    Chunked,
}

/// Never dropped, whatever `Connection` names.
const PROTECTED: [HeaderName; 6] = [
    header::HOST,
    header::CONTENT_LENGTH,
    header::CONTENT_TYPE,
    header::AUTHORIZATION,
    REQUEST_ID,
    TRACEPARENT,
];

fn is_hop_by_hop(name: &HeaderName) -> bool {
    // Standard names compare as small integers.
    matches!(
        *name,
        header::CONNECTION
            | header::TE
            | header::TRAILER
            | header::TRANSFER_ENCODING
            | header::UPGRADE
            | header::PROXY_AUTHENTICATE
            | header::PROXY_AUTHORIZATION
    ) || matches!(
        name.as_str(),
        "keep-alive" | "proxy-connection" | "http2-settings"
    )
}

/// Fields that we write ourselves on the way to an engine.
fn is_rewritten(name: &HeaderName) -> bool {
    matches!(
        *name,
        header::HOST | header::CONTENT_LENGTH | header::EXPECT
    ) || *name == REQUEST_ID
        || name.as_str().starts_with(OWN_PREFIX)
}

/// Whether a name with `_` would be read as one that we answer for: gateways
/// that hand fields on as variables (WSGI, CGI) make `_` of `-`, so that
/// `x_forwarded_for` would stand beside ours.
fn is_alias(name: &HeaderName) -> bool {
    let name = name.as_str();
    if !name.contains('_') {
        return false;
    }
    HeaderName::try_from(name.replace('_', "-")).is_ok_and(|alias| {
        is_hop_by_hop(&alias)
            || is_rewritten(&alias)
            || forwarded::tells_who(&alias)
            || PROTECTED.contains(&alias)
            || alias.as_str() == "x-api-key"
    })
}

/// Names in `Connection`, in the few messages that have any that matter.
fn nominated(headers: &HeaderMap) -> Vec<HeaderName> {
    let mut names = Vec::new();
    for value in headers.get_all(header::CONNECTION) {
        for option in value.as_bytes().split(|byte| *byte == b',') {
            let option = option.trim_ascii();
            let usual = option.eq_ignore_ascii_case(b"keep-alive")
                || option.eq_ignore_ascii_case(b"close")
                || option.eq_ignore_ascii_case(b"upgrade");
            if let (false, Ok(name)) = (usual, HeaderName::from_bytes(option))
                && !PROTECTED.contains(&name)
            {
                names.push(name);
            }
        }
    }
    names
}

/// Whether the client asks for a WebSocket: in HTTP/1.1 only, and without a body.
/// Any other protocol (`h2c`) would be spoken past us.
#[must_use]
pub fn asks_upgrade(head: &request::Parts) -> bool {
    let mut protocols = head.headers.get_all(header::UPGRADE).iter();
    let is_websocket = match (protocols.next(), protocols.next()) {
        (Some(one), None) => one.as_bytes().eq_ignore_ascii_case(b"websocket"),
        _ => return false,
    };
    let length = head.headers.get(header::CONTENT_LENGTH);
    let has_body = head.headers.contains_key(header::TRANSFER_ENCODING)
        || length.is_some_and(|length| length != "0");
    let connection = head.headers.get_all(header::CONNECTION).iter();
    let says = |value: &HeaderValue| {
        let mut options = value.as_bytes().split(|byte| *byte == b',');
        options.any(|option| option.trim_ascii().eq_ignore_ascii_case(b"upgrade"))
    };
    head.version == Version::HTTP_11
        && head.method == Method::GET
        && is_websocket
        && !has_body
        && connection.into_iter().any(says)
}

/// The request's id: the client's if it is visible ASCII of a sane length,
/// else a new one.
#[must_use]
pub fn request_id(headers: &HeaderMap) -> HeaderValue {
    if let Some(given) = headers.get(REQUEST_ID) {
        let bytes = given.as_bytes();
        if (1..=MAX_REQUEST_ID).contains(&bytes.len()) && bytes.iter().all(u8::is_ascii_graphic) {
            return given.clone();
        }
    }
    const HEX: &[u8; 16] = b"0123456789abcdef";
    let random = fastrand::u128(..);
    let id: [u8; 32] = std::array::from_fn(|i| HEX[(random >> (4 * i) & 15) as usize]);
    HeaderValue::from_bytes(&id).unwrap_or(VIA)
}

/// What of a request is the same for every engine that it is sent to.
#[derive(Debug)]
pub struct Outgoing<'a> {
    /// The head as the client sent it.
    pub head: &'a request::Parts,
    /// The id that it goes by.
    pub request_id: &'a HeaderValue,
    /// The address of who sent it.
    pub peer: &'a str,
    /// Whether it came encrypted.
    pub is_tls: bool,
    /// Whether what it tells of those before its sender is believed.
    pub is_trusted: bool,
    /// How its body will be framed.
    pub framing: RequestFraming,
    /// Whether it asks to switch protocols.
    pub upgrade: bool,
    /// With which answer an engine may be asked for a report of its load, if at all.
    pub orca: Option<Answers>,
    /// The trace that it belongs to, if we add to it.
    pub trace: Option<&'a Onward>,
    /// Whether the client's own key is for engines.
    pub clients_key: ClientsKey,
}

impl Outgoing<'_> {
    /// With which answer this engine is asked for a report of its load, if at all.
    #[must_use]
    pub fn asks(&self, engine: &Engine) -> Option<Answers> {
        let asked = self.orca;
        asked.filter(|answers| engine.orca.may_be_asked(*answers))
    }
}

/// The head as the engine gets it, in bytes.
#[must_use]
pub fn for_engine(outgoing: &Outgoing<'_>, engine: &Engine) -> Vec<u8> {
    let head = outgoing.head;
    let mut out = Vec::with_capacity(768);
    request_line(&mut out, head, &engine.url);
    field(&mut out, b"host", engine.url.authority().as_bytes());
    let nominated = nominated(&head.headers);
    let ours = engine.credential.ours();
    let ours = ours.as_deref();
    for (name, value) in &head.headers {
        let replaced = (*name == header::COOKIE && head.version == Version::HTTP_2)
            || outgoing.clients_key.keeps(name, ours)
            || outgoing.trace.is_some_and(|trace| is_of_trace(name, trace));
        let ours = is_rewritten(name) || outgoing.writes(name) || is_alias(name);
        if !is_hop_by_hop(name) && !ours && !nominated.contains(name) && !replaced {
            field(&mut out, name.as_str().as_bytes(), value.as_bytes());
        }
    }
    key::write(&mut out, ours);
    if let Some(trace) = outgoing.trace {
        field(&mut out, b"traceparent", &trace.text());
    }
    if head.version == Version::HTTP_2 {
        join_cookies(&mut out, &head.headers);
    }
    match outgoing.framing {
        RequestFraming::None => {}
        RequestFraming::Length(length) => {
            out.extend_from_slice(b"content-length: ");
            decimal(&mut out, length);
            out.extend_from_slice(b"\r\n");
        }
        RequestFraming::Chunked => field(&mut out, b"transfer-encoding", b"chunked"),
    }
    field(&mut out, b"x-request-id", outgoing.request_id.as_bytes());
    outgoing.tell_who(&mut out);
    field(&mut out, b"via", via(head.version));
    if outgoing.asks(engine).is_some() {
        field(&mut out, orca::FORMAT.as_str().as_bytes(), orca::TEXT);
    }
    if outgoing.upgrade {
        out.extend_from_slice(b"connection: upgrade\r\n");
        for value in head.headers.get_all(header::UPGRADE) {
            field(&mut out, b"upgrade", value.as_bytes());
        }
    }
    out.extend_from_slice(b"\r\n");
    out
}

/// Fields that our own trace replaces: `tracestate` if it belongs to another.
fn is_of_trace(name: &HeaderName, trace: &Onward) -> bool {
    *name == TRACEPARENT || (*name == TRACESTATE && !trace.keeps_state)
}

fn request_line(out: &mut Vec<u8>, head: &request::Parts, engine: &EngineUrl) {
    out.extend_from_slice(head.method.as_str().as_bytes());
    out.push(b' ');
    let path = head.uri.path_and_query().map_or("/", |path| path.as_str());
    if path.starts_with('/') {
        out.extend_from_slice(engine.base_path().as_bytes());
        out.extend_from_slice(path.as_bytes());
    } else if path.starts_with('?') {
        // The absolute form `http://host?query` has an empty path.
        out.extend_from_slice(engine.base_path().as_bytes());
        out.push(b'/');
        out.extend_from_slice(path.as_bytes());
    } else {
        out.push(b'*');
    }
    out.extend_from_slice(b" HTTP/1.1\r\n");
}

fn via(version: Version) -> &'static [u8] {
    match version {
        Version::HTTP_2 => b"2 pilotfish",
        Version::HTTP_10 => b"1.0 pilotfish",
        _ => b"1.1 pilotfish",
    }
}

fn field(out: &mut Vec<u8>, name: &[u8], value: &[u8]) {
    out.extend_from_slice(name);
    out.extend_from_slice(b": ");
    out.extend_from_slice(value);
    out.extend_from_slice(b"\r\n");
}

/// HTTP/2 may split a cookie into crumbs; HTTP/1.1 has one field (RFC 9113 §8.2.3).
fn join_cookies(out: &mut Vec<u8>, headers: &HeaderMap) {
    let mut crumbs = headers.get_all(header::COOKIE).iter().peekable();
    if crumbs.peek().is_none() {
        return;
    }
    out.extend_from_slice(b"cookie: ");
    while let Some(crumb) = crumbs.next() {
        out.extend_from_slice(crumb.as_bytes());
        out.extend_from_slice(if crumbs.peek().is_some() {
            b"; "
        } else {
            b"\r\n"
        });
    }
}

/// Makes an engine's head the one that the client gets, but for the request's
/// id, which every answer gets.
pub fn for_client(answer: &mut AnswerHead) {
    let headers = &mut answer.headers;
    // Most answers have none of these: one look at the names is cheaper than
    // removing each.
    let chunked = if headers.keys().any(is_hop_by_hop) {
        drop_hop_by_hop(headers, answer.status)
    } else {
        false
    };
    match answer.framing {
        // One field, even if the engine wrote two, or a list.
        Framing::Length(length) => {
            let mut lengths = headers.get_all(header::CONTENT_LENGTH).iter();
            let listed = lengths
                .next()
                .is_some_and(|first| first.as_bytes().contains(&b','));
            if listed || lengths.next().is_some() {
                headers.insert(header::CONTENT_LENGTH, HeaderValue::from(length));
            }
        }
        Framing::Chunked | Framing::UntilClose => {
            headers.remove(header::CONTENT_LENGTH);
        }
        // What a HEAD or a 304 says of the length stands.
        Framing::Empty if chunked => {
            headers.remove(header::CONTENT_LENGTH);
        }
        Framing::Empty => {}
    }
    headers.append(header::VIA, VIA);
}

/// Drops them; tells whether the body is chunked.
fn drop_hop_by_hop(headers: &mut HeaderMap, status: StatusCode) -> bool {
    let chunked = headers.contains_key(header::TRANSFER_ENCODING);
    let mut drop = nominated(headers);
    drop.extend(headers.keys().filter(|name| is_hop_by_hop(name)).cloned());
    for name in drop {
        if status != StatusCode::SWITCHING_PROTOCOLS || name != header::UPGRADE {
            headers.remove(name);
        }
    }
    chunked
}

#[cfg(test)]
mod tests;
