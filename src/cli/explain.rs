//! The flags of `pilotfish explain`.

use std::path::PathBuf;

use clap::Args;

use super::LocalityArgs;

/// Flags of `pilotfish explain`.
#[derive(Debug, Args)]
pub struct ExplainArgs {
    /// The dynamic configuration file.
    #[arg(long, value_name = "FILE")]
    pub config: PathBuf,
    /// The request's body; `-` for standard input.
    #[arg(long, value_name = "FILE")]
    pub request: PathBuf,
    /// The request's path.
    #[arg(long, default_value = "/v1/chat/completions")]
    pub path: String,
    /// A field of the request's head, as NAME: VALUE; may be repeated.
    #[arg(long, value_name = "NAME: VALUE")]
    pub header: Vec<String>,
    /// For `smart`: where what is learned of models is kept.
    #[arg(long, value_name = "DIR")]
    pub state_dir: Option<PathBuf>,
    /// Where the random generator begins.
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// Where we run.
    #[command(flatten)]
    pub locality: LocalityArgs,
}
