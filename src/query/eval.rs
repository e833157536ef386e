//! Whether a block meets a condition. Nothing here allocates.

use std::cell::OnceCell;

use serde_json::Value;

use super::Subject;
use super::check::{Check, Range};
use super::path::Document;
use super::variable::{Target, Variable};
use crate::fleet::Candidate;
use crate::fleet::attributes::Freshness;

/// A block, as it is looked at.
#[derive(Debug)]
pub(super) struct Sight<'v> {
    /// Its id.
    pub(super) id: &'v str,
    list: &'v [Candidate],
    members: &'v [u32],
    /// By when attributes are told fresh from stale.
    pub(super) by: Freshness,
    document: OnceCell<Option<Document<'v>>>,
}

impl<'v> Sight<'v> {
    /// The block at that time.
    pub(super) fn new(subject: &Subject<'v>, by: Freshness) -> Self {
        Self {
            id: subject.id,
            list: subject.list,
            members: subject.members,
            by,
            document: OnceCell::new(),
        }
    }

    /// Its instances.
    pub(super) fn members(&self) -> impl Iterator<Item = &'v Candidate> + use<'v> {
        let list = self.list;
        self.members.iter().filter_map(|at| list.get(*at as usize))
    }

    /// Its metadata: those of the first instance.
    pub(super) fn document(&self) -> Option<&Document<'v>> {
        let first = || self.members().next();
        let document = self
            .document
            .get_or_init(|| first().map(|one| Document::new(&one.spec.traits.metadata)));
        document.as_ref()
    }
}

/// Conditions, and how they are joined.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Node {
    /// All hold.
    All(Vec<Node>),
    /// One holds, or more.
    Any(Vec<Node>),
    /// None holds.
    None(Vec<Node>),
    /// One condition.
    Leaf(Leaf),
}

impl Node {
    /// Whether it holds.
    #[inline]
    pub(super) fn holds(&self, sight: &Sight<'_>) -> bool {
        match self {
            Self::All(nodes) => nodes.iter().all(|node| node.holds(sight)),
            Self::Any(nodes) => nodes.iter().any(|node| node.holds(sight)),
            Self::None(nodes) => !nodes.iter().any(|node| node.holds(sight)),
            Self::Leaf(leaf) => leaf.holds(sight),
        }
    }

    /// Whether any of its conditions is so.
    pub(super) fn any(&self, is_so: fn(&Leaf) -> bool) -> bool {
        match self {
            Self::All(nodes) | Self::Any(nodes) | Self::None(nodes) => {
                nodes.iter().any(|node| node.any(is_so))
            }
            Self::Leaf(leaf) => is_so(leaf),
        }
    }

    /// Shows all its conditions, in their order.
    pub(super) fn each<'q>(&'q self, show: &mut dyn FnMut(&'q Leaf)) {
        match self {
            Self::All(nodes) | Self::Any(nodes) | Self::None(nodes) => {
                nodes.iter().for_each(|node| node.each(show));
            }
            Self::Leaf(leaf) => show(leaf),
        }
    }
}

/// One condition.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Leaf {
    /// The variable or target, as it is written.
    pub(super) name: Box<str>,
    /// What is asked of it.
    pub(super) asked: Asked,
}

/// What a condition asks.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Asked {
    /// Of a variable.
    Of(Variable, Check),
    /// Of one number that is made of many.
    OfAll(Aggregate, Target, Range),
}

impl Leaf {
    /// Whether it holds.
    #[inline]
    pub(super) fn holds(&self, sight: &Sight<'_>) -> bool {
        match &self.asked {
            Asked::OfAll(aggregate, target, range) => {
                let number = aggregate.of(target, sight);
                number.is_some_and(|number| range.has(number))
            }
            Asked::Of(variable, check) => {
                let mut is_hit = false;
                let is_there = variable.each(sight, &mut |value| {
                    is_hit = check.hit(value);
                    !is_hit
                });
                if is_there {
                    is_hit != check.is_negative()
                } else {
                    check.is_met_by_nothing()
                }
            }
        }
    }

    /// Whether it may be otherwise a moment later.
    pub(super) fn is_live(&self) -> bool {
        match &self.asked {
            Asked::Of(variable, _) => variable.is_live(),
            Asked::OfAll(_, target, _) => target.is_live(),
        }
    }

    /// Whether it looks at what engines tell of themselves.
    pub(super) fn is_scraped(&self) -> bool {
        match &self.asked {
            Asked::Of(variable, _) => variable.is_scraped(),
            Asked::OfAll(_, target, _) => target.is_scraped(),
        }
    }
}

/// How many numbers become one.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Aggregate {
    /// Their mean.
    Mean,
    /// All together.
    Sum,
    /// The smallest.
    Least,
    /// The largest.
    Most,
    /// How many values there are, numbers or not.
    Count,
}

impl Aggregate {
    /// All of them, as they are written.
    pub(super) const ALL: [(Self, &'static str); 5] = [
        (Self::Mean, "avg"),
        (Self::Sum, "sum"),
        (Self::Least, "min"),
        (Self::Most, "max"),
        (Self::Count, "count"),
    ];

    /// As it is written.
    pub(super) fn word(self) -> &'static str {
        let mut all = Self::ALL.into_iter();
        all.find(|(one, _)| *one == self)
            .map_or("", |(_, word)| word)
    }

    /// The number of that target; `None`: it has no samples.
    #[inline]
    pub(super) fn of(self, target: &Target, sight: &Sight<'_>) -> Option<f64> {
        let mut tally = Tally::default();
        match target {
            Target::Instances => tally.values = sight.members().count(),
            Target::Meter(meter) => {
                // Most blocks are one engine, which is what all of these are of.
                if let ([_], Some(one)) = (sight.members, sight.members().next()) {
                    let value = meter.read(one, sight.by);
                    return match self {
                        Self::Count => Some(f64::from(u8::from(value.is_some()))),
                        _ => value,
                    };
                }
                let known = sight.members().filter_map(|one| meter.read(one, sight.by));
                known.for_each(|value| tally.add(value));
            }
            Target::Metadata(path) => {
                for one in sight.members() {
                    let document = Document::new(&one.spec.traits.metadata);
                    document.each(path, &mut |value| {
                        tally.add_all(value);
                        true
                    });
                }
            }
        }
        tally.tell(self)
    }
}

/// Numbers that become one.
#[derive(Debug)]
struct Tally {
    /// Values that are there, numbers or not.
    values: usize,
    numbers: f64,
    sum: f64,
    least: f64,
    most: f64,
}

impl Default for Tally {
    fn default() -> Self {
        Self {
            values: 0,
            numbers: 0.0,
            sum: 0.0,
            least: f64::INFINITY,
            most: f64::NEG_INFINITY,
        }
    }
}

impl Tally {
    #[inline]
    fn add(&mut self, number: f64) {
        self.values += 1;
        self.numbers += 1.0;
        self.sum += number;
        self.least = self.least.min(number);
        self.most = self.most.max(number);
    }

    /// Adds a value, or all that are in the list, however deep.
    fn add_all(&mut self, value: &Value) {
        match value {
            Value::Array(list) => list.iter().for_each(|one| self.add_all(one)),
            Value::Null => {}
            Value::Number(number) => self.add(number.as_f64().unwrap_or(f64::NAN)),
            _ => self.values += 1,
        }
    }

    #[inline]
    fn tell(&self, aggregate: Aggregate) -> Option<f64> {
        let number = match aggregate {
            Aggregate::Count => return Some(self.values as f64),
            Aggregate::Mean => self.sum / self.numbers,
            Aggregate::Sum => self.sum,
            Aggregate::Least => self.least,
            Aggregate::Most => self.most,
        };
        (self.numbers > 0.0).then_some(number)
    }
}
