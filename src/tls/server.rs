//! What the listener offers, made from files that were found good: TLS 1.2 and
//! 1.3, rustls' own ciphers, HTTP/2 and HTTP/1.1.

use std::sync::Arc;

use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::CertificateDer;
use tokio_rustls::rustls::server::danger::ClientCertVerifier;
use tokio_rustls::rustls::server::{NoServerSessionStorage, ProducesTickets, WebPkiClientVerifier};
use tokio_rustls::rustls::sign::SingleCertAndKey;
use tokio_rustls::rustls::{ALL_VERSIONS, RootCertStore, ServerConfig, version};

use super::files::Material;
use crate::config::problem::Problem;
use crate::config::tls::{ClientAuth, MinVersion, TlsSettings};

/// HTTP/2, by ALPN.
pub const H2: &[u8] = b"h2";

/// What seals the sessions that clients keep for us: ChaCha20-Poly1305, with a
/// new key every 6 hours; a session is taken up again for 12 at most.
///
/// # Errors
/// When the system has no random numbers.
pub fn tickets() -> Result<Arc<dyn ProducesTickets>, Vec<Problem>> {
    ring::Ticketer::new().map_err(|error| vec![failed(&error)])
}

/// What a new connection is accepted with.
///
/// Sessions are the clients' to keep (tickets), so we hold nothing for them.
/// Where clients show certificates there are none: a session that is taken up
/// again would not be asked whether its certificate is still good.
///
/// # Errors
/// What rustls does not take.
pub fn config(
    material: &Material,
    settings: &TlsSettings,
    tickets: &Arc<dyn ProducesTickets>,
) -> Result<Arc<ServerConfig>, Vec<Problem>> {
    let provider = Arc::new(ring::default_provider());
    let versions: &[_] = match settings.min_version {
        MinVersion::Tls12 => ALL_VERSIONS,
        MinVersion::Tls13 => &[&version::TLS13],
    };
    let certified = material.identity.certified();
    let certified = certified.map_err(|error| vec![failed(&error)])?;
    let builder = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(versions)
        .map_err(|error| vec![failed(&error)])?;
    let ca = settings.client_ca.as_ref().zip(material.client_ca.as_ref());
    let builder = match ca {
        None => builder.with_no_client_auth(),
        Some((ca, roots)) => builder.with_client_cert_verifier(verifier(roots, ca.auth)?),
    };
    let key = SingleCertAndKey::from(certified);
    let mut config = builder.with_cert_resolver(Arc::new(key));
    config.alpn_protocols = vec![H2.to_vec(), b"http/1.1".to_vec()];
    config.session_storage = Arc::new(NoServerSessionStorage {});
    if ca.is_none() {
        config.ticketer = Arc::clone(tickets);
        // Each costs a record, and few clients take up a session at all.
        config.send_tls13_tickets = 1;
    } else {
        config.send_tls13_tickets = 0;
    }
    Ok(Arc::new(config))
}

fn verifier(
    roots: &[CertificateDer<'static>],
    auth: ClientAuth,
) -> Result<Arc<dyn ClientCertVerifier>, Vec<Problem>> {
    let mut store = RootCertStore::empty();
    for root in roots {
        let added = store.add(root.clone());
        added.map_err(|error| vec![failed(&error)])?;
    }
    let provider = Arc::new(ring::default_provider());
    let builder = WebPkiClientVerifier::builder_with_provider(Arc::new(store), provider);
    let builder = match auth {
        ClientAuth::Required => builder,
        ClientAuth::Optional => builder.allow_unauthenticated(),
    };
    builder.build().map_err(|error| vec![failed(&error)])
}

fn failed(error: &dyn std::fmt::Display) -> Problem {
    Problem::at("TLS", format!("cannot be set up: {error}"))
}
