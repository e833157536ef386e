//! Policies of type `smart`, and the one that decides in the shadow.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::super::dynamic::{Cost, DynamicFile, ModelEntry, PolicyEntry, RequirementOfEntry};
use super::super::policies::{
    Alternative, MOST_KEPT, PolicyKind, PolicySpec, RequirementOf, Smart,
};
use super::Resolving;

/// Tokens that prices are written for.
const MILLION: f64 = 1e6;
/// How likely an answer must be right (the AIOS reference's figure).
const REQUIREMENT: f64 = 0.7;

impl Resolving {
    pub(super) fn smart(
        &mut self,
        path: &str,
        entry: &PolicyEntry,
        keys: &DynamicFile,
    ) -> Option<Smart> {
        let requirement = entry.performance_requirement.unwrap_or(REQUIREMENT);
        if !(0.0..=1.0).contains(&requirement) {
            let message = format!("{requirement}: expected 0 to 1");
            self.wrong(format!("{path}.performance_requirement"), message);
        }
        if entry.models.len() > MOST_KEPT {
            let message = format!("{} models; {MOST_KEPT} at most", entry.models.len());
            self.wrong(format!("{path}.models"), message);
        }
        let mut models = Vec::with_capacity(entry.models.len());
        for (name, said) in &entry.models {
            let path = format!("{path}.models.{name}");
            let strategy = match &said.strategy {
                None => None,
                strategy => {
                    let own = PolicyEntry {
                        strategy: strategy.clone(),
                        ..entry.clone()
                    };
                    Some(self.strategy(&path, &own, keys, "leastload")?)
                }
            };
            models.push(Alternative {
                name: Arc::from(name.as_str()),
                cost: self.cost(&path, said),
                strategy,
            });
        }
        let of = match entry.requirement_of {
            None | Some(RequirementOfEntry::Each) => RequirementOf::Each,
            Some(RequirementOfEntry::Average) => RequirementOf::Average,
        };
        Some(Smart {
            models,
            requirement,
            of,
            strategy: self.strategy(path, entry, keys, "leastload")?,
        })
    }

    fn cost(&mut self, path: &str, said: &ModelEntry) -> Option<Cost> {
        let of_one = (said.cost_per_input_token, said.cost_per_output_token);
        let cost = match (said.cost, of_one) {
            (cost, (None, None)) => cost?,
            (None, (Some(input), Some(output))) => Cost {
                input_per_mtok: input * MILLION,
                output_per_mtok: output * MILLION,
            },
            (Some(_), _) => {
                let message = "give `cost`, or the two costs per token, not both";
                self.wrong(path, message);
                return None;
            }
            (None, _) => {
                let message = "cost_per_input_token and cost_per_output_token go together: the \
                               price of the other would be unknown, and is never taken for nothing";
                self.wrong(path, message);
                return None;
            }
        };
        let is_price = |price: f64| price.is_finite() && price >= 0.0;
        if !(is_price(cost.input_per_mtok) && is_price(cost.output_per_mtok)) {
            self.wrong(path, "a cost must be 0 or more");
        }
        Some(cost)
    }

    /// The policy that decides beside the one in force.
    pub(super) fn shadow(
        &mut self,
        keys: &DynamicFile,
        named: &BTreeMap<String, PolicySpec>,
    ) -> Option<PolicySpec> {
        let name = keys.shadow_policy.as_deref()?;
        match named.get(name) {
            Some(spec) if matches!(spec.kind, PolicyKind::Smart(_)) => Some(spec.clone()),
            Some(spec) => {
                let message = format!(
                    "{name:?} is of type {}; expected one of type smart",
                    spec.kind.name()
                );
                self.wrong("shadow_policy", message);
                None
            }
            // What is wrong with it was said before.
            None if keys
                .policies
                .iter()
                .flatten()
                .any(|(known, _)| known == name) =>
            {
                None
            }
            None => {
                let known = named.iter();
                let known = known.filter(|(_, spec)| matches!(spec.kind, PolicyKind::Smart(_)));
                let known: Vec<&str> = known.map(|(name, _)| name.as_str()).collect();
                let message = match known.as_slice() {
                    [] => format!("{name:?} is unknown: `policies` has none of type smart"),
                    known => format!("{name:?} is unknown; of type smart: {}", known.join(", ")),
                };
                self.wrong("shadow_policy", message);
                None
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::resolve;
    use super::*;
    use serde_json::{Value, json};

    fn file(policy: &Value, shadow: Option<&str>) -> DynamicFile {
        let keys = json!({
            "service_discovery": "static", "routing_logic": "roundrobin",
            "static_backends": "http://a", "shadow_policy": shadow,
            "policies": {"p": policy, "even": {"type": "roundrobin"}},
        });
        serde_json::from_value(keys).unwrap()
    }

    #[test]
    fn it_is_as_it_is_written() {
        let keys = file(
            &json!({"type": "smart", "requirement_of": "average", "strategy": "random", "models": {
                "a": {"cost": {"input_per_mtok": 1, "output_per_mtok": 2}},
                "b": {"cost_per_input_token": 0.000_5, "cost_per_output_token": 0, "strategy": "leastload"},
                "c": {},
            }}),
            Some("p"),
        );
        let resolved = resolve(&keys).unwrap();
        assert_eq!(resolved.warnings, Vec::<String>::new());
        let routing = resolved.settings.routing;
        assert!(routing.learns());
        assert_eq!(routing.shadow.as_ref(), routing.named.get("p"));
        let PolicyKind::Smart(of) = &routing.named["p"].kind else {
            panic!("{:?}", routing.named);
        };
        assert_eq!(
            (of.requirement, of.of),
            (REQUIREMENT, RequirementOf::Average)
        );
        assert_eq!(of.strategy, PolicyKind::Random);
        let b = of.model("b").unwrap();
        let cost = b
            .cost
            .map(|cost| (cost.input_per_mtok, cost.output_per_mtok));
        assert_eq!(
            (cost, &b.strategy),
            (Some((500.0, 0.0)), &Some(PolicyKind::LeastLoad))
        );
        assert_eq!(of.model("c").map(|model| model.cost), Some(None));
        assert_eq!(of.model("d"), None);
    }

    #[test]
    fn what_cannot_be_meant_is_told() {
        let smart = |more: Value| {
            let mut policy = json!({"type": "smart"});
            let more = more.as_object().unwrap().clone();
            policy.as_object_mut().unwrap().extend(more);
            policy
        };
        let of_a = |said: Value| smart(json!({"models": {"a": said}}));
        for (policy, shadow, part) in [
            (
                smart(json!({"performance_requirement": 1.1})),
                None,
                "policies.p.performance_requirement: 1.1: expected 0 to 1",
            ),
            (
                of_a(json!({"cost_per_input_token": 1})),
                None,
                "policies.p.models.a: cost_per_input_token and cost_per_output_token go together",
            ),
            (
                of_a(
                    json!({"cost_per_input_token": 1, "cost_per_output_token": 1, "cost": {"input_per_mtok": 1, "output_per_mtok": 1}}),
                ),
                None,
                "policies.p.models.a: give `cost`, or the two costs per token",
            ),
            (
                of_a(json!({"cost": {"input_per_mtok": -1, "output_per_mtok": 1}})),
                None,
                "policies.p.models.a: a cost must be 0 or more",
            ),
            (
                of_a(json!({"strategy": "smart"})),
                None,
                "policies.p.models.a.strategy: \"smart\" cannot be a strategy",
            ),
            (
                smart(json!({"strategy": "sequential"})),
                None,
                "\"sequential\" cannot be a strategy",
            ),
            (
                smart(json!({})),
                Some("even"),
                "shadow_policy: \"even\" is of type roundrobin; expected one of type smart",
            ),
            (
                smart(json!({})),
                Some("q"),
                "shadow_policy: \"q\" is unknown; of type smart: p",
            ),
            (
                json!({"type": "random"}),
                Some("q"),
                "shadow_policy: \"q\" is unknown: `policies` has none of type smart",
            ),
        ] {
            let problems = resolve(&file(&policy, shadow)).unwrap_err();
            let all: Vec<String> = problems.iter().map(ToString::to_string).collect();
            assert!(all.join("\n").contains(part), "{part}: {all:?}");
        }
        // It is a policy of models, and says so where its keys have no effect.
        let keys = file(
            &json!({"type": "roundrobin", "models": {"a": {}}, "requirement_of": "each"}),
            None,
        );
        let warnings = resolve(&keys).unwrap().warnings.join("\n");
        assert!(
            warnings.contains("policies.p.models has no effect: it is for smart"),
            "{warnings}"
        );
    }
}
