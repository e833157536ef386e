//! The dynamic file that the proxy runs under, changed again and again while
//! it works: what requests are under way must not notice.

use std::path::PathBuf;

use anyhow::{Context as _, anyhow};
use serde_json::json;

use super::MODEL;
use crate::config::resolve::resolve;
use crate::config::validate::{Format, load};
use crate::config::{DynamicSource, Settings};

/// Policies that are changed between; all of them ask every engine.
const POLICIES: [&str; 3] = ["roundrobin", "random", "leastconnections"];
/// Aliases that come and go.
const ALIASES: usize = 5;

/// A file in a folder of its own, which goes with it.
#[derive(Debug)]
pub(super) struct File {
    folder: PathBuf,
    urls: Vec<String>,
    turn: usize,
}

impl File {
    pub(super) fn new(urls: Vec<String>) -> anyhow::Result<Self> {
        let name = format!(
            "pilotfish-chaos-{}-{:x}",
            std::process::id(),
            fastrand::u64(..)
        );
        let folder = std::env::temp_dir().join(name);
        std::fs::create_dir(&folder)
            .with_context(|| format!("cannot make the folder {}", folder.display()))?;
        let file = Self {
            folder,
            urls,
            turn: 0,
        };
        file.write()?;
        Ok(file)
    }

    fn path(&self) -> PathBuf {
        self.folder.join("dynamic.json")
    }

    /// What it means, and where it is.
    pub(super) fn load(&self) -> anyhow::Result<(Settings, DynamicSource)> {
        let file = self.path();
        let first = load(&file, Format::Json)?;
        let resolved = resolve(&first.keys).map_err(|problems| anyhow!("{problems:?}"))?;
        Ok((resolved.settings, DynamicSource { file, first }))
    }

    /// Says something else.
    pub(super) fn change(&mut self) -> anyhow::Result<()> {
        self.turn += 1;
        self.write()
    }

    /// Says what it said at first.
    pub(super) fn settle(&mut self) -> anyhow::Result<()> {
        self.turn = 0;
        self.write()
    }

    /// Replaces it at once, as an editor that is careful does.
    fn write(&self) -> anyhow::Result<()> {
        let next = self.folder.join("next");
        std::fs::write(&next, self.text())
            .and_then(|()| std::fs::rename(&next, self.path()))
            .context("cannot write the dynamic file")
    }

    /// The proxy as it is run, but for deadlines that end hung requests soon.
    fn text(&self) -> String {
        let engines: Vec<_> = (self.urls.iter())
            .map(|url| json!({"url": url, "models": [MODEL]}))
            .collect();
        let alias = format!("alias-{}", self.turn % ALIASES);
        let keys = json!({
            "service_discovery": "static",
            "routing_logic": POLICIES[self.turn % POLICIES.len()],
            "engines": engines,
            "aliases": {alias: MODEL},
            // An engine that relapses again and again would be left alone for
            // longer than the run waits for it.
            "breaker": {"ejection": 1, "max_ejection": 4},
            "timeouts": {"connect": 1, "engine_head": 1, "engine_idle": 1},
        });
        keys.to_string()
    }
}

impl Drop for File {
    fn drop(&mut self) {
        // What is left lies where the system cleans up.
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_changes_and_is_good_each_time() {
        let mut file = File::new(vec!["http://127.0.0.1:1".to_owned()]).unwrap();
        let (first, source) = file.load().unwrap();
        for _ in 0..POLICIES.len() * ALIASES {
            file.change().unwrap();
            let changed = file.load().unwrap().0;
            assert_eq!(changed.engines, first.engines);
        }
        file.change().unwrap();
        assert_ne!(file.load().unwrap().0, first);
        file.settle().unwrap();
        assert_eq!(file.load().unwrap().0, first);
        drop(file);
        assert!(!source.file.exists());
    }
}
