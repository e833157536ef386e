//! Our own small requests to engines, from the control thread.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::{Method, StatusCode};

use super::link::{Fault, Reading};
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
    /// A token to send.
    pub bearer: Option<&'a str>,
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
    match ask(pool, engine, what).await? {
        (StatusCode::OK, body) => Ok(body),
        (status, _) => Err(FetchError::Status(status)),
    }
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
    let within = what.within;
    let got = tokio::time::timeout(within, exchange(pool, engine, what)).await;
    got.unwrap_or(Err(FetchError::Late(within)))
}

async fn exchange(
    pool: &Rc<Pool>,
    engine: &Arc<Engine>,
    what: Get<'_>,
) -> Result<(StatusCode, Vec<u8>), FetchError> {
    let mut link = pool.connect(engine).await.map_err(Fault::connecting)?;
    let most = what.most;
    let mut upload = Upload::new(what.json.iter().cloned().collect(), true, None);
    upload.begin(head(engine, &what));
    let method = if what.json.is_some() {
        Method::POST
    } else {
        Method::GET
    };
    let mut reading = Reading::new(&method, false);
    let answered =
        std::future::poll_fn(|cx| link.poll_exchange(&mut upload, &mut reading, pool, cx)).await?;
    let status = answered.status;
    let unsent = (!upload.ended()).then_some(upload);
    let mut body = link.into_body(&answered, reading, unsent, pool);
    let mut whole = BytesMut::new();
    while let Some(data) = std::future::poll_fn(|cx| body.poll_data(cx)).await {
        whole.extend_from_slice(&data?);
        if whole.len() > most {
            return Err(FetchError::TooLong(most));
        }
    }
    Ok((status, whole.to_vec()))
}

fn head(engine: &Engine, what: &Get<'_>) -> Vec<u8> {
    let url = &engine.url;
    let method = if what.json.is_some() { "POST" } else { "GET" };
    let mut head = format!(
        "{method} {}{} HTTP/1.1\r\nhost: {}\r\naccept: */*\r\nconnection: close\r\n",
        url.base_path(),
        what.path,
        url.authority().to_str().unwrap_or_default()
    );
    if let Some(token) = what.bearer {
        head.push_str("authorization: Bearer ");
        head.push_str(token);
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
