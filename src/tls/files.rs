//! Certificate files: read, checked, and described when something is wrong with
//! them, before anyone is served with them.
//!
//! What a file should have held is said by name: who sees the message has
//! mixed up two files more often than not.

use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::sync::Arc;
use std::time::SystemTime;

use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::{self, PemObject as _, SectionKind};
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::server::ProducesTickets;
use tokio_rustls::rustls::sign::CertifiedKey;
use tokio_rustls::rustls::{self, ServerConfig};

use super::der::Certificate;
use super::{days, server};
use crate::config::problem::Problem;
use crate::config::tls::TlsSettings;
use crate::config::validate;

/// Certificates of a chain at most, and authorities of a file.
const MOST_CHAIN: usize = 16;
const MOST_ROOTS: usize = 1024;
/// An expiry that is nearer is worth a warning.
const SOON: u64 = 7 * 86_400;

/// A certificate with its chain and its key, by which it is compared: what is to
/// be said of it changes with the clock.
#[derive(Debug)]
pub struct Identity {
    /// The certificate, then those that vouch for it.
    pub chain: Vec<CertificateDer<'static>>,
    /// Its key.
    pub key: PrivateKeyDer<'static>,
    /// Until when the certificate is good.
    pub not_after: Option<SystemTime>,
    /// What is to be said of them, though they are used.
    pub warnings: Vec<String>,
}

impl PartialEq for Identity {
    fn eq(&self, other: &Self) -> bool {
        (&self.chain, &self.key) == (&other.chain, &other.key)
    }
}

impl Eq for Identity {}

impl Identity {
    /// The same, ready to sign.
    ///
    /// # Errors
    /// A key that ring cannot use.
    pub fn certified(&self) -> Result<Arc<CertifiedKey>, rustls::Error> {
        let provider = ring::default_provider();
        let key = self.key.clone_key();
        CertifiedKey::from_der(self.chain.clone(), key, &provider).map(Arc::new)
    }
}

/// All that the listener's files hold.
#[derive(Debug, PartialEq, Eq)]
pub struct Material {
    /// Ours.
    pub identity: Identity,
    /// Who vouches for clients.
    pub client_ca: Option<Vec<CertificateDer<'static>>>,
}

impl Material {
    /// What is to be said of the files, though they are used.
    #[must_use]
    pub fn warnings(&self) -> Vec<String> {
        self.identity.warnings.clone()
    }

    /// What a listener would be made from, to see whether it can be.
    ///
    /// # Errors
    /// What rustls does not take.
    pub fn server_config(&self, settings: &TlsSettings) -> Result<Arc<ServerConfig>, Vec<Problem>> {
        let tickets: Arc<dyn ProducesTickets> = server::tickets()?;
        server::config(self, settings, &tickets)
    }
}

/// Reads and checks the listener's files.
///
/// # Errors
/// All that is wrong with them.
pub fn read(settings: &TlsSettings) -> Result<Material, Vec<Problem>> {
    let identity = read_identity(&settings.certificate, &settings.key);
    let client_ca = settings.client_ca.as_ref();
    let client_ca = client_ca.map(|ca| read_roots(&ca.file)).transpose();
    match (identity, client_ca) {
        (Ok(identity), Ok(client_ca)) => Ok(Material {
            identity,
            client_ca,
        }),
        (identity, client_ca) => {
            let mut list = identity.err().unwrap_or_default();
            list.extend(client_ca.err().unwrap_or_default());
            Err(list)
        }
    }
}

/// Reads a certificate with its chain, and its key.
///
/// # Errors
/// All that is wrong with them, each with its file's name.
pub fn read_identity(certificate: &Path, key: &Path) -> Result<Identity, Vec<Problem>> {
    let chain = certificates(certificate, MOST_CHAIN);
    let found = private_key(key);
    let (chain, found) = match (chain, found) {
        (Ok(chain), Ok(found)) => (chain, found),
        (chain, found) => {
            let problems = [chain.err(), found.err()];
            return Err(problems.into_iter().flatten().collect());
        }
    };
    let checked = in_order(certificate, &chain).map(|leaf| {
        let mut warnings = in_time(certificate, &leaf);
        warnings.extend(is_open(key));
        (leaf.not_after(), warnings)
    });
    let (not_after, warnings) = checked.map_err(|one| vec![one])?;
    let identity = Identity {
        chain,
        key: found,
        not_after,
        warnings,
    };
    belong_together(&identity, certificate, key).map_err(|one| vec![one])?;
    Ok(identity)
}

/// Reads authorities' certificates.
///
/// # Errors
/// What is wrong with the file.
pub fn read_roots(file: &Path) -> Result<Vec<CertificateDer<'static>>, Vec<Problem>> {
    let found = certificates(file, MOST_ROOTS).map_err(|one| vec![one])?;
    for (index, root) in found.iter().enumerate() {
        let mut store = rustls::RootCertStore::empty();
        if let Err(error) = store.add(root.clone()) {
            let message = format!("certificate {} is of no use: {error}", index + 1);
            return Err(vec![at(file, message)]);
        }
    }
    Ok(found)
}

fn at(file: &Path, message: impl Into<String>) -> Problem {
    Problem::at(file.display().to_string(), message)
}

fn bytes(file: &Path) -> Result<Vec<u8>, Problem> {
    validate::read(file).map_err(|list| {
        let message = list.into_iter().next().map(|one| one.message);
        at(file, message.unwrap_or_default())
    })
}

/// What a file's PEM holds, in its order.
fn sections(file: &Path, text: &[u8]) -> Result<Vec<(SectionKind, Vec<u8>)>, Problem> {
    if text.trim_ascii().is_empty() {
        return Err(at(file, "is empty; PEM was expected (-----BEGIN ...)"));
    }
    let found: Result<Vec<_>, _> = <(SectionKind, Vec<u8>)>::pem_slice_iter(text).collect();
    found.map_err(|error| {
        let wrong = match error {
            pem::Error::MissingSectionEnd { .. } => "a part does not end (-----END ...)".to_owned(),
            pem::Error::IllegalSectionStart { .. } => "a line -----BEGIN is broken".to_owned(),
            // The message tells which bytes are wrong; of a key that would be a secret.
            _ => "what stands between BEGIN and END is no base64".to_owned(),
        };
        at(file, format!("is broken PEM: {wrong}; is it all there?"))
    })
}

fn certificates(file: &Path, most: usize) -> Result<Vec<CertificateDer<'static>>, Problem> {
    let text = bytes(file)?;
    let all = sections(file, &text)?;
    let is_key = |kind: &SectionKind| {
        use SectionKind::{EcPrivateKey, PrivateKey, RsaPrivateKey};
        matches!(kind, EcPrivateKey | PrivateKey | RsaPrivateKey)
    };
    let has_key = all.iter().any(|(kind, _)| is_key(kind));
    let found: Vec<_> = (all.into_iter())
        .filter(|(kind, _)| *kind == SectionKind::Certificate)
        .map(|(_, der)| CertificateDer::from(der))
        .collect();
    if found.is_empty() {
        let instead = if has_key {
            "it holds a key; are the two files mixed up?"
        } else {
            "is it another format (DER, PKCS#12)?"
        };
        let message = format!("has no certificate (-----BEGIN CERTIFICATE-----); {instead}");
        return Err(at(file, message));
    }
    if found.len() > most {
        let message = format!("has {} certificates; at most {most} are taken", found.len());
        return Err(at(file, message));
    }
    let broken = found
        .iter()
        .position(|one| Certificate::parse(one).is_none());
    match broken {
        Some(index) => Err(at(file, format!("certificate {} is no X.509", index + 1))),
        None => Ok(found),
    }
}

fn private_key(file: &Path) -> Result<PrivateKeyDer<'static>, Problem> {
    let text = bytes(file)?;
    let has = |what: &[u8]| memchr::memmem::find(&text, what).is_some();
    if has(b"-----BEGIN ENCRYPTED PRIVATE KEY-----") || has(b"Proc-Type: 4,ENCRYPTED") {
        let how = "is encrypted, and nobody could give us its password; decrypt it: openssl pkey \
                   -in FILE -out NEW";
        return Err(at(file, how));
    }
    let all = sections(file, &text)?;
    let has_certificate = (all.iter()).any(|(kind, _)| *kind == SectionKind::Certificate);
    let mut keys = all
        .into_iter()
        .filter_map(|(kind, der)| PrivateKeyDer::from_pem(kind, der));
    match (keys.next(), keys.next()) {
        (Some(key), None) => Ok(key),
        (Some(_), Some(_)) => Err(at(file, "has more than one key; one was expected")),
        (None, _) => {
            let instead = match has_certificate {
                true => "; it holds a certificate: are the two files mixed up?",
                false => "",
            };
            let kinds = "-----BEGIN PRIVATE KEY-----, or RSA, or EC";
            Err(at(file, format!("has no key ({kinds}){instead}")))
        }
    }
}

/// The first one, once each is found to be issued by the next.
fn in_order<'a>(file: &Path, chain: &'a [CertificateDer<'_>]) -> Result<Certificate<'a>, Problem> {
    let parsed: Vec<_> = (chain.iter())
        .filter_map(|one| Certificate::parse(one))
        .collect();
    let Some(leaf) = parsed.first() else {
        return Err(at(file, "has no certificate"));
    };
    for (index, pair) in parsed.windows(2).enumerate() {
        let (one, next) = (&pair[0], &pair[1]);
        if one.is_issued_by(next) {
            continue;
        }
        let (number, after) = (index + 1, index + 2);
        let elsewhere = (parsed.iter().enumerate())
            .find(|(other, issuer)| *other != index && one.is_issued_by(issuer));
        let hint = match elsewhere {
            Some((other, _)) => format!("that one stands in place {}", other + 1),
            None if next.is_issued_by(one) => "they are in reverse order".to_owned(),
            None if one.is_self_issued() => {
                "a root comes last, and our own certificate first".to_owned()
            }
            None => "that one is not in the file".to_owned(),
        };
        let message = format!(
            "the chain is out of order: certificate {number}, {}, is issued by {}, but certificate \
             {after} is {}; {hint}. Ours comes first, then who issued it, and so on",
            one.shown(),
            one.shown_issuer(),
            next.shown(),
        );
        return Err(at(file, message));
    }
    Ok(*leaf)
}

/// What is to be said of when the certificate is good.
fn in_time(file: &Path, leaf: &Certificate<'_>) -> Vec<String> {
    let (now, file) = (SystemTime::now(), file.display());
    let mut warnings = Vec::new();
    if let Some(from) = leaf.not_before()
        && let Ok(early) = from.duration_since(now)
    {
        warnings.push(format!(
            "{file}: the certificate is not good before {} from now; clients will refuse it",
            days(early)
        ));
    }
    let Some(until) = leaf.not_after() else {
        return warnings;
    };
    match until.duration_since(now) {
        Err(past) => warnings.push(format!(
            "{file}: the certificate expired {} ago; clients will refuse it",
            days(past.duration())
        )),
        Ok(left) if left.as_secs() < SOON => {
            warnings.push(format!("{file}: the certificate expires in {}", days(left)))
        }
        Ok(_) => {}
    }
    warnings
}

/// What is to be said of a key that others may read.
fn is_open(file: &Path) -> Option<String> {
    // A mounted Secret's group may read it, by `fsGroup`.
    let mode = std::fs::metadata(file).ok()?.mode();
    (mode & 0o007 != 0).then(|| {
        format!(
            "{}: everyone may read the key (mode {:03o}); 600 or 640 was expected",
            file.display(),
            mode & 0o777
        )
    })
}

fn belong_together(identity: &Identity, certificate: &Path, key: &Path) -> Result<(), Problem> {
    let error = match identity.certified() {
        Ok(_) => return Ok(()),
        Err(error) => error,
    };
    let of = certificate.display();
    Err(match error {
        rustls::Error::InconsistentKeys(_) => at(
            key,
            format!("is not the key of the certificate in {of}: they must be of one pair"),
        ),
        rustls::Error::InvalidCertificate(_) => at(certificate, format!("is of no use: {error}")),
        _ => at(
            key,
            format!(
                "is of no use: {error}; RSA from 2048 bits, ECDSA (P-256, P-384) or Ed25519 was \
                 expected"
            ),
        ),
    })
}

#[cfg(test)]
mod tests;
