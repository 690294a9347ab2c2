//! Opens the shards of one collection.

use plan::{
    Path,
    scan::{ScanRequest, ScanStream},
};
use proto::{Catalog, Code, CollectionName, Position, PositionVector, Problem, catalog::Collection, ingest::ShardId};

use super::CollectionViews;
use crate::query::{context::QueryContext, find_collection::find_collection};

/// Computes the scan that a query will probably ask for: of all shards of a collection with this time path.
pub(in crate::query) type ScanOfShards<'a> =
    &'a (dyn Fn(Option<Path>, Vec<ShardId>) -> Option<ScanRequest> + Send + Sync);

/// Opens every shard of a collection. Also returns the answers of the expected scan, if they are prefetched.
pub(super) async fn open_collection(
    context: &QueryContext,
    catalog: &Catalog,
    name: &CollectionName,
    at_least: &PositionVector,
    single: bool,
    expected: ScanOfShards<'_>,
) -> Result<(CollectionViews, Option<Vec<ScanStream>>), Problem> {
    let collection = find_collection(catalog, name)?;
    let time_path = time_path(collection)?;
    let expected = expected(time_path.clone(), collection.shards().collect());
    let wanted: Vec<(ShardId, PositionVector)> = collection
        .shards()
        .map(|shard| {
            let of_shard = positions_of_shard(at_least, shard.number, name, collection, catalog, single);
            (shard, of_shard)
        })
        .collect();
    let (opened, behind) = context.watermarks.open(context, &wanted, expected).await;
    let (mut shards, mut missing) = (Vec::with_capacity(wanted.len()), Vec::new());
    for ((shard, _), outcome) in wanted.into_iter().zip(opened.outcomes) {
        match outcome {
            Ok(view) => shards.push((shard, view)),
            Err(problem) if is_missing(&problem) => missing.push((shard, problem)),
            Err(problem) => return Err(problem),
        }
    }
    let collection = CollectionViews {
        name: name.clone(),
        paths: context.kinds.of(collection.uid, &shards),
        shards,
        missing,
        behind,
        time_path,
        views: opened.views,
    };
    Ok((collection, opened.prefetched))
}

/// Whether a partial answer may leave out the shard.
fn is_missing(problem: &Problem) -> bool {
    // NotFound: the leaf's catalog is outdated, or the leaf belongs to another cluster. Busy: the leaf has no room to
    // open the shard.
    matches!(
        problem.code,
        Code::Unavailable | Code::Incomplete | Code::NotFound | Code::Busy
    )
}

/// The part of `at_least` that a shard must cover: the partitions that are routed to it, of sources that feed this
/// collection. Positions of `push` count only if the query reads a single collection.
fn positions_of_shard(
    at_least: &PositionVector,
    shard: u32,
    name: &CollectionName,
    collection: &Collection,
    catalog: &Catalog,
    single: bool,
) -> PositionVector {
    let feeds_collection = |source: &proto::SourceName| match catalog.sources.get(source) {
        Some(source) => source.settings.collection == *name,
        None => single,
    };
    let of_shard = |p: Position| {
        let share = collection.route(&p.source, p.partition).share_of(shard)?;
        let offset = match p.offset {
            ..0 => p.offset,
            offset => share.required(offset)?,
        };
        Some(Position { offset, ..p })
    };
    let of_collection = at_least.iter().filter(|p| feeds_collection(&p.source));
    of_collection.filter_map(of_shard).collect()
}

fn time_path(collection: &Collection) -> Result<Option<Path>, Problem> {
    let read = |text: &String| {
        Path::parse(text).map_err(|e| {
            Problem::new(
                Code::BadRequest,
                format!("the collection has an invalid time path: {e}"),
            )
        })
    };
    collection.settings.time_path.as_ref().map(read).transpose()
}
