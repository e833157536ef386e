//! What is answered before there is a request: by hyper, whose answers have no
//! body, or when a head is late. Ours are JSON, as all errors are.

use std::io::IoSlice;
use std::rc::Rc;

/// Why there is no request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unparsed {
    /// It is not HTTP/1.1.
    Bad,
    /// Its target is far too long.
    TargetLong,
    /// It has too many fields, or bytes.
    TooLarge,
    /// It did not end in time.
    Late,
}

/// Who is told of requests that there never were.
pub struct Unseen(Box<dyn Fn(Unparsed)>);

impl Unseen {
    /// Tells that function.
    pub fn new(tell: impl Fn(Unparsed) + 'static) -> Rc<Self> {
        Rc::new(Self(Box::new(tell)))
    }

    pub(super) fn tell(&self, unparsed: Unparsed) {
        self.0(unparsed);
    }
}

impl std::fmt::Debug for Unseen {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Unseen")
    }
}

impl Unparsed {
    /// As hyper says.
    pub(in crate::downstream) fn of_parser(error: &hyper::Error) -> Self {
        if error.is_parse_too_large() {
            Self::TooLarge
        } else {
            Self::Bad
        }
    }

    /// What hyper answers by itself, if these bytes are that: a head with no
    /// fields but these. Every other answer has at least a request's id.
    pub(super) fn of(slices: &[IoSlice<'_>]) -> Option<Self> {
        let (first, rest) = slices.split_first()?;
        if !first.starts_with(b"HTTP/1.1 4") && !first.starts_with(b"HTTP/1.0 4")
            || rest.iter().any(|slice| !slice.is_empty())
        {
            return None;
        }
        let head = std::str::from_utf8(first).ok()?.strip_suffix("\r\n\r\n")?;
        let (status, fields) = head.split_once("\r\n")?;
        let known = |field: &str| {
            let name = field.split(':').next().unwrap_or_default();
            matches!(name, "connection" | "content-length" | "date")
        };
        if !fields.split("\r\n").all(known) {
            return None;
        }
        match status.get("HTTP/1.1 ".len()..)?.get(..3)? {
            "400" => Some(Self::Bad),
            "414" => Some(Self::TargetLong),
            "431" => Some(Self::TooLarge),
            _ => None,
        }
    }

    /// The answer, whole: nothing else is known of who asks.
    pub(in crate::downstream) fn answer(self) -> String {
        let (status, code, message) = match self {
            Self::Bad => (
                "400 Bad Request",
                "bad_request",
                "Invalid request: its head is not HTTP/1.1.",
            ),
            Self::TargetLong => (
                "414 URI Too Long",
                "target_too_long",
                "The request's target is longer than 16 KiB.",
            ),
            Self::TooLarge => (
                "431 Request Header Fields Too Large",
                "head_too_large",
                "The request's head is larger than 64 KiB, or has more than 100 fields.",
            ),
            Self::Late => (
                "408 Request Timeout",
                "head_timeout",
                "The request's head did not end in time.",
            ),
        };
        let body = format!(
            r#"{{"error":{{"message":"{message}","type":"invalid_request_error","param":null,"code":"{code}"}}}}"#
        );
        format!(
            "HTTP/1.1 {status}\r\ncontent-type: application/json\r\n\
             content-length: {}\r\nconnection: close\r\n\r\n{body}",
            body.len()
        )
    }
}
