//! A definition holds for everything that was ever collected, from the next question on, by index and from raw
//! documents alike; what is in use is not dropped, and what would use itself is not made.

use serde_json::{Value, json};
use tests::{Client, Service, data, eventually};

tests::of_one_process_and_of_a_cluster! {
    a_field_and_a_view_redefined_hold_at_once_for_all_that_was_there: tests::Settings::default().small_splits(),
    a_field_may_hide_a_stored_value_that_stays_reachable: tests::Settings::default().small_splits(),
}

/// Real edits: (page, added, deleted).
struct Edits {
    documents: Vec<String>,
    parsed: Vec<Value>,
}

impl Edits {
    fn read() -> Self {
        let documents = data::documents("wikiticker_2015.ndjson.gz").expect("documents");
        let parsed = documents
            .iter()
            .map(|document| serde_json::from_str(document).expect("real events are JSON"))
            .collect();
        Self { documents, parsed }
    }

    fn number(edit: &Value, name: &str) -> i64 {
        edit[name].as_i64().unwrap_or_default()
    }

    /// How many edits satisfy a condition, and the sum of a number over them.
    fn count_and_sum(&self, number: impl Fn(&Value) -> i64, condition: impl Fn(&Value) -> bool) -> [Value; 2] {
        let chosen: Vec<&Value> = self.parsed.iter().filter(|edit| condition(edit)).collect();
        [json!(chosen.len()), json!(chosen.into_iter().map(number).sum::<i64>())]
    }
}

async fn both(server: &Client, sql: &str) -> Vec<Vec<Value>> {
    let auto = server.ask(sql, json!({})).await.expect("an answer");
    let raw = server
        .ask(sql, json!({ "scan": "raw" }))
        .await
        .expect("an answer from raw documents");
    assert_eq!(auto.rows, raw.rows, "{sql}: index and raw documents differ");
    auto.rows
}

async fn refused(server: &Client, sql: &str, words: &str) {
    let problem = server.ask(sql, json!({})).await.expect_err("it is refused");
    assert!(format!("{problem:#}").contains(words), "{sql}: {problem:#}");
}

async fn a_field_and_a_view_redefined_hold_at_once_for_all_that_was_there(server: Service) {
    if data::folder().is_none() {
        return;
    }
    let edits = Edits::read();
    for body in edits.documents.chunks(5_000) {
        server.push("wiki", body.join("\n")).await.expect("a push");
    }
    eventually("most documents are in splits", || async {
        let answer = server
            .ask(
                "select sum(documents) from rachis.splits where place = 'disk'",
                json!({}),
            )
            .await?;
        anyhow::ensure!(answer.rows[0][0].as_f64() >= Some(30_000.0), "{answer:?}");
        Ok(())
    })
    .await;

    let size = |edit: &Value| Edits::number(edit, "added") + Edits::number(edit, "deleted");
    server
        .sql("create field wiki.size as (_doc->>'added')::bigint + (_doc->>'deleted')::bigint")
        .await;
    let expected = edits.count_and_sum(size, |edit| size(edit) > 500);
    assert!(expected[0].as_u64() > Some(100), "the condition finds something");
    assert_eq!(
        both(&server, "select count(*), sum(size) from wiki where size > 500").await,
        std::slice::from_ref(&expected)
    );

    server
        .sql("create view large as select page, size, channel from wiki where size > 500")
        .await;
    assert_eq!(both(&server, "select count(*), sum(size) from large").await, [expected]);

    server
        .sql("create or replace field wiki.size as (_doc->>'added')::bigint * 2")
        .await;
    let doubled = |edit: &Value| Edits::number(edit, "added") * 2;
    let expected = edits.count_and_sum(doubled, |edit| doubled(edit) > 500);
    assert_eq!(
        both(&server, "select count(*), sum(size) from wiki where size > 500").await,
        std::slice::from_ref(&expected)
    );
    assert_eq!(
        both(&server, "select count(*), sum(size) from large").await,
        [expected],
        "the view sees the new version of the field"
    );

    server
        .sql("create or replace view large as select page, size from wiki where size > 5000")
        .await;
    let expected = edits.count_and_sum(doubled, |edit| doubled(edit) > 5000);
    assert_eq!(
        both(&server, "select count(*), sum(size) from large").await,
        std::slice::from_ref(&expected)
    );
    let found = server
        .get("/v1/collections/wiki/search?q=size:%3E5000&limit=1")
        .await
        .expect("hits");
    assert_eq!(found["total"], expected[0], "a field is searched as a path is");

    let versions = server.sql("show definitions").await;
    assert!(versions.rows.len() >= 2, "{versions:?}");
    refused(&server, "drop field wiki.size", "is used by view large").await;
    server.sql("drop view large").await;
    server.sql("drop field wiki.size").await;
    let gone = server.sql("select count(size) from wiki").await;
    assert_eq!(gone.rows, [[json!(0)]], "nothing has that name any more");
}

async fn a_field_may_hide_a_stored_value_that_stays_reachable(mut server: Service) {
    server
        .push("prices", "{\"price\":250}\n{\"price\":\"199\"}\n{\"other\":1}")
        .await
        .expect("a push");
    let created = server
        .sql("create field prices.price as (_doc->>'price')::double / 100")
        .await;
    assert!(
        created.stats["warnings"].to_string().contains("_doc->'price'"),
        "the answer says how the stored value is reached: {created:?}"
    );
    let rows = [
        [json!(2.5), json!(250)],
        [json!(1.99), json!("199")],
        [json!(null), json!(null)],
    ];
    let ask = "select price, _doc->'price' as stored from prices order by _offset, _item";
    assert_eq!(both(&server, ask).await, rows);
    refused(
        &server,
        "create or replace field prices.price as price / 100",
        "would use itself",
    )
    .await;
    server.sql("create field prices.cents as price * 100").await;
    refused(
        &server,
        "create or replace field prices.price as cents / 100",
        "would use itself",
    )
    .await;
    server.kill_and_start_again().await;
    assert_eq!(both(&server, ask).await, rows, "definitions survive kill -9");
    assert_eq!(both(&server, "select sum(cents) from prices").await, [[json!(449.0)]]);
}
