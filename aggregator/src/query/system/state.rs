//! Tables of what leaves and tailers say of themselves.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Instant,
};

use futures::{StreamExt as _, future::join_all, stream};
use plan::scan::FieldStatus;
use proto::{
    Code, CollectionName, Problem, SourceName,
    catalog::Collection,
    cluster::NodeName,
    ingest::{PartitionStatus, Partitions, ShardId},
    limits::PATHS_MAX,
    routing::shard_of,
    status::{SourceState, TailStatus},
};

use super::{
    super::{Engine, Tails, pins::no_collection},
    cell::{Cell, sql_name},
};

/// Dead letters that are looked at, over all shards; the newest ones.
const DEAD_LETTERS_MAX: usize = 10_000;
/// Shards, or collections, that are asked how they are at once.
const AT_ONCE_MAX: usize = 64;

/// `rachis.collections`.
pub(super) async fn collections(engine: &Engine) -> Result<Vec<Vec<Cell>>, Problem> {
    let asked = engine
        .catalog()
        .collections
        .iter()
        .map(|(name, collection)| collection_row(engine, name.clone(), collection.clone()))
        .collect::<Vec<_>>();
    Ok(stream::iter(asked).buffered(AT_ONCE_MAX).collect().await)
}

async fn collection_row(engine: &Engine, name: CollectionName, collection: Collection) -> Vec<Cell> {
    // Of a collection whose leaf does not answer, what is agreed on is known, and no more.
    let partitions = engine.roles.leaf.partitions(collection.uid).await.ok();
    let sum = |of: fn(&PartitionStatus) -> u64| {
        partitions
            .as_ref()
            .map_or(Cell::Int(None), |all| Cell::count(all.iter().map(of).sum()))
    };
    vec![
        Cell::text(name.as_str()),
        Cell::text(collection.uid.to_string()),
        Cell::count(collection.version),
        Cell::count(u64::from(collection.settings.shards)),
        Cell::Text(collection.settings.time_path.clone()),
        sum(|partition| partition.outcomes.documents),
        sum(|partition| partition.outcomes.bytes),
    ]
}

/// What is known of a partition.
#[derive(Default)]
struct SourceRow {
    tail: Option<TailStatus>,
    held: Option<PartitionStatus>,
    /// Why its leaf says nothing.
    leaf_away: Option<Problem>,
}

/// `rachis.sources`: a row per partition that a tailer reads or a leaf holds.
pub(super) async fn sources(engine: &Engine) -> Result<Vec<Vec<Cell>>, Problem> {
    let catalog = engine.catalog();
    let mut rows: BTreeMap<(CollectionName, SourceName, Option<i32>), SourceRow> = BTreeMap::new();
    let Tails { rows: tails, away } = engine.tails().await?;
    for tail in tails {
        let at = (tail.collection.clone(), tail.source.clone(), tail.partition);
        rows.entry(at).or_default().tail = Some(tail);
    }
    for (name, source) in catalog.sources.iter().filter(|_| away.is_some()) {
        rows.entry((source.settings.collection.clone(), name.clone(), None))
            .or_default();
    }
    let asked = catalog
        .collections
        .iter()
        .map(|(name, collection)| partitions_there(engine, name.clone(), collection.clone()))
        .collect::<Vec<_>>();
    let answers: Vec<_> = stream::iter(asked).buffered(AT_ONCE_MAX).collect().await;
    for (name, shards, there) in answers {
        for held in there.held {
            let at = (
                name.clone(),
                held.position.source.clone(),
                Some(held.position.partition),
            );
            rows.entry(at).or_default().held = Some(held);
        }
        // What tailers say is most wanted while a leaf is away; what only the leaf knows is unknown then.
        for ((_, source, partition), row) in rows.iter_mut().filter(|((collection, ..), _)| *collection == name) {
            row.leaf_away = match partition {
                Some(partition) => there.away.get(&shard_of(source, *partition, shards)).cloned(),
                None => there.away.values().next().cloned(),
            };
        }
    }
    // While the partitions of a source are not read (its broker is away, it is suspended), what holds of the source
    // holds of each.
    let whole: BTreeMap<(CollectionName, SourceName), TailStatus> = rows
        .iter()
        .filter_map(|((collection, source, partition), row)| {
            let tail = row.tail.clone().filter(|_| partition.is_none())?;
            Some(((collection.clone(), source.clone()), tail))
        })
        .collect();
    let held_somewhere: BTreeSet<(CollectionName, SourceName)> = rows
        .keys()
        .filter(|(_, _, partition)| partition.is_some())
        .map(|(collection, source, _)| (collection.clone(), source.clone()))
        .collect();
    // The row of a whole source stands for partitions of which nobody says anything.
    let shown = rows.iter().filter(|((collection, source, partition), row)| {
        partition.is_some()
            || row.leaf_away.is_some()
            || !held_somewhere.contains(&(collection.clone(), source.clone()))
    });
    let row = |((collection, source, partition), row): (&(CollectionName, SourceName, Option<i32>), &SourceRow)| {
        let tail = row
            .tail
            .as_ref()
            .or_else(|| whole.get(&(collection.clone(), source.clone())));
        source_row(collection, source, *partition, tail, row, away.as_deref())
    };
    Ok(shown.map(row).collect())
}

/// What `rachis.sources` shows as the state of a partition whose leaf is away: its tailer has nothing to send, or
/// cannot send it, and nobody says what is stored.
const UNKNOWN: &str = "unknown";

async fn partitions_there(
    engine: &Engine,
    name: CollectionName,
    collection: Collection,
) -> (CollectionName, u32, Partitions) {
    let shards = collection.settings.shards;
    (
        name,
        shards,
        engine.roles.leaf.partitions_there(collection.uid, shards).await,
    )
}

fn source_row(
    collection: &CollectionName,
    source: &SourceName,
    partition: Option<i32>,
    tail: Option<&TailStatus>,
    SourceRow { held, leaf_away, .. }: &SourceRow,
    away: Option<&str>,
) -> Vec<Cell> {
    let held = held.as_ref();
    let none = if leaf_away.is_some() {
        Cell::Int(None)
    } else {
        Cell::Int(Some(0))
    };
    let outcome = |count: fn(&proto::ingest::Outcomes) -> u64| {
        held.map_or(none.clone(), |held| Cell::count(count(&held.outcomes)))
    };
    let halted = |state: SourceState| matches!(state, SourceState::Suspended | SourceState::Stopped);
    let state = match (tail, held) {
        (Some(tail), _) if leaf_away.is_none() || halted(tail.state) => Some(tail.state.word()),
        _ if leaf_away.is_some() => Some(UNKNOWN),
        // A push has no tail to be behind of: what was acknowledged is in.
        (None, Some(_)) if source.is_push() && away.is_none() => Some(SourceState::CaughtUp.word()),
        _ => None,
    };
    let error = tail
        .and_then(|tail| tail.error.clone())
        .or_else(|| leaf_away.as_ref().map(Problem::to_string))
        .or_else(|| away.map(str::to_owned));
    vec![
        Cell::text(collection.as_str()),
        Cell::text(source.as_str()),
        Cell::Int(partition.map(i64::from)),
        Cell::Text(state.map(Into::into)),
        Cell::Int(held.map(|held| held.position.offset)),
        Cell::Int(tail.and_then(|tail| tail.end)),
        Cell::Int(tail.filter(|_| leaf_away.is_none()).and_then(|tail| tail.lag)),
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
        held.map_or(none.clone(), |held| Cell::count(held.keys_elsewhere)),
        Cell::Int(held.map(|held| i64::from(held.shard.number))),
        Cell::Text(error),
    ]
}

fn shards_of(collection: &Collection) -> impl Iterator<Item = ShardId> + use<> {
    let uid = collection.uid;
    (0..collection.settings.shards).map(move |number| ShardId {
        collection: uid,
        number,
    })
}

/// What all shards together know of a collection's paths, by path.
pub(in crate::query) async fn merged_fields(engine: &Engine, name: &CollectionName) -> Result<Fields, Problem> {
    let catalog = engine.catalog();
    let collection = catalog
        .collections
        .get(name)
        .ok_or_else(|| no_collection(name, &catalog))?;
    let (fields, away) = fields_there(engine, collection).await;
    away.map_or(Ok(fields), Err)
}

/// What is known of the paths of a collection.
pub struct Fields {
    /// By path.
    pub fields: Vec<FieldStatus>,
    /// Whether a shard knows as many paths as it remembers: there may be more.
    pub full: bool,
}

/// What those shards know of a collection's paths that answer, by path, and why one of the others does not.
async fn fields_there(engine: &Engine, collection: &Collection) -> (Fields, Option<Problem>) {
    let answers = join_all(shards_of(collection).map(|shard| engine.roles.leaf.fields(shard))).await;
    let (mut merged, mut away, mut full) = (BTreeMap::<plan::Path, FieldStatus>::new(), None, false);
    for answer in answers {
        let fields = answer.unwrap_or_else(|problem| {
            away = Some(problem);
            Vec::new()
        });
        full |= fields.len() >= PATHS_MAX;
        for field in fields {
            match merged.get_mut(&field.path) {
                None => drop(merged.insert(field.path.clone(), field)),
                Some(known) => {
                    known.kinds |= field.kinds;
                    known.documents += field.documents;
                    known.indexed = if rank(field.indexed) > rank(known.indexed) {
                        field.indexed
                    } else {
                        known.indexed
                    };
                    known.sample = known.sample.take().or(field.sample);
                }
            }
        }
    }
    (
        Fields {
            fields: merged.into_values().collect(),
            full,
        },
        away,
    )
}

/// The paths of every collection, by name. A shard that does not answer hides its own paths, and no others.
pub(super) async fn all_fields(engine: &Engine) -> Vec<(CollectionName, Vec<FieldStatus>, Option<Problem>)> {
    let catalog = engine.catalog();
    let of = |(name, collection): (&CollectionName, &Collection)| {
        let (name, collection) = (name.clone(), collection.clone());
        async move {
            let (fields, away) = fields_there(engine, &collection).await;
            (name, fields.fields, away)
        }
    };
    let asked: Vec<_> = catalog.collections.iter().map(of).collect();
    stream::iter(asked).buffered(AT_ONCE_MAX).collect().await
}

/// The least indexed shard speaks for all.
fn rank(indexed: &str) -> u8 {
    match indexed {
        "columns" => 0,
        "text" => 1,
        _ => 2,
    }
}

/// `rachis.fields`: the fields that are defined, and the paths of documents. Where a shard does not answer, a row
/// without a path says why.
pub(super) async fn fields(engine: &Engine) -> Vec<Vec<Cell>> {
    let catalog = engine.catalog();
    let unknown = Cell::Text(None);
    let mut rows = Vec::new();
    for (name, fields, away) in all_fields(engine).await {
        for (field, version) in catalog.fields(&name) {
            rows.push(vec![
                Cell::text(name.as_str()),
                Cell::text(field),
                unknown.clone(),
                unknown.clone(),
                Cell::Int(None),
                unknown.clone(),
                unknown.clone(),
                Cell::text("field"),
                Cell::text(&version.text),
                unknown.clone(),
            ]);
        }
        for field in fields {
            rows.push(vec![
                Cell::text(name.as_str()),
                Cell::text(field.path.to_string()),
                Cell::Text(field.kinds.native().map(|of| sql_name(of).to_owned())),
                Cell::text(field.kinds.to_string()),
                Cell::count(field.documents),
                Cell::text(field.indexed),
                Cell::Text(field.sample),
                Cell::text("path"),
                unknown.clone(),
                unknown.clone(),
            ]);
        }
        if let Some(problem) = away {
            let mut row = vec![Cell::text(name.as_str())];
            row.extend([
                unknown.clone(),
                unknown.clone(),
                unknown.clone(),
                Cell::Int(None),
                unknown.clone(),
                unknown.clone(),
            ]);
            row.extend([Cell::text("path"), unknown.clone(), Cell::text(problem.to_string())]);
            rows.push(row);
        }
    }
    rows
}

/// `rachis.shards`: one that does not answer says why.
pub(super) async fn shards(engine: &Engine) -> Result<Vec<Vec<Cell>>, Problem> {
    let catalog = engine.catalog();
    let mut asked = Vec::new();
    for (name, collection) in &catalog.collections {
        for shard in shards_of(collection) {
            asked.push(shard_row(
                engine,
                name.clone(),
                collection.leaf_of(shard.number).cloned(),
                shard,
            ));
        }
    }
    Ok(stream::iter(asked).buffered(AT_ONCE_MAX).collect().await)
}

async fn shard_row(engine: &Engine, collection: CollectionName, leaf: Option<NodeName>, shard: ShardId) -> Vec<Cell> {
    let mut row = vec![
        Cell::text(collection.as_str()),
        Cell::count(u64::from(shard.number)),
        Cell::Text(leaf.map(|leaf| leaf.to_string())),
    ];
    match engine.roles.leaf.status(shard).await {
        Ok(status) => row.extend([
            Cell::text(status.positions.to_string()),
            Cell::count(status.outcomes.documents),
            Cell::count(status.tail),
            Cell::count(status.splits.len() as u64),
            Cell::count(status.bytes),
            Cell::Text(None),
        ]),
        Err(problem) => {
            row.extend([
                Cell::Text(None),
                Cell::Int(None),
                Cell::Int(None),
                Cell::Int(None),
                Cell::Int(None),
                Cell::text(problem.to_string()),
            ]);
        }
    }
    row
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
