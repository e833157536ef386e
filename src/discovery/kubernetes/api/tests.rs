use super::*;

#[test]
fn errors_tell_of_what_is_behind_them() {
    let refused = std::io::Error::from(std::io::ErrorKind::ConnectionRefused);
    assert!(!is_of_tls(&refused));
    assert_eq!(deepest(&refused), "connection refused");
    let tls = std::io::Error::other(rustls::Error::DecryptError);
    assert!(is_of_tls(&tls));
    assert!(is_of_tls(&std::io::Error::other(tls)));
}

#[test]
fn it_may_be_located_on_one_thread_and_used_on_another() {
    fn is_send<T: Send>() {}
    is_send::<ApiServer>();
}

#[tokio::test]
async fn a_connection_that_does_not_come() {
    let late = tokio::time::timeout(Duration::ZERO, std::future::pending::<()>()).await;
    let late = std::io::Error::new(std::io::ErrorKind::TimedOut, late.unwrap_err());
    assert_eq!(deepest(&late), "no connection within 3s");
    let other = std::io::Error::from(std::io::ErrorKind::TimedOut);
    assert_eq!(deepest(&other), "timed out");
}
