//! The reference router's flags that mean nothing here: accepted, so that
//! nobody's command line breaks, and told of, so that nobody is misled.

use std::ffi::OsString;

use clap::error::ErrorKind;
use clap::parser::ValueSource;
use clap::{Arg, ArgAction, ArgMatches, Args, Command, Error, FromArgMatches};

use crate::config::problem::Problem;

/// One such flag.
#[derive(Debug, Clone, Copy)]
pub struct Ignored {
    /// Its name, without the dashes.
    pub name: &'static str,
    /// Whether a value follows it.
    pub takes_value: bool,
    /// Why, and what to do instead.
    pub instead: &'static str,
}

const fn value(name: &'static str, instead: &'static str) -> Ignored {
    Ignored {
        name,
        takes_value: true,
        instead,
    }
}

const fn switch(name: &'static str, instead: &'static str) -> Ignored {
    Ignored {
        name,
        takes_value: false,
        instead,
    }
}

const LMCACHE: &str = "there is no LMCache controller here";
const CACHE: &str = "answers are never cached; put a cache in front";
const BATCH: &str = "there is no batch API here; engines' own is passed through";
const SENTRY: &str = "errors are logged and counted in /metrics";
const PREFILL: &str = "prefill and decode are not told apart; leave them to the engines";

/// Accepted, each with a warning.
pub const WITHOUT_EFFECT: [Ignored; 20] = [
    value(
        "backend-health-check-timeout-seconds",
        "engines get 5 s to tell their models",
    ),
    value("lmcache-controller-port", LMCACHE),
    value("lmcache-controller-reply-port", LMCACHE),
    value("lmcache-controller-heartbeat-port", LMCACHE),
    value("lmcache-health-check-interval", LMCACHE),
    value("lmcache-worker-timeout", LMCACHE),
    value("kv-aware-threshold", LMCACHE),
    value("prefill-model-labels", PREFILL),
    value("decode-model-labels", PREFILL),
    value(
        "request-rewriter",
        "it does nothing in the reference either",
    ),
    value("file-storage-class", BATCH),
    value("file-storage-path", BATCH),
    value("batch-processor", BATCH),
    value("feature-gates", "there are none"),
    value("semantic-cache-model", CACHE),
    value("semantic-cache-dir", CACHE),
    value("semantic-cache-threshold", CACHE),
    value("sentry-dsn", SENTRY),
    value("sentry-traces-sample-rate", SENTRY),
    value("sentry-profile-session-sample-rate", SENTRY),
];

/// Refused: to go on without them would be unsafe.
pub const REFUSED: [Ignored; 3] = [
    value(
        "callbacks",
        "code is not loaded, and ignoring a check of access would be unsafe; put it into a \
         proxy in front of this one",
    ),
    switch(
        "enable-batch-api",
        "files and batches would be lost; send them to an engine that has the batch API",
    ),
    value(
        "external-providers-config",
        "providers are engines here: list their URLs in --static-backends",
    ),
];

/// Which of them were given.
#[derive(Debug, Clone, Default)]
pub struct Given {
    ignored: Vec<Ignored>,
    refused: Vec<Ignored>,
}

impl Given {
    /// One line for each.
    pub(super) fn warnings(&self) -> impl Iterator<Item = String> {
        let line = |flag: &Ignored| format!("--{} has no effect: {}", flag.name, flag.instead);
        self.ignored.iter().map(line)
    }

    /// What keeps us from starting.
    pub(super) fn problems(&self) -> Vec<Problem> {
        let problem = |flag: &Ignored| {
            Problem::at(
                format!("--{}", flag.name),
                format!("is not supported: {}", flag.instead),
            )
        };
        self.refused.iter().map(problem).collect()
    }
}

fn arg(flag: Ignored, heading: &'static str) -> Arg {
    let arg = Arg::new(flag.name)
        .long(flag.name)
        .help(flag.instead)
        .help_heading(heading);
    if flag.takes_value {
        arg.value_name("VALUE")
            .value_parser(clap::value_parser!(OsString))
    } else {
        arg.action(ArgAction::SetTrue)
    }
}

impl Args for Given {
    fn augment_args(command: Command) -> Command {
        command
            .args(WITHOUT_EFFECT.map(|flag| arg(flag, "Accepted without effect")))
            .args(REFUSED.map(|flag| arg(flag, "Refused")))
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

impl FromArgMatches for Given {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, Error> {
        let is_given = |flag: &Ignored| {
            let source = matches.value_source(flag.name);
            let is_on = flag.takes_value || matches.get_flag(flag.name);
            is_on && !matches!(source, None | Some(ValueSource::DefaultValue))
        };
        Ok(Self {
            ignored: WITHOUT_EFFECT.into_iter().filter(is_given).collect(),
            refused: REFUSED.into_iter().filter(is_given).collect(),
        })
    }

    fn update_from_arg_matches(&mut self, _: &ArgMatches) -> Result<(), Error> {
        // Nothing of ours updates arguments.
        Err(Error::new(ErrorKind::InvalidSubcommand))
    }
}
