use std::time::Instant;

use serde_json::{Value, json};

use super::*;

mod property;
mod sources;

fn known(source: Source) -> Known {
    let settings = Kubernetes {
        source,
        ..Kubernetes::default()
    };
    Known::new(&settings, "ns", &Own::default())
}

fn pod(name: &str, uid: &str, ip: &str, ready: &str) -> Value {
    json!({
        "metadata": {"name": name, "uid": uid, "labels": {"app": "x"}, "annotations": {}},
        "status": {"phase": "Running", "podIP": ip,
            "conditions": [{"type": "Ready", "status": ready}]}
    })
}

fn list(known: &mut Known, stream: Stream, objects: &[Value]) -> bool {
    assert!(!known.take(stream, Event::Listing));
    for object in objects {
        assert!(!known.take(stream, Event::Item(object.to_string().as_bytes())));
    }
    known.take(stream, Event::Listed)
}

fn apply(known: &mut Known, stream: Stream, object: &Value) -> bool {
    known.take(stream, Event::Applied(object.to_string().as_bytes()))
}

fn delete(known: &mut Known, stream: Stream, object: &Value) -> bool {
    known.take(stream, Event::Deleted(object.to_string().as_bytes()))
}

/// `UID:PORT` of each, with `-` before those that are closed.
fn told(known: &Known) -> Vec<String> {
    let engines = known.engines();
    let told = engines.iter().map(|found| {
        let closed = if found.is_ready { "" } else { "-" };
        format!("{closed}{}", found.identity)
    });
    told.collect()
}

use Stream::{Main, Second};

#[test]
fn a_pod_that_was_ready_is_closed_until_it_is_gone() {
    let mut known = known(Source::Pods);
    assert!(!known.is_listed());
    assert!(list(
        &mut known,
        Main,
        &[pod("a", "u", "10.0.0.1", "False")]
    ));
    assert!(known.is_listed());
    assert!(told(&known).is_empty(), "never ready: no engine yet");
    let at = |ready: &str| pod("a", "u", "10.0.0.1", ready);
    for (ready, expected) in [("True", "u:8000"), ("False", "-u:8000"), ("True", "u:8000")] {
        assert!(apply(&mut known, Main, &at(ready)));
        assert_eq!(told(&known), [expected]);
        assert!(!apply(&mut known, Main, &at(ready)), "nothing is new");
    }
    let mut status = at("True");
    status["status"]["containerStatuses"] = json!([{"restartCount": 3}]);
    status["metadata"]["resourceVersion"] = json!("7");
    assert!(!apply(&mut known, Main, &status), "nothing that matters");
    let mut dying = at("True");
    dying["metadata"]["deletionTimestamp"] = json!("2026-11-23T10:00:00Z");
    assert!(apply(&mut known, Main, &dying));
    assert_eq!(told(&known), ["-u:8000"]);
    assert!(
        !list(&mut known, Main, &[dying.clone()]),
        "a list brings nothing new"
    );
    assert_eq!(told(&known), ["-u:8000"], "and forgets nothing");
    assert!(delete(&mut known, Main, &dying));
    assert!(told(&known).is_empty());
    assert!(!delete(&mut known, Main, &dying), "it is gone already");
    assert_eq!(known.once.len(), 0);
}

#[test]
fn a_pod_that_ends_or_moves_is_gone() {
    let ready = pod("a", "u", "10.0.0.1", "True");
    for (pointer, value, back) in [
        ("/status/phase", json!("Failed"), "True"),
        ("/status/phase", json!("Succeeded"), "True"),
        ("/status/podIP", json!(""), "True"),
        ("/status/podIP", json!("10.0.0.2"), "False"),
    ] {
        let mut known = known(Source::Pods);
        list(&mut known, Main, std::slice::from_ref(&ready));
        let mut other = pod("a", "u", "10.0.0.1", back);
        *other.pointer_mut(pointer).unwrap() = value;
        assert!(apply(&mut known, Main, &other));
        assert!(told(&known).is_empty(), "{pointer}");
        apply(&mut known, Main, &pod("a", "u", "10.0.0.1", "False"));
        assert!(told(&known).is_empty(), "it begins anew");
    }
}

#[test]
fn the_same_name_may_be_another_pod() {
    let mut known = known(Source::Pods);
    let (old, new) = (
        pod("a", "u1", "10.0.0.1", "True"),
        pod("a", "u2", "10.0.0.1", "False"),
    );
    list(&mut known, Main, std::slice::from_ref(&old));
    assert!(apply(&mut known, Main, &new));
    assert!(told(&known).is_empty(), "its past is not its own");
    assert!(!delete(&mut known, Main, &old), "that is not the one");
    apply(&mut known, Main, &pod("a", "u2", "10.0.0.1", "True"));
    assert_eq!(told(&known), ["u2:8000"]);
    assert!(list(
        &mut known,
        Main,
        &[pod("a", "u3", "10.0.0.1", "False")]
    ));
    assert!(told(&known).is_empty());
}

#[test]
fn one_engine_at_an_address() {
    let mut known = known(Source::Pods);
    let created = |name: &str, at: &str, ready: &str| {
        let mut pod = pod(name, name, "10.0.0.1", ready);
        pod["metadata"]["creationTimestamp"] = json!(at);
        pod
    };
    let (early, late) = ("2026-11-23T10:00:00Z", "2026-11-23T10:00:01Z");
    list(
        &mut known,
        Main,
        &[created("a", late, "True"), created("b", early, "True")],
    );
    assert_eq!(told(&known), ["a:8000"], "the newer one");
    apply(&mut known, Main, &created("a", late, "False"));
    assert_eq!(told(&known), ["b:8000"], "the ready one");
    apply(&mut known, Main, &created("b", early, "False"));
    assert_eq!(told(&known), ["-a:8000"]);
    let found = &known.engines()[0];
    assert_eq!(found.url.text(), "http://10.0.0.1:8000");
}

#[test]
fn a_list_that_breaks_off_changes_nothing() {
    let mut known = known(Source::Pods);
    let pods = ["1", "2", "3"].map(|n| pod(n, n, &format!("10.0.0.{n}"), "True"));
    list(&mut known, Main, &pods);
    let whole = ["1:8000", "2:8000", "3:8000"];
    known.take(Main, Event::Listing);
    known.take(Main, Event::Item(pods[0].to_string().as_bytes()));
    assert_eq!(told(&known), whole);
    assert!(!list(&mut known, Main, &pods));
    assert_eq!(told(&known), whole);
    assert!(list(&mut known, Main, &pods[1..]));
    assert_eq!(told(&known), whole[1..]);
    assert!(!known.take(Main, Event::Listed), "there was no list");
}

#[test]
fn traits_are_made_once() {
    let mut known = known(Source::Pods);
    let mut ready = pod("a", "u", "10.0.0.1", "True");
    list(&mut known, Main, std::slice::from_ref(&ready));
    let traits = |known: &Known| Arc::clone(&known.engines()[0].traits);
    let before = traits(&known);
    ready["metadata"]["managedFields"] = json!([{"time": "x"}]);
    list(&mut known, Main, std::slice::from_ref(&ready));
    assert!(Arc::ptr_eq(&before, &traits(&known)));
    ready["metadata"]["annotations"]["pilotfish.dev/weight"] = json!("3");
    assert!(apply(&mut known, Main, &ready));
    assert_eq!(traits(&known).weight, 3.0);
    ready["metadata"]["annotations"]["pilotfish.dev/ports"] = json!("1,2");
    ready["metadata"]["annotations"]["pilotfish.dev/models"] = json!("a,b,a");
    apply(&mut known, Main, &ready);
    let engines = known.engines();
    let models = |of: usize| engines[of].models.as_ref().unwrap();
    assert_eq!(**models(0), ["a", "b"]);
    assert!(Arc::ptr_eq(models(0), models(1)));
    assert!(Arc::ptr_eq(&engines[0].traits, &engines[1].traits));
}

/// Pods and slices alike: an address that is nobody's, and our own listener.
#[test]
fn some_addresses_are_no_engines() {
    let settings = Kubernetes::default();
    let own = Own {
        port: 8000,
        ips: vec!["10.0.0.1".parse().unwrap()],
    };
    let mut known = Known::new(&settings, "ns", &own);
    let ips = [
        "10.0.0.1",
        "10.0.0.2",
        "127.0.0.1",
        "169.254.169.254",
        "::",
        "ff02::1",
    ];
    let pods: Vec<Value> = ips.iter().map(|ip| pod(ip, ip, ip, "True")).collect();
    list(&mut known, Main, &pods);
    assert_eq!(told(&known), ["10.0.0.2:8000"]);
    assert_eq!(known.told.warnings, 5, "each is told");
    list(&mut known, Main, &pods);
    assert_eq!(known.told.warnings, 5, "once");
    let mut other = pods[0].clone();
    other["metadata"]["annotations"]["pilotfish.dev/ports"] = json!("8000,8001");
    apply(&mut known, Main, &other);
    assert_eq!(told(&known), ["10.0.0.1:8001", "10.0.0.2:8000"]);
}

#[test]
fn what_cannot_be_read_is_told_once() {
    let mut known = known(Source::Pods);
    let mut broken = pod("a", "u", "10.0.0.1", "True");
    broken["status"]["conditions"] = json!("none");
    let mut unusable = pod("b", "v", "10.0.0.2", "True");
    unusable["metadata"]["annotations"]["pilotfish.dev/metadata"] = json!("{");
    for _ in 0..3 {
        list(
            &mut known,
            Main,
            &[broken.clone(), unusable.clone(), json!([])],
        );
        assert!(!apply(&mut known, Main, &broken));
        assert_eq!(told(&known), ["v:8000"]);
        for bytes in [
            &b"{"[..],
            b"",
            b"\xff",
            b"null",
            b"{\"metadata\": {\"name\": 1}}",
        ] {
            assert!(!known.take(Main, Event::Applied(bytes)));
            assert!(!known.take(Main, Event::Deleted(bytes)));
        }
    }
    assert_eq!(
        known.told.warnings, 3,
        "a pod, one without a name, an annotation"
    );
    unusable["metadata"]["annotations"]["pilotfish.dev/metadata"] = json!("[");
    apply(&mut known, Main, &unusable);
    assert_eq!(known.told.warnings, 4, "another value");
}

#[test]
fn there_is_a_most() {
    let mut pods: Objects<Pod> = Objects::new(3);
    let rules = known(Source::Pods).rules;
    let (mut once, mut notes) = (Once::default(), Notes::default());
    let mut taking = Taking {
        rules: &rules,
        once: &mut once,
        notes: &mut notes,
    };
    let mut two = pod("a", "a", "10.0.0.1", "True");
    two["metadata"]["annotations"]["pilotfish.dev/ports"] = json!("1,2");
    let one = |name: &str| pod(name, name, "10.0.0.2", "True").to_string();
    pods.take(Event::Listing, &mut taking);
    for pod in [two.to_string(), one("b"), one("c"), one("d")] {
        pods.take(Event::Item(pod.as_bytes()), &mut taking);
    }
    pods.take(Event::Listed, &mut taking);
    assert_eq!(pods.iter().count(), 2, "three engines");
    assert!(!pods.take(Event::Applied(one("c").as_bytes()), &mut taking));
    assert!(pods.take(Event::Deleted(two.to_string().as_bytes()), &mut taking));
    assert!(pods.take(Event::Applied(one("c").as_bytes()), &mut taking));
    assert!(pods.take(Event::Applied(one("d").as_bytes()), &mut taking));
    assert!(!pods.take(Event::Applied(one("e").as_bytes()), &mut taking));
    assert_eq!(pods.iter().count(), 3);
    let mut more = pod("b", "b", "10.0.0.2", "False");
    more["metadata"]["annotations"]["pilotfish.dev/ports"] = json!("1,2");
    assert!(pods.take(Event::Applied(more.to_string().as_bytes()), &mut taking));
    assert_eq!(pods.iter().count(), 2, "not as it was before");
    assert!(notes.warnings()[0].contains("more than 3 objects (pod)"));
}

#[test]
fn events_of_a_stream_that_is_not_there_are_nothing() {
    let mut known = known(Source::Pods);
    assert!(!apply(
        &mut known,
        Second,
        &pod("a", "u", "10.0.0.1", "True")
    ));
    assert!(told(&known).is_empty());
}

/// Prints what five thousand pods take.
#[test]
fn five_thousand_pods() {
    let pods: Vec<String> = (0..5000)
        .map(|n| {
            let ip = format!("10.0.{}.{}", n / 250, n % 250);
            let mut pod = pod(&format!("engine-{n}"), &format!("7f3c0c3e-54a8-{n}"), &ip, "True");
            let fields: Vec<Value> = (0..60)
                .map(|n| json!({"manager": "kubelet", "fieldsV1": {format!("f:{n}"): {"f:type": {}}}}))
                .collect();
            pod["metadata"]["managedFields"] = json!(fields);
            for n in 0..6 {
                pod["metadata"]["labels"][format!("app.kubernetes.io/name-{n}")] = json!("some-value");
            }
            pod.to_string()
        })
        .collect();
    let mut known = known(Source::Pods);
    let began = Instant::now();
    known.take(Main, Event::Listing);
    for pod in &pods {
        known.take(Main, Event::Item(pod.as_bytes()));
    }
    assert!(known.take(Main, Event::Listed));
    println!(
        "listed in {:?}, {} bytes each",
        began.elapsed(),
        pods[0].len()
    );
    let began = Instant::now();
    assert!(!known.take(Main, Event::Applied(pods[7].as_bytes())));
    println!("a status in {:?}", began.elapsed());
    let began = Instant::now();
    let engines = known.engines();
    println!("engines in {:?}", began.elapsed());
    assert_eq!(engines.len(), 5000);
    assert!(engines.is_sorted_by_key(|found| found.url.text().to_owned()));
}
