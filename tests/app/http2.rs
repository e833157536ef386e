//! HTTP/2 with prior knowledge, as far as it differs.

use std::time::Duration;

use h2::client::{self, SendRequest};
use http::{Request, Version};
use pilotfish::sim::speed::Speed;
use pilotfish::sim::{SimConfig, SimEngine};
use std::sync::atomic::Ordering::SeqCst;

use crate::support::engine::RawEngine;
use crate::support::{TestApp, eventually};

/// Runs a test with one HTTP/2 connection to the app.
pub(crate) fn with_h2<F: Future<Output = ()>>(
    app: &TestApp,
    test: impl FnOnce(SendRequest<bytes::Bytes>) -> F,
) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let address = app.address;
    runtime.block_on(async {
        let socket = std::net::TcpStream::connect(address).unwrap();
        socket.set_nonblocking(true).unwrap();
        let socket = tokio::net::TcpStream::from_std(socket).unwrap();
        let (send, connection) = client::handshake(socket).await.unwrap();
        let driver = tokio::spawn(connection);
        tokio::time::timeout(Duration::from_secs(20), test(send))
            .await
            .unwrap();
        driver.abort();
    });
}

pub(crate) fn post(body: &str) -> Request<()> {
    Request::post("http://x/v1/chat/completions")
        .version(Version::HTTP_2)
        .header("content-type", "application/json")
        .header("content-length", body.len())
        .body(())
        .unwrap()
}

#[test]
fn many_streams_share_a_connection() {
    let engine = SimEngine::start(SimConfig::new("m", Speed::instant())).unwrap();
    let app = TestApp::new(&[engine.url()]);
    with_h2(&app, async |send| {
        let body = r#"{"model":"m","stream":true,"max_tokens":20}"#;
        let mut answers = Vec::new();
        for _ in 0..20 {
            let mut send = send.clone().ready().await.unwrap();
            let (answer, mut upload) = send.send_request(post(body), false).unwrap();
            upload.send_data(body.into(), true).unwrap();
            answers.push(answer);
        }
        for answer in answers {
            let answer = answer.await.unwrap();
            assert_eq!(answer.status(), 200);
            assert!(answer.headers().contains_key("x-request-id"));
            let mut body = answer.into_body();
            let mut text = Vec::new();
            while let Some(data) = body.data().await {
                let data = data.unwrap();
                body.flow_control().release_capacity(data.len()).unwrap();
                text.extend_from_slice(&data);
            }
            assert!(text.ends_with(b"data: [DONE]\n\n"));
        }
    });
    app.settled();
}

#[test]
fn a_reset_stream_aborts_the_engine() {
    let speed = Speed {
        itl: Duration::from_millis(20),
        ..Speed::instant()
    };
    let engine = SimEngine::start(SimConfig::new("m", speed)).unwrap();
    let app = TestApp::new(&[engine.url()]);
    with_h2(&app, async |send| {
        let body = r#"{"model":"m","stream":true,"max_tokens":2000}"#;
        let mut send = send.ready().await.unwrap();
        let (answer, mut upload) = send.send_request(post(body), false).unwrap();
        upload.send_data(body.into(), true).unwrap();
        let mut stream = answer.await.unwrap().into_body();
        assert!(stream.data().await.unwrap().is_ok());
        upload.send_reset(h2::Reason::CANCEL);
        // The connection itself lives on.
        let aborted = async {
            while engine.gauges().aborted.load(SeqCst) == 0 {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        aborted.await;
        let health = Request::get("http://x/health")
            .version(Version::HTTP_2)
            .body(())
            .unwrap();
        let mut send = send.ready().await.unwrap();
        let (answer, _) = send.send_request(health, true).unwrap();
        assert_eq!(answer.await.unwrap().status(), 200);
    });
    app.settled();
}

#[test]
fn a_cut_stream_gives_its_events_and_is_reset() {
    let engine = RawEngine::start(|mut conn| {
        if conn
            .request()
            .is_some_and(|seen| seen.head.starts_with("POST"))
        {
            conn.stream_head();
            conn.chunk("data: 1\n\n");
        }
    });
    let app = TestApp::new(&[engine.url()]);
    with_h2(&app, async |send| {
        let body = r#"{"model":"m","stream":true}"#;
        let mut send = send.ready().await.unwrap();
        let (answer, mut upload) = send.send_request(post(body), false).unwrap();
        upload.send_data(body.into(), true).unwrap();
        let mut stream = answer.await.unwrap().into_body();
        let mut text = Vec::new();
        let end = loop {
            match stream.data().await {
                Some(Ok(data)) => text.extend_from_slice(&data),
                other => break other,
            }
        };
        let text = String::from_utf8(text).unwrap();
        assert!(
            text.starts_with("data: 1\n\n") && text.contains("engine_disconnected"),
            "{text}"
        );
        assert!(end.is_some_and(|end| end.is_err()), "reset, not ended");
    });
    app.settled();
}

#[test]
fn an_idle_connection_outlives_the_head_deadline() {
    let engine = RawEngine::echo();
    let app = TestApp::with(&[(&engine.url(), "m")], |config| {
        config.settings.timeouts.client_head = Duration::from_millis(200);
    });
    with_h2(&app, async |send| {
        for _ in 0..2 {
            let get = Request::get("http://x/health")
                .version(Version::HTTP_2)
                .body(())
                .unwrap();
            let mut send = send.clone().ready().await.unwrap();
            let (answer, _) = send.send_request(get, true).unwrap();
            let mut body = answer.await.unwrap().into_body();
            // Its window update arrives when nothing is under way.
            let data = body.data().await.unwrap().unwrap();
            body.flow_control().release_capacity(data.len()).unwrap();
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
    });
}

#[test]
fn methods_and_idle_connections_have_bounds_too() {
    let engine = RawEngine::echo();
    let app = TestApp::with(&[(&engine.url(), "m")], |config| {
        config.settings.timeouts.client_idle = Duration::from_millis(200);
    });
    with_h2(&app, async |send| {
        let mut send = send.ready().await.unwrap();
        let trace = Request::builder()
            .method("TRACE")
            .uri("http://x/")
            .version(Version::HTTP_2);
        let (answer, _) = send.send_request(trace.body(()).unwrap(), true).unwrap();
        assert_eq!(answer.await.unwrap().status(), 405);
        while send.clone().ready().await.is_ok() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
    eventually("closed", || {
        app.metric("pilotfish_client_connections ") as u64 == 1
    });
}

#[test]
fn streams_that_nobody_reads_end_with_their_time() {
    let engine = RawEngine::answering(&format!(
        "HTTP/1.1 200 OK\r\ncontent-length: 10000000\r\n\r\n{}",
        "x".repeat(10_000_000)
    ));
    let app = TestApp::with(&[(&engine.url(), "m")], |config| {
        config.settings.timeouts.total = Some(Duration::from_millis(400));
    });
    with_h2(&app, async |send| {
        let mut answers = Vec::new();
        for _ in 0..3 {
            let mut send = send.clone().ready().await.unwrap();
            let body = r#"{"model":"m"}"#;
            let (answer, mut upload) = send.send_request(post(body), false).unwrap();
            upload.send_data(body.into(), true).unwrap();
            answers.push(answer.await.unwrap());
        }
        // Their windows are full; none of them is read.
        while app.in_flight() > 0 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        for answer in answers {
            let mut body = answer.into_body();
            let ended = async {
                while let Some(data) = body.data().await {
                    data?;
                }
                Ok::<_, h2::Error>(())
            };
            assert!(ended.await.is_err(), "it is reset");
        }
    });
    app.settled();
}

#[test]
fn streams_that_are_cut_together_all_end() {
    let engine = SimEngine::start(SimConfig::new(
        "m",
        Speed {
            itl: Duration::from_millis(20),
            ..Speed::instant()
        },
    ));
    let engine = engine.unwrap();
    let app = TestApp::new(&[engine.url()]);
    with_h2(&app, async |send| {
        let mut answers = Vec::new();
        for _ in 0..20 {
            let mut send = send.clone().ready().await.unwrap();
            let body = r#"{"model":"m","stream":true,"max_tokens":5000}"#;
            let (answer, mut upload) = send.send_request(post(body), false).unwrap();
            upload.send_data(body.into(), true).unwrap();
            answers.push(answer.await.unwrap());
        }
        drop(engine);
        for answer in answers {
            let mut body = answer.into_body();
            let (mut text, mut is_reset) = (Vec::new(), false);
            while let Some(data) = body.data().await {
                let Ok(data) = data else {
                    is_reset = true;
                    break;
                };
                body.flow_control().release_capacity(data.len()).unwrap();
                text.extend_from_slice(&data);
            }
            let text = String::from_utf8(text).unwrap();
            assert!(is_reset && text.contains("engine_disconnected"), "{text}");
        }
    });
    app.settled();
}

#[test]
fn an_answer_of_our_own_that_nobody_takes_is_given_up() {
    let app = TestApp::with(&[("http://127.0.0.1:1", "m")], |config| {
        config.settings.timeouts.client_write_stall = Duration::from_millis(200);
    });
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let socket = std::net::TcpStream::connect(app.address).unwrap();
        socket.set_nonblocking(true).unwrap();
        let socket = tokio::net::TcpStream::from_std(socket).unwrap();
        let mut builder = client::Builder::new();
        builder.initial_window_size(0);
        let (mut send, connection) = builder.handshake::<_, bytes::Bytes>(socket).await.unwrap();
        let driver = tokio::spawn(connection);
        let health = Request::get("http://x/health")
            .version(Version::HTTP_2)
            .body(())
            .unwrap();
        let (answer, _) = send.send_request(health, true).unwrap();
        let mut body = answer.await.unwrap().into_body();
        let data = tokio::time::timeout(Duration::from_secs(20), body.data());
        assert!(data.await.unwrap().unwrap().is_err(), "it is reset");
        driver.abort();
    });
}
