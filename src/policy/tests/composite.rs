//! Goals, the federation, and what they give to other policies.

use super::*;

fn scored(picker: &str) -> Arc<Snapshot> {
    let engines: Vec<_> = [(1.0, 10.0), (3.0, 30.0), (2.0, 20.0)]
        .iter()
        .enumerate()
        .map(|(n, (quality, price))| {
            serde_json::json!({
                "url": format!("http://e{n}:1"), "models": ["m"],
                "cost": {"input_per_mtok": price, "output_per_mtok": price},
                "metadata": {"quality": {"value": quality}},
            })
        })
        .collect();
    world_of(
        &serde_json::json!({
            "routing_logic": "p",
            "policies": {"p": {"type": "scored", "picker": picker, "top_k": 2, "goals": [
                {"attribute": "quality.value", "direction": "max", "weight": 3},
                {"attribute": "cost_per_output_mtok", "direction": "min"},
            ]}},
        }),
        &engines,
    )
}

#[test]
fn goals_decide() {
    assert_eq!(counts(&scored("argmax"), &Asked::default(), 50), [0, 50, 0]);
    let top = counts(&scored("top_k"), &Asked::default(), 1000);
    assert!(top[0] == 0 && top[1] > 400 && top[2] > 400, "{top:?}");
    let soft = counts(&scored("softmax"), &Asked::default(), 3000);
    assert!(soft[1] > 2500 && soft[2] > soft[0], "{soft:?}");
    let drawn = counts(&scored("weighted"), &Asked::default(), 3000);
    // Scores 0.25, 0.75 and 0.5.
    assert!(
        (400..600).contains(&drawn[0]) && (1350..1650).contains(&drawn[1]),
        "{drawn:?}"
    );
}

#[test]
fn what_is_not_known_never_wins() {
    let snapshot = world_of(
        &serde_json::json!({
            "routing_logic": "p",
            "policies": {"p": {"type": "scored", "goals": [
                {"attribute": "ttft_ms", "direction": "min"},
            ]}},
        }),
        &engines(&[1.0; 3]),
    );
    let list = candidates(&snapshot).list();
    for (at, ttft, age) in [(0, 900.0, 0), (1, 400.0, 0), (2, 1.0, 61)] {
        let mut values = [None; Place::COUNT];
        values[Live::TtftMs as usize] = Some(ttft);
        list[at]
            .engine
            .told(&values, NOW - Duration::from_secs(age));
    }
    assert_eq!(counts(&snapshot, &Asked::default(), 50), [0, 50, 0]);
}

#[test]
fn a_named_goal_is_the_mean_of_its_metrics() {
    let engines: Vec<_> = [(7, 80, 0), (7, 40, 9), (70, 40, 10)]
        .iter()
        .enumerate()
        .map(|(n, (parameters, memory, quality))| {
            serde_json::json!({
                "url": format!("http://e{n}:1"), "models": ["m"],
                "metadata": {"quality": quality, "componentMetadata": {
                    "architecture": {"parameterCountB": parameters},
                    "hardware": {"gpus": [{"totalMem": memory}]},
                }},
            })
        })
        .collect();
    let snapshot = world_of(
        &serde_json::json!({
            "routing_logic": "p",
            "policies": {"p": {"type": "scored", "goals": [
                {"name": "Cost_Saver", "weight": 3},
                {"attribute": "quality", "direction": "max"},
            ]}},
        }),
        &engines,
    );
    let question = Question {
        set: candidates(&snapshot),
        asked: &Asked::default(),
        tried: &Tried::default(),
        moment: moment(),
        bound: None,
    };
    let verdicts = explain::explain(&snapshot.policies.default.spec.kind, &question);
    // Cost_Saver: 0.5, 1 and 0.5; quality: 0, 0.9 and 1.
    let expected = [
        (1, (3.0 * 1.0 + 0.9) / 4.0),
        (2, (3.0 * 0.5 + 1.0) / 4.0),
        (0, (3.0 * 0.5) / 4.0),
    ];
    for (verdict, (at, score)) in verdicts.iter().zip(expected) {
        assert_eq!(verdict.at, at);
        assert!((verdict.cost + score).abs() < 1e-9, "{verdict:?}");
        let shown = serde_json::to_value(&verdict.goals).unwrap();
        assert_eq!(shown[1]["goal"], "Cost_Saver");
        assert_eq!(shown[1]["attribute"], "hardware.gpus[0].totalMem");
        assert_eq!(shown[1]["weight"], 1.5);
        assert!(shown[2].get("goal").is_none(), "{shown}");
    }
}

fn federation(extra: &serde_json::Value) -> Arc<Snapshot> {
    let mut policy = serde_json::json!({"type": "federation", "region": "eu"});
    policy
        .as_object_mut()
        .unwrap()
        .extend(extra.as_object().unwrap().clone());
    let engine = |name: &str, more: serde_json::Value| {
        let mut engine = serde_json::json!({"url": format!("http://{name}:1"), "models": ["m"]});
        engine
            .as_object_mut()
            .unwrap()
            .extend(more.as_object().unwrap().clone());
        engine
    };
    let engines = [
        engine(
            "a",
            serde_json::json!({"region": "eu", "labels": {"model_type": "chat"}}),
        ),
        engine(
            "b",
            serde_json::json!({"region": "us", "privacy": "restricted"}),
        ),
        engine(
            "c",
            serde_json::json!({"labels": {"gpu": "none"}, "privacy": "public"}),
        ),
    ];
    world_of(
        &serde_json::json!({"routing_logic": "f", "policies": {"f": policy}}),
        &engines,
    )
}

#[test]
fn a_federation_scores_as_the_reference() {
    let snapshot = federation(&serde_json::json!({"max_candidates": 1}));
    for one in candidates(&snapshot).list() {
        one.engine.latency.observe(Duration::from_millis(50), NOW);
    }
    let question = Question {
        set: candidates(&snapshot),
        asked: &Asked::default(),
        tried: &Tried::default(),
        moment: moment(),
        bound: None,
    };
    let verdicts = explain::explain(&snapshot.policies.default.spec.kind, &question);
    // 2 x 1.0, 0.99, 1, 0.5 + 0.3 x 1, 0.5; the reference has 0.65 for the
    // locality that it does not know.
    let part = |name| verdicts[0].parts.iter().find(|(known, _)| *known == name);
    let score = part("score").unwrap().1;
    assert!(
        (score - (2.0 + 0.99 + 1.0 + 0.8 + 0.5) / 5.0).abs() < 1e-6,
        "{score}"
    );
    assert_eq!(verdicts[0].at, 0);
    let excluded = [1, 2].map(|n| verdicts[n].excluded.unwrap());
    assert!(excluded.contains(&"not trusted enough"), "{excluded:?}");
    assert!(excluded.contains(&"not among the max_candidates best"));
    assert_eq!(counts(&snapshot, &Asked::default(), 20), [20, 0, 0]);
}

#[test]
fn a_federation_says_what_is_wrong() {
    let snapshot = federation(&serde_json::json!({}));
    let with = |qos: &str, capability| Asked {
        qos: Qos::parse(qos).unwrap(),
        capability,
        ..Asked::default()
    };
    let mut rng = Rng::with_seed(1);
    let mut ask = |asked: Asked| choose(&snapshot, &asked, &Tried::default(), &mut rng);
    assert_eq!(ask(with("privacy=restricted", None)), Ok(1));
    assert!(matches!(
        ask(with("", Some(Capability::Generate))),
        Ok(0 | 1)
    ));
    assert_eq!(
        ask(with("max_latency_ms=900", None)),
        Err(Refusal::QosViolation)
    );
    assert_eq!(
        ask(with("min_tokens_per_second=1", None)),
        Err(Refusal::QosViolation)
    );
    let list = candidates(&snapshot).list();
    list[0]
        .engine
        .latency
        .observe(Duration::from_millis(80), NOW);
    assert_eq!(ask(with("max_latency_ms=900", None)), Ok(0));
    for _ in 0..5 {
        list[1]
            .engine
            .health
            .learn(Standing::Trusted, Outcome::Failure, NOW);
    }
    assert_eq!(
        ask(with("privacy=restricted", None)),
        Err(Refusal::PrivacyViolation)
    );
    for one in list {
        for _ in 0..5 {
            one.engine
                .health
                .learn(Standing::Trusted, Outcome::Failure, NOW);
        }
    }
    assert_eq!(ask(with("", None)), Err(Refusal::AllUnhealthy));

    let only_chat = world_of(
        &serde_json::json!({"routing_logic": "federation"}),
        &[
            serde_json::json!({"url": "http://a:1", "models": ["m"], "labels": {"model_type": "chat"}}),
        ],
    );
    let embed = with("", Some(Capability::Embed));
    let refused = choose(&only_chat, &embed, &Tried::default(), &mut rng);
    assert_eq!(refused, Err(Refusal::NoCapacity));
    let picky = federation(&serde_json::json!({"min_score": 2.0}));
    let refused = choose(&picky, &Asked::default(), &Tried::default(), &mut rng);
    assert_eq!(refused, Err(Refusal::LowScore));
}

#[test]
fn a_strategy_chooses_among_the_best_alone() {
    for strategy in PolicyKind::NAMES {
        if matches!(strategy, "federation" | "sequential" | "smart") {
            continue;
        }
        let more =
            serde_json::json!({"strategy": strategy, "privacy": "public", "max_candidates": 2});
        let snapshot = federation(&more);
        for n in 0..100 {
            let at = choose(
                &snapshot,
                &request(n),
                &Tried::default(),
                &mut Rng::with_seed(n),
            );
            assert!(matches!(at, Ok(0 | 1)), "{strategy}: {at:?}");
        }
    }
}
