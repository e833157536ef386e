//! `GET /v1/models`: the union of the engines' model cards, kept whole.
//!
//! Refreshed in the background, so that the answer never waits for an engine.
//! A configured model without a card gets a made one.

use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use bytes::Bytes;
use serde_json::{Value, json, value::RawValue};

use crate::fleet::{Engine, Snapshot};
use crate::upstream::{FetchError, Pool, fetch};

/// Bytes of one engine's list at most.
const MAX_LIST: usize = 4 << 20;
/// How long one engine may take to tell its models.
const WITHIN: Duration = Duration::from_secs(5);
/// Between two refreshes.
const EVERY: Duration = Duration::from_secs(60);
/// Between two refreshes while an engine has not answered yet.
const SOON: Duration = Duration::from_secs(2);

/// The list as it is served.
#[derive(Debug)]
pub struct ModelCards {
    list: ArcSwap<Bytes>,
}

#[derive(serde::Deserialize)]
struct EngineList {
    data: Vec<Box<RawValue>>,
}

#[derive(serde::Deserialize)]
struct CardId {
    id: String,
}

impl ModelCards {
    /// The list of a fleet none of whose engines has been asked.
    #[must_use]
    pub fn new(snapshot: &Snapshot) -> Self {
        let list = render(snapshot, &HashMap::new());
        Self {
            list: ArcSwap::from_pointee(list),
        }
    }

    /// The list as JSON.
    #[must_use]
    pub fn list(&self) -> Bytes {
        (**self.list.load()).clone()
    }

    /// Asks the engines again and again; never returns.
    pub async fn refresh(&self, published: &ArcSwap<Snapshot>, pool: &Rc<Pool>) {
        let mut cards: HashMap<u64, Vec<Box<RawValue>>> = HashMap::new();
        loop {
            let snapshot = published.load_full();
            let engines = snapshot.all.candidates.engines();
            let mut whole = true;
            for engine in engines {
                match ask(pool, engine).await {
                    Ok(list) => {
                        cards.insert(engine.key, list);
                    }
                    Err(error) => {
                        whole = false;
                        let url = engine.spec.url.text();
                        tracing::debug!(engine = url, %error, "no model list");
                    }
                }
            }
            cards.retain(|key, _| engines.iter().any(|engine| engine.key == *key));
            self.list.store(Arc::new(render(&snapshot, &cards)));
            tokio::time::sleep(if whole { EVERY } else { SOON }).await;
        }
    }
}

async fn ask(pool: &Rc<Pool>, engine: &Arc<Engine>) -> Result<Vec<Box<RawValue>>, FetchError> {
    let body = fetch(pool, engine, "/v1/models", WITHIN, MAX_LIST).await?;
    let list: EngineList = serde_json::from_slice(&body).map_err(std::io::Error::from)?;
    Ok(list.data)
}

/// The first card for each id wins, engines in their order.
fn render(snapshot: &Snapshot, cards: &HashMap<u64, Vec<Box<RawValue>>>) -> Bytes {
    let mut union: Vec<&RawValue> = Vec::new();
    let mut ids: Vec<String> = Vec::new();
    for engine in snapshot.all.candidates.engines() {
        for card in cards.get(&engine.key).into_iter().flatten() {
            if let Ok(CardId { id }) = serde_json::from_str(card.get())
                && !ids.contains(&id)
            {
                ids.push(id);
                union.push(card);
            }
        }
    }
    let missing: Vec<Value> = (snapshot.model_names().into_iter())
        .filter(|name| !ids.iter().any(|id| id == name))
        .map(|name| json!({"id": name, "object": "model", "created": 0, "owned_by": "pilotfish"}))
        .collect();
    let mut out = String::from(r#"{"object":"list","data":["#);
    let all = union.iter().map(|card| card.get().to_owned());
    let all: Vec<String> = all.chain(missing.iter().map(Value::to_string)).collect();
    out.push_str(&all.join(","));
    out.push_str("]}");
    Bytes::from(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fleet::{EngineSpec, EngineUrl, Fleet};
    use crate::metrics::ModelRegistry;
    use crate::policy::Policy;

    #[test]
    fn cards_are_kept_whole_and_missing_ones_made() {
        let mut fleet = Fleet::new(Policy::RoundRobin, ModelRegistry::default());
        let spec = |url: &str, models: &[&str]| EngineSpec {
            url: EngineUrl::parse(url).unwrap(),
            models: models.iter().map(ToString::to_string).collect(),
        };
        fleet.reconcile(vec![
            spec("http://a", &["m"]),
            spec("http://b", &["m", "silent"]),
        ]);
        let snapshot = fleet.published().load_full();
        let card = |text: &str| RawValue::from_string(text.to_owned()).unwrap();
        let engines = snapshot.all.candidates.engines();
        let cards = HashMap::from([
            (
                engines[0].key,
                vec![card(r#"{"id":"m","max_model_len":8,"x":[1]}"#)],
            ),
            (
                engines[1].key,
                vec![card(r#"{"id":"m"}"#), card(r#"{"id":"lora","parent":"m"}"#)],
            ),
        ]);
        let list: Value = serde_json::from_slice(&render(&snapshot, &cards)).unwrap();
        let ids: Vec<&str> = list["data"]
            .as_array()
            .unwrap()
            .iter()
            .map(|c| c["id"].as_str().unwrap())
            .collect();
        assert_eq!(ids, ["m", "lora", "silent"]);
        assert_eq!(list["data"][0]["x"][0], 1);
        assert_eq!(list["object"], "list");
    }
}
