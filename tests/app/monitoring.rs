//! What is written of our metrics (the table, the dashboard, the alerts) against
//! the page that a running app serves.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::Duration;

use pilotfish::config::policies::{PolicyKind, PolicySpec, RequirementOf, Smart};
use pilotfish::discovery::kubernetes::fault::Reason;
use serde_json::Value;

use crate::support::{Client, TestApp, eventually, sim};

/// Labels that Prometheus adds, and that of a histogram's buckets.
const ADDED: [&str; 3] = ["job", "instance", "le"];
/// Families that this page may be without.
const NOT_ALWAYS: [&str; 28] = [
    "pilotfish_caller_requests_total",
    "pilotfish_caller_refusals_total",
    "pilotfish_callers",
    "pilotfish_callers_last_reload_successful",
    "pilotfish_callers_last_reload_success_timestamp_seconds",
    "pilotfish_callers_reloads_total",
    "pilotfish_callers_reload_failures_total",
    "pilotfish_engine_attribute",
    "pilotfish_allocations_total",
    "process_cpu_seconds_total",
    "process_resident_memory_bytes",
    "process_start_time_seconds",
    "process_open_fds",
    "process_max_fds",
    "process_threads",
    "pilotfish_discovery_last_contact_seconds",
    "pilotfish_discovery_synced",
    "pilotfish_discovery_engines",
    "pilotfish_discovery_events_total",
    "pilotfish_discovery_lists_total",
    "pilotfish_discovery_watches_total",
    "pilotfish_discovery_errors_total",
    "pilotfish_tls_handshakes_total",
    "pilotfish_tls_handshake_failures_total",
    "pilotfish_tls_handshake_seconds",
    "pilotfish_tls_certificate_expiry_timestamp_seconds",
    "pilotfish_tls_reloads_total",
    "pilotfish_tls_reload_failures_total",
];
/// Labels with a fixed set of values that are there from the start.
const FIXED: [&str; 3] = ["state", "outcome", "reason"];

fn text(path: &str) -> String {
    std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).unwrap()
}

/// One family.
#[derive(Debug, Default, PartialEq)]
struct Family {
    kind: String,
    labels: BTreeSet<String>,
    /// The series' labels, as they stand on the page.
    series: Vec<String>,
    /// When it is shown, if not always.
    shown: String,
}

/// The page of an app that has had traffic.
fn page() -> String {
    let engine = sim(None);
    let dead = "http://127.0.0.1:9".to_owned();
    let engines = [engine.url(), dead];
    let engines = engines.each_ref().map(|url| (url.as_str(), "m"));
    let app = TestApp::with(&engines, |config| {
        config.stats.scrape_every = Duration::from_millis(50);
        let routing = &mut config.settings.routing;
        let shadow = PolicySpec::plain("thrifty", PolicyKind::Smart(Box::new(thrifty())));
        routing.named.insert("thrifty".to_owned(), shadow.clone());
        routing.shadow = Some(shadow);
    });
    for stream in [false, true, false, true] {
        let body = format!(r#"{{"model":"m","max_tokens":8,"stream":{stream},"messages":[]}}"#);
        assert_eq!(app.chat(&body).status, 200);
    }
    app.chat(r#"{"model":"nobody's","messages":[]}"#)
        .assert_error(404, "model_not_found");
    app.settled();
    eventually("the shadow has looked on", || {
        app.get("/metrics")
            .text()
            .contains("pilotfish_smart_lambda{")
    });
    let told = "pilotfish_engine_kv_cache_usage_ratio{";
    eventually("the engine has told of itself", || {
        app.get("/metrics").text().contains(told)
    });
    app.get("/metrics").text()
}

fn thrifty() -> Smart {
    Smart {
        models: Vec::new(),
        requirement: 0.7,
        of: RequirementOf::Average,
        strategy: PolicyKind::LeastLoad,
    }
}

/// The families of a page, by name.
fn families(page: &str) -> BTreeMap<String, Family> {
    let mut families: BTreeMap<String, Family> = BTreeMap::new();
    for line in page.lines() {
        if let Some(kind) = line.strip_prefix("# TYPE ") {
            let (name, kind) = kind.split_once(' ').unwrap();
            let family = Family {
                kind: kind.to_owned(),
                ..Family::default()
            };
            assert!(
                families.insert(name.to_owned(), family).is_none(),
                "{name} twice"
            );
        } else if !line.is_empty() && !line.starts_with('#') {
            let (series, value) = line.rsplit_once(' ').unwrap();
            assert!(value.parse::<f64>().is_ok(), "{line}");
            let (name, labels) = series.split_once('{').unwrap_or((series, "}"));
            let family = base(&families, name).unwrap_or_else(|| panic!("{line} has no type"));
            let family = families.get_mut(&family).unwrap();
            let labels = labels.strip_suffix('}').unwrap();
            let names = matchers(labels).into_iter().map(|(label, ..)| label);
            family.labels.extend(names.filter(|label| label != "le"));
            family.series.push(labels.to_owned());
        }
    }
    families
}

/// The family of a series of that name.
fn base(families: &BTreeMap<String, Family>, name: &str) -> Option<String> {
    if families.contains_key(name) {
        return Some(name.to_owned());
    }
    let parts = ["_bucket", "_sum", "_count"];
    let name = parts.iter().find_map(|part| name.strip_suffix(part))?;
    let is_histogram = families
        .get(name)
        .is_some_and(|family| family.kind == "histogram");
    is_histogram.then(|| name.to_owned())
}

/// Label, operator and value.
type Matcher = (String, String, String);

/// Each `label="value"`.
fn matchers(text: &str) -> Vec<Matcher> {
    let mut found = Vec::new();
    let mut rest = text.trim_matches([' ', ',']);
    while let Some(at) = rest.find(['=', '!']) {
        let (label, more) = rest.split_at(at);
        let (operator, more) = more.split_once('"').unwrap();
        let mut end = 0;
        while &more[end..=end] != "\"" {
            end += if &more[end..=end] == "\\" { 2 } else { 1 };
        }
        found.push((
            label.to_owned(),
            operator.to_owned(),
            more[..end].to_owned(),
        ));
        rest = more[end + 1..].trim_start_matches([' ', ',']);
    }
    found
}

/// The rows of `docs/metrics.md`.
fn table() -> BTreeMap<String, Family> {
    let mut rows = BTreeMap::new();
    for line in text("docs/metrics.md").lines() {
        let cells: Vec<&str> = line.split('|').map(str::trim).collect();
        let [_, name, kind, labels, _, shown, _] = cells[..] else {
            continue;
        };
        let Some(name) = name
            .strip_prefix('`')
            .and_then(|name| name.strip_suffix('`'))
        else {
            continue;
        };
        let labels = labels.split(", ").filter(|label| !label.is_empty());
        let family = Family {
            kind: kind.to_owned(),
            labels: labels.map(str::to_owned).collect(),
            shown: shown.to_owned(),
            ..Family::default()
        };
        assert!(
            rows.insert(name.to_owned(), family).is_none(),
            "{name} twice"
        );
    }
    assert!(rows.len() > 60);
    rows
}

#[test]
fn the_table_of_metrics_is_the_page() {
    let (page, table) = (families(&page()), table());
    for (name, on_page) in &page {
        let row = table.get(name);
        let row = row.unwrap_or_else(|| panic!("docs/metrics.md lacks {name}"));
        assert_eq!(row.kind, on_page.kind, "the type of {name}");
        if !on_page.series.is_empty() {
            assert_eq!(row.labels, on_page.labels, "the labels of {name}");
        }
    }
    for (name, row) in &table {
        let is_there = page.contains_key(name);
        let is_known = !row.shown.is_empty() && NOT_ALWAYS.contains(&name.as_str());
        assert!(is_there || is_known, "{name} is not on the page");
    }
}

/// What an expression names.
#[derive(Debug, Default)]
struct Names {
    /// Metrics, each with its matchers.
    metrics: Vec<(String, Vec<Matcher>)>,
    /// Labels by which something is grouped or joined.
    grouped: Vec<String>,
}

fn names(expression: &str) -> Names {
    const LISTS: [&str; 6] = [
        "by",
        "without",
        "on",
        "ignoring",
        "group_left",
        "group_right",
    ];
    const WORDS: [&str; 5] = ["and", "or", "unless", "bool", "offset"];
    let mut names = Names::default();
    let mut rest = expression;
    while let Some(first) = rest.chars().next() {
        let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == ':';
        if first == '[' {
            rest = rest.split_once(']').unwrap().1;
        } else if first.is_ascii_digit() {
            rest = rest.trim_start_matches(|c| is_name(c) || c == '.');
        } else if !is_name(first) {
            assert!(!"\"'{}$".contains(first), "{first} in {expression}");
            rest = &rest[first.len_utf8()..];
        } else {
            let end = rest.find(|c| !is_name(c)).unwrap_or(rest.len());
            let (word, after) = rest.split_at(end);
            rest = after;
            let after = after.trim_start();
            let is_aggregate = after.starts_with("by (") || after.starts_with("without (");
            if is_aggregate || WORDS.contains(&word) {
                continue;
            }
            if LISTS.contains(&word) && after.starts_with('(') {
                let (list, more) = after[1..].split_once(')').unwrap();
                names
                    .grouped
                    .extend(list.split(',').map(|label| label.trim().to_owned()));
                rest = more;
            } else if let Some(after) = after.strip_prefix('{') {
                // No value has a brace.
                let (labels, more) = after.split_once('}').unwrap();
                names.metrics.push((word.to_owned(), matchers(labels)));
                rest = more;
            } else if !after.starts_with('(') {
                names.metrics.push((word.to_owned(), Vec::new()));
            }
        }
    }
    names
}

/// Asserts that all that an expression names is there.
fn check(expression: &str, page: &BTreeMap<String, Family>, table: &BTreeMap<String, Family>) {
    let names = names(expression);
    assert!(!names.metrics.is_empty(), "{expression} names no metric");
    let mut labels: BTreeSet<&str> = ADDED.into();
    for (metric, matchers) in &names.metrics {
        if metric == "up" {
            continue;
        }
        let family = base(table, metric);
        let family = family.unwrap_or_else(|| panic!("there is no {metric}: {expression}"));
        let is_whole = table[&family].kind == "histogram" && *metric == family;
        assert!(!is_whole, "{metric} is a histogram: {expression}");
        let known = &table[&family].labels;
        labels.extend(known.iter().map(String::as_str));
        for (label, operator, value) in matchers {
            let is_known = known.contains(label) || ADDED.contains(&label.as_str());
            assert!(is_known, "{metric} has no label {label}: {expression}");
            if !FIXED.contains(&label.as_str()) || value.contains('$') {
                continue;
            }
            assert!(operator == "=" || operator == "=~", "{expression}");
            for value in value.split('|') {
                let pair = format!("{label}=\"{value}\"");
                let is_there = match page.get(&family) {
                    Some(found) => found.series.iter().any(|series| series.contains(&pair)),
                    // Where no cluster is followed.
                    None if family == "pilotfish_discovery_errors_total" => {
                        Reason::ALL.iter().any(|reason| reason.name() == value)
                    }
                    None => NOT_ALWAYS.contains(&family.as_str()),
                };
                assert!(is_there, "{metric} has no {pair}: {expression}");
            }
        }
    }
    for label in &names.grouped {
        assert!(
            labels.contains(label.as_str()),
            "no label {label}: {expression}"
        );
    }
}

/// Every expression of the dashboard.
fn panels(dashboard: &Value) -> Vec<String> {
    let panels = dashboard["panels"].as_array().unwrap().iter();
    let targets = panels
        .filter_map(|panel| panel["targets"].as_array())
        .flatten();
    let notes = dashboard["annotations"]["list"].as_array().unwrap();
    let expressions = targets
        .chain(notes)
        .map(|one| one["expr"].as_str().unwrap());
    expressions.map(str::to_owned).collect()
}

#[test]
fn the_dashboard_names_only_what_is_there() {
    let dashboard: Value =
        serde_json::from_str(&text("manifests/monitoring/dashboard.json")).unwrap();
    let (page, table) = (families(&page()), table());
    let expressions = panels(&dashboard);
    assert!(expressions.len() > 50);
    for expression in &expressions {
        check(expression, &page, &table);
    }
    let mut variables = Vec::new();
    for variable in dashboard["templating"]["list"].as_array().unwrap() {
        variables.push(variable["name"].as_str().unwrap());
        let Some(query) = variable["query"]["query"].as_str() else {
            continue;
        };
        let inner = query.strip_prefix("label_values(").unwrap();
        let (selector, label) = inner.strip_suffix(')').unwrap().rsplit_once(", ").unwrap();
        check(selector, &page, &table);
        // `.*` would be every exporter's process.
        let is_target = ["job", "instance"].contains(&label);
        assert!(!is_target || variable["allValue"].is_null(), "{query}");
        let family = &table[&names(selector).metrics[0].0];
        assert!(
            family.labels.contains(label) || ADDED.contains(&label),
            "{query}"
        );
    }
    assert_eq!(
        variables,
        ["datasource", "job", "instance", "model", "engine"]
    );
    let ids = dashboard["panels"].as_array().unwrap().iter();
    let ids: Vec<u64> = ids.map(|panel| panel["id"].as_u64().unwrap()).collect();
    assert_eq!(ids.iter().collect::<BTreeSet<_>>().len(), ids.len());
    let all = text("manifests/monitoring/dashboard.json");
    for used in all.split("=~\\\"$").skip(1) {
        let name = used.split('\\').next().unwrap();
        assert!(variables.contains(&name), "there is no variable {name}");
    }
}

#[test]
fn the_alerts_name_only_what_is_there() {
    let rules = text("manifests/monitoring/alerts.yaml");
    let rules: Value = serde_saphyr::from_str(&rules).unwrap();
    let tests = text("manifests/monitoring/alerts.test.yaml");
    let (page, table) = (families(&page()), table());
    let mut count = 0;
    for rule in rules["groups"]
        .as_array()
        .unwrap()
        .iter()
        .flat_map(|group| group["rules"].as_array().unwrap())
    {
        let name = rule["alert"].as_str().unwrap();
        check(rule["expr"].as_str().unwrap(), &page, &table);
        assert!(
            ["warning", "critical"].contains(&rule["labels"]["severity"].as_str().unwrap()),
            "{name}"
        );
        for text in ["summary", "description"] {
            assert!(
                rule["annotations"][text].as_str().unwrap().len() > 20,
                "{name}"
            );
        }
        // It is shown to fire, and not to fire.
        let of = format!("alertname: {name}\n");
        assert!(
            tests.matches(&of).count() >= 2,
            "alerts.test.yaml lacks {name}"
        );
        count += 1;
    }
    assert!(count >= 15);
}

#[test]
fn what_is_not_there_is_noticed() {
    let table = table();
    let page = BTreeMap::from([(
        "pilotfish_engine_state".to_owned(),
        Family {
            series: vec![r#"engine="x",state="down""#.to_owned()],
            ..Family::default()
        },
    )]);
    let is_good = |expression: &str| {
        let check = || check(expression, &page, &table);
        std::panic::catch_unwind(std::panic::AssertUnwindSafe(check)).is_ok()
    };
    for good in [
        r#"sum by (model) (rate(pilotfish_requests_total{model=~"$model", status=~"5.."}[5m])) > 0.5"#,
        "histogram_quantile(0.9, sum by (le) (rate(pilotfish_overhead_seconds_bucket[$__rate_interval])))",
        r#"pilotfish_engine_state{state="down"} == 1 and on (instance) pilotfish_build_info offset 5m"#,
    ] {
        assert!(is_good(good), "{good}");
    }
    for bad in [
        "1 + 1",
        "pilotfish_request_total",
        "pilotfish_requests_total_bucket",
        "rate(pilotfish_overhead_seconds[5m])",
        r#"pilotfish_requests_total{modell="m"}"#,
        "sum by (engine) (pilotfish_requests_total)",
        r#"pilotfish_engine_state{state="gone"}"#,
    ] {
        assert!(!is_good(bad), "{bad}");
    }
}

#[test]
fn decisions_refusals_tokens_and_connections_are_counted() {
    let engines = [sim(None), sim(None)];
    let urls = engines.each_ref().map(|engine| engine.url());
    let app = TestApp::new(&urls);
    let body = r#"{"model":"m","max_tokens":8,"messages":[]}"#;
    for _ in 0..3 {
        assert_eq!(app.chat(body).status, 200);
    }
    let primary = r#"pilotfish_decisions_total{policy="roundrobin",reason="primary"}"#;
    eventually("all are counted", || app.metric(primary) == 3.0);
    app.settled();
    let tokens = r#"pilotfish_request_output_tokens_"#;
    for (part, value) in [
        (r#"bucket{model="m",le="4"}"#, 0.0),
        (r#"bucket{model="m",le="8"}"#, 3.0),
        (r#"sum{model="m"}"#, 24.0),
        (r#"count{model="m"}"#, 3.0),
    ] {
        assert_eq!(app.metric(&format!("{tokens}{part}")), value, "{part}");
    }
    app.chat(r#"{"model":"nobody's","messages":[]}"#);
    app.chat("{");
    for code in ["model_not_found", "invalid_json"] {
        let refused = format!("pilotfish_refusals_total{{reason=\"{code}\"}}");
        assert_eq!(app.metric(&refused), 1.0, "{code}");
    }
    let all = |name: &str| -> f64 {
        let page = app.get("/metrics").text();
        let lines = page.lines().filter(|line| line.starts_with(name));
        let values = lines.map(|line| line.rsplit(' ').next().unwrap().parse::<f64>().unwrap());
        values.sum()
    };
    // Idle ones are closed after three seconds, and told of at most one later.
    eventually("none is open", || {
        all("pilotfish_upstream_connections{") == 0.0
            && all("pilotfish_upstream_idle_connections{") == 0.0
    });
    assert!(all("pilotfish_worker_delay_seconds_count{") >= 10.0);
}

#[test]
fn what_is_sent_again_is_a_decision_of_its_own_kind() {
    let engine = sim(None);
    let dead = "http://127.0.0.1:9".to_owned();
    let app = TestApp::new(&[engine.url(), dead]);
    let body = r#"{"model":"m","max_tokens":1,"messages":[]}"#;
    let retried = r#"pilotfish_decisions_total{policy="roundrobin",reason="retry"}"#;
    eventually("one is sent again", || {
        assert_eq!(app.chat(body).status, 200);
        app.metric(retried) >= 1.0
    });
    let state = |state: &str| {
        app.metric(&format!(
            r#"pilotfish_engine_state{{engine="http://127.0.0.1:9",state="{state}"}}"#
        ))
    };
    eventually("the dead one is down", || {
        app.chat(body);
        state("down") == 1.0
    });
    assert_eq!(state("healthy"), 0.0);
}

#[test]
fn readers_that_read_nothing_share_a_few_pages() {
    // Long names: the kernel does not hold a whole page.
    let path = "x".repeat(600);
    let urls: Vec<String> = (0..500)
        .map(|n| format!("http://127.0.0.1:9/{path}{n}"))
        .collect();
    let app = TestApp::new(&urls);
    let whole = app.get("/metrics").text();
    assert!(whole.len() > 8 << 20, "{}", whole.len());
    let readers: Vec<Client> = (0..24)
        .map(|_| {
            let mut reader = app.connect();
            reader.write(b"GET /metrics HTTP/1.1\r\nhost: x\r\n\r\n");
            // Its page is made; most of it is left where it is.
            assert!(reader.more());
            reader
        })
        .collect();
    let answers = readers.into_iter().map(|mut reader| reader.answer());
    // Others are told to come again, when no page is fresh any more.
    let pages: BTreeSet<String> = answers
        .map(|answer| answer.expect("an answer"))
        .filter(|answer| answer.status != 503)
        .map(|answer| answer.text())
        .collect();
    assert!((1..=4).contains(&pages.len()), "{} pages", pages.len());
    assert_eq!(
        app.get("/metrics").status,
        200,
        "whoever has read makes room"
    );
}
