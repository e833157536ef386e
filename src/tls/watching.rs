//! Certificates that are replaced while we serve: the files are looked at when
//! they change, and what is good is put in force for new connections. On the
//! control thread.
//!
//! A certificate and its key are two files, and change one after the other:
//! what does not fit together is given time to do so, and only then refused.
//! Until then, and after that, the last good ones stay.

use std::future::{Future, poll_fn};
use std::path::Path;
use std::pin::Pin;
use std::task::Poll;
use std::time::{Duration, Instant};

use tokio::signal::unix::{SignalKind, signal};

use super::files::Material;
use super::{Tls, files};
use crate::config::problem::{Problem, Problems};
use crate::config::watch::{FileWatch, SETTLE};
use crate::metrics::TlsMetrics;

/// How long files may be wrong before it is said: the rest may be on its way.
const PATIENCE: Duration = Duration::from_secs(5);

/// Looks at the files whenever there is reason to, for ever.
pub async fn run(tls: &Tls, counts: &TlsMetrics) {
    let (of, ca) = (&tls.settings, &tls.settings.client_ca);
    let ca = ca.as_ref().map(|ca| ca.file.as_path());
    let paths: [Option<&Path>; 3] = [Some(&of.certificate), Some(&of.key), ca];
    let watches: Vec<_> = (paths.into_iter().flatten())
        .map(FileWatch::start)
        .collect();
    let mut hangup = signal(SignalKind::hangup()).ok();
    let mut refused = Vec::new();
    loop {
        let hung_up = async {
            match &mut hangup {
                Some(signal) => signal.recv().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = any_stirred(&watches) => {}
            _ = hung_up => {}
        }
        look(tls, counts, &mut refused, PATIENCE).await;
    }
}

/// Waits until there is reason to look at one of them.
pub(crate) async fn any_stirred(watches: &[FileWatch]) {
    let mut waiting: Vec<Pin<Box<dyn Future<Output = ()> + '_>>> = Vec::new();
    for watch in watches {
        waiting.push(Box::pin(watch.stirred()));
    }
    poll_fn(|cx| {
        let mut stirred = waiting.iter_mut().map(|one| one.as_mut().poll(cx));
        match stirred.any(|one| one.is_ready()) {
            true => Poll::Ready(()),
            false => Poll::Pending,
        }
    })
    .await;
}

/// Looks at the files, and acts on what is new; `refused` is what was said last.
async fn look(tls: &Tls, counts: &TlsMetrics, refused: &mut Vec<Problem>, patience: Duration) {
    match settled(tls, refused, patience).await {
        Ok(None) => refused.clear(),
        Ok(Some(material)) => match tls.apply(material) {
            Ok(()) => {
                refused.clear();
                accepted(tls, counts);
            }
            Err(problems) => refuse(counts, refused, problems),
        },
        Err(problems) if problems == *refused => {}
        Err(problems) => refuse(counts, refused, problems),
    }
}

/// What the files hold once they have stayed the same for long enough; `None`:
/// what is in force. What was refused before is told at once.
async fn settled(
    tls: &Tls,
    refused: &[Problem],
    patience: Duration,
) -> Result<Option<Material>, Vec<Problem>> {
    let mut found = files::read(&tls.settings);
    let mut since = Instant::now();
    loop {
        let enough = match &found {
            Ok(material) if *material == **tls.loaded.load() => return Ok(None),
            Ok(_) => SETTLE,
            Err(problems) if problems == refused => Duration::ZERO,
            Err(_) => patience,
        };
        if since.elapsed() >= enough {
            return found.map(Some);
        }
        tokio::time::sleep(SETTLE).await;
        let again = files::read(&tls.settings);
        if again != found {
            (found, since) = (again, Instant::now());
        }
    }
}

fn accepted(tls: &Tls, counts: &TlsMetrics) {
    counts.reloads.increment(1);
    let file = tls.settings.certificate.display();
    tracing::info!(%file, "new certificates are in force; open connections keep theirs");
    for warning in tls.warnings() {
        tracing::warn!("{warning}");
    }
}

fn refuse(counts: &TlsMetrics, refused: &mut Vec<Problem>, problems: Vec<Problem>) {
    counts.reload_failures.increment(1);
    refused.clone_from(&problems);
    let error = Problems {
        of: "TLS".to_owned(),
        list: problems,
    };
    tracing::error!("the files are refused, the last good ones stay: {error}");
}

#[cfg(test)]
mod tests;
