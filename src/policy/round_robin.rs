//! Round-robin: one shared counter for each candidate set, so that counts
//! differ by at most one while the set is unchanged.

use std::sync::atomic::Ordering::Relaxed;

use super::Tried;
use crate::fleet::{Candidate, CandidateSet};

/// The next engine in turn that was not tried.
pub(super) fn pick<'a>(candidates: &'a CandidateSet, tried: &Tried) -> Option<&'a Candidate> {
    let list = candidates.list();
    if list.is_empty() {
        return None;
    }
    let turn = candidates.cursor.fetch_add(1, Relaxed) % list.len();
    let (before, from) = list.split_at(turn);
    (from.iter().chain(before)).find(|one| !tried.contains(&one.engine))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fleet::Fleet;
    use crate::fleet::testing::{fleet, spec};
    use crate::policy::{Asked, Policy, decide};

    fn fleet_of(count: usize) -> Fleet {
        let mut fleet = fleet();
        let specs = (0..count).map(|n| spec(&format!("http://e{n}:1"), &["m"]));
        fleet.reconcile(specs.collect());
        fleet
    }

    fn next<'a>(set: &'a CandidateSet, tried: &Tried) -> Option<&'a Candidate> {
        decide(Policy::RoundRobin, set, Asked::default(), tried)
    }

    #[test]
    fn each_in_its_turn() {
        let snapshot = fleet_of(3).published().load_full();
        let set = &snapshot.model("m").unwrap().candidates;
        let picks: Vec<&str> = (0..6)
            .map(|_| next(set, &Tried::default()).unwrap())
            .map(|one| one.engine.url.host())
            .collect();
        assert_eq!(picks, ["e0", "e1", "e2", "e0", "e1", "e2"]);
    }

    #[test]
    fn tried_engines_are_left_out_until_none_is_left() {
        let snapshot = fleet_of(2).published().load_full();
        let set = &snapshot.all.candidates;
        let mut tried = Tried::default();
        let first = next(set, &tried).unwrap();
        tried.add(&first.engine);
        let second = next(set, &tried).unwrap();
        assert_ne!(first.engine.key, second.engine.key);
        tried.add(&second.engine);
        assert!(next(set, &tried).is_none());
    }

    #[test]
    fn no_engines_no_choice() {
        let snapshot = fleet_of(0).published().load_full();
        assert!(next(&snapshot.all.candidates, &Tried::default()).is_none());
    }
}
