//! Creates collections and alters their settings.

use std::sync::Arc;

use plan::Path;
use proto::{
    Catalog, Code, CollectionName, Problem,
    address::Malformed,
    catalog::{Change, CollectionSettings},
};
use serde::Deserialize;
use utoipa::ToSchema;

use crate::query::Engine;

/// Settings that a client sends. Those that are left out keep their values.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub(super) struct PutCollection {
    /// The number of shards; fixed at creation.
    pub shards: Option<u32>,
    /// The number of replicas of each shard, on different leaves; a rebalance adds or removes some after a change.
    pub replicas: Option<u32>,
    /// The path of the event time in a document; null for the time of the record.
    #[serde(deserialize_with = "nullable")]
    #[schema(value_type = Option<String>)]
    pub time_path: Option<Option<String>>,
    /// How long documents are kept, by when they were ingested (`30d`) or by their event time (`30d by event`); null keeps
    /// them for ever. What is older is deleted at once.
    #[serde(deserialize_with = "nullable")]
    #[schema(value_type = Option<String>)]
    pub retention: Option<Option<String>>,
}

/// What became of a request to set up a collection.
pub(super) struct PutResult {
    /// Whether the collection was created.
    pub created: bool,
    /// The catalog after the change.
    pub catalog: Arc<Catalog>,
    /// Why not all expired documents are removed yet.
    pub warning: Option<String>,
}

/// Distinguishes `null`, which clears the setting, from a missing key.
fn nullable<'de, D: serde::Deserializer<'de>>(d: D) -> Result<Option<Option<String>>, D::Error> {
    Option::deserialize(d).map(Some)
}

/// Creates a collection or alters its settings. If it has a retention, its expired documents are removed.
pub(super) async fn upsert(
    engine: &Arc<Engine>,
    name: &CollectionName,
    request: PutCollection,
) -> Result<PutResult, Problem> {
    let catalog = engine.catalog();
    let existing = catalog.collections.get(name);
    let settings = settings(request, existing.map(|c| &c.settings), engine.options.push_shards)?;
    let (change, expected) = match existing {
        Some(existing) => (
            Change::AlterCollection {
                name: name.clone(),
                settings,
            },
            existing.version,
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
    let created = existing.is_none();
    let catalog = engine.roles.changes.propose(change, Some(expected)).await?;
    let removed = engine.expire(name, engine.options.timeout).await;
    let warning = removed
        .err()
        .map(|problem| format!("the settings are stored, but not all expired documents are removed yet: {problem}"));
    Ok(PutResult {
        created,
        catalog,
        warning,
    })
}

fn settings(
    request: PutCollection,
    existing: Option<&CollectionSettings>,
    shards: u32,
) -> Result<CollectionSettings, Problem> {
    let before = existing.cloned().unwrap_or_else(|| CollectionSettings {
        shards,
        ..CollectionSettings::default()
    });
    let time_path = request.time_path.unwrap_or(before.time_path);
    if let Some(path) = &time_path {
        Path::parse(path).map_err(|e| {
            Problem::new(Code::BadRequest, format!("time_path is not a valid path: {e}"))
                .hint("write it as in SQL, for example created_at or event.time")
        })?;
    }
    let retention = match request.retention {
        Some(text) => text.map(|text| text.parse()).transpose().map_err(bad_retention)?,
        None => before.retention,
    };
    Ok(CollectionSettings {
        shards: request.shards.unwrap_or(before.shards),
        time_path,
        retention,
        replicas: request.replicas.or(before.replicas),
    })
}

fn bad_retention(malformed: Malformed) -> Problem {
    Problem::new(Code::BadRequest, malformed.to_string()).hint(
        "30d keeps what was ingested in the last thirty days, 30d by event what has a _time in them; null keeps all",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(body: &str) -> PutCollection {
        serde_json::from_str(body).expect("a request")
    }

    #[test]
    fn settings_that_are_left_out_keep_their_values() {
        let existing = CollectionSettings {
            shards: 4,
            time_path: Some("at".into()),
            retention: Some("30d".parse().expect("a retention")),
            replicas: Some(2),
        };
        assert_eq!(settings(request("{}"), Some(&existing), 1).as_ref(), Ok(&existing));
        assert_eq!(
            settings(request(r#"{"time_path":null}"#), Some(&existing), 1),
            Ok(CollectionSettings {
                time_path: None,
                ..existing.clone()
            })
        );
        assert_eq!(
            settings(request(r#"{"retention":null}"#), Some(&existing), 1),
            Ok(CollectionSettings {
                retention: None,
                ..existing
            })
        );
        assert_eq!(
            settings(request(r#"{"time_path":"event.time","replicas":3}"#), None, 2),
            Ok(CollectionSettings {
                shards: 2,
                time_path: Some("event.time".into()),
                retention: None,
                replicas: Some(3),
            })
        );
        let problem = settings(request(r#"{"retention":"30 moons"}"#), None, 2).expect_err("no retention");
        assert!(
            problem.detail.contains("30 moons") && problem.hint.is_some(),
            "{problem:?}"
        );
        assert!(settings(request(r#"{"time_path":"a..b"}"#), None, 2).is_err());
    }

    #[test]
    fn an_unknown_setting_is_an_error_that_names_it() {
        let error = serde_json::from_str::<PutCollection>(r#"{"copies":2}"#).expect_err("an error");
        assert!(error.to_string().contains("copies"));
    }
}
