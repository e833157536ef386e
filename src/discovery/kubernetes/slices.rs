//! EndpointSlices: the endpoints of Services, a part of them in each slice.
//!
//! An endpoint may be in two slices for a moment, or have an address of each
//! family: it is one engine.

use serde::Deserialize;

use super::annotations::{Place, Said, said, zone_of};
use super::engine::{Engine, Host, address};
use super::notes::Notes;
use super::object::{Meta, Text};
use super::objects::{Kept, Rules};
use super::once::Served;

/// Endpoints of one slice at most: the API's own bound.
const MOST_ENDPOINTS: usize = 1000;

/// A slice as it is written.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Written<'a> {
    #[serde(borrow)]
    metadata: Meta<'a>,
    #[serde(borrow)]
    address_type: Option<Text<'a>>,
    #[serde(borrow)]
    endpoints: Option<Vec<Endpoint<'a>>>,
    #[serde(borrow)]
    ports: Option<Vec<Port<'a>>>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Endpoint<'a> {
    #[serde(borrow)]
    addresses: Option<Vec<Text<'a>>>,
    conditions: Option<Conditions>,
    #[serde(borrow)]
    zone: Option<Text<'a>>,
    #[serde(borrow)]
    node_name: Option<Text<'a>>,
    #[serde(borrow)]
    target_ref: Option<Target<'a>>,
}

/// `serving` says what `ready` would if it were not terminating: nothing that we
/// need.
#[derive(Debug, Default, Clone, Copy, Deserialize)]
struct Conditions {
    ready: Option<bool>,
    terminating: Option<bool>,
}

#[derive(Debug, Deserialize)]
struct Target<'a> {
    #[serde(borrow)]
    kind: Option<Text<'a>>,
    #[serde(borrow)]
    name: Option<Text<'a>>,
    #[serde(borrow)]
    uid: Option<Text<'a>>,
}

/// A port of a slice, or of a service.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Port<'a> {
    #[serde(borrow)]
    name: Option<Text<'a>>,
    port: Option<u16>,
    #[serde(borrow)]
    protocol: Option<Text<'a>>,
}

/// The only port; else the one of that number; else the one that is named
/// `http`. Where no ports are listed at all, it is that number.
pub(super) fn choose(ports: &[Port<'_>], number: u16) -> Option<u16> {
    let is_tcp = |port: &&Port<'_>| port.protocol.as_deref().is_none_or(|name| name == "TCP");
    let tcp = || {
        ports
            .iter()
            .filter(is_tcp)
            .filter(|port| port.port.is_some())
    };
    let named = || tcp().find(|port| port.name.as_deref() == Some("http"));
    let chosen = match (ports.len(), tcp().count()) {
        (0, _) => return Some(number),
        (_, 1) => tcp().next(),
        _ => tcp().find(|port| port.port == Some(number)).or_else(named),
    };
    chosen?.port
}

/// What is kept of a slice.
#[derive(Debug, PartialEq)]
pub(super) struct Slice {
    served: Box<[Served]>,
}

impl Kept for Slice {
    const KIND: &'static str = "EndpointSlice";
    type Written<'a> = Written<'a>;

    fn meta<'w, 'a: 'w>(written: &'w Written<'a>) -> &'w Meta<'a> {
        &written.metadata
    }

    fn keep(written: &Written<'_>, rules: &Rules, notes: &mut Notes) -> Self {
        let meta = &written.metadata;
        let about = meta.about(Self::KIND);
        let said = said(about, meta, None, notes);
        let endpoints = written.endpoints.as_deref().unwrap_or_default();
        if endpoints.len() > MOST_ENDPOINTS {
            let count = endpoints.len();
            let message = format!("has {count} endpoints; {MOST_ENDPOINTS} are taken");
            notes.warn_about(about, &["endpoints"], &message);
        }
        let mut served = Vec::new();
        let ports = ports(written, &said, rules, notes);
        if !ports.is_empty() {
            for endpoint in endpoints.iter().take(MOST_ENDPOINTS) {
                served.extend(engines(endpoint, meta, &said, (&ports, rules), notes));
            }
        }
        Self {
            served: served.into(),
        }
    }

    fn served(&self) -> &[Served] {
        &self.served
    }
}

/// The ports at which all endpoints of the slice serve.
fn ports(written: &Written<'_>, said: &Said, rules: &Rules, notes: &mut Notes) -> Vec<u16> {
    let about = written.metadata.about(Slice::KIND);
    if written.address_type.as_deref() == Some("FQDN") {
        let message = "addressType FQDN is not supported: its endpoints are not taken; list them \
                       as engines (service_discovery: static)";
        notes.warn_about(about, &["FQDN"], message);
        return Vec::new();
    }
    if let Some(own) = said.own_ports() {
        return own.to_vec();
    }
    let listed = written.ports.as_deref().unwrap_or_default();
    let chosen = choose(listed, rules.port);
    if chosen.is_none() {
        let number = rules.port;
        let message = format!(
            "of its {} ports none is {number} (k8s_port), nor named \"http\"; its endpoints are \
             not taken",
            listed.len()
        );
        notes.warn_about(about, &["ports"], &message);
    }
    chosen.into_iter().collect()
}

/// The engines at an endpoint: one at each port.
fn engines(
    endpoint: &Endpoint<'_>,
    meta: &Meta<'_>,
    said: &Said,
    (ports, rules): (&[u16], &Rules),
    notes: &mut Notes,
) -> Box<[Served]> {
    let about = meta.about(Slice::KIND);
    let first = endpoint.addresses.iter().flatten().next();
    let Some(ip) = first.and_then(|text| address(about, "address", text, notes)) else {
        return Box::default();
    };
    let target = endpoint.target_ref.as_ref();
    let is_pod = |target: &&Target<'_>| target.kind.as_deref() == Some("Pod");
    let traits = said.traits_at(Place {
        pod: target
            .filter(is_pod)
            .and_then(|target| target.name.as_deref()),
        node: endpoint.node_name.as_deref(),
        zone: endpoint.zone.as_deref().or_else(|| zone_of(meta)),
    });
    // An endpoint that is no pod is known by its address.
    let uid = target.and_then(|target| target.uid.as_deref());
    let Conditions { ready, terminating } = endpoint.conditions.unwrap_or_default();
    let by_address = ip.to_string();
    let engine = Engine {
        about,
        uid: uid.unwrap_or(&by_address),
        host: Host::Ip(ip),
        created: 0,
        is_ready: ready.unwrap_or(true) && !terminating.unwrap_or(false),
        models: said.models.as_ref(),
        traits: &traits,
    };
    engine.at_each(ports.iter().copied(), rules, notes)
}

#[cfg(test)]
mod tests {
    use super::super::objects::testing::{kept, rules};
    use super::*;
    use serde_json::{Value, json};

    /// As a controller writes it.
    fn slice(kind: &str, ports: &Value, endpoints: &Value) -> Value {
        json!({
            "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
            "metadata": {
                "name": "engines-abc12", "generateName": "engines-", "uid": "s",
                "labels": {"endpointslice.kubernetes.io/managed-by": "endpointslice-controller.k8s.io",
                    "kubernetes.io/service-name": "engines"},
                "annotations": {"endpoints.kubernetes.io/last-change-trigger-time": "2026-11-23T10:00:00Z"},
                "ownerReferences": [{"kind": "Service", "name": "engines"}]
            },
            "addressType": kind, "ports": ports, "endpoints": endpoints
        })
    }

    fn http() -> Value {
        json!([{"name": "", "port": 9000, "protocol": "TCP"}])
    }

    #[test]
    fn who_is_ready() {
        for (conditions, expected) in [
            (
                json!({"ready": true, "serving": true, "terminating": false}),
                true,
            ),
            (
                json!({"ready": false, "serving": false, "terminating": false}),
                false,
            ),
            (
                json!({"ready": false, "serving": true, "terminating": true}),
                false,
            ),
            // A service that publishes addresses that are not ready.
            (
                json!({"ready": true, "serving": true, "terminating": true}),
                false,
            ),
            (json!({"ready": null}), true),
            (json!({}), true),
            (Value::Null, true),
        ] {
            let endpoints = json!([{
                "addresses": ["10.0.0.1", "10.0.0.9"], "conditions": conditions, "zone": "z",
                "nodeName": "n", "targetRef": {"kind": "Pod", "name": "p", "uid": "u"}
            }]);
            let (slice, told) = kept::<Slice>(&slice("IPv4", &http(), &endpoints), &rules());
            assert_eq!(told, Vec::<String>::new());
            let [one] = slice.served() else {
                panic!("{slice:?}")
            };
            assert_eq!((one.is_ready, &*one.identity), (expected, "u:9000"));
            assert_eq!(one.url.text(), "http://10.0.0.1:9000");
            let traits = &one.traits;
            assert_eq!(traits.region.as_deref(), Some("z"));
            let labels = [&traits.labels["pod"], &traits.labels["node"]];
            assert_eq!(labels, ["p", "n"]);
            assert_eq!(traits.labels["kubernetes.io/service-name"], "engines");
        }
    }

    #[test]
    fn at_which_port() {
        let endpoints = json!([{"addresses": ["fd00::1"]}]);
        for (ports, expected) in [
            (json!([{"port": 9000}]), Some(9000)),
            (
                json!([{"port": 9000}, {"port": 8000, "name": "x"}]),
                Some(8000),
            ),
            (
                json!([{"port": 9000}, {"port": 9001, "name": "http"}]),
                Some(9001),
            ),
            (
                json!([{"port": 9000, "name": "a"}, {"port": 9001, "name": "b"}]),
                None,
            ),
            (
                json!([{"port": 9000}, {"port": 53, "protocol": "UDP"}]),
                Some(9000),
            ),
            (json!([{"port": 53, "protocol": "UDP"}]), None),
            (json!([{"port": null}]), None),
            (json!([]), Some(8000)),
            (Value::Null, Some(8000)),
        ] {
            let (slice, told) = kept::<Slice>(&slice("IPv6", &ports, &endpoints), &rules());
            let urls = slice.served().iter().map(|one| one.url.text());
            let expected_url = expected.map(|port| format!("http://[fd00::1]:{port}"));
            assert_eq!(urls.collect::<Vec<_>>(), expected_url.as_slice(), "{ports}");
            assert_eq!(told.is_empty(), expected.is_some(), "{told:?}");
            if let Some(one) = slice.served().first() {
                assert!(one.identity.starts_with("fd00::1:"), "known by its address");
            }
        }
    }

    #[test]
    fn what_cannot_be_used() {
        let host = json!([{"addresses": ["engine.example"]}]);
        let name = |kind| kept::<Slice>(&slice(kind, &http(), &host), &rules());
        let (slice_of_names, told) = name("FQDN");
        assert!(slice_of_names.served().is_empty());
        assert!(
            told.len() == 1 && told[0].contains("FQDN is not supported"),
            "{told:?}"
        );
        let (_, told) = name("IPv4");
        assert!(told[0].contains("is no address"), "{told:?}");
        for nothing in [
            Value::Null,
            json!([]),
            json!([{"addresses": []}]),
            json!([{"addresses": null}]),
        ] {
            let (slice, told) = kept::<Slice>(&slice("IPv4", &http(), &nothing), &rules());
            assert!(slice.served().is_empty() && told.is_empty());
        }
        let many: Vec<Value> = (0..=MOST_ENDPOINTS)
            .map(|n| json!({"addresses": [format!("10.0.{}.{}", n / 256, n % 256)]}))
            .collect();
        let (slice, told) = kept::<Slice>(&slice("IPv4", &http(), &json!(many)), &rules());
        assert_eq!((slice.served().len(), told.len()), (MOST_ENDPOINTS, 1));
    }
}
