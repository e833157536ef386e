//! The manifests, as Kubernetes' own types, our command line and our settings
//! take them. What rendering makes of them, `tests/real/manifests.sh` checks.
#![allow(clippy::unwrap_used, reason = "a test may fail where it stands")]

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Parser as _;
use http::Method;
use k8s_openapi::api;
use pilotfish::api::Route;
use pilotfish::cli::Cli;
use pilotfish::config::dynamic::DynamicFile;
use pilotfish::config::resolve::resolve;
use pilotfish::config::validate::{Format, load};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

/// Those of Prometheus have tests of their own.
const NOT_KUBERNETES: &str = "monitoring";

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("manifests")
}

/// Every YAML file: its path below `manifests`, and its text.
fn files() -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    let mut folders = vec![folder()];
    while let Some(from) = folders.pop() {
        for entry in std::fs::read_dir(from).unwrap() {
            let path = entry.unwrap().path();
            let name = path.strip_prefix(folder()).unwrap().to_str().unwrap();
            if path.is_dir() && name != NOT_KUBERNETES {
                folders.push(path);
            } else if path
                .extension()
                .is_some_and(|extension| extension == "yaml")
            {
                found.insert(name.to_owned(), std::fs::read_to_string(&path).unwrap());
            }
        }
    }
    found
}

fn is_settings(name: &str) -> bool {
    name.ends_with("pilotfish.yaml")
}

/// Every object: the file's path, and what is in it.
fn objects() -> BTreeMap<String, Value> {
    let is_object = |name: &String| !is_settings(name) && !name.ends_with("kustomization.yaml");
    let files = files().into_iter().filter(|(name, _)| is_object(name));
    let objects: BTreeMap<String, Value> = files
        .map(|(name, text)| {
            let object = serde_saphyr::from_str(&text).unwrap_or_else(|e| panic!("{name}: {e}"));
            (name, object)
        })
        .collect();
    assert!(objects.len() >= 20);
    objects
}

fn kustomizations() -> BTreeMap<String, Value> {
    let files = files().into_iter();
    let files = files.filter(|(name, _)| name.ends_with("kustomization.yaml"));
    files
        .map(|(name, text)| {
            let folder = name.rsplit_once('/').unwrap().0.to_owned();
            (folder, serde_saphyr::from_str(&text).unwrap())
        })
        .collect()
}

fn kind(object: &Value) -> &str {
    object["kind"].as_str().unwrap()
}

fn list<'a>(value: &'a Value, key: &str) -> impl Iterator<Item = &'a Value> {
    value[key].as_array().into_iter().flatten()
}

fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value[key]
        .as_str()
        .unwrap_or_else(|| panic!("no {key}: {value}"))
}

/// What is in `written` and not, or otherwise, in `read`.
fn lost(at: &str, written: &Value, read: &Value, all: &mut Vec<String>) {
    match (written, read) {
        (Value::Object(written), Value::Object(read)) => {
            for (key, value) in written {
                let at = format!("{at}.{key}");
                match read.get(key) {
                    Some(read) => lost(&at, value, read, all),
                    None => all.push(at),
                }
            }
        }
        (Value::Array(written), Value::Array(read)) if written.len() == read.len() => {
            for (index, (written, read)) in written.iter().zip(read).enumerate() {
                lost(&format!("{at}[{index}]"), written, read, all);
            }
        }
        _ if written == read => {}
        _ => all.push(format!("{at}: {written} is read as {read}")),
    }
}

/// The fields that the type does not know.
fn unknown<T: DeserializeOwned + Serialize>(object: &Value) -> Result<Vec<String>, String> {
    let read: T = serde_json::from_value(object.clone()).map_err(|error| error.to_string())?;
    let mut all = Vec::new();
    let read = serde_json::to_value(read).map_err(|error| error.to_string())?;
    lost("", object, &read, &mut all);
    Ok(all)
}

/// The same for types that are not Kubernetes' own: every path that is there, of
/// those that may be.
fn unknown_of(object: &Value, known: &[&str]) -> Vec<String> {
    fn paths(at: &str, value: &Value, all: &mut BTreeSet<String>) {
        match value {
            Value::Object(fields) => {
                for (key, value) in fields {
                    paths(&format!("{at}.{key}"), value, all);
                }
            }
            Value::Array(items) => items
                .iter()
                .for_each(|item| paths(&format!("{at}[]"), item, all)),
            _ => {
                all.insert(at.to_owned());
            }
        }
    }
    let mut all = BTreeSet::new();
    paths("", object, &mut all);
    let common = [".apiVersion", ".kind", ".metadata."];
    let is_known = |path: &String| {
        let mut known = known.iter().chain(&common);
        known.any(|known| path == known || (known.ends_with('.') && path.starts_with(known)))
    };
    all.into_iter().filter(|path| !is_known(path)).collect()
}

/// What is wrong with an object, by its type.
fn wrong(object: &Value) -> Result<Vec<String>, String> {
    match (text(object, "apiVersion"), kind(object)) {
        ("v1", "Namespace") => unknown::<api::core::v1::Namespace>(object),
        ("v1", "Service") => unknown::<api::core::v1::Service>(object),
        ("v1", "ServiceAccount") => unknown::<api::core::v1::ServiceAccount>(object),
        ("apps/v1", "Deployment") => unknown::<api::apps::v1::Deployment>(object),
        ("autoscaling/v2", "HorizontalPodAutoscaler") => {
            unknown::<api::autoscaling::v2::HorizontalPodAutoscaler>(object)
        }
        ("policy/v1", "PodDisruptionBudget") => {
            unknown::<api::policy::v1::PodDisruptionBudget>(object)
        }
        ("networking.k8s.io/v1", "NetworkPolicy") => {
            unknown::<api::networking::v1::NetworkPolicy>(object)
        }
        ("rbac.authorization.k8s.io/v1", "Role") => unknown::<api::rbac::v1::Role>(object),
        ("rbac.authorization.k8s.io/v1", "RoleBinding") => {
            unknown::<api::rbac::v1::RoleBinding>(object)
        }
        ("monitoring.coreos.com/v1", "PodMonitor") => Ok(unknown_of(
            object,
            &[
                ".spec.selector.matchExpressions[].key",
                ".spec.selector.matchExpressions[].operator",
                ".spec.selector.matchExpressions[].values[]",
                ".spec.podMetricsEndpoints[].port",
                ".spec.podMetricsEndpoints[].path",
                ".spec.podMetricsEndpoints[].interval",
                ".spec.podMetricsEndpoints[].relabelings[].targetLabel",
                ".spec.podMetricsEndpoints[].relabelings[].replacement",
            ],
        )),
        ("inference.networking.k8s.io/v1", "InferencePool") => Ok(unknown_of(
            object,
            &[
                ".spec.selector.matchLabels.",
                ".spec.targetPorts[].number",
                ".spec.endpointPickerRef.name",
                ".spec.endpointPickerRef.port.number",
            ],
        )),
        (version, kind) => Err(format!("{version} {kind} is not in this table")),
    }
}

#[test]
fn every_field_is_one_of_kubernetes() {
    for (name, object) in objects() {
        assert_eq!(wrong(&object), Ok(Vec::new()), "{name}");
    }
}

#[test]
fn a_field_that_is_none_is_noticed() {
    let mut sidecar = objects()["components/sidecar/sidecar.yaml"].clone();
    let container = &mut sidecar["spec"]["template"]["spec"]["initContainers"][0];
    container["restartPolicies"] = json!("Always");
    container["startupProbe"]["httpGet"]["pth"] = json!("/livez");
    let at = ".spec.template.spec.initContainers[0]";
    let expected = ["restartPolicies", "startupProbe.httpGet.pth"];
    let expected = expected.map(|field| format!("{at}.{field}"));
    assert_eq!(wrong(&sidecar), Ok(expected.to_vec()));
    let role = json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role", "rules": [{"verbs": "get"}]});
    assert!(wrong(&role).is_err());
    let pool = json!({"apiVersion": "inference.networking.k8s.io/v1", "kind": "InferencePool",
        "spec": {"targetPortNumber": 1, "selector": {"matchLabels": {"a": "b"}}}});
    assert_eq!(wrong(&pool), Ok(vec![".spec.targetPortNumber".to_owned()]));
}

/// What a kustomization names is there, and every file is named by one.
#[test]
fn every_file_is_used() {
    let mut used = BTreeSet::new();
    for (at, kustomization) in kustomizations() {
        // Others are written within it.
        let paths = list(&kustomization, "patches").filter_map(|patch| patch["path"].as_str());
        let maps = list(&kustomization, "configMapGenerator").flat_map(|map| list(map, "files"));
        let named = ["resources", "components"].map(|key| list(&kustomization, key));
        let named = named.into_iter().flatten().chain(maps);
        for path in named.map(|path| path.as_str().unwrap()).chain(paths) {
            let file = folder().join(&at).join(path).canonicalize();
            let file = file.unwrap_or_else(|error| panic!("{at} names {path}: {error}"));
            used.insert(file.strip_prefix(folder()).unwrap().to_owned());
        }
    }
    for (name, _) in files() {
        let is_used = name.ends_with("kustomization.yaml") || used.contains(Path::new(&name));
        assert!(is_used, "no kustomization names {name}");
    }
}

/// The settings that a ConfigMap holds, each with its folder.
fn settings() -> Vec<(String, DynamicFile)> {
    let names = files().into_keys().filter(|name| is_settings(name));
    let all: Vec<_> = names
        .map(|name| {
            let path = folder().join(&name);
            let loaded =
                load(&path, Format::of(&path)).unwrap_or_else(|problems| panic!("{problems}"));
            (name.rsplit_once('/').unwrap().0.to_owned(), loaded.keys)
        })
        .collect();
    assert!(all.len() >= 4);
    all
}

#[test]
fn the_settings_are_good() {
    for (name, keys) in settings() {
        let resolved = resolve(&keys).unwrap_or_else(|list| panic!("{name}: {list:?}"));
        assert_eq!(resolved.warnings, Vec::<String>::new(), "{name}");
        assert_eq!(keys.service_discovery.as_deref(), Some("k8s"), "{name}");
    }
}

/// A container of a Deployment, and its pod.
struct Container {
    file: String,
    pod: Value,
    own: Value,
}

impl Container {
    fn args(&self) -> Vec<&str> {
        list(&self.own, "args")
            .map(|arg| arg.as_str().unwrap())
            .collect()
    }

    fn is_ours(&self) -> bool {
        text(&self.own, "image").starts_with("pilotfish:")
    }

    /// Ours, and the proxy.
    fn is_proxy(&self) -> bool {
        self.is_ours() && text(&self.own, "name") == "pilotfish"
    }

    /// Its own, else its pod's.
    fn security(&self, key: &str) -> &Value {
        let own = &self.own["securityContext"][key];
        if own.is_null() {
            &self.pod["spec"]["securityContext"][key]
        } else {
            own
        }
    }
}

fn containers() -> Vec<Container> {
    let mut found = Vec::new();
    for (file, object) in objects() {
        if kind(&object) != "Deployment" {
            continue;
        }
        let pod = &object["spec"]["template"];
        for key in ["initContainers", "containers"] {
            found.extend(list(&pod["spec"], key).map(|own| Container {
                file: file.clone(),
                pod: pod.clone(),
                own: own.clone(),
            }));
        }
    }
    assert!(found.len() >= 4);
    found
}

fn proxies() -> Vec<(Container, Cli)> {
    let proxies = containers().into_iter().filter(Container::is_proxy);
    let proxies: Vec<_> = proxies
        .map(|one| {
            let words = ["pilotfish"].into_iter().chain(one.args());
            let cli = Cli::try_parse_from(words).unwrap_or_else(|e| panic!("{}: {e}", one.file));
            (one, cli)
        })
        .collect();
    assert_eq!(proxies.len(), 2);
    proxies
}

#[test]
fn our_containers_are_started_with_flags_that_we_have() {
    let version = concat!("pilotfish:", env!("CARGO_PKG_VERSION"));
    for one in containers().iter().filter(|one| one.is_ours()) {
        let words = ["pilotfish"].into_iter().chain(one.args());
        let cli = Cli::try_parse_from(words).unwrap_or_else(|e| panic!("{}: {e}", one.file));
        assert_eq!(cli.command.is_none(), one.is_proxy(), "{}", one.file);
        assert_eq!(text(&one.own, "image"), version, "{}", one.file);
    }
    let command = Cli::with_environment();
    let variables: Vec<_> = command
        .get_arguments()
        .filter_map(clap::Arg::get_env)
        .collect();
    for (one, _) in proxies() {
        for variable in list(&one.own, "env").map(|variable| text(variable, "name")) {
            let is_known = ["POD_IP", "NODE_NAME"].contains(&variable)
                || variables.iter().any(|known| *known == variable);
            assert!(is_known, "{}: {variable}", one.file);
        }
    }
}

#[test]
fn ports_and_probes_are_where_we_listen() {
    for (one, cli) in proxies() {
        let file = &one.file;
        assert_eq!(
            one.own["ports"],
            json!([{"name": "pilotfish", "containerPort": cli.proxy.port}]),
            "{file}"
        );
        assert!(
            cli.proxy.host.is_unspecified(),
            "{file}: probes come from outside"
        );
        // Whoever reaches it rules us.
        assert!(cli.proxy.admin_port.is_none() || cli.proxy.admin_host.is_loopback());
        for (probe, route) in [
            ("startupProbe", Route::Ready),
            ("livenessProbe", Route::Live),
            ("readinessProbe", Route::Ready),
        ] {
            let get = &one.own[probe]["httpGet"];
            assert_eq!(text(get, "port"), "pilotfish", "{file} {probe}");
            let path = Route::of(&Method::GET, text(get, "path"));
            assert_eq!(path, Some(route), "{file} {probe}");
        }
        assert_eq!(one.own["startupProbe"]["periodSeconds"], 1, "{file}");
        // Longer than we wait for engines that do not tell their models.
        let tries = one.own["startupProbe"]["failureThreshold"].as_u64();
        let waits = cli.proxy.discovery.cluster.discovery_timeout.as_secs();
        assert!(tries >= Some(waits + 10), "{file}");
        // A sidecar keeps nobody from starting; a gateway is rolled out only when
        // it knows its engines.
        let is_gateway = file.starts_with("gateway/");
        assert_eq!(waits, if is_gateway { 60 } else { 5 }, "{file}");
    }
    let monitor = &objects()["components/podmonitor/podmonitor.yaml"];
    for endpoint in list(&monitor["spec"], "podMetricsEndpoints") {
        let path = Route::of(&Method::GET, text(endpoint, "path"));
        assert_eq!(path, Some(Route::Metrics));
        assert_eq!(text(endpoint, "port"), "pilotfish");
    }
}

#[test]
fn the_settings_are_mounted_where_we_look_and_may_change() {
    for (one, cli) in proxies() {
        let dynamic = cli.proxy.dynamic.dynamic_config_yaml.unwrap();
        let mount = list(&one.own, "volumeMounts")
            .find(|mount| dynamic.parent() == Some(Path::new(text(mount, "mountPath"))));
        let mount = mount.unwrap_or_else(|| panic!("{}: nothing is mounted there", one.file));
        // A file mounted by subPath never changes.
        assert!(mount["subPath"].is_null(), "{}", one.file);
        let volume = list(&one.pod["spec"], "volumes")
            .find(|volume| volume["name"] == mount["name"])
            .unwrap();
        let map = text(&volume["configMap"], "name");
        for (at, kustomization) in kustomizations() {
            for generated in list(&kustomization, "configMapGenerator") {
                assert_eq!(text(generated, "name"), map, "{at}");
                let name = dynamic.file_name().unwrap().to_str().unwrap();
                assert_eq!(generated["files"], json!([name]), "{at}");
                let options = &kustomization["generatorOptions"];
                assert_eq!(options["disableNameSuffixHash"], true, "{at}");
            }
        }
    }
}

#[test]
fn a_drain_fits_into_the_grace_period() {
    for (one, cli) in proxies() {
        assert!(one.own["lifecycle"].is_null(), "{}", one.file);
        let drain = cli.proxy.bounds.drain_settle + cli.proxy.bounds.drain_timeout;
        let grace = one.pod["spec"]["terminationGracePeriodSeconds"].as_u64();
        match grace {
            Some(grace) => {
                assert!(drain + Duration::from_secs(10) <= Duration::from_secs(grace));
                assert!(cli.proxy.bounds.drain_settle >= Duration::from_secs(5));
            }
            // The application's: nobody is there any more when we are asked to stop.
            None => {
                assert_eq!(one.own["restartPolicy"], "Always");
                assert_eq!(cli.proxy.bounds.drain_settle, Duration::ZERO);
                assert!(drain <= Duration::from_secs(10));
            }
        }
    }
}

/// Pod Security `restricted`, and more.
#[test]
fn every_container_has_no_rights() {
    for one in containers() {
        let file = &one.file;
        for (key, value) in [
            ("runAsNonRoot", json!(true)),
            ("runAsUser", json!(65532)),
            ("runAsGroup", json!(65532)),
            ("allowPrivilegeEscalation", json!(false)),
            ("readOnlyRootFilesystem", json!(true)),
            ("capabilities", json!({"drop": ["ALL"]})),
            ("seccompProfile", json!({"type": "RuntimeDefault"})),
        ] {
            assert_eq!(*one.security(key), value, "{file}: {key}");
        }
        let resources = &one.own["resources"];
        assert!(resources["requests"]["cpu"].is_string(), "{file}");
        assert!(resources["requests"]["memory"].is_string(), "{file}");
        assert!(resources["limits"]["memory"].is_string(), "{file}");
        // Throttling is latency.
        assert!(resources["limits"]["cpu"].is_null(), "{file}");
    }
}

/// Nobody has a token but who has to ask the API server.
#[test]
fn the_token_is_mounted_into_the_proxy_alone() {
    const AT: &str = "/var/run/secrets/kubernetes.io/serviceaccount";
    for one in containers() {
        let file = &one.file;
        let mut mounts = list(&one.own, "volumeMounts");
        let has_token = mounts.any(|mount| mount["mountPath"] == AT);
        assert_eq!(has_token, one.is_proxy(), "{file}");
        // The application's is set by the component's patch.
        let mounted = &one.pod["spec"]["automountServiceAccountToken"];
        let is_patched = file.ends_with("application.yaml");
        assert!(*mounted == false || is_patched, "{file}");
        if one.is_proxy() {
            let volumes = list(&one.pod["spec"], "volumes");
            let projected = volumes.filter(|volume| volume["projected"].is_object());
            let sources: Vec<_> = projected
                .flat_map(|volume| list(&volume["projected"], "sources"))
                .flat_map(|source| source.as_object().unwrap().keys())
                .collect();
            let expected = ["serviceAccountToken", "configMap", "downwardAPI"];
            assert_eq!(sources, expected, "{file}");
        }
    }
}

/// The gateway's container is the sidecar's, but for how it starts and stops, how
/// much it may take, and that nothing is near it but its zone.
#[test]
fn sidecar_and_gateway_are_alike() {
    let all = proxies();
    let [(one, _), (other, _)] = &all[..] else {
        panic!("{} of them", all.len())
    };
    for key in [
        "name",
        "image",
        "ports",
        "readinessProbe",
        "livenessProbe",
        "volumeMounts",
    ] {
        assert_eq!(one.own[key], other.own[key], "{key}");
    }
    assert_eq!(one.pod["spec"]["volumes"], other.pod["spec"]["volumes"]);
    let args = |one: &Container| -> Vec<String> {
        let args = one.args().into_iter();
        let args = args.filter(|arg| !arg.starts_with("--drain-"));
        let args = args.filter(|arg| !arg.starts_with("--discovery-timeout"));
        args.map(str::to_owned).collect()
    };
    assert_eq!(args(one), args(other));
    for (one, _) in &all {
        let near: &[&str] = if one.file.starts_with("gateway/") {
            &["PILOTFISH_ZONE"]
        } else {
            &["POD_IP", "NODE_NAME", "PILOTFISH_ZONE"]
        };
        let names = list(&one.own, "env").map(|variable| text(variable, "name"));
        assert_eq!(names.collect::<Vec<_>>(), near, "{}", one.file);
    }
}

fn labels(of: &Value) -> BTreeMap<String, String> {
    serde_json::from_value(of["metadata"]["labels"].clone()).unwrap()
}

fn selects(selector: &Value, labels: &BTreeMap<String, String>) -> bool {
    let equal = selector["matchLabels"].as_object().into_iter().flatten();
    let mut equal = equal.map(|(key, value)| (key, std::slice::from_ref(value)));
    let among = list(selector, "matchExpressions").map(|one| {
        assert_eq!(one["operator"], "In");
        (text(one, "key"), one["values"].as_array().unwrap())
    });
    let has = |key: &str, values: &[Value]| {
        let label = labels.get(key);
        label.is_some_and(|label| values.iter().any(|value| value == label))
    };
    equal.all(|(key, values)| has(key, values))
        && among.into_iter().all(|(key, values)| has(key, values))
}

/// A file, where in it there is a selector, and whether this selects the pods of the
/// gateway, the application and the engine.
const SELECTORS: [(&str, &str, [bool; 3]); 12] = {
    const GATEWAY: [bool; 3] = [true, false, false];
    const APPLICATION: [bool; 3] = [false, true, false];
    const ENGINE: [bool; 3] = [false, false, true];
    const PROXIES: [bool; 3] = [true, true, false];
    const FROM: &str = "/spec/ingress/0/from/0/podSelector";
    const TO: &str = "/spec/egress/0/to/0/podSelector";
    [
        ("gateway/deployment.yaml", "/spec/selector", GATEWAY),
        ("gateway/service.yaml", "/spec/selector", GATEWAY),
        ("gateway/disruption-budget.yaml", "/spec/selector", GATEWAY),
        (
            "examples/demo/application.yaml",
            "/spec/selector",
            APPLICATION,
        ),
        ("examples/demo/engines.yaml", "/spec/selector", ENGINE),
        ("examples/gateway/engines.yaml", "/spec/selector", ENGINE),
        ("examples/inferencepool/pool.yaml", "/spec/selector", ENGINE),
        (
            "components/podmonitor/podmonitor.yaml",
            "/spec/selector",
            PROXIES,
        ),
        (
            "components/network-policy/gateway.yaml",
            "/spec/podSelector",
            GATEWAY,
        ),
        ("components/network-policy/gateway.yaml", TO, ENGINE),
        (
            "components/network-policy/engines.yaml",
            "/spec/podSelector",
            ENGINE,
        ),
        ("components/network-policy/engines.yaml", FROM, PROXIES),
    ]
};

#[test]
fn selectors_select_what_they_are_meant_to() {
    let objects = objects();
    let pod = |file: &str| labels(&objects[file]["spec"]["template"]);
    let mut application = pod("examples/demo/application.yaml");
    application.extend(pod("components/sidecar/sidecar.yaml"));
    let engine = pod("examples/demo/engines.yaml");
    let pods = [pod("gateway/deployment.yaml"), application, engine];
    for (file, pointer, expected) in SELECTORS {
        let mut selector = objects[file].pointer(pointer).unwrap().clone();
        if kind(&objects[file]) == "Service" {
            selector = json!({"matchLabels": selector});
        }
        let selected = pods.each_ref().map(|labels| selects(&selector, labels));
        assert_eq!(selected, expected, "{file} {pointer}");
    }
    let target = &objects["gateway/autoscaler.yaml"]["spec"]["scaleTargetRef"];
    let gateway = &objects["gateway/deployment.yaml"];
    assert_eq!(target["name"], gateway["metadata"]["name"]);
    let patched = &kustomizations()["components/sidecar"]["patches"][0]["target"];
    let (key, value) = text(patched, "labelSelector").split_once('=').unwrap();
    let application = labels(&objects["examples/demo/application.yaml"]);
    assert_eq!(application.get(key).map(String::as_str), Some(value));
}

/// The settings select the engines' pods, or the slices of their Service.
#[test]
fn settings_select_the_engines() {
    let objects = objects();
    let engine = labels(&objects["examples/demo/engines.yaml"]["spec"]["template"]);
    let service = text(
        &objects["examples/gateway/engines.yaml"]["metadata"],
        "name",
    );
    let mut slice = labels(&objects["examples/gateway/engines.yaml"]);
    slice.insert("kubernetes.io/service-name".to_owned(), service.to_owned());
    let mut seen = 0;
    for (at, keys) in settings() {
        let Some(selector) = &keys.k8s_label_selector else {
            continue;
        };
        let (key, value) = selector.split_once('=').unwrap();
        let of = if at == "examples/gateway" {
            &slice
        } else {
            &engine
        };
        assert_eq!(of.get(key).map(String::as_str), Some(value), "{at}");
        seen += 1;
    }
    assert_eq!(seen, 3);
}

/// Whoever tries an example finds its namespace made, and where to name an image.
#[test]
fn examples_have_a_namespace_and_name_the_image() {
    let mut seen = 0;
    for (at, kustomization) in kustomizations() {
        if !at.starts_with("examples/") {
            continue;
        }
        let namespace = &objects()[&format!("{at}/namespace.yaml")];
        assert_eq!(kustomization["namespace"], namespace["metadata"]["name"]);
        let level = "pod-security.kubernetes.io/enforce";
        assert_eq!(namespace["metadata"]["labels"][level], "restricted", "{at}");
        let image = json!({"name": "pilotfish", "newName": "pilotfish", "newTag": env!("CARGO_PKG_VERSION")});
        assert_eq!(kustomization["images"], json!([image]), "{at}");
        seen += 1;
    }
    assert_eq!(seen, 3);
}

/// The sources, and what each needs to read; nothing but reading.
#[test]
fn roles_hold_what_a_source_needs_and_no_more() {
    let objects = objects();
    let mut roles = 0;
    for (file, expected) in [
        ("base/role.yaml", json!([["", "pods"]])),
        (
            "components/endpointslices/role.yaml",
            json!([["discovery.k8s.io", "endpointslices"]]),
        ),
        (
            "components/services/role.yaml",
            json!([["", "services", "endpoints"]]),
        ),
        (
            "components/inferencepool/role.yaml",
            json!([
                ["", "pods"],
                [
                    "inference.networking.k8s.io",
                    "inferencepools",
                    "NAME-OF-YOUR-POOL"
                ]
            ]),
        ),
    ] {
        let role = &objects[file];
        let rules: Vec<Vec<&Value>> = list(role, "rules")
            .map(|rule| {
                assert_eq!(rule["verbs"], json!(["list", "watch"]), "{file}");
                list(rule, "apiGroups")
                    .chain(list(rule, "resources"))
                    .chain(list(rule, "resourceNames"))
                    .collect()
            })
            .collect();
        assert_eq!(json!(rules), expected, "{file}");
        let bound = &objects["base/role-binding.yaml"];
        assert_eq!(bound["roleRef"]["name"], role["metadata"]["name"], "{file}");
        roles += 1;
    }
    assert_eq!(
        objects.values().filter(|one| kind(one) == "Role").count(),
        roles
    );
    let account = &objects["base/account.yaml"];
    assert_eq!(
        objects["base/role-binding.yaml"]["subjects"][0]["name"],
        account["metadata"]["name"]
    );
    for (one, _) in proxies() {
        assert_eq!(
            one.pod["spec"]["serviceAccountName"],
            account["metadata"]["name"]
        );
    }
}

/// An example that reads from somewhere has the Role for it.
#[test]
fn examples_have_the_role_of_their_source() {
    let kustomizations = kustomizations();
    for (at, keys) in settings() {
        let keys = serde_json::to_value(&keys).unwrap();
        let source = match keys["k8s_service_discovery_type"].as_str() {
            Some("service-name") => "services",
            _ => keys["k8s_source"].as_str().unwrap_or("pods"),
        };
        let components = list(&kustomizations[&at], "components");
        let sources: Vec<_> = components
            .map(|path| path.as_str().unwrap().rsplit('/').next().unwrap())
            .filter(|name| ["endpointslices", "services", "inferencepool"].contains(name))
            .collect();
        let expected: &[&str] = if source == "pods" { &[] } else { &[source] };
        assert_eq!(sources, expected, "{at}");
    }
}

/// What docs/kubernetes.md shows and points to is there.
#[test]
fn the_documentation_shows_what_there_is() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let shown = std::fs::read_to_string(root.join("docs/kubernetes.md")).unwrap();
    let links = shown.split("](../").skip(1).map(|rest| {
        let link = rest.split(')').next().unwrap();
        link.split('#').next().unwrap()
    });
    for link in links {
        assert!(root.join(link).exists(), "{link}");
    }
    let name = format!("pilotfish-kubernetes-{}.yaml", std::process::id());
    let file = std::env::temp_dir().join(name);
    let blocks = shown.split("```yaml\n").skip(1);
    let mut seen = 0;
    for block in blocks.filter_map(|rest| rest.split("```").next()) {
        let value: Value = serde_saphyr::from_str(block).unwrap_or_else(|e| panic!("{block}: {e}"));
        if value["service_discovery"].is_null() {
            continue;
        }
        std::fs::write(&file, format!("{block}\nrouting_logic: leastload\n")).unwrap();
        let loaded = load(&file, Format::of(&file));
        std::fs::remove_file(&file).unwrap();
        let loaded = loaded.unwrap_or_else(|problems| panic!("{block}: {problems}"));
        resolve(&loaded.keys).unwrap_or_else(|list| panic!("{block}: {list:?}"));
        seen += 1;
    }
    assert_eq!(seen, 1);
}
