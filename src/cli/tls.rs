//! The flags of TLS on the public listener.

use std::path::PathBuf;

use clap::Args;

use crate::config::problem::{Problem, Problems};
use crate::config::tls::{ClientAuth, ClientCa, MinVersion, TlsSettings};
use crate::tls::files;

/// TLS on the public listener.
#[derive(Debug, Args)]
#[command(next_help_heading = "TLS")]
pub struct TlsArgs {
    /// Speak TLS: our certificate, then those that vouch for it (PEM); watched.
    #[arg(long, value_name = "FILE")]
    pub tls_cert: Option<PathBuf>,
    /// Its key (PEM: PKCS#8, PKCS#1 or SEC1, not encrypted); watched.
    #[arg(long, value_name = "FILE")]
    pub tls_key: Option<PathBuf>,
    /// Ask clients for certificates of these authorities (PEM); watched.
    #[arg(long, value_name = "FILE")]
    pub tls_client_ca: Option<PathBuf>,
    /// Whether they must have one: required or optional [default: required].
    #[arg(long, value_name = "HOW", value_parser = client_auth)]
    pub tls_client_auth: Option<ClientAuth>,
    /// The oldest version that is spoken, 1.2 or 1.3 [default: 1.2].
    #[arg(long, value_name = "VERSION", value_parser = min_version)]
    pub tls_min_version: Option<MinVersion>,
}

impl TlsArgs {
    /// What the flags ask for, once the files have been found good, and what is to
    /// be said of these.
    ///
    /// # Errors
    /// A flag without the one that it needs; all that is wrong with the files.
    pub fn resolve(&self) -> Result<(Option<TlsSettings>, Vec<String>), Problems> {
        let Some(settings) = self.settings().map_err(|one| Problems {
            of: "flags".to_owned(),
            list: vec![one],
        })?
        else {
            return Ok((None, Vec::new()));
        };
        let checked = files::read(&settings).and_then(|material| {
            let warnings = material.warnings();
            material.server_config(&settings)?;
            Ok(warnings)
        });
        match checked {
            Ok(warnings) => Ok((Some(settings), warnings)),
            Err(list) => Err(Problems {
                of: "TLS".to_owned(),
                list,
            }),
        }
    }

    fn settings(&self) -> Result<Option<TlsSettings>, Problem> {
        let (certificate, key) = match (&self.tls_cert, &self.tls_key) {
            (Some(certificate), Some(key)) => (certificate.clone(), key.clone()),
            (Some(_), None) => return Err(needs("--tls-cert", "--tls-key")),
            (None, Some(_)) => return Err(needs("--tls-key", "--tls-cert")),
            (None, None) => {
                return match self.alone() {
                    Some(flag) => Err(needs(flag, "--tls-cert and --tls-key")),
                    None => Ok(None),
                };
            }
        };
        if self.tls_client_auth.is_some() && self.tls_client_ca.is_none() {
            return Err(needs("--tls-client-auth", "--tls-client-ca"));
        }
        Ok(Some(TlsSettings {
            certificate,
            key,
            client_ca: self.tls_client_ca.clone().map(|file| ClientCa {
                file,
                auth: self.tls_client_auth.unwrap_or_default(),
            }),
            min_version: self.tls_min_version.unwrap_or_default(),
        }))
    }

    /// A flag that means nothing without a certificate.
    fn alone(&self) -> Option<&'static str> {
        let given = [
            (self.tls_client_ca.is_some(), "--tls-client-ca"),
            (self.tls_client_auth.is_some(), "--tls-client-auth"),
            (self.tls_min_version.is_some(), "--tls-min-version"),
        ];
        given.iter().find(|(is, _)| *is).map(|(_, flag)| *flag)
    }
}

fn needs(flag: &str, other: &str) -> Problem {
    Problem::at(flag, format!("needs {other}: without, we speak plain HTTP"))
}

fn client_auth(text: &str) -> Result<ClientAuth, String> {
    match text {
        "required" => Ok(ClientAuth::Required),
        "optional" => Ok(ClientAuth::Optional),
        _ => Err(format!("'{text}' is neither required nor optional")),
    }
}

fn min_version(text: &str) -> Result<MinVersion, String> {
    match text {
        "1.2" => Ok(MinVersion::Tls12),
        "1.3" => Ok(MinVersion::Tls13),
        _ => Err(format!("'{text}' is neither 1.2 nor 1.3")),
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Flags {
        #[command(flatten)]
        tls: TlsArgs,
    }

    fn settings(flags: &[&str]) -> Result<Option<TlsSettings>, Problem> {
        let flags = ["x"].iter().chain(flags);
        Flags::try_parse_from(flags).unwrap().tls.settings()
    }

    #[test]
    fn a_flag_without_the_one_that_it_needs_is_a_problem() {
        for (flags, needs) in [
            (&["--tls-cert=c"][..], "--tls-key"),
            (&["--tls-key=k"], "--tls-cert"),
            (&["--tls-client-ca=a"], "--tls-cert and --tls-key"),
            (&["--tls-min-version=1.3"], "--tls-cert and --tls-key"),
            (
                &["--tls-cert=c", "--tls-key=k", "--tls-client-auth=optional"],
                "--tls-client-ca",
            ),
        ] {
            let problem = settings(flags).unwrap_err().to_string();
            assert!(problem.contains(&format!("needs {needs}:")), "{problem}");
        }
        assert_eq!(settings(&[]), Ok(None));
    }

    #[test]
    fn flags_mean_settings() {
        let found = settings(&[
            "--tls-cert=c",
            "--tls-key=k",
            "--tls-client-ca=a",
            "--tls-min-version=1.3",
        ]);
        let settings = found.unwrap().unwrap();
        assert_eq!(settings.client_ca.unwrap().auth, ClientAuth::Required);
        assert_eq!(settings.min_version, MinVersion::Tls13);
        for bad in ["--tls-client-auth=maybe", "--tls-min-version=1.1"] {
            assert!(Flags::try_parse_from(["x", bad]).is_err(), "{bad}");
        }
    }
}
