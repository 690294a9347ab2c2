//! Scan: one request over one read view -> rows, the top k rows, or partial aggregates, and a trailer.
//!
//! ```text
//! request ─ task ─ units ─ index: candidates ─ blocks: columns | raw documents ─ filter
//!                                                    rows | top-k | partial ─ chunks, trailer
//! ```
//!
//! All threads of the leaf's pool may work on a scan, one batch ahead of the reader of the stream. Dropping the
//! stream cancels the work at its next block.

mod best_keys;
mod blocks;
mod filter;
mod index_totals;
mod partial;
mod pool;
mod prepared;
mod state_cache;
mod stats;
mod task;
mod top_k;
mod weighted;

#[cfg(test)]
mod tests;

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use datafusion::{
    arrow::{
        array::{ArrayRef, RecordBatch, RecordBatchOptions},
        compute::concat_batches,
        datatypes::SchemaRef,
    },
    execution::runtime_env::RuntimeEnv,
};
use futures::{
    FutureExt, Stream, StreamExt, TryFutureExt, TryStreamExt,
    future::{self, BoxFuture},
    stream,
};
use parking_lot::Mutex;
use plan::scan::{ScanChunk, ScanStream, Stage};
use proto::Problem;

pub(crate) use self::{
    pool::ScanPool,
    prepared::{Preparation, SharedRequest},
};

use self::{
    blocks::{Blocks, Next},
    partial::{Partial, Shares, UncachedSplits},
    pool::{ScanQueue, StepOutcome},
    state_cache::{DividedView, StateCache},
    task::ScanTask,
    top_k::{TopK, TopKRows},
};
use crate::{error::Error, view::ReadView};

/// How long a scan runs before it lets others have the thread.
const TIME_SLICE: Duration = Duration::from_millis(20);
/// Rows of a returned batch; its bytes or the time slice may end it earlier.
const BATCH_ROWS: usize = 4_096;
/// Bytes of a returned batch.
const BATCH_BYTES: usize = 1 << 20;

/// Scans a view. The work begins when the stream is first polled.
pub(crate) fn run(view: ReadView, request: Arc<SharedRequest>, pool: &ScanPool) -> ScanStream {
    let queue = pool.queue.clone();
    let guard = CancelOnDrop(Arc::default());
    let start = Start {
        view,
        request,
        threads_max: pool.threads_max,
        memory: pool.memory.clone(),
        cache: pool.states.clone(),
        cancelled: guard.0.clone(),
        queue: queue.clone(),
    };
    let chunks = async move {
        let (_, (scan, pending)) = queue.submit(start, Start::step).await?;
        Ok::<_, Problem>(chunks(scan, pending, &queue, guard))
    };
    chunks.try_flatten_stream().boxed()
}

/// The first step of a scan: it creates the workers and runs the first step of one of them, because a small scan needs
/// no other.
struct Start {
    view: ReadView,
    request: Arc<SharedRequest>,
    threads_max: usize,
    memory: Arc<RuntimeEnv>,
    cache: Arc<StateCache>,
    cancelled: Arc<AtomicBool>,
    queue: Arc<ScanQueue>,
}

/// The next batch of a worker, which computes it meanwhile. None at its end.
type PendingBatch = BoxFuture<'static, Result<(Worker, Option<RecordBatch>), Problem>>;

/// A scan, and the first batch of each worker.
type Started = (Arc<ScanTask>, Vec<PendingBatch>);

impl Start {
    fn step(&mut self) -> Result<StepOutcome<Started>, Problem> {
        let (scan, mut workers) = self.workers()?;
        let own = workers.pop();
        let submit = |worker| self.queue.submit(worker, Worker::step).boxed();
        let mut pending: Vec<PendingBatch> = workers.into_iter().map(submit).collect();
        if let Some(mut worker) = own {
            pending.push(match worker.step()? {
                StepOutcome::Done(batch) => future::ready(Ok((worker, batch))).boxed(),
                StepOutcome::Again => submit(worker),
            });
        }
        Ok(StepOutcome::Done((scan, pending)))
    }

    fn workers(&self) -> Result<(Arc<ScanTask>, Vec<Worker>), Problem> {
        let (view, divided) = match self.cache.divide(&self.view, &self.request) {
            Some(DividedView {
                key,
                cached,
                splits,
                rest,
            }) => (rest, Some((key, cached, splits))),
            None => (self.view.clone(), None),
        };
        let (prepared, deadline) = (self.request.prepared()?, self.request.deadline);
        let scan = Arc::new(ScanTask::new(view, prepared, self.cancelled.clone(), deadline)?);
        scan.check()?;
        let splits_to_scan = divided.as_ref().map_or(0, |(_, _, splits)| splits.len());
        let threads = self.threads_max;
        let count = scan.workers(threads).max(splits_to_scan.min(threads));
        let all_blocks = (0..count).map(|worker| Blocks::new(scan.clone(), worker, count));
        let schema = scan.schema(&scan.prepared.output);
        let worker = |stage| Worker {
            scan: scan.clone(),
            schema: schema.clone(),
            stage,
            next: None,
            has_ended: false,
        };
        let workers = match &scan.prepared.request.stage {
            Stage::Rows { limit } => {
                let rows_left = Arc::new(AtomicUsize::new(limit.unwrap_or(usize::MAX)));
                let counts_only = *limit == Some(0);
                all_blocks
                    .map(|blocks| {
                        worker(WorkerStage::Rows {
                            blocks,
                            rows_left: rows_left.clone(),
                            counts_only,
                        })
                    })
                    .collect()
            }
            Stage::Top { keys, after, limit, .. } => {
                let new = || TopK::new(keys, after.as_ref(), *limit);
                let shared = Arc::new(Mutex::new((count, new()?)));
                let collect = |blocks| {
                    Ok(worker(WorkerStage::Collect {
                        blocks,
                        top: Some(new()?),
                        shared: shared.clone(),
                    }))
                };
                all_blocks.map(collect).collect::<Result<_, Error>>()?
            }
            Stage::Partial(aggregate) => {
                let (mut cached, mut splits) = (Vec::new(), None);
                if let Some((key, states, queued)) = divided {
                    states
                        .iter()
                        .for_each(|states| scan.stats.lock().add_cached(&states.counted));
                    cached = states.iter().flat_map(|states| &states.states).cloned().collect();
                    splits = Some(Arc::new(UncachedSplits {
                        scan: scan.clone(),
                        key,
                        cache: self.cache.clone(),
                        queued: Mutex::new(queued),
                        memory: self.memory.clone(),
                    }));
                }
                let partial = |blocks| {
                    let has_rest = splits.is_none() || !scan.is_empty();
                    let rest = has_rest.then(|| Partial::new(aggregate, blocks, self.memory.clone()));
                    let shares = Shares::new(std::mem::take(&mut cached), splits.clone(), rest);
                    worker(WorkerStage::Aggregate(shares))
                };
                all_blocks.map(partial).collect()
            }
        };
        Ok((scan, workers))
    }
}

/// Cancels a scan when its stream is dropped.
struct CancelOnDrop(Arc<AtomicBool>);

impl Drop for CancelOnDrop {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// The batches of all workers as they arrive, each preceded by the progress so far, then the trailer. Ends at the first
/// problem.
fn chunks(
    scan: Arc<ScanTask>,
    pending: Vec<PendingBatch>,
    queue: &Arc<ScanQueue>,
    guard: CancelOnDrop,
) -> impl Stream<Item = Result<ScanChunk, Problem>> + use<> {
    let batches = stream::select_all(pending.into_iter().map(|first| batches(first, queue.clone()).boxed()));
    let chunks = stream::try_unfold((batches, Some(scan), guard), |(mut batches, scan, guard)| async move {
        let Some(scan) = scan else { return Ok(None) };
        let batch = batches.next().await.transpose()?;
        let mut stats = scan.stats.lock();
        stats.shipped += batch.as_ref().map_or(0, |batch| batch.num_rows() as u64);
        let trailer = stats.trailer(&scan.prepared.columns);
        drop(stats);
        Ok::<_, Problem>(Some(match batch {
            Some(batch) => (
                vec![Ok(ScanChunk::Progress(trailer)), Ok(ScanChunk::Rows(batch))],
                (batches, Some(scan), guard),
            ),
            None => (vec![Ok(ScanChunk::End(trailer))], (batches, None, guard)),
        }))
    });
    chunks.map_ok(stream::iter).try_flatten()
}

/// One worker's share of a scan. Between two steps it has no thread.
struct Worker {
    scan: Arc<ScanTask>,
    schema: SchemaRef,
    stage: WorkerStage,
    /// A batch that is ready when the reader has taken the current one.
    next: Option<RecordBatch>,
    /// Whether the current batch is its last one.
    has_ended: bool,
}

enum WorkerStage {
    /// Returns rows as they are found.
    Rows {
        blocks: Blocks,
        rows_left: Arc<AtomicUsize>,
        counts_only: bool,
    },
    /// Collects the top k rows; the last worker to finish emits them.
    Collect {
        blocks: Blocks,
        top: Option<TopK>,
        /// Number of workers that still collect, and the top k rows of those that have finished.
        shared: Arc<Mutex<(usize, TopK)>>,
    },
    Emit(TopKRows),
    /// Aggregates rows.
    Aggregate(Shares),
}

/// The batches of a worker. It computes the next batch while the reader has the current one.
fn batches(first: PendingBatch, queue: Arc<ScanQueue>) -> impl Stream<Item = Result<RecordBatch, Problem>> {
    stream::try_unfold((Some(first), queue), |(pending, queue)| async move {
        let Some(pending) = pending else { return Ok(None) };
        let (worker, batch) = pending.await?;
        let Some(batch) = batch else { return Ok(None) };
        let next = (!worker.has_ended).then(|| queue.submit(worker, Worker::step).boxed());
        Ok(Some((batch, (next, queue))))
    })
}

impl Worker {
    /// Computes a batch. A small one is mostly the last, and to find that out at once saves a step.
    fn step(&mut self) -> Result<StepOutcome<Option<RecordBatch>>, Problem> {
        if let Some(batch) = self.next.take() {
            return Ok(StepOutcome::Done(Some(batch)));
        }
        let slice_end = Instant::now() + TIME_SLICE;
        let outcome = self.advance(slice_end)?;
        let is_small = matches!(&outcome, StepOutcome::Done(Some(batch)) if batch.num_rows() < BATCH_ROWS);
        if is_small && Instant::now() < slice_end {
            match self.advance(slice_end)? {
                StepOutcome::Done(None) => self.has_ended = true,
                StepOutcome::Done(next) => self.next = next,
                StepOutcome::Again => {}
            }
        }
        Ok(outcome)
    }

    /// Computes a batch, or the part of it for which there is time.
    fn advance(&mut self, slice_end: Instant) -> Result<StepOutcome<Option<RecordBatch>>, Problem> {
        Ok(match &mut self.stage {
            WorkerStage::Rows {
                blocks,
                rows_left,
                counts_only: false,
            } => collect_rows(blocks, rows_left, &self.schema, slice_end)?,
            WorkerStage::Rows { blocks, .. } => count_rows(blocks, slice_end)?,
            WorkerStage::Collect { blocks, top, shared } => {
                let Some(own) = top else {
                    return Ok(StepOutcome::Done(None));
                };
                let StepOutcome::Done(()) = collect_top(&self.scan, blocks, own, slice_end)? else {
                    return Ok(StepOutcome::Again);
                };
                let mut shared = shared.lock();
                let (collecting, all) = &mut *shared;
                top.take().map_or(Ok(()), |own| all.merge(own))?;
                *collecting -= 1;
                if *collecting > 0 {
                    return Ok(StepOutcome::Done(None));
                }
                let top_rows = all.take_rows();
                drop(shared);
                self.stage = WorkerStage::Emit(top_rows);
                StepOutcome::Again
            }
            WorkerStage::Emit(top_rows) => {
                self.scan.check()?;
                let batch = top_rows
                    .next(&self.scan)?
                    .map(|(arrays, rows)| batch_of(&self.schema, arrays, rows))
                    .transpose()?;
                StepOutcome::Done(batch)
            }
            WorkerStage::Aggregate(shares) => shares.step()?,
        })
    }
}

/// The next batch of rows: gathers small blocks into one batch, and stops at the request's limit.
fn collect_rows(
    blocks: &mut Blocks,
    rows_left: &AtomicUsize,
    schema: &SchemaRef,
    slice_end: Instant,
) -> Result<StepOutcome<Option<RecordBatch>>, Error> {
    let mut gathered: Vec<RecordBatch> = Vec::new();
    let (mut rows, mut bytes) = (0, 0);
    while rows < BATCH_ROWS && bytes < BATCH_BYTES && (gathered.is_empty() || Instant::now() < slice_end) {
        if rows_left.load(Ordering::Relaxed) == 0 {
            break;
        }
        match blocks.next(slice_end)? {
            Next::Pause if gathered.is_empty() => return Ok(StepOutcome::Again),
            Next::Pause | Next::End => break,
            Next::Block(block) => {
                let reserved = reserve(rows_left, block.documents.len());
                let batch = batch_of(schema, block.arrays, block.documents.len())?.slice(0, reserved);
                rows += reserved;
                bytes += batch.get_array_memory_size();
                gathered.push(batch);
            }
        }
    }
    match rows {
        0 => Ok(StepOutcome::Done(None)),
        rows if schema.fields().is_empty() => Ok(StepOutcome::Done(Some(batch_of(schema, Vec::new(), rows)?))),
        _ => Ok(StepOutcome::Done(Some(concat_batches(schema, &gathered)?))),
    }
}

/// Reserves up to this many of the rows that the limit still allows; returns how many.
fn reserve(rows_left: &AtomicUsize, rows: usize) -> usize {
    let before = rows_left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| {
        Some(left.saturating_sub(rows))
    });
    before.map_or(0, |left| left.min(rows))
}

fn count_rows(blocks: &mut Blocks, slice_end: Instant) -> Result<StepOutcome<Option<RecordBatch>>, Error> {
    loop {
        match blocks.next(slice_end)? {
            Next::Block(_) if Instant::now() < slice_end => {}
            Next::Block(_) | Next::Pause => return Ok(StepOutcome::Again),
            Next::End => return Ok(StepOutcome::Done(None)),
        }
    }
}

fn collect_top(
    scan: &ScanTask,
    blocks: &mut Blocks,
    top: &mut TopK,
    slice_end: Instant,
) -> Result<StepOutcome<()>, Error> {
    loop {
        match blocks.next(slice_end)? {
            Next::Block(block) => top.offer(scan, &block)?,
            Next::Pause => return Ok(StepOutcome::Again),
            Next::End => return Ok(StepOutcome::Done(())),
        }
        if Instant::now() >= slice_end {
            return Ok(StepOutcome::Again);
        }
    }
}

fn batch_of(schema: &SchemaRef, arrays: Vec<ArrayRef>, rows: usize) -> Result<RecordBatch, Error> {
    let options = RecordBatchOptions::new().with_row_count(Some(rows));
    Ok(RecordBatch::try_new_with_options(schema.clone(), arrays, &options)?)
}
