//! A collector of traces that speaks gRPC, with or without TLS.

use std::net::{SocketAddr, TcpListener};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use bytes::{BufMut as _, Bytes, BytesMut};
use http::{HeaderMap, Response};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::Notify;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::{ServerConfig, crypto::ring};

const METHOD: &str = "/opentelemetry.proto.collector.trace.v1.TraceService/Export";

/// Takes every batch, and answers with one status.
pub(crate) struct Grpc {
    pub(crate) address: SocketAddr,
    taken: Arc<Mutex<Vec<Bytes>>>,
    stop: Arc<Notify>,
    thread: Option<JoinHandle<()>>,
}

impl Grpc {
    /// One that answers with that status of gRPC.
    pub(crate) fn start(status: u32) -> Self {
        Self::run(status, None)
    }

    /// One that speaks TLS, by the certificate of the tests.
    pub(crate) fn start_secure() -> Self {
        let file = |name: &str| format!("{}/tests/fixtures/{name}", env!("CARGO_MANIFEST_DIR"));
        let certificate = CertificateDer::from_pem_file(file("collector.pem")).unwrap();
        let key = PrivateKeyDer::from_pem_file(file("collector.key")).unwrap();
        let provider = Arc::new(ring::default_provider());
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certificate], key)
            .unwrap();
        config.alpn_protocols = vec![b"h2".to_vec()];
        Self::run(0, Some(TlsAcceptor::from(Arc::new(config))))
    }

    fn run(status: u32, tls: Option<TlsAcceptor>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let address = listener.local_addr().unwrap();
        let (taken, stop) = (Arc::new(Mutex::default()), Arc::new(Notify::new()));
        let (all, stopped) = (Arc::clone(&taken), Arc::clone(&stop));
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap();
            runtime.block_on(async {
                let listener = tokio::net::TcpListener::from_std(listener).unwrap();
                let accepting = async {
                    loop {
                        let (stream, _) = listener.accept().await.unwrap();
                        let (all, tls) = (Arc::clone(&all), tls.clone());
                        tokio::spawn(async move {
                            match tls {
                                None => serve(stream, all, status).await,
                                Some(tls) => {
                                    let stream = tls.accept(stream).await.unwrap();
                                    serve(stream, all, status).await;
                                }
                            }
                        });
                    }
                };
                tokio::select! {
                    () = accepting => {}
                    () = stopped.notified() => {}
                }
            });
        });
        Self {
            address,
            taken,
            stop,
            thread: Some(thread),
        }
    }

    /// The messages so far.
    pub(crate) fn messages(&self) -> Vec<Bytes> {
        self.taken.lock().unwrap().clone()
    }
}

impl Drop for Grpc {
    fn drop(&mut self) {
        self.stop.notify_one();
        let _ = self.thread.take().unwrap().join();
    }
}

async fn serve<S: AsyncRead + AsyncWrite + Unpin>(
    stream: S,
    taken: Arc<Mutex<Vec<Bytes>>>,
    status: u32,
) {
    let mut connection = h2::server::handshake(stream).await.unwrap();
    while let Some(Ok((request, mut respond))) = connection.accept().await {
        let taken = Arc::clone(&taken);
        tokio::spawn(async move {
            assert_eq!(request.uri().path(), METHOD);
            assert_eq!(request.headers()["content-type"], "application/grpc");
            assert_eq!(request.headers()["te"], "trailers");
            let mut body = request.into_body();
            let mut whole = BytesMut::new();
            while let Some(data) = body.data().await {
                let data = data.unwrap();
                body.flow_control().release_capacity(data.len()).unwrap();
                whole.put(data);
            }
            let length = u32::from_be_bytes(whole[1..5].try_into().unwrap());
            assert_eq!((whole[0], length as usize), (0, whole.len() - 5));
            taken.lock().unwrap().push(whole.freeze().slice(5..));
            let answer = Response::builder().header("content-type", "application/grpc");
            let mut send = respond
                .send_response(answer.body(()).unwrap(), false)
                .unwrap();
            send.send_data(Bytes::from_static(&[0; 5]), false).unwrap();
            let mut trailers = HeaderMap::new();
            trailers.insert("grpc-status", status.into());
            send.send_trailers(trailers).unwrap();
        });
    }
}
