//! How a line is put down: as JSON, or as pairs. By hand, since the formatting
//! machinery would cost more than all the rest of a line.

use std::time::Duration;

use crate::digits::{decimal, hexadecimal};

/// A line that is being written.
pub(super) struct Line<'a> {
    out: &'a mut Vec<u8>,
    is_json: bool,
    is_first: bool,
}

impl<'a> Line<'a> {
    /// A JSON object.
    pub(super) fn json(out: &'a mut Vec<u8>) -> Self {
        Self {
            out,
            is_json: true,
            is_first: true,
        }
    }

    /// `key=value` pairs.
    pub(super) fn text(out: &'a mut Vec<u8>) -> Self {
        Self {
            out,
            is_json: false,
            is_first: true,
        }
    }

    fn key(&mut self, key: &str) {
        let is_first = std::mem::take(&mut self.is_first);
        if self.is_json {
            self.out.push(if is_first { b'{' } else { b',' });
            self.out.push(b'"');
            self.out.extend_from_slice(key.as_bytes());
            self.out.extend_from_slice(b"\":");
        } else {
            if !is_first {
                self.out.push(b' ');
            }
            self.out.extend_from_slice(key.as_bytes());
            self.out.push(b'=');
        }
    }

    fn none(&mut self) {
        let none: &[u8] = if self.is_json { b"null" } else { b"-" };
        self.out.extend_from_slice(none);
    }

    /// Text of any kind, or none.
    pub(super) fn word(&mut self, key: &str, word: Option<&str>) {
        self.key(key);
        match word {
            None => self.none(),
            Some(word) if !self.is_json && is_bare(word) => {
                self.out.extend_from_slice(word.as_bytes());
            }
            Some(word) => quoted(self.out, word),
        }
    }

    /// A number, or none.
    pub(super) fn count(&mut self, key: &str, count: Option<u64>) {
        self.key(key);
        match count {
            None => self.none(),
            Some(count) => decimal(self.out, count),
        }
    }

    /// Milliseconds with three places, or none.
    pub(super) fn millis(&mut self, key: &str, time: Option<Duration>) {
        self.key(key);
        let Some(time) = time else {
            return self.none();
        };
        let micros = super::micros(time);
        decimal(self.out, micros / 1000);
        let rest = micros % 1000;
        let place = |unit: u64| b'0' + (rest / unit % 10) as u8;
        self.out
            .extend_from_slice(&[b'.', place(100), place(10), place(1)]);
    }

    /// 32 hexadecimal digits, or none.
    pub(super) fn digits(&mut self, key: &str, number: Option<u128>) {
        let mut text = [0; 32];
        let text = number.map(|number| {
            hexadecimal(&mut text, number);
            &text
        });
        self.plain(key, text.map(<[u8; 32]>::as_slice));
    }

    /// A time since the Unix epoch.
    pub(super) fn time(&mut self, key: &str, at: Duration, stamp: &mut Stamp) {
        let text = stamp.of(at);
        self.plain(key, Some(&text));
    }

    /// Text of which nothing is to be escaped.
    fn plain(&mut self, key: &str, text: Option<&[u8]>) {
        self.key(key);
        match text {
            None => self.none(),
            Some(text) if self.is_json => {
                self.out.push(b'"');
                self.out.extend_from_slice(text);
                self.out.push(b'"');
            }
            Some(text) => self.out.extend_from_slice(text),
        }
    }

    /// The line's end.
    pub(super) fn end(self) {
        if self.is_json {
            self.out.push(b'}');
        }
        self.out.push(b'\n');
    }
}

/// Whether a word of a pair needs no quotes: visible ASCII that is no syntax,
/// nor the sign for none.
fn is_bare(word: &str) -> bool {
    let is_plain = |byte: u8| byte.is_ascii_graphic() && !matches!(byte, b'"' | b'\\' | b'=');
    !word.is_empty() && word != "-" && word.bytes().all(is_plain)
}

/// A JSON string. What moves a terminal's cursor or starts a line anywhere is
/// escaped, the controls of Unicode's second block and its line ends too.
fn quoted(out: &mut Vec<u8>, word: &str) {
    let is_plain = |byte: u8| matches!(byte, b' '..=b'~') && byte != b'"' && byte != b'\\';
    out.push(b'"');
    // All of them, as a vector: a way out would be slower than the rest.
    if word.bytes().fold(true, |all, byte| all & is_plain(byte)) {
        out.extend_from_slice(word.as_bytes());
    } else {
        word.chars().for_each(|letter| escaped(out, letter));
    }
    out.push(b'"');
}

fn escaped(out: &mut Vec<u8>, letter: char) {
    match letter {
        '"' | '\\' => out.extend_from_slice(&[b'\\', letter as u8]),
        _ if letter.is_control() || is_unseen(letter) => {
            let mut hex = [0; 4];
            hexadecimal(&mut hex, u128::from(u32::from(letter)));
            out.extend_from_slice(b"\\u");
            out.extend_from_slice(&hex);
        }
        _ => out.extend_from_slice(letter.encode_utf8(&mut [0; 4]).as_bytes()),
    }
}

/// Line ends that are no controls, what turns the direction of text, and the
/// mark of a byte order.
fn is_unseen(letter: char) -> bool {
    matches!(
        letter,
        '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}'
    )
}

/// Writes times; remembers the second, which many lines share.
#[derive(Debug, Clone)]
pub struct Stamp {
    second: u64,
    text: [u8; 24],
}

impl Default for Stamp {
    fn default() -> Self {
        Self {
            second: 0,
            text: *b"1970-01-01T00:00:00.000Z",
        }
    }
}

impl Stamp {
    /// A time since the Unix epoch, as RFC 3339 in UTC.
    fn of(&mut self, at: Duration) -> [u8; 24] {
        if at.as_secs() != self.second {
            self.second = at.as_secs();
            self.set();
        }
        put(&mut self.text[20..23], at.subsec_millis().into());
        self.text
    }

    fn set(&mut self) {
        let (days, within) = (self.second / 86_400, self.second % 86_400);
        let (year, month, day) = date(days);
        for (place, value) in [
            (0..4, year),
            (5..7, month),
            (8..10, day),
            (11..13, within / 3600),
            (14..16, within / 60 % 60),
            (17..19, within % 60),
        ] {
            put(&mut self.text[place], value);
        }
    }
}

/// Decimal digits into all of `out`.
fn put(out: &mut [u8], mut value: u64) {
    for place in out.iter_mut().rev() {
        *place = b'0' + (value % 10) as u8;
        value /= 10;
    }
}

/// The date, so many days after 1970-01-01: counted in eras of 400 years that
/// begin in March, so that a leap day is a year's last.
fn date(days: u64) -> (u64, u64, u64) {
    const ERA: u64 = 146_097;
    let days = days + 719_468;
    let (era, day) = (days / ERA, days % ERA);
    let year = (day - day / 1460 + day / 36_524 - day / (ERA - 1)) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let of_month = day - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    (era * 400 + year + u64::from(month <= 2), month, of_month)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_those_of_the_calendar() {
        let mut stamp = Stamp::default();
        for (millis, text) in [
            (0, "1970-01-01T00:00:00.000Z"),
            (951_782_399_999, "2000-02-28T23:59:59.999Z"),
            (951_782_400_000, "2000-02-29T00:00:00.000Z"),
            (1_709_251_200_001, "2024-03-01T00:00:00.001Z"),
            (4_107_542_400_000, "2100-03-01T00:00:00.000Z"),
        ] {
            let told = stamp.of(Duration::from_millis(millis));
            assert_eq!(std::str::from_utf8(&told), Ok(text));
        }
        // Every day of four centuries follows the one before.
        let mut last = date(0);
        for days in 1..146_097 {
            let next = date(days);
            let is_next = next.2 == last.2 + 1
                || (next.2 == 1 && (next.1 == last.1 + 1 || (next.1, next.0) == (1, last.0 + 1)));
            assert!(is_next, "{last:?} {next:?}");
            last = next;
        }
    }

    #[test]
    fn words_are_quoted_where_they_must_be() {
        for (word, text) in [
            ("a/b:1", "a/b:1"),
            ("", "\"\""),
            ("-", "\"-\""),
            ("a b", "\"a b\""),
            ("a=b", "\"a=b\""),
            ("a\"b\\", r#""a\"b\\""#),
            (
                "a\nb\u{9b}\u{2028}\u{202e}é",
                "\"a\\u000ab\\u009b\\u2028\\u202eé\"",
            ),
            (
                "\u{200e}\u{200f}\u{61c}\u{feff}\u{200d}",
                "\"\\u200e\\u200f\\u061c\\ufeff\u{200d}\"",
            ),
        ] {
            let mut out = Vec::new();
            Line::text(&mut out).word("k", Some(word));
            assert_eq!(String::from_utf8(out).unwrap(), format!("k={text}"));
        }
    }
}
