//! What a request's head says of who sent it.

use http::header::{AUTHORIZATION, HeaderMap, HeaderName, HeaderValue};

/// Where some clients put their key.
const API_KEY: HeaderName = HeaderName::from_static("x-api-key");
/// Bytes of a key at most: a longer one is not ours, and is not hashed.
const MAX_KEY: usize = 512;

/// Whether the field carries a key of the client's: not passed on where keys are
/// ours to check.
#[must_use]
pub fn credential(name: &HeaderName) -> bool {
    *name == AUTHORIZATION || *name == API_KEY
}

/// The one key of a head, if it has just one. `Authorization` comes first.
pub(super) fn key(headers: &HeaderMap) -> Option<&[u8]> {
    let only = |name: HeaderName| -> Option<Option<&HeaderValue>> {
        let mut values = headers.get_all(name).iter();
        let first = values.next();
        values.next().is_none().then_some(first)
    };
    let (authorization, api_key) = (only(AUTHORIZATION)?, only(API_KEY)?);
    let key = match authorization {
        Some(value) => bearer(value.as_bytes())?,
        None => api_key?.as_bytes().trim_ascii(),
    };
    (1..=MAX_KEY).contains(&key.len()).then_some(key)
}

/// What stands after `Bearer `, whose case does not matter.
pub(crate) fn bearer(value: &[u8]) -> Option<&[u8]> {
    let (scheme, rest) = value.split_at_checked(6)?;
    let is_bearer = scheme.eq_ignore_ascii_case(b"bearer") && rest.first() == Some(&b' ');
    is_bearer.then(|| rest.trim_ascii())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_has_one_key_or_none() {
        let long = format!("Bearer {}", "k".repeat(MAX_KEY + 1));
        let most = format!("Bearer {}", "k".repeat(MAX_KEY));
        for (fields, expected) in [
            (&[][..], None),
            (&[("authorization", "Bearer k")], Some("k")),
            (&[("authorization", "bEARER   k ")], Some("k")),
            (&[("authorization", "Bearer")], None),
            (&[("authorization", "Bearer ")], None),
            (&[("authorization", "Bearerk")], None),
            (&[("authorization", "Basic k")], None),
            (&[("authorization", "k")], None),
            (&[("authorization", &long)], None),
            (&[("authorization", &most)], most.strip_prefix("Bearer ")),
            (
                &[("authorization", "Bearer k"), ("authorization", "Bearer k")],
                None,
            ),
            (&[("x-api-key", "k")], Some("k")),
            (&[("x-api-key", "k"), ("x-api-key", "k")], None),
            (
                &[("x-api-key", "a"), ("authorization", "Bearer b")],
                Some("b"),
            ),
            (&[("x-api-key", "a"), ("authorization", "Basic b")], None),
            (&[("x-api-key", "")], None),
        ] {
            let mut headers = HeaderMap::new();
            for (name, value) in fields {
                headers.append(
                    HeaderName::from_static(name),
                    HeaderValue::from_str(value).unwrap(),
                );
            }
            assert_eq!(key(&headers), expected.map(str::as_bytes), "{fields:?}");
        }
        let mut headers = HeaderMap::new();
        let bytes = HeaderValue::from_bytes(b"Bearer \xff\xfe").unwrap();
        headers.insert(AUTHORIZATION, bytes);
        assert_eq!(key(&headers), Some(&b"\xff\xfe"[..]));
    }
}
