//! Where the cluster is, and who we are to it.

use std::path::PathBuf;
use std::time::Duration;

use pilotfish::discovery::kubernetes::api::ApiServer;
use pilotfish::discovery::kubernetes::fault::Reason;
use serde_json::{Value, json};

use super::PODS;
use crate::support::apiserver::{Act, FakeApi, On};
use crate::support::collector::Grpc;
use crate::support::{Folder, PATIENCE};

#[test]
fn where_there_is_no_cluster() {
    let folder = Folder::new("nowhere");
    let runtime = runtime();
    let file = folder.path("kubeconfig");
    let located = || runtime.block_on(ApiServer::of_kubeconfig(&file));
    assert!(located().unwrap_err().to_string().contains("kubeconfig"));
    for (text, part) in [
        ("", "kubeconfig"),
        ("{\"current-context\": \"x\"}", "x"),
        (": not yaml", "kubeconfig"),
        ("users: [{user: {token: \"secret\"}]\n", "kubeconfig"),
    ] {
        std::fs::write(&file, text).unwrap();
        let error = located().unwrap_err().to_string();
        assert!(error.contains(part), "{text}: {error}");
        assert!(!error.contains("secret"), "{error}");
    }
    // A token that cannot be read; a proxy.
    for (part, cluster, user) in [
        (
            "/nowhere/token",
            json!({}),
            json!({"tokenFile": "/nowhere/token"}),
        ),
        (
            "proxy-url",
            json!({"proxy-url": "http://proxy:1"}),
            json!({}),
        ),
    ] {
        std::fs::write(&file, config("http://127.0.0.1:1", cluster, &user)).unwrap();
        let error = located().unwrap_err().to_string();
        assert!(error.contains(part), "{error}");
    }
    // A token with the end of its line; a provider that runs what it likes.
    let token = folder.path("token");
    std::fs::write(&token, "abc\n").unwrap();
    let provider = json!({"name": "gcp", "config": {"cmd-path": "/bin/false"}});
    for (part, user) in [
        ("end of a line", json!({ "tokenFile": token })),
        ("end of a line", json!({ "token": "abc\n" })),
        ("`exec`", json!({ "auth-provider": provider })),
    ] {
        std::fs::write(&file, config("http://127.0.0.1:1", json!({}), &user)).unwrap();
        let error = located().unwrap_err();
        assert_eq!(error.reason(), Reason::Credentials);
        assert!(error.to_string().contains(part), "{error}");
        assert!(!error.to_string().contains("abc"), "{error}");
    }
}

fn config(server: &str, mut cluster: Value, user: &Value) -> String {
    cluster["server"] = server.into();
    let config = json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "c",
        "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
        "clusters": [{"name": "c", "cluster": cluster}],
        "users": [{"name": "u", "user": user}],
    });
    config.to_string()
}

/// A server that speaks TLS: known by its certificate authority, or not trusted.
#[test]
fn who_answers_has_to_be_known() {
    let server = Grpc::start_secure();
    let folder = Folder::new("tls");
    let runtime = runtime();
    let certificate = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/collector.pem");
    let asked = |cluster: Value| {
        let url = format!("https://{}", server.address);
        let file = folder.path("kubeconfig");
        std::fs::write(&file, config(&url, cluster, &json!({}))).unwrap();
        runtime.block_on(async {
            let api = ApiServer::of_kubeconfig(&file).await.unwrap();
            api.get(PODS, Duration::from_secs(5)).await.unwrap_err()
        })
    };
    assert_eq!(asked(json!({})).reason(), Reason::Tls);
    // It is, and speaks no HTTP/1.
    let trusted = asked(json!({"certificate-authority": certificate}));
    assert_ne!(trusted.reason(), Reason::Tls, "{trusted}");
}

/// A plugin that runs that script; each run adds a line to the file `runs`.
fn plugin(fake: &FakeApi, folder: &Folder, script: &str) -> PathBuf {
    let runs = folder.path("runs");
    let script = format!("echo >> '{}'; {script}", runs.display());
    let user = json!({"exec": {
        "apiVersion": "client.authentication.k8s.io/v1", "interactiveMode": "Never",
        "command": "/bin/sh", "args": ["-c", script],
        "env": [{"name": "PLUGIN_SECRET", "value": "hush"}],
    }});
    fake.kubeconfig_of(folder, &user)
}

fn runs(folder: &Folder) -> usize {
    let runs = std::fs::read_to_string(folder.path("runs"));
    runs.map_or(0, |text| text.lines().count())
}

const WITHIN: Duration = PATIENCE;

#[test]
fn a_plugin_is_run_once() {
    let (fake, folder) = (FakeApi::start(), Folder::new("plugin"));
    let printed = r#"{"status":{"token":"given","expirationTimestamp":"2999-01-01T00:00:00Z"}}"#;
    let file = plugin(&fake, &folder, &format!("echo '{printed}'"));
    runtime().block_on(async {
        let api = ApiServer::of_kubeconfig(&file).await.unwrap();
        // Not to find out where the cluster is.
        assert_eq!(runs(&folder), 0);
        let (one, other) = tokio::join!(api.get(PODS, WITHIN), api.get(PODS, WITHIN));
        assert!(one.is_ok() && other.is_ok());
        api.get(PODS, WITHIN).await.unwrap();
        assert_eq!(runs(&folder), 1);
        // Until what it gave is refused.
        fake.script(On::List, Act::Refuse(401, "Unauthorized", None));
        let refused = api.get(PODS, WITHIN).await.unwrap_err();
        assert_eq!(refused.reason(), Reason::Credentials);
        api.get(PODS, WITHIN).await.unwrap();
        assert_eq!(runs(&folder), 2);
    });
    let asked = fake.requests();
    assert_eq!(asked.len(), 5);
    assert!(asked.iter().all(|one| one.authorization == "Bearer given"));
}

#[test]
fn a_plugin_is_run_anew_before_what_it_gave_runs_out() {
    let (fake, folder) = (FakeApi::start(), Folder::new("plugin-over"));
    let printed = r#"{"status":{"token":"given","expirationTimestamp":"2001-01-01T00:00:00Z"}}"#;
    let file = plugin(&fake, &folder, &format!("echo '{printed}'"));
    runtime().block_on(async {
        let api = ApiServer::of_kubeconfig(&file).await.unwrap();
        for times in 1..=3 {
            api.get(PODS, WITHIN).await.unwrap();
            assert_eq!(runs(&folder), times);
        }
    });
}

#[test]
fn a_slow_plugin_keeps_nobody() {
    let (fake, folder) = (FakeApi::start(), Folder::new("plugin-slow"));
    let go = folder.path("go");
    let wait = format!("until [ -e '{}' ]; do sleep 0.01; done", go.display());
    let file = plugin(
        &fake,
        &folder,
        &format!("{wait}; echo '{{\"status\":{{\"token\":\"t\"}}}}'"),
    );
    runtime().block_on(async {
        let api = ApiServer::of_kubeconfig(&file).await.unwrap();
        // Others on the same thread go on, or it would never end.
        let other = async {
            while runs(&folder) == 0 {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
            std::fs::write(&go, "").unwrap();
        };
        let (answer, ()) = tokio::join!(api.get(PODS, WITHIN), other);
        answer.unwrap();
    });
}

#[test]
fn a_plugin_that_fails_keeps_its_secrets() {
    let (fake, folder) = (FakeApi::start(), Folder::new("plugin-bad"));
    let file = plugin(&fake, &folder, "echo $PLUGIN_SECRET; exit 7");
    runtime().block_on(async {
        let api = ApiServer::of_kubeconfig(&file).await.unwrap();
        let fault = api.get(PODS, WITHIN).await.unwrap_err();
        assert_eq!(fault.reason(), Reason::Credentials);
        let told = fault.to_string();
        assert!(told.contains("`/bin/sh` failed (exit status: 7)"), "{told}");
        assert!(!told.contains("hush") && !told.contains("SECRET"), "{told}");
    });
    assert!(fake.requests().is_empty());
}

fn runtime() -> tokio::runtime::Runtime {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    runtime.unwrap()
}
