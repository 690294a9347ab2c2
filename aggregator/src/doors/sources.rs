//! Creates sources and alters their settings.

use std::sync::Arc;

use proto::{
    Catalog, Code, CollectionName, Problem, SourceName,
    catalog::{Change, CollectionSettings, RUNS_LEVEL, Source, SourceSettings, Start},
    record,
};

use super::source_config;
use crate::query::Engine;

/// Shards of a collection that a source creates, however many partitions the topic has.
const SHARDS_OF_TOPIC_MAX: u32 = 16;

/// Creates a source, and its collection if needed, or alters its settings. Returns whether the source was created, and
/// the catalog after the change. Changes nothing if the topic cannot be read.
pub(super) async fn upsert(
    engine: &Engine,
    name: &SourceName,
    settings: SourceSettings,
) -> Result<(bool, Arc<Catalog>), Problem> {
    let catalog = engine.catalog();
    let existing = catalog.sources.get(name);
    let mut settings = check(settings, existing)?;
    if let Some(existing) = existing.filter(|existing| existing.settings.start != settings.start) {
        return Err(other_start(name, existing.settings.start));
    }
    let ends = engine
        .roles
        .source_admin
        .ends(&settings)
        .await
        .map_err(|problem| unchanged(name, existing.is_some(), problem))?;
    let partitions = u32::try_from(ends.len()).unwrap_or(u32::MAX);
    if let Some(Source { settings: before, .. }) = existing {
        (settings.partitions, settings.ends) = (before.partitions, before.ends.clone());
    } else if settings.start == Start::Latest {
        match engine.require_level(RUNS_LEVEL, "note where a source begins").await {
            Ok(()) => settings.ends = ends,
            // During an upgrade, each replica notes it.
            Err(_) => settings.partitions = Some(partitions),
        }
    }
    if !catalog.collections.contains_key(&settings.collection) {
        create_collection(engine, &settings.collection, partitions).await?;
    }
    let expected = existing.map_or(0, |source| source.version);
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
    Ok((existing.is_none(), catalog))
}

/// A shard that has lost everything is filled from where its source begins, so that must not change.
fn other_start(name: &SourceName, start: Start) -> Problem {
    let start = match start {
        Start::Earliest => "earliest",
        Start::Latest => "latest",
    };
    Problem::new(
        Code::Conflict,
        format!("source {name} starts at the {start} record: this cannot be changed"),
    )
    .hint(format!(
        "send \"start\": \"{start}\", or create a source with another name"
    ))
}

async fn create_collection(engine: &Engine, name: &CollectionName, partitions: u32) -> Result<(), Problem> {
    let change = Change::CreateCollection {
        name: name.clone(),
        settings: CollectionSettings {
            shards: partitions.clamp(1, SHARDS_OF_TOPIC_MAX),
            ..CollectionSettings::default()
        },
        placement: Vec::new(),
    };
    engine.change_catalog(change).await?;
    Ok(())
}

/// The problem of a source whose topic cannot be read. Nothing was changed, and nothing retries in the background.
fn unchanged(name: &SourceName, exists: bool, problem: Problem) -> Problem {
    let what = if exists {
        format!("source {name} was not changed")
    } else {
        format!("source {name} was not created")
    };
    let hint = match problem.hint {
        Some(hint) => format!("{hint}; nothing was created or changed, so retry afterwards"),
        None => "nothing was created or changed: fix the problem and retry".to_owned(),
    };
    Problem {
        detail: format!("{what}: {}", problem.detail),
        hint: Some(hint),
        ..problem
    }
}

/// Checks where keys come from.
pub(super) fn check_key(key: Option<&record::Key>) -> Result<(), Problem> {
    let Some(record::Key::Path(path)) = key else {
        return Ok(());
    };
    plan::Path::parse(path).map(drop).map_err(|e| {
        Problem::new(Code::BadRequest, format!("key is not a valid path: {e}"))
            .hint("use \"record\" for the key of the Kafka record, or a path written as in SQL")
    })
}

/// Checks the settings of a source. Secrets that are sent back as [`REDACTED`](proto::catalog::REDACTED) keep their values.
pub(super) fn check(mut settings: SourceSettings, existing: Option<&Source>) -> Result<SourceSettings, Problem> {
    if settings.topic.trim().is_empty() {
        return Err(Problem::new(Code::BadRequest, "topic is empty").hint("name the Kafka topic to read"));
    }
    check_key(settings.rules.key.as_ref())?;
    source_config::check(&settings.config)?;
    source_config::restore_secrets(&mut settings.config, existing.map(|source| &source.settings.config))?;
    Ok(settings)
}
