//! What is wrong with a query, and where.

use std::fmt;

use serde_json::{Map, Value};

use crate::config::problem::{nearest, shown};

/// Bytes of a name of others that is repeated, and for which a likely one is
/// sought.
const MOST_NAMED: usize = 80;

/// What is wrong with a query.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[error("{}{message}", place(.pointer))]
pub struct QueryError {
    /// Where: a JSON pointer.
    pub pointer: String,
    /// What stands there, what was expected, and what to do.
    pub message: String,
}

fn place(pointer: &str) -> String {
    match pointer {
        "" => String::new(),
        pointer => format!("{pointer}: "),
    }
}

/// What is wrong, without where.
#[derive(Debug)]
pub(super) struct Complaint(String);

impl Complaint {
    /// In these words.
    pub(super) fn of(words: impl fmt::Display) -> Self {
        Self(words.to_string())
    }

    /// Something else was expected.
    pub(super) fn expected(what: impl fmt::Display, got: &Value) -> Self {
        Self(format!("expected {what}, got {}", shown(got)))
    }

    /// None of the names that are allowed.
    pub(super) fn unknown(what: &str, got: &Value, allowed: &[&str]) -> Self {
        let list = allowed.join(", ");
        let complaint = Self(format!(
            "unknown {what} {}; expected one of: {list}",
            shown(got)
        ));
        let got = got.as_str().filter(|got| got.len() <= MOST_NAMED);
        let got = got.unwrap_or_default().to_uppercase();
        let upper: Vec<String> = allowed.iter().map(|name| name.to_uppercase()).collect();
        let near = nearest(&got, upper.iter().map(String::as_str));
        let near = near.and_then(|near| upper.iter().position(|name| name == near));
        complaint.hint(near.map(|at| allowed[at]))
    }

    /// And perhaps one of these was meant.
    pub(super) fn meaning<'a>(self, name: &str, known: impl Iterator<Item = &'a str>) -> Self {
        let name = Some(name).filter(|name| name.len() <= MOST_NAMED);
        let near = name.and_then(|name| nearest(name, known));
        self.hint(near)
    }

    fn hint(self, name: Option<&str>) -> Self {
        match name {
            Some(name) => Self(format!("{}; did you mean {name}?", self.0)),
            None => self,
        }
    }
}

/// Where in the request something stands; written out only when it is wrong.
#[derive(Debug, Clone, Copy)]
pub(super) enum Place<'a> {
    /// A JSON pointer.
    Top(&'a str),
    /// A key of an object there.
    Key(&'a Place<'a>, &'a str),
    /// A place in a list there.
    Index(&'a Place<'a>, usize),
}

impl Place<'_> {
    /// That it is wrong.
    pub(super) fn wrong(&self, complaint: Complaint) -> QueryError {
        QueryError {
            pointer: self.pointer(),
            message: complaint.0,
        }
    }

    /// The JSON pointer.
    pub(super) fn pointer(&self) -> String {
        match self {
            Self::Top(text) => (*text).to_owned(),
            Self::Key(up, key) => {
                let key = key.replace('~', "~0").replace('/', "~1");
                format!("{}/{key}", up.pointer())
            }
            Self::Index(up, index) => format!("{}/{index}", up.pointer()),
        }
    }
}

/// The object that stands there.
pub(super) fn object<'a>(
    value: &'a Value,
    place: &Place<'_>,
    what: &str,
) -> Result<&'a Map<String, Value>, QueryError> {
    let object = value.as_object();
    object.ok_or_else(|| place.wrong(Complaint::expected(what, value)))
}

/// That the object has no keys but those.
pub(super) fn only(
    map: &Map<String, Value>,
    place: &Place<'_>,
    allowed: &[&str],
) -> Result<(), QueryError> {
    let unknown = map.keys().find(|key| !allowed.contains(&key.as_str()));
    unknown.map_or(Ok(()), |key| Err(stranger("key", key, place, allowed)))
}

/// That an object has a key that is none of those.
pub(super) fn stranger(what: &str, key: &str, place: &Place<'_>, allowed: &[&str]) -> QueryError {
    let complaint = Complaint::unknown(what, &Value::from(key), allowed);
    if key.len() > MOST_NAMED {
        return place.wrong(complaint);
    }
    Place::Key(place, key).wrong(complaint)
}
