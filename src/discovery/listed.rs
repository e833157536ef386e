//! Engines that the user lists by URL.

use std::sync::Arc;

use super::models::{Cards, each_once};
use crate::config::ListedEngine;
use crate::fleet::{Closed, EngineSpec};

/// Makes specs of the listed engines. One whose models were not listed serves
/// those that it tells of itself: none, until it has been asked.
#[must_use]
pub fn specs(listed: &[ListedEngine], cards: &Cards) -> Vec<EngineSpec> {
    let spec = |engine: &ListedEngine| EngineSpec {
        identity: Arc::from(engine.url.text()),
        closed: engine.traits.draining.then_some(Closed::Draining),
        is_ready: true,
        url: engine.url.clone(),
        models: match &engine.models {
            Some(models) => each_once(models.iter().map(String::as_str)),
            None => cards.models_of(engine.url.text()),
        },
        is_learned: engine.models.is_none(),
        traits: Arc::clone(&engine.traits),
    };
    listed.iter().map(spec).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_model_that_is_named_twice_is_served_once() {
        let listed = [ListedEngine::new("http://a", &["m", "n", "m"]).unwrap()];
        assert_eq!(specs(&listed, &Cards::default())[0].models[..], ["m", "n"]);
        let mut cards = Cards::default();
        let raw = serde_json::value::RawValue::from_string("{}".to_owned()).unwrap();
        let card = super::super::models::Card {
            id: "x".to_owned(),
            raw: Arc::from(raw),
        };
        let told = || vec![card.clone(), card.clone()];
        assert!(cards.told("http://a".into(), told()));
        assert!(!cards.told("http://a".into(), told()));
        let learned = [ListedEngine {
            models: None,
            ..listed[0].clone()
        }];
        assert_eq!(specs(&learned, &cards)[0].models[..], ["x"]);
    }
}
