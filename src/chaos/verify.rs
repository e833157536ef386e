//! What a client may be told: every byte of an answer is looked at.

use serde_json::Value;

use crate::sim::{text, word};

/// Statuses of honest errors.
const HONEST: [u16; 5] = [429, 500, 502, 503, 504];

/// What is wrong with an answer.
pub(super) type Wrong = String;

/// An event stream on its way.
#[derive(Debug)]
pub(super) struct Events {
    tokens: usize,
    usage: bool,
    id: String,
    /// Events with tokens so far.
    pub(super) seen: usize,
    next: Next,
    /// The part of an event that has come.
    tail: Vec<u8>,
}

/// What may come next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Next {
    Token,
    Finish,
    Usage,
    Done,
    NothingAfterDone,
    NothingAfterError,
}

impl Events {
    /// A stream of so many tokens; of usage too, if that was asked for.
    pub(super) fn new(tokens: usize, usage: bool) -> Self {
        Self {
            tokens,
            usage,
            id: String::new(),
            seen: 0,
            next: Next::Token,
            tail: Vec::new(),
        }
    }

    /// Takes a piece of the body.
    pub(super) fn take(&mut self, data: &[u8]) -> Result<(), Wrong> {
        self.tail.extend_from_slice(data);
        while let Some(end) = memchr::memmem::find(&self.tail, b"\n\n") {
            let rest = self.tail.split_off(end + 2);
            let event = std::mem::replace(&mut self.tail, rest);
            let event = String::from_utf8_lossy(&event[..end]);
            self.event(&event)
                .map_err(|wrong| format!("{wrong}, after {} tokens: {event}", self.seen))?;
        }
        Ok(())
    }

    /// The body ended properly: all of it must have come.
    pub(super) fn ended(&self) -> Result<(), Wrong> {
        match self.next {
            Next::NothingAfterDone => self.cut(),
            next => Err(format!("a proper end without [DONE], at {next:?}")),
        }
    }

    /// The connection ended: there must be no half of an event.
    pub(super) fn cut(&self) -> Result<(), Wrong> {
        if self.tail.is_empty() {
            return Ok(());
        }
        let tail = String::from_utf8_lossy(&self.tail);
        Err(format!("it ends in the midst of an event: {tail}"))
    }

    fn event(&mut self, event: &str) -> Result<(), Wrong> {
        let data = event.strip_prefix("data: ").ok_or("no event")?;
        match self.next {
            Next::NothingAfterDone => return Err("an event after [DONE]".to_owned()),
            Next::NothingAfterError => return Err("an event after an error".to_owned()),
            _ => {}
        }
        if data == "[DONE]" {
            if self.next != Next::Done {
                return Err(format!("[DONE] though {:?} was to come", self.next));
            }
            self.next = Next::NothingAfterDone;
            return Ok(());
        }
        let event: Value = serde_json::from_str(data).map_err(|e| format!("no JSON: {e}"))?;
        if event.get("error").is_some() {
            self.next = Next::NothingAfterError;
            return error(&event);
        }
        self.belongs(&event)?;
        let choice = &event["choices"][0];
        match self.next {
            Next::Token => {
                let expected = word(self.seen);
                if choice["delta"]["content"] != *expected || !choice["finish_reason"].is_null() {
                    return Err(format!("{expected:?} was to come"));
                }
                self.seen += 1;
                if self.seen == self.tokens {
                    self.next = Next::Finish;
                }
            }
            Next::Finish => {
                if choice["finish_reason"] != "length" || choice["delta"].get("content").is_some() {
                    return Err("the reason for the end was to come".to_owned());
                }
                self.next = if self.usage { Next::Usage } else { Next::Done };
            }
            Next::Usage => {
                if event["usage"]["completion_tokens"] != self.tokens {
                    return Err("the usage was to come".to_owned());
                }
                self.next = Next::Done;
            }
            next => return Err(format!("{next:?} was to come")),
        }
        Ok(())
    }

    /// All events of a stream bear one id.
    fn belongs(&mut self, event: &Value) -> Result<(), Wrong> {
        let id = event["id"].as_str().unwrap_or("");
        if self.id.is_empty() {
            id.clone_into(&mut self.id);
        }
        if id.is_empty() || id != self.id {
            return Err(format!("an event of another stream than {}", self.id));
        }
        Ok(())
    }
}

/// A whole answer of so many tokens that is not a stream.
pub(super) fn whole(body: &[u8], tokens: usize) -> Result<(), Wrong> {
    let shown = || String::from_utf8_lossy(body).into_owned();
    let answer: Value =
        serde_json::from_slice(body).map_err(|e| format!("no JSON ({e}): {}", shown()))?;
    if answer["choices"][0]["message"]["content"] != text(tokens)
        || answer["usage"]["completion_tokens"] != tokens
        || answer["choices"][0]["finish_reason"] != "length"
    {
        return Err(format!("not the answer of {tokens} tokens: {}", shown()));
    }
    Ok(())
}

/// The part of such an answer that came before it was cut.
pub(super) fn part(body: &[u8], tokens: usize) -> Result<(), Wrong> {
    const KEY: &str = r#""content":"#;
    let body = String::from_utf8_lossy(body);
    let wrong = || format!("not a part of the answer of {tokens} tokens: {body}");
    if !body.starts_with('{') && !body.is_empty() {
        return Err(wrong());
    }
    let Some((_, said)) = body.split_once(KEY) else {
        return Ok(());
    };
    let expected = Value::from(text(tokens)).to_string();
    if said.starts_with(&expected) || expected.starts_with(said) {
        return Ok(());
    }
    Err(wrong())
}

/// An error status with its body.
pub(super) fn refusal(status: u16, body: &[u8]) -> Result<(), Wrong> {
    let shown = || String::from_utf8_lossy(body).into_owned();
    if !HONEST.contains(&status) {
        return Err(format!("status {status}: {}", shown()));
    }
    let body =
        serde_json::from_slice(body).map_err(|e| format!("no JSON ({e}) as error: {}", shown()))?;
    error(&body)
}

/// An error as OpenAI's API words it.
fn error(body: &Value) -> Result<(), Wrong> {
    let error = &body["error"];
    let has_all = ["param", "code"].iter().all(|key| error.get(key).is_some());
    if has_all && error["message"].is_string() && error["type"].is_string() {
        return Ok(());
    }
    Err(format!("not OpenAI's form of an error: {body}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token(at: usize) -> String {
        let content = Value::from(word(at));
        format!(
            "data: {{\"id\":\"a\",\"choices\":[{{\"delta\":{{\"content\":{content}}},\"finish_reason\":null}}]}}\n\n"
        )
    }

    const FINISH: &str =
        "data: {\"id\":\"a\",\"choices\":[{\"delta\":{},\"finish_reason\":\"length\"}]}\n\n";
    const DONE: &str = "data: [DONE]\n\n";
    const ERROR: &str =
        "data: {\"error\":{\"message\":\"m\",\"type\":\"t\",\"param\":null,\"code\":\"c\"}}\n\n";

    /// Whether a stream of two tokens may be so, up to a proper end or a cut.
    fn judge(events: &[&str], is_cut: bool) -> Result<(), Wrong> {
        let mut stream = Events::new(2, false);
        // In pieces that are no events.
        for piece in events.concat().as_bytes().chunks(7) {
            stream.take(piece)?;
        }
        if is_cut { stream.cut() } else { stream.ended() }
    }

    #[test]
    fn good_streams_and_honest_cuts_pass() {
        let (first, second) = (token(0), token(1));
        let whole = [first.as_str(), &second, FINISH, DONE];
        judge(&whole, false).unwrap();
        for length in 0..=whole.len() {
            judge(&whole[..length], true).unwrap();
        }
        judge(&[ERROR], true).unwrap();
        judge(&[&first, ERROR], true).unwrap();
    }

    #[test]
    fn all_else_is_wrong() {
        let (first, second) = (token(0), token(1));
        let other = second.replace("\"a\"", "\"b\"");
        for (events, is_cut) in [
            (vec![first.as_str(), &second, FINISH], false),
            (vec![&first, &second, DONE], true),
            (vec![&first, &first], true),
            (vec![&second], true),
            (vec![&first, &other], true),
            (vec![&first, ERROR], false),
            (vec![&first, ERROR, DONE], true),
            (vec![&first, &second, FINISH, DONE, DONE], true),
            (vec![&first, &second, FINISH, DONE, ERROR], true),
            (vec![&first, "data: {\"id\""], true),
            (vec![": note\n\n"], true),
            (vec!["data: {\"error\":{\"message\":\"m\"}}\n\n"], true),
        ] {
            assert!(judge(&events, is_cut).is_err(), "{events:?}");
        }
    }

    #[test]
    fn whole_answers_parts_and_refusals() {
        let good = format!(
            "{{\"choices\":[{{\"finish_reason\":\"length\",\"message\":{{\"content\":{}}}}}],\"usage\":{{\"completion_tokens\":3}}}}",
            Value::from(text(3))
        );
        whole(good.as_bytes(), 3).unwrap();
        assert!(whole(good.as_bytes(), 4).is_err());
        assert!(whole(&good.as_bytes()[..20], 3).is_err());
        for length in 0..good.len() {
            part(&good.as_bytes()[..length], 3).unwrap();
        }
        assert!(part(good.as_bytes(), 2).is_err());
        assert!(part(b"nonsense", 2).is_err());
        let refused = ERROR.trim().trim_start_matches("data: ").as_bytes();
        refusal(502, refused).unwrap();
        for (status, body) in [(404, refused), (502, b"{}"), (502, b"")] {
            assert!(refusal(status, body).is_err(), "{status}");
        }
    }
}
