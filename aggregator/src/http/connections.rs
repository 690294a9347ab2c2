//! Connections of a door: how many are open at once, which of them give way, and how they end.
//!
//! A connection is idle while no request runs on it and no byte waits to be sent. At the limit, the server closes the
//! connection that has been idle longest and accepts the new one. If no connection is idle, the server accepts a few
//! more and serves only health checks and metrics on them, so monitoring still works on an overloaded node.

use std::{
    collections::BTreeMap,
    io,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
    task::{Context, Poll},
    time::{Duration, Instant},
};

use axum::{
    Router,
    body::Body,
    extract::Request,
    http::{HeaderValue, Version, header},
    middleware::Next,
    response::Response,
};
use bytes::Bytes;
use hyper::body::{Frame, Incoming, SizeHint};
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::conn::auto,
    service::TowerToHyperService,
};
use parking_lot::Mutex;
use proto::{Code, Problem};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::{debug, warn};

use super::{Names, browser, patient, refuse};

/// Connections beyond the limit, for the operators' paths.
const SPARE_CONNECTIONS_MAX: usize = 64;
/// What is served on those.
const OPERATORS_PATHS: [&str; 3] = ["/healthz", "/readyz", "/metrics"];
/// How often a connection that is being closed is checked for progress. An idle HTTP/1 connection is cut at the first
/// check.
const GIVES_WAY_WITHIN: Duration = Duration::from_secs(1);
/// An HTTP/2 connection is cut after this many checks without progress: its data may wait for the client's window while
/// the socket is writable.
const STANDSTILLS_MAX: usize = 5;
/// How long a connection waits for the whole head of its next request. So long an idle one is kept, which is longer
/// than the minute for which clients and proxies usually keep theirs; and a client that sends a head slowly has no
/// longer either.
const HEAD_WAIT_MAX: Duration = Duration::from_secs(90);
/// How long a client may take nothing of what is sent to it.
const TAKES_NOTHING_MAX: Duration = Duration::from_secs(300);
/// How long a piece of an answer may wait until its client has taken all of it …
const UNTAKEN_MAX: Duration = Duration::from_secs(1_800);
/// … and how long where all such pieces together have more than so many bytes.
const UNTAKEN_FULL_MAX: Duration = Duration::from_secs(10);
const UNTAKEN_BYTES_MAX: usize = 512 << 20;
/// How often it is checked whether pieces wait.
const UNTAKEN_LOOK: Duration = Duration::from_secs(2);
/// An idle connection that is being closed is cut after so many checks, whatever its client sends.
const IDLE_CHECKS_MAX: usize = 30;
/// How long running requests may take once the door closes.
const CLOSING_WAIT_MAX: Duration = Duration::from_secs(10);
/// So often it is looked whether a connection has ended, where too many are open.
const ROOM_LOOK: Duration = Duration::from_millis(5);
/// How long accepting pauses when the system has no file handle left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Serves until cancelled, then lets running requests end, for ten seconds at most. At most so many connections are
/// open at once, but for a few for operators. Pages of browsers are kept out, save those of `names`.
pub async fn serve(
    router: Router,
    listener: TcpListener,
    shutdown: CancellationToken,
    names: Names,
    connections_max: usize,
) -> io::Result<()> {
    let guarded = |on_loopback, spare| {
        let names = names.clone();
        let guard = move |request: Request, next: Next| browser::guard(names.clone(), on_loopback, request, next);
        let router = if spare {
            router.clone().layer(axum::middleware::from_fn(only_operators))
        } else {
            router.clone()
        };
        TowerToHyperService::new(router.layer(axum::middleware::from_fn(guard)))
    };
    let services = [
        [guarded(false, false), guarded(false, true)],
        [guarded(true, false), guarded(true, true)],
    ];
    let connections = Connections::new(connections_max);
    let (running, closing, cut) = (TaskTracker::new(), CancellationToken::new(), CancellationToken::new());
    while let Some((stream, open)) = accept(&listener, &connections, &shutdown).await {
        let on_loopback = stream
            .local_addr()
            .is_ok_and(|address| address.ip().to_canonical().is_loopback());
        let service = services[usize::from(on_loopback)][usize::from(open.one.spare)].clone();
        let stream = TokioIo::new(patient::Patient::new(
            stream,
            TAKES_NOTHING_MAX,
            open.one.progress.clone(),
        ));
        let connection = run(stream, service, open, closing.clone());
        let cut = cut.clone();
        running.spawn(async move { cut.run_until_cancelled(connection).await });
    }
    drop(listener);
    closing.cancel();
    running.close();
    if tokio::time::timeout(CLOSING_WAIT_MAX, running.wait()).await.is_err() {
        warn!(
            seconds = CLOSING_WAIT_MAX.as_secs(),
            "requests still running are cut off"
        );
        cut.cancel();
    }
    Ok(())
}

/// The next connection and its place among those that are open; none once the door closes.
async fn accept(
    listener: &TcpListener,
    connections: &Arc<Connections>,
    shutdown: &CancellationToken,
) -> Option<(TcpStream, Open)> {
    loop {
        shutdown.run_until_cancelled(connections.room()).await?;
        match shutdown.run_until_cancelled(listener.accept()).await? {
            Ok((stream, _)) => {
                if let Err(error) = stream.set_nodelay(true) {
                    debug!(%error, "small packets may be late");
                }
                return Some((stream, connections.open()));
            }
            Err(error) => {
                warn!(%error, "cannot accept a connection");
                // No file handle is left, mostly: an idle connection has one.
                connections.one_gives_way(|_| true);
                shutdown.run_until_cancelled(tokio::time::sleep(ACCEPT_PAUSE)).await?;
            }
        }
    }
}

/// Serves a connection until it ends, gives way or the door closes.
async fn run<S>(
    stream: TokioIo<patient::Patient<S>>,
    service: TowerToHyperService<Router>,
    open: Open,
    closing: CancellationToken,
) where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
{
    let one = open.one.clone();
    let counted = hyper::service::service_fn(move |request: hyper::Request<Incoming>| {
        let (running, service) = (Running::begin(&one), service.clone());
        if request.version() == Version::HTTP_2 {
            one.is_many_at_once.store(true, Ordering::Relaxed);
        }
        async move {
            let response = hyper::service::Service::call(&service, request).await;
            // The client has to reconnect; it may then get an ordinary connection.
            if running.0.spare {
                running.0.gives_way.cancel();
            }
            response.map(|response| {
                response.map(|body| {
                    Body::new(Answering {
                        body,
                        running: Arc::new(running),
                    })
                })
            })
        }
    });
    let builder = connection_builder(HEAD_WAIT_MAX);
    let mut connection = std::pin::pin!(builder.serve_connection(stream, counted));
    let ended = tokio::select! {
        ended = connection.as_mut() => Some(ended),
        () = open.one.gives_way.cancelled() => None,
        () = closing.cancelled() => None,
        () = open.one.takes_nothing() => {
            debug!("a client takes nothing of its answer, and its connection is cut");
            return;
        }
    };
    let ended = match ended {
        Some(ended) => Some(ended),
        None => {
            connection.as_mut().graceful_shutdown();
            let at_standstill = async {
                tokio::select! { () = open.one.standstill() => {}, () = closing.cancelled() => std::future::pending().await }
            };
            // During shutdown, `serve` limits the time for all connections.
            tokio::select! {
                ended = connection.as_mut() => Some(ended),
                () = at_standstill => None,
                () = open.one.takes_nothing() => None,
            }
        }
    };
    if let Some(Err(error)) = ended {
        debug!(%error, "connection ended");
    }
}

fn connection_builder(head_wait_max: Duration) -> auto::Builder<TokioExecutor> {
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(head_wait_max);
    builder
        .http2()
        .timer(TokioTimer::new())
        .keep_alive_interval(Some(Duration::from_secs(10)))
        .max_concurrent_streams(256)
        .adaptive_window(true);
    builder
}

/// Passes on what operators ask, and has the client close a connection that is one too many.
async fn only_operators(request: Request, next: Next) -> Response {
    let closes = request.version() < Version::HTTP_2;
    let mut response = if OPERATORS_PATHS.contains(&request.uri().path()) {
        next.run(request).await
    } else {
        metrics::counter!("rachis_http_refused_connections_total").increment(1);
        let problem = Problem::new(
            Code::Unavailable,
            "as many connections as may be are open, and requests run on all of them",
        );
        refuse(
            &request,
            problem.hint("try again a little later, and use a connection for many requests"),
        )
    };
    if closes {
        response
            .headers_mut()
            .insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    response
}

/// Connections that are open.
struct Connections {
    max: usize,
    all: Mutex<BTreeMap<u64, Arc<One>>>,
    next: AtomicU64,
    untaken_bytes: AtomicUsize,
}

/// One of them.
struct One {
    number: u64,
    /// Whether only operators are served.
    spare: bool,
    /// Whether several requests may run at once, so that what is written may wait for the client without blocking it.
    is_many_at_once: AtomicBool,
    progress: Arc<patient::Progress>,
    /// Requests that run on it, and since when there are none.
    requests: Mutex<(usize, Instant)>,
    /// Since when pieces of answers wait for the client, by their numbers. Over HTTP/2 other requests may go on
    /// meanwhile, so [`patient`] notices nothing.
    untaken: Mutex<BTreeMap<u64, Instant>>,
    connections: Arc<Connections>,
    gives_way: CancellationToken,
}

/// A connection is counted for as long as this lives.
struct Open {
    connections: Arc<Connections>,
    one: Arc<One>,
}

impl Connections {
    fn new(max: usize) -> Arc<Self> {
        Arc::new(Self {
            max: max.max(1),
            all: Mutex::default(),
            next: AtomicU64::new(0),
            untaken_bytes: AtomicUsize::new(0),
        })
    }

    /// Waits until one more may be open, or another gives way to it.
    async fn room(&self) {
        let most = self.max + SPARE_CONNECTIONS_MAX;
        while self.all.lock().len() >= most {
            // A request that came in the last moment keeps a connection that gives way open, so another has to.
            if !self
                .all
                .lock()
                .values()
                .any(|one| one.gives_way.is_cancelled() && one.idle_since().is_some())
            {
                self.one_gives_way(|_| true);
            }
            tokio::time::sleep(ROOM_LOOK).await;
        }
    }

    /// Counts one more. Where there are too many the one that is idle for longest gives way, and where none is idle the
    /// new one is spare.
    fn open(self: &Arc<Self>) -> Open {
        let spare = self.count(|one| !one.spare) >= self.max && !self.one_gives_way(|one| !one.spare);
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let mut all = self.all.lock();
        let one = Arc::new(One {
            number,
            spare,
            is_many_at_once: AtomicBool::new(false),
            progress: Arc::default(),
            requests: Mutex::new((0, Instant::now())),
            untaken: Mutex::default(),
            connections: self.clone(),
            gives_way: CancellationToken::new(),
        });
        all.insert(number, one.clone());
        metrics::gauge!("rachis_http_connections").set(all.len() as f64);
        Open {
            connections: self.clone(),
            one,
        }
    }

    /// How long a piece of an answer may wait for its client.
    fn patience(&self) -> Duration {
        if self.untaken_bytes.load(Ordering::Relaxed) > UNTAKEN_BYTES_MAX {
            UNTAKEN_FULL_MAX
        } else {
            UNTAKEN_MAX
        }
    }

    /// Those of these that do not give way.
    fn count(&self, of: impl Fn(&One) -> bool) -> usize {
        self.all
            .lock()
            .values()
            .filter(|one| of(one) && !one.gives_way.is_cancelled())
            .count()
    }

    /// Lets the connection that is idle for longest, of these, give way, and answers whether there is one. It counts
    /// until it has ended.
    fn one_gives_way(&self, of: impl Fn(&One) -> bool) -> bool {
        let all = self.all.lock();
        let may = |one: &&Arc<One>| of(one) && !one.gives_way.is_cancelled();
        let idle = all
            .values()
            .filter(may)
            .filter_map(|one| Some((one.idle_since()?, one.number)))
            .min();
        let Some(one) = idle.and_then(|(_, number)| all.get(&number)) else {
            return false;
        };
        one.gives_way.cancel();
        metrics::counter!("rachis_http_idle_connections_closed_total").increment(1);
        true
    }
}

impl One {
    fn idle_since(&self) -> Option<Instant> {
        let (requests, since) = *self.requests.lock();
        (requests == 0 && !self.progress.is_blocked()).then_some(since)
    }

    /// Waits until a piece of an answer has waited too long for the client.
    async fn takes_nothing(&self) {
        let mut looks = tokio::time::interval(UNTAKEN_LOOK);
        while !self.waits_longer_than(self.connections.patience()) {
            looks.tick().await;
        }
    }

    fn waits_longer_than(&self, patience: Duration) -> bool {
        self.untaken
            .lock()
            .first_key_value()
            .is_some_and(|(_, since)| since.elapsed() > patience)
    }

    /// Waits until nothing of it goes on.
    async fn standstill(&self) {
        let enough = if self.is_many_at_once.load(Ordering::Relaxed) {
            STANDSTILLS_MAX
        } else {
            1
        };
        let (mut still, mut idle, mut written) = (0, 0, self.progress.written());
        while still < enough && idle < IDLE_CHECKS_MAX {
            tokio::time::sleep(GIVES_WAY_WITHIN).await;
            let (now, is_idle) = (self.progress.written(), self.idle_since().is_some());
            still = if is_idle && now == written { still + 1 } else { 0 };
            idle = if is_idle { idle + 1 } else { 0 };
            written = now;
        }
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        let mut all = self.connections.all.lock();
        all.remove(&self.one.number);
        metrics::gauge!("rachis_http_connections").set(all.len() as f64);
    }
}

/// A request runs on a connection for as long as this lives.
struct Running(Arc<One>);

impl Running {
    fn begin(one: &Arc<One>) -> Self {
        one.requests.lock().0 += 1;
        Self(one.clone())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let mut requests = self.0.requests.lock();
        *requests = (requests.0 - 1, Instant::now());
    }
}

/// The body of an answer. Its request runs until all pieces of it are sent.
struct Answering {
    body: Body,
    running: Arc<Running>,
}

/// A piece of an answer, until it is sent.
struct Piece {
    bytes: Bytes,
    number: u64,
    running: Arc<Running>,
}

impl Piece {
    fn new(bytes: Bytes, running: Arc<Running>) -> Self {
        let connections = &running.0.connections;
        let number = connections.next.fetch_add(1, Ordering::Relaxed);
        connections.untaken_bytes.fetch_add(bytes.len(), Ordering::Relaxed);
        running.0.untaken.lock().insert(number, Instant::now());
        Self { bytes, number, running }
    }
}

impl AsRef<[u8]> for Piece {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for Piece {
    fn drop(&mut self) {
        let one = &self.running.0;
        one.untaken.lock().remove(&self.number);
        one.connections
            .untaken_bytes
            .fetch_sub(self.bytes.len(), Ordering::Relaxed);
    }
}

impl hyper::body::Body for Answering {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let running = self.running.clone();
        let polled = Pin::new(&mut self.body).poll_frame(context);
        polled.map_ok(|frame| frame.map_data(|bytes| Bytes::from_owner(Piece::new(bytes, running))))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use axum::routing::get;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    /// A door with a path that answers, one that does not, and one for operators.
    async fn door(connections_max: usize) -> std::net::SocketAddr {
        let router = Router::new()
            .route("/", get(|| async { "here" }))
            .route("/never", get(std::future::pending::<()>))
            .route(
                "/long/{bytes}",
                get(|axum::extract::Path(bytes): axum::extract::Path<usize>| async move { vec![b'~'; bytes] }),
            )
            .route("/healthz", get(|| async { "well" }));
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a port");
        let address = listener.local_addr().expect("an address");
        tokio::spawn(serve(
            router,
            listener,
            CancellationToken::new(),
            Names::default(),
            connections_max,
        ));
        address
    }

    async fn connected(address: std::net::SocketAddr) -> TcpStream {
        TcpStream::connect(address).await.expect("a connection")
    }

    async fn asks(stream: &mut TcpStream, path: &str) {
        stream
            .write_all(format!("GET {path} HTTP/1.1\r\nhost: localhost\r\n\r\n").as_bytes())
            .await
            .expect("it is open");
    }

    /// What comes next, as far as it comes at once.
    async fn answer(stream: &mut TcpStream) -> String {
        let mut bytes = vec![0; 4_096];
        let read = tokio::time::timeout(Duration::from_secs(20), stream.read(&mut bytes))
            .await
            .expect("something comes");
        String::from_utf8_lossy(&bytes[..read.unwrap_or(0)]).into_owned()
    }

    #[tokio::test]
    async fn idle_connections_give_way_to_new_ones_the_longest_idle_first() {
        let address = door(8).await;
        let mut kept = connected(address).await;
        let mut idle = Vec::new();
        for _ in 0..100 {
            asks(&mut kept, "/").await;
            assert!(
                answer(&mut kept).await.ends_with("here"),
                "who asks now and then is kept"
            );
            let mut one = connected(address).await;
            asks(&mut one, "/").await;
            assert!(answer(&mut one).await.ends_with("here"));
            idle.push(one);
        }
        assert_eq!(answer(&mut idle[0]).await, "", "the first of them is closed");
        // One that never ends the head of its request is idle, too.
        let mut slow = Vec::new();
        for _ in 0..20 {
            let mut one = connected(address).await;
            one.write_all(b"GET / HTTP/1.1\r\n").await.expect("it is open");
            slow.push(one);
        }
        let mut one = connected(address).await;
        asks(&mut one, "/").await;
        assert!(answer(&mut one).await.ends_with("here"));
    }

    #[tokio::test]
    async fn a_connection_on_which_an_answer_is_still_being_sent_does_not_give_way() {
        // Some of these end in the socket's buffers, some in the server's, some in neither.
        for mebibytes in [1, 2, 4, 8, 16] {
            let address = door(4).await;
            let mut slow = connected(address).await;
            asks(&mut slow, &format!("/long/{}", mebibytes << 20)).await;
            let begun = answer(&mut slow).await;
            assert!(begun.starts_with("HTTP/1.1 200"), "{begun}");
            let mut others = Vec::new();
            for _ in 0..20 {
                let mut one = connected(address).await;
                asks(&mut one, "/").await;
                assert!(
                    answer(&mut one).await.ends_with("here"),
                    "the idle ones of the others give way"
                );
                others.push(one);
            }
            // Longer than one that gives way is given.
            tokio::time::interval_at((Instant::now() + 2 * GIVES_WAY_WITHIN).into(), GIVES_WAY_WITHIN)
                .tick()
                .await;
            let head = begun.find("\r\n\r\n").expect("the head comes at once") + 4;
            let mut rest = vec![0; (mebibytes << 20) + head - begun.len()];
            slow.read_exact(&mut rest).await.expect("the whole answer comes");
            assert!(rest.iter().all(|byte| *byte == b'~'));
        }
    }

    #[tokio::test]
    async fn pieces_of_an_answer_count_until_they_are_sent() {
        let connections = Connections::new(1);
        let open = connections.open();
        let mut answer = Answering {
            body: Body::from("a piece"),
            running: Arc::new(Running::begin(&open.one)),
        };
        let piece = std::future::poll_fn(|context| hyper::body::Body::poll_frame(Pin::new(&mut answer), context)).await;
        let piece = piece.expect("a frame").expect("no error").into_data().expect("bytes");
        assert_eq!(
            (piece.as_ref(), connections.untaken_bytes.load(Ordering::Relaxed)),
            (b"a piece".as_ref(), 7)
        );
        drop(answer);
        assert!(
            open.one.idle_since().is_none(),
            "the whole answer was handed over, and is not sent"
        );
        assert!(!open.one.waits_longer_than(connections.patience()));
        tokio::time::interval_at((Instant::now() + Duration::from_millis(50)).into(), UNTAKEN_LOOK)
            .tick()
            .await;
        assert!(open.one.waits_longer_than(Duration::from_millis(20)));
        let part = piece.slice(2..);
        drop(piece);
        assert!(
            open.one.waits_longer_than(Duration::from_millis(20)),
            "a part of it waits"
        );
        drop(part);
        assert!(!open.one.waits_longer_than(Duration::ZERO) && open.one.idle_since().is_some());
        assert_eq!(connections.untaken_bytes.load(Ordering::Relaxed), 0);
        connections
            .untaken_bytes
            .store(UNTAKEN_BYTES_MAX + 1, Ordering::Relaxed);
        assert_eq!(
            connections.patience(),
            UNTAKEN_FULL_MAX,
            "where much waits, nothing waits long"
        );
    }

    #[tokio::test]
    async fn connections_that_give_way_and_ask_again_do_not_keep_others_out() {
        let connections = Connections::new(4);
        let idle: Vec<Open> = (0..4).map(|_| connections.open()).collect();
        // The server asks each idle connection to close, and its client starts a request at that moment.
        let mut kept = Vec::new();
        for _ in 0..SPARE_CONNECTIONS_MAX {
            let open = connections.open();
            let told = connections
                .all
                .lock()
                .values()
                .find(|one| one.gives_way.is_cancelled() && one.idle_since().is_some())
                .cloned();
            kept.push((Running::begin(&told.expect("one is idle")), open));
        }
        assert!(connections.all.lock().len() >= connections.max + SPARE_CONNECTIONS_MAX);
        let one_ends = async {
            loop {
                let idle = connections
                    .all
                    .lock()
                    .values()
                    .find(|one| one.gives_way.is_cancelled() && one.idle_since().is_some())
                    .cloned();
                if let Some(idle) = idle {
                    return connections.all.lock().remove(&idle.number);
                }
                tokio::task::yield_now().await;
            }
        };
        let both = async { tokio::join!(connections.room(), one_ends) };
        tokio::time::timeout(Duration::from_secs(20), both)
            .await
            .expect("an idle one gives way, and there is room");
        drop(idle);
    }

    #[tokio::test]
    async fn operators_are_answered_while_requests_run_on_every_connection() {
        let address = door(8).await;
        let mut busy = Vec::new();
        for _ in 0..8 {
            let mut one = connected(address).await;
            asks(&mut one, "/never").await;
            busy.push(one);
        }
        let refused = async |path: &str| {
            let mut one = connected(address).await;
            asks(&mut one, path).await;
            answer(&mut one).await
        };
        // The last of them may not have been read yet.
        while !refused("/").await.starts_with("HTTP/1.1 503") {}
        for _ in 0..2 * SPARE_CONNECTIONS_MAX {
            assert!(refused("/healthz").await.ends_with("well"));
        }
        let told = refused("/").await;
        assert!(
            told.contains("connection: close") && told.contains("requests run on all of them"),
            "{told}"
        );
        // Idle connections beyond the limit do not lock operators out either.
        let mut idle = Vec::new();
        for _ in 0..3 * SPARE_CONNECTIONS_MAX {
            idle.push(connected(address).await);
        }
        assert!(refused("/healthz").await.ends_with("well"));
        drop(busy);
        while !refused("/").await.ends_with("here") {}
    }

    #[tokio::test]
    async fn an_idle_connection_is_kept_for_over_a_minute_and_a_slow_head_does_not_keep_one_for_ever() {
        use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

        assert!(HEAD_WAIT_MAX >= Duration::from_secs(75));
        let (near, mut far) = tokio::io::duplex(1 << 10);
        let service = TowerToHyperService::new(Router::new().route("/", get(|| async { "~" })));
        let serving = tokio::spawn(async move {
            let builder = connection_builder(Duration::from_millis(500));
            drop(builder.serve_connection(TokioIo::new(near), service).await);
        });
        let mut pace = tokio::time::interval(Duration::from_millis(100));
        let mut answer = [0; 12];
        for _ in 0..2 {
            // Idle for less than it is kept, and then answered.
            for _ in 0..3 {
                pace.tick().await;
            }
            far.write_all(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n")
                .await
                .expect("it is open");
            far.read_exact(&mut answer).await.expect("an answer");
            assert_eq!(&answer, b"HTTP/1.1 200");
            while far.read_u8().await.expect("the rest of the answer") != b'~' {}
        }
        // A head of which something comes all the time, and which never ends.
        far.write_all(b"GET / HTTP/1.1\r\n").await.expect("it is open");
        let begun = std::time::Instant::now();
        while !serving.is_finished() {
            pace.tick().await;
            let _ = far.write_all(b"a: b\r\n").await;
            assert!(begun.elapsed() < Duration::from_secs(10), "it is never given up");
        }
    }
}
