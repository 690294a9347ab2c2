//! Answers: formats, compression, and refused requests.

use std::io::Read as _;

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use tests::Service;

use super::{push, refused, send};

tests::for_single_process_and_cluster! {
    an_answer_has_the_requested_format: tests::Settings::default(),
    large_answers_are_compressed_if_the_client_accepts_it: tests::Settings::default(),
    malformed_requests_are_refused_with_a_reason: tests::Settings::default(),
    requests_from_browser_pages_are_refused: tests::Settings::default(),
}

async fn an_answer_has_the_requested_format(server: Service) {
    server
        .push("forms", "{\"n\":1,\"t\":\"a,b\"}\n{\"n\":2}")
        .await
        .expect("a push");
    let ask = |accept: &'static str| {
        server
            .request(Method::POST, "/v1/sql")
            .header("accept", accept)
            .header("content-type", "text/plain")
            .body("select n, t from forms order by n")
    };
    let (_, content_type, csv) = send(ask("text/csv")).await;
    assert!(content_type.starts_with("text/csv"));
    assert_eq!(String::from_utf8_lossy(&csv), "n,t\n1,\"a,b\"\n2,\n");
    let (_, content_type, tsv) = send(ask("text/tab-separated-values")).await;
    assert!(content_type.starts_with("text/tab-separated-values"));
    assert_eq!(String::from_utf8_lossy(&tsv), "n\tt\n1\ta,b\n2\t\\N\n");
    let (_, _, lines) = send(ask("application/x-ndjson")).await;
    let lines: Vec<Value> = String::from_utf8_lossy(&lines)
        .lines()
        .map(|line| serde_json::from_str(line).expect("JSON"))
        .collect();
    assert_eq!(lines[..2], [json!({"n":1,"t":"a,b"}), json!({"n":2,"t":null})]);
    assert_eq!(
        lines[2]["end"]["columns"],
        json!([{"name":"n","type":"BIGINT"},{"name":"t","type":"TEXT"}])
    );
    let (status, content_type, arrow) = send(ask("application/vnd.apache.arrow.stream")).await;
    assert_eq!(
        (status, content_type.as_str()),
        (StatusCode::OK, "application/vnd.apache.arrow.stream")
    );
    assert!(arrow.starts_with(&[0xff; 4]), "an Arrow stream begins with these bytes");
    let problem = refused(ask("text/html"), 406).await;
    let hint = problem["hint"].as_str().expect("a hint");
    for format in [
        "application/json",
        "application/x-ndjson",
        "text/csv",
        "text/tab-separated-values",
        "application/vnd.apache.arrow.stream",
    ] {
        assert!(hint.contains(format), "{hint}");
    }
    let answer = server.sql("select _doc, n from forms where n = 1").await;
    assert_eq!(
        answer.rows,
        [[json!("{\"n\":1,\"t\":\"a,b\"}"), json!(1)]],
        "a document is exact text"
    );
}

async fn large_answers_are_compressed_if_the_client_accepts_it(server: Service) {
    let lines: String = (0..20_000)
        .map(|n| format!("{{\"n\":{n},\"text\":\"{}\"}}\n", "word ".repeat(60)))
        .collect();
    server.push("long", lines).await.expect("a push");
    let ask = |accept: &'static str, encoding: &'static str, sql: &str| {
        let request = server
            .request(Method::POST, "/v1/sql")
            .header("accept", accept)
            .header("accept-encoding", encoding)
            .header("te", "trailers");
        request.header("content-type", "text/plain").body(sql.to_owned())
    };
    let encoding = |answer: &reqwest::Response| {
        answer
            .headers()
            .get("content-encoding")
            .map(|value| value.to_str().expect("ASCII").to_owned())
    };
    // A few hundred rows are sent in one piece, all of them as a stream.
    for sql in [
        "select n, text from long order by n limit 300",
        "select n, text from long order by n limit 20000",
    ] {
        let plain = send(ask("text/csv", "identity", sql)).await.2;
        for (encoded, accepted) in [("gzip", "gzip"), ("zstd", "gzip;q=0.5, zstd")] {
            let answer = ask("text/csv", accepted, sql).send().await.expect("an answer");
            assert_eq!(encoding(&answer).as_deref(), Some(encoded), "{sql}");
            let packed = answer.bytes().await.expect("a body");
            assert!(
                packed.len() * 5 < plain.len(),
                "{encoded}: {} of {} bytes",
                packed.len(),
                plain.len()
            );
            assert!(decompressed(encoded, &packed) == plain, "{encoded}: the same answer");
        }
    }
    let small = ask("application/json", "gzip", "select 1")
        .send()
        .await
        .expect("an answer");
    assert_eq!(encoding(&small), None);
    let problem = ask("application/json", "gzip", &format!("select {}", "1 + ".repeat(600)))
        .send()
        .await
        .expect("an answer");
    assert_eq!((problem.status().as_u16(), encoding(&problem)), (400, None));
    let body: String = (0..100).map(|n| format!("{{{n}\n")).collect();
    let pushed = push(&server, "long")
        .header("accept-encoding", "gzip")
        .body(body + "{}")
        .send()
        .await
        .expect("an answer");
    assert_eq!((pushed.status().as_u16(), encoding(&pushed)), (200, None));
}

/// Decodes a gzip or zstd body.
fn decompressed(encoding: &str, body: &[u8]) -> Vec<u8> {
    if encoding == "zstd" {
        return zstd::decode_all(body).expect("zstd");
    }
    let mut plain = Vec::new();
    flate2::read::MultiGzDecoder::new(body)
        .read_to_end(&mut plain)
        .expect("gzip");
    plain
}

async fn malformed_requests_are_refused_with_a_reason(server: Service) {
    server.push("c", "{}").await.expect("a push");
    let post = |path: &str, body: Value| server.request(Method::POST, path).json(&body);
    let problem = refused(post("/v1/sql", json!({"sql": "select 1", "limt": 3})), 400).await;
    assert!(
        problem["detail"].as_str().is_some_and(|detail| detail.contains("limt")),
        "{problem}"
    );
    let problem = refused(post("/v1/sql", json!({"sql": "selct 1"})), 400).await;
    assert!(problem["line"] == 1, "{problem}");
    let problem = refused(post("/v1/sql", json!({"sql": "select * from nowhere"})), 404).await;
    assert!(
        problem["detail"]
            .as_str()
            .is_some_and(|detail| detail.contains("nowhere")),
        "{problem}"
    );
    refused(post("/v1/collections/c/search", json!({"facet": ["a"]})), 400).await;
    for body in [json!(["disk"]), json!([]), json!({"limit": "5"})] {
        let problem = refused(post("/v1/collections/c/search", body), 400).await;
        assert!(
            problem["hint"].as_str().is_some_and(|hint| hint.contains("histogram")),
            "{problem}"
        );
    }
    let problem = refused(server.request(Method::GET, "/v1/collections/c/search?limit=many"), 400).await;
    assert_eq!(problem["detail"], "limit must be a whole number from 0", "{problem}");
    let no_time = "/v1/collections/c/search?from=2026-11-27&to=2026-11-27";
    let problem = refused(server.request(Method::GET, no_time), 400).await;
    assert_eq!(
        problem["hint"], "to is exclusive: for the whole day write to=2026-11-28",
        "{problem}"
    );
    for accept in ["text/csv", "application/xml"] {
        let search = server.request(Method::GET, "/v1/collections/c/search");
        refused(search.header("accept", accept), 406).await;
        let search = post("/v1/collections/c/search", json!({})).header("accept", accept);
        refused(search, 406).await;
    }
    let since = post("/v1/collections/c/search", json!({"from": 1_000_000_000}));
    assert_eq!(send(since).await.0, StatusCode::OK);
    refused(server.request(Method::GET, "/v1/nowhere"), 404).await;
    refused(server.request(Method::PATCH, "/v1/sql"), 405).await;
    refused(push(&server, "Bad%20Name").body("{}"), 400).await;
    refused(push(&server, "%ff").body("{}"), 400).await;
    refused(push(&server, "rachis").body("{}"), 400).await;
    refused(
        server
            .request(Method::PUT, "/v1/collections/c")
            .json(&json!({"copies": 2})),
        400,
    )
    .await;
    refused(server.request(Method::GET, "/v1/collections/none"), 404).await;
    refused(server.request(Method::DELETE, "/v1/queries/00"), 404).await;
}

async fn requests_from_browser_pages_are_refused(server: Service) {
    server.push("mixed", "{\"a\":1}").await.expect("a push by a program");
    // A form on any page can send this without a preflight request.
    let form = push(&server, "mixed")
        .header("origin", "http://evil.example.com")
        .header("content-type", "text/plain")
        .body("{\"a\":2}");
    assert_eq!(refused(form, 403).await["code"], "forbidden");
    let rebound = server
        .request(Method::POST, "/v1/sql")
        .header("host", "evil.example.com:7700")
        .body("select * from mixed");
    let problem = refused(rebound, 403).await;
    assert!(
        problem["hint"].as_str().is_some_and(|hint| hint.contains("[http]")),
        "{problem}"
    );
    for header in ["http://evil.example.com", "null"] {
        let call = server
            .request(Method::POST, "/rachis.v1.Query/Sql")
            .header("content-type", "application/grpc")
            .header("origin", header);
        let answer = call.send().await.expect("an answer");
        assert_eq!(
            answer.headers().get("grpc-status").map(|status| status.as_bytes()),
            Some(&b"7"[..]),
            "{answer:?}"
        );
    }
    assert_eq!(
        server.sql("select count(*) from mixed").await.single_value(),
        &json!(1),
        "the refused push stored nothing"
    );
}
