use std::path::PathBuf;
use std::sync::Arc;

use rcgen::KeyPair;

use super::*;
use crate::config::tls::{MinVersion, TlsSettings};

struct Files {
    folder: PathBuf,
    settings: TlsSettings,
}

impl Files {
    fn new(name: &str) -> Self {
        let folder = format!("pilotfish-rotation-{name}-{}", std::process::id());
        let folder = std::env::temp_dir().join(folder);
        std::fs::create_dir_all(&folder).unwrap();
        let settings = TlsSettings {
            certificate: folder.join("crt"),
            key: folder.join("key"),
            client_ca: None,
            min_version: MinVersion::default(),
        };
        let files = Self { folder, settings };
        let (certificate, key) = pair();
        files.write(Some(&certificate), Some(&key));
        files
    }

    fn write(&self, certificate: Option<&str>, key: Option<&str>) {
        let of = [
            (&self.settings.certificate, certificate),
            (&self.settings.key, key),
        ];
        for (file, text) in of {
            if let Some(text) = text {
                std::fs::write(file, text).unwrap();
            }
        }
    }
}

impl Drop for Files {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

fn pair() -> (String, String) {
    let key = KeyPair::generate().unwrap();
    let params = rcgen::CertificateParams::new(["localhost".to_owned()]).unwrap();
    (params.self_signed(&key).unwrap().pem(), key.serialize_pem())
}

/// What one look does: files put in force, and refused; whether the
/// configuration is another.
async fn looks(tls: &Tls, refused: &mut Vec<Problem>) -> (u64, u64, bool) {
    let (counts, before) = (TlsMetrics::default(), tls.config());
    look(tls, &counts, refused, SETTLE).await;
    let is_new = !Arc::ptr_eq(&before, &tls.config());
    (counts.reloads.get(), counts.reload_failures.get(), is_new)
}

#[tokio::test]
async fn what_is_good_is_put_in_force_and_what_is_bad_is_said_once() {
    let files = Files::new("look");
    let tls = Tls::load(&files.settings).unwrap();
    let mut refused = Vec::new();
    assert_eq!(
        looks(&tls, &mut refused).await,
        (0, 0, false),
        "nothing new"
    );
    let (certificate, key) = pair();
    files.write(Some(&certificate), None);
    assert_eq!(
        looks(&tls, &mut refused).await,
        (0, 1, false),
        "half a pair"
    );
    assert_eq!(
        looks(&tls, &mut refused).await,
        (0, 0, false),
        "said before"
    );
    files.write(None, Some(&key));
    assert_eq!(looks(&tls, &mut refused).await, (1, 0, true), "both halves");
    files.write(Some(""), None);
    assert_eq!(looks(&tls, &mut refused).await, (0, 1, false), "emptied");
    files.write(Some(&certificate), None);
    assert_eq!(looks(&tls, &mut refused).await, (0, 0, false), "as before");
    files.write(Some(""), None);
    assert_eq!(looks(&tls, &mut refused).await, (0, 1, false), "bad again");
}

#[tokio::test]
async fn a_half_that_comes_late_is_waited_for() {
    let files = Files::new("late");
    let tls = Tls::load(&files.settings).unwrap();
    let (certificate, key) = pair();
    files.write(Some(&certificate), None);
    let counts = TlsMetrics::default();
    let mut refused = Vec::new();
    let looking = look(&tls, &counts, &mut refused, PATIENCE);
    let writing = async {
        tokio::time::sleep(SETTLE).await;
        files.write(None, Some(&key));
    };
    tokio::join!(looking, writing);
    assert_eq!((counts.reloads.get(), counts.reload_failures.get()), (1, 0));
}
