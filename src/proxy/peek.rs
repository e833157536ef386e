//! The body peek: finds the few top-level keys that routing needs in a JSON
//! body, as it arrives, without building a tree and without changing a byte.
//!
//! The scanner checks the whole of what it sees against RFC 8259, so that we
//! and the engine never disagree about what a body says: a second `model` or
//! `stream`, of which parsers take either, is refused. Keys are compared after
//! their escapes are undone. It is iterative and bounded: depth, the length of
//! a kept value, and nothing else is held.

mod fields;
mod found;
mod number;
mod python;
mod text;

use std::sync::Arc;

use found::{Field, Span};
pub use found::{Found, ModelField, PeekFault, PromptAt, SelectionAt};
use number::Number;
use text::{Held, Text};

/// Nested arrays and objects at most; CPython's parser stops near 1,000.
const MAX_DEPTH: usize = 1024;

/// What the next byte may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum At {
    Value,
    FirstValueOrEnd,
    FirstKeyOrEnd,
    Key,
    Colon,
    CommaOrEnd,
    KeyText,
    ValueText,
    Number(Number),
    Literal(&'static [u8]),
    Done,
}

/// Scans one body, given piece by piece.
#[derive(Debug)]
pub struct Scanner {
    at: At,
    /// Bit n: whether level n is an object.
    objects: [u64; MAX_DEPTH / 64],
    depth: usize,
    offset: u64,
    text: Text,
    /// The key whose value comes next, at the top level.
    field: Option<Field>,
    /// Whether that key is the session key.
    is_session: bool,
    session_key: Option<Arc<str>>,
    /// The part of the prompt that is being read.
    span: Option<Span>,
    /// Whether the selection is.
    selecting: bool,
    /// Where the last key and the last comma of the top level stand.
    key_at: u64,
    comma_at: Option<u64>,
    found: Found,
}

impl Default for Scanner {
    fn default() -> Self {
        Self {
            at: At::Value,
            objects: [0; MAX_DEPTH / 64],
            depth: 0,
            offset: 0,
            text: Text::default(),
            field: None,
            is_session: false,
            session_key: None,
            span: None,
            selecting: false,
            key_at: 0,
            comma_at: None,
            found: Found::default(),
        }
    }
}

impl Scanner {
    /// A scanner that looks for one more key: that of the session.
    #[must_use]
    pub fn looking_for(session_key: Option<Arc<str>>) -> Self {
        let mut scanner = Self::default();
        if let Some(key) = &session_key {
            scanner.text.keep_keys_of(key.len());
        }
        scanner.session_key = session_key;
        scanner
    }

    /// Also tells where the prompt stands.
    pub fn look_for_prompt(&mut self) {
        self.found.prompt = Some(Box::default());
    }

    /// What has been found so far.
    #[must_use]
    pub fn into_found(self) -> Found {
        self.found
    }

    /// Scans the next piece.
    ///
    /// # Errors
    /// The first fault; the scanner is then of no more use.
    pub fn push(&mut self, input: &[u8]) -> Result<(), PeekFault> {
        let mut i = 0;
        while i < input.len() {
            match self.at {
                At::KeyText | At::ValueText => i += self.in_text(input, i)?,
                At::Number(number) => match number.step(input[i]) {
                    Some(next) => {
                        self.at = At::Number(next);
                        self.keep_byte(input[i])?;
                        i += 1;
                    }
                    None if number.may_end() => self.end_scalar(),
                    None => return Err(self.syntax(i, "expected a digit")),
                },
                At::Literal(left) => {
                    if left.first() != Some(&input[i]) {
                        return Err(self.syntax(i, "expected true, false or null"));
                    }
                    i += 1;
                    self.at = At::Literal(&left[1..]);
                    if left.len() == 1 {
                        self.end_scalar();
                    }
                }
                _ => {
                    i += input[i..].iter().take_while(|b| is_space(**b)).count();
                    if let Some(byte) = input.get(i) {
                        self.structural(*byte, i)?;
                        i += 1;
                    }
                }
            }
        }
        self.offset += input.len() as u64;
        Ok(())
    }

    /// Ends the body, and gives what was found.
    ///
    /// # Errors
    /// A body that is not whole.
    pub fn finish(&mut self) -> Result<(), PeekFault> {
        match self.at {
            At::Number(number) if self.depth == 0 && number.may_end() => {
                self.at = At::Done;
                Ok(())
            }
            At::Done => Ok(()),
            _ => Err(self.syntax(0, "the body ends too early")),
        }
    }

    /// A byte that is neither in a string, number or literal, nor a space.
    fn structural(&mut self, byte: u8, i: usize) -> Result<(), PeekFault> {
        if self.span.is_some() {
            self.mark(byte, i);
        }
        if self.depth == 1 {
            self.mark_selection(byte, i);
        }
        match (self.at, byte) {
            (At::FirstKeyOrEnd | At::Key, b'"') => {
                let hold = if self.depth == 1 {
                    Held::Key
                } else {
                    Held::Nothing
                };
                self.text.begin(hold);
                self.at = At::KeyText;
            }
            (At::FirstKeyOrEnd, b'}') | (At::FirstValueOrEnd, b']') => self.close(),
            (At::Colon, b':') => self.at = At::Value,
            (At::CommaOrEnd, b',') => {
                self.at = if self.in_object() { At::Key } else { At::Value };
            }
            (At::CommaOrEnd, b'}') if self.in_object() => self.close(),
            (At::CommaOrEnd, b']') if !self.in_object() => self.close(),
            (At::Value | At::FirstValueOrEnd, _) => self.value(byte, i)?,
            (At::Done, _) => return Err(self.syntax(i, "expected the end of the body")),
            (At::Colon, _) => return Err(self.syntax(i, "expected ':'")),
            (At::CommaOrEnd, _) => return Err(self.syntax(i, "expected ',' or the end")),
            _ => return Err(self.syntax(i, "expected a key in double quotes")),
        }
        Ok(())
    }

    fn value(&mut self, byte: u8, i: usize) -> Result<(), PeekFault> {
        match byte {
            b'{' | b'[' => return self.open(byte == b'{', i),
            b'"' => {
                let hold = match self.field {
                    // An id that is too long is none, rather than a fault.
                    Some(Field::Session) => Held::Id,
                    None | Some(Field::Selection) => Held::Nothing,
                    Some(_) => Held::Value,
                };
                if self.field == Some(Field::Model) {
                    self.found.model_at.start = self.offset + i as u64;
                }
                self.text.begin(hold);
                self.at = At::ValueText;
            }
            b't' => self.literal(b"rue"),
            b'f' => self.literal(b"alse"),
            b'n' => self.literal(b"ull"),
            _ => {
                let number =
                    Number::start(byte).ok_or_else(|| self.syntax(i, "expected a value"))?;
                self.at = At::Number(number);
                if self.field.is_some() {
                    self.text.begin(Held::Value);
                    self.keep_byte(byte)?;
                }
            }
        }
        Ok(())
    }

    fn literal(&mut self, rest: &'static [u8]) {
        if self.is_session && self.field.is_some() {
            self.found.session = python::literal(rest);
        }
        if self.field == Some(Field::Stream) {
            self.found.stream = match rest {
                b"rue" => Some(true),
                b"alse" => Some(false),
                _ => None,
            };
        }
        self.text.begin(Held::Nothing);
        self.at = At::Literal(rest);
    }

    fn open(&mut self, object: bool, i: usize) -> Result<(), PeekFault> {
        if self.depth == MAX_DEPTH {
            return Err(self.syntax(i, "nested too deeply"));
        }
        if self.depth == 0 {
            self.found.is_object = object;
        }
        self.settle_untyped();
        let (word, bit) = (self.depth / 64, 1 << (self.depth % 64));
        self.objects[word] &= !bit;
        self.objects[word] |= if object { bit } else { 0 };
        self.depth += 1;
        self.at = if object {
            At::FirstKeyOrEnd
        } else {
            At::FirstValueOrEnd
        };
        Ok(())
    }

    fn close(&mut self) {
        self.depth -= 1;
        self.after_value();
    }

    fn after_value(&mut self) {
        self.at = if self.depth == 0 {
            At::Done
        } else {
            At::CommaOrEnd
        };
    }

    fn in_object(&self) -> bool {
        let level = self.depth.wrapping_sub(1);
        self.depth > 0 && self.objects[level / 64] >> (level % 64) & 1 == 1
    }

    /// Inside a string: takes bytes up to and with its end; tells how many.
    fn in_text(&mut self, input: &[u8], from: usize) -> Result<usize, PeekFault> {
        let mut i = from;
        if self.text.is_plain() {
            let run = self.text.skip(&input[i..]);
            self.text
                .keep(&input[i..i + run])
                .map_err(|()| self.too_long())?;
            i += run;
            match input.get(i) {
                None => return Ok(i - from),
                Some(b'"') => {
                    self.end_text(i)?;
                    return Ok(i + 1 - from);
                }
                Some(_) => {}
            }
        }
        let used = self.text.step(&input[i..]).map_err(|fault| match fault {
            text::TextFault::TooLong => self.too_long(),
            text::TextFault::Syntax(what) => self.syntax(i, what),
        })?;
        Ok(i + used - from)
    }

    /// After a key, or a value that is text; its last quote stands at `i`.
    fn end_text(&mut self, i: usize) -> Result<(), PeekFault> {
        if self.at == At::KeyText {
            if self.depth == 1 {
                self.end_key();
                self.refuse_twice()?;
            }
            self.at = At::Colon;
            return Ok(());
        }
        if let Some(field) = self.field.take() {
            let is_whole = self.text.key().is_some();
            let value = self.text.take();
            if self.is_session && is_whole {
                self.found.session = Some(value.clone());
            }
            match field {
                Field::Model => {
                    self.found.model = ModelField::Name(value);
                    self.found.model_at.end = self.offset + i as u64 + 1;
                }
                Field::User => self.found.user = Some(value),
                Field::SessionId => self.found.session_id = Some(value),
                Field::Stream
                | Field::MaxTokens
                | Field::MaxCompletionTokens
                | Field::Session
                | Field::Selection => {}
            }
        }
        self.after_value();
        Ok(())
    }

    fn keep_byte(&mut self, byte: u8) -> Result<(), PeekFault> {
        if self.field.is_some() {
            self.text.keep(&[byte]).map_err(|()| self.too_long())?;
        }
        Ok(())
    }

    fn too_long(&self) -> PeekFault {
        PeekFault::TooLong(self.field.map_or("", Field::name))
    }

    fn syntax(&self, i: usize, what: &'static str) -> PeekFault {
        let at = self.offset + i as u64;
        PeekFault::Syntax { at, what }
    }
}

fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\n' | b'\r')
}

#[cfg(test)]
mod tests;
