//! What is wrong with a configuration: where, what stands there, what was
//! expected.

use std::fmt;

/// Characters of a value that a message shows at most.
const SHOWN: usize = 80;

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Where: `engines[2].url`; empty for the whole.
    pub path: String,
    /// What is wrong, what was expected, and what to do.
    pub message: String,
    /// Whether a required setting is missing: the process then exits with 1, as
    /// the reference does, not 2.
    pub is_missing: bool,
}

impl Problem {
    /// A problem at `path`.
    pub fn at(path: impl Into<String>, message: impl Into<String>) -> Self {
        Self {
            path: path.into(),
            message: message.into(),
            is_missing: false,
        }
    }

    /// A required setting that is missing.
    pub fn missing(path: impl Into<String>, message: impl Into<String>) -> Self {
        Self {
            is_missing: true,
            ..Self::at(path, message)
        }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.path.is_empty() {
            write!(f, "{}: ", self.path)?;
        }
        f.write_str(&self.message)
    }
}

/// All that is wrong, at once.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct Problems {
    /// The file, or what else they are of.
    pub of: String,
    /// At least one.
    pub list: Vec<Problem>,
}

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { of, list } = self;
        match list.as_slice() {
            [only] => write!(f, "{of}: {only}"),
            many => {
                write!(f, "{of}: {} problems", many.len())?;
                many.iter().try_for_each(|one| write!(f, "\n  {one}"))
            }
        }
    }
}

/// A text as a message shows it: without what stands before the host of a URL, which
/// may be a password.
#[must_use]
pub fn masked(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find("//") {
        let (before, after) = rest.split_at(at + 2);
        shown.push_str(before);
        let end = after.find(|c: char| matches!(c, '/' | ',' | '"') || c.is_whitespace());
        let authority = &after[..end.unwrap_or(after.len())];
        rest = after;
        if let Some(user) = authority.rfind('@') {
            shown.push_str("***");
            rest = &after[user..];
        }
    }
    shown.push_str(rest);
    shown
}

/// A value as a message shows it: its JSON, cut.
#[must_use]
pub fn shown(value: &serde_json::Value) -> String {
    let text = masked(&value.to_string());
    match text.char_indices().nth(SHOWN) {
        None => text,
        Some((at, _)) => format!("{}…", &text[..at]),
    }
}

/// The nearest of the known names, if it is near enough to be meant, or begins
/// as it does.
#[must_use]
pub fn nearest<'a>(name: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let distance = |other: &str| strsim::damerau_levenshtein(name, other);
    let closest = known.into_iter().min_by_key(|other| distance(other))?;
    let begins = name.len() >= 3 && (closest.starts_with(name) || name.starts_with(closest));
    (begins || distance(closest) <= 1 + name.len() / 4).then_some(closest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn typos_find_their_name() {
        let known = ["engines", "routing_logic", "limits"];
        assert_eq!(nearest("engine", known), Some("engines"));
        assert_eq!(nearest("routing-logic", known), Some("routing_logic"));
        assert_eq!(nearest("something", known), None);
    }

    #[test]
    fn passwords_in_urls_are_not_shown() {
        for (text, expected) in [
            ("http://u:p@h/x@y", "http://***@h/x@y"),
            ("http://h/x@y", "http://h/x@y"),
            ("http://a:b@c@d, https://e@f", "http://***@d, https://***@f"),
            (r#"["//u@","x"]"#, r#"["//***@","x"]"#),
            ("a@b", "a@b"),
            ("////", "////"),
            ("", ""),
        ] {
            assert_eq!(masked(text), expected);
        }
        assert_eq!(shown(&"http://u:p@h".into()), "\"http://***@h\"");
    }

    #[test]
    fn long_values_are_cut() {
        let value = serde_json::Value::from("ä".repeat(200));
        assert_eq!(shown(&value).chars().count(), SHOWN + 1);
    }
}
