//! What a user asks, read off a body: the text of the last message of the role
//! `user`, or the prompt. Bounded, and tolerant: the body was checked before, and
//! what is no text has none.

use bytes::Bytes;

use super::fingerprint::between;
use super::peek::PromptAt;
use crate::smart::history::{MOST_QUERY, cut};

/// Bytes of a message that are looked at: an escaped character takes six.
const MOST_LOOKED_AT: u64 = 16 << 10;
/// Bytes at its end, where its role may stand.
const NEAR: u64 = 64;
/// Levels of a message that are kept apart.
const MOST_LEVELS: usize = 8;

/// The text that stands there in the pieces of a body, cut to [`MOST_QUERY`].
pub(super) fn last(held: &[Bytes], prompt: &PromptAt) -> Option<String> {
    let (start, end) = prompt.main?;
    let end = end.unwrap_or(u64::MAX);
    if prompt.elements == 0 {
        // A text, or a list of texts, of which the first.
        let part = between(held, start, end.min(start + MOST_LOOKED_AT));
        let quoted = match part.trim_ascii_start() {
            [b'[', rest @ ..] => rest.trim_ascii_start(),
            text => text,
        };
        return text(quoted.strip_prefix(b"\"")?);
    }
    let kept = prompt.elements.min(PromptAt::ENDS);
    for back in 0..kept {
        let index = prompt.elements - 1 - back;
        let to = prompt.ends[index % PromptAt::ENDS];
        let from = match index {
            0 => start + 1,
            // Where the one before it ends is forgotten.
            _ if back + 1 == kept => return None,
            _ => prompt.ends[(index - 1) % PromptAt::ENDS],
        };
        let looked = between(held, from, to.min(from + MOST_LOOKED_AT));
        let mut message = Message::of(&looked);
        if message.role.is_empty() {
            let tail = between(held, from.max(to.saturating_sub(NEAR)), to);
            message.role = role(&tail);
        }
        if message.role == b"user" {
            return Some(message.text).filter(|text| !text.trim_ascii().is_empty());
        }
    }
    None
}

/// A message as far as it was looked at.
#[derive(Debug, Default)]
struct Message {
    role: Vec<u8>,
    text: String,
}

impl Message {
    /// Reads `{"role": .., "content": ".." or [{"type": "text", "text": ".."}, ..]}`.
    fn of(mut bytes: &[u8]) -> Self {
        let mut message = Self::default();
        // By level, the key that is being given a value.
        let mut keys: [&[u8]; MOST_LEVELS] = [b""; MOST_LEVELS];
        let (mut level, mut is_value) = (0_usize, false);
        while let [first, rest @ ..] = bytes {
            bytes = rest;
            match first {
                b'{' | b'[' => {
                    level += 1;
                    is_value = false;
                }
                b'}' | b']' => level = level.saturating_sub(1),
                b',' => is_value = false,
                b':' => is_value = true,
                b'"' => {
                    let length = raw(bytes);
                    let (string, rest) = bytes.split_at(length);
                    bytes = rest.get(1..).unwrap_or_default();
                    if !is_value {
                        if let Some(key) = keys.get_mut(level) {
                            *key = string;
                        }
                        continue;
                    }
                    match (level, keys[1], keys[level.min(MOST_LEVELS - 1)]) {
                        (1, b"role", _) => message.role = string.to_vec(),
                        (1, b"content", _) | (3, b"content", b"text") => message.add(string),
                        _ => {}
                    }
                }
                _ => {}
            }
        }
        message
    }

    fn add(&mut self, string: &[u8]) {
        if let (Some(more), true) = (text(string), self.text.len() < MOST_QUERY) {
            if !self.text.is_empty() {
                self.text.push('\n');
            }
            self.text.push_str(&more);
            self.text.truncate(cut(&self.text).len());
        }
    }
}

/// The role that stands last in a message.
fn role(tail: &[u8]) -> Vec<u8> {
    let at = memchr::memmem::rfind(tail, b"\"role\"");
    let value = at.map(|at| tail[at + 6..].trim_ascii_start());
    let value = value.and_then(|value| value.strip_prefix(b":"));
    let value = value.and_then(|value| value.trim_ascii_start().strip_prefix(b"\""));
    value.map_or_else(Vec::new, |value| value[..raw(value)].to_vec())
}

/// Bytes up to the quote that ends a string, or all.
fn raw(bytes: &[u8]) -> usize {
    let mut at = 0;
    while at < bytes.len() {
        match bytes[at] {
            b'"' => return at,
            b'\\' => at += 2,
            _ => at += 1,
        }
    }
    bytes.len()
}

/// What a string says, from behind its opening quote on.
fn text(bytes: &[u8]) -> Option<String> {
    let length = raw(bytes);
    // No escape takes more than six bytes a byte.
    let mut looked = &bytes[..length.min(6 * MOST_QUERY)];
    let mut decoded = decode(looked);
    // An escape that is cut, of which there may be two for one character.
    for _ in 0..2 {
        let last = looked.iter().rposition(|byte| *byte == b'\\');
        if let (None, Some(last)) = (&decoded, last) {
            looked = &looked[..last];
            decoded = decode(looked);
        }
    }
    decoded.filter(|text| !text.trim_ascii().is_empty())
}

fn decode(escaped: &[u8]) -> Option<String> {
    let valid = match std::str::from_utf8(escaped) {
        Ok(valid) => valid,
        Err(error) => std::str::from_utf8(&escaped[..error.valid_up_to()]).unwrap_or_default(),
    };
    let mut text = serde_json::from_str::<String>(&format!("\"{valid}\"")).ok()?;
    text.truncate(cut(&text).len());
    Some(text)
}

#[cfg(test)]
mod tests {
    use super::super::peek::Scanner;
    use super::*;
    use proptest::prelude::*;
    use serde_json::{Value, json};

    fn read(body: &str, pieces: usize) -> Option<String> {
        let bytes = Bytes::copy_from_slice(body.as_bytes());
        let held: Vec<Bytes> = (0..bytes.len())
            .step_by(pieces)
            .map(|at| bytes.slice(at..bytes.len().min(at + pieces)))
            .collect();
        let mut scanner = Scanner::default();
        scanner.look_for_prompt();
        for piece in &held {
            scanner.push(piece).unwrap();
        }
        scanner.finish().unwrap();
        last(&held, &scanner.into_found().prompt.unwrap())
    }

    fn said(role: &str, content: impl Into<Value>) -> Value {
        json!({"role": role, "content": content.into()})
    }

    #[test]
    fn the_users_last_words() {
        let picture = json!({"type": "image_url", "image_url": {"url": "data:x", "text": "no"}});
        for (body, expected) in [
            (json!({"messages": [said("user", json!("hi"))]}), Some("hi")),
            (
                json!({"messages": [said("system", json!("be")), said("user", json!("a\n\"b\" \u{e9}")),
                       said("assistant", json!("x"))]}),
                Some("a\n\"b\" \u{e9}"),
            ),
            (
                json!({"messages": [said("user", json!([{"type": "text", "text": "one"}, picture,
                       {"type": "text", "text": "two"}]))]}),
                Some("one\ntwo"),
            ),
            (json!({"messages": [said("user", json!([picture]))]}), None),
            (json!({"messages": [said("user", json!("  "))]}), None),
            (json!({"messages": [said("assistant", json!("x"))]}), None),
            (json!({"messages": []}), None),
            (json!({"messages": 7}), None),
            (json!({"prompt": "text"}), Some("text")),
            (json!({"prompt": ["first", "second"]}), Some("first")),
            (json!({"prompt": [1, 2]}), None),
            (json!({"input": "of responses"}), Some("of responses")),
            (
                json!({"input": [said("user", json!([{"type": "input_text", "text": "r"}]))]}),
                Some("r"),
            ),
        ] {
            let body = body.to_string();
            for pieces in [1, 7, 4096] {
                assert_eq!(read(&body, pieces).as_deref(), expected, "{body}");
            }
        }
        // The role may stand behind the content, and beyond what is looked at.
        for length in [10, 40_000] {
            let long = "w ".repeat(length);
            let body = format!(r#"{{"messages":[{{"content":"{long}","role":"user"}}]}}"#);
            assert!(read(&body, 4096).unwrap().starts_with("w w w"));
        }
        // Of a long conversation the last eight messages are looked at.
        let mut long: Vec<Value> = (0..20).map(|_| said("assistant", json!("x"))).collect();
        long.push(said("user", json!("last")));
        long.push(said("tool", json!("result")));
        assert_eq!(
            read(&json!({"messages": long}).to_string(), 64).unwrap(),
            "last"
        );
    }

    proptest! {
        #[test]
        fn any_text_is_read_as_it_was_written_up_to_a_bound(text in "\\PC{1,200}", times in 1_usize..60) {
            let text = text.repeat(times);
            let body = json!({"messages": [{"role": "user", "content": &text}]}).to_string();
            let read = read(&body, 1000);
            match read {
                Some(read) => {
                    prop_assert!(text.starts_with(&read) && read.len() <= MOST_QUERY);
                    prop_assert!(read.len() + 16 > text.len().min(MOST_QUERY), "{}", read.len());
                }
                None => prop_assert!(text.trim_ascii().is_empty()),
            }
        }
    }
}
