//! Goals as requests write them.

use std::sync::Arc;

use serde_json::{Map, Value};

use super::wrong;
use crate::config::attribute::Attribute;
use crate::config::policies::{Direction, Goal, MOST_GOALS};
use crate::config::problem::nearest;
use crate::fleet::Snapshot;
use crate::query::QueryError;

/// What is wanted, by those names and attributes.
///
/// # Errors
/// What is wrong with it, and where.
pub(super) fn goals(
    written: &[Value],
    at: &str,
    snapshot: &Snapshot,
) -> Result<Vec<Goal>, QueryError> {
    let mut goals = Vec::with_capacity(written.len());
    for (n, one) in written.iter().enumerate() {
        let at = format!("{at}/{n}");
        let Some(one) = one.as_object() else {
            return Err(wrong(
                &at,
                "expected {name, weight} or {attribute, direction, weight}",
            ));
        };
        let known = ["name", "weight", "attribute", "direction"];
        if let Some(key) = one.keys().find(|key| !known.contains(&key.as_str())) {
            let message = format!("{key:?} is unknown; expected {}", known.join(", "));
            return Err(wrong(&at, message));
        }
        let weight = weight(one, &at)?;
        match (one.get("name"), one.get("attribute")) {
            (Some(Value::String(name)), None) => {
                goals.extend(of_name(name, weight, &at, snapshot)?);
            }
            (None, Some(Value::String(name))) => goals.push(Goal {
                of: None,
                name: Arc::from(name.as_str()),
                attribute: attribute(name, snapshot),
                direction: direction(one, &at)?,
                weight,
            }),
            _ => {
                let message = "expected `name`, of a goal, or `attribute` and `direction`";
                return Err(wrong(&at, message));
            }
        }
    }
    if goals.len() > MOST_GOALS {
        let message = format!(
            "{} attributes in all; the most is {MOST_GOALS}",
            goals.len()
        );
        return Err(wrong(at, message));
    }
    let sum: f64 = goals.iter().map(|goal| goal.weight).sum();
    let is_sane = sum > 0.0 && sum.is_finite();
    if !(goals.is_empty() || is_sane) {
        return Err(wrong(
            at,
            "the weights are all 0, or too large to be added up",
        ));
    }
    Ok(goals)
}

fn of_name(
    name: &str,
    weight: f64,
    at: &str,
    snapshot: &Snapshot,
) -> Result<Vec<Goal>, QueryError> {
    let known = &snapshot.settings.routing.goals;
    if let Some(goal) = known.get(name) {
        return Ok(goal.weighing(weight).collect());
    }
    let known = || known.keys().map(|known| &**known);
    let hint =
        nearest(name, known()).map_or(String::new(), |near| format!("; did you mean {near:?}?"));
    let known: Vec<&str> = known().collect();
    let message = format!("{name:?} is unknown; known: {}{hint}", known.join(", "));
    Err(wrong(&format!("{at}/name"), message))
}

fn weight(one: &Map<String, Value>, at: &str) -> Result<f64, QueryError> {
    let weight = match one.get("weight") {
        None | Some(Value::Null) => return Ok(1.0),
        Some(weight) => weight.as_f64(),
    };
    let sane = weight.filter(|weight| weight.is_finite() && *weight >= 0.0);
    sane.ok_or_else(|| wrong(&format!("{at}/weight"), "expected a number, 0 or more"))
}

fn direction(one: &Map<String, Value>, at: &str) -> Result<Direction, QueryError> {
    match one.get("direction").and_then(Value::as_str) {
        Some("max") => Ok(Direction::Max),
        Some("min") => Ok(Direction::Min),
        _ => Err(wrong(&format!("{at}/direction"), "expected max or min")),
    }
}

fn attribute(name: &str, snapshot: &Snapshot) -> Attribute {
    let settings = &snapshot.settings;
    let mut columns = Vec::new();
    match Attribute::named(name, &settings.scraping.own, &mut columns) {
        Attribute::Column(_) => {
            let mut known = settings.routing.columns.iter();
            let column = known.position(|column| column == name);
            column.map_or_else(|| Attribute::Path(Arc::from(name)), Attribute::Column)
        }
        other => other,
    }
}
