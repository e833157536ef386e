//! A text that nobody is to see.
//!
//! Invariant: it has no `Display`, and its `Debug` shows nothing, so that no log
//! line, page or error that shows a whole structure can show it.

use std::fmt;
use std::path::Path;
use std::sync::Arc;

use super::problem::Problem;
use super::validate::read_at_most;

/// Bytes of a secret at most; also of the file that it stands in.
pub const MAX_SECRET: u64 = 8 << 10;

/// A key or token, as it stands in a field of a head. Cheap to clone.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Arc<str>);

impl Secret {
    /// Takes a text, without the white space around it.
    ///
    /// # Errors
    /// What is wrong with it; the text itself is never shown.
    pub fn new(text: &str) -> Result<Self, &'static str> {
        let text = text.trim();
        if text.is_empty() {
            return Err("is empty; expected a key in one line");
        }
        if text.len() as u64 > MAX_SECRET {
            return Err("is longer than 8 KiB; expected a key in one line");
        }
        // It stands in a field of a head, after `Bearer `.
        if !text.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err("has white space or other than ASCII within; expected a key in one line");
        }
        Ok(Self(Arc::from(text)))
    }

    /// The secret that stands in a file.
    ///
    /// # Errors
    /// Why there is none; the path of the problem is the file's.
    pub fn read(file: &Path) -> Result<Self, Problem> {
        let path = file.display().to_string();
        let bytes = read_at_most(file, MAX_SECRET).map_err(|problems| {
            let first = problems.into_iter().next();
            Problem::at(&*path, first.map_or_else(String::new, |one| one.message))
        })?;
        let text = std::str::from_utf8(&bytes)
            .map_err(|_| Problem::at(&*path, "is no text; expected a key in one line"))?;
        Self::new(text).map_err(|why| Problem::at(path, why))
    }

    /// The text, for whoever has to send or compare it.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_one_word_and_is_never_shown() {
        let secret = Secret::new(" sk-canary\r\n").unwrap();
        assert_eq!(secret.expose(), "sk-canary");
        assert_eq!(
            format!("{secret:?} {:#?}", Some(&secret)),
            "*** Some(\n    ***,\n)"
        );
        let long = "x".repeat(9000);
        for bad in [
            "",
            " \n",
            "two words",
            "a\nb",
            "schlüssel",
            "a\u{7f}",
            &long,
        ] {
            let why = Secret::new(bad).unwrap_err();
            assert!(bad.trim().is_empty() || !why.contains(bad), "{why}");
        }
    }

    #[test]
    fn what_is_no_file_is_told_by_its_path_alone() {
        for path in ["/nonexistent/key", "/", "/dev/zero"] {
            let problem = Secret::read(Path::new(path)).unwrap_err();
            assert_eq!(problem.path, path);
            assert!(!problem.message.is_empty());
        }
    }
}
