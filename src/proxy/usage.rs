//! What an answer tells of its tokens, seen as it passes.
//!
//! Text within a JSON string has its quotes escaped, so `"usage"` can only be a
//! key. The last one wins: a stream tells it in its last event, or in each.

use std::sync::LazyLock;

use memchr::memmem::Finder;

/// Bytes after the key that are looked at: the counts come first.
const WINDOW: usize = 512;

static KEY: LazyLock<Finder<'static>> = LazyLock::new(|| Finder::new(b"\"usage\""));
static EVENT_END: LazyLock<Finder<'static>> = LazyLock::new(|| Finder::new(b"\n\n"));

/// Tokens of one request.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Usage {
    /// Of the prompt, when told; more than this type has no request has, and
    /// whoever tells of more is not believed.
    pub(super) input: Option<u32>,
    /// Generated, when told.
    pub(super) output: Option<u32>,
    /// Events that have passed.
    pub(super) events: u32,
    /// Whether the last byte may be the first of an event's end.
    is_half_ended: bool,
    /// What a piece's end cut in two, as few are.
    cut: Option<Box<Cut>>,
}

/// From a key on whose counts may not have come, or its own beginning: shorter than
/// a window.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Cut(Vec<u8>);

impl Usage {
    /// Looks at one piece.
    pub(super) fn look(&mut self, piece: &[u8], is_stream: bool) {
        if is_stream {
            self.count(piece);
        }
        let Some(cut) = self.cut.take() else {
            return self.seek(piece);
        };
        let Cut(mut joined) = *cut;
        let begun = joined.len();
        joined.extend_from_slice(&piece[..piece.len().min(WINDOW)]);
        if piece.len() < WINDOW {
            return self.seek(&joined);
        }
        // Of what began before, all has come.
        let mut end = begun;
        for at in KEY.find_iter(&joined).take_while(|at| *at < begun) {
            self.take(counts(&joined[at..at + WINDOW]));
            end = begun.max(at + KEY.needle().len());
        }
        self.seek(&piece[end - begun..]);
    }

    /// All has come.
    pub(super) fn finish(&mut self) {
        let Some(cut) = self.cut.take() else { return };
        for at in KEY.find_iter(&cut.0) {
            self.take(counts(&cut.0[at..]));
        }
    }

    /// Reads what follows each key, and keeps the first of which more may come.
    fn seek(&mut self, text: &[u8]) {
        for at in KEY.find_iter(text) {
            let window = &text[at..text.len().min(at + WINDOW)];
            let found = counts(window);
            let is_part = found.0.is_none() || found.1.is_none();
            if is_part && window.len() < WINDOW && !is_null(window) {
                return self.keep(&text[at..]);
            }
            self.take(found);
        }
        let most = text.len().min(KEY.needle().len() - 1);
        let begins = |length: &usize| text.ends_with(&KEY.needle()[..*length]);
        let begun = (1..=most).rev().find(begins).unwrap_or(0);
        if begun > 0 {
            self.keep(&text[text.len() - begun..]);
        }
    }

    fn keep(&mut self, cut: &[u8]) {
        self.cut = Some(Box::new(Cut(cut.to_vec())));
    }

    fn take(&mut self, (input, output): Counts) {
        self.input = input.or(self.input);
        self.output = output.or(self.output);
    }

    /// Counts the events that end in this piece.
    fn count(&mut self, mut piece: &[u8]) {
        if self.is_half_ended && piece.first() == Some(&b'\n') {
            self.events = self.events.saturating_add(1);
            piece = &piece[1..];
            self.is_half_ended = false;
        }
        let Some(last) = piece.last() else { return };
        let ends = u32::try_from(EVENT_END.find_iter(piece).count()).unwrap_or(u32::MAX);
        self.events = self.events.saturating_add(ends);
        self.is_half_ended = *last == b'\n' && {
            let ends = piece.iter().rev().take_while(|byte| **byte == b'\n');
            ends.count() % 2 == 1
        };
    }

    /// Generated tokens: as told, else about one for each event but `[DONE]`.
    pub(super) fn generated(&self) -> u64 {
        u64::from(self.output.unwrap_or(self.events.saturating_sub(1)))
    }
}

/// Tokens of the prompt, and generated.
type Counts = (Option<u32>, Option<u32>);

/// Whether the key's value is null, as it is in all events of a stream but one.
fn is_null(window: &[u8]) -> bool {
    let value = window[KEY.needle().len()..].trim_ascii_start();
    let value = value.strip_prefix(b":").map(<[u8]>::trim_ascii_start);
    value.is_some_and(|value| value.starts_with(b"null"))
}

/// The counts that follow the key.
fn counts(window: &[u8]) -> Counts {
    let (mut input, mut output) = (None, None);
    if is_null(window) {
        return (input, output);
    }
    for colon in memchr::memchr_iter(b':', window) {
        let (key, value) = (&window[..colon], &window[colon + 1..]);
        if key.ends_with(b"\"prompt_tokens\"") || key.ends_with(b"\"input_tokens\"") {
            input = number(value);
        } else if key.ends_with(b"\"completion_tokens\"") || key.ends_with(b"\"output_tokens\"") {
            output = number(value);
        }
        if input.is_some() && output.is_some() {
            break;
        }
    }
    (input, output)
}

/// The number at the front, if its end is seen too.
fn number(text: &[u8]) -> Option<u32> {
    let mut value: Option<u32> = None;
    for byte in text.trim_ascii_start() {
        if !byte.is_ascii_digit() {
            return value;
        }
        let digit = u32::from(byte - b'0');
        value = Some(value.unwrap_or(0).checked_mul(10)?.checked_add(digit)?);
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(pieces: &[&str], is_stream: bool) -> Usage {
        let mut usage = Usage::default();
        for piece in pieces {
            usage.look(piece.as_bytes(), is_stream);
        }
        usage.finish();
        usage
    }

    #[test]
    fn counts_are_found_in_each_apis_words() {
        for (body, input, output) in [
            (
                r#"{"choices":[],"usage":{"prompt_tokens":12,"total_tokens":20,"completion_tokens":8}}"#,
                12,
                8,
            ),
            (
                r#"{"usage": {"input_tokens": 3, "output_tokens": 4}}"#,
                3,
                4,
            ),
        ] {
            let usage = seen(&[body], false);
            assert_eq!((usage.input, usage.output), (Some(input), Some(output)));
            assert_eq!(usage.generated(), u64::from(output));
        }
    }

    #[test]
    fn text_is_not_taken_for_a_key() {
        let usage = seen(
            &[r#"{"content":"\"usage\":{\"prompt_tokens\":1,\"completion_tokens\":2}"}"#],
            false,
        );
        assert_eq!(usage, Usage::default());
    }

    #[test]
    fn a_stream_tells_in_its_last_event_or_is_counted() {
        let event = "data: {\"choices\":[{}],\"usage\":null}\n\n";
        let last =
            "data: {\"choices\":[],\"usage\":{\"prompt_tokens\":5,\"completion_tokens\":2}}\n\n";
        let told = seen(&[event, event, last, "data: [DONE]\n\n"], true);
        assert_eq!((told.input, told.generated()), (Some(5), 2));
        let counted = seen(&[event, event, event, "data: [DONE]\n\n"], true);
        assert_eq!((counted.input, counted.generated()), (None, 3));
    }

    #[test]
    fn what_pieces_cut_in_two_is_seen() {
        let event = "data: {\"usage\":null}\n\n";
        let last = "data: {\"usage\": {\"prompt_tokens\": 512, \"completion_tokens\": 64}}\n\n";
        let stream = [event, event, last, "data: [DONE]\n\n"].concat();
        for at in 0..stream.len() {
            let (first, rest) = stream.split_at(at);
            let usage = seen(&[first, rest], true);
            assert_eq!(
                (usage.input, usage.output, usage.events),
                (Some(512), Some(64), 4)
            );
            let mut usage = Usage::default();
            for byte in stream.bytes() {
                usage.look(&[byte], true);
                assert!(usage.cut.as_ref().is_none_or(|cut| cut.0.len() < WINDOW));
            }
        }
    }

    #[test]
    fn a_number_that_is_cut_is_none() {
        assert_eq!(
            seen(&[r#"{"usage":{"prompt_tokens":12"#], false).input,
            None
        );
        let told = seen(
            &[r#"{"usage":{"prompt_tokens":99999999999999999999}}"#],
            false,
        );
        assert_eq!(told.input, None);
    }
}
