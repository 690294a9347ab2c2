//! Scan: one request over one pinned view -> rows, the top k rows, or partial aggregates, and a trailer.
//!
//! ```text
//! request ─ task ─ units ─ index: candidates ─ blocks: columns | raw documents ─ filter
//!                                                    rows | top-k | partial ─ chunks, trailer
//! ```
//!
//! At most two threads of the leaf's pool work on a scan, one batch ahead of the reader of the stream. Dropping the
//! stream cancels the work at its next block.

mod best_keys;
mod blocks;
mod filter;
mod partial;
mod pool;
mod state_cache;
mod stats;
mod task;
mod top_k;

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
use futures::{FutureExt, Stream, StreamExt, TryFutureExt, TryStreamExt, stream};
use parking_lot::Mutex;
use plan::scan::{ScanChunk, ScanRequest, ScanStream, Stage};
use proto::Problem;

pub(crate) use pool::ScanPool;

use self::{
    blocks::{Blocks, Next},
    partial::{Partial, Shares, UnknownSplits},
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
/// Threads that work on one scan.
const WORKERS_MAX: usize = 2;
/// Bytes of a returned batch.
const BATCH_BYTES: usize = 1 << 20;

/// Scans a view. The work begins when the stream is first polled.
pub(crate) fn run(view: ReadView, request: ScanRequest, pool: &ScanPool) -> ScanStream {
    let queue = pool.queue.clone();
    let guard = CancelOnDrop(Arc::default());
    let states = (pool.memory.clone(), pool.states.clone());
    let input = (view, request, pool.threads_max, states, guard.0.clone());
    let chunks = async move {
        let workers = queue.submit(input, |(view, request, threads, states, cancelled)| {
            workers(view.clone(), request.clone(), *threads, states, cancelled.clone()).map(StepOutcome::Done)
        });
        let (_, (scan, workers)) = workers.await?;
        Ok::<_, Problem>(chunks(scan, workers, &queue, guard))
    };
    chunks.try_flatten_stream().boxed()
}

/// Cancels a scan when its stream is dropped.
struct CancelOnDrop(Arc<AtomicBool>);

impl Drop for CancelOnDrop {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

fn workers(
    view: ReadView,
    request: ScanRequest,
    threads: usize,
    (memory, cache): &(Arc<RuntimeEnv>, Arc<StateCache>),
    cancelled: Arc<AtomicBool>,
) -> Result<(Arc<ScanTask>, Vec<Worker>), Problem> {
    let divided = cache.divide(&view, &request);
    let (view, divided) = match divided {
        Some(DividedView {
            key,
            known,
            splits,
            rest,
        }) => (rest, Some((key, known, splits))),
        None => (view, None),
    };
    let scan = Arc::new(ScanTask::new(view, request, cancelled)?);
    scan.check()?;
    let splits_to_scan = divided.as_ref().map_or(0, |(_, _, splits)| splits.len());
    let count = scan.workers(threads).max(splits_to_scan.min(threads).min(WORKERS_MAX));
    let all_blocks = (0..count).map(|worker| Blocks::new(scan.clone(), worker, count));
    let schema = scan.schema(&scan.output);
    let worker = |stage| Worker {
        scan: scan.clone(),
        schema: schema.clone(),
        stage,
    };
    let workers = match &scan.request.stage {
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
            let (mut known, mut splits) = (Vec::new(), None);
            if let Some((key, states, waiting)) = divided {
                states
                    .iter()
                    .for_each(|states| scan.stats.lock().add_cached(&states.counted));
                known = states.iter().flat_map(|states| &states.states).cloned().collect();
                splits = Some(Arc::new(UnknownSplits {
                    scan: scan.clone(),
                    key,
                    cache: cache.clone(),
                    waiting: Mutex::new(waiting),
                    memory: memory.clone(),
                }));
            }
            let partial = |blocks| {
                let rest = Partial::new(aggregate, blocks, memory.clone())?;
                let shares = Shares::new(std::mem::take(&mut known), splits.clone(), rest);
                Ok(worker(WorkerStage::Aggregate(shares)))
            };
            all_blocks.map(partial).collect::<Result<_, Error>>()?
        }
    };
    Ok((scan, workers))
}

/// The batches of all workers as they arrive, each preceded by the progress so far, then the trailer. Ends at the first
/// problem.
fn chunks(
    scan: Arc<ScanTask>,
    workers: Vec<Worker>,
    queue: &Arc<ScanQueue>,
    guard: CancelOnDrop,
) -> impl Stream<Item = Result<ScanChunk, Problem>> + use<> {
    let batches = stream::select_all(workers.into_iter().map(|worker| worker.batches(queue.clone()).boxed()));
    let chunks = stream::try_unfold((batches, Some(scan), guard), |(mut batches, scan, guard)| async move {
        let Some(scan) = scan else { return Ok(None) };
        let batch = batches.next().await.transpose()?;
        let mut stats = scan.stats.lock();
        stats.shipped += batch.as_ref().map_or(0, |batch| batch.num_rows() as u64);
        let trailer = stats.trailer(&scan.columns);
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

impl Worker {
    /// The worker's batches. It computes the next batch while the reader has the current one.
    fn batches(self, queue: Arc<ScanQueue>) -> impl Stream<Item = Result<RecordBatch, Problem>> {
        let first = queue.submit(self, Worker::step).boxed();
        stream::try_unfold((first, queue), |(pending, queue)| async move {
            let (worker, batch) = pending.await?;
            Ok(batch.map(|batch| (batch, (queue.submit(worker, Worker::step).boxed(), queue))))
        })
    }

    fn step(&mut self) -> Result<StepOutcome<Option<RecordBatch>>, Problem> {
        let slice_end = Instant::now() + TIME_SLICE;
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
