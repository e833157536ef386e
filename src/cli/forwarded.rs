//! Whose word is taken on who a client is, by a flag.

use clap::Args;

use crate::config::forwarded::TrustedProxies;

/// The proxies before us.
#[derive(Debug, Args)]
#[command(next_help_heading = "Who may call")]
pub struct ForwardedArgs {
    /// Networks of proxies before us, separated by commas: what these tell in
    /// Forwarded and X-Forwarded-* is kept, and added to; of all others it
    /// is dropped.
    #[arg(long, value_name = "CIDR,CIDR", value_parser = TrustedProxies::parse)]
    pub trusted_proxies: Option<TrustedProxies>,
}
