//! Lists of blocks: all that match, and all ranked with the reasons.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use bytes::Bytes;
use fastrand::Rng;
use serde::Serialize;
use serde_json::{Value, json};

use super::{Reply, Shape, Told};
use crate::api::blocks::{Document, Now};
use crate::config::policies::Scored;
use crate::fleet::{CandidateSet, Snapshot};
use crate::policy::blocks::{self, Judged};
use crate::policy::explain::GoalVerdict;
use crate::policy::{Advice, Asked, Policy, Question, Refusal, Tried};
use crate::proxy::search::moment;
use crate::query::{Query, Subject};

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
    /// What the filter saw.
    conditions: Vec<Value>,
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
        let documents = matching.into_iter();
        let documents = documents.filter_map(|n| Document::of(&self.snapshot, n, now));
        let told = Told::Blocks(documents.collect());
        Reply::<()>::new(self.shape, told, self.warnings.clone()).bytes()
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
        let ranked = judged.into_iter().enumerate();
        let ranked = ranked.map(|(at, judged)| Ranked {
            rank: at + 1,
            advised: advised && at == 0,
            ..self.one(judged, of.filter.as_deref(), now)
        });
        let reply = Reply::found(self.shape, found, self.warnings.clone());
        Reply {
            ranked: Some(ranked.collect()),
            ..reply
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

    fn one(&self, judged: Judged, filter: Option<&Query>, now: Now) -> Ranked<'_> {
        let set = self.set();
        let members = set.groups.as_deref();
        let members = members.map_or(&[][..], |groups| groups.members(judged.unit));
        let engines = members.iter().filter_map(|at| set.list().get(*at as usize));
        let subject = Subject {
            id: self.id(judged.unit),
            list: set.list(),
            members,
        };
        let seen = filter.map(|filter| filter.explain(&subject, now.by));
        let seen = seen.into_iter().flatten();
        let condition = |seen: crate::query::Seen| json!({"condition": seen.condition, "holds": seen.holds, "value": seen.value});
        Ranked {
            id: subject.id,
            rank: 0,
            advised: false,
            excluded: judged.excluded,
            score: judged.score,
            in_flight: engines.map(|one| one.engine.in_flight.load(Relaxed)).sum(),
            goals: judged.goals,
            conditions: seen.map(condition).collect(),
        }
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

    #[test]
    fn who_is_advised_comes_first_if_it_may_be_chosen() {
        let mut fleet = fleet();
        let specs = ["a", "b", "c"].map(|name| {
            let mut spec = spec(&format!("http://{name}:1"), &[name]);
            Arc::make_mut(&mut spec.traits).draining = name == "c";
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
}
