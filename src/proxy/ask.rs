//! From a request to what a policy may know of it.

use std::sync::Arc;
use std::time::Duration;

use http::request::Parts;

use super::error::ProxyError;
use super::facts::{Peeked, Wanted};
use super::fingerprint;
use super::headers::{OWN_PREFIX, Pinned};
use super::wishes::{Wishes, key};
use crate::config::policies::{KeySource, PolicyKind};
use crate::fleet::layout::Capability;
use crate::fleet::ring::{hash, mix};
use crate::fleet::{Model, Snapshot};
use crate::policy::memory::{Fingerprint, Prefix, Turn};
use crate::policy::{Advice, Asked, Policy};

/// The policy that a request names, or the one in force; it must be one that
/// heeds all that the request asks.
pub(super) fn policy<'a>(
    snapshot: &'a Snapshot,
    wishes: &Wishes<'_>,
    by_path: &Pinned,
) -> Result<&'a Arc<Policy>, ProxyError> {
    let policy = named(snapshot, wishes.policy)?;
    heeds(policy, wishes, by_path)?;
    Ok(policy)
}

/// Whether the policy heeds all that the request asks.
pub(super) fn heeds(
    policy: &Policy,
    wishes: &Wishes<'_>,
    by_path: &Pinned,
) -> Result<(), ProxyError> {
    let kind = &policy.spec.kind;
    let is_free = wishes.engine.is_none() && *by_path == Pinned::No;
    let heeds_qos = matches!(kind, PolicyKind::Federation(_)) && is_free;
    let heeds_models = kind.chooses_models();
    for (name, is_heeded, by) in [
        ("qos", wishes.qos.is_none() || heeds_qos, "federation"),
        (
            "models",
            wishes.models.is_none() || heeds_models,
            "sequential or smart",
        ),
    ] {
        if !is_heeded {
            return Err(ProxyError::Header {
                name: format!("{OWN_PREFIX}{name}"),
                message: format!(
                    "the policy {:?} does not heed it; one of type {by} does, without a pinned engine",
                    policy.spec.name
                ),
            });
        }
    }
    Ok(())
}

fn named<'a>(snapshot: &'a Snapshot, name: Option<&str>) -> Result<&'a Arc<Policy>, ProxyError> {
    let policies = &snapshot.policies;
    let Some(name) = name else {
        return Ok(&policies.default);
    };
    if *name == *policies.default.spec.name {
        return Ok(&policies.default);
    }
    policies.named.get(name).ok_or_else(|| {
        let named = policies.named.keys().map(String::as_str);
        let known: Vec<&str> = named.chain([&*policies.default.spec.name]).collect();
        ProxyError::Header {
            name: format!("{OWN_PREFIX}policy"),
            message: format!("{name:?} is unknown; known: {}", known.join(", ")),
        }
    })
}

/// What a policy looks for in a body.
pub(super) fn wanted<'a>(
    wishes: &Wishes<'_>,
    kind: &'a PolicyKind,
    snapshot: &Snapshot,
) -> Wanted<'a> {
    let reads_query = matches!(kind, PolicyKind::Smart(_)) || snapshot.policies.shadow.is_some();
    let mut of_body = kind.strategies().filter_map(|strategy| {
        // A session's id is hashed as Python prints it, even that of `user`.
        let is_session = matches!(strategy, PolicyKind::Session(_));
        let mut keys = strategy.keys().iter().filter_map(|source| match source {
            KeySource::Body(key) => Some(key),
            _ => None,
        });
        keys.find(|key| is_session || !matches!(&***key, "user" | "session_id"))
    });
    Wanted {
        key: of_body.next(),
        prompt: reads_query || kind.reads_prompt(),
        any_model: kind.chooses_models() || kind.scored().is_some() || wishes.select.is_some(),
    }
}

/// What the policy may know, and how the prompt begins.
pub(super) fn asked(
    policy: &Policy,
    head: &Parts,
    (wishes, peer): (&Wishes<'_>, &str),
    (peeked, model): (&mut Peeked, &Model),
    clock: impl Fn() -> Duration,
) -> (Asked, Vec<Fingerprint>) {
    let mut prints = Vec::new();
    let mut prefix = Prefix::default();
    let reads_prompt = policy.spec.kind.reads_prompt();
    if let Some(prompt) = peeked.facts.prompt.as_ref().filter(|_| reads_prompt) {
        let least = policy.spec.kind.least_match();
        // The cache of one model is none of another's.
        let salt = hash(model.name.as_bytes());
        let salted = |print: Fingerprint| Fingerprint {
            hash: mix(salt, print.hash),
            ..print
        };
        prints = fingerprint::of(&peeked.held, prompt);
        prints.retain(|print| print.bytes >= least);
        prints.iter_mut().for_each(|print| *print = salted(*print));
        if let Some(memory) = &policy.memory {
            prefix = memory.recall(&prints, clock());
        }
        prefix.anchor = prints.first().map(|print| print.hash);
        let root = fingerprint::root(&peeked.held, prompt);
        let root = root.filter(|(print, _)| print.bytes >= least && prefix.anchor.is_some());
        prefix.root = root.map(|(print, _)| salted(print).hash);
        prefix = prefix.worth(root.map_or(Turn::None, |(_, turn)| turn));
    }
    let mut sources = policy.spec.kind.keys();
    let prompt = sources.iter().position(|key| *key == KeySource::Prompt);
    if let (Some(at), Some(_)) = (prompt, prefix.anchor) {
        // What comes after it is for requests without a prompt.
        sources = &sources[..at];
    }
    let facts = &mut peeked.facts;
    let asked = Asked {
        key: key(sources, &head.headers, facts, peer),
        prefix,
        prompt_tokens: facts.estimated_tokens,
        max_tokens: facts.max_tokens,
        qos: wishes.qos.as_deref().copied().unwrap_or_default(),
        // Whoever names a model knows what it is for.
        capability: (policy.spec.kind.scored().is_none())
            .then(|| Capability::of_path(head.uri.path()))
            .flatten(),
        advice: Advice::None,
    };
    (asked, prints)
}
