//! A page of a list, taken apart as it comes: each object is handed on when its
//! last byte is there, so that memory holds one object, however long the list.
//!
//! Only what is needed to find the objects is looked at: strings, and how deep
//! brackets are. Whether an object is good JSON is for who reads it to say.

use memchr::memchr2;
use serde::Deserialize;

/// Bytes of one object; what is larger is left out. etcd takes no request over
/// 1.5 MiB (its `--max-request-bytes`).
pub const MOST_OBJECT: usize = 2 << 20;
/// Bytes of the list's own metadata: a token and a version.
const MOST_METADATA: usize = 64 << 10;
/// Bytes of a name of the outermost object.
const MOST_NAME: usize = 256;

/// What a page says of itself.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Page {
    /// Of which moment the list is; a watch goes on from there.
    #[serde(default)]
    pub resource_version: String,
    /// Leads to the next page, if it is not empty.
    #[serde(default, rename = "continue")]
    pub token: String,
}

/// Why that is no page of a list.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BadList {
    /// It is not as Kubernetes writes lists.
    #[error("{0}")]
    Garbled(&'static str),
    /// It ends too early.
    #[error("the list broke off")]
    Half,
}

/// An object of a page.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Item<'a> {
    /// As it came.
    Whole(&'a [u8]),
    /// Longer than is allowed; it was not kept.
    TooLarge,
}

/// Where in the text we are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum At {
    /// Before the outermost `{`.
    Start,
    /// Before a name of the outermost object, or its `}`.
    Name,
    /// Behind a name, before its `:`.
    Colon,
    /// Before a value.
    Value,
    /// Between objects of the list.
    Items,
    /// Within something that is taken or passed over.
    Within(Part),
    /// Behind the last `}`.
    End,
}

/// What we are within.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Part {
    Name,
    Metadata,
    Items,
    Other,
    Item,
}

/// Takes a page apart.
#[derive(Debug)]
pub struct Splitter {
    at: At,
    span: Span,
    /// What has come of the part that we are within, if it is kept.
    begun: Vec<u8>,
    is_too_long: bool,
    /// The value that comes next.
    next: Part,
    has_items: bool,
    metadata: Option<Page>,
}

impl Default for Splitter {
    fn default() -> Self {
        Self {
            at: At::Start,
            span: Span::default(),
            begun: Vec::new(),
            is_too_long: false,
            next: Part::Other,
            has_items: false,
            metadata: None,
        }
    }
}

impl Splitter {
    /// Takes the next piece; `tell` gets every object that ends in it.
    ///
    /// # Errors
    /// [`BadList::Garbled`]; nothing more may be taken then.
    pub fn take(&mut self, piece: &[u8], mut tell: impl FnMut(Item<'_>)) -> Result<(), BadList> {
        let mut rest = piece;
        while let Some(byte) = rest.first() {
            if let At::Within(part) = self.at {
                let (taken, is_end) = self.span.scan(rest);
                let (bytes, behind) = rest.split_at(taken);
                rest = behind;
                if is_end {
                    self.end(part, bytes, &mut tell)?;
                } else {
                    self.keep(part, bytes);
                }
                continue;
            }
            if !byte.is_ascii_whitespace() {
                let is_of_value = self.step(*byte)?;
                if is_of_value {
                    // The value's first byte is scanned with it.
                    continue;
                }
            }
            rest = &rest[1..];
        }
        Ok(())
    }

    /// What the page says of itself, when all of it has come.
    ///
    /// # Errors
    /// When it has not, or was no list.
    pub fn finish(self) -> Result<Page, BadList> {
        if self.at != At::End {
            return Err(BadList::Half);
        }
        match (self.metadata, self.has_items) {
            (Some(page), true) if !page.resource_version.is_empty() => Ok(page),
            _ => Err(BadList::Garbled(
                "a list has `items`, and `metadata` with a `resourceVersion`",
            )),
        }
    }

    /// One byte that is not within anything; true when something begins with it.
    fn step(&mut self, byte: u8) -> Result<bool, BadList> {
        let bad = Err(BadList::Garbled("that is not JSON of a list"));
        self.at = match (self.at, byte) {
            (At::Start, b'{') => At::Name,
            (At::Name, b'}') => At::End,
            (At::Name | At::Items, b',') => return Ok(false),
            (At::Name, b'"') => return Ok(self.begin(Part::Name, byte)),
            (At::Colon, b':') => At::Value,
            (At::Value, b'[') if self.next == Part::Items => {
                self.has_items = true;
                At::Items
            }
            (At::Items, b']') => At::Name,
            (At::Items, b'{') => return Ok(self.begin(Part::Item, byte)),
            (At::Value, b'}' | b']' | b',' | b':') => return bad,
            (At::Value, _) => return Ok(self.begin(self.next, byte)),
            _ => return bad,
        };
        Ok(false)
    }

    fn begin(&mut self, part: Part, byte: u8) -> bool {
        self.at = At::Within(part);
        self.span = Span::begin(byte);
        self.begun.clear();
        self.is_too_long = false;
        true
    }

    fn keep(&mut self, part: Part, bytes: &[u8]) {
        let most = match part {
            Part::Name => MOST_NAME,
            Part::Metadata | Part::Items => MOST_METADATA,
            Part::Other => 0,
            Part::Item => MOST_OBJECT,
        };
        if self.is_too_long || self.begun.len() + bytes.len() > most {
            self.is_too_long = true;
            self.begun = Vec::new();
        } else {
            self.begun.extend_from_slice(bytes);
        }
    }

    /// Something ends with these bytes.
    fn end(
        &mut self,
        part: Part,
        bytes: &[u8],
        tell: &mut impl FnMut(Item<'_>),
    ) -> Result<(), BadList> {
        let is_whole_here = self.begun.is_empty() && !self.is_too_long;
        if part == Part::Item && is_whole_here && bytes.len() <= MOST_OBJECT {
            // The common case: nothing is copied.
            tell(Item::Whole(bytes));
        } else {
            self.keep(part, bytes);
            self.took(part, tell)?;
        }
        self.at = match part {
            Part::Name => At::Colon,
            Part::Item => At::Items,
            _ => At::Name,
        };
        Ok(())
    }

    /// The part that was kept is whole.
    fn took(&mut self, part: Part, tell: &mut impl FnMut(Item<'_>)) -> Result<(), BadList> {
        match part {
            Part::Name => {
                self.next = match (self.is_too_long, &*self.begun) {
                    (false, br#""items""#) => Part::Items,
                    (false, br#""metadata""#) => Part::Metadata,
                    _ => Part::Other,
                };
            }
            Part::Metadata => {
                let page = serde_json::from_slice(&self.begun);
                let page = page.map_err(|_| BadList::Garbled("its `metadata` is not a list's"))?;
                self.metadata = Some(page);
            }
            // Go writes a list that it has not filled as null.
            Part::Items if self.begun.trim_ascii() == b"null" => self.has_items = true,
            Part::Items => return Err(BadList::Garbled("its `items` are not an array")),
            Part::Item if self.is_too_long => tell(Item::TooLarge),
            Part::Item => tell(Item::Whole(&self.begun)),
            Part::Other => {}
        }
        Ok(())
    }
}

/// How far a value goes: a string, what is in brackets, or a bare word.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Span {
    depth: u32,
    is_in_string: bool,
    is_escaped: bool,
    /// Neither a string nor in brackets: it ends before what follows it.
    is_bare: bool,
}

impl Span {
    /// Of a value with that first byte, which is scanned like the others.
    fn begin(first: u8) -> Self {
        Self {
            is_bare: !matches!(first, b'"' | b'{' | b'['),
            ..Self::default()
        }
    }

    /// How many of these bytes are the value's, and whether it ends with them.
    fn scan(&mut self, bytes: &[u8]) -> (usize, bool) {
        if self.is_bare {
            let end = bytes.iter().position(|byte| matches!(byte, b',' | b'}'));
            return (end.unwrap_or(bytes.len()), end.is_some());
        }
        let mut at = 0;
        while let Some(byte) = bytes.get(at) {
            if self.is_in_string {
                at += self.scan_string(&bytes[at..]);
                if !self.is_in_string && self.depth == 0 {
                    return (at, true);
                }
                continue;
            }
            at += 1;
            match byte {
                b'"' => self.is_in_string = true,
                b'{' | b'[' => self.depth = self.depth.saturating_add(1),
                b'}' | b']' => {
                    self.depth = self.depth.saturating_sub(1);
                    if self.depth == 0 {
                        return (at, true);
                    }
                }
                _ => {}
            }
        }
        (at, false)
    }

    /// How many of these bytes, which are within a string, are of it.
    fn scan_string(&mut self, bytes: &[u8]) -> usize {
        if std::mem::take(&mut self.is_escaped) {
            return 1;
        }
        match memchr2(b'"', b'\\', bytes) {
            None => bytes.len(),
            Some(at) => {
                self.is_in_string = bytes[at] == b'\\';
                self.is_escaped = self.is_in_string;
                at + 1
            }
        }
    }
}

#[cfg(test)]
mod tests;
