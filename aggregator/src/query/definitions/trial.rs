//! TRY: what a field or a parser would find in some documents. Nothing is stored.

use std::sync::Arc;

use plan::Type;
use proto::{Code, Problem};
use serde_json::{Value, json};

use super::{
    super::{Engine, context::QueryContext, run::QueryOutput, system},
    Draft, Source,
    documents::{Documents, failure_of, shown, spelled, text_rows},
};
use crate::{
    answer::SqlQuery,
    sql::{DefinitionChange, NewDefinition},
};

/// The values of a definition that is not stored, beside their documents.
pub(in crate::query) async fn try_definition(
    engine: &Engine,
    context: &Arc<QueryContext>,
    request: &SqlQuery,
    new: &NewDefinition,
    limit: usize,
) -> Result<QueryOutput, Problem> {
    let catalog = engine.catalog();
    let new = NewDefinition {
        replace: true,
        number: None,
        ..new.clone()
    };
    let id = new.id.clone();
    let wanted = [DefinitionChange::Define(new)];
    let draft = Draft::new(engine, context, &catalog, &wanted, None, Source::Statement).await?;
    match draft.check_users(engine, context, &catalog).await {
        Err(problem) if problem.code == Code::InUse => context.report.warn(&problem.detail),
        checked => checked?,
    }
    let documents = Documents::open(engine, context, request, &catalog, &id).await?;
    let documents = documents.under(&draft.after);
    let number = draft.after.definitions.get(&id).map_or(1, |new| new.current().number);
    draft.finish(context);
    let value = spelled(&id, number)?;
    let text = format!(
        "SELECT _id, {}, {} AS reason, {} FROM \"{}\" LIMIT {limit}",
        shown(&format!("to_json({value})"), "value"),
        failure_of(&id, &value),
        shown("_doc", "document"),
        documents.collection
    );
    let mut rows: Vec<Value> = Vec::new();
    for batch in documents.query(&text, None).await? {
        for row in text_rows(&batch)? {
            if let [id, value, reason, document] = row.as_slice() {
                rows.push(json!({ "id": id, "value": value, "reason": reason, "document": document }));
            }
        }
    }
    // What did not parse comes first.
    rows.sort_by_key(|row| row["reason"].is_null());
    let columns = [
        ("id", Type::Text),
        ("value", Type::Json),
        ("reason", Type::Text),
        ("document", Type::Json),
    ];
    Ok(QueryOutput {
        read_views: Some(documents.into_read_views()),
        ..QueryOutput::of_batch(system::batch(&columns, &rows)?)
    })
}
