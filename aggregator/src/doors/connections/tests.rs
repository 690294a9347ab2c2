//! Tests of `connections`.

use std::{net::SocketAddr, pin::Pin, time::Instant};

use axum::routing::get;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::{
    registry::{
        CLOSING_CHECK_INTERVAL, MONITORING_CONNECTIONS_MAX, UNSENT_AGE_MAX_WHEN_FULL, UNSENT_BYTES_MAX,
        UNSENT_CHECK_INTERVAL,
    },
    *,
};

/// Starts a server with a path that responds, one that never does, one with a long body, and one for monitoring.
async fn start(connections_max: usize) -> SocketAddr {
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
        AllowedHosts::default(),
        connections_max,
    ));
    address
}

async fn connect(address: SocketAddr) -> TcpStream {
    TcpStream::connect(address).await.expect("a connection")
}

async fn send_request(stream: &mut TcpStream, path: &str) {
    stream
        .write_all(format!("GET {path} HTTP/1.1\r\nhost: localhost\r\n\r\n").as_bytes())
        .await
        .expect("the connection is open");
}

/// Reads once. Empty if the connection is closed.
async fn read_response(stream: &mut TcpStream) -> String {
    let mut bytes = vec![0; 4_096];
    let read = tokio::time::timeout(Duration::from_secs(20), stream.read(&mut bytes))
        .await
        .expect("no timeout");
    String::from_utf8_lossy(&bytes[..read.unwrap_or(0)]).into_owned()
}

#[tokio::test]
async fn at_the_limit_the_longest_idle_connection_is_closed() {
    let address = start(8).await;
    let mut active = connect(address).await;
    let mut idle = Vec::new();
    for _ in 0..100 {
        send_request(&mut active, "/").await;
        assert!(
            read_response(&mut active).await.ends_with("here"),
            "a connection with occasional requests stays open"
        );
        let mut stream = connect(address).await;
        send_request(&mut stream, "/").await;
        assert!(read_response(&mut stream).await.ends_with("here"));
        idle.push(stream);
    }
    assert_eq!(read_response(&mut idle[0]).await, "", "the first of them is closed");
    // A connection that never completes the head of its request is idle, too.
    let mut slow = Vec::new();
    for _ in 0..20 {
        let mut stream = connect(address).await;
        stream
            .write_all(b"GET / HTTP/1.1\r\n")
            .await
            .expect("the connection is open");
        slow.push(stream);
    }
    let mut stream = connect(address).await;
    send_request(&mut stream, "/").await;
    assert!(read_response(&mut stream).await.ends_with("here"));
}

#[tokio::test]
async fn a_connection_whose_response_is_still_being_sent_is_not_closed() {
    // Some of these end in the socket's buffers, some in the server's, some in neither.
    for mebibytes in [1, 2, 4, 8, 16] {
        let address = start(4).await;
        let mut slow = connect(address).await;
        send_request(&mut slow, &format!("/long/{}", mebibytes << 20)).await;
        let beginning = read_response(&mut slow).await;
        assert!(beginning.starts_with("HTTP/1.1 200"), "{beginning}");
        let mut others = Vec::new();
        for _ in 0..20 {
            let mut stream = connect(address).await;
            send_request(&mut stream, "/").await;
            assert!(
                read_response(&mut stream).await.ends_with("here"),
                "other, idle connections are closed"
            );
            others.push(stream);
        }
        // Longer than it takes to close an evicted connection.
        tokio::time::interval_at(
            (Instant::now() + 2 * CLOSING_CHECK_INTERVAL).into(),
            CLOSING_CHECK_INTERVAL,
        )
        .tick()
        .await;
        let head = beginning.find("\r\n\r\n").expect("the whole head") + 4;
        let mut rest = vec![0; (mebibytes << 20) + head - beginning.len()];
        slow.read_exact(&mut rest).await.expect("the whole response");
        assert!(rest.iter().all(|byte| *byte == b'~'));
    }
}

#[tokio::test]
async fn frames_of_a_response_count_until_they_are_sent() {
    let connections = Connections::new(1);
    let guard = connections.register();
    let connection = &guard.connection;
    let mut body = CountedBody {
        body: Body::from("a frame"),
        request: Arc::new(RequestGuard::begin(connection)),
    };
    let frame = std::future::poll_fn(|context| hyper::body::Body::poll_frame(Pin::new(&mut body), context)).await;
    let frame = frame.expect("a frame").expect("no error").into_data().expect("bytes");
    assert_eq!(
        (frame.as_ref(), connections.unsent_bytes.load(Ordering::Relaxed)),
        (b"a frame".as_ref(), 7)
    );
    drop(body);
    assert!(
        connection.idle_since().is_none(),
        "the whole response was handed over, but not sent"
    );
    assert!(!connection.has_unsent_older_than(connections.unsent_age_max()));
    tokio::time::interval_at(
        (Instant::now() + Duration::from_millis(50)).into(),
        UNSENT_CHECK_INTERVAL,
    )
    .tick()
    .await;
    assert!(connection.has_unsent_older_than(Duration::from_millis(20)));
    let part = frame.slice(2..);
    drop(frame);
    assert!(
        connection.has_unsent_older_than(Duration::from_millis(20)),
        "a part of it is unsent"
    );
    drop(part);
    assert!(!connection.has_unsent_older_than(Duration::ZERO) && connection.idle_since().is_some());
    assert_eq!(connections.unsent_bytes.load(Ordering::Relaxed), 0);
    connections.unsent_bytes.store(UNSENT_BYTES_MAX + 1, Ordering::Relaxed);
    assert_eq!(
        connections.unsent_age_max(),
        UNSENT_AGE_MAX_WHEN_FULL,
        "with many unsent bytes, frames may wait only shortly"
    );
}

#[tokio::test]
async fn evicted_connections_with_new_requests_do_not_keep_others_out() {
    let connections = Connections::new(4);
    let idle: Vec<ConnectionGuard> = (0..4).map(|_| connections.register()).collect();
    let closing = || {
        let all = connections.all.lock();
        all.values().find(|connection| connection.is_closing()).cloned()
    };
    // The server evicts each idle connection, and its client starts a request at that moment.
    let mut busy = Vec::new();
    for _ in 0..MONITORING_CONNECTIONS_MAX {
        let guard = connections.register();
        busy.push((RequestGuard::begin(&closing().expect("one is closing")), guard));
    }
    assert!(connections.all.lock().len() >= connections.max + MONITORING_CONNECTIONS_MAX);
    let one_ends = async {
        loop {
            if let Some(closing) = closing() {
                return connections.all.lock().remove(&closing.number);
            }
            tokio::task::yield_now().await;
        }
    };
    let both = async { tokio::join!(connections.wait_for_slot(), one_ends) };
    tokio::time::timeout(Duration::from_secs(20), both)
        .await
        .expect("an idle connection is evicted and frees a slot");
    drop(idle);
}

#[tokio::test]
async fn monitoring_works_while_requests_run_on_every_connection() {
    let address = start(8).await;
    let mut busy = Vec::new();
    for _ in 0..8 {
        let mut stream = connect(address).await;
        send_request(&mut stream, "/never").await;
        busy.push(stream);
    }
    let request = async |path: &str| {
        let mut stream = connect(address).await;
        send_request(&mut stream, path).await;
        read_response(&mut stream).await
    };
    // The server may not have read the last of the requests yet.
    while !request("/").await.starts_with("HTTP/1.1 503") {}
    for _ in 0..2 * MONITORING_CONNECTIONS_MAX {
        assert!(request("/healthz").await.ends_with("well"));
    }
    let rejected = request("/").await;
    assert!(
        rejected.contains("connection: close") && rejected.contains("every connection is running a request"),
        "{rejected}"
    );
    // Idle connections above the limit do not lock monitoring out either.
    let mut idle = Vec::new();
    for _ in 0..3 * MONITORING_CONNECTIONS_MAX {
        idle.push(connect(address).await);
    }
    assert!(request("/healthz").await.ends_with("well"));
    drop(busy);
    while !request("/").await.ends_with("here") {}
}

#[tokio::test]
async fn an_idle_connection_stays_open_for_over_a_minute_and_a_slow_head_times_out() {
    assert!(HEAD_WAIT_MAX >= Duration::from_secs(75));
    let (near, mut far) = tokio::io::duplex(1 << 10);
    let service = TowerToHyperService::new(Router::new().route("/", get(|| async { "~" })));
    let serving = tokio::spawn(async move {
        let builder = connection_builder(Duration::from_millis(500));
        drop(builder.serve_connection(TokioIo::new(near), service).await);
    });
    let mut pace = tokio::time::interval(Duration::from_millis(100));
    let mut status = [0; 12];
    for _ in 0..2 {
        // Idle for less than the limit, and then a request.
        for _ in 0..3 {
            pace.tick().await;
        }
        far.write_all(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n")
            .await
            .expect("the connection is open");
        far.read_exact(&mut status).await.expect("a response");
        assert_eq!(&status, b"HTTP/1.1 200");
        while far.read_u8().await.expect("the rest of the response") != b'~' {}
    }
    // A head that keeps arriving and never ends.
    far.write_all(b"GET / HTTP/1.1\r\n")
        .await
        .expect("the connection is open");
    let begun = Instant::now();
    while !serving.is_finished() {
        pace.tick().await;
        let _ = far.write_all(b"a: b\r\n").await;
        assert!(begun.elapsed() < Duration::from_secs(10), "the head never times out");
    }
}
