//! How a prompt begins: the hashes of its beginnings, some short, some long, so
//! that two prompts that begin alike have hashes in common.
//!
//! The bytes are taken as they stand in the body, from the opening of
//! `messages`, `prompt` or `input` on: text, token ids, conversations and
//! pictures alike, and nothing is decoded. What the model reads before it
//! (`system`, `instructions`, `tools`) goes into every hash. Hashes are taken
//! after each cell of 128 bytes (the reference router's granularity) for the
//! first KiB, at ever longer steps after it, and after the last few messages: a
//! conversation's next turn begins with all of this one.

use bytes::Bytes;

use super::peek::PromptAt;
use crate::fleet::ring::{hash, mix};
use crate::policy::memory::{Fingerprint, Turn};

/// Bytes of one cell.
const CELL: usize = 128;
/// The same, to count with.
const CELL_BYTES: u32 = 128;
/// Cells that have a hash each; beyond them two for each doubling.
const EACH: u32 = 8;
/// Shorter beginnings have none: they would be the same for too many.
const LEAST: u64 = 64;

/// The fingerprints of the prompt that stands there in the pieces of a body,
/// shortest first.
pub(super) fn of(held: &[Bytes], prompt: &PromptAt) -> Vec<Fingerprint> {
    let Some((start, end)) = prompt.main else {
        return Vec::new();
    };
    let mut chain = Chain::default();
    for (start, end) in prompt.context.iter().flatten() {
        let nothing = &mut Vec::new();
        chain.feed(held, *start, end.unwrap_or(u64::MAX), nothing);
        chain.close();
    }
    chain.bytes = 0;
    let mut prints = Vec::with_capacity(40);
    let mut ends = prompt.ends;
    let ends = &mut ends[..prompt.elements.min(PromptAt::ENDS)];
    ends.sort_unstable();
    let mut from = start;
    for end in ends {
        chain.feed(held, from, *end, &mut prints);
        from = *end;
        if chain.bytes >= LEAST {
            prints.push(chain.so_far());
        }
    }
    chain.feed(held, from, end.unwrap_or(u64::MAX), &mut prints);
    prints
}

/// The beginning of a conversation up to the first message of its user: the same for
/// all its turns, and for no other conversation.
pub(super) fn root(held: &[Bytes], prompt: &PromptAt) -> Option<(Fingerprint, Turn)> {
    let (start, _) = prompt.main?;
    let [first, second] = prompt.first;
    let end = match (prompt.elements, is_system(held, start, first)) {
        (0, _) | (1, true) => return None,
        (_, false) => first,
        (_, true) => second,
    };
    let mut chain = Chain::default();
    chain.feed(held, start, end, &mut Vec::new());
    let turn = match prompt.elements {
        1 => Turn::First,
        2 if end == second => Turn::First,
        // An answer that is begun for the engine, or no conversation at all.
        2 => Turn::Later(u32::MAX),
        // The one before ended with the last but two: an answer came, and a
        // question, or a call and its result.
        count => {
            let before = prompt.ends[(count - 3) % PromptAt::ENDS].saturating_sub(start);
            Turn::Later(u32::try_from(before).unwrap_or(u32::MAX))
        }
    };
    Some((chain.so_far(), turn))
}

/// Whether the first message of a conversation, up to `end`, is not its user's.
fn is_system(held: &[Bytes], start: u64, end: u64) -> bool {
    // Its role stands first or last; within the text its quotes are escaped.
    const NEAR: u64 = 64;
    let first = between(held, start, end.min(start + NEAR));
    let last = between(held, start.max(end.saturating_sub(NEAR)), end);
    [first, last].iter().any(|part| {
        let role = memchr::memmem::find(part, b"\"role\"");
        role.is_some_and(|at| {
            let value = part[at + 6..].trim_ascii_start();
            let value = value.strip_prefix(b":").unwrap_or(value).trim_ascii_start();
            value.starts_with(b"\"system\"") || value.starts_with(b"\"developer\"")
        })
    })
}

/// The few bytes between two positions of a body.
pub(super) fn between(held: &[Bytes], from: u64, to: u64) -> Vec<u8> {
    let mut found = Vec::with_capacity(64);
    each(held, from, to, |part| found.extend_from_slice(part));
    found
}

/// Every piece's part of what stands between two positions of a body.
fn each(held: &[Bytes], from: u64, to: u64, mut take: impl FnMut(&[u8])) {
    let mut at = 0;
    for piece in held {
        let end = at + piece.len() as u64;
        let (first, last) = (from.max(at), to.min(end));
        if first < last {
            let offset = |position: u64| usize::try_from(position - at).unwrap_or(usize::MAX);
            take(&piece[offset(first)..offset(last)]);
        }
        at = end;
    }
}

/// A hash of all bytes so far, that does not depend on how they came in pieces.
struct Chain {
    state: u64,
    cell: [u8; CELL],
    filled: usize,
    cells: u32,
    bytes: u64,
}

impl Default for Chain {
    fn default() -> Self {
        Self {
            state: 0,
            cell: [0; CELL],
            filled: 0,
            cells: 0,
            bytes: 0,
        }
    }
}

impl Chain {
    /// Takes in what stands between two positions of the body.
    fn feed(&mut self, held: &[Bytes], from: u64, to: u64, prints: &mut Vec<Fingerprint>) {
        each(held, from, to, |part| self.push(part, prints));
    }

    fn push(&mut self, mut data: &[u8], prints: &mut Vec<Fingerprint>) {
        self.bytes += data.len() as u64;
        while !data.is_empty() {
            let (now, rest) = data.split_at(data.len().min(CELL - self.filled));
            self.cell[self.filled..][..now.len()].copy_from_slice(now);
            self.filled += now.len();
            data = rest;
            if self.filled == CELL {
                self.state = mix(self.state, hash(&self.cell));
                self.filled = 0;
                self.cells += 1;
                if is_marked(self.cells) {
                    prints.push(Fingerprint {
                        hash: self.state,
                        bytes: self.cells.saturating_mul(CELL_BYTES),
                    });
                }
            }
        }
    }

    /// Of all bytes so far, within a cell too.
    fn so_far(&self) -> Fingerprint {
        let part = hash(&self.cell[..self.filled]);
        Fingerprint {
            hash: mix(self.state, part ^ 1),
            bytes: u32::try_from(self.bytes).unwrap_or(u32::MAX),
        }
    }

    /// Ends a part: what follows begins a cell of its own.
    fn close(&mut self) {
        self.state = self.so_far().hash;
        self.filled = 0;
        self.cells = 0;
    }
}

/// Whether a hash is taken after so many cells.
fn is_marked(cells: u32) -> bool {
    cells <= EACH
        || cells.is_power_of_two()
        || (cells.is_multiple_of(3) && (cells / 3).is_power_of_two())
}

#[cfg(test)]
mod tests {
    use super::super::peek::Scanner;
    use super::*;
    use proptest::prelude::*;

    fn prints(body: &str, pieces: usize) -> Vec<Fingerprint> {
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
        of(&held, &scanner.into_found().prompt.unwrap())
    }

    fn chat(messages: &[&str]) -> String {
        let messages = messages
            .iter()
            .map(|text| serde_json::json!({"role": "user", "content": text}));
        let messages: Vec<_> = messages.collect();
        serde_json::json!({"messages": messages, "model": "m"}).to_string()
    }

    /// Bytes of the longest beginning that two prompts share.
    fn shared(a: &[Fingerprint], b: &[Fingerprint]) -> u32 {
        let common = a.iter().filter(|print| b.contains(print));
        common.map(|print| print.bytes).max().unwrap_or(0)
    }

    #[test]
    fn a_conversations_next_turn_begins_with_all_of_this_one() {
        let (first, answer, second) = ("a".repeat(700), "b".repeat(90), "c".repeat(3000));
        let before = prints(&chat(&[&first]), 4096);
        let after = prints(&chat(&[&first, &answer, &second]), 4096);
        // `[{"content":"...","role":"user"}`, to the end of the message.
        assert_eq!(shared(&before, &after), 700 + 29);
        let other = prints(&chat(&["x".repeat(700).as_str()]), 4096);
        assert_eq!(shared(&before, &other), 0);
    }

    #[test]
    fn a_conversation_has_one_root_in_all_its_turns() {
        for order in 0..2 {
            let root = |messages: &[(&str, &str)]| {
                let messages: Vec<String> = messages
                    .iter()
                    .map(|(role, text)| match order {
                        0 => format!(r#"{{"role": "{role}", "content": "{text}"}}"#),
                        _ => format!(r#"{{"content": "{text}", "role": "{role}"}}"#),
                    })
                    .collect();
                let body = format!(r#"{{"messages": [{}]}}"#, messages.join(", "));
                let mut scanner = Scanner::default();
                scanner.look_for_prompt();
                scanner.push(body.as_bytes()).unwrap();
                let held: Vec<Bytes> = body
                    .as_bytes()
                    .chunks(7)
                    .map(Bytes::copy_from_slice)
                    .collect();
                let root = super::root(&held, &scanner.into_found().prompt.unwrap());
                if let Some((_, turn)) = root {
                    let is_later = body.contains("assistant");
                    assert_eq!(
                        turn != Turn::First,
                        is_later || messages.len() == 2 && !body.contains("system")
                    );
                    if let Turn::Later(before @ ..1000) = turn {
                        let ends = body
                            .find(", {\"role\": \"assistant")
                            .or(body.find(", {\"content\": \"hi"));
                        assert_eq!(
                            u64::from(before),
                            (ends.unwrap() - body.find('[').unwrap()) as u64
                        );
                    }
                }
                root.map(|(print, _)| print)
            };
            let (system, user) = (
                (
                    "system",
                    "be kind, and say no \\\"role\\\": \\\"user\\\" to anyone; be kind, and be brief, and be gone",
                ),
                ("user", "hello"),
            );
            let (answer, next) = (("assistant", "hi"), ("user", "more"));
            assert!(root(&[user, answer]).is_some() && root(&[user, next]).is_some());
            let first = root(&[system, user]);
            assert!(first.is_some());
            assert_eq!(first, root(&[system, user, answer, next]));
            assert_ne!(first, root(&[system, ("user", "hallo")]));
            assert_eq!(root(&[user]), root(&[user, answer, next]));
            assert_eq!(root(&[system]), None);
            assert_eq!(root(&[]), None);
        }
    }

    #[test]
    fn every_kind_of_prompt_has_fingerprints() {
        let text = "y".repeat(1000);
        let ids = vec!["12345"; 300].join(",");
        for (body, count) in [
            (format!(r#"{{"prompt":"{text}"}}"#), 7),
            (format!(r#"{{"prompt":["{text}","z"]}}"#), 7),
            (format!(r#"{{"prompt":[{ids}]}}"#), 9),
            (format!(r#"{{"input":"{text}","instructions":"i"}}"#), 7),
            (
                format!(
                    r#"{{"messages":[{{"role":"user","content":[{{"type":"image_url","image_url":{{"url":"data:{text}"}}}}]}}]}}"#
                ),
                9,
            ),
            (r#"{"input":"short"}"#.to_owned(), 0),
            (r#"{"x":1}"#.to_owned(), 0),
        ] {
            assert_eq!(prints(&body, 4096).len(), count, "{body}");
        }
    }

    #[test]
    fn what_stands_before_the_prompt_is_a_part_of_it() {
        let text = "y".repeat(300);
        let with = |system: &str| format!(r#"{{"system":"{system}","messages":["{text}"]}}"#);
        let after = |system: &str| format!(r#"{{"messages":["{text}"],"system":"{system}"}}"#);
        let [a, b] = ["one", "two"].map(|system| prints(&with(system), 99));
        assert_eq!(shared(&a, &b), 0);
        assert_eq!(prints(&after("one"), 99), a, "wherever it stands");
    }

    #[test]
    fn a_long_prompt_has_few() {
        let prints = prints(&format!(r#"{{"prompt":"{}"}}"#, "x".repeat(4 << 20)), 65536);
        assert!(prints.len() <= 40, "{}", prints.len());
        assert!(prints.windows(2).all(|pair| pair[0].bytes < pair[1].bytes));
        assert!(prints.last().unwrap().bytes > 3 << 20);
    }

    proptest! {
        #[test]
        fn pieces_make_no_difference(
            messages in prop::collection::vec("[a-z\"\\\\ ü]{0,400}", 1..12),
            size in 1..700usize,
        ) {
            let texts: Vec<&str> = messages.iter().map(String::as_str).collect();
            let body = chat(&texts);
            prop_assert_eq!(prints(&body, size), prints(&body, body.len()));
        }
    }
}
