//! Hostile pushes: whatever a client sends, it gets the documented answer, what is good is kept, nothing else is stored,
//! and other clients go on.

use std::{collections::BTreeSet, io::Write as _};

use futures::{StreamExt as _, future::join_all, stream};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use tests::{Client, Service};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

tests::for_single_process_and_cluster! {
    bodies_of_a_wrong_length_store_no_part_of_a_document: tests::Settings::default(),
    broken_and_exploding_compression_is_refused_whole: tests::Settings::default(),
    stalled_clients_hold_up_nobody: tests::Settings::default(),
    wrong_names_and_endless_headers_are_refused: tests::Settings::default(),
    odd_lines_are_rejected_alone: tests::Settings::default(),
    three_bad_lines_of_a_million_are_named: tests::Settings::default(),
    odd_rows_are_rejected_alone_and_open_quotes_refuse_all: tests::Settings::default(),
    one_key_from_a_hundred_clients_is_one_push: tests::Settings::default(),
}

const PATH: &str = "/v1/collections/events/documents";

/// Sends these bytes as they are, and reads until the server closes or is silent for long. Returns the statuses of the
/// responses.
async fn raw(client: &Client, request: &[u8]) -> Vec<u16> {
    statuses(client, request, false).await
}

/// The same; with `ends`, the client closes its side after the request.
async fn statuses(client: &Client, request: &[u8], ends: bool) -> Vec<u16> {
    let mut stream = connect(client).await;
    // The server may refuse the request before it has read all of it.
    let _ = stream.write_all(request).await;
    if ends {
        let _ = stream.shutdown().await;
    }
    let mut answer = Vec::new();
    let _ = tokio::time::timeout(tests::WAIT_MAX, stream.read_to_end(&mut answer)).await;
    let answer = String::from_utf8_lossy(&answer).into_owned();
    let statuses = answer.split("HTTP/1.1 ").skip(1).filter_map(|rest| rest.get(..3));
    statuses.map(|status| status.parse().expect("a status")).collect()
}

async fn connect(client: &Client) -> TcpStream {
    let address = client.url().trim_start_matches("http://").to_owned();
    TcpStream::connect(address).await.expect("a connection")
}

fn head(headers: &str) -> String {
    format!("POST {PATH} HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/x-ndjson\r\n{headers}\r\n")
}

async fn count(client: &Client) -> Value {
    let tables = client
        .sql("select count(*) from rachis.collections where name = 'events'")
        .await;
    match *tables.single_value() == json!(0) {
        true => json!(0),
        false => client.sql("select count(*) from events").await.single_value().clone(),
    }
}

/// Pushes a body and returns the status and the answer.
async fn push(client: &Client, headers: &[(&str, &str)], body: Vec<u8>) -> (StatusCode, Value) {
    let request = headers
        .iter()
        .fold(client.request(Method::POST, PATH), |request, (name, value)| {
            request.header(*name, *value)
        });
    let response = request.body(body).send().await.expect("a response");
    let status = response.status();
    (
        status,
        serde_json::from_slice(&response.bytes().await.expect("a body")).expect("JSON"),
    )
}

async fn bodies_of_a_wrong_length_store_no_part_of_a_document(service: Service) {
    let body = "{\"n\":1}\n{\"n\":2}\n";
    for (headers, expected) in [
        // More is announced than comes: the body never ends.
        ("content-length: 4000\r\n", vec![]),
        ("transfer-encoding: chunked\r\n", vec![400]),
        ("content-length: -1\r\n", vec![400]),
        ("content-length: 16\r\ncontent-length: 17\r\n", vec![400]),
        ("content-length: 99999999999999999999999\r\n", vec![400]),
        ("content-length: 99999999999\r\n", vec![413]),
    ] {
        let statuses = statuses(&service, format!("{}{body}", head(headers)).as_bytes(), true).await;
        let is_refused = statuses == expected || statuses == [400];
        assert!(is_refused, "{headers:?}: {statuses:?}");
        assert_eq!(count(&service).await, json!(0), "{headers:?}");
    }
    // Less is announced than comes: the first line is whole, the second one is cut, and the rest is no request.
    let short = format!("{}{body}", head("content-length: 11\r\n"));
    let statuses = statuses(&service, short.as_bytes(), true).await;
    assert_eq!(statuses.first(), Some(&200), "{statuses:?}");
    assert!(statuses.iter().skip(1).all(|status| *status == 400), "{statuses:?}");
    assert_eq!(service.sql("select n from events").await.rows, [[json!(1)]]);
}

async fn broken_and_exploding_compression_is_refused_whole(service: Service) {
    let lines: String = (0..5_000).map(|n| format!("{{\"n\":{n}}}\n")).collect();
    let gzip = |bytes: &[u8]| {
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
        gzip.write_all(bytes).expect("memory");
        gzip.finish().expect("memory")
    };
    let whole = gzip(lines.as_bytes());
    let mut changed = whole.clone();
    let middle = changed.len() / 2;
    changed[middle] ^= 0xff;
    let zeros = vec![b'0'; 256 << 20];
    let zstd = zstd::encode_all(&zeros[..], 1).expect("memory");
    let ten_times = gzip(&gzip(&zeros));
    for (what, encoding, body, expected) in [
        ("truncated", "gzip", whole[..whole.len() - 9].to_vec(), 400),
        ("changed", "gzip", changed, 400),
        ("not compressed", "gzip", lines.clone().into_bytes(), 400),
        ("another compression", "zstd", whole.clone(), 400),
        ("a bomb", "gzip", gzip(&zeros), 413),
        ("a bomb", "zstd", zstd, 413),
        ("a bomb within", "gzip", ten_times, 415),
        ("two compressions", "gzip, gzip", gzip(&whole), 415),
    ] {
        let (status, problem) = push(&service, &[("content-encoding", encoding)], body).await;
        assert_eq!(status.as_u16(), expected, "{what} in {encoding}: {problem}");
        assert_eq!(count(&service).await, json!(0), "{what} in {encoding}");
    }
    let twice = [whole.clone(), whole].concat();
    let (status, answer) = push(&service, &[("content-encoding", "gzip")], twice).await;
    assert_eq!(
        (status, &answer["accepted"]),
        (StatusCode::OK, &json!(10_000)),
        "members follow one another"
    );
}

async fn stalled_clients_hold_up_nobody(service: Service) {
    let begin = format!("{}{{\"n\":1", head("content-length: 60000000\r\n"));
    let mut stalled = Vec::new();
    for _ in 0..300 {
        let mut stream = connect(&service).await;
        stream.write_all(begin.as_bytes()).await.expect("sent");
        stalled.push(stream);
    }
    for n in 0..20 {
        let (status, answer) = push(&service, &[], format!("{{\"n\":{n}}}").into_bytes()).await;
        assert_eq!(status, StatusCode::OK, "{answer}");
    }
    drop(stalled);
    assert_eq!(count(&service).await, json!(20));
}

async fn wrong_names_and_endless_headers_are_refused(service: Service) {
    for (name, expected) in [
        ("..%2Fx", 400),
        ("%2E%2E", 400),
        ("a%00b", 400),
        ("Events", 400),
        ("rachis", 400),
        ("a%20b", 400),
        ("%ff", 400),
        ("_changes%2F0", 400),
        (&"x".repeat(129), 400),
        (&"x".repeat(9_000), 400),
        ("..", 400),
        ("../x", 404),
    ] {
        let request = format!(
            "POST /v1/collections/{name}/documents HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\ncontent-length: 8\r\n\r\n{{\"n\":1}}\n"
        );
        let statuses = raw(&service, request.as_bytes()).await;
        assert_eq!(statuses, [expected], "{}", name.get(..40).unwrap_or(name));
    }
    let many: String = (0..20_000).map(|n| format!("x-{n}: 1\r\n")).collect();
    let long = format!("x: {}\r\n", "y".repeat(8 << 20));
    for headers in [many, long] {
        let request = format!("{}{{\"n\":1}}\n", head(&format!("content-length: 8\r\n{headers}")));
        let statuses = raw(&service, request.as_bytes()).await;
        assert!(statuses == [431] || statuses.is_empty(), "{statuses:?}");
    }
    let listed = service.sql("select name from rachis.collections").await.rows;
    assert_eq!(listed, Vec::<Vec<Value>>::new());
}

async fn odd_lines_are_rejected_alone(service: Service) {
    let deep = |levels: usize| format!("{}{}", "[".repeat(levels), "]".repeat(levels)).into_bytes();
    let lines: [(&[u8], bool); 12] = [
        (b"\xef\xbb\xbf{\"n\":0,\"after\":\"a byte order mark\"}", true),
        (b"{\"n\":1,\"ends\":\"with a carriage return\"}\r", true),
        (b"{\"n\":2,\"text\":\"\xff\xfe\"}", false),
        (b"{\"n\":3,\"text\":\"\\ud800\"}", true),
        (b"{\"n\":4} {\"n\":4}", false),
        (&deep(100), true),
        (&deep(10_000), false),
        (b"\0", false),
        (b"{\"n\":8,\"n\":8}", true),
        (b"{\"n\":1e999999}", true),
        (b"NaN", false),
        (b"{\"n\":11}", true),
    ];
    let body: Vec<u8> = lines.iter().flat_map(|(line, _)| [line, &b"\n"[..]].concat()).collect();
    let (status, answer) = push(&service, &[], body).await;
    assert_eq!(status, StatusCode::OK, "{answer}");
    let rejected = answer["errors"].as_array().expect("errors").iter();
    let rejected: BTreeSet<u64> = rejected.filter_map(|error| error["index"].as_u64()).collect();
    let wanted = (0..).zip(&lines).filter(|(_, (_, is_good))| !is_good);
    assert_eq!(rejected, wanted.map(|(index, _)| index).collect(), "{answer}");
    assert_eq!(
        count(&service).await,
        json!(lines.iter().filter(|(_, is_good)| *is_good).count())
    );
    let letters = service.sql("select count(*) from rachis.dead_letters").await;
    assert_eq!(*letters.single_value(), json!(rejected.len()));
    service.assert_outcomes_add_up("push").await;
}

async fn odd_rows_are_rejected_alone_and_open_quotes_refuse_all(service: Service) {
    let csv = [("content-type", "text/csv")];
    for (what, body, expected) in [
        (
            "a quote that never closes",
            format!("a,b\n1,\"x\n{}", "2,3\n".repeat(100_000)),
            400,
        ),
        ("a quote that opens at the end", "a,b\n1,2\n3,\"".to_owned(), 400),
        ("a header with a column twice", "a,a\n1,2\n".to_owned(), 400),
        ("a header alone", "a,b\n".to_owned(), 400),
        ("nothing", String::new(), 400),
        // Each row becomes a document with a long name.
        (
            "rows that explode",
            format!("{}\n{}", "n".repeat(100_000), "1\n".repeat(1_000)),
            413,
        ),
        (
            "more rows than documents",
            format!("n\n{}", "1\n".repeat(1_000_001)),
            413,
        ),
    ] {
        let (status, problem) = push(&service, &csv, body.into_bytes()).await;
        assert_eq!(status.as_u16(), expected, "{what}: {problem}");
        assert!(problem["hint"].is_string(), "{what}: {problem}");
    }
    let body = b"n,name\r\n0,\"a \"\"b\"\"\nc\"\r\n1\r\n2,\xff\r\n3,x,y\r\n{}\r\n5,ok\r\n\r\n6,5\" pipe\r\n";
    let (status, answer) = push(&service, &csv, body.to_vec()).await;
    assert_eq!(status, StatusCode::OK, "{answer}");
    let rejected: Vec<u64> = answer["errors"]
        .as_array()
        .expect("errors")
        .iter()
        .filter_map(|error| error["index"].as_u64())
        .collect();
    assert_eq!(rejected, [1, 2, 3, 4], "{answer}");
    let rows = service.sql("select n, name from events order by n").await.rows;
    let wanted = [json!([0, "a \"b\"\nc"]), json!([5, "ok"]), json!([6, "5\" pipe"])];
    assert_eq!(json!(rows), json!(wanted));
    service.assert_outcomes_add_up("push").await;
}

async fn three_bad_lines_of_a_million_are_named(service: Service) {
    const LINES: usize = 1_000_000;
    let bad = [7, 500_000, LINES - 1];
    let line = |n: usize| {
        if bad.contains(&n) {
            "{\"n\":\n".to_owned()
        } else {
            format!("{{\"n\":{n}}}\n")
        }
    };
    let body: String = (0..LINES).map(line).collect();
    let (status, answer) = push(&service, &[("idempotency-key", "million")], body.into_bytes()).await;
    assert_eq!(status, StatusCode::OK, "{answer}");
    assert_eq!(
        (&answer["accepted"], &answer["rejected"]),
        (&json!(LINES - 3), &json!(3))
    );
    let indexes: Vec<_> = (answer["errors"].as_array().expect("errors").iter())
        .map(|error| &error["index"])
        .collect();
    assert_eq!(json!(indexes), json!(bad));
    let sums = service.sql("select count(*), sum(n)::bigint from events").await.rows;
    let sum = LINES * (LINES - 1) / 2 - bad.iter().sum::<usize>();
    assert_eq!(sums, [[json!(LINES - 3), json!(sum)]]);
}

async fn one_key_from_a_hundred_clients_is_one_push(service: Service) {
    let client: &Client = &service;
    let pushes = (0..100).map(|_| {
        push(
            client,
            &[("idempotency-key", "the same")],
            b"{\"n\":1}\n{\"n\":2}".to_vec(),
        )
    });
    let answers = join_all(pushes).await;
    let mut positions = BTreeSet::new();
    let mut first = 0;
    for (status, answer) in answers {
        match status.as_u16() {
            200 => {
                positions.insert(answer["position"].to_string());
                first += usize::from(answer["repeated"].is_null());
            }
            // It may be retried, and stores nothing.
            status => assert!([429, 503].contains(&status), "{status}: {answer}"),
        }
    }
    assert_eq!((positions.len(), first), (1, 1), "one of them stored it: {positions:?}");
    assert_eq!(count(&service).await, json!(2));
    // The same key with other bodies: one of them at most is stored.
    let bodies = stream::iter((0..50).map(|n| format!("{{\"other\":{n}}}").into_bytes()));
    let statuses: Vec<u16> = bodies
        .map(|body| async { push(client, &[("idempotency-key", "another")], body).await.0.as_u16() })
        .buffer_unordered(50)
        .collect()
        .await;
    assert_eq!(
        statuses.iter().filter(|status| **status == 200).count(),
        1,
        "{statuses:?}"
    );
    assert!(
        statuses.iter().all(|status| [200, 409, 429, 503].contains(status)),
        "{statuses:?}"
    );
    assert_eq!(count(&service).await, json!(3));
}
