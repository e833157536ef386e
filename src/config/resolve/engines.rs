//! Engines and aliases, in whichever form they were written.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use super::super::auth::KeyFrom;
use super::super::dynamic::{DynamicFile, EngineEntry};
use super::super::flat::items;
use super::super::{EngineUrl, ListedEngine, Traits};
use super::Resolving;

/// Engines by URL, in the order in which they came.
#[derive(Default)]
struct Engines {
    list: Vec<ListedEngine>,
    known: BTreeMap<String, usize>,
}

/// An engine's models, and all else.
type Said = (Option<Vec<String>>, Traits);

impl EngineEntry {
    /// What it says beside where the engine is and what it serves.
    #[must_use]
    pub fn traits(&self) -> Traits {
        Traits {
            weight: self.weight.unwrap_or(1.0),
            block: self.block.clone(),
            region: self.region.clone(),
            labels: self.labels.clone(),
            privacy: self.privacy,
            cost: self.cost,
            engine_type: self.engine_type,
            metadata: self.metadata.clone(),
            draining: self.draining,
            key: match (&self.api_key_env, &self.api_key_file) {
                (Some(name), _) => Some(KeyFrom::Env(name.clone())),
                (None, Some(file)) => Some(KeyFrom::File(file.into())),
                (None, None) => None,
            },
        }
    }
}

impl Resolving {
    pub(super) fn aliases(&mut self, keys: &DynamicFile) -> BTreeMap<String, String> {
        if keys.aliases.is_some() && keys.static_aliases.is_some() {
            self.wrong("aliases", "and static_aliases say the same thing: keep one");
        }
        let mut aliases = keys.aliases.clone().unwrap_or_default();
        for pair in items(keys.static_aliases.as_deref().unwrap_or_default()) {
            // A model's name may have colons of its own.
            match pair.split_once(':') {
                Some((alias, model)) if !alias.is_empty() && !model.is_empty() => {
                    self.alias("static_aliases", &mut aliases, alias, model);
                }
                _ => self.wrong(
                    "static_aliases",
                    format!("{pair:?} is no alias; expected ALIAS:MODEL"),
                ),
            }
        }
        aliases
    }

    fn alias(
        &mut self,
        path: &str,
        aliases: &mut BTreeMap<String, String>,
        alias: &str,
        model: &str,
    ) {
        match aliases.entry(alias.to_owned()) {
            Entry::Vacant(free) => {
                free.insert(model.to_owned());
            }
            Entry::Occupied(taken) if taken.get() != model => {
                let message = format!("{alias:?} stands for both {:?} and {model:?}", taken.get());
                self.wrong(path, message);
            }
            Entry::Occupied(_) => {}
        }
    }

    /// An alias leads to a model, never to an alias, and hides no model.
    pub(super) fn alias_targets(
        &mut self,
        aliases: &BTreeMap<String, String>,
        engines: &[ListedEngine],
    ) {
        for (alias, model) in aliases {
            if aliases.contains_key(model) {
                self.wrong("aliases", format!("{alias:?} leads to the alias {model:?}"));
            }
            let mut served = engines.iter().filter_map(|engine| engine.models.as_ref());
            if served.any(|models| models.contains(alias)) {
                let message = format!("{alias:?} is also the name of a model that is served");
                self.wrong("aliases", message);
            }
        }
    }

    pub(super) fn entries(
        &mut self,
        entries: &[EngineEntry],
        aliases: &mut BTreeMap<String, String>,
    ) -> Vec<ListedEngine> {
        let mut engines = Engines::default();
        for (index, entry) in entries.iter().enumerate() {
            let path = format!("engines[{index}]");
            for (alias, model) in &entry.aliases {
                self.alias(&format!("{path}.aliases"), aliases, alias, model);
                if entry.models.as_ref().is_some_and(|m| !m.contains(model)) {
                    let message = format!("{alias:?} leads to {model:?}, which is not in models");
                    self.wrong(format!("{path}.aliases"), message);
                }
            }
            self.own_key(&path, entry);
            let said = (entry.models.clone(), entry.traits());
            self.add(&mut engines, &path, &entry.url, said);
        }
        engines.list
    }

    /// An engine's key comes from one place.
    fn own_key(&mut self, path: &str, entry: &EngineEntry) {
        let (env, file) = (&entry.api_key_env, &entry.api_key_file);
        if env.is_some() && file.is_some() {
            let message = "and api_key_file say where the same key is: keep one";
            self.wrong(format!("{path}.api_key_env"), message);
        }
        let is_name = |name: &str| {
            let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
            let begins = name
                .bytes()
                .next()
                .is_some_and(|byte| !byte.is_ascii_digit());
            begins && name.bytes().all(is_plain)
        };
        if env.as_deref().is_some_and(|name| !is_name(name)) {
            // Someone may have written the key itself.
            let message = "is no name of a variable; expected letters, digits and _, as LLAMA_KEY";
            self.wrong(format!("{path}.api_key_env"), message);
        }
        if file.as_deref().is_some_and(str::is_empty) {
            self.wrong(format!("{path}.api_key_file"), "is empty; expected a path");
        }
    }

    pub(super) fn flat(&mut self, keys: &DynamicFile) -> Vec<ListedEngine> {
        let list = |key: &Option<String>| {
            let list = key.as_deref().map(items)?;
            Some(list.into_iter().map(str::to_owned).collect::<Vec<_>>())
        };
        let urls = list(&keys.static_backends).unwrap_or_default();
        let [models, labels, types] = [
            &keys.static_models,
            &keys.static_model_labels,
            &keys.static_model_types,
        ]
        .map(list);
        for (name, given) in [
            ("static_models", &models),
            ("static_model_labels", &labels),
            ("static_model_types", &types),
        ] {
            if let Some(given) = given
                && given.len() != urls.len()
            {
                let message = format!(
                    "lists {}, but static_backends lists {}: give one for each URL, in the same \
                     order (a URL with two models is listed twice)",
                    given.len(),
                    urls.len()
                );
                self.wrong(name, message);
            }
        }
        let mut engines = Engines::default();
        for (index, url) in urls.iter().enumerate() {
            let at = |list: &Option<Vec<String>>| list.as_ref()?.get(index).cloned();
            let mut traits = Traits::default();
            for (name, given) in [("model_label", &labels), ("model_type", &types)] {
                if let Some(value) = at(given) {
                    traits.labels.insert(name.to_owned(), value);
                }
            }
            let models = at(&models).map(|model| vec![model]);
            let path = format!("static_backends[{index}]");
            self.add(&mut engines, &path, url, (models, traits));
        }
        engines.list
    }

    /// Adds an engine of which that is said, or its models to one that is there
    /// already.
    fn add(&mut self, engines: &mut Engines, path: &str, url: &str, said: Said) {
        let (models, traits) = said;
        let weight = traits.weight;
        if !(weight.is_finite() && weight >= 0.0) {
            let message = format!("{weight} is no weight; expected 0 or more");
            return self.wrong(format!("{path}.weight"), message);
        }
        let mut engine = match EngineUrl::parse(url) {
            Ok(url) => ListedEngine {
                url,
                models,
                traits: Arc::new(traits),
            },
            Err(error) => return self.wrong(path, error.to_string()),
        };
        let Some(at) = engines.known.get(url) else {
            engines.known.insert(url.to_owned(), engines.list.len());
            engines.list.push(engine);
            return;
        };
        let known = &mut engines.list[*at];
        if let (Some(known), Some(models)) = (&mut known.models, engine.models) {
            known.extend(models);
            let mut seen = HashSet::new();
            known.retain(|model| seen.insert(model.clone()));
        }
        if known.traits.weight != weight {
            let message = format!(
                "{url} is listed twice, with weights {} and {weight}: list it once",
                known.traits.weight
            );
            return self.wrong(path, message);
        }
        // The flat form has labels for each pair of URL and model.
        let both = Arc::make_mut(&mut engine.traits);
        both.labels.extend(known.traits.labels.clone());
        Arc::make_mut(&mut known.traits)
            .labels
            .clone_from(&both.labels);
        if known.traits != engine.traits {
            self.wrong(path, format!("{url} is listed twice, and differs"));
        }
    }
}
