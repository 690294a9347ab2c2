//! Produces records to Kafka with an idempotent producer: documents without keys into one topic, overwrites and
//! tombstones into another.

use std::{
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use rand::{RngExt, SeedableRng, rngs::StdRng};
use rdkafka::{
    ClientConfig, ClientContext, Message,
    error::{KafkaError, RDKafkaErrorCode},
    message::{Header, OwnedHeaders},
    producer::{BaseRecord, DeliveryResult, Producer as _, ProducerContext, ThreadedProducer},
};

use crate::{
    Run,
    gate::Gate,
    ledger::{Delivery, Kind, Ledger, key_text},
    topics::{KEYED, NUMBER_HEADER, PLAIN},
};

/// Keys of records; each is overwritten many times.
const KEYS: u32 = 300;
/// How long a record is offered to a producer that does not accept it.
const SEND_TIMEOUT: Duration = Duration::from_secs(60);
/// Longer than any outage of the plan. A producer whose broker was frozen beyond its own session can hang forever, so
/// after this time it is replaced; its records are given up, and the log decides at the end what happened to them.
const STALL_TIMEOUT: Duration = Duration::from_secs(20);

/// Writes every acknowledgement into the ledger.
struct Acknowledgements(Arc<Ledger>);

impl ClientContext for Acknowledgements {}

impl ProducerContext for Acknowledgements {
    type DeliveryOpaque = Box<u64>;

    fn delivery(&self, result: &DeliveryResult<'_>, number: Box<u64>) {
        let delivery = match result {
            Ok(message) => Delivery::Acknowledged {
                partition: message.partition(),
                offset: message.offset(),
            },
            // The records of a replaced producer were reported all together.
            Err((error, _)) if is_purged(error) => Delivery::Unknown,
            Err((error, _)) => {
                eprintln!("ledger: record {number} was not acknowledged: {error}");
                Delivery::Unknown
            }
        };
        self.0.set_delivery(*number, delivery);
        self.0.records_in_flight.fetch_sub(1, Ordering::Relaxed);
        self.0.produced.fetch_add(1, Ordering::Relaxed);
    }
}

fn is_purged(error: &KafkaError) -> bool {
    matches!(
        error.rdkafka_error_code(),
        Some(RDKafkaErrorCode::PurgeQueue | RDKafkaErrorCode::PurgeInflight)
    )
}

type KafkaProducer = ThreadedProducer<Acknowledgements>;

/// The producer of one run, on its own thread.
pub(crate) struct Producer {
    thread: std::thread::JoinHandle<Result<()>>,
}

impl Producer {
    pub(crate) fn start(run: Arc<Run>, gate: Arc<Gate>, address: String, seed: u64) -> Result<Self> {
        let body = move || {
            let done = produce(&run, &gate, &address, seed);
            if let Err(error) = &done {
                // Otherwise the plan would wait for records that are never sent.
                run.ledger.abort_load(format!("the producer failed: {error:#}"));
            }
            done
        };
        let thread = std::thread::Builder::new().name("producer".into()).spawn(body)?;
        Ok(Self { thread })
    }

    /// Waits until every record is acknowledged or given up.
    pub(crate) async fn finish(self) -> Result<()> {
        let thread = self.thread;
        tokio::task::spawn_blocking(move || thread.join().map_err(|_| anyhow::anyhow!("the producer panicked"))?)
            .await?
    }
}

fn connect(ledger: &Arc<Ledger>, address: &str) -> Result<KafkaProducer> {
    ClientConfig::new()
        .set("bootstrap.servers", address)
        .set("enable.idempotence", "true")
        .set("acks", "all")
        .set("linger.ms", "2")
        // Longer than any outage of the plan: a record expires only if something is really wrong.
        .set("message.timeout.ms", "300000")
        .set("reconnect.backoff.max.ms", "500")
        // A paused broker loses its partitions for a while. A client that has seen this must refresh its metadata soon,
        // not after five minutes.
        .set("topic.metadata.refresh.interval.ms", "2000")
        .set("log_level", "2")
        .create_with_context(Acknowledgements(ledger.clone()))
        .context("cannot create a producer")
}

fn produce(run: &Run, gate: &Gate, address: &str, seed: u64) -> Result<()> {
    let mut producer = connect(&run.ledger, address)?;
    let mut stall = StallDetector {
        produced: 0,
        since: Instant::now(),
    };
    let mut rng = StdRng::seed_from_u64(seed ^ 0x7072_6f64);
    for sent in 0..gate.produce_quota {
        let [pushed, answered] = [&run.ledger.pushed, &run.ledger.produced];
        while sent >= gate.produce_now(pushed.load(Ordering::Relaxed), answered.load(Ordering::Relaxed)) {
            stall.check(&run.ledger, &mut producer, address)?;
            std::thread::sleep(Duration::from_millis(1));
        }
        let kind = random_kind(&mut rng);
        let key = rng.random_range(0..KEYS);
        let number = run.ledger.add(kind, key, 0);
        send(run, &mut producer, address, number, kind, key)?;
    }
    while run.ledger.records_in_flight.load(Ordering::Relaxed) > 0 {
        stall.check(&run.ledger, &mut producer, address)?;
        std::thread::sleep(Duration::from_millis(5));
    }
    Ok(())
}

/// Detects a producer that hangs.
struct StallDetector {
    produced: u64,
    since: Instant,
}

impl StallDetector {
    /// Replaces the producer if none of its records was answered for [`STALL_TIMEOUT`].
    fn check(&mut self, ledger: &Arc<Ledger>, producer: &mut KafkaProducer, address: &str) -> Result<()> {
        let produced = ledger.produced.load(Ordering::Relaxed);
        let in_flight = ledger.records_in_flight.load(Ordering::Relaxed);
        if produced != self.produced || in_flight == 0 {
            *self = Self {
                produced,
                since: Instant::now(),
            };
        } else if self.since.elapsed() > STALL_TIMEOUT {
            eprintln!(
                "ledger: replacing the producer: none of its {in_flight} records was answered for {STALL_TIMEOUT:?}"
            );
            // Dropping the old producer reports its records as purged.
            *producer = connect(ledger, address)?;
            self.since = Instant::now();
        }
        Ok(())
    }
}

fn random_kind(rng: &mut StdRng) -> Kind {
    match rng.random_range(0..200) {
        0 => Kind::DeadLetter,
        1 => Kind::Empty,
        2..60 => Kind::Keyed,
        60..70 => Kind::Tombstone,
        _ => Kind::Plain,
    }
}

fn send(run: &Run, producer: &mut KafkaProducer, address: &str, number: u64, kind: Kind, key: u32) -> Result<()> {
    let value = run.documents.bytes(number, kind, key);
    let key = key_text(kind, key);
    run.ledger.records_in_flight.fetch_add(1, Ordering::Relaxed);
    let topic = kind.topic().unwrap_or(PLAIN);
    let number_text = number.to_string();
    let headers = OwnedHeaders::new().insert(Header {
        key: NUMBER_HEADER,
        value: Some(&number_text),
    });
    let mut record: BaseRecord<'_, str, str, Box<u64>> =
        BaseRecord::with_opaque_to(topic, Box::new(number)).headers(headers);
    if !matches!(kind, Kind::Empty | Kind::Tombstone) {
        record = record.payload(&value);
    }
    if topic == KEYED {
        record = record.key(&key);
    }
    let began = Instant::now();
    while let Err((error, back)) = producer.send(record) {
        record = back;
        if began.elapsed() > SEND_TIMEOUT {
            return Err(error).with_context(|| format!("cannot produce record {number}"));
        }
        if let Some((code, reason)) = producer.client().fatal_error() {
            // An idempotent producer that is unsure of its sequence fails for good; its records are never acknowledged.
            eprintln!("ledger: replacing the producer after a fatal error: {code}: {reason}");
            *producer = connect(&run.ledger, address)?;
        } else if error.rdkafka_error_code() != Some(RDKafkaErrorCode::QueueFull) {
            eprintln!("ledger: the producer rejected record {number}, retrying: {error}");
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}
