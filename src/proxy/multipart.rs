//! Finds the `model` field of a multipart form as it arrives, wherever among
//! the parts it stands, without holding the parts (RFC 7578, RFC 2046 §5.1).

use std::ops::Range;

use memchr::memmem;

/// Bytes of one part's header section at most; a longer one is skipped.
const MAX_PART_HEAD: usize = 8 << 10;
/// Bytes of the model's name at most.
const MAX_MODEL: usize = 1024;
/// Bytes of a boundary at most (RFC 2046 §5.1.1: 70).
const MAX_BOUNDARY: usize = 70;

/// Where in the form the next byte stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum At {
    /// In a part's content, or before the first part.
    Content,
    /// In a part's header section.
    Head,
    /// In the content of the `model` part.
    Model,
    /// The model is known, or can't be.
    Done,
}

/// A form under way.
#[derive(Debug)]
pub(super) struct Multipart {
    /// `\r\n--` and the boundary.
    delimiter: Vec<u8>,
    at: At,
    /// Bytes not yet understood: they may be the start of a delimiter.
    pending: Vec<u8>,
    model: Vec<u8>,
    /// Bytes pushed so far; `pending` holds the last of them.
    pushed: u64,
    model_at: Range<u64>,
}

impl Multipart {
    /// A form with the boundary that this content type names.
    #[must_use]
    pub(super) fn new(content_type: &str) -> Option<Self> {
        let boundary = parameter(content_type, "boundary")?;
        if !(1..=MAX_BOUNDARY).contains(&boundary.len()) {
            return None;
        }
        Some(Self {
            delimiter: [b"\r\n--", boundary.as_bytes()].concat(),
            at: At::Content,
            // The first delimiter needs no line before it.
            pending: b"\r\n".to_vec(),
            model: Vec::new(),
            pushed: 0,
            model_at: 0..0,
        })
    }

    /// The model's name, once its part has ended, and where it stands.
    #[must_use]
    pub(super) fn into_model(self) -> Option<(String, Range<u64>)> {
        let known = self.at == At::Done && !self.model.is_empty();
        let name = known.then(|| String::from_utf8(self.model).ok()).flatten();
        name.map(|name| (name, self.model_at))
    }

    /// Looks through the next piece.
    pub(super) fn push(&mut self, piece: &[u8]) {
        if self.at == At::Done {
            return;
        }
        self.take_in(piece);
        self.pushed += piece.len() as u64;
        while self.advance() {}
    }

    /// Adds a piece to `pending`; of a long one that is all content, only the
    /// end, since no more than that can belong to the next delimiter.
    fn take_in(&mut self, piece: &[u8]) {
        let keep = self.delimiter.len();
        if self.at == At::Content && piece.len() > 2 * keep {
            // A delimiter that began in the piece before ends in these bytes.
            self.pending.extend_from_slice(&piece[..keep]);
            if memmem::find(&self.pending, &self.delimiter).is_none() {
                let found = memmem::find(piece, &self.delimiter);
                self.pending.clear();
                self.pending
                    .extend_from_slice(&piece[found.unwrap_or(piece.len() - keep)..]);
                return;
            }
            self.pending.extend_from_slice(&piece[keep..]);
            return;
        }
        self.pending.extend_from_slice(piece);
    }

    /// Understands one more thing of `pending`; false when more is needed.
    fn advance(&mut self) -> bool {
        match self.at {
            At::Content => {
                let Some(found) = memmem::find(&self.pending, &self.delimiter) else {
                    let keep = self.delimiter.len() - 1;
                    let drop = self.pending.len().saturating_sub(keep);
                    self.pending.drain(..drop);
                    return false;
                };
                self.pending.drain(..found + self.delimiter.len());
                self.at = At::Head;
                true
            }
            At::Head => self.part_head(),
            At::Model => {
                let found = memmem::find(&self.pending, &self.delimiter);
                let length = found.unwrap_or(0);
                if length > MAX_MODEL || self.pending.len() > MAX_MODEL + self.delimiter.len() {
                    self.at = At::Done;
                } else if found.is_some() {
                    self.model = self.pending[..length].to_vec();
                    let start = self.pushed - self.pending.len() as u64;
                    self.model_at = start..start + length as u64;
                    self.at = At::Done;
                }
                false
            }
            At::Done => false,
        }
    }

    fn part_head(&mut self) -> bool {
        if self.pending.starts_with(b"--") {
            self.at = At::Done;
            return false;
        }
        let Some(end) = memmem::find(&self.pending, b"\r\n\r\n") else {
            if self.pending.len() > MAX_PART_HEAD {
                self.at = At::Content;
                return true;
            }
            return false;
        };
        let is_model = names_model(&self.pending[..end]);
        // The blank line's CRLF may begin the delimiter of an empty part.
        self.pending.drain(..end + if is_model { 4 } else { 2 });
        self.at = if is_model { At::Model } else { At::Content };
        true
    }
}

/// Whether a part's header section says `name="model"`, and no file name.
fn names_model(head: &[u8]) -> bool {
    let text = String::from_utf8_lossy(head);
    text.split("\r\n").any(|line| {
        let Some((name, value)) = line.split_once(':') else {
            return false;
        };
        name.trim().eq_ignore_ascii_case("content-disposition")
            && parameter(value, "name").as_deref() == Some("model")
            && parameter(value, "filename").is_none()
    })
}

/// A parameter of a header value such as `form-data; name="model"`.
fn parameter(value: &str, wanted: &str) -> Option<String> {
    let mut rest = value.split_once(';')?.1;
    loop {
        let (name, after) = rest.split_once('=')?;
        let name = name.trim();
        let (text, next) = if let Some(quoted) = after.trim_start().strip_prefix('"') {
            let (text, next) = quoted.split_once('"')?;
            (text, next.split_once(';').map_or("", |(_, next)| next))
        } else {
            after.split_once(';').unwrap_or((after, ""))
        };
        if name.eq_ignore_ascii_case(wanted) {
            return Some(text.trim().to_owned());
        }
        rest = next;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TYPE: &str = "multipart/form-data; charset=utf-8; boundary=\"XyZ\"";

    fn model(body: &[u8], step: usize) -> Option<String> {
        let mut form = Multipart::new(TYPE).unwrap();
        body.chunks(step).for_each(|piece| form.push(piece));
        let (name, at) = form.into_model()?;
        let [start, end] = [at.start, at.end].map(|offset| usize::try_from(offset).unwrap());
        assert_eq!(&body[start..end], name.as_bytes());
        Some(name)
    }

    fn form(file: &[u8]) -> Vec<u8> {
        [
            b"--XyZ\r\nContent-Disposition: form-data; name=\"file\"; filename=\"model\"\r\n\
              Content-Type: audio/wav\r\n\r\n"
                .as_slice(),
            file,
            b"\r\n--XyZ\r\ncontent-disposition: form-data; name=\"empty\"\r\n\r\n\r\n\
              --XyZ\r\nContent-Disposition: form-data; name=\"model\"\r\n\r\nwhisper-1\r\n--XyZ--\r\n",
        ]
        .concat()
    }

    #[test]
    fn finds_the_model_after_files_in_pieces_of_any_size() {
        let mut file = b"\r\n--Xy \r\n-- name=\"model\"\r\n\r\nno ".repeat(200);
        file.extend_from_slice(b"\r\n\r\n--Xy");
        let body = form(&file);
        for step in (1..200).chain([1000, 5000, 100_000]) {
            assert_eq!(
                model(&body, step).as_deref(),
                Some("whisper-1"),
                "step {step}"
            );
        }
    }

    #[test]
    fn a_form_without_a_model_has_none() {
        let body = b"--XyZ\r\nContent-Disposition: form-data; name=\"a\"\r\n\r\nb\r\n--XyZ--";
        for step in 1..body.len() {
            assert_eq!(model(body, step), None);
        }
        assert_eq!(model(b"", 1), None);
        assert_eq!(model(&form(b"")[..200], 7), None);
    }

    #[test]
    fn what_is_held_is_bounded() {
        let mut parts = Multipart::new(TYPE).unwrap();
        parts.push(b"--XyZ\r\nContent-Disposition: form-data; name=\"model\"\r\n\r\n");
        for _ in 0..1000 {
            parts.push(&[b'x'; 1000]);
            assert!(parts.pending.len() < 10_000);
        }
        assert!(parts.into_model().is_none());
        let mut file = Multipart::new(TYPE).unwrap();
        file.push(b"--XyZ\r\nContent-Disposition: form-data; name=\"file\"\r\n\r\n");
        for _ in 0..1000 {
            file.push(&[b'x'; 9000]);
            assert!(file.pending.len() < 10_000);
        }
    }

    #[test]
    fn boundaries_are_read_as_written() {
        for (text, boundary) in [
            ("multipart/form-data; boundary=abc", Some("abc")),
            ("multipart/form-data; Boundary=abc; x=y", Some("abc")),
            (
                "multipart/form-data; x=\"a;b=c\"; boundary=abc",
                Some("abc"),
            ),
            ("multipart/form-data", None),
            ("multipart/form-data; boundary=", None),
        ] {
            let delimiter = Multipart::new(text).map(|form| form.delimiter);
            let expected = boundary.map(|boundary| format!("\r\n--{boundary}").into_bytes());
            assert_eq!(delimiter, expected, "{text}");
        }
    }
}
