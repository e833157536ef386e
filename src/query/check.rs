//! What a condition asks of one value.

use std::cmp::Ordering;

use serde_json::Value;

use super::like::Pattern;
use super::number::Number;

/// A value that something is compared with.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Item {
    /// `null`, which what is missing is too.
    Null,
    /// `true` or `false`.
    Flag(bool),
    /// A number.
    Number(Number),
    /// A text.
    Text(Box<str>),
}

/// A value that a variable has.
#[derive(Debug, Clone, Copy)]
pub(super) enum Found<'v> {
    /// Part of a document.
    Json(&'v Value),
    /// A text.
    Text(&'v str),
    /// A text that is one of a list.
    Word(&'v str),
    /// A number.
    Number(f64),
}

impl Found<'_> {
    /// As a document has it.
    pub(super) fn to_json(self) -> Value {
        match self {
            Self::Json(value) => value.clone(),
            Self::Text(text) | Self::Word(text) => Value::from(text),
            Self::Number(number) => Value::from(number),
        }
    }
}

/// One value, or one of a list, whose type decides with what it compares.
#[derive(Debug, Clone, Copy)]
enum Scalar<'v> {
    Null,
    Flag(bool),
    Number(Number),
    Text(&'v str),
    /// A list, or an object: like nothing.
    Other,
}

impl<'v> Scalar<'v> {
    /// As [`Item::rank`].
    fn rank(self) -> u8 {
        match self {
            Self::Null => 0,
            Self::Flag(_) => 1,
            Self::Number(_) => 2,
            Self::Text(_) => 3,
            Self::Other => 4,
        }
    }

    fn of(value: &'v Value) -> Self {
        match value {
            Value::Null => Self::Null,
            Value::Bool(flag) => Self::Flag(*flag),
            Value::Number(number) => Self::Number(Number::of(number)),
            Value::String(text) => Self::Text(text),
            Value::Array(_) | Value::Object(_) => Self::Other,
        }
    }
}

impl Item {
    fn is(&self, scalar: Scalar<'_>) -> bool {
        match (self, scalar) {
            (Self::Null, Scalar::Null) => true,
            (Self::Flag(one), Scalar::Flag(other)) => *one == other,
            (Self::Text(one), Scalar::Text(other)) => **one == *other,
            (Self::Number(one), Scalar::Number(other)) => one.order(other) == Some(Ordering::Equal),
            _ => false,
        }
    }

    /// Its place in a list that is searched: types one after the other.
    fn rank(&self) -> u8 {
        match self {
            Self::Null => 0,
            Self::Flag(_) => 1,
            Self::Number(_) => 2,
            Self::Text(_) => 3,
        }
    }

    /// How it stands to the scalar in such a list.
    fn sorted(&self, scalar: Scalar<'_>) -> Ordering {
        match (self, scalar) {
            (Self::Flag(one), Scalar::Flag(other)) => one.cmp(&other),
            (Self::Number(one), Scalar::Number(other)) => {
                one.order(other).unwrap_or(Ordering::Equal)
            }
            (Self::Text(one), Scalar::Text(other)) => (**one).cmp(other),
            _ => self.rank().cmp(&scalar.rank()),
        }
    }

    fn scalar(&self) -> Scalar<'_> {
        match self {
            Self::Null => Scalar::Null,
            Self::Flag(flag) => Scalar::Flag(*flag),
            Self::Number(number) => Scalar::Number(*number),
            Self::Text(text) => Scalar::Text(text),
        }
    }

    /// How the scalar stands to it; `None`: they do not compare.
    fn order(&self, scalar: Scalar<'_>) -> Option<Ordering> {
        match (self, scalar) {
            (Self::Number(one), Scalar::Number(other)) => other.order(*one),
            (Self::Text(one), Scalar::Text(other)) => Some(other.cmp(&**one)),
            _ => None,
        }
    }
}

/// A comparison by size.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Comparison {
    /// `<`
    Less,
    /// `<=`
    AtMost,
    /// `==`
    Equal,
    /// `!=`
    Different,
    /// `>=`
    AtLeast,
    /// `>`
    Greater,
}

impl Comparison {
    /// All of them, as they are written.
    pub(super) const ALL: [(Self, &'static str); 6] = [
        (Self::Equal, "=="),
        (Self::Different, "!="),
        (Self::Less, "<"),
        (Self::AtMost, "<="),
        (Self::Greater, ">"),
        (Self::AtLeast, ">="),
    ];

    /// As it is written.
    pub(super) fn word(self) -> &'static str {
        let mut all = Self::ALL.into_iter();
        all.find(|(one, _)| *one == self)
            .map_or("", |(_, word)| word)
    }

    /// Whether it is so, of two that compare like that.
    #[inline]
    pub(super) fn holds(self, order: Ordering) -> bool {
        match self {
            Self::Less => order.is_lt(),
            Self::AtMost => order.is_le(),
            Self::Equal => order.is_eq(),
            Self::Different => order.is_ne(),
            Self::AtLeast => order.is_ge(),
            Self::Greater => order.is_gt(),
        }
    }
}

/// What is asked of a variable.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Check {
    /// It compares so with the item; `Different`: no value of it equals it.
    Compare(Comparison, Item),
    /// It equals one of them, which [`Check::among`] has sorted.
    Among(Box<[Item]>),
    /// It is like the pattern.
    Like(Pattern),
    /// The text has it within, or the list has it.
    Contains(Item),
    /// It is neither below the first nor above the second.
    Between(Item, Item),
    /// It is there, or is not.
    Exists(bool),
    /// The list, or the text that is one, with commas, has it.
    Lists(Box<str>),
}

impl Check {
    /// That it equals one of them.
    pub(super) fn among(mut items: Vec<Item>) -> Self {
        // A request may have a thousand, and be asked of as many blocks.
        items.sort_by(|one, other| one.sorted(other.scalar()));
        items.dedup();
        Self::Among(items.into())
    }

    /// Whether it is met by a variable that has no value.
    pub(super) fn is_met_by_nothing(&self) -> bool {
        match self {
            Self::Compare(Comparison::Equal, item) => *item == Item::Null,
            Self::Compare(Comparison::Different, item) => *item != Item::Null,
            Self::Among(items) => items.first() == Some(&Item::Null),
            Self::Exists(is_there) => !is_there,
            _ => false,
        }
    }

    /// Whether it is met as soon as no value is a [`Self::hit`], not as soon as
    /// one is.
    pub(super) fn is_negative(&self) -> bool {
        matches!(
            self,
            Self::Compare(Comparison::Different, _) | Self::Exists(false)
        )
    }

    /// Whether the value, or one of the list that it is, is what is looked for.
    pub(super) fn hit(&self, value: Found<'_>) -> bool {
        match value {
            Found::Json(Value::Array(list)) => {
                let mut list = list.iter();
                matches!(self, Self::Exists(_))
                    || list.any(|one| self.hit_one(Scalar::of(one), true))
            }
            Found::Json(one) => self.hit_one(Scalar::of(one), false),
            Found::Text(text) => self.hit_one(Scalar::Text(text), false),
            Found::Word(text) => self.hit_one(Scalar::Text(text), true),
            Found::Number(number) => self.hit_one(Scalar::Number(Number::Float(number)), false),
        }
    }

    fn hit_one(&self, one: Scalar<'_>, is_listed: bool) -> bool {
        match self {
            Self::Compare(Comparison::Equal | Comparison::Different, item) => item.is(one),
            Self::Compare(comparison, item) => {
                let order = item.order(one);
                order.is_some_and(|order| comparison.holds(order))
            }
            Self::Among(items) => {
                let sought = items.binary_search_by(|item| item.sorted(one));
                sought.is_ok_and(|at| items[at].is(one))
            }
            Self::Like(pattern) => matches!(one, Scalar::Text(text) if pattern.matches(text)),
            Self::Contains(item) => match (item, one) {
                (Item::Text(part), Scalar::Text(text)) if !is_listed => text.contains(&**part),
                _ => is_listed && item.is(one),
            },
            Self::Between(low, high) => {
                low.order(one).is_some_and(Ordering::is_ge)
                    && high.order(one).is_some_and(Ordering::is_le)
            }
            Self::Exists(_) => true,
            Self::Lists(item) => match one {
                Scalar::Text(text) if is_listed => *text == **item,
                Scalar::Text(text) => text.split(',').any(|part| *part.trim() == **item),
                _ => false,
            },
        }
    }
}

/// What is asked of a number that is made of several.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Range {
    /// It compares so.
    Compare(Comparison, Number),
    /// It is neither below the first nor above the second.
    Between(Number, Number),
}

impl Range {
    /// Whether the number meets it.
    #[inline]
    pub(super) fn has(&self, number: f64) -> bool {
        let number = Number::Float(number);
        let stands = |to: Number, how: Comparison| {
            let order = number.order(to);
            order.is_some_and(|order| how.holds(order))
        };
        match self {
            Self::Compare(comparison, other) => stands(*other, *comparison),
            Self::Between(low, high) => {
                stands(*low, Comparison::AtLeast) && stands(*high, Comparison::AtMost)
            }
        }
    }
}
