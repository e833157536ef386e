//! A Kubernetes API server that does as it is told: it holds objects, serves lists
//! and watches of them, and has every bad day that a test asks for.

use std::collections::{BTreeMap, VecDeque};
use std::convert::Infallible;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use bytes::Bytes;
use hyper::body::{Frame, Incoming};
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::sync::{mpsc, watch};

use super::{Folder, eventually};

/// The server.
pub(crate) struct FakeApi {
    pub(crate) address: SocketAddr,
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

/// Which request a script is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum On {
    List,
    Watch,
    Any,
}

/// What a server does instead of what is right.
#[derive(Debug, Clone)]
pub(crate) enum Act {
    /// Refuses; seconds of Retry-After.
    Refuse(u16, &'static str, Option<u64>),
    /// Answers 200 with that content type and body.
    Page(&'static str, Vec<u8>),
    /// As many bytes of the right list, and then.
    Cut(usize, Then),
    /// These bytes of a watch, and then.
    Say(Vec<u8>, Then),
    /// Never answers.
    Hang,
}

/// How an answer goes on that has begun.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Then {
    /// Ends properly.
    End,
    /// The connection is cut.
    Reset,
    /// Nothing, for ever.
    Silence,
    /// As a watch should.
    Live,
}

/// What the server makes of lists as streams.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Streams {
    Served,
    Refused,
    Unknown,
}

/// A request that came.
#[derive(Debug, Clone)]
pub(crate) struct Asked {
    pub(crate) at: Instant,
    pub(crate) path: String,
    pub(crate) query: BTreeMap<String, String>,
    /// Its header; empty without one.
    pub(crate) authorization: String,
}

impl Asked {
    pub(crate) fn is_watch(&self) -> bool {
        self.query.contains_key("watch")
    }

    fn selects(&self, object: Option<&Value>) -> bool {
        let selector = self.query.get("labelSelector").map_or("", String::as_str);
        let labels = |object: &Value| object["metadata"]["labels"].clone();
        object.map(labels).is_some_and(|labels| {
            (selector.split(',').filter(|one| !one.is_empty())).all(|one| {
                match one.split_once('=') {
                    Some((name, value)) => labels[name].as_str() == Some(value),
                    None => labels.get(one).is_some(),
                }
            })
        })
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Life {
    Up,
    Down,
    Stopped,
}

struct Shared {
    state: Mutex<State>,
    life: watch::Sender<Life>,
    version: watch::Sender<u64>,
}

/// An object's change. Without a collection: a bookmark for all.
#[derive(Debug, Clone, Default)]
struct Change {
    version: u64,
    collection: String,
    before: Option<Value>,
    /// As it is now, or was at last.
    object: Value,
    is_kept: bool,
}

struct State {
    version: u64,
    /// Changes up to that version are forgotten.
    forgotten: u64,
    /// By collection and name.
    objects: BTreeMap<(String, String), Value>,
    changes: Vec<Change>,
    script: VecDeque<(On, Act)>,
    always: Option<(On, Act)>,
    streams: Streams,
    requests: Vec<Asked>,
}

impl FakeApi {
    pub(crate) fn start() -> Self {
        let shared = Arc::new(Shared {
            state: Mutex::new(State {
                version: 1000,
                forgotten: 0,
                objects: BTreeMap::new(),
                changes: Vec::new(),
                script: VecDeque::new(),
                always: None,
                streams: Streams::Unknown,
                requests: Vec::new(),
            }),
            life: watch::Sender::new(Life::Up),
            version: watch::Sender::new(1000),
        });
        let listener = pilotfish::net::listen("127.0.0.1:0".parse().unwrap()).unwrap();
        let address = listener.local_addr().unwrap();
        let of_thread = Arc::clone(&shared);
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build();
            runtime.unwrap().block_on(run(listener, of_thread));
        });
        Self {
            address,
            shared,
            thread: Some(thread),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.shared.state.lock().unwrap()
    }

    /// Writes a kubeconfig for it, whose context is of namespace `test`.
    pub(crate) fn kubeconfig(&self, folder: &Folder) -> PathBuf {
        self.kubeconfig_of(folder, &json!({"token": "t"}))
    }

    /// The same for another user.
    pub(crate) fn kubeconfig_of(&self, folder: &Folder, user: &Value) -> PathBuf {
        let file = folder.path("kubeconfig");
        let config = json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "c",
            "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u", "namespace": "test"}}],
            "clusters": [{"name": "c", "cluster": {"server": format!("http://{}", self.address)}}],
            "users": [{"name": "u", "user": user}],
        });
        std::fs::write(&file, config.to_string()).unwrap();
        file
    }

    /// Adds an object, or puts it in the other's place.
    pub(crate) fn put(&self, object: &Value) {
        self.change(object, true);
    }

    /// Removes the object of that kind, namespace and name.
    pub(crate) fn delete(&self, object: &Value) {
        self.change(object, false);
    }

    fn change(&self, object: &Value, is_kept: bool) {
        let mut state = self.state();
        state.version += 1;
        let version = state.version;
        let key = (collection(object), text(&object["metadata"]["name"]));
        let before = state.objects.remove(&key);
        let object = if is_kept {
            Some(object)
        } else {
            before.as_ref()
        };
        let mut object = object.expect("an object that is there").clone();
        object["metadata"]["resourceVersion"] = version.to_string().into();
        if is_kept {
            state.objects.insert(key.clone(), object.clone());
        }
        state.changes.push(Change {
            version,
            collection: key.0,
            before,
            object,
            is_kept,
        });
        drop(state);
        self.shared.version.send_replace(version);
    }

    /// Sends all watches a bookmark.
    pub(crate) fn bookmark(&self) {
        let mut state = self.state();
        state.version += 1;
        let version = state.version;
        state.changes.push(Change {
            version,
            ..Change::default()
        });
        drop(state);
        self.shared.version.send_replace(version);
    }

    /// Forgets what happened so far: watches from before get 410.
    pub(crate) fn forget(&self) {
        let mut state = self.state();
        state.version += 1;
        state.forgotten = state.version;
        state.changes.clear();
    }

    /// Changes objects as if a backup of that version had been put in place: nobody
    /// is told, and versions go on from there.
    pub(crate) fn restore(&self, version: u64, objects: &[Value]) {
        let mut state = self.state();
        state.version = version;
        state.changes.clear();
        state.objects.clear();
        for object in objects {
            let mut object = object.clone();
            object["metadata"]["resourceVersion"] = version.to_string().into();
            let key = (collection(&object), text(&object["metadata"]["name"]));
            state.objects.insert(key, object);
        }
    }

    /// What it does with the next such request that has no script yet.
    pub(crate) fn script(&self, on: On, act: Act) {
        self.state().script.push_back((on, act));
    }

    /// What it does with all such requests, when the script is over.
    pub(crate) fn always(&self, always: Option<(On, Act)>) {
        self.state().always = always;
    }

    pub(crate) fn streams(&self, streams: Streams) {
        self.state().streams = streams;
    }

    pub(crate) fn requests(&self) -> Vec<Asked> {
        self.state().requests.clone()
    }

    pub(crate) fn lists(&self) -> usize {
        self.requests().iter().filter(|one| !one.is_watch()).count()
    }

    pub(crate) fn watches(&self) -> usize {
        self.requests().iter().filter(|one| one.is_watch()).count()
    }

    /// Cuts all connections and takes no more.
    pub(crate) fn down(&self) {
        self.shared.life.send_replace(Life::Down);
        eventually("the server is down", || {
            std::net::TcpStream::connect(self.address).is_err()
        });
    }

    pub(crate) fn up(&self) {
        self.shared.life.send_replace(Life::Up);
        eventually("the server is up", || {
            std::net::TcpStream::connect(self.address).is_ok()
        });
    }
}

impl Drop for FakeApi {
    fn drop(&mut self) {
        self.shared.life.send_replace(Life::Stopped);
        let _ = self.thread.take().unwrap().join();
    }
}

async fn run(listener: std::net::TcpListener, shared: Arc<Shared>) {
    let address = listener.local_addr().unwrap();
    let mut listener = Some(listener);
    let mut life = shared.life.subscribe();
    loop {
        let now = *life.borrow_and_update();
        match now {
            Life::Stopped => return,
            Life::Down => life.changed().await.unwrap(),
            Life::Up => {
                let bound = listener
                    .take()
                    .map_or_else(|| pilotfish::net::listen(address), Ok);
                let bound = tokio::net::TcpListener::from_std(bound.unwrap()).unwrap();
                tokio::select! {
                    () = accept(bound, &shared) => {}
                    changed = life.changed() => changed.unwrap(),
                }
            }
        }
    }
}

async fn accept(listener: tokio::net::TcpListener, shared: &Arc<Shared>) {
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        stream.set_nodelay(true).unwrap();
        let (shared, mut life) = (Arc::clone(shared), shared.life.subscribe());
        life.mark_unchanged();
        tokio::spawn(async move {
            let service = service_fn(|request| answer(request, &shared));
            let connection = hyper::server::conn::http1::Builder::new()
                .serve_connection(TokioIo::new(stream), service);
            tokio::select! {
                // A client's broken connection is its own affair.
                _ = connection => {}
                _ = life.changed() => {}
            }
        });
    }
}

/// A body whose pieces come over a channel; an error cuts the connection.
struct Pieces(mpsc::Receiver<Result<Bytes, Reset>>);

#[derive(Debug, thiserror::Error)]
#[error("reset by the script")]
struct Reset;

impl hyper::body::Body for Pieces {
    type Data = Bytes;
    type Error = Reset;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Reset>>> {
        let piece = self.0.poll_recv(cx);
        piece.map(|piece| piece.map(|piece| piece.map(Frame::data)))
    }
}

/// Says these bytes of an answer, and goes on so.
struct Saying {
    code: u16,
    kind: &'static str,
    retry_after: Option<u64>,
    bytes: Vec<u8>,
    then: Then,
}

impl Saying {
    fn json(value: &Value) -> Self {
        Self {
            code: 200,
            kind: "application/json",
            retry_after: None,
            bytes: value.to_string().into_bytes(),
            then: Then::End,
        }
    }

    fn with(self, bytes: Vec<u8>, then: Then) -> Self {
        Self {
            bytes,
            then,
            ..self
        }
    }
}

async fn answer(
    request: Request<Incoming>,
    shared: &Arc<Shared>,
) -> Result<Response<Pieces>, Infallible> {
    let authorization = request.headers().get("authorization");
    let authorization = authorization.map_or("", |value| value.to_str().unwrap());
    let asked = Asked {
        at: Instant::now(),
        path: request.uri().path().to_owned(),
        query: query(request.uri().query().unwrap_or_default()),
        authorization: authorization.to_owned(),
    };
    let saying = shared.state.lock().unwrap().say(&asked);
    let Some(saying) = saying else {
        return std::future::pending().await;
    };
    let (sender, receiver) = mpsc::channel(4);
    let mut response = Response::builder()
        .status(saying.code)
        .header("content-type", saying.kind);
    if let Some(seconds) = saying.retry_after {
        response = response.header("retry-after", seconds);
    }
    let shared = Arc::clone(shared);
    tokio::spawn(async move {
        for piece in saying.bytes.chunks(64 << 10) {
            if sender
                .send(Ok(Bytes::copy_from_slice(piece)))
                .await
                .is_err()
            {
                return;
            }
        }
        match saying.then {
            Then::End => {}
            Then::Reset => {
                // What was said before is to arrive: an error drops what is buffered.
                tokio::time::sleep(Duration::from_millis(20)).await;
                let _ = sender.send(Err(Reset)).await;
            }
            Then::Silence => sender.closed().await,
            Then::Live => live(&asked, &shared, &sender).await,
        }
    });
    Ok(response.body(Pieces(receiver)).unwrap())
}

/// A watch as it should be, from the version that was asked for.
async fn live(asked: &Asked, shared: &Shared, sender: &mpsc::Sender<Result<Bytes, Reset>>) {
    let number = |name: &str| asked.query.get(name).and_then(|text| text.parse().ok());
    let seconds = number("timeoutSeconds").unwrap_or(3600);
    let until = tokio::time::Instant::now() + Duration::from_secs(seconds);
    let mut versions = shared.version.subscribe();
    let mut known = number("resourceVersion").unwrap_or_else(|| *versions.borrow());
    loop {
        versions.borrow_and_update();
        let (text, last) = shared.state.lock().unwrap().since(asked, known);
        known = last;
        if !text.is_empty() && sender.send(Ok(text.into())).await.is_err() {
            return;
        }
        tokio::select! {
            _ = versions.changed() => {}
            () = tokio::time::sleep_until(until) => return,
            () = sender.closed() => return,
        }
    }
}

impl State {
    /// What to say to a request; nothing: for ever nothing.
    fn say(&mut self, asked: &Asked) -> Option<Saying> {
        self.requests.push(asked.clone());
        let is = |on: On| on == On::Any || (on == On::Watch) == asked.is_watch();
        let at = self.script.iter().position(|(on, _)| is(*on));
        let act = match at.and_then(|at| self.script.remove(at)) {
            Some((_, act)) => Some(act),
            None => (self.always.clone())
                .filter(|(on, _)| is(*on))
                .map(|(_, act)| act),
        };
        let right = |this: &Self| {
            if asked.is_watch() {
                this.watch(asked)
            } else {
                this.list(asked)
            }
        };
        let Some(act) = act else {
            return Some(right(self));
        };
        Some(match act {
            Act::Hang => return None,
            Act::Refuse(code, reason, retry_after) => refusal(code, reason, retry_after),
            Act::Page(kind, body) => Saying {
                kind,
                ..Saying::json(&Value::Null).with(body, Then::End)
            },
            Act::Cut(length, then) => {
                let right = right(self);
                let bytes = right.bytes[..length.min(right.bytes.len())].to_vec();
                right.with(bytes, then)
            }
            Act::Say(bytes, then) => Saying::json(&Value::Null).with(bytes, then),
        })
    }

    fn of<'a>(&'a self, asked: &'a Asked) -> impl Iterator<Item = &'a Value> {
        let all = self.objects.iter();
        all.filter(|((collection, _), object)| {
            *collection == asked.path && asked.selects(Some(object))
        })
        .map(|(_, object)| object)
    }

    /// A page of a list.
    fn list(&self, asked: &Asked) -> Saying {
        let number = |name: &str| asked.query.get(name).and_then(|text| text.parse().ok());
        let (from, limit) = (
            number("continue").unwrap_or(0),
            number("limit").unwrap_or(usize::MAX),
        );
        let items: Vec<&Value> = self.of(asked).skip(from).collect();
        let mut metadata = json!({ "resourceVersion": self.version.to_string() });
        if items.len() > limit {
            metadata["continue"] = (from + limit).to_string().into();
        }
        let page = &items[..items.len().min(limit)];
        Saying::json(
            &json!({ "kind": "List", "apiVersion": "v1", "metadata": metadata, "items": page }),
        )
    }

    fn watch(&self, asked: &Asked) -> Saying {
        if asked.query.contains_key("sendInitialEvents") {
            let mut bytes = Vec::new();
            for object in self.of(asked) {
                bytes.extend(frame("ADDED", object).into_bytes());
            }
            match self.streams {
                Streams::Refused => return refusal(422, "Invalid", None),
                Streams::Unknown => {}
                Streams::Served => {
                    let end = json!({"metadata": {
                        "resourceVersion": self.version.to_string(),
                        "annotations": {"k8s.io/initial-events-end": "true"},
                    }});
                    bytes.extend(frame("BOOKMARK", &end).into_bytes());
                }
            }
            return Saying::json(&Value::Null).with(bytes, Then::Live);
        }
        let from: u64 = asked.query["resourceVersion"].parse().unwrap();
        let (bytes, then) = if from < self.forgotten {
            let error = status(410, "Expired", None);
            (frame("ERROR", &error).into_bytes(), Then::End)
        } else {
            (Vec::new(), Then::Live)
        };
        Saying::json(&Value::Null).with(bytes, then)
    }

    /// What a watch is told after that version, and the version after that.
    fn since(&self, asked: &Asked, known: u64) -> (String, u64) {
        let mut text = String::new();
        let mut last = known;
        for change in self.changes.iter().filter(|change| change.version > known) {
            last = change.version;
            if change.collection.is_empty() {
                let object = json!({"metadata": {"resourceVersion": last.to_string()}});
                text += &frame("BOOKMARK", &object);
            }
            if change.collection != asked.path {
                continue;
            }
            let after = Some(&change.object).filter(|_| change.is_kept);
            let kind = match (asked.selects(change.before.as_ref()), asked.selects(after)) {
                (false, true) => "ADDED",
                (true, true) => "MODIFIED",
                (true, false) => "DELETED",
                (false, false) => continue,
            };
            text += &frame(kind, &change.object);
        }
        (text, last)
    }
}

/// A line of a watch.
pub(crate) fn frame(kind: &str, object: &Value) -> String {
    format!("{}\n", json!({ "type": kind, "object": object }))
}

/// A `Status` object.
pub(crate) fn status(code: u16, reason: &str, retry_after: Option<u64>) -> Value {
    json!({
        "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
        "message": format!("scripted: {reason}"), "reason": reason, "code": code,
        "details": { "retryAfterSeconds": retry_after },
    })
}

fn refusal(code: u16, reason: &'static str, retry_after: Option<u64>) -> Saying {
    Saying {
        code,
        retry_after,
        ..Saying::json(&status(code, reason, None))
    }
}

fn text(value: &Value) -> String {
    value.as_str().unwrap().to_owned()
}

/// The path of the collection that an object is of.
fn collection(object: &Value) -> String {
    let (version, kind) = (
        text(&object["apiVersion"]),
        text(&object["kind"]).to_lowercase(),
    );
    let root = if version.contains('/') { "apis" } else { "api" };
    let namespace = text(&object["metadata"]["namespace"]);
    // The plural of Endpoints is its singular.
    let plural = if kind.ends_with('s') { "" } else { "s" };
    format!("/{root}/{version}/namespaces/{namespace}/{kind}{plural}")
}

fn query(text: &str) -> BTreeMap<String, String> {
    let decoded = |text: &str| {
        let text = percent_encoding::percent_decode_str(text).decode_utf8();
        text.unwrap().into_owned()
    };
    (text.split('&').filter_map(|pair| pair.split_once('=')))
        .map(|(name, value)| (name.to_owned(), decoded(value)))
        .collect()
}
