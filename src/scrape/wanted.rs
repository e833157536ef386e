//! The list of what is looked for in a page: families of samples, and the
//! formulas that make attributes of them.

use std::collections::HashMap;

use super::dialect::{DIALECTS, STARTED, Source};
use crate::config::EngineType;
use crate::config::attribute::{Aggregate, How, OwnAttribute};
use crate::fleet::attributes::{Live, Place};

/// What is taken of a family's samples.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Take {
    Value,
    /// The numbers of these labels, multiplied.
    Product(&'static [&'static str]),
    /// The names that these labels list.
    Names(&'static [&'static str]),
}

/// How a family's samples become one number.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Together {
    Sum,
    /// The largest of each group that this label names, all groups together.
    SumOver(&'static str),
    Max,
    Min,
    Mean,
    /// That of the sample with the highest value.
    Newest,
}

/// Samples that belong together.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Family {
    pub(super) name: String,
    /// Only samples with these labels.
    pub(super) labels: Vec<(String, String)>,
    pub(super) take: Take,
    pub(super) together: Together,
}

/// What is made of families, by their places in the list.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Made {
    Now,
    Rate,
    Over(usize),
    /// Over the growth of itself and the other.
    OverBoth(usize),
    Times(usize),
    HoursSince,
}

/// How an attribute is made.
#[derive(Debug)]
pub(super) struct Formula {
    pub(super) of: EngineType,
    /// Whether it is the configuration's.
    pub(super) is_own: bool,
    pub(super) place: Place,
    pub(super) family: usize,
    pub(super) made: Made,
    pub(super) scale: f64,
}

/// Everything that is looked for in a page.
#[derive(Debug)]
pub(super) struct Wanted {
    pub(super) families: Vec<Family>,
    /// Places in the list of families, by name.
    pub(super) named: HashMap<String, Vec<usize>, foldhash::fast::RandomState>,
    pub(super) formulas: Vec<Formula>,
    pub(super) started: usize,
}

impl Wanted {
    /// The built-in sources, after the configuration's `own`.
    pub(super) fn new(own: &[OwnAttribute]) -> Self {
        let mut wanted = Self {
            families: Vec::new(),
            named: HashMap::default(),
            formulas: Vec::new(),
            started: 0,
        };
        wanted.started = wanted.family(plain(STARTED, Together::Max));
        for own in own {
            wanted.own(own);
        }
        for dialect in &DIALECTS {
            for (live, source) in dialect.sources {
                wanted.source(dialect.of, *live, *source);
            }
        }
        wanted
    }

    fn family(&mut self, family: Family) -> usize {
        let known = self.families.iter().position(|known| *known == family);
        known.unwrap_or_else(|| {
            let at = self.families.len();
            self.named.entry(family.name.clone()).or_default().push(at);
            self.families.push(family);
            at
        })
    }

    fn own(&mut self, own: &OwnAttribute) {
        let together = match own.aggregate {
            Aggregate::Sum => Together::Sum,
            Aggregate::Max => Together::Max,
            Aggregate::Min => Together::Min,
            Aggregate::Mean => Together::Mean,
        };
        let labels = own
            .labels
            .iter()
            .map(|(name, value)| (name.clone(), value.clone()));
        let mut family = Family {
            labels: labels.collect(),
            ..plain(&own.metric, together)
        };
        let part = self.family(family.clone());
        let made = match &own.how {
            How::Now => Made::Now,
            How::Rate => Made::Rate,
            How::Over(other) => {
                family.name.clone_from(other);
                Made::Over(self.family(family))
            }
        };
        self.formulas.push(Formula {
            of: EngineType::Other,
            is_own: true,
            place: own.place,
            family: part,
            made,
            scale: own.scale,
        });
    }

    fn source(&mut self, of: EngineType, live: Live, source: Source) {
        let mut scale = 1.0;
        let mut sum = |name: &str| self.family(plain(name, Together::Sum));
        let (family, made) = match source {
            Source::Sum(name) => (sum(name), Made::Now),
            Source::SumOver(name, label) => (
                self.family(plain(name, Together::SumOver(label))),
                Made::Now,
            ),
            Source::Worst(name) => (self.family(plain(name, Together::Max)), Made::Now),
            Source::Rate(name) => (sum(name), Made::Rate),
            Source::Share(part, whole) => (sum(part), Made::Over(sum(whole))),
            Source::ShareOfBoth(part, rest) => (sum(part), Made::OverBoth(sum(rest))),
            Source::MeanMs(name) => {
                scale = 1e3;
                let count = sum(&format!("{name}_count"));
                (sum(&format!("{name}_sum")), Made::Over(count))
            }
            Source::MeanMsOf(seconds, count) => {
                scale = 1e3;
                (sum(seconds), Made::Over(sum(count)))
            }
            Source::HoursSince(name) => (self.family(plain(name, Together::Max)), Made::HoursSince),
            Source::Times(one, other) => (sum(one), Made::Times(sum(other))),
            Source::Labels(name, labels, group) => {
                let together = group.map_or(Together::Sum, Together::SumOver);
                let mut family = plain(name, together);
                family.take = Take::Product(labels);
                (self.family(family), Made::Now)
            }
            Source::Names(name, labels) => {
                let mut family = plain(name, Together::Newest);
                family.take = Take::Names(labels);
                (self.family(family), Made::Now)
            }
        };
        self.formulas.push(Formula {
            of,
            is_own: false,
            place: live.into(),
            family,
            made,
            scale,
        });
    }
}

fn plain(name: &str, together: Together) -> Family {
    Family {
        name: name.to_owned(),
        labels: Vec::new(),
        take: Take::Value,
        together,
    }
}
