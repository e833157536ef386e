//! Our own small requests to engines, from the control thread.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use http::{Method, StatusCode};

use super::link::{Fault, Reading};
use super::pool::Pool;
use super::upload::Upload;
use crate::fleet::Engine;

/// Why a fetch brought nothing.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// Could not connect.
    #[error("could not reach the engine: {0}")]
    Connect(#[from] std::io::Error),
    /// No answer, or a broken one.
    #[error(transparent)]
    Fault(#[from] Fault),
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

/// What to get.
#[derive(Debug, Clone, Copy)]
pub struct Get<'a> {
    /// The path, put after the engine's own.
    pub path: &'a str,
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
    let got = tokio::time::timeout(what.within, get(pool, engine, what)).await;
    got.unwrap_or(Err(FetchError::Late(what.within)))
}

async fn get(pool: &Rc<Pool>, engine: &Arc<Engine>, what: Get<'_>) -> Result<Vec<u8>, FetchError> {
    let Get {
        path, bearer, most, ..
    } = what;
    let mut link = pool.connect(engine).await?;
    let url = &engine.url;
    let mut head = format!("GET {}{path} HTTP/1.1\r\nhost: ", url.base_path()).into_bytes();
    head.extend_from_slice(url.authority().as_bytes());
    if let Some(token) = bearer {
        head.extend_from_slice(b"\r\nauthorization: Bearer ");
        head.extend_from_slice(token.as_bytes());
    }
    head.extend_from_slice(b"\r\naccept: */*\r\nconnection: close\r\n\r\n");
    let mut upload = Upload::bodiless();
    upload.begin(head);
    let mut reading = Reading::new(&Method::GET, false);
    let answered =
        std::future::poll_fn(|cx| link.poll_exchange(&mut upload, &mut reading, pool, cx)).await?;
    if answered.status != StatusCode::OK {
        return Err(FetchError::Status(answered.status));
    }
    let mut body = link.into_body(&answered, reading, upload, pool);
    let mut whole = BytesMut::new();
    while let Some(data) = std::future::poll_fn(|cx| body.poll_data(cx)).await {
        whole.extend_from_slice(&data?);
        if whole.len() > most {
            return Err(FetchError::TooLong(most));
        }
    }
    Ok(whole.to_vec())
}
