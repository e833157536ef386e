//! Queries: what a request asks of the block that is to serve it.
//!
//! Pure, as `policy` is: no I/O, no clock, no logging. A query is parsed once
//! and asked of any number of blocks without allocating.
//!
//! # The language
//!
//! A condition is one of these JSON objects, nested up to 64 deep, 256 in all:
//!
//! | form | holds if |
//! |---|---|
//! | `{logicalOperator, conditions}` | `AND`: all hold; `OR`: one does; `NOT` (ours): none does |
//! | `{variable, operator, value}` | a value of the variable is so |
//! | `{aggOperator, target, operator, value}` | `avg`, `sum`, `min`, `max` or `count` of the instances' values is so |
//!
//! Operators, in capitals or not: `==`, `!=`, `<`, `<=`, `>`, `>=`, `IN` (a list),
//! `LIKE`; ours are `CONTAINS` (the text has it within, the list has it),
//! `BETWEEN` (`[lowest, highest]`, both included) and `EXISTS` (`true`, or
//! `false`). Aggregates take the six comparisons and `BETWEEN`.
//!
//! - **`LIKE`**: `*` is any run, all else is literal, case counts. With a `*` the
//!   pattern is the whole text, without one it is looked for anywhere.
//! - **Types**: numbers compare with numbers, exactly, and texts with texts; `"10"`
//!   is no number. `true` and `false` are equal or not.
//! - **Lists**: a list is so if one of its items is, and `!=` if none equals.
//! - **What is missing** or stale is `!=` to anything, `== null`, and nothing else. An
//!   aggregate of no samples is nothing; `count` is 0.
//!
//! # Variables
//!
//! | name | what |
//! |---|---|
//! | `id` | the block's |
//! | `cluster.X` | the label `cluster.X`, else `X`; `cluster.id` also `cluster`, `cluster.regionId` also the region |
//! | `labels.X`, `region`, `privacy`, `models`, `engine_type`, `url` | of any of its instances |
//! | an attribute | of its instances together: the sum of what is counted (requests, queues, totals), else the mean |
//! | `instances.X` | an attribute of any instance, else a path of its metadata |
//! | anything else | a path of the metadata of its first instance |
//!
//! A path is `a.b.0.c` or `a.b[0].c`; it goes through all items of a list, and
//! keys may have dots. It is looked for as it is, without a leading
//! `component.`, and under `componentMetadata`; the first that is there counts.

mod check;
pub mod envelope;
mod error;
mod eval;
mod explain;
mod like;
mod number;
mod parse;
mod path;
mod variable;

use std::time::Duration;

use crate::config::attribute::OwnAttribute;
use crate::fleet::Candidate;
use crate::fleet::attributes::Freshness;
pub use envelope::Envelope;
pub use error::QueryError;
pub use explain::Seen;

use check::Check;
use eval::{Asked, Leaf, Node, Sight};
use variable::Variable;

/// What a query is asked of: a block, that is one engine or more, its
/// instances, that share metadata.
#[derive(Debug, Clone, Copy)]
pub struct Subject<'a> {
    /// The block's id.
    pub id: &'a str,
    /// Engines, among them its instances.
    pub list: &'a [Candidate],
    /// The instances' positions in `list`, at least one.
    pub members: &'a [u32],
}

/// Names that a variable may have beside paths of metadata and the built-in
/// attributes.
#[derive(Debug, Clone, Copy)]
pub struct Vocabulary<'a> {
    /// The configuration's own attributes.
    pub own: &'a [OwnAttribute],
}

/// What is asked of a block: all its conditions hold.
#[derive(Debug, Clone, PartialEq)]
pub struct Query {
    /// What id, metadata, labels, prices decide, once for a snapshot.
    fixed: Vec<Node>,
    /// What attributes decide, with all that is joined to them by other than AND.
    live: Vec<Node>,
}

impl Query {
    /// The one that every block meets.
    #[must_use]
    pub fn everything() -> Self {
        Self {
            fixed: Vec::new(),
            live: Vec::new(),
        }
    }

    /// Both have to be met.
    #[must_use]
    pub fn and(mut self, other: Self) -> Self {
        self.fixed.extend(other.fixed);
        self.live.extend(other.live);
        self
    }

    /// That the list at `variable`, or the text there that is one, with commas, has
    /// just this item. The variable is a name or a path of metadata; no attribute of
    /// the configuration's own.
    #[must_use]
    pub fn item(variable: &str, item: &str) -> Self {
        let leaf = Leaf {
            name: variable.into(),
            asked: Asked::Of(
                Variable::named(variable, Vocabulary { own: &[] }),
                Check::Lists(item.into()),
            ),
        };
        let mut query = Self::everything();
        query.add(Node::Leaf(leaf));
        query
    }

    /// Whether the block meets what its id, metadata, labels and prices decide.
    #[must_use]
    pub fn admits_fixed(&self, subject: &Subject<'_>) -> bool {
        // None of these asks when it is.
        let by = Freshness::new(Duration::ZERO, Duration::ZERO);
        let sight = Sight::new(subject, by);
        self.fixed.iter().all(|node| node.holds(&sight))
    }

    /// Whether it meets the rest now.
    #[must_use]
    pub fn admits_live(&self, subject: &Subject<'_>, by: Freshness) -> bool {
        let sight = Sight::new(subject, by);
        self.live.iter().all(|node| node.holds(&sight))
    }

    /// Whether there is a rest: what may be otherwise a moment later.
    #[must_use]
    pub fn has_live(&self) -> bool {
        !self.live.is_empty()
    }

    /// Whether it looks at what engines tell of themselves.
    #[must_use]
    pub fn looks_at_scraped(&self) -> bool {
        self.live.iter().any(|node| node.any(Leaf::is_scraped))
    }

    /// Every condition with what it saw: those that are fixed first.
    #[must_use]
    pub fn explain(&self, subject: &Subject<'_>, by: Freshness) -> Vec<Seen> {
        let sight = Sight::new(subject, by);
        let mut seen = Vec::new();
        for node in self.fixed.iter().chain(&self.live) {
            node.each(&mut |leaf| seen.push(Seen::by(leaf, &sight)));
        }
        seen
    }
}

#[cfg(test)]
mod tests;
