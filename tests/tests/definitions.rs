//! Definitions (fields and views): a new definition applies to all stored documents from the next query on, whether the
//! query reads the index or raw documents. A definition in use cannot be dropped, and none may use itself.

use serde_json::{Value, json};
use tests::{Client, Service, data, query_both};

tests::for_single_process_and_cluster! {
    redefined_fields_and_views_apply_to_all_stored_documents_at_once: tests::Settings::default().small_splits(),
    a_field_may_shadow_a_stored_value_which_stays_reachable: tests::Settings::default().small_splits(),
}

/// Real wiki edits, as text and parsed.
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

    /// The number of edits that satisfy a condition, and the sum of `number` over them.
    fn count_and_sum(&self, number: impl Fn(&Value) -> i64, condition: impl Fn(&Value) -> bool) -> [Value; 2] {
        let matching: Vec<&Value> = self.parsed.iter().filter(|edit| condition(edit)).collect();
        [
            json!(matching.len()),
            json!(matching.into_iter().map(number).sum::<i64>()),
        ]
    }
}

async fn assert_refused(server: &Client, sql: &str, message: &str) {
    let problem = server
        .query(sql, json!({}))
        .await
        .expect_err("the statement is refused");
    assert!(format!("{problem:#}").contains(message), "{sql}: {problem:#}");
}

async fn redefined_fields_and_views_apply_to_all_stored_documents_at_once(server: Service) {
    if data::folder().is_none() {
        return;
    }
    let edits = Edits::read();
    push_edits(&server, &edits).await;
    a_field_and_a_view_are_created(&server, &edits).await;
    a_field_and_a_view_are_replaced(&server, &edits).await;

    let versions = server.sql("show definitions").await;
    assert!(versions.rows.len() >= 2, "{versions:?}");
    assert_refused(&server, "drop field wiki.size", "is used by view large").await;
    server.sql("drop view large").await;
    server.sql("drop field wiki.size").await;
    let dropped = server.sql("select count(size) from wiki").await;
    assert_eq!(dropped.rows, [[json!(0)]], "no field or path has this name any more");
}

/// Pushes the edits and waits until most of them are in splits.
async fn push_edits(server: &Client, edits: &Edits) {
    for body in edits.documents.chunks(5_000) {
        server.push("wiki", body.join("\n")).await.expect("a push");
    }
    server.wait_for_splits(30_000).await;
}

async fn a_field_and_a_view_are_created(server: &Client, edits: &Edits) {
    let size = |edit: &Value| Edits::number(edit, "added") + Edits::number(edit, "deleted");
    server
        .sql("create field wiki.size as (_doc->>'added')::bigint + (_doc->>'deleted')::bigint")
        .await;
    let expected = edits.count_and_sum(size, |edit| size(edit) > 500);
    assert!(expected[0].as_u64() > Some(100), "some edits match the condition");
    assert_eq!(
        query_both(server, "select count(*), sum(size) from wiki where size > 500").await,
        std::slice::from_ref(&expected)
    );

    server
        .sql("create view large as select page, size, channel from wiki where size > 500")
        .await;
    assert_eq!(
        query_both(server, "select count(*), sum(size) from large").await,
        [expected]
    );
}

async fn a_field_and_a_view_are_replaced(server: &Client, edits: &Edits) {
    server
        .sql("create or replace field wiki.size as (_doc->>'added')::bigint * 2")
        .await;
    let doubled = |edit: &Value| Edits::number(edit, "added") * 2;
    let expected = edits.count_and_sum(doubled, |edit| doubled(edit) > 500);
    assert_eq!(
        query_both(server, "select count(*), sum(size) from wiki where size > 500").await,
        std::slice::from_ref(&expected)
    );
    assert_eq!(
        query_both(server, "select count(*), sum(size) from large").await,
        [expected],
        "the view sees the new version of the field"
    );

    server
        .sql("create or replace view large as select page, size from wiki where size > 5000")
        .await;
    let expected = edits.count_and_sum(doubled, |edit| doubled(edit) > 5000);
    assert_eq!(
        query_both(server, "select count(*), sum(size) from large").await,
        std::slice::from_ref(&expected)
    );
    let found = server
        .get("/v1/collections/wiki/search?q=size:%3E5000&limit=1")
        .await
        .expect("hits");
    assert_eq!(found["total"], expected[0], "a field is searched like a path");
}

async fn a_field_may_shadow_a_stored_value_which_stays_reachable(mut server: Service) {
    server
        .push("prices", "{\"price\":250}\n{\"price\":\"199\"}\n{\"other\":1}")
        .await
        .expect("a push");
    let created = server
        .sql("create field prices.price as (_doc->>'price')::double / 100")
        .await;
    assert!(
        created.stats["warnings"].to_string().contains("_doc->'price'"),
        "the answer says how to reach the stored value: {created:?}"
    );
    let rows = [
        [json!(2.5), json!(250)],
        [json!(1.99), json!("199")],
        [json!(null), json!(null)],
    ];
    let sql = "select price, _doc->'price' as stored from prices order by _offset, _item";
    assert_eq!(query_both(&server, sql).await, rows);
    assert_refused(
        &server,
        "create or replace field prices.price as price / 100",
        "would use itself",
    )
    .await;
    server.sql("create field prices.cents as price * 100").await;
    assert_refused(
        &server,
        "create or replace field prices.price as cents / 100",
        "would use itself",
    )
    .await;
    server.kill_and_restart().await;
    assert_eq!(query_both(&server, sql).await, rows, "definitions survive kill -9");
    assert_eq!(
        query_both(&server, "select sum(cents) from prices").await,
        [[json!(449.0)]]
    );
}
