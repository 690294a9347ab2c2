//! `/v1/sources`: the topics that are read, what is agreed on about them, and how far each partition is.

use std::sync::Arc;

use axum::{
    Json,
    body::Body,
    extract::State,
    http::{HeaderMap, StatusCode},
    response::{IntoResponse, Response},
};
use proto::{
    Catalog, Code, Problem, SourceName,
    catalog::{Change, CollectionSettings, Source, SourceSettings, Start},
    record::{self, Format, Record},
};
use serde_json::{Value, json};

use super::{
    App, body,
    refusal::{PathText, Refusal, no_source, path_text, source_name},
    source_config,
};
use crate::query::{Engine, Tails};

/// Shards of a collection that a source creates, however many partitions the topic has.
const SHARDS_OF_TOPIC_MAX: u32 = 16;
/// Records that a preview shows unless it is told another number, and at most.
const PREVIEW_RECORDS: usize = 10;
const PREVIEW_RECORDS_MAX: usize = 1_000;

/// Lists all sources.
pub(super) async fn list(State(app): State<App>) -> Result<Response, Refusal> {
    let catalog = app.engine.catalog();
    let tails = app.engine.tails().await?;
    let sources: Vec<Value> = catalog
        .sources
        .iter()
        .map(|(name, source)| describe(name, source, &tails))
        .collect();
    Ok(Json(json!({ "sources": sources })).into_response())
}

/// Shows one.
pub(super) async fn get(State(app): State<App>, path: PathText) -> Result<Response, Refusal> {
    let name = source_name(&path_text(path)?)?;
    Ok(Json(shown(&app, &app.engine.catalog(), &name).await?).into_response())
}

/// Creates one, with its collection, or changes its config. The topic is looked at first.
pub(super) async fn put(
    State(app): State<App>,
    path: PathText,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Refusal> {
    let name = source_name(&path_text(path)?)?;
    let (made, catalog) = agree(&app.engine, &name, body::json(&headers, body).await?).await?;
    let status = if made { StatusCode::CREATED } else { StatusCode::OK };
    Ok((status, Json(shown(&app, &catalog, &name).await?)).into_response())
}

/// Creates a source, with its collection, or changes its config; whether it was created, and the catalog afterwards.
pub(super) async fn agree(engine: &Engine, name: &SourceName, body: Value) -> Result<(bool, Arc<Catalog>), Problem> {
    let catalog = engine.catalog();
    let there = catalog.sources.get(name);
    let mut settings = read_settings(body, there)?;
    let partitions = engine
        .roles
        .tailing
        .ends(&settings)
        .await
        .map_err(|problem| unchanged(name, there.is_some(), problem))?
        .len();
    let partitions = u32::try_from(partitions).unwrap_or(u32::MAX);
    let known = there
        .filter(|there| there.settings.topic == settings.topic)
        .and_then(|there| there.settings.partitions);
    settings.partitions = (settings.start == Start::Latest).then(|| known.unwrap_or(partitions));
    if !catalog.collections.contains_key(&settings.collection) {
        let shards = partitions.clamp(1, SHARDS_OF_TOPIC_MAX);
        let (name, settings) = (
            settings.collection.clone(),
            CollectionSettings {
                shards,
                ..CollectionSettings::default()
            },
        );
        engine
            .roles
            .changes
            .propose(
                Change::CreateCollection {
                    name,
                    settings,
                    placement: Vec::new(),
                },
                None,
            )
            .await?;
    }
    let expected = there.map_or(0, |source| source.version);
    let catalog = engine
        .roles
        .changes
        .propose(
            Change::PutSource {
                name: name.clone(),
                settings,
            },
            Some(expected),
        )
        .await?;
    Ok((there.is_none(), catalog))
}

/// The refusal of a source whose topic cannot be read: nothing was agreed on, and nobody goes on trying.
fn unchanged(name: &SourceName, there: bool, problem: Problem) -> Problem {
    let what = if there {
        format!("source {name} was not changed")
    } else {
        format!("source {name} was not created")
    };
    let hint = match problem.hint {
        Some(hint) => format!("{hint}; nothing was created or changed, so send it again afterwards"),
        None => "nothing was created or changed: correct what is wrong and send it again".to_owned(),
    };
    Problem {
        detail: format!("{what}: {}", problem.detail),
        hint: Some(hint),
        ..problem
    }
}

/// What a body says about a source.
fn read_settings(body: Value, there: Option<&Source>) -> Result<SourceSettings, Problem> {
    let hint = "a source is {\"collection\", \"topic\", \"config\": {\"bootstrap.servers\": …}, \"format\", \"key\", \"start\"}, the last three optional";
    let mut settings: SourceSettings =
        serde_json::from_value(source_config::with_texts(body)).map_err(|e| body::not_understood(&e).hint(hint))?;
    if settings.topic.trim().is_empty() {
        return Err(Problem::new(Code::BadRequest, "the topic has no name").hint(hint));
    }
    if settings.partitions.is_some() {
        return Err(Problem::new(
            Code::BadRequest,
            "partitions cannot be set: their number is read from the topic",
        )
        .hint(hint));
    }
    if let Some(record::Key::Path(path)) = &settings.rules.key {
        plan::Path::parse(path).map_err(|e| {
            Problem::new(Code::BadRequest, format!("key is no path: {e}"))
                .hint("\"record\" takes the record's key; a path is spelled as in SQL")
        })?;
    }
    source_config::check(&settings.config)?;
    source_config::keep_secrets(&mut settings.config, there.map(|source| &source.settings.config))?;
    Ok(settings)
}

/// Drops one; its documents stay.
pub(super) async fn delete(State(app): State<App>, path: PathText) -> Result<Response, Refusal> {
    let name = source_name(&path_text(path)?)?;
    app.engine
        .roles
        .changes
        .propose(Change::DropSource { name: name.clone() }, None)
        .await?;
    Ok(Json(json!({ "dropped": name })).into_response())
}

/// Stops reading until it is resumed.
pub(super) async fn suspend(State(app): State<App>, path: PathText) -> Result<Response, Refusal> {
    set_suspended(&app, path, true).await
}

/// Reads on.
pub(super) async fn resume(State(app): State<App>, path: PathText) -> Result<Response, Refusal> {
    set_suspended(&app, path, false).await
}

async fn set_suspended(app: &App, path: PathText, suspended: bool) -> Result<Response, Refusal> {
    let name = source_name(&path_text(path)?)?;
    let catalog = app
        .engine
        .roles
        .changes
        .propose(
            Change::SuspendSource {
                name: name.clone(),
                suspended,
            },
            None,
        )
        .await?;
    Ok(Json(shown(app, &catalog, &name).await?).into_response())
}

/// Shows what a source would give, before it is created (by its body) or after (without one). Nothing is stored.
pub(super) async fn preview(
    State(app): State<App>,
    path: PathText,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Refusal> {
    let name = source_name(&path_text(path)?)?;
    let catalog = app.engine.catalog();
    let there = catalog.sources.get(&name);
    let mut wish: Value = body::json(&headers, body).await?;
    let limit = take_limit(&mut wish)?;
    let settings = match there {
        Some(source) if wish.as_object().is_some_and(serde_json::Map::is_empty) => source.settings.clone(),
        None if wish.as_object().is_some_and(serde_json::Map::is_empty) => {
            let hint = "say the topic and where Kafka is: {\"topic\", \"config\": {\"bootstrap.servers\": …}}";
            return Err(Problem::new(Code::NotFound, format!("there is no source {name} yet"))
                .hint(hint)
                .into());
        }
        _ => read_settings(wish, there)?,
    };
    let partitions = app.engine.roles.tailing.ends(&settings).await?.len();
    let records = app.engine.roles.tailing.preview(&settings, limit).await?;
    let samples: Vec<Value> = records
        .iter()
        .map(|(partition, record)| sample(*partition, record, settings.rules.format))
        .collect();
    Ok(Json(json!({ "topic": settings.topic, "partitions": partitions, "records": samples })).into_response())
}

fn take_limit(wish: &mut Value) -> Result<usize, Problem> {
    let Some(given) = wish.as_object_mut().and_then(|wish| wish.remove("limit")) else {
        return Ok(PREVIEW_RECORDS);
    };
    let limit = given
        .as_u64()
        .and_then(|limit| usize::try_from(limit).ok())
        .filter(|limit| (1..=PREVIEW_RECORDS_MAX).contains(limit));
    limit.ok_or_else(|| {
        Problem::new(Code::BadRequest, format!("limit is {given}"))
            .hint(format!("a preview shows 1 to {PREVIEW_RECORDS_MAX} records"))
    })
}

fn sample(partition: i32, record: &Record, format: Format) -> Value {
    let (document, problem) = match &record.value {
        record::Value::Null => (Value::Null, None),
        record::Value::One(bytes) => shown_document(bytes, format),
        record::Value::Many(items) => (json!(format!("{} items", items.len())), None),
    };
    let text = |bytes: &bytes::Bytes| String::from_utf8_lossy(bytes).into_owned();
    let headers: Vec<Value> = record
        .headers
        .iter()
        .map(|(name, value)| json!({ "name": name, "value": value.as_ref().map(text) }))
        .collect();
    let time = (record.time_kind != record::TimeKind::None)
        .then(|| chrono::DateTime::from_timestamp_millis(record.time_ms))
        .flatten();
    json!({
        "partition": partition,
        "offset": record.offset,
        "key": record.key.as_ref().map(text),
        "time": time.map(|time| time.to_rfc3339_opts(chrono::SecondsFormat::AutoSi, true)),
        "headers": headers,
        "document": document,
        "problem": problem,
    })
}

/// A value as a document, or as text with the reason why it would be none.
fn shown_document(bytes: &[u8], format: Format) -> (Value, Option<Value>) {
    let text = || Value::String(String::from_utf8_lossy(bytes).into_owned());
    match format {
        Format::Text => match std::str::from_utf8(bytes) {
            Ok(_) => (text(), None),
            Err(error) => (text(), Some(json!({ "code": "not_utf8", "detail": error.to_string() }))),
        },
        Format::Json => match proto::json::parse(bytes) {
            Ok(_) => (serde_json::from_slice(bytes).unwrap_or_else(|_| text()), None),
            Err(why) => (text(), Some(json!({ "code": why.word(), "detail": why.to_string() }))),
        },
    }
}

/// A source as it is shown.
pub(super) async fn shown(app: &App, catalog: &Catalog, name: &SourceName) -> Result<Value, Problem> {
    let source = catalog.sources.get(name).ok_or_else(|| no_source(name, catalog))?;
    Ok(describe(name, source, &app.engine.tails().await?))
}

fn describe(name: &SourceName, source: &Source, tails: &Tails) -> Value {
    let settings = &source.settings;
    let partitions: Vec<Value> = tails
        .rows
        .iter()
        .filter(|row| row.source == *name)
        .map(|row| json!({ "partition": row.partition, "state": row.state, "end": row.end, "lag": row.lag, "error": row.error }))
        .collect();
    json!({
        "name": name,
        "collection": settings.collection,
        "topic": settings.topic,
        "config": source_config::shown(&settings.config),
        "format": settings.rules.format,
        "key": settings.rules.key,
        "start": settings.start,
        "suspended": source.suspended,
        "skips": source.skips,
        "version": source.version,
        "partitions": partitions,
        "away": tails.away,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(body: Value) -> Result<SourceSettings, Problem> {
        read_settings(body, None)
    }

    #[test]
    fn a_source_needs_collection_topic_and_servers_only() {
        let settings = read(
            json!({"collection": "c", "topic": "t", "config": {"bootstrap.servers": "b:1", "fetch.wait.max.ms": 10}}),
        )
        .expect("a source");
        assert_eq!(
            (
                settings.rules.format,
                settings.rules.key,
                settings.config["fetch.wait.max.ms"].as_str()
            ),
            (Format::Json, None, "10")
        );
        let settings = read(
            json!({"collection": "c", "topic": "t", "config": {"bootstrap.servers": "b:1"}, "format": "text", "key": "user.id", "start": "latest"}),
        );
        assert_eq!(
            settings.map(|s| s.rules.key),
            Ok(Some(record::Key::Path("user.id".into())))
        );
    }

    #[test]
    fn what_is_not_known_is_refused_and_named() {
        let with = |key: &str, value: Value| {
            let mut body = json!({"collection": "c", "topic": "t", "config": {"bootstrap.servers": "b:1"}});
            body[key] = value;
            read(body).expect_err("it is refused")
        };
        for (key, value, named) in [
            ("partitons", json!(3), "partitons"),
            ("partitions", json!(3), "partitions"),
            ("format", json!("avro"), "avro"),
            ("start", json!("middle"), "middle"),
            ("collection", json!("Bad Name"), "Bad Name"),
            ("topic", json!(""), "topic"),
            ("key", json!("a..b"), "key"),
            (
                "config",
                json!({"bootstrap.servers": "b:1", "plugin.library.paths": "x"}),
                "plugin.library.paths",
            ),
            ("config", json!({}), "bootstrap.servers"),
        ] {
            let problem = with(key, value);
            assert!(
                problem.code == Code::BadRequest && problem.to_string().contains(named),
                "{key}: {problem}"
            );
        }
    }

    #[test]
    fn a_preview_says_what_would_become_no_document() {
        let one = |bytes: &'static [u8], format| {
            sample(
                0,
                &Record {
                    value: record::Value::One(bytes.into()),
                    ..Record::default()
                },
                format,
            )
        };
        assert_eq!(one(b"{\"a\":1}", Format::Json)["document"], json!({"a": 1}));
        assert_eq!(one(b"{oops", Format::Json)["problem"]["code"], "not_json");
        assert_eq!(one(b"{oops", Format::Text)["problem"], Value::Null);
        assert_eq!(one(b"\xff", Format::Text)["problem"]["code"], "not_utf8");
    }
}
