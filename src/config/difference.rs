//! What a change of settings changes, in words.

use std::collections::BTreeMap;

use super::policies::KeySource;
use super::{ListedEngine, Routing, Settings};

/// `engines +1 -0 ~2, routing_logic roundrobin → session`; empty when nothing
/// is different.
#[must_use]
pub fn words(old: &Settings, new: &Settings) -> String {
    let mut words = Vec::new();
    let by_url = |settings: &Settings| -> BTreeMap<String, ListedEngine> {
        let engines = settings.engines.iter();
        engines
            .map(|engine| (engine.url.text().to_owned(), engine.clone()))
            .collect()
    };
    let (before, after) = (by_url(old), by_url(new));
    let added = after
        .keys()
        .filter(|url| !before.contains_key(*url))
        .count();
    let removed = before
        .keys()
        .filter(|url| !after.contains_key(*url))
        .count();
    let changed = (after.iter())
        .filter(|(url, engine)| before.get(*url).is_some_and(|known| known != *engine))
        .count();
    if added + removed + changed > 0 {
        let changed = if changed > 0 {
            format!(" ~{changed}")
        } else {
            String::new()
        };
        words.push(format!("engines +{added} -{removed}{changed}"));
    }
    match (&old.kubernetes, &new.kubernetes) {
        (None, Some(_)) => words.push("service_discovery static → k8s".to_owned()),
        (Some(_), None) => words.push("service_discovery k8s → static".to_owned()),
        (before, after) if before != after => words.push("what is watched changed".to_owned()),
        _ => {}
    }
    policies(&mut words, &old.routing, &new.routing);
    if old.aliases != new.aliases {
        let (from, to) = (old.aliases.len(), new.aliases.len());
        words.push(format!("aliases changed ({from} → {to})"));
    }
    for (is_other, what) in [
        (old.limits != new.limits, "limits changed"),
        (
            old.admission != new.admission,
            "limits of requests in flight changed",
        ),
        (old.timeouts != new.timeouts, "timeouts changed"),
        (old.breaker != new.breaker, "breaker changed"),
        (old.retry != new.retry, "retry changed"),
        (old.checks != new.checks, "health checks changed"),
        (
            old.stream_error_events != new.stream_error_events,
            "stream_error_events changed",
        ),
    ] {
        if is_other {
            words.push(what.to_owned());
        }
    }
    words.join(", ")
}

/// Who gets a request, and what it may ask for.
fn policies(words: &mut Vec<String>, old: &Routing, new: &Routing) {
    let name = |routing: &Routing| {
        let name = &routing.policy.name;
        match routing.policy.kind.keys() {
            [KeySource::Header(field), ..] => format!("{name} ({field})"),
            _ => name.to_string(),
        }
    };
    let (from, to) = (name(old), name(new));
    if from != to {
        words.push(format!("routing_logic {from} → {to}"));
    }
    let is_same_name = old.policy.name == new.policy.name;
    for (is_other, what) in [
        (
            old.named != new.named || (is_same_name && from == to && old.policy != new.policy),
            "policies changed",
        ),
        (old.goals != new.goals, "goals changed"),
        (old.matchers != new.matchers, "matchers changed"),
        (old.shadow != new.shadow, "shadow_policy changed"),
        (old.slow_start != new.slow_start, "slow_start changed"),
        (old.allow != new.allow, "request_headers changed"),
        (old.prefer_local != new.prefer_local, "prefer_local changed"),
        (
            old.decision_sample.to_bits() != new.decision_sample.to_bits(),
            "decision_sample changed",
        ),
    ] {
        if is_other {
            words.push(what.to_owned());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::config::Limits;

    fn settings(urls: &[&str]) -> Settings {
        Settings {
            engines: (urls.iter())
                .map(|url| ListedEngine::new(url, &["m"]).unwrap())
                .collect(),
            ..Settings::default()
        }
    }

    #[test]
    fn changes_are_told_in_words() {
        let old = settings(&["http://a", "http://b"]);
        assert_eq!(words(&old, &old), "");
        let mut new = settings(&["http://b", "http://c", "http://d"]);
        assert_eq!(words(&old, &new), "engines +2 -1");
        new.engines[0].models = None;
        new.limits = Limits {
            max_peek_bytes: 1,
            ..new.limits
        };
        assert_eq!(words(&old, &new), "engines +2 -1 ~1, limits changed");
        let mut new = old.clone();
        new.routing.goals = Arc::default();
        assert_eq!(words(&old, &new), "goals changed");
        let mut new = old.clone();
        new.routing.prefer_local = true;
        assert_eq!(words(&old, &new), "prefer_local changed");
    }
}
