//! What engines tell of their models (`GET /v1/models`): asked all at once,
//! again and again, so that an adapter that is loaded later appears.

use std::collections::{HashMap, HashSet};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::value::RawValue;

use crate::config::EngineType;
use crate::fleet::Engine;
use crate::fleet::attributes::Live;
use crate::upstream::{FetchError, Get, Pool, fetch};

/// Bytes of one engine's list at most.
const MAX_LIST: usize = 4 << 20;
/// How long one engine may take to tell its models.
const WITHIN: Duration = Duration::from_secs(5);
/// Models of one engine at most; more are left out.
const MAX_MODELS: usize = 10_000;

/// One model, as an engine describes it.
#[derive(Debug, Clone)]
pub struct Card {
    /// Its name.
    pub id: String,
    /// The whole of what the engine tells.
    pub raw: Arc<RawValue>,
}

/// What each engine has told last, by its identity.
#[derive(Debug, Default)]
pub struct Cards {
    told: HashMap<Arc<str>, Told>,
}

/// What one engine has told.
#[derive(Debug)]
struct Told {
    cards: Vec<Card>,
    /// Their names, each once.
    models: Arc<[String]>,
}

#[derive(serde::Deserialize)]
struct EngineList {
    data: Vec<Box<RawValue>>,
}

#[derive(serde::Deserialize)]
struct CardId {
    id: String,
    #[serde(default)]
    max_model_len: Option<serde_json::Number>,
}

impl Cards {
    /// What that engine has told.
    #[must_use]
    pub fn of(&self, identity: &str) -> &[Card] {
        self.told.get(identity).map_or(&[], |told| &told.cards)
    }

    /// The names of that engine's models, each once.
    #[must_use]
    pub fn models_of(&self, identity: &str) -> Arc<[String]> {
        let told = self.told.get(identity);
        told.map_or_else(Arc::default, |told| Arc::clone(&told.models))
    }

    /// Whether that engine has ever told.
    #[must_use]
    pub fn knows(&self, identity: &str) -> bool {
        self.told.contains_key(identity)
    }

    /// Takes in what an engine has told; tells whether that is news.
    pub fn told(&mut self, identity: Arc<str>, cards: Vec<Card>) -> bool {
        let is_same = |known: &Told| {
            let pairs = known.cards.iter().zip(&cards);
            known.cards.len() == cards.len()
                && pairs.into_iter().all(|(a, b)| a.raw.get() == b.raw.get())
        };
        let is_news = !self.told.get(&identity).is_some_and(is_same);
        if is_news {
            let models = each_once(cards.iter().map(|card| &*card.id));
            self.told.insert(identity, Told { cards, models });
        }
        is_news
    }

    /// Forgets engines that are not in the fleet.
    pub fn keep(&mut self, fleet: &HashSet<&str>) {
        self.told.retain(|identity, _| fleet.contains(&**identity));
    }
}

/// An engine that tells of a model twice is not twice a candidate for it.
pub(crate) fn each_once<'a>(models: impl Iterator<Item = &'a str>) -> Arc<[String]> {
    let mut seen = HashSet::new();
    models
        .filter(|model| seen.insert(*model))
        .map(str::to_owned)
        .collect()
}

/// Asks one engine for its models; how long their texts may be is noted with it.
///
/// # Errors
/// When it does not answer, or not with a list.
pub async fn list(pool: &Rc<Pool>, engine: &Arc<Engine>) -> Result<Vec<Card>, FetchError> {
    let get = Get {
        path: "/v1/models",
        json: None,
        within: WITHIN,
        most: MAX_LIST,
    };
    let body = fetch(pool, engine, get).await?;
    let list: EngineList = serde_json::from_slice(&body).map_err(std::io::Error::from)?;
    let mut longest: f64 = 0.0;
    let cards = list.data.into_iter().filter_map(|raw| {
        let CardId { id, max_model_len } = serde_json::from_str(raw.get()).ok()?;
        let tokens = max_model_len.and_then(|tokens| tokens.as_f64());
        longest = longest.max(tokens.unwrap_or(0.0));
        let raw = Arc::from(raw);
        Some(Card { id, raw })
    });
    let cards = cards.take(MAX_MODELS).collect();
    if longest > 0.0 {
        let now = engine.clock(Instant::now());
        engine.attributes.hear(Live::MaxModelLen, longest, now);
    } else if engine.attributes.spoken() != Some(EngineType::Llamacpp) {
        // llama.cpp tells it elsewhere.
        engine.attributes.forget(Live::MaxModelLen);
    }
    Ok(cards)
}
