//! Whose key an engine sees.

use http::HeaderName;

use crate::auth;
use crate::fleet::credentials::Ours;

/// For whom a client's key is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClientsKey {
    /// For engines: it passes, unless the engine is called by a key of ours.
    Passes,
    /// For us: no engine sees it.
    Ours,
}

impl ClientsKey {
    /// Whether the field is the client's key and stays here, towards an engine that
    /// gets this of us.
    pub(super) fn keeps(self, name: &HeaderName, ours: Option<&Ours>) -> bool {
        (self == Self::Ours || ours.is_some()) && auth::credential(name)
    }
}

/// Writes the engine's own key.
pub(super) fn write(out: &mut Vec<u8>, ours: Option<&Ours>) {
    if let Some(key) = ours.and_then(|ours| ours.key.as_ref()) {
        out.extend_from_slice(b"authorization: Bearer ");
        out.extend_from_slice(key.expose().as_bytes());
        out.extend_from_slice(b"\r\n");
    }
}
