//! Scan: one request over one pinned view -> rows, the best rows, or partial aggregates, and a trailer.
//!
//! ```text
//! request ─ prepared ─ units ─ index: candidates ─ blocks: columns | raw documents ─ filter ─ rows | top | partial ─ chunks, trailer
//! ```
//!
//! At most two threads of the leaf's pool work on a scan, one batch ahead of whoever reads the stream. Dropping the
//! stream stops the work at its next block.

mod blocks;
mod filter;
mod partial;
mod pool;
mod prepared;
mod tally;
mod top;

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
use plan::scan::{Chunk, ScanRequest, ScanStream, Stage};
use proto::Problem;

pub use filter::Index;
pub use pool::ScanPool;

use self::{
    blocks::{Blocks, Next},
    partial::Partial,
    pool::{Queue, Turn},
    prepared::Prepared,
    top::{Best, Winners},
};
use crate::{error::Error, view::View};

/// How long a scan keeps a thread while others wait for it.
const SLICE: Duration = Duration::from_millis(20);
/// Rows of a batch that comes back, unless their bytes or the time slice end it before.
const BATCH_ROWS: usize = 4_096;
/// Bytes of such a batch.
const BATCH_BYTES: usize = 1 << 20;

/// Scans a view. The work begins when the stream is first read.
pub fn run(view: View, request: ScanRequest, pool: &ScanPool) -> ScanStream {
    let (queue, threads) = (pool.queue(), pool.threads());
    let guard = CancelOnDrop(Arc::default());
    let asked = (view, request, threads, pool.memory(), guard.0.clone());
    let chunks = async move {
        let workers = queue.work(asked, |(view, request, threads, memory, cancelled)| {
            Turn::Done(workers(
                view.clone(),
                request.clone(),
                *threads,
                memory,
                cancelled.clone(),
            ))
        });
        let (_, workers) = workers.await?;
        let (scan, workers) = workers?;
        Ok::<_, Problem>(chunks(scan, workers, &queue, guard))
    };
    chunks.try_flatten_stream().boxed()
}

/// Stops the work of a scan when its stream is dropped.
struct CancelOnDrop(Arc<AtomicBool>);

impl Drop for CancelOnDrop {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

fn workers(
    view: View,
    request: ScanRequest,
    threads: usize,
    memory: &Arc<RuntimeEnv>,
    cancelled: Arc<AtomicBool>,
) -> Result<(Arc<Prepared>, Vec<Worker>), Problem> {
    let scan = Arc::new(Prepared::new(view, request, cancelled)?);
    scan.check()?;
    let count = scan.workers(threads);
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
                    worker(Work::Rows {
                        blocks,
                        rows_left: rows_left.clone(),
                        counts_only,
                    })
                })
                .collect()
        }
        Stage::Top { keys, after, limit } => {
            let new = || Best::new(keys, after.as_ref(), *limit);
            let together = Arc::new(Mutex::new((count, new()?)));
            let look = |blocks| {
                Ok(worker(Work::Look {
                    blocks,
                    best: Some(new()?),
                    together: together.clone(),
                }))
            };
            all_blocks.map(look).collect::<Result<_, Error>>()?
        }
        Stage::Partial(aggregate) => {
            let partial = |blocks| Ok(worker(Work::Partial(Partial::new(aggregate, blocks, memory.clone())?)));
            all_blocks.map(partial).collect::<Result<_, Error>>()?
        }
    };
    Ok((scan, workers))
}

/// The batches of all workers as they come, each behind what was read so far, then the trailer. Ends at the first
/// problem.
fn chunks(
    scan: Arc<Prepared>,
    workers: Vec<Worker>,
    queue: &Arc<Queue>,
    guard: CancelOnDrop,
) -> impl Stream<Item = Result<Chunk, Problem>> + use<> {
    let batches = stream::select_all(workers.into_iter().map(|worker| worker.batches(queue.clone()).boxed()));
    let chunks = stream::try_unfold((batches, Some(scan), guard), |(mut batches, scan, guard)| async move {
        let Some(scan) = scan else { return Ok(None) };
        let batch = batches.next().await.transpose()?;
        let mut tally = scan.tally.lock();
        tally.shipped += batch.as_ref().map_or(0, |batch| batch.num_rows() as u64);
        let trailer = tally.trailer(&scan.columns);
        drop(tally);
        Ok::<_, Problem>(Some(match batch {
            Some(batch) => (
                vec![Ok(Chunk::SoFar(trailer)), Ok(Chunk::Rows(batch))],
                (batches, Some(scan), guard),
            ),
            None => (vec![Ok(Chunk::End(trailer))], (batches, None, guard)),
        }))
    });
    chunks.map_ok(stream::iter).try_flatten()
}

/// One of the threads that work on a scan, while it has one.
struct Worker {
    scan: Arc<Prepared>,
    schema: SchemaRef,
    stage: Work,
}

enum Work {
    /// Rows come back as they are found.
    Rows {
        blocks: Blocks,
        rows_left: Arc<AtomicUsize>,
        counts_only: bool,
    },
    /// The best rows are looked for; the last worker to end tells them.
    Look {
        blocks: Blocks,
        best: Option<Best>,
        together: Arc<Mutex<(usize, Best)>>,
    },
    /// The best rows are told.
    Tell(Winners),
    /// Rows go into an aggregate.
    Partial(Partial),
}

impl Worker {
    /// Its batches; the next one is worked on while this one is read.
    fn batches(self, queue: Arc<Queue>) -> impl Stream<Item = Result<RecordBatch, Problem>> {
        let first = queue.work(self, Worker::turn).boxed();
        stream::try_unfold((first, queue), |(coming, queue)| async move {
            let (worker, batch) = coming.await?;
            let batch: Option<RecordBatch> = batch?;
            Ok(batch.map(|batch| (batch, (queue.work(worker, Worker::turn).boxed(), queue))))
        })
    }

    fn turn(&mut self) -> Turn<Result<Option<RecordBatch>, Problem>> {
        match self.try_turn(Instant::now() + SLICE) {
            Ok(Turn::Again) => Turn::Again,
            Ok(Turn::Done(batch)) => Turn::Done(Ok(batch)),
            Err(error) => Turn::Done(Err(error.into())),
        }
    }

    fn try_turn(&mut self, slice_end: Instant) -> Result<Turn<Option<RecordBatch>>, Error> {
        match &mut self.stage {
            Work::Rows {
                blocks,
                rows_left,
                counts_only: false,
            } => rows(blocks, rows_left, &self.schema, slice_end),
            Work::Rows { blocks, .. } => count(blocks, slice_end),
            Work::Look { blocks, best, together } => {
                let Some(mine) = best else { return Ok(Turn::Done(None)) };
                let Turn::Done(()) = look(&self.scan, blocks, mine, slice_end)? else {
                    return Ok(Turn::Again);
                };
                let mut together = together.lock();
                let (looking, all) = &mut *together;
                best.take().map_or(Ok(()), |mine| all.absorb(mine))?;
                *looking -= 1;
                if *looking > 0 {
                    return Ok(Turn::Done(None));
                }
                let winners = all.winners();
                drop(together);
                self.stage = Work::Tell(winners);
                Ok(Turn::Again)
            }
            Work::Tell(winners) => {
                self.scan.check()?;
                let batch = winners
                    .next(&self.scan)?
                    .map(|(arrays, rows)| batch_of(&self.schema, arrays, rows))
                    .transpose()?;
                Ok(Turn::Done(batch))
            }
            Work::Partial(partial) => partial.turn(),
        }
    }
}

/// Small finds are gathered to one batch. No more is looked for than is still asked.
fn rows(
    blocks: &mut Blocks,
    rows_left: &AtomicUsize,
    schema: &SchemaRef,
    slice_end: Instant,
) -> Result<Turn<Option<RecordBatch>>, Error> {
    let mut gathered: Vec<RecordBatch> = Vec::new();
    let (mut rows, mut bytes) = (0, 0);
    while rows < BATCH_ROWS && bytes < BATCH_BYTES && (gathered.is_empty() || Instant::now() < slice_end) {
        if rows_left.load(Ordering::Relaxed) == 0 {
            break;
        }
        match blocks.next(slice_end)? {
            Next::Pause if gathered.is_empty() => return Ok(Turn::Again),
            Next::Pause | Next::End => break,
            Next::Found(found) => {
                let reserved = reserve(rows_left, found.documents.len());
                let batch = batch_of(schema, found.arrays, found.documents.len())?.slice(0, reserved);
                rows += reserved;
                bytes += batch.get_array_memory_size();
                gathered.push(batch);
            }
        }
    }
    match rows {
        0 => Ok(Turn::Done(None)),
        rows if schema.fields().is_empty() => Ok(Turn::Done(Some(batch_of(schema, Vec::new(), rows)?))),
        _ => Ok(Turn::Done(Some(concat_batches(schema, &gathered)?))),
    }
}

/// Takes at most so many of the rows that are still asked for.
fn reserve(rows_left: &AtomicUsize, rows: usize) -> usize {
    let before = rows_left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| {
        Some(left.saturating_sub(rows))
    });
    before.map_or(0, |left| left.min(rows))
}

fn count(blocks: &mut Blocks, slice_end: Instant) -> Result<Turn<Option<RecordBatch>>, Error> {
    loop {
        match blocks.next(slice_end)? {
            Next::Found(_) if Instant::now() < slice_end => {}
            Next::Found(_) | Next::Pause => return Ok(Turn::Again),
            Next::End => return Ok(Turn::Done(None)),
        }
    }
}

fn look(scan: &Prepared, blocks: &mut Blocks, best: &mut Best, slice_end: Instant) -> Result<Turn<()>, Error> {
    loop {
        match blocks.next(slice_end)? {
            Next::Found(found) => best.offer(scan, &found)?,
            Next::Pause => return Ok(Turn::Again),
            Next::End => return Ok(Turn::Done(())),
        }
        if Instant::now() >= slice_end {
            return Ok(Turn::Again);
        }
    }
}

fn batch_of(schema: &SchemaRef, arrays: Vec<ArrayRef>, rows: usize) -> Result<RecordBatch, Error> {
    let options = RecordBatchOptions::new().with_row_count(Some(rows));
    Ok(RecordBatch::try_new_with_options(schema.clone(), arrays, &options)?)
}
