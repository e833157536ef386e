use proptest::prelude::*;
use rcgen::{CertificateParams, DnType, KeyPair, SanType};

use super::*;

/// A certificate that names these.
fn named(common_name: Option<&str>, names: &[SanType]) -> Vec<u8> {
    let mut params = CertificateParams::default();
    params.distinguished_name = rcgen::DistinguishedName::new();
    if let Some(name) = common_name {
        params
            .distinguished_name
            .push(DnType::OrganizationName, "o");
        params.distinguished_name.push(DnType::CommonName, name);
    }
    params.subject_alt_names = names.to_vec();
    let key = KeyPair::generate().unwrap();
    params.self_signed(&key).unwrap().der().to_vec()
}

#[test]
fn an_identity_is_the_first_uri_else_a_host_else_the_common_name() {
    let dns = |name: &str| SanType::DnsName(name.try_into().unwrap());
    let uri = |name: &str| SanType::URI(name.try_into().unwrap());
    let long = format!("spiffe://{}", "x".repeat(MOST_NAME));
    for (common_name, names, expected) in [
        (None, &[][..], None),
        (Some("cn"), &[], Some("cn")),
        (Some("Zoë, Inc"), &[], Some("Zoë, Inc")),
        (Some("cn"), &[dns("a.example")], Some("a.example")),
        (
            Some("cn"),
            &[dns("a"), uri("spiffe://t/a"), uri("spiffe://t/b")],
            Some("spiffe://t/a"),
        ),
        (None, &[SanType::IpAddress("::1".parse().unwrap())], None),
        // A bad name is not passed over for a better one.
        (Some("cn"), &[uri(&long), dns("a")], None),
        (Some("cn"), &[uri("spiffe://t/a b")], None),
        (Some("c\nn"), &[], None),
        // Nothing else passes for a URI, nor a URI for something else.
        (Some("spiffe://t/admin"), &[], None),
        (Some("urn:admin"), &[], None),
        (Some("a/b"), &[], None),
        (None, &[dns("spiffe://t/admin")], None),
        (Some("cn"), &[dns("spiffe://t/admin")], None),
        (None, &[dns("host:1")], None),
        (None, &[uri("a.example")], None),
        // The common name is for certificates without any other.
        (
            Some("cn"),
            &[SanType::IpAddress("::1".parse().unwrap())],
            None,
        ),
        (
            Some("cn"),
            &[SanType::Rfc822Name("a@b.example".try_into().unwrap())],
            None,
        ),
    ] {
        let der = named(common_name, names);
        let found = Certificate::parse(&der).unwrap().identity();
        assert_eq!(found.as_deref(), expected, "{common_name:?} {names:?}");
    }
}

#[test]
fn broken_alternative_names_name_nobody() {
    let uri: &[u8] = b"\x30\x0e\x86\x0cspiffe://t/a";
    for (extensions, expected) in [
        (&[uri][..], Some("spiffe://t/a")),
        (&[uri, uri], None),
        (&[b"\x30\x00"], None),
        (&[b""], None),
        (&[b"\x86\x01a"], None),
        (&[b"\x30\x03\x86\x05a"], None),
    ] {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, "cn");
        for content in extensions {
            let id = &[2, 5, 29, 17];
            let one = rcgen::CustomExtension::from_oid_content(id, content.to_vec());
            params.custom_extensions.push(one);
        }
        let key = KeyPair::generate().unwrap();
        let certificate = params.self_signed(&key).unwrap();
        let found = Certificate::parse(certificate.der()).unwrap().identity();
        assert_eq!(found.as_deref(), expected, "{extensions:x?}");
    }
}

#[test]
fn times_are_read_in_both_forms() {
    let at = |tag, text: &str| {
        let since = time((tag, text.as_bytes()))?.duration_since(UNIX_EPOCH);
        Some(since.unwrap().as_secs())
    };
    for (tag, text, expected) in [
        (UTC_TIME, "700101000000Z", Some(0)),
        (UTC_TIME, "700301000000Z", Some(59 * 86_400)),
        (UTC_TIME, "991231235959Z", Some(946_684_799)),
        (UTC_TIME, "000229120000Z", Some(951_825_600)),
        (UTC_TIME, "491231235959Z", Some(2_524_607_999)),
        (GENERALIZED_TIME, "20500101000000Z", Some(2_524_608_000)),
        (GENERALIZED_TIME, "99991231235959Z", Some(253_402_300_799)),
        (UTC_TIME, "690101000000Z", None),
        (UTC_TIME, "7001010000Z", None),
        (UTC_TIME, "700101000000+", None),
        (UTC_TIME, "701301000000Z", None),
        (UTC_TIME, "7001x1000000Z", None),
        (GENERALIZED_TIME, "2050010100000", None),
        (SEQUENCE, "700101000000Z", None),
    ] {
        assert_eq!(at(tag, text), expected, "{text}");
    }
}

#[test]
fn a_certificate_that_is_cut_or_changed_is_none_or_another() {
    let der = named(
        Some("cn"),
        &[SanType::URI("spiffe://t/a".try_into().unwrap())],
    );
    assert!(Certificate::parse(&der).is_some_and(|it| it.is_self_issued()));
    for end in 0..der.len() {
        assert!(Certificate::parse(&der[..end]).is_none(), "{end}");
    }
    // Whatever a byte becomes, nothing is read beyond the end.
    for at in 0..der.len() {
        for byte in [0x00, 0x7f, 0x80, 0x81, 0x84, 0x85, 0xff] {
            let mut der = der.clone();
            der[at] = byte;
            if let Some(parsed) = Certificate::parse(&der) {
                let _ = (parsed.identity(), parsed.shown(), parsed.shown_issuer());
            }
        }
    }
}

proptest! {
    #[test]
    fn any_bytes_are_read(bytes: Vec<u8>) {
        let _ = Certificate::parse(&bytes).map(|it| it.identity());
    }
}
