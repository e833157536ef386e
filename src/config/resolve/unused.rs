//! Keys of policies that say nothing: told of, since whoever wrote them thinks
//! otherwise.

use super::super::dynamic::{PickerEntry, PolicyEntry};
use super::Resolving;

impl Resolving {
    /// Warns of keys that neither the policy nor its strategy looks at.
    pub(super) fn unused(&mut self, path: &str, entry: &PolicyEntry) {
        let own = entry.models.values().map(|model| model.strategy.as_deref());
        let types = [Some(entry.kind.as_str()), entry.strategy.as_deref()];
        let types: Vec<Option<&str>> = types.into_iter().chain(own).collect();
        let affinity = ["session", "consistenthash"];
        let bounded = ["session", "consistenthash", "prefixaware"];
        let scored = ["scored", "remote", "llm"];
        let by_goals = ["scored", "weighted", "remote", "llm"];
        let (advised, smart) = (["remote", "llm"], ["smart"]);
        let requirement = entry.performance_requirement;
        for (key, is_given, by) in [
            ("session_key", entry.session_key.is_some(), &["session"][..]),
            ("keys", !entry.keys.is_empty(), &["consistenthash"]),
            ("placement", entry.placement.is_some(), &affinity),
            ("load_bound", entry.load_bound.is_some(), &bounded),
            ("min_match", entry.min_match.is_some(), &["prefixaware"]),
            ("goals", entry.goals.is_some(), &by_goals),
            ("picker", entry.picker.is_some(), &scored),
            ("top_k", entry.top_k.is_some(), &scored),
            ("temperature", entry.temperature.is_some(), &scored),
            ("filter", entry.filter.is_some(), &by_goals),
            (
                "application_type",
                entry.application_type.is_some(),
                &by_goals,
            ),
            ("app_map", !entry.app_map.is_empty(), &by_goals),
            (
                "instance_policy",
                entry.instance_policy.is_some(),
                &by_goals,
            ),
            ("url", entry.url.is_some(), &["remote"]),
            ("deadline", entry.deadline.is_some(), &advised),
            ("ttl", entry.ttl.is_some(), &advised),
            ("server", entry.server.is_some(), &["llm"]),
            ("block", entry.block.is_some(), &["llm"]),
            ("query_string", entry.query_string.is_some(), &["llm"]),
            ("weights", !entry.weights.is_empty(), &["federation"]),
            (
                "max_candidates",
                entry.max_candidates.is_some(),
                &["federation"],
            ),
            ("min_score", entry.min_score.is_some(), &["federation"]),
            ("region", entry.region.is_some(), &["federation"]),
            ("privacy", entry.privacy.is_some(), &["federation"]),
            (
                "strategy",
                entry.strategy.is_some(),
                &["federation", "sequential", "smart"],
            ),
            ("performance_requirement", requirement.is_some(), &smart),
            ("requirement_of", entry.requirement_of.is_some(), &smart),
            ("models", !entry.models.is_empty(), &smart),
        ] {
            if is_given && !types.iter().flatten().any(|kind| by.contains(kind)) {
                let by = by.join(" and ");
                self.warnings
                    .push(format!("{path}.{key} has no effect: it is for {by}"));
            }
        }
        self.without_picker(path, entry, &types);
    }

    /// The same of those that only one picker looks at.
    fn without_picker(&mut self, path: &str, entry: &PolicyEntry, types: &[Option<&str>]) {
        let picked = |picker| entry.picker == Some(picker);
        for (key, is_lost) in [
            ("top_k", entry.top_k.is_some() && !picked(PickerEntry::TopK)),
            (
                "temperature",
                entry.temperature.is_some() && !picked(PickerEntry::Softmax),
            ),
        ] {
            if is_lost && types.contains(&Some("scored")) {
                let picker = if key == "top_k" { "top_k" } else { "softmax" };
                self.warnings.push(format!(
                    "{path}.{key} has no effect without picker: {picker}"
                ));
            }
        }
    }
}
