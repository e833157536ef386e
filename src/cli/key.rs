//! `pilotfish key`: a new key for a caller, and its entry for the file of keys.

use std::fmt::Write as _;
use std::io::Write as _;

use clap::Args;
use ring::rand::{SecureRandom as _, SystemRandom};
use serde_json::json;

use crate::auth::hash;
use crate::config::auth::parse;
use crate::config::problem::Problems;

/// What keys begin with, so that whoever finds one knows whose it is.
const PREFIX: &str = "pf-";

/// Flags of `pilotfish key`.
#[derive(Debug, Args)]
pub struct KeyArgs {
    /// What the caller is called in logs and metrics.
    #[arg(long, value_name = "NAME", default_value = "caller")]
    name: String,
}

impl KeyArgs {
    /// Prints a key, which is kept nowhere, and the entry that knows it by its hash.
    ///
    /// # Errors
    /// A name that none may have, or no random numbers.
    pub fn run(&self) -> anyhow::Result<()> {
        let mut random = [0; 32];
        let filled = SystemRandom::new().fill(&mut random);
        filled.map_err(|_| anyhow::anyhow!("the system gives no random numbers"))?;
        let text = text(&self.name, random)?;
        let mut out = std::io::stdout().lock();
        out.write_all(text.as_bytes())?;
        Ok(out.flush()?)
    }
}

fn text(name: &str, random: [u8; 32]) -> Result<String, Problems> {
    let key = format!("{PREFIX}{}", hex(random));
    let entry = json!({"name": name, "sha256": hex(hash(key.as_bytes()).0)});
    let file = json!({"keys": [&entry]}).to_string();
    parse(file.as_bytes()).map_err(|list| Problems {
        of: "--name".to_owned(),
        list,
    })?;
    Ok(format!("key:   {key}\nentry: {entry}\n"))
}

fn hex(bytes: [u8; 32]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        // Writing to a String cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::auth::Auth;

    #[test]
    fn the_entry_knows_the_key() {
        let text = text("team-a", [7; 32]).unwrap();
        let (key, entry) = text.split_once('\n').unwrap();
        let key = key.strip_prefix("key:   ").unwrap();
        let entry = entry.strip_prefix("entry: ").unwrap();
        let entries = parse(format!(r#"{{"keys": [{entry}]}}"#).as_bytes()).unwrap();
        let mut headers = http::HeaderMap::new();
        headers.insert("x-api-key", key.parse().unwrap());
        let admitted = Auth::new(&entries).admit(&headers, None).unwrap();
        assert_eq!((key.len(), &*admitted.caller.name), (67, "team-a"));
        assert!(!entry.contains(key));
        let error = super::text("two words", [0; 32]).unwrap_err().to_string();
        assert!(error.contains("--name: keys[0].name: expected"), "{error}");
    }
}
