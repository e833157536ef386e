//! Pools, slices and services.

use super::*;

fn pool(name: &str, label: &str, ports: &[u16]) -> Value {
    let ports: Vec<Value> = ports.iter().map(|port| json!({"number": port})).collect();
    json!({"metadata": {"name": name, "uid": name},
        "spec": {"selector": {"matchLabels": {"app": label}}, "targetPorts": ports}})
}

#[test]
fn a_pool_tells_which_pods_and_ports() {
    let mut known = known(Source::InferencePool("p".to_owned()));
    assert!(list(&mut known, Second, &[pool("other", "y", &[1])]));
    assert_eq!(known.selector(), None);
    assert!(known.is_listed(), "there is nothing to list");
    assert!(apply(&mut known, Second, &pool("p", "x", &[8000, 8001])));
    assert_eq!(known.selector().unwrap(), "app=x");
    assert!(!known.is_listed());
    assert!(list(&mut known, Main, &[pod("a", "u", "10.0.0.1", "True")]));
    assert!(known.is_listed());
    assert_eq!(told(&known), ["u:8000", "u:8001"]);

    // Ports change while pods are being listed.
    known.take(Main, Event::Listing);
    let again = pod("a", "u", "10.0.0.1", "False").to_string();
    known.take(Main, Event::Item(again.as_bytes()));
    assert!(apply(&mut known, Second, &pool("p", "x", &[8001, 9000])));
    assert_eq!(told(&known), ["u:8001", "u:9000"]);
    known.take(Main, Event::Listed);
    assert_eq!(told(&known), ["-u:8001", "-u:9000"]);

    assert!(delete(&mut known, Second, &pool("p", "x", &[])));
    assert!(told(&known).is_empty());
    assert_eq!((known.selector(), known.once.len()), (None, 0));
    apply(&mut known, Main, &pod("a", "u", "10.0.0.1", "True"));
    assert!(told(&known).is_empty(), "a late event");
    apply(&mut known, Second, &pool("p", "z", &[1]));
    assert!(!known.is_listed(), "its pods are not known yet");
}

#[test]
fn a_pool_that_is_not_there_is_told_each_time() {
    let mut known = known(Source::InferencePool("p".to_owned()));
    assert!(list(&mut known, Second, &[]));
    assert_eq!(known.told.warnings, 1);
    list(&mut known, Second, &[]);
    list(&mut known, Second, &[pool("other", "y", &[1])]);
    assert_eq!(known.told.warnings, 1, "once");
    for times in 2..4 {
        apply(&mut known, Second, &pool("p", "x", &[8000]));
        assert_eq!(known.told.warnings, times - 1);
        if times == 2 {
            delete(&mut known, Second, &pool("p", "x", &[8000]));
        } else {
            list(&mut known, Second, &[]);
        }
        assert_eq!(known.told.warnings, times, "it was there, and went");
    }
    let (mut absence, mut notes) = (Absence::default(), Notes::default());
    let mut pools = Objects::new(1);
    absence.tell(&pools, ("p", "ns"), &mut notes);
    assert!(notes.warnings().is_empty(), "not known yet");
    let Known { rules, once, .. } = &mut known;
    let mut taking = Taking {
        rules,
        once,
        notes: &mut Notes::default(),
    };
    pools.take(Event::Listing, &mut taking);
    pools.take(Event::Listed, &mut taking);
    absence.tell(&pools, ("p", "ns"), &mut notes);
    let told = "there is no InferencePool p in namespace ns; nothing is served until there is";
    assert_eq!(notes.warnings(), [told]);
}

fn slice(name: &str, family: &str, endpoints: &[(&str, &str, bool)]) -> Value {
    let endpoints = endpoints.iter().map(|(uid, ip, ready)| {
        json!({"addresses": [ip], "conditions": {"ready": ready},
            "targetRef": {"kind": "Pod", "name": uid, "uid": uid}})
    });
    json!({"metadata": {"name": name, "uid": name}, "addressType": family,
        "ports": [{"port": 8000}], "endpoints": endpoints.collect::<Vec<_>>()})
}

#[test]
fn endpoints_move_between_slices() {
    let mut known = known(Source::EndpointSlices);
    let v4 = |name, endpoints: &[_]| slice(name, "IPv4", endpoints);
    let (a, b) = (("a", "10.0.0.1", true), ("b", "10.0.0.2", false));
    list(&mut known, Main, &[v4("s1", &[a, b])]);
    assert_eq!(told(&known), ["a:8000"]);
    // It is added to the one before it is taken out of the other.
    let closed = ("a", "10.0.0.1", false);
    apply(&mut known, Main, &v4("s2", &[closed]));
    assert_eq!(told(&known), ["a:8000"], "the ready one of the two");
    apply(&mut known, Main, &v4("s1", &[b]));
    assert_eq!(told(&known), ["-a:8000"]);
    assert!(!list(
        &mut known,
        Main,
        &[v4("s1", &[b]), v4("s2", &[closed])]
    ));
    assert_eq!(told(&known), ["-a:8000"]);
    delete(&mut known, Main, &v4("s2", &[]));
    assert!(told(&known).is_empty());
    assert_eq!(known.once.len(), 1);

    let v6 = slice(
        "s3",
        "IPv6",
        &[("a", "fd00::1", true), ("b", "fd00::2", true)],
    );
    list(&mut known, Main, &[v4("s1", &[a, b]), v6]);
    let urls = known
        .engines()
        .into_iter()
        .map(|found| found.url.text().to_owned());
    let expected = ["http://10.0.0.1:8000", "http://[fd00::2]:8000"];
    assert_eq!(urls.collect::<Vec<_>>(), expected, "one address of each");
}

#[test]
fn services_are_ready_by_their_endpoints() {
    let mut known = known(Source::Services);
    let service = json!({"metadata": {"name": "s", "uid": "u"}, "spec": {"ports": [{"port": 80}]}});
    let endpoints =
        |subsets: Value| json!({"metadata": {"name": "s", "uid": "e"}, "subsets": subsets});
    let (some, none) = (
        endpoints(json!([{"addresses": [{}]}])),
        endpoints(json!([])),
    );
    assert!(list(&mut known, Main, std::slice::from_ref(&service)));
    assert!(!known.is_listed() && told(&known).is_empty());
    assert!(list(&mut known, Second, std::slice::from_ref(&some)));
    assert!(known.is_listed());
    assert_eq!(told(&known), ["u:80"]);
    assert!(apply(&mut known, Second, &none));
    assert_eq!(told(&known), ["-u:80"]);
    assert!(apply(&mut known, Second, &some));
    let mut dying = service.clone();
    dying["metadata"]["deletionTimestamp"] = json!("2026-11-23T10:00:00Z");
    assert!(apply(&mut known, Main, &dying));
    assert_eq!(told(&known), ["-u:80"]);
    assert!(delete(&mut known, Main, &dying));
    assert!(told(&known).is_empty());
    apply(&mut known, Second, &none);
    apply(&mut known, Main, &service);
    assert!(told(&known).is_empty(), "never ready since");
}

#[test]
fn endpoints_of_others_do_not_matter() {
    let mut known = known(Source::Services);
    let endpoints = |name: &str, addresses: Value| {
        json!({"metadata": {"name": name, "uid": format!("e-{name}")},
            "subsets": [{"addresses": addresses}]})
    };
    let (some, none) = (json!([{}]), json!([]));
    list(&mut known, Main, &[]);
    assert!(list(
        &mut known,
        Second,
        &[endpoints("other", some.clone())]
    ));
    assert!(known.is_listed() && told(&known).is_empty());
    for addresses in [&none, &some] {
        assert!(!apply(
            &mut known,
            Second,
            &endpoints("other", addresses.clone())
        ));
    }
    assert!(!apply(&mut known, Second, &endpoints("s", some.clone())));
    let service = |name: &str| json!({"metadata": {"name": name, "uid": name}, "spec": {}});
    assert!(
        apply(&mut known, Main, &service("s")),
        "a service comes later"
    );
    assert_eq!(told(&known), ["s:8000"]);
    assert!(apply(&mut known, Second, &endpoints("s", none.clone())));
    assert!(!delete(&mut known, Second, &endpoints("other", some)));
    assert!(
        !delete(&mut known, Second, &endpoints("s", none)),
        "closed it was"
    );
    assert_eq!(told(&known), ["-s:8000"]);
}
