//! `pilotfish engines`: the fleet as a running sidecar sees it.

mod sidecar;
mod table;

use std::ffi::OsStr;
use std::io::{self, IsTerminal as _, Write as _};
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use clap::Args;
use serde_json::Value;

use crate::config::auth::Secret;
use crate::config::duration;
use sidecar::Sidecar;
use table::Look;

/// A shorter `--watch` would be a load of its own.
const MOST_OFTEN: Duration = Duration::from_millis(100);
/// To the upper left corner, and nothing below it.
const CLEAR: &str = "\x1b[H\x1b[2J";

/// Flags of `pilotfish engines`.
#[derive(Debug, Args)]
#[command(
    after_help = "The columns: requests in flight, QPS, TTFT, ITL, tokens/s and failed are what \
    this sidecar saw of the engine, within the window that the first line names; running, waiting \
    (over 1m: on average over the last minute) and KV are what the engine told of itself, age seconds ago. \"-\": not known.\n\n\
    Exit codes: 0 every engine is healthy; 1 one is not, or there is none; 2 the sidecar could not be asked.\n"
)]
pub struct EnginesArgs {
    /// The sidecar, as HOST:PORT or http://HOST:PORT, with its --root-path if it
    /// has one.
    #[arg(value_name = "URL", default_value = "http://127.0.0.1:8001")]
    url: String,
    /// A file with the API key, where the sidecar asks for one
    /// [default: the variable PILOTFISH_API_KEY].
    #[arg(long, value_name = "FILE")]
    api_key_file: Option<PathBuf>,
    /// The sidecar's own document instead of a table.
    #[arg(long)]
    json: bool,
    /// Ask again and again, until stopped; on a terminal, in place
    /// [default: every 2 s].
    #[arg(long, value_name = "SECONDS", num_args = 0..=1, default_missing_value = "2", value_parser = duration)]
    watch: Option<Duration>,
}

/// Engines that are not as they should be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Unwell {
    /// There is nobody to ask.
    #[error("the sidecar knows no engine")]
    NoEngines,
    /// Some are set aside, asleep, or on trial.
    #[error("{count} of {all} engines not healthy")]
    Engines {
        /// How many.
        count: usize,
        /// Of how many.
        all: usize,
    },
}

impl EnginesArgs {
    /// Asks, and prints what the sidecar tells.
    ///
    /// # Errors
    /// [`Unwell`] when all was printed, and an engine is not well; else, why
    /// nothing could be had.
    pub fn run(&self) -> anyhow::Result<()> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build_local(tokio::runtime::LocalOptions::default())?;
        let sidecar = Sidecar::new(&self.url, self.key()?)?;
        let told = match self.watch {
            None => runtime.block_on(self.once(&sidecar)),
            Some(every) => runtime.block_on(self.again(&sidecar, every.max(MOST_OFTEN))),
        };
        told.or_else(|error| {
            // Whoever read it has had enough.
            let closed = error.downcast_ref::<io::Error>();
            match closed.map(io::Error::kind) {
                Some(io::ErrorKind::BrokenPipe) => Ok(()),
                _ => Err(error),
            }
        })
    }

    fn key(&self) -> anyhow::Result<Option<Secret>> {
        let text = std::env::var("PILOTFISH_API_KEY").unwrap_or_default();
        match &self.api_key_file {
            Some(file) => Ok(Some(
                Secret::read(file).map_err(|problem| anyhow::anyhow!("{problem}"))?,
            )),
            None if text.is_empty() => Ok(None),
            None => Secret::new(&text)
                .map(Some)
                .map_err(|why| anyhow::anyhow!("PILOTFISH_API_KEY {why}")),
        }
    }

    async fn once(&self, sidecar: &Sidecar) -> anyhow::Result<()> {
        let page = sidecar.engines().await?;
        print(&self.shown(&page)?)?;
        let entries = table::read(&page)?;
        let count = entries.iter().filter(|entry| !entry.is_healthy()).count();
        match entries.len() {
            0 => Err(Unwell::NoEngines.into()),
            all if count > 0 => Err(Unwell::Engines { count, all }.into()),
            _ => Ok(()),
        }
    }

    /// Only the first answer has to come: a sidecar may be restarted.
    async fn again(&self, sidecar: &Sidecar, every: Duration) -> anyhow::Result<()> {
        let before = Screen::this().clear();
        let mut told = Ok(self.shown(&sidecar.engines().await?)?);
        loop {
            let shown = match told {
                Ok(shown) => shown,
                Err(error) if self.json => {
                    tracing::warn!("{error:#}");
                    String::new()
                }
                Err(error) => format!("{error:#}\n"),
            };
            if self.json {
                print(&shown)?;
            } else {
                let now = httpdate::fmt_http_date(SystemTime::now());
                print(&format!("{before}{now}\n{shown}\n"))?;
            }
            tokio::time::sleep(every).await;
            told = sidecar.engines().await.and_then(|page| self.shown(&page));
        }
    }

    fn shown(&self, page: &Value) -> anyhow::Result<String> {
        if self.json {
            let text = format!("{page:#}\n");
            return Ok(match Screen::this() {
                Screen::None => text,
                Screen::Dumb | Screen::Able => table::escaped(&text),
            });
        }
        Ok(table::table(&table::read(page)?, Screen::this().look()))
    }
}

/// Where the text goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Screen {
    /// Into a file or a pipe.
    None,
    /// To a terminal that knows no controls.
    Dumb,
    /// To any other.
    Able,
}

impl Screen {
    fn this() -> Self {
        if !io::stdout().is_terminal() {
            return Self::None;
        }
        Self::named(std::env::var_os("TERM").as_deref())
    }

    /// A terminal that `TERM` says this of.
    fn named(term: Option<&OsStr>) -> Self {
        match term {
            Some(term) if term == "dumb" => Self::Dumb,
            _ => Self::Able,
        }
    }

    /// What comes before each table.
    fn clear(self) -> &'static str {
        match self {
            Self::Able => CLEAR,
            Self::None | Self::Dumb => "",
        }
    }

    /// Colours are for people who want them: <https://no-color.org>.
    fn look(self) -> Look {
        let is_set = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        if self == Self::Able && !is_set {
            Look::Coloured
        } else {
            Look::Plain
        }
    }
}

fn print(text: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())?;
    out.flush()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_terminal_without_controls_gets_none() {
        let dumb = Screen::named(Some(OsStr::new("dumb")));
        for screen in [dumb, Screen::None] {
            assert_eq!((screen.clear(), screen.look()), ("", Look::Plain));
        }
        for term in [None, Some(OsStr::new("xterm-256color"))] {
            assert_eq!(Screen::named(term).clear(), CLEAR);
        }
    }
}
