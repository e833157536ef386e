use std::path::PathBuf;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};

use super::*;
use crate::config::tls::{ClientAuth, ClientCa, MinVersion};

/// A folder of its own, gone when dropped.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path =
            std::env::temp_dir().join(format!("pilotfish-tls-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    fn write(&self, name: &str, text: &str) -> PathBuf {
        use std::os::unix::fs::PermissionsExt as _;
        let path = self.0.join(name);
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
        path
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn fixture(name: &str) -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    root.join("tests/fixtures/tls").join(name)
}

fn text(name: &str) -> String {
    std::fs::read_to_string(fixture(name)).unwrap()
}

fn params(name: &str) -> CertificateParams {
    let mut params = CertificateParams::new([name.to_owned()]).unwrap();
    params.distinguished_name.push(DnType::CommonName, name);
    params
}

/// A leaf, who issued it, the root; and the leaf's key.
fn chain() -> ([String; 3], String) {
    let authority = |name: &str| {
        let mut params = params(name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params
    };
    let key = || KeyPair::generate().unwrap();
    let root = CertifiedIssuer::self_signed(authority("root"), key()).unwrap();
    let middle = CertifiedIssuer::signed_by(authority("middle"), key(), &root).unwrap();
    let leaf_key = key();
    let leaf = params("leaf").signed_by(&leaf_key, &middle).unwrap();
    let pems = [leaf.pem(), middle.pem(), root.pem()];
    (pems, leaf_key.serialize_pem())
}

/// A certificate that is good for these days from now.
fn between(from: i64, until: i64) -> (String, String) {
    let mut params = params("leaf");
    let epoch = rcgen::date_time_ymd(1970, 1, 1);
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    let now = epoch + now.unwrap();
    let day = |days: i64| {
        let span = std::time::Duration::from_secs(days.unsigned_abs() * 86_400);
        if days < 0 { now - span } else { now + span }
    };
    (params.not_before, params.not_after) = (day(from), day(until));
    let key = KeyPair::generate().unwrap();
    let certificate = params.self_signed(&key).unwrap();
    (certificate.pem(), key.serialize_pem())
}

fn problems(certificate: &Path, key: &Path) -> String {
    let list = read_identity(certificate, key).unwrap_err();
    let of = "TLS".to_owned();
    crate::config::problem::Problems { of, list }.to_string()
}

#[test]
fn keys_of_every_form_are_taken() {
    for (certificate, key) in [
        ("rsa.crt", "rsa-pkcs8.key"),
        ("rsa.crt", "rsa-pkcs1.key"),
        ("ec.crt", "ec-sec1.key"),
    ] {
        let found = read_identity(&fixture(certificate), &fixture(key));
        let found = found.unwrap_or_else(|wrong| panic!("{key}: {wrong:?}"));
        assert!(found.not_after.is_some_and(|at| at > SystemTime::now()));
    }
    // What `openssl ecparam` writes before the key, and text around it.
    let folder = Folder::new("forms");
    let params = "-----BEGIN EC PARAMETERS-----\nBggqhkjOPQMBBw==\n-----END EC PARAMETERS-----\n";
    let key = folder.write("key", &format!("a key\r\n{params}{}", text("ec-sec1.key")));
    assert!(read_identity(&fixture("ec.crt"), &key).is_ok());
    // Both in one file, named twice.
    let both = text("ec-sec1.key") + &text("ec.crt");
    let both = folder.write("both", &both);
    assert!(read_identity(&both, &both).is_ok());
}

#[test]
fn what_is_wrong_is_said_with_the_file_and_what_was_expected() {
    let folder = Folder::new("wrong");
    let (certificate, key) = (text("ec.crt"), text("ec-sec1.key"));
    let cut = &certificate[..certificate.len() / 2];
    let bad = certificate.replacen("MII", "!!!", 1);
    let der = "-----BEGIN CERTIFICATE-----\nMAA=\n-----END CERTIFICATE-----\n";
    let csr = certificate.replace("CERTIFICATE", "CERTIFICATE REQUEST");
    let many = certificate.repeat(MOST_CHAIN + 1);
    for (name, content, expected) in [
        ("empty", "", "is empty; PEM was expected"),
        ("blank", " \n", "is empty; PEM was expected"),
        ("a key", &key, "it holds a key; are the two files mixed up?"),
        ("no PEM", "hello", "is it another format (DER, PKCS#12)?"),
        ("a request", &csr, "has no certificate"),
        ("cut", cut, "does not end"),
        ("no base64", &bad, "no base64"),
        ("no X.509", der, "certificate 1 is no X.509"),
        (
            "too many",
            &many,
            "has 17 certificates; at most 16 are taken",
        ),
    ] {
        let file = folder.write(name, content);
        let said = problems(&file, &fixture("ec-sec1.key"));
        assert!(said.contains(&format!("{name}: ")), "{said}");
        assert!(said.contains(expected), "{name}: {said}");
    }
    let two = key.repeat(2);
    let weak = "-----BEGIN PRIVATE KEY-----\nMAA=\n-----END PRIVATE KEY-----\n";
    for (name, content, expected) in [
        ("empty", "", "is empty"),
        ("a certificate", &certificate[..], "it holds a certificate"),
        ("two", &two, "more than one key"),
        ("weak", weak, "ECDSA (P-256, P-384) or Ed25519 was expected"),
        ("other", &text("rsa-pkcs8.key"), "they must be of one pair"),
        ("crypt8", &text("encrypted-pkcs8.key"), "is encrypted"),
        ("crypt1", &text("rsa-encrypted-pkcs1.key"), "is encrypted"),
    ] {
        let file = folder.write(name, content);
        let said = problems(&fixture("ec.crt"), &file);
        assert!(said.contains(&format!("{name}: ")), "{said}");
        assert!(said.contains(expected), "{name}: {said}");
        assert!(
            !said.contains("MHcC") && !said.contains("MII"),
            "a secret: {said}"
        );
    }
    let none = folder.0.join("none");
    let both = problems(&none, &folder.0);
    assert!(
        both.contains("none: cannot read the file: No such file"),
        "{both}"
    );
    assert!(
        both.contains("is no file") && both.contains("2 problems"),
        "{both}"
    );
}

#[test]
fn a_chain_out_of_order_is_told_of_by_place() {
    let folder = Folder::new("order");
    let ([leaf, middle, root], key) = chain();
    let key = folder.write("key", &key);
    for (order, expected) in [
        (vec![&leaf], None),
        (vec![&leaf, &middle], None),
        (vec![&leaf, &middle, &root], None),
        (
            vec![&leaf, &root, &middle],
            Some(
                "certificate 1, 'leaf', is issued by 'middle', but certificate 2 is 'root'; that one stands in place 3",
            ),
        ),
        (
            vec![&middle, &leaf],
            Some(
                "certificate 1, 'middle', is issued by 'root', but certificate 2 is 'leaf'; they are in reverse order",
            ),
        ),
        (
            vec![&root, &middle, &leaf],
            Some("but certificate 2 is 'middle'; they are in reverse order"),
        ),
        (
            vec![&root, &leaf],
            Some("a root comes last, and our own certificate first"),
        ),
        (vec![&leaf, &root], Some("that one is not in the file")),
    ] {
        let text: String = order.into_iter().map(String::as_str).collect();
        let file = folder.write("chain", &text);
        match (read_identity(&file, &key), expected) {
            (Ok(_), None) => {}
            (Err(list), Some(expected)) => {
                assert!(list[0].message.contains(expected), "{}", list[0]);
            }
            (found, _) => panic!("{expected:?}: {found:?}"),
        }
    }
}

#[test]
fn what_is_warned_of_does_not_make_a_certificate_another() {
    let folder = Folder::new("same");
    let read = |(certificate, key): (String, String)| {
        let files = (folder.write("c", &certificate), folder.write("k", &key));
        read_identity(&files.0, &files.1).unwrap()
    };
    let pair = between(-2, 3);
    let (mut later, other) = (read(pair.clone()), read(between(-2, 3)));
    assert_eq!(later.warnings.len(), 1);
    later.warnings = vec!["expires in 2 h".to_owned()];
    assert_eq!(later, read(pair));
    assert_ne!(later, other);
}

#[test]
fn what_is_not_good_now_is_used_and_warned_of() {
    let folder = Folder::new("times");
    for (from, until, expected) in [
        (-2, 30, None),
        (-30, -10, Some("expired 10 days ago")),
        (3, 30, Some("is not good before 2 days from now")),
        (-2, 3, Some("expires in 2 days")),
    ] {
        let (certificate, key) = between(from, until);
        let (certificate, key) = (folder.write("c", &certificate), folder.write("k", &key));
        let found = read_identity(&certificate, &key).unwrap();
        match expected {
            None => assert_eq!(found.warnings, [""; 0]),
            Some(expected) => {
                let [warning] = &found.warnings[..] else {
                    panic!("{:?}", found.warnings);
                };
                assert!(warning.contains(expected), "{warning}");
            }
        }
    }
}

#[test]
fn a_key_that_everyone_may_read_is_warned_of() {
    use std::os::unix::fs::PermissionsExt as _;
    let folder = Folder::new("modes");
    let key = folder.write("key", &text("ec-sec1.key"));
    for (mode, is_warned) in [(0o600, false), (0o640, false), (0o644, true)] {
        std::fs::set_permissions(&key, std::fs::Permissions::from_mode(mode)).unwrap();
        let warnings = read_identity(&fixture("ec.crt"), &key).unwrap().warnings;
        assert_eq!(!warnings.is_empty(), is_warned, "{mode:o} {warnings:?}");
    }
}

#[test]
fn a_listener_is_made_from_files_that_were_found_good() {
    let folder = Folder::new("listener");
    let ([leaf, middle, root], key) = chain();
    let mut settings = TlsSettings {
        certificate: folder.write("chain", &(leaf + &middle)),
        key: folder.write("key", &key),
        client_ca: None,
        min_version: MinVersion::Tls13,
    };
    let tickets = server::tickets().unwrap();
    let made = |settings: &TlsSettings| {
        let material = read(settings).unwrap();
        server::config(&material, settings, &tickets).unwrap()
    };
    let open = made(&settings);
    assert!(open.ticketer.enabled() && open.max_early_data_size == 0);
    settings.client_ca = Some(ClientCa {
        file: folder.write("ca", &root),
        auth: ClientAuth::Required,
    });
    let closed = made(&settings);
    // Who shows a certificate shows it each time.
    assert!(!closed.ticketer.enabled() && closed.send_tls13_tickets == 0);
    settings.client_ca = Some(ClientCa {
        file: folder.write("ca", ""),
        auth: ClientAuth::Optional,
    });
    assert!(read(&settings).unwrap_err()[0].message.contains("is empty"));
}
