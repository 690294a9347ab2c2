//! One statement, whichever it is -> rows on their way.

use std::{collections::BTreeSet, sync::Arc};

use datafusion::{physical_plan::execute_stream, sql::sqlparser::ast};
use futures::{StreamExt as _, TryStreamExt as _};
use plan::Type;
use proto::{
    Catalog, Code, CollectionName, PositionVector, Problem,
    catalog::{Change, DefinitionId, DefinitionKind},
};

use super::{
    Engine,
    context::QueryContext,
    explain, failure,
    pins::Pins,
    planner::{self, Planned},
    run::Running,
    system::{self, Cell},
    world::PinnedWorld,
};
use crate::{
    answer::{Question, Stats, type_name},
    sql::{self, Statement, World as _},
};

/// Begins a statement.
pub(super) async fn run(engine: &Engine, context: &Arc<QueryContext>, question: &Question) -> Result<Running, Problem> {
    match sql::parse(&question.sql, engine.options.statement_bytes_max)? {
        Statement::Query(query) => select(engine, context, question, &query).await,
        Statement::Explain { query, analyze } => explain(engine, context, question, &query, analyze).await,
        Statement::Define { id, text, at, replace } => define(engine, context, &id, &text, replace)
            .await
            .map_err(|problem| below(at, problem)),
        Statement::Undefine { id, if_exists } => undefine(engine, id, if_exists).await,
        Statement::ShowDefinitions => select_text(engine, context, question, SHOW_DEFINITIONS).await,
        Statement::ShowTables => show_tables(&engine.catalog()),
        Statement::Describe { name } => describe(engine, context, question, &name).await,
    }
}

const SHOW_DEFINITIONS: &str = "SELECT kind, collection, name, version, text FROM rachis.definitions WHERE in_force ORDER BY kind, collection, name LIMIT 100000";

/// Pins, resolves, plans.
async fn prepare(
    engine: &Engine,
    context: &Arc<QueryContext>,
    question: &Question,
    query: &ast::Query,
    rows_max: Option<usize>,
) -> Result<(Pins, Planned, Stats), Problem> {
    let catalog = engine.catalog();
    let names = sql::collections(query, &catalog)?;
    let pins = Pins::take(context, &catalog, &names, &question.how.at_least).await?;
    pins.complete_or(question.how.allow_partial)?;
    let mut stats = Stats::default();
    pins.fill(&mut stats);
    let resolved = sql::resolve(query, &PinnedWorld::new(catalog, &pins), &question.parameters)?;
    let planned = planner::plan(engine, context, &pins, resolved, &question.parameters, rows_max).await?;
    Ok((pins, planned, stats))
}

async fn select(
    engine: &Engine,
    context: &Arc<QueryContext>,
    question: &Question,
    query: &ast::Query,
) -> Result<Running, Problem> {
    let rows_max = (!planner::has_limit(query)).then_some(engine.options.rows_max);
    let (pins, planned, stats) = prepare(engine, context, question, query, rows_max).await?;
    begin(pins, planned, stats, rows_max)
}

/// Starts a plan.
pub(super) fn begin(pins: Pins, planned: Planned, stats: Stats, rows_max: Option<usize>) -> Result<Running, Problem> {
    let rows = execute_stream(planned.physical, planned.task).map_err(failure::problem)?;
    Ok(Running {
        schema: rows.schema(),
        rows: rows.map_err(failure::problem).boxed(),
        rows_max,
        pins: Some(pins),
        stats,
    })
}

/// A statement of our own making.
async fn select_text(
    engine: &Engine,
    context: &Arc<QueryContext>,
    question: &Question,
    text: &str,
) -> Result<Running, Problem> {
    match sql::parse(text, text.len())? {
        Statement::Query(query) => select(engine, context, question, &query).await,
        _ => Err(Problem::new(Code::Internal, "not a query")),
    }
}

async fn explain(
    engine: &Engine,
    context: &Arc<QueryContext>,
    question: &Question,
    query: &ast::Query,
    analyze: bool,
) -> Result<Running, Problem> {
    let rows_max = (!planner::has_limit(query)).then_some(engine.options.rows_max);
    let (pins, planned, stats) = prepare(engine, context, question, query, rows_max).await?;
    let rows = explain::rows(&planned, analyze).await?;
    drop(pins);
    Ok(Running::of_batch(rows, stats))
}

/// Checks a definition against the documents there are, and proposes it. The answer is its name and its version.
async fn define(
    engine: &Engine,
    context: &Arc<QueryContext>,
    id: &DefinitionId,
    text: &str,
    replace: bool,
) -> Result<Running, Problem> {
    let catalog = engine.catalog();
    let names = read_by(engine, id, text, &catalog)?;
    let pins = Pins::take(context, &catalog, &names, &PositionVector::default()).await?;
    let mut defined = sql::define(id, text, replace, &PinnedWorld::new(catalog, &pins))?;
    // Its types are checked by planning it. What it warns of is said once.
    defined.query.warnings.clear();
    match planner::plan(engine, context, &pins, defined.query, &[], None).await {
        // The types were checked before a shard was asked. A shard that is away makes answers incomplete, not the
        // definition wrong.
        Err(problem) if problem.code == Code::Incomplete => {}
        planned => drop(planned?),
    }
    drop(pins);
    defined.warnings.iter().for_each(|warning| context.report.warn(warning));
    let after = engine.roles.changes.propose(defined.change, None).await?;
    let version = after
        .definitions
        .get(id)
        .map(|definition| i64::from(definition.current().number));
    row_of(id, version)
}

/// A problem whose place counts from the text of a definition, with its place in the statement.
fn below((line, column): (u64, u64), mut problem: Problem) -> Problem {
    problem.at = problem.at.map(|at| match at {
        (1, within) => (line, column + within - 1),
        (further, within) => (line + further - 1, within),
    });
    problem
}

/// The collections whose paths a definition is checked against.
fn read_by(
    engine: &Engine,
    id: &DefinitionId,
    text: &str,
    catalog: &Catalog,
) -> Result<BTreeSet<CollectionName>, Problem> {
    match id.kind {
        DefinitionKind::Field => Ok(id
            .collection
            .iter()
            .filter(|name| catalog.collections.contains_key(*name))
            .cloned()
            .collect()),
        DefinitionKind::View => match sql::parse(text, engine.options.statement_bytes_max)? {
            Statement::Query(query) => sql::collections(&query, catalog),
            _ => Err(Problem::new(Code::BadSql, "a view is a query").hint("CREATE VIEW slow AS SELECT …")),
        },
    }
}

async fn undefine(engine: &Engine, id: DefinitionId, if_exists: bool) -> Result<Running, Problem> {
    let before = engine
        .catalog()
        .definitions
        .get(&id)
        .map(|definition| i64::from(definition.current().number));
    engine
        .roles
        .changes
        .propose(
            Change::Undefine {
                id: id.clone(),
                if_exists,
            },
            None,
        )
        .await?;
    row_of(&id, before)
}

fn row_of(id: &DefinitionId, version: Option<i64>) -> Result<Running, Problem> {
    let columns = [("definition", Type::Text), ("version", Type::Int)];
    let row = vec![Cell::text(id.to_string()), Cell::Int(version)];
    Ok(Running::of_batch(system::batch(&columns, vec![row])?, Stats::default()))
}

fn show_tables(catalog: &Catalog) -> Result<Running, Problem> {
    let row = |name: String, kind: &str| vec![Cell::text(name), Cell::text(kind)];
    let collections = catalog
        .collections
        .keys()
        .map(|name| row(name.to_string(), "collection"));
    let views = catalog
        .definitions
        .keys()
        .filter(|id| id.kind == DefinitionKind::View)
        .map(|id| row(id.name.clone(), "view"));
    let tables = system::TABLES
        .iter()
        .map(|table| row(format!("{}.{}", table.schema, table.name), "system table"));
    let rows = collections.chain(views).chain(tables).collect();
    Ok(Running::of_batch(
        system::batch(&[("name", Type::Text), ("kind", Type::Text)], rows)?,
        Stats::default(),
    ))
}

/// Columns and types of a collection, a view or a system table.
async fn describe(
    engine: &Engine,
    context: &Arc<QueryContext>,
    question: &Question,
    name: &str,
) -> Result<Running, Problem> {
    let catalog = engine.catalog();
    let rows = if let Some(table) = system::find_named(name) {
        table
            .columns
            .iter()
            .map(|(column, of)| described(column, system::sql_name(*of), ""))
            .collect()
    } else if catalog.view(name).is_some() {
        describe_view(engine, context, question, name).await?
    } else {
        let name: CollectionName = name
            .parse()
            .map_err(|e: proto::address::Malformed| Problem::new(Code::BadSql, e.to_string()))?;
        describe_collection(context, &catalog, &name).await?
    };
    let columns = [("name", Type::Text), ("type", Type::Text), ("seen", Type::Text)];
    Ok(Running::of_batch(system::batch(&columns, rows)?, Stats::default()))
}

fn described(name: &str, of: &str, seen: &str) -> Vec<Cell> {
    vec![Cell::text(name), Cell::text(of), Cell::text(seen)]
}

async fn describe_view(
    engine: &Engine,
    context: &Arc<QueryContext>,
    question: &Question,
    name: &str,
) -> Result<Vec<Vec<Cell>>, Problem> {
    let text = format!("SELECT * FROM \"{}\" LIMIT 0", name.replace('"', "\"\""));
    let running = select_text(engine, context, question, &text).await?;
    Ok(running
        .schema
        .fields()
        .iter()
        .map(|field| described(field.name(), &type_name(field.data_type()), "view"))
        .collect())
}

async fn describe_collection(
    context: &Arc<QueryContext>,
    catalog: &Arc<Catalog>,
    name: &CollectionName,
) -> Result<Vec<Vec<Cell>>, Problem> {
    let pins = Pins::take(
        context,
        catalog,
        &BTreeSet::from([name.clone()]),
        &PositionVector::default(),
    )
    .await?;
    let world = PinnedWorld::new(Arc::clone(catalog), &pins);
    let always = plan::column::ALWAYS
        .iter()
        .map(|(column, _, of)| described(column, system::sql_name(*of), "always"));
    let fields = catalog
        .definitions
        .iter()
        .filter(|(id, _)| id.kind == DefinitionKind::Field && id.collection.as_ref() == Some(name));
    let fields =
        fields.map(|(id, definition)| described(&id.name, "", &format!("field: {}", definition.current().text)));
    let paths = world.paths(name);
    let paths = paths.paths.iter().filter(|(path, _)| !path.steps().is_empty());
    let paths = paths.map(|(path, kinds)| {
        described(
            &path.to_string(),
            kinds.native().map_or("", system::sql_name),
            &kinds.to_string(),
        )
    });
    Ok(always.chain(fields).chain(paths).collect())
}
