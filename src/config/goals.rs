//! Named goals: what is wanted of an engine, under a name that says what for.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::attribute::{Attribute, OwnAttribute};
use super::policies::{Direction, Goal};

/// Named goals of the configuration's own at most.
pub const MOST_NAMED: usize = 64;
/// Metrics of one of them at most.
pub const MOST_METRICS: usize = 8;

/// How many billion parameters a model has.
const PARAMETERS: &str = "componentMetadata.architecture.parameterCountB";

/// The AIOS reference's goals, by its names. It looks for some of these where
/// its own documents do not have them; here each is looked for where it is.
const SHIPPED: [(&str, &[(&str, Direction)]); 6] = [
    (
        "Fast_Generator",
        &[("llm_tokens_per_second", Direction::Max)],
    ),
    (
        "Free_Block",
        &[
            ("llm_active_sessions", Direction::Min),
            ("queue_length.average_1m", Direction::Min),
        ],
    ),
    (
        "Active_Block",
        &[
            ("llm_active_sessions", Direction::Max),
            ("tasks_processed.average_1m", Direction::Max),
            ("end_to_end_count_total", Direction::Max),
        ],
    ),
    (
        "Cost_Saver",
        &[
            (PARAMETERS, Direction::Min),
            ("hardware.gpus[0].totalMem", Direction::Min),
        ],
    ),
    (
        "High_Quality_Lane",
        &[
            ("end_to_end_latency", Direction::Min),
            ("end_to_end_fps", Direction::Max),
            (
                "componentMetadata.evaluation.benchmarks.MMLU.value",
                Direction::Max,
            ),
        ],
    ),
    (
        "Balanced_Performer",
        &[
            ("end_to_end_latency", Direction::Min),
            (PARAMETERS, Direction::Min),
            ("end_to_end_fps", Direction::Max),
        ],
    ),
];

/// Something that is wanted of an engine: the weighted mean of its metrics.
#[derive(Debug, Clone, PartialEq)]
pub struct NamedGoal {
    metrics: Arc<[Goal]>,
}

impl NamedGoal {
    /// A goal of that name, of metrics with weights that are not all 0.
    #[must_use]
    pub fn new(name: &Arc<str>, mut metrics: Vec<Goal>) -> Self {
        let sum: f64 = metrics.iter().map(|metric| metric.weight).sum();
        for metric in &mut metrics {
            metric.of = Some(Arc::clone(name));
            metric.weight /= sum;
        }
        let metrics = metrics.into();
        Self { metrics }
    }

    /// Its metrics; their weights are shares of 1.
    #[must_use]
    pub fn metrics(&self) -> &[Goal] {
        &self.metrics
    }

    /// Its metrics, as goals of a policy that wants it with that weight: all of
    /// them together weigh as much.
    pub fn weighing(&self, weight: f64) -> impl Iterator<Item = Goal> {
        self.metrics.iter().map(move |metric| Goal {
            weight: metric.weight * weight,
            ..metric.clone()
        })
    }
}

/// The goals that need no configuration; keys of metadata that they look at get
/// places among `columns`.
#[must_use]
pub fn shipped(own: &[OwnAttribute], columns: &mut Vec<String>) -> BTreeMap<Arc<str>, NamedGoal> {
    let mut metric = |(name, direction): &(&str, Direction)| Goal {
        of: None,
        name: Arc::from(*name),
        attribute: Attribute::named(name, own, columns),
        direction: *direction,
        weight: 1.0,
    };
    let goals = SHIPPED.iter().map(|(name, metrics)| {
        let name = Arc::from(*name);
        let goal = NamedGoal::new(&name, metrics.iter().map(&mut metric).collect());
        (name, goal)
    });
    goals.collect()
}

#[cfg(test)]
mod tests {
    use super::super::attribute::{Live, Place};
    use super::*;

    #[test]
    fn the_shipped_goals_are_of_what_we_know() {
        let mut columns = Vec::new();
        let goals = shipped(&[], &mut columns);
        assert_eq!(goals.len(), SHIPPED.len());
        assert_eq!(
            columns,
            [
                PARAMETERS,
                "hardware.gpus[0].totalMem",
                "componentMetadata.evaluation.benchmarks.MMLU.value",
            ]
        );
        let live = |live: Live| Attribute::Live(Place::from(live));
        for (name, expected) in [
            ("Fast_Generator", vec![live(Live::BusyTokensPerSecond)]),
            (
                "Free_Block",
                vec![live(Live::RequestsRunning), live(Live::QueueAverage1m)],
            ),
            (
                "Active_Block",
                vec![
                    live(Live::RequestsRunning),
                    live(Live::TasksAverage1m),
                    live(Live::TasksTotal),
                ],
            ),
            (
                "Cost_Saver",
                vec![Attribute::Column(0), Attribute::Column(1)],
            ),
            (
                "High_Quality_Lane",
                vec![
                    live(Live::LatencyNow),
                    live(Live::FpsNow),
                    Attribute::Column(2),
                ],
            ),
            (
                "Balanced_Performer",
                vec![
                    live(Live::LatencyNow),
                    Attribute::Column(0),
                    live(Live::FpsNow),
                ],
            ),
        ] {
            let metrics = goals[name].metrics();
            let attributes: Vec<_> = metrics.iter().map(|one| one.attribute.clone()).collect();
            assert_eq!(attributes, expected, "{name}");
            assert!(metrics.iter().all(|one| one.of.as_deref() == Some(name)));
            let sum: f64 = metrics.iter().map(|one| one.weight).sum();
            assert!((sum - 1.0).abs() < 1e-12, "{name}");
        }
    }

    #[test]
    fn metrics_share_the_weight_of_their_goal() {
        let metric = |weight| Goal {
            of: None,
            name: Arc::from("in_flight"),
            attribute: Attribute::InFlight,
            direction: Direction::Min,
            weight,
        };
        let goal = NamedGoal::new(&Arc::from("mine"), vec![metric(1.0), metric(3.0)]);
        let weights: Vec<f64> = goal.weighing(2.0).map(|one| one.weight).collect();
        assert_eq!(weights, [0.5, 1.5]);
    }
}
