//! `/v1/collections`: what collections there are, what is decided about them, what is in them.

use std::sync::Arc;

use axum::{
    Json,
    body::Body,
    extract::{Query, State, rejection::QueryRejection},
    http::{HeaderMap, StatusCode},
    response::{IntoResponse, Response},
};
use futures::{StreamExt as _, stream};
use plan::{Kinds, Path, scan::FieldStatus};
use proto::{
    Catalog, Code, CollectionName, PositionVector, Problem, SourceName,
    catalog::{Change, Collection, CollectionSettings, DefinitionVersion},
    ingest::{Outcomes, PartitionStatus},
    limits::PATHS_MAX,
};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{
    App, body,
    refusal::{PathText, Refusal, collection_name, no_collection, path_text},
};
use crate::query::{Engine, Fields};

/// Collections that are asked how they are at once.
const AT_ONCE_MAX: usize = 64;

/// What a user says about a collection; what is left out stays as it is.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Wish {
    pub shards: Option<u32>,
    #[serde(deserialize_with = "given")]
    pub time_path: Option<Option<String>>,
}

/// Tells `null` (take it away) from nothing said.
fn given<'de, D: serde::Deserializer<'de>>(d: D) -> Result<Option<Option<String>>, D::Error> {
    Option::deserialize(d).map(Some)
}

/// Lists all collections.
pub(super) async fn list(State(app): State<App>) -> Result<Response, Refusal> {
    let catalog = app.engine.catalog();
    let described: Vec<_> = catalog
        .collections
        .iter()
        .map(|(name, collection)| describe(&app, &catalog, name, collection))
        .collect();
    let collections: Vec<Value> = stream::iter(described).buffered(AT_ONCE_MAX).collect().await;
    Ok(Json(json!({ "collections": collections })).into_response())
}

/// Shows one.
pub(super) async fn get(State(app): State<App>, path: PathText) -> Result<Response, Refusal> {
    let name = collection_name(&path_text(path)?)?;
    let catalog = app.engine.catalog();
    let collection = catalog
        .collections
        .get(&name)
        .ok_or_else(|| no_collection(&name, &catalog))?;
    Ok(Json(describe(&app, &catalog, &name, collection).await).into_response())
}

/// Creates one, or changes what may be changed.
pub(super) async fn put(
    State(app): State<App>,
    path: PathText,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Refusal> {
    let name = collection_name(&path_text(path)?)?;
    let (made, catalog) = agree(&app.engine, &name, body::json(&headers, body).await?).await?;
    let status = if made { StatusCode::CREATED } else { StatusCode::OK };
    let collection = catalog
        .collections
        .get(&name)
        .ok_or_else(|| no_collection(&name, &catalog))?;
    Ok((status, Json(describe(&app, &catalog, &name, collection).await)).into_response())
}

/// Makes a collection, or changes what may be changed; whether it was made, and the catalog afterwards.
pub(super) async fn agree(engine: &Engine, name: &CollectionName, wish: Wish) -> Result<(bool, Arc<Catalog>), Problem> {
    let catalog = engine.catalog();
    let there = catalog.collections.get(name);
    let settings = settings(wish, there.map(|c| &c.settings), engine.options.push_shards)?;
    let (change, expected) = match there {
        Some(there) => (
            Change::AlterCollection {
                name: name.clone(),
                settings,
            },
            there.version,
        ),
        None => (
            Change::CreateCollection {
                name: name.clone(),
                settings,
                placement: Vec::new(),
            },
            0,
        ),
    };
    Ok((
        there.is_none(),
        engine.roles.changes.propose(change, Some(expected)).await?,
    ))
}

fn settings(wish: Wish, there: Option<&CollectionSettings>, shards: u32) -> Result<CollectionSettings, Problem> {
    let before = there.cloned().unwrap_or_else(|| CollectionSettings {
        shards,
        ..CollectionSettings::default()
    });
    let time_path = wish.time_path.unwrap_or(before.time_path);
    if let Some(path) = &time_path {
        Path::parse(path).map_err(|e| {
            Problem::new(Code::BadRequest, format!("time_path is no path: {e}"))
                .hint("spell it as in SQL, such as created_at or event.time")
        })?;
    }
    Ok(CollectionSettings {
        shards: wish.shards.unwrap_or(before.shards),
        time_path,
    })
}

/// Drops one with its documents.
pub(super) async fn delete(State(app): State<App>, path: PathText) -> Result<Response, Refusal> {
    let name = collection_name(&path_text(path)?)?;
    app.engine
        .roles
        .changes
        .propose(Change::DropCollection { name: name.clone() }, None)
        .await?;
    Ok(Json(json!({ "dropped": name })).into_response())
}

/// Whose dead letters are cleared.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct OfSource {
    source: Option<String>,
}

/// Removes its dead letters, or those of one source; partitions that they stopped go on. A source that was dropped may
/// have left some, too.
pub(super) async fn clear_dead_letters(
    State(app): State<App>,
    path: PathText,
    query: Result<Query<OfSource>, QueryRejection>,
) -> Result<Response, Refusal> {
    let name = collection_name(&path_text(path)?)?;
    let Query(OfSource { source }) = query.map_err(|e| {
        Problem::new(Code::BadRequest, e.body_text())
            .hint("?source=NAME clears those of one source alone, push is that of pushes")
    })?;
    let parse = |source: String| {
        source
            .parse::<SourceName>()
            .map_err(|e| Problem::new(Code::BadRequest, e.to_string()))
    };
    let source = source.map(parse).transpose()?;
    let catalog = app.engine.catalog();
    let collection = catalog
        .collections
        .get(&name)
        .ok_or_else(|| no_collection(&name, &catalog))?;
    let cleared = app
        .engine
        .roles
        .leaf
        .clear_dead_letters(collection.uid, source.as_ref())
        .await?;
    Ok(
        Json(json!({ "collection": name, "source": source, "cleared": cleared.letters, "complete": cleared.complete }))
            .into_response(),
    )
}

/// Lists what can be asked of one by name: the fields that are defined, then the paths of its documents.
pub(super) async fn fields(State(app): State<App>, path: PathText) -> Result<Response, Refusal> {
    let name = collection_name(&path_text(path)?)?;
    let Fields { fields: paths, full } = app.engine.fields(&name).await?;
    let catalog = app.engine.catalog();
    let defined = catalog
        .fields(&name)
        .map(|(field, version)| defined_json(field, version));
    let fields: Vec<Value> = defined.chain(paths.iter().map(path_json)).collect();
    let mut warnings = Vec::new();
    if full {
        warnings.push(format!(
            "a shard lists {PATHS_MAX} paths at most: {name} may have more, which can be asked by name"
        ));
    }
    Ok(Json(json!({ "collection": name, "fields": fields, "warnings": warnings })).into_response())
}

/// A defined field. It is computed when it is asked, so nothing is known of its values.
fn defined_json(name: &str, version: &DefinitionVersion) -> Value {
    json!({
        "path": name,
        "kind": "field",
        "type": null,
        "kinds": [],
        "in_arrays": false,
        "documents": null,
        "indexed": null,
        "sample": null,
        "definition": version.text,
        "version": version.number,
    })
}

fn path_json(field: &FieldStatus) -> Value {
    let kinds = field.kinds.to_string();
    let kinds: Vec<&str> = kinds.split(", ").filter(|kind| !kind.is_empty()).collect();
    let native = field
        .kinds
        .native()
        .and_then(|native| plan::Type::TABLE.iter().find(|row| row.0 == native))
        .map(|row| row.2);
    json!({
        "path": field.path.to_string(),
        "kind": "path",
        "type": native,
        "kinds": kinds,
        "in_arrays": field.kinds.any(Kinds::ELEMENT),
        "documents": field.documents,
        "indexed": field.indexed,
        "sample": field.sample,
    })
}

async fn describe(app: &App, catalog: &Catalog, name: &CollectionName, collection: &Collection) -> Value {
    let sources: Vec<String> = catalog.sources_of(name).map(|(source, _)| source.to_string()).collect();
    let mut described = json!({
        "name": name,
        "uid": collection.uid.to_string(),
        "version": collection.version,
        "settings": collection.settings,
        "sources": sources,
        "position": null,
        "statistics": null,
    });
    match app.engine.roles.leaf.partitions(collection.uid).await {
        Ok(partitions) => {
            let position: PositionVector = partitions.iter().map(|partition| partition.position.clone()).collect();
            described["position"] = position.to_string().into();
            described["statistics"] = json!(totals(&partitions));
        }
        // What is agreed on is known all the same.
        Err(problem) => described["away"] = problem.to_string().into(),
    }
    described
}

fn totals(partitions: &[PartitionStatus]) -> Outcomes {
    let mut sum = Outcomes::default();
    for Outcomes {
        events,
        accepted,
        tombstones,
        duplicates,
        dead_letters,
        superseded,
        deleted,
        expired,
        documents,
        bytes,
    } in partitions.iter().map(|partition| partition.outcomes)
    {
        sum.events += events;
        sum.accepted += accepted;
        sum.tombstones += tombstones;
        sum.duplicates += duplicates;
        sum.dead_letters += dead_letters;
        sum.superseded += superseded;
        sum.deleted += deleted;
        sum.expired += expired;
        sum.documents += documents;
        sum.bytes += bytes;
    }
    sum
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wish(body: &str) -> Wish {
        serde_json::from_str(body).expect("a wish")
    }

    #[test]
    fn what_is_left_out_stays_as_it_is() {
        let there = CollectionSettings {
            shards: 4,
            time_path: Some("at".into()),
        };
        assert_eq!(settings(wish("{}"), Some(&there), 1).as_ref(), Ok(&there));
        assert_eq!(
            settings(wish(r#"{"time_path":null}"#), Some(&there), 1),
            Ok(CollectionSettings {
                shards: 4,
                time_path: None
            })
        );
        assert_eq!(
            settings(wish(r#"{"time_path":"event.time"}"#), None, 2),
            Ok(CollectionSettings {
                shards: 2,
                time_path: Some("event.time".into())
            })
        );
        assert!(settings(wish(r#"{"time_path":"a..b"}"#), None, 2).is_err());
    }

    #[test]
    fn an_unknown_setting_is_refused_and_named() {
        let error = serde_json::from_str::<Wish>(r#"{"replicas":2}"#).expect_err("it is refused");
        assert!(error.to_string().contains("replicas"));
    }
}
