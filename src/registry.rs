//! Policies as data: documents that were registered, each under its URI
//! `name:version-release_tag`, and what they mean to the resolver.
//!
//! Plain data: whoever serves it and keeps it is elsewhere (`control/policies.rs`,
//! `registry/store.rs`). A change makes a new registry of the old one, so that it
//! can be tried, and stored, before it is in force.

mod document;
mod entry;
mod in_force;
mod refused;
mod schema;
pub mod store;

use std::collections::BTreeMap;
use std::sync::{Arc, LazyLock};
use std::time::SystemTime;

use serde_json::{Map, Value};

pub use document::{Kind, Registered};
pub use entry::{defaults, merged};
pub use in_force::{InForce, SetAside, without_unregistered};
pub use refused::{Cause, Refused};

/// Policies that may be registered.
pub const MOST_POLICIES: usize = 256;
/// Bytes of one document, as it is sent.
pub const MOST_DOCUMENT: usize = 1 << 20;
/// Bytes of all documents, as they are held.
pub const MOST_BYTES: usize = 16 << 20;

/// The attribute-based policy that is there without being registered.
pub const ATTRIBUTE_BASED: &str = "attributebasedrouter:2.0-stable";
/// Another name of it, which the reference's documents use.
pub const ALIAS: &str = "non-llm-matcher:2.0-stable";
/// Policies that are always there.
pub const BUILT_IN: [&str; 2] = [ATTRIBUTE_BASED, ALIAS];

static ATTRIBUTES: LazyLock<Arc<Registered>> =
    LazyLock::new(|| Arc::new(Registered::built_in(ATTRIBUTE_BASED)));
static MATCHER: LazyLock<Arc<Registered>> = LazyLock::new(|| Arc::new(Registered::built_in(ALIAS)));

/// What is registered. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Registry {
    policies: BTreeMap<String, Arc<Registered>>,
}

/// What to do where a policy is registered already.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Known {
    /// Leave it, and say so.
    Refuse,
    /// Put the new one in its place.
    Replace,
}

impl Registry {
    /// This registry with one policy more.
    ///
    /// # Errors
    /// When it is there already and is to stay, or there is no room.
    pub fn with(&self, policy: Registered, known: Known) -> Result<Self, Refused> {
        if known == Known::Refuse && self.policies.contains_key(&policy.uri) {
            let message = format!(
                "{} is registered already: DELETE it, PUT it, or POST with ?replace=1",
                policy.uri
            );
            return Err(Refused::new(Cause::Exists, message));
        }
        if policy.kind != Kind::Scored && BUILT_IN.contains(&policy.uri.as_str()) {
            let message = format!(
                "{} is built in and decides by attributes: its settings may be given, and its \
                 `type` is \"policy\" or \"scored\"; register others under a name of their own",
                policy.uri
            );
            return Err(Refused::new(Cause::Invalid, message));
        }
        let mut policies = self.policies.clone();
        policies.insert(policy.uri.clone(), Arc::new(policy));
        if policies.len() > MOST_POLICIES {
            let message = format!("{MOST_POLICIES} policies are registered, which is the most");
            return Err(Refused::new(Cause::Full, message));
        }
        if policies.values().map(|one| one.bytes).sum::<usize>() > MOST_BYTES {
            let message = format!("all documents together may take {MOST_BYTES} bytes");
            return Err(Refused::new(Cause::Full, message));
        }
        Ok(Self { policies })
    }

    /// The document that is to stand in place of the one at that URI, which gives
    /// it name, version and tag where it has none.
    ///
    /// # Errors
    /// When there is none at that URI, it has another, or it is wrong.
    pub fn replacement(
        &self,
        uri: &str,
        body: &[u8],
        at: SystemTime,
    ) -> Result<Registered, Refused> {
        let before = self.policies.get(uri).or_else(|| built_in(uri));
        let before = before.ok_or_else(|| Refused::unknown(uri))?;
        let mut document = document::parse(body)?;
        if let Value::Object(fields) = &mut document {
            for field in ["name", "version", "release_tag"] {
                let known = &before.document[field];
                fields.entry(field).or_insert_with(|| known.clone());
            }
        }
        let policy = Registered::of(document, at)?;
        if policy.uri == uri {
            return Ok(policy);
        }
        let message = format!(
            "name, version and release_tag make {}, and the path says {uri}: leave them out, or \
             register another policy with POST /policy",
            policy.uri
        );
        Err(Refused::new(Cause::Invalid, message))
    }

    /// This registry without a policy; a built-in one is then as it was made.
    ///
    /// # Errors
    /// When it is not registered.
    pub fn without(&self, uri: &str) -> Result<Self, Refused> {
        let mut policies = self.policies.clone();
        if policies.remove(uri).is_some() {
            return Ok(Self { policies });
        }
        if BUILT_IN.contains(&uri) {
            let message = format!(
                "{uri} is built in, and nothing is registered over it: it cannot be deleted"
            );
            return Err(Refused::new(Cause::BuiltIn, message));
        }
        Err(Refused::unknown(uri))
    }

    /// The policy of that URI: registered, or built in.
    #[must_use]
    pub fn get(&self, uri: &str) -> Option<&Arc<Registered>> {
        // An alias has the settings that were given to what it stands for.
        let stood_for = || self.policies.get(ATTRIBUTE_BASED).filter(|_| uri == ALIAS);
        let registered = self.policies.get(uri).or_else(stood_for);
        registered.or_else(|| built_in(uri))
    }

    /// Those that are registered, by URI.
    pub fn registered(&self) -> impl Iterator<Item = &Arc<Registered>> {
        self.policies.values()
    }

    /// Every URI that [`Registry::get`] knows, in order.
    #[must_use]
    pub fn uris(&self) -> Vec<&str> {
        let registered = self.policies.keys().map(String::as_str);
        let mut uris: Vec<&str> = registered.chain(BUILT_IN).collect();
        uris.sort_unstable();
        uris.dedup();
        uris
    }

    /// Registered documents in which every one of these dotted paths has the
    /// value beside it.
    pub fn matching<'a>(
        &'a self,
        query: &'a Map<String, Value>,
    ) -> impl Iterator<Item = &'a Arc<Registered>> {
        self.registered().filter(move |one| {
            query.iter().all(|(path, wanted)| {
                let pointer = format!("/{}", path.replace('.', "/"));
                one.document.pointer(&pointer) == Some(wanted)
            })
        })
    }
}

fn built_in(uri: &str) -> Option<&'static Arc<Registered>> {
    match uri {
        ATTRIBUTE_BASED => Some(&ATTRIBUTES),
        ALIAS => Some(&MATCHER),
        _ => None,
    }
}

#[cfg(test)]
mod tests;
