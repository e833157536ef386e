//! What we have to know of a certificate and rustls does not tell: whom it
//! names, how long it is good, and who issued it.
//!
//! It checks nothing: a certificate that somebody shows was verified by webpki
//! before it is looked at here, and one of our own is only described. Every
//! length is checked against what is there, so hostile bytes yield `None`.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

const SEQUENCE: u8 = 0x30;
const SET: u8 = 0x31;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;
const OBJECT_ID: u8 = 0x06;
const BOOLEAN: u8 = 0x01;
const OCTET_STRING: u8 = 0x04;
/// `[0] EXPLICIT`: the version; `[3] EXPLICIT`: the extensions.
const VERSION: u8 = 0xa0;
const EXTENSIONS: u8 = 0xa3;
/// In a subject's alternative names.
const DNS_NAME: u8 = 0x82;
const URI: u8 = 0x86;
/// 2.5.29.17 and 2.5.4.3.
const SUBJECT_ALT_NAME: &[u8] = &[0x55, 0x1d, 0x11];
const COMMON_NAME: &[u8] = &[0x55, 0x04, 0x03];
/// UTF8String, PrintableString, IA5String: what common names are written in.
const TEXTS: [u8; 3] = [0x0c, 0x13, 0x16];
/// Bytes of an identity at most: a longer one would be one of many that agree in
/// what is shown.
const MOST_NAME: usize = 256;

/// A certificate's parts, as slices of it.
#[derive(Debug, Clone, Copy)]
pub struct Certificate<'a> {
    issuer: &'a [u8],
    not_before: Option<SystemTime>,
    not_after: Option<SystemTime>,
    subject: &'a [u8],
    extensions: &'a [u8],
}

impl<'a> Certificate<'a> {
    /// The parts; `None` where it is no certificate.
    #[must_use]
    pub fn parse(der: &'a [u8]) -> Option<Self> {
        let mut whole = Reader(Reader(der).expect(SEQUENCE)?);
        let mut rest = Reader(whole.expect(SEQUENCE)?);
        rest.optional(VERSION)?;
        // The serial number and the signature's algorithm.
        rest.next()?;
        rest.expect(SEQUENCE)?;
        let issuer = rest.expect(SEQUENCE)?;
        let mut validity = Reader(rest.expect(SEQUENCE)?);
        let (not_before, not_after) = (time(validity.next()?), time(validity.next()?));
        let subject = rest.expect(SEQUENCE)?;
        // The public key, then identifiers that nobody uses.
        rest.expect(SEQUENCE)?;
        let mut extensions: &[u8] = &[];
        while !rest.0.is_empty() {
            let (tag, inner) = rest.next()?;
            if tag == EXTENSIONS {
                extensions = Reader(inner).expect(SEQUENCE)?;
            }
        }
        Some(Self {
            issuer,
            not_before,
            not_after,
            subject,
            extensions,
        })
    }

    /// From when it is good.
    #[must_use]
    pub fn not_before(&self) -> Option<SystemTime> {
        self.not_before
    }

    /// Until when it is good.
    #[must_use]
    pub fn not_after(&self) -> Option<SystemTime> {
        self.not_after
    }

    /// Whether that one's subject issued this one.
    #[must_use]
    pub fn is_issued_by(&self, other: &Self) -> bool {
        self.issuer == other.subject
    }

    /// Whether it stands for itself.
    #[must_use]
    pub fn is_self_issued(&self) -> bool {
        self.issuer == self.subject
    }

    /// Its subject as a message shows it: the common name, or a first
    /// alternative name.
    #[must_use]
    pub fn shown(&self) -> String {
        let name = common_name(self.subject).or_else(|| self.identity().map(|it| it.to_string()));
        name.map_or_else(|| "(without a name)".to_owned(), |name| format!("'{name}'"))
    }

    /// Its issuer's common name as a message shows it.
    #[must_use]
    pub fn shown_issuer(&self) -> String {
        let name = common_name(self.issuer);
        name.map_or_else(|| "(without a name)".to_owned(), |name| format!("'{name}'"))
    }

    /// Whom it names: the first URI among its alternative names (as SPIFFE has
    /// it), else the first host name; the subject's common name only where there
    /// are no alternative names at all. A name that is not printable ASCII, or
    /// too long, is nobody's.
    ///
    /// An authority may let people choose a host or common name that may not
    /// choose a URI, so none of those passes for one.
    #[must_use]
    pub fn identity(&self) -> Option<Arc<str>> {
        let names = self.alternative_names()?;
        let first = |kind: u8| names.iter().find(|(tag, _)| *tag == kind);
        if let Some((_, name)) = first(URI) {
            let uri = printable(name).filter(|name| name.contains(':'));
            return uri.map(Arc::from);
        }
        if let Some((_, name)) = first(DNS_NAME) {
            let host = printable(name).filter(|name| is_no_uri(name));
            return host.map(Arc::from);
        }
        if !names.is_empty() {
            return None;
        }
        let common = common_name(self.subject).filter(|name| is_no_uri(name));
        common.map(Arc::from)
    }

    /// Empty where there is no such extension; `None` where it is broken, names
    /// nobody, or stands twice.
    fn alternative_names(&self) -> Option<Vec<(u8, &'a [u8])>> {
        let mut found = Vec::new();
        let mut extensions = Reader(self.extensions);
        while !extensions.0.is_empty() {
            let mut extension = Reader(extensions.expect(SEQUENCE)?);
            let id = extension.expect(OBJECT_ID)?;
            extension.optional(BOOLEAN)?;
            let value = extension.expect(OCTET_STRING)?;
            if id == SUBJECT_ALT_NAME {
                let mut names = Reader(Reader(value).expect(SEQUENCE)?);
                if !found.is_empty() || names.0.is_empty() {
                    return None;
                }
                while !names.0.is_empty() {
                    found.push(names.next()?);
                }
            }
        }
        Some(found)
    }
}

fn is_no_uri(name: &str) -> bool {
    !name.contains([':', '/'])
}

fn printable(name: &[u8]) -> Option<&str> {
    let is_good = (1..=MOST_NAME).contains(&name.len()) && name.iter().all(u8::is_ascii_graphic);
    std::str::from_utf8(name).ok().filter(|_| is_good)
}

/// The last common name of a subject: the most specific one.
fn common_name(name: &[u8]) -> Option<String> {
    let (mut sets, mut found) = (Reader(name), None);
    while !sets.0.is_empty() {
        let mut set = Reader(sets.expect(SET)?);
        while !set.0.is_empty() {
            let mut pair = Reader(set.expect(SEQUENCE)?);
            let id = pair.expect(OBJECT_ID)?;
            let (tag, value) = pair.next()?;
            if id == COMMON_NAME && TEXTS.contains(&tag) {
                found = Some(value);
            }
        }
    }
    let text = std::str::from_utf8(found?).ok()?;
    let is_good = (1..=MOST_NAME).contains(&text.len()) && !text.contains(char::is_control);
    is_good.then(|| text.to_owned())
}

/// Elements one after another.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    /// The next element's tag and content.
    fn next(&mut self) -> Option<(u8, &'a [u8])> {
        let (&tag, rest) = self.0.split_first()?;
        let (&first, mut rest) = rest.split_first()?;
        let length = if first < 0x80 {
            usize::from(first)
        } else {
            let bytes = usize::from(first & 0x7f);
            if !(1..=4).contains(&bytes) {
                return None;
            }
            let (length, after) = rest.split_at_checked(bytes)?;
            rest = after;
            length
                .iter()
                .fold(0, |sum, byte| sum << 8 | usize::from(*byte))
        };
        let (content, after) = rest.split_at_checked(length)?;
        self.0 = after;
        Some((tag, content))
    }

    /// The next one's content, if it has that tag.
    fn expect(&mut self, tag: u8) -> Option<&'a [u8]> {
        self.next()
            .filter(|(found, _)| *found == tag)
            .map(|it| it.1)
    }

    /// Skips the next one if it has that tag; `None` only if it is broken.
    fn optional(&mut self, tag: u8) -> Option<()> {
        if self.0.first() == Some(&tag) {
            self.next()?;
        }
        Some(())
    }
}

/// `YYMMDDHHMMSSZ`, or with the century; nothing else is allowed in certificates.
fn time((tag, text): (u8, &[u8])) -> Option<SystemTime> {
    let (year, rest) = match tag {
        UTC_TIME => {
            let (year, rest) = text.split_at_checked(2)?;
            let year = number(year)?;
            (if year < 50 { 2000 + year } else { 1900 + year }, rest)
        }
        GENERALIZED_TIME => {
            let (year, rest) = text.split_at_checked(4)?;
            (number(year)?, rest)
        }
        _ => return None,
    };
    if rest.len() != 11 || rest[10] != b'Z' {
        return None;
    }
    let part = |at: usize| number(&rest[at..at + 2]);
    let (month, day) = (part(0)?, part(2)?);
    let (hour, minute, second) = (part(4)?, part(6)?, part(8)?);
    let is_good = (1..=12).contains(&month) && (1..=31).contains(&day);
    if !is_good || hour > 23 || minute > 59 || second > 60 {
        return None;
    }
    let days = days_since_epoch(year, month, day)?;
    let seconds = days * 86_400 + hour * 3600 + minute * 60 + second;
    UNIX_EPOCH.checked_add(Duration::from_secs(seconds))
}

fn number(digits: &[u8]) -> Option<u64> {
    digits.iter().try_fold(0, |sum, digit| {
        let digit = digit.is_ascii_digit().then(|| u64::from(digit - b'0'))?;
        Some(sum * 10 + digit)
    })
}

/// Of the Gregorian calendar; `None` before 1970.
fn days_since_epoch(year: u64, month: u64, day: u64) -> Option<u64> {
    // Years begin in March, so that leap days end them.
    let (year, month) = if month > 2 {
        (year, month - 3)
    } else {
        (year.checked_sub(1)?, month + 9)
    };
    let of_year = (153 * month + 2) / 5 + day - 1;
    let whole = year * 365 + year / 4 - year / 100 + year / 400;
    // From the first of March of the year 0 to 1970.
    (whole + of_year).checked_sub(719_468)
}

#[cfg(test)]
mod tests;
