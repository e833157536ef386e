//! A page on its way: the samples that any source needs are taken as it comes.

use super::exposition::{Lines, label, labels_and_value, name};
use super::reading::Reading;
use super::wanted::{Family, Take, Together, Wanted};
use crate::fleet::ring::hash;

/// Samples of one family at most; more are not looked at.
const MOST_SAMPLES: usize = 1024;
/// Adapters of one engine at most.
const MOST_NAMES: usize = 128;

/// One sample: which series, which group, what value.
#[derive(Debug, Clone, Copy)]
struct Sample {
    series: u64,
    group: u64,
    value: f64,
}

/// A page on its way.
#[derive(Debug)]
pub(super) struct Page<'a> {
    wanted: &'a Wanted,
    lines: Lines,
    found: Found,
}

/// What was found so far.
#[derive(Debug)]
struct Found {
    samples: Vec<Vec<Sample>>,
    names: Vec<String>,
    /// The value of the sample that had the names.
    names_at: f64,
}

impl<'a> Page<'a> {
    pub(super) fn new(wanted: &'a Wanted) -> Self {
        Self {
            wanted,
            lines: Lines::default(),
            found: Found {
                samples: vec![Vec::new(); wanted.families.len()],
                names: Vec::new(),
                names_at: f64::NEG_INFINITY,
            },
        }
    }

    /// Takes in the next piece of text.
    pub(super) fn feed(&mut self, piece: &[u8]) {
        let (wanted, found) = (self.wanted, &mut self.found);
        self.lines.feed(piece, |line| found.line(wanted, line));
    }

    /// Takes in one number of a page that is no text; `group` tells its samples
    /// apart.
    pub(super) fn number(&mut self, name: &str, group: usize, value: f64) {
        for at in self.wanted.named.get(name).into_iter().flatten() {
            let group = group as u64;
            self.found.samples[*at].push(Sample {
                series: group,
                group,
                value,
            });
        }
    }

    /// What the page says; `None`: nothing that we know.
    pub(super) fn finish(self) -> Option<Reading> {
        let (wanted, mut found) = (self.wanted, self.found);
        self.lines.finish(|line| found.line(wanted, line));
        let families = found.samples.iter().zip(&wanted.families);
        let values: Box<[f64]> = families
            .map(|(samples, family)| together(samples, family.together))
            .collect();
        let is_known = |at: &usize| *at != wanted.started && !values[*at].is_nan();
        (0..values.len())
            .any(|at| is_known(&at))
            .then_some(Reading {
                values,
                names: found.names,
            })
    }
}

impl Found {
    fn line(&mut self, wanted: &Wanted, line: &[u8]) {
        let Some((name, rest)) = name(line) else {
            return;
        };
        // Names are ASCII, or nobody's.
        let Ok(name) = std::str::from_utf8(name) else {
            return;
        };
        let Some(places) = wanted.named.get(name) else {
            return;
        };
        let Some((labels, value)) = labels_and_value(rest).filter(|(_, value)| value.is_finite())
        else {
            return;
        };
        for at in places {
            self.sample(&wanted.families[*at], *at, labels, value);
        }
    }

    fn sample(&mut self, family: &Family, at: usize, labels: &[u8], value: f64) {
        let mut needed = family.labels.iter();
        if !needed.all(|(name, value)| label(labels, name).as_ref() == Some(value)) {
            return;
        }
        let taken = match &family.take {
            Take::Value => value,
            Take::Product(names) => {
                let number = |name: &&str| label(labels, name)?.parse::<f64>().ok();
                let Some(product) = names.iter().map(number).product() else {
                    return;
                };
                product
            }
            Take::Names(names) => {
                if value >= self.names_at {
                    self.names_at = value;
                    self.names = listed(names.iter().filter_map(|name| label(labels, name)));
                }
                // The newest alone counts.
                self.samples[at].clear();
                self.names.len() as f64
            }
        };
        let group = match family.together {
            Together::SumOver(name) => label(labels, name).map_or(0, |name| hash(name.as_bytes())),
            _ => 0,
        };
        let series = hash(labels);
        let samples = &mut self.samples[at];
        // A series that is there twice counts once.
        match samples.iter().position(|known| known.series == series) {
            Some(known) => samples[known].value = taken,
            None if samples.len() < MOST_SAMPLES => samples.push(Sample {
                series,
                group,
                value: taken,
            }),
            None => {}
        }
    }
}

/// Names in lists that are separated by commas, each once.
fn listed(lists: impl Iterator<Item = String>) -> Vec<String> {
    let mut names: Vec<String> = Vec::new();
    for list in lists {
        for name in list
            .split(',')
            .map(str::trim)
            .filter(|name| !name.is_empty())
        {
            if names.len() < MOST_NAMES && !names.iter().any(|known| known == name) {
                names.push(name.to_owned());
            }
        }
    }
    names
}

/// NaN: there are none.
fn together(samples: &[Sample], how: Together) -> f64 {
    let values = || samples.iter().map(|sample| sample.value);
    match how {
        _ if samples.is_empty() => f64::NAN,
        Together::Sum | Together::Newest => values().sum(),
        Together::Max => values().fold(f64::NEG_INFINITY, f64::max),
        Together::Min => values().fold(f64::INFINITY, f64::min),
        Together::Mean => values().sum::<f64>() / samples.len() as f64,
        Together::SumOver(_) => {
            let mut groups: Vec<(u64, f64)> = Vec::new();
            for sample in samples {
                match groups.iter_mut().find(|(group, _)| *group == sample.group) {
                    Some((_, most)) => *most = most.max(sample.value),
                    None => groups.push((sample.group, sample.value)),
                }
            }
            groups.iter().map(|(_, most)| most).sum()
        }
    }
}
