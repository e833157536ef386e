use std::collections::BTreeMap;
use std::num::NonZeroU32;

use http::HeaderValue;
use http::header::AUTHORIZATION;

use super::*;
use crate::config::auth::Proof;

fn entry(name: &str, key: &str) -> CallerEntry {
    CallerEntry {
        name: name.into(),
        proof: Proof::Keys(vec![hash(key.as_bytes())]),
        models: None,
        requests_per_minute: None,
        max_in_flight: None,
        expires: None,
    }
}

fn bearing(key: &str) -> HeaderMap {
    let value = HeaderValue::from_str(&format!("Bearer {key}")).unwrap();
    [(AUTHORIZATION, value)].into_iter().collect()
}

fn named(auth: &Auth, headers: &HeaderMap, identity: Option<&str>) -> Result<Arc<str>, Why> {
    let identity = identity.map(Arc::from);
    let admitted = auth.admit(headers, identity.as_ref());
    admitted
        .map(|admitted| Arc::clone(&admitted.caller.name))
        .map_err(|denied| denied.why)
}

#[test]
fn hashes_are_sha_256() {
    let text = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
    let hex: String = hash(b"")
        .0
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    assert_eq!(hex, text);
}

#[test]
fn callers_are_known_by_key_or_certificate() {
    let mut old = entry("old", "k-old");
    old.expires = Some(Duration::from_secs(1));
    let mut both = entry("both", "k-1");
    both.proof = Proof::Keys(vec![hash(b"k-1"), hash(b"k-2")]);
    let mut spiffe = entry("spiffe", "");
    spiffe.proof = Proof::Subject("spiffe://a".into());
    let auth = Auth::new(&[old, both, spiffe]);
    let nobody = HeaderMap::new();
    for (headers, identity, expected) in [
        (nobody.clone(), None, Err(Why::Unknown)),
        (bearing("k-1"), None, Ok("both")),
        (bearing("k-2"), None, Ok("both")),
        (bearing("k-3"), None, Err(Why::Unknown)),
        (bearing("k-old"), None, Err(Why::Unknown)),
        (nobody.clone(), Some("spiffe://a"), Ok("spiffe")),
        (nobody, Some("spiffe://b"), Err(Why::Unknown)),
        (bearing("anything"), Some("spiffe://a"), Ok("spiffe")),
        (bearing("k-1"), Some("spiffe://a"), Ok("both")),
    ] {
        let name = named(&auth, &headers, identity);
        assert_eq!(
            name.as_deref().map_err(|why| *why),
            expected,
            "{headers:?} {identity:?}"
        );
    }
}

#[test]
fn who_stays_keeps_what_was_counted() {
    let mut limited = entry("a", "k");
    limited.requests_per_minute = NonZeroU32::new(2);
    limited.max_in_flight = NonZeroU32::new(1);
    let auth = Auth::new(&[limited.clone()]);
    let held = auth.admit(&bearing("k"), None).unwrap();
    // The same caller with another key, and among others.
    limited.proof = Proof::Keys(vec![hash(b"k2")]);
    auth.replace(&[entry("b", "kb"), limited.clone()]);
    assert_eq!(named(&auth, &bearing("k"), None), Err(Why::Unknown));
    assert_eq!(named(&auth, &bearing("k2"), None), Err(Why::Busy));
    drop(held);
    assert!(named(&auth, &bearing("k2"), None).is_ok());
    assert_eq!(named(&auth, &bearing("k2"), None), Err(Why::Rate(30)));
    // A refusal gave its place back.
    limited.requests_per_minute = None;
    auth.replace(&[limited]);
    assert_eq!(auth.count(), 1);
    assert!(named(&auth, &bearing("k2"), None).is_ok());
    let mut counted = Vec::new();
    auth.each_count(|name, counts| counted.push((name.to_owned(), counts.read())));
    let all = [
        ("a", (3, [1, 1, 0])),
        ("b", (0, [0; 3])),
        ("other", (0, [0; 3])),
    ];
    assert_eq!(counted, all.map(|(name, counts)| (name.to_owned(), counts)));
}

#[test]
fn models_are_allowed_by_name_or_alias() {
    let aliases: BTreeMap<String, String> = [("fast", "llama"), ("good", "big")]
        .map(|(alias, model)| (alias.to_owned(), model.to_owned()))
        .into();
    for (list, allowed, denied) in [
        (
            &["llama"][..],
            &["llama"][..],
            // A model of an alias' name is another than the one it leads to.
            &["big", "fast", "good", ""][..],
        ),
        (&["fast"], &["llama", "fast"], &["big", "good"]),
        (&["x", "good"], &["big", "good", "x"], &["llama", "fast"]),
    ] {
        let mut restricted = entry("a", "k");
        restricted.models = Some(list.iter().map(ToString::to_string).collect());
        let auth = Auth::new(&[restricted]);
        let caller = auth.admit(&bearing("k"), None).unwrap().caller;
        let leads = |name: &str| aliases.get(name).map(String::as_str);
        for model in allowed {
            assert!(caller.may_use(model, leads), "{list:?} {model}");
        }
        for model in denied {
            assert!(!caller.may_use(model, leads), "{list:?} {model}");
        }
    }
}

/// As many keys as there may be: each finds its caller, and no other does.
#[test]
fn the_most_keys_are_told_apart() {
    let entries: Vec<CallerEntry> = (0..crate::config::auth::MOST_CALLERS)
        .map(|n| entry(&format!("n{n}"), &format!("k{n}")))
        .collect();
    let auth = Auth::new(&entries);
    for n in (0..entries.len()).step_by(97) {
        let name = named(&auth, &bearing(&format!("k{n}")), None).unwrap();
        assert_eq!(*name, format!("n{n}"));
        assert!(named(&auth, &bearing(&format!("K{n}")), None).is_err());
    }
}

#[test]
fn nothing_shows_a_key_or_a_hash() {
    let auth = Auth::new(&[entry("a", "sk-canary")]);
    let hash = hash(b"sk-canary");
    let shown = format!(
        "{auth:?} {hash:?} {:?}",
        auth.admit(&bearing("sk-canary"), None)
    );
    let bytes = format!("{:?}", hash.0);
    let hex: String = hash.0.iter().map(|byte| format!("{byte:02x}")).collect();
    assert!(!shown.contains("canary") && !shown.contains(&hex) && !shown.contains(&bytes));
}
