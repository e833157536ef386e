//! `GET /v1/models`: the union of the engines' model cards, kept whole.
//!
//! Made when something has changed, so that the answer never waits for an
//! engine. A configured model without a card gets a made one, an alias a card
//! that names its model as `root`.

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};
use std::time::Duration;

use bytes::Bytes;
use serde_json::value::RawValue;
use serde_json::{Map, Value, json};

use crate::discovery::models::Cards;
use crate::fleet::attributes::{Attributes, Freshness, Live, Place};
use crate::fleet::stats::Rates;
use crate::fleet::{Candidate, Closed, Snapshot};

/// The first card for each id wins, engines in their order.
#[must_use]
pub fn list(snapshot: &Snapshot, cards: &Cards) -> Bytes {
    let mut seen: HashSet<&str, foldhash::fast::RandomState> = HashSet::default();
    let mut all: Vec<String> = Vec::new();
    for candidate in snapshot.all.candidates.list() {
        for card in cards.of(&candidate.spec.identity) {
            // What is listed can be asked for.
            if candidate.spec.models.contains(&card.id) && seen.insert(&card.id) {
                all.push(card.raw.get().to_owned());
            }
        }
    }
    let made = |id: &str, root: &str| {
        json!({
            "id": id, "object": "model", "created": 0, "owned_by": "pilotfish",
            "root": root, "parent": null,
        })
        .to_string()
    };
    let models = snapshot.models();
    let served = models.iter().filter(|model| model.is_served());
    let names = served.map(|model| &*model.name);
    all.extend(
        names
            .filter(|name| seen.insert(name))
            .map(|name| made(name, name)),
    );
    let aliases = snapshot.settings.aliases.iter();
    all.extend(
        aliases
            .filter(|(alias, _)| seen.insert(alias))
            .map(|(alias, model)| made(alias, model)),
    );
    Bytes::from(format!(r#"{{"object":"list","data":[{}]}}"#, all.join(",")))
}

/// The same list with those models alone.
#[must_use]
pub fn only(list: &[u8], may: impl Fn(&str) -> bool) -> Bytes {
    #[derive(serde::Deserialize)]
    struct List<'a> {
        #[serde(borrow)]
        data: Vec<&'a RawValue>,
    }
    #[derive(serde::Deserialize)]
    struct Card<'a> {
        #[serde(borrow)]
        id: Cow<'a, str>,
    }
    // It is our own, so it can be read.
    let all =
        serde_json::from_slice::<List<'_>>(list).map_or_else(|_| Vec::new(), |list| list.data);
    let is_usable = |card: &&RawValue| {
        let card = serde_json::from_str::<Card<'_>>(card.get());
        card.is_ok_and(|card| may(&card.id))
    };
    let usable: Vec<&str> = all
        .into_iter()
        .filter(is_usable)
        .map(RawValue::get)
        .collect();
    Bytes::from(format!(
        r#"{{"object":"list","data":[{}]}}"#,
        usable.join(",")
    ))
}

/// The fleet, for `GET /engines`; `rates` are each engine's over that `window`.
#[must_use]
pub fn engines(
    snapshot: &Snapshot,
    rates: &HashMap<u64, Rates>,
    window: Duration,
    by: Freshness,
) -> Bytes {
    use std::sync::atomic::Ordering::Relaxed;
    let engines = snapshot.all.candidates.list().iter().map(|candidate| {
        let (engine, spec) = (&candidate.engine, &candidate.spec);
        let mut entry = json!({
            "engine_id": engine.url.text(),
            "serving_models": &*spec.models,
            "created": engine.created,
            "in_flight": engine.in_flight.load(Relaxed),
            "outstanding_tokens": engine.outstanding.load(Relaxed),
            "latency_ms": engine.latency.get(by.now).map(|seconds| seconds * 1e3),
            "is_set_aside": !engine.health.is_up(by.now),
            "state": engine.health.word(by.now),
            "closed": closed(candidate),
            "connects": engine.connects.load(Relaxed),
            "reuses": engine.reuses.load(Relaxed),
            "attributes_age_seconds": engine.attributes.age(by.now).map(|age| age.as_secs_f64()),
        });
        let (values, details) = attributes(&engine.attributes, snapshot, by);
        entry["attributes"] = values;
        entry["attribute_details"] = details;
        let seen = rates.get(&engine.key).copied().unwrap_or_default();
        entry["window"] = observed(&seen, window);
        if let Some(kind) = engine.attributes.spoken() {
            entry["engine_type"] = json!(kind);
        }
        let adapters = engine.attributes.adapters.load();
        let is_fresh = engine.attributes.fresh(Live::LoraAdapters, by).is_some();
        if is_fresh && !adapters.is_empty() {
            entry["lora_adapters"] = json!(**adapters);
        }
        if let (Value::Object(entry), Ok(Value::Object(traits))) =
            (&mut entry, serde_json::to_value(&*spec.traits))
        {
            entry.extend(traits);
        }
        entry
    });
    Bytes::from(json!(engines.collect::<Vec<_>>()).to_string())
}

/// Why an engine gets nothing new, though nothing ails it.
fn closed(one: &Candidate) -> Option<&'static str> {
    let unready = one.engine.health.is_unready().then_some("not ready");
    unready.or(one.spec.closed.map(Closed::word))
}

/// What an engine tells of itself and is not stale: the values, and of each its
/// unit and age.
fn attributes(attributes: &Attributes, snapshot: &Snapshot, by: Freshness) -> (Value, Value) {
    let live = Live::ALL.into_iter();
    let live = live.map(|(live, name)| (name, Place::from(live), Some(live.unit())));
    let own = snapshot.settings.scraping.own.iter();
    let own = own.filter(|own| Live::named(&own.name).is_none());
    let own = own.map(|own| (&*own.name, own.place, None));
    let (mut values, mut details) = (Map::new(), Map::new());
    for (name, place, unit) in live.chain(own) {
        if let Some(value) = attributes.fresh(place, by) {
            let age = attributes.age_of(place, by.now);
            let age = age.map(|age| age.as_secs_f64());
            values.insert(name.to_owned(), value.into());
            details.insert(name.to_owned(), json!({"unit": unit, "age_seconds": age}));
        }
    }
    (Value::Object(values), Value::Object(details))
}

/// What we saw of an engine within the window, from the requests that it got
/// from us.
fn observed(rates: &Rates, window: Duration) -> Value {
    let millis = |seconds: Option<f64>| seconds.map(|seconds| seconds * 1e3);
    json!({
        "seconds": window.as_secs_f64(),
        "qps": rates.qps,
        "ttft_ms": millis(rates.ttft),
        "itl_ms": millis(rates.itl),
        "latency_ms": millis(rates.latency),
        "tokens_per_second": rates.tokens_per_second,
        "tokens_per_request": rates.tokens_per_request,
        "finished": rates.finished,
        "failed": rates.failed,
    })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::config::Settings;
    use crate::discovery::models::Card;
    use crate::fleet::testing::{fleet, spec};

    #[test]
    fn cards_are_kept_whole_and_missing_ones_made() {
        let mut fleet = fleet();
        let settings = Settings {
            aliases: [("gpt".to_owned(), "m".to_owned())].into(),
            ..Settings::default()
        };
        let specs = vec![
            spec("http://a", &["m"]),
            spec("http://b", &["m", "lora", "silent"]),
        ];
        fleet.apply(Arc::new(settings), specs);
        let snapshot = fleet.published().load_full();
        let card = |id: &str, text: &str| Card {
            id: id.to_owned(),
            raw: Arc::from(RawValue::from_string(text.to_owned()).unwrap()),
        };
        let mut cards = Cards::default();
        for (url, told) in [
            (
                "http://a",
                vec![card("m", r#"{"id":"m","max_model_len":8,"x":[1]}"#)],
            ),
            (
                "http://b",
                vec![
                    card("m", r#"{"id":"m"}"#),
                    card("lora", r#"{"id":"lora","parent":"m"}"#),
                    card("not-served", r#"{"id":"not-served"}"#),
                ],
            ),
            ("http://gone", Vec::new()),
        ] {
            cards.told(Arc::from(url), told);
        }
        cards.keep(&["http://a", "http://b"].into());
        assert!(cards.knows("http://a") && !cards.knows("http://gone"));
        let list: Value = serde_json::from_slice(&list(&snapshot, &cards)).unwrap();
        let ids: Vec<&str> = list["data"]
            .as_array()
            .unwrap()
            .iter()
            .map(|c| c["id"].as_str().unwrap())
            .collect();
        assert_eq!(ids, ["m", "lora", "silent", "gpt"]);
        assert_eq!(list["data"][0]["x"][0], 1);
        assert_eq!(list["data"][3]["root"], "m");
        assert_eq!(list["object"], "list");
    }
}
