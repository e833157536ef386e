//! Policies, from how they are written to what they do.

use std::collections::BTreeMap;
use std::sync::Arc;

use http::HeaderName;

use super::super::dynamic::{
    DirectionEntry, DynamicFile, GoalEntry, PlacementEntry, PolicyEntry, Privacy,
};
use super::super::policies::{
    Affinity, Federation, Goal, KeySource, LOAD_BOUND, MOST_KEPT, Picker, Placement, PolicyKind,
    PolicySpec, PrefixAware, Routing, Scored,
};
use super::super::problem::nearest;
use super::Resolving;
use super::resilience::policy_timeouts;

/// Columns of metadata that the configuration's own goals may name; what policies
/// look at beyond is looked up by its path.
pub(super) const MOST_COLUMNS: usize = 64;

/// What the federation's weights are for, and the reference's.
const FEDERATION: [(&str, f64); 5] = [
    ("health", 2.0),
    ("latency", 1.0),
    ("privacy", 1.0),
    ("locality", 1.0),
    ("cost", 1.0),
];

/// The goals of `scored` when none are given: a middle ground of low latency,
/// speed and a small model. Beside the shipped `Balanced_Performer`, which asks
/// for the same, these do not depend on how long answers are, do not count
/// latency twice, and move with each request, so that not all run to whoever
/// was the quickest when it was last looked.
const BALANCED: [(&str, DirectionEntry); 3] = [
    ("latency_ms", DirectionEntry::Min),
    ("llm_tokens_per_second", DirectionEntry::Max),
    ("parameterCountB", DirectionEntry::Min),
];

impl Resolving {
    pub(super) fn routing(&mut self, keys: &DynamicFile) -> Option<Routing> {
        self.goals_to_name(keys);
        let mut named = BTreeMap::new();
        for (name, entry) in keys.policies.iter().flatten() {
            let path = format!("policies.{name}");
            if is_built_in(name) {
                self.wrong(&path, "is the name of a policy of our own; choose another");
            }
            self.unused(&path, entry);
            if let Some(kind) = self.kind(&path, entry, keys) {
                let mut spec = PolicySpec::plain(name, kind);
                let own = entry.timeouts.as_ref();
                spec.timeouts = own.map(|own| policy_timeouts(keys, own));
                named.insert(name.clone(), spec);
            }
        }
        let policy = self.default_policy(keys, &named);
        let shadow = self.shadow(keys, &named);
        let columns = std::mem::take(&mut self.columns);
        let allow = self.allow(keys, &mut named);
        let slow_start = self.slow_start(keys);
        let decision_sample = keys.decision_sample.unwrap_or(0.0);
        let matchers = self.matchers(keys);
        Some(Routing {
            policy: policy?,
            named,
            goals: Arc::new(std::mem::take(&mut self.named_goals)),
            columns,
            slow_start,
            allow,
            decision_sample,
            prefer_local: keys.prefer_local.unwrap_or(false),
            matchers,
            shadow,
        })
    }

    fn default_policy(
        &mut self,
        keys: &DynamicFile,
        named: &BTreeMap<String, PolicySpec>,
    ) -> Option<PolicySpec> {
        let Some(name) = keys.routing_logic.as_deref() else {
            let hint = format!("{}, or a name of `policies`", PolicyKind::NAMES.join(", "));
            self.missing("routing_logic", "--routing-logic", &hint);
            return None;
        };
        if keys
            .policies
            .as_ref()
            .is_some_and(|all| all.contains_key(name))
        {
            return named.get(name).cloned();
        }
        let name = match name {
            "kvaware" => self.instead(name, "prefixaware"),
            "loadaware" => self.instead(name, "leastload"),
            name => name,
        };
        if !PolicyKind::NAMES.contains(&name) {
            let known = keys.policies.iter().flat_map(BTreeMap::keys);
            let known: Vec<&str> = known.map(String::as_str).chain(PolicyKind::NAMES).collect();
            self.wrong("routing_logic", unknown_policy(name, &known));
            return None;
        }
        let bare = PolicyEntry {
            kind: name.to_owned(),
            ..PolicyEntry::default()
        };
        let kind = self.kind("routing_logic", &bare, keys)?;
        Some(PolicySpec::plain(name, kind))
    }

    fn instead<'a>(&mut self, asked: &str, given: &'a str) -> &'a str {
        self.warnings.push(format!(
            "routing_logic {asked}: {given} is taken in its place"
        ));
        given
    }

    pub(super) fn kind(
        &mut self,
        path: &str,
        entry: &PolicyEntry,
        keys: &DynamicFile,
    ) -> Option<PolicyKind> {
        let kind = match entry.kind.as_str() {
            "roundrobin" => PolicyKind::RoundRobin,
            "random" => PolicyKind::Random,
            "leastconnections" => PolicyKind::LeastConnections,
            "leastlatency" => PolicyKind::LeastLatency,
            "leastload" => PolicyKind::LeastLoad,
            "session" => PolicyKind::Session(self.session(path, entry, keys)?),
            "consistenthash" => PolicyKind::ConsistentHash(self.consistent_hash(path, entry)?),
            "prefixaware" => {
                let flag = keys.prefix_min_match_length.unwrap_or(0);
                PolicyKind::PrefixAware(PrefixAware {
                    min_match: entry.min_match.unwrap_or(flag),
                    load_bound: self.load_bound(path, entry),
                })
            }
            "weighted" if is_plain(entry) => PolicyKind::Weighted,
            "weighted" => PolicyKind::Scored(Scored {
                picker: Picker::Weighted,
                ..self.scored(path, entry, keys)?
            }),
            "scored" => PolicyKind::Scored(self.scored(path, entry, keys)?),
            "remote" => PolicyKind::Advised(Box::new(self.remote(path, entry, keys)?)),
            "llm" => PolicyKind::Advised(Box::new(self.llm(path, entry, keys)?)),
            "federation" => PolicyKind::Federation(Box::new(self.federation(path, entry, keys)?)),
            "sequential" => {
                let then = self.strategy(path, entry, keys, "leastload")?;
                PolicyKind::Sequential(Box::new(then))
            }
            "smart" => PolicyKind::Smart(Box::new(self.smart(path, entry, keys)?)),
            other => {
                let known = [&PolicyKind::NAMES[..], &PolicyKind::ADVISED].concat();
                let message = unknown_policy(other, &known);
                self.wrong(format!("{path}.type"), message);
                return None;
            }
        };
        Some(kind)
    }

    fn session(&mut self, path: &str, entry: &PolicyEntry, keys: &DynamicFile) -> Option<Affinity> {
        let Some(key) = entry.session_key.as_ref().or(keys.session_key.as_ref()) else {
            let hint = "the header that carries the session's id, such as x-user-id";
            self.missing("session_key", "--session-key", hint);
            return None;
        };
        let Ok(field) = HeaderName::try_from(key.as_str()) else {
            let message = format!("{key:?} cannot be the name of a header");
            self.wrong("session_key", message);
            return None;
        };
        let keys = vec![
            KeySource::Header(field),
            KeySource::Body(Arc::from(key.as_str())),
        ];
        let placement = entry.placement.unwrap_or(PlacementEntry::Ring);
        Some(self.affinity(path, entry, keys, placement))
    }

    fn consistent_hash(&mut self, path: &str, entry: &PolicyEntry) -> Option<Affinity> {
        let written: Vec<&str> = if entry.keys.is_empty() {
            vec!["user", "session_id", "address"]
        } else {
            entry.keys.iter().map(String::as_str).collect()
        };
        let mut keys = Vec::new();
        for key in written {
            match key_source(key) {
                Some(source) => keys.push(source),
                None => self.wrong(
                    format!("{path}.keys"),
                    format!(
                        "{key:?}: expected header:NAME, body:KEY, cookie:NAME, user, session_id, \
                         address or prompt"
                    ),
                ),
            }
        }
        let of_body = keys.iter().filter(|key| is_own_body_key(key)).count();
        if of_body > 1 {
            let message = "one body:KEY is looked for at most, beside user and session_id";
            self.wrong(format!("{path}.keys"), message);
        }
        let placement = entry.placement.unwrap_or(PlacementEntry::Rendezvous);
        Some(self.affinity(path, entry, keys, placement))
    }

    fn affinity(
        &mut self,
        path: &str,
        entry: &PolicyEntry,
        keys: Vec<KeySource>,
        placement: PlacementEntry,
    ) -> Affinity {
        let placement = match placement {
            PlacementEntry::Ring => {
                if entry.load_bound.is_some() {
                    let message = "is for placement: rendezvous";
                    self.wrong(format!("{path}.load_bound"), message);
                }
                Placement::Ring
            }
            PlacementEntry::Rendezvous => Placement::Rendezvous {
                load_bound: self.load_bound(path, entry),
            },
        };
        Affinity { keys, placement }
    }

    fn load_bound(&mut self, path: &str, entry: &PolicyEntry) -> f64 {
        let bound = entry.load_bound.unwrap_or(LOAD_BOUND);
        if !(bound.is_finite() && bound >= 1.0) {
            let message = format!("{bound}: expected 1 or more");
            self.wrong(format!("{path}.load_bound"), message);
        }
        bound
    }

    /// Its goals, or those of `scored` when none are given.
    pub(super) fn scored_goals(&mut self, path: &str, entry: &PolicyEntry) -> Vec<Goal> {
        match &entry.goals {
            Some(none) if none.is_empty() => return Vec::new(),
            Some(goals) => return self.goals(path, goals),
            None => {}
        }
        let balanced = BALANCED.map(|(attribute, direction)| GoalEntry {
            attribute: Some(attribute.to_owned()),
            direction: Some(direction),
            ..GoalEntry::default()
        });
        self.goals(path, &balanced)
    }

    fn federation(
        &mut self,
        path: &str,
        entry: &PolicyEntry,
        keys: &DynamicFile,
    ) -> Option<Federation> {
        for (name, weight) in &entry.weights {
            let path = format!("{path}.weights.{name}");
            if !FEDERATION.iter().any(|(known, _)| known == name) {
                self.wrong(
                    &path,
                    "unknown; expected health, latency, privacy, locality or cost",
                );
            }
            if !(weight.is_finite() && *weight >= 0.0) {
                self.wrong(&path, format!("{weight}: expected 0 or more"));
            }
        }
        let weights =
            FEDERATION.map(|(name, usual)| entry.weights.get(name).copied().unwrap_or(usual));
        if weights.iter().sum::<f64>() <= 0.0 {
            self.wrong(format!("{path}.weights"), "all are 0: nothing is wanted");
        }
        Some(Federation {
            weights,
            max_candidates: entry.max_candidates.unwrap_or(10).clamp(1, MOST_KEPT),
            min_score: entry.min_score.unwrap_or(0.1),
            region: entry.region.clone(),
            privacy: entry.privacy.unwrap_or(Privacy::Internal),
            strategy: self.strategy(path, entry, keys, "leastlatency")?,
        })
    }

    /// The policy that picks in the end, of those that need nothing but a name.
    pub(super) fn strategy(
        &mut self,
        path: &str,
        entry: &PolicyEntry,
        keys: &DynamicFile,
        usual: &str,
    ) -> Option<PolicyKind> {
        let name = entry.strategy.as_deref().unwrap_or(usual);
        if matches!(
            name,
            "federation" | "sequential" | "smart" | "remote" | "llm"
        ) {
            let message = format!("{name:?} cannot be a strategy");
            self.wrong(format!("{path}.strategy"), message);
            return None;
        }
        let inner = PolicyEntry {
            kind: name.to_owned(),
            strategy: None,
            ..entry.clone()
        };
        self.kind(&format!("{path}.strategy"), &inner, keys)
    }
}

/// Whether nothing is selected by.
fn is_plain(entry: &PolicyEntry) -> bool {
    let has_goals = entry.goals.as_ref().is_some_and(|goals| !goals.is_empty());
    !has_goals && entry.filter.is_none() && entry.application_type.is_none()
}

fn is_built_in(name: &str) -> bool {
    PolicyKind::NAMES.contains(&name) || PolicyKind::ADVISED.contains(&name)
}

fn key_source(written: &str) -> Option<KeySource> {
    Some(match written.split_once(':') {
        Some(("header", name)) => KeySource::Header(HeaderName::try_from(name).ok()?),
        Some(("body", key)) if !key.is_empty() => KeySource::Body(Arc::from(key)),
        Some(("cookie", name)) if !name.is_empty() => KeySource::Cookie(name.to_owned()),
        None if matches!(written, "user" | "session_id") => KeySource::Body(Arc::from(written)),
        None if written == "address" => KeySource::Address,
        None if written == "prompt" => KeySource::Prompt,
        _ => return None,
    })
}

/// Whether it is a key of the body that is not looked for anyway.
fn is_own_body_key(key: &KeySource) -> bool {
    matches!(key, KeySource::Body(key) if !matches!(&**key, "user" | "session_id"))
}

pub(super) fn unknown_policy(name: &str, known: &[&str]) -> String {
    match name {
        "disaggregated_prefill" | "disaggregated_prefill_orchestrated" => format!(
            "{name:?} is not supported: let the engines' own connector split prefill and decode"
        ),
        _ => {
            let hint = nearest(name, known.iter().copied());
            let hint = hint.map_or(String::new(), |near| format!("; did you mean {near:?}?"));
            format!("{name:?} is unknown; known: {}{hint}", known.join(", "))
        }
    }
}
