//! The HTTP door: what is sent is understood or refused with a reason, what is asked is told in the form asked for, and
//! nothing is left running for a client that went away.

use std::{io::Write, time::Duration};

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use tests::{Client, Server, Service, eventually};

tests::of_one_process_and_of_a_cluster! {
    a_push_keeps_what_is_json_and_names_what_is_not: tests::Settings::default(),
    dead_letters_are_cleared_on_request_and_stay_counted: tests::Settings::default(),
    packed_bodies_are_taken_up_to_a_limit: tests::Settings::default(),
    documents_over_several_lines_are_documents_and_what_is_no_json_is_refused_whole: tests::Settings::default(),
    a_push_repeated_under_its_key_changes_nothing: tests::Settings::default(),
    a_document_comes_back_as_it_was_given: tests::Settings::default(),
    an_answer_is_told_in_the_form_asked_for: tests::Settings::default(),
    an_answer_is_compressed_for_who_takes_it_and_small_ones_are_not: tests::Settings::default(),
    what_is_not_understood_is_refused_with_a_reason: tests::Settings::default(),
    a_source_that_cannot_be_is_never_agreed_on: tests::Settings::default(),
    every_key_of_a_very_wide_document_is_found: tests::Settings::default(),
    a_collection_is_made_changed_and_dropped: tests::Settings::default(),
    a_search_sorts_by_a_field_and_looks_into_views: tests::Settings::default(),
    a_page_in_a_browser_may_not_ask: tests::Settings::default(),
}

/// An address at which nobody listens.
fn nowhere() -> String {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    listener.local_addr().expect("an address").to_string()
}

/// Sends a request; the status, the content type, the body.
async fn send(request: reqwest::RequestBuilder) -> (StatusCode, String, Vec<u8>) {
    let answer = request.send().await.expect("an answer");
    let content_type = answer
        .headers()
        .get("content-type")
        .map_or("", |value| value.to_str().expect("ASCII"))
        .to_owned();
    (
        answer.status(),
        content_type,
        answer.bytes().await.expect("a body").to_vec(),
    )
}

/// Sends a request that must be refused; its problem.
async fn refused(request: reqwest::RequestBuilder, status: u16) -> Value {
    let (answered, content_type, body) = send(request).await;
    let text = String::from_utf8_lossy(&body).into_owned();
    assert_eq!(
        (answered.as_u16(), content_type.as_str()),
        (status, "application/problem+json"),
        "{text}"
    );
    let problem: Value = serde_json::from_slice(&body).expect("JSON");
    assert!(
        problem["code"].is_string()
            && problem["detail"].is_string()
            && problem["status"] == status
            && problem["title"].is_string(),
        "{problem}"
    );
    problem
}

fn push(server: &Client, collection: &str) -> reqwest::RequestBuilder {
    server.request(Method::POST, &format!("/v1/collections/{collection}/documents"))
}

async fn a_page_in_a_browser_may_not_ask(server: Service) {
    server.push("mixed", "{\"a\":1}").await.expect("a push of a program");
    // What a form of any page can send, without a preflight.
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
        server.sql("select count(*) from mixed").await.one(),
        &json!(1),
        "nothing was stored"
    );
}

async fn a_push_keeps_what_is_json_and_names_what_is_not(server: Service) {
    let pushed = server
        .push("mixed", "{\"a\":1}\n{oops\n\n[1,2]\n7\n")
        .await
        .expect("some are accepted");
    assert_eq!(
        (pushed["accepted"].as_u64(), pushed["rejected"].as_u64()),
        (Some(3), Some(1)),
        "{pushed}"
    );
    assert_eq!(
        (&pushed["errors"][0]["index"], &pushed["errors"][0]["code"]),
        (&json!(1), &json!("not_json"))
    );
    assert_eq!(server.sql("select count(*) from mixed").await.one(), &json!(3));
    let position = pushed["position"].as_str().expect("a position");
    let answer = server
        .ask("select count(*) from mixed", json!({ "at_least": position }))
        .await
        .expect("an answer");
    assert_eq!(answer.stats["position"], position);

    let nothing = refused(push(&server, "mixed").body("{oops"), 400).await;
    assert_eq!(
        (
            &nothing["accepted"],
            &nothing["rejected"],
            &nothing["errors"][0]["index"]
        ),
        (&json!(0), &json!(1), &json!(0))
    );
    refused(push(&server, "mixed").body("[{\"a\":1},{oops}]"), 400).await;
    refused(push(&server, "mixed").body(""), 400).await;
    assert_eq!(
        server.sql("select count(*) from mixed").await.one(),
        &json!(3),
        "a list that is none leaves nothing"
    );
}

async fn dead_letters_are_cleared_on_request_and_stay_counted(server: Service) {
    server
        .push("letters", "{\"a\":1}\n{oops\n{\"a\":2}\nnonsense")
        .await
        .expect("some are accepted");
    server
        .push("others", "{\"a\":1}\n{oops")
        .await
        .expect("some are accepted");
    let clear = |query: &str| server.request(Method::DELETE, &format!("/v1/collections/letters/dead-letters{query}"));
    refused(clear("?sourc=push"), 400).await;
    refused(
        server.request(Method::DELETE, "/v1/collections/nowhere/dead-letters"),
        404,
    )
    .await;
    let cleared = async |query: &str| serde_json::from_slice::<Value>(&send(clear(query)).await.2).expect("JSON");
    assert_eq!(cleared("?source=clicks").await["cleared"], 0);
    assert_eq!(
        cleared("?source=push").await,
        json!({ "collection": "letters", "source": "push", "cleared": 2, "complete": true })
    );
    assert_eq!(
        server.sql("select collection from rachis.dead_letters").await.rows,
        [[json!("others")]]
    );
    let outcomes = server.get("/v1/collections/letters").await.expect("a collection")["statistics"].clone();
    assert_eq!(
        (&outcomes["events"], &outcomes["dead_letters"]),
        (&json!(4), &json!(2)),
        "what became of the events stays counted: {outcomes}"
    );
}

async fn packed_bodies_are_taken_up_to_a_limit(server: Service) {
    let lines = "{\"a\":1}\n".repeat(1_000);
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    gzip.write_all(lines.as_bytes()).expect("memory");
    let packed = [
        ("gzip", gzip.finish().expect("memory")),
        ("zstd", zstd::encode_all(lines.as_bytes(), 3).expect("memory")),
    ];
    for (encoding, body) in packed {
        let (status, _, _) = send(push(&server, "packed").header("content-encoding", encoding).body(body)).await;
        assert_eq!(status, StatusCode::OK, "{encoding}");
    }
    assert_eq!(server.sql("select count(*) from packed").await.one(), &json!(2_000));
    let bomb = zstd::encode_all(std::io::Read::take(std::io::repeat(b' '), 65 << 20), 3).expect("memory");
    refused(
        push(&server, "packed").header("content-encoding", "zstd").body(bomb),
        413,
    )
    .await;
    refused(push(&server, "packed").header("content-encoding", "br").body("x"), 415).await;
    refused(
        push(&server, "packed").header("content-type", "image/png").body("x"),
        415,
    )
    .await;
}

async fn documents_over_several_lines_are_documents_and_what_is_no_json_is_refused_whole(server: Service) {
    let pretty =
        |n: i32| serde_json::to_string_pretty(&json!({ "n": n, "inside": { "list": [n, "a\nb"] } })).expect("JSON");
    let body: String = (0..1_000).map(|n| pretty(n) + "\n").collect();
    let pushed = server.push("pretty", body).await.expect("a push");
    assert_eq!(
        (&pushed["accepted"], &pushed["rejected"]),
        (&json!(1_000), &json!(0)),
        "{pushed}"
    );
    assert_eq!(
        server.sql("select count(*), sum(n)::bigint from pretty").await.rows,
        [[json!(1_000), json!(499_500)]]
    );
    let broken = format!("{}\n{}\n{}", pretty(1), pretty(2).replace(':', ";"), pretty(3));
    let problem = refused(push(&server, "pretty").body(broken), 400).await;
    assert!(
        problem["detail"]
            .as_str()
            .is_some_and(|detail| detail.contains("document 1") && detail.contains("line 11")),
        "{problem}"
    );

    for (body, named) in [
        (&b"\xfd7zXZ\0\0\x04\xe6\xd6\xb4F"[..], "xz"),
        (b"\x1f\x8b\x08\0\n", "gzip"),
        (b"n,text\n1,a\n2,b\n", "CSV"),
    ] {
        for kind in ["application/json", "application/x-ndjson", "text/csv"] {
            let problem = refused(push(&server, "foreign").header("content-type", kind).body(body), 415).await;
            assert!(
                problem["detail"].as_str().is_some_and(|detail| detail.contains(named)) && problem["hint"].is_string(),
                "{problem}"
            );
        }
    }
    assert_eq!(
        server.sql("select count(*) from rachis.dead_letters").await.one(),
        &json!(0),
        "nothing of them is kept"
    );
    assert_eq!(server.sql("select count(*) from pretty").await.one(), &json!(1_000));
}

async fn a_push_repeated_under_its_key_changes_nothing(server: Service) {
    let keyed =
        |key: &'static str, body: &'static str| push(&server, "keyed").header("idempotency-key", key).body(body);
    let (_, _, first) = send(keyed("k1", "[1,2,3]")).await;
    let (status, _, again) = send(keyed("k1", "[1,2,3]")).await;
    let read = |body: &[u8]| serde_json::from_slice::<Value>(body).expect("JSON");
    let mut repeated = read(&first);
    assert!(
        repeated["accepted"] == 3 && repeated["repeated"].is_null(),
        "{repeated}"
    );
    repeated["repeated"] = true.into();
    assert_eq!(
        (status, read(&again)),
        (StatusCode::OK, repeated),
        "the same answer, and that it is one"
    );
    refused(keyed("k1", "[1,2,3,4]"), 409).await;
    send(keyed("k2", "[1,2,3]")).await;
    assert_eq!(server.sql("select count(*) from keyed").await.one(), &json!(6));
}

async fn a_document_comes_back_as_it_was_given(server: Service) {
    let document = "{ \"_id\" : \"a/b ä\",\n  \"n\": 1.50, \"n\": 1e400 }";
    server.push("raw", document).await.expect("a push");
    assert_eq!(
        server.document("raw", "a/b ä").await.expect("an answer").as_deref(),
        Some(document.as_bytes())
    );
    refused(server.request(Method::GET, "/v1/collections/raw/documents/none"), 404).await;
    refused(server.request(Method::GET, "/v1/collections/none/documents/1"), 404).await;
    // Read as text: few readers of JSON know a number beyond double.
    let hits = server
        .request(Method::GET, "/v1/collections/raw/search?q=*")
        .send()
        .await
        .expect("an answer")
        .text()
        .await
        .expect("a text");
    assert!(hits.contains(document) && hits.contains("\"total\":1"), "{hits}");
}

async fn an_answer_is_told_in_the_form_asked_for(server: Service) {
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
    assert!(arrow.starts_with(&[0xff; 4]), "an Arrow stream begins so");
    let problem = refused(ask("text/html"), 406).await;
    let hint = problem["hint"].as_str().expect("a hint");
    for form in [
        "application/json",
        "application/x-ndjson",
        "text/csv",
        "application/vnd.apache.arrow.stream",
    ] {
        assert!(hint.contains(form), "{hint}");
    }
    let answer = server.sql("select _doc, n from forms where n = 1").await;
    assert_eq!(
        answer.rows,
        [[json!("{\"n\":1,\"t\":\"a,b\"}"), json!(1)]],
        "a document is exact text"
    );
}

async fn an_answer_is_compressed_for_who_takes_it_and_small_ones_are_not(server: Service) {
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
    // Some hundred rows are sent as a whole, all of them piece by piece.
    for sql in [
        "select n, text from long order by n limit 300",
        "select n, text from long order by n limit 20000",
    ] {
        let plain = send(ask("text/csv", "identity", sql)).await.2;
        for (named, accepted) in [("gzip", "gzip"), ("zstd", "gzip;q=0.5, zstd")] {
            let answer = ask("text/csv", accepted, sql).send().await.expect("an answer");
            assert_eq!(encoding(&answer).as_deref(), Some(named), "{sql}");
            let packed = answer.bytes().await.expect("a body");
            assert!(
                packed.len() * 5 < plain.len(),
                "{named}: {} of {} bytes",
                packed.len(),
                plain.len()
            );
            let mut unpacked = Vec::new();
            match named {
                "gzip" => drop(
                    std::io::Read::read_to_end(&mut flate2::read::MultiGzDecoder::new(&packed[..]), &mut unpacked)
                        .expect("gzip"),
                ),
                _ => unpacked = zstd::decode_all(&packed[..]).expect("zstd"),
            }
            assert!(unpacked == plain, "{named}: the same answer");
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

async fn what_is_not_understood_is_refused_with_a_reason(server: Service) {
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
    refused(post("/v1/collections/c/search", json!({"facets": ["a"]})), 400).await;
    refused(server.request(Method::GET, "/v1/collections/c/search?limit=many"), 400).await;
    refused(server.request(Method::GET, "/v1/nowhere"), 404).await;
    refused(server.request(Method::PATCH, "/v1/sql"), 405).await;
    refused(push(&server, "Bad%20Name").body("{}"), 400).await;
    refused(push(&server, "%ff").body("{}"), 400).await;
    refused(push(&server, "rachis").body("{}"), 400).await;
    refused(
        server
            .request(Method::PUT, "/v1/collections/c")
            .json(&json!({"replicas": 2})),
        400,
    )
    .await;
    refused(server.request(Method::GET, "/v1/collections/none"), 404).await;
    refused(server.request(Method::DELETE, "/v1/queries/00"), 404).await;
}

async fn a_source_that_cannot_be_is_never_agreed_on(server: Service) {
    let put = |body: Value| server.request(Method::PUT, "/v1/sources/s").json(&body);
    let with = |key: &str, value: &str| json!({"collection": "c", "topic": "t", "config": {"bootstrap.servers": nowhere(), key: value}});
    for key in ["plugin.library.paths", "ssl.engine.location", "ssl.providers"] {
        let problem = refused(put(with(key, "/tmp/x.so")), 400).await;
        assert!(
            problem["detail"].as_str().is_some_and(|detail| detail.contains(key)),
            "{problem}"
        );
    }
    let problem = refused(put(with("no.such.key", "1")), 400).await;
    assert!(
        problem["detail"]
            .as_str()
            .is_some_and(|detail| detail.contains("no.such.key")),
        "{problem}"
    );
    let problem = refused(put(with("client.id", "x")), 503).await;
    let (detail, hint) = (
        problem["detail"].as_str().expect("a detail"),
        problem["hint"].as_str().expect("a hint"),
    );
    assert!(
        detail.starts_with("source s was not created: ")
            && detail.contains("bootstrap.servers")
            && !detail.contains("automatically"),
        "{problem}"
    );
    assert!(
        hint.contains("nothing was created or changed") && hint.contains("send it again"),
        "{problem}"
    );
    refused(put(json!({"collection": "c", "topic": "t"})), 400).await;
    assert_eq!(server.get("/v1/sources").await.expect("a list"), json!({"sources": []}));
    assert_eq!(
        server.get("/v1/collections").await.expect("a list"),
        json!({"collections": []}),
        "no collection was made for it"
    );
}

async fn every_key_of_a_very_wide_document_is_found(server: Service) {
    let wide: serde_json::Map<String, Value> = (0..12_000)
        .map(|key| (format!("k{key}"), json!(format!("v{key}"))))
        .collect();
    server
        .push("wide", Value::Object(wide).to_string())
        .await
        .expect("pushed");
    for key in [0, 4_000, 6_000, 9_999, 10_001, 11_999] {
        let found = server
            .json(
                Method::POST,
                "/v1/collections/wide/search",
                json!({ "q": format!("k{key}:v{key}") }),
            )
            .await
            .expect("an answer");
        assert_eq!(found["total"], 1, "k{key}");
        assert_eq!(
            server
                .sql(&format!("select count(*) from wide where k{key} = 'v{key}'"))
                .await
                .one(),
            &json!(1),
            "k{key}"
        );
    }
    let fields = server.get("/v1/collections/wide/fields").await.expect("fields");
    assert_eq!(fields["fields"].as_array().map(Vec::len), Some(10_000));
    assert!(
        fields["warnings"][0]
            .as_str()
            .is_some_and(|warning| warning.contains("10000 paths at most")),
        "{}",
        fields["warnings"]
    );
}

async fn a_collection_is_made_changed_and_dropped(server: Service) {
    let put = |body: Value| server.json(Method::PUT, "/v1/collections/c", body);
    let made = put(json!({"shards": 3})).await.expect("it is made");
    assert_eq!(
        (&made["settings"]["shards"], &made["statistics"]["documents"]),
        (&json!(3), &json!(0))
    );
    let body: String = (0..100)
        .map(|i| format!("{{\"_id\":{i},\"at\":\"2024-01-01T00:00:{:02}Z\"}}\n", i % 60))
        .collect();
    server.push("c", body.clone()).await.expect("a push");
    server.push("c", body).await.expect("a push");
    assert_eq!(
        server.sql("select count(*) from c").await.one(),
        &json!(100),
        "an id finds its document wherever it lies"
    );
    put(json!({"time_path": "at"})).await.expect("it is changed");
    assert_eq!(
        server.sql("select max(_time) from c").await.one(),
        &json!("2024-01-01T00:00:59Z"),
        "for everything that is there"
    );
    let fields = server.get("/v1/collections/c/fields").await.expect("fields");
    assert!(
        fields["fields"].as_array().is_some_and(|fields| fields
            .iter()
            .any(|field| field["path"] == "at" && field["type"] == "TEXT")),
        "{fields}"
    );
    refused(
        server
            .request(Method::PUT, "/v1/collections/c")
            .json(&json!({"shards": 4})),
        409,
    )
    .await;
    server
        .json(Method::DELETE, "/v1/collections/c", json!({}))
        .await
        .expect("it is dropped");
    refused(server.request(Method::GET, "/v1/collections/c"), 404).await;
    server.push("c", "{}").await.expect("the name is free at once");
    assert_eq!(server.sql("select count(*) from c").await.one(), &json!(1));
}

/// A question that runs until it is stopped, on documents that are there.
const ENDLESS: &str = "select count(*) from many a, many b, many c, many d where a.n + b.n + c.n + d.n = -1";

async fn with_many() -> Server {
    let server = Server::start(tests::Settings::default()).await;
    let lines: String = (0..3_000).map(|i| format!("{{\"n\":{i}}}\n")).collect();
    server.push("many", lines).await.expect("a push");
    server
}

async fn running(server: &Client) -> anyhow::Result<Vec<Value>> {
    Ok(server.get("/v1/queries").await?["queries"]
        .as_array()
        .cloned()
        .unwrap_or_default())
}

#[tokio::test]
async fn a_query_ends_when_its_client_goes() {
    let server = with_many().await;
    let asking = server
        .request(Method::POST, "/v1/sql")
        .json(&json!({ "sql": ENDLESS }))
        .send();
    let asking = tokio::spawn(asking);
    eventually("the query runs", || async {
        anyhow::ensure!(running(&server).await?.len() == 1);
        Ok(())
    })
    .await;
    asking.abort();
    eventually("the query is gone", || async {
        anyhow::ensure!(running(&server).await?.is_empty());
        Ok(())
    })
    .await;
    assert_eq!(server.sql("select count(*) from many").await.one(), &json!(3_000));
}

#[tokio::test]
async fn a_query_ends_at_its_deadline_or_when_it_is_cancelled() {
    let server = with_many().await;
    let ask = |timeout_ms: u64| {
        server
            .request(Method::POST, "/v1/sql")
            .json(&json!({ "sql": ENDLESS, "timeout_ms": timeout_ms }))
    };
    let problem = refused(ask(200), 422).await;
    assert_eq!(problem["code"], "timeout");
    eventually("the first query is gone", || async {
        anyhow::ensure!(running(&server).await?.is_empty());
        Ok(())
    })
    .await;
    let asking = tokio::spawn(ask(60_000).send());
    let id = eventually("the query runs", || async {
        let running = running(&server).await?;
        anyhow::ensure!(running.len() == 1);
        Ok(running[0]["id"].as_str().unwrap_or_default().to_owned())
    })
    .await;
    server
        .json(Method::DELETE, &format!("/v1/queries/{id}"), json!({}))
        .await
        .expect("it is cancelled");
    let answer = asking.await.expect("it ends").expect("an answer");
    let (status, told) = (answer.status().as_u16(), answer.text().await.unwrap_or_default());
    assert_eq!(status, 499, "{told}");
}

#[tokio::test]
async fn what_a_server_stores_is_for_its_user_alone() {
    use std::os::unix::fs::PermissionsExt as _;
    let server = Server::start(tests::Settings::default()).await;
    server.push("mixed", "{\"a\":1}").await.expect("a push");
    let mut folders = vec![server.data()];
    let mut files = 0;
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).expect("a folder") {
            // What the server removes meanwhile is no matter.
            let Ok((path, found)) = entry.and_then(|entry| Ok((entry.path(), entry.metadata()?))) else {
                continue;
            };
            let mode = found.permissions().mode();
            assert_eq!(mode & 0o077, 0, "{} has the mode {mode:o}", path.display());
            files += usize::from(found.is_file());
            folders.extend(found.is_dir().then_some(path));
        }
    }
    assert!(files > 5, "{files} files");
}

#[tokio::test]
async fn a_server_ends_in_order_and_keeps_what_it_acknowledged() {
    let mut server = with_many().await;
    assert_eq!(server.get("/healthz").await.expect("health")["status"], "ok");
    let (_, _, metrics) = send(server.request(Method::GET, "/metrics")).await;
    let metrics = String::from_utf8_lossy(&metrics);
    assert!(
        metrics.contains("rachis_push_items_total{outcome=\"accepted\"} 3000"),
        "{metrics}"
    );
    assert!(
        metrics.contains("route=\"/v1/collections/{collection}/documents\""),
        "{metrics}"
    );
    let asking = tokio::spawn(
        server
            .request(Method::POST, "/v1/sql")
            .json(&json!({ "sql": ENDLESS }))
            .timeout(Duration::from_secs(60))
            .send(),
    );
    eventually("the query runs", || async {
        anyhow::ensure!(running(&server).await?.len() == 1);
        Ok(())
    })
    .await;
    server.stop();
    let _ = asking.await;
    assert!(
        !server.data().join("listening").exists(),
        "nobody is sent to a closed door"
    );
    server.start_again().await;
    assert_eq!(server.sql("select count(*) from many").await.one(), &json!(3_000));
}

async fn a_search_sorts_by_a_field_and_looks_into_views(server: Service) {
    let sale = |n: u32| {
        json!({ "n": n, "cents": n % 10 * 50, "note": format!("sale {n}"), "tags": ["new", format!("t{}", n % 3)] })
            .to_string()
    };
    let pushed = server
        .push("sales", (0..100).map(sale).collect::<Vec<_>>().join("\n"))
        .await
        .expect("accepted");
    server.sql("create field sales.price as cents / 100").await;
    server
        .sql("create view dear as select _id, _time, price, note, tags from sales where cents >= 300")
        .await;
    server
        .sql("create view totals as select cents, count(*) as sold from sales group by cents")
        .await;
    let search = async |of: &str, mut question: Value| {
        question["at_least"] = pushed["position"].clone();
        let request = server
            .request(Method::POST, &format!("/v1/collections/{of}/search"))
            .json(&question);
        let (status, _, body) = send(request).await;
        let answer: Value = serde_json::from_slice(&body).expect("JSON");
        assert_eq!(status, 200, "{answer}");
        answer
    };
    let by_price = search("sales", json!({ "q": "tags:t1", "sort": "price:desc", "limit": 3 })).await;
    let cents: Vec<&Value> = by_price["hits"]
        .as_array()
        .expect("hits")
        .iter()
        .map(|hit| &hit["document"]["cents"])
        .collect();
    assert_eq!(
        (cents, &by_price["total"]),
        (vec![&json!(450); 3], &json!(33)),
        "{by_price}"
    );

    let (mut ids, mut after) = (std::collections::BTreeSet::new(), Value::Null);
    loop {
        let page = search(
            "dear",
            json!({ "q": "sale tags:t1 price:>3", "limit": 4, "after": after }),
        )
        .await;
        assert_eq!(page["total"], 10, "{page}");
        for hit in page["hits"].as_array().expect("hits") {
            assert!(
                ids.insert(hit["id"].as_str().expect("an id").to_owned()),
                "{hit} came twice"
            );
            assert!(hit["document"]["price"].as_f64().expect("a number") > 3.0, "{hit}");
        }
        after = page["after"].clone();
        if after.is_null() {
            break;
        }
    }
    assert_eq!(ids.len(), 10);

    let totals = search("totals", json!({ "q": "sold:10", "sort": "cents", "limit": 1 })).await;
    assert_eq!(
        totals["hits"],
        json!([{ "id": null, "score": null, "document": { "cents": 0, "sold": 10 } }])
    );
    let unbounded = server.request(Method::GET, "/v1/collections/totals/search?from=2026-01-01");
    assert!(
        refused(unbounded, 400).await["hint"]
            .as_str()
            .expect("a hint")
            .contains("_time")
    );
    refused(server.request(Method::GET, "/v1/collections/dear/documents/x"), 404).await;
}
