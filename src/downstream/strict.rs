//! Strictness below hyper: what hyper hides of a head, and the answers that it
//! gives without asking us.
//!
//! hyper drops a Content-Length that comes with a Transfer-Encoding, and tells
//! nobody; a fragment in a target likewise. So the bytes that it reads are
//! looked at as they pass: heads line by line, bodies by their framing, so that
//! pipelined heads are seen too. Invariant: the state held is bounded by one
//! line, and a head that was not seen may not name a Transfer-Encoding.

mod unparsed;

pub use unparsed::{Unparsed, Unseen};

use std::cell::{Cell, RefCell};
use std::io::IoSlice;
use std::rc::Rc;

use http::Request;
use http::header::TRANSFER_ENCODING;

use super::head::{self, HeadFault};
use crate::net::chunks::Chunks;

/// Bytes that are held of a line which has not ended: as much as of a head.
const MAX_LINE: usize = 64 << 10;

/// Looks at a client's bytes as they come.
#[derive(Debug, Default)]
pub struct Scan {
    at: At,
    /// What is known of the head under way.
    said: Said,
    /// A line of it that has not ended, if it is one that matters.
    line: Vec<u8>,
    /// Bytes of the request line, so far.
    line_length: usize,
    /// Heads that have ended.
    heads: u32,
    /// The first of them that must be refused. None is looked at beyond it.
    fault: Option<(u32, Hidden)>,
}

#[derive(Debug, Default)]
enum At {
    /// Before a request line, where empty lines are skipped.
    #[default]
    Before,
    /// In the request line.
    Request,
    /// At the start of a field, or in one that matters.
    Field,
    /// In a field that does not matter.
    Other,
    /// In a body of so many bytes.
    Length(u64),
    Chunked(Chunks),
    /// It makes no sense to us: hyper is about to say so.
    Lost,
}

/// What a head has said so far.
#[derive(Debug, Default)]
struct Said {
    length: Option<u64>,
    is_coded: bool,
    has_fragment: bool,
}

/// What hyper does not show of a head.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hidden {
    /// A Content-Length beside a Transfer-Encoding.
    TwoLengths,
    /// A fragment in the target.
    Fragment,
}

impl Hidden {
    fn fault(self) -> HeadFault {
        match self {
            Self::TwoLengths => {
                HeadFault::Framing("there are both Content-Length and Transfer-Encoding")
            }
            Self::Fragment => HeadFault::Target("the target has a fragment"),
        }
    }
}

impl Scan {
    /// Looks at the next bytes.
    pub fn push(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            bytes = match &mut self.at {
                At::Lost => return,
                At::Length(left) => {
                    let room = bytes.len();
                    let take = usize::try_from(*left).map_or(room, |left| left.min(room));
                    *left -= take as u64;
                    if *left == 0 {
                        self.at = At::Before;
                    }
                    &bytes[take..]
                }
                At::Chunked(chunks) => match chunks.advance(bytes, |_| {}) {
                    Ok((used, has_ended)) => {
                        if has_ended {
                            self.at = At::Before;
                        }
                        &bytes[used..]
                    }
                    Err(_) => {
                        self.at = At::Lost;
                        return;
                    }
                },
                At::Before | At::Request | At::Field | At::Other => self.head(bytes),
            };
        }
    }

    /// What must be refused of the head of that number, from 1.
    #[must_use]
    pub fn hidden(&self, number: u32) -> Option<Hidden> {
        let (at, hidden) = self.fault?;
        (at == number).then_some(hidden)
    }

    /// Whether the head of that number, from 1, was looked at.
    #[must_use]
    pub fn has_seen(&self, number: u32) -> bool {
        number <= self.heads
    }

    /// Whether the last request line was longer than a target may be.
    fn has_long_target(&self) -> bool {
        self.line_length > head::MAX_TARGET
    }

    /// Takes lines until the head ends; what is left then.
    fn head<'a>(&mut self, bytes: &'a [u8]) -> &'a [u8] {
        let mut start = 0;
        for end in memchr::memchr_iter(b'\n', bytes) {
            let piece = &bytes[start..end];
            start = end + 1;
            if self.line.is_empty() {
                self.take(piece);
            } else {
                self.hold(piece);
                let whole = std::mem::take(&mut self.line);
                self.take(&whole);
            }
            if !matches!(self.at, At::Before | At::Request | At::Field | At::Other) {
                return &bytes[start..];
            }
        }
        self.part(&bytes[start..]);
        &[]
    }

    /// Takes the end of a line, or a whole one, without its LF.
    fn take(&mut self, line: &[u8]) {
        match self.at {
            At::Before if matches!(line, b"" | b"\r") => {}
            At::Before | At::Request => {
                self.request_line(line);
                self.at = At::Field;
            }
            At::Other => self.at = At::Field,
            At::Field => match line.first() {
                None => self.end(),
                Some(b'\r') if line.len() == 1 => self.end(),
                Some(b'c' | b'C') => self.length(line),
                Some(b't' | b'T') => self.said.is_coded |= value(line, TE).is_some(),
                Some(_) => {}
            },
            At::Length(_) | At::Chunked(_) | At::Lost => {}
        }
    }

    /// Takes the beginning of a line whose end has not come.
    fn part(&mut self, part: &[u8]) {
        if part.is_empty() {
            return;
        }
        match self.at {
            At::Before if part == b"\r" && self.line.is_empty() => self.hold(part),
            At::Before | At::Request => {
                self.line.clear();
                self.request_line(part);
                self.at = At::Request;
            }
            At::Field if !self.line.is_empty() => self.hold(part),
            At::Field if b"cCtT\r".contains(&part[0]) => self.hold(part),
            At::Field => self.at = At::Other,
            _ => {}
        }
    }

    fn request_line(&mut self, part: &[u8]) {
        if matches!(self.at, At::Before) {
            self.line_length = 0;
        }
        self.line_length += part.len();
        self.said.has_fragment |= memchr::memchr(b'#', part).is_some();
    }

    fn hold(&mut self, part: &[u8]) {
        if self.line.len() + part.len() > MAX_LINE {
            self.at = At::Lost;
            self.line = Vec::new();
        } else {
            self.line.extend_from_slice(part);
        }
    }

    fn length(&mut self, line: &[u8]) {
        let Some(value) = value(line, LENGTH) else {
            return;
        };
        let digits = value.trim_ascii();
        let number = std::str::from_utf8(digits).ok();
        let number = number.filter(|_| digits.iter().all(u8::is_ascii_digit));
        // What is no number hyper refuses.
        match number.and_then(|number| number.parse().ok()) {
            Some(length) => self.said.length = Some(length),
            None => self.at = At::Lost,
        }
    }

    /// The head has ended.
    fn end(&mut self) {
        let said = std::mem::take(&mut self.said);
        self.heads += 1;
        let hidden = match said {
            Said {
                length: Some(_),
                is_coded: true,
                ..
            } => Some(Hidden::TwoLengths),
            Said {
                has_fragment: true, ..
            } => Some(Hidden::Fragment),
            _ => None,
        };
        self.at = match (hidden, said.length) {
            (Some(hidden), _) => {
                self.fault = Some((self.heads, hidden));
                At::Lost
            }
            (None, _) if said.is_coded => At::Chunked(Chunks::default()),
            (None, Some(1..)) => At::Length(said.length.unwrap_or_default()),
            (None, _) => At::Before,
        };
    }
}

const TE: &[u8] = b"transfer-encoding";
const LENGTH: &[u8] = b"content-length";

/// The value of the field on this line, if it is that one.
fn value<'a>(line: &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
    let (before, rest) = line.split_at_checked(name.len())?;
    let value = rest.strip_prefix(b":")?;
    before.eq_ignore_ascii_case(name).then_some(value)
}

/// A connection's share in it.
#[derive(Debug)]
pub(super) struct Strict {
    scan: RefCell<Scan>,
    /// Requests that hyper has handed out.
    asked: Cell<u32>,
    unparsed: Rc<Unseen>,
    /// Whether what hyper refused has been told of.
    is_told: Cell<bool>,
}

impl Strict {
    pub(super) fn new(unparsed: &Rc<Unseen>) -> Self {
        Self {
            scan: RefCell::default(),
            asked: Cell::new(0),
            unparsed: Rc::clone(unparsed),
            is_told: Cell::new(false),
        }
    }

    /// Bytes that hyper reads.
    pub(super) fn read(&self, bytes: &[u8]) {
        self.scan.borrow_mut().push(bytes);
    }

    /// What is wrong with the next request that hyper hands out.
    pub(super) fn check<B>(&self, request: &Request<B>) -> Result<(), HeadFault> {
        let number = self.asked.get().saturating_add(1);
        self.asked.set(number);
        let scan = self.scan.borrow();
        if let Some(hidden) = scan.hidden(number) {
            return Err(hidden.fault());
        }
        if !scan.has_seen(number) && request.headers().contains_key(TRANSFER_ENCODING) {
            return Err(HeadFault::Framing("its head could not be followed"));
        }
        head::check(request)
    }

    /// What hyper answers by itself, if these bytes are that. It calls any head
    /// too large that is, if only by its target.
    pub(super) fn unparsed(&self, slices: &[IoSlice<'_>]) -> Option<Unparsed> {
        match Unparsed::of(slices)? {
            Unparsed::TooLarge if self.scan.borrow().has_long_target() => {
                Some(Unparsed::TargetLong)
            }
            other => Some(other),
        }
    }

    /// Counts what came to no request.
    pub(super) fn count(&self, unparsed: Unparsed) {
        self.unparsed.tell(unparsed);
    }

    /// Counts what was answered before there was a request, once.
    pub(super) fn tell(&self, unparsed: Unparsed) {
        if !self.is_told.replace(true) {
            self.unparsed.tell(unparsed);
        }
    }
}

#[cfg(test)]
mod tests;
