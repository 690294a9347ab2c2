//! `rachis.fields`, and the paths of a collection, merged over its shards.

use std::collections::BTreeMap;

use futures::{StreamExt as _, future::join_all, stream};
use plan::scan::PathStatus;
use proto::{CollectionName, Problem, catalog::Collection, limits::PATHS_MAX};

use super::{
    super::{Engine, find_collection::find_collection},
    REQUESTS_AT_ONCE_MAX,
    cell::{Cell, sql_name},
};

/// The paths of a collection.
pub struct CollectionFields {
    /// Ordered by path.
    pub fields: Vec<PathStatus>,
    /// Whether a shard lists as many paths as it can, so that there may be more.
    pub may_have_more: bool,
}

/// The paths of a collection, merged over all shards. Fails if a shard does not answer.
pub(in crate::query) async fn merged_fields(
    engine: &Engine,
    name: &CollectionName,
) -> Result<CollectionFields, Problem> {
    let catalog = engine.catalog();
    let (fields, error) = available_fields(engine, find_collection(&catalog, name)?).await;
    error.map_or(Ok(fields), Err)
}

/// The paths of a collection, merged over the shards that answer, and the error of another shard, if any.
async fn available_fields(engine: &Engine, collection: &Collection) -> (CollectionFields, Option<Problem>) {
    let answers = join_all(collection.shards().map(|shard| engine.roles.leaf.fields(shard))).await;
    let (mut merged, mut error, mut may_have_more) = (BTreeMap::<plan::Path, PathStatus>::new(), None, false);
    for answer in answers {
        let fields = answer.unwrap_or_else(|problem| {
            error = Some(problem);
            Vec::new()
        });
        may_have_more |= fields.len() >= PATHS_MAX;
        for field in fields {
            match merged.get_mut(&field.path) {
                None => drop(merged.insert(field.path.clone(), field)),
                Some(known) => merge(known, field),
            }
        }
    }
    let fields = CollectionFields {
        fields: merged.into_values().collect(),
        may_have_more,
    };
    (fields, error)
}

fn merge(known: &mut PathStatus, field: PathStatus) {
    known.kinds |= field.kinds;
    known.documents += field.documents;
    known.indexed = known.indexed.max(field.indexed);
    known.sample = known.sample.take().or(field.sample);
}

/// The paths of every collection, by name, and the error of a shard that did not answer. Paths that only this shard has
/// are missing.
pub(super) async fn all_fields(engine: &Engine) -> Vec<(CollectionName, Vec<PathStatus>, Option<Problem>)> {
    let catalog = engine.catalog();
    let fields_of = |(name, collection): (&CollectionName, &Collection)| {
        let (name, collection) = (name.clone(), collection.clone());
        async move {
            let (fields, error) = available_fields(engine, &collection).await;
            (name, fields.fields, error)
        }
    };
    let requests: Vec<_> = catalog.collections.iter().map(fields_of).collect();
    stream::iter(requests).buffered(REQUESTS_AT_ONCE_MAX).collect().await
}

/// `rachis.fields`: the defined fields, and the paths of documents. If a shard does not answer, a row without a path
/// has the error.
pub(super) async fn fields(engine: &Engine) -> Vec<Vec<Cell>> {
    let catalog = engine.catalog();
    let null = Cell::Text(None);
    let mut rows = Vec::new();
    for (name, fields, error) in all_fields(engine).await {
        for (field, version) in catalog.fields(&name) {
            rows.push(vec![
                Cell::text(name.as_str()),
                Cell::text(field),
                null.clone(),
                null.clone(),
                Cell::Int(None),
                null.clone(),
                null.clone(),
                Cell::text("field"),
                Cell::text(&version.text),
                null.clone(),
            ]);
        }
        rows.extend(fields.into_iter().map(|field| path_row(&name, field)));
        if let Some(problem) = error {
            rows.push(vec![
                Cell::text(name.as_str()),
                null.clone(),
                null.clone(),
                null.clone(),
                Cell::Int(None),
                null.clone(),
                null.clone(),
                Cell::text("path"),
                null.clone(),
                Cell::text(problem.to_string()),
            ]);
        }
    }
    rows
}

fn path_row(collection: &CollectionName, field: PathStatus) -> Vec<Cell> {
    vec![
        Cell::text(collection.as_str()),
        Cell::text(field.path.to_string()),
        Cell::Text(field.kinds.native().map(|native| sql_name(native).to_owned())),
        Cell::text(field.kinds.to_string()),
        Cell::count(field.documents),
        Cell::text(field.indexed.as_str()),
        Cell::Text(field.sample),
        Cell::text("path"),
        Cell::Text(None),
        Cell::Text(None),
    ]
}
