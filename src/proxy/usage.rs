//! What an answer tells of its tokens, seen as it passes.
//!
//! Text within a JSON string has its quotes escaped, so `"usage"` can only be a
//! key. The last one wins: a stream tells it in its last event, or in each.

use std::sync::LazyLock;

use memchr::memmem::{Finder, find};

/// Bytes after the key that are looked at: the counts come first.
const WINDOW: usize = 512;

static KEY: LazyLock<Finder<'static>> = LazyLock::new(|| Finder::new(b"\"usage\""));
static EVENT_END: LazyLock<Finder<'static>> = LazyLock::new(|| Finder::new(b"\n\n"));

/// Tokens of one request.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Usage {
    /// Of the prompt, when told.
    pub(super) input: Option<u64>,
    /// Generated, when told.
    pub(super) output: Option<u64>,
    /// Events that have passed.
    pub(super) events: u64,
}

impl Usage {
    /// Looks at one piece. Counts that are cut in two by the pieces are missed.
    pub(super) fn look(&mut self, piece: &[u8], is_stream: bool) {
        for at in KEY.find_iter(piece) {
            let window = &piece[at..piece.len().min(at + WINDOW)];
            let count = |names: [&[u8]; 2]| names.into_iter().find_map(|name| number(window, name));
            self.input = count([b"\"prompt_tokens\":", b"\"input_tokens\":"]).or(self.input);
            self.output = count([b"\"completion_tokens\":", b"\"output_tokens\":"]).or(self.output);
        }
        if is_stream {
            self.events += EVENT_END.find_iter(piece).count() as u64;
        }
    }

    /// Generated tokens: as told, else about one for each event but `[DONE]`.
    pub(super) fn generated(&self) -> u64 {
        self.output.unwrap_or(self.events.saturating_sub(1))
    }
}

/// The number after `name`, all of it within `window`.
fn number(window: &[u8], name: &[u8]) -> Option<u64> {
    let after = window[find(window, name)? + name.len()..].trim_ascii_start();
    let digits = after.iter().take_while(|byte| byte.is_ascii_digit());
    let length = digits.count();
    let is_whole = length < after.len();
    let text = std::str::from_utf8(&after[..length]).ok()?;
    text.parse().ok().filter(|_| is_whole)
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
            assert_eq!(usage.generated(), output);
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
    }
}
