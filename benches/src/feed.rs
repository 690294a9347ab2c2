//! Documents at a constant rate, through Kafka or by push, with a marked one among them ten times a second.
//!
//! A feed never catches up by sending faster than the rate for longer than [`BURST`]: what a system does not take is
//! missing in the rate that the feed reports.

use std::{
    io::Write as _,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};
use futures::{StreamExt as _, stream::FuturesUnordered};
use rdkafka::{
    ClientConfig, ClientContext,
    error::KafkaError,
    message::DeliveryResult,
    producer::{BaseProducer, BaseRecord, Producer as _, ProducerContext},
    types::RDKafkaErrorCode,
};

use crate::{documents::DocumentFile, system::PushServer};

/// The time between two marks.
const MARK_EVERY: Duration = Duration::from_millis(100);
/// The time between two portions of a feed through Kafka, and between two pushes.
const PORTION: Duration = Duration::from_millis(5);
const PUSH_EVERY: Duration = Duration::from_millis(50);
/// Pushes at once.
const PUSHES_MAX: usize = 4;
/// How far behind a feed may be; beyond that, time is lost for good.
const BURST: Duration = Duration::from_millis(500);
/// How long the last acknowledgements may take.
const FLUSH_MAX: Duration = Duration::from_secs(60);
/// Bytes of a document of each set, on average, rounded down.
const DOCUMENT_BYTES: u64 = 440;

/// How much is fed, and for how long.
#[derive(Debug, Clone, Copy)]
pub(crate) struct FeedPlan {
    pub(crate) megabytes_per_second: u64,
    pub(crate) time: Duration,
}

impl FeedPlan {
    /// More documents than the feed can send.
    pub(crate) fn documents(&self) -> u64 {
        self.megabytes_per_second * 1_000_000 / DOCUMENT_BYTES * (self.time.as_secs() + 1)
    }

    /// Bytes that are due by now, beyond those already sent. `begun` moves on if too many are.
    fn due_bytes(&self, begun: &mut Instant, sent_bytes: u64) -> u64 {
        let rate = self.megabytes_per_second as f64 * 1e6;
        let sent_time = Duration::from_secs_f64(sent_bytes as f64 / rate);
        let behind = begun.elapsed().saturating_sub(sent_time);
        if behind > BURST {
            *begun += behind - BURST;
        }
        (behind.min(BURST).as_secs_f64() * rate) as u64
    }
}

/// What was fed.
#[derive(Debug)]
pub(crate) struct Fed {
    /// Acknowledged documents, marked ones included.
    pub(crate) documents: u64,
    /// Those of them that the system refused, as far as it says.
    pub(crate) refused: u64,
    pub(crate) megabytes_per_second: f64,
}

/// When marked documents were sent and acknowledged; mark `n` is at index `n`.
#[derive(Debug, Clone, Default)]
pub(crate) struct Marks(Arc<Mutex<MarkList>>);

#[derive(Debug, Default)]
struct MarkList {
    marks: Vec<Mark>,
    /// No more follow.
    is_complete: bool,
}

/// One marked document.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Mark {
    pub(crate) sent: Instant,
    pub(crate) acknowledged: Option<Instant>,
}

impl Marks {
    fn list(&self) -> MutexGuard<'_, MarkList> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The next mark is sent now. Returns its number.
    fn send(&self) -> usize {
        let mut list = self.list();
        list.marks.push(Mark {
            sent: Instant::now(),
            acknowledged: None,
        });
        list.marks.len() - 1
    }

    fn acknowledge(&self, number: usize) {
        if let Some(mark) = self.list().marks.get_mut(number) {
            mark.acknowledged = Some(Instant::now());
        }
    }

    /// No more marks follow.
    pub(crate) fn end(&self) {
        self.list().is_complete = true;
    }

    /// Whether so many marks are all.
    pub(crate) fn is_complete(&self, found: usize) -> bool {
        let list = self.list();
        list.is_complete && list.marks.len() == found
    }

    /// All marks so far.
    pub(crate) fn all(&self) -> Vec<Mark> {
        self.list().marks.clone()
    }
}

/// Appends the document with a mark, without a line break.
fn write_mark(number: usize, out: &mut Vec<u8>) -> Result<()> {
    write!(
        out,
        r#"{{"kind":"mark","did":"did:plc:mark","time_us":1732206349000000,"marker":{number}}}"#
    )?;
    Ok(())
}

/// Notes acknowledgements of marks, and the first error.
struct Deliveries {
    marks: Marks,
    failed: Mutex<Option<KafkaError>>,
}

impl ClientContext for Deliveries {}

impl ProducerContext for Deliveries {
    /// The number of a mark.
    type DeliveryOpaque = Box<Option<usize>>;

    fn delivery(&self, result: &DeliveryResult<'_>, mark: Self::DeliveryOpaque) {
        match (result, *mark) {
            (Ok(_), Some(number)) => self.marks.acknowledge(number),
            (Ok(_), None) => {}
            (Err((error, _)), _) => {
                *self.failed.lock().unwrap_or_else(PoisonError::into_inner) = Some(error.clone());
            }
        }
    }
}

/// Produces the documents to the topic of their set, with librdkafka's defaults and idempotence, until the time is over.
pub(crate) async fn feed_kafka(bootstrap: &str, documents: &DocumentFile, plan: FeedPlan, marks: Marks) -> Result<Fed> {
    let (bootstrap, topic, lines) = (bootstrap.to_owned(), documents.set.name(), documents.lines()?);
    tokio::task::spawn_blocking(move || produce(&bootstrap, topic, lines, plan, marks)).await?
}

fn produce(
    bootstrap: &str,
    topic: &str,
    mut lines: impl Iterator<Item = std::io::Result<String>>,
    plan: FeedPlan,
    marks: Marks,
) -> Result<Fed> {
    let mut config = ClientConfig::new();
    config
        .set("bootstrap.servers", bootstrap)
        .set("enable.idempotence", "true")
        .set("log_level", "0");
    let context = Deliveries {
        marks: marks.clone(),
        failed: Mutex::new(None),
    };
    let producer: BaseProducer<Deliveries> = config.create_with_context(context)?;
    let start = Instant::now();
    let (mut begun, mut next_mark) = (start, start);
    let (mut sent_bytes, mut documents) = (0, 0);
    while start.elapsed() < plan.time {
        let due = sent_bytes + plan.due_bytes(&mut begun, sent_bytes);
        while sent_bytes < due {
            let line = lines.next().context("too few documents for the feed")??;
            sent_bytes += line.len() as u64;
            send(&producer, topic, line.as_bytes(), None)?;
            documents += 1;
        }
        if Instant::now() >= next_mark {
            let (number, mut mark) = (marks.send(), Vec::new());
            write_mark(number, &mut mark)?;
            send(&producer, topic, &mark, Some(number))?;
            documents += 1;
            next_mark += MARK_EVERY;
        }
        producer.poll(PORTION);
    }
    let elapsed = start.elapsed();
    producer.flush(FLUSH_MAX)?;
    let mut failed = producer.context().failed.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(error) = failed.take() {
        bail!("not all records were acknowledged: {error}");
    }
    drop(failed);
    Ok(Fed {
        documents,
        refused: 0,
        megabytes_per_second: sent_bytes as f64 / 1e6 / elapsed.as_secs_f64(),
    })
}

fn send(producer: &BaseProducer<Deliveries>, topic: &str, value: &[u8], mark: Option<usize>) -> Result<()> {
    let mut next: BaseRecord<'_, [u8], [u8], _> = BaseRecord::with_opaque_to(topic, Box::new(mark)).payload(value);
    while let Err((error, back)) = producer.send(next) {
        ensure!(
            error.rdkafka_error_code() == Some(RDKafkaErrorCode::QueueFull),
            "cannot produce: {error}"
        );
        producer.poll(PORTION);
        next = back;
    }
    Ok(())
}

/// Pushes the documents in small bodies, a few at once, until the time is over.
pub(crate) async fn feed_push(
    server: &dyn PushServer,
    documents: &DocumentFile,
    plan: FeedPlan,
    marks: Marks,
) -> Result<Fed> {
    let mut lines = documents.lines()?;
    let start = Instant::now();
    let (mut begun, mut next_mark) = (start, start);
    let (mut sent_bytes, mut count, mut refused) = (0, 0, 0);
    let mut pushes = FuturesUnordered::new();
    let mut ticks = tokio::time::interval(PUSH_EVERY);
    while start.elapsed() < plan.time {
        while pushes.len() >= PUSHES_MAX {
            refused += pushes.next().await.unwrap_or(Ok(0))?;
        }
        let (mut body, mut mark) = (Vec::new(), None);
        let due = plan.due_bytes(&mut begun, sent_bytes);
        while (body.len() as u64) < due {
            let line = lines.next().context("too few documents for the feed")??;
            body.extend_from_slice(line.as_bytes());
            body.push(b'\n');
            count += 1;
        }
        sent_bytes += body.len() as u64;
        if Instant::now() >= next_mark {
            let number = marks.send();
            write_mark(number, &mut body)?;
            body.push(b'\n');
            count += 1;
            (mark, next_mark) = (Some(number), next_mark + MARK_EVERY);
        }
        if !body.is_empty() {
            let (marks, set) = (marks.clone(), documents.set);
            pushes.push(async move {
                let refused = server.push(set, body).await?;
                if let Some(number) = mark {
                    marks.acknowledge(number);
                }
                anyhow::Ok(refused)
            });
        }
        // Pushes go on while this waits.
        loop {
            tokio::select! {
                _ = ticks.tick() => break,
                Some(result) = pushes.next(), if !pushes.is_empty() => refused += result?,
            }
        }
    }
    let elapsed = start.elapsed();
    while let Some(result) = pushes.next().await {
        refused += result?;
    }
    Ok(Fed {
        documents: count,
        refused,
        megabytes_per_second: sent_bytes as f64 / 1e6 / elapsed.as_secs_f64(),
    })
}
