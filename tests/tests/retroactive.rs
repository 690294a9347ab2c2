//! Retroactive definitions: log lines are in, then a parser, a field and a view are created, and the very next query
//! applies them to all lines; so does a better version. The oracle is what the lines were written from.
//!
//! `RACHIS_LINES` sets the number of lines; the long form is 1000000.

use anyhow::{Context as _, ensure};
use rand::{Rng, RngExt as _, SeedableRng as _, rngs::StdRng};
use reqwest::Method;
use serde_json::{Value, json};
use tests::{Client, Service, eventually, query_both};

tests::for_single_process_and_cluster! {
    definitions_apply_to_everything_collected: tests::Settings::default().small_splits(),
    a_diff_shows_its_progress_and_ends_when_it_is_cancelled: tests::Settings::default(),
}

const LINES_PER_PUSH: usize = 5_000;

/// What a line was written from. Some servers write seconds, some lines are no requests.
struct Line {
    client: u8,
    status: u16,
    ms: u32,
    is_seconds: bool,
    is_request: bool,
}

impl Line {
    fn random(rng: &mut impl Rng) -> Self {
        Self {
            client: rng.random_range(1..30),
            status: [200, 200, 200, 304, 404, 500][rng.random_range(0..6)],
            ms: rng.random_range(1..3_000),
            is_seconds: rng.random_range(0..4) == 0,
            is_request: rng.random_range(0..20) > 0,
        }
    }

    fn text(&self) -> String {
        let Self { client, status, ms, .. } = self;
        match (self.is_request, self.is_seconds) {
            (false, _) => format!("panic: request {ms} of 10.0.0.{client} failed"),
            (true, false) => format!("10.0.0.{client} \"GET /a?id={ms} HTTP/1.1\" {status} {ms}ms"),
            (true, true) => format!(
                "10.0.0.{client} \"GET /a HTTP/1.1\" {status} {}.{:03}s",
                ms / 1_000,
                ms % 1_000
            ),
        }
    }
}

fn lines_max() -> usize {
    let wanted = std::env::var("RACHIS_LINES").ok().and_then(|lines| lines.parse().ok());
    wanted.unwrap_or(30_000)
}

/// The rows of a diff. In the long form it takes longer than other questions.
async fn diff(server: &Client, sql: &str) -> Vec<Vec<Value>> {
    let answer = server.query(sql, json!({ "timeout_ms": 300_000 })).await;
    answer.expect("an answer").rows
}

/// The totals of a diff, in order.
async fn totals(server: &Client, sql: &str) -> Vec<u64> {
    let rows = diff(server, sql).await;
    let totals = rows.iter().filter(|row| row[0] == "total");
    totals.map(|row| row[2].as_u64().expect("a count")).collect()
}

/// The spans of time of a diff: the beginning of each, and how many rows change in it.
async fn by_time(server: &Client, sql: &str) -> Vec<(String, u64)> {
    let rows = diff(server, sql).await;
    let spans = rows.iter().filter(|row| row[0] == "time");
    let span = |row: &Vec<Value>| Some((row[1].as_str()?.to_owned(), row[2].as_u64()?));
    spans.map(|row| span(row).expect("a span")).collect()
}

async fn definitions_apply_to_everything_collected(mut server: Service) {
    let mut rng = StdRng::seed_from_u64(tests::seed());
    let lines: Vec<Line> = (0..lines_max()).map(|_| Line::random(&mut rng)).collect();
    let settings = json!({ "time_path": "at" });
    let created = server.json(Method::PUT, "/v1/collections/logs", settings).await;
    created.expect("a collection");
    let minute = |number: usize| format!("2026-03-01T10:{:02}", number * 50 / lines.len());
    for (batch, some) in lines.chunks(LINES_PER_PUSH).enumerate() {
        let document = |(number, line): (usize, &Line)| {
            let at = format!("{}:30Z", minute(batch * LINES_PER_PUSH + number));
            json!({ "at": at, "line": line.text() }).to_string()
        };
        let documents: Vec<String> = some.iter().enumerate().map(document).collect();
        server.push("logs", documents.join("\n")).await.expect("a push");
    }
    let requests = || lines.iter().filter(|line| line.is_request);
    let count = |is: &dyn Fn(&Line) -> bool| requests().filter(|line| is(line)).count() as u64;
    let parser = |unit: &str| {
        format!(
            "CREATE OR REPLACE PARSER logs.access ON line AS GROK \
             '^%{{IP:client}} \"%{{WORD:method}} %{{NOTSPACE:target}} [^\"]*\" %{{INT:status:int}} %{{NUMBER:took:float}}{unit}$'"
        )
    };

    server.sql(&parser("ms")).await;
    server.sql("CREATE FIELD logs.seconds AS access.took / 1000").await;
    server
        .sql("CREATE VIEW slow AS SELECT access.client AS client, seconds FROM logs WHERE seconds >= 2")
        .await;
    let in_ms = |line: &&Line| !line.is_seconds;
    let by_status = |counted: &dyn Fn(&&Line) -> bool| -> Vec<Vec<Value>> {
        let mut counts = std::collections::BTreeMap::new();
        for line in requests().filter(counted) {
            let (documents, took) = counts.entry(line.status).or_insert((0_u64, 0_u64));
            *documents += 1;
            *took += u64::from(line.ms);
        }
        let row =
            |(status, (documents, took)): (u16, (u64, u64))| vec![json!(status), json!(documents), json!(took as f64)];
        counts.into_iter().map(row).collect()
    };
    let sql = "SELECT access.status, count(*), sum(access.took) FROM logs WHERE access.status IS NOT NULL \
               GROUP BY access.status ORDER BY 1";
    assert_eq!(query_both(&server, sql).await, by_status(&in_ms));
    let slow = "SELECT count(*) FROM slow";
    assert_eq!(
        query_both(&server, slow).await,
        [[json!(count(&|line| !line.is_seconds && line.ms >= 2_000))]]
    );

    // A better version parses what the first one did not.
    server.sql(&parser("(ms|s)")).await;
    let seconds = count(&|line| line.is_seconds);
    let with_both = "SELECT count(access.status), count(access@1.status), count(access@2.took) FROM logs";
    let (requests_in, in_ms_only) = (count(&|_| true), count(&|line| !line.is_seconds));
    assert_eq!(
        query_both(&server, with_both).await,
        [[json!(requests_in), json!(in_ms_only), json!(requests_in)]]
    );
    assert_eq!(
        totals(&server, "DIFF PARSER logs.access@1 TO logs.access@2").await,
        [lines.len() as u64, seconds, 0, seconds, 0, seconds]
    );
    let mut by_minute = std::collections::BTreeMap::new();
    for (number, line) in lines.iter().enumerate() {
        *by_minute.entry(minute(number) + ":00Z").or_insert(0) += u64::from(line.is_request && line.is_seconds);
    }
    by_minute.retain(|_, changed| *changed > 0);
    assert_eq!(
        by_time(&server, "DIFF PARSER logs.access@1 TO logs.access@2").await,
        Vec::from_iter(by_minute)
    );
    let of_one = "DIFF PARSER logs.access@1 TO logs.access@2 WHERE line LIKE '10.0.0.7 %'";
    assert_eq!(
        totals(&server, of_one).await[..2],
        [
            count(&|line| line.client == 7),
            count(&|line| line.is_seconds && line.client == 7)
        ]
    );
    let unparsed = server
        .sql("SELECT count(*) FROM rachis.definition_errors WHERE name = 'access'")
        .await;
    assert_eq!(
        unparsed.single_value(),
        &json!((lines.len() as u64 - requests_in).min(100))
    );

    // Seconds are taken for milliseconds now, which the field corrects.
    server
        .sql("CREATE OR REPLACE FIELD logs.seconds AS access.took / CASE WHEN line LIKE '%ms' THEN 1000 ELSE 1 END")
        .await;
    let all_slow = count(&|line| line.ms >= 2_000);
    assert_eq!(query_both(&server, slow).await, [[json!(all_slow)]]);
    server.kill_and_restart().await;
    assert_eq!(query_both(&server, slow).await, [[json!(all_slow)]]);
    let found = server
        .get("/v1/collections/logs/search?q=access.status:>=500%20AND%20access.client:10.0.0.7&limit=1")
        .await
        .expect("an answer");
    assert_eq!(
        found["total"],
        json!(count(&|line| line.status == 500 && line.client == 7))
    );
    server.sql("REVERT PARSER logs.access").await;
    assert_eq!(
        query_both(&server, sql).await,
        by_status(&in_ms),
        "the first version is back"
    );

    the_definitions_move_to_another_catalog_as_a_file(&server).await;
}

/// DIFF of two versions that take long to compute: others see how far it is, and end it.
async fn a_diff_shows_its_progress_and_ends_when_it_is_cancelled(server: Service) {
    const DOCUMENTS: u64 = 40_000;
    const NESTED: usize = 40;
    let document = |number: u64| json!({ "text": format!("{number} ").repeat(40) }).to_string();
    let documents: Vec<String> = (0..DOCUMENTS).map(document).collect();
    server.push("logs", documents.join("\n")).await.expect("a push");
    for last in ["x", "y"] {
        let slow = (0..NESTED).fold("text".to_owned(), |inner, _| {
            format!("regexp_replace({inner}, '([0-9])( |$)', '\\1  ')")
        });
        let sql = format!("CREATE OR REPLACE FIELD logs.slow AS {slow} || '{last}'");
        server.sql(&sql).await;
    }
    let request = server.request(Method::POST, "/v1/sql");
    let sql = "DIFF FIELD logs.slow@1 TO logs.slow@2";
    let running = tokio::spawn(request.json(&json!({ "sql": sql, "timeout_ms": 120_000 })).send());
    let id = eventually("the diff is seen halfway", || async {
        let listed = server.get("/v1/queries").await?;
        let listed = listed["queries"].as_array().and_then(|queries| queries.first());
        let query = listed.context("no query runs")?;
        let count = |name: &str| query[name].as_u64().unwrap_or_default();
        // One of its scans has begun and not ended.
        let (documents, scanned) = (count("documents"), count("documents_scanned"));
        ensure!(scanned < documents && scanned % DOCUMENTS > 0, "{query}");
        Ok(query["id"].as_str().unwrap_or_default().to_owned())
    })
    .await;
    let path = format!("/v1/queries/{id}");
    let cancelled = server.json(Method::DELETE, &path, json!({})).await;
    cancelled.expect("cancelled");
    let answer = running.await.expect("the request ends").expect("an answer");
    assert_eq!(answer.status().as_u16(), 499);
    eventually("no query runs", || async {
        let listed = server.get("/v1/queries").await?;
        ensure!(listed["queries"] == json!([]), "{listed}");
        Ok(())
    })
    .await;
}

/// What was exported changes nothing where it came from. After everything is dropped, it brings all back.
async fn the_definitions_move_to_another_catalog_as_a_file(server: &Client) {
    let export = || async {
        let response = server
            .request(Method::GET, "/v1/definitions/export")
            .send()
            .await
            .expect("an answer");
        response.text().await.expect("a text")
    };
    let apply = |file: String, dry_run: bool| async move {
        let path = format!("/v1/definitions/apply?dry_run={dry_run}");
        let response = server
            .request(Method::POST, &path)
            .body(file)
            .send()
            .await
            .expect("an answer");
        let applied: Value = response.json().await.expect("JSON");
        applied["changes"]
            .as_array()
            .unwrap_or_else(|| panic!("{applied}"))
            .len()
    };
    let file = export().await;
    assert_eq!(apply(file.clone(), false).await, 0, "{file}");
    for dropped in ["VIEW slow", "FIELD logs.seconds", "PARSER logs.access"] {
        server.sql(&format!("DROP {dropped}")).await;
    }
    assert_eq!(apply(file.clone(), true).await, 3, "{file}");
    assert_eq!(apply(file.clone(), false).await, 3);
    assert_eq!(export().await, file);
    assert_eq!(apply(file, false).await, 0);
}
