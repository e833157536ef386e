//! Our own small requests to engines, from the control thread; and to whoever
//! gives advice, from the workers.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::CONTENT_ENCODING;
use http::{Method, StatusCode};

use super::answer::AnswerBody;
use super::codec::AnswerHead;
use super::link::{Fault, Link, Reading};
use super::pool::Pool;
use super::upload::Upload;
use crate::fleet::Engine;

/// Why a fetch brought nothing.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// No answer, or a broken one.
    #[error(transparent)]
    Fault(#[from] Fault),
    /// No answer that can be read.
    #[error("the answer makes no sense: {0}")]
    Nonsense(#[from] std::io::Error),
    /// Another status than 200.
    #[error("the engine answered {0}")]
    Status(StatusCode),
    /// A body in a form that was not asked for.
    #[error("the answer is compressed, by {0:?}; that was not asked for")]
    Encoded(String),
    /// A body beyond the limit.
    #[error("the answer is longer than {0} bytes")]
    TooLong(usize),
    /// Nothing, or not all, within the deadline.
    #[error("no whole answer within {0:?}")]
    Late(Duration),
}

/// What to ask.
#[derive(Debug, Clone)]
pub struct Get<'a> {
    /// The path, put after the engine's own.
    pub path: &'a str,
    /// JSON to post; without it, it is a GET.
    pub json: Option<Bytes>,
    /// How long the whole may take.
    pub within: Duration,
    /// Bytes of the body at most.
    pub most: usize,
}

/// Gets something from `engine`: the body of a 200.
///
/// # Errors
/// See [`FetchError`]; nothing is retried.
pub async fn fetch(
    pool: &Rc<Pool>,
    engine: &Arc<Engine>,
    what: Get<'_>,
) -> Result<Vec<u8>, FetchError> {
    let mut whole = Vec::new();
    stream(pool, engine, what, |piece| whole.extend_from_slice(piece)).await?;
    Ok(whole)
}

/// The same, told piece by piece as it comes; tells how many bytes there were.
///
/// # Errors
/// See [`FetchError`]; nothing is retried.
pub async fn stream(
    pool: &Rc<Pool>,
    engine: &Arc<Engine>,
    what: Get<'_>,
    take: impl FnMut(&[u8]),
) -> Result<usize, FetchError> {
    let (within, most) = (what.within, what.most);
    let got = async {
        let (head, body) = begin(pool, engine, what).await?;
        if head.status != StatusCode::OK {
            return Err(FetchError::Status(head.status));
        }
        plain(&head)?;
        read(body, most, take).await
    };
    let got = tokio::time::timeout(within, got).await;
    got.unwrap_or(Err(FetchError::Late(within)))
}

/// The same, whatever the status.
///
/// # Errors
/// See [`FetchError`]; nothing is retried.
pub async fn ask(
    pool: &Rc<Pool>,
    engine: &Arc<Engine>,
    what: Get<'_>,
) -> Result<(StatusCode, Vec<u8>), FetchError> {
    let (within, most) = (what.within, what.most);
    let got = async {
        let (head, body) = begin(pool, engine, what).await?;
        let mut whole = Vec::new();
        read(body, most, |piece| whole.extend_from_slice(piece)).await?;
        Ok((head.status, whole))
    };
    let got = tokio::time::timeout(within, got).await;
    got.unwrap_or(Err(FetchError::Late(within)))
}

/// The same, on a connection that is kept for the next question. One that was
/// closed in the meantime is replaced once: the question is asked again.
///
/// # Errors
/// See [`FetchError`]; nothing else is retried.
pub async fn converse(
    pool: &Rc<Pool>,
    engine: &Arc<Engine>,
    what: Get<'_>,
) -> Result<(StatusCode, Vec<u8>), FetchError> {
    let got = async {
        let head = || head(engine, &what, "");
        let begun = match pool.take(engine) {
            Some(link) => exchange(link, pool, (&what, head())).await,
            None => Err(Fault::Stale),
        };
        let (answered, body) = match begun {
            Err(Fault::Stale) => {
                let link = pool.connect(engine).await.map_err(Fault::connecting)?;
                exchange(link, pool, (&what, head())).await?
            }
            begun => begun?,
        };
        plain(&answered)?;
        let mut whole = Vec::new();
        read(body, what.most, |piece| whole.extend_from_slice(piece)).await?;
        Ok((answered.status, whole))
    };
    let got = tokio::time::timeout(what.within, got).await;
    got.unwrap_or(Err(FetchError::Late(what.within)))
}

/// Sends the question on a connection of its own, and waits for the head of the
/// answer.
async fn begin(
    pool: &Rc<Pool>,
    engine: &Arc<Engine>,
    what: Get<'_>,
) -> Result<(AnswerHead, AnswerBody), FetchError> {
    let link = pool.connect(engine).await.map_err(Fault::connecting)?;
    let head = head(engine, &what, "connection: close\r\n");
    Ok(exchange(link, pool, (&what, head)).await?)
}

/// Sends the question, and waits for the head of the answer.
async fn exchange(
    mut link: Link,
    pool: &Rc<Pool>,
    (what, head): (&Get<'_>, Vec<u8>),
) -> Result<(AnswerHead, AnswerBody), Fault> {
    let mut upload = Upload::new(what.json.iter().cloned().collect(), true, None);
    upload.begin(head);
    let method = if what.json.is_some() {
        Method::POST
    } else {
        Method::GET
    };
    let mut reading = Reading::new(&method, false);
    let answered =
        std::future::poll_fn(|cx| link.poll_exchange(&mut upload, &mut reading, pool, cx)).await?;
    let unsent = (!upload.ended()).then_some(upload);
    let body = link.into_body(&answered, reading, unsent, pool);
    Ok((answered, body))
}

/// Nobody here unpacks anything.
fn plain(head: &AnswerHead) -> Result<(), FetchError> {
    let encoding = head.headers.get(CONTENT_ENCODING);
    let packed = encoding.filter(|encoding| !encoding.as_bytes().eq_ignore_ascii_case(b"identity"));
    packed.map_or(Ok(()), |encoding| {
        let encoding = String::from_utf8_lossy(encoding.as_bytes()).into_owned();
        Err(FetchError::Encoded(encoding))
    })
}

async fn read(
    mut body: AnswerBody,
    most: usize,
    mut take: impl FnMut(&[u8]),
) -> Result<usize, FetchError> {
    let mut bytes = 0;
    while let Some(data) = std::future::poll_fn(|cx| body.poll_data(cx)).await {
        let data = data?;
        bytes += data.len();
        if bytes > most {
            return Err(FetchError::TooLong(most));
        }
        take(&data);
    }
    Ok(bytes)
}

fn head(engine: &Engine, what: &Get<'_>, connection: &str) -> Vec<u8> {
    let url = &engine.url;
    let method = if what.json.is_some() { "POST" } else { "GET" };
    let mut head = format!(
        "{method} {}{} HTTP/1.1\r\nhost: {}\r\naccept: */*\r\naccept-encoding: identity\r\n{connection}",
        url.base_path(),
        what.path,
        url.authority().to_str().unwrap_or_default()
    );
    let ours = engine.credential.ours();
    if let Some(key) = ours.as_ref().and_then(|ours| ours.key.as_ref()) {
        head.push_str("authorization: Bearer ");
        head.push_str(key.expose());
        head.push_str("\r\n");
    }
    if let Some(json) = &what.json {
        let length = json.len();
        head.push_str("content-type: application/json\r\ncontent-length: ");
        head.push_str(&length.to_string());
        head.push_str("\r\n");
    }
    head.push_str("\r\n");
    head.into_bytes()
}
