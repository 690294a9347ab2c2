//! Dispatches a statement by its kind and starts it.

use std::{collections::BTreeSet, sync::Arc};

use datafusion::{physical_plan::execute_stream, sql::sqlparser::ast};
use futures::{StreamExt as _, TryStreamExt as _};
use plan::Type;
use proto::{
    Catalog, Code, CollectionName, PositionVector, Problem,
    catalog::{DefinitionKind, no_definition},
};
use serde_json::{Value, json};

use super::{
    Engine,
    context::QueryContext,
    definitions, delete, distribution, explain,
    plan_cache::{self, CachedPlan, ReusablePlan},
    planner::{self, CopiedPlan},
    query_plan::{ExecutablePlan, QueryPlan},
    read_views::QueryViews,
    run::QueryOutput,
    shard_scan::ScanValues,
    statement_shape::{self, StatementShape, StatementValues},
    summarize,
    system::{self, tables},
};
use crate::{
    answer::{QueryOptions, SqlQuery, type_name},
    failure,
    sql::{self, ExplainOptions, SchemaContext as _, Statement},
};

/// The functions that a definition names come first.
const SHOW_FUNCTIONS: &str = "SELECT name, signature, summary, kind FROM rachis.functions \
    WHERE lower(name) LIKE $1 OR lower(other_names) LIKE $1 ORDER BY kind = 'defined' DESC, name LIMIT 10000";

/// Starts a statement of any kind.
pub(super) async fn run(
    engine: &Arc<Engine>,
    context: &Arc<QueryContext>,
    request: &SqlQuery,
) -> Result<QueryOutput, Problem> {
    let catalog = engine.catalog();
    let author = request.author.as_deref();
    let shape = StatementShape::of(request);
    let mut read_views = None;
    let kept = statement_shape::key(request).and_then(|key| engine.plans.get(&key, &catalog));
    let kept_for_shape = || {
        let shape = shape.as_ref()?;
        let cached = engine.plans.get(&shape.key, &catalog)?;
        Some((cached, ScanValues::texts(Arc::clone(&shape.texts))))
    };
    let cached = kept.map(|cached| (cached, ScanValues::default()));
    if let Some((cached, values)) = cached.or_else(kept_for_shape) {
        let (opened, planned) = reuse(engine, context, &catalog, &cached, values, &request.options).await?;
        if let Some(planned) = planned {
            return execute(engine, context, opened, planned, cached.rows_max).await;
        }
        read_views = Some(opened);
    }
    match sql::parse(&request.sql, engine.options.statement_bytes_max)? {
        Statement::Query(query) => {
            let (read_views, planned, rows_max) =
                prepare(engine, context, request, shape.as_ref(), &query, read_views).await?;
            let settings = engine.sessions.settings();
            // It is for all statements of the shape if it has placeholders.
            let key = match shape {
                Some(shape) if planned.has_placeholders => Some(shape.key),
                _ => statement_shape::key(request),
            };
            (engine.plans).put(key, context, &read_views, &planned, rows_max, settings);
            execute(engine, context, read_views, planned.executable, rows_max).await
        }
        Statement::Summarize(summarized) => summarize::run(engine, context, request, &summarized).await,
        Statement::Explain { query, options } => explain(engine, context, request, &query, options).await,
        Statement::ChangeDefinition(change) => definitions::change(engine, context, &change, author).await,
        Statement::Delete(wanted) => delete::statement(engine, context, request, &wanted).await,
        Statement::Call { id, version, arguments } => {
            let bound = definitions::called(&catalog, &id, &version, arguments, &request.parameters)?;
            let request = SqlQuery {
                parameters: bound.parameters,
                ..request.clone()
            };
            // Under the same catalog: the text must not meet other definitions than it was read with.
            let names = sql::collections(&bound.query, &catalog)?;
            let read_views = open(context, &catalog, &names, &request).await?;
            let prepared = prepare(engine, context, &request, None, &bound.query, Some(read_views)).await?;
            let (read_views, planned, rows_max) = prepared;
            execute(engine, context, read_views, planned.executable, rows_max).await
        }
        Statement::Diff(wanted) => definitions::diff(engine, context, request, &wanted).await,
        Statement::Try { new, limit } => definitions::try_definition(engine, context, request, &new, limit).await,
        Statement::ShowDefinitions(kind) => {
            let request = SqlQuery {
                parameters: vec![kind.map(|kind| kind.as_str()).into()],
                ..request.clone()
            };
            select_text(engine, context, &request, definitions::SHOW_DEFINITIONS).await
        }
        Statement::ShowVersions(id) => {
            engine
                .catalog()
                .definitions
                .get(&id)
                .ok_or_else(|| no_definition(&id))?;
            let collection = id.collection.as_ref().map_or("", CollectionName::as_str);
            let request = SqlQuery {
                parameters: vec![id.kind.as_str().into(), collection.into(), id.name.as_str().into()],
                ..request.clone()
            };
            select_text(engine, context, &request, definitions::SHOW_VERSIONS).await
        }
        Statement::ShowErrors { id, version } => {
            definitions::show_errors(engine, context, request, &id, &version).await
        }
        Statement::ShowDependents(id) => definitions::show_dependents(context, &engine.catalog(), &id).await,
        Statement::ShowCreate { id, version } => definitions::show_create(&engine.catalog(), &id, &version),
        Statement::ShowFunctions { pattern } => {
            let request = SqlQuery {
                parameters: vec![pattern.unwrap_or_else(|| "%".to_owned()).into()],
                ..request.clone()
            };
            select_text(engine, context, &request, SHOW_FUNCTIONS).await
        }
        Statement::ShowTables => show_tables(&engine.catalog()),
        Statement::Describe { name } => describe(engine, context, request, &name).await,
    }
}

/// Opens the shards that a plan from the cache reads. Also returns the plan over them, unless they need another one.
pub(super) async fn reuse(
    engine: &Engine,
    context: &Arc<QueryContext>,
    catalog: &Arc<Catalog>,
    cached: &CachedPlan,
    values: ScanValues,
    options: &QueryOptions,
) -> Result<(QueryViews, Option<ExecutablePlan>), Problem> {
    let copied = match &cached.plan {
        ReusablePlan::Physical(template) => Some(CopiedPlan::new(engine, context, template, values.clone())?),
        ReusablePlan::Logical(_) => None,
    };
    let expected = |time_path, shards| copied.as_ref()?.expected_scan(context, time_path, shards);
    let names = cached.collections();
    let opened = QueryViews::open_to_scan(context, catalog, &names, &options.at_least, &expected).await?;
    let (opened, prefetched) = opened;
    opened.require_complete(options.allow_partial)?;
    if !cached.fits(&opened) {
        return Ok((opened, None));
    }
    let planned = match &cached.plan {
        ReusablePlan::Physical(_) => copied.map(|plan| plan.over(engine, context, &opened, prefetched)),
        ReusablePlan::Logical(plan) => {
            let plan = plan_cache::bind(plan, context, &opened).map_err(failure::problem)?;
            Some(planner::plan_optimized(engine, context, &opened, &plan, &values).await?)
        }
    };
    Ok((opened, planned))
}

/// A plan from the cache over open read views that it fits.
pub(super) async fn plan_over(
    engine: &Engine,
    context: &Arc<QueryContext>,
    cached: &CachedPlan,
    read_views: &QueryViews,
) -> Result<ExecutablePlan, Problem> {
    let values = ScanValues::default();
    match &cached.plan {
        ReusablePlan::Physical(template) => {
            let copied = CopiedPlan::new(engine, context, template, values)?;
            Ok(copied.over(engine, context, read_views, None))
        }
        ReusablePlan::Logical(plan) => {
            let plan = plan_cache::bind(plan, context, read_views).map_err(failure::problem)?;
            planner::plan_optimized(engine, context, read_views, &plan, &values).await
        }
    }
}

/// Opens the shards of these collections.
async fn open(
    context: &Arc<QueryContext>,
    catalog: &Arc<Catalog>,
    names: &BTreeSet<CollectionName>,
    request: &SqlQuery,
) -> Result<QueryViews, Problem> {
    let read_views = QueryViews::open(context, catalog, names, &request.options.at_least).await?;
    read_views.require_complete(request.options.allow_partial)?;
    Ok(read_views)
}

/// Opens the shards of a query unless that was done, resolves its names and plans it. The plan may have placeholders for
/// the texts of the shape. Also returns how many rows its answer may have, unless it has a LIMIT.
pub(super) async fn prepare(
    engine: &Engine,
    context: &Arc<QueryContext>,
    request: &SqlQuery,
    shape: Option<&StatementShape>,
    query: &ast::Query,
    read_views: Option<QueryViews>,
) -> Result<(QueryViews, QueryPlan, Option<usize>), Problem> {
    let read_views = match read_views {
        Some(read_views) => read_views,
        None => {
            let catalog = engine.catalog();
            open(context, &catalog, &sql::collections(query, &catalog)?, request).await?
        }
    };
    let quoted = shape.map_or(&[][..], |shape| &shape.quoted);
    let resolved = sql::resolve(query, &read_views, &request.parameters, quoted)?;
    let values = StatementValues::of(request, shape)?;
    let is_cut = !request.all_rows && !planner::has_limit(query);
    let rows_max = is_cut.then_some(engine.options.rows_max);
    let planned = planner::plan(engine, context, &read_views, resolved, values, rows_max).await?;
    Ok((read_views, planned, rows_max))
}

async fn select(
    engine: &Engine,
    context: &Arc<QueryContext>,
    request: &SqlQuery,
    query: &ast::Query,
) -> Result<QueryOutput, Problem> {
    let (read_views, planned, rows_max) = prepare(engine, context, request, None, query, None).await?;
    execute(engine, context, read_views, planned.executable, rows_max).await
}

/// Starts a plan, on several aggregators if it is large.
pub(super) async fn execute(
    engine: &Engine,
    context: &Arc<QueryContext>,
    read_views: QueryViews,
    planned: ExecutablePlan,
    rows_max: Option<usize>,
) -> Result<QueryOutput, Problem> {
    let planned = distribution::distributed(engine, context, planned).await;
    let rows = execute_stream(planned.physical, planned.task).map_err(failure::problem)?;
    Ok(QueryOutput {
        is_distributed: context.aggregators() > 1,
        schema: rows.schema(),
        rows: rows.map_err(failure::problem).boxed(),
        rows_max,
        read_views: Some(read_views),
    })
}

/// Runs a query that this module has written.
async fn select_text(
    engine: &Engine,
    context: &Arc<QueryContext>,
    request: &SqlQuery,
    text: &str,
) -> Result<QueryOutput, Problem> {
    match sql::parse(text, text.len())? {
        Statement::Query(query) => select(engine, context, request, &query).await,
        _ => Err(Problem::new(Code::Internal, "an internal statement is not a query")),
    }
}

async fn explain(
    engine: &Engine,
    context: &Arc<QueryContext>,
    request: &SqlQuery,
    query: &ast::Query,
    options: ExplainOptions,
) -> Result<QueryOutput, Problem> {
    let (read_views, planned, rows_max) = prepare(engine, context, request, None, query, None).await?;
    let rows = explain::rows(&planned, context, options, rows_max).await?;
    Ok(QueryOutput {
        read_views: Some(read_views),
        ..QueryOutput::of_batch(rows)
    })
}

fn show_tables(catalog: &Catalog) -> Result<QueryOutput, Problem> {
    let row = |name: String, kind: &str| json!({ "name": name, "kind": kind });
    let collections = catalog
        .collections
        .keys()
        .map(|name| row(name.to_string(), "collection"));
    let views = catalog
        .definitions
        .keys()
        .filter(|id| id.kind == DefinitionKind::View)
        .map(|id| row(id.name.clone(), "view"));
    let system_tables = tables::TABLES
        .iter()
        .map(|table| row(format!("{}.{}", table.schema, table.name), "system table"));
    let rows: Vec<Value> = collections.chain(views).chain(system_tables).collect();
    let columns = [("name", Type::Text), ("kind", Type::Text)];
    Ok(QueryOutput::of_batch(system::batch(&columns, &rows)?))
}

/// Returns the columns and types of a collection, a view or a system table.
async fn describe(
    engine: &Engine,
    context: &Arc<QueryContext>,
    request: &SqlQuery,
    name: &str,
) -> Result<QueryOutput, Problem> {
    let catalog = engine.catalog();
    let rows = if let Some(table) = tables::find_named(name) {
        table
            .columns
            .iter()
            .map(|(column, of)| column_row(column, system::sql_name(*of), ""))
            .collect()
    } else if sql::view_version(name, &catalog)?.is_some() {
        describe_view(engine, context, request, name).await?
    } else {
        let name: CollectionName = name
            .parse()
            .map_err(|e: proto::address::Malformed| Problem::new(Code::BadSql, e.to_string()))?;
        describe_collection(context, &catalog, &name).await?
    };
    let columns = [("name", Type::Text), ("type", Type::Text), ("seen", Type::Text)];
    Ok(QueryOutput::of_batch(system::batch(&columns, &rows)?))
}

fn column_row(name: &str, of: &str, seen: &str) -> Value {
    json!({ "name": name, "type": of, "seen": seen })
}

async fn describe_view(
    engine: &Engine,
    context: &Arc<QueryContext>,
    request: &SqlQuery,
    name: &str,
) -> Result<Vec<Value>, Problem> {
    let text = format!("SELECT * FROM \"{}\" LIMIT 0", name.replace('"', "\"\""));
    let running = select_text(engine, context, request, &text).await?;
    Ok(running
        .schema
        .fields()
        .iter()
        .map(|field| column_row(field.name(), &type_name(field.data_type()), "view"))
        .collect())
}

async fn describe_collection(
    context: &Arc<QueryContext>,
    catalog: &Arc<Catalog>,
    name: &CollectionName,
) -> Result<Vec<Value>, Problem> {
    let read_views = QueryViews::open(
        context,
        catalog,
        &BTreeSet::from([name.clone()]),
        &PositionVector::default(),
    )
    .await?;
    let system_columns = plan::column::SYSTEM_COLUMNS
        .iter()
        .map(|(column, _, of)| column_row(column, system::sql_name(*of), "always"));
    let defined = sql::defined_columns(catalog, name).into_iter();
    let defined = defined.map(|column| {
        let data_type = column.data_type.map_or("", system::sql_name);
        column_row(
            &column.path,
            data_type,
            &format!("{}: {}", column.kind.as_str(), column.definition),
        )
    });
    let paths = read_views.paths(name);
    let paths = paths.paths.iter().filter(|(path, _)| !path.steps().is_empty());
    let paths = paths.map(|(path, kinds)| {
        column_row(
            &path.to_string(),
            kinds.native().map_or("", system::sql_name),
            &kinds.to_string(),
        )
    });
    Ok(system_columns.chain(defined).chain(paths).collect())
}
