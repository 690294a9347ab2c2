//! The gRPC service `rachis.leaf.v1.Scan`.

use std::{
    collections::HashMap,
    num::NonZeroUsize,
    pin::Pin,
    sync::{Arc, Weak},
    time::Duration,
};

use futures::{Stream, StreamExt as _, stream};
use parking_lot::Mutex;
use plan::{
    PathKinds,
    byte_lru::ByteLru,
    scan::{RedriveQuery, Scan, ScanChunk, ScanStream},
    views::ShardView,
    wire::{AnswerEncoder, ScanHead, decode_request, is_scanned, take_head},
};
use proto::{
    Address, Catalog, Code, PositionVector, Problem,
    ingest::ShardId,
    wire::{
        bytes_of,
        ingest::{positions, require, shard, uid, vector},
        leaf::{self as wire, open_outcome::Outcome, scan_part::Part, scan_server},
    },
};
use tokio::sync::watch;
use tonic::{Request, Response, Status};
use uuid::Uuid;
use xxhash_rust::xxh3::Xxh3;

use super::{
    caught_up, deadline,
    deferred_answers::{DeferredAnswers, Parts},
};
use crate::{
    Leaf,
    scan::{Preparation, SharedRequest},
};

/// Stack for decoding a filter expression.
const STACK_BYTES: usize = 16 << 20;
/// Bytes of all cached preparations and of their requests.
const PREPARATIONS_BYTES_MAX: usize = 32 << 20;
/// The number of requests whose preparation is cached.
const PREPARATIONS_MAX: NonZeroUsize = NonZeroUsize::new(1_024).expect("not zero");
/// A request with more bytes is prepared each time.
const CACHED_REQUEST_BYTES_MAX: usize = 16 << 10;
/// About how many bytes a preparation takes for each byte of its request: expressions are much larger than their encoding.
const PREPARATION_FACTOR: usize = 16;
/// How long the leaf holds back the answer about opened views to send it together with the first rows.
const TOGETHER_MAX: Duration = Duration::from_millis(1);

/// Serves `rachis.leaf.v1.Scan`.
pub(super) struct ScanService {
    leaf: Arc<Leaf>,
    catalog: watch::Receiver<Arc<Catalog>>,
    /// Cached hash of each shard's path table, valid while the shard has the same table.
    path_hashes: Mutex<HashMap<ShardId, (Weak<PathKinds>, u64)>>,
    deferred: Arc<DeferredAnswers>,
    /// The preparations of requests, by their bytes without the head. To decode and prepare one again would cost more than
    /// a small scan. They depend on nothing else, so they are valid forever.
    preparations: Mutex<ByteLru<Vec<u8>, Arc<Preparation>>>,
}

type ResponseStream<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

impl ScanService {
    /// Serves this leaf's shards.
    pub(super) fn new(leaf: Arc<Leaf>, catalog: watch::Receiver<Arc<Catalog>>) -> Self {
        Self {
            leaf,
            catalog,
            path_hashes: Mutex::default(),
            deferred: Arc::default(),
            preparations: Mutex::new(ByteLru::new(PREPARATIONS_BYTES_MAX, PREPARATIONS_MAX)),
        }
    }

    /// The wire form of a view. Includes the path table only if its hash is not `paths_known`.
    fn encode_view(&self, shard: ShardId, view: &ShardView, paths_known: u64) -> Result<wire::ShardView, Problem> {
        let paths_hash = self.hash(shard, &view.paths);
        let is_known = paths_known == paths_hash;
        Ok(wire::ShardView {
            positions: positions(&view.positions),
            boot: view.boot,
            documents: view.documents,
            freshness_ms: view.freshness_ms,
            paths_hash,
            paths: (!is_known).then(|| wire::Json::of(&*view.paths)).transpose()?,
        })
    }

    async fn open_views(&self, request: wire::OpenRequest) -> Result<wire::OpenAnswer, Problem> {
        let (id, deadline) = (uid(&request.views)?, deadline(request.wait_ms));
        let known: Vec<u64> = request.shards.iter().map(|wanted| wanted.paths_known).collect();
        let wanted = request
            .shards
            .into_iter()
            .map(|wanted| Ok((shard(wanted.shard)?, vector(wanted.at_least)?)));
        let wanted: Vec<(ShardId, PositionVector)> = wanted.collect::<Result<_, Problem>>()?;
        let (views, outcomes) = self.leaf.open_read_views(&wanted, deadline).await;
        self.leaf.leases.put(id, views, deadline);
        let outcomes = wanted
            .iter()
            .zip(known)
            .zip(outcomes)
            .map(|(((shard, _), known), outcome)| {
                let outcome = match outcome.and_then(|view| self.encode_view(*shard, &view, known)) {
                    Ok(view) => Outcome::View(view),
                    Err(problem) => Outcome::Problem(problem.into()),
                };
                wire::OpenOutcome { outcome: Some(outcome) }
            });
        Ok(wire::OpenAnswer {
            outcomes: outcomes.collect(),
        })
    }

    /// The parts of the answers of all shards.
    fn scan_shards(&self, mut request: wire::ScanRequest) -> Result<Parts, Problem> {
        let head = take_head(&mut request)?;
        let preparation = self.preparation(&head, request)?;
        let (schema, like) = (preparation.schema(), SharedRequest::like(&preparation, head.deadline));
        let answers = (0..).zip(self.leaf.leases.scan(head.views, &head.shards, like));
        let answers = answers.map(|(shard, chunks)| Ok(parts(AnswerEncoder::new(shard, &schema)?, chunks)));
        let mut answers: Vec<Parts> = answers.collect::<Result<_, Problem>>()?;
        Ok(match answers.len() {
            1 => answers.remove(0),
            _ => self.deferred.share(answers).boxed(),
        })
    }

    fn preparation(&self, head: &ScanHead, request: wire::ScanRequest) -> Result<Arc<Preparation>, Problem> {
        let key = bytes_of(&request);
        if let Some(cached) = self.preparations.lock().get(&key) {
            return Ok(cached.clone());
        }
        // The filter is decoded recursively; the aggregator limits its depth.
        let request = stacker::grow(STACK_BYTES, || decode_request(head.clone(), request))?;
        let new = Arc::new(Preparation::of(request));
        if key.len() <= CACHED_REQUEST_BYTES_MAX {
            let bytes = key.len() * (1 + PREPARATION_FACTOR);
            // Dropped after the lock is released.
            let _displaced = self.preparations.lock().put(key, new.clone(), bytes);
        }
        Ok(new)
    }

    fn hash(&self, shard: ShardId, paths: &Arc<PathKinds>) -> u64 {
        let mut hashes = self.path_hashes.lock();
        match hashes.get(&shard) {
            Some((cached, hash)) if cached.as_ptr() == Arc::as_ptr(paths) => *hash,
            _ => {
                let hash = hash_of(paths);
                hashes.retain(|_, (cached, _)| cached.strong_count() > 0);
                hashes.insert(shard, (Arc::downgrade(paths), hash));
                hash
            }
        }
    }
}

/// The parts of the answer of one shard.
fn parts(mut parts: AnswerEncoder, chunks: ScanStream) -> Parts {
    let encode = move |chunk| {
        let encoded: Result<Vec<wire::ScanPart>, Problem> = match chunk {
            Ok(ScanChunk::Rows(batch)) => parts.encode(&batch),
            Ok(ScanChunk::Progress(trailer)) => Ok(vec![parts.progress(trailer)]),
            Ok(ScanChunk::End(trailer)) => parts.end(trailer),
            Err(problem) => Err(problem),
        };
        stream::iter(encoded.unwrap_or_else(|problem| vec![parts.problem(problem)]))
    };
    chunks.flat_map(encode).boxed()
}

/// The hash of a path table. Never 0, which clients send if they have no table.
fn hash_of(paths: &PathKinds) -> u64 {
    let mut hasher = Xxh3::new();
    hasher.update(&[u8::from(paths.overflow)]);
    for (path, kinds) in &paths.paths {
        let text = path.to_string();
        hasher.update(&(text.len() as u32).to_le_bytes());
        hasher.update(text.as_bytes());
        hasher.update(&kinds.0.to_le_bytes());
    }
    hasher.digest().max(1)
}

#[tonic::async_trait]
impl scan_server::Scan for ScanService {
    type OpenAndScanStream = ResponseStream<wire::ScanPart>;
    type ScanStream = ResponseStream<wire::ScanPart>;
    type ScanRestStream = ResponseStream<wire::ScanPart>;
    type FieldsStream = ResponseStream<wire::Json>;
    type DeadLettersStream = ResponseStream<wire::JsonWithBytes>;

    async fn open(&self, request: Request<wire::OpenRequest>) -> Result<Response<wire::OpenAnswer>, Status> {
        let request = caught_up(request, &self.catalog).await?;
        Ok(Response::new(self.open_views(request).await?))
    }

    async fn open_and_scan(
        &self,
        request: Request<wire::OpenAndScanRequest>,
    ) -> Result<Response<Self::OpenAndScanStream>, Status> {
        let request = caught_up(request, &self.catalog).await?;
        let answer = self.open_views(require(request.open, "the views")?).await?;
        let scan = match is_scanned(&answer) {
            true => self.scan_shards(require(request.scan, "the scan")?)?,
            false => stream::empty().boxed(),
        };
        let opened = wire::ScanPart {
            shard: 0,
            part: Some(Part::Opened(answer)),
        };
        // If the first rows are ready in time, the whole answer of a small scan fits into one packet.
        let mut scan = scan.peekable();
        let _ready_or_late = tokio::time::timeout(TOGETHER_MAX, Pin::new(&mut scan).peek()).await;
        Ok(Response::new(stream::iter([opened]).chain(scan).map(Ok).boxed()))
    }

    async fn renew(&self, request: Request<wire::Json>) -> Result<Response<wire::Json>, Status> {
        self.leaf.leases.renew(request.into_inner().decode()?);
        wire::Json::response(&())
    }

    async fn release(&self, request: Request<wire::Json>) -> Result<Response<wire::Json>, Status> {
        let views: Vec<Uuid> = request.into_inner().decode()?;
        views.into_iter().for_each(|views| self.leaf.leases.release(views));
        wire::Json::response(&())
    }

    async fn scan(&self, request: Request<wire::ScanRequest>) -> Result<Response<Self::ScanStream>, Status> {
        let parts = self.scan_shards(request.into_inner())?;
        Ok(Response::new(parts.map(Ok).boxed()))
    }

    async fn scan_rest(
        &self,
        request: Request<wire::ScanRestRequest>,
    ) -> Result<Response<Self::ScanRestStream>, Status> {
        let id = Uuid::from_slice(&request.into_inner().deferred).ok();
        let rest = id.and_then(|id| self.deferred.take(&id)).ok_or_else(|| {
            let detail = "the rest of this answer is not here: its call has ended, or the leaf has restarted";
            Problem::new(Code::Unavailable, detail).hint("retry the query")
        })?;
        Ok(Response::new(rest.map(Ok).boxed()))
    }

    async fn document(&self, request: Request<wire::DocumentLookup>) -> Result<Response<wire::DocumentAnswer>, Status> {
        let lookup = caught_up(request, &self.catalog).await?;
        let (shard, id): (ShardId, String) = wire::Json { json: lookup.json }.decode()?;
        let found = self.leaf.document(shard, &id, &vector(lookup.at_least)?).await?;
        let document = found
            .document
            .map(|document| wire::JsonWithBytes::of(&document, document.bytes.clone()));
        Ok(Response::new(wire::DocumentAnswer {
            document: document.transpose()?,
            boot: found.boot,
        }))
    }

    async fn fields(&self, request: Request<wire::Json>) -> Result<Response<Self::FieldsStream>, Status> {
        let request = caught_up(request, &self.catalog).await?;
        let fields = self.leaf.fields(request.decode()?).await?;
        let fields = fields.into_iter().map(|field| Ok(wire::Json::of(&field)?));
        Ok(Response::new(stream::iter(fields).boxed()))
    }

    async fn status(&self, request: Request<wire::Json>) -> Result<Response<wire::Json>, Status> {
        let request = caught_up(request, &self.catalog).await?;
        wire::Json::response(&self.leaf.status(request.decode()?).await?)
    }

    async fn dead_letters(&self, request: Request<wire::Json>) -> Result<Response<Self::DeadLettersStream>, Status> {
        let request = caught_up(request, &self.catalog).await?;
        let (shard, limit) = request.decode()?;
        let letters = self.leaf.dead_letters(shard, limit).await?;
        let letters = (letters.into_iter()).map(|letter| Ok(wire::JsonWithBytes::of(&letter, letter.bytes.clone())?));
        Ok(Response::new(stream::iter(letters).boxed()))
    }

    async fn dead_record(&self, request: Request<wire::Json>) -> Result<Response<wire::DeadRecordAnswer>, Status> {
        let request = caught_up(request, &self.catalog).await?;
        let (shard, address): (ShardId, Address) = request.decode()?;
        let found = self.leaf.dead_record(shard, &address).await?;
        let answer = found.map(|found| found.to_wire()).transpose()?;
        Ok(Response::new(answer.unwrap_or_default()))
    }

    async fn redrives(&self, request: Request<wire::RedrivesRequest>) -> Result<Response<wire::RedrivePage>, Status> {
        let request = caught_up(request, &self.catalog).await?;
        let query = RedriveQuery {
            value: request.value,
            ..require(request.query, "the query")?.decode()?
        };
        let page = self.leaf.redrives(shard(request.shard)?, &query).await?;
        Ok(Response::new(page.to_wire()?))
    }
}
