use rcgen::{CertificateParams, CertifiedIssuer, KeyPair};
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

use super::super::Shared;
use super::super::idle::IdleQueue;
use super::super::watch::Watch;
use super::*;
use crate::config::Timeouts;
use crate::config::tls::{ClientAuth, ClientCa, MinVersion, TlsSettings};
use crate::downstream::strict::Unseen;
use crate::metrics::Counter;

#[test]
fn what_a_client_of_plain_http_gets_has_its_length() {
    let (head, body) = PLAIN.split_once("\r\n\r\n").unwrap();
    assert!(head.contains(&format!("content-length: {}\r\n", body.len())));
    assert!(serde_json::from_str::<serde_json::Value>(body).is_ok());
}

#[test]
fn an_error_of_tls_is_told_from_a_client_that_left() {
    use tokio_rustls::rustls::{AlertDescription, CertificateError};
    let of_tls = |error: Error| io::Error::new(io::ErrorKind::InvalidData, error);
    for (error, expected) in [
        (
            of_tls(Error::NoCertificatesPresented),
            HandshakeFailure::Certificate,
        ),
        (
            of_tls(Error::InvalidCertificate(CertificateError::Expired)),
            HandshakeFailure::Certificate,
        ),
        (
            of_tls(Error::AlertReceived(AlertDescription::UnknownCA)),
            HandshakeFailure::Refused,
        ),
        (
            of_tls(Error::NoApplicationProtocol),
            HandshakeFailure::Protocol,
        ),
        (io::ErrorKind::UnexpectedEof.into(), HandshakeFailure::Left),
        (
            io::ErrorKind::ConnectionReset.into(),
            HandshakeFailure::Left,
        ),
    ] {
        assert_eq!(why(&error), expected, "{error}");
    }
}

/// What a test of handshakes needs.
struct Rig {
    handshakes: Handshakes,
    metrics: Arc<ProcessMetrics>,
    shared: Shared,
    listener: tokio::net::TcpListener,
    address: std::net::SocketAddr,
}

/// Clients must show a certificate of `authority`, which issued ours too.
async fn rig(authority: &CertifiedIssuer<'static, KeyPair>, places: usize) -> Rig {
    let folder = std::env::temp_dir().join(format!("pilotfish-handshake-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let (certificate, key) = issue(authority, &[]);
    let files = [("crt", certificate), ("key", key), ("ca", authority.pem())];
    let [certificate, key, file] = files.map(|(name, text)| {
        let file = folder.join(format!("{places}.{name}"));
        std::fs::write(&file, text).unwrap();
        file
    });
    let auth = ClientAuth::Optional;
    let settings = TlsSettings {
        certificate,
        key,
        client_ca: Some(ClientCa { file, auth }),
        min_version: MinVersion::Tls12,
    };
    let (tls, metrics) = (Tls::load(&settings).unwrap(), Arc::default());
    let shared = Shared {
        watch: Watch::new(Instant::now()),
        timeouts: Cell::new(Timeouts::default()),
        drain: DrainWatch::default(),
        idle: Rc::new(IdleQueue::new(Counter::default())),
        trusted: Arc::default(),
        unseen: Unseen::new(|_| {}),
        tls: None,
    };
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let handshakes = Handshakes::with_places(tls, Arc::clone(&metrics), places);
    Rig {
        handshakes,
        metrics,
        shared,
        listener,
        address,
    }
}

impl Rig {
    /// Accepts a client and shakes hands with it.
    async fn accept(&self) -> (Option<Shaken>, Rc<ConnState>) {
        let (stream, peer) = self.listener.accept().await.unwrap();
        let conn = ConnState::new(peer, &self.shared);
        let shaking = self.handshakes.shake(stream, &conn, &self.shared.drain);
        let shaken = Box::pin(shaking).await;
        (shaken, conn)
    }

    fn failures(&self, why: &str) -> u64 {
        let mut all = self.metrics.tls.failures();
        all.find(|(name, _)| *name == why).unwrap().1
    }
}

fn authority() -> CertifiedIssuer<'static, KeyPair> {
    let mut params = CertificateParams::default();
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
}

fn issue(authority: &CertifiedIssuer<'static, KeyPair>, uris: &[&str]) -> (String, String) {
    let mut params = CertificateParams::new(["localhost".to_owned()]).unwrap();
    for uri in uris {
        let uri = rcgen::SanType::URI((*uri).try_into().unwrap());
        params.subject_alt_names.push(uri);
    }
    let key = KeyPair::generate().unwrap();
    let certificate = params.signed_by(&key, authority).unwrap();
    (certificate.pem(), key.serialize_pem())
}

/// Connects as who has that certificate.
async fn connect(rig: &Rig, authority: &str, shown: Option<(String, String)>) -> bool {
    let mut roots = RootCertStore::empty();
    let root = CertificateDer::from_pem_slice(authority.as_bytes()).unwrap();
    roots.add(root).unwrap();
    let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots);
    let config = match shown {
        None => builder.with_no_client_auth(),
        Some((certificate, key)) => {
            let certificate = CertificateDer::from_pem_slice(certificate.as_bytes()).unwrap();
            let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap();
            builder
                .with_client_auth_cert(vec![certificate], key)
                .unwrap()
        }
    };
    let socket = std::net::TcpStream::connect(rig.address).unwrap();
    socket.set_nonblocking(true).unwrap();
    let socket = TcpStream::from_std(socket).unwrap();
    let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
    let name = "localhost".try_into().unwrap();
    connector.connect(name, socket).await.is_ok()
}

#[tokio::test]
async fn a_connection_knows_whom_its_certificate_names() {
    let authority = authority();
    let rig = rig(&authority, 8).await;
    for (shown, expected) in [
        (None, None),
        (Some(issue(&authority, &[])), Some("localhost")),
        (
            Some(issue(&authority, &["spiffe://t/a"])),
            Some("spiffe://t/a"),
        ),
    ] {
        let pem = authority.pem();
        let (accepted, connected) = tokio::join!(rig.accept(), connect(&rig, &pem, shown));
        let (shaken, conn) = accepted;
        assert!(connected && shaken.is_some_and(|it| !it.is_http2));
        assert!(conn.is_tls.get());
        assert_eq!(conn.identity.get().map(|it| &**it), expected);
    }
    assert_eq!(rig.metrics.tls.full.get(), 3);
}

#[tokio::test]
async fn who_keeps_others_waiting_makes_room() {
    let authority = authority();
    let rig = rig(&authority, 1).await;
    let mut slow = std::net::TcpStream::connect(rig.address).unwrap();
    std::io::Write::write_all(&mut slow, &[0x16, 3, 1, 0]).unwrap();
    let pem = authority.pem();
    let quick = async {
        // The place is taken when this one comes.
        while rig.handshakes.places.available_permits() > 0 {
            tokio::task::yield_now().await;
        }
        tokio::join!(rig.accept(), connect(&rig, &pem, None))
    };
    let ((left, _), ((came, _), connected)) = tokio::join!(rig.accept(), quick);
    assert!(left.is_none() && came.is_some() && connected);
    assert_eq!(rig.failures("crowded"), 1);
    assert!(rig.handshakes.waiting.borrow().is_empty());
    assert_eq!(rig.handshakes.places.available_permits(), 1);
}
