//! Queries over the documents of a definition, written by this module, over the same read views.

use std::{collections::BTreeSet, sync::Arc};

use datafusion::{
    arrow::{
        array::{Array as _, ArrayRef, AsArray as _, RecordBatch},
        compute::cast,
        datatypes::DataType,
    },
    physical_plan::execute_stream,
    sql::sqlparser::ast::Expr,
};
use futures::TryStreamExt as _;
use plan::Path;
use proto::{
    Catalog, Code, CollectionName, Problem,
    catalog::{DefinitionId, DefinitionKind},
};
use serde_json::Value;

use super::super::{
    Engine, condition::query_where, context::QueryContext, planner, query_plan::ExecutablePlan, read_views::QueryViews,
    statement_shape::StatementValues,
};
use crate::{answer::SqlQuery, failure, sql};

/// The documents of a field or a parser.
pub(super) struct Documents<'a> {
    engine: &'a Engine,
    context: &'a Arc<QueryContext>,
    parameters: &'a [Value],
    /// Their collection.
    pub collection: &'a CollectionName,
    read_views: QueryViews,
}

impl<'a> Documents<'a> {
    /// Opens the collection of a definition.
    pub(super) async fn open(
        engine: &'a Engine,
        context: &'a Arc<QueryContext>,
        request: &'a SqlQuery,
        catalog: &Arc<Catalog>,
        id: &'a DefinitionId,
    ) -> Result<Self, Problem> {
        let collection = (id.collection.as_ref())
            .ok_or_else(|| Problem::new(Code::NotSupported, format!("{id} belongs to no collection")))?;
        let names = BTreeSet::from([collection.clone()]);
        let read_views = QueryViews::open(context, catalog, &names, &request.options.at_least).await?;
        read_views.require_complete(request.options.allow_partial)?;
        Ok(Self {
            engine,
            context,
            parameters: &request.parameters,
            collection,
            read_views,
        })
    }

    /// The same documents under another catalog.
    pub(super) fn under(mut self, catalog: &Arc<Catalog>) -> Self {
        self.read_views = self.read_views.under(catalog);
        self
    }

    /// What was read, for the statistics of the answer.
    pub(super) fn into_read_views(self) -> QueryViews {
        self.read_views
    }

    /// Runs a query with a condition in the place of `CONDITION`.
    pub(super) async fn query(&self, text: &str, condition: Option<&Expr>) -> Result<Vec<RecordBatch>, Problem> {
        let plan = self.plan(text, condition).await?;
        let rows = execute_stream(plan.physical, plan.task).map_err(failure::problem)?;
        rows.map_err(failure::problem).try_collect().await
    }

    /// The types of the columns of a query.
    pub(super) async fn types(&self, text: &str, condition: Option<&Expr>) -> Result<Vec<DataType>, Problem> {
        let plan = self.plan(text, condition).await?;
        let schema = plan.physical.schema();
        Ok(schema.fields().iter().map(|field| field.data_type().clone()).collect())
    }

    async fn plan(&self, text: &str, condition: Option<&Expr>) -> Result<ExecutablePlan, Problem> {
        let query = query_where(text, condition)?;
        let resolved = sql::resolve(&query, &self.read_views, self.parameters, &[])?;
        let values = StatementValues::of_parameters(self.parameters)?;
        let planned = planner::plan(self.engine, self.context, &self.read_views, resolved, values, None).await?;
        Ok(planned.executable)
    }
}

/// A version of a field or a parser, as a statement names it.
pub(super) fn spelled(id: &DefinitionId, version: u32) -> Result<String, Problem> {
    let path = Path::parse(&id.name).map_err(|detail| Problem::new(Code::BadSql, detail))?;
    let collection = id.collection.iter().map(CollectionName::as_str);
    let mut keys: Vec<String> = collection
        .chain(path.keys().unwrap_or_default())
        .map(str::to_owned)
        .collect();
    if let Some(last) = keys.last_mut() {
        last.push_str(&format!("@{version}"));
    }
    let quoted = keys.iter().map(|key| format!("\"{}\"", key.replace('"', "\"\"")));
    Ok(quoted.collect::<Vec<_>>().join("."))
}

/// The reason for which a value failed. That of a field is asked for in rows where it is NULL; a parser may have a value
/// although one of its fields failed.
pub(super) fn failure_of(id: &DefinitionId, value: &str) -> String {
    match id.kind {
        DefinitionKind::Parser => format!("failure_of({value})"),
        _ => format!("CASE WHEN {value} IS NULL THEN failure_of({value}) END"),
    }
}

/// Bytes of a document or a value that is shown. Longer ones are left out, so that a hundred of them fit into an answer.
const SHOWN_BYTES_MAX: usize = 64 << 10;

/// The JSON of a row under a name, unless it is long.
pub(super) fn shown(json: &str, name: &str) -> String {
    format!("CASE WHEN octet_length({json}) <= {SHOWN_BYTES_MAX} THEN {json} END AS {name}")
}

/// The rows of a batch as texts.
pub(super) fn text_rows(batch: &RecordBatch) -> Result<Vec<Vec<Option<String>>>, Problem> {
    let texts = batch.columns().iter().map(|column| cast(column, &DataType::Utf8View));
    let texts: Vec<ArrayRef> = texts
        .collect::<Result<_, _>>()
        .map_err(|e| failure::problem(e.into()))?;
    let text = |column: &ArrayRef, row: usize| {
        let texts = column.as_string_view();
        texts.is_valid(row).then(|| texts.value(row).to_owned())
    };
    let row = |row: usize| texts.iter().map(|column| text(column, row)).collect();
    Ok((0..batch.num_rows()).map(row).collect())
}
