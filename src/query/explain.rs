//! What each condition of a query saw.

use std::fmt;

use serde_json::Value;

use super::check::{Check, Item, Range};
use super::eval::{Asked, Leaf, Sight};
use super::number::Number;

/// Values of one variable that are told at most.
const MOST_VALUES: usize = 16;

/// What one condition saw.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
pub struct Seen {
    /// The condition: `component.x LIKE *y*`.
    pub condition: String,
    /// Whether it holds.
    pub holds: bool,
    /// What was there: one value, or a list of up to 16; null: nothing.
    pub value: Value,
}

impl Seen {
    /// What that condition sees there.
    pub(super) fn by(leaf: &Leaf, sight: &Sight<'_>) -> Self {
        Self {
            condition: leaf.to_string(),
            holds: leaf.holds(sight),
            value: value(leaf, sight),
        }
    }
}

fn value(leaf: &Leaf, sight: &Sight<'_>) -> Value {
    let mut values = Vec::new();
    match &leaf.asked {
        Asked::Of(variable, _) => {
            variable.each(sight, &mut |value| {
                values.push(value.to_json());
                values.len() < MOST_VALUES
            });
        }
        Asked::OfAll(aggregate, target, _) => {
            values.extend(aggregate.of(target, sight).map(Value::from));
        }
    }
    match values.len() {
        0 | 1 => values.pop().unwrap_or_default(),
        _ => Value::from(values),
    }
}

impl fmt::Display for Leaf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.asked {
            Asked::Of(_, check) => write!(f, "{} {check}", self.name),
            Asked::OfAll(aggregate, _, range) => {
                write!(f, "{}({}) {range}", aggregate.word(), self.name)
            }
        }
    }
}

impl fmt::Display for Check {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Compare(comparison, item) => write!(f, "{} {item}", comparison.word()),
            Self::Among(items) => {
                f.write_str("IN [")?;
                for (at, item) in items.iter().enumerate() {
                    let comma = if at > 0 { ", " } else { "" };
                    write!(f, "{comma}{item}")?;
                }
                f.write_str("]")
            }
            Self::Like(pattern) => write!(f, "LIKE {}", pattern.text),
            Self::Contains(item) => write!(f, "CONTAINS {item}"),
            Self::Between(low, high) => write!(f, "BETWEEN [{low}, {high}]"),
            Self::Exists(is_there) => write!(f, "EXISTS {is_there}"),
            Self::Lists(item) => write!(f, "lists {item}"),
        }
    }
}

impl fmt::Display for Range {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Compare(comparison, number) => write!(f, "{} {number}", comparison.word()),
            Self::Between(low, high) => write!(f, "BETWEEN [{low}, {high}]"),
        }
    }
}

impl fmt::Display for Item {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Null => f.write_str("null"),
            Self::Flag(flag) => write!(f, "{flag}"),
            Self::Number(number) => write!(f, "{number}"),
            Self::Text(text) => f.write_str(text),
        }
    }
}

impl fmt::Display for Number {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Float(number) => write!(f, "{number}"),
            Self::Large(number) => write!(f, "{number}"),
        }
    }
}
