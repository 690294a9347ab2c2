//! The answers of one leaf: a call for all its shards, whose parts are handed to a reader for each shard.
//!
//! ```text
//! Scan ──> leaf ══ parts of shard 0, 1, 0, 1 … ══> receive ─┬─> reader of shard 0 ──> chunks
//!                                                           └─> reader of shard 1 ──> chunks
//!                                        deferred: shard 1 ══ ScanRest ══════^
//! ```
//!
//! The leaf sends little of each shard in the call that all share, so that it is always read to its end, however slow
//! the readers are. The rest of a large answer has a call of its own.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use futures::{StreamExt as _, TryStreamExt as _, future::join_all, stream};
use parking_lot::Mutex;
use proto::{
    Code, Problem,
    client::Peer,
    wire::{
        ingest::require,
        leaf::{self as wire, scan_part::Part},
        problem::malformed,
    },
};
use tokio::sync::mpsc::{Receiver, Sender, channel, error::TrySendError};

use super::data;
use crate::{
    scan::{ScanChunk, ScanStream},
    wire::{BatchDecoder, decode_trailer},
};

/// How much longer than the leaf the transport waits: a leaf that is alive reports the timeout itself.
const GRACE: Duration = Duration::from_secs(1);

/// Parts that a leaf sends of an answer in the call that all shards share, and a problem.
const SHARED_PARTS_MAX: usize = 1_024;

type PartOrProblem = Result<wire::ScanPart, Problem>;

/// The parts that a leaf sends for some of its shards.
pub(super) enum LeafParts {
    /// They are still to be requested.
    Unrequested(Box<wire::ScanRequest>),
    /// They follow in this call.
    Started(Box<tonic::Streaming<wire::ScanPart>>),
}

/// Scans this number of shards of one leaf; returns an answer for each. If a call is to be made, this happens when the
/// first answer is polled.
pub(super) fn scan_leaf(peer: Peer, shards: usize, parts: LeafParts, deadline: Instant) -> Vec<ScanStream> {
    let call = LeafCall {
        peer,
        deadline: deadline + GRACE,
    };
    if shards == 1 {
        let own = async move {
            let parts = call.parts(parts).await?;
            Ok::<_, Problem>(AnswerReader::new(call, Parts::Own(parts)).chunks())
        };
        return vec![stream::once(own).try_flatten().boxed()];
    }
    let (senders, receivers): (Vec<_>, Vec<_>) = (0..shards).map(|_| channel(SHARED_PARTS_MAX)).unzip();
    let shared = Arc::new(Mutex::new(Some((call.clone(), parts, senders))));
    let reader = |parts| AnswerReader::new(call.clone(), Parts::Shared(shared.clone(), parts)).chunks();
    receivers.into_iter().map(reader).collect()
}

/// A leaf, and the time until which its answers are awaited. The transport's own deadline applies only until the first
/// part of an answer.
#[derive(Clone)]
struct LeafCall {
    peer: Peer,
    deadline: Instant,
}

/// A call that no reader has made or read yet, and where the parts of each shard go.
type SharedCall = Arc<Mutex<Option<(LeafCall, LeafParts, Vec<Sender<PartOrProblem>>)>>>;

impl LeafCall {
    fn wait(&self) -> Duration {
        self.deadline.saturating_duration_since(Instant::now())
    }

    async fn parts(&self, parts: LeafParts) -> Result<Box<tonic::Streaming<wire::ScanPart>>, Problem> {
        match parts {
            LeafParts::Started(parts) => Ok(parts),
            LeafParts::Unrequested(request) => {
                let response = data(&self.peer).scan(self.peer.request(*request, self.wait())).await;
                Ok(Box::new(self.peer.answer(response)?))
            }
        }
    }

    async fn scan_rest(&self, deferred: bytes::Bytes) -> Result<tonic::Streaming<wire::ScanPart>, Problem> {
        let request = wire::ScanRestRequest { deferred };
        let response = data(&self.peer)
            .scan_rest(self.peer.request(request, self.wait()))
            .await;
        self.peer.answer(response)
    }

    async fn next(&self, parts: &mut tonic::Streaming<wire::ScanPart>) -> Result<Option<wire::ScanPart>, Problem> {
        parts.message().await.map_err(|status| self.peer.problem(status))
    }

    /// Makes the call unless it is made, and sends each part to the reader of its shard. Returns when the call ends or
    /// all readers are dropped. If the call fails, every reader gets the error.
    async fn receive(self, parts: LeafParts, readers: Vec<Sender<PartOrProblem>>) {
        let ended = AtomicUsize::new(0);
        let received = async {
            let mut parts = self.parts(parts).await?;
            while let Some(part) = self.next(&mut parts).await? {
                let reader = require(readers.get(part.shard as usize), "the shard")?;
                if matches!(part.part, Some(Part::End(_) | Part::Problem(_))) {
                    ended.fetch_add(1, Ordering::Relaxed);
                }
                match reader.try_send(Ok(part)) {
                    // A reader that is gone needs no more of its shard.
                    Ok(()) | Err(TrySendError::Closed(_)) => {}
                    Err(TrySendError::Full(_)) => return Err(malformed("an answer has too many small parts")),
                }
            }
            Ok::<(), Problem>(())
        };
        let unread = async {
            join_all(readers.iter().map(Sender::closed)).await;
            // A call that is dropped before its end costs the connection a reset; here its end is about to arrive.
            if ended.load(Ordering::Relaxed) == readers.len() {
                std::future::pending::<()>().await;
            }
        };
        let result = tokio::select! {
            result = received => result,
            () = unread => return,
            () = tokio::time::sleep_until(self.deadline.into()) => Err(self.late()),
        };
        if let Err(problem) = result {
            for reader in &readers {
                // A full queue ends without the end of the answer, which its reader reports.
                let _gone_or_full = reader.try_send(Err(problem.clone()));
            }
        }
    }

    fn late(&self) -> Problem {
        let detail = format!("{} did not continue its answer before the deadline", self.peer.name);
        Problem::new(Code::Timeout, detail)
    }
}

/// Where the parts of a shard come from.
enum Parts {
    /// From the call for all shards of the leaf.
    Shared(SharedCall, Receiver<PartOrProblem>),
    /// From a call for this shard.
    Own(Box<tonic::Streaming<wire::ScanPart>>),
}

/// Reads the answer of one shard.
struct AnswerReader {
    call: LeafCall,
    parts: Parts,
    decoder: BatchDecoder,
}

impl AnswerReader {
    fn new(call: LeafCall, parts: Parts) -> Self {
        Self {
            call,
            parts,
            decoder: BatchDecoder::default(),
        }
    }

    /// The chunks of the answer, decoded as its parts are read.
    fn chunks(self) -> ScanStream {
        let chunks = stream::try_unfold(Some(self), |reader| async move {
            let Some(mut reader) = reader else { return Ok(None) };
            let Some(part) = reader.next().await? else {
                return Ok(None);
            };
            // Dropped with its last part: otherwise the call would wait for a reader that needs nothing more.
            let mut has_ended = false;
            let chunks: Vec<Result<ScanChunk, Problem>> = match require(part.part, "the part")? {
                Part::Arrow(bytes) => {
                    let batches = reader.decoder.decode(bytes)?.into_iter();
                    batches.map(|batch| Ok(ScanChunk::Rows(batch))).collect()
                }
                Part::SoFar(trailer) => vec![Ok(ScanChunk::Progress(decode_trailer(trailer)?))],
                Part::End(trailer) => {
                    has_ended = true;
                    reader.read_to_end().await;
                    vec![Ok(ScanChunk::End(decode_trailer(trailer)?))]
                }
                Part::Problem(problem) => {
                    reader.read_to_end().await;
                    return Err(Problem::from(problem));
                }
                Part::Opened(_) => return Err(malformed("a part of an answer is a read view")),
                Part::Deferred(deferred) => {
                    reader.parts = Parts::Own(Box::new(reader.call.scan_rest(deferred).await?));
                    Vec::new()
                }
            };
            Ok(Some((stream::iter(chunks), (!has_ended).then_some(reader))))
        });
        chunks.try_flatten().boxed()
    }

    async fn next(&mut self) -> Result<Option<wire::ScanPart>, Problem> {
        let call = &self.call;
        let next = async {
            match &mut self.parts {
                Parts::Shared(shared, parts) => {
                    if let Some((call, parts, readers)) = shared.lock().take() {
                        tokio::spawn(call.receive(parts, readers));
                    }
                    parts.recv().await.transpose()
                }
                Parts::Own(parts) => call.next(parts).await,
            }
        };
        let part = tokio::time::timeout_at(call.deadline.into(), next).await;
        part.unwrap_or_else(|_| Err(call.late()))
    }

    /// Reads what follows the last part, nothing but the transport's end: a call that is dropped before costs the
    /// connection a reset, and too many of them close it.
    async fn read_to_end(&mut self) {
        if let Parts::Own(_) = self.parts {
            let _nothing_follows = tokio::time::timeout(GRACE, self.next()).await;
        }
    }
}
