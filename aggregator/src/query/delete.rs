//! DELETE: finds the documents that meet a condition, once and in one read view, and has every shard hide them.
//!
//! ```text
//! condition ─ query ─ addresses ─ ranges of each shard ══changes══> its leaf: hidden, acknowledged
//!                                                      └─ catalog: every answer covers the changes from now on
//! ```
//!
//! A change says where the documents are, and not which condition they meet: so it means the same on every replica and at
//! every time. A document that arrives, or that replaces another one, while the delete runs is not deleted.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use datafusion::{
    arrow::{
        array::{AsArray as _, RecordBatch},
        datatypes::Int64Type,
    },
    physical_plan::execute_stream,
};
use futures::{StreamExt as _, TryStreamExt as _, stream};
use plan::Type;
use proto::{
    Address, Catalog, Code, CollectionName, CollectionUid, PositionVector, Problem, SourceName,
    catalog::{Change, Collection, CollectionSettings, Deletion},
    document_change::{DeletedRanges, DocumentChange},
    ingest::{CHANGE_RULES_LEVEL, Push, PushResult, ShardId},
    limits::{AUTHOR_BYTES_MAX, CHANGE_RANGES_MAX, DELETION_CONDITION_BYTES_MAX},
    place_ranges::{PlaceRanges, PlaceRangesBuilder, range_of},
    record::Rules,
    routing::{changes_partition, shard_of},
};
use serde_json::{Value, json};
use tokio::{sync::oneshot, time::Instant};
use uuid::Uuid;

use super::{
    AppendUntil, Engine, OUTCOME_WAIT_MAX,
    condition::{CONDITION, query_where},
    context::QueryContext,
    find_collection::find_collection,
    planner,
    read_views::QueryViews,
    run::{self, QueryOutput},
    statement_shape::StatementValues,
    system,
};
use crate::{
    answer::{QueryOptions, SqlQuery},
    failure,
    sql::{self, DocumentDelete},
};

/// Deletes that run at once. Each holds the ranges of its documents in memory, also after its client has gone away.
pub(super) const DELETES_AT_ONCE_MAX: usize = 4;
/// Shards that apply a delete at once.
const SHARDS_AT_ONCE_MAX: usize = 16;
/// Ranges of a removal of expired documents that are sent as they are. Of more, neighbours with nothing left between them
/// are joined: documents with keys of their own never follow one another without a gap.
const SCATTERED_RANGES_MAX: usize = 64;
/// What to do if it is not known what was deleted.
const REPEAT: &str = "repeat the delete: what it has deleted already stays deleted";

/// Why documents are deleted.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum DeleteCause {
    /// A client asks for it.
    Request,
    /// They are older than the retention of their collection. What cannot be deleted now is deleted later, so a part of
    /// the shards, or of the documents, is better than none.
    Retention {
        /// When they were too old, in milliseconds since 1970.
        as_of_ms: i64,
        /// The collection, which may be dropped meanwhile, and another one have its name.
        collection: CollectionUid,
        /// The settings that say so. Once they have changed, nothing is deleted because of them.
        settings: CollectionSettings,
    },
}

impl DeleteCause {
    /// Whether documents are still to be deleted because of it, by this catalog.
    fn is_in_force(&self, catalog: &Catalog) -> bool {
        match self {
            Self::Request => true,
            Self::Retention {
                collection, settings, ..
            } => {
                let now = catalog.collection(*collection);
                now.is_some_and(|(_, now)| now.settings == *settings)
            }
        }
    }

    /// Waits until nothing is to be deleted because of it any more.
    async fn revoked(&self, engine: &Engine) {
        let mut catalog = engine.roles.changes.catalog();
        if catalog.wait_for(|catalog| !self.is_in_force(catalog)).await.is_err() {
            // There will be no other catalog.
            std::future::pending().await
        }
    }
}

/// A delete to run.
#[derive(Debug, Clone)]
pub(crate) struct DeleteRequest {
    /// Why.
    pub cause: DeleteCause,
    /// Which documents.
    pub wanted: DocumentDelete,
    /// The values of `$1`, `$2`, … in the condition.
    pub parameters: Vec<Value>,
    /// Who deletes, as the client says.
    pub author: Option<String>,
    /// Whether the documents are only counted.
    pub dry_run: bool,
    /// Options that a query has, too.
    pub options: QueryOptions,
}

/// What was deleted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Deleted {
    /// The id of the delete in `rachis.deletes`; none if it deleted nothing.
    pub id: Option<Uuid>,
    /// The number of documents.
    pub documents: u64,
    /// Whether there are more that meet the condition, which only retention leaves for the next time.
    pub has_more: bool,
    /// Why some shards were left out, which only retention does.
    pub missing: Option<Problem>,
    /// Its position in the source of changes: an answer at it shows none of the documents.
    pub position: PositionVector,
    /// Warnings about the condition.
    pub warnings: Vec<String>,
}

/// Runs a DELETE statement. The answer says how many documents were deleted.
pub(super) async fn statement(
    engine: &Arc<Engine>,
    context: &Arc<QueryContext>,
    request: &SqlQuery,
    wanted: &DocumentDelete,
) -> Result<QueryOutput, Problem> {
    let request = DeleteRequest {
        cause: DeleteCause::Request,
        wanted: wanted.clone(),
        parameters: request.parameters.clone(),
        author: request.author.clone(),
        dry_run: false,
        options: request.options.clone(),
    };
    let (deleted, read_views) = delete(engine, context, &request).await?;
    let columns = [("deleted", Type::Int), ("position", Type::Text)];
    let row = json!({ "deleted": deleted.documents, "position": deleted.position.to_string() });
    Ok(QueryOutput {
        read_views: Some(read_views),
        ..QueryOutput::of_batch(system::batch(&columns, &[row])?)
    })
}

/// Deletes documents. When it returns, every shard has hidden them. Also returns the read views in which they were found.
pub(super) async fn delete(
    engine: &Arc<Engine>,
    context: &Arc<QueryContext>,
    request: &DeleteRequest,
) -> Result<(Deleted, QueryViews), Problem> {
    let DocumentDelete { collection, text, .. } = &request.wanted;
    let alone = match &request.cause {
        DeleteCause::Request => None,
        DeleteCause::Retention { collection, .. } => Some(engine.removal_lock(*collection).lock_owned().await),
    };
    let permit = Arc::clone(&engine.deletes).acquire_owned().await;
    let (read_views, found) = find(engine, context, request).await?;
    let documents = found.documents;
    let deleted = Deleted {
        documents,
        has_more: found.has_more,
        missing: found.missing.clone(),
        warnings: run::statistics(context, None, std::time::Instant::now()).warnings,
        ..Deleted::default()
    };
    let catalog = Arc::clone(read_views.catalog());
    let of = find_collection(&catalog, collection)?;
    if request.dry_run {
        return Ok((deleted, read_views));
    }
    if documents == 0 {
        cover_changes(engine, collection, of, &read_views).await?;
        return Ok((deleted, read_views));
    }
    let mut ranges = found.ranges();
    match &request.cause {
        DeleteCause::Request => check_count(
            ranges.values().map(PlaceRanges::len).sum(),
            engine.options.delete_ranges_max,
        )?,
        DeleteCause::Retention { collection: uid, .. } => {
            if ranges.values().map(PlaceRanges::len).sum::<usize>() > SCATTERED_RANGES_MAX {
                let left = first_left(engine, context, request, &read_views).await?;
                let complete_through = positions_of(&read_views, of, collection);
                for (partition, ranges) in &mut ranges {
                    let left = left.get(partition).copied().unwrap_or(i64::MAX);
                    // Of a partition whose records belong to several shards, one may lack records that are not expired.
                    let known = match of.route(&partition.0, partition.1).is_spread() {
                        true => complete_through.get(&partition.0, partition.1).unwrap_or(-1) + 1,
                        false => i64::MAX,
                    };
                    ranges.join_before(left.min(known));
                }
            }
            if of.uid != *uid || !request.cause.is_in_force(&engine.catalog()) {
                let detail = format!("the settings of {collection} have changed meanwhile: nothing was removed");
                return Err(Problem::new(Code::Conflict, detail));
            }
        }
    }
    let deletion = Deletion {
        id: Uuid::now_v7(),
        requested_ms: chrono::Utc::now().timestamp_millis(),
        condition: cut(text, DELETION_CONDITION_BYTES_MAX),
        documents,
        complete: deleted.missing.is_none(),
        author: request.author.as_deref().map(|author| cut(author, AUTHOR_BYTES_MAX)),
        expired: request.cause != DeleteCause::Request,
        // An earlier one may have failed before every answer covered it.
        position: changes_of(&read_views, collection),
    };
    let application = Application {
        engine: Arc::clone(engine),
        name: collection.clone(),
        collection: of.uid,
        shards: of.settings.shards,
        shards_with: shards_with_records(&read_views, collection),
        cause: request.cause.clone(),
        deletion,
    };
    // A client that goes away does not stop it half way.
    let (sender, applied) = oneshot::channel();
    engine.runtime.spawn(async move {
        let _until_applied = (permit, alone);
        let _the_client_may_be_gone = sender.send(application.apply(ranges).await);
    });
    let stopping = || Problem::new(Code::UnknownOutcome, "the node is shutting down during the delete").hint(REPEAT);
    let applied = context
        .outcome_of(REPEAT, async { applied.await.unwrap_or_else(|_| Err(stopping())) })
        .await?;
    let deleted = Deleted {
        id: Some(applied.id),
        position: applied.position,
        ..deleted
    };
    Ok((deleted, read_views))
}

fn cut(text: &str, bytes_max: usize) -> String {
    text[..text.floor_char_boundary(bytes_max)].to_owned()
}

/// Finds the documents that meet the condition, in read views of all shards.
async fn find(
    engine: &Engine,
    context: &Arc<QueryContext>,
    request: &DeleteRequest,
) -> Result<(QueryViews, FoundDocuments), Problem> {
    let DocumentDelete {
        collection,
        alias,
        condition,
        ..
    } = &request.wanted;
    let catalog = engine.catalog();
    if catalog.view(collection.as_str()).is_some() {
        let detail = format!("{collection} is a view: nothing can be deleted from it");
        return Err(Problem::new(Code::NotSupported, detail).hint("delete from the collection that it reads"));
    }
    let alias = alias.as_deref().unwrap_or(collection.as_str()).replace('"', "\"\"");
    let text = format!(
        "SELECT _source, _partition, _offset, _item, _id FROM \"{collection}\" AS \"{alias}\" WHERE {CONDITION}"
    );
    let query = query_where(&text, Some(condition))?;
    let names = sql::collections(&query, &catalog)?;
    let read_views = QueryViews::open(context, &catalog, &names, &request.options.at_least).await?;
    // Without a shard, the delete would miss documents, and its answer would not show it.
    let complete = read_views.require_complete(false);
    let complete = complete.and_then(|()| require_covered(&read_views));
    let missing = match request.cause {
        DeleteCause::Request => complete.map(|()| None)?,
        DeleteCause::Retention { .. } => complete.err(),
    };
    let resolved = sql::resolve(&query, &read_views, &request.parameters, &[])?;
    let values = StatementValues::of_parameters(&request.parameters)?;
    let planned = planner::plan(engine, context, &read_views, resolved, values, None).await?;
    let mut rows = execute_stream(planned.executable.physical, planned.executable.task).map_err(failure::problem)?;
    let ranges_max = engine.options.delete_ranges_max;
    let mut found = FoundDocuments {
        missing,
        ..FoundDocuments::default()
    };
    while let Some(batch) = rows.try_next().await.map_err(failure::problem)? {
        if request.cause != DeleteCause::Request {
            found.has_more = found.documents > 0 && found.ranges_max() + batch.num_rows() > ranges_max;
            if found.has_more {
                break;
            }
        }
        found.add(&batch)?;
        if request.cause == DeleteCause::Request {
            // The builders count ranges that will be joined.
            check_count(found.ranges_max() / 2, ranges_max)?;
        }
    }
    drop(rows);
    Ok((read_views, found))
}

/// The offset of the first document in each partition that does not meet the condition: it is not deleted.
async fn first_left(
    engine: &Engine,
    context: &Arc<QueryContext>,
    request: &DeleteRequest,
    read_views: &QueryViews,
) -> Result<BTreeMap<(SourceName, i32), i64>, Problem> {
    let DocumentDelete {
        collection, condition, ..
    } = &request.wanted;
    let text = format!(
        "SELECT _source, _partition, min(_offset) FROM \"{collection}\" WHERE {CONDITION} IS NOT TRUE GROUP BY 1, 2"
    );
    let query = query_where(&text, Some(condition))?;
    let resolved = sql::resolve(&query, read_views, &request.parameters, &[])?;
    let values = StatementValues::of_parameters(&request.parameters)?;
    let planned = planner::plan(engine, context, read_views, resolved, values, None).await?;
    let mut rows = execute_stream(planned.executable.physical, planned.executable.task).map_err(failure::problem)?;
    let mut first = BTreeMap::new();
    while let Some(batch) = rows.try_next().await.map_err(failure::problem)? {
        let sources = batch.column(0).as_string_view();
        let [partitions, offsets] = [1, 2].map(|column| batch.column(column).as_primitive::<Int64Type>());
        for row in 0..batch.num_rows() {
            first.insert(
                partition_of(sources.value(row), partitions.value(row))?,
                offsets.value(row),
            );
        }
    }
    Ok(first)
}

fn partition_of(source: &str, number: i64) -> Result<(SourceName, i32), Problem> {
    let internal = |detail: String| Problem::new(Code::Internal, detail);
    let source = source
        .parse()
        .map_err(|e: proto::address::Malformed| internal(e.to_string()))?;
    Ok((source, i32::try_from(number).map_err(|e| internal(e.to_string()))?))
}

/// Fails if a shard may lack what was acknowledged: it would show again what is deleted now.
fn require_covered(read_views: &QueryViews) -> Result<(), Problem> {
    let mut behind = read_views
        .collections()
        .iter()
        .flat_map(|collection| &collection.behind);
    behind.next().map_or(Ok(()), |(_, why)| {
        let problem = Problem::new(Code::Incomplete, format!("{why}: nothing is deleted"));
        Err(problem.hint("retry once it has caught up: see rachis.sources"))
    })
}

/// Has every answer cover the changes that these read views contain. An earlier delete may have failed before it did so,
/// and its repetition finds nothing that is left to delete.
async fn cover_changes(
    engine: &Engine,
    name: &CollectionName,
    collection: &Collection,
    read_views: &QueryViews,
) -> Result<(), Problem> {
    let position = changes_of(read_views, name);
    if collection.changed_through.covers(&position) {
        return Ok(());
    }
    let change = Change::CoverChanges {
        collection: collection.uid,
        position,
    };
    engine.change_catalog(change).await.map(drop)
}

/// The changes that the read views of a collection contain.
fn changes_of(read_views: &QueryViews, name: &CollectionName) -> PositionVector {
    let views = read_views.collection(name).into_iter();
    let positions = views
        .flat_map(|collection| &collection.shards)
        .flat_map(|(_, view)| view.positions.iter());
    positions.filter(|position| position.source.is_changes()).collect()
}

/// The shards that have records of each partition, as the read views show it.
fn shards_with_records(read_views: &QueryViews, name: &CollectionName) -> BTreeMap<(SourceName, i32), BTreeSet<u32>> {
    let mut shards: BTreeMap<(SourceName, i32), BTreeSet<u32>> = BTreeMap::new();
    let views = read_views.collection(name).into_iter();
    for (shard, view) in views.flat_map(|collection| &collection.shards) {
        for position in view.positions.iter() {
            let of = shards.entry((position.source, position.partition)).or_default();
            of.insert(shard.number);
        }
    }
    shards
}

/// Through which offset the read views have all records of each partition.
fn positions_of(read_views: &QueryViews, collection: &Collection, name: &CollectionName) -> PositionVector {
    let views = read_views.collection(name).into_iter();
    let shards = views.flat_map(|collection| &collection.shards);
    collection.merged_positions(shards.map(|(shard, view)| (shard.number, &view.positions)))
}

/// The documents that were found, as ranges of places.
#[derive(Default)]
struct FoundDocuments {
    documents: u64,
    /// Whether there are more.
    has_more: bool,
    /// Why some shards were left out.
    missing: Option<Problem>,
    partitions: BTreeMap<(SourceName, i32), PlaceRangesBuilder>,
}

impl FoundDocuments {
    /// Adds rows of source, partition, offset, item and id.
    fn add(&mut self, rows: &RecordBatch) -> Result<(), Problem> {
        let internal = |detail: String| Problem::new(Code::Internal, detail);
        let (sources, ids) = (rows.column(0).as_string_view(), rows.column(4).as_string_view());
        let int = |column: usize| rows.column(column).as_primitive::<Int64Type>();
        let (partitions, offsets, items) = (int(1), int(2), int(3));
        let mut row = 0;
        while row < rows.num_rows() {
            let partition = partition_of(sources.value(row), partitions.value(row))?;
            let has_items = partition.0.is_own();
            let builder = self.partitions.entry(partition).or_default();
            let first = row;
            let is_same = |row: usize| {
                sources.value(row) == sources.value(first) && partitions.value(row) == partitions.value(first)
            };
            while row < rows.num_rows() && is_same(row) {
                let item = u32::try_from(items.value(row)).map_err(|e| internal(e.to_string()))?;
                let item = (has_items && !is_alone(item, ids.value(row))).then_some(item);
                builder.add(range_of(offsets.value(row), item));
                row += 1;
            }
        }
        self.documents += rows.num_rows() as u64;
        Ok(())
    }

    /// The number of ranges, or more.
    fn ranges_max(&self) -> usize {
        self.partitions.values().map(PlaceRangesBuilder::len_max).sum()
    }

    fn ranges(self) -> DeletedRanges {
        let partitions = self.partitions.into_iter();
        partitions
            .map(|(partition, ranges)| (partition, ranges.finish()))
            .collect()
    }
}

fn check_count(ranges: usize, ranges_max: usize) -> Result<(), Problem> {
    if ranges <= ranges_max {
        return Ok(());
    }
    let detail = format!("the documents to delete lie in more than {ranges_max} ranges");
    Err(Problem::new(Code::LimitReached, detail)
        .hint("delete them in parts: add a condition on _time or _ingested, and repeat it for the next part"))
}

/// Whether a document of an own source is the only one of its record, so far as its id tells: without a key, the id is the
/// address.
fn is_alone(item: u32, id: &str) -> bool {
    item == 0 && id.parse::<Address>().is_ok_and(|address| address.item.is_none())
}

/// Applies a delete to all shards.
struct Application {
    engine: Arc<Engine>,
    name: CollectionName,
    collection: CollectionUid,
    shards: u32,
    /// The shards that have records of each partition.
    shards_with: BTreeMap<(SourceName, i32), BTreeSet<u32>>,
    cause: DeleteCause,
    deletion: Deletion,
}

impl Application {
    async fn apply(mut self, ranges: DeletedRanges) -> Result<Deletion, Problem> {
        let until = Instant::now() + OUTCOME_WAIT_MAX;
        let until = AppendUntil {
            retried: until,
            outcome: until,
        };
        let shards_of = |source: &SourceName, partition: i32| {
            let with_records = self.shards_with.get(&(source.clone(), partition));
            with_records
                .cloned()
                .unwrap_or_else(|| BTreeSet::from([shard_of(source, partition, self.shards)]))
        };
        let by_shard = records_of_shards(ranges, shards_of, CHANGE_RANGES_MAX).into_iter();
        let sends: Vec<_> = by_shard
            .map(|(shard, records)| self.send(shard, records, until))
            .collect();
        let sent: Vec<Result<PositionVector, FailedAppend>> =
            stream::iter(sends).buffer_unordered(SHARDS_AT_ONCE_MAX).collect().await;
        let (mut failed, mut any_sent): (Option<Problem>, bool) = (None, false);
        for sent in sent {
            match sent {
                Ok(positions) => {
                    any_sent = true;
                    self.deletion.position.merge(&positions);
                }
                Err(failure) => {
                    any_sent |= !failure.sent.is_empty();
                    self.deletion.position.merge(&failure.sent);
                    // Of several, one that says that something may be deleted.
                    failed = Some(match failed {
                        Some(first) if failure.problem.code != Code::UnknownOutcome => first,
                        _ => failure.problem,
                    });
                }
            }
        }
        self.deletion.complete &= failed.is_none();
        if any_sent {
            self.record().await?;
        }
        failed.map_or(Ok(self.deletion), |problem| Err(problem_of(problem, any_sent)))
    }

    /// Has every answer cover what shards have applied, from now on.
    async fn record(&self) -> Result<(), Problem> {
        let change = Change::AddDeletion {
            collection: self.collection,
            deletion: self.deletion.clone(),
        };
        self.engine.change_catalog(change).await.map_err(|problem| {
            let detail = format!(
                "shards have deleted documents, but the catalog could not record it: {}",
                problem.detail
            );
            Problem::new(Code::UnknownOutcome, detail)
                .hint("repeat the delete once the change log is healthy, see GET /healthz")
        })?;
        Ok(())
    }

    /// The change that deletes documents in these ranges.
    fn change(&self, ranges: DeletedRanges) -> DocumentChange {
        match self.cause {
            DeleteCause::Request => DocumentChange::Delete(ranges),
            DeleteCause::Retention { as_of_ms, .. } => DocumentChange::Expire { ranges, as_of_ms },
        }
    }

    /// Appends the records of a shard, one after another.
    async fn send(
        &self,
        number: u32,
        records: Vec<DeletedRanges>,
        until: AppendUntil,
    ) -> Result<PositionVector, FailedAppend> {
        let mut positions = PositionVector::default();
        for record in records {
            let push = Push {
                shard: ShardId {
                    collection: self.collection,
                    number,
                },
                source: SourceName::changes(),
                partition: changes_partition(number, self.shards),
                rules: Rules::default(),
                request: None,
                time_ms: self.deletion.requested_ms,
                level: CHANGE_RULES_LEVEL,
                items: vec![self.change(record).encode()],
            };
            let appended = tokio::select! {
                biased;
                () = self.cause.revoked(&self.engine) => {
                    let detail = format!("the settings of {} have changed meanwhile", self.name);
                    Err(Problem::new(Code::UnknownOutcome, detail))
                }
                appended = self.engine.append(&self.name, push, until) => appended,
            };
            match appended.and_then(accepted) {
                Ok(appended) => positions.merge(&PositionVector::from_iter([appended.position])),
                Err(problem) => {
                    return Err(FailedAppend {
                        sent: positions,
                        problem,
                    });
                }
            }
        }
        Ok(positions)
    }
}

/// Fails if the shard has rejected the change: the clock of this node runs ahead, or the releases differ.
fn accepted(appended: PushResult) -> Result<PushResult, Problem> {
    match appended.errors.first() {
        None => Ok(appended),
        Some(error) => {
            let detail = format!("the shard has rejected the change: {}", error.detail);
            Err(Problem::new(Code::Conflict, detail)
                .hint("check the clocks of all nodes, and that all run the same release"))
        }
    }
}

/// What each shard has to delete, in records of at most `ranges_max` ranges. Each shard of a partition gets all its ranges.
fn records_of_shards(
    ranges: DeletedRanges,
    shards_of: impl Fn(&SourceName, i32) -> BTreeSet<u32>,
    ranges_max: usize,
) -> BTreeMap<u32, Vec<DeletedRanges>> {
    let mut by_shard: BTreeMap<u32, Vec<DeletedRanges>> = BTreeMap::new();
    let of_shards = ranges.into_iter().flat_map(|((source, partition), ranges)| {
        let shards = shards_of(&source, partition).into_iter();
        shards
            .map(move |shard| (shard, source.clone(), partition, ranges.clone()))
            .collect::<Vec<_>>()
    });
    for (shard, source, partition, mut ranges) in of_shards {
        let records = by_shard.entry(shard).or_default();
        while !ranges.is_empty() {
            let taken = |record: &DeletedRanges| record.values().map(PlaceRanges::len).sum::<usize>();
            let room = records.last().map_or(0, |record| ranges_max - taken(record));
            match records.last_mut().filter(|_| room > 0) {
                Some(record) => drop(record.insert((source.clone(), partition), ranges.split_first(room))),
                None => records.push(DeletedRanges::new()),
            }
        }
    }
    by_shard
}

/// Why the records of a shard could not all be appended.
struct FailedAppend {
    problem: Problem,
    /// The positions of those that were.
    sent: PositionVector,
}

/// The problem of a delete that failed, perhaps after a part of it.
fn problem_of(problem: Problem, any_sent: bool) -> Problem {
    if any_sent {
        let detail = format!("only some of the documents are deleted: {}", problem.detail);
        return Problem::new(Code::UnknownOutcome, detail).hint(REPEAT);
    }
    match problem.code {
        Code::UnknownOutcome => Problem::new(
            Code::UnknownOutcome,
            format!("the documents may or may not be deleted: {}", problem.detail),
        )
        .hint(REPEAT),
        _ => problem,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pushed_document_is_alone_in_its_record_only_if_its_id_says_so() {
        assert!(is_alone(0, "push/0@7"));
        for (item, id) in [(0, "push/0@7.0"), (1, "push/0@7.1"), (0, "bob"), (0, "")] {
            assert!(!is_alone(item, id), "{item} {id}");
        }
    }

    #[test]
    fn a_large_delete_is_several_records_which_have_every_range_once() {
        let alone = |count: i64| -> PlaceRanges { (0..count).map(|number| range_of(2 * number, None)).collect() };
        let partitions = (0..8).map(|number| (("clicks".parse().expect("a name"), number), alone(205)));
        let ranges: DeletedRanges = partitions.collect();
        let home = |source: &SourceName, partition| BTreeSet::from([shard_of(source, partition, 4)]);
        let records = records_of_shards(ranges.clone(), home, 100);
        assert_eq!(records.len(), 4);
        let mut again = DeletedRanges::new();
        for (shard, records) in records {
            assert_eq!(records.len(), 5, "shard {shard}");
            for record in records {
                assert!(record.values().map(PlaceRanges::len).sum::<usize>() <= 100);
                for (partition, ranges) in record {
                    assert_eq!(shard_of(&partition.0, partition.1, 4), shard);
                    let known = again.entry(partition).or_default();
                    let before = known.len();
                    known.add(&ranges);
                    assert_eq!(known.len(), before + ranges.len());
                }
            }
        }
        assert_eq!(again, ranges);
    }
}
