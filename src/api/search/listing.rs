//! Lists of blocks: all that match, and all ranked with the reasons.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use bytes::Bytes;
use fastrand::Rng;
use serde::Serialize;
use serde_json::Value;
use serde_json::value::{RawValue, to_raw_value};

use super::{Reply, Shape, Told};
use crate::api::blocks::{Document, Now};
use crate::config::policies::Scored;
use crate::fleet::{CandidateSet, Snapshot};
use crate::policy::blocks::{self, Judged};
use crate::policy::explain::GoalVerdict;
use crate::policy::{Advice, Asked, Policy, Question, Refusal, Tried};
use crate::proxy::search::moment;
use crate::query::{Query, Seen, Subject};

/// Bytes of what is told of all blocks at most, when they are ranked.
const MOST_RANKED: usize = 4 << 20;
/// Bytes of all documents at most; those of a thousand blocks have some 4 MiB.
const MOST_MATCHING: usize = 16 << 20;
/// Of so many blocks, the first, it is told what the filter saw.
const MOST_EXPLAINED: usize = 32;
/// Bytes of one value that the filter saw at most, and values of one list.
const MOST_VALUE: usize = 128;
const MOST_VALUES: usize = 16;

/// A list of blocks that is to be made.
#[derive(Debug)]
pub struct Listing {
    /// Of whom; what is listed was read against it.
    pub snapshot: Arc<Snapshot>,
    /// Which.
    pub what: Listed,
    /// The greatest age of attributes that count.
    pub stale_after: Duration,
    /// In whose words.
    pub shape: Shape,
    /// What is to be said beside.
    pub warnings: Vec<String>,
}

/// Which blocks are listed.
#[derive(Debug)]
pub enum Listed {
    /// Those that match, in the order of their names.
    Matching(Box<Scored>),
    /// The one that is chosen, and all of them ranked.
    Ranked(Arc<Policy>, Advice),
}

/// One block in the order that the policy sees them in.
#[derive(Debug, Serialize)]
struct Ranked<'a> {
    id: &'a str,
    rank: usize,
    /// Whether someone who was asked named it first of those that may be chosen.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    advised: bool,
    /// Why it cannot be chosen.
    excluded: Option<&'static str>,
    /// 0 to 1.
    score: f64,
    /// Requests of ours that its engines work on.
    in_flight: u32,
    goals: Vec<GoalVerdict>,
    /// What the filter saw, in the order of the page's conditions; of the first
    /// blocks alone.
    #[serde(skip_serializing_if = "Option::is_none")]
    conditions: Option<Vec<Verdict>>,
}

/// What one condition saw of a block.
#[derive(Debug, Serialize)]
struct Verdict {
    holds: bool,
    value: Value,
}

/// What is told of blocks, one after the other, up to a bound.
#[derive(Debug)]
struct Rows {
    list: Vec<Box<RawValue>>,
    bytes: usize,
    most: usize,
}

impl Rows {
    fn new(most: usize) -> Self {
        Self {
            list: Vec::new(),
            bytes: 0,
            most,
        }
    }

    /// Takes one more; tells whether there was room for it.
    fn add(&mut self, row: &impl Serialize) -> bool {
        // Maps with keys of text cannot fail.
        let Ok(row) = to_raw_value(row) else {
            return true;
        };
        self.bytes += row.get().len() + 1;
        let has_room = self.bytes <= self.most;
        if has_room {
            self.list.push(row);
        }
        has_room
    }

    /// That there were more of them, if there were.
    fn cut(&self, all: usize) -> Option<String> {
        let (shown, most) = (self.list.len(), self.most);
        (shown < all).then(|| {
            format!("the list is cut: {shown} of {all} blocks, as it may have {most} bytes")
        })
    }
}

impl Listing {
    /// The list.
    #[must_use]
    pub fn page(&self) -> Bytes {
        match &self.what {
            Listed::Matching(of) => self.matching(of),
            Listed::Ranked(policy, advice) => self.ranked(policy, advice),
        }
    }

    fn set(&self) -> &CandidateSet {
        &self.snapshot.blocks.all.candidates
    }

    fn question<'a>(&'a self, asked: &'a Asked, tried: &'a Tried) -> Question<'a> {
        Question {
            set: self.set(),
            asked,
            tried,
            moment: moment(&self.snapshot, self.stale_after),
            bound: None,
        }
    }

    fn now(&self) -> Now {
        Now::of(&self.snapshot, self.stale_after)
    }

    fn matching(&self, of: &Scored) -> Bytes {
        let (asked, tried) = (Asked::default(), Tried::default());
        let matching = blocks::matching(of, &self.question(&asked, &tried));
        let now = self.now();
        let mut documents = matching
            .iter()
            .filter_map(|n| Document::of(&self.snapshot, *n, now));
        let mut rows = Rows::new(MOST_MATCHING);
        while documents.next().is_some_and(|one| rows.add(&one)) {}
        let mut warnings = self.warnings.clone();
        warnings.extend(rows.cut(matching.len()));
        Reply::new(self.shape, Told::Blocks(rows.list), warnings).bytes()
    }

    fn ranked(&self, policy: &Policy, advice: &Advice) -> Bytes {
        let Some(of) = policy.spec.kind.scored() else {
            return Bytes::new();
        };
        let (asked, tried) = (Asked::default(), Tried::default());
        let question = self.question(&asked, &tried);
        let mut judged = blocks::judged(of, &question);
        let advised = self.advise(&mut judged, advice);
        let first = judged.first().filter(|one| one.excluded.is_none());
        let now = self.now();
        let found = match first {
            Some(first) => Document::of(&self.snapshot, first.unit, now).ok_or(Refusal::Nobody),
            None => {
                let refusal = blocks::best(of, &question, &mut Rng::with_seed(0));
                Err(refusal.err().unwrap_or(Refusal::Nobody))
            }
        };
        let (filter, all) = (of.filter.as_deref(), judged.len());
        let conditions = judged
            .first()
            .and_then(|first| self.seen(first.unit, filter, now));
        let conditions = conditions.into_iter().flatten();
        let conditions = conditions.map(|seen| seen.condition).collect();
        let mut rows = Rows::new(MOST_RANKED);
        for (at, judged) in judged.into_iter().enumerate() {
            let seen = filter.filter(|_| at < MOST_EXPLAINED);
            let row = Ranked {
                rank: at + 1,
                advised: advised && at == 0,
                ..self.one(judged, seen, now)
            };
            if !rows.add(&row) {
                break;
            }
        }
        let mut warnings = self.warnings.clone();
        warnings.extend(rows.cut(all));
        Reply {
            conditions: Some(conditions),
            ranked: Some(rows.list),
            ..Reply::found(self.shape, found, warnings)
        }
        .bytes()
    }

    /// Puts whoever is advised first; tells whether anyone is.
    fn advise(&self, judged: &mut [Judged], advice: &Advice) -> bool {
        let Advice::Ranked(ids) = advice else {
            return false;
        };
        let named = |judged: &[Judged], id: &String| {
            let mut open = judged.iter().enumerate();
            open.find(|(_, one)| one.excluded.is_none() && self.id(one.unit) == id)
                .map(|(at, _)| at)
        };
        let Some(at) = ids.iter().find_map(|id| named(judged, id)) else {
            return false;
        };
        judged[..=at].rotate_right(1);
        true
    }

    fn id(&self, unit: usize) -> &str {
        let groups = self.set().groups.as_deref();
        groups.map_or("", |groups| groups.id(unit))
    }

    fn members(&self, unit: usize) -> &[u32] {
        let groups = self.set().groups.as_deref();
        groups.map_or(&[], |groups| groups.members(unit))
    }

    /// What each condition sees of a block.
    fn seen(&self, unit: usize, filter: Option<&Query>, now: Now) -> Option<Vec<Seen>> {
        let subject = Subject {
            id: self.id(unit),
            list: self.set().list(),
            members: self.members(unit),
        };
        filter.map(|filter| filter.explain(&subject, now.by))
    }

    fn one(&self, judged: Judged, filter: Option<&Query>, now: Now) -> Ranked<'_> {
        let members = self.members(judged.unit).iter();
        let engines = members.filter_map(|at| self.set().list().get(*at as usize));
        let seen = self.seen(judged.unit, filter, now);
        let verdict = |seen: Seen| Verdict {
            holds: seen.holds,
            value: short(seen.value),
        };
        Ranked {
            id: self.id(judged.unit),
            rank: 0,
            advised: false,
            excluded: judged.excluded,
            score: judged.score,
            in_flight: engines.map(|one| one.engine.in_flight.load(Relaxed)).sum(),
            goals: judged.goals,
            conditions: seen.map(|seen| seen.into_iter().map(verdict).collect()),
        }
    }
}

/// A value as it is told: metadata may have long texts and lists, and objects.
fn short(value: Value) -> Value {
    match value {
        Value::Array(list) => list.into_iter().take(MOST_VALUES).map(short).collect(),
        Value::Object(_) => short(Value::String(value.to_string())),
        Value::String(mut text) if text.len() > MOST_VALUE => {
            let end = (0..=MOST_VALUE).rev().find(|at| text.is_char_boundary(*at));
            text.truncate(end.unwrap_or_default());
            text.push('…');
            Value::String(text)
        }
        value => value,
    }
}

#[cfg(test)]
impl Listing {
    /// All blocks of that snapshot.
    pub(crate) fn everything(snapshot: &Arc<Snapshot>) -> Self {
        Self {
            snapshot: Arc::clone(snapshot),
            what: Listed::Matching(Box::default()),
            stale_after: Duration::from_secs(60),
            shape: Shape::Parser,
            warnings: Vec::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::policies::{PolicyKind, PolicySpec};
    use crate::fleet::testing::{fleet, spec};
    use crate::query::envelope::Envelope;
    use crate::select;
    use serde_json::json;

    #[test]
    fn who_is_advised_comes_first_if_it_may_be_chosen() {
        let mut fleet = fleet();
        let specs = ["a", "b", "c"].map(|name| {
            let mut spec = spec(&format!("http://{name}:1"), &[name]);
            spec.closed = (name == "c").then_some(crate::fleet::Closed::Draining);
            spec
        });
        fleet.reconcile(specs.into());
        let snapshot = fleet.published().load_full();
        let kind = PolicyKind::Scored(Scored::default());
        let policy = Policy::new(PolicySpec::plain("p", kind), None);
        let ids = |advice: Advice| {
            let listing = Listing {
                what: Listed::Ranked(Arc::clone(&policy), advice),
                ..Listing::everything(&snapshot)
            };
            let page: Value = serde_json::from_slice(&listing.page()).unwrap();
            let first = &page["ranked"][0];
            assert_eq!(page["result"][1]["id"], first["id"]);
            (first["id"].clone(), first["advised"] == true)
        };
        let named = |ids: &[&str]| Advice::Ranked(ids.iter().map(ToString::to_string).collect());
        assert_eq!(ids(named(&["none", "c", "b", "a"])), (json!("b"), true));
        assert_eq!(ids(named(&["a"])), (json!("a"), true));
        assert!(!ids(named(&["c"])).1, "it drains");
        assert!(!ids(Advice::Failed("late".to_owned())).1);
        assert!(!ids(Advice::None).1);
    }

    #[test]
    fn all_that_match_are_listed_by_name() {
        let mut fleet = fleet();
        fleet.reconcile(vec![
            spec("http://z:1", &["z", "a"]),
            spec("http://y:1", &["a"]),
        ]);
        let snapshot = fleet.published().load_full();
        let page: Value = serde_json::from_slice(&Listing::everything(&snapshot).page()).unwrap();
        let ids: Vec<&Value> = page["result"]
            .as_array()
            .unwrap()
            .iter()
            .map(|one| &one["id"])
            .collect();
        assert_eq!(ids, ["a", "z"]);
        assert_eq!(page["result"][0]["instanceCount"], 2);
    }

    /// The page of a filter of 64 KiB, of so many blocks with that metadata.
    fn explained(blocks: usize, metadata: &Value) -> (usize, Value) {
        let mut fleet = fleet();
        let specs = (0..blocks).map(|n| {
            let mut spec = spec(&format!("http://b{n}:1"), &[&format!("b{n:04}")]);
            Arc::make_mut(&mut spec.traits).metadata = metadata.clone();
            spec
        });
        fleet.reconcile(specs.collect());
        let snapshot = fleet.published().load_full();
        let pattern = format!("*{}*", "x".repeat(220));
        let condition = json!({"variable": "component.text", "operator": "LIKE", "value": pattern});
        let conditions = vec![condition; 200];
        let text =
            json!({"filter": {"blockQuery": {"logicalOperator": "OR", "conditions": conditions}}});
        let text = text.to_string();
        assert!(
            (50_000..select::MOST_TEXT).contains(&text.len()),
            "{}",
            text.len()
        );
        let document = select::read(text.as_bytes()).unwrap();
        let envelope = Envelope::search(&document).unwrap();
        let selection = select::compile((&envelope, text.len()), &snapshot, None).unwrap();
        let listing = Listing {
            what: Listed::Ranked(selection.policy, Advice::None),
            ..Listing::everything(&snapshot)
        };
        let page = listing.page();
        (page.len(), serde_json::from_slice(&page).unwrap())
    }

    #[test]
    fn a_long_filter_makes_no_long_page() {
        let metadata = json!({"text": "y".repeat(5000)});
        let (bytes, page) = explained(1000, &metadata);
        assert!(bytes < 4 << 20, "{bytes}");
        assert_eq!(page["conditions"].as_array().unwrap().len(), 200);
        let ranked = page["ranked"].as_array().unwrap();
        assert_eq!(ranked.len(), 1000);
        for (at, one) in ranked.iter().enumerate() {
            let seen = one["conditions"].as_array().map(Vec::len);
            assert_eq!(seen, (at < MOST_EXPLAINED).then_some(200));
        }
        let first = &ranked[0]["conditions"][0];
        assert_eq!(first["holds"], false);
        assert_eq!(
            first["value"].as_str().unwrap().chars().count(),
            MOST_VALUE + 1
        );
    }

    #[test]
    fn a_list_that_is_too_long_is_cut_and_says_so() {
        let texts = vec!["y".repeat(5000); 16];
        let (bytes, page) = explained(40, &json!({"text": texts}));
        assert!(bytes < 5 << 20, "{bytes}");
        let shown = page["ranked"].as_array().unwrap().len();
        assert!((1..40).contains(&shown), "{shown}");
        let said = page["warnings"][0].as_str().unwrap();
        assert!(
            said.starts_with(&format!("the list is cut: {shown} of 40")),
            "{said}"
        );
    }
}
