//! What an engine answered, as the client of `/v1/infer` gets it.
//!
//! Pure. Values stay as the engine wrote them.

use std::fmt::Write as _;
use std::time::Duration;

use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;

use super::fault::{InferError, cut};
use super::few::Few;
use super::request::{Mode, quoted};

/// Choices of an answer at most; the client gets the first.
pub(super) const MOST_CHOICES: usize = 256;
/// Vectors of an answer at most.
const MOST_VECTORS: usize = 1 << 16;

/// What the client is told beside the data.
#[derive(Debug)]
pub(super) struct Envelope<'a> {
    /// The model as it was asked for, or the block that was selected.
    pub(super) model: &'a str,
    /// Whose request it is.
    pub(super) session: &'a str,
    /// Which of them.
    pub(super) seq_no: u64,
    /// Now, since 1970.
    pub(super) ts: Duration,
    /// What of the request had no effect.
    pub(super) warnings: &'a [String],
}

impl Envelope<'_> {
    /// The whole answer.
    ///
    /// # Errors
    /// That the engine's answer is none.
    pub(super) fn whole(&self, mode: Mode, answer: &[u8]) -> Result<String, InferError> {
        let text = std::str::from_utf8(answer).map_err(|error| InferError::no_answer(&error))?;
        let data = match mode {
            Mode::Chat => chat(&read(text)?),
            Mode::Generate => generated(&read(text)?),
            Mode::Tokens => tokens(&read(text)?),
            Mode::Embed => embedding(&read(text)?),
        };
        let data = data.ok_or_else(|| {
            let what = match mode {
                Mode::Chat | Mode::Generate => "it has no choice",
                Mode::Tokens => "it has no tokens",
                Mode::Embed => "it has no embedding",
            };
            InferError::Answer(what.to_owned())
        })?;
        let [model, session] = [self.model, self.session].map(quoted);
        let (seq_no, ts) = (self.seq_no, self.ts.as_secs_f64());
        let mut whole = format!(
            r#"{{"model":{model},"session_id":{session},"seq_no":{seq_no},"ts":{ts:.6},"data":{data}"#
        );
        if !self.warnings.is_empty() {
            let _ = write!(whole, r#","warnings":{}"#, Value::from(self.warnings));
        }
        whole.push('}');
        Ok(whole)
    }
}

fn read<'a, T: Deserialize<'a>>(text: &'a str) -> Result<T, InferError> {
    serde_json::from_str(text).map_err(|error| InferError::no_answer(&error))
}

/// A piece of JSON that the engine wrote; `null` is none.
pub(super) type Raw<'a> = Option<&'a RawValue>;

/// An answer of `/v1/chat/completions` or `/v1/completions`.
#[derive(Debug, Deserialize)]
struct Completion<'a> {
    #[serde(borrow)]
    choices: Option<Few<Choice<'a>, MOST_CHOICES>>,
    #[serde(borrow)]
    usage: Raw<'a>,
}

#[derive(Debug, Deserialize)]
struct Choice<'a> {
    #[serde(borrow)]
    message: Option<Message<'a>>,
    #[serde(borrow)]
    text: Raw<'a>,
    #[serde(borrow)]
    finish_reason: Raw<'a>,
}

/// What is said, or a piece of it.
#[derive(Debug, Deserialize)]
pub(super) struct Message<'a> {
    #[serde(borrow)]
    pub(super) content: Raw<'a>,
    #[serde(borrow)]
    pub(super) reasoning: Raw<'a>,
    #[serde(borrow)]
    pub(super) reasoning_content: Raw<'a>,
    #[serde(borrow)]
    pub(super) tool_calls: Raw<'a>,
}

#[derive(Debug, Deserialize)]
struct Tokenized<'a> {
    #[serde(borrow)]
    tokens: Raw<'a>,
    #[serde(borrow)]
    count: Raw<'a>,
}

#[derive(Debug, Deserialize)]
struct Embeddings<'a> {
    #[serde(borrow)]
    data: Option<Few<Embedding<'a>, MOST_VECTORS>>,
    #[serde(borrow)]
    usage: Raw<'a>,
}

#[derive(Debug, Deserialize)]
struct Embedding<'a> {
    index: Option<usize>,
    #[serde(borrow)]
    embedding: Raw<'a>,
}

/// An object of a first value, and of those that there are of the others.
fn object(first: (&str, &str), others: &[(&str, Raw<'_>)]) -> String {
    let mut text = format!("{{\"{}\":{}", first.0, first.1);
    for (key, value) in others {
        if let Some(value) = value {
            let _ = write!(text, ",\"{key}\":{}", value.get());
        }
    }
    text.push('}');
    text
}

fn chat(answer: &Completion<'_>) -> Option<String> {
    let choice = answer.choices.as_ref()?.0.first()?;
    let message = choice.message.as_ref()?;
    // A message that only calls tools has no text.
    let reply = message.content.map_or("\"\"", RawValue::get);
    Some(object(
        ("reply", reply),
        &[
            ("reasoning", message.reasoning.or(message.reasoning_content)),
            ("tool_calls", message.tool_calls),
            ("finish_reason", choice.finish_reason),
            ("usage", answer.usage),
        ],
    ))
}

fn generated(answer: &Completion<'_>) -> Option<String> {
    let choice = answer.choices.as_ref()?.0.first()?;
    Some(object(
        ("generated", choice.text?.get()),
        &[
            ("finish_reason", choice.finish_reason),
            ("usage", answer.usage),
        ],
    ))
}

fn tokens(answer: &Tokenized<'_>) -> Option<String> {
    Some(object(
        ("tokens", answer.tokens?.get()),
        &[("count", answer.count)],
    ))
}

/// One text's vector; of several texts a list of theirs.
fn embedding(answer: &Embeddings<'_>) -> Option<String> {
    let mut all: Vec<&Embedding<'_>> = answer.data.as_ref()?.0.iter().collect();
    all.sort_by_key(|one| one.index.unwrap_or_default());
    let vectors: Option<Vec<&str>> = all
        .iter()
        .map(|one| one.embedding.map(RawValue::get))
        .collect();
    let vectors = vectors?;
    let list;
    let value = match vectors.as_slice() {
        [] => return None,
        [one] => *one,
        several => {
            list = format!("[{}]", several.join(","));
            &list
        }
    };
    Some(object(("embedding", value), &[("usage", answer.usage)]))
}

/// An engine's own error in the shape of this path's errors.
pub(super) fn error(status: u16, answer: &[u8]) -> String {
    let parsed: Option<Value> = serde_json::from_slice(answer).ok();
    let told = parsed
        .as_ref()
        .map(|whole| whole.get("error").unwrap_or(whole));
    let code = Value::from(status);
    let otherwise = || format!("The engine answered with status {status}.");
    let (message, error) = shaped(told, &code, otherwise);
    let message = quoted(&message);
    format!(r#"{{"success":false,"message":{message},"error":{error}}}"#)
}

/// What an engine says of an error: its own object if that has the shape of one,
/// else one of ours with what it says, or `otherwise`.
pub(super) fn shaped(
    told: Option<&Value>,
    code: &Value,
    otherwise: impl FnOnce() -> String,
) -> (String, Value) {
    let message = told.and_then(|told| told.get("message"));
    if let (Some(told), Some(Value::String(message))) = (told, message) {
        return (message.clone(), told.clone());
    }
    let said = told.and_then(|told| match told {
        Value::Object(told) => told.get("detail").or_else(|| told.get("message")),
        Value::String(_) => Some(told),
        _ => None,
    });
    let message = match said {
        Some(Value::String(text)) => cut(text.clone()),
        Some(Value::Null) | None => otherwise(),
        Some(said) => cut(said.to_string()),
    };
    let error = serde_json::json!({
        "message": message, "type": "upstream_error", "param": null, "code": code,
    });
    (message, error)
}

#[cfg(test)]
mod tests;
