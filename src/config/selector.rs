//! The syntax of label selectors, as Kubernetes documents it: `app=vllm`,
//! `tier in (a, b)`, `!canary`, `gpu > 1`, joined by commas.
//!
//! The API server selects; here a selector is only checked, so that an error is
//! told when we start, with its place.

/// Characters of a name or value at most.
const MOST_NAME: usize = 63;
/// Characters of a key's prefix at most.
const MOST_PREFIX: usize = 253;

/// What is wrong with a selector.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("character {at}: {problem}; expected a label selector, as app=vllm,tier in (a,b),!canary")]
pub struct SelectorError {
    /// Which character, from 1.
    pub at: usize,
    problem: String,
}

/// A piece of a selector, and where it begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Token<'a> {
    Word(&'a str),
    Sign(&'a str),
    End,
}

struct Reader<'a> {
    text: &'a str,
    at: usize,
}

/// Checks a selector; an empty one selects all.
///
/// # Errors
/// What is wrong, and where.
pub fn check(text: &str) -> Result<(), SelectorError> {
    let mut reader = Reader { text, at: 0 };
    if reader.peek() == Token::End {
        return Ok(());
    }
    loop {
        reader.requirement()?;
        match reader.next() {
            (_, Token::End) => return Ok(()),
            (_, Token::Sign(",")) => {}
            (at, found) => {
                return Err(reader.wrong(at, format!("{} after a condition", shown(found))));
            }
        }
    }
}

fn shown(token: Token<'_>) -> String {
    match token {
        Token::Word(text) | Token::Sign(text) => format!("{text:?}"),
        Token::End => "the end".to_owned(),
    }
}

fn is_word(c: char) -> bool {
    c.is_ascii_alphanumeric() || "-_./".contains(c)
}

impl<'a> Reader<'a> {
    /// The next token, with where it begins in bytes.
    fn next(&mut self) -> (usize, Token<'a>) {
        let rest = &self.text[self.at..];
        let start = self.at + (rest.len() - rest.trim_start().len());
        let rest = &self.text[start..];
        let Some(first) = rest.chars().next() else {
            self.at = self.text.len();
            return (start, Token::End);
        };
        let length = if is_word(first) {
            rest.find(|c| !is_word(c)).unwrap_or(rest.len())
        } else if rest.starts_with("==") || rest.starts_with("!=") {
            2
        } else {
            first.len_utf8()
        };
        self.at = start + length;
        let piece = &rest[..length];
        let token = if is_word(first) {
            Token::Word(piece)
        } else {
            Token::Sign(piece)
        };
        (start, token)
    }

    fn peek(&mut self) -> Token<'a> {
        let at = self.at;
        let (_, token) = self.next();
        self.at = at;
        token
    }

    fn wrong(&self, at: usize, problem: impl Into<String>) -> SelectorError {
        SelectorError {
            at: self.text[..at].chars().count() + 1,
            problem: problem.into(),
        }
    }

    fn requirement(&mut self) -> Result<(), SelectorError> {
        if self.peek() == Token::Sign("!") {
            self.next();
            return self.key();
        }
        self.key()?;
        match self.peek() {
            Token::End | Token::Sign(",") => Ok(()),
            Token::Sign("=" | "==" | "!=") => {
                self.next();
                self.value()
            }
            Token::Sign(sign @ ("<" | ">")) => {
                self.next();
                match self.next() {
                    (_, Token::Word(word)) if word.parse::<i64>().is_ok() => Ok(()),
                    (at, found) => Err(self.wrong(
                        at,
                        format!(
                            "{} after {sign:?}, which needs a whole number",
                            shown(found)
                        ),
                    )),
                }
            }
            Token::Word("in" | "notin") => {
                self.next();
                self.values()
            }
            found => {
                let (at, _) = self.next();
                Err(self.wrong(
                    at,
                    format!("{} where =, ==, !=, in or notin may stand", shown(found)),
                ))
            }
        }
    }

    /// `(a, b)`.
    fn values(&mut self) -> Result<(), SelectorError> {
        match self.next() {
            (_, Token::Sign("(")) => {}
            (at, found) => return Err(self.wrong(at, format!("{} where ( is due", shown(found)))),
        }
        loop {
            self.value()?;
            match self.next() {
                (_, Token::Sign(")")) => return Ok(()),
                (_, Token::Sign(",")) => {}
                (at, found) => {
                    return Err(self.wrong(
                        at,
                        format!("{} in a list of values, where , or ) is due", shown(found)),
                    ));
                }
            }
        }
    }

    /// `[PREFIX/]NAME`.
    fn key(&mut self) -> Result<(), SelectorError> {
        let (at, token) = self.next();
        let Token::Word(word) = token else {
            return Err(self.wrong(at, format!("{} where a key is due", shown(token))));
        };
        let (prefix, name) = match word.split_once('/') {
            Some((prefix, name)) => (Some(prefix), name),
            None => (None, word),
        };
        let is_prefix = |prefix: &str| {
            prefix.len() <= MOST_PREFIX
                && prefix.split('.').all(|part| {
                    is_framed(part)
                        && part
                            .chars()
                            .all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-')
                })
        };
        if is_name(name) && prefix.is_none_or(is_prefix) {
            return Ok(());
        }
        Err(self.wrong(at, format!("{word:?} is no key of a label")))
    }

    /// A value, which may be empty.
    fn value(&mut self) -> Result<(), SelectorError> {
        let Token::Word(word) = self.peek() else {
            return Ok(());
        };
        let (at, _) = self.next();
        if is_name(word) {
            return Ok(());
        }
        Err(self.wrong(at, format!("{word:?} is no value of a label")))
    }
}

/// Whether it begins and ends with a letter or digit.
fn is_framed(text: &str) -> bool {
    let is_plain = |c: Option<char>| c.is_some_and(|c| c.is_ascii_alphanumeric());
    is_plain(text.chars().next()) && is_plain(text.chars().next_back())
}

fn is_name(text: &str) -> bool {
    text.len() <= MOST_NAME && is_framed(text) && !text.contains('/')
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_kubernetes_takes_is_taken() {
        for good in [
            "",
            "  ",
            "app",
            "!app",
            "app=vllm",
            "app==vllm",
            "app!=vllm",
            "app=",
            "a=,b",
            "app=vllm,tier in (a, b),!canary",
            "x.io/tier notin (a,)",
            "gpu > 1",
            "gpu<8",
            " app = vllm , x ",
            "in in (in,notin)",
            "kubernetes.io/service-name=vllm",
            "environment in (production,qa),tier notin (frontend,backend),partition",
        ] {
            assert_eq!(check(good), Ok(()), "{good:?}");
        }
    }

    #[test]
    fn what_is_wrong_is_told_with_its_place() {
        for (bad, at, what) in [
            ("app=vllm,", 10, "the end where a key"),
            ("app=vllm tier=a", 10, "\"tier\" after a condition"),
            ("=x", 1, "\"=\" where a key"),
            ("app in a", 8, "\"a\" where ( is due"),
            ("app in (a", 10, "the end in a list"),
            ("app in (a b)", 11, "\"b\" in a list"),
            ("app=a/b", 5, "\"a/b\" is no value"),
            ("app=-a", 5, "\"-a\" is no value"),
            ("X.io/a=b", 1, "\"X.io/a\" is no key"),
            ("a/b/c", 1, "is no key"),
            ("app@x", 4, "\"@\" where ="),
            ("é=1", 1, "\"é\" where a key"),
            ("a=1,ö", 5, "where a key"),
            ("gpu>many", 5, "whole number"),
            ("!", 2, "the end where a key"),
            ("app=(a)", 5, "\"(\" after a condition"),
        ] {
            let error = check(bad).unwrap_err();
            assert_eq!(error.at, at, "{bad:?}: {error}");
            assert!(error.to_string().contains(what), "{bad:?}: {error}");
        }
        assert!(check(&format!("a={}", "x".repeat(64))).is_err());
    }

    proptest! {
        #[test]
        fn no_text_is_too_strange(text in "\\PC{0,40}") {
            let _ = check(&text);
        }
    }
}
