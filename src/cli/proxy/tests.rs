use clap::Parser as _;

use super::super::{Cli, REFUSED, WITHOUT_EFFECT};
use super::*;
use crate::config::policies::KeySource;
use crate::config::{LineForm, LogTarget, Routing, Settings};
use crate::registry::BUILT_IN;

fn launch(flags: &[&str]) -> Result<Launch, Problems> {
    let words = ["pilotfish"].iter().chain(flags);
    Cli::try_parse_from(words).unwrap().proxy.launch()
}

fn words(flags: &str) -> Vec<&str> {
    flags.split_whitespace().collect()
}

const START: &str = "--service-discovery static --static-backends http://a:1,http://b:2";

/// The reference router's flags: name, default as --help shows it.
const REFERENCE: [(&str, Option<&str>); 69] = [
    ("host", Some("0.0.0.0")),
    ("port", Some("8001")),
    ("root-path", None),
    ("service-discovery", None),
    ("k8s-service-discovery-type", None),
    ("static-backends", None),
    ("static-models", None),
    ("static-aliases", None),
    ("static-model-types", None),
    ("static-model-labels", None),
    ("static-backend-health-checks", None),
    ("static-backend-health-check-interval", None),
    ("static-backend-health-check-timeout-seconds", None),
    ("k8s-port", None),
    ("k8s-namespace", None),
    ("k8s-label-selector", None),
    ("k8s-watcher-timeout-seconds", None),
    ("backend-health-check-timeout-seconds", None),
    ("routing-logic", None),
    ("session-key", None),
    ("lmcache-controller-port", None),
    ("lmcache-controller-reply-port", None),
    ("lmcache-controller-heartbeat-port", None),
    ("lmcache-health-check-interval", None),
    ("lmcache-worker-timeout", None),
    ("kv-aware-threshold", None),
    ("prefix-min-match-length", None),
    ("prefill-model-labels", None),
    ("decode-model-labels", None),
    ("max-instance-failover-reroute-attempts", None),
    ("callbacks", None),
    ("request-rewriter", None),
    ("enable-batch-api", None),
    ("file-storage-class", None),
    ("file-storage-path", None),
    ("batch-processor", None),
    ("engine-stats-interval", Some("30")),
    ("request-stats-window", Some("60")),
    ("log-stats", None),
    ("log-stats-interval", Some("10")),
    ("dynamic-config-yaml", None),
    ("dynamic-config-json", None),
    ("feature-gates", None),
    ("semantic-cache-model", None),
    ("semantic-cache-dir", None),
    ("semantic-cache-threshold", None),
    ("log-level", Some("info")),
    ("log-format", Some("text")),
    ("sentry-dsn", None),
    ("sentry-traces-sample-rate", None),
    ("sentry-profile-session-sample-rate", None),
    ("otel-endpoint", None),
    ("otel-service-name", Some("pilotfish")),
    ("otel-secure", None),
    ("external-providers-config", None),
    ("version", None),
    // Ours.
    ("admin-port", None),
    ("admin-host", Some("127.0.0.1")),
    ("workers", None),
    ("max-connections", Some("65536")),
    ("log-requests", None),
    ("connect-timeout", None),
    ("max-peek-bytes", None),
    ("max-replay-bytes", None),
    ("drain-settle", Some("2s")),
    ("drain-timeout", Some("30s")),
    ("otel-sample", Some("1")),
    ("access-log", None),
    ("access-log-format", Some("json")),
];

#[test]
fn help_has_every_flag_of_the_reference_with_its_default() {
    let help = Cli::with_environment().render_long_help().to_string();
    let entries: Vec<&str> = help.split("\n      --").chain(help.split(", --")).collect();
    for (name, default) in REFERENCE {
        let entry = entries.iter().find(|entry| {
            let rest = entry.strip_prefix(name);
            rest.is_some_and(|rest| rest.starts_with([' ', '\n', '[']))
        });
        let entry = entry.unwrap_or_else(|| panic!("--{name} is not in\n{help}"));
        let entry = entry.split("\n\n  -").next().unwrap();
        let shown = entry
            .split_once("[default: ")
            .and_then(|(_, rest)| rest.split_once(']'))
            .map(|(shown, _)| shown);
        if let Some(default) = default {
            assert_eq!(shown, Some(default), "--{name}");
        }
    }
    for heading in [
        "Basic:",
        "Service Discovery:",
        "Routing Logic:",
        "Monitoring:",
        "Logging:",
        "Dynamic Config:",
    ] {
        assert!(help.contains(heading), "{heading} is not in\n{help}");
    }
}

#[test]
fn every_flag_has_an_environment_variable() {
    let command = Cli::with_environment();
    for arg in command.get_arguments().filter(|arg| arg.get_id() != "help") {
        let Some(long) = arg.get_long().filter(|long| *long != "version") else {
            continue;
        };
        let name = format!("PILOTFISH_{}", long.to_uppercase().replace('-', "_"));
        assert_eq!(arg.get_env().and_then(|env| env.to_str()), Some(&*name));
    }
    assert!(command.get_arguments().count() > 60);
}

#[test]
fn the_references_first_example() {
    let Launch {
        config, warnings, ..
    } = launch(&[
        "--port",
        "8000",
        "--service-discovery",
        "static",
        "--static-backends",
        "http://localhost:9001,http://localhost:9002,http://localhost:9003",
        "--static-models",
        "facebook/opt-125m,meta-llama/Llama-3.1-8B-Instruct,facebook/opt-125m",
        "--engine-stats-interval",
        "10",
        "--log-stats",
        "--routing-logic",
        "roundrobin",
    ])
    .unwrap();
    assert_eq!(warnings, Vec::<String>::new());
    assert_eq!(config.listen, "0.0.0.0:8000".parse().unwrap());
    let engines = &config.settings.engines;
    let urls: Vec<&str> = engines.iter().map(|engine| engine.url.text()).collect();
    assert_eq!(
        urls,
        [
            "http://localhost:9001",
            "http://localhost:9002",
            "http://localhost:9003"
        ]
    );
    let models = engines[1].models.as_deref().unwrap();
    assert_eq!(models, ["meta-llama/Llama-3.1-8B-Instruct"]);
    let built_in = config.settings.routing.named.clone();
    assert!(BUILT_IN.iter().eq(built_in.keys()), "nothing else is named");
    let expected = Routing {
        named: built_in,
        ..Routing::default()
    };
    assert_eq!(config.settings.routing, expected);
    assert!(config.stats.log_requests);
    assert_eq!(config.stats.log_every, Some(Duration::from_secs(10)));
}

#[test]
fn what_means_nothing_is_told_of_and_what_is_unsafe_refused() {
    let base = format!("{START} --routing-logic roundrobin");
    for flag in WITHOUT_EFFECT {
        let mut flags = words(&base);
        let name = format!("--{}", flag.name);
        flags.push(&name);
        if flag.takes_value {
            flags.push("7");
        }
        let warnings = launch(&flags).unwrap().warnings;
        assert_eq!(warnings.len(), 1, "{name}: {warnings:?}");
        assert!(warnings[0].starts_with(&format!("{name} has no effect: ")));
    }
    for flag in REFUSED {
        let mut flags = words(&base);
        let name = format!("--{}", flag.name);
        flags.push(&name);
        if flag.takes_value {
            flags.push("x");
        }
        let problems = launch(&flags).unwrap_err();
        assert!(problems.to_string().contains(&name), "{problems}");
        assert!(problems.list.iter().all(|problem| !problem.is_missing));
    }
    for (flags, says) in [
        ("--routing-logic disaggregated_prefill", "connector"),
        (
            "--routing-logic roundrobbin",
            "did you mean \"roundrobin\"?",
        ),
        ("--routing-logic nonsense", "roundrobin, session"),
    ] {
        let flags = format!("{START} {flags}");
        let problems = launch(&words(&flags)).unwrap_err().to_string();
        assert!(problems.contains(says), "{problems}");
    }
    let flags = "--service-discovery external-only --routing-logic roundrobin";
    let problems = launch(&words(flags)).unwrap_err().to_string();
    assert!(
        problems.contains("list the provider as an engine"),
        "{problems}"
    );
}

#[test]
fn what_is_missing_exits_with_1_and_what_is_wrong_with_2() {
    let missing = |flags: &str| {
        let problems = launch(&words(flags)).unwrap_err();
        problems.list.iter().all(|problem| problem.is_missing)
    };
    assert!(missing(""));
    assert!(missing(
        "--service-discovery static --routing-logic roundrobin"
    ));
    assert!(missing(START));
    assert!(missing(&format!("{START} --routing-logic session")));
    assert!(!missing(&format!("{START} --routing-logic x")));
    assert!(!missing(&format!(
        "{START} --static-models m --routing-logic roundrobin"
    )));
}

#[test]
fn a_list_of_models_that_is_too_short_names_both_counts() {
    let flags = format!("{START} --static-models m --routing-logic roundrobin");
    let problems = launch(&words(&flags)).unwrap_err().to_string();
    assert!(
        problems.contains("lists 1, but static_backends lists 2"),
        "{problems}"
    );
}

#[test]
fn backends_as_users_write_them() {
    let flags = "--service-discovery static --routing-logic session --session-key x-user-id \
        --static-backends http://vllm:8000,http://[::1]:8000/,http://a/base/,http://vllm:8000 \
        --static-models m,m,m,n --static-model-labels a,b,c,a \
        --static-aliases gpt-4:m,local:llama3:8b --max-peek-bytes 2048 --connect-timeout 1";
    let Settings {
        engines,
        aliases,
        routing,
        limits,
        timeouts,
        ..
    } = launch(&words(flags)).unwrap().config.settings;
    let urls: Vec<&str> = engines.iter().map(|engine| engine.url.text()).collect();
    assert_eq!(
        urls,
        ["http://vllm:8000", "http://[::1]:8000/", "http://a/base/"]
    );
    assert_eq!(engines[0].models.as_deref().unwrap(), ["m", "n"]);
    assert_eq!(engines[1].traits.labels["model_label"], "b");
    assert_eq!(aliases["local"], "llama3:8b");
    assert!(
        matches!(&routing.policy.kind.keys()[1], KeySource::Body(key) if &**key == "x-user-id")
    );
    assert_eq!(
        (limits.max_peek_bytes, limits.max_replay_bytes),
        (2048, 2048)
    );
    assert_eq!(timeouts.connect, Duration::from_secs(1));
}

#[test]
fn hosts_and_paths_as_users_write_them() {
    assert_eq!(host("::1"), host("[::1]"));
    assert!(host("localhost").unwrap().is_loopback());
    assert_eq!(root_path("/x/").unwrap(), "/x");
    assert!(root_path("x").is_err());
    assert!(monitoring::positive("0").is_err());
}

#[test]
fn logs_and_traces_as_users_ask_for_them() {
    let base = format!("{START} --routing-logic roundrobin");
    let config = launch(&words(&base)).unwrap().config;
    assert_eq!((config.access_log, config.traces), (None, None));

    let flags = format!(
        "{base} --access-log - --access-log-format text --otel-endpoint otel:4317 --otel-secure \
         --otel-service-name edge --otel-sample 0.1"
    );
    let Launch {
        config, warnings, ..
    } = launch(&words(&flags)).unwrap();
    assert_eq!(warnings, Vec::<String>::new());
    let log = config.access_log.unwrap();
    assert_eq!((log.to, log.form), (LogTarget::Stdout, LineForm::Text));
    let traces = config.traces.unwrap();
    assert_eq!((&*traces.service, traces.sample), ("edge", 0.1));
    assert!(traces.collector.is_secure && traces.collector.host() == "otel");

    let flags = format!("{base} --otel-endpoint http://otel:4318 --otel-secure");
    let problems = launch(&words(&flags)).unwrap_err().to_string();
    assert!(problems.contains("write https://"), "{problems}");
    for wrong in [
        "--otel-endpoint ftp://x",
        "--otel-sample 1.5",
        "--otel-sample x",
        "--otel-service-name=",
        "--access-log=",
        "--access-log-format table",
    ] {
        let flags = format!("pilotfish {base} {wrong}");
        assert!(Cli::try_parse_from(words(&flags)).is_err(), "{wrong}");
    }
}

#[test]
fn where_we_run_is_told_by_flags() {
    let folder = std::env::temp_dir().join(format!("pilotfish-near-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let file = folder.join("keys.yaml");
    let keys = "service_discovery: static\nrouting_logic: random\nprefer_local: true\n\
                engines: [{url: 'http://e:1'}]\n";
    std::fs::write(&file, keys).unwrap();
    let file = file.to_str().unwrap();
    let known = launch(&[
        "--dynamic-config-yaml",
        file,
        "--zone=z",
        "--pod-ip=10.0.0.1,fd00::1",
    ]);
    let known = known.unwrap();
    assert_eq!(known.warnings, Vec::<String>::new());
    assert_eq!(known.config.locality.zone.as_deref(), Some("z"));
    assert_eq!(known.config.locality.pod_ips.len(), 2);
    assert!(known.config.settings.routing.prefer_local);
    let wrong = launch(&["--dynamic-config-yaml", file, "--pod-ip=x"]).unwrap_err();
    assert!(wrong.to_string().contains("--pod-ip"), "{wrong}");
    std::fs::remove_dir_all(&folder).unwrap();
}
