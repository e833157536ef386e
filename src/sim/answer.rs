//! What the simulated engine says: the OpenAI API's objects, with words from a
//! short list.

use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};

use super::speed::TOKEN_BYTES;

const WORDS: [&str; 16] = [
    "the", " pilot", " fish", " swims", " ahead", " of", " the", " shark", " and", " shows", " it",
    " the", " way", " home", ",", " slowly",
];

/// Tokens of an answer whose request names no limit.
const DEFAULT_TOKENS: usize = 32;
/// Tokens of an answer at most.
const MAX_TOKENS: usize = 100_000;

/// Which of the two generating APIs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Api {
    Chat,
    Text,
}

/// What a generating request asks for.
#[derive(Debug)]
pub(super) struct Job {
    pub(super) api: Api,
    pub(super) id: String,
    pub(super) model: String,
    pub(super) prompt: String,
    pub(super) tokens: usize,
    pub(super) stream: bool,
    usage: bool,
    /// Whether the answer is to tell how busy the engine is.
    pub(super) reports: bool,
}

/// The token at that place of every answer.
#[must_use]
pub fn word(at: usize) -> &'static str {
    WORDS[at % WORDS.len()]
}

/// The text of every answer of so many tokens.
#[must_use]
pub fn text(tokens: usize) -> String {
    (0..tokens).map(word).collect()
}

pub(super) fn now() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_secs())
}

impl Job {
    pub(super) fn read(api: Api, id: u64, body: &Value) -> Self {
        let number = |key: &str| body.get(key).and_then(Value::as_u64);
        let asked = number("max_completion_tokens").or_else(|| number("max_tokens"));
        let asked = asked.and_then(|tokens| usize::try_from(tokens).ok());
        let (prefix, prompt) = match api {
            Api::Chat => ("chatcmpl", body.get("messages")),
            Api::Text => ("cmpl", body.get("prompt")),
        };
        let prompt = match prompt {
            Some(Value::String(text)) => text.clone(),
            Some(other) => other.to_string(),
            None => String::new(),
        };
        Self {
            api,
            id: format!("{prefix}-sim{id}"),
            model: body["model"].as_str().unwrap_or("").to_owned(),
            prompt,
            tokens: asked.unwrap_or(DEFAULT_TOKENS).clamp(1, MAX_TOKENS),
            stream: body["stream"] == true,
            usage: body["stream_options"]["include_usage"] == true,
            reports: false,
        }
    }

    pub(super) fn prompt_tokens(&self) -> usize {
        self.prompt.len().div_ceil(TOKEN_BYTES)
    }

    fn usage(&self) -> Value {
        let prompt = self.prompt_tokens();
        json!({
            "prompt_tokens": prompt,
            "completion_tokens": self.tokens,
            "total_tokens": prompt + self.tokens,
        })
    }

    fn object(&self) -> &'static str {
        match (self.api, self.stream) {
            (Api::Chat, true) => "chat.completion.chunk",
            (Api::Chat, false) => "chat.completion",
            (Api::Text, _) => "text_completion",
        }
    }

    fn frame(&self, choices: &Value) -> Value {
        json!({
            "id": self.id,
            "object": self.object(),
            "created": now(),
            "model": self.model,
            "choices": choices,
        })
    }

    /// The whole answer.
    pub(super) fn whole(&self) -> Value {
        let text = text(self.tokens);
        let choice = match self.api {
            Api::Chat => json!({
                "index": 0,
                "message": {"role": "assistant", "content": text},
                "finish_reason": "length",
            }),
            Api::Text => json!({"index": 0, "text": text, "finish_reason": "length"}),
        };
        let mut whole = self.frame(&json!([choice]));
        whole["usage"] = self.usage();
        whole
    }

    /// The event with the token at that place; `None` is the one that says why
    /// the answer ends.
    pub(super) fn event(&self, at: Option<usize>) -> String {
        let finish = if at.is_none() {
            json!("length")
        } else {
            Value::Null
        };
        let text = at.map_or("", word);
        let choice = match (self.api, at) {
            (Api::Chat, Some(0)) => json!({
                "index": 0,
                "delta": {"role": "assistant", "content": text},
                "finish_reason": finish,
            }),
            (Api::Chat, Some(_)) => json!({
                "index": 0,
                "delta": {"content": text},
                "finish_reason": finish,
            }),
            (Api::Chat, None) => json!({"index": 0, "delta": {}, "finish_reason": finish}),
            (Api::Text, _) => json!({"index": 0, "text": text, "finish_reason": finish}),
        };
        self.frame(&json!([choice])).to_string()
    }

    /// The last event, for those who asked for it.
    pub(super) fn usage_event(&self) -> Option<String> {
        self.usage.then(|| {
            let mut frame = self.frame(&json!([]));
            frame["usage"] = self.usage();
            frame.to_string()
        })
    }
}

/// The answer to `/v1/embeddings`: the same text, the same vector.
pub(super) fn embeddings(body: &Value) -> Value {
    let inputs = match &body["input"] {
        Value::Array(items) => items.clone(),
        other => vec![other.clone()],
    };
    let data: Vec<Value> = (inputs.iter().enumerate())
        .map(|(index, input)| {
            let text = input.to_string();
            let vector: Vec<f64> = (0..8usize)
                .map(|at| {
                    let bytes = text.bytes().skip(at).step_by(8);
                    f64::from(bytes.map(u32::from).sum::<u32>() % 1000) / 1000.0
                })
                .collect();
            json!({"object": "embedding", "index": index, "embedding": vector})
        })
        .collect();
    let tokens: usize = inputs
        .iter()
        .map(|input| input.to_string().len().div_ceil(TOKEN_BYTES))
        .sum();
    json!({
        "object": "list",
        "model": body["model"],
        "data": data,
        "usage": {"prompt_tokens": tokens, "total_tokens": tokens},
    })
}

/// The answer to `/tokenize`: a number for each few bytes.
pub(super) fn tokens(body: &Value) -> Value {
    let asked = body.get("prompt").or_else(|| body.get("messages"));
    let text = asked.map_or(String::new(), |asked| match asked {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    });
    let tokens: Vec<u32> = (text.as_bytes().chunks(TOKEN_BYTES))
        .map(|piece| piece.iter().map(|byte| u32::from(*byte)).sum())
        .collect();
    json!({"count": tokens.len(), "max_model_len": 32768, "tokens": tokens})
}

/// One model card, as vLLM writes it.
pub(super) fn card(model: &str) -> Value {
    json!({
        "id": model,
        "object": "model",
        "created": now(),
        "owned_by": "vllm",
        "root": model,
        "parent": null,
        "max_model_len": 32768,
        "permission": [],
    })
}

/// An error, as vLLM words errors.
pub(super) fn error(message: &str, kind: &str, code: u16) -> Value {
    json!({"error": {"message": message, "type": kind, "param": null, "code": code}})
}
