//! Pushes: what is stored, what is rejected, and what a repeated push does.

use std::io::Write;

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use tests::Service;

use super::{push, refused, send};

tests::for_single_process_and_cluster! {
    a_push_stores_valid_json_and_reports_the_rest: tests::Settings::default(),
    cleared_dead_letters_stay_in_the_counts: tests::Settings::default(),
    compressed_bodies_are_accepted_up_to_a_limit: tests::Settings::default(),
    multi_line_documents_are_accepted_and_other_formats_are_refused: tests::Settings::default(),
    a_push_repeated_with_its_key_changes_nothing: tests::Settings::default(),
    a_document_is_returned_byte_for_byte: tests::Settings::default(),
}

async fn a_push_stores_valid_json_and_reports_the_rest(server: Service) {
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
    assert_eq!(server.sql("select count(*) from mixed").await.single_value(), &json!(3));
    let position = pushed["position"].as_str().expect("a position");
    let answer = server
        .query("select count(*) from mixed", json!({ "at_least": position }))
        .await
        .expect("an answer");
    assert_eq!(answer.stats["position"], position);

    let rejected = refused(push(&server, "mixed").body("{oops"), 400).await;
    assert_eq!(
        (
            &rejected["accepted"],
            &rejected["rejected"],
            &rejected["errors"][0]["index"]
        ),
        (&json!(0), &json!(1), &json!(0))
    );
    refused(push(&server, "mixed").body("[{\"a\":1},{oops}]"), 400).await;
    refused(push(&server, "mixed").body(""), 400).await;
    assert_eq!(
        server.sql("select count(*) from mixed").await.single_value(),
        &json!(3),
        "a malformed array stores nothing"
    );
}

async fn cleared_dead_letters_stay_in_the_counts(server: Service) {
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
        "the outcomes of the events stay counted: {outcomes}"
    );
}

async fn compressed_bodies_are_accepted_up_to_a_limit(server: Service) {
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
    assert_eq!(
        server.sql("select count(*) from packed").await.single_value(),
        &json!(2_000)
    );
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

async fn multi_line_documents_are_accepted_and_other_formats_are_refused(server: Service) {
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

    for (body, format) in [
        (&b"\xfd7zXZ\0\0\x04\xe6\xd6\xb4F"[..], "xz"),
        (b"\x1f\x8b\x08\0\n", "gzip"),
        (b"n,text\n1,a\n2,b\n", "CSV"),
    ] {
        for kind in ["application/json", "application/x-ndjson", "text/csv"] {
            if (format, kind) == ("CSV", "text/csv") {
                continue;
            }
            let problem = refused(push(&server, "foreign").header("content-type", kind).body(body), 415).await;
            assert!(
                problem["detail"].as_str().is_some_and(|detail| detail.contains(format)) && problem["hint"].is_string(),
                "{problem}"
            );
        }
    }
    assert_eq!(
        server
            .sql("select count(*) from rachis.dead_letters")
            .await
            .single_value(),
        &json!(0),
        "a refused body leaves no dead letters"
    );
    assert_eq!(
        server.sql("select count(*) from pretty").await.single_value(),
        &json!(1_000)
    );
}

async fn a_push_repeated_with_its_key_changes_nothing(server: Service) {
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
        "the same answer, marked as repeated"
    );
    refused(keyed("k1", "[1,2,3,4]"), 409).await;
    send(keyed("k2", "[1,2,3]")).await;
    assert_eq!(server.sql("select count(*) from keyed").await.single_value(), &json!(6));
}

async fn a_document_is_returned_byte_for_byte(server: Service) {
    let document = "{ \"_id\" : \"a/b ä\",\n  \"n\": 1.50, \"n\": 1e400 }";
    server.push("raw", document).await.expect("a push");
    assert_eq!(
        server.document("raw", "a/b ä").await.expect("an answer").as_deref(),
        Some(document.as_bytes())
    );
    refused(server.request(Method::GET, "/v1/collections/raw/documents/none"), 404).await;
    refused(server.request(Method::GET, "/v1/collections/none/documents/1"), 404).await;
    // Compared as text: few JSON parsers read a number that is out of range for a double.
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
