//! A client that speaks TLS, and those who issue certificates for it and us.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::sync::Arc;

use pilotfish::config::tls::{ClientAuth, ClientCa, MinVersion, TlsSettings};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, SanType};
use tokio_rustls::rustls::client::Resumption;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::{
    ALL_VERSIONS, ClientConfig, ClientConnection, HandshakeKind, RootCertStore, StreamOwned,
    SupportedProtocolVersion,
};

use super::{Folder, PATIENCE};

/// Who issues certificates.
pub(crate) struct Authority(CertifiedIssuer<'static, KeyPair>);

/// A certificate and its key, as PEM.
pub(crate) struct Issued {
    pub(crate) certificate: String,
    pub(crate) key: String,
}

impl Authority {
    pub(crate) fn new(name: &str) -> Self {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        Self(CertifiedIssuer::self_signed(params, key).unwrap())
    }

    pub(crate) fn pem(&self) -> String {
        self.0.pem()
    }

    /// A certificate for `localhost`, and for a URI where one is given.
    pub(crate) fn issue(&self, uri: Option<&str>) -> Issued {
        let mut params = CertificateParams::new(["localhost".to_owned()]).unwrap();
        if let Some(uri) = uri {
            (params.subject_alt_names).push(SanType::URI(uri.try_into().unwrap()));
        }
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.0).unwrap();
        Issued {
            certificate: certificate.pem(),
            key: key.serialize_pem(),
        }
    }

    /// A client that trusts it, offers these protocols, and shows a certificate if
    /// it has one.
    pub(crate) fn trusted(&self, shown: Option<&Issued>, alpn: &[&str]) -> Arc<ClientConfig> {
        self.trusted_by((shown, alpn), ALL_VERSIONS)
    }

    /// The same, with these versions of TLS.
    pub(crate) fn trusted_by(
        &self,
        (shown, alpn): (Option<&Issued>, &[&str]),
        versions: &[&'static SupportedProtocolVersion],
    ) -> Arc<ClientConfig> {
        let mut roots = RootCertStore::empty();
        let root = CertificateDer::from_pem_slice(self.pem().as_bytes()).unwrap();
        roots.add(root).unwrap();
        let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_protocol_versions(versions)
            .unwrap()
            .with_root_certificates(roots);
        let mut config = match shown {
            None => builder.with_no_client_auth(),
            Some(shown) => {
                let chain = CertificateDer::pem_slice_iter(shown.certificate.as_bytes());
                let chain = chain.map(Result::unwrap).collect();
                let key = PrivateKeyDer::from_pem_slice(shown.key.as_bytes()).unwrap();
                builder.with_client_auth_cert(chain, key).unwrap()
            }
        };
        config.alpn_protocols = alpn.iter().map(|it| it.as_bytes().to_vec()).collect();
        config.resumption = Resumption::in_memory_sessions(8);
        Arc::new(config)
    }
}

/// The listener's files, as a mounted Secret has them: names that lead through
/// `..data`.
pub(crate) struct Mounted {
    folder: Folder,
    version: std::cell::Cell<u32>,
}

impl Mounted {
    pub(crate) fn new(name: &str, issued: &Issued) -> Self {
        let mounted = Self {
            folder: Folder::new(name),
            version: std::cell::Cell::new(0),
        };
        mounted.swap(&[("tls.crt", &issued.certificate), ("tls.key", &issued.key)]);
        mounted
    }

    /// Replaces all files at once.
    pub(crate) fn swap(&self, files: &[(&str, &str)]) {
        use std::os::unix::fs::symlink;
        self.version.set(self.version.get() + 1);
        let data = format!("..{}", self.version.get());
        std::fs::create_dir(self.folder.path(&data)).unwrap();
        for (name, text) in files {
            std::fs::write(self.folder.path(&data).join(name), text).unwrap();
            let link = self.folder.path(name);
            if !link.is_symlink() {
                symlink(format!("..data/{name}"), link).unwrap();
            }
        }
        let new = self.folder.path("..data_tmp");
        symlink(data, &new).unwrap();
        std::fs::rename(new, self.folder.path("..data")).unwrap();
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path(name)
    }

    /// A listener with these files, that asks clients for nothing.
    pub(crate) fn settings(&self) -> TlsSettings {
        TlsSettings {
            certificate: self.path("tls.crt"),
            key: self.path("tls.key"),
            client_ca: None,
            min_version: MinVersion::Tls12,
        }
    }

    /// One that asks for certificates of who is in `ca.crt`.
    pub(crate) fn asking(&self, auth: ClientAuth) -> TlsSettings {
        let file = self.path("ca.crt");
        TlsSettings {
            client_ca: Some(ClientCa { file, auth }),
            ..self.settings()
        }
    }
}

/// A connection that speaks HTTP by hand, encrypted.
pub(crate) struct TlsClient {
    pub(crate) stream: StreamOwned<ClientConnection, TcpStream>,
    buffer: Vec<u8>,
}

/// How a connection ended.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Ended {
    /// It was said so.
    Announced,
    /// Without a word.
    Cut,
    /// It was reset.
    Reset,
}

impl TlsClient {
    /// A connection whose handshake is done, as far as we know: a server of TLS 1.3
    /// may refuse us after it.
    pub(crate) fn connect(
        address: SocketAddr,
        config: &Arc<ClientConfig>,
    ) -> std::io::Result<Self> {
        let mut tcp = TcpStream::connect(address)?;
        tcp.set_nodelay(true)?;
        tcp.set_read_timeout(Some(PATIENCE))?;
        tcp.set_write_timeout(Some(PATIENCE))?;
        let name = "localhost".try_into().unwrap();
        let mut session = ClientConnection::new(Arc::clone(config), name).unwrap();
        while session.is_handshaking() {
            session.complete_io(&mut tcp)?;
        }
        Ok(Self {
            stream: StreamOwned::new(session, tcp),
            buffer: Vec::new(),
        })
    }

    pub(crate) fn write(&mut self, text: &str) {
        self.stream.write_all(text.as_bytes()).unwrap();
        self.stream.flush().unwrap();
    }

    /// Reads more; or how it ended.
    fn more(&mut self) -> Option<Ended> {
        let mut piece = [0; 16 << 10];
        match self.stream.read(&mut piece) {
            Ok(0) => Some(Ended::Announced),
            Ok(n) => {
                self.buffer.extend_from_slice(&piece[..n]);
                None
            }
            Err(e) if e.kind() == ErrorKind::UnexpectedEof => Some(Ended::Cut),
            Err(e) if e.kind() == ErrorKind::ConnectionReset => Some(Ended::Reset),
            Err(e) => panic!("{e}; so far: {}", String::from_utf8_lossy(&self.buffer)),
        }
    }

    /// Reads until `text` has come, and takes everything up to its end.
    #[track_caller]
    pub(crate) fn until(&mut self, text: &str) -> String {
        loop {
            let found = memchr::memmem::find(&self.buffer, text.as_bytes());
            if let Some(at) = found {
                let rest = self.buffer.split_off(at + text.len());
                let taken = std::mem::replace(&mut self.buffer, rest);
                return String::from_utf8(taken).unwrap();
            }
            if let Some(ended) = self.more() {
                let so_far = String::from_utf8_lossy(&self.buffer);
                panic!("{ended:?} before {text:?}: {so_far}");
            }
        }
    }

    /// Everything up to the end, and how that came.
    pub(crate) fn rest(&mut self) -> (String, Ended) {
        let ended = loop {
            if let Some(ended) = self.more() {
                break ended;
            }
        };
        let rest = String::from_utf8(std::mem::take(&mut self.buffer)).unwrap();
        (rest, ended)
    }

    /// Reads so many bytes.
    fn bytes(&mut self, count: usize) -> String {
        while self.buffer.len() < count {
            assert_eq!(self.more(), None);
        }
        let rest = self.buffer.split_off(count);
        String::from_utf8(std::mem::replace(&mut self.buffer, rest)).unwrap()
    }

    /// Reads an answer that has a length: its head and its body.
    #[track_caller]
    pub(crate) fn answer(&mut self) -> (String, String) {
        let head = self.until("\r\n\r\n");
        let fields = head.to_ascii_lowercase();
        let (_, length) = fields.split_once("content-length: ").unwrap();
        let length = length.split("\r\n").next().unwrap().parse().unwrap();
        let body = self.bytes(length);
        (head, body)
    }

    /// Asks for a page, and gives its head and body.
    #[track_caller]
    pub(crate) fn get(&mut self, path: &str) -> (String, String) {
        self.write(&format!("GET {path} HTTP/1.1\r\nhost: x\r\n\r\n"));
        self.answer()
    }

    /// One value of /metrics, of the first series that starts so.
    #[track_caller]
    pub(crate) fn metric(&mut self, series: &str) -> f64 {
        let (_, page) = self.get("/metrics");
        let line = page.lines().find(|line| line.starts_with(series));
        let line = line.unwrap_or_else(|| panic!("{series} not in\n{page}"));
        line.rsplit(' ').next().unwrap().parse().unwrap()
    }

    /// Whether the session was taken up again. To be asked once something was read.
    pub(crate) fn is_resumed(&self) -> bool {
        self.stream.conn.handshake_kind() == Some(HandshakeKind::Resumed)
    }

    /// The certificate that was shown to us.
    pub(crate) fn shown(&self) -> CertificateDer<'static> {
        let shown = self.stream.conn.peer_certificates().unwrap();
        shown[0].clone().into_owned()
    }
}
