//! Decisions in words and numbers: the record behind `/debug/decisions`, and
//! behind `pilotfish explain`.

use std::time::{Duration, UNIX_EPOCH};

use http::header::{COOKIE, PROXY_AUTHORIZATION};
use serde_json::{Map, Value, json};

use crate::auth;
use crate::config::policies::{KeySource, PolicyKind};
use crate::decisions::{Inputs, Record};
use crate::fleet::Candidate;
use crate::fleet::attributes::{Live, Told};
use crate::fleet::latency::Latency;
use crate::fleet::near::Nearness;
use crate::fleet::reading::Reading;
use crate::fleet::ring::hash;
use crate::policy::Refusal;
use crate::policy::explain::Verdict;
use crate::smart::weigh::ModelChoice;

/// The whole record: inputs, every candidate ranked, and the choice.
#[must_use]
pub fn record(record: &Record) -> Value {
    let mut page = inputs(&record.inputs, record.chosen);
    let at = record.at.duration_since(UNIX_EPOCH).unwrap_or_default();
    page.insert("id".to_owned(), record.id.into());
    page.insert("at".to_owned(), at.as_secs_f64().into());
    page.insert("request_id".to_owned(), record.request_id.as_str().into());
    page.insert("generation".to_owned(), record.generation.into());
    if let Some(choice) = &record.model_choice {
        page.insert("model_choice".to_owned(), model_choice(choice));
    }
    Value::Object(page)
}

/// As many digits as mean something.
fn rounded(value: f64) -> f64 {
    (value * 1e4).round() / 1e4
}

/// How a model was chosen by cost and quality.
#[must_use]
pub fn model_choice(choice: &ModelChoice) -> Value {
    let models = choice.weighed.iter().map(|one| {
        json!({
            "model": &*one.model,
            "quality": rounded(f64::from(one.prediction.quality)),
            "spread": rounded(f64::from(one.prediction.spread)),
            "past_queries": one.prediction.neighbours,
            "output_tokens": rounded(one.tokens),
            "cost": one.candidate.cost,
            "load_price": one.candidate.load_price,
            "is_open": one.candidate.is_open,
        })
    });
    let chosen = choice.weighed.get(choice.chosen.at);
    json!({
        "model": chosen.map(|one| &*one.model),
        "why": choice.chosen.why.name(),
        "performance_requirement": choice.requirement,
        "lambda": choice.lambda,
        "models": models.collect::<Vec<_>>(),
    })
}

/// What a decision is made from, and what it is.
#[must_use]
pub fn inputs(inputs: &Inputs, chosen: Result<usize, Refusal>) -> Map<String, Value> {
    let candidates = inputs.model.candidates.list();
    let name = |at: usize| candidates.get(at).map(|one| one.engine.url.text());
    let spec = &inputs.policy.spec;
    let verdicts = inputs.explain();
    let ranked = verdicts.iter().enumerate().filter_map(|(rank, verdict)| {
        let (one, reading) = (
            candidates.get(verdict.at)?,
            inputs.readings.get(verdict.at)?,
        );
        Some(candidate(rank, verdict, one, (reading, inputs.moment.now)))
    });
    let page = json!({
        "model": &*inputs.model.name,
        "policy": &*spec.name,
        "type": spec.kind.name(),
        "chosen": chosen.ok().and_then(name),
        "refused": chosen.err(),
        "drawn": inputs.drawn().into_iter().filter_map(name).collect::<Vec<_>>(),
        "request": shown(inputs),
        "tried": (candidates.iter())
            .filter(|one| inputs.tried.contains(&one.engine))
            .map(|one| one.engine.url.text())
            .collect::<Vec<_>>(),
        "now_seconds": inputs.moment.now.as_secs_f64(),
        "seed": inputs.seed,
        "turn": inputs.turn,
        "candidates": ranked.collect::<Vec<_>>(),
    });
    let mut page = match page {
        Value::Object(page) => page,
        _ => Map::new(),
    };
    tier(inputs, &mut page);
    page
}

/// Among whom the choice was made, where the nearest come first, and why nobody
/// nearer was chosen.
fn tier(inputs: &Inputs, page: &mut Map<String, Value>) {
    let tier = inputs.model.candidates.tier;
    if tier.is_none() && inputs.model.near.is_empty() {
        return;
    }
    let name = |of: Nearness| Nearness::ALL[of as usize].1;
    page.insert("tier".to_owned(), json!(tier.map_or("all", name)));
    let asked = Nearness::ALL.into_iter().zip(inputs.nearer);
    let nearer = asked.filter_map(|((_, name), why)| Some((name.to_owned(), json!(why?))));
    page.insert("nearer".to_owned(), Value::Object(nearer.collect()));
}

/// Whether what a session is known by is no secret.
fn is_plain(source: &KeySource) -> bool {
    match source {
        KeySource::Header(name) => {
            let is_secret = auth::credential(name) || *name == COOKIE;
            !(is_secret || *name == PROXY_AUTHORIZATION)
        }
        KeySource::Cookie(_) => false,
        KeySource::Body(_) | KeySource::Address | KeySource::Prompt => true,
    }
}

/// The request, without a key that may be a secret.
fn shown(inputs: &Inputs) -> Value {
    let asked = &inputs.asked;
    let is_session = match inputs.policy.spec.kind.innermost() {
        PolicyKind::Session(of) => of.keys.iter().all(is_plain),
        _ => false,
    };
    let key = asked.key.as_deref().map(|key| match is_session {
        true => key.to_owned(),
        false => format!("#{:016x}", hash(key.as_bytes())),
    });
    let (mut page, prefix) = (json!(asked), &asked.prefix);
    page["key"] = json!(key);
    let seen = prefix.recalled.iter().filter(|one| one.bytes > 0);
    page["prefix"] = json!(prefix.anchor.or(prefix.root).map(|_| json!({
        "anchor": prefix.anchor,
        "root": prefix.root,
        "bytes": prefix.bytes,
        "worth": prefix.worth,
        "recalled": seen.collect::<Vec<_>>(),
    })));
    page
}

/// One candidate: its rank, why it was left out, its score's parts, and what it
/// was like.
fn candidate(
    rank: usize,
    verdict: &Verdict,
    one: &Candidate,
    (reading, now): (&Reading, Duration),
) -> Value {
    let parts = verdict.parts.iter();
    let parts = parts.map(|(name, value)| ((*name).to_owned(), Value::from(*value)));
    // Those of the configuration's own are among the goals.
    let attributes = reading
        .attributes
        .iter()
        .filter_map(|Told(place, value, _)| {
            let (_, name) = Live::ALL.get(place.index())?;
            Some(((*name).to_owned(), Value::from(*value)))
        });
    let ages = reading
        .attributes
        .iter()
        .filter_map(|Told(place, _, at_ms)| {
            let (_, name) = Live::ALL
                .get(place.index())
                .filter(|_| !place.is_lasting())?;
            let age = now.saturating_sub(Duration::from_millis(*at_ms));
            Some(((*name).to_owned(), Value::from(age.as_secs_f64())))
        });
    let latency = Latency::from_bits(reading.latency_bits).get(now);
    let mut entry = json!({
        "engine_id": one.engine.url.text(),
        "rank": rank + 1,
        "excluded": verdict.excluded,
        "because": parts.collect::<Map<_, _>>(),
        "weight": one.spec.traits.weight,
        "in_flight": reading.in_flight,
        "outstanding_tokens": reading.outstanding_tokens,
        "foreign_requests": reading.foreign_requests.0,
        "foreign_at_ms": reading.foreign_requests.1,
        "guessed_requests": reading.guessed_requests,
        "latency_bits": reading.latency_bits,
        "health": reading.health,
        "latency_ms": latency.map(|seconds| seconds * 1e3),
        "attributes": attributes.collect::<Map<_, _>>(),
        "attribute_ages_seconds": ages.collect::<Map<_, _>>(),
    });
    if !verdict.goals.is_empty() {
        entry["goals"] = json!(verdict.goals);
    }
    entry
}
