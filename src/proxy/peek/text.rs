//! JSON strings, piece by piece: escapes, UTF-8, and the few that are kept.

/// Bytes of a kept value at most; no model name or session id is longer.
pub(super) const MAX_KEPT: usize = 1024;
/// Bytes of a kept key at least: one more than the longest that we always look
/// for.
const MAX_KEY: usize = 22;

/// Which strings are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Held {
    Nothing,
    /// A key: cut, when it is longer than any that we look for.
    Key,
    /// A value: a fault, when it is too long.
    Value,
    /// A value that is cut when it is too long.
    Id,
}

/// What is wrong with a string.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum TextFault {
    Syntax(&'static str),
    TooLong,
}

/// Where in a string the next byte stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum At {
    Plain,
    Escape,
    /// Hex digits still to come, and their value so far.
    Hex(u8, u16),
    /// Continuation bytes still to come, and the bounds of the next one.
    Utf8(u8, u8, u8),
}

/// A string under way.
#[derive(Debug)]
pub(super) struct Text {
    at: At,
    held: Held,
    cut: bool,
    kept: Vec<u8>,
    /// Bytes of a kept key at most.
    max_key: usize,
    /// The first half of a surrogate pair.
    high: Option<u16>,
}

impl Default for Text {
    fn default() -> Self {
        Self {
            at: At::Plain,
            held: Held::Nothing,
            cut: false,
            kept: Vec::new(),
            max_key: MAX_KEY,
            high: None,
        }
    }
}

/// Length of the run of plain ASCII at the front of `input`: nothing that ends
/// the string, escapes, or needs a second look. Long runs go by blocks of 32
/// bytes, which compile to a few vector instructions each; the special byte is
/// then found eight bytes at a time.
pub(super) fn plain_run(input: &[u8]) -> usize {
    const BLOCK: usize = 32;
    let mut run = 0;
    for block in input.chunks_exact(BLOCK) {
        // Escapes come in swarms: look closely at first, in bulk later.
        let close = run == 0 || block.iter().fold(false, |any, &b| any | !is_plain(b));
        if close && let Some(at) = first_special(block) {
            return run + at;
        }
        run += BLOCK;
    }
    let tail = &input[run..];
    let special = tail.iter().position(|byte| !is_plain(*byte));
    run + special.unwrap_or(tail.len())
}

fn is_plain(byte: u8) -> bool {
    // 0x20..=0x7f but for the quote and the backslash.
    (byte.wrapping_sub(0x20) < 0x60) & (byte != b'"') & (byte != b'\\')
}

/// What an escape of two characters means.
fn short_escape(byte: u8) -> Option<u8> {
    Some(match byte {
        b'"' | b'\\' | b'/' => byte,
        b'b' => 0x08,
        b'f' => 0x0c,
        b'n' => b'\n',
        b'r' => b'\r',
        b't' => b'\t',
        _ => return None,
    })
}

/// Where in a block of whole words the first special byte is. The classic test
/// for a zero byte; a borrow can only mark bytes above the first true one.
fn first_special(block: &[u8]) -> Option<usize> {
    const ONES: u64 = u64::from_ne_bytes([1; 8]);
    const HIGH: u64 = ONES << 7;
    let (words, _) = block.as_chunks::<8>();
    for (index, bytes) in words.iter().enumerate() {
        let word = u64::from_le_bytes(*bytes);
        let quote = word ^ (ONES * b'"' as u64);
        let escape = word ^ (ONES * b'\\' as u64);
        let control = word.wrapping_sub(ONES * 0x20) & !word;
        let found = (quote.wrapping_sub(ONES) & !quote)
            | (escape.wrapping_sub(ONES) & !escape)
            | control
            | word;
        let found = found & HIGH;
        if found != 0 {
            return Some(index * 8 + found.trailing_zeros() as usize / 8);
        }
    }
    None
}

impl Text {
    /// Keys of this length are to be kept too.
    pub(super) fn keep_keys_of(&mut self, length: usize) {
        self.max_key = self.max_key.max(length);
    }

    /// Starts a string.
    pub(super) fn begin(&mut self, held: Held) {
        self.at = At::Plain;
        self.held = held;
        self.cut = false;
        self.high = None;
        self.kept.clear();
    }

    /// Length of the front of `input` that is plain or escaped the short way,
    /// of a string that is not kept.
    pub(super) fn skip(&self, input: &[u8]) -> usize {
        let mut skipped = plain_run(input);
        if self.held == Held::Nothing {
            while let [b'\\', escaped, rest @ ..] = &input[skipped..]
                && short_escape(*escaped).is_some()
            {
                skipped += 2 + plain_run(rest);
            }
        }
        skipped
    }

    /// Whether the next byte is neither in an escape nor in a UTF-8 sequence.
    pub(super) fn is_plain(&self) -> bool {
        self.at == At::Plain
    }

    /// Keeps bytes, if this string is kept.
    pub(super) fn keep(&mut self, bytes: &[u8]) -> Result<(), ()> {
        if self.held == Held::Nothing || bytes.is_empty() {
            return Ok(());
        }
        self.lone_surrogate();
        let most = if self.held == Held::Key {
            self.max_key
        } else {
            MAX_KEPT
        };
        if self.kept.len() + bytes.len() <= most {
            self.kept.extend_from_slice(bytes);
        } else if self.held == Held::Value {
            return Err(());
        } else {
            self.cut = true;
        }
        Ok(())
    }

    /// The key, unless it is longer than any that we look for.
    pub(super) fn key(&mut self) -> Option<&[u8]> {
        self.lone_surrogate();
        (!self.cut).then_some(self.kept.as_slice())
    }

    /// What is kept of a number; nothing of a literal.
    pub(super) fn number(&self) -> Option<&str> {
        let text = std::str::from_utf8(&self.kept).ok();
        text.filter(|text| self.held == Held::Value && !text.is_empty())
    }

    /// The value.
    pub(super) fn take(&mut self) -> String {
        self.lone_surrogate();
        // Only whole characters were kept, so nothing is replaced.
        String::from_utf8_lossy(&std::mem::take(&mut self.kept)).into_owned()
    }

    /// Takes bytes that are not plain; tells how many.
    pub(super) fn step(&mut self, input: &[u8]) -> Result<usize, TextFault> {
        let byte = input[0];
        match self.at {
            At::Plain if byte == b'\\' => self.at = At::Escape,
            At::Plain if byte < 0x20 => {
                return Err(TextFault::Syntax("a control character must be escaped"));
            }
            At::Plain => return self.non_ascii(input),
            At::Escape => self.escape(byte)?,
            At::Hex(left, value) => self.hex(byte, left, value)?,
            At::Utf8(left, low, high) => {
                if !(low..=high).contains(&byte) {
                    return Err(TextFault::Syntax("invalid UTF-8"));
                }
                self.keep(&[byte]).map_err(|()| TextFault::TooLong)?;
                self.at = if left == 1 {
                    At::Plain
                } else {
                    At::Utf8(left - 1, 0x80, 0xbf)
                };
            }
        }
        Ok(1)
    }

    /// A run of bytes outside ASCII, checked in bulk; the start of a sequence
    /// that goes on in the next piece is remembered.
    fn non_ascii(&mut self, input: &[u8]) -> Result<usize, TextFault> {
        let run = input.iter().take_while(|byte| **byte >= 0x80).count();
        let valid = match std::str::from_utf8(&input[..run]) {
            Ok(_) => run,
            Err(e) if e.error_len().is_none() && run == input.len() => e.valid_up_to(),
            Err(_) => return Err(TextFault::Syntax("invalid UTF-8")),
        };
        if valid > 0 {
            self.keep(&input[..valid])
                .map_err(|()| TextFault::TooLong)?;
            return Ok(valid);
        }
        // Table 3-7 of the Unicode standard: bounds of the second byte.
        self.at = match input[0] {
            0xc2..=0xdf => At::Utf8(1, 0x80, 0xbf),
            0xe0 => At::Utf8(2, 0xa0, 0xbf),
            0xe1..=0xec | 0xee..=0xef => At::Utf8(2, 0x80, 0xbf),
            0xed => At::Utf8(2, 0x80, 0x9f),
            0xf0 => At::Utf8(3, 0x90, 0xbf),
            0xf1..=0xf3 => At::Utf8(3, 0x80, 0xbf),
            0xf4 => At::Utf8(3, 0x80, 0x8f),
            _ => return Err(TextFault::Syntax("invalid UTF-8")),
        };
        self.keep(&input[..1]).map_err(|()| TextFault::TooLong)?;
        Ok(1)
    }

    fn escape(&mut self, byte: u8) -> Result<(), TextFault> {
        if byte == b'u' {
            self.at = At::Hex(4, 0);
            return Ok(());
        }
        let meant = short_escape(byte).ok_or(TextFault::Syntax("no such escape"))?;
        self.at = At::Plain;
        self.keep(&[meant]).map_err(|()| TextFault::TooLong)
    }

    fn hex(&mut self, byte: u8, left: u8, value: u16) -> Result<(), TextFault> {
        let digit = (byte as char).to_digit(16);
        let digit = digit.and_then(|digit| u16::try_from(digit).ok());
        let value = value << 4 | digit.ok_or(TextFault::Syntax("expected a hex digit"))?;
        if left > 1 {
            self.at = At::Hex(left - 1, value);
            return Ok(());
        }
        self.at = At::Plain;
        if self.held == Held::Nothing {
            return Ok(());
        }
        let units = [self.high.take().unwrap_or(value), value];
        let units = if units[0] == value {
            &units[..1]
        } else {
            &units[..]
        };
        if units.len() == 1 && (0xd800..0xdc00).contains(&value) {
            self.high = Some(value);
            return Ok(());
        }
        for decoded in char::decode_utf16(units.iter().copied()) {
            let character = decoded.unwrap_or(char::REPLACEMENT_CHARACTER);
            let mut buffer = [0; 4];
            let encoded = character.encode_utf8(&mut buffer).as_bytes();
            self.keep(encoded).map_err(|()| TextFault::TooLong)?;
        }
        Ok(())
    }

    /// A surrogate without its pair can be no part of a name that we know.
    fn lone_surrogate(&mut self) {
        if self.high.take().is_some() {
            self.kept.extend_from_slice("\u{fffd}".as_bytes());
        }
    }
}
