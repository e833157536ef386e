//! Where engines come from: always the full list, never a difference, so that
//! a restart or a lost event can't leave a ghost.

pub mod kubernetes;
pub mod listed;
pub mod models;

use std::sync::Arc;

use crate::config::{EngineUrl, Traits};
use crate::fleet::{Closed, EngineSpec};
use models::Cards;

/// An engine as a cluster tells of it. Cheap to clone.
#[derive(Debug, Clone, PartialEq)]
pub struct Found {
    /// The object and port: `UID:PORT`.
    pub identity: Arc<str>,
    /// Where it listens.
    pub url: EngineUrl,
    /// The models that it serves, each once; `None`: those that it tells of itself.
    pub models: Option<Arc<[String]>>,
    /// All else that is said of it.
    pub traits: Arc<Traits>,
    /// Whether it may get requests.
    pub is_ready: bool,
}

/// Makes specs of engines that were found. One that has not told its models yet
/// is kept out.
#[must_use]
pub fn specs(found: &[Found], cards: &Cards) -> Vec<EngineSpec> {
    let spec = |one: &Found| {
        let closed = if one.traits.draining {
            Some(Closed::Draining)
        } else if one.models.is_none() && !cards.knows(&one.identity) {
            Some(Closed::NoModels)
        } else {
            None
        };
        let models = one.models.clone();
        EngineSpec {
            identity: Arc::clone(&one.identity),
            url: one.url.clone(),
            is_learned: models.is_none(),
            models: models.unwrap_or_else(|| cards.models_of(&one.identity)),
            traits: Arc::clone(&one.traits),
            closed,
            is_ready: one.is_ready,
        }
    };
    found.iter().map(spec).collect()
}
