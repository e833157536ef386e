use std::os::unix::fs::PermissionsExt as _;

use serde_json::json;

use super::super::document::MOST_DEPTH;
use super::*;

/// A folder of its own, gone when dropped.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let name = format!("pilotfish-store-{name}-{}", std::process::id());
        let path = std::env::temp_dir().join(name);
        let _ = fs::remove_dir_all(&path);
        Self(path)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn registry(names: &[&str]) -> Registry {
    names.iter().fold(Registry::default(), |registry, name| {
        let document = json!({"name": name, "version": "1", "release_tag": "a"});
        let at = UNIX_EPOCH + Duration::from_secs(7);
        let policy = Registered::of(document, at).unwrap();
        registry.with(policy, Known::Refuse).unwrap()
    })
}

fn uris(registry: &Registry) -> Vec<&str> {
    registry.registered().map(|one| one.uri.as_str()).collect()
}

#[test]
fn what_is_written_is_read_and_nobody_else_may() {
    let folder = Folder::new("written");
    let inner = folder.0.join("deep/er");
    let (store, empty) = Store::open(&inner).unwrap();
    assert!(uris(&empty).is_empty());
    let written = store.write(&registry(&["a", "b"])).unwrap();
    assert!(matches!(written, Written::Durable));
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode(&inner), mode(&store.file())), (0o700, 0o600));
    assert_eq!(mode(&inner.join(LOCK)), 0o600);
    let files = fs::read_dir(&inner).unwrap().count();
    assert_eq!(files, 2);

    let busy = Store::open(&inner).unwrap_err();
    assert!(matches!(busy, StoreError::InUse(_)), "{busy}");
    drop(store);
    // What a killed process left half written.
    fs::write(inner.join(NEW), "{\"version\":1,\"pol").unwrap();
    let (store, read) = Store::open(&inner).unwrap();
    assert_eq!(uris(&read), ["a:1-a", "b:1-a"]);
    assert_eq!(read.get("a:1-a").unwrap().registered_seconds(), Some(7));
    assert!(!inner.join(NEW).exists());
    store.write(&registry(&["b"])).unwrap();
    assert_eq!(uris(&store.read().unwrap()), ["b:1-a"]);
}

#[test]
fn what_we_did_not_write_is_refused_and_left() {
    let folder = Folder::new("corrupt");
    fs::create_dir(&folder.0).unwrap();
    let file = folder.0.join(FILE);
    let one = r#"{"registered_at":1,"document":{"name":"a","version":"1","release_tag":"a"}}"#;
    for (text, part) in [
        (String::new(), "is not what was written: EOF"),
        (
            "{\"version\":1,\"policies\":[".to_owned(),
            "is not what was written",
        ),
        (r#"{"version":2,"policies":[]}"#.to_owned(), "has version 2"),
        (r#"{"policies":[]}"#.to_owned(), "missing field `version`"),
        (
            r#"{"version":1,"policies":[{"registered_at":1,"document":{}}]}"#.to_owned(),
            "policies[0]: name, version",
        ),
        (
            format!(r#"{{"version":1,"policies":[{one},{one}]}}"#),
            "policies[1]: a:1-a is registered already",
        ),
        (
            one.replace(":1,", ":18446744073709551615,").replacen(
                '{',
                r#"{"version":1,"policies":[{"#,
                1,
            ) + "]}",
            "policies[0]: a time",
        ),
    ] {
        fs::write(&file, &text).unwrap();
        let error = Store::open(&folder.0).unwrap_err().to_string();
        assert!(error.contains(part), "{part} in {error}");
        assert!(error.contains("policies.json"), "{error}");
        assert_eq!(fs::read_to_string(&file).unwrap(), text);
    }
    fs::remove_file(&file).unwrap();
    fs::create_dir(&file).unwrap();
    assert!(Store::open(&folder.0).is_err());
    // A file where the folder should be.
    fs::remove_dir(&file).unwrap();
    fs::write(&file, "").unwrap();
    assert!(Store::open(&file).is_err());
}

#[test]
fn a_folder_that_is_gone_is_an_error_and_no_panic() {
    let folder = Folder::new("gone");
    let (store, _) = Store::open(&folder.0).unwrap();
    fs::remove_dir_all(&folder.0).unwrap();
    assert!(store.write(&registry(&["a"])).is_err());
}

#[test]
fn a_document_of_the_most_levels_is_written_and_read() {
    let folder = Folder::new("deep");
    let (store, _) = Store::open(&folder.0).unwrap();
    let of = |levels: usize| {
        let metadata = (0..levels - 2).fold(json!(1), |inner, _| json!({"x": inner}));
        json!({"name": "a", "version": "1", "release_tag": "a", "metadata": metadata})
    };
    let deep = Registered::of(of(MOST_DEPTH), UNIX_EPOCH).unwrap();
    let registry = Registry::default().with(deep, Known::Refuse).unwrap();
    store.write(&registry).unwrap();
    drop(store);
    let (store, read) = Store::open(&folder.0).unwrap();
    assert_eq!(uris(&read), ["a:1-a"]);

    // Whatever could not be read again is not written.
    let mut broken = Registered::of(of(MOST_DEPTH), UNIX_EPOCH).unwrap();
    broken.document = of(127);
    let broken = Registry::default().with(broken, Known::Refuse).unwrap();
    let before = fs::read(store.file()).unwrap();
    assert!(store.write(&broken).is_err());
    assert_eq!(fs::read(store.file()).unwrap(), before);
}
