//! Flags that say who may call, and by which keys we call engines.

use std::path::{Path, PathBuf};

use clap::Args;

use crate::config::Config;
use crate::config::auth::{AuthSettings, KeptSecret, Proof, Secret, load};
use crate::config::problem::{Problem, Problems};
use crate::config::tls::ClientAuth;

/// The engines' key, as vLLM itself calls it.
const ENGINE_KEY: &str = "VLLM_API_KEY";
const ADMIN_TOKEN: &str = "PILOTFISH_ADMIN_TOKEN";

/// Who may call.
#[derive(Debug, Args)]
#[command(next_help_heading = "Who may call")]
pub struct AuthArgs {
    /// A file of keys, and of certificates' subjects, that may call; it is watched
    /// [default: whoever can connect may].
    #[arg(long, value_name = "FILE")]
    pub api_keys: Option<PathBuf>,
    /// A file with the key that engines are sent in place of the client's
    /// [default: the variable VLLM_API_KEY].
    #[arg(long, value_name = "FILE")]
    pub engine_key_file: Option<PathBuf>,
    /// A file with the token that the admin listener asks for
    /// [default: the variable PILOTFISH_ADMIN_TOKEN].
    #[arg(long, value_name = "FILE")]
    pub admin_token_file: Option<PathBuf>,
}

impl AuthArgs {
    /// What they mean, with the environment.
    ///
    /// # Errors
    /// All that is wrong with the first file, or variable, that cannot be used.
    pub(super) fn settings(&self) -> Result<AuthSettings, Problems> {
        let wrong = |problem: Problem| Problems {
            of: "flags and environment".to_owned(),
            list: vec![problem],
        };
        for (flag, file) in [
            ("--api-keys", &self.api_keys),
            ("--engine-key-file", &self.engine_key_file),
            ("--admin-token-file", &self.admin_token_file),
        ] {
            file.as_deref()
                .map_or(Ok(()), |file| is_there(flag, file))
                .map_err(wrong)?;
        }
        let kept =
            |file: &Option<PathBuf>, variable: &str| secret(file.as_ref(), variable).map_err(wrong);
        Ok(AuthSettings {
            callers: self.api_keys.as_deref().map(load).transpose()?,
            engine_key: kept(&self.engine_key_file, ENGINE_KEY)?,
            admin_token: kept(&self.admin_token_file, ADMIN_TOKEN)?,
        })
    }
}

/// Whether a flag names anything that exists. What names nothing may be the secret
/// itself, and is not shown.
fn is_there(flag: &str, file: &Path) -> Result<(), Problem> {
    let found = std::fs::metadata(file);
    found.map(drop).map_err(|error| {
        let message = format!(
            "the file that it names cannot be read: {error}; expected the path of a file, not \
             what is to stand in it"
        );
        Problem::at(flag, message)
    })
}

fn secret(file: Option<&PathBuf>, variable: &str) -> Result<Option<KeptSecret>, Problem> {
    if let Some(file) = file {
        return Ok(Some(KeptSecret {
            first: Secret::read(file)?,
            file: Some(file.clone()),
        }));
    }
    let text = std::env::var(variable).unwrap_or_default();
    if text.is_empty() {
        return Ok(None);
    }
    let first = Secret::new(&text).map_err(|why| Problem::at(variable, why))?;
    Ok(Some(KeptSecret { first, file: None }))
}

/// What leaves a door open that its owner may think is closed.
pub(super) fn warnings(config: &Config) -> Vec<String> {
    let mut warnings = Vec::new();
    let mut engines = config.settings.engines.iter();
    let has_key = config.auth.engine_key.is_some();
    let has_key = has_key || engines.any(|engine| engine.traits.key.is_some());
    let client_ca = config.tls.as_ref().and_then(|tls| tls.client_ca.as_ref());
    let is_closed = client_ca.is_some_and(|ca| ca.auth == ClientAuth::Required)
        || config.auth.callers.is_some()
        || config.listen.ip().is_loopback();
    if has_key && !is_closed {
        warnings.push(format!(
            "engines are called by a key of ours, and {} is open to whoever can connect: all of \
             them may use the key; see --api-keys",
            config.listen
        ));
    }
    if client_ca.is_none()
        && let Some(callers) = &config.auth.callers
        && (callers.first.iter()).any(|caller| matches!(caller.proof, Proof::Subject(_)))
    {
        warnings.push(format!(
            "{} has identities, but clients are asked for no certificate: none of these may \
             call; see --tls-client-ca",
            callers.file.display()
        ));
    }
    if let Some(admin) = config.admin
        && config.auth.admin_token.is_none()
        && !admin.ip().is_loopback()
    {
        warnings.push(format!(
            "the admin listener {admin} is open to whoever can connect; see --admin-token-file"
        ));
    }
    warnings
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::auth::{Bytes, CallersSource, parse};
    use crate::config::tls::{ClientCa, MinVersion, TlsSettings};

    #[test]
    fn what_names_no_file_is_not_shown() {
        for (flag, at) in [
            ("--api-keys", 0),
            ("--engine-key-file", 1),
            ("--admin-token-file", 2),
        ] {
            for value in ["sk-CANARY", "sk/CANARY", "/CANARY/x"] {
                let of = |index: usize| (index == at).then(|| PathBuf::from(value));
                let args = AuthArgs {
                    api_keys: of(0),
                    engine_key_file: of(1),
                    admin_token_file: of(2),
                };
                let told = args.settings().unwrap_err().to_string();
                assert!(told.contains(flag) && !told.contains("CANARY"), "{told}");
            }
        }
    }

    #[test]
    fn certificates_close_a_door_and_identities_need_them() {
        let tls = |auth: Option<ClientAuth>| TlsSettings {
            certificate: "c".into(),
            key: "k".into(),
            client_ca: auth.map(|auth| ClientCa {
                file: "ca".into(),
                auth,
            }),
            min_version: MinVersion::default(),
        };
        let file = r#"{"identities": [{"name": "a", "subject": "spiffe://t/a"}]}"#;
        for (auth, open, unasked) in [
            (None, 1, 1),
            (Some(ClientAuth::Optional), 1, 0),
            (Some(ClientAuth::Required), 0, 0),
        ] {
            let mut config = Config {
                tls: Some(tls(auth)),
                ..Config::default()
            };
            config.auth.engine_key = Some(KeptSecret {
                first: Secret::new("x").unwrap(),
                file: None,
            });
            assert_eq!(warnings(&config).len(), open, "{auth:?}");
            config.auth.callers = Some(CallersSource {
                file: "keys.json".into(),
                first: parse(file.as_bytes()).unwrap(),
                bytes: Bytes(Vec::new()),
            });
            assert_eq!(warnings(&config).len(), unasked, "{auth:?}");
            config.tls = None;
            assert_eq!(warnings(&config).len(), 1);
        }
    }

    #[test]
    fn open_doors_are_told_of() {
        let kept = || KeptSecret {
            first: Secret::new("x").unwrap(),
            file: None,
        };
        let with = |change: fn(&mut Config, KeptSecret)| {
            let mut config = Config::default();
            change(&mut config, kept());
            warnings(&config).len()
        };
        assert_eq!(with(|_, _| {}), 0);
        assert_eq!(with(|config, key| config.auth.engine_key = Some(key)), 1);
        assert_eq!(
            with(|config, key| {
                config.auth.engine_key = Some(key);
                config.listen.set_ip([127, 0, 0, 1].into());
            }),
            0
        );
        assert_eq!(
            with(|config, _| config.admin = Some(([0, 0, 0, 0], 1).into())),
            1
        );
        assert_eq!(
            with(|config, _| config.admin = Some(([127, 0, 0, 1], 1).into())),
            0
        );
        assert_eq!(
            with(|config, token| {
                config.admin = Some(([0, 0, 0, 0], 1).into());
                config.auth.admin_token = Some(token);
            }),
            0
        );
    }
}
