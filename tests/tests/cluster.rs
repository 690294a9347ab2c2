//! Roles apart: tailers, leaves and aggregators as processes are the same service as one process.

use serde_json::json;
use tests::{Cluster, Settings, cluster::Size, kafka::Produce};

#[tokio::test]
async fn a_push_is_visible_at_every_aggregator_when_it_is_acknowledged() {
    let cluster = Cluster::start(Size::default(), Settings::default()).await;
    let mut pushed = 0;
    for round in 0..20 {
        let body = format!("{{\"round\":{round}}}\n{{\"round\":{round},\"more\":true}}");
        let answer = cluster.push("events", body).await.expect("a push");
        assert_eq!((&answer["accepted"], &answer["rejected"]), (&json!(2), &json!(0)), "{answer}");
        pushed += 2;
        for _ in 0..2 {
            assert_eq!(*cluster.sql("select count(*) from events").await.one(), json!(pushed));
        }
    }
    let topic = "clicks";
    cluster.kafka.create_topic(topic, 4, &[]).await;
    cluster.source("clicks", "clicks", topic, &cluster.kafka.bootstrap(), json!({})).await.expect("a source");
    cluster.kafka.produce(topic, (0..1000).map(|n| Produce::value(format!("{{\"n\":{n}}}"))).collect()).await;
    cluster.eventually("select sum(n)::bigint from clicks", json!(499_500)).await;
    let grouped = cluster.sql("select n % 10 as d, count(*) as c from clicks group by 1 order by 1").await;
    assert_eq!(grouped.rows.len(), 10);
}
