//! What a request's head asks of us: the fields `x-pilotfish-*`, none of which
//! an engine sees. Those that the configuration does not allow are errors, so
//! that nobody believes they were heeded.

use std::time::Duration;

use http::HeaderMap;
use http::header::{COOKIE, HeaderValue};

use super::error::ProxyError;
use super::headers::OWN_PREFIX;
use crate::auth::Caller;
use crate::config::policies::{Allow, KeySource};
use crate::policy::qos::Qos;

use super::facts::RequestFacts;

/// What was asked.
#[derive(Debug, Default)]
pub(super) struct Wishes<'a> {
    /// Another policy.
    pub(super) policy: Option<&'a str>,
    /// Models to choose from, separated by commas.
    pub(super) models: Option<&'a str>,
    /// One engine.
    pub(super) engine: Option<&'a str>,
    /// A selection by attributes.
    pub(super) select: Option<&'a str>,
    /// What is needed of the engine.
    pub(super) qos: Option<Box<Qos>>,
    /// How long the whole may take.
    pub(super) timeout: Option<Duration>,
    /// Who goes first of those that wait; 9 is the highest.
    pub(super) priority: Option<u8>,
    /// To be told who was chosen, and to have it kept why.
    pub(super) explain: bool,
    /// Who asks, if there are models that this one may not use.
    pub(super) caller: Option<&'a Caller>,
    /// A bit for each field that was there.
    seen: u8,
}

impl<'a> Wishes<'a> {
    /// Reads them.
    pub(super) fn of(headers: &'a HeaderMap, allow: &Allow) -> Result<Self, ProxyError> {
        let mut wishes = Self::default();
        // Most requests have none: one look at the names is all they cost.
        for (name, value) in headers {
            if let Some(name) = name.as_str().strip_prefix(OWN_PREFIX) {
                wishes.take(name, value, allow)?;
            }
        }
        Ok(wishes)
    }

    fn take(
        &mut self,
        name: &str,
        value: &'a HeaderValue,
        allow: &Allow,
    ) -> Result<(), ProxyError> {
        let wrong = |message: &str| ProxyError::Header {
            name: format!("{OWN_PREFIX}{name}"),
            message: message.to_owned(),
        };
        let (bit, is_allowed) = match name {
            "explain" => (1, allow.explain),
            "policy" => (2, allow.policy),
            "models" => (4, allow.models),
            "qos" => (8, allow.qos),
            "engine" => (16, allow.engine),
            "timeout-ms" => (32, allow.timeout),
            "priority" => (64, allow.priority),
            "select" => (128, allow.select),
            // Of a later version, or someone else's: it does nothing.
            _ => return Ok(()),
        };
        let text = value.to_str().map_err(|_| wrong("expected ASCII text"))?;
        if self.seen & bit != 0 {
            return Err(wrong("given twice"));
        }
        self.seen |= bit;
        if !is_allowed {
            let message = format!(
                "not allowed here: whoever runs this proxy may add \"{name}\" to \
                 request_headers.allow"
            );
            return Err(wrong(&message));
        }
        match name {
            "policy" => self.policy = Some(text),
            "models" => self.models = Some(text),
            "select" => self.select = Some(text),
            "engine" => self.engine = Some(text),
            "timeout-ms" => {
                let millis = text.parse().ok().filter(|millis| *millis > 0);
                let millis = millis.ok_or_else(|| wrong("expected milliseconds, 1 or more"))?;
                self.timeout = Some(Duration::from_millis(millis));
            }
            "priority" => {
                let priority = text.parse().ok().filter(|priority| *priority <= 9);
                let expected = "expected 0 to 9, the highest first";
                self.priority = Some(priority.ok_or_else(|| wrong(expected))?);
            }
            "qos" => self.qos = Some(Box::new(Qos::parse(text).map_err(|error| wrong(&error))?)),
            _ => match text {
                "1" | "true" => self.explain = true,
                "0" | "false" => {}
                _ => return Err(wrong("expected 1 or 0")),
            },
        }
        Ok(())
    }
}

/// What a request is placed by: the first of `sources` that it has.
pub(super) fn key(
    sources: &[KeySource],
    headers: &HeaderMap,
    facts: &mut RequestFacts,
    peer: &str,
) -> Option<String> {
    sources.iter().find_map(|source| match source {
        KeySource::Header(name) => headers.get(name).map(latin1),
        KeySource::Body(key) => match (&mut facts.keyed, &**key) {
            (Some((known, value)), _) if known == key => Some(std::mem::take(value)),
            (_, "user") => facts.user.take(),
            (_, "session_id") => facts.session_id.take(),
            _ => None,
        },
        KeySource::Cookie(name) => cookie(headers, name),
        KeySource::Address => Some(peer.to_owned()),
        // The policy has it by other means.
        KeySource::Prompt => None,
    })
}

/// In Latin-1 each byte is the character of its number.
fn latin1(value: &HeaderValue) -> String {
    value.as_bytes().iter().copied().map(char::from).collect()
}

fn cookie(headers: &HeaderMap, name: &str) -> Option<String> {
    let fields = headers.get_all(COOKIE).iter();
    let mut pairs = fields.flat_map(|field| field.as_bytes().split(|byte| *byte == b';'));
    pairs.find_map(|pair| {
        let (found, value) = std::str::from_utf8(pair).ok()?.trim().split_once('=')?;
        (found == name && !value.is_empty()).then(|| value.to_owned())
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderName;
    use std::sync::Arc;

    #[test]
    fn the_first_source_that_there_is_gives_the_key() {
        let mut headers = HeaderMap::new();
        headers.append(COOKIE, HeaderValue::from_static("a=1; sid=abc ; b"));
        headers.insert("x-user", HeaderValue::from_bytes(b"M\xfcller").unwrap());
        let header = KeySource::Header(HeaderName::from_static("x-user"));
        let body = |key: &str| KeySource::Body(Arc::from(key));
        let facts = || RequestFacts {
            user: Some("u".to_owned()),
            keyed: Some((Arc::from("tenant"), "k".to_owned())),
            ..RequestFacts::default()
        };
        for (sources, expected) in [
            (vec![header.clone(), body("user")], Some("Müller")),
            (vec![body("tenant"), body("user")], Some("k")),
            (vec![body("user"), body("tenant")], Some("u")),
            (vec![KeySource::Cookie("sid".to_owned())], Some("abc")),
            (
                vec![KeySource::Cookie("no".to_owned()), KeySource::Address],
                Some("1.2.3.4"),
            ),
            (vec![KeySource::Prompt], None),
        ] {
            let found = key(&sources, &headers, &mut facts(), "1.2.3.4");
            assert_eq!(found.as_deref(), expected, "{sources:?}");
        }
        let mut plain = RequestFacts {
            keyed: None,
            ..facts()
        };
        let found = key(
            &[body("session_id"), body("user")],
            &headers,
            &mut plain,
            "",
        );
        assert_eq!(found.as_deref(), Some("u"));
    }

    #[test]
    fn wishes_are_read_and_refused_by_name() {
        let allow = Allow::default();
        let read = |name: &'static str, value: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert(name, HeaderValue::from_static(value));
            Wishes::of(&headers, &allow).map(|wishes| {
                (
                    wishes.policy.map(str::to_owned),
                    wishes.explain,
                    wishes.qos.is_some(),
                )
            })
        };
        assert_eq!(
            read("x-pilotfish-policy", "p").unwrap().0.as_deref(),
            Some("p")
        );
        assert!(read("x-pilotfish-explain", "1").unwrap().1);
        assert!(read("x-pilotfish-qos", "privacy=public").unwrap().2);
        assert!(read("x-pilotfish-later", "?").is_ok());
        let mut twice = HeaderMap::new();
        for value in ["1", "0"] {
            twice.append("x-pilotfish-explain", HeaderValue::from_static(value));
        }
        assert!(Wishes::of(&twice, &allow).is_err());
        for (name, value, said) in [
            ("x-pilotfish-explain", "yes", "expected 1 or 0"),
            ("x-pilotfish-timeout-ms", "-1", "1 or more"),
            ("x-pilotfish-timeout-ms", "0", "1 or more"),
            ("x-pilotfish-timeout-ms", "1s", "1 or more"),
            ("x-pilotfish-priority", "5", "request_headers.allow"),
            ("x-pilotfish-qos", "privacy=x", "privacy=x"),
            ("x-pilotfish-engine", "http://a", "request_headers.allow"),
        ] {
            let error = read(name, value).unwrap_err();
            assert_eq!(error.status(), 400);
            let message = error.to_string();
            assert!(
                message.contains(name) && message.contains(said),
                "{message}"
            );
        }
    }
}
