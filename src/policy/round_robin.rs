//! Round-robin: one shared counter for each candidate set, so that counts
//! differ by at most one while the set is unchanged.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use super::Tried;
use crate::fleet::{CandidateSet, Engine};

/// The next engine in turn that was not tried.
pub(super) fn pick<'a>(candidates: &'a CandidateSet, tried: &Tried) -> Option<&'a Arc<Engine>> {
    let engines = candidates.engines();
    if engines.is_empty() {
        return None;
    }
    let turn = candidates.cursor.fetch_add(1, Relaxed) % engines.len();
    let (before, from) = engines.split_at(turn);
    (from.iter().chain(before)).find(|engine| !tried.contains(engine))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fleet::{EngineSpec, EngineUrl, Fleet};
    use crate::metrics::ModelRegistry;
    use crate::policy::{Policy, decide};

    fn fleet_of(count: usize) -> Fleet {
        let mut fleet = Fleet::new(Policy::RoundRobin, ModelRegistry::default());
        fleet.reconcile(
            (0..count)
                .map(|n| EngineSpec {
                    url: EngineUrl::parse(&format!("http://e{n}:1")).unwrap(),
                    models: vec!["m".to_owned()],
                })
                .collect(),
        );
        fleet
    }

    #[test]
    fn each_in_its_turn() {
        let snapshot = fleet_of(3).published().load_full();
        let set = &snapshot.model("m").unwrap().candidates;
        let picks: Vec<&str> = (0..6)
            .map(|_| decide(Policy::RoundRobin, set, &Tried::default()).unwrap())
            .map(|engine| engine.spec.url.host())
            .collect();
        assert_eq!(picks, ["e0", "e1", "e2", "e0", "e1", "e2"]);
    }

    #[test]
    fn tried_engines_are_left_out_until_none_is_left() {
        let snapshot = fleet_of(2).published().load_full();
        let set = &snapshot.all.candidates;
        let mut tried = Tried::default();
        let first = decide(Policy::RoundRobin, set, &tried).unwrap();
        tried.add(first);
        let second = decide(Policy::RoundRobin, set, &tried).unwrap();
        assert_ne!(first.key, second.key);
        tried.add(second);
        assert!(decide(Policy::RoundRobin, set, &tried).is_none());
    }

    #[test]
    fn no_engines_no_choice() {
        let snapshot = fleet_of(0).published().load_full();
        let chosen = decide(
            Policy::RoundRobin,
            &snapshot.all.candidates,
            &Tried::default(),
        );
        assert!(chosen.is_none());
    }
}
