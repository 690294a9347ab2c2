//! Producers that do not borrow the broker, so that it can be killed while they run.

use std::{sync::Mutex, time::Duration};

use anyhow::{Context as _, Result, bail};
use rdkafka::{
    ClientConfig, ClientContext, Message as _,
    error::KafkaError,
    message::{DeliveryResult, Header, OwnedHeaders},
    producer::{BaseProducer, BaseRecord, Producer as _, ProducerContext},
};

use crate::WAIT_MAX;

/// A record to produce.
#[derive(Debug, Clone, Default)]
pub struct NewRecord {
    /// The partition; if none, chosen by the key's hash or at random.
    pub partition: Option<i32>,
    /// The key.
    pub key: Option<Vec<u8>>,
    /// The value; `None` is a tombstone.
    pub value: Option<Vec<u8>>,
    /// The headers.
    pub headers: Vec<(String, Option<Vec<u8>>)>,
    /// The timestamp in milliseconds since 1970; if none, now.
    pub time_ms: Option<i64>,
}

impl NewRecord {
    /// A record with only a value.
    pub fn value(value: impl Into<Vec<u8>>) -> Self {
        Self {
            value: Some(value.into()),
            ..Self::default()
        }
    }

    /// A record with a key.
    pub fn keyed(key: impl Into<Vec<u8>>, value: Option<Vec<u8>>) -> Self {
        Self {
            key: Some(key.into()),
            value,
            ..Self::default()
        }
    }
}

/// Produces to a broker that may be killed meanwhile.
#[derive(Clone)]
pub struct KafkaProducer(pub(super) ClientConfig);

impl KafkaProducer {
    /// Produces records in order (idempotent, all acknowledged) and returns partition and offset of each.
    pub async fn produce(&self, topic: &str, records: Vec<NewRecord>) -> Vec<(i32, i64)> {
        let (config, topic) = (self.0.clone(), topic.to_owned());
        tokio::task::spawn_blocking(move || produce(&config, &topic, &records))
            .await
            .expect("the producer does not panic")
            .unwrap_or_else(|error| panic!("not all records were acknowledged: {error:#}"))
    }
}

/// Collects partition and offset of each record.
struct Deliveries(Mutex<Vec<Result<(i32, i64), KafkaError>>>);

impl ClientContext for Deliveries {}

impl ProducerContext for Deliveries {
    type DeliveryOpaque = Box<usize>;
    fn delivery(&self, result: &DeliveryResult<'_>, index: Box<usize>) {
        if let Ok(mut deliveries) = self.0.lock() {
            deliveries[*index] = result
                .as_ref()
                .map(|message| (message.partition(), message.offset()))
                .map_err(|(error, _)| error.clone());
        }
    }
}

fn produce(config: &ClientConfig, topic: &str, records: &[NewRecord]) -> Result<Vec<(i32, i64)>> {
    let producer: BaseProducer<Deliveries> =
        config.create_with_context(Deliveries(Mutex::new(vec![Err(KafkaError::Canceled); records.len()])))?;
    for (index, record) in records.iter().enumerate() {
        let mut headers = OwnedHeaders::new();
        for (key, value) in &record.headers {
            headers = headers.insert(Header {
                key,
                value: value.as_deref(),
            });
        }
        let mut next = BaseRecord::<[u8], [u8], Box<usize>>::with_opaque_to(topic, Box::new(index)).headers(headers);
        next.partition = record.partition;
        next.key = record.key.as_deref();
        next.payload = record.value.as_deref();
        next.timestamp = record.time_ms;
        while let Err((error, back)) = producer.send(next) {
            if error.rdkafka_error_code() != Some(rdkafka::types::RDKafkaErrorCode::QueueFull) {
                bail!("record {index}: {error}");
            }
            producer.poll(Duration::from_millis(10));
            next = back;
        }
        producer.poll(Duration::ZERO);
    }
    producer.flush(WAIT_MAX)?;
    let deliveries = producer
        .context()
        .0
        .lock()
        .map_err(|_| anyhow::anyhow!("a callback panicked"))?
        .clone();
    deliveries
        .into_iter()
        .enumerate()
        .map(|(index, delivery)| delivery.with_context(|| format!("record {index} of {topic} was not acknowledged")))
        .collect()
}
