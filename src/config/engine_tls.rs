//! How engines that speak TLS are spoken to.

use std::path::PathBuf;

/// How engines that speak TLS are spoken to: those whose URL begins with
/// `https://`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct EngineTls {
    /// Whom their certificates must come from, a file in PEM; `None`: whoever
    /// this system trusts.
    pub ca: Option<PathBuf>,
    /// The certificate that we show, and its key; both in PEM.
    pub client: Option<(PathBuf, PathBuf)>,
    /// The name that their certificates must bear; `None`: the URL's host.
    pub name: Option<String>,
}
