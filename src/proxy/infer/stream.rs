//! An engine's event stream, turned into that of `/v1/infer` as it passes.
//!
//! Pure: pieces in, events out. What is kept is one event at most.

use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;

use super::answer::Raw;
use crate::proxy::error::CUT_EVENT;

/// Bytes of one event of an engine at most.
const MOST: usize = 1 << 20;
/// The last event of a stream that ended as it should.
const END: &[u8] = b"data: {\"delta\":\"[END_OF_STREAM]\"}\n\n";
/// The last event of a stream of which an event is no JSON.
const UNREADABLE: &str = concat!(
    r#"data: {"error":{"message":"The engine's stream cannot be understood.","#,
    r#""type":"upstream_error","param":null,"code":"engine_error"}}"#,
    "\n\n"
);

/// A stream under way.
#[derive(Debug, Default)]
pub(super) struct Deltas {
    /// A line that has not ended.
    line: Vec<u8>,
    /// The data of an event that has not ended.
    data: Vec<u8>,
    state: State,
}

/// How far a stream has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum State {
    /// There is more.
    #[default]
    Going,
    /// The engine has said why there is no more.
    Finished,
    /// The client was told of the end, or of an error: there is nothing to add.
    Told,
}

/// An event that is longer than we hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("an event of more than {MOST} bytes")]
pub(super) struct TooLong;

#[derive(Debug, Deserialize)]
struct Chunk<'a> {
    #[serde(borrow, default)]
    choices: Vec<Choice<'a>>,
    #[serde(borrow)]
    error: Raw<'a>,
    #[serde(borrow)]
    usage: Raw<'a>,
}

#[derive(Debug, Deserialize)]
struct Choice<'a> {
    #[serde(default)]
    index: u32,
    #[serde(borrow)]
    delta: Option<Delta<'a>>,
    #[serde(borrow)]
    text: Raw<'a>,
    #[serde(borrow)]
    finish_reason: Raw<'a>,
}

#[derive(Debug, Deserialize)]
struct Delta<'a> {
    #[serde(borrow)]
    content: Raw<'a>,
    #[serde(borrow)]
    reasoning: Raw<'a>,
    #[serde(borrow)]
    reasoning_content: Raw<'a>,
    #[serde(borrow)]
    tool_calls: Raw<'a>,
}

impl Deltas {
    /// Takes a piece of the engine's stream, cut anywhere; adds to `out` what the
    /// client gets for it.
    ///
    /// # Errors
    /// An event that is too long.
    pub(super) fn push(&mut self, mut piece: &[u8], out: &mut Vec<u8>) -> Result<(), TooLong> {
        while let Some(at) = memchr::memchr(b'\n', piece) {
            let (line, rest) = (&piece[..at], &piece[at + 1..]);
            if self.line.is_empty() {
                self.take_line(line, out)?;
            } else {
                self.hold(line)?;
                let mut whole = std::mem::take(&mut self.line);
                self.take_line(&whole, out)?;
                whole.clear();
                self.line = whole;
            }
            piece = rest;
        }
        self.hold(piece)
    }

    /// The engine's stream has ended as its framing says.
    pub(super) fn finish(&mut self, out: &mut Vec<u8>) {
        match std::mem::replace(&mut self.state, State::Told) {
            State::Told => {}
            State::Finished => out.extend_from_slice(END),
            State::Going => out.extend_from_slice(CUT_EVENT.as_bytes()),
        }
    }

    /// Whether the client was told of the end, or of an error.
    pub(super) fn is_told(&self) -> bool {
        self.state == State::Told
    }

    fn hold(&mut self, part: &[u8]) -> Result<(), TooLong> {
        if self.line.len() + self.data.len() + part.len() > MOST {
            return Err(TooLong);
        }
        self.line.extend_from_slice(part);
        Ok(())
    }

    fn take_line(&mut self, line: &[u8], out: &mut Vec<u8>) -> Result<(), TooLong> {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        if line.is_empty() {
            let data = std::mem::take(&mut self.data);
            self.event(data.trim_ascii(), out);
            // Its room is used again.
            self.data = data;
            self.data.clear();
            return Ok(());
        }
        // Comments, names and numbers of events tell nothing here.
        let Some(data) = line.strip_prefix(b"data:") else {
            return Ok(());
        };
        if self.data.len() + data.len() > MOST {
            return Err(TooLong);
        }
        if !self.data.is_empty() {
            self.data.push(b'\n');
        }
        self.data
            .extend_from_slice(data.strip_prefix(b" ").unwrap_or(data));
        Ok(())
    }

    fn event(&mut self, data: &[u8], out: &mut Vec<u8>) {
        if data.is_empty() || self.is_told() {
            return;
        }
        if data == b"[DONE]" {
            self.state = State::Told;
            out.extend_from_slice(END);
            return;
        }
        let chunk: Option<Chunk<'_>> = std::str::from_utf8(data)
            .ok()
            .and_then(|text| serde_json::from_str(text).ok());
        match chunk {
            Some(chunk) => self.chunk(&chunk, out),
            None => {
                self.state = State::Told;
                out.extend_from_slice(UNREADABLE.as_bytes());
            }
        }
    }

    fn chunk(&mut self, chunk: &Chunk<'_>, out: &mut Vec<u8>) {
        if let Some(error) = chunk.error {
            self.state = State::Told;
            give(out, &[("error", error)]);
            return;
        }
        // Of several answers the client gets the first.
        let Some(choice) = chunk.choices.iter().find(|choice| choice.index == 0) else {
            if let (true, Some(usage)) = (chunk.choices.is_empty(), chunk.usage) {
                told(out, "", &[("usage", usage)]);
            }
            return;
        };
        let delta = choice.delta.as_ref();
        let content = delta.map_or(choice.text, |delta| delta.content);
        let content = content.map(RawValue::get).filter(|text| *text != "\"\"");
        let mut others = Vec::new();
        if let Some(delta) = delta {
            // One name is the older; some engines write both.
            let reasoning = delta.reasoning.or(delta.reasoning_content);
            let reasoning = reasoning.filter(|text| text.get() != "\"\"");
            others.extend(reasoning.map(|value| ("reasoning", value)));
            others.extend(delta.tool_calls.map(|value| ("tool_calls", value)));
        }
        if content.is_some() || !others.is_empty() {
            told(out, content.unwrap_or_default(), &others);
        }
        if choice.finish_reason.is_some() {
            self.state = State::Finished;
        }
    }
}

/// An event with a delta: JSON text, or nothing.
fn told(out: &mut Vec<u8>, delta: &str, others: &[(&str, &RawValue)]) {
    let delta = if delta.is_empty() { "\"\"" } else { delta };
    out.extend_from_slice(b"data: {\"delta\":");
    out.extend_from_slice(delta.as_bytes());
    for (key, value) in others {
        out.push(b',');
        pair(out, key, value);
    }
    out.extend_from_slice(b"}\n\n");
}

fn give(out: &mut Vec<u8>, pairs: &[(&str, &RawValue)]) {
    out.extend_from_slice(b"data: {");
    pairs.iter().for_each(|(key, value)| pair(out, key, value));
    out.extend_from_slice(b"}\n\n");
}

fn pair(out: &mut Vec<u8>, key: &str, value: &RawValue) {
    out.extend_from_slice(format!("\"{key}\":").as_bytes());
    let text = value.get();
    if text.contains(['\n', '\r']) {
        // A line's end would be the event's.
        let value: Value = serde_json::from_str(text).unwrap_or_default();
        out.extend_from_slice(value.to_string().as_bytes());
    } else {
        out.extend_from_slice(text.as_bytes());
    }
}

#[cfg(test)]
mod tests;
