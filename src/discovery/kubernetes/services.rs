//! Services: each is one engine, at its name. Whoever is behind it is chosen by
//! the cluster, not by us.
//!
//! It is ready while its Endpoints have an address. A headless one is taken too:
//! its name resolves to its pods, so its port is theirs. An `ExternalName` has no
//! Endpoints: it is never ready, and that is told.

use serde::Deserialize;
use serde::de::IgnoredAny;

use super::annotations::{Place, said, zone_of};
use super::engine::{Engine, Host};
use super::notes::Notes;
use super::object::{Meta, Text};
use super::objects::{Kept, Rules};
use super::once::Served;
use super::slices::{Port, choose};

/// A service as it is written.
#[derive(Debug, Deserialize)]
pub(super) struct Written<'a> {
    #[serde(borrow)]
    metadata: Meta<'a>,
    #[serde(borrow)]
    spec: Option<Spec<'a>>,
}

#[derive(Debug, Deserialize)]
struct Spec<'a> {
    #[serde(borrow, rename = "type")]
    kind: Option<Text<'a>>,
    #[serde(borrow)]
    selector: Option<Selector<'a>>,
    #[serde(borrow)]
    ports: Option<Vec<Port<'a>>>,
}

/// Of whose labels one is of use: the reference router's `model`.
#[derive(Debug, Deserialize)]
struct Selector<'a> {
    #[serde(borrow)]
    model: Option<Text<'a>>,
}

/// What is kept of a service.
#[derive(Debug, PartialEq)]
pub(super) struct Service {
    pub(super) is_terminating: bool,
    served: Box<[Served]>,
}

impl Kept for Service {
    const KIND: &'static str = "service";
    type Written<'a> = Written<'a>;

    fn meta<'w, 'a: 'w>(written: &'w Written<'a>) -> &'w Meta<'a> {
        &written.metadata
    }

    fn keep(written: &Written<'_>, rules: &Rules, notes: &mut Notes) -> Self {
        let meta = &written.metadata;
        let spec = written.spec.as_ref();
        let selector = spec.and_then(|spec| spec.selector.as_ref());
        let model_label = selector.and_then(|selector| selector.model.as_deref());
        let about = meta.about(Self::KIND);
        let said = said(about, meta, model_label, notes);
        let traits = said.traits_at(Place {
            zone: zone_of(meta),
            ..Place::default()
        });
        let listed = spec.and_then(|spec| spec.ports.as_deref());
        let is_external = spec.and_then(|spec| spec.kind.as_deref()) == Some("ExternalName");
        let ports = match said.own_ports() {
            _ if is_external => {
                let message = "type ExternalName has no endpoints to tell whether it is ready: it \
                               is not taken; list it as an engine (service_discovery: static)";
                notes.warn_about(about, &["ExternalName"], message);
                Vec::new()
            }
            Some(own) => own.to_vec(),
            None => {
                let chosen = choose(listed.unwrap_or_default(), rules.port);
                if chosen.is_none() {
                    let number = rules.port;
                    let message = format!(
                        "expected one port, or one with the number {number} (k8s_port), or one \
                         that is named \"http\"; it is not taken"
                    );
                    notes.warn_about(about, &["ports"], &message);
                }
                chosen.into_iter().collect()
            }
        };
        let host = format!("{}.{}.svc", &*meta.name, rules.namespace);
        let engine = Engine {
            about,
            uid: &meta.uid,
            host: Host::Name(&host),
            created: meta.created(),
            // Its endpoints tell.
            is_ready: false,
            models: said.models.as_ref(),
            traits: &traits,
        };
        Self {
            is_terminating: meta.is_terminating(),
            served: engine.at_each(ports, rules, notes),
        }
    }

    fn served(&self) -> &[Served] {
        &self.served
    }
}

/// Endpoints as they are written.
#[derive(Debug, Deserialize)]
pub(super) struct WrittenEndpoints<'a> {
    #[serde(borrow)]
    metadata: Meta<'a>,
    subsets: Option<Vec<Subset>>,
}

#[derive(Debug, Deserialize)]
struct Subset {
    addresses: Option<Vec<IgnoredAny>>,
}

/// What is kept of Endpoints.
#[derive(Debug, PartialEq)]
pub(super) struct Endpoints {
    /// Whether anyone behind the service of the same name is ready.
    pub(super) has_address: bool,
}

impl Kept for Endpoints {
    const KIND: &'static str = "endpoints";
    type Written<'a> = WrittenEndpoints<'a>;

    fn meta<'w, 'a: 'w>(written: &'w WrittenEndpoints<'a>) -> &'w Meta<'a> {
        &written.metadata
    }

    fn keep(written: &WrittenEndpoints<'_>, _: &Rules, _: &mut Notes) -> Self {
        let mut subsets = written.subsets.iter().flatten();
        let has_address =
            subsets.any(|subset| subset.addresses.as_ref().is_some_and(|all| !all.is_empty()));
        Self { has_address }
    }

    fn served(&self) -> &[Served] {
        &[]
    }
}

#[cfg(test)]
mod tests {
    use super::super::objects::testing::{kept, rules};
    use super::*;
    use serde_json::{Value, json};

    fn service(spec: &Value) -> (Service, Vec<String>) {
        let service = json!({
            "apiVersion": "v1", "kind": "Service",
            "metadata": {"name": "s", "uid": "u", "namespace": "ns", "labels": {"app": "x"},
                "creationTimestamp": "2026-11-23T10:00:00Z"},
            "spec": spec, "status": {"loadBalancer": {}}
        });
        kept(&service, &rules())
    }

    #[test]
    fn a_service_is_an_engine_at_its_name() {
        let (of_model, told) = service(&json!({
            "type": "ClusterIP", "clusterIP": "10.1.0.1", "selector": {"model": "opt", "app": "x"},
            "ports": [{"name": "web", "port": 80, "targetPort": "http", "protocol": "TCP"}]
        }));
        assert_eq!(told, Vec::<String>::new());
        let [one] = of_model.served() else {
            panic!("{of_model:?}")
        };
        assert_eq!(one.url.text(), "http://s.ns.svc:80");
        assert_eq!((&*one.identity, one.ip), ("u:80", None));
        let labels = &one.traits.labels;
        assert_eq!((&*labels["model_label"], &*labels["app"]), ("opt", "x"));
        for (spec, ports, told) in [
            (
                json!({"clusterIP": "None", "ports": [{"port": 9000}]}),
                1,
                0,
            ),
            (json!({"clusterIP": "None"}), 1, 0),
            (
                json!({"ports": [{"port": 1, "name": "a"}, {"port": 2, "name": "b"}]}),
                0,
                1,
            ),
            (
                json!({"type": "ExternalName", "externalName": "x.example"}),
                0,
                1,
            ),
        ] {
            let (service, warnings) = service(&spec);
            assert_eq!(
                (service.served().len(), warnings.len()),
                (ports, told),
                "{spec}"
            );
        }
    }

    #[test]
    fn whether_anyone_is_behind_it() {
        let address = json!([{"ip": "10.0.0.1", "targetRef": {"kind": "Pod", "name": "p"}}]);
        let ports = json!([{"port": 8000}]);
        for (subsets, expected) in [
            (json!([{"addresses": address, "ports": ports}]), true),
            (
                json!([{"notReadyAddresses": address, "ports": ports}]),
                false,
            ),
            (
                json!([{"notReadyAddresses": address}, {"addresses": address}]),
                true,
            ),
            (json!([{"addresses": []}]), false),
            (json!([]), false),
            (Value::Null, false),
        ] {
            let endpoints = json!({"metadata": {"name": "s", "uid": "e"}, "subsets": subsets});
            let (endpoints, _) = kept::<Endpoints>(&endpoints, &rules());
            assert_eq!(endpoints.has_address, expected, "{subsets}");
        }
    }
}
