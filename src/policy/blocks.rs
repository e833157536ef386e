//! Selecting a block by attributes: what `/api/search`, `/v1/infer` and requests
//! that leave their model open ask.

use fastrand::Rng;

pub use super::scored::Judged;
use super::units::Units;
use super::view::{Noted, View};
use super::{Question, Refusal, advised, scored};
use crate::config::policies::{PolicyKind, Scored};

/// The best block of the question's set; of equals the one with the fewest
/// requests in flight, then any.
///
/// # Errors
/// Why there is none.
pub fn best(of: &Scored, question: &Question<'_>, rng: &mut Rng) -> Result<usize, Refusal> {
    let noted = Noted::default();
    let view = View::new(question, &noted);
    let unit = scored::best(&Units::new(of, &view), rng);
    unit.ok_or_else(|| scored::refusal(of, &view))
}

/// Whether that block may be chosen now.
#[must_use]
pub fn fits(of: &Scored, question: &Question<'_>, block: usize) -> bool {
    let noted = Noted::default();
    Units::new(of, &View::new(question, &noted)).is_candidate(block)
}

/// The same by a policy that may have asked others: whoever is advised and may be
/// chosen comes first. A policy that does not select by attributes has nobody.
///
/// # Errors
/// Why there is none.
pub fn chosen(kind: &PolicyKind, question: &Question<'_>, rng: &mut Rng) -> Result<usize, Refusal> {
    if let PolicyKind::Advised(of) = kind {
        let noted = Noted::default();
        if let Some(unit) = advised::first(of, &View::new(question, &noted)) {
            return Ok(unit);
        }
    }
    best(kind.scored().ok_or(Refusal::Nobody)?, question, rng)
}

/// All that match, whether they are up or not.
#[must_use]
pub fn matching(of: &Scored, question: &Question<'_>) -> Vec<usize> {
    let noted = Noted::default();
    let view = View::new(question, &noted);
    let units = Units::new(of, &view);
    let all = (0..units.len()).map(|n| units.at(n));
    all.filter(|unit| units.matches(*unit)).collect()
}

/// What is known now of every goal's attribute of these, one after the other.
#[must_use]
pub fn values(of: &Scored, question: &Question<'_>, asked: &[usize]) -> Vec<Option<f64>> {
    let noted = Noted::default();
    let view = View::new(question, &noted);
    let units = Units::new(of, &view);
    let mut values = Vec::with_capacity(asked.len() * of.goals.len());
    for unit in asked {
        values.extend((0..of.goals.len()).map(|goal| units.value(*unit, goal)));
    }
    values
}

/// All of them as the selection sees them, the best first.
#[must_use]
pub fn judged(of: &Scored, question: &Question<'_>) -> Vec<Judged> {
    let noted = Noted::default();
    scored::judged(&Units::new(of, &View::new(question, &noted)))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use super::*;
    use crate::config::policies::{Advised, Adviser};
    use crate::fleet::EngineUrl;
    use crate::fleet::testing::{fleet, spec};
    use crate::policy::{Advice, Asked, Moment, Rules, Tried};

    #[test]
    fn the_first_that_is_advised_and_may_be_chosen_is() {
        let mut fleet = fleet();
        let specs = ["a", "b", "c"].map(|name| {
            let mut spec = spec(&format!("http://{name}:1"), &[name]);
            spec.closed = (name == "c").then_some(crate::fleet::Closed::Draining);
            spec
        });
        fleet.reconcile(specs.into());
        let snapshot = fleet.published().load_full();
        let kind = PolicyKind::Advised(Box::new(Advised {
            adviser: Adviser::Remote {
                url: EngineUrl::parse("http://m:1").unwrap(),
            },
            deadline: Duration::from_secs(1),
            ttl: Duration::from_secs(1),
            then: Scored::default(),
            parameters: Arc::from("{}"),
        }));
        let ask = |kind: &PolicyKind, ids: &[&str]| {
            let asked = Asked {
                advice: Advice::Ranked(ids.iter().map(ToString::to_string).collect()),
                ..Asked::default()
            };
            let question = Question {
                set: &snapshot.blocks.all.candidates,
                asked: &asked,
                tried: &Tried::default(),
                moment: Moment {
                    now: Duration::from_secs(1),
                    stale_after: Duration::from_secs(60),
                    rules: Rules::of(&snapshot.settings),
                },
                bound: None,
            };
            chosen(kind, &question, &mut Rng::with_seed(1))
        };
        assert_eq!(ask(&kind, &["none", "c", "b", "a"]), Ok(1));
        assert_eq!(ask(&kind, &["a"]), Ok(0));
        assert!(ask(&kind, &["c"]).is_ok_and(|unit| unit < 2), "it drains");
        let deaf = PolicyKind::Scored(Scored::default());
        let all: Vec<_> = (0..2).map(|_| ask(&deaf, &["c"])).collect();
        assert!(all.iter().all(|unit| matches!(unit, Ok(0 | 1))));
        assert_eq!(ask(&PolicyKind::RoundRobin, &["a"]), Err(Refusal::Nobody));
    }
}
