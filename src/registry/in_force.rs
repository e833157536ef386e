//! What registered policies mean beside the configuration: they are put in force
//! with it, and one that no longer fits is set aside, so that it does not stand
//! in the way of all else.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use super::{BUILT_IN, Registered, Registry, built_in};
use crate::config::Settings;
use crate::config::dynamic::{DynamicFile, PolicyEntry};
use crate::config::problem::Problem;
use crate::config::resolve::resolve;

/// What the configuration and the registered policies mean together.
#[derive(Debug, Clone, PartialEq)]
pub struct InForce {
    /// What to act upon.
    pub settings: Settings,
    /// What was accepted but has no effect, in words.
    pub warnings: Vec<String>,
    /// Registered policies that nobody can have.
    pub set_aside: Vec<SetAside>,
}

/// A registered policy that does not fit the configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SetAside {
    /// Its URI.
    pub uri: String,
    /// Why, with keys of the policy that it would be.
    pub problems: Vec<Problem>,
}

impl fmt::Display for SetAside {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, problem) in self.problems.iter().enumerate() {
            let between = if at == 0 { "" } else { "; " };
            write!(f, "{between}{problem}")?;
        }
        Ok(())
    }
}

impl Registry {
    /// What `keys` mean, with these policies beside the file's own.
    ///
    /// # Errors
    /// All that is wrong: with the keys, and with registered policies that the
    /// keys name.
    pub fn resolve(&self, keys: &DynamicFile) -> Result<InForce, Vec<Problem>> {
        let own = keys.policies.clone().unwrap_or_default();
        let mut warnings = Vec::new();
        let mut set_aside = Vec::new();
        let mut named = Vec::new();
        let mut all = BTreeMap::new();
        let trial = Trial::of(keys);
        for uri in self.uris() {
            if own.contains_key(uri) {
                let registered = self.policies.contains_key(uri);
                warnings.extend(registered.then(|| {
                    format!("policies.{uri} of the file is taken, not the registered policy")
                }));
                continue;
            }
            let (entry, problems) = self.tried(uri, &trial);
            if problems.is_empty() {
                all.extend(entry.map(|entry| (uri.to_owned(), entry)));
                continue;
            }
            let by = names(keys, uri);
            if let Some(by) = by {
                named.extend(problems.into_iter().map(|problem| {
                    let place = format!("registered policy {uri}");
                    Problem::at(place, format!("{problem} ({by} names it)"))
                }));
                continue;
            }
            // As if it were not registered.
            let made = built_in(uri).and_then(|built_in| built_in.entry().ok());
            all.extend(made.map(|entry| (uri.to_owned(), entry)));
            set_aside.push(SetAside {
                uri: uri.to_owned(),
                problems,
            });
        }
        if !named.is_empty() {
            return Err(named);
        }
        all.extend(own);
        let resolved = resolve(&DynamicFile {
            policies: Some(all),
            ..keys.clone()
        })?;
        warnings.extend(resolved.warnings);
        Ok(InForce {
            settings: resolved.settings,
            warnings,
            set_aside,
        })
    }

    /// The policy of that URI, if it does not fit these keys; not where the file's
    /// own has its name.
    #[must_use]
    pub fn set_aside(&self, uri: &str, keys: &DynamicFile) -> Option<SetAside> {
        let own = keys.policies.as_ref();
        if own.is_some_and(|own| own.contains_key(uri)) {
            return None;
        }
        let (_, problems) = self.tried(uri, &Trial::of(keys));
        (!problems.is_empty()).then(|| SetAside {
            uri: uri.to_owned(),
            problems,
        })
    }

    fn tried(&self, uri: &str, trial: &Trial<'_>) -> (Option<PolicyEntry>, Vec<Problem>) {
        let Some(policy) = self.get(uri) else {
            return (None, Vec::new());
        };
        match policy.entry() {
            Ok(entry) => {
                let problems = trial.problems(policy, uri, &entry);
                (Some(entry), problems)
            }
            // Tried when it was registered.
            Err(refused) => (None, vec![Problem::at("", refused.to_string())]),
        }
    }
}

/// The key that names that policy, if one does.
fn names(keys: &DynamicFile, uri: &str) -> Option<&'static str> {
    let by_default = keys.routing_logic.as_deref() == Some(uri);
    let asked = keys.request_headers.as_ref();
    let asked = asked.and_then(|headers| headers.policies.as_ref());
    let is_asked = || asked.is_some_and(|names| names.iter().any(|name| name == uri));
    if by_default {
        Some("routing_logic")
    } else {
        is_asked().then_some("request_headers.policies")
    }
}

/// Takes out of `keys` what names a policy that could only be a registered one,
/// and tells of each the key and the name: for who checks keys without knowing
/// what is registered.
pub fn without_unregistered(keys: &mut DynamicFile) -> Vec<(&'static str, String)> {
    let own = keys.policies.clone().unwrap_or_default();
    let is_unknown =
        |name: &String| is_uri(name) && !BUILT_IN.contains(&&**name) && !own.contains_key(name);
    let mut taken = Vec::new();
    if let Some(name) = keys.routing_logic.take_if(|name| is_unknown(name)) {
        taken.push(("routing_logic", name));
        keys.routing_logic = Some("roundrobin".to_owned());
    }
    let asked = keys.request_headers.as_mut();
    if let Some(asked) = asked.and_then(|headers| headers.policies.as_mut()) {
        let unknown = asked.extract_if(.., |name| is_unknown(name));
        taken.extend(unknown.map(|name| ("request_headers.policies", name)));
    }
    taken
}

/// Whether it could be a registered policy's URI, `name:version-release_tag`.
fn is_uri(name: &str) -> bool {
    let parts = name.split_once(':');
    parts.is_some_and(|(name, rest)| {
        let is_part = |part: &str| !part.is_empty() && !part.contains(':');
        let tagged = rest.split_once('-');
        is_part(name) && tagged.is_some_and(|(version, tag)| is_part(version) && is_part(tag))
    })
}

/// What of a configuration a registered policy depends on, to try each by itself.
struct Trial<'a> {
    keys: &'a DynamicFile,
    bare: DynamicFile,
    /// What is wrong with these keys, whatever is registered.
    before: Vec<Problem>,
}

impl<'a> Trial<'a> {
    fn of(keys: &'a DynamicFile) -> Self {
        let bare = DynamicFile {
            service_discovery: Some("static".to_owned()),
            routing_logic: Some("roundrobin".to_owned()),
            engines: Some(Vec::new()),
            goals: keys.goals.clone(),
            attributes: keys.attributes.clone(),
            ..DynamicFile::default()
        };
        let before = resolve(&bare).err().unwrap_or_default();
        Self { keys, bare, before }
    }

    fn problems(&self, policy: &Arc<Registered>, uri: &str, entry: &PolicyEntry) -> Vec<Problem> {
        let alone = DynamicFile {
            policies: Some(BTreeMap::from([(uri.to_owned(), entry.clone())])),
            ..self.bare.clone()
        };
        let mut problems = resolve(&alone).err().unwrap_or_default();
        problems.retain(|problem| !self.before.contains(problem));
        let of_policy = format!("policies.{uri}");
        for problem in &mut problems {
            let inner = problem.path.strip_prefix(&of_policy);
            let inner = inner.map(|inner| inner.trim_start_matches('.').to_owned());
            problem.path = inner.unwrap_or_else(|| std::mem::take(&mut problem.path));
        }
        if policy.registered_at.is_some() {
            problems.extend(self.unlisted(entry));
        }
        problems
    }

    /// Those whom it would have us ask though the configuration does not list them.
    fn unlisted(&self, entry: &PolicyEntry) -> Vec<Problem> {
        let trimmed = |url: &str| url.trim_end_matches('/').to_owned();
        let listed = |url: &str| {
            let mut listed = self.keys.matchers.iter().flatten();
            listed.any(|known| trimmed(known) == trimmed(url))
        };
        let asked = [("url", &entry.url), ("server", &entry.server)];
        let asked = asked
            .into_iter()
            .filter_map(|(key, url)| Some((key, url.as_ref()?)));
        let unlisted = asked.filter(|(_, url)| !listed(url));
        let problem = |(key, url): (&str, &String)| {
            let message = format!("{url:?} is not among the configuration's `matchers`");
            Problem::at(key, message)
        };
        unlisted.map(problem).collect()
    }
}
