//! Texts with a `*` for any run of characters; all else is literal.

/// A pattern. Without a `*` it is looked for anywhere in the text; with one it
/// has to be the whole of it.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Pattern {
    /// As it is written.
    pub(super) text: Box<str>,
    begin: Box<str>,
    /// What follows, each somewhere after the one before.
    between: Box<[Box<str>]>,
    end: Box<str>,
}

impl Pattern {
    /// Reads it.
    pub(super) fn new(text: &str) -> Self {
        let mut parts: Vec<&str> = text.split('*').collect();
        let (begin, end) = if parts.len() < 2 {
            ("", "")
        } else {
            (parts.remove(0), parts.pop().unwrap_or_default())
        };
        let between = parts.into_iter().filter(|part| !part.is_empty());
        Self {
            text: text.into(),
            begin: begin.into(),
            between: between.map(Into::into).collect(),
            end: end.into(),
        }
    }

    /// Whether the text is like it; the time grows with the text, not with the
    /// ways in which it could be.
    pub(super) fn matches(&self, text: &str) -> bool {
        let Some(mut rest) = self.within(text) else {
            return false;
        };
        let Some((last, before)) = self.between.split_last() else {
            return true;
        };
        for part in before {
            // The first place is as good as any: it leaves the most.
            let Some(at) = rest.find(&**part) else {
                return false;
            };
            rest = &rest[at + part.len()..];
        }
        rest.contains(&**last)
    }

    /// The text without its begin and its end.
    fn within<'t>(&self, text: &'t str) -> Option<&'t str> {
        // An empty text has no address: to compare with it may take 80 ns.
        let rest = match &*self.begin {
            "" => Some(text),
            begin => text.strip_prefix(begin),
        };
        match &*self.end {
            "" => rest,
            end => rest?.strip_suffix(end),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn stars_stand_for_any_run() {
        for (pattern, text, is_like) in [
            ("*", "", true),
            ("", "abc", true),
            ("b", "abc", true),
            ("a*", "abc", true),
            ("b*", "abc", false),
            ("*c", "abc", true),
            ("*b", "abc", false),
            ("a*a", "a", false),
            ("a*a", "aa", true),
            ("a*b*c", "a-c-b-c", true),
            ("a*b*c", "a-c-b", false),
            ("**", "x", true),
            ("*.*", "abc", false),
            ("a.c", "abc", false),
            ("[ab]*", "[ab] (x)", true),
            ("*Ä*", "äÄ", true),
        ] {
            assert_eq!(
                Pattern::new(pattern).matches(text),
                is_like,
                "{pattern} {text}"
            );
        }
    }

    #[test]
    fn hard_patterns_take_no_longer() {
        let pattern = Pattern::new(&"a*".repeat(2000));
        let text = "a".repeat(1999) + &"b".repeat(100_000);
        assert!(!pattern.matches(&text));
        assert!(pattern.matches(&format!("a{text}")));
    }

    /// The meaning, as simple as it goes.
    fn naive(pattern: &[char], text: &[char]) -> bool {
        match pattern.split_first() {
            None => text.is_empty(),
            Some(('*', rest)) => (0..=text.len()).any(|from| naive(rest, &text[from..])),
            Some((first, rest)) => text.first() == Some(first) && naive(rest, &text[1..]),
        }
    }

    proptest! {
        #[test]
        fn it_is_as_the_naive_matcher_has_it(pattern in "[ab*]{0,8}", text in "[ab]{0,10}") {
            let whole = if pattern.contains('*') { pattern.clone() } else { format!("*{pattern}*") };
            let chars = |text: &str| text.chars().collect::<Vec<_>>();
            let expected = naive(&chars(&whole), &chars(&text));
            prop_assert_eq!(Pattern::new(&pattern).matches(&text), expected);
        }
    }
}
