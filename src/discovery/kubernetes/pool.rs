//! The InferencePool (`inference.networking.k8s.io/v1`): which pods are its, and
//! at which ports they serve.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::notes::Notes;
use super::object::{Meta, Text};
use super::objects::{Kept, Rules};
use super::once::Served;

/// Ports of a pool at most: the API's own bound.
const MOST_PORTS: usize = 8;

/// A pool as it is written.
#[derive(Debug, Deserialize)]
pub(super) struct Written<'a> {
    #[serde(borrow)]
    metadata: Meta<'a>,
    #[serde(borrow)]
    spec: Spec<'a>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Spec<'a> {
    #[serde(borrow)]
    selector: Selector<'a>,
    target_ports: Option<Vec<Target>>,
    #[serde(borrow)]
    app_protocol: Option<Text<'a>>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Selector<'a> {
    #[serde(borrow)]
    match_labels: Option<BTreeMap<Text<'a>, Text<'a>>>,
}

#[derive(Debug, Deserialize)]
struct Target {
    number: u16,
}

/// What is kept of a pool.
#[derive(Debug, PartialEq)]
pub(super) struct Pool {
    /// As requests to the API server have it; `None`: it selects no pods.
    pub(super) selector: Option<String>,
    pub(super) ports: Box<[u16]>,
}

impl Kept for Pool {
    const KIND: &'static str = "InferencePool";
    type Written<'a> = Written<'a>;

    fn meta<'w, 'a: 'w>(written: &'w Written<'a>) -> &'w Meta<'a> {
        &written.metadata
    }

    fn keep(written: &Written<'_>, _: &Rules, notes: &mut Notes) -> Self {
        let Written { metadata, spec } = written;
        let mut wrong = |of: &str, message: &str| {
            notes.warn_about(metadata.about(Self::KIND), &[of], message);
        };
        if spec.app_protocol.as_deref() == Some("kubernetes.io/h2c") {
            let message = "appProtocol kubernetes.io/h2c: its engines are spoken to in HTTP/1.1 \
                           nevertheless; expected http";
            wrong("appProtocol", message);
        }
        let selector = spec.selector.match_labels.as_ref().and_then(selector);
        if selector.is_none() {
            let message = "spec.selector.matchLabels selects nothing; expected labels of its pods";
            wrong("selector", message);
        }
        let mut ports = Vec::new();
        for target in spec.target_ports.iter().flatten() {
            if target.number > 0 && !ports.contains(&target.number) {
                ports.push(target.number);
            }
        }
        if ports.is_empty() || ports.len() > MOST_PORTS {
            wrong("targetPorts", "spec.targetPorts: expected 1 to 8 ports");
            ports.truncate(MOST_PORTS);
        }
        Self {
            selector,
            ports: ports.into(),
        }
    }

    fn served(&self) -> &[Served] {
        &[]
    }
}

/// `a=b,c=d`. An empty one would select every pod of the namespace.
fn selector(labels: &BTreeMap<Text<'_>, Text<'_>>) -> Option<String> {
    let is_plain = |text: &str| {
        text.bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"-_./".contains(&b))
    };
    let is_label = |(name, value): (&Text<'_>, &Text<'_>)| {
        !name.is_empty() && is_plain(name) && is_plain(value)
    };
    if labels.is_empty() || !labels.iter().all(is_label) {
        return None;
    }
    let pairs = labels
        .iter()
        .map(|(name, value)| format!("{}={}", &**name, &**value));
    Some(pairs.collect::<Vec<_>>().join(","))
}

#[cfg(test)]
mod tests {
    use super::super::objects::testing::{kept, rules};
    use super::*;
    use serde_json::{Value, json};

    fn pool(spec: &Value) -> (Pool, Vec<String>) {
        let pool = json!({
            "apiVersion": "inference.networking.k8s.io/v1", "kind": "InferencePool",
            "metadata": {"name": "p", "uid": "u", "namespace": "ns", "generation": 1},
            "spec": spec,
            "status": {"parents": [{"conditions": [{"type": "Accepted", "status": "True"}]}]}
        });
        kept(&pool, &rules())
    }

    #[test]
    fn which_pods_and_ports() {
        let picker = json!({"name": "epp", "port": {"number": 9002}, "failureMode": "FailClose"});
        let (whole, told) = pool(&json!({
            "selector": {"matchLabels": {"b": "2", "app.kubernetes.io/name": "vllm"}},
            "targetPorts": [{"number": 8000}, {"number": 8001}, {"number": 8000}],
            "appProtocol": "http", "endpointPickerRef": picker
        }));
        assert_eq!(told, Vec::<String>::new());
        assert_eq!(whole.selector.unwrap(), "app.kubernetes.io/name=vllm,b=2");
        assert_eq!(*whole.ports, [8000, 8001]);
    }

    #[test]
    fn what_is_wrong_is_told() {
        let good = json!({"matchLabels": {"a": "b"}});
        let ports = json!([{"number": 1}]);
        let many: Vec<Value> = (1..=9).map(|n| json!({"number": n})).collect();
        for (spec, told) in [
            (json!({"selector": {}, "targetPorts": ports}), "matchLabels"),
            (
                json!({"selector": {"matchLabels": {}}, "targetPorts": ports}),
                "matchLabels",
            ),
            (
                json!({"selector": {"matchLabels": {"a": "b,c"}}, "targetPorts": ports}),
                "matchLabels",
            ),
            (json!({"selector": good, "targetPorts": []}), "1 to 8"),
            (json!({"selector": good}), "1 to 8"),
            (json!({"selector": good, "targetPorts": many}), "1 to 8"),
            (
                json!({"selector": good, "targetPorts": ports, "appProtocol": "kubernetes.io/h2c"}),
                "HTTP/1.1",
            ),
        ] {
            let (pool, warnings) = pool(&spec);
            assert!(
                warnings.len() == 1 && warnings[0].contains(told),
                "{warnings:?}"
            );
            assert!(pool.ports.len() <= MOST_PORTS);
            assert_eq!(pool.selector.is_none(), told == "matchLabels");
        }
    }
}
