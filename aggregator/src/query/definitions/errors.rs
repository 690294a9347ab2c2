//! Documents for which a field or a parser has no result, and why: SHOW ERRORS, and `rachis.definition_errors`.

use std::{sync::Arc, time::Instant};

use futures::{FutureExt as _, future::BoxFuture};
use plan::Type;
use proto::{
    Catalog, Problem,
    catalog::{DefinitionId, DefinitionKind, VersionRef},
};
use serde_json::{Value, json};
use tokio::time::timeout_at;

use super::{
    super::{Engine, context::QueryContext, read_views::QueryViews, run::QueryOutput, system},
    documents::{Documents, failure_of, shown, spelled, text_rows},
};
use crate::answer::SqlQuery;

/// Documents of one definition.
const DOCUMENTS_MAX: usize = 100;
/// Documents of all definitions.
const ROWS_MAX: usize = 1_000;
/// The columns of the table.
pub(in crate::query) const COLUMNS: &[(&str, Type)] = &[
    ("kind", Type::Text),
    ("collection", Type::Text),
    ("name", Type::Text),
    ("version", Type::Int),
    ("id", Type::Text),
    ("reason", Type::Text),
    ("document", Type::Text),
];

/// SHOW ERRORS OF: documents for which a version has no result.
pub(in crate::query) async fn show_errors(
    engine: &Engine,
    context: &Arc<QueryContext>,
    request: &SqlQuery,
    id: &DefinitionId,
    version: &VersionRef,
) -> Result<QueryOutput, Problem> {
    let catalog = engine.catalog();
    let (rows, read_views) = errors_of(engine, context, request, &catalog, id, version).await?;
    Ok(QueryOutput {
        read_views: Some(read_views),
        ..QueryOutput::of_batch(system::batch(COLUMNS, &rows)?)
    })
}

/// The documents for which the current versions of all fields and parsers have no result. It takes at most half of the
/// time that the query has left; a warning names what it did not look at.
pub(in crate::query) fn all_errors<'a>(
    engine: &'a Engine,
    context: &'a Arc<QueryContext>,
) -> BoxFuture<'a, Result<Vec<Value>, Problem>> {
    async move {
        let catalog = engine.catalog();
        let of_documents = |id: &&DefinitionId| matches!(id.kind, DefinitionKind::Field | DefinitionKind::Parser);
        let ids: Vec<&DefinitionId> = catalog.definitions.keys().filter(of_documents).collect();
        let (request, latest) = (SqlQuery::default(), VersionRef::latest());
        let now = Instant::now();
        let until = now + context.deadline().saturating_duration_since(now) / 2;
        let (mut rows, mut cut) = (Vec::new(), 0);
        for (done, id) in ids.iter().enumerate() {
            let found = errors_of(engine, context, &request, &catalog, id, &latest);
            let found = timeout_at(until.into(), found).await;
            // A definition may be broken, or a shard may be away: the others still have rows.
            let next = match found {
                Ok(Ok((found, _))) => {
                    cut += usize::from(found.len() == DOCUMENTS_MAX);
                    rows.extend(found);
                    done + 1
                }
                Ok(Err(problem)) => {
                    context.report.warn(format!("{id}: {}", problem.detail));
                    done + 1
                }
                Err(_) => done,
            };
            if let Some(first) = ids.get(next).filter(|_| next == done || rows.len() >= ROWS_MAX) {
                let (others, kind) = (ids.len() - next - 1, first.kind.as_str().to_uppercase());
                let name = first.spelled();
                context.report.warn(format!(
                    "{first} and {others} other definitions were not looked at; SHOW ERRORS OF {kind} {name} looks at one"
                ));
                break;
            }
        }
        if cut > 0 {
            context.report.warn(format!(
                "of {cut} definitions only the first {DOCUMENTS_MAX} documents are listed"
            ));
        }
        Ok(rows)
    }
    .boxed()
}

async fn errors_of(
    engine: &Engine,
    context: &Arc<QueryContext>,
    request: &SqlQuery,
    catalog: &Arc<Catalog>,
    id: &DefinitionId,
    version: &VersionRef,
) -> Result<(Vec<Value>, QueryViews), Problem> {
    let version = catalog.definition_version(id, version)?.number;
    let documents = Documents::open(engine, context, request, catalog, id).await?;
    let failure = failure_of(id, &spelled(id, version)?);
    let text = format!(
        "SELECT _id, reason, {} FROM (SELECT _id, _doc, {failure} AS reason FROM \"{}\") AS documents \
         WHERE reason IS NOT NULL LIMIT {DOCUMENTS_MAX}",
        shown("_doc", "document"),
        documents.collection
    );
    let mut rows = Vec::new();
    for batch in documents.query(&text, None).await? {
        for row in text_rows(&batch)? {
            let [document_id, reason, document] = row.as_slice() else {
                continue;
            };
            rows.push(json!({
                "kind": id.kind, "collection": id.collection, "name": id.name, "version": version,
                "id": document_id, "reason": reason, "document": document,
            }));
        }
    }
    Ok((rows, documents.into_read_views()))
}
