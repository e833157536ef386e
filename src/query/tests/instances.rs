//! What holds of blocks of several instances: any of them, all together, and
//! when what they told is too old.

use super::*;

/// Two instances that told of late, and one that told long ago.
fn block() -> World {
    let hardware = |memory: &[u64]| {
        let gpus: Vec<Value> = memory.iter().map(|mem| json!({"totalMem": mem})).collect();
        json!({"gpus": gpus, "model": "H100"})
    };
    let world = World::of(&[
        json!({
            "region": "eu-west", "privacy": "internal", "engine_type": "vllm", "models": ["m", "llama"],
            "labels": {"cluster.id": "c1", "tier": "gold", "cluster": "unused", "regionId": "west"},
            "cost": {"input_per_mtok": 0.5, "output_per_mtok": 2.0},
            "metadata": {"hardware": hardware(&[80, 40]), "score": 1, "tags": ["a", "b"]},
        }),
        json!({
            "region": "eu-west", "privacy": "restricted",
            "labels": {"cluster": "c2", "zone": "b"},
            "cost": {"input_per_mtok": 1.5, "output_per_mtok": 2.0},
            "metadata": {"componentMetadata": {"hardware": hardware(&[24])}, "score": 5},
        }),
        json!({"labels": {"id": "c3"}, "metadata": {"hardware": {"gpus": null}, "score": "high"}}),
    ]);
    let (running, waiting) = (Live::RequestsRunning.into(), Live::RequestsWaiting.into());
    let (speed, up) = (Live::BusyTokensPerSecond.into(), Live::UptimeHours.into());
    let heat = Place::own(0).unwrap();
    world.tell(
        0,
        &[
            (running, 3.0),
            (waiting, 1.0),
            (speed, 20.0),
            (up, 12.0),
            (heat, 70.0),
        ],
        1,
    );
    world.tell(1, &[(running, 1.0), (waiting, 5.0), (speed, 40.0)], 30);
    world.tell(2, &[(running, 100.0), (speed, 9000.0), (up, 900.0)], 61);
    let busy = &world.list()[0].engine;
    busy.in_flight
        .store(2, std::sync::atomic::Ordering::Relaxed);
    busy.outstanding
        .store(500, std::sync::atomic::Ordering::Relaxed);
    let took = Duration::from_millis(250);
    busy.latency.observe(took, NOW);
    world
}

#[test]
#[expect(clippy::too_many_lines, reason = "a table")]
fn conditions_on_instances() {
    let world = block();
    for (variable, operator, value, expected) in [
        ("id", "==", json!("blk-1"), true),
        ("id", "LIKE", json!("blk-*"), true),
        ("id", "IN", json!(["blk-2"]), false),
        // The sum of what is counted, else the mean, of those that told of late.
        ("requests_running", "==", json!(4), true),
        ("llm_active_sessions", "==", json!(4), true),
        ("queue_length", "==", json!(6), true),
        ("queue_length.current", "==", json!(6), true),
        ("requests_waiting", "BETWEEN", json!([5.5, 6.5]), true),
        ("llm_tokens_per_second", "==", json!(30), true),
        ("llm_tokens_per_second", "IN", json!([30, 31]), true),
        ("uptime_hours", "==", json!(12), true),
        ("gpu_heat", ">=", json!(70), true),
        ("in_flight", "==", json!(2), true),
        ("outstanding_tokens", "==", json!(500), true),
        ("latency_ms", "BETWEEN", json!([249, 251]), true),
        ("cost_per_input_mtok", "==", json!(1), true),
        ("ttft_ms", "<", json!(1e9), false),
        ("ttft_ms", "!=", json!(5), true),
        ("ttft_ms", "==", json!(null), true),
        ("ttft_ms", "EXISTS", json!(false), true),
        // Any instance.
        ("instances.requests_running", "==", json!(3), true),
        ("instances.requests_running", "==", json!(100), false),
        ("instances.requests_running", "!=", json!(1), false),
        ("instances.queue_length", ">", json!(4), true),
        ("instances.uptime_hours", ">", json!(12), false),
        ("instances.in_flight", "==", json!(0), true),
        ("instances.gpu_heat", ">", json!(60), true),
        ("instances.score", "==", json!(5), true),
        ("instances.score", "LIKE", json!("hi*"), true),
        ("instances.score", "!=", json!(5), false),
        ("instances.hardware.gpus.totalMem", "==", json!(24), true),
        ("instances.hardware.gpus[1].totalMem", "==", json!(40), true),
        (
            "instances.hardware.gpus[2].totalMem",
            "EXISTS",
            json!(false),
            true,
        ),
        ("instances.tags", "CONTAINS", json!("b"), true),
        // Metadata are the first instance's.
        ("score", "==", json!(1), true),
        ("score", "==", json!(5), false),
        // What is said of any instance.
        ("region", "==", json!("eu-west"), true),
        ("region", "LIKE", json!("eu-*"), true),
        ("region", "!=", json!("us"), true),
        ("privacy", "==", json!("internal"), true),
        ("privacy", "IN", json!(["restricted"]), true),
        ("privacy", "==", json!("public"), false),
        ("engine_type", "==", json!("vllm"), true),
        ("engine_type", "==", json!("sglang"), false),
        ("models", "CONTAINS", json!("llama"), true),
        ("models", "CONTAINS", json!("lla"), false),
        ("models", "LIKE", json!("lla*"), true),
        ("models", "!=", json!("m"), false),
        ("url", "LIKE", json!("http://e1:*"), true),
        ("labels.tier", "==", json!("gold"), true),
        ("labels.cluster.id", "==", json!("c1"), true),
        ("labels.none", "EXISTS", json!(false), true),
        ("cluster.id", "==", json!("c1"), true),
        ("cluster.id", "==", json!("c2"), true),
        ("cluster.id", "==", json!("c3"), true),
        ("cluster.id", "==", json!("unused"), false),
        ("cluster.regionId", "==", json!("west"), true),
        ("cluster.regionId", "==", json!("eu-west"), true),
        ("cluster.tier", "==", json!("gold"), true),
        ("cluster.zone", "!=", json!("b"), false),
        ("cluster.none", "!=", json!("b"), true),
    ] {
        let asked = condition(variable, operator, &value);
        assert_eq!(world.meets(&parse(&asked).unwrap()), expected, "{asked}");
    }
}

#[test]
#[expect(clippy::too_many_lines, reason = "a table")]
fn aggregates_over_instances() {
    let world = block();
    for (how, target, operator, value, expected) in [
        (
            "avg",
            "instances.llm_tokens_per_second",
            "==",
            json!(30),
            true,
        ),
        (
            "AVG",
            "instances.llm_tokens_per_second",
            ">",
            json!(30),
            false,
        ),
        (
            "sum",
            "instances.llm_tokens_per_second",
            "==",
            json!(60),
            true,
        ),
        (
            "min",
            "instances.llm_tokens_per_second",
            "<=",
            json!(20),
            true,
        ),
        (
            "max",
            "instances.llm_tokens_per_second",
            ">=",
            json!(40),
            true,
        ),
        (
            "max",
            "instances.llm_tokens_per_second",
            ">",
            json!(40),
            false,
        ),
        (
            "count",
            "instances.llm_tokens_per_second",
            "==",
            json!(2),
            true,
        ),
        ("avg", "instances.llm_active_sessions", "==", json!(2), true),
        (
            "max",
            "instances.llm_active_sessions",
            "between",
            json!([3, 3]),
            true,
        ),
        (
            "avg",
            "instances.queue_length.current",
            "==",
            json!(3),
            true,
        ),
        ("avg", "instances.uptime_hours", ">", json!(10), true),
        ("avg", "instances.uptime_hours", "!=", json!(12), false),
        ("count", "instances.uptime_hours", "==", json!(1), true),
        ("sum", "instances.in_flight", "==", json!(2), true),
        ("max", "instances.latency_ms", "<", json!(300), true),
        ("max", "instances.gpu_heat", "<", json!(80), true),
        ("avg", "llm_tokens_per_second", "==", json!(30), true),
        // No samples: nothing, whatever is asked; their count is 0.
        ("avg", "instances.ttft_ms", "<", json!(1e9), false),
        ("avg", "instances.ttft_ms", "!=", json!(1), false),
        ("sum", "instances.ttft_ms", "==", json!(0), false),
        ("min", "instances.ttft_ms", "<", json!(1), false),
        ("max", "instances.ttft_ms", "BETWEEN", json!([0, 1]), false),
        ("count", "instances.ttft_ms", "==", json!(0), true),
        ("count", "instances.nothing", "<", json!(1), true),
        // Instances, and what is said of them.
        ("count", "instances", "==", json!(3), true),
        ("count", "instances", ">", json!(3), false),
        ("sum", "instances.score", "==", json!(6), true),
        ("count", "instances.score", "==", json!(3), true),
        ("max", "instances.score", "==", json!(5), true),
        (
            "sum",
            "instances.hardware.gpus.totalMem",
            "==",
            json!(144),
            true,
        ),
        (
            "count",
            "instances.hardware.gpus.totalMem",
            "==",
            json!(3),
            true,
        ),
        (
            "avg",
            "instances.hardware.gpus[0].totalMem",
            "==",
            json!(52),
            true,
        ),
        (
            "min",
            "instances.hardware.gpus.totalMem",
            ">=",
            json!(24),
            true,
        ),
        ("count", "instances.hardware.gpus", "==", json!(3), true),
        ("count", "instances.tags", "==", json!(2), true),
        ("sum", "instances.tags", ">=", json!(0), false),
    ] {
        let asked = aggregate(how, target, operator, &value);
        assert_eq!(world.meets(&parse(&asked).unwrap()), expected, "{asked}");
    }
}

#[test]
fn what_is_stale_is_missing() {
    let world = World::one(&json!({}));
    let meets = |asked: &Value| world.meets(&parse(asked).unwrap());
    let few = aggregate("avg", "instances.queue_length", "<", &json!(5));
    let differs = condition("queue_length", "!=", &json!(3));
    assert!(!meets(&few) && meets(&differs));
    world.tell(0, &[(Live::RequestsWaiting.into(), 3.0)], 60);
    assert!(meets(&few) && !meets(&differs));
    world.tell(0, &[(Live::RequestsWaiting.into(), 3.0)], 61);
    assert!(!meets(&few) && meets(&differs));
}
