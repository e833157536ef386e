//! An engine's event stream, turned into that of `/v1/infer` as it passes.
//!
//! Pure: pieces in, events out. What is kept is one event at most.

use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;

use super::answer::{MOST_CHOICES, Message, Raw, shaped};
use super::few::Few;
use crate::proxy::error::CUT_EVENT;

/// Bytes of one event of an engine at most.
const MOST: usize = 1 << 20;
/// The last event's data of an engine.
const DONE: &[u8] = b"[DONE]";
/// The last event of a stream that ended as it should.
const END: &[u8] = b"data: {\"delta\":\"[END_OF_STREAM]\"}\n\n";
/// What the client gets for a comment of the engine: it says that all is well.
const COMMENT: &[u8] = b":\n\n";
/// The end's marker as JSON writes it, and in two, when a model writes it.
const MARKER: &str = r#""[END_OF_STREAM]""#;
const HALVES: [&str; 2] = [r#""[END_OF""#, r#""_STREAM]""#];
/// Bytes of the marker at most, with each of its characters escaped.
const MOST_MARKER: usize = 2 + 6 * (MARKER.len() - 2);
/// The last event of a stream of which an event cannot be understood.
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

/// Why a stream ends before its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum Bad {
    /// An event that is longer than we hold.
    #[error("an event of more than {MOST} bytes")]
    TooLong,
    /// An event that is none of a completion.
    #[error("an event that cannot be understood")]
    Unreadable,
    /// The engine has said neither why there is no more, nor that there is none.
    #[error("it ended before it was done")]
    Unfinished,
}

impl Bad {
    /// The last event for the client.
    pub(super) fn event(self) -> &'static str {
        match self {
            Self::Unreadable => UNREADABLE,
            Self::TooLong | Self::Unfinished => CUT_EVENT,
        }
    }
}

#[derive(Debug, Deserialize)]
struct Chunk<'a> {
    #[serde(borrow)]
    choices: Option<Few<Choice<'a>, MOST_CHOICES>>,
    /// What kind of event it is: `"error"` is one.
    #[serde(borrow)]
    object: Raw<'a>,
    #[serde(borrow)]
    error: Raw<'a>,
    #[serde(borrow)]
    usage: Raw<'a>,
}

#[derive(Debug, Deserialize)]
struct Choice<'a> {
    index: Option<u32>,
    #[serde(borrow)]
    delta: Option<Message<'a>>,
    #[serde(borrow)]
    text: Raw<'a>,
    #[serde(borrow)]
    finish_reason: Raw<'a>,
}

impl Deltas {
    /// Takes a piece of the engine's stream, cut anywhere; adds to `out` what the
    /// client gets for it.
    ///
    /// # Errors
    /// An event that is too long, or that cannot be understood.
    pub(super) fn push(&mut self, mut piece: &[u8], out: &mut Vec<u8>) -> Result<(), Bad> {
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
    ///
    /// # Errors
    /// It has not ended as a stream should.
    pub(super) fn finish(&mut self, out: &mut Vec<u8>) -> Result<(), Bad> {
        // The empty line behind the last event may be missing; of other events that
        // may be all that there is, who knows what is missing?
        let line = std::mem::take(&mut self.line);
        let is_done = |line: &[u8]| {
            let data = line.strip_prefix(b"data:");
            data.is_some_and(|data| data.trim_ascii() == DONE)
        };
        if self.data == DONE || is_done(&line) {
            self.event(DONE, out)?;
        }
        match self.state {
            State::Told => {}
            State::Finished => {
                self.state = State::Told;
                out.extend_from_slice(END);
            }
            State::Going => return Err(Bad::Unfinished),
        }
        Ok(())
    }

    /// Whether the client was told of the end, or of an error.
    pub(super) fn is_told(&self) -> bool {
        self.state == State::Told
    }

    fn hold(&mut self, part: &[u8]) -> Result<(), Bad> {
        if self.line.len() + self.data.len() + part.len() > MOST {
            return Err(Bad::TooLong);
        }
        self.line.extend_from_slice(part);
        Ok(())
    }

    fn take_line(&mut self, line: &[u8], out: &mut Vec<u8>) -> Result<(), Bad> {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        if line.is_empty() {
            let data = std::mem::take(&mut self.data);
            let done = self.event(data.trim_ascii(), out);
            // Its room is used again.
            self.data = data;
            self.data.clear();
            return done;
        }
        if line.starts_with(b":") && !self.is_told() {
            out.extend_from_slice(COMMENT);
        }
        // Names and numbers of events tell nothing here.
        let Some(data) = line.strip_prefix(b"data:") else {
            return Ok(());
        };
        if self.data.len() + data.len() > MOST {
            return Err(Bad::TooLong);
        }
        if !self.data.is_empty() {
            self.data.push(b'\n');
        }
        self.data
            .extend_from_slice(data.strip_prefix(b" ").unwrap_or(data));
        Ok(())
    }

    fn event(&mut self, data: &[u8], out: &mut Vec<u8>) -> Result<(), Bad> {
        if data.is_empty() || self.is_told() {
            return Ok(());
        }
        if data == DONE {
            self.state = State::Told;
            out.extend_from_slice(END);
            return Ok(());
        }
        let text = std::str::from_utf8(data).map_err(|_| Bad::Unreadable)?;
        let chunk: Chunk<'_> = serde_json::from_str(text).map_err(|_| Bad::Unreadable)?;
        let is_error = chunk.object.is_some_and(|kind| kind.get() == r#""error""#);
        let error = chunk.error.map(RawValue::get);
        match error.or(is_error.then_some(text)) {
            Some(error) => self.error(error, out),
            None => self.chunk(&chunk, out),
        }
        Ok(())
    }

    /// The engine's own error, on one line.
    fn error(&mut self, error: &str, out: &mut Vec<u8>) {
        self.state = State::Told;
        let told: Option<Value> = serde_json::from_str(error).ok();
        let otherwise = || "The engine's stream ended with an error.".to_owned();
        let (_, error) = shaped(told.as_ref(), &"engine_error".into(), otherwise);
        out.extend_from_slice(format!("data: {{\"error\":{error}}}\n\n").as_bytes());
    }

    fn chunk(&mut self, chunk: &Chunk<'_>, out: &mut Vec<u8>) {
        let choices = chunk.choices.as_ref().map_or(&[][..], |few| &few.0);
        // Of several answers the client gets the first.
        let Some(choice) = choices
            .iter()
            .find(|one| one.index.is_none_or(|at| at == 0))
        else {
            if let (true, Some(usage)) = (choices.is_empty(), chunk.usage) {
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
        match content {
            Some(content) if is_marker(content) => {
                told(out, HALVES[0], &others);
                told(out, HALVES[1], &[]);
            }
            None if others.is_empty() => {}
            content => told(out, content.unwrap_or_default(), &others),
        }
        if choice.finish_reason.is_some() {
            self.state = State::Finished;
        }
    }
}

/// What the client gets for a stream that comes in pieces, and why it ended early.
#[cfg(any(test, feature = "fuzzing"))]
pub(in crate::proxy) fn in_pieces(pieces: &[&[u8]]) -> (Vec<u8>, String) {
    let (mut deltas, mut out) = (Deltas::default(), Vec::new());
    let mut pushed = pieces.iter().try_for_each(|piece| {
        let pushed = deltas.push(piece, &mut out);
        assert!(deltas.line.len() + deltas.data.len() <= MOST);
        pushed
    });
    if pushed.is_ok() {
        pushed = deltas.finish(&mut out);
    }
    (
        out,
        pushed.err().map_or_else(String::new, |bad| bad.to_string()),
    )
}

/// An event with a delta: JSON text, or nothing.
fn told(out: &mut Vec<u8>, delta: &str, others: &[(&str, &RawValue)]) {
    let delta = if delta.is_empty() { "\"\"" } else { delta };
    out.extend_from_slice(b"data: {\"delta\":");
    on_one_line(out, delta);
    for (key, value) in others {
        out.push(b',');
        out.extend_from_slice(format!("\"{key}\":").as_bytes());
        on_one_line(out, value.get());
    }
    out.extend_from_slice(b"}\n\n");
}

/// Whether a model wrote what ends our streams: that must be told apart.
fn is_marker(content: &str) -> bool {
    let is_close = (MARKER.len()..=MOST_MARKER).contains(&content.len());
    let escaped = || serde_json::from_str::<String>(content);
    let is_it = |text: String| text == MARKER[1..MARKER.len() - 1];
    content == MARKER || is_close && content.contains('\\') && escaped().is_ok_and(is_it)
}

/// JSON as it is written, unless that takes several lines: a line's end would be
/// the event's.
fn on_one_line(out: &mut Vec<u8>, json: &str) {
    if json.contains(['\n', '\r']) {
        let value: Value = serde_json::from_str(json).unwrap_or_default();
        out.extend_from_slice(value.to_string().as_bytes());
    } else {
        out.extend_from_slice(json.as_bytes());
    }
}

#[cfg(test)]
mod tests;
