//! What is asked of a value: operators, and what they compare with.

use serde_json::{Map, Value};

use super::super::check::{Check, Comparison, Item, Range};
use super::super::error::{Complaint, Place, QueryError};
use super::super::like::Pattern;
use super::super::number::Number;
use super::super::variable::Variable;
use super::{required, short};

/// Items of a list at most.
const MOST_ITEMS: usize = 1024;

/// The six that aggregates take too.
pub(super) const COMPARISONS: &str = "==, !=, <, <=, >, >=";
const OPERATORS: [&str; 11] = [
    "LIKE", "==", "!=", "IN", "<", "<=", ">", ">=", "CONTAINS", "BETWEEN", "EXISTS",
];
const RANGES: [&str; 7] = ["==", "!=", "<", "<=", ">", ">=", "BETWEEN"];

fn comparison(operator: &str) -> Option<Comparison> {
    let mut all = Comparison::ALL.into_iter();
    all.find(|(_, word)| *word == operator).map(|(one, _)| one)
}

/// Reads what is asked of a variable.
pub(super) fn check(
    operator: &str,
    map: &Map<String, Value>,
    place: &Place<'_>,
    variable: &Variable,
) -> Result<Check, QueryError> {
    let known = OPERATORS
        .into_iter()
        .find(|one| one.eq_ignore_ascii_case(operator));
    let Some(known) = known else {
        let complaint = Complaint::unknown("operator", &Value::from(operator), &OPERATORS);
        return Err(Place::Key(place, "operator").wrong(complaint));
    };
    if variable.is_number() && matches!(known, "LIKE" | "CONTAINS") {
        let complaint = Complaint::of(format_args!(
            "{known} looks into texts and lists, this attribute is a number; expected one of: \
             {COMPARISONS}, IN, BETWEEN, EXISTS"
        ));
        return Err(Place::Key(place, "operator").wrong(complaint));
    }
    let at = Place::Key(place, "value");
    let value = match map.get("value") {
        None if known == "EXISTS" => return Ok(Check::Exists(true)),
        _ => required(map, "value", place, "a value")?,
    };
    match known {
        "IN" => among(value, &at, variable),
        "LIKE" => {
            let complaint = || at.wrong(Complaint::expected("a text, with * for any run", value));
            let pattern = value.as_str().ok_or_else(complaint)?;
            short(pattern, &at)?;
            Ok(Check::Like(Pattern::new(pattern)))
        }
        "CONTAINS" => Ok(Check::Contains(item(value, &at, variable)?)),
        "BETWEEN" => between(value, &at, variable),
        "EXISTS" => {
            let complaint = || at.wrong(Complaint::expected("true or false", value));
            Ok(Check::Exists(value.as_bool().ok_or_else(complaint)?))
        }
        _ => compare(known, value, &at, variable),
    }
}

fn compare(
    operator: &str,
    value: &Value,
    at: &Place<'_>,
    variable: &Variable,
) -> Result<Check, QueryError> {
    let comparison = comparison(operator).unwrap_or(Comparison::Equal);
    let item = item(value, at, variable)?;
    let by_size = !matches!(comparison, Comparison::Equal | Comparison::Different);
    if by_size && matches!(item, Item::Null | Item::Flag(_)) {
        let expected = format!("a number or a text to compare by {operator}");
        return Err(at.wrong(Complaint::expected(expected, value)));
    }
    Ok(Check::Compare(comparison, item))
}

fn among(value: &Value, at: &Place<'_>, variable: &Variable) -> Result<Check, QueryError> {
    let list = list(value, at, "a list of values")?;
    if list.len() > MOST_ITEMS {
        let (got, most) = (list.len(), MOST_ITEMS);
        let complaint = Complaint::of(format_args!("a list of {got} values; {most} are allowed"));
        return Err(at.wrong(complaint));
    }
    let items = list.iter().enumerate();
    let items = items.map(|(n, one)| item(one, &Place::Index(at, n), variable));
    Ok(Check::among(items.collect::<Result<_, _>>()?))
}

fn between(value: &Value, at: &Place<'_>, variable: &Variable) -> Result<Check, QueryError> {
    let (low, high) = bounds(value, at, |one, at| item(one, at, variable))?;
    match (&low, &high) {
        (Item::Number(_), Item::Number(_)) | (Item::Text(_), Item::Text(_)) => {
            Ok(Check::Between(low, high))
        }
        _ => Err(at.wrong(Complaint::expected("two numbers or two texts", value))),
    }
}

/// Reads what is asked of a number that is made of many.
pub(super) fn range(
    operator: &str,
    map: &Map<String, Value>,
    place: &Place<'_>,
) -> Result<Range, QueryError> {
    let at = Place::Key(place, "value");
    let is_between = operator.eq_ignore_ascii_case("BETWEEN");
    if comparison(operator).is_none() && !is_between {
        let what = "operator of an aggregate";
        let complaint = Complaint::unknown(what, &Value::from(operator), &RANGES);
        return Err(Place::Key(place, "operator").wrong(complaint));
    }
    let value = required(map, "value", place, "a number")?;
    match comparison(operator) {
        Some(comparison) => Ok(Range::Compare(comparison, number(value, &at)?)),
        None => {
            let (low, high) = bounds(value, &at, number)?;
            Ok(Range::Between(low, high))
        }
    }
}

/// Two bounds, which may be equal.
fn bounds<T>(
    value: &Value,
    at: &Place<'_>,
    read: impl Fn(&Value, &Place<'_>) -> Result<T, QueryError>,
) -> Result<(T, T), QueryError> {
    let list = list(value, at, "a list of two: [lowest, highest]")?;
    let [low, high] = list.as_slice() else {
        let complaint = Complaint::expected("a list of two: [lowest, highest]", value);
        return Err(at.wrong(complaint));
    };
    Ok((
        read(low, &Place::Index(at, 0))?,
        read(high, &Place::Index(at, 1))?,
    ))
}

fn number(value: &Value, at: &Place<'_>) -> Result<Number, QueryError> {
    match value {
        Value::Number(number) => Ok(Number::of(number)),
        _ => Err(at.wrong(Complaint::expected("a number", value))),
    }
}

/// What is compared with that variable.
fn item(value: &Value, at: &Place<'_>, variable: &Variable) -> Result<Item, QueryError> {
    if variable.is_number() && !matches!(value, Value::Number(_) | Value::Null) {
        let expected = "a number, as this attribute is one";
        return Err(at.wrong(Complaint::expected(expected, value)));
    }
    match value {
        Value::Null => Ok(Item::Null),
        Value::Bool(flag) => Ok(Item::Flag(*flag)),
        Value::Number(number) => Ok(Item::Number(Number::of(number))),
        Value::String(text) => {
            short(text, at)?;
            Ok(Item::Text(text.as_str().into()))
        }
        Value::Array(_) | Value::Object(_) => {
            let expected = "a text, a number, true, false or null";
            Err(at.wrong(Complaint::expected(expected, value)))
        }
    }
}

fn list<'a>(value: &'a Value, at: &Place<'_>, what: &str) -> Result<&'a Vec<Value>, QueryError> {
    let list = value.as_array();
    list.ok_or_else(|| at.wrong(Complaint::expected(what, value)))
}
