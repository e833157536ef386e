//! HTTP/1 as a reference reads it: simple, slow, of whole messages in memory.
//!
//! What a client sent is read as leniently as any server might; what we sent is
//! held to the letter.

use std::fmt;
use std::str::from_utf8;

/// Fields of a head: names in lower case, values with what is not ASCII escaped.
pub(super) type Fields = Vec<(String, String)>;

/// A request with the whole of its body.
#[derive(Clone)]
pub(super) struct Request {
    pub(super) method: String,
    pub(super) target: String,
    pub(super) fields: Fields,
    /// As far as it came.
    pub(super) body: Vec<u8>,
    pub(super) is_whole: bool,
}

/// An answer, as far as it came.
#[derive(Clone)]
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) body: Vec<u8>,
    pub(super) is_whole: bool,
    /// Whether nothing but the connection's end tells the body's.
    pub(super) by_close: bool,
}

impl fmt::Debug for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (body, fields) = (self.body.escape_ascii(), &self.fields);
        let whole = if self.is_whole { "whole" } else { "cut" };
        write!(
            f,
            "<{} {} {fields:?} {body} {whole}>",
            self.method, self.target
        )
    }
}

impl fmt::Debug for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let whole = if self.is_whole { "whole" } else { "cut" };
        write!(f, "<{} {} {whole}>", self.status, self.body.escape_ascii())
    }
}

/// What a body's framing makes of the bytes behind a head.
pub(super) struct Framed {
    pub(super) body: Vec<u8>,
    /// Bytes that it took, if it came whole.
    pub(super) length: Option<usize>,
}

/// A chunked body; its end is the empty line behind trailers. `is_strict`: without
/// extensions and trailers.
pub(super) fn chunked(bytes: &[u8], is_strict: bool) -> Framed {
    let (mut body, mut at) = (Vec::new(), 0);
    let cut = |body| Framed { body, length: None };
    loop {
        let Some(line) = line(&bytes[at..]) else {
            return cut(body);
        };
        let digits = line.iter().take_while(|b| b.is_ascii_hexdigit()).count();
        let size = from_utf8(&line[..digits]).map(|text| usize::from_str_radix(text, 16));
        let (Ok(Ok(size)), false) = (size, is_strict && digits != line.len()) else {
            return cut(body);
        };
        at += line.len() + 2;
        if size == 0 {
            break;
        }
        let data = &bytes[at..];
        body.extend_from_slice(&data[..size.min(data.len())]);
        let Some(end) = data.get(size..).filter(|rest| rest.len() >= 2) else {
            return cut(body);
        };
        if !end.starts_with(b"\r\n") {
            return cut(body);
        }
        at += size + 2;
    }
    while let Some(trailer) = line(&bytes[at..]) {
        at += trailer.len() + 2;
        if trailer.is_empty() {
            let length = Some(at);
            return Framed { body, length };
        }
        if is_strict {
            return cut(body);
        }
    }
    cut(body)
}

/// Up to the first CRLF.
fn line(bytes: &[u8]) -> Option<&[u8]> {
    memchr::memmem::find(bytes, b"\r\n").map(|end| &bytes[..end])
}

fn fixed(bytes: &[u8], length: usize) -> Framed {
    let body = bytes[..length.min(bytes.len())].to_vec();
    let length = (body.len() == length).then_some(length);
    Framed { body, length }
}

/// The values of a field, split at commas.
pub(super) fn list(fields: &Fields, name: &str) -> Vec<String> {
    let values = fields.iter().filter(|(known, _)| known == name);
    let items = values.flat_map(|(_, value)| value.split(','));
    items.map(|item| item.trim().to_ascii_lowercase()).collect()
}

/// The one length that all fields agree on; `Err`: they do not, or it is none.
fn length(fields: &Fields) -> Result<Option<usize>, ()> {
    let mut agreed = None;
    for item in list(fields, "content-length") {
        let is_number = !item.is_empty() && item.bytes().all(|byte| byte.is_ascii_digit());
        let number = item.parse::<usize>().ok().filter(|_| is_number).ok_or(())?;
        if *agreed.get_or_insert(number) != number {
            return Err(());
        }
    }
    Ok(agreed)
}

fn fields(headers: &[httparse::Header<'_>]) -> Fields {
    let owned = |one: &httparse::Header<'_>| {
        (
            one.name.to_ascii_lowercase(),
            one.value.escape_ascii().to_string(),
        )
    };
    headers.iter().map(owned).collect()
}

/// The first request, and how many bytes it took; 0: no other can follow it.
/// `None`: none, or not the whole of its head.
pub(super) fn request(bytes: &[u8], is_strict: bool) -> Option<(Request, usize)> {
    let mut room = [httparse::EMPTY_HEADER; 256];
    let mut head = httparse::Request::new(&mut room);
    let Ok(httparse::Status::Complete(end)) = head.parse(bytes) else {
        return None;
    };
    let is_lf = |at: usize| bytes[at] == b'\n' && !bytes[..at].ends_with(b"\r");
    if is_strict && (0..end).any(is_lf) {
        return None;
    }
    let fields = fields(head.headers);
    let codings = list(&fields, "transfer-encoding");
    let framed = match length(&fields) {
        _ if codings.last().is_some_and(|coding| coding == "chunked") => {
            chunked(&bytes[end..], is_strict)
        }
        Ok(length) if codings.is_empty() => fixed(&bytes[end..], length.unwrap_or(0)),
        _ => return None,
    };
    let is_last = head.version == Some(0) || framed.length.is_none();
    let used = framed.length.map_or(0, |length| end + length);
    let request = Request {
        method: head.method.unwrap_or_default().to_owned(),
        target: head.path.unwrap_or_default().to_owned(),
        fields,
        body: framed.body,
        is_whole: framed.length.is_some(),
    };
    Some((request, if is_last { 0 } else { used }))
}

/// All requests that a client's bytes can be taken for.
pub(super) fn requests(mut bytes: &[u8]) -> Vec<Request> {
    let mut all = Vec::new();
    while let Some((one, used)) = request(bytes, false) {
        all.push(one);
        if used == 0 {
            break;
        }
        bytes = &bytes[used..];
    }
    all
}

/// The first answer that is not interim, to a request of that method, and what is
/// left behind it; `closed`: no further bytes come. `None`: there is none.
pub(super) fn answer<'a>(
    mut bytes: &'a [u8],
    method: &str,
    closed: bool,
) -> Option<(Answer, &'a [u8])> {
    loop {
        let mut room = [httparse::EMPTY_HEADER; 256];
        let mut head = httparse::Response::new(&mut room);
        let Ok(httparse::Status::Complete(end)) = head.parse(bytes) else {
            return None;
        };
        let (status, rest) = (head.code?, &bytes[end..]);
        if (100..200).contains(&status) && status != 101 {
            bytes = rest;
            continue;
        }
        let fields = fields(head.headers);
        let codings = list(&fields, "transfer-encoding");
        let length = length(&fields).ok()?;
        let mut by_close = false;
        let framed = if method == "HEAD" || matches!(status, 101 | 204 | 304) {
            fixed(rest, 0)
        } else if codings == ["chunked"] {
            chunked(rest, false)
        } else if !codings.is_empty() {
            return None;
        } else if let Some(length) = length {
            fixed(rest, length)
        } else {
            by_close = true;
            let mut framed = fixed(rest, rest.len());
            framed.length = framed.length.filter(|_| closed);
            framed
        };
        let left = framed.length.map_or(&[][..], |length| &rest[length..]);
        let answer = Answer {
            status,
            body: framed.body,
            is_whole: framed.length.is_some(),
            by_close,
        };
        return Some((answer, left));
    }
}
