//! Files of keys while we serve: read again when they change, put in force as a
//! whole or not at all; the last good one stays.

use std::cell::Cell;
use std::rc::Rc;
use std::time::{Duration, SystemTime};

use tokio::signal::unix::{SignalKind, signal};

use super::Control;
use crate::api::exposition::{Kind, callers, single};
use crate::auth::{Auth, Token};
use crate::config::auth::{Bytes, CallersSource, KeptSecret, Secret, parse};
use crate::config::problem::{Problem, Problems};
use crate::config::watch::{FileWatch, POLL, settled};

/// How the file of callers does.
#[derive(Debug)]
pub(super) struct CallersStatus {
    /// The bytes seen last, good or bad.
    seen: Bytes,
    /// What is wrong with them.
    failure: Option<Problems>,
    succeeded_at: SystemTime,
    successes: u64,
    failures: u64,
    /// Keys of engines that could not be read when they were last looked at.
    unreadable: usize,
}

impl CallersStatus {
    pub(super) fn first(source: Option<&CallersSource>) -> Self {
        Self {
            seen: source.map_or_else(|| Bytes(Vec::new()), |source| source.bytes.clone()),
            failure: None,
            succeeded_at: SystemTime::now(),
            successes: u64::from(source.is_some()),
            failures: 0,
            unreadable: 0,
        }
    }

    fn refuse(&mut self, problems: Problems) {
        if self.failure.as_ref() != Some(&problems) {
            tracing::error!("who may call stays as it is: {problems}");
            self.failure = Some(problems);
            self.failures += 1;
        }
    }

    fn expose(&self, out: &mut String, auth: &Auth) {
        let since = self.succeeded_at.duration_since(SystemTime::UNIX_EPOCH);
        let at = since.unwrap_or_default().as_secs_f64();
        for (name, kind, help, value) in [
            (
                "pilotfish_callers",
                Kind::Gauge,
                "Callers that the file names.",
                auth.count().to_string(),
            ),
            (
                "pilotfish_callers_last_reload_successful",
                Kind::Gauge,
                "Whether the file of callers as it was last seen is in force.",
                u8::from(self.failure.is_none()).to_string(),
            ),
            (
                "pilotfish_callers_last_reload_success_timestamp_seconds",
                Kind::Gauge,
                "When a file of callers was last put in force.",
                at.to_string(),
            ),
            (
                "pilotfish_callers_reloads_total",
                Kind::Counter,
                "Files of callers put in force.",
                self.successes.to_string(),
            ),
            (
                "pilotfish_callers_reload_failures_total",
                Kind::Counter,
                "Files of callers refused.",
                self.failures.to_string(),
            ),
        ] {
            single(out, name, kind, help, &value);
        }
        callers(out, auth);
    }
}

impl Control {
    /// Looks at the file of callers whenever there is reason to.
    pub(super) async fn watch_callers(&self) {
        let Some((source, auth)) = &self.callers else {
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
                _ = hung_up => {}
            }
            let seen = self.callers_status.borrow().seen.clone();
            if let Some(found) = settled(&source.file, &seen.0).await {
                self.take_callers((source, auth), found);
            }
        }
    }

    fn take_callers(
        &self,
        (source, auth): (&CallersSource, &Auth),
        found: Result<Vec<u8>, Vec<Problem>>,
    ) {
        let mut status = self.callers_status.borrow_mut();
        // Of a file that cannot be read, whatever comes next is news.
        status.seen = Bytes(match &found {
            Ok(bytes) => bytes.clone(),
            Err(_) => Vec::new(),
        });
        match found.and_then(|bytes| parse(&bytes)) {
            Ok(entries) => {
                auth.replace(&entries);
                status.failure = None;
                status.succeeded_at = SystemTime::now();
                status.successes += 1;
                tracing::info!(callers = entries.len(), "who may call has changed");
            }
            Err(list) => status.refuse(Problems {
                of: source.file.display().to_string(),
                list,
            }),
        }
    }

    /// Reads the keys of engines again, now and then.
    pub(super) async fn refresh_engine_keys(&self) {
        loop {
            tokio::time::sleep(POLL).await;
            let unreadable = self.fleet.borrow_mut().refresh_credentials();
            self.callers_status.borrow_mut().unreadable = unreadable;
        }
    }

    /// Appends the series that tell of keys.
    pub(super) fn expose_keys(&self, out: &mut String) {
        let status = self.callers_status.borrow();
        let name = "pilotfish_engine_keys_unreadable";
        let help = "Keys of engines that could not be read when they were last looked at.";
        single(out, name, Kind::Gauge, help, &status.unreadable.to_string());
        if let Some((_, auth)) = &self.callers {
            status.expose(out, auth);
        }
    }
}

/// What the admin listener asks for.
#[derive(Debug)]
pub(super) struct AdminToken {
    token: Rc<Cell<Token>>,
    kept: KeptSecret,
    complaint: Option<Problem>,
}

impl AdminToken {
    /// How often its file is read again.
    pub(super) const EVERY: Duration = POLL;

    pub(super) fn new(kept: KeptSecret) -> Self {
        Self {
            token: Rc::new(Cell::new(Token::of(&kept.first))),
            kept,
            complaint: None,
        }
    }

    /// What must be shown now; it changes with the file.
    pub(super) fn token(&self) -> Rc<Cell<Token>> {
        Rc::clone(&self.token)
    }

    /// Reads it again; the last good one stays.
    pub(super) fn refresh(&mut self) {
        let Some(file) = &self.kept.file else { return };
        match Secret::read(file) {
            Ok(secret) => {
                self.complaint = None;
                if secret != self.kept.first {
                    tracing::info!("the admin listener's token has changed");
                    self.token.set(Token::of(&secret));
                    self.kept.first = secret;
                }
            }
            Err(problem) => {
                if self.complaint.as_ref() != Some(&problem) {
                    tracing::error!("the admin listener's token stays as it is: {problem}");
                    self.complaint = Some(problem);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_holds_the_token_sees_it_change() {
        let name = format!("pilotfish-admin-token-{}", std::process::id());
        let file = std::env::temp_dir().join(name);
        std::fs::write(&file, "old").unwrap();
        let first = Secret::read(&file).unwrap();
        let mut token = AdminToken::new(KeptSecret {
            first,
            file: Some(file.clone()),
        });
        let held = token.token();
        let takes = |text: &str| {
            let mut headers = http::HeaderMap::new();
            let value = format!("Bearer {text}").try_into().unwrap();
            headers.insert(http::header::AUTHORIZATION, value);
            held.get().is_shown(&headers)
        };
        // What is no token leaves the last one in force.
        for (content, now) in [("old", "old"), ("new", "new"), ("", "new"), ("3", "3")] {
            std::fs::write(&file, content).unwrap();
            token.refresh();
            for text in ["old", "new", "3"] {
                assert_eq!(takes(text), text == now, "{content:?} {text}");
            }
        }
        std::fs::remove_file(&file).unwrap();
    }
}
