//! By which key each engine is called.
//!
//! An engine's key is held by the engine itself, from before anyone can see it:
//! whoever writes a head for an engine writes that engine's key. Keys in files are
//! read again by the control thread; the last good one is kept.
//!
//! Invariant: a key goes to no other engine. One whose own key cannot be read gets
//! none, never the common one, nor the client's.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use arc_swap::ArcSwapOption;

use super::Engine;
use crate::config::Traits;
use crate::config::auth::{KeptSecret, KeyFrom, Secret};

/// What is sent to an engine in place of the client's `Authorization`.
#[derive(Debug, Default)]
pub struct Credential(ArcSwapOption<Ours>);

/// That it is for us to say by which key an engine is called.
#[derive(Debug, PartialEq, Eq)]
pub struct Ours {
    /// `None`: it has a key of its own, which could not be read.
    pub key: Option<Secret>,
}

impl Credential {
    /// What is ours to send; `None`: the client's passes.
    #[must_use]
    pub fn ours(&self) -> arc_swap::Guard<Option<Arc<Ours>>> {
        self.0.load()
    }

    /// The key to send, from now on.
    pub fn give(&self, key: Secret) {
        self.set(Some(Ours { key: Some(key) }));
    }

    fn set(&self, ours: Option<Ours>) {
        if self.0.load().as_deref() != ours.as_ref() {
            self.0.store(ours.map(Arc::new));
        }
    }
}

/// The keys of all engines; the control thread's own.
#[derive(Debug, Default)]
pub(super) struct Credentials {
    common: Option<KeptSecret>,
    /// Those that engines have of their own, as they were last good.
    own: HashMap<KeyFrom, Option<Secret>>,
    /// Those of them that could not be read when they were last looked at.
    unreadable: HashSet<KeyFrom>,
    /// What is wrong with the common one, told once.
    complaint: Option<String>,
}

impl Credentials {
    pub(super) fn new(common: Option<KeptSecret>) -> Self {
        Self {
            common,
            ..Self::default()
        }
    }

    /// Gives an engine its key.
    pub(super) fn give(&mut self, engine: &Engine, traits: &Traits) {
        engine.credential.set(match &traits.key {
            Some(from) => Some(Ours { key: self.of(from) }),
            None => self.common.as_ref().map(|common| Ours {
                key: Some(common.first.clone()),
            }),
        });
    }

    fn of(&mut self, from: &KeyFrom) -> Option<Secret> {
        if let Some(Some(known)) = self.own.get(from) {
            return Some(known.clone());
        }
        let key = self.read(from);
        self.own.insert(from.clone(), key.clone());
        key
    }

    /// Reads one; that it cannot be is told once.
    fn read(&mut self, from: &KeyFrom) -> Option<Secret> {
        match from.read() {
            Ok(key) => {
                self.unreadable.remove(from);
                Some(key)
            }
            Err(problem) => {
                if self.unreadable.insert(from.clone()) {
                    tracing::error!("an engine's own key cannot be read: {problem}");
                }
                None
            }
        }
    }

    /// Reads all again; tells how many could not be read.
    pub(super) fn refresh<'a>(
        &mut self,
        engines: impl Iterator<Item = (&'a Engine, &'a Traits)>,
    ) -> usize {
        let mut unreadable = usize::from(!self.refresh_common());
        let mut own = HashMap::new();
        for (engine, traits) in engines {
            if let Some(from) = &traits.key
                && !own.contains_key(from)
            {
                let known = self.own.remove(from).flatten();
                let key = self.read(from);
                unreadable += usize::from(key.is_none());
                own.insert(from.clone(), key.or(known));
            }
            let key = traits.key.as_ref().map(|from| Ours {
                key: own.get(from).cloned().flatten(),
            });
            let common = || {
                self.common.as_ref().map(|common| Ours {
                    key: Some(common.first.clone()),
                })
            };
            engine.credential.set(key.or_else(common));
        }
        // What no engine names any more is forgotten.
        self.unreadable.retain(|from| own.contains_key(from));
        self.own = own;
        unreadable
    }

    /// False when it could not be read.
    fn refresh_common(&mut self) -> bool {
        let Some(KeptSecret {
            first,
            file: Some(file),
        }) = &mut self.common
        else {
            return true;
        };
        match Secret::read(file) {
            Ok(read) => {
                if *first != read {
                    tracing::info!(file = %file.display(), "the engines' key has changed");
                    *first = read;
                }
                self.complaint = None;
                true
            }
            Err(problem) => {
                let told = problem.to_string();
                if self.complaint.as_ref() != Some(&told) {
                    tracing::error!("the engines' key stays as it is: {told}");
                    self.complaint = Some(told);
                }
                false
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::EngineUrl;

    fn engine() -> Engine {
        let since = (std::time::Instant::now(), std::time::Duration::ZERO);
        Engine::new(
            EngineUrl::parse("http://a").unwrap(),
            1,
            since,
            &Arc::default(),
        )
    }

    fn traits(key: Option<KeyFrom>) -> Traits {
        Traits {
            key,
            ..Traits::default()
        }
    }

    fn sent(engine: &Engine) -> Option<Option<String>> {
        let ours = engine.credential.ours();
        let ours = ours.as_ref()?;
        Some(ours.key.as_ref().map(|key| key.expose().to_owned()))
    }

    #[test]
    fn each_engine_gets_its_own_key_the_common_one_or_none() {
        let folder = std::env::temp_dir().join(format!("pilotfish-keys-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let file = folder.join("own");
        let own = traits(Some(KeyFrom::File(file.clone())));
        let (one, other) = (engine(), engine());
        let mut none = Credentials::default();
        none.give(&other, &traits(None));
        assert_eq!(sent(&other), None);
        let mut keys = Credentials::new(Some(KeptSecret {
            first: Secret::new("common").unwrap(),
            file: None,
        }));
        keys.give(&other, &traits(None));
        // The file is not there yet: nothing is sent, not the common key.
        keys.give(&one, &own);
        assert_eq!(
            (sent(&one), sent(&other)),
            (Some(None), Some(Some("common".into())))
        );
        for (text, expected, unreadable) in [
            ("first\n", "first", 0),
            ("second", "second", 0),
            ("two words", "second", 1),
        ] {
            std::fs::write(&file, text).unwrap();
            let both = [(&one, &own), (&other, &traits(None))];
            assert_eq!(keys.refresh(both.into_iter()), unreadable, "{text}");
            assert_eq!(sent(&one), Some(Some(expected.to_owned())));
            assert_eq!(sent(&other), Some(Some("common".into())));
        }
        std::fs::remove_dir_all(&folder).unwrap();
    }
}
