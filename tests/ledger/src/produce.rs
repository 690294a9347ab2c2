//! Records to Kafka: an idempotent producer, documents without keys into one topic, overwrites and tombstones into
//! another.

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
    book::{Book, Fate, Kind, key_text},
    log,
    plan::Gate,
};

pub const PLAIN_PARTITIONS: i32 = 4;
pub const KEYED_PARTITIONS: i32 = 3;
const KEYS: u32 = 300;

/// Writes every acknowledgement into the books.
struct Acknowledgements(Arc<Book>);

impl ClientContext for Acknowledgements {}

impl ProducerContext for Acknowledgements {
    type DeliveryOpaque = Box<u64>;

    fn delivery(&self, result: &DeliveryResult<'_>, number: Box<u64>) {
        let fate = match result {
            Ok(message) => Fate::Acknowledged {
                partition: message.partition(),
                offset: message.offset(),
            },
            // What a producer is let go of with was told of as a whole.
            Err((error, _)) if is_purged(error) => Fate::Unknown,
            Err((error, _)) => {
                eprintln!("ledger: record {number} was not acknowledged: {error}");
                Fate::Unknown
            }
        };
        self.0.close(*number, fate);
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

type Connected = ThreadedProducer<Acknowledgements>;

/// A refused record is offered again for so long.
const GIVE_UP: Duration = Duration::from_secs(60);
/// Longer than any outage of the plan: a producer that is told of nothing for so long stands still for ever. It happens
/// after a broker was frozen beyond its own session; what it held is given up, and the log tells at the end what became
/// of it.
const STANDSTILL: Duration = Duration::from_secs(20);

/// The producer of one run, on a thread of its own.
pub struct Producer {
    thread: std::thread::JoinHandle<Result<()>>,
}

impl Producer {
    pub fn start(run: Arc<Run>, gate: Arc<Gate>, address: String, seed: u64) -> Result<Self> {
        let body = move || {
            let done = produce(&run, &gate, &address, seed);
            if let Err(error) = &done {
                // Or the plan would wait for records that nobody sends.
                run.book.end_load(format!("the producer ended: {error:#}"));
            }
            done
        };
        let thread = std::thread::Builder::new().name("producer".into()).spawn(body)?;
        Ok(Self { thread })
    }

    /// When everything is acknowledged or given up.
    pub async fn finish(self) -> Result<()> {
        let thread = self.thread;
        tokio::task::spawn_blocking(move || thread.join().map_err(|_| anyhow::anyhow!("the producer panicked"))?)
            .await?
    }
}

fn connect(book: &Arc<Book>, address: &str) -> Result<Connected> {
    ClientConfig::new()
        .set("bootstrap.servers", address)
        .set("enable.idempotence", "true")
        .set("acks", "all")
        .set("linger.ms", "2")
        // Longer than any outage of the plan: a record is given up only where something is really wrong.
        .set("message.timeout.ms", "300000")
        .set("reconnect.backoff.max.ms", "500")
        // A paused broker loses its partitions for a while; a client that heard of it then must look again soon, not in
        // five minutes.
        .set("topic.metadata.refresh.interval.ms", "2000")
        .set("log_level", "2")
        .create_with_context(Acknowledgements(book.clone()))
        .context("no producer")
}

fn produce(run: &Run, gate: &Gate, address: &str, seed: u64) -> Result<()> {
    let mut producer = connect(&run.book, address)?;
    let mut watch = Watch {
        told: 0,
        since: Instant::now(),
    };
    let mut rng = StdRng::seed_from_u64(seed ^ 0x7072_6f64);
    for sent in 0..gate.produce_quota {
        while sent >= gate.produce_now(run.book.pushed.load(Ordering::Relaxed)) {
            watch.look(&run.book, &mut producer, address)?;
            std::thread::sleep(Duration::from_millis(1));
        }
        let kind = choose(&mut rng);
        let key = rng.random_range(0..KEYS);
        let number = run.book.open(kind, key, 0);
        send(run, &mut producer, address, number, kind, key)?;
    }
    while run.book.records_in_flight.load(Ordering::Relaxed) > 0 {
        watch.look(&run.book, &mut producer, address)?;
        std::thread::sleep(Duration::from_millis(5));
    }
    Ok(())
}

/// Notices a producer that stands still.
struct Watch {
    told: u64,
    since: Instant,
}

impl Watch {
    fn look(&mut self, book: &Arc<Book>, producer: &mut Connected, address: &str) -> Result<()> {
        let told = book.produced.load(Ordering::Relaxed);
        let held = book.records_in_flight.load(Ordering::Relaxed);
        if told != self.told || held == 0 {
            *self = Self {
                told,
                since: Instant::now(),
            };
        } else if self.since.elapsed() > STANDSTILL {
            eprintln!(
                "ledger: a new producer, since the earlier one was told nothing of {held} records for {STANDSTILL:?}"
            );
            // What it held is told as given up when it is let go of.
            *producer = connect(book, address)?;
            self.since = Instant::now();
        }
        Ok(())
    }
}

fn choose(rng: &mut StdRng) -> Kind {
    match rng.random_range(0..200) {
        0 => Kind::Dead,
        1 => Kind::Nothing,
        2..60 => Kind::Keyed,
        60..70 => Kind::Tombstone,
        _ => Kind::Plain,
    }
}

fn send(run: &Run, producer: &mut Connected, address: &str, number: u64, kind: Kind, key: u32) -> Result<()> {
    let value = run.documents.bytes(number, kind, key);
    let key = key_text(kind, key);
    run.book.records_in_flight.fetch_add(1, Ordering::Relaxed);
    let topic = if matches!(kind, Kind::Keyed | Kind::Tombstone) {
        "keyed"
    } else {
        "plain"
    };
    let spelled = number.to_string();
    let headers = OwnedHeaders::new().insert(Header {
        key: log::NUMBER,
        value: Some(&spelled),
    });
    let mut record: BaseRecord<'_, str, str, Box<u64>> =
        BaseRecord::with_opaque_to(topic, Box::new(number)).headers(headers);
    if !matches!(kind, Kind::Nothing | Kind::Tombstone) {
        record = record.payload(&value);
    }
    if topic == "keyed" {
        record = record.key(&key);
    }
    let began = Instant::now();
    while let Err((error, back)) = producer.send(record) {
        record = back;
        if began.elapsed() > GIVE_UP {
            return Err(error).with_context(|| format!("cannot produce record {number}"));
        }
        if let Some((code, why)) = producer.client().fatal_error() {
            // An idempotent producer that is not sure of its sequence ends for good; what it held is never
            // acknowledged.
            eprintln!("ledger: a new producer, since the earlier one ended: {code}: {why}");
            *producer = connect(&run.book, address)?;
        } else if error.rdkafka_error_code() != Some(RDKafkaErrorCode::QueueFull) {
            eprintln!("ledger: record {number} is refused for now: {error}");
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}
