//! Mutated statements and scans: each is run or refused, and none is an internal error.

use std::time::Duration;

use plan::wire;
use proto::{Code, wire::leaf::ScanRequest as Message};
use serde_json::json;
use tokio::runtime::Handle;

use super::{Bench, bench, read};
use crate::answer::{QueryOptions, SqlQuery};

/// The statements of `tests/habits.md`, over the collection of a bench.
fn statements() -> Vec<String> {
    let mut statements = vec![String::new()];
    for line in include_str!("../../../../tests/habits.md").lines() {
        match line.strip_prefix("    ") {
            Some(text) if !text.starts_with("search ") => {
                if let Some(statement) = statements.last_mut() {
                    statement.push_str(text);
                    statement.push('\n');
                }
            }
            _ => statements.push(String::new()),
        }
    }
    statements.retain(|statement| !statement.is_empty());
    let collections = ["gh", "wiki", "trail", "nginx", "shop", "logs", "sky"];
    for statement in &mut statements {
        for collection in collections {
            *statement = statement.replace(&format!(" {collection} "), " events ");
            *statement = statement.replace(&format!(" {collection}\n"), " events\n");
        }
    }
    statements
}

async fn small_bench() -> Bench {
    let document = |n: i64| {
        let kind = if n % 2 == 0 { "PushEvent" } else { "WatchEvent" };
        let mixed = match n % 3 {
            0 => json!(n),
            1 => json!("a"),
            _ => json!([1]),
        };
        let (time, x) = (format!("2015-09-12T{:02}:00:00Z", n % 24), n as f64 / 3.0);
        json!({
            "type": kind, "n": n, "x": x, "mixed": mixed, "time": time, "at": n, "tags": ["a", "b"],
            "user": { "name": "ada", "id": n },
        })
    };
    bench((0..30).map(document)).await
}

async fn ask(bench: &Bench, sql: &str) -> Result<(), proto::Problem> {
    let query = SqlQuery {
        sql: sql.to_owned(),
        options: QueryOptions {
            timeout: Some(Duration::from_secs(5)),
            ..QueryOptions::default()
        },
        ..SqlQuery::default()
    };
    read(bench.engine.query(query).await?).await.map(|_| ())
}

#[tokio::test(flavor = "multi_thread")]
async fn fuzzed_statements_are_answered_or_refused() {
    let bench = small_bench().await;
    let runtime = Handle::current();
    tokio::task::block_in_place(|| {
        fuzz::fuzz("statements", statements(), |input| {
            let text = String::from_utf8_lossy(input);
            if let Err(problem) = runtime.block_on(ask(&bench, &text)) {
                assert_ne!(problem.code, Code::Internal, "{problem}");
            }
        });
    });
}

#[tokio::test(flavor = "multi_thread")]
async fn fuzzed_scans_are_decoded_or_refused() {
    let bench = small_bench().await;
    for statement in statements() {
        let _ = ask(&bench, &statement).await;
    }
    let requests = bench.leaf.requests.lock().clone();
    let messages = requests.iter().filter_map(|request| wire::encode_request(request).ok());
    let corpus: Vec<Vec<u8>> = messages.map(|message| proto::wire::bytes_of(&message)).collect();
    assert!(corpus.len() > 100, "{} scans", corpus.len());
    fuzz::fuzz("scans", corpus, |input| {
        let Ok(mut message) = proto::wire::message_of::<Message>(input) else {
            return;
        };
        if let Ok(head) = wire::take_head(&mut message) {
            let _ = wire::decode_request(head, message);
        }
    });
}
