//! An engine's URL: the text as the user wrote it, and its parts.

use std::sync::Arc;

use http::HeaderValue;
use http::uri::{Scheme, Uri};

use super::problem::masked;

/// An engine's URL: the text as the user wrote it, and its parts. Cheap to clone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EngineUrl(Arc<Parts>);

#[derive(Debug, PartialEq, Eq)]
struct Parts {
    text: String,
    is_tls: bool,
    host: String,
    port: u16,
    authority: HeaderValue,
    base_path: String,
}

/// Why a text is no engine URL.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("engine URL '{text}': {problem}; expected http[s]://HOST[:PORT][/PATH]")]
pub struct UrlError {
    text: String,
    problem: &'static str,
}

impl UrlError {
    /// What is wrong with it, in a few words.
    #[must_use]
    pub fn problem(&self) -> &'static str {
        self.problem
    }
}

impl EngineUrl {
    /// Reads `http://HOST[:PORT][/PATH]`, or `https://...`.
    ///
    /// # Errors
    /// Says what is wrong with the text.
    pub fn parse(text: &str) -> Result<Self, UrlError> {
        let fail = |problem| UrlError {
            text: masked(text),
            problem,
        };
        let uri: Uri = text.parse().map_err(|_| fail("not a URL"))?;
        let is_tls = match uri.scheme() {
            Some(scheme) if *scheme == Scheme::HTTP => false,
            Some(scheme) if *scheme == Scheme::HTTPS => true,
            _ => return Err(fail("the scheme must be http or https")),
        };
        let authority = uri.authority().ok_or_else(|| fail("no host"))?;
        if authority.as_str().contains('@') {
            return Err(fail("user names in URLs are not supported"));
        }
        if authority.host().is_empty() {
            return Err(fail("no host"));
        }
        if uri.query().is_some() {
            return Err(fail("a query makes no sense here"));
        }
        let after_host = authority.as_str().rsplit(']').next().unwrap_or_default();
        if after_host.contains(':') && authority.port_u16().is_none() {
            return Err(fail("bad port"));
        }
        let host = authority.host().trim_matches(['[', ']']).to_owned();
        Ok(Self(Arc::new(Parts {
            text: text.to_owned(),
            is_tls,
            host,
            port: authority
                .port_u16()
                .unwrap_or(if is_tls { 443 } else { 80 }),
            authority: HeaderValue::from_str(authority.as_str()).map_err(|_| fail("bad host"))?,
            base_path: uri.path().trim_end_matches('/').to_owned(),
        })))
    }

    /// The text as configured, not normalised.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.0.text
    }

    /// Whether it speaks TLS.
    #[must_use]
    pub fn is_tls(&self) -> bool {
        self.0.is_tls
    }

    /// Name or address to connect to, without brackets.
    #[must_use]
    pub fn host(&self) -> &str {
        &self.0.host
    }

    /// TCP port.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.0.port
    }

    /// The value of the `Host` field.
    #[must_use]
    pub fn authority(&self) -> &HeaderValue {
        &self.0.authority
    }

    /// What is put before each path; empty or `/prefix`.
    #[must_use]
    pub fn base_path(&self) -> &str {
        &self.0.base_path
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_taken_apart_and_kept_as_written() {
        for (text, host, port, authority, base) in [
            ("http://a", "a", 80, "a", ""),
            ("http://a:8000/", "a", 8000, "a:8000", ""),
            ("http://[::1]:9", "::1", 9, "[::1]:9", ""),
            ("http://a:1/x/y/", "a", 1, "a:1", "/x/y"),
            ("https://a/v", "a", 443, "a", "/v"),
            ("https://a:8443", "a", 8443, "a:8443", ""),
        ] {
            let url = EngineUrl::parse(text).unwrap();
            assert_eq!((url.text(), url.host(), url.port()), (text, host, port));
            assert_eq!(url.is_tls(), text.starts_with("https"));
            assert_eq!(url.authority(), authority);
            assert_eq!(url.base_path(), base);
        }
    }

    #[test]
    fn bad_urls_say_what_is_wrong() {
        for (text, problem) in [
            ("", "not a URL"),
            ("a:8000", "scheme"),
            ("ftp://a", "scheme"),
            ("http://u@a", "user names"),
            ("http://a/?x=1", "query"),
            ("http://a:80800", "bad port"),
            ("http://a:8000x", "bad port"),
            ("http://[::1]:99999", "bad port"),
            ("http://a:", "bad port"),
            ("/x", "scheme"),
        ] {
            let message = EngineUrl::parse(text).unwrap_err().to_string();
            assert!(message.contains(problem), "{text}: {message}");
        }
    }
}
