//! Deletes: what is deleted is gone with the acknowledgement, and never answers again, after kills and when a shard is
//! filled again from its sources. What is not deleted stays.

use std::collections::BTreeSet;

use anyhow::{Context as _, Result, ensure};
use rand::{Rng as _, RngExt as _, SeedableRng as _, rngs::StdRng};
use reqwest::Method;
use serde_json::{Value, json};
use tests::{
    Client, Cluster, Server, Service, Settings, cluster::ClusterSize, eventually, files::texts_in_files,
    kafka::NewRecord, query_both, seed,
};

tests::for_single_process_and_cluster! {
    deleted_documents_never_answer_again: tests::Settings::default().small_splits(),
    a_dry_run_counts_and_deletes_nothing: tests::Settings::default(),
    no_file_has_a_byte_of_what_was_deleted: tests::Settings::default()
        .small_splits()
        .with("RACHIS_LEAF__DELETED_KEPT_MS", 500),
}

const DOCUMENTS: u64 = 3_000;
const GROUPS: u64 = 20;

async fn post_delete(client: &Client, body: Value) -> Result<Value> {
    client.json(Method::POST, "/v1/collections/events/delete", body).await
}

async fn delete_by_id(client: &Client, id: &str) -> Result<Value> {
    let path = format!("/v1/collections/events/documents/{id}");
    client.json(Method::DELETE, &path, Value::Null).await
}

/// The numbers of the documents, however they are read.
async fn numbers(client: &Client) -> BTreeSet<u64> {
    let rows = query_both(client, "select n from events order by n limit 100000").await;
    let numbers: Vec<u64> = rows.iter().map(|row| row[0].as_u64().expect("a number")).collect();
    let distinct: BTreeSet<u64> = numbers.iter().copied().collect();
    assert_eq!(distinct.len(), numbers.len(), "no document occurs twice");
    distinct
}

async fn deleted_documents_never_answer_again(mut service: Service) {
    let seed = seed();
    let mut rng = StdRng::seed_from_u64(seed);
    let mut left: BTreeSet<u64> = (0..DOCUMENTS).collect();
    let group = |n: u64| n % GROUPS;
    // Some have keys, and some pushes are one record with many documents.
    let documents: Vec<String> = (0..DOCUMENTS)
        .map(|n| match n % 3 {
            0 => format!(
                "{{\"_id\":\"k{n}\",\"n\":{n},\"group\":{},\"text\":\"word{n} all\"}}",
                group(n)
            ),
            _ => format!("{{\"n\":{n},\"group\":{},\"text\":\"word{n} all\"}}", group(n)),
        })
        .collect();
    let mut rest = documents.as_slice();
    while !rest.is_empty() {
        let (now, later) = rest.split_at(rng.random_range(1..400).min(rest.len()));
        service.push("events", now.join("\n")).await.expect("a push");
        rest = later;
    }
    assert_eq!(numbers(&service).await, left);
    for round in 0..6 {
        let doomed = rng.random_range(0..GROUPS);
        let sql = format!(
            "delete from events e where e.group = {doomed} and e.n % 2 = {}",
            round % 2
        );
        let answer = service.sql(&sql).await;
        let is_hit = |n: &u64| group(*n) == doomed && n % 2 == round % 2;
        let hit = left.iter().filter(|n| is_hit(n)).count();
        assert_eq!(answer.rows[0][0], json!(hit), "{sql}");
        left.retain(|n| !is_hit(n));
        assert_eq!(numbers(&service).await, left, "after {sql}");

        let one = (rng.next_u64() % DOCUMENTS) / 3 * 3;
        let answer = delete_by_id(&service, &format!("k{one}")).await;
        match left.remove(&one) {
            true => assert_eq!(answer.expect("a delete")["deleted"], 1),
            false => assert!(format!("{:#}", answer.expect_err("it is gone")).contains("404")),
        }
        assert_eq!(
            service.document("events", &format!("k{one}")).await.expect("an answer"),
            None
        );
        let found = service
            .get(&format!("/v1/collections/events/search?q=word{one}"))
            .await
            .expect("a search");
        assert_eq!(found["total"], 0, "{found}");
        if round % 3 == 2 {
            service.kill_and_restart().await;
        }
        assert_eq!(numbers(&service).await, left, "round {round}");
    }
    service.assert_outcomes_add_up("push").await;
    let [_, accepted, _, _, _, deleted, documents] = service.outcomes("push").await;
    assert_eq!(accepted - deleted, documents);
    assert_eq!(documents, left.len() as i64);
    let listed = service
        .sql("select count(*), sum(documents)::bigint from rachis.deletes where collection = 'events'")
        .await;
    assert_eq!(listed.rows[0][1], json!(deleted), "{listed:?}");

    // The key of a deleted document is free.
    let free = (0..DOCUMENTS)
        .step_by(3)
        .find(|n| !left.contains(n))
        .expect("a deleted key");
    let again = format!("{{\"_id\":\"k{free}\",\"n\":{free},\"text\":\"again\"}}");
    service.push("events", again).await.expect("a push");
    left.insert(free);
    assert_eq!(numbers(&service).await, left);
    let answer = post_delete(&service, json!({ "where": "true" }))
        .await
        .expect("a delete");
    assert_eq!(answer["deleted"], json!(left.len()));
    service.kill_and_restart().await;
    assert_eq!(numbers(&service).await, BTreeSet::new());
}

async fn a_dry_run_counts_and_deletes_nothing(service: Service) {
    let lines: String = (0..100).map(|n| format!("{{\"n\":{n}}}\n")).collect();
    service.push("events", lines).await.expect("a push");
    let body = json!({ "where": "n >= $1", "parameters": [90], "dry_run": true });
    let answer = post_delete(&service, body.clone()).await.expect("a count");
    assert_eq!(answer, json!({ "documents": 10, "dry_run": true }));
    assert_eq!(
        *service.sql("select count(*) from events").await.single_value(),
        json!(100)
    );
    let mut body = body;
    body["dry_run"] = json!(false);
    let answer = post_delete(&service, body).await.expect("a delete");
    assert_eq!(answer["deleted"], 10);
    let position = answer["position"].as_str().expect("a position");
    let at_least = service
        .query("select count(*) from events", json!({ "at_least": position }))
        .await
        .expect("an answer");
    assert_eq!(*at_least.single_value(), json!(90));
    let row = service
        .sql("select condition, documents, position from rachis.deletes")
        .await
        .rows;
    assert_eq!(row, [[json!("n >= $1"), json!(10), json!(position)]]);
    // Documents that another collection names.
    service
        .push("banned", "{\"number\":3}\n{\"number\":5}")
        .await
        .expect("a push");
    let sql = "delete from events where n in (select number from banned)";
    assert_eq!(service.sql(sql).await.rows[0][0], json!(2));
    assert_eq!(service.sql(sql).await.rows[0][0], json!(0), "they are gone");
}

/// The texts are random, so that no compression hides all of them.
async fn no_file_has_a_byte_of_what_was_deleted(mut service: Service) {
    let mut rng = StdRng::seed_from_u64(seed());
    let letters = |rng: &mut StdRng| -> String { (0..24).map(|_| rng.random_range('a'..='z')).collect() };
    let secrets: Vec<String> = (0..600).map(|n| format!("{n}x{}", letters(&mut rng))).collect();
    let document =
        |secret: &String| format!("{{\"_id\":\"{secret}\",\"text\":\"some {secret} text\",\"who\":\"{secret}\"}}\n");
    service
        .push("events", secrets.iter().map(document).collect::<String>())
        .await
        .expect("a push");
    service.wait_for_splits(600).await;
    let found = texts_in_files(service.data_dirs(), &secrets);
    assert!(found.len() > 300, "the search finds {} of 600 documents", found.len());
    let deleted: Vec<&String> = secrets.iter().skip(1).step_by(2).collect();
    let list: Vec<String> = deleted[1..].iter().map(|secret| format!("'{secret}'")).collect();
    let sql = format!("delete from events where who in ({})", list.join(", "));
    assert_eq!(service.sql(&sql).await.rows[0][0], json!(299));
    assert_eq!(
        delete_by_id(&service, deleted[0]).await.expect("a delete")["deleted"],
        1
    );
    let erased = "select count(*) filter (where erased) from rachis.deletes";
    service.eventually(erased, json!(2)).await;
    let no_text_is_left = |service: &Service| {
        let left = texts_in_files(service.data_dirs(), &secrets);
        let wrong: Vec<_> = left.iter().filter(|(number, _)| **number % 2 == 1).collect();
        assert!(wrong.is_empty(), "{} texts are left: {:?}", wrong.len(), wrong.first());
    };
    no_text_is_left(&service);
    service.kill_and_restart().await;
    no_text_is_left(&service);
    let rows = query_both(&service, "select count(*), count(distinct who) from events").await;
    assert_eq!(rows, [[json!(300), json!(300)]]);
}

#[tokio::test]
async fn a_delete_among_many_documents_finds_all_of_them() {
    const COUNT: u64 = 300_000;
    let server = Server::start(Settings::default()).await;
    let lines: String = (0..COUNT)
        .map(|n| format!("{{\"n\":{n},\"text\":\"word{n}\"}}\n"))
        .collect();
    server.push("events", lines).await.expect("a push");
    // Large splits, whose documents are numbered beyond 16 bits.
    server.wait_for_splits(COUNT as usize).await;
    for (condition, wanted) in [
        ("n % 2 = 0", COUNT / 2),
        ("n % 3 = 0 and text <> 'word3'", COUNT / 3 - 1),
        ("length(text) = 7", 900),
    ] {
        let sql = format!("select count(*) from events where {condition}");
        assert_eq!(query_both(&server, &sql).await, [[json!(wanted)]], "{condition}");
    }
    let deleted = server.sql("delete from events where n % 2 = 0").await;
    assert_eq!(deleted.rows[0][0], json!(COUNT / 2));
    let rows = query_both(&server, "select count(*), min(n), max(n) from events where n % 2 = 1").await;
    assert_eq!(rows, [[json!(COUNT / 2), json!(1), json!(COUNT - 1)]]);
    assert_eq!(
        *server.sql("select count(*) from events").await.single_value(),
        json!(COUNT / 2)
    );
}

#[tokio::test]
async fn a_leaf_that_lost_its_disk_never_shows_what_was_deleted() {
    let mut cluster = Cluster::start(
        ClusterSize {
            leaves: 1,
            ..ClusterSize::default()
        },
        tests::Settings::default().small_splits(),
    )
    .await;
    cluster.kafka.create_topic("clicks", 2, &[]).await;
    cluster.source_of_topic("clicks", &cluster.kafka).await;
    let records = (0..20_000).map(|n| NewRecord {
        partition: Some(n % 2),
        ..NewRecord::value(format!("{{\"n\":{n}}}"))
    });
    cluster.kafka.produce("clicks", records.collect()).await;
    cluster.eventually("select count(*) from clicks", json!(20_000)).await;
    let deleted = cluster.sql("delete from clicks where n % 4 <> 0").await;
    assert_eq!(deleted.rows[0][0], json!(15_000));
    let counts = "select count(*), count(*) filter (where n % 4 <> 0) from clicks";
    assert_eq!(cluster.sql(counts).await.rows, [[json!(5_000), json!(0)]]);

    cluster.kill("leaf-1");
    let folder = cluster.data_dir("leaf-1");
    std::fs::remove_dir_all(&folder).expect("the disk is lost");
    // An aggregator that has never answered, so that it does not wait for what it has shown.
    cluster.kill("aggregator-1");
    cluster.kill("aggregator-2");
    cluster.restart("leaf-1").await;
    cluster.restart("aggregator-1").await;
    cluster.restart("aggregator-2").await;
    eventually("the shards are filled again", async || {
        let answer = cluster.query(counts, json!({ "timeout_ms": 2_000 })).await?;
        assert_eq!(answer.rows[0][1], json!(0), "a deleted document shows");
        ensure!(answer.rows[0][0] == json!(5_000), "{answer:?}");
        Ok(())
    })
    .await;
    cluster.assert_outcomes_add_up("clicks").await;
    let [_, accepted, _, _, _, deleted, documents] = cluster.outcomes("clicks").await;
    assert_eq!((accepted, deleted, documents), (20_000, 15_000, 5_000));
    lost_changes_stop_the_shards(cluster).await;
}

/// Without the records of a delete, a shard that is filled again must not answer.
async fn lost_changes_stop_the_shards(mut cluster: Cluster) {
    let topics = cluster.kafka.topics().expect("topics");
    let changes = topics.iter().find(|topic| topic.starts_with("rachis-changes-"));
    let changes = changes.expect("a topic of changes").clone();
    for partition in 0..2 {
        cluster.kafka.delete_records_before(&changes, partition, 1).await;
    }
    cluster.kill("leaf-1");
    std::fs::remove_dir_all(cluster.data_dir("leaf-1")).expect("the disk is lost");
    cluster.restart("leaf-1").await;
    let stopped = "select count(*) from rachis.sources where source = '_changes' and state = 'stopped' \
                   and error like '%restore the topic rachis-changes-%'";
    cluster.eventually(stopped, json!(2)).await;
    let refused = cluster
        .query("select count(*) from clicks", json!({}))
        .await
        .expect_err("deletes are unknown");
    let message = format!("{refused:#}");
    assert!(
        message.contains("503") && message.contains("what was deleted"),
        "{message}"
    );
}

#[tokio::test]
async fn a_wrong_delete_says_what_is_wrong_and_deletes_nothing() {
    let server = Server::start(Settings::default()).await;
    server.push("events", "{\"n\":1}\n{\"n\":2}").await.expect("a push");
    server.sql("create view slow as select * from events").await;
    for (sql, code, expected) in [
        ("delete from events", "400", "DELETE needs WHERE"),
        ("delete events where n = 1", "400", "DELETE needs FROM"),
        ("delete from events where", "400", "WHERE needs a condition"),
        ("delete from events where n =", "400", "Expected: an expression"),
        ("delete from nowhere where true", "404", "nowhere does not exist"),
        ("delete from slow where true", "400", "slow is a view"),
        (
            "delete from rachis.sources where true",
            "400",
            "rachis.sources is not a collection",
        ),
        (
            "delete from events using banned where true",
            "400",
            "USING in DELETE is not supported",
        ),
        (
            "delete from events where n = 1 returning n",
            "400",
            "unexpected returning",
        ),
        ("delete from events where count(*) > 1", "400", "aggregate"),
        ("delete from events where sqrtt(n) > 1", "400", "sqrtt"),
        ("truncate events", "400", "DELETE FROM collection WHERE true"),
    ] {
        let refused = server.query(sql, json!({})).await.expect_err(sql);
        let message = format!("{refused:#}");
        assert!(message.contains(code) && message.contains(expected), "{sql}: {message}");
    }
    for (body, expected) in [
        (json!({}), "where"),
        (json!({ "where": "n = 1", "limit": 3 }), "limit"),
        (json!({ "where": "n = 1) or (true" }), "unexpected )"),
        (json!({ "where": "n = $1" }), "$1"),
        (json!({ "where": "" }), "the expression is empty"),
    ] {
        let message = format!(
            "{:#}",
            post_delete(&server, body.clone()).await.expect_err("a wrong body")
        );
        assert!(
            message.contains("400") && message.contains(expected),
            "{body}: {message}"
        );
    }
    assert_eq!(
        *server.sql("select count(*) from events").await.single_value(),
        json!(2)
    );
    assert_eq!(server.sql("select * from rachis.deletes").await.rows.len(), 0);
    let reserved = json!({ "collection": "events", "topic": "t", "config": { "bootstrap.servers": "broker.invalid" } });
    let refused = server
        .json(Method::PUT, "/v1/sources/_changes", reserved)
        .await
        .context("a reserved name")
        .expect_err("it is reserved");
    assert!(format!("{refused:#}").contains("reserved"), "{refused:#}");
}
