//! Asking a language model, at a server of the configuration, or an engine of
//! ours. The reasons of failure are in the AIOS reference's words.

use std::sync::Arc;
use std::time::Instant;

use serde_json::json;

use super::told::{self, Told};
use super::{Advisers, Asking, Call, NOBODY, NoAnswer, Unadvised, parse};
use crate::config::EngineUrl;
use crate::config::policies::{Advised, PolicyKind, Scored};
use crate::fleet::Model;
use crate::fleet::engine::Outcome;
use crate::fleet::load::{Expected, InFlight};
use crate::policy::{self, Question, Tried};

/// Tokens of a reply at most: a name, or a few words and a name.
const MOST_REPLY: u64 = 256;
/// About as many bytes of English and JSON are one token.
const TOKEN_BYTES: u64 = 4;

/// The model that is asked.
#[derive(Debug, Clone, Copy)]
pub(super) struct Asks<'a> {
    pub(super) server: Option<&'a EngineUrl>,
    pub(super) block: &'a str,
    pub(super) query: &'a str,
}

impl Asks<'_> {
    /// What is missing, if anything is.
    pub(super) fn problem(&self) -> Option<&'static str> {
        if self.query.trim().is_empty() {
            return Some("Query string is required");
        }
        let is_known = !self.block.trim().is_empty();
        (!is_known).then_some("LLM block ID and server address are required")
    }
}

/// What is asked, in words.
fn prompt(query: &str, told: &[Told]) -> String {
    let candidates: Vec<&str> = told.iter().map(|one| one.text.as_str()).collect();
    format!(
        "Choose the inference block that suits a request best.\n\n\
         The request, as a JSON string: {}\n\n\
         The blocks to choose from, as JSON:\n[\n{}\n]\n\n\
         Answer with one JSON object and nothing else: {{\"id\": \"...\"}}, with the id of \
         the block that you choose, exactly as it is written above.",
        json!(query),
        candidates.join(",\n")
    )
}

fn chat(model: &str, prompt: &str) -> String {
    let body = json!({
        "model": model,
        "messages": [{"role": "user", "content": prompt}],
        "temperature": 0,
        "max_tokens": MOST_REPLY,
        "stream": false,
    });
    body.to_string()
}

/// The candidates that one of these names means, by id or by image.
fn resolve(names: &[String], told: &[Told]) -> Vec<String> {
    let means = |name: &String| {
        let by_id = told.iter().filter(|one| one.id == *name);
        let by_image = told.iter().filter(|one| one.image.as_ref() == Some(name));
        let ids: Vec<String> = by_id.chain(by_image).map(|one| one.id.clone()).collect();
        (!ids.is_empty()).then_some(ids)
    };
    names.iter().find_map(means).unwrap_or_default()
}

impl Advisers {
    /// The ids that the model names: one, or those that share an image.
    pub(super) async fn model(
        &self,
        asks: Asks<'_>,
        (asking, of): (&Asking<'_>, &Advised),
        call: Call,
    ) -> Result<Vec<String>, Unadvised> {
        let told = self.summary(asking, &of.then, asks.query);
        if told.is_empty() {
            return Err(NOBODY.into());
        }
        let prompt = prompt(asks.query, &told);
        let body = match asks.server {
            Some(server) => self.served(server, chat(asks.block, &prompt), call).await?,
            None => self.ours(asks.block, &prompt, (asking, call)).await?,
        };
        let reply = parse::reply(&body).ok_or("Invalid or empty response from LLM")?;
        let names = parse::named(&reply);
        let Some(name) = names.first() else {
            let reply = parse::quoted(&reply);
            let why = format!("Could not extract containerImage from LLM response: {reply}");
            return Err(why.into());
        };
        let ids = resolve(&names, &told);
        if ids.is_empty() {
            let name = parse::quoted(name);
            let why = format!("LLM selected a containerImage not in the candidate list: {name}");
            return Err(why.into());
        }
        Ok(ids)
    }

    fn summary(&self, asking: &Asking<'_>, then: &Scored, query: &str) -> Vec<Told> {
        let attributes = self.attributes(asking.snapshot);
        told::summary(asking, (then, &attributes), query.len())
    }

    async fn served(
        &self,
        server: &EngineUrl,
        text: String,
        call: Call,
    ) -> Result<Vec<u8>, Unadvised> {
        let is_versioned = server.base_path().ends_with("/v1");
        let path = if is_versioned {
            "/chat/completions"
        } else {
            "/v1/chat/completions"
        };
        let target = self.target(server);
        let posted = self.post(&target, (path, text), call).await;
        Ok(posted?)
    }

    /// Asks the least loaded engine of that block, or model; it is counted as any
    /// request is, and who is asked never depends on advice.
    async fn ours(
        &self,
        block: &str,
        prompt: &str,
        (asking, call): (&Asking<'_>, Call),
    ) -> Result<Vec<u8>, Unadvised> {
        let snapshot = asking.snapshot;
        let model: &Arc<Model> = (snapshot.blocks.named(block))
            .map(|block| &block.model)
            .or_else(|| snapshot.model(block))
            .ok_or_else(|| {
                format!(
                    "LLM block ID and server address are required: no block and no model {:?} \
                     is served here",
                    parse::quoted(block)
                )
            })?;
        let tokens = prompt.len() as u64 / TOKEN_BYTES;
        let asked = policy::Asked {
            prompt_tokens: tokens,
            max_tokens: Some(MOST_REPLY),
            ..policy::Asked::default()
        };
        let question = Question {
            set: &model.candidates,
            asked: &asked,
            tried: &Tried::default(),
            moment: asking.question.moment,
            bound: None,
        };
        let chosen = {
            let mut rng = self.rng.borrow_mut();
            policy::decide(&PolicyKind::LeastLoad, &question, &mut rng)
        };
        let chosen = chosen.ok().and_then(|at| model.candidates.list().get(at));
        let chosen = chosen.ok_or_else(|| format!("no engine of {block:?} is up"))?;
        let expected = Expected::of(chosen, tokens, Some(MOST_REPLY));
        let in_flight = InFlight::take(chosen, expected, Instant::now());
        let text = chat(&model.name, prompt);
        let posted = self.post(&chosen.engine, ("/v1/chat/completions", text), call);
        let posted = posted.await;
        in_flight.settle(match &posted {
            Ok(_) => Outcome::Success,
            Err(NoAnswer { outcome, .. }) => *outcome,
        });
        Ok(posted?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_ids_or_images() {
        let one = |id: &str, image: Option<&str>| Told {
            id: id.to_owned(),
            image: image.map(str::to_owned),
            text: format!(r#"{{"id":"{id}"}}"#),
        };
        let told = [one("a", Some("x:1")), one("b", Some("x:1")), one("c", None)];
        let resolved = |names: &[&str]| {
            let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
            resolve(&names, &told)
        };
        assert_eq!(resolved(&["b"]), ["b"]);
        assert_eq!(resolved(&["x:1"]), ["a", "b"]);
        assert_eq!(resolved(&["nobody", "c"]), ["c"]);
        assert_eq!(resolved(&["nobody", ""]), [""; 0]);
        let prompt = prompt("a \"quick\"\none", &told);
        assert!(prompt.contains(r#""a \"quick\"\none""#), "{prompt}");
        assert!(prompt.contains("[\n{\"id\":\"a\"},\n"), "{prompt}");
    }

    #[test]
    fn what_is_missing_is_told_in_the_references_words() {
        let asks = |block, query| Asks {
            server: None,
            block,
            query,
        };
        assert_eq!(asks("b", " ").problem(), Some("Query string is required"));
        let block = Some("LLM block ID and server address are required");
        assert_eq!(asks("", "q").problem(), block);
        assert_eq!(asks("b", "q").problem(), None);
    }
}
