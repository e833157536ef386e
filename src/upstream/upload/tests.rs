use std::future::poll_fn;
use std::sync::Arc;

use tokio::io::AsyncReadExt as _;
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, RootCertStore, ServerConfig};
use tokio_rustls::{TlsAcceptor, TlsConnector};

use super::*;
use crate::net::wire::Socket;

/// Both ends of an encrypted connection: ours, and the engine's.
async fn pair() -> (Wire, tokio_rustls::server::TlsStream<TcpStream>) {
    let key = rcgen::KeyPair::generate().unwrap();
    let of = rcgen::CertificateParams::new(vec!["engine".to_owned()]).unwrap();
    let cert = of.self_signed(&key).unwrap();
    let provider = Arc::new(ring::default_provider());
    let server = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(
            vec![cert.der().clone()],
            PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der())),
        )
        .unwrap();
    let mut roots = RootCertStore::empty();
    roots.add(cert.der().clone()).unwrap();
    let client = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let within = std::time::Duration::from_secs(5);
    let port = listener.local_addr().unwrap().port();
    let (ours, theirs) = tokio::join!(
        crate::net::connect("127.0.0.1", port, within),
        listener.accept()
    );
    let socket = Socket::new(ours.unwrap());
    let name = ServerName::try_from("engine").unwrap();
    let connector = TlsConnector::from(Arc::new(client));
    let acceptor = TlsAcceptor::from(Arc::new(server));
    let (ours, theirs) = tokio::join!(
        connector.connect(name, socket.clone()),
        acceptor.accept(theirs.unwrap().0)
    );
    (Wire::tls(ours.unwrap().into(), socket), theirs.unwrap())
}

#[tokio::test]
async fn a_request_has_not_ended_while_a_part_of_it_is_still_with_us() {
    let (wire, mut engine) = pair().await;
    // The socket is filled, and a little more.
    let piece = vec![b'x'; 4 << 10];
    let mut before = 0;
    loop {
        let pending = poll_fn(|cx| {
            let slices = [IoSlice::new(&piece)];
            if let Poll::Ready(written) = wire.poll_write_vectored(cx, &slices) {
                before += written.unwrap();
            }
            Poll::Ready(wire.poll_flush(cx).is_pending())
        });
        if pending.await {
            break;
        }
    }
    let mut upload = Upload::new(vec![Bytes::from_static(b"body")], true, None);
    upload.begin(b"head".to_vec());
    let sent = poll_fn(|cx| Poll::Ready(upload.poll_send(&wire, cx))).await;
    assert!(upload.at > upload.held.len(), "all of it was taken");
    assert!(sent.is_pending() && !upload.ended());
    let mut read = vec![0; 64 << 10];
    let reading = async {
        let mut left = before + 8;
        while left > 0 {
            left -= engine.read(&mut read).await.unwrap();
        }
    };
    let sending = poll_fn(|cx| upload.poll_send(&wire, cx));
    let (sent, ()) = tokio::join!(sending, reading);
    assert!(sent.is_ok() && upload.ended());
}
