//! Flags for engines that speak TLS.

use std::path::PathBuf;

use clap::Args;

use crate::config::EngineTls;

/// For engines whose URL begins with https://.
#[derive(Debug, Args)]
#[command(next_help_heading = "Engines that speak TLS (https://...)")]
pub struct EngineTlsArgs {
    /// Whom their certificates must come from, in PEM [default: whoever this
    /// system trusts].
    #[arg(long, value_name = "FILE")]
    pub engine_ca: Option<PathBuf>,
    /// A certificate to show them, in PEM.
    #[arg(long, value_name = "FILE", requires = "engine_client_key")]
    pub engine_client_cert: Option<PathBuf>,
    /// Its key, in PEM.
    #[arg(long, value_name = "FILE", requires = "engine_client_cert")]
    pub engine_client_key: Option<PathBuf>,
    /// The name that their certificates must bear [default: the URL's host].
    #[arg(long, value_name = "NAME")]
    pub engine_tls_name: Option<String>,
}

impl EngineTlsArgs {
    /// What they mean.
    #[must_use]
    pub fn settings(&self) -> EngineTls {
        EngineTls {
            ca: self.engine_ca.clone(),
            client: (self.engine_client_cert.clone()).zip(self.engine_client_key.clone()),
            name: self.engine_tls_name.clone(),
        }
    }
}
