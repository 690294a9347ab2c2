//! `POST …/skip`: makes a source, or the pushes of a collection, skip records and continue after them.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use axum::{
    Json,
    extract::{Request, State},
    response::{IntoResponse, Response},
};
use futures::{StreamExt as _, TryStreamExt as _, stream};
use proto::{
    Code, Problem, SourceName,
    catalog::{Change, Collection, ReplicaState, Skip, Skips},
    cluster::NodeName,
    ingest::ShardId,
    status::{SourceState, TailStatus},
};
use serde::Deserialize;
use serde_json::{Value, json};
use utoipa::ToSchema;

use super::{
    body,
    error::{HttpError, PathText, path_text},
    openapi::schemas,
    shape,
    sources::source_json,
    state::AppState,
};
use crate::{
    doors::names::{collection_name, find_collection, find_source, source_name},
    query::Engine,
};

/// For how long no replica may store anything before a skip begins after what they have.
const SETTLED_FOR: Duration = Duration::from_secs(1);
/// How long a skip waits for tailers to stop reading a suspended source, and for replicas to store what was sent before.
const SETTLES_WITHIN: Duration = Duration::from_secs(10);
/// How often a skip asks the tailers whether they still read.
const ASKED_EVERY: Duration = Duration::from_millis(100);
/// Partitions whose positions are asked for at once.
const ASKED_AT_ONCE: usize = 64;
const HINT: &str = "{\"to\": {\"0\": 1234}} continues partition 0 at offset 1234, {\"to\": {\"0\": \"latest\"}} at the \
                    next new record";

/// Skips records of a source.
#[utoipa::path(
    post,
    path = "/v1/sources/{source}/skip",
    operation_id = "skip_source",
    tag = "Sources",
    params(("source" = String, Path, description = "Its name")),
    request_body = SkipRequest,
    responses((status = 200, description = "The source", body = schemas::DescribedSource))
)]
pub(super) async fn skip_source(
    State(app): State<AppState>,
    path: PathText,
    request: Request,
) -> Result<Response, HttpError> {
    let name = source_name(&path_text(path)?)?;
    let catalog = app.engine.catalog();
    let source = find_source(&catalog, &name)?;
    let settings = &source.settings;
    let collection = find_collection(&catalog, &settings.collection)?;
    let request = body::json(request, HINT).await?;
    let rows = match source.suspended {
        true => rows_once_suspended(&app.engine, &name).await?,
        false => rows(&app.engine, |row| row.source == name).await?,
    };
    // Of a suspended source, nothing is stored any more that is not before these.
    let ends = app.engine.roles.source_admin.ends(settings).await?;
    let target = SkipTarget {
        label: name.to_string(),
        collection,
        source: &name,
        ends: ends.into_iter().map(Some).collect(),
        rows,
        suspended: source.suspended,
    };
    let skips = target.skips(&app.engine, request).await?;
    let change = Change::SkipSource {
        name: name.clone(),
        skips,
    };
    // A source that was resumed in the meantime would store records that the skip counts as lost.
    let catalog = app.engine.roles.changes.propose(change, Some(source.version)).await?;
    Ok(Json(source_json(&app, &catalog, &name).await?).into_response())
}

/// Skips records in the push topic of a collection.
#[utoipa::path(
    post,
    path = "/v1/collections/{collection}/skip",
    operation_id = "skip_pushes",
    tag = "Collections",
    params(("collection" = String, Path, description = "Its name")),
    request_body = SkipRequest,
    responses((status = 200, description = "What is skipped", body = Object))
)]
pub(super) async fn skip_pushes(
    State(app): State<AppState>,
    path: PathText,
    request: Request,
) -> Result<Response, HttpError> {
    let name = collection_name(&path_text(path)?)?;
    let catalog = app.engine.catalog();
    let collection = find_collection(&catalog, &name)?;
    if !collection.push_topic {
        return Err(Problem::new(
            Code::BadRequest,
            format!("collection {name} has no push topic, so there is nothing to skip"),
        )
        .hint("to skip records of a Kafka source, use POST /v1/sources/{source}/skip")
        .into());
    }
    let request = body::json(request, HINT).await?;
    let source = SourceName::push();
    let rows = rows(&app.engine, |row| {
        row.collection == name && row.is_of(collection.uid) && row.source.is_push()
    })
    .await?;
    let end = |number| {
        rows.iter()
            .find(|row| row.partition == Some(number))
            .and_then(|row| row.end)
    };
    let ends = (0..collection.settings.shards as i32).map(end).collect();
    let target = SkipTarget {
        label: format!("the pushes of {name}"),
        collection,
        source: &source,
        ends,
        rows,
        suspended: false,
    };
    let skips = target.skips(&app.engine, request).await?;
    let change = Change::SkipPushes {
        collection: name.clone(),
        skips,
    };
    let catalog = app.engine.change_catalog(change).await?;
    let skips = catalog
        .collections
        .get(&name)
        .map(|collection| collection.push_skips.clone())
        .unwrap_or_default();
    Ok(Json(json!({ "collection": name, "skips": skips })).into_response())
}

async fn rows(engine: &Engine, filter: impl Fn(&TailStatus) -> bool) -> Result<Vec<TailStatus>, Problem> {
    Ok(engine
        .roles
        .source_admin
        .status()
        .await?
        .into_iter()
        .filter(filter)
        .collect())
}

/// The partitions of a suspended source, once no tailer reads them any more, or as they are after [`SETTLES_WITHIN`].
async fn rows_once_suspended(engine: &Engine, source: &SourceName) -> Result<Vec<TailStatus>, Problem> {
    let until = Instant::now() + SETTLES_WITHIN;
    loop {
        let rows = rows(engine, |row| row.source == *source).await?;
        if !rows.iter().any(is_still_read) || Instant::now() >= until {
            return Ok(rows);
        }
        tokio::time::sleep(ASKED_EVERY).await;
    }
}

fn is_still_read(row: &TailStatus) -> bool {
    row.state != SourceState::Suspended
}

/// The body of a request: for each partition, the offset to continue at, or `"latest"`.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct SkipRequest {
    /// By the numbers of partitions: the offset to continue at, or `"latest"`.
    #[schema(value_type = BTreeMap<String, Value>)]
    to: BTreeMap<i32, Value>,
}

/// A source whose records are skipped.
struct SkipTarget<'a> {
    /// Its name in messages.
    label: String,
    collection: &'a Collection,
    source: &'a SourceName,
    /// The end offset of each partition, if it is known.
    ends: Vec<Option<i64>>,
    /// Its partitions as the tailers report them.
    rows: Vec<TailStatus>,
    suspended: bool,
}

impl SkipTarget<'_> {
    /// The records to skip: from the next offset that the leaf would store up to the requested offset, exclusive.
    async fn skips(&self, engine: &Engine, request: Value) -> Result<Skips, Problem> {
        let request: SkipRequest = shape::from_value(&request).map_err(|problem| problem.hint(HINT))?;
        if request.to.is_empty() {
            return Err(Problem::new(Code::BadRequest, "the request has no partitions").hint(HINT));
        }
        for partition in request.to.keys() {
            self.end_of(*partition)?;
            self.require_stopped(*partition)?;
        }
        let positions = self.settled_positions(engine, request.to.keys()).await?;
        let mut skips = Skips::default();
        for (partition, target) in request.to {
            let positions = &positions[&partition];
            let next = positions.values().min().copied().unwrap_or(-1) + 1;
            let all = range(&self.label_of(partition), next, &target, self.end_of(partition)?)?;
            let is_spread = self.collection.route(self.source, partition).is_spread();
            let of_shard = |(shard, stored): (&u32, &i64)| Skip {
                from: stored + 1,
                to: all.to,
                shard: Some(*shard),
            };
            let of_partition = match is_spread {
                true => positions
                    .iter()
                    .map(of_shard)
                    .filter(|skip| skip.from <= skip.to)
                    .collect(),
                false => vec![all],
            };
            skips.0.insert(partition, of_partition);
        }
        Ok(skips)
    }

    fn label_of(&self, partition: i32) -> String {
        format!("partition {partition} of {}", self.label)
    }

    /// The end offset of a partition, if it is known. Fails if there is no such partition.
    fn end_of(&self, partition: i32) -> Result<Option<i64>, Problem> {
        let end = usize::try_from(partition).ok().and_then(|number| self.ends.get(number));
        end.copied().ok_or_else(|| {
            Problem::new(Code::BadRequest, format!("{} does not exist", self.label_of(partition)))
                .hint(format!("there are {} partitions, numbered from 0", self.ends.len()))
        })
    }

    /// A skip begins at the next offset of the leaf, so the partition must not advance in the meantime.
    fn require_stopped(&self, partition: i32) -> Result<(), Problem> {
        let label = self.label_of(partition);
        if !self.suspended && self.collection.route(self.source, partition).is_spread() {
            let detail = format!(
                "{label} is spread over several shards: its source must be suspended before records are skipped"
            );
            return Err(Problem::new(Code::Conflict, detail).hint("suspend the source first, and resume it afterwards"));
        }
        let row = self.rows.iter().find(|row| row.partition == Some(partition));
        match row.map(|row| row.state) {
            _ if self.suspended && self.rows.iter().any(is_still_read) => Err(still_stored(&label)),
            _ if self.suspended => Ok(()),
            Some(SourceState::Stopped) => Ok(()),
            Some(state) => Err(Problem::new(
                Code::Conflict,
                format!("{label} is {}: only a stopped partition can be skipped", state.as_str()),
            )
            .hint(match self.source.is_push() {
                true => "select * from rachis.sources shows which push partitions are stopped",
                false => "suspend the source first, and resume it afterwards",
            })),
            None => Err(
                Problem::new(Code::Unavailable, format!("no tailer reports the state of {label}"))
                    .hint("retry in a moment"),
            ),
        }
    }

    /// By partition, the position in each of its shards, once none advances any more: a replica may still be storing what was
    /// sent before the source was suspended, and one that stored more than the others would keep it.
    async fn settled_positions(
        &self,
        engine: &Engine,
        partitions: impl Iterator<Item = &i32> + Clone,
    ) -> Result<BTreeMap<i32, BTreeMap<u32, i64>>, Problem> {
        let ask = async |partition: &i32| Ok::<_, Problem>((*partition, self.positions(engine, *partition).await?));
        let all = || stream::iter(partitions.clone().map(ask).collect::<Vec<_>>()).buffered(ASKED_AT_ONCE);
        let until = Instant::now() + SETTLES_WITHIN;
        let mut before: BTreeMap<i32, BTreeMap<u32, i64>> = all().try_collect().await?;
        loop {
            tokio::time::sleep(SETTLED_FOR).await;
            let positions: BTreeMap<i32, BTreeMap<u32, i64>> = all().try_collect().await?;
            let advanced = before
                .iter()
                .find(|(partition, before)| positions[*partition] != **before);
            match advanced {
                None => return Ok(positions),
                Some((partition, _)) if Instant::now() >= until => {
                    return Err(still_stored(&self.label_of(*partition)));
                }
                Some(_) => before = positions,
            }
        }
    }

    /// The newest position of a partition in each of its shards: the other replicas get the records up to it, too.
    async fn positions(&self, engine: &Engine, partition: i32) -> Result<BTreeMap<u32, i64>, Problem> {
        let route = self.collection.route(self.source, partition);
        let mut positions = BTreeMap::new();
        for share in route.shares() {
            let shard = ShardId {
                collection: self.collection.uid,
                number: share.shard,
            };
            let collection = self.collection;
            let serves = |leaf: &NodeName| collection.replica_state(share.shard, leaf) == Some(ReplicaState::Serving);
            let stored = engine.newest_position(collection, shard, (self.source, partition), serves);
            let stored = stored.await.map_err(|problem| {
                problem.hint(
                    "retry once the shard answers, with all replicas that serve: a skip begins at its position; `select * \
                     from rachis.moves` shows shards that are restored",
                )
            })?;
            // A leaf that lost data and has not been replayed yet would never get the records in between.
            let seen = engine.watermark_of(shard).get(self.source, partition).unwrap_or(-1);
            if self.suspended && stored < seen {
                return Err(Problem::new(
                    Code::Conflict,
                    format!(
                        "the leaf of {} has lost data: it is at offset {stored}, but was at {seen}",
                        self.label_of(partition)
                    ),
                )
                .hint("resume the source, so that the leaf gets the data from the broker again"));
            }
            positions.insert(share.shard, stored.max(share.from - 1));
        }
        Ok(positions)
    }
}

fn still_stored(label: &str) -> Problem {
    Problem::new(Code::Conflict, format!("records of {label} are still being stored")).hint("retry in a moment")
}

/// The records to skip in the partition `label`. `from` is the next offset that its leaf would store; `end`, if known,
/// is the offset after the broker's last record.
fn range(label: &str, from: i64, target: &Value, end: Option<i64>) -> Result<Skip, Problem> {
    let end = end.ok_or_else(|| {
        Problem::new(Code::Unavailable, format!("the end offset of {label} is not known yet")).hint("retry in a moment")
    })?;
    let to = match target {
        Value::String(name) if name == "latest" => end,
        other => other
            .as_i64()
            .filter(|offset| *offset >= 0)
            .ok_or_else(|| Problem::new(Code::BadRequest, format!("{other} is not an offset")).hint(HINT))?,
    };
    let out_of_range =
        |detail| Err(Problem::new(Code::BadRequest, detail).hint(format!("use an offset from {from} to {end}")));
    if to > end {
        return out_of_range(format!("{label} ends before offset {end}: it cannot continue at {to}"));
    }
    if to < from {
        return out_of_range(format!(
            "{label} is stored through offset {}: it cannot continue at {to}",
            from - 1
        ));
    }
    Ok(Skip::new(from, to))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_skip_covers_only_records_that_are_not_stored_up_to_the_end() {
        let to = |target: Value| range("t/0", 42, &target, Some(60));
        assert_eq!(to(json!(42)), Ok(Skip::new(42, 42)), "a skip may be empty");
        assert_eq!(to(json!(60)), Ok(Skip::new(42, 60)));
        assert_eq!(to(json!("latest")), Ok(Skip::new(42, 60)));
        for (target, end, code, detail) in [
            (json!(41), Some(60), Code::BadRequest, "stored through offset 41"),
            (json!(61), Some(60), Code::BadRequest, "ends before offset 60"),
            (json!(-1), Some(60), Code::BadRequest, "-1 is not an offset"),
            (json!("end"), Some(60), Code::BadRequest, "\"end\" is not an offset"),
            (json!(4.5), Some(60), Code::BadRequest, "4.5 is not an offset"),
            (json!("latest"), Some(5), Code::BadRequest, "stored through offset 41"),
            (json!(43), None, Code::Unavailable, "not known"),
        ] {
            let problem = range("t/0", 42, &target, end).expect_err(detail);
            assert!(
                problem.code == code && problem.detail.contains(detail) && problem.hint.is_some(),
                "{problem:?}"
            );
        }
    }
}
