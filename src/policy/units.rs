//! What a selection by attributes chooses among: engines, or blocks of them.

use std::sync::atomic::Ordering::Relaxed;

use super::bound::Bound;
use super::view::View;
use crate::config::attribute::{Attribute, number};
use crate::config::policies::Scored;
use crate::fleet::blocks::Groups;
use crate::fleet::{Candidate, CandidateSet};
use crate::query::Subject;

/// The units of one decision, each by a number: its group's, or its position.
pub(super) struct Units<'a> {
    pub(super) of: &'a Scored,
    pub(super) view: &'a View<'a>,
    groups: Option<&'a Groups>,
}

impl<'a> Units<'a> {
    pub(super) fn new(of: &'a Scored, view: &'a View<'a>) -> Self {
        let groups = view.set.groups.as_deref();
        Self {
            groups: groups.filter(|_| view.is_whole()),
            of,
            view,
        }
    }

    pub(super) fn len(&self) -> usize {
        self.groups.map_or_else(|| self.view.len(), Groups::len)
    }

    /// The number of the `n`th.
    #[inline]
    pub(super) fn at(&self, n: usize) -> usize {
        self.groups.map_or_else(|| self.view.at(n), |_| n)
    }

    fn bound(&self) -> Option<&'a Bound> {
        self.view.bound.filter(|_| self.view.is_whole())
    }

    /// Its engines; `None`: it is the one at that position.
    #[inline]
    pub(super) fn members(&self, unit: usize) -> Option<&'a [u32]> {
        self.groups.map(|groups| groups.members(unit))
    }

    /// Its name.
    pub(super) fn id(&self, unit: usize) -> &'a str {
        id(self.view.set, self.groups, unit)
    }

    /// Whether one of its engines may be chosen.
    #[inline]
    pub(super) fn is_open(&self, unit: usize) -> bool {
        match self.members(unit) {
            None => self.view.is_open(unit),
            Some([only]) => self.view.is_open(*only as usize),
            Some(members) => members.iter().any(|at| self.view.is_open(*at as usize)),
        }
    }

    /// Whether it has the metadata and labels that are asked for.
    #[inline]
    pub(super) fn is_admitted(&self, unit: usize) -> bool {
        let Some(filter) = &self.of.filter else {
            return true;
        };
        match self.bound() {
            Some(bound) => bound.admits(unit),
            None => self.with_subject(unit, |subject| filter.admits_fixed(subject)),
        }
    }

    /// Whether it also does as well now as is asked for.
    #[inline]
    pub(super) fn matches(&self, unit: usize) -> bool {
        self.is_admitted(unit) && self.matches_now(unit)
    }

    #[inline]
    fn matches_now(&self, unit: usize) -> bool {
        let filter = self.of.filter.as_ref().filter(|filter| filter.has_live());
        filter.is_none_or(|filter| {
            self.with_subject(unit, |subject| filter.admits_live(subject, self.view.by))
        })
    }

    /// Whether it may be chosen.
    #[inline]
    pub(super) fn is_candidate(&self, unit: usize) -> bool {
        // What is cheapest to tell comes first.
        self.is_admitted(unit) && self.is_open(unit) && self.does(unit) && self.matches_now(unit)
    }

    /// Whether it does this kind of work, as far as that is known.
    #[inline]
    pub(super) fn does(&self, unit: usize) -> bool {
        let Some(asked) = self.view.asked.capability else {
            return true;
        };
        let first = self
            .members(unit)
            .map_or(unit, |members| members[0] as usize);
        let known = self.view.set.layout.capabilities.get(first);
        known.copied().flatten().is_none_or(|known| known == asked)
    }

    pub(super) fn with_subject<T>(&self, unit: usize, ask: impl FnOnce(&Subject<'_>) -> T) -> T {
        let mut slot = 0;
        ask(&subject(self.view.set, self.groups, unit, &mut slot))
    }

    /// What is known of a goal's attribute now: of several engines the sum or
    /// the mean of what is known of them.
    #[inline]
    pub(super) fn value(&self, unit: usize, goal: usize) -> Option<f64> {
        let Some(members) = self.members(unit) else {
            return self.value_at(unit, self.view.one(unit), goal);
        };
        let (mut sum, mut count) = (0.0, 0.0);
        let each = members.iter().map(|at| *at as usize);
        for value in each.filter_map(|at| self.value_at(at, self.view.one(at), goal)) {
            sum += value;
            count += 1.0;
        }
        let adds_up = self.of.goals[goal].attribute.adds_up();
        let value = if adds_up { sum } else { sum / count };
        (count > 0.0 && value.is_finite()).then_some(value)
    }

    /// Its engine, if it is but one: most are, and are looked at with less ado.
    #[inline]
    pub(super) fn sole(&self, unit: usize) -> Option<(usize, &'a Candidate)> {
        let at = match self.members(unit) {
            None => unit,
            Some([only]) => *only as usize,
            Some(_) => return None,
        };
        Some((at, self.view.one(at)))
    }

    /// What is known of a goal's attribute of that engine now.
    #[inline]
    pub(super) fn value_at(&self, at: usize, one: &Candidate, goal: usize) -> Option<f64> {
        let engine = &one.engine;
        let value = match &self.of.goals[goal].attribute {
            Attribute::Live(live) => engine.attributes.fresh(*live, self.view.by)?,
            Attribute::InFlight => f64::from(engine.in_flight.load(Relaxed)),
            #[expect(clippy::cast_precision_loss, reason = "far below 2^52 tokens")]
            Attribute::OutstandingTokens => engine.outstanding.load(Relaxed) as f64,
            Attribute::Latency => engine.latency.get(self.view.moment.now)? * 1e3,
            Attribute::InputPrice => one.spec.traits.cost?.input_per_mtok,
            Attribute::OutputPrice => one.spec.traits.cost?.output_per_mtok,
            Attribute::Column(column) => *self.view.set.layout.columns.get(*column)?.get(at)?,
            Attribute::Path(path) => match self.bound() {
                Some(bound) => bound.number(goal, at),
                None => number(&one.spec.traits.metadata, path),
            },
        };
        value.is_finite().then_some(value)
    }

    /// How old the oldest part of a goal's value is, in seconds, if engines told
    /// it.
    pub(super) fn age(&self, unit: usize, goal: usize) -> Option<f64> {
        let Attribute::Live(place) = self.of.goals[goal].attribute else {
            return None;
        };
        let now = self.view.moment.now;
        let age = |at: usize| self.view.engine(at).attributes.age_of(place, now);
        let oldest = match self.members(unit) {
            None => age(unit),
            Some(members) => members.iter().filter_map(|at| age(*at as usize)).max(),
        };
        oldest.map(|age| age.as_secs_f64())
    }

    /// Requests in flight for its weight.
    pub(super) fn queue(&self, unit: usize) -> f64 {
        let (requests, weight) = match self.members(unit) {
            None => self.load(unit),
            Some(members) => {
                let open = members.iter().map(|at| *at as usize);
                let open = open.filter(|at| self.view.is_open(*at));
                open.map(|at| self.load(at))
                    .fold((0.0, 0.0), |sum, one| (sum.0 + one.0, sum.1 + one.1))
            }
        };
        (requests + 1.0) / weight.max(f64::MIN_POSITIVE)
    }

    fn load(&self, at: usize) -> (f64, f64) {
        let ours = self.view.engine(at).in_flight.load(Relaxed);
        (f64::from(ours), self.view.weight(at))
    }
}

/// A unit of that set, for a query; `slot` is for its position.
pub(super) fn subject<'a>(
    set: &'a CandidateSet,
    groups: Option<&'a Groups>,
    unit: usize,
    slot: &'a mut u32,
) -> Subject<'a> {
    *slot = u32::try_from(unit).unwrap_or(u32::MAX);
    Subject {
        id: name(set, groups, unit),
        list: set.list(),
        members: groups.map_or(std::slice::from_ref(slot), |groups| groups.members(unit)),
    }
}

/// What conditions know as a unit's `id`: its block's, else its model's.
fn name<'a>(set: &'a CandidateSet, groups: Option<&'a Groups>, unit: usize) -> &'a str {
    match groups {
        Some(groups) => groups.name(unit),
        None if set.name.is_empty() => set.list()[unit].engine.url.text(),
        None => &set.name,
    }
}

fn id<'a>(set: &'a CandidateSet, groups: Option<&'a Groups>, unit: usize) -> &'a str {
    match groups {
        Some(groups) => groups.id(unit),
        None => set.list()[unit].engine.url.text(),
    }
}
