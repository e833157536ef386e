//! Among the nearest of a model's engines, nobody is chosen for want of a better
//! one: others are asked then.

use super::*;
use crate::config::Locality;
use crate::fleet::Model;
use crate::fleet::near::Nearness;
use crate::metrics::ModelRegistry;

/// Three engines in our zone and two elsewhere, under that policy.
fn near(policy: &str) -> Arc<Snapshot> {
    let zones = ["z", "z", "z", "y", "y"].iter().enumerate();
    let engines: Vec<_> = zones
        .map(|(n, zone)| {
            serde_json::json!({
                "url": format!("http://e{n}:1"), "models": ["m"], "region": zone,
                "privacy": "restricted",
            })
        })
        .collect();
    let locality = Locality {
        zone: Some("z".to_owned()),
        ..Locality::default()
    };
    let mut fleet = Fleet::at(locality, ModelRegistry::default());
    let keys = serde_json::json!({
        "routing_logic": policy, "prefer_local": true, "limits": {"max_in_flight_per_engine": 4},
    });
    set_up(&mut fleet, &keys, &engines);
    fleet.published().load_full()
}

/// Who is chosen of those, by whole names.
fn among(model: &Model, snapshot: &Snapshot, tried: &Tried) -> Result<String, Refusal> {
    let asked = request(1);
    let set = &model.candidates;
    let question = Question {
        set,
        asked: &asked,
        tried,
        moment: Moment {
            rules: Rules::of(&snapshot.settings),
            ..moment()
        },
        bound: None,
    };
    let kind = &snapshot.policies.default.spec.kind;
    let at = decide(kind, &question, &mut Rng::with_seed(2))?;
    Ok(set.list()[at].engine.url.text().to_owned())
}

fn eject(engine: &Engine) {
    for _ in 0..5 {
        (engine.health).learn(Standing::Trusted, Outcome::Failure, NOW);
    }
}

#[test]
fn the_nearest_are_chosen_or_refused_and_all_are_asked_next() {
    let none = Tried::default();
    for policy in PolicyKind::NAMES {
        let snapshot = near(policy);
        let model = snapshot.model("m").unwrap();
        let kind = &snapshot.policies.default.spec.kind;
        if kind.scored().is_some() {
            assert!(model.nearer(kind).is_empty(), "{policy}");
            continue;
        }
        let [tier] = model.nearer(kind) else {
            panic!("{policy}: {}", model.near.len());
        };
        assert_eq!(tier.candidates.tier, Some(Nearness::Zone));
        let engines = || tier.candidates.list().iter().map(|one| &one.engine);
        let is_near = |url: &str| ["http://e0:1", "http://e1:1", "http://e2:1"].contains(&url);
        assert!(is_near(&among(tier, &snapshot, &none).unwrap()), "{policy}");

        let mut tried = none.clone();
        engines().for_each(|engine| tried.add(engine));
        assert_eq!(
            among(tier, &snapshot, &tried),
            Err(Refusal::Nobody),
            "{policy}"
        );
        assert!(
            !is_near(&among(model, &snapshot, &tried).unwrap()),
            "{policy}"
        );

        engines().for_each(|engine| engine.in_flight.store(4, Relaxed));
        assert_eq!(
            among(tier, &snapshot, &none),
            Err(Refusal::Full),
            "{policy}"
        );
        assert!(
            !is_near(&among(model, &snapshot, &none).unwrap()),
            "{policy}"
        );
        engines().for_each(|engine| engine.in_flight.store(0, Relaxed));
    }
}

#[test]
fn too_few_that_are_left_are_not_drowned() {
    for policy in ["roundrobin", "session", "leastload", "federation"] {
        for (ejected, is_asked) in [(1, true), (2, false), (3, false)] {
            let snapshot = near(policy);
            let model = snapshot.model("m").unwrap();
            let engines = model.near[0].candidates.list().iter();
            engines.take(ejected).for_each(|one| eject(&one.engine));
            let chosen = among(&model.near[0], &snapshot, &Tried::default());
            match chosen {
                Ok(url) => assert!(is_asked && url != "http://e0:1", "{policy} {url}"),
                Err(refusal) => {
                    assert_eq!(
                        (is_asked, refusal),
                        (false, Refusal::AllUnhealthy),
                        "{policy}"
                    );
                    among(model, &snapshot, &Tried::default()).unwrap();
                }
            }
        }
    }
}

#[test]
fn under_pressure_the_nearest_are_no_last_resort() {
    let snapshot = near("roundrobin");
    let model = snapshot.model("m").unwrap();
    for one in model.near[0].candidates.list() {
        (one.engine.health).learn(Standing::Trusted, Outcome::Overloaded, NOW);
    }
    let none = Tried::default();
    let refused = among(&model.near[0], &snapshot, &none);
    assert_eq!(refused, Err(Refusal::AllUnhealthy));
    assert_eq!(among(model, &snapshot, &none).unwrap(), "http://e3:1");
}
