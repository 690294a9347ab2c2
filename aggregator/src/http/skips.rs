//! `POST …/skip`: what a source leaves out, so that it goes on behind it.

use std::collections::BTreeMap;

use axum::{
    Json,
    body::Body,
    extract::State,
    http::HeaderMap,
    response::{IntoResponse, Response},
};
use proto::{
    Code, Problem, SourceName,
    catalog::{Change, Collection, Skip, Skips},
    ingest::ShardId,
    routing::shard_of,
    status::{SourceState, TailStatus},
};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{
    App, body,
    refusal::{PathText, Refusal, collection_name, no_collection, no_source, path_text, source_name},
    sources::shown,
};
use crate::query::Engine;

const HINT: &str = "{\"to\": {\"0\": 1234}} goes on with offset 1234 of partition 0, \"latest\" with what comes next";

/// Leaves out records of a source.
pub(super) async fn of_source(State(app): State<App>, path: PathText, headers: HeaderMap, body: Body) -> Result<Response, Refusal> {
    let name = source_name(&path_text(path)?)?;
    let catalog = app.engine.catalog();
    let there = catalog.sources.get(&name).ok_or_else(|| no_source(&name))?;
    let settings = &there.settings;
    let collection = catalog.collections.get(&settings.collection).ok_or_else(|| no_collection(&settings.collection))?;
    let wish = body::json(&headers, body).await?;
    let partitions = app.engine.roles.tailing.partitions(settings).await?;
    let of_it = |row: &TailStatus| row.source == name;
    let skips = Skipped { collection, source: &name, partitions, suspended: there.suspended }.skips(&app.engine, wish, of_it).await?;
    let catalog = app.engine.roles.changes.propose(Change::SkipSource { name: name.clone(), skips }, None).await?;
    Ok(Json(shown(&app, &catalog, &name).await?).into_response())
}

/// The same among the pushes of a collection.
pub(super) async fn of_pushes(State(app): State<App>, path: PathText, headers: HeaderMap, body: Body) -> Result<Response, Refusal> {
    let name = collection_name(&path_text(path)?)?;
    let catalog = app.engine.catalog();
    let collection = catalog.collections.get(&name).ok_or_else(|| no_collection(&name))?;
    if !collection.push_topic {
        return Err(Problem::new(Code::BadRequest, format!("the pushes of {name} are not in a log: nothing of them can be lost there"))
            .hint("a source of Kafka is skipped with POST /v1/sources/{source}/skip")
            .into());
    }
    let wish = body::json(&headers, body).await?;
    let source = SourceName::push();
    let of_it = |row: &TailStatus| row.collection == name && row.source.is_push();
    let skipped = Skipped { collection, source: &source, partitions: collection.settings.shards, suspended: false };
    let skips = skipped.skips(&app.engine, wish, of_it).await?;
    let catalog = app.engine.roles.changes.propose(Change::SkipPushes { collection: name.clone(), skips }, None).await?;
    let skips = catalog.collections.get(&name).map(|collection| collection.push_skips.clone()).unwrap_or_default();
    Ok(Json(json!({ "collection": name, "skips": skips })).into_response())
}

/// Where to go on, by partition.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Wish {
    to: BTreeMap<i32, Place>,
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Place {
    Offset(i64),
    Word(String),
}

/// Of what something is left out.
struct Skipped<'a> {
    collection: &'a Collection,
    source: &'a SourceName,
    partitions: u32,
    suspended: bool,
}

impl Skipped<'_> {
    /// What a body asks to leave out: all between what the leaves hold and the offsets that it names. `of_it` says which rows of the tailers
    /// speak of the source.
    async fn skips(&self, engine: &Engine, wish: Value, of_it: impl Fn(&TailStatus) -> bool) -> Result<Skips, Problem> {
        let wish: Wish = serde_json::from_value(wish).map_err(|e| body::not_understood(&e).hint(HINT))?;
        if wish.to.is_empty() {
            return Err(Problem::new(Code::BadRequest, "no partition is named").hint(HINT));
        }
        let rows: Vec<TailStatus> = engine.roles.tailing.status().await?.into_iter().filter(of_it).collect();
        let mut skips = Skips::default();
        for (partition, place) in wish.to {
            if !u32::try_from(partition).is_ok_and(|number| number < self.partitions) {
                return Err(Problem::new(Code::BadRequest, format!("{} has no partition {partition}", self.source))
                    .hint(format!("it has {} of them, counted from 0", self.partitions)));
            }
            let row = rows.iter().find(|row| row.partition == Some(partition));
            self.stands(partition, row)?;
            let from = self.next(engine, partition).await?;
            skips.0.insert(partition, vec![range(&format!("{}/{partition}", self.source), from, &place, row.and_then(|row| row.end))?]);
        }
        Ok(skips)
    }

    /// What is left out begins where the leaf stands: it must not move on meanwhile.
    fn stands(&self, partition: i32, row: Option<&TailStatus>) -> Result<(), Problem> {
        let at = format!("{}/{partition}", self.source);
        match row.map(|row| row.state) {
            _ if self.suspended => Ok(()),
            Some(SourceState::Stopped) => Ok(()),
            Some(state) => Err(Problem::new(Code::Conflict, format!("{at} is {}: only what stands still can be skipped", state.word())).hint(
                match self.source.is_push() {
                    true => "pushes are skipped where they are stopped: select * from rachis.sources",
                    false => "suspend the source first, and resume it afterwards",
                },
            )),
            None => Err(Problem::new(Code::Unavailable, format!("no tailer says what {at} does")).hint("try again in a moment")),
        }
    }

    /// The offset that is to be read next of a partition.
    async fn next(&self, engine: &Engine, partition: i32) -> Result<i64, Problem> {
        let shard = ShardId { collection: self.collection.uid, number: shard_of(self.source, partition, self.collection.settings.shards) };
        let stored = engine.roles.leaf.stored(shard, self.source, partition).await?.offset;
        // A leaf that was not filled again yet would never get what lies between.
        let seen = engine.seen(shard).get(self.source, partition).unwrap_or(-1);
        if self.suspended && stored < seen {
            let detail = format!("the leaf of {}/{partition} holds less than it did (offset {stored} instead of {seen})", self.source);
            return Err(Problem::new(Code::Conflict, detail).hint("resume the source, so that it is filled again from the broker"));
        }
        Ok(stored + 1)
    }
}

/// What is left out of a partition (`at`), if the next offset is `from` and the broker's records end before `end`, as far as that is known.
fn range(at: &str, from: i64, place: &Place, end: Option<i64>) -> Result<Skip, Problem> {
    let to = match place {
        Place::Offset(offset) if *offset >= 0 => *offset,
        Place::Word(word) if word == "latest" => {
            end.ok_or_else(|| Problem::new(Code::Unavailable, format!("the end of {at} is not known yet")).hint("name an offset"))?
        }
        other => return Err(Problem::new(Code::BadRequest, format!("{other:?} is no place to go on at")).hint(HINT)),
    };
    if let Some(end) = end.filter(|end| to > *end) {
        return Err(Problem::new(Code::BadRequest, format!("{at} has offsets up to {} only, {to} is beyond them", end - 1))
            .hint("\"latest\" goes on with what comes next"));
    }
    if to < from {
        return Err(Problem::new(Code::BadRequest, format!("{at} is stored through offset {}: it cannot go on at {to}", from - 1))
            .hint(format!("a skip leaves out what is not stored yet: an offset from {from} on")));
    }
    Ok(Skip { from, to })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_skip_leaves_out_what_is_not_stored_and_at_most_all_there_is() {
        let offset = |to| range("t/0", 42, &Place::Offset(to), Some(60));
        assert_eq!(offset(42), Ok(Skip { from: 42, to: 42 }), "whatever stands before it by now");
        assert_eq!(offset(60), Ok(Skip { from: 42, to: 60 }));
        assert_eq!(range("t/0", 42, &Place::Word("latest".into()), Some(60)), Ok(Skip { from: 42, to: 60 }));
        assert_eq!(range("t/0", 0, &Place::Offset(9), None), Ok(Skip { from: 0, to: 9 }), "the end of a source that is not read is not known");
        for (place, end, code, said) in [
            (Place::Offset(41), Some(60), Code::BadRequest, "stored through offset 41"),
            (Place::Offset(61), Some(60), Code::BadRequest, "up to 59 only"),
            (Place::Offset(-1), Some(60), Code::BadRequest, "no place"),
            (Place::Word("end".into()), Some(60), Code::BadRequest, "no place"),
            (Place::Word("latest".into()), Some(5), Code::BadRequest, "stored through offset 41"),
            (Place::Word("latest".into()), None, Code::Unavailable, "not known"),
        ] {
            let problem = range("t/0", 42, &place, end).expect_err(said);
            assert!(problem.code == code && problem.detail.contains(said) && problem.hint.is_some(), "{problem:?}");
        }
    }
}
