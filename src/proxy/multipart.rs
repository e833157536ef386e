//! Finds the `model` field of a multipart form as it arrives, wherever among
//! the parts it stands, without holding the parts (RFC 7578, RFC 2046 §5.1), and
//! refuses a form of which an engine might read another model than we do.

use std::ops::Range;

use memchr::memmem;

/// Bytes of one part's header section at most; a longer one is skipped.
const MAX_PART_HEAD: usize = 8 << 10;
/// Bytes of the model's name at most.
const MAX_MODEL: usize = 1024;
/// Bytes of a boundary at most (RFC 2046 §5.1.1: 70).
const MAX_BOUNDARY: usize = 70;

/// Why a form is refused: those who read it after us might find another model
/// in it than we do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum FormFault {
    /// Frameworks take the first, the last, or both.
    #[error("'model' stands there twice")]
    TwoModels,
    /// No model has such a name.
    #[error("'model' is longer than {MAX_MODEL} bytes")]
    LongModel,
    /// A file is not what we take for a model's name, but others may.
    #[error("'model' must be no file")]
    FileModel,
    /// Its name may stand behind what we look at.
    #[error("the head of a part is longer than {MAX_PART_HEAD} bytes")]
    LongHead,
    /// Lines or parameters that are not read alike everywhere.
    #[error(
        "each part needs one Content-Disposition on a line of its own, with one 'name' at most"
    )]
    UnclearHead,
    /// To some it had ended before.
    #[error("there is a part behind its end")]
    AfterEnd,
}

/// Where in the form the next byte stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum At {
    /// In a part's content, or before the first part.
    Content,
    /// In a part's header section.
    Head,
    /// In the content of the `model` part, its head's last CRLF first.
    Model,
    /// Behind the last part.
    Epilogue,
    /// It is refused.
    Refused(FormFault),
}

/// A form under way.
#[derive(Debug)]
pub(super) struct Multipart {
    /// `\r\n--` and the boundary.
    delimiter: Vec<u8>,
    at: At,
    /// Bytes not yet understood: they may be the start of a delimiter.
    pending: Vec<u8>,
    /// Once its part has ended.
    model: Vec<u8>,
    /// Whether its part has begun.
    has_model: bool,
    /// Bytes pushed so far; `pending` holds the last of them.
    pushed: u64,
    model_at: Range<u64>,
}

impl Multipart {
    /// A form with the boundary that this content type names.
    #[must_use]
    pub(super) fn new(content_type: &str) -> Option<Self> {
        let mut boundary = None;
        for (name, value) in parameters(content_type)? {
            let is_boundary = name.eq_ignore_ascii_case("boundary");
            if is_boundary && boundary.replace(value).is_some() {
                return None;
            }
        }
        let boundary = boundary?;
        if !(1..=MAX_BOUNDARY).contains(&boundary.len()) {
            return None;
        }
        Some(Self {
            delimiter: [b"\r\n--", boundary.as_bytes()].concat(),
            at: At::Content,
            // The first delimiter needs no line before it.
            pending: b"\r\n".to_vec(),
            model: Vec::new(),
            has_model: false,
            pushed: 0,
            model_at: 0..0,
        })
    }

    /// The model's name, if its part has ended, and where it stands.
    #[must_use]
    pub(super) fn into_model(self) -> Option<(String, Range<u64>)> {
        let known = !self.model.is_empty();
        let name = known.then(|| String::from_utf8(self.model).ok()).flatten();
        name.map(|name| (name, self.model_at))
    }

    /// Looks through the next piece, and through all of it: another `model` may
    /// stand behind the first.
    ///
    /// # Errors
    /// That the form is refused.
    pub(super) fn push(&mut self, piece: &[u8]) -> Result<(), FormFault> {
        if let At::Refused(fault) = self.at {
            return Err(fault);
        }
        self.take_in(piece);
        self.pushed += piece.len() as u64;
        while self.advance() {}
        match self.at {
            At::Refused(fault) => {
                self.pending = Vec::new();
                Err(fault)
            }
            _ => Ok(()),
        }
    }

    /// Adds a piece to `pending`; of a long one that is all content, only the
    /// end, since no more than that can belong to the next delimiter.
    fn take_in(&mut self, piece: &[u8]) {
        let keep = self.delimiter.len();
        if matches!(self.at, At::Content | At::Epilogue) && piece.len() > 2 * keep {
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
            At::Content | At::Epilogue => {
                let Some(found) = memmem::find(&self.pending, &self.delimiter) else {
                    let keep = self.delimiter.len() - 1;
                    let drop = self.pending.len().saturating_sub(keep);
                    self.pending.drain(..drop);
                    return false;
                };
                if self.at == At::Epilogue {
                    return self.refuse(FormFault::AfterEnd);
                }
                self.pending.drain(..found + self.delimiter.len());
                self.at = At::Head;
                true
            }
            At::Head => self.part_head(),
            At::Model => self.part_model(),
            At::Refused(_) => false,
        }
    }

    fn refuse(&mut self, fault: FormFault) -> bool {
        self.at = At::Refused(fault);
        false
    }

    fn part_model(&mut self) -> bool {
        const CRLF: usize = 2;
        let found = memmem::find(&self.pending, &self.delimiter);
        let is_too_long = match found {
            Some(end) => end > CRLF + MAX_MODEL,
            None => self.pending.len() >= CRLF + MAX_MODEL + self.delimiter.len(),
        };
        if is_too_long {
            return self.refuse(FormFault::LongModel);
        }
        let Some(end) = found else { return false };
        // In an empty part that CRLF begins the delimiter.
        let name = self.pending.get(CRLF..end).unwrap_or_default();
        self.model = name.to_vec();
        let start = (self.pushed + CRLF as u64).saturating_sub(self.pending.len() as u64);
        self.model_at = start..start + self.model.len() as u64;
        self.at = At::Content;
        true
    }

    fn part_head(&mut self) -> bool {
        if self.pending.starts_with(b"--") {
            self.at = At::Epilogue;
            return true;
        }
        const END: &[u8] = b"\r\n\r\n";
        let end = match memmem::find(&self.pending, END) {
            Some(end) if end <= MAX_PART_HEAD => end,
            None if self.pending.len() < MAX_PART_HEAD + END.len() => return false,
            // The same, however it was cut.
            _ => return self.refuse(FormFault::LongHead),
        };
        let is_model = match names_model(&self.pending[..end]) {
            Ok(is_model) => is_model,
            Err(fault) => return self.refuse(fault),
        };
        if is_model && self.has_model {
            return self.refuse(FormFault::TwoModels);
        }
        self.has_model |= is_model;
        // The blank line's CRLF may begin the delimiter of an empty part.
        self.pending.drain(..end + 2);
        self.at = if is_model { At::Model } else { At::Content };
        true
    }
}

#[cfg(any(test, feature = "fuzzing"))]
impl Multipart {
    /// Bytes that are held at most, beside those of the last piece.
    pub(super) const MOST_HELD: usize = MAX_PART_HEAD + MAX_MODEL + 2 * MAX_BOUNDARY;

    pub(super) fn held(&self) -> usize {
        self.pending.len()
    }
}

/// Whether a part's header section says `name="model"`.
fn names_model(head: &[u8]) -> Result<bool, FormFault> {
    let text = String::from_utf8_lossy(head);
    let mut name = None;
    let (mut dispositions, mut is_file) = (0, false);
    for line in text.split("\r\n") {
        // Some fold such a line into the one before, some end one at either byte.
        if line.starts_with([' ', '\t']) && !line.trim().is_empty() || line.contains(['\r', '\n']) {
            return Err(FormFault::UnclearHead);
        }
        let Some((field, value)) = line.split_once(':') else {
            continue;
        };
        if !field.trim().eq_ignore_ascii_case("content-disposition") {
            continue;
        }
        dispositions += 1;
        for (key, value) in parameters(value).ok_or(FormFault::UnclearHead)? {
            let key = key.to_ascii_lowercase();
            is_file |= key == "filename" || key.starts_with("filename*");
            if key.starts_with("name*") || key == "name" && name.replace(value).is_some() {
                return Err(FormFault::UnclearHead);
            }
        }
    }
    if dispositions > 1 || name.as_ref().is_some_and(|name| name.contains('\\')) {
        return Err(FormFault::UnclearHead);
    }
    match name.as_deref() {
        Some("model") if is_file => Err(FormFault::FileModel),
        name => Ok(name == Some("model")),
    }
}

/// The parameters of a header value such as `form-data; name="model"`, escapes as
/// they are written; `None`: quotes stand where they may be read in several ways.
fn parameters(value: &str) -> Option<Vec<(&str, String)>> {
    let mut found = Vec::new();
    let mut rest = value.split_once(';').map_or("", |(_, rest)| rest);
    while !rest.is_empty() {
        let Some(end) = rest.find(['=', ';']) else {
            break;
        };
        let (name, after) = (rest[..end].trim(), &rest[end + 1..]);
        if rest[end..].starts_with(';') {
            rest = after;
            continue;
        }
        let (text, next) = match after.trim_start().strip_prefix('"') {
            Some(quoted) => {
                let (text, next) = quoted.split_at(closing_quote(quoted)?);
                let next = next[1..].trim_start();
                if !(next.is_empty() || next.starts_with(';')) {
                    return None;
                }
                (text, next.strip_prefix(';').unwrap_or(next))
            }
            None => after.split_once(';').unwrap_or((after, "")),
        };
        if !after.trim_start().starts_with('"') && text.contains('"') {
            return None;
        }
        found.push((name, text.trim().to_owned()));
        rest = next;
    }
    Some(found)
}

/// Where a quoted text ends; a quote behind a backslash is one of its own.
fn closing_quote(text: &str) -> Option<usize> {
    let mut is_escaped = false;
    text.bytes().position(|byte| {
        let is_end = byte == b'"' && !is_escaped;
        is_escaped = byte == b'\\' && !is_escaped;
        is_end
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const TYPE: &str = "multipart/form-data; charset=utf-8; boundary=\"XyZ\"";

    fn model(body: &[u8], step: usize) -> Option<String> {
        let mut form = Multipart::new(TYPE).unwrap();
        for piece in body.chunks(step) {
            form.push(piece).unwrap();
        }
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
    fn finds_a_model_that_stands_before_a_file_in_the_same_piece() {
        let body = [
            b"--XyZ\r\nContent-Disposition: form-data; name=\"model\"\r\n\r\nwhisper-1\r\n\
              --XyZ\r\nContent-Disposition: form-data; name=\"file\"; filename=\"a\"\r\n\r\n"
                .as_slice(),
            &[b'x'; 5000],
            b"\r\n--XyZ--\r\n",
        ]
        .concat();
        for step in [1, 7, 1000, 2000, body.len()] {
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

    /// A form of the parts that have these heads, each with the text `m`.
    fn parts(heads: &[&str]) -> Vec<u8> {
        let parts = heads
            .iter()
            .map(|head| format!("--XyZ\r\n{head}\r\n\r\nm\r\n"));
        [parts.collect::<String>().as_str(), "--XyZ--\r\n"]
            .concat()
            .into_bytes()
    }

    #[test]
    fn what_others_may_read_otherwise_is_refused_however_it_is_cut() {
        const MODEL: &str = "Content-Disposition: form-data; name=\"model\"";
        const FILE: &str = "Content-Disposition: form-data; name=\"file\"; filename=\"a\"";
        let long = format!("X: {}\r\n{MODEL}", "x".repeat(MAX_PART_HEAD));
        let of = |parameters: &str| format!("Content-Disposition: form-data; {parameters}");
        let unclear = [
            of("name=\"x\"; name=\"model\""),
            of("name=\"x\"; Name=model"),
            of("name*=utf-8''model"),
            of("name=\"mod\\el\""),
            of("filename=\"a\\\"; name=\"model\""),
            of("name=\"x\"y; z=\"model\""),
            of("\r\n name=\"model\""),
            format!("X: y\n{MODEL}"),
            format!("X: y\r{MODEL}"),
            format!("{FILE}\r\n{MODEL}"),
            format!("{MODEL}\r\n{MODEL}"),
        ];
        let mut cases: Vec<(Vec<u8>, FormFault)> = unclear
            .iter()
            .map(|head| (parts(&[head]), FormFault::UnclearHead))
            .collect();
        cases.push((parts(&[MODEL, FILE, MODEL]), FormFault::TwoModels));
        let bare = "content-disposition:form-data;name=model";
        cases.push((parts(&[MODEL, bare]), FormFault::TwoModels));
        let behind = of("x; name=\"model\"");
        cases.push((parts(&[MODEL, &behind]), FormFault::TwoModels));
        cases.push((parts(&[MODEL, &long]), FormFault::LongHead));
        let file = of("name=\"model\"; filename=\"a\"");
        cases.push((parts(&[&file]), FormFault::FileModel));
        let file = of("filename*=utf-8''a; name=\"model\"");
        cases.push((parts(&[MODEL, &file]), FormFault::FileModel));
        let ended = [parts(&[MODEL]), parts(&[MODEL])].concat();
        cases.push((ended, FormFault::AfterEnd));
        // The second has not ended.
        let mut open = parts(&[MODEL, MODEL]);
        open.truncate(open.len() - 12);
        cases.push((open, FormFault::TwoModels));
        for (body, fault) in cases {
            for step in (1..40).chain([1000, body.len()]) {
                let mut form = Multipart::new(TYPE).unwrap();
                let mut pieces = body.chunks(step);
                let refused = pieces.find_map(|piece| form.push(piece).err());
                let text = String::from_utf8_lossy(&body);
                assert_eq!(refused, Some(fault), "step {step}: {text}");
            }
        }
        // What clients send is none of that.
        for head in [
            of("name=\"file\"; filename=\"a \\\"b\\\".wav\""),
            of("name=\"file\"; filename=\"a;b.wav\"; filename*=utf-8''a%3Bb.wav"),
            format!("Content-Type: text/plain\r\n{}", of("name=\"models\"")),
        ] {
            let body = parts(&[MODEL, &head]);
            for step in [1, 7, body.len()] {
                assert_eq!(model(&body, step).as_deref(), Some("m"), "{head}");
            }
        }
        let empty = b"--XyZ\r\nContent-Disposition: form-data; name=model\r\n\r\n--XyZ--";
        assert_eq!(model(empty, 1), None);
    }

    #[test]
    fn what_is_held_is_bounded() {
        let mut parts = Multipart::new(TYPE).unwrap();
        parts
            .push(b"--XyZ\r\nContent-Disposition: form-data; name=\"model\"\r\n\r\n")
            .unwrap();
        let mut faults = 0;
        for _ in 0..1000 {
            faults += usize::from(parts.push(&[b'x'; 1000]) == Err(FormFault::LongModel));
            assert!(parts.pending.len() < 10_000);
        }
        assert_eq!(faults, 999);
        assert!(parts.into_model().is_none());
        let mut file = Multipart::new(TYPE).unwrap();
        file.push(b"--XyZ\r\nContent-Disposition: form-data; name=\"file\"\r\n\r\n")
            .unwrap();
        for _ in 0..1000 {
            file.push(&[b'x'; 9000]).unwrap();
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
            ("multipart/form-data; boundary=a; boundary=b", None),
            ("multipart/form-data; x; boundary=a", Some("a")),
        ] {
            let delimiter = Multipart::new(text).map(|form| form.delimiter);
            let expected = boundary.map(|boundary| format!("\r\n--{boundary}").into_bytes());
            assert_eq!(delimiter, expected, "{text}");
        }
    }
}
