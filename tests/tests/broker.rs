//! Checks that the harness runs a real broker: records get offsets, acknowledged records survive `kill -9`, and a topic
//! has the requested partitions.

use tests::{Kafka, kafka::NewRecord};

#[tokio::test]
async fn acknowledged_records_survive_a_broker_kill() {
    let mut kafka = Kafka::start().await;
    kafka.create_topic("clicks", 2, &[]).await;
    let records = (0..100)
        .map(|i| NewRecord {
            partition: Some(i % 2),
            ..NewRecord::value(format!("{{\"n\":{i}}}"))
        })
        .collect();
    let offsets = kafka.produce("clicks", records).await;
    assert_eq!(offsets, (0..100).map(|i| (i % 2, i64::from(i / 2))).collect::<Vec<_>>());
    kafka.kill();
    kafka.restart().await;
    let more = kafka
        .produce(
            "clicks",
            vec![NewRecord {
                partition: Some(1),
                ..NewRecord::value("{}")
            }],
        )
        .await;
    assert_eq!(more, [(1, 50)], "no acknowledged record was lost");
}
