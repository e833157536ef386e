//! How engines are found in a cluster.

use std::time::Duration;

use super::super::dynamic::DynamicFile;
use super::super::kubernetes::{Kubernetes, PORT, Source, WATCH};
use super::super::selector;
use super::{ENGINE_LISTS, Resolving};

/// Bounds of a watch's length, in seconds.
const WATCHES: std::ops::RangeInclusive<u32> = 5..=3600;
/// Characters of a namespace's name at most, as of any DNS label.
const MOST_NAME: usize = 63;
/// Characters of most other objects' names at most, as of any DNS name.
const MOST_LONG_NAME: usize = 253;

impl Resolving {
    pub(super) fn cluster(&mut self, keys: &DynamicFile) {
        // Tests of what keys mean need no cluster.
        if !cfg!(any(feature = "kubernetes", test)) {
            let message = "\"k8s\" is not in this build: build it with the feature `kubernetes`";
            return self.wrong("service_discovery", message);
        }
        let selector = keys.k8s_label_selector.clone().unwrap_or_default();
        if let Err(error) = selector::check(&selector) {
            self.wrong("k8s_label_selector", format!("{selector:?}, {error}"));
        }
        let namespace = keys.k8s_namespace.clone().filter(|name| !name.is_empty());
        if let Some(name) = namespace.as_ref().filter(|name| !is_dns_label(name)) {
            let message = format!("{name:?} is no namespace; expected a-z, 0-9 and -, 63 at most");
            self.wrong("k8s_namespace", message);
        }
        if keys.k8s_port == Some(0) {
            self.wrong("k8s_port", "0: expected a port from 1 to 65535");
        }
        let source = self.source(keys);
        let is_pool = matches!(source, Some(Source::InferencePool(_)));
        if is_pool && !selector.trim().is_empty() {
            let message = "k8s_label_selector has no effect with k8s_source: inferencepool: the \
                           pool's selector says which pods are its";
            self.warnings.push(message.to_owned());
        }
        if selector.trim().is_empty() && !is_pool {
            let what = source.as_ref().map_or("pods", Source::name);
            self.warnings.push(format!(
                "k8s_label_selector is empty: all {what} of the namespace are watched, and each of \
                 them that answers GET /v1/models gets requests"
            ));
        }
        for (name, is_given) in self.listed(keys) {
            if is_given {
                let message = format!("{name} has no effect under service_discovery: k8s");
                self.warnings.push(message);
            }
        }
        let watch = self.watch(keys);
        self.kubernetes = source.map(|source| Kubernetes {
            namespace,
            selector,
            port: keys.k8s_port.unwrap_or(PORT),
            source,
            watch,
            streaming_lists: keys.k8s_streaming_lists.unwrap_or_default(),
        });
    }

    /// The lists of engines, and whether they are given.
    fn listed(&self, keys: &DynamicFile) -> impl Iterator<Item = (&'static str, bool)> + use<> {
        let given = [
            keys.static_backends.is_some(),
            keys.static_models.is_some(),
            keys.static_model_labels.is_some(),
            keys.static_model_types.is_some(),
            keys.engines.is_some(),
        ];
        ENGINE_LISTS.into_iter().zip(given)
    }

    fn source(&mut self, keys: &DynamicFile) -> Option<Source> {
        let kind = keys.k8s_service_discovery_type.as_deref();
        let source = keys.k8s_source.as_deref();
        let pool = keys
            .k8s_inference_pool
            .as_deref()
            .filter(|name| !name.is_empty());
        if pool.is_some() && source != Some("inferencepool") {
            let message = "k8s_inference_pool has no effect but with k8s_source: inferencepool";
            self.warnings.push(message.to_owned());
        }
        match (kind, source) {
            (Some("service-name"), None) => Some(Source::Services),
            (Some("service-name"), Some(other)) => {
                let message = format!(
                    "{other:?} and k8s_service_discovery_type: service-name exclude each other: \
                     keep one"
                );
                self.wrong("k8s_source", message);
                None
            }
            (None | Some("pod-ip"), None | Some("pods")) => Some(Source::Pods),
            (None | Some("pod-ip"), Some("endpointslices")) => Some(Source::EndpointSlices),
            (None | Some("pod-ip"), Some("inferencepool")) => {
                if pool.is_none() {
                    let hint = "the InferencePool's name";
                    self.missing("k8s_inference_pool", "--k8s-inference-pool", hint);
                }
                if let Some(name) = pool.filter(|name| !is_dns_name(name)) {
                    let message = format!(
                        "{name:?} is no InferencePool's name; expected a-z, 0-9, - and ., \
                         {MOST_LONG_NAME} at most"
                    );
                    self.wrong("k8s_inference_pool", message);
                }
                pool.map(|name| Source::InferencePool(name.to_owned()))
            }
            (None | Some("pod-ip"), Some(other)) => {
                let message = format!(
                    "{other:?} is unknown; expected \"pods\", \"endpointslices\" or \"inferencepool\""
                );
                self.wrong("k8s_source", message);
                None
            }
            (Some(other), _) => {
                let message =
                    format!("{other:?} is unknown; expected \"pod-ip\" or \"service-name\"");
                self.wrong("k8s_service_discovery_type", message);
                None
            }
        }
    }

    fn watch(&mut self, keys: &DynamicFile) -> Duration {
        match keys.k8s_watcher_timeout_seconds {
            None | Some(0) => WATCH,
            Some(seconds) => {
                if !WATCHES.contains(&seconds) {
                    let (least, most) = (WATCHES.start(), WATCHES.end());
                    let message = format!("{seconds}: expected {least} to {most}, or 0 for 60");
                    self.wrong("k8s_watcher_timeout_seconds", message);
                }
                Duration::from_secs(seconds.into())
            }
        }
    }
}

fn is_dns_label(name: &str) -> bool {
    name.len() <= MOST_NAME && is_part(name)
}

/// What the API server calls a DNS subdomain: its parts have no bound of their own.
fn is_dns_name(name: &str) -> bool {
    name.len() <= MOST_LONG_NAME && name.split('.').all(is_part)
}

fn is_part(name: &str) -> bool {
    let is_plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    name.chars().all(|c| is_plain(c) || c == '-')
        && name.starts_with(is_plain)
        && name.ends_with(is_plain)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::config::problem::Problem;
    use crate::config::resolve::{Resolved, resolve};

    /// With these keys beside those that are needed, and a selector.
    fn resolved(more: &Value) -> Result<Resolved, Vec<Problem>> {
        let mut keys = json!({
            "service_discovery": "k8s", "routing_logic": "roundrobin",
            "k8s_label_selector": "app=vllm",
        });
        let more = more.as_object().unwrap().clone();
        keys.as_object_mut().unwrap().extend(more);
        resolve(&serde_json::from_value(keys).unwrap())
    }

    fn of(more: &Value) -> Kubernetes {
        resolved(more).unwrap().settings.kubernetes.unwrap()
    }

    #[test]
    fn a_cluster_is_watched_as_the_keys_say() {
        let expected = Kubernetes {
            selector: "app=vllm".to_owned(),
            ..Kubernetes::default()
        };
        assert_eq!(of(&json!({})), expected);
        for (keys, source) in [
            (
                json!({"k8s_service_discovery_type": "pod-ip"}),
                Source::Pods,
            ),
            (
                json!({"k8s_service_discovery_type": "service-name"}),
                Source::Services,
            ),
            (
                json!({"k8s_source": "endpointslices"}),
                Source::EndpointSlices,
            ),
            (
                json!({"k8s_source": "inferencepool", "k8s_inference_pool": "p"}),
                Source::InferencePool("p".to_owned()),
            ),
        ] {
            assert_eq!(of(&keys).source, source);
        }
        assert_eq!(of(&json!({"k8s_watcher_timeout_seconds": 0})).watch, WATCH);
        assert_eq!(of(&json!({"k8s_namespace": ""})).namespace, None);
    }

    fn pool(name: &str) -> Value {
        json!({"k8s_source": "inferencepool", "k8s_inference_pool": name})
    }

    #[test]
    fn a_pool_has_a_name_and_a_selector_of_its_own() {
        let longest = "a".repeat(MOST_LONG_NAME);
        for name in ["p", "my-pool.v1", "0.1", &longest] {
            let source = Source::InferencePool(name.to_owned());
            assert_eq!(of(&pool(name)).source, source);
        }
        let warnings = resolved(&pool("p")).unwrap().warnings;
        assert!(
            warnings.len() == 1 && warnings[0].contains("k8s_label_selector has no effect"),
            "{warnings:?}"
        );
        let mut without = pool("p");
        without["k8s_label_selector"] = json!("");
        assert!(resolved(&without).unwrap().warnings.is_empty());
    }

    #[test]
    fn what_is_wrong_or_says_nothing_is_told() {
        for (keys, path, what) in [
            (
                json!({"k8s_label_selector": "app=vllm,"}),
                "k8s_label_selector",
                "character 10",
            ),
            (
                json!({"k8s_namespace": "No_Such"}),
                "k8s_namespace",
                "no namespace",
            ),
            (json!({"k8s_source": "nodes"}), "k8s_source", "unknown"),
            (
                json!({"k8s_source": "pods", "k8s_service_discovery_type": "service-name"}),
                "k8s_source",
                "exclude",
            ),
            (
                json!({"k8s_service_discovery_type": "dns"}),
                "k8s_service_discovery_type",
                "unknown",
            ),
            (
                json!({"k8s_source": "inferencepool"}),
                "k8s_inference_pool",
                "required",
            ),
            (pool("My_Pool"), "k8s_inference_pool", "no InferencePool's"),
            (pool("a..b"), "k8s_inference_pool", "no InferencePool's"),
            (pool("-a"), "k8s_inference_pool", "no InferencePool's"),
            (pool("a,b=c"), "k8s_inference_pool", "no InferencePool's"),
            (
                pool(&"a".repeat(MOST_LONG_NAME + 1)),
                "k8s_inference_pool",
                "253 at most",
            ),
            (
                json!({"k8s_watcher_timeout_seconds": 1}),
                "k8s_watcher_timeout_seconds",
                "5 to 3600",
            ),
            (json!({"k8s_port": 0}), "k8s_port", "from 1"),
        ] {
            let problems = resolved(&keys).unwrap_err();
            assert_eq!(problems[0].path, path);
            assert!(problems[0].message.contains(what), "{problems:?}");
        }
        let keys = json!({"k8s_label_selector": "", "static_backends": "http://a"});
        let warnings = resolved(&keys).unwrap().warnings;
        assert!(
            warnings[0].contains("all pods of the namespace"),
            "{warnings:?}"
        );
        assert!(
            warnings[1].contains("static_backends has no effect"),
            "{warnings:?}"
        );
        assert!(resolved(&keys).unwrap().settings.engines.is_empty());
    }
}
