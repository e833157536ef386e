//! The one token of a listener.

use http::header::{AUTHORIZATION, HeaderMap};
use subtle::ConstantTimeEq as _;

use super::{given, hash};
use crate::config::auth::{KeyHash, Secret};

/// What whoever asks must show.
#[derive(Debug, Clone, Copy)]
pub struct Token(KeyHash);

impl Token {
    /// The token with this text.
    #[must_use]
    pub fn of(secret: &Secret) -> Self {
        Self(hash(secret.expose().as_bytes()))
    }

    /// Whether the head shows it. Hashes are compared: these have one length, and
    /// the comparison takes the same time for all.
    #[must_use]
    pub fn is_shown(&self, headers: &HeaderMap) -> bool {
        let mut values = headers.get_all(AUTHORIZATION).iter();
        let (Some(only), None) = (values.next(), values.next()) else {
            return false;
        };
        let given = given::bearer(only.as_bytes()).unwrap_or_default();
        hash(given).0.ct_eq(&self.0.0).into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_one_token_is_taken() {
        let token = Token::of(&Secret::new("t0ken").unwrap());
        for (fields, expected) in [
            (&[][..], false),
            (&["Bearer t0ken"], true),
            (&["bearer  t0ken"], true),
            (&["Bearer t0ke"], false),
            (&["Bearer t0kenx"], false),
            (&["Bearer "], false),
            (&["Basic t0ken"], false),
            (&["Bearer t0ken", "Bearer t0ken"], false),
        ] {
            let mut headers = HeaderMap::new();
            for value in fields {
                headers.append(AUTHORIZATION, http::HeaderValue::from_static(value));
            }
            assert_eq!(token.is_shown(&headers), expected, "{fields:?}");
        }
    }
}
