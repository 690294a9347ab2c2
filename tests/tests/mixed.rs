//! Mixed data is welcome: whatever JSON allows is stored, found and queried; a line that is not JSON is rejected alone.

use serde_json::{Value, json};
use tests::{Client, Service, query_both};

tests::for_single_process_and_cluster! {
    one_stray_value_never_breaks_a_dashboard: tests::Settings::default().small_splits(),
    a_value_without_a_function_result_is_null_and_others_are_unaffected: tests::Settings::default().small_splits(),
    odd_keys_are_queried_like_any_other: tests::Settings::default().small_splits(),
    documents_are_returned_byte_for_byte: tests::Settings::default().small_splits(),
    lines_that_are_not_json_are_rejected_and_the_others_are_stored: tests::Settings::default(),
    documents_of_200_000_keys_and_of_16_mebibytes_are_accepted: tests::Settings::default().small_splits(),
    a_hundred_thousand_paths_in_ten_documents_can_be_queried: tests::Settings::default().small_splits(),
}

async fn one_stray_value_never_breaks_a_dashboard(server: Service) {
    let body = [
        r#"{"ms":12}"#,
        r#"{"ms":"slow"}"#,
        r#"{"ms":30}"#,
        r#"{"ms":null}"#,
        r#"{"ms":{"p99":7}}"#,
        r#"{"ms":[1,2]}"#,
        "{}",
    ]
    .join("\n");
    let pushed = server.push("requests", body).await.expect("a push");
    assert_eq!(
        (pushed["accepted"].as_u64(), pushed["rejected"].as_u64()),
        (Some(7), Some(0))
    );
    for _ in ["in the tail", "in a split"] {
        check_aggregates_and_filters(&server).await;
        check_values_and_order(&server).await;
        server.wait_for_splits(7).await;
    }
}

async fn check_aggregates_and_filters(server: &Client) {
    assert_eq!(
        query_both(server, "select sum(ms), count(ms), max(ms) from requests").await,
        [[json!(42), json!(5), json!(30)]]
    );
    for (sql, value) in [
        ("select count(*) from requests where ms > 20", 1),
        ("select count(*) from requests where ms = 'slow'", 1),
        ("select count(*) from requests where ms is null", 2),
        ("select ms.p99 from requests where ms.p99 is not null", 7),
    ] {
        assert_eq!(query_both(server, sql).await, [[json!(value)]], "{sql}");
    }
    let answer = server.sql("select sum(ms) from requests").await;
    let warnings = answer.stats["warnings"].to_string();
    assert!(warnings.contains("ms: 3 of 5 values were not numbers"), "{warnings}");
}

async fn check_values_and_order(server: &Client) {
    let native = query_both(server, "select ms from requests order by _offset, _item").await;
    assert_eq!(
        native,
        [
            [json!(12)],
            [json!("slow")],
            [json!(30)],
            [json!(null)],
            [json!({"p99":7})],
            [json!([1, 2])],
            [json!(null)]
        ]
    );
    let ordered = [
        [json!(12)],
        [json!(30)],
        [json!("slow")],
        [json!([1, 2])],
        [json!({"p99":7})],
        [json!(null)],
        [json!(null)],
    ];
    for sql in [
        "select ms from requests order by ms",
        "select ms from (select ms from requests) t order by ms",
    ] {
        assert_eq!(query_both(server, sql).await, ordered, "{sql}");
    }
}

async fn a_value_without_a_function_result_is_null_and_others_are_unaffected(server: Service) {
    let body = [
        r#"{"n":4,"at":"2026-11-20T10:30:00Z"}"#,
        r#"{"n":-9,"at":"9999-12-31T00:00:00Z"}"#,
        r#"{"n":16,"at":"0001-01-01T00:00:00Z"}"#,
        r#"{"n":-9223372036854775808,"at":"2026-11-20T10:59:59Z"}"#,
    ];
    server.push("stray", body.join("\n")).await.expect("a push");
    for _ in ["in the tail", "in a split"] {
        assert_eq!(
            query_both(&server, "select sqrt(n) from stray order by _id").await,
            [[json!(2.0)], [json!(null)], [json!(4.0)], [json!(null)]]
        );
        assert_eq!(
            query_both(&server, "select abs(n) from stray order by _id").await,
            [[json!(4)], [json!(9)], [json!(16)], [json!(null)]]
        );
        assert_eq!(
            query_both(
                &server,
                "select n * 4611686018427387904 is null from stray order by _id"
            )
            .await,
            [true, true, true, true].map(|n| [json!(n)])
        );
        let by_hour = "select date_trunc('hour', at::timestamp) as hour, count(*) from stray \
                       where at > '2026' and at < '2027' group by hour";
        assert_eq!(
            query_both(&server, by_hour).await,
            [[json!("2026-11-20T10:00:00Z"), json!(2)]]
        );
        let hours = "select count(*), count(distinct date_trunc('hour', at::timestamp)) from stray";
        assert_eq!(query_both(&server, hours).await[0][0], json!(4));
        server.wait_for_splits(4).await;
    }
}

async fn odd_keys_are_queried_like_any_other(server: Service) {
    let document = json!({ "a.b": 1, "a": { "b": 2 }, "quo\"te": 3, "nul\u{0}key": 4, "😀": 5, "": 6,
        "with space": { "x": 7 }, "select": 8, "_x": 9, "9lives": 10 });
    server.push("odd", document.to_string()).await.expect("a push");
    for _ in ["in the tail", "in a split"] {
        let columns = r#""a.b", a.b, "quo""te", "😀", "with space".x, "select", _x, "9lives""#;
        let expected = [1, 2, 3, 5, 7, 8, 9, 10].map(|n| json!(n));
        assert_eq!(
            query_both(&server, &format!("select {columns} from odd")).await,
            [expected]
        );
        for (path, value) in [
            (r#""a.b""#, 1),
            ("a.b", 2),
            (r#""quo""te""#, 3),
            (r#""😀""#, 5),
            (r#""with space".x"#, 7),
        ] {
            assert_eq!(
                query_both(&server, &format!("select count(*) from odd where {path} = {value}")).await,
                [[json!(1)]],
                "{path}"
            );
            assert_eq!(
                query_both(
                    &server,
                    &format!("select count(*) from odd where {path} = {}", value + 100)
                )
                .await,
                [[json!(0)]],
                "{path}"
            );
        }
        server.wait_for_splits(1).await;
    }
}

async fn documents_are_returned_byte_for_byte(server: Service) {
    let documents = [
        r#"{"dup":1,"dup":2}"#,
        r#"{ "spaced" :  [ 1 , 2.50 , 1e2 ] }"#,
        r#"{"lone":"\ud800","pair":"\ud83d\ude00"}"#,
        r#"{"huge":123456789012345678901234567890,"tiny":1e-400,"beyond":1e400,"minus":-0}"#,
        r#""just a string""#,
        "42",
        "[1,[2,[3]]]",
        "null",
        "true",
    ];
    let pushed = server
        .request(reqwest::Method::POST, "/v1/collections/bytes/documents")
        .header("content-type", "application/x-ndjson")
        .body(documents.join("\n"))
        .send()
        .await
        .expect("an answer");
    let pushed: Value = pushed.json().await.expect("JSON");
    assert_eq!(pushed["accepted"], documents.len(), "{pushed}");
    let position = pushed["position"].as_str().expect("a position").to_owned();
    for _ in ["in the tail", "in a split"] {
        for (item, document) in documents.iter().enumerate() {
            let bytes = server
                .document("bytes", &format!("{position}.{item}"))
                .await
                .expect("an answer")
                .expect("the document");
            assert_eq!(String::from_utf8_lossy(&bytes), *document);
        }
        assert_eq!(
            query_both(&server, "select dup from bytes where dup is not null").await,
            [[json!(2)]],
            "the last of duplicate keys wins"
        );
        assert_eq!(
            query_both(&server, "select count(*) from bytes where dup = 1").await,
            [[json!(0)]]
        );
        assert_eq!(
            query_both(&server, "select count(*) from bytes where beyond is not null").await,
            [[json!(1)]]
        );
        assert_eq!(
            query_both(
                &server,
                "select spaced[1]::text, _doc->>'minus' from bytes where spaced is not null"
            )
            .await,
            [[json!("2.50"), json!(null)]]
        );
        server.wait_for_splits(documents.len()).await;
    }
}

async fn lines_that_are_not_json_are_rejected_and_the_others_are_stored(server: Service) {
    let body = "{\"n\":1}\n{\"n\":\n{\"n\":2}\nnot json\n{\"n\":3}";
    let pushed = server.push("mostly", body).await.expect("a push");
    assert_eq!(
        (pushed["accepted"].as_u64(), pushed["rejected"].as_u64()),
        (Some(3), Some(2)),
        "{pushed}"
    );
    let indexes: Vec<u64> = pushed["errors"]
        .as_array()
        .expect("errors")
        .iter()
        .filter_map(|error| error["index"].as_u64())
        .collect();
    assert_eq!(indexes, [1, 3]);
    assert_eq!(query_both(&server, "select sum(n) from mostly").await, [[json!(6)]]);
    let dead = server
        .sql("select count(*) from rachis.dead_letters where collection = 'mostly'")
        .await;
    assert_eq!(dead.single_value(), &json!(2));
}

async fn documents_of_200_000_keys_and_of_16_mebibytes_are_accepted(server: Service) {
    let entries: Vec<String> = (0..200_000).map(|i| format!("\"key{i}\":{i}")).collect();
    let wide = format!("{{{},\"kind\":\"wide\"}}", entries.join(","));
    let head = "{\"kind\":\"long\",\"text\":\"";
    let long = format!("{head}{}\"}}", "x".repeat((16 << 20) - head.len() - 2));
    assert_eq!(long.len(), 16 << 20);
    for document in [&wide, &long] {
        let pushed = server.push("big", document.clone()).await.expect("a push");
        assert_eq!(pushed["accepted"], 1, "{pushed}");
    }
    let pushed = server
        .push("big", "{\"kind\":\"small\",\"key7\":\"seven\"}")
        .await
        .expect("a push");
    assert_eq!(pushed["accepted"], 1);
    for _ in ["in the tail", "in a split"] {
        assert_eq!(
            query_both(&server, "select key7, key199999 from big where kind = 'wide'").await,
            [[json!(7), json!(199_999)]]
        );
        assert_eq!(
            query_both(&server, "select length(text) from big where kind = 'long'").await,
            [[json!((16 << 20) - head.len() - 2)]]
        );
        assert_eq!(
            query_both(&server, "select key7 from big where kind = 'small'").await,
            [[json!("seven")]]
        );
        server.wait_for_splits(3).await;
    }
    let too_long = server
        .push("big", format!("{{\"x\":\"{}\"}}", "x".repeat(16 << 20)))
        .await
        .expect_err("over the limit");
    assert!(too_long.to_string().contains("too_big"), "{too_long}");
}

async fn a_hundred_thousand_paths_in_ten_documents_can_be_queried(server: Service) {
    let documents: Vec<String> = (0..10)
        .map(|d| {
            let entries: Vec<String> = (0..10_000).map(|k| format!("\"junk_{d}_{k}\":{k}")).collect();
            format!("{{{},\"d\":{d},\"good\":\"yes\"}}", entries.join(","))
        })
        .collect();
    let pushed = server.push("paths", documents.join("\n")).await.expect("a push");
    assert_eq!(pushed["accepted"], 10, "{pushed}");
    for _ in ["in the tail", "in a split"] {
        // A path beyond the limit of tracked paths may hold numbers of any kind, so its sum is a double.
        assert_eq!(
            query_both(&server, "select count(*), sum(d)::bigint from paths where good = 'yes'").await,
            [[json!(10), json!(45)]]
        );
        assert_eq!(
            query_both(&server, "select d from paths where junk_3_9999 = 9999").await,
            [[json!(3)]]
        );
        assert_eq!(
            query_both(&server, "select (_doc->>'junk_9_42')::bigint from paths where d = 9").await,
            [[json!(42)]]
        );
        server.wait_for_splits(10).await;
    }
}
