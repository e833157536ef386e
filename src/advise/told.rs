//! What of the candidates is told to those who are asked: for a matcher all that
//! is known, for a language model a summary. Of prompts and of users, nothing.

use std::sync::Arc;

use serde_json::{Map, Value, json};

use super::Asking;
use crate::config::attribute::{Attribute, Live, OwnAttribute};
use crate::config::policies::{Direction, Goal, Scored};
use crate::fleet::{Candidate, CandidateSet};
use crate::policy::blocks;

/// Candidates that are told of, the best by score first.
const MOST: usize = 64;
/// Bytes of all that is told of them.
const MOST_BYTES: usize = 256 << 10;
/// Bytes of one candidate's metadata; longer ones are left out.
const MOST_METADATA: usize = 8 << 10;
/// Bytes of one value in a summary; longer ones are left out.
const MOST_VALUE: usize = 1 << 10;
/// Models that are told of one candidate.
const MOST_MODELS: usize = 16;

/// Every attribute that has a name, as goals of a selection of anyone.
pub(super) fn attributes(own: &[OwnAttribute]) -> Scored {
    let live = Live::ALL.map(|(live, name)| (Attribute::Live(live.into()), Arc::from(name)));
    let ours = Attribute::OURS.map(|(ours, name)| (ours, Arc::from(name)));
    let named = |name: &str| Live::named(name).is_some();
    let own = own.iter().filter(|own| !named(&own.name));
    let own = own.map(|own| (Attribute::Live(own.place), Arc::clone(&own.name)));
    let goals = live.into_iter().chain(ours).chain(own);
    of_goals(goals)
}

/// How many requests wait, in the same form.
pub(super) fn waiting() -> Scored {
    let waiting = Attribute::Live(Live::RequestsWaiting.into());
    of_goals([(waiting, Arc::from("requests_waiting"))])
}

fn of_goals(attributes: impl IntoIterator<Item = (Attribute, Arc<str>)>) -> Scored {
    let goals = attributes.into_iter().map(|(attribute, name)| Goal {
        of: None,
        name,
        attribute,
        direction: Direction::Max,
        weight: 1.0,
    });
    Scored {
        goals: goals.collect(),
        ..Scored::default()
    }
}

/// The engines of a candidate, by its number.
pub(super) fn members(set: &CandidateSet, unit: usize) -> impl Iterator<Item = &Candidate> {
    let groups = set.groups.as_deref();
    let (group, alone) = match groups {
        Some(groups) => (groups.members(unit), None),
        None => (&[] as &[u32], set.list().get(unit)),
    };
    let list = set.list();
    let group = group.iter().filter_map(|at| list.get(*at as usize));
    alone.into_iter().chain(group)
}

/// Its name: that of the block, or the engine's URL.
pub(super) fn id(set: &CandidateSet, unit: usize) -> &str {
    match set.groups.as_deref() {
        Some(groups) => groups.id(unit),
        None => set.list()[unit].engine.url.text(),
    }
}

/// One candidate that is told of.
#[derive(Debug)]
pub(super) struct Told {
    pub(super) id: String,
    /// The image that its engines run, where its metadata have it.
    pub(super) image: Option<String>,
    /// As JSON.
    pub(super) text: String,
}

/// The candidates as that function words them, the best first, as many as there
/// is room for.
fn told(
    asking: &Asking<'_>,
    (then, attributes): (&Scored, &Scored),
    taken: usize,
    word: impl Fn(&About<'_>) -> Value,
) -> Vec<Told> {
    let set = asking.question.set;
    let judged = blocks::judged(then, &asking.question).into_iter();
    let best: Vec<_> = judged
        .filter(|one| one.excluded.is_none())
        .take(MOST)
        .collect();
    let units: Vec<usize> = best.iter().map(|one| one.unit).collect();
    let question = crate::policy::Question {
        bound: None,
        ..asking.question
    };
    let values = blocks::values(attributes, &question, &units);
    let mut all = Vec::with_capacity(best.len());
    let mut room = MOST_BYTES.saturating_sub(taken);
    for (one, values) in best.iter().zip(values.chunks(attributes.goals.len())) {
        let mut engines = members(set, one.unit);
        let Some(first) = engines.next() else {
            continue;
        };
        let about = About {
            id: id(set, one.unit),
            first,
            set,
            unit: one.unit,
            score: one.score,
            attributes: &attributes.goals,
            values,
        };
        let text = word(&about).to_string();
        if text.len() > room {
            break;
        }
        room -= text.len();
        let image = about.metadata("containerRegistryInfo.containerImage");
        all.push(Told {
            id: about.id.to_owned(),
            image: image.and_then(Value::as_str).map(str::to_owned),
            text,
        });
    }
    all
}

/// What is known of one candidate.
struct About<'a> {
    id: &'a str,
    /// Its engines have the same metadata.
    first: &'a Candidate,
    set: &'a CandidateSet,
    unit: usize,
    score: f64,
    attributes: &'a [Goal],
    /// One for each attribute.
    values: &'a [Option<f64>],
}

impl About<'_> {
    /// The value at a dotted path of the metadata, wherever a component's
    /// document is rooted.
    fn metadata(&self, path: &str) -> Option<&Value> {
        let path = path.replace('.', "/");
        let metadata = &self.first.spec.traits.metadata;
        let roots = [
            "",
            "/component",
            "/componentMetadata",
            "/component/componentMetadata",
        ];
        let mut found = roots
            .iter()
            .filter_map(|root| metadata.pointer(&format!("{root}/{path}")));
        found.find(|value| !value.is_null())
    }

    /// What is known of the first of these attributes of which anything is.
    fn live(&self, names: &[&str]) -> Option<f64> {
        let known = |name: &&str| {
            let mut attributes = self.attributes.iter().zip(self.values);
            let (_, value) = attributes.find(|(goal, _)| *goal.name == **name)?;
            *value
        };
        names.iter().find_map(known)
    }
}

/// All that a matcher may know of the candidates.
pub(super) fn whole(asking: &Asking<'_>, selection: (&Scored, &Scored), taken: usize) -> Vec<Told> {
    told(asking, selection, taken, |about| {
        let traits = &about.first.spec.traits;
        let metadata = Some(&traits.metadata);
        let metadata = metadata.filter(|of| of.to_string().len() <= MOST_METADATA);
        let metrics = about.attributes.iter().zip(about.values);
        let metrics = metrics.filter_map(|(goal, value)| Some((goal.name.to_string(), (*value)?)));
        let mut models: Vec<&str> = members(about.set, about.unit)
            .flat_map(|one| one.spec.models.iter().map(String::as_str))
            .take(8 * MOST_MODELS)
            .collect();
        models.sort_unstable();
        models.dedup();
        models.truncate(MOST_MODELS);
        json!({
            "id": about.id,
            "models": models,
            "region": traits.region,
            "privacy": traits.privacy,
            "labels": traits.labels,
            "metadata": metadata,
            "metrics": metrics.map(|(name, value)| (name, value.into())).collect::<Map<_, _>>(),
            "score": about.score,
        })
    })
}

/// Where a summary's values are in the metadata.
const SUMMARY: [(&str, &str); 8] = [
    ("containerImage", "containerRegistryInfo.containerImage"),
    ("usecase", "usecase"),
    ("framework", "framework"),
    ("parameterCountB", "architecture.parameterCountB"),
    ("contextLength", "architecture.contextLength"),
    ("supportsStreaming", "capabilities.supportsStreaming"),
    ("benchmarks", "evaluation.benchmarks"),
    ("tags", "tags"),
];

/// Attributes in a summary: its name, and where it is looked for.
const LIVE: [(&str, &[&str]); 6] = [
    (
        "tokens_per_second",
        &["llm_tokens_per_second", "tokens_per_second"],
    ),
    ("requests_waiting", &["requests_waiting"]),
    ("requests_running", &["requests_running", "in_flight"]),
    ("latency_ms", &["latency_ms", "ttft_ms", "e2e_latency_ms"]),
    ("cost_per_input_mtok", &["cost_per_input_mtok"]),
    ("cost_per_output_mtok", &["cost_per_output_mtok"]),
];

/// What a language model is told of the candidates.
pub(super) fn summary(
    asking: &Asking<'_>,
    selection: (&Scored, &Scored),
    taken: usize,
) -> Vec<Told> {
    told(asking, selection, taken, |about| {
        let mut summary = Map::new();
        summary.insert("id".to_owned(), about.id.into());
        for (name, path) in SUMMARY {
            let value = about.metadata(path);
            if let Some(value) = value.filter(|value| value.to_string().len() <= MOST_VALUE) {
                summary.insert(name.to_owned(), value.clone());
            }
        }
        for (name, places) in LIVE {
            if let Some(value) = about.live(places) {
                summary.insert(name.to_owned(), ((value * 100.0).round() / 100.0).into());
            }
        }
        Value::Object(summary)
    })
}

#[cfg(test)]
mod tests;
