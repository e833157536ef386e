//! Policies that select by attributes, and those that ask someone first.

use std::sync::Arc;
use std::time::Duration;

use super::super::EngineUrl;
use super::super::dynamic::{DynamicFile, PickerEntry, PolicyEntry, Seconds};
use super::super::policies::{
    APP_MAP, Advised, Adviser, MOST_KEPT, Picker, PolicyKind, Scored, use_case,
};
use super::super::problem::masked;
use super::Resolving;
use crate::query::{Query, Vocabulary};

/// How long advice may take.
const DEADLINE: [Duration; 2] = [Duration::from_millis(200), Duration::from_secs(3)];
/// How long advice holds.
const TTL: Duration = Duration::from_secs(10);
/// Longest of both.
const MOST: Duration = Duration::from_secs(3600);

impl Resolving {
    pub(super) fn scored(
        &mut self,
        path: &str,
        entry: &PolicyEntry,
        keys: &DynamicFile,
    ) -> Option<Scored> {
        let picker = match entry.picker.unwrap_or(PickerEntry::Argmax) {
            PickerEntry::Argmax => Picker::Argmax,
            PickerEntry::TopK => Picker::TopK(entry.top_k.unwrap_or(3).clamp(1, MOST_KEPT)),
            PickerEntry::Softmax => Picker::Softmax(entry.temperature.unwrap_or(0.1)),
            PickerEntry::Weighted => Picker::Weighted,
        };
        let app_map = if entry.app_map.is_empty() {
            APP_MAP
                .map(|(of, case)| (of.to_owned(), case.to_owned()))
                .into()
        } else {
            entry.app_map.clone()
        };
        let filter = self.filter(path, entry);
        let case = entry.application_type.as_deref();
        let case = case.filter(|of| !of.is_empty());
        let case = case.map(|of| Arc::new(use_case(of, &app_map)));
        let scored = Scored {
            goals: self.scored_goals(path, entry),
            picker,
            instance: Box::new(self.instance(path, entry, keys)?),
            app_map: Arc::new(app_map),
            ..Scored::default()
        };
        Some(scored.among(filter.map(Arc::new), case))
    }

    fn filter(&mut self, path: &str, entry: &PolicyEntry) -> Option<Query> {
        let own = Arc::clone(&self.own);
        let parsed = Query::parse(entry.filter.as_ref()?, "", Vocabulary { own: &own });
        parsed
            .map_err(|error| {
                let at = error.pointer.replace('/', ".");
                self.wrong(format!("{path}.filter{at}"), error.message);
            })
            .ok()
    }

    fn instance(
        &mut self,
        path: &str,
        entry: &PolicyEntry,
        keys: &DynamicFile,
    ) -> Option<PolicyKind> {
        let name = entry.instance_policy.as_deref().unwrap_or("leastload");
        let allowed = [
            "leastload",
            "leastconnections",
            "leastlatency",
            "random",
            "weighted",
        ];
        if !allowed.contains(&name) {
            let message = format!("{name:?}: expected {}", allowed.join(", "));
            self.wrong(format!("{path}.instance_policy"), message);
            return None;
        }
        let bare = PolicyEntry {
            kind: name.to_owned(),
            ..PolicyEntry::default()
        };
        self.kind(&format!("{path}.instance_policy"), &bare, keys)
    }

    pub(super) fn remote(
        &mut self,
        path: &str,
        entry: &PolicyEntry,
        keys: &DynamicFile,
    ) -> Option<Advised> {
        let Some(url) = &entry.url else {
            self.wrong(
                format!("{path}.url"),
                "required: where the candidates are sent",
            );
            return None;
        };
        let url = self.url(&format!("{path}.url"), url)?;
        self.advised(path, (entry, keys), Adviser::Remote { url }, DEADLINE[0])
    }

    pub(super) fn llm(
        &mut self,
        path: &str,
        entry: &PolicyEntry,
        keys: &DynamicFile,
    ) -> Option<Advised> {
        let server = match &entry.server {
            Some(url) => Some(self.url(&format!("{path}.server"), url)?),
            None => None,
        };
        let Some(block) = entry.block.clone() else {
            let message = "required: the block, or the model, that is asked";
            self.wrong(format!("{path}.block"), message);
            return None;
        };
        let adviser = Adviser::Llm {
            server,
            block,
            query_string: entry.query_string.clone().unwrap_or_default(),
        };
        self.advised(path, (entry, keys), adviser, DEADLINE[1])
    }

    fn advised(
        &mut self,
        path: &str,
        (entry, keys): (&PolicyEntry, &DynamicFile),
        adviser: Adviser,
        usual: Duration,
    ) -> Option<Advised> {
        Some(Advised {
            adviser,
            deadline: self.sane(&format!("{path}.deadline"), entry.deadline, usual),
            ttl: self.sane(&format!("{path}.ttl"), entry.ttl, TTL),
            then: self.scored(path, entry, keys)?,
            parameters: Arc::from("{}"),
        })
    }

    fn sane(&mut self, path: &str, given: Option<Seconds>, usual: Duration) -> Duration {
        let given = given.map_or(usual, |given| given.0);
        if given > MOST || given.is_zero() {
            let message = format!(
                "{}s: expected more than 0, and 1 hour at most",
                given.as_secs()
            );
            self.wrong(path, message);
        }
        given
    }

    fn url(&mut self, path: &str, text: &str) -> Option<EngineUrl> {
        EngineUrl::parse(text)
            .map_err(|error| self.wrong(path, format!("{:?}: {}", masked(text), error.problem())))
            .ok()
    }

    /// Who may be asked by requests.
    pub(super) fn matchers(&mut self, keys: &DynamicFile) -> Vec<EngineUrl> {
        let all = keys.matchers.iter().flatten().enumerate();
        let urls = all.filter_map(|(n, text)| self.url(&format!("matchers.{n}"), text));
        urls.collect()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::super::{Resolved, resolve};
    use super::*;
    use crate::config::problem::Problem;

    fn resolved(policy: &Value, more: &Value) -> Result<Resolved, Vec<Problem>> {
        let mut keys = json!({
            "service_discovery": "static", "routing_logic": "p",
            "engines": [{"url": "http://a:1", "models": ["m"]}], "policies": {"p": policy},
        });
        let more = more.as_object().unwrap().clone();
        keys.as_object_mut().unwrap().extend(more);
        resolve(&serde_json::from_value(keys).unwrap())
    }

    #[test]
    fn what_is_wrong_is_told_with_its_place() {
        let condition = json!({"variable": "id", "operator": "~", "value": 1});
        for (policy, more, path, said) in [
            (
                json!({"type": "scored", "filter": {"blockQuery": condition}}),
                json!({}),
                "policies.p.filter.blockQuery.operator",
                "LIKE",
            ),
            (
                json!({"type": "scored", "filter": {"blockQuery": {"logicalOperator": "AND", "conditions": []}}}),
                json!({}),
                "policies.p.filter.blockQuery.conditions",
                "one condition",
            ),
            (
                json!({"type": "scored", "instance_policy": "session"}),
                json!({}),
                "policies.p.instance_policy",
                "leastload",
            ),
            (
                json!({"type": "remote"}),
                json!({}),
                "policies.p.url",
                "required",
            ),
            (
                json!({"type": "remote", "url": "ftp://a"}),
                json!({}),
                "policies.p.url",
                "http",
            ),
            (
                json!({"type": "llm"}),
                json!({}),
                "policies.p.block",
                "required",
            ),
            (
                json!({"type": "remote", "url": "http://a", "deadline": "90m"}),
                json!({}),
                "policies.p.deadline",
                "1 hour",
            ),
            (
                json!({"type": "remote", "url": "http://a", "ttl": 0}),
                json!({}),
                "policies.p.ttl",
                "more than 0",
            ),
            (
                json!({"type": "random"}),
                json!({"matchers": ["nonsense"]}),
                "matchers.0",
                "http",
            ),
        ] {
            let shown = policy.to_string();
            let problems = resolved(&policy, &more).unwrap_err();
            let [problem] = &problems[..] else {
                panic!("{shown}: {problems:?}");
            };
            assert_eq!(problem.path, path, "{shown}");
            assert!(
                problem.message.contains(said),
                "{shown}: {}",
                problem.message
            );
        }
    }

    #[test]
    fn matchers_are_told_whom_to_ask_and_how_long() {
        let remote = json!({"type": "remote", "url": "http://a:9/x", "ttl": 5});
        let kind = resolved(&remote, &json!({}))
            .unwrap()
            .settings
            .routing
            .policy
            .kind;
        let PolicyKind::Advised(remote) = kind else {
            panic!("{kind:?}");
        };
        assert_eq!(
            (remote.deadline, remote.ttl),
            (Duration::from_millis(200), Duration::from_secs(5))
        );
        let llm = json!({"type": "llm", "block": "judge", "query_string": "be quick", "strategy": "random"});
        let llm = resolved(&llm, &json!({})).unwrap();
        assert!(llm.warnings[0].contains("strategy"), "{:?}", llm.warnings);
        let PolicyKind::Advised(llm) = llm.settings.routing.policy.kind else {
            panic!("no matcher");
        };
        assert_eq!(llm.deadline, Duration::from_secs(3));
        let adviser = Adviser::Llm {
            server: None,
            block: "judge".to_owned(),
            query_string: "be quick".to_owned(),
        };
        assert_eq!(llm.adviser, adviser);
    }
}
