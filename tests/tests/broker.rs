//! The broker of the harness is a real one: what is produced has positions, survives `kill -9`, and topics are what was
//! asked for.

use tests::{Kafka, kafka::Produce};

#[tokio::test]
async fn what_was_acknowledged_survives_a_killed_broker() {
    let mut kafka = Kafka::start().await;
    kafka.create_topic("clicks", 2, &[]).await;
    let records = (0..100)
        .map(|i| Produce {
            partition: Some(i % 2),
            ..Produce::value(format!("{{\"n\":{i}}}"))
        })
        .collect();
    let positions = kafka.produce("clicks", records).await;
    assert_eq!(
        positions,
        (0..100).map(|i| (i % 2, i64::from(i / 2))).collect::<Vec<_>>()
    );
    kafka.kill();
    kafka.start_again().await;
    let more = kafka
        .produce(
            "clicks",
            vec![Produce {
                partition: Some(1),
                ..Produce::value("{}")
            }],
        )
        .await;
    assert_eq!(more, [(1, 50)], "nothing acknowledged was lost");
}
