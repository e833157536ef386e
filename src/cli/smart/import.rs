//! `pilotfish smart import`.

use std::collections::{HashSet, VecDeque};
use std::fmt;
use std::fs::File;
use std::io::{self, BufReader, Read};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use anyhow::Context as _;
use clap::Args;
use rapidhash::v3::rapidhash_v3;

use super::{fit, open, print, table, with_bar};
use crate::smart::history::{self, MOST_HELD, MOST_MODELS, MOST_ROWS, Names, Reader, Row, Skipped};
use crate::smart::log::Log;

/// Rows that are written at once.
const BATCH: usize = 4096;
/// Bytes that are read at once.
const PIECE: usize = 256 << 10;

/// Flags of `pilotfish smart import`.
#[derive(Debug, Args)]
#[command(
    after_help = "Each line is one query: {\"query\": \"...\", \"input_token_length\": 26, \"outputs\": \
    [{\"model_name\": \"...\", \"correctness\": true, \"output_token_length\": 57}, ...]}; a correctness is true, false or \
    0 to 1; the lengths may be missing; other keys are passed over. A model's name must be the one that its engines \
    serve. A row that the history has already, the same in everything, is not added again.\n"
)]
pub(super) struct ImportArgs {
    /// Files of JSON lines; `-` for standard input.
    #[arg(value_name = "FILE", required = true)]
    files: Vec<PathBuf>,
    /// The folder that the proxy is given; it is made if need be, and the proxy
    /// must not run.
    #[arg(long, value_name = "DIR")]
    state_dir: PathBuf,
}

/// What was in one file.
#[derive(Debug)]
struct Told {
    name: String,
    rows: usize,
    skipped: Skipped,
    further: Vec<String>,
}

impl ImportArgs {
    /// Adds all files, or none; then fits.
    ///
    /// # Errors
    /// A file that cannot be read or has no row, or a state folder that cannot be
    /// used.
    pub(super) fn run(&self) -> anyhow::Result<()> {
        let sources = self.files.iter().map(|file| source(file));
        let sources = sources.collect::<anyhow::Result<Vec<_>>>()?;
        let (_lock, mut store) = open(&self.state_dir)?;
        let all = sources.iter().map(|source| source.bytes).sum();
        let mut gathered = Gathered::new(&store.log.snapshot()?.rows()?);
        let told = with_bar(all, "bytes read", |done| {
            let files = sources.into_iter();
            let told = files.map(|source| gathered.read(source, done));
            told.collect::<anyhow::Result<Vec<_>>>()
        })?;
        let mut text: String = told.iter().map(Told::to_string).collect();
        let read: usize = told.iter().map(|file| file.rows).sum();
        if read == 0 {
            print(&text)?;
            anyhow::bail!("there is no row to import");
        }
        let (doubles, left) = (gathered.doubles, gathered.left);
        let added = gathered.add_to(&mut store.log)?;
        let rows = store.log.snapshot()?.rows()?;
        text += &format!(
            "{read} rows read, {doubles} of them known already, {added} added; the history has \
             {}\n",
            rows.len()
        );
        if left > 0 {
            let most = MOST_HELD >> 20;
            text += &format!(
                "{left} older rows have no room: the newest {MOST_ROWS} are held, up to {most} \
                 MiB\n"
            );
        }
        // What was added stays, whatever comes of the fit.
        print(&format!("{text}\n{}\n", table::models(&rows)))?;
        print(&fit(&store, rows)?.to_string())
    }
}

impl fmt::Display for Told {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, rows, .. } = self;
        let count = self.skipped.count;
        writeln!(f, "{name}: {rows} rows, {count} lines left out")?;
        for (line, why) in &self.skipped.first {
            writeln!(f, "  line {line} {why}")?;
        }
        let rest = count - self.skipped.first.len();
        if rest > 0 {
            writeln!(f, "  and {rest} more")?;
        }
        if !self.further.is_empty() {
            let further = self.further.join(", ");
            writeln!(
                f,
                "  no room, as a history tells of {MOST_MODELS} models at most; passed over, the \
                 first of them: {further}"
            )?;
        }
        Ok(())
    }
}

/// Something to read, and how long it is; 0: not known.
struct Source {
    name: String,
    bytes: usize,
    from: Box<dyn Read + Send>,
}

fn source(path: &Path) -> anyhow::Result<Source> {
    if path == Path::new("-") {
        return Ok(Source {
            name: "standard input".to_owned(),
            bytes: 0,
            from: Box::new(io::stdin()),
        });
    }
    let name = path.display().to_string();
    let file = File::open(path).with_context(|| format!("cannot read {name}"))?;
    let bytes = file.metadata().map_or(0, |found| found.len());
    Ok(Source {
        bytes: usize::try_from(bytes).unwrap_or(usize::MAX),
        from: Box::new(file),
        name,
    })
}

/// Counts what is read.
struct Counting<'a> {
    from: Box<dyn Read + Send>,
    done: &'a AtomicUsize,
}

impl Read for Counting<'_> {
    fn read(&mut self, to: &mut [u8]) -> io::Result<usize> {
        let read = self.from.read(to)?;
        self.done.fetch_add(read, Relaxed);
        Ok(read)
    }
}

/// The newest rows that are new, each once.
struct Gathered {
    /// Hashes of the history's rows, and of those that are here.
    known: HashSet<u64>,
    /// The history's models, and those of what is here.
    names: Names,
    rows: VecDeque<(u64, Row)>,
    held: usize,
    doubles: usize,
    left: usize,
}

impl Gathered {
    fn new(history: &[Row]) -> Self {
        let outputs = history.iter().flat_map(|row| &row.outputs);
        Self {
            known: history.iter().map(hash).collect(),
            names: Names::of(outputs.map(|output| &output.model)),
            rows: VecDeque::new(),
            held: 0,
            doubles: 0,
            left: 0,
        }
    }

    fn read(&mut self, source: Source, done: &AtomicUsize) -> anyhow::Result<Told> {
        let from = Counting {
            from: source.from,
            done,
        };
        let names = std::mem::take(&mut self.names);
        let mut reader = Reader::new(BufReader::with_capacity(PIECE, from), names);
        let mut rows = 0;
        while let Some(row) = reader
            .next_row()
            .with_context(|| format!("cannot read {}: nothing was imported", source.name))?
        {
            rows += 1;
            self.push(row);
        }
        let (skipped, names) = reader.into_parts();
        self.names = names;
        Ok(Told {
            name: source.name,
            rows,
            skipped,
            further: self.names.take_further(),
        })
    }

    fn push(&mut self, row: Row) {
        let hash = hash(&row);
        if !self.known.insert(hash) {
            self.doubles += 1;
            return;
        }
        self.held += row.held();
        self.rows.push_back((hash, row));
        while self.rows.len() > MOST_ROWS || self.held > MOST_HELD {
            let Some((hash, oldest)) = self.rows.pop_front() else {
                return;
            };
            self.known.remove(&hash);
            self.held -= oldest.held();
            self.left += 1;
        }
    }

    /// Writes them to the history; how many there were.
    fn add_to(self, log: &mut Log) -> anyhow::Result<usize> {
        let added = self.rows.len();
        // One that is too long already takes no more.
        log.compact().context("cannot shorten the history")?;
        let rows: Vec<Row> = self.rows.into_iter().map(|(_, row)| row).collect();
        for batch in rows.chunks(BATCH) {
            log.append(batch).context("cannot write the history")?;
        }
        log.sync().context("cannot write the history")?;
        if let Err(error) = log.compact() {
            tracing::warn!(%error, "the history cannot be shortened; it grows on");
        }
        Ok(added)
    }
}

/// The same for rows that are the same in everything.
fn hash(row: &Row) -> u64 {
    let mut line = Vec::new();
    history::write(row, &mut line);
    rapidhash_v3(&line)
}
