//! Tables of what leaves and tailers say of themselves.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Instant,
};

use futures::future::join_all;
use plan::scan::FieldStatus;
use proto::{
    Code, CollectionName, Problem, SourceName,
    catalog::Collection,
    ingest::{PartitionStatus, ShardId},
    status::{SourceState, TailStatus},
};

use super::{
    super::{Engine, Tails, pins::no_collection},
    cell::{Cell, sql_name},
};

/// Dead letters that are looked at, over all shards; the newest ones.
const DEAD_LETTERS_MAX: usize = 10_000;

/// `rachis.collections`.
pub(super) async fn collections(engine: &Engine) -> Result<Vec<Vec<Cell>>, Problem> {
    let catalog = engine.catalog();
    let mut rows = Vec::new();
    for (name, collection) in &catalog.collections {
        // Of a collection whose leaf is away, what is agreed on is known, and no more.
        let partitions = match engine.roles.leaf.partitions(collection.uid).await {
            Err(problem) if problem.code == Code::Unavailable => None,
            answer => Some(answer?),
        };
        let sum = |of: fn(&PartitionStatus) -> u64| partitions.as_ref().map_or(Cell::Int(None), |all| Cell::count(all.iter().map(of).sum()));
        rows.push(vec![
            Cell::text(name.as_str()),
            Cell::text(collection.uid.to_string()),
            Cell::count(collection.version),
            Cell::count(u64::from(collection.settings.shards)),
            Cell::Text(collection.settings.time_path.clone()),
            sum(|partition| partition.outcomes.documents),
            sum(|partition| partition.outcomes.bytes),
        ]);
    }
    Ok(rows)
}

/// `rachis.sources`: a row per partition that a tailer reads or a leaf holds.
pub(super) async fn sources(engine: &Engine) -> Result<Vec<Vec<Cell>>, Problem> {
    type Row = (Option<TailStatus>, Option<PartitionStatus>);
    let catalog = engine.catalog();
    let mut rows: BTreeMap<(CollectionName, SourceName, Option<i32>), Row> = BTreeMap::new();
    let Tails { rows: tails, away } = engine.tails().await?;
    for tail in tails {
        let at = (tail.collection.clone(), tail.source.clone(), tail.partition);
        rows.entry(at).or_default().0 = Some(tail);
    }
    for (name, source) in catalog.sources.iter().filter(|_| away.is_some()) {
        rows.entry((source.settings.collection.clone(), name.clone(), None)).or_default();
    }
    for (name, collection) in &catalog.collections {
        match engine.roles.leaf.partitions(collection.uid).await {
            Ok(partitions) => {
                for held in partitions {
                    let at = (name.clone(), held.position.source.clone(), Some(held.position.partition));
                    rows.entry(at).or_default().1 = Some(held);
                }
            }
            // What tailers say is most wanted while a leaf is away.
            Err(problem) => {
                let of_it = rows.iter_mut().filter(|((collection, ..), _)| collection == name);
                of_it.filter_map(|(_, (tail, _))| tail.as_mut()).for_each(|tail| {
                    tail.error.get_or_insert_with(|| problem.to_string());
                });
            }
        }
    }
    // While the partitions of a source are not read (its broker is away, it is suspended), what holds of the source holds of each.
    let whole: BTreeMap<(CollectionName, SourceName), TailStatus> = rows
        .iter()
        .filter_map(|((collection, source, partition), (tail, _))| {
            let tail = tail.clone().filter(|_| partition.is_none())?;
            Some(((collection.clone(), source.clone()), tail))
        })
        .collect();
    let held_somewhere: BTreeSet<(CollectionName, SourceName)> =
        rows.keys().filter(|(_, _, partition)| partition.is_some()).map(|(collection, source, _)| (collection.clone(), source.clone())).collect();
    let shown = rows
        .iter()
        .filter(|((collection, source, partition), _)| partition.is_some() || !held_somewhere.contains(&(collection.clone(), source.clone())));
    let row = |((collection, source, partition), (tail, held)): (&(CollectionName, SourceName, Option<i32>), &Row)| {
        let tail = tail.as_ref().or_else(|| whole.get(&(collection.clone(), source.clone())));
        source_row(collection, source, *partition, tail, held.as_ref(), away.as_deref())
    };
    Ok(shown.map(row).collect())
}

fn source_row(
    collection: &CollectionName,
    source: &SourceName,
    partition: Option<i32>,
    tail: Option<&TailStatus>,
    held: Option<&PartitionStatus>,
    away: Option<&str>,
) -> Vec<Cell> {
    let outcome = |count: fn(&proto::ingest::Outcomes) -> u64| held.map_or(Cell::Int(Some(0)), |held| Cell::count(count(&held.outcomes)));
    // A push has no tail to be behind of: what was acknowledged is in.
    let pushed = held.filter(|_| source.is_push() && away.is_none()).map(|_| SourceState::CaughtUp.word());
    vec![
        Cell::text(collection.as_str()),
        Cell::text(source.as_str()),
        Cell::Int(partition.map(i64::from)),
        Cell::Text(tail.map(|tail| tail.state.word()).or(pushed).map(Into::into)),
        Cell::Int(held.map(|held| held.position.offset)),
        Cell::Int(tail.and_then(|tail| tail.end)),
        Cell::Int(tail.and_then(|tail| tail.lag)),
        Cell::Time(held.and_then(|held| held.last_record_ms)),
        Cell::Time(held.and_then(|held| held.last_ingested_ms)),
        outcome(|o| o.events),
        outcome(|o| o.accepted),
        outcome(|o| o.tombstones),
        outcome(|o| o.duplicates),
        outcome(|o| o.dead_letters),
        outcome(|o| o.superseded),
        outcome(|o| o.deleted),
        outcome(|o| o.expired),
        outcome(|o| o.documents),
        outcome(|o| o.bytes),
        held.map_or(Cell::Int(Some(0)), |held| Cell::count(held.keys_elsewhere)),
        Cell::Int(held.map(|held| i64::from(held.shard.number))),
        Cell::Text(tail.and_then(|tail| tail.error.clone()).or_else(|| away.map(str::to_owned))),
    ]
}

fn shards_of(collection: &Collection) -> impl Iterator<Item = ShardId> + use<> {
    let uid = collection.uid;
    (0..collection.settings.shards).map(move |number| ShardId { collection: uid, number })
}

/// What all shards together know of a collection's paths, by path.
pub(in crate::query) async fn merged_fields(engine: &Engine, name: &CollectionName) -> Result<Vec<FieldStatus>, Problem> {
    let catalog = engine.catalog();
    let collection = catalog.collections.get(name).ok_or_else(|| no_collection(name, &catalog))?;
    let answers = join_all(shards_of(collection).map(|shard| engine.roles.leaf.fields(shard))).await;
    let mut merged: BTreeMap<plan::Path, FieldStatus> = BTreeMap::new();
    for field in answers.into_iter().collect::<Result<Vec<_>, _>>()?.into_iter().flatten() {
        match merged.get_mut(&field.path) {
            None => drop(merged.insert(field.path.clone(), field)),
            Some(known) => {
                known.kinds |= field.kinds;
                known.documents += field.documents;
                known.indexed = if rank(field.indexed) > rank(known.indexed) { field.indexed } else { known.indexed };
                known.sample = known.sample.take().or(field.sample);
            }
        }
    }
    Ok(merged.into_values().collect())
}

/// The least indexed shard speaks for all.
fn rank(indexed: &str) -> u8 {
    match indexed {
        "columns" => 0,
        "text" => 1,
        _ => 2,
    }
}

/// `rachis.fields`: the fields that are defined, and the paths of documents.
pub(super) async fn fields(engine: &Engine) -> Result<Vec<Vec<Cell>>, Problem> {
    let catalog = engine.catalog();
    let mut rows = Vec::new();
    for name in catalog.collections.keys() {
        for (field, version) in catalog.fields(name) {
            let unknown = Cell::Text(None);
            rows.push(vec![
                Cell::text(name.as_str()),
                Cell::text(field),
                unknown.clone(),
                unknown.clone(),
                Cell::Int(None),
                unknown.clone(),
                unknown,
                Cell::text("field"),
                Cell::text(&version.text),
            ]);
        }
        for field in merged_fields(engine, name).await? {
            rows.push(vec![
                Cell::text(name.as_str()),
                Cell::text(field.path.to_string()),
                Cell::Text(field.kinds.native().map(|of| sql_name(of).to_owned())),
                Cell::text(field.kinds.to_string()),
                Cell::count(field.documents),
                Cell::text(field.indexed),
                Cell::Text(field.sample),
                Cell::text("path"),
                Cell::Text(None),
            ]);
        }
    }
    Ok(rows)
}

/// `rachis.shards`: one that does not answer says why.
pub(super) async fn shards(engine: &Engine) -> Result<Vec<Vec<Cell>>, Problem> {
    let mut rows = Vec::new();
    for (name, collection) in &engine.catalog().collections {
        for shard in shards_of(collection) {
            let (name, number) = (Cell::text(name.as_str()), Cell::count(u64::from(shard.number)));
            rows.push(match engine.roles.leaf.status(shard).await {
                Ok(status) => vec![
                    name,
                    number,
                    Cell::text(status.positions.to_string()),
                    Cell::count(status.outcomes.documents),
                    Cell::count(status.tail),
                    Cell::count(status.splits.len() as u64),
                    Cell::count(status.bytes),
                    Cell::Text(None),
                ],
                Err(problem) => {
                    let unknown = Cell::Int(None);
                    vec![name, number, Cell::Text(None), unknown.clone(), unknown.clone(), unknown.clone(), unknown, Cell::text(problem.to_string())]
                }
            });
        }
    }
    Ok(rows)
}

/// `rachis.splits`.
pub(super) async fn splits(engine: &Engine) -> Result<Vec<Vec<Cell>>, Problem> {
    let mut rows = Vec::new();
    for (name, collection) in &engine.catalog().collections {
        for shard in shards_of(collection) {
            for split in engine.roles.leaf.status(shard).await?.splits {
                rows.push(vec![
                    Cell::text(name.as_str()),
                    Cell::count(u64::from(shard.number)),
                    Cell::count(split.id),
                    Cell::text(split.place),
                    Cell::count(u64::from(split.generation)),
                    Cell::count(split.documents),
                    Cell::count(split.gone),
                    Cell::count(split.bytes),
                    Cell::count(split.paths),
                ]);
            }
        }
    }
    Ok(rows)
}

/// `rachis.losses`: records that are gone and were not taken in.
pub(super) async fn losses(engine: &Engine) -> Result<Vec<Vec<Cell>>, Problem> {
    let mut rows = Vec::new();
    for (name, collection) in &engine.catalog().collections {
        rows.extend(engine.roles.leaf.losses(collection.uid).await?.into_iter().map(|loss| {
            vec![
                Cell::text(name.as_str()),
                Cell::text(loss.source.as_str()),
                Cell::Int(Some(i64::from(loss.partition))),
                Cell::Int(Some(loss.from)),
                Cell::Int(Some(loss.through)),
                Cell::Time(Some(loss.noticed_ms)),
                Cell::text(loss.reason),
            ]
        }));
    }
    Ok(rows)
}

/// `rachis.dead_letters`: the newest of every shard.
pub(super) async fn dead_letters(engine: &Engine, deadline: Instant) -> Result<Vec<Vec<Cell>>, Problem> {
    let mut rows = Vec::new();
    for (name, collection) in &engine.catalog().collections {
        for shard in shards_of(collection) {
            let room = DEAD_LETTERS_MAX.saturating_sub(rows.len());
            let letters = tokio::time::timeout_at(deadline.into(), engine.roles.leaf.dead_letters(shard, room)).await;
            let letters = letters.map_err(|_| Problem::new(Code::Timeout, "reading dead letters took too long"))??;
            rows.extend(letters.into_iter().map(|letter| {
                vec![
                    Cell::text(name.as_str()),
                    Cell::text(letter.address.source.as_str()),
                    Cell::Int(Some(i64::from(letter.address.partition))),
                    Cell::Int(Some(letter.address.offset)),
                    Cell::text(letter.address.to_string()),
                    Cell::Time(Some(letter.ingested_ms)),
                    Cell::text(letter.code),
                    Cell::text(letter.detail),
                    Cell::text(String::from_utf8_lossy(&letter.bytes)),
                    Cell::count(letter.length),
                ]
            }));
        }
    }
    Ok(rows)
}
