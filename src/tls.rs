//! TLS: certificate files, what they mean, and how they are replaced while we
//! serve.
//!
//! Beside the data path: all of it happens at the start and on the control
//! thread. A worker loads one `Arc` for each handshake.
//!
//! Invariant: what is in force was read as a whole and found good; a connection
//! keeps what it was accepted with.

pub mod der;
pub mod files;
pub mod server;
pub mod watching;

use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use arc_swap::ArcSwap;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::server::ProducesTickets;

use crate::config::problem::Problem;
use crate::config::tls::TlsSettings;
use files::Material;

/// TLS of the public listener: what new connections get.
pub struct Tls {
    settings: TlsSettings,
    config: ArcSwap<ServerConfig>,
    /// What it was made from.
    loaded: ArcSwap<Material>,
    /// Outlives certificates, so that sessions do too.
    tickets: Arc<dyn ProducesTickets>,
}

impl std::fmt::Debug for Tls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let settings = &self.settings;
        f.debug_struct("Tls").field("settings", settings).finish()
    }
}

impl Tls {
    /// Loads the files.
    ///
    /// # Errors
    /// All that is wrong with them.
    pub fn load(settings: &TlsSettings) -> Result<Arc<Self>, Vec<Problem>> {
        let material = files::read(settings)?;
        let tickets = server::tickets()?;
        let config = server::config(&material, settings, &tickets)?;
        Ok(Arc::new(Self {
            settings: settings.clone(),
            config: ArcSwap::from(config),
            loaded: ArcSwap::from_pointee(material),
            tickets,
        }))
    }

    /// What a new connection gets.
    #[must_use]
    pub fn config(&self) -> Arc<ServerConfig> {
        self.config.load_full()
    }

    /// Puts these files in force for new connections.
    fn apply(&self, material: Material) -> Result<(), Vec<Problem>> {
        let config = server::config(&material, &self.settings, &self.tickets)?;
        self.config.store(config);
        self.loaded.store(Arc::new(material));
        Ok(())
    }

    /// What is to be said of the files in force.
    #[must_use]
    pub fn warnings(&self) -> Vec<String> {
        self.loaded.load().warnings()
    }

    /// Files with the time, in Unix seconds, when a certificate in them expires:
    /// ours, or the first of the authorities'.
    #[must_use]
    pub fn expiries(&self) -> Vec<(String, u64)> {
        let loaded = self.loaded.load();
        let roots = loaded.client_ca.iter().flatten();
        let first = roots.filter_map(|root| der::Certificate::parse(root)?.not_after());
        let ca = self.settings.client_ca.as_ref().map(|ca| &ca.file);
        let all = [
            (Some(&self.settings.certificate), loaded.identity.not_after),
            (ca, first.min()),
        ];
        let known = all.into_iter().filter_map(|(file, at)| {
            let since = at?.duration_since(UNIX_EPOCH).ok()?;
            Some((file?.display().to_string(), since.as_secs()))
        });
        known.collect()
    }
}

/// A time as a message shows it: how long ago, or how soon.
fn days(span: Duration) -> String {
    let hours = span.as_secs() / 3600;
    match hours {
        0..48 => format!("{hours} h"),
        _ => format!("{} days", hours / 24),
    }
}
