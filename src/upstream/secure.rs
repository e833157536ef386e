//! TLS towards engines: whom we trust, what we show, and the handshake.
//!
//! Shared by all pools of the process. What it needs is read when an engine
//! first asks for it, or at the start if a flag names a file; read again when
//! a file changes, it holds for new connections, and what cannot be read
//! leaves the last good in force.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant, UNIX_EPOCH};

use arc_swap::ArcSwapOption;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::pki_types::{CertificateDer, InvalidDnsNameError, ServerName};
use tokio_rustls::rustls::{self, ClientConfig, RootCertStore, crypto::ring};

use crate::config::problem::{Problem, Problems};
use crate::config::watch::{FileWatch, SETTLE};
use crate::config::{EngineTls, EngineUrl};
use crate::metrics::TlsMetrics;
use crate::net::wire::{Socket, Wire};
use crate::tls::der::Certificate;
use crate::tls::files::{Identity, read_identity, read_roots};
use crate::tls::watching::any_stirred;

/// Looks at files that are wrong or change all the time, [`SETTLE`] apart, until
/// that is said: 5 s, as of the listener's.
const MOST_LOOKS: usize = 25;

/// How long what could not be read is not read again.
const AGAIN: Duration = Duration::from_secs(5);

/// Why engines that speak TLS cannot be spoken to.
#[derive(Debug, thiserror::Error)]
pub enum SecureError {
    /// Files that cannot be used.
    #[error(transparent)]
    Files(#[from] Problems),
    /// This system trusts nobody.
    #[error(
        "no certificate that is trusted could be read ({0}): install ca-certificates, name a \
         file in SSL_CERT_FILE or a folder in SSL_CERT_DIR, or give --engine-ca"
    )]
    NoRoots(String),
    /// A name that no certificate can bear.
    #[error("--engine-tls-name '{0}': no name of a host")]
    Name(String, #[source] InvalidDnsNameError),
    /// The library refuses what it was given.
    #[error("TLS cannot be set up: {0}")]
    Library(#[from] rustls::Error),
}

/// What all connections to engines that speak TLS share.
#[derive(Debug, Default)]
pub struct Secure {
    settings: EngineTls,
    /// When the last attempt failed to read what is not named by a flag, and why.
    failed: ArcSwapOption<(Instant, String)>,
    /// What it was made from, and what new connections use.
    loaded: ArcSwapOption<(Material, Arc<ClientConfig>)>,
}

/// All that the files hold.
#[derive(Debug, PartialEq, Eq)]
struct Material {
    roots: Option<Vec<CertificateDer<'static>>>,
    client: Option<Identity>,
}

impl Secure {
    /// These settings, with nothing read yet.
    #[must_use]
    pub fn new(settings: EngineTls) -> Arc<Self> {
        Arc::new(Self {
            settings,
            ..Self::default()
        })
    }

    /// The files that are watched.
    pub fn files(&self) -> impl Iterator<Item = &Path> {
        let client = self.settings.client.iter();
        let client = client.flat_map(|(cert, key)| [cert, key]);
        self.settings.ca.iter().chain(client).map(PathBuf::as_path)
    }

    /// Files with the time, in Unix seconds, when a certificate in them expires:
    /// the one that we show, or the first of the authorities'.
    #[must_use]
    pub fn expiries(&self) -> Vec<(String, u64)> {
        let loaded = self.loaded.load();
        let Some(loaded) = loaded.as_ref() else {
            return Vec::new();
        };
        let Material { roots, client } = &loaded.0;
        let roots = roots.iter().flatten();
        let first = roots.filter_map(|root| Certificate::parse(root)?.not_after());
        let shown = self.settings.client.as_ref().map(|(cert, _)| cert);
        let all = [
            (self.settings.ca.as_ref(), first.min()),
            (shown, client.as_ref().and_then(|client| client.not_after)),
        ];
        let known = all.into_iter().filter_map(|(file, at)| {
            let since = at?.duration_since(UNIX_EPOCH).ok()?;
            Some((file?.display().to_string(), since.as_secs()))
        });
        known.collect()
    }

    /// Reads everything, now; new connections use it.
    ///
    /// # Errors
    /// What cannot be used; what was in force stays.
    pub fn load(&self) -> Result<(), SecureError> {
        if let Some(name) = &self.settings.name {
            ServerName::try_from(name.as_str())
                .map_err(|error| SecureError::Name(name.clone(), error))?;
        }
        let material = self.read().map_err(|list| Problems {
            of: "--engine-ca, --engine-client-cert, --engine-client-key".to_owned(),
            list,
        })?;
        self.apply(material)
    }

    /// Reads the files again whenever there is reason to, for ever.
    pub async fn watch(&self, counts: &TlsMetrics) {
        let watches: Vec<_> = self.files().map(FileWatch::start).collect();
        if watches.is_empty() {
            return std::future::pending().await;
        }
        let mut told = String::new();
        loop {
            any_stirred(&watches).await;
            let problem = self.look(counts).await.err().unwrap_or_default();
            if !problem.is_empty() && problem != told {
                counts.reload_failures.increment(1);
                tracing::error!("the last good files stay, for engines that speak TLS: {problem}");
            }
            told = problem;
        }
    }

    /// Looks at the files until they have stayed the same for once, and puts them
    /// in force; tells what is wrong with them.
    async fn look(&self, counts: &TlsMetrics) -> Result<(), String> {
        let mut last = Err("they change all the time".to_owned());
        for _ in 0..MOST_LOOKS {
            let found = self.read().map_err(|list| {
                let texts: Vec<_> = list.iter().map(ToString::to_string).collect();
                texts.join("; ")
            });
            let loaded = self.loaded.load();
            let in_force = loaded.as_ref().map(|loaded| &loaded.0);
            match found {
                Ok(material) if in_force == Some(&material) => return Ok(()),
                Ok(material) if last.as_ref().is_ok_and(|last| *last == material) => {
                    self.apply(material).map_err(|error| error.to_string())?;
                    counts.reloads.increment(1);
                    tracing::info!("new certificates are in force, for engines that speak TLS");
                    return Ok(());
                }
                found => last = found,
            }
            tokio::time::sleep(SETTLE).await;
        }
        last.map(drop)
    }

    fn read(&self) -> Result<Material, Vec<Problem>> {
        let roots = self.settings.ca.as_deref().map(read_roots).transpose()?;
        let client = self.settings.client.as_ref();
        let client = client.map(|(cert, key)| read_identity(cert, key));
        Ok(Material {
            roots,
            client: client.transpose()?,
        })
    }

    fn apply(&self, material: Material) -> Result<(), SecureError> {
        let provider = Arc::new(ring::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots(material.roots.as_deref())?);
        let mut config = match &material.client {
            None => config.with_no_client_auth(),
            Some(client) => {
                for warning in &client.warnings {
                    tracing::warn!("{warning}");
                }
                config.with_client_auth_cert(client.chain.clone(), client.key.clone_key())?
            }
        };
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        self.loaded
            .store(Some(Arc::new((material, Arc::new(config)))));
        Ok(())
    }

    /// The same for who needs it at once, and not for everyone who asks.
    fn load_again(&self) -> io::Result<()> {
        if let Some(failed) = self.failed.load().as_ref()
            && failed.0.elapsed() < AGAIN
        {
            return Err(io::Error::other(failed.1.clone()));
        }
        self.load().map_err(|error| {
            let why = error.to_string();
            self.failed
                .store(Some(Arc::new((Instant::now(), why.clone()))));
            io::Error::other(why)
        })
    }

    fn config(&self) -> io::Result<Arc<ClientConfig>> {
        if self.loaded.load().is_none() {
            self.load_again()?;
        }
        let loaded = self.loaded.load();
        let config = loaded.as_ref().map(|loaded| Arc::clone(&loaded.1));
        config.ok_or_else(|| io::Error::other("TLS is not set up"))
    }

    /// Shakes hands with the engine at `url`.
    ///
    /// # Errors
    /// A certificate that we do not trust, or anything that is no TLS.
    pub(super) async fn shake(&self, stream: TcpStream, url: &EngineUrl) -> io::Result<Wire> {
        let name = self.settings.name.as_deref().unwrap_or(url.host());
        let name = ServerName::try_from(name.to_owned()).map_err(io::Error::other)?;
        let socket = Socket::new(stream);
        let connector = TlsConnector::from(self.config()?);
        let session = connector.connect(name, socket.clone()).await?;
        Ok(Wire::tls(session.into(), socket))
    }
}

/// Those of the file, or of this system.
fn roots(given: Option<&[CertificateDer<'static>]>) -> Result<RootCertStore, SecureError> {
    let mut roots = RootCertStore::empty();
    if let Some(given) = given {
        roots.add_parsable_certificates(given.iter().cloned());
        return Ok(roots);
    }
    let found = rustls_native_certs::load_native_certs();
    let (good, _) = roots.add_parsable_certificates(found.certs);
    if good == 0 {
        let error = found.errors.first().map(ToString::to_string);
        let error = error.unwrap_or_else(|| "there is none".to_owned());
        return Err(SecureError::NoRoots(error));
    }
    Ok(roots)
}
