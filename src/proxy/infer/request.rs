//! What `/v1/infer` is asked, and as what an engine is asked it.
//!
//! Pure. Values that are passed on stay as they are written.

use http::uri::PathAndQuery;
use serde_json::value::RawValue;

use super::fault::InferError;
use super::fields::{Fields, kind};
use super::values::{flag, is_empty, missing, object, seen, text_of, unknown, wrong};
use crate::config::problem::nearest;

/// Bytes of a model's name at most.
const MOST_MODEL: usize = 1024;
/// Bytes of a session's id at most.
const MOST_SESSION: usize = 256;
/// What of a request has no effect is told so often at most.
const MOST_WARNINGS: usize = 16;

/// A request as it was read.
#[derive(Debug)]
pub(super) struct Request<'a> {
    /// A block or a model; `None`: whichever is the best.
    pub(super) model: Option<String>,
    /// Whose request it is.
    pub(super) session: String,
    /// Which of them.
    pub(super) seq_no: u64,
    /// By what a block is selected.
    pub(super) selection: Option<&'a RawValue>,
    /// What is to be done.
    pub(super) job: Job<'a>,
    /// What of it has no effect.
    pub(super) warnings: Vec<String>,
}

/// What an engine is to do.
#[derive(Debug)]
pub(super) struct Job<'a> {
    /// Which of its APIs is asked.
    pub(super) mode: Mode,
    /// Whether it is to answer piece by piece.
    pub(super) stream: bool,
    /// Keys of the body that the engine gets, each with a comma before it.
    input: String,
    params: Vec<(String, &'a RawValue)>,
}

/// The kinds of work.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mode {
    /// An answer to messages.
    Chat,
    /// A text that goes on.
    Generate,
    /// A text's tokens.
    Tokens,
    /// A text's vector.
    Embed,
}

impl Mode {
    /// All modes, as they are written.
    pub(super) const ALL: [(Self, &'static str); 4] = [
        (Self::Chat, "chat"),
        (Self::Generate, "generate"),
        (Self::Tokens, "tokens"),
        (Self::Embed, "embed"),
    ];

    /// The engine's API.
    pub(super) fn path(self) -> PathAndQuery {
        PathAndQuery::from_static(match self {
            Self::Chat => "/v1/chat/completions",
            Self::Generate => "/v1/completions",
            Self::Tokens => "/tokenize",
            Self::Embed => "/v1/embeddings",
        })
    }

    fn named(name: &str) -> Result<Self, InferError> {
        let known = Self::ALL.iter().find(|(_, known)| *known == name);
        known.map(|(mode, _)| *mode).ok_or_else(|| {
            let names = Self::ALL.map(|(_, name)| name);
            let hint = nearest(name, names);
            let hint = hint.map_or(String::new(), |near| format!("; did you mean {near:?}?"));
            let known = names.join(", ");
            let name: String = name.chars().take(64).collect();
            wrong("/data/mode", format!("{name:?} is none of {known}{hint}"))
        })
    }

    /// That of data that names none.
    fn of(data: &Fields<'_>) -> Result<Self, InferError> {
        let has = |key: &str| data.get(key).is_some();
        if has("message") || has("messages") {
            Ok(Self::Chat)
        } else if has("prompt") {
            Ok(Self::Generate)
        } else if has("text") {
            Ok(Self::Embed)
        } else {
            let message = "expected `message`, `messages`, `prompt` or `text`";
            Err(wrong("/data", message))
        }
    }
}

/// Keys that have a meaning; all others have none.
const KEYS: [&str; 8] = [
    "model",
    "session_id",
    "seq_no",
    "data",
    "graph",
    "selection_query",
    "stream",
    "ts",
];
const DATA_KEYS: [&str; 9] = [
    "mode",
    "message",
    "messages",
    "prompt",
    "text",
    "system_message",
    "gen_params",
    "stream",
    "session_id",
];
/// What `gen_params` must not have, and what says it instead.
const RESERVED: [(&str, &str); 7] = [
    ("model", "`model` of the request"),
    ("messages", "`messages` of data"),
    ("prompt", "`prompt` of data"),
    ("content", "`text` of data"),
    ("input", "`text` of data"),
    ("stream", "`stream` of the request"),
    ("selection_query", "`selection_query` of the request"),
];

/// Reads a request.
///
/// # Errors
/// What is wrong with it, and where.
pub(super) fn read(text: &str) -> Result<Request<'_>, InferError> {
    let fields = Fields::read(text).map_err(|error| InferError::no_json(&error))?;
    let session = text_of(&fields, "session_id")?;
    let session = session.ok_or_else(|| missing("session_id", "text"))?;
    if session.is_empty() || session.len() > MOST_SESSION {
        let message = format!("expected text of 1 to {MOST_SESSION} bytes");
        return Err(InferError::wrong("session_id", "/session_id", message));
    }
    let seq_no = fields.get("seq_no");
    let seq_no = seq_no.ok_or_else(|| missing("seq_no", "a whole number"))?;
    let seq_no = serde_json::from_str(seq_no.get()).map_err(|_| {
        let message = format!("expected a whole number, 0 or more, not {}", seen(seq_no));
        InferError::wrong("seq_no", "/seq_no", message)
    })?;
    check_graph(fields.get("graph"))?;
    let selection = fields
        .get("selection_query")
        .filter(|of| !is_empty(of, '{', '}'));
    let model = text_of(&fields, "model")?;
    let model = model.filter(|model| !matches!(model.as_str(), "" | "auto"));
    if model.as_ref().is_some_and(|model| model.len() > MOST_MODEL) {
        let message = format!("expected text of {MOST_MODEL} bytes at most");
        return Err(InferError::wrong("model", "/model", message));
    }
    let data = fields
        .get("data")
        .ok_or_else(|| missing("data", "an object"))?;
    let of_data = object(data, "/data")?;
    let stream = flag(&fields, "stream", "")?.or(flag(&of_data, "stream", "/data")?);
    let mut warnings = unknown(&fields, &KEYS, "");
    warnings.extend(unknown(&of_data, &DATA_KEYS, "/data"));
    warnings.truncate(MOST_WARNINGS);
    Ok(Request {
        job: Job::read(&of_data, stream.unwrap_or(false), &mut warnings)?,
        model,
        session,
        seq_no,
        selection,
        warnings,
    })
}

impl<'a> Job<'a> {
    fn read(
        data: &Fields<'a>,
        stream: bool,
        warnings: &mut Vec<String>,
    ) -> Result<Self, InferError> {
        let mode = match text_of(data, "mode")? {
            Some(name) => Mode::named(&name)?,
            None => Mode::of(data)?,
        };
        if stream && matches!(mode, Mode::Tokens | Mode::Embed) {
            let message = "only chat and generate can be streamed";
            return Err(InferError::wrong("stream", "/stream", message));
        }
        if mode != Mode::Chat && data.get("system_message").is_some() {
            warnings.push("/data/system_message has no effect in this mode".to_owned());
        }
        let input = match mode {
            Mode::Chat => messages(data)?,
            Mode::Generate => {
                let text = first(data, &["prompt", "message", "text"])?;
                format!(",\"prompt\":{}", text.get())
            }
            Mode::Tokens if data.get("messages").is_some() => messages(data)?,
            Mode::Tokens => {
                let text = first(data, &["text", "prompt", "message"])?.get();
                // vLLM reads the one, llama.cpp the other; neither minds both.
                format!(",\"prompt\":{text},\"content\":{text}")
            }
            Mode::Embed => {
                let text = first(data, &["text", "prompt", "message"])?;
                format!(",\"input\":{}", text.get())
            }
        };
        let params = match data.get("gen_params") {
            None => Vec::new(),
            Some(params) => {
                let at = "/data/gen_params";
                let params = object(params, at)?;
                let mut keys = params.0.iter();
                let reserved = keys.find_map(|(key, _)| {
                    let reserved = RESERVED.iter().find(|(name, _)| name == key);
                    reserved.map(|(name, instead)| (*name, *instead))
                });
                if let Some((key, instead)) = reserved {
                    let message = format!("not here: {instead} says it");
                    return Err(wrong(format!("{at}/{key}"), message));
                }
                params.0
            }
        };
        Ok(Self {
            mode,
            stream,
            input,
            params,
        })
    }

    /// The body for the engine, with that name of a model, and what selects one.
    pub(super) fn body(&self, model: &str, selection: Option<&RawValue>) -> String {
        let params: usize = self
            .params
            .iter()
            .map(|(key, value)| key.len() + value.get().len() + 4)
            .sum();
        let selected = selection.map_or(0, |selection| selection.get().len());
        let mut body = String::with_capacity(self.input.len() + params + selected + 128);
        body.push_str("{\"model\":");
        body.push_str(&quoted(model));
        if let Some(selection) = selection {
            body.push_str(",\"selection_query\":");
            body.push_str(selection.get());
        }
        body.push_str(&self.input);
        for (key, value) in &self.params {
            body.push(',');
            body.push_str(&quoted(key));
            body.push(':');
            body.push_str(value.get());
        }
        if self.stream {
            body.push_str(",\"stream\":true");
        }
        body.push('}');
        body
    }
}

/// As JSON writes text.
pub(super) fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

/// The messages of a chat, with a comma and their key before them.
fn messages(data: &Fields<'_>) -> Result<String, InferError> {
    let user;
    let list = match (data.get("messages"), data.get("message")) {
        (Some(_), Some(_)) => {
            let message = "`message` and `messages`: expected one of them";
            return Err(wrong("/data", message));
        }
        (Some(messages), None) => listed(messages)?,
        (None, Some(message)) => {
            // An array is of parts, pictures among them.
            if !matches!(kind(message), "text" | "an array") {
                let found = format!("expected text, or an array of parts, not {}", kind(message));
                return Err(wrong("/data/message", found));
            }
            user = format!(r#"{{"role":"user","content":{}}}"#, message.get());
            &user
        }
        (None, None) => return Err(wrong("/data", "expected `message` or `messages`")),
    };
    let system = text_of(data, "system_message")?;
    Ok(match system {
        None => format!(",\"messages\":[{list}]"),
        Some(text) => {
            let text = quoted(&text);
            format!(r#","messages":[{{"role":"system","content":{text}}},{list}]"#)
        }
    })
}

/// What stands between an array's brackets: there may be millions of items, and
/// nobody here needs to know them.
fn listed(messages: &RawValue) -> Result<&str, InferError> {
    let at = "/data/messages";
    if is_empty(messages, '[', ']') {
        return Err(wrong(at, "expected one message or more"));
    }
    let inner = messages.get().strip_prefix('[');
    let inner = inner.and_then(|inner| inner.strip_suffix(']'));
    inner.ok_or_else(|| wrong(at, format!("expected an array, not {}", kind(messages))))
}

/// The first of these keys that there is, with text or a list.
fn first<'a>(data: &Fields<'a>, keys: &[&str]) -> Result<&'a RawValue, InferError> {
    let found = keys
        .iter()
        .find_map(|key| data.get(key).map(|value| (*key, value)));
    let Some((key, value)) = found else {
        return Err(wrong("/data", format!("expected `{}`", keys[0])));
    };
    if !matches!(kind(value), "text" | "an array") {
        let message = format!("expected text, or an array, not {}", kind(value));
        return Err(wrong(format!("/data/{key}"), message));
    }
    Ok(value)
}

fn check_graph(graph: Option<&RawValue>) -> Result<(), InferError> {
    let Some(graph) = graph else { return Ok(()) };
    if is_empty(graph, '{', '}') || is_empty(graph, '[', ']') {
        return Ok(());
    }
    match kind(graph) {
        "an object" | "an array" => Err(InferError::Graph),
        found => {
            let message = format!("expected an object, not {found}");
            Err(InferError::wrong("graph", "/graph", message))
        }
    }
}

#[cfg(test)]
mod tests;
