//! What ends TLS in front of an engine that speaks none.

use std::net::{SocketAddr, TcpStream as StdStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::thread::JoinHandle;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::server::WebPkiClientVerifier;
use tokio_rustls::rustls::{RootCertStore, ServerConfig, crypto::ring};

use super::PATIENCE;
use super::certificates::{Authority, Pair};

/// A listener that decrypts, and passes on.
pub(crate) struct Front {
    pub(crate) address: SocketAddr,
    shaken: Arc<AtomicUsize>,
    stop: Option<tokio::sync::oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Front {
    /// Shows `pair`, asks for certificates of `clients` if there are any, and
    /// passes on to `engine`.
    pub(crate) fn start(pair: &Pair, clients: Option<&Authority>, engine: SocketAddr) -> Self {
        let acceptor = TlsAcceptor::from(Arc::new(config(pair, clients)));
        let (tell, told) = std::sync::mpsc::channel();
        let (stop, stopped) = tokio::sync::oneshot::channel();
        let shaken = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&shaken);
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap();
            runtime.block_on(async move {
                let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
                tell.send(listener.local_addr().unwrap()).unwrap();
                let serving = async {
                    loop {
                        let (stream, _) = listener.accept().await.unwrap();
                        let (acceptor, count) = (acceptor.clone(), Arc::clone(&count));
                        tokio::spawn(relay(acceptor, stream, engine, count));
                    }
                };
                tokio::select! {
                    () = serving => {}
                    _ = stopped => {}
                }
            });
        });
        Self {
            address: told.recv().unwrap(),
            shaken,
            stop: Some(stop),
            thread: Some(thread),
        }
    }

    pub(crate) fn url(&self) -> String {
        format!("https://{}", self.address)
    }

    /// Handshakes that have ended well.
    pub(crate) fn handshakes(&self) -> usize {
        self.shaken.load(SeqCst)
    }
}

impl Drop for Front {
    fn drop(&mut self) {
        let _ = self.stop.take().unwrap().send(());
        let _ = StdStream::connect(self.address);
        let _ = self.thread.take().unwrap().join();
    }
}

fn config(pair: &Pair, clients: Option<&Authority>) -> ServerConfig {
    let provider = Arc::new(ring::default_provider());
    let config = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .unwrap();
    let config = match clients {
        None => config.with_no_client_auth(),
        Some(authority) => {
            let mut roots = RootCertStore::empty();
            let root = CertificateDer::from_pem_slice(authority.pem().as_bytes()).unwrap();
            roots.add(root).unwrap();
            let verifier =
                WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build();
            config.with_client_cert_verifier(verifier.unwrap())
        }
    };
    let chain = CertificateDer::pem_slice_iter(pair.cert.as_bytes());
    let key = PrivateKeyDer::from_pem_slice(pair.key.as_bytes()).unwrap();
    let chain = chain.map(Result::unwrap).collect();
    config.with_single_cert(chain, key).unwrap()
}

/// What the engine ends, it ends; an end that it does not announce by FIN (a
/// reset) is passed on as a cut, without TLS's own end.
async fn relay(
    acceptor: TlsAcceptor,
    stream: TcpStream,
    engine: SocketAddr,
    count: Arc<AtomicUsize>,
) {
    let Ok(client) = acceptor.accept(stream).await else {
        return;
    };
    count.fetch_add(1, SeqCst);
    let Ok(engine) = pilotfish::net::connect("127.0.0.1", engine.port(), PATIENCE).await else {
        return;
    };
    let (mut from_client, mut to_client) = tokio::io::split(client);
    let (mut from_engine, mut to_engine) = engine.into_split();
    let up = async {
        let _ = tokio::io::copy(&mut from_client, &mut to_engine).await;
        let _ = to_engine.shutdown().await;
        // The other way ends this, or nobody does.
        std::future::pending::<()>().await;
    };
    let down = async {
        let mut piece = vec![0; 16 << 10];
        loop {
            match from_engine.read(&mut piece).await {
                Ok(0) => {
                    let _ = to_client.shutdown().await;
                    return;
                }
                Err(_) => return,
                Ok(n) => {
                    if to_client.write_all(&piece[..n]).await.is_err()
                        || to_client.flush().await.is_err()
                    {
                        return;
                    }
                }
            }
        }
    };
    tokio::select! {
        () = up => {}
        () = down => {}
    }
}
