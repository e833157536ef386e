//! The dynamic file in force: read, checked as a whole, applied by one swap; or
//! refused as a whole, and the last good one stays.

use std::cell::Ref;
use std::sync::Arc;
use std::time::SystemTime;

use bytes::Bytes;
use serde_json::{Value, json};
use tokio::signal::unix::{SignalKind, signal};

use super::Control;
use crate::api::exposition::{Kind, single};
use crate::config::dynamic::DynamicFile;
use crate::config::problem::{Problem, Problems};
use crate::config::resolve::overlay;
use crate::config::validate::parse;
use crate::config::watch::{FileWatch, settled};
use crate::config::{DynamicSource, Settings, difference};

/// How reloading goes.
#[derive(Debug)]
pub(super) struct ReloadStatus {
    /// The file's keys as they are in force; `None` without a file.
    applied: Option<DynamicFile>,
    /// The bytes seen last, good or bad.
    seen: Vec<u8>,
    /// What is wrong with them.
    failure: Option<Problems>,
    succeeded_at: SystemTime,
    successes: u64,
    failures: u64,
}

impl ReloadStatus {
    pub(super) fn first(source: Option<&DynamicSource>) -> Self {
        Self {
            applied: source.map(|source| source.first.keys.clone()),
            seen: source.map_or_else(Vec::new, |source| source.first.bytes.clone()),
            failure: None,
            succeeded_at: SystemTime::now(),
            successes: u64::from(source.is_some()),
            failures: 0,
        }
    }

    /// Appends the series that tell of it.
    pub(super) fn expose(&self, out: &mut String, generation: u64) {
        let since = self.succeeded_at.duration_since(SystemTime::UNIX_EPOCH);
        let at = since.unwrap_or_default().as_secs_f64();
        let succeeded = u8::from(self.failure.is_none());
        for (name, kind, help, value) in [
            (
                "pilotfish_config_last_reload_successful",
                Kind::Gauge,
                "Whether the configuration as it was last seen is in force.",
                succeeded.to_string(),
            ),
            (
                "pilotfish_config_last_reload_success_timestamp_seconds",
                Kind::Gauge,
                "When a configuration was last put in force.",
                at.to_string(),
            ),
            (
                "pilotfish_config_reloads_total",
                Kind::Counter,
                "Configurations put in force.",
                self.successes.to_string(),
            ),
            (
                "pilotfish_config_reload_failures_total",
                Kind::Counter,
                "Configurations refused.",
                self.failures.to_string(),
            ),
            (
                "pilotfish_config_generation",
                Kind::Gauge,
                "Counts the changes of settings and engines.",
                generation.to_string(),
            ),
        ] {
            single(out, name, kind, help, &value);
        }
    }
}

impl Control {
    /// Looks at the file whenever there is reason to.
    pub(super) async fn watch_file(&self) {
        let Some(source) = &self.dynamic else {
            return std::future::pending().await;
        };
        let watch = FileWatch::start(&source.file);
        let mut hangup = signal(SignalKind::hangup()).ok();
        loop {
            let hung_up = async {
                match &mut hangup {
                    Some(signal) => signal.recv().await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = watch.stirred() => {}
                _ = hung_up => tracing::info!("SIGHUP: looking at the dynamic file"),
            }
            let seen = self.reloads.borrow().seen.clone();
            match settled(&source.file, &seen).await {
                None => {}
                Some(found) => {
                    // A policy that is being registered was tried with what is in force.
                    let _turn = self.changing.lock().await;
                    self.take(source, found);
                }
            }
        }
    }

    /// Puts the file's new content in force, or says why not.
    fn take(&self, source: &DynamicSource, found: Result<Vec<u8>, Vec<Problem>>) {
        let refused = match found {
            Ok(bytes) => {
                let keys = parse(&bytes, source.first.format);
                self.reloads.borrow_mut().seen = bytes;
                keys.and_then(|keys| self.apply(source, keys)).err()
            }
            Err(problems) => {
                // Whatever comes next is news.
                self.reloads.borrow_mut().seen.clear();
                Some(problems)
            }
        };
        if let Some(list) = refused {
            let of = source.file.display().to_string();
            self.refuse(Problems { of, list });
        }
    }

    fn apply(&self, source: &DynamicSource, keys: DynamicFile) -> Result<(), Vec<Problem>> {
        let resolved = (self.policies.load()).resolve(&overlay(&keys, &self.flags))?;
        self.begin_smart(&resolved.settings)?;
        for warning in &resolved.warnings {
            tracing::warn!("{}: {warning}", source.file.display());
        }
        for one in &resolved.set_aside {
            tracing::error!(uri = one.uri, "a registered policy is set aside: {one}");
        }
        if !self.put_in_force(resolved.settings) {
            tracing::info!("the dynamic file is good, and changes nothing");
        }
        {
            let mut reloads = self.reloads.borrow_mut();
            reloads.applied = Some(keys);
            reloads.failure = None;
            reloads.succeeded_at = SystemTime::now();
            reloads.successes += 1;
        }
        let page = health_page(self.reloads.borrow().applied.as_ref());
        self.health.store(Arc::new(page));
        Ok(())
    }

    /// Begins to learn of models, if the settings need it.
    fn begin_smart(&self, settings: &Settings) -> Result<(), Vec<Problem>> {
        let is_needed = settings.routing.learns();
        let begun = is_needed.then(|| self.smart.start(&self.published));
        begun.unwrap_or(Ok(())).map_err(|error| {
            let message = format!("a policy of type smart cannot begin: {error}");
            vec![Problem::at("policies", message)]
        })
    }

    /// What flags and file say together, as they are in force.
    pub(super) fn keys(&self) -> DynamicFile {
        let reloads = self.reloads.borrow();
        let applied = reloads.applied.as_ref();
        applied.map_or_else(|| self.flags.clone(), |keys| overlay(keys, &self.flags))
    }

    /// Has a file that was refused looked at again at the next occasion: what has
    /// been registered may be what it lacked.
    pub(super) fn look_again(&self) {
        let mut reloads = self.reloads.borrow_mut();
        if reloads.failure.is_some() {
            reloads.seen.clear();
        }
    }

    /// Acts by these settings from now on; false when they are those in force.
    pub(super) fn put_in_force(&self, settings: Settings) -> bool {
        let new = Arc::new(settings);
        let old = self.settings.replace(Arc::clone(&new));
        let changes = difference::words(&old, &new);
        if changes.is_empty() {
            return false;
        }
        if old.kubernetes != new.kubernetes {
            self.watch_others();
        }
        self.reconcile();
        self.asks_again.set(true);
        self.newcomers.notify_one();
        let generation = self.published.load().generation;
        tracing::info!(generation, "configuration applied: {changes}");
        true
    }

    fn refuse(&self, problems: Problems) {
        let mut reloads = self.reloads.borrow_mut();
        if reloads.failure.as_ref() != Some(&problems) {
            tracing::error!("the configuration stays as it is: {problems}");
            reloads.failure = Some(problems);
            reloads.failures += 1;
        }
    }

    /// The page behind the admin listener's `/config`.
    pub(super) fn config_page(&self) -> Value {
        let reloads: Ref<'_, ReloadStatus> = self.reloads.borrow();
        let settings = self.settings.borrow();
        json!({
            "generation": self.published.load().generation,
            "file": self.dynamic.as_ref().map(|source| source.file.display().to_string()),
            "applied": reloads.applied.as_ref().map(reference_form),
            "last_reload_successful": reloads.failure.is_none(),
            "problems": reloads.failure.as_ref().map(|failure| {
                failure.list.iter().map(ToString::to_string).collect::<Vec<_>>()
            }),
            "policy": &*self.published.load().policies.default.spec.name,
            "registered_policies": self.policies.load().registered()
                .map(|policy| policy.uri.clone()).collect::<Vec<_>>(),
            "engines": self.published.load().all.candidates.list().len(),
            "aliases": settings.aliases,
        })
    }
}

/// The page behind `/health`.
pub(super) fn health_page(applied: Option<&DynamicFile>) -> Bytes {
    // By hand, since the reference's status comes first.
    applied.map_or_else(
        || Bytes::from_static(br#"{"status":"healthy"}"#),
        |keys| {
            let keys = reference_form(keys);
            Bytes::from(format!(r#"{{"status":"healthy","dynamic_config":{keys}}}"#))
        },
    )
}

/// The keys as the reference router shows them: its own always, sorted, with
/// its defaults; ours when they are used.
fn reference_form(keys: &DynamicFile) -> Value {
    let mut shown = serde_json::to_value(keys).unwrap_or_default();
    for (key, default) in [
        ("static_backend_health_checks", json!(false)),
        ("static_backend_health_check_interval", json!(60)),
        ("static_backend_health_check_timeout_seconds", json!(10)),
    ] {
        if shown[key].is_null() {
            shown[key] = default;
        }
    }
    shown
}
