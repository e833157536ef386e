//! The same engine for the same session, by the ring of the candidate set; a
//! request without a session goes to the engine with the fewest in flight.

use std::sync::atomic::Ordering::Relaxed;

use super::{Asked, Tried};
use crate::fleet::{Candidate, CandidateSet};

/// The session's owner, or the next one that was not tried.
pub(super) fn pick<'a>(
    candidates: &'a CandidateSet,
    asked: Asked<'_>,
    tried: &Tried,
) -> Option<&'a Candidate> {
    match asked.session {
        Some(session) => candidates
            .owners(session)
            .find(|one| !tried.contains(&one.engine)),
        None => least_in_flight(candidates, tried),
    }
}

/// Among equals, each in its turn.
fn least_in_flight<'a>(candidates: &'a CandidateSet, tried: &Tried) -> Option<&'a Candidate> {
    let list = candidates.list();
    if list.is_empty() {
        return None;
    }
    let turn = candidates.cursor.fetch_add(1, Relaxed) % list.len();
    let (before, from) = list.split_at(turn);
    from.iter()
        .chain(before)
        .filter(|one| !tried.contains(&one.engine))
        .min_by_key(|one| one.engine.in_flight.load(Relaxed))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::config::{Routing, SessionKey, Settings};
    use crate::fleet::Snapshot;
    use crate::fleet::testing::{fleet, spec};
    use crate::policy::{Policy, decide};

    fn snapshot(urls: &[&str]) -> Arc<Snapshot> {
        let mut fleet = fleet();
        let key = SessionKey {
            field: http::HeaderName::from_static("x-user-id"),
            key: Arc::from("x-user-id"),
        };
        let settings = Settings {
            routing: Routing::Session { key },
            ..Settings::default()
        };
        let specs = urls.iter().map(|url| spec(url, &["m"])).collect();
        fleet.apply(Arc::new(settings), specs);
        fleet.published().load_full()
    }

    fn owner<'a>(snapshot: &'a Snapshot, session: &str, tried: &Tried) -> Option<&'a Candidate> {
        let asked = Asked {
            session: Some(session),
        };
        let set = &snapshot.model("m").unwrap().candidates;
        decide(Policy::Session, set, asked, tried)
    }

    #[test]
    fn a_session_stays_and_a_new_engine_moves_only_its_own_share() {
        let three = snapshot(&["http://a:1", "http://b:1", "http://c:1"]);
        let four = snapshot(&["http://a:1", "http://b:1", "http://c:1", "http://d:1"]);
        let mut moved = 0;
        for n in 0..1000 {
            let session = format!("user-{n}");
            let url = |of| {
                owner(of, &session, &Tried::default())
                    .unwrap()
                    .engine
                    .url
                    .text()
            };
            assert_eq!(url(&three), url(&three));
            if url(&three) != url(&four) {
                assert_eq!(url(&four), "http://d:1");
                moved += 1;
            }
        }
        assert!((150..350).contains(&moved), "{moved}");
    }

    #[test]
    fn a_tried_owner_is_passed_over_until_none_is_left() {
        let snapshot = snapshot(&["http://a:1", "http://b:1"]);
        let mut tried = Tried::default();
        for _ in 0..2 {
            let one = owner(&snapshot, "x", &tried).unwrap();
            assert!(!tried.contains(&one.engine));
            tried.add(&one.engine);
        }
        assert!(owner(&snapshot, "x", &tried).is_none());
    }

    #[test]
    fn without_a_session_the_least_loaded_in_turn() {
        let snapshot = snapshot(&["http://a:1", "http://b:1", "http://c:1"]);
        let set = &snapshot.model("m").unwrap().candidates;
        set.list()[1].engine.in_flight.store(1, Relaxed);
        let picks: Vec<&str> = (0..6)
            .map(|_| decide(Policy::Session, set, Asked::default(), &Tried::default()))
            .map(|one| one.unwrap().engine.url.host())
            .collect();
        assert_eq!(picks, ["a", "c", "c", "a", "c", "c"]);
    }
}
