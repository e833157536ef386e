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
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Usage {
    /// Of the prompt, when told; more than this type has no request has, and
    /// whoever tells of more is not believed.
    pub(super) input: Option<u32>,
    /// Generated, when told.
    pub(super) output: Option<u32>,
    /// Events that have passed.
    pub(super) events: u64,
}

impl Usage {
    /// Looks at one piece. Counts that are cut in two by the pieces are missed.
    pub(super) fn look(&mut self, piece: &[u8], is_stream: bool) {
        for at in KEY.find_iter(piece) {
            self.read(&piece[at..piece.len().min(at + WINDOW)]);
        }
        if is_stream {
            self.events += EVENT_END.find_iter(piece).count() as u64;
        }
    }

    /// Reads the counts that follow the key.
    fn read(&mut self, window: &[u8]) {
        let (mut input, mut output) = (None, None);
        for colon in memchr::memchr_iter(b':', window) {
            let (key, value) = (&window[..colon], &window[colon + 1..]);
            if key.ends_with(b"\"prompt_tokens\"") || key.ends_with(b"\"input_tokens\"") {
                input = number(value);
            } else if key.ends_with(b"\"completion_tokens\"") || key.ends_with(b"\"output_tokens\"")
            {
                output = number(value);
            }
            if input.is_some() && output.is_some() {
                break;
            }
        }
        self.input = input.or(self.input);
        self.output = output.or(self.output);
    }

    /// Generated tokens: as told, else about one for each event but `[DONE]`.
    pub(super) fn generated(&self) -> u64 {
        self.output.map_or(self.events.saturating_sub(1), u64::from)
    }
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
