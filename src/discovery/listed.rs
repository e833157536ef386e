//! Engines that the user lists by URL.

use std::sync::Arc;

use super::models::Cards;
use crate::config::ListedEngine;
use crate::fleet::EngineSpec;

/// Makes specs of the listed engines. One whose models were not listed serves
/// those that it tells of itself: none, until it has been asked.
#[must_use]
pub fn specs(listed: &[ListedEngine], cards: &Cards) -> Vec<EngineSpec> {
    let spec = |engine: &ListedEngine| EngineSpec {
        url: engine.url.clone(),
        models: (engine.models.clone()).unwrap_or_else(|| cards.models_of(engine.url.text())),
        is_learned: engine.models.is_none(),
        traits: Arc::clone(&engine.traits),
    };
    listed.iter().map(spec).collect()
}
