//! `rachis.fields`, and the paths of a collection, merged over its shards.

use std::collections::BTreeMap;

use futures::{StreamExt as _, future::join_all, stream};
use plan::scan::PathStatus;
use proto::{CollectionName, Problem, catalog::Collection, limits::PATHS_MAX};
use serde_json::{Value, json};

use super::{
    super::{Engine, find_collection::find_collection},
    REQUESTS_AT_ONCE_MAX, sql_name,
};
use crate::sql;

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
pub(super) async fn fields(engine: &Engine) -> Vec<Value> {
    let catalog = engine.catalog();
    let mut rows = Vec::new();
    for (name, fields, error) in all_fields(engine).await {
        rows.extend(sql::defined_columns(&catalog, &name).into_iter().map(|column| {
            json!({
                "collection": name,
                "path": column.path,
                "type": column.data_type.map(sql_name),
                "kind": column.kind.as_str(),
                "definition": column.definition,
            })
        }));
        rows.extend(fields.into_iter().map(|field| {
            json!({
                "collection": name,
                "path": field.path.to_string(),
                "type": field.kinds.native().map(sql_name),
                "kinds": field.kinds.to_string(),
                "documents": field.documents,
                "indexed": field.indexed,
                "sample": field.sample,
                "kind": "path",
            })
        }));
        let error_row = |problem: Problem| json!({ "collection": name, "kind": "path", "error": problem.to_string() });
        rows.extend(error.map(error_row));
    }
    rows
}
