//! Changes of definitions: each is checked against everything that uses what it changes, and then proposed.
//!
//! ```text
//! statement ─ check the text itself ─┬─ apply to a copy of the catalog ─ check all that uses it ─ propose
//!                                    └──────────── other definitions were changed <────────────────┘
//! ```
//!
//! The change log accepts a change only under the definitions that it was checked with. If others were changed in the
//! meantime, for example by another aggregator, the change is checked again.

mod show;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use plan::Type;
use proto::{
    Catalog, Code, CollectionName, PositionVector, Problem,
    catalog::{
        CATALOG_RULES_LEVEL, Change, ChangeRecord, DefinitionId, DefinitionKind, DefinitionVersion, VersionRef,
        no_definition,
    },
};
use serde_json::json;
use uuid::Uuid;

pub(super) use self::show::{SHOW_DEFINITIONS, show_create, show_dependents, show_versions};
use super::{
    Engine,
    context::QueryContext,
    planner,
    read_views::QueryViews,
    run::QueryOutput,
    statement_shape::{StatementValues, parameter},
    system,
};
use crate::sql::{self, DefinitionChange, NewDefinition, ResolvedDefinition, Statement, TagTarget};

/// How often a change is checked again because other definitions were changed in the meantime.
const CHECKS_MAX: usize = 32;
/// Broken definitions that the message of a refusal names.
const BROKEN_MAX: usize = 20;

/// A change of the catalog, to be checked.
struct Prepared {
    change: Change,
    /// The definition afterwards.
    id: DefinitionId,
    warnings: Vec<String>,
}

/// Changes a definition: checks what the change would break, and proposes it; again while other definitions are changed.
/// The answer is the name and the version of the definition.
pub(super) async fn change(
    engine: &Engine,
    context: &Arc<QueryContext>,
    wanted: &DefinitionChange,
    author: Option<&str>,
) -> Result<QueryOutput, Problem> {
    let mut catalogs = engine.roles.changes.catalog();
    for _ in 0..CHECKS_MAX {
        let catalog = Arc::clone(&catalogs.borrow_and_update());
        let prepared = prepare(engine, context, &catalog, wanted, author).await?;
        let checked = Some(catalog.definitions_version);
        let (after, verdict) = catalog.apply(&ChangeRecord {
            uid: Uuid::now_v7(),
            level: CATALOG_RULES_LEVEL,
            expected: checked,
            change: prepared.change.clone(),
        });
        verdict?;
        check_users(engine, context, &catalog, &Arc::new(after), wanted.id()).await?;
        match engine.roles.changes.propose(prepared.change, checked).await {
            // This node may learn of the other change later than the one that judged.
            Err(problem) if problem.code == Code::Conflict => {
                let is_changed = |now: &Arc<Catalog>| now.definitions_version != catalog.definitions_version;
                if catalogs.wait_for(is_changed).await.is_err() {
                    return Err(problem);
                }
            }
            Err(problem) => return Err(problem),
            Ok(now) => {
                prepared
                    .warnings
                    .iter()
                    .for_each(|warning| context.report.warn(warning));
                let shown = now
                    .definitions
                    .get(&prepared.id)
                    .or(catalog.definitions.get(&prepared.id));
                return row(&prepared.id, shown.map(|definition| definition.current().number));
            }
        }
    }
    Err(Problem::new(
        Code::Conflict,
        "other definitions are changed faster than this change can be checked",
    )
    .hint("retry"))
}

/// Checks a change by itself.
async fn prepare(
    engine: &Engine,
    context: &Arc<QueryContext>,
    catalog: &Arc<Catalog>,
    wanted: &DefinitionChange,
    author: Option<&str>,
) -> Result<Prepared, Problem> {
    let author = author.map(str::to_owned);
    let (id, change) = match wanted {
        DefinitionChange::Define(new) => {
            let defined = define(engine, context, catalog, new).await;
            let defined = defined.map_err(|problem| at_statement_position(new.at, problem))?;
            let change = Change::Define {
                id: new.id.clone(),
                text: new.text.clone(),
                uses: defined.uses,
                reads: defined.reads,
                replace: new.replace,
                note: new.note.clone(),
                author,
            };
            let (id, warnings) = (new.id.clone(), defined.warnings);
            return Ok(Prepared { change, id, warnings });
        }
        DefinitionChange::MoveTag { id, tag, to, from } => {
            let (to, from) = tagged(catalog, id, to, *from)?;
            let (id, tag) = (id.clone(), tag.clone());
            (
                id.clone(),
                Change::SetTag {
                    id,
                    tag,
                    to,
                    from,
                    author,
                },
            )
        }
        DefinitionChange::Rename { id, to } => {
            let (id, to) = (id.clone(), to.clone());
            let renamed = DefinitionId {
                name: to.clone(),
                ..id.clone()
            };
            (renamed, Change::RenameDefinition { id, to })
        }
        DefinitionChange::Drop { id, if_exists } => {
            let (id, if_exists) = (id.clone(), *if_exists);
            (id.clone(), Change::Undefine { id, if_exists })
        }
    };
    let warnings = Vec::new();
    Ok(Prepared { change, id, warnings })
}

/// Checks a new definition against the current documents.
async fn define(
    engine: &Engine,
    context: &Arc<QueryContext>,
    catalog: &Arc<Catalog>,
    new: &NewDefinition,
) -> Result<ResolvedDefinition, Problem> {
    let names = collections_read_by(engine, new, catalog)?;
    let read_views = QueryViews::open(context, catalog, &names, &PositionVector::default()).await?;
    let mut defined = sql::define(new, &read_views)?;
    // Its warnings are reported with the answer, so planning must not repeat them.
    defined.query.warnings.clear();
    let (query, parameters) = (defined.query.clone(), &defined.parameters);
    check(engine, context, &read_views, query, parameters).await?;
    Ok(defined)
}

/// Where a tag goes, and where it must be.
fn tagged(
    catalog: &Catalog,
    id: &DefinitionId,
    to: &TagTarget,
    from: Option<u32>,
) -> Result<(Option<u32>, Option<u32>), Problem> {
    let definition = catalog.definitions.get(id).ok_or_else(|| no_definition(id))?;
    match to {
        TagTarget::Version(version) => Ok((Some(catalog.definition_version(id, version)?.number), from)),
        TagTarget::Nowhere => Ok((None, from)),
        TagTarget::Back => {
            let current = definition.current().number;
            let mut earlier = definition.versions.iter().rev().map(|version| version.number);
            let before = earlier.find(|number| *number < current).ok_or_else(|| {
                Problem::new(Code::Conflict, format!("{id} has no version before {current}"))
                    .hint("SHOW VERSIONS lists its versions")
            })?;
            // Two that go back at once shall not go back twice.
            Ok((Some(before), Some(current)))
        }
    }
}

/// Converts the place of a problem from the text of a definition to the whole statement.
fn at_statement_position((line, column): (u64, u64), mut problem: Problem) -> Problem {
    problem.at = problem.at.map(|at| match at {
        (1, text_column) => (line, column + text_column - 1),
        (text_line, text_column) => (line + text_line - 1, text_column),
    });
    problem
}

fn row(id: &DefinitionId, version: Option<u32>) -> Result<QueryOutput, Problem> {
    let columns = [("definition", Type::Text), ("version", Type::Int)];
    let row = json!({ "definition": id.to_string(), "version": version });
    Ok(QueryOutput::of_batch(system::batch(&columns, &[row])?))
}

/// The collections whose paths a new definition is checked against.
fn collections_read_by(
    engine: &Engine,
    new: &NewDefinition,
    catalog: &Catalog,
) -> Result<BTreeSet<CollectionName>, Problem> {
    let bytes_max = engine.options.statement_bytes_max;
    match new.id.kind {
        DefinitionKind::Field => {
            let own = new.id.collection.iter();
            Ok(own
                .filter(|name| catalog.collections.contains_key(*name))
                .cloned()
                .collect())
        }
        DefinitionKind::Function => Ok(BTreeSet::new()),
        DefinitionKind::Query => {
            let bound = sql::bind(&new.text, &BTreeMap::new(), sql::Unknown::Null)?;
            sql::collections(&bound.query, catalog)
        }
        DefinitionKind::View => match sql::parse(&new.text, bytes_max)? {
            Statement::Query(query) => sql::collections(&query, catalog),
            _ => Err(Problem::new(Code::BadSql, "a view must be a query").hint("write CREATE VIEW slow AS SELECT …")),
        },
    }
}

/// Plans a query, which checks its types.
async fn check(
    engine: &Engine,
    context: &Arc<QueryContext>,
    read_views: &QueryViews,
    query: sql::ResolvedQuery,
    parameters: &[serde_json::Value],
) -> Result<(), Problem> {
    let values = StatementValues::of_parameters(parameters)?;
    match planner::plan(engine, context, read_views, query, values, None).await {
        // This error comes after the type check: a missing shard makes answers incomplete, not the definition invalid.
        Err(problem) if problem.code == Code::Incomplete => Ok(()),
        planned => planned.map(drop),
    }
}

/// Refuses a change that breaks a definition which was sound before, with the list of all.
async fn check_users(
    engine: &Engine,
    context: &Arc<QueryContext>,
    before: &Arc<Catalog>,
    after: &Arc<Catalog>,
    changed: &DefinitionId,
) -> Result<(), Problem> {
    let users = users_of(after, changed);
    if users.is_empty() {
        return Ok(());
    }
    let names: BTreeSet<CollectionName> = users.iter().flat_map(|(_, user)| user.reads.iter().cloned()).collect();
    let read_views = QueryViews::open(context, after, &names, &PositionVector::default()).await?;
    let views_before = read_views.under(before);
    let mut broken = Vec::new();
    for (id, version) in &users {
        let Err(problem) = is_sound(engine, context, &read_views, id, version).await else {
            continue;
        };
        match problem.code {
            Code::Timeout | Code::Cancelled | Code::Busy | Code::Unavailable => return Err(problem),
            _ => {}
        }
        if is_sound(engine, context, &views_before, id, version).await.is_ok() {
            broken.push(format!("{id}@{} ({})", version.number, problem.detail));
        }
    }
    if broken.is_empty() {
        return Ok(());
    }
    let more = match broken.len().saturating_sub(BROKEN_MAX) {
        0 => String::new(),
        more => format!(", and {more} more"),
    };
    let count = broken.len();
    broken.truncate(BROKEN_MAX);
    Err(Problem::new(
        Code::InUse,
        format!(
            "the change of {changed} would break {count} that use it: {}{more}",
            broken.join(", ")
        ),
    )
    .hint("change these first, or let them name the version that they were made for, such as price@1"))
}

/// Whether a version of a definition can be queried under the catalog of these read views.
async fn is_sound(
    engine: &Engine,
    context: &Arc<QueryContext>,
    read_views: &QueryViews,
    id: &DefinitionId,
    version: &DefinitionVersion,
) -> Result<(), Problem> {
    let (mut query, parameters) = sql::query_of(id, &version.text, read_views)?;
    query.warnings.clear();
    check(engine, context, read_views, query, &parameters).await
}

/// The versions in use that use a definition, directly or through others.
fn users_of<'a>(catalog: &'a Catalog, used: &DefinitionId) -> Vec<(&'a DefinitionId, &'a DefinitionVersion)> {
    let mut users: BTreeMap<&DefinitionId, Vec<(&DefinitionId, u32)>> = BTreeMap::new();
    for (user, number) in catalog.versions_in_use() {
        for (used, _) in catalog.used_by((user, number)) {
            users.entry(used).or_default().push((user, number));
        }
    }
    let (mut found, mut open) = (BTreeSet::new(), vec![used]);
    while let Some(used) = open.pop() {
        for user in users.get(used).into_iter().flatten() {
            if found.insert(*user) {
                open.push(user.0);
            }
        }
    }
    let found = found.into_iter().filter(|(id, _)| *id != used);
    found
        .filter_map(|(id, number)| Some((id, catalog.definition_version(id, &VersionRef::Number(number)).ok()?)))
        .collect()
}

/// CALL: a saved query with values for its parameters.
pub(super) fn called(
    catalog: &Catalog,
    id: &DefinitionId,
    version: &VersionRef,
    arguments: sql::Arguments,
    given: &[serde_json::Value],
) -> Result<sql::BoundQuery, Problem> {
    let version = catalog.definition_version(id, version)?;
    let values = arguments.values(given)?;
    values.iter().try_for_each(|(_, value)| parameter(value).map(drop))?;
    sql::bind_call(&version.text, values)
}
