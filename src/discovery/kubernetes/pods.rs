//! Pods: each is an engine for each port that it serves at.
//!
//! One that is not ready, or is being deleted, or has failed, is told from one
//! that is gone. What its containers are does not matter.

use std::net::IpAddr;

use serde::Deserialize;

use super::annotations::{Place, Said, said, zone_of};
use super::engine::{Engine, Host, address};
use super::notes::{About, Notes};
use super::object::{Meta, Text};
use super::objects::{Kept, Rules};
use super::once::Served;

/// A pod as it is written.
#[derive(Debug, Deserialize)]
pub(super) struct Written<'a> {
    #[serde(borrow)]
    metadata: Meta<'a>,
    #[serde(borrow)]
    spec: Option<Spec<'a>>,
    #[serde(borrow)]
    status: Option<Status<'a>>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Spec<'a> {
    #[serde(borrow)]
    node_name: Option<Text<'a>>,
}

#[derive(Debug, Deserialize)]
struct Status<'a> {
    #[serde(borrow)]
    phase: Option<Text<'a>>,
    #[serde(borrow, rename = "podIP")]
    pod_ip: Option<Text<'a>>,
    #[serde(borrow)]
    conditions: Option<Vec<Condition<'a>>>,
}

#[derive(Debug, Deserialize)]
struct Condition<'a> {
    #[serde(borrow, rename = "type")]
    name: Text<'a>,
    #[serde(borrow)]
    status: Text<'a>,
}

impl Status<'_> {
    /// Whether it will never serve again.
    fn has_ended(&self) -> bool {
        let phase = self.phase.as_deref();
        matches!(phase, Some("Failed" | "Succeeded"))
    }

    /// Its address, unless it has none or has ended: that of a pod that has ended
    /// may be another pod's by now.
    fn ip(&self) -> Option<&str> {
        let ip = self.pod_ip.as_deref().filter(|ip| !ip.is_empty());
        ip.filter(|_| !self.has_ended())
    }

    fn is_ready(&self) -> bool {
        let mut conditions = self.conditions.iter().flatten();
        conditions.any(|one| &*one.name == "Ready" && &*one.status == "True")
    }
}

/// What is kept of a pod.
#[derive(Debug, PartialEq)]
pub(super) struct Pod {
    /// Where it can be reached, if it can.
    ip: Option<IpAddr>,
    created: u64,
    is_ready: bool,
    said: Said,
    served: Box<[Served]>,
}

impl Kept for Pod {
    const KIND: &'static str = "pod";
    type Written<'a> = Written<'a>;

    fn meta<'w, 'a: 'w>(written: &'w Written<'a>) -> &'w Meta<'a> {
        &written.metadata
    }

    fn keep(written: &Written<'_>, rules: &Rules, notes: &mut Notes) -> Self {
        let meta = &written.metadata;
        let status = written.status.as_ref();
        let node = written
            .spec
            .as_ref()
            .and_then(|spec| spec.node_name.as_deref());
        let about = meta.about(Self::KIND);
        let mut said = said(about, meta, None, notes);
        said.traits = said.traits_at(Place {
            pod: Some(&meta.name),
            node,
            zone: zone_of(meta),
        });
        let pod = Self {
            ip: status
                .and_then(Status::ip)
                .and_then(|ip| address(about, "status.podIP", ip, notes)),
            created: meta.created(),
            is_ready: !meta.is_terminating() && status.is_some_and(Status::is_ready),
            said,
            served: Box::default(),
        };
        pod.again(about, rules, notes)
    }

    fn served(&self) -> &[Served] {
        &self.served
    }
}

impl Pod {
    /// The pod again, by these rules, which tell the ports.
    pub(super) fn again(&self, about: About<'_>, rules: &Rules, notes: &mut Notes) -> Self {
        let engine = self.ip.map(|ip| Engine {
            about,
            uid: about.uid,
            host: Host::Ip(ip),
            created: self.created,
            is_ready: self.is_ready,
            models: self.said.models.as_ref(),
            traits: &self.said.traits,
        });
        let served = engine.map(|engine| engine.at_each(self.said.ports(rules), rules, notes));
        Self {
            said: self.said.clone(),
            served: served.unwrap_or_default(),
            ..*self
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::objects::testing::{kept, rules};
    use super::*;
    use serde_json::{Value, json};

    fn read(pod: &Value) -> (Pod, Vec<String>) {
        kept(pod, &rules())
    }

    fn with(changes: &[(&str, Value)]) -> Value {
        let mut pod = json!({
            "metadata": {"name": "a", "uid": "u", "labels": {}, "annotations": {}},
            "spec": {"nodeName": "n"},
            "status": {"phase": "Running", "podIP": "10.0.0.1",
                "conditions": [{"type": "Initialized", "status": "True"},
                    {"type": "Ready", "status": "True"}]}
        });
        for (pointer, value) in changes {
            let (parent, key) = pointer.rsplit_once('/').unwrap();
            let parent = pod.pointer_mut(parent).unwrap().as_object_mut().unwrap();
            match value {
                Value::Null => parent.remove(key),
                value => parent.insert(key.to_owned(), value.clone()),
            };
        }
        pod
    }

    /// Whether it is an engine, and a ready one.
    #[test]
    fn who_is_ready() {
        let not = json!([{"type": "Ready", "status": "False"}]);
        let unknown = json!([{"type": "Ready", "status": "Unknown"}]);
        let now = || json!("2026-11-23T10:42:06Z");
        for (changes, expected) in [
            (vec![], Some(true)),
            (vec![("/status/conditions", not)], Some(false)),
            (vec![("/status/conditions", unknown)], Some(false)),
            (vec![("/status/conditions", json!([]))], Some(false)),
            (vec![("/status/conditions", Value::Null)], Some(false)),
            (vec![("/metadata/deletionTimestamp", now())], Some(false)),
            (vec![("/status/phase", json!("Pending"))], Some(true)),
            (vec![("/status/phase", json!("Unknown"))], Some(true)),
            (vec![("/status/phase", json!("Failed"))], None),
            (vec![("/status/phase", json!("Succeeded"))], None),
            (vec![("/status/podIP", Value::Null)], None),
            (vec![("/status/podIP", json!(""))], None),
            (vec![("/spec/hostNetwork", json!(true))], Some(true)),
            (vec![("/spec", Value::Null)], Some(true)),
            (vec![("/status", Value::Null)], None),
        ] {
            let (pod, told) = read(&with(&changes));
            let served = pod.served().first().map(|one| one.is_ready);
            assert_eq!((served, told), (expected, vec![]), "{changes:?}");
        }
        let (pod, told) = read(&with(&[("/status/podIP", json!("10.0.0"))]));
        assert!(pod.served().is_empty());
        assert_eq!(
            told,
            ["pod a: status.podIP \"10.0.0\" is no address; it is not taken"]
        );
    }

    #[test]
    fn where_it_serves() {
        let at = |pod: &Value, rules: &Rules| -> (Vec<String>, Vec<String>) {
            let (pod, told) = kept::<Pod>(pod, rules);
            let urls = pod.served().iter().map(|one| one.url.text().to_owned());
            (urls.collect(), told)
        };
        let own = |text: &str| {
            let annotations = json!({"pilotfish.dev/ports": text});
            at(&with(&[("/metadata/annotations", annotations)]), &rules())
        };
        let usual = "http://10.0.0.1:8000";
        assert_eq!(at(&with(&[]), &rules()).0, [usual]);
        let both = ["http://10.0.0.1:9000", "http://10.0.0.1:9001"];
        assert_eq!(
            own("9000, 9001,9000"),
            (both.map(str::to_owned).into(), vec![])
        );
        for (wrong, expected) in [
            ("", "\"\" is no port"),
            ("http", "\"http\" is no port"),
            ("0", "\"0\" is no port"),
            ("9000,70000", "\"70000\" is no port"),
            ("1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17", "17 ports"),
        ] {
            let (urls, told) = own(wrong);
            assert_eq!(urls, [usual], "{wrong}");
            assert!(told[0].contains(expected), "{told:?}");
        }
        assert_eq!(own("1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16").0.len(), 16);

        let v6 = with(&[("/status/podIP", json!("fd00::1"))]);
        assert_eq!(at(&v6, &rules()).0, ["http://[fd00::1]:8000"]);

        let pool = Rules {
            pool_ports: Some([1, 2, 3].into()),
            ..rules()
        };
        let active = |text: &str| {
            let annotations = json!({"inference.networking.k8s.io/active-ports": text});
            let (urls, told) = at(&with(&[("/metadata/annotations", annotations)]), &pool);
            let ports = urls.iter().map(|url| url.rsplit(':').next().unwrap());
            (ports.collect::<Vec<_>>().join(","), told.len())
        };
        for (text, ports, told) in [
            ("1,3", "1,3", 0),
            ("3,4", "3", 0),
            ("", "", 0),
            ("7", "", 0),
            ("x, 2", "2", 1),
        ] {
            assert_eq!(active(text), (ports.to_owned(), told), "{text}");
        }
        assert_eq!(at(&with(&[]), &pool).0.len(), 3);
    }

    /// As an API server writes it.
    #[test]
    fn a_pod_of_a_deployment() {
        let pod = json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {
                "name": "vllm-6d4cf56db6-x2x9k", "generateName": "vllm-6d4cf56db6-",
                "namespace": "ns", "uid": "7f3c0c3e-54a8-4f4e-a6a5-f2d4a8e6a001",
                "resourceVersion": "81234", "creationTimestamp": "2026-11-23T10:00:00Z",
                "labels": {"app": "vllm", "model": "opt", "pod-template-hash": "6d4cf56db6",
                    "pilotfish.dev/model": "facebook-opt", "sleeping": "false",
                    "topology.kubernetes.io/region": "eu", "topology.kubernetes.io/zone": "eu-1"},
                "annotations": {"pilotfish.dev/weight": "2", "pilotfish.dev/block": "fast",
                    "pilotfish.dev/metadata": "{\"parameterCountB\": 7}",
                    "kubectl.kubernetes.io/restartedAt": "2026-11-23T09:59:59Z"},
                "ownerReferences": [{"apiVersion": "apps/v1", "kind": "ReplicaSet",
                    "name": "vllm-6d4cf56db6", "uid": "x", "controller": true}],
                "managedFields": [{"manager": "kubelet", "operation": "Update",
                    "fieldsV1": {"f:status": {"f:podIPs": {".": {}, "k:{\"ip\":\"10.0.0.1\"}": {}}}}}]
            },
            "spec": {
                "nodeName": "node-1", "serviceAccountName": "default",
                "containers": [
                    {"name": "vllm", "image": "vllm", "env": [{"name": "A", "value": "b"}],
                        "ports": [{"containerPort": 8000, "protocol": "TCP"}]},
                    {"name": "other", "image": "x"}
                ],
                "tolerations": [{"effect": "NoExecute", "tolerationSeconds": 300}]
            },
            "status": {
                "phase": "Running", "hostIP": "192.168.0.1", "podIP": "10.0.0.1",
                "podIPs": [{"ip": "10.0.0.1"}, {"ip": "fd00::1"}], "qosClass": "Burstable",
                "conditions": [
                    {"type": "Ready", "status": "True", "lastProbeTime": null,
                        "lastTransitionTime": "2026-11-23T10:01:00Z"}
                ],
                "containerStatuses": [{"name": "vllm", "ready": true, "restartCount": 1}]
            }
        });
        let (pod, told) = read(&pod);
        assert_eq!(told, Vec::<String>::new());
        let [one] = pod.served() else {
            panic!("{pod:?}")
        };
        assert_eq!(&*one.identity, "7f3c0c3e-54a8-4f4e-a6a5-f2d4a8e6a001:8000");
        assert_eq!((one.is_ready, one.created), (true, 20_261_123_100_000));
        assert_eq!(one.models.as_deref().unwrap(), ["facebook-opt"]);
        let traits = &one.traits;
        assert_eq!(
            (traits.weight, traits.block.as_deref()),
            (2.0, Some("fast"))
        );
        assert_eq!(traits.region.as_deref(), Some("eu-1"));
        assert_eq!(traits.metadata, json!({"parameterCountB": 7}));
        for (name, value) in [
            ("app", "vllm"),
            ("model", "opt"),
            ("model_label", "opt"),
            ("sleeping", "false"),
            ("pod", "vllm-6d4cf56db6-x2x9k"),
            ("node", "node-1"),
        ] {
            assert_eq!(traits.labels[name], value);
        }
    }

    /// Of a usual pod: no annotations of ours, eight labels.
    #[test]
    fn little_is_kept() {
        let labels: serde_json::Map<_, _> = (0..8)
            .map(|n| {
                (
                    format!("app.kubernetes.io/name-{n}"),
                    json!("some-value-of-it"),
                )
            })
            .collect();
        let (pod, _) = read(&with(&[("/metadata/labels", json!(labels))]));
        let [one] = pod.served() else {
            panic!("{pod:?}")
        };
        let text = |text: &str| text.len().next_multiple_of(16);
        let labels = &one.traits.labels;
        let texts: usize = (labels.iter())
            .map(|(name, value)| text(name) + text(value))
            .sum();
        // Up to eleven labels are one node of their map.
        let node = 16 + 11 * 2 * size_of::<String>();
        let fixed = size_of::<Pod>() + size_of::<Served>() + size_of::<crate::config::Traits>();
        // The name, the uid, the identity twice (it is remembered too), the URL's four
        // texts and its parts, counts of references, and what is remembered of it.
        let others = 64 + 48 + 2 * 64 + 128 + 128 + 5 * 16 + 64;
        let all = texts + node + fixed + others;
        println!("{all} bytes: {texts} of labels, {node} of their map, {fixed} fixed");
        assert!(all <= 2 << 10, "{all}");
    }
}
