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

const HINT: &str = "{\"to\": {\"0\": 1234}} goes on with offset 1234 of partition 0, {\"to\": {\"0\": \"latest\"}} with what comes next";

/// Leaves out records of a source.
pub(super) async fn of_source(
    State(app): State<App>,
    path: PathText,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Refusal> {
    let name = source_name(&path_text(path)?)?;
    let catalog = app.engine.catalog();
    let there = catalog.sources.get(&name).ok_or_else(|| no_source(&name, &catalog))?;
    let settings = &there.settings;
    let collection = catalog
        .collections
        .get(&settings.collection)
        .ok_or_else(|| no_collection(&settings.collection, &catalog))?;
    let wish = body::json(&headers, body).await?;
    let ends = app
        .engine
        .roles
        .tailing
        .ends(settings)
        .await?
        .into_iter()
        .map(Some)
        .collect();
    let rows = rows(&app.engine, |row| row.source == name).await?;
    let skips = Skipped {
        what: name.to_string(),
        collection,
        source: &name,
        ends,
        rows,
        suspended: there.suspended,
    }
    .skips(&app.engine, wish)
    .await?;
    let catalog = app
        .engine
        .roles
        .changes
        .propose(
            Change::SkipSource {
                name: name.clone(),
                skips,
            },
            None,
        )
        .await?;
    Ok(Json(shown(&app, &catalog, &name).await?).into_response())
}

/// The same among the pushes of a collection.
pub(super) async fn of_pushes(
    State(app): State<App>,
    path: PathText,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Refusal> {
    let name = collection_name(&path_text(path)?)?;
    let catalog = app.engine.catalog();
    let collection = catalog
        .collections
        .get(&name)
        .ok_or_else(|| no_collection(&name, &catalog))?;
    if !collection.push_topic {
        return Err(Problem::new(
            Code::BadRequest,
            format!("the pushes of {name} are not in a log: nothing of them can be lost there"),
        )
        .hint("a source of Kafka is skipped with POST /v1/sources/{source}/skip")
        .into());
    }
    let wish = body::json(&headers, body).await?;
    let source = SourceName::push();
    let rows = rows(&app.engine, |row| row.collection == name && row.source.is_push()).await?;
    let end = |number| {
        rows.iter()
            .find(|row| row.partition == Some(number))
            .and_then(|row| row.end)
    };
    let ends = (0..collection.settings.shards as i32).map(end).collect();
    let skipped = Skipped {
        what: format!("the pushes of {name}"),
        collection,
        source: &source,
        ends,
        rows,
        suspended: false,
    };
    let skips = skipped.skips(&app.engine, wish).await?;
    let catalog = app
        .engine
        .roles
        .changes
        .propose(
            Change::SkipPushes {
                collection: name.clone(),
                skips,
            },
            None,
        )
        .await?;
    let skips = catalog
        .collections
        .get(&name)
        .map(|collection| collection.push_skips.clone())
        .unwrap_or_default();
    Ok(Json(json!({ "collection": name, "skips": skips })).into_response())
}

async fn rows(engine: &Engine, of_it: impl Fn(&TailStatus) -> bool) -> Result<Vec<TailStatus>, Problem> {
    Ok(engine.roles.tailing.status().await?.into_iter().filter(of_it).collect())
}

/// Where to go on, by partition.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Wish {
    to: BTreeMap<i32, Value>,
}

/// Of what something is left out.
struct Skipped<'a> {
    /// As messages name it.
    what: String,
    collection: &'a Collection,
    source: &'a SourceName,
    /// Where each partition ends, as far as that is known.
    ends: Vec<Option<i64>>,
    /// What the tailers say of it.
    rows: Vec<TailStatus>,
    suspended: bool,
}

impl Skipped<'_> {
    /// What a body asks to leave out: all between what the leaves hold and the offsets that it names.
    async fn skips(&self, engine: &Engine, wish: Value) -> Result<Skips, Problem> {
        let wish: Wish = serde_json::from_value(wish).map_err(|e| body::not_understood(&e).hint(HINT))?;
        if wish.to.is_empty() {
            return Err(Problem::new(Code::BadRequest, "no partition is named").hint(HINT));
        }
        let mut skips = Skips::default();
        for (partition, place) in wish.to {
            let Some(end) = usize::try_from(partition).ok().and_then(|number| self.ends.get(number)) else {
                return Err(Problem::new(
                    Code::BadRequest,
                    format!("there is no partition {partition} of {}", self.what),
                )
                .hint(format!("there are {} of them, counted from 0", self.ends.len())));
            };
            let at = format!("partition {partition} of {}", self.what);
            self.stands(&at, partition)?;
            let next = self.next(engine, &at, partition).await?;
            skips.0.insert(partition, vec![range(&at, next, &place, *end)?]);
        }
        Ok(skips)
    }

    /// What is left out begins where the leaf stands: it must not move on meanwhile.
    fn stands(&self, at: &str, partition: i32) -> Result<(), Problem> {
        let row = self.rows.iter().find(|row| row.partition == Some(partition));
        match row.map(|row| row.state) {
            _ if self.suspended => Ok(()),
            Some(SourceState::Stopped) => Ok(()),
            Some(state) => Err(Problem::new(
                Code::Conflict,
                format!("{at} is {}: only what stands still can be skipped", state.word()),
            )
            .hint(match self.source.is_push() {
                true => "pushes are skipped where they are stopped: select * from rachis.sources",
                false => "suspend the source first, and resume it afterwards",
            })),
            None => Err(
                Problem::new(Code::Unavailable, format!("no tailer says what {at} does")).hint("try again in a moment"),
            ),
        }
    }

    /// The offset that is to be read next of a partition.
    async fn next(&self, engine: &Engine, at: &str, partition: i32) -> Result<i64, Problem> {
        let shard = ShardId {
            collection: self.collection.uid,
            number: shard_of(self.source, partition, self.collection.settings.shards),
        };
        let stored = engine.roles.leaf.stored(shard, self.source, partition).await;
        let stored = stored
            .map_err(|problem| problem.hint("a skip begins where the leaf stands: try again when it answers"))?
            .offset;
        // A leaf that was not filled again yet would never get what lies between.
        let seen = engine.seen(shard).get(self.source, partition).unwrap_or(-1);
        if self.suspended && stored < seen {
            return Err(Problem::new(
                Code::Conflict,
                format!("the leaf of {at} holds less than it did (offset {stored} instead of {seen})"),
            )
            .hint("resume the source, so that it is filled again from the broker"));
        }
        Ok(stored + 1)
    }
}

/// What is left out of a partition (`at`), if the next offset is `from` and the broker's records end before `end`, as
/// far as that is known.
fn range(at: &str, from: i64, place: &Value, end: Option<i64>) -> Result<Skip, Problem> {
    let end = end.ok_or_else(|| {
        Problem::new(Code::Unavailable, format!("the end of {at} is not known yet")).hint("try again in a moment")
    })?;
    let to = match place {
        Value::String(word) if word == "latest" => end,
        other => other
            .as_i64()
            .filter(|offset| *offset >= 0)
            .ok_or_else(|| Problem::new(Code::BadRequest, format!("{other} is no place to go on at")).hint(HINT))?,
    };
    let refused = |detail| {
        Err(Problem::new(Code::BadRequest, detail)
            .hint(format!("an offset from {from} to {end} is a place to go on at")))
    };
    if to > end {
        return refused(format!("{at} ends before offset {end}: it cannot go on at {to}"));
    }
    if to < from {
        return refused(format!(
            "{at} is stored through offset {}: it cannot go on at {to}",
            from - 1
        ));
    }
    Ok(Skip { from, to })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_skip_leaves_out_what_is_not_stored_and_at_most_all_there_is() {
        let to = |place: Value| range("t/0", 42, &place, Some(60));
        assert_eq!(
            to(json!(42)),
            Ok(Skip { from: 42, to: 42 }),
            "whatever stands before it by now"
        );
        assert_eq!(to(json!(60)), Ok(Skip { from: 42, to: 60 }));
        assert_eq!(to(json!("latest")), Ok(Skip { from: 42, to: 60 }));
        for (place, end, code, said) in [
            (json!(41), Some(60), Code::BadRequest, "stored through offset 41"),
            (json!(61), Some(60), Code::BadRequest, "ends before offset 60"),
            (json!(-1), Some(60), Code::BadRequest, "-1 is no place"),
            (json!("end"), Some(60), Code::BadRequest, "\"end\" is no place"),
            (json!(4.5), Some(60), Code::BadRequest, "4.5 is no place"),
            (json!("latest"), Some(5), Code::BadRequest, "stored through offset 41"),
            (json!(43), None, Code::Unavailable, "not known"),
        ] {
            let problem = range("t/0", 42, &place, end).expect_err(said);
            assert!(
                problem.code == code && problem.detail.contains(said) && problem.hint.is_some(),
                "{problem:?}"
            );
        }
    }
}
