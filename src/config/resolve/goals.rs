//! Goals, from how they are written to what is looked at.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::super::ListedEngine;
use super::super::attribute::{Attribute, number};
use super::super::dynamic::{DirectionEntry, DynamicFile, GoalEntry, MetricEntry};
use super::super::goals::{self, MOST_METRICS, MOST_NAMED, NamedGoal};
use super::super::policies::{Direction, Goal, MOST_GOALS, PolicyKind, Routing};
use super::super::problem::nearest;
use super::Resolving;
use super::policies::MOST_COLUMNS;

impl Resolving {
    /// Makes the goals that policies may name.
    pub(super) fn goals_to_name(&mut self, keys: &DynamicFile) {
        self.named_goals = goals::shipped(&self.own, &mut self.columns);
        let shipped = self.columns.len();
        self.most_columns = shipped + MOST_COLUMNS;
        let count = keys.goals.as_ref().map_or(0, BTreeMap::len);
        if count > MOST_NAMED {
            let message = format!("{count} named goals; the most is {MOST_NAMED}");
            self.wrong("goals", message);
        }
        for (name, metrics) in keys.goals.iter().flatten() {
            self.named_goal(name, metrics);
        }
        let count = self.columns.len() - shipped;
        if count > MOST_COLUMNS {
            let message = format!("they name {count} keys of metadata; the most is {MOST_COLUMNS}");
            self.wrong("goals", message);
        }
    }

    fn named_goal(&mut self, name: &str, metrics: &[MetricEntry]) {
        let path = format!("goals.{name}");
        if name.is_empty() {
            self.wrong(
                "goals",
                "a name is empty; expected one that says what it is for",
            );
        }
        let count = metrics.len();
        if !(1..=MOST_METRICS).contains(&count) {
            let message = format!("{count} metrics; expected 1 to {MOST_METRICS}");
            return self.wrong(path, message);
        }
        let weights = || metrics.iter().map(|metric| metric.weight);
        if !self.are_weights(&path, weights) {
            return;
        }
        let metrics = metrics
            .iter()
            .map(|metric| self.metric(&metric.attribute, metric.direction, metric.weight));
        let metrics = metrics.collect();
        let name = Arc::from(name);
        let goal = NamedGoal::new(&name, metrics);
        self.named_goals.insert(name, goal);
    }

    /// A policy's goals, the named ones taken apart: each metric weighs its share
    /// of its goal's weight.
    pub(super) fn goals(&mut self, path: &str, entries: &[GoalEntry]) -> Vec<Goal> {
        let path = format!("{path}.goals");
        let weights = || entries.iter().map(|goal| goal.weight);
        if !self.are_weights(&path, weights) {
            return Vec::new();
        }
        let mut goals = Vec::new();
        for (index, entry) in entries.iter().enumerate() {
            let path = format!("{path}[{index}]");
            let named = entry.name.as_deref();
            match (named, entry.attribute.as_deref(), entry.direction) {
                (Some(name), None, None) => match self.named_goals.get(name) {
                    Some(goal) => goals.extend(goal.weighing(entry.weight.unwrap_or(1.0))),
                    None => self.unknown_goal(&path, name),
                },
                (None, Some(attribute), Some(direction)) => {
                    let goal = self.metric(attribute, direction, entry.weight);
                    goals.push(self.within_columns(goal));
                }
                _ => self.wrong(
                    path,
                    "expected attribute and direction, or name: the name of a goal",
                ),
            }
        }
        if goals.len() > MOST_GOALS {
            let count = goals.len();
            let message = format!(
                "{count} goals, with the metrics of those that are named; the most is {MOST_GOALS}"
            );
            self.wrong(path, message);
        }
        goals
    }

    /// A policy's goal; one that would be a column too many looks at its key by its
    /// path: policies may be many, and are registered by others.
    fn within_columns(&mut self, mut goal: Goal) -> Goal {
        if matches!(goal.attribute, Attribute::Column(at) if at >= self.most_columns) {
            goal.attribute = Attribute::Path(Arc::clone(&goal.name));
        }
        self.columns.truncate(self.most_columns);
        goal
    }

    fn metric(&mut self, name: &str, direction: DirectionEntry, weight: Option<f64>) -> Goal {
        Goal {
            of: None,
            name: Arc::from(name),
            attribute: Attribute::named(name, &self.own, &mut self.columns),
            direction: match direction {
                DirectionEntry::Max => Direction::Max,
                DirectionEntry::Min => Direction::Min,
            },
            weight: weight.unwrap_or(1.0),
        }
    }

    /// Whether these can be shares of a whole; 1 where none is given.
    fn are_weights<I: Iterator<Item = Option<f64>>>(
        &mut self,
        path: &str,
        given: impl Fn() -> I,
    ) -> bool {
        let weights = || given().map(|weight| weight.unwrap_or(1.0));
        let sum: f64 = weights().sum();
        let wrong = if weights().any(|weight| !(weight.is_finite() && weight >= 0.0)) {
            "a weight is no number of 0 or more"
        } else if !sum.is_finite() {
            "the weights are too large to be added up"
        } else if sum <= 0.0 {
            "all weights are 0: nothing is wanted"
        } else {
            return true;
        };
        self.wrong(path, wrong);
        false
    }

    fn unknown_goal(&mut self, path: &str, name: &str) {
        let known: Vec<&str> = self.named_goals.keys().map(|known| &**known).collect();
        let hint = nearest(name, known.iter().copied());
        let hint = hint.map_or(String::new(), |near| format!("; did you mean {near:?}?"));
        let message = format!("{name:?} is unknown; known: {}{hint}", known.join(", "));
        self.wrong(format!("{path}.name"), message);
    }

    /// Warns of goals over what no engine has; not of shipped ones that nobody
    /// asked for.
    pub(super) fn unknown_columns(
        &mut self,
        routing: &Routing,
        keys: &DynamicFile,
        engines: &[ListedEngine],
    ) {
        let policies = routing.named.values().chain([&routing.policy]);
        let of_policies = policies.flat_map(|policy| match policy.kind.innermost() {
            PolicyKind::Scored(of) => of.goals.as_slice(),
            _ => &[],
        });
        let written = keys.goals.iter().flat_map(BTreeMap::keys);
        let written = written.filter_map(|name| routing.goals.get(name.as_str()));
        let all = of_policies.chain(written.flat_map(NamedGoal::metrics));
        let mut asked: Vec<usize> = all.filter_map(column).collect();
        asked.sort_unstable();
        asked.dedup();
        for column in asked.iter().filter_map(|at| routing.columns.get(*at)) {
            let mut documents = engines.iter().map(|engine| &engine.traits.metadata);
            if documents.all(|document| number(document, column).is_nan()) {
                self.warnings.push(format!(
                    "a goal looks at {column:?}, which is no attribute of ours, nor a number in \
                     any engine's metadata: all score as the worst on it"
                ));
            }
        }
    }
}

fn column(goal: &Goal) -> Option<usize> {
    match goal.attribute {
        Attribute::Column(column) => Some(column),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Resolved, resolve};
    use super::*;
    use serde_json::{Value, json};

    fn resolved(more: Value) -> Result<Resolved, Vec<String>> {
        let mut keys = json!({
            "service_discovery": "static", "routing_logic": "roundrobin",
            "engines": [{"url": "http://a:1", "models": ["m"], "metadata": {"x": 1}}],
        });
        let Value::Object(more) = more else {
            panic!("no keys");
        };
        keys.as_object_mut().unwrap().extend(more);
        let keys: DynamicFile = serde_json::from_value(keys).unwrap();
        resolve(&keys).map_err(|problems| problems.iter().map(ToString::to_string).collect())
    }

    fn wanting(goals: &Value) -> Value {
        json!({"policies": {"p": {"type": "scored", "goals": goals}}})
    }

    /// Each flat goal's named one, attribute and weight.
    fn flat(resolved: &Resolved) -> Vec<(Option<&str>, &str, f64)> {
        let PolicyKind::Scored(of) = &resolved.settings.routing.named["p"].kind else {
            panic!("not scored");
        };
        let goals = of.goals.iter();
        let goals = goals.map(|goal| (goal.of.as_deref(), &*goal.name, goal.weight));
        goals.collect()
    }

    #[test]
    fn a_named_goal_becomes_its_metrics() {
        let mut keys = wanting(&json!([
            {"name": "Free_Block", "weight": 3},
            {"attribute": "x", "direction": "max", "weight": 0.5},
            {"name": "mine"},
        ]));
        keys["goals"] = json!({"mine": [
            {"attribute": "in_flight", "direction": "min", "weight": 3},
            {"attribute": "x", "direction": "max"},
        ]});
        let made = resolved(keys).unwrap();
        assert_eq!(
            flat(&made),
            [
                (Some("Free_Block"), "llm_active_sessions", 1.5),
                (Some("Free_Block"), "queue_length.average_1m", 1.5),
                (None, "x", 0.5),
                (Some("mine"), "in_flight", 0.75),
                (Some("mine"), "x", 0.25),
            ]
        );
        assert_eq!(made.warnings, Vec::<String>::new());
        assert!(made.settings.routing.named["p"].kind.looks_at_live());
        // Where each metric looks, all know from one list.
        let routing = &made.settings.routing;
        assert_eq!(routing.goals.len(), 7);
        let Attribute::Column(at) = routing.goals["mine"].metrics()[1].attribute else {
            panic!("no column");
        };
        assert_eq!(routing.columns[at], "x");
    }

    #[test]
    fn a_shipped_goal_may_be_another() {
        let mut keys = wanting(&json!([{"name": "Cost_Saver"}]));
        keys["goals"] =
            json!({"Cost_Saver": [{"attribute": "cost_per_output_mtok", "direction": "min"}]});
        let made = resolved(keys).unwrap();
        assert_eq!(
            flat(&made),
            [(Some("Cost_Saver"), "cost_per_output_mtok", 1.0)]
        );
        assert_eq!(made.settings.routing.goals.len(), 6);
    }

    #[test]
    fn what_we_measure_needs_no_page() {
        let made = resolved(wanting(
            &json!([{"attribute": "end_to_end_latency", "direction": "min"}]),
        ));
        assert!(!made.unwrap().settings.routing.looks_at_live());
    }

    #[test]
    fn goals_over_what_nobody_has_are_told_of_once() {
        assert_eq!(resolved(json!({})).unwrap().warnings, Vec::<String>::new());
        let mut keys = wanting(&json!([
            {"name": "Balanced_Performer"}, {"name": "Cost_Saver"},
        ]));
        keys["goals"] = json!({"mine": [{"attribute": "y", "direction": "max"}]});
        let warnings = resolved(keys).unwrap().warnings;
        let of = ["parameterCountB", "totalMem", "\"y\""];
        assert_eq!(warnings.len(), of.len(), "{warnings:?}");
        for (warning, name) in warnings.iter().zip(of) {
            assert!(warning.contains(name), "{warning}");
        }
    }

    #[test]
    fn what_cannot_be_wanted_is_told() {
        let metric =
            |weight: Value| json!({"attribute": "x", "direction": "max", "weight": weight});
        let named = |metrics: Value| json!({"goals": {"g": metrics}});
        let many: Vec<Value> = (0..9).map(|n| metric(json!(n))).collect();
        let all: serde_json::Map<_, _> = (0..65)
            .map(|n| (format!("g{n}"), json!([metric(json!(1))])))
            .collect();
        let columns: serde_json::Map<_, _> = (0..13)
            .map(|g| {
                let metric = |n| json!({"attribute": format!("a{g}.{n}"), "direction": "max"});
                (format!("g{g}"), (0..5).map(metric).collect())
            })
            .collect();
        let wide = json!([
            {"name": "Free_Block"}, {"name": "Active_Block"}, {"name": "Cost_Saver"},
            {"name": "High_Quality_Lane"}, {"name": "Balanced_Performer"}, {"name": "Fast_Generator"},
            metric(json!(1)), metric(json!(1)), metric(json!(1)),
        ]);
        for (keys, expected) in [
            (named(json!([])), "goals.g: 0 metrics; expected 1 to 8"),
            (named(json!(many)), "goals.g: 9 metrics"),
            (named(json!([metric(json!(-1))])), "goals.g: a weight"),
            (
                named(json!([metric(json!(0))])),
                "goals.g: all weights are 0",
            ),
            (
                named(json!([metric(json!(1.5e308)), metric(json!(1.5e308))])),
                "goals.g: the weights are too large",
            ),
            (
                json!({"goals": {"": [metric(json!(1))]}}),
                "goals: a name is empty",
            ),
            (
                json!({"goals": all}),
                "goals: 65 named goals; the most is 64",
            ),
            (
                json!({"goals": columns}),
                "65 keys of metadata; the most is 64",
            ),
            (wanting(&wide), "policies.p.goals: 17 goals"),
            (
                wanting(&json!([{"name": "Fast_Generater"}])),
                "policies.p.goals[0].name: \"Fast_Generater\" is unknown; known: Active_Block, \
                 Balanced_Performer, Cost_Saver, Fast_Generator, Free_Block, High_Quality_Lane; \
                 did you mean \"Fast_Generator\"?",
            ),
            (
                wanting(&json!([metric(json!(1)), {"weight": 1}])),
                "policies.p.goals[1]: expected attribute and direction, or name",
            ),
            (
                wanting(&json!([{"name": "Free_Block", "attribute": "x", "direction": "max"}])),
                "policies.p.goals[0]: expected attribute",
            ),
            (
                wanting(&json!([{"attribute": "x"}])),
                "policies.p.goals[0]: expected attribute",
            ),
            (
                wanting(&json!([{"name": "Free_Block", "weight": 0}])),
                "policies.p.goals: all weights are 0",
            ),
        ] {
            let problems = resolved(keys).unwrap_err();
            let is_told = problems.iter().any(|one| one.contains(expected));
            assert!(is_told, "{problems:#?}, not {expected}");
        }
    }
}
