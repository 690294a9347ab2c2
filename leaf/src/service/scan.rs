//! `rachis.leaf.v1.Scan`.

use std::{
    collections::HashMap,
    pin::Pin,
    sync::{Arc, Weak},
};

use datafusion::arrow::datatypes::Schema;
use futures::{Stream, StreamExt as _, stream};
use parking_lot::Mutex;
use plan::{
    PathKinds,
    scan::{Chunk, Pinned, Scan, Stage},
    wire::{Parts, read_request},
};
use proto::{
    Catalog, PositionVector, Problem,
    ingest::ShardId,
    service::caught_up,
    wire::{
        ingest::{positions, query_id, vector},
        leaf::{self as wire, pin_outcome::Outcome, scan_server},
    },
};
use tokio::sync::watch;
use tonic::{Request, Response, Status};
use xxhash_rust::xxh3::Xxh3;

use super::{deadline, shard};
use crate::Leaf;

/// Stack for reading a condition.
const STACK_BYTES: usize = 16 << 20;

/// The service.
pub struct ScanService {
    leaf: Arc<Leaf>,
    catalog: watch::Receiver<Arc<Catalog>>,
    /// The hash of each shard's table of paths, while it stays the same table.
    hashes: Mutex<HashMap<ShardId, (Weak<PathKinds>, u64)>>,
}

type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

fn answers<T: Send + 'static, U: From<T> + Send + 'static>(all: Vec<T>) -> Answers<U> {
    stream::iter(all.into_iter().map(|one| Ok(one.into()))).boxed()
}

impl ScanService {
    /// Over a leaf.
    pub fn new(leaf: Arc<Leaf>, catalog: watch::Receiver<Arc<Catalog>>) -> Self {
        Self {
            leaf,
            catalog,
            hashes: Mutex::default(),
        }
    }

    /// As it is told to somebody who knows a table of paths by this hash.
    fn pinned(&self, shard: ShardId, pinned: &Pinned, paths_known: u64) -> wire::Pinned {
        let paths_hash = self.hash(shard, &pinned.paths);
        wire::Pinned {
            positions: positions(&pinned.positions),
            boot: pinned.boot,
            documents: pinned.documents,
            freshness_ms: pinned.freshness_ms,
            paths_hash,
            paths: (paths_known != paths_hash).then(|| pinned.paths.as_ref().into()),
        }
    }

    fn hash(&self, shard: ShardId, paths: &Arc<PathKinds>) -> u64 {
        let mut hashes = self.hashes.lock();
        match hashes.get(&shard) {
            Some((known, hash)) if known.as_ptr() == Arc::as_ptr(paths) => *hash,
            _ => {
                let hash = hash_of(paths);
                hashes.retain(|_, (known, _)| known.strong_count() > 0);
                hashes.insert(shard, (Arc::downgrade(paths), hash));
                hash
            }
        }
    }
}

/// Never 0, which says that nothing is known.
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
    type ScanStream = Answers<wire::ScanPart>;
    type FieldsStream = Answers<wire::Field>;
    type DeadLettersStream = Answers<wire::DeadLetter>;

    async fn pin(&self, request: Request<wire::PinRequest>) -> Result<Response<wire::PinAnswer>, Status> {
        caught_up(&request, &self.catalog).await?;
        let asked = request.into_inner();
        let known: Vec<u64> = asked.shards.iter().map(|wanted| wanted.paths_known).collect();
        let wanted = asked
            .shards
            .into_iter()
            .map(|wanted| Ok((shard(wanted.shard)?, vector(wanted.at_least)?)));
        let wanted: Vec<(ShardId, PositionVector)> = wanted.collect::<Result<_, Problem>>()?;
        let outcomes = self
            .leaf
            .pin_all(query_id(&asked.query)?, &wanted, deadline(asked.wait_ms))
            .await;
        let told = wanted
            .iter()
            .zip(known)
            .zip(outcomes)
            .map(|(((shard, _), known), outcome)| {
                let outcome = match outcome {
                    Ok(pinned) => Outcome::Pinned(self.pinned(*shard, &pinned, known)),
                    Err(problem) => Outcome::Problem(problem.into()),
                };
                wire::PinOutcome { outcome: Some(outcome) }
            });
        Ok(Response::new(wire::PinAnswer {
            outcomes: told.collect(),
        }))
    }

    async fn unpin(&self, request: Request<wire::UnpinRequest>) -> Result<Response<wire::Unpinned>, Status> {
        self.leaf.unpin(query_id(&request.into_inner().query)?);
        Ok(Response::new(wire::Unpinned {}))
    }

    async fn scan(&self, request: Request<wire::ScanRequest>) -> Result<Response<Self::ScanStream>, Status> {
        // A condition is read by descent; how deep it may be is the aggregator's to say.
        let asked = stacker::grow(STACK_BYTES, || read_request(request.into_inner()))?;
        let schema = match &asked.stage {
            Stage::Partial(aggregate) => aggregate.output.clone(),
            Stage::Rows { .. } | Stage::Top { .. } => Arc::new(Schema::new(
                asked.columns.iter().map(plan::Column::field).collect::<Vec<_>>(),
            )),
        };
        let mut parts = Parts::new(&schema)?;
        let chunks = self.leaf.scan(asked).flat_map(move |chunk| {
            let told: Result<Vec<wire::ScanPart>, Problem> = match chunk {
                Ok(Chunk::Rows(batch)) => parts.of(&batch),
                Ok(Chunk::SoFar(trailer)) => Ok(vec![Parts::so_far(trailer)]),
                Ok(Chunk::End(trailer)) => parts.end(trailer),
                Err(problem) => Err(problem),
            };
            match told {
                Ok(parts) => stream::iter(parts.into_iter().map(Ok).collect::<Vec<_>>()),
                Err(problem) => stream::iter(vec![Err(problem.into())]),
            }
        });
        Ok(Response::new(chunks.boxed()))
    }

    async fn document(
        &self,
        request: Request<wire::DocumentRequest>,
    ) -> Result<Response<wire::DocumentAnswer>, Status> {
        caught_up(&request, &self.catalog).await?;
        let asked = request.into_inner();
        let document = self.leaf.document(shard(asked.shard)?, &asked.id).await?;
        Ok(Response::new(wire::DocumentAnswer {
            document: document.map(Into::into),
        }))
    }

    async fn fields(&self, request: Request<wire::ShardRequest>) -> Result<Response<Self::FieldsStream>, Status> {
        caught_up(&request, &self.catalog).await?;
        Ok(Response::new(answers(
            self.leaf.fields(shard(request.into_inner().shard)?).await?,
        )))
    }

    async fn status(&self, request: Request<wire::ShardRequest>) -> Result<Response<wire::ShardStatus>, Status> {
        caught_up(&request, &self.catalog).await?;
        Ok(Response::new(
            self.leaf.status(shard(request.into_inner().shard)?).await?.into(),
        ))
    }

    async fn dead_letters(
        &self,
        request: Request<wire::DeadLettersRequest>,
    ) -> Result<Response<Self::DeadLettersStream>, Status> {
        caught_up(&request, &self.catalog).await?;
        let asked = request.into_inner();
        Ok(Response::new(answers(
            self.leaf
                .dead_letters(shard(asked.shard)?, asked.limit as usize)
                .await?,
        )))
    }
}
