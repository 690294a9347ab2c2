//! Sources that stop, and how they continue: topics without JSON, and ranges that Kafka lost.

use anyhow::ensure;
use reqwest::Method;
use serde_json::{Value, json};
use tests::{Client, Kafka, Service, eventually, kafka::NewRecord};

use super::support::{check_caught_up, numbers_in};

pub(crate) async fn a_source_without_json_stops_until_its_dead_letters_are_cleared(server: Service) {
    let kafka = Kafka::start().await;
    kafka.create_topic("mixed-up", 1, &[]).await;
    kafka.produce("mixed-up", vec![NewRecord::value("nonsense"); 600]).await;
    server
        .source("mixed-up", "mixed", "mixed-up", &kafka.bootstrap(), json!({}))
        .await
        .expect("a source");
    let call = "/v1/collections/mixed/dead-letters?source=mixed-up";
    eventually("it stops, and says how to continue", async || {
        let rows = server
            .query(
                "select state, error from rachis.sources where source = 'mixed-up'",
                json!({}),
            )
            .await?
            .rows;
        let stopped = rows.iter().any(|row| {
            row[0] == "stopped"
                && row[1]
                    .as_str()
                    .is_some_and(|error| error.contains(&format!("DELETE {call}")))
        });
        ensure!(stopped, "{rows:?}");
        Ok(())
    })
    .await;
    kafka.produce("mixed-up", vec![NewRecord::value("{\"a\":1}"); 10]).await;
    let cleared = server
        .json(Method::DELETE, call, Value::Null)
        .await
        .expect("cleared dead letters");
    assert_eq!(
        (&cleared["cleared"], &cleared["complete"]),
        (&json!(501), &json!(true)),
        "{cleared}"
    );
    server.eventually("select count(*) from mixed", json!(10)).await;
    eventually("it has caught up", || check_caught_up(&server, "mixed-up")).await;
    assert_eq!(
        server
            .sql("select count(*) from rachis.dead_letters")
            .await
            .single_value(),
        &json!(99),
        "those that were read after the stop"
    );
}

pub(crate) async fn a_lost_range_stops_its_partition_until_it_is_skipped(server: Service) {
    let kafka = Kafka::start().await;
    kafka.create_topic("t", 1, &[]).await;
    kafka.produce("t", numbers_in(0, 0..20)).await;
    server.source_of_topic("t", &kafka).await;
    server.eventually("select count(*) from t", json!(20)).await;
    control(&server, "suspend", json!({})).await;
    kafka.produce("t", numbers_in(0, 20..100)).await;
    kafka.delete_records_before("t", 0, 50).await;
    control(&server, "resume", json!({})).await;
    wait_for_lost_range(&server).await;
    let losses = "select source, partition, from_offset, through_offset, reason from rachis.losses";
    let loss = [[
        json!("t"),
        json!(0),
        json!(20),
        json!(49),
        json!("deleted at the broker before they were ingested"),
    ]];
    assert_eq!(server.sql(losses).await.rows, loss, "the loss is recorded");
    control(&server, "skip", json!({ "to": { "0": 50 } })).await;
    server.eventually("select count(*) from t", json!(70)).await;
    assert_eq!(
        server.sql("select min(n), max(n) from t where n >= 20").await.rows,
        [[json!(50), json!(99)]]
    );
    control(&server, "suspend", json!({})).await;
    kafka.produce("t", numbers_in(0, 100..120)).await;
    control(&server, "skip", json!({ "to": { "0": 110 } })).await;
    control(&server, "resume", json!({})).await;
    server.eventually("select count(*) from t", json!(80)).await;
    let losses = server.sql(&format!("{losses} order by from_offset")).await.rows;
    assert_eq!(losses[..1], loss, "the loss stays recorded");
    assert_eq!(
        losses[1..],
        [[
            json!("t"),
            json!(0),
            json!(100),
            json!(109),
            json!("skipped on request")
        ]]
    );
}

async fn control(server: &Client, action: &str, body: Value) {
    server
        .json(Method::POST, &format!("/v1/sources/t/{action}"), body)
        .await
        .expect(action);
}

async fn wait_for_lost_range(server: &Client) {
    eventually("the error names the lost range", || async {
        let row = server
            .query("select state, error from rachis.sources where source = 't'", json!({}))
            .await?;
        ensure!(
            row.rows[0][0] == "stopped"
                && row.rows[0][1]
                    .as_str()
                    .is_some_and(|error| error.contains("t/0@20 through t/0@49")),
            "{row:?}"
        );
        Ok(())
    })
    .await;
}
