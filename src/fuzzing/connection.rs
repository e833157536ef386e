//! A whole connection: bytes as a client sends them, to the proxy, to engines
//! that answer what they are told, and back; on loopback, in one thread.
//!
//! The first line of the input says how: the length of the client's pieces, of the
//! engines', and what happens (`HOW`). What follows is the client's, up to a line
//! `~~~`; then the answers of the engines, with the same line between them.

mod play;
mod verdict;

use std::mem::ManuallyDrop;
use std::net::{Ipv4Addr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::{LocalOptions, LocalRuntime};

use super::messages;
use crate::config::{ListedEngine, Settings, Timeouts};
use crate::discovery::listed;
use crate::discovery::models::Cards;
use crate::downstream::idle::IdleQueue;
use crate::downstream::strict::Unseen;
use crate::downstream::watch::Watch;
use crate::downstream::{self, Asked, Handled, Shared};
use crate::drain::DrainWatch;
use crate::fleet::{Fleet, Snapshot};
use crate::metrics::{ModelRegistry, ProcessMetrics};
use crate::net;
use crate::proxy::facts::Budget;
use crate::proxy::{Proxy, ProxySettings};
use crate::report::{Outlets, Reporter};
use crate::smart::service::Service;
use crate::smart::worker::Asker;
use crate::upstream::Pool;
use play::Play;

/// Between the parts of an input.
const BETWEEN: &[u8] = b"\n~~~\n";
/// Lengths of pieces, by the first and second byte of the input.
const PIECES: [usize; 8] = [usize::MAX, 1, 2, 5, 16, 61, 400, 3000];
/// Looks at all sockets in a row that find nothing, until nothing more is expected.
const SILENT: usize = 16;
/// No exchange takes so long, however slow the machine.
const PATIENCE: Duration = Duration::from_secs(10);
/// Bits of the third byte.
const ENGINE_CLOSES: u8 = 1;
const ENGINE_IS_EARLY: u8 = 2;
const TIME_PASSES: u8 = 4;
const CLIENT_VANISHES: u8 = 8;

/// What an input says.
struct Script<'a> {
    client: &'a [u8],
    answers: Vec<&'a [u8]>,
    client_piece: usize,
    engine_piece: usize,
    how: u8,
}

impl<'a> Script<'a> {
    fn read(data: &'a [u8]) -> Option<Self> {
        let end = memchr::memchr(b'\n', data)?;
        let (how, rest) = (&data[..end], &data[end + 1..]);
        let mut parts = Vec::new();
        let mut left = rest;
        while let Some(at) = memchr::memmem::find(left, BETWEEN) {
            parts.push(&left[..at]);
            left = &left[at + BETWEEN.len()..];
        }
        parts.push(left);
        let byte = |at: usize| how.get(at).copied().unwrap_or(b'0');
        let piece = |at: usize| PIECES[usize::from(byte(at)) % PIECES.len()];
        Some(Self {
            client: parts.remove(0),
            answers: parts,
            client_piece: piece(0),
            engine_piece: piece(1),
            how: byte(2),
        })
    }

    fn says(&self, what: u8) -> bool {
        self.how & what != 0
    }
}

/// What was seen of an exchange.
#[derive(Default)]
struct Seen {
    /// Requests that an engine got whole, in order.
    requests: Vec<messages::Request>,
    /// Those of which it got a part.
    parts: Vec<messages::Request>,
    /// What it got that is no request.
    nonsense: Vec<Vec<u8>>,
    /// Answers that it gave: which, and to what method.
    given: Vec<(usize, String)>,
    /// What the client got.
    received: Vec<u8>,
    /// The connection has ended; before the client said that it does.
    has_ended: bool,
    ended_first: bool,
    was_reset: bool,
}

struct World {
    runtime: LocalRuntime,
    engines: [TcpListener; 2],
    front: TcpListener,
    settings: Settings,
}

thread_local! {
    // Never dropped: a runtime cannot be while a thread's own values are.
    static WORLD: ManuallyDrop<World> = ManuallyDrop::new(World::new());
}

/// A connection: the engine gets what the client sent, the client what the engine
/// sent or an honest error, and when both have gone nothing is left.
pub fn connection(data: &[u8]) {
    let Some(script) = Script::read(data) else {
        return;
    };
    WORLD.with(|world| {
        let seen = world.runtime.block_on(world.exchange(&script));
        verdict::check(&script, &seen);
    });
}

/// A fleet of what the settings list.
pub(super) fn fleet_of(settings: Settings) -> Fleet {
    let mut fleet = Fleet::new(ModelRegistry::default());
    let specs = listed::specs(&settings.engines, &Cards::default());
    fleet.apply(Arc::new(settings), specs);
    fleet
}

/// What one exchange is served by.
struct Served {
    snapshot: Arc<Snapshot>,
    budget: Budget,
    shared: Rc<Shared>,
    proxy: Rc<Proxy>,
}

impl World {
    fn new() -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build_local(LocalOptions::default())
            .expect("a runtime");
        let listen = || {
            let listener = net::listen((Ipv4Addr::LOCALHOST, 0).into()).expect("a port");
            net::register(listener).expect("a listener")
        };
        let (engines, front) = runtime.block_on(async { ([listen(), listen()], listen()) });
        let listed = engines.iter().map(|engine| {
            let address = engine.local_addr().expect("it listens");
            ListedEngine::new(&format!("http://{address}"), &["m"]).expect("a URL")
        });
        let settings = Settings {
            engines: listed.collect(),
            ..Settings::default()
        };
        Self {
            runtime,
            engines,
            front,
            settings,
        }
    }

    fn serve(&self) -> Served {
        let published = fleet_of(self.settings.clone()).published();
        let snapshot = published.load_full();
        let drain = DrainWatch::default();
        let metrics = Arc::new(ProcessMetrics::default());
        let timeouts = Timeouts::default();
        let pool = Pool::new(4, timeouts.pool_idle, timeouts.connect);
        let smart = Service::new(None, Duration::from_secs(60), drain.clone());
        let budget = Budget::new(1 << 20);
        let idle = Rc::new(IdleQueue::new(metrics.closed_idle.clone()));
        let reporter = Reporter::new(Outlets::default(), drain.clone());
        let asker = Asker::new(smart.clone());
        let settings = ProxySettings {
            budget: budget.clone(),
            metrics,
            drain: drain.clone(),
            log_requests: false,
            decisions: Arc::default(),
            stale_after: Duration::from_secs(60),
            places: Default::default(),
            refusals: Arc::default(),
            registry: Arc::default(),
            workers: 1,
            auth: None,
            sessions: Arc::default(),
            aios_compat_errors: false,
            smart,
        };
        Served {
            snapshot,
            budget,
            shared: Rc::new(Shared {
                watch: Watch::new(Instant::now()),
                timeouts: timeouts.into(),
                drain,
                idle,
                trusted: Arc::default(),
                unseen: Unseen::new(|_| {}),
                tls: None,
            }),
            proxy: Proxy::new(published, settings, pool, (reporter, asker)),
        }
    }

    async fn exchange(&self, script: &Script<'_>) -> Seen {
        let began = Instant::now();
        let served = self.serve();
        let address = self.front.local_addr().expect("it listens");
        let (client, accepted) = tokio::join!(
            net::connect("127.0.0.1", address.port(), PATIENCE),
            self.front.accept()
        );
        let (client, (stream, peer)) = (client.expect("connected"), accepted.expect("accepted"));
        let serving = tokio::task::spawn_local(one_client(&served, stream, peer));
        let mut play = Play::new(self, script, client);
        play.until_silent().await;
        if script.says(TIME_PASSES) {
            for seconds in [11, 100, 1000] {
                served
                    .shared
                    .watch
                    .sweep(began + Duration::from_secs(seconds));
                play.until_silent().await;
            }
        }
        play.client_leaves();
        while !serving.is_finished() {
            play.step().await;
        }
        serving.await.expect("the connection's task panicked");
        // What was on its way, on both sides.
        play.until_silent().await;
        let seen = play.end();
        let Served {
            snapshot,
            budget,
            shared,
            proxy,
        } = served;
        drop((proxy, shared));
        let metrics = tokio::runtime::Handle::current().metrics();
        while metrics.num_alive_tasks() > 0 {
            assert!(began.elapsed() < PATIENCE, "tasks are left");
            tokio::task::yield_now().await;
        }
        let engines = snapshot.all.candidates.list().iter();
        let left: u32 = engines.map(|one| one.engine.in_flight.load(Relaxed)).sum();
        assert_eq!(
            (left, budget.held()),
            (0, 0),
            "in flight, and bytes held, at the end"
        );
        seen
    }
}

fn one_client(
    served: &Served,
    stream: TcpStream,
    peer: SocketAddr,
) -> impl Future<Output = ()> + use<> {
    let proxy = Rc::clone(&served.proxy);
    let handle = move |asked: Asked, handled: Handled| {
        let proxy = Rc::clone(&proxy);
        let answering: downstream::Answering<_> = Box::pin(async move {
            Ok(match asked {
                Ok(request) => {
                    let admission = proxy.admit(&request, &handled);
                    proxy.handle(request, handled, admission).await
                }
                Err(refused) => proxy.refuse(*refused, handled),
            })
        });
        answering
    };
    downstream::serve(stream, peer, Rc::clone(&served.shared), handle)
}
