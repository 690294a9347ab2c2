//! Definitions (fields and views): a new definition applies to all stored documents from the next query on, whether the
//! query reads the index or raw documents. A definition in use cannot be dropped, and none may use itself.

use serde_json::{Value, json};
use tests::{Client, Service, data, query_both};

tests::for_single_process_and_cluster! {
    redefined_fields_and_views_apply_to_all_stored_documents_at_once: tests::Settings::default().small_splits(),
    a_field_may_shadow_a_stored_value_which_stays_reachable: tests::Settings::default().small_splits(),
    versions_tags_functions_and_saved_queries_are_the_same_through_every_door_and_after_a_kill:
        tests::Settings::default().small_splits(),
    two_that_change_definitions_at_once_leave_none_that_is_broken: tests::Settings::default(),
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

async fn versions_tags_functions_and_saved_queries_are_the_same_through_every_door_and_after_a_kill(
    mut server: Service,
) {
    let orders: Vec<String> = (1..=300)
        .map(|n| format!(r#"{{"cents":{},"user":"u{}"}}"#, n * 10, n % 3))
        .collect();
    server.push("orders", orders.join("\n")).await.expect("a push");
    for statement in [
        "create function euros(cents bigint) returns double as cents / 100.0",
        "create field orders.price as euros(cents)",
        "create or replace field orders.price as euros(cents) * 2 comment 'with tax'",
        "alter field orders.price set tag prod to 1",
        "create query dearest(least double default 0, k int default 2) as \
         select user, price, price@prod as net from orders where price >= $least order by price desc limit $k",
    ] {
        let options = json!({ "author": "ann" });
        server.query(statement, options).await.expect(statement);
    }
    let rows = [
        [json!("u0"), json!(60.0), json!(30.0)],
        [json!("u2"), json!(59.8), json!(29.9)],
    ];
    assert_eq!(query_both(&server, "call dearest").await, rows);
    server.kill_and_restart().await;
    assert_eq!(query_both(&server, "call dearest(k => 2)").await, rows);
    let objects = json!([{ "user": "u0", "price": 60.0, "net": 30.0 }]);
    let saved = "/v1/saved/dearest@latest";
    let by_url = server.get(&format!("{saved}?k=1&least=59.9&scan=raw")).await;
    assert_eq!(by_url.expect("an answer")["rows"], objects);
    let body = json!({ "parameters": { "k": 1 }, "timeout_ms": 60_000 });
    let by_body = server.json(reqwest::Method::POST, saved, body).await;
    assert_eq!(by_body.expect("an answer")["rows"], objects);
    let wrong = server
        .get(&format!("{saved}?most=3"))
        .await
        .expect_err("an unknown parameter");
    assert!(
        format!("{wrong:#}").contains("the query has no parameter most"),
        "{wrong:#}"
    );
    let twice = server
        .get(&format!("{saved}?k=1&k=2"))
        .await
        .expect_err("a parameter with two values");
    assert!(format!("{twice:#}").contains("k is given twice"), "{twice:#}");
    let history = "select version, tags, note, author, created > timestamp '2026-01-01' from rachis.definitions \
                   where kind = 'field' order by version";
    assert_eq!(
        server.sql(history).await.rows,
        [
            [json!(1), json!("prod"), json!(null), json!("ann"), json!(true)],
            [json!(2), json!("latest"), json!("with tax"), json!("ann"), json!(true)],
        ]
    );
    let refused = "create or replace function euros(cents bigint, rate double) returns double as cents * rate";
    assert_refused(&server, refused, "function euros takes 2 arguments, not 1").await;
    server.sql("revert field orders.price").await;
    let sums = [[json!(4515.0), json!(4515.0), json!(9030.0)]];
    let sql = "select sum(price), sum(price@prod), sum(price@2) from orders";
    assert_eq!(query_both(&server, sql).await, sums);
}

/// While one client replaces a view by one with a column more or less, the other creates views that read the column. Each
/// statement is accepted or refused, but no accepted view is broken.
async fn two_that_change_definitions_at_once_leave_none_that_is_broken(server: Service) {
    server.push("orders", r#"{"a":1,"b":2}"#).await.expect("a push");
    server.push("others", r#"{"a":1}"#).await.expect("a push");
    server.sql("create view base as select a, b from orders").await;
    server.sql("create view first as select a from base").await;
    server
        .sql("create or replace view base as select a, null as b from others")
        .await;
    assert_eq!(query_both(&server, "select a from first").await, [[json!(1)]]);
    server.sql("revert view base").await;
    let replace = async {
        for n in 0..20 {
            let columns = if n % 2 == 0 { "a" } else { "a, b" };
            let sql = format!("create or replace view base as select {columns} from orders");
            let _refused_while_used = server.query(&sql, json!({})).await;
        }
    };
    let create = async {
        let mut accepted = Vec::new();
        for n in 0..20 {
            let created = server
                .query(&format!("create view v{n} as select b from base"), json!({}))
                .await;
            if created.is_ok() {
                accepted.push(n);
                if n % 2 == 0 {
                    continue;
                }
                server.sql(&format!("drop view v{n}")).await;
            }
        }
        accepted
    };
    let ((), accepted) = tokio::join!(replace, create);
    // The last replacement has both columns, whatever came before.
    server.sql("create view v20 as select b from base").await;
    let kept = accepted.into_iter().filter(|n| n % 2 == 0).chain([20]);
    for n in kept {
        assert_eq!(query_both(&server, &format!("select * from v{n}")).await, [[json!(2)]]);
    }
}
