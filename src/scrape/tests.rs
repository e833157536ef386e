mod turns;

use std::time::Duration;

use super::json;
use super::page::Page;
use super::reading::Reading;
use super::wanted::Wanted;
use crate::config::EngineType;
use crate::config::attribute::{Aggregate, How, OwnAttribute};
use crate::fleet::attributes::{Live, Place, Values};

/// When the second pages of tests/fixtures were read, in Unix seconds.
const NOW: f64 = 1_763_900_010.0;

fn fixture(name: &str) -> Vec<u8> {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/");
    std::fs::read(format!("{folder}{name}")).unwrap()
}

fn read(wanted: &Wanted, page: &[u8]) -> Option<Reading> {
    let mut reading = Page::new(wanted);
    // As it comes from a socket.
    for piece in page.chunks(1000) {
        reading.feed(piece);
    }
    reading.finish()
}

/// The attributes by the first page, and by both.
fn both(name: &str, own: &[OwnAttribute]) -> (Values, Values, EngineType) {
    let wanted = Wanted::new(own);
    let [first, second] =
        [1, 2].map(|n| read(&wanted, &fixture(&format!("{name}-{n}.prom"))).unwrap());
    let before = Some((&first, Duration::from_secs(10)));
    (
        first.values(&wanted, None, None, NOW - 10.0),
        second.values(&wanted, None, before, NOW),
        second.dialect(&wanted),
    )
}

fn known(value: f64) -> Option<f64> {
    Some(value).filter(|value| !value.is_nan())
}

#[track_caller]
fn assert_near(name: &str, what: Live, is: Option<f64>, expected: Option<f64>) {
    let is = is.and_then(known);
    let near = match (is, expected) {
        (Some(is), Some(expected)) => (is - expected).abs() <= expected.abs() * 1e-6,
        (is, expected) => is == expected,
    };
    assert!(near, "{name}: {what:?} is {is:?}, expected {expected:?}");
}

/// What tests/fixtures/README.md says of each: running and waiting on both pages,
/// cache on both (NaN: it does not tell), hit rate, tokens, prompt tokens, ttft, itl, e2e, uptime, KV
/// tokens, adapters.
type Row = (&'static str, EngineType, [f64; 6], [f64; 9]);

/// It does not tell.
const NO: f64 = f64::NAN;

const ROWS: [Row; 7] = [
    (
        "vllm",
        EngineType::Vllm,
        [5.0, 7.0, 1.0, 3.0, 0.4, 0.625],
        [0.75, 250.0, 500.0, 250.0, 25.0, 3000.0, 2.0, 448_000.0, 3.0],
    ),
    (
        "vllm-openmetrics",
        EngineType::Vllm,
        [3.0, 4.0, 1.0, 2.0, 0.25, 0.375],
        [0.75, 140.0, 300.0, 240.0, 25.0, 3000.0, 2.0, 224_000.0, 3.0],
    ),
    (
        "vllm-early",
        EngineType::Vllm,
        [6.0, 8.0, 0.0, 1.0, 0.5, 0.5625],
        [0.25, 160.0, 400.0, 80.0, 25.0, 4500.0, 2.0, 432_000.0, NO],
    ),
    (
        "vllm-old",
        EngineType::Vllm,
        [4.0, 5.0, 2.0, 0.0, 0.125, 0.1875],
        [0.5, 80.0, 200.0, 100.0, 20.0, 2000.0, 2.0, 184_960.0, 0.0],
    ),
    (
        "sglang",
        EngineType::Sglang,
        [9.0, 11.0, 2.0, 5.0, 0.32, 0.42],
        [0.6, 300.0, 600.0, 400.0, 30.0, 6000.0, NO, 250_000.0, NO],
    ),
    (
        "trtllm",
        EngineType::Trtllm,
        [10.0, 12.0, 0.0, 4.0, 0.3, 0.34375],
        [0.6, 120.0, 250.0, 375.0, 15.0, 5000.0, NO, 131_072.0, NO],
    ),
    (
        "llamacpp",
        EngineType::Llamacpp,
        [2.0, 2.0, 1.0, 1.0, NO, NO],
        [
            468.0 / 562.0,
            43.2,
            9.4,
            NO,
            18.10516e3 / 432.0,
            NO,
            NO,
            NO,
            NO,
        ],
    ),
];

#[test]
fn every_engine_says_the_same_in_its_own_words() {
    for (name, of, gauges, rest) in ROWS {
        let (first, second, dialect) = both(name, &[]);
        assert_eq!(dialect, of, "{name}");
        let [running1, running2, waiting1, waiting2, cache1, cache2] = gauges.map(known);
        for (values, what, expected) in [
            (&first, Live::RequestsRunning, running1),
            (&second, Live::RequestsRunning, running2),
            (&first, Live::RequestsWaiting, waiting1),
            (&second, Live::RequestsWaiting, waiting2),
            (&first, Live::KvCacheUsage, cache1),
            (&second, Live::KvCacheUsage, cache2),
            // What needs two pages.
            (&first, Live::TtftMs, None),
            (&second, Live::MaxModelLen, None),
        ] {
            assert_near(name, what, values[what as usize], expected);
        }
        let rest = [
            Live::PrefixCacheHitRate,
            Live::TokensPerSecond,
            Live::PromptTokensPerSecond,
            Live::TtftMs,
            Live::ItlMs,
            Live::E2eLatencyMs,
            Live::UptimeHours,
            Live::KvCacheTokens,
            Live::LoraAdapters,
        ]
        .into_iter()
        .zip(rest.map(known));
        for (what, expected) in rest {
            assert_near(name, what, second[what as usize], expected);
        }
    }
    // "-1": none yet.
    let (first, ..) = both("vllm-old", &[]);
    assert_eq!(first[Live::PrefixCacheHitRate as usize], None);
    let wanted = Wanted::new(&[]);
    let adapters = read(&wanted, &fixture("vllm-1.prom")).unwrap().names;
    assert_eq!(adapters, ["sql", "chat-de", "legal"]);
}

#[test]
fn data_parallel_ranks_are_added_and_json_says_the_same() {
    let wanted = Wanted::new(&[]);
    let text = read(&wanted, &fixture("sglang-dp-1.prom")).unwrap();
    let mut page = Page::new(&wanted);
    json::loads(&fixture("sglang-loads.json"), &mut page);
    let json = page.finish().unwrap();
    assert_eq!(json.dialect(&wanted), EngineType::Sglang);
    for reading in [text, json] {
        let values = reading.values(&wanted, None, None, NOW);
        for (what, expected) in [
            (Live::RequestsRunning, 11.0),
            (Live::RequestsWaiting, 4.0),
            (Live::KvCacheUsage, 0.55),
            (Live::TokensPerSecond, 236.75),
            (Live::KvCacheTokens, 240_000.0),
        ] {
            assert_near("sglang-dp", what, values[what as usize], Some(expected));
        }
    }
}

#[test]
fn json_pages_that_say_nothing() {
    let wanted = Wanted::new(&[]);
    let loads = |body: &str| {
        let mut page = Page::new(&wanted);
        json::loads(body.as_bytes(), &mut page);
        page.finish()
    };
    let rank = |tokens: u32| {
        format!(
            r#"{{"loads": [{{"num_running_reqs": 1, "num_waiting_reqs": 0, "max_total_num_tokens": {tokens}}}]}}"#
        )
    };
    assert!(loads(&rank(10)).is_some());
    for nothing in [&rank(0), r#"{"loads": []}"#, "[]", "<html>", ""] {
        assert!(loads(nothing).is_none(), "{nothing}");
    }
    // trtllm-serve's page of that name.
    assert!(read(&wanted, &fixture("trtllm-metrics.json")).is_none());
    let slots = |body: &str| {
        let mut page = Page::new(&wanted);
        json::slots(body.as_bytes(), &mut page);
        page.finish()
    };
    let page = r#"[{"id": 0, "n_ctx": 512, "is_processing": true}, {"n_ctx": 512, "is_processing": false}]"#;
    let values = slots(page).unwrap().values(&wanted, None, None, NOW);
    assert_eq!(values[Live::RequestsRunning as usize], Some(1.0));
    assert_eq!(values[Live::KvCacheTokens as usize], Some(1024.0));
    assert_eq!(values[Live::MaxModelLen as usize], Some(512.0));
    assert_eq!(values[Live::KvCacheUsage as usize], Some(0.0));
    let real = String::from_utf8(fixture("llamacpp-slots.json")).unwrap();
    let values = slots(&real).unwrap().values(&wanted, None, None, NOW);
    assert_eq!(values[Live::KvCacheTokens as usize], Some(2048.0));
    assert_eq!(values[Live::KvCacheUsage as usize], Some(63.0 / 2048.0));
    assert_eq!(values[Live::RequestsRunning as usize], Some(2.0));
    assert!(slots("{}").is_none());
}

fn own(name: &str, n: usize, metric: &str) -> OwnAttribute {
    OwnAttribute {
        name: name.into(),
        place: Live::named(name).map_or_else(|| Place::own(n).unwrap(), Place::from),
        metric: metric.to_owned(),
        labels: [].into(),
        aggregate: Aggregate::Sum,
        how: How::Now,
        scale: 1.0,
    }
}

#[test]
fn other_engines_are_read_as_the_configuration_says() {
    let label = |key: &str, value: &str| [(key.to_owned(), value.to_owned())].into();
    let trtllm = "nv_trt_llm_request_metrics";
    let list = [
        OwnAttribute {
            labels: label("request_type", "scheduled"),
            ..own("requests_running", 0, trtllm)
        },
        OwnAttribute {
            labels: label("request_type", "waiting"),
            ..own("requests_waiting", 0, trtllm)
        },
        OwnAttribute {
            labels: label("kv_cache_block_type", "fraction"),
            aggregate: Aggregate::Max,
            ..own("kv_cache_usage", 0, "nv_trt_llm_kv_cache_block_metrics")
        },
    ];
    let (first, second, dialect) = both("triton-trtllm", &list);
    assert_eq!(dialect, EngineType::Other);
    for (what, expected) in [
        (Live::RequestsRunning, [5.0, 8.0]),
        (Live::RequestsWaiting, [1.0, 3.0]),
        (Live::KvCacheUsage, [0.25, 0.4375]),
    ] {
        let values = [&first, &second].map(|values| values[what as usize]);
        assert_eq!(values, expected.map(Some), "{what:?}");
    }
    let list = [
        own("requests_running", 0, "tgi_batch_current_size"),
        own("requests_waiting", 0, "tgi_queue_size"),
        OwnAttribute {
            how: How::Rate,
            ..own("tokens_per_second", 0, "tgi_request_generated_tokens_sum")
        },
        OwnAttribute {
            how: How::Over("tgi_request_duration_count".to_owned()),
            scale: 1e3,
            ..own("e2e_latency_ms", 0, "tgi_request_duration_sum")
        },
        own("most_tokens", 3, "tgi_batch_current_max_tokens"),
    ];
    let (_, second, _) = both("tgi", &list);
    for (what, expected) in [
        (Live::RequestsRunning, 6.0),
        (Live::RequestsWaiting, 3.0),
        (Live::TokensPerSecond, 90.0),
        (Live::E2eLatencyMs, 4000.0),
    ] {
        assert_near("tgi", what, second[what as usize], Some(expected));
    }
    assert!(second[Place::own(3).unwrap().index()].is_some());
}

#[test]
fn pages_that_make_no_sense() {
    let wanted = Wanted::new(&[]);
    for nothing in [
        "",
        "<html><body>404</body></html>\n",
        "up 1\n",
        "process_start_time_seconds 5\n",
        "vllm:num_requests_running NaN\nvllm:num_requests_waiting +Inf\n",
        "vllm:num_requests_running{a=\"b 3\n",
        "\u{0}\u{1}\u{fffd}",
    ] {
        assert!(read(&wanted, nothing.as_bytes()).is_none(), "{nothing:?}");
    }
    let values = |page: &str| {
        let reading = read(&wanted, page.as_bytes()).unwrap();
        reading.values(&wanted, None, None, NOW)
    };
    // A family that is there twice, an exponent, a negative count.
    let twice = values(
        "vllm:num_requests_running{e=\"0\"} 2e0\nvllm:num_requests_running{e=\"1\"} 3 # {t=\"} 9\"} 1\n\
         vllm:num_requests_running{e=\"0\"} 2\nvllm:num_requests_waiting -4\n",
    );
    assert_eq!(twice[Live::RequestsRunning as usize], Some(5.0));
    assert_eq!(twice[Live::RequestsWaiting as usize], None);
    // A clock that jumped: the process began tomorrow.
    let future = format!(
        "vllm:num_requests_running 1\nprocess_start_time_seconds {}\n",
        NOW + 1e5
    );
    assert_eq!(values(&future)[Live::UptimeHours as usize], None);
    // More series than anyone has.
    let many: String = (0..5000)
        .map(|n| format!("vllm:num_requests_running{{n=\"{n}\"}} 1\n"))
        .collect();
    assert_eq!(values(&many)[Live::RequestsRunning as usize], Some(1024.0));
}

#[test]
fn a_process_that_began_anew() {
    let wanted = Wanted::new(&[]);
    let page = |tokens: u32, count: u32| {
        let text = format!(
            "llamacpp:tokens_predicted_total {tokens}\nvllm:time_to_first_token_seconds_sum {count}\n\
             vllm:time_to_first_token_seconds_count {count}\n"
        );
        read(&wanted, text.as_bytes()).unwrap()
    };
    assert!(page(50, 5).has_fallen(&page(350, 5), &wanted));
    assert!(page(350, 4).has_fallen(&page(350, 5), &wanted));
    assert!(!page(351, 5).has_fallen(&page(350, 5), &wanted));
    let before = page(350, 5);
    let before = Some((&before, Duration::from_secs(10)));
    let values = page(50, 0).values(&wanted, None, before, NOW);
    // Unknown for now; what was known before stands.
    assert!(values[Live::TokensPerSecond as usize].unwrap().is_nan());
    assert!(values[Live::TtftMs as usize].unwrap().is_nan());
}

#[test]
fn a_type_that_is_given_is_believed() {
    let wanted = Wanted::new(&[]);
    let text =
        "vllm:num_requests_running 1\nsglang:num_running_reqs 2\nllamacpp:requests_deferred 3\n";
    let reading = read(&wanted, text.as_bytes()).unwrap();
    let of = |kind| reading.values(&wanted, kind, None, NOW)[Live::RequestsRunning as usize];
    assert_eq!(of(None), Some(1.0));
    assert_eq!(of(Some(EngineType::Sglang)), Some(2.0));
    assert_eq!(of(Some(EngineType::Llamacpp)), None);
}
