use std::os::unix::fs::PermissionsExt as _;

use super::*;
use crate::smart::history::Output;

/// A folder of its own, gone when dropped.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let name = format!("pilotfish-smart-store-{name}-{}", std::process::id());
        let path = std::env::temp_dir().join(name);
        let _ = fs::remove_dir_all(&path);
        Self(path)
    }

    fn open(&self) -> Opened {
        Store::open(&self.0).unwrap()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn rows(count: usize) -> Vec<Row> {
    let row = |number| Row {
        query: format!("query {number}"),
        input_tokens: None,
        outputs: vec![Output {
            model: "m".into(),
            score: Some(1.0),
            tokens: None,
        }],
        split: None,
    };
    (0..count).map(row).collect()
}

fn add(store: &mut Store, count: usize) {
    store.log.append(&rows(count)).unwrap();
    store.log.sync().unwrap();
}

/// How many rows the predictor knows; or why it must be made of how many.
fn known(contents: &Contents) -> Result<(usize, usize), (&str, usize)> {
    match contents {
        Contents::Known {
            predictor, behind, ..
        } => Ok((predictor.fitted_rows(), predictor.rows() + behind.len())),
        Contents::Rows { rows, why } => Err((why, rows.len())),
    }
}

fn saved(store: &Store, count: usize) {
    let predictor = Predictor::fit(rows(count), &mut |_| {});
    let covered = Covered {
        mark: store.log.mark(),
        since_fit: 7,
    };
    save(store.folder(), &predictor, covered).unwrap();
}

#[test]
fn a_predictor_is_kept_and_rows_come_behind_it() {
    let folder = Folder::new("kept");
    let Opened {
        mut store,
        contents,
        ..
    } = folder.open();
    assert_eq!(known(&contents), Ok((0, 0)));
    add(&mut store, 3);
    saved(&store, 3);
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    let file = store.folder().join(PREDICTOR);
    assert_eq!((mode(store.folder()), mode(&file)), (0o700, 0o600));
    add(&mut store, 2);
    drop(store);
    let contents = folder.open().contents;
    assert_eq!(known(&contents), Ok((3, 5)));
    let Contents::Known { since_fit, .. } = contents else {
        unreachable!()
    };
    assert_eq!(since_fit, 9);
}

/// What is left of a history that is lost is not overwritten.
#[test]
fn a_predictor_without_its_history_is_kept_aside() {
    let folder = Folder::new("aside");
    let mut store = folder.open().store;
    add(&mut store, 3);
    saved(&store, 3);
    let file = store.folder().join(PREDICTOR);
    let aside = store.folder().join(ASIDE);
    let (whole, history) = (fs::read(&file).unwrap(), fs::read(store.history()).unwrap());
    fs::write(store.history(), &history[..history.len() / 2]).unwrap();
    assert!(known(&folder.open().contents).is_err());
    assert!(!file.exists() && fs::read(&aside).unwrap() == whole);
    for is_there in [true, false] {
        fs::write(&file, &whole).unwrap();
        fs::remove_file(&aside).unwrap();
        fs::remove_file(store.history()).unwrap();
        if is_there {
            fs::write(store.history(), "").unwrap();
        }
        assert_eq!(known(&folder.open().contents), Ok((0, 0)));
        assert!(!file.exists() && fs::read(&aside).unwrap() == whole);
    }
}

#[test]
fn what_is_no_file_is_not_waited_for() {
    let folder = Folder::new("fifo");
    let mut store = folder.open().store;
    add(&mut store, 3);
    let file = store.folder().join(PREDICTOR);
    let made = std::process::Command::new("mkfifo").arg(&file).status();
    assert!(made.unwrap().success());
    let why = "predictor.bin cannot be opened: it is no regular file";
    assert_eq!(known(&folder.open().contents), Err((why, 3)));
    fs::remove_file(&file).unwrap();
    saved(&store, 3);
    let mut bytes = fs::read(&file).unwrap();
    bytes[HEADER] ^= 1;
    fs::write(&file, bytes).unwrap();
    let contents = folder.open().contents;
    let (why, _) = known(&contents).unwrap_err();
    assert!(
        why.starts_with("predictor.bin is not sound: it is no predictor") && !why.contains("fit"),
        "{why}"
    );
}

#[test]
fn what_cannot_be_used_is_made_again() {
    let folder = Folder::new("again");
    let mut store = folder.open().store;
    add(&mut store, 3);
    let file = store.folder().join(PREDICTOR);
    let opened = folder.open().contents;
    assert_eq!(known(&opened), Err(("predictor.bin is not there", 3)));
    saved(&store, 3);
    let whole = fs::read(&file).unwrap();
    // Cut in the header, and every byte of that turned.
    for length in [0, 1, 8, HEADER - 1] {
        fs::write(&file, &whole[..length]).unwrap();
        let opened = folder.open().contents;
        let why = "predictor.bin is not what this version writes";
        assert_eq!(known(&opened), Err((why, 3)), "{length}");
    }
    for at in 0..HEADER {
        let mut bytes = whole.clone();
        bytes[at] ^= 1;
        fs::write(&file, &bytes).unwrap();
        assert!(known(&folder.open().contents).is_err(), "{at}");
    }
    fs::write(&file, &whole[..HEADER]).unwrap();
    assert!(known(&folder.open().contents).is_err());
    fs::write(&file, &whole).unwrap();
    assert_eq!(known(&folder.open().contents), Ok((3, 3)));
    // Without its history.
    fs::write(store.history(), "").unwrap();
    let opened = folder.open().contents;
    assert_eq!(known(&opened), Ok((0, 0)));
    fs::create_dir(&file).unwrap();
    assert_eq!(known(&folder.open().contents), Ok((0, 0)));
}

#[test]
fn lengths_are_kept() {
    let folder = Folder::new("lengths");
    let store = folder.open().store;
    assert_eq!(store.read_lengths().unwrap(), None);
    store.write_lengths(b"one").unwrap();
    store.write_lengths(b"two").unwrap();
    assert_eq!(store.read_lengths().unwrap().as_deref(), Some(&b"two"[..]));
    let most = usize::try_from(MOST_LENGTHS).unwrap();
    store.write_lengths(&vec![b' '; most + 1]).unwrap();
    assert!(store.read_lengths().is_err());
    // Only the two files, and nothing half written.
    let files = fs::read_dir(store.folder()).unwrap().count();
    assert_eq!(files, 2);
}

#[test]
fn a_folder_that_cannot_be_used_is_told() {
    let folder = Folder::new("file");
    fs::write(&folder.0, "a file").unwrap();
    let error = Store::open(&folder.0).unwrap_err().to_string();
    assert!(
        error.contains("cannot make the folder of the history"),
        "{error}"
    );
    fs::remove_file(&folder.0).unwrap();
    fs::create_dir_all(folder.0.join(FOLDER).join(HISTORY)).unwrap();
    let error = Store::open(&folder.0).unwrap_err().to_string();
    assert!(
        error.contains("history.jsonl: cannot open the history"),
        "{error}"
    );
}
