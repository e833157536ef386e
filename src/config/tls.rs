//! TLS of the public listener, as it is asked for: which files, and whom they
//! let in.
//!
//! Plain data: what the files hold is looked at by whoever loads them.

use std::path::PathBuf;

/// How the public listener speaks TLS.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsSettings {
    /// The certificate, then those that vouch for it; PEM.
    pub certificate: PathBuf,
    /// Its key; PEM.
    pub key: PathBuf,
    /// Whose certificates clients show; `None`: they are asked for none.
    pub client_ca: Option<ClientCa>,
    /// The oldest version that is spoken.
    pub min_version: MinVersion,
}

/// Who vouches for clients.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientCa {
    /// Authorities' certificates; PEM.
    pub file: PathBuf,
    /// Whether a client may come without one.
    pub auth: ClientAuth,
}

/// Whether clients must show a certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ClientAuth {
    /// Without one the handshake fails.
    #[default]
    Required,
    /// Who shows one must show a good one.
    Optional,
}

/// The oldest version of TLS that is spoken; nothing before 1.2 is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum MinVersion {
    /// TLS 1.2, with forward secrecy and authenticated ciphers only.
    #[default]
    Tls12,
    /// TLS 1.3.
    Tls13,
}
