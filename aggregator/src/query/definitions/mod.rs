//! Changes definitions: checks a change against all definitions that use the changed one, then proposes it.
//!
//! ```text
//! statement ─ check the text itself ─┬─ apply to a copy of the catalog ─ check all that uses it ─ propose
//!                                    └──────────── other definitions were changed <────────────────┘
//! ```
//!
//! The change log accepts a change only under the definitions that it was checked with. If others were changed in the
//! meantime, for example by another aggregator, the change is checked again.

mod diff;
mod documents;
mod errors;
mod show;
mod trial;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use plan::Type;
use proto::{
    Catalog, Code, PositionVector, Problem,
    catalog::{
        CATALOG_RULES_LEVEL, Change, ChangeRecord, DefinitionId, DefinitionVersion, Dependent, Pinned, VersionRef,
        no_definition,
    },
};
use serde_json::json;
use uuid::Uuid;

pub(super) use self::{
    diff::diff,
    errors::{COLUMNS as ERROR_COLUMNS, all_errors, show_errors},
    show::{SHOW_DEFINITIONS, SHOW_VERSIONS, show_create, show_dependents},
    trial::try_definition,
};
use super::{
    Engine,
    context::QueryContext,
    planner,
    read_views::QueryViews,
    run::QueryOutput,
    statement_shape::{StatementValues, parameter},
    system,
};
use crate::sql::{self, DefinitionChange, NewDefinition, ResolvedDefinition, TagTarget};

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
    /// Whether the definition hides a stored path. Definitions that read the path then read it instead.
    hides: bool,
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
    // Decided once: of two concurrent REVERTs, the second must not go back another version.
    let wanted = &back_to_version(wanted, &catalogs.borrow())?;
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
        check_users(engine, context, &catalog, &Arc::new(after), wanted.id(), prepared.hides).await?;
        match engine.roles.changes.propose(prepared.change, checked).await {
            // Another change came first. This node may still have to read it.
            Err(problem) if problem.code == Code::Conflict => {
                if catalogs.wait_for(|now| now.version > catalog.version).await.is_err() {
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
    let change = match wanted {
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
            return Ok(Prepared {
                change,
                id: new.id.clone(),
                hides: new.id.collection.is_some() && !defined.warnings.is_empty(),
                warnings: defined.warnings,
            });
        }
        DefinitionChange::MoveTag { id, tag, to, from } => {
            let to = match to {
                TagTarget::Version(version) => Some(catalog.definition_version(id, version)?),
                TagTarget::Nowhere | TagTarget::Back => None,
            };
            if let Some(version) = to {
                let names = sql::collections_of(id, &version.text, catalog)?;
                let read_views = QueryViews::open(context, catalog, &names, &PositionVector::default()).await?;
                is_sound(engine, context, &read_views, id, version).await?;
            }
            let (id, tag, to, from) = (id.clone(), tag.clone(), to.map(|version| version.number), *from);
            Change::SetTag {
                id,
                tag,
                to,
                from,
                author,
            }
        }
        DefinitionChange::Rename { id, to } => {
            let to = to.clone();
            let renamed = DefinitionId {
                name: to.clone(),
                ..id.clone()
            };
            let names = id
                .collection
                .iter()
                .filter(|name| catalog.collections.contains_key(*name));
            let names = names.cloned().collect();
            let read_views = QueryViews::open(context, catalog, &names, &PositionVector::default()).await?;
            let warnings = sql::check_name(&renamed, &read_views)?;
            return Ok(Prepared {
                change: Change::RenameDefinition { id: id.clone(), to },
                id: renamed,
                hides: !warnings.is_empty(),
                warnings,
            });
        }
        DefinitionChange::Drop { id, if_exists } => {
            let (id, if_exists) = (id.clone(), *if_exists);
            Change::Undefine { id, if_exists }
        }
    };
    Ok(Prepared {
        change,
        id: wanted.id().clone(),
        warnings: Vec::new(),
        hides: false,
    })
}

/// Checks a new definition against the current documents.
async fn define(
    engine: &Engine,
    context: &Arc<QueryContext>,
    catalog: &Arc<Catalog>,
    new: &NewDefinition,
) -> Result<ResolvedDefinition, Problem> {
    let names = sql::collections_of(&new.id, &new.text, catalog)?;
    let read_views = QueryViews::open(context, catalog, &names, &PositionVector::default()).await?;
    let mut defined = sql::define(new, &read_views)?;
    // Its warnings are reported with the answer, so planning must not repeat them.
    defined.query.warnings.clear();
    let (query, parameters) = (defined.query.clone(), &defined.parameters);
    check(engine, context, &read_views, query, parameters).await?;
    Ok(defined)
}

/// The change with a version instead of the one before the current version.
fn back_to_version(wanted: &DefinitionChange, catalog: &Catalog) -> Result<DefinitionChange, Problem> {
    let (id, tag) = match wanted {
        DefinitionChange::MoveTag {
            id,
            tag,
            to: TagTarget::Back,
            ..
        } => (id, tag),
        other => return Ok(other.clone()),
    };
    let definition = catalog.definitions.get(id).ok_or_else(|| no_definition(id))?;
    let current = definition.current().number;
    let mut earlier = definition.versions.iter().rev().map(|version| version.number);
    let before = earlier.find(|number| *number < current).ok_or_else(|| {
        Problem::new(Code::Conflict, format!("{id} has no version before {current}"))
            .hint("SHOW VERSIONS lists its versions")
    })?;
    Ok(DefinitionChange::MoveTag {
        id: id.clone(),
        tag: tag.clone(),
        to: TagTarget::Version(VersionRef::Number(before)),
        from: Some(current),
    })
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

/// Refuses a change that would break definitions that work now, and lists them.
async fn check_users(
    engine: &Engine,
    context: &Arc<QueryContext>,
    before: &Arc<Catalog>,
    after: &Arc<Catalog>,
    changed: &DefinitionId,
    hides: bool,
) -> Result<(), Problem> {
    let users = users_of(after, changed, hides);
    if users.is_empty() {
        return Ok(());
    }
    let mut names = BTreeSet::new();
    for (id, user) in &users {
        for catalog in [after, before] {
            // A text that no longer parses fails the check below.
            names.extend(sql::collections_of(id, &user.text, catalog).unwrap_or_default());
        }
    }
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
            "changing {changed} would break {count} definitions that use it: {}{more}",
            broken.join(", ")
        ),
    )
    .hint("change those first, or let them name the version that they need, for example price@1"))
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

/// The versions in use that follow a tag of a definition, directly or through others; if the definition hides a stored
/// path, also all that read its collection.
fn users_of<'a>(catalog: &'a Catalog, changed: &DefinitionId, hides: bool) -> Vec<Pinned<'a>> {
    let dependents = catalog.dependents();
    let of_changed = dependents.get(changed).into_iter().flatten();
    let follow_tags = of_changed.filter(|dependent| matches!(dependent.used.version, VersionRef::Tag(_)));
    let mut open: Vec<Pinned<'a>> = follow_tags.map(|dependent| dependent.user).collect();
    if let Some(collection) = changed.collection.as_ref().filter(|_| hides) {
        let in_use = catalog.versions_in_use().into_iter();
        let versions = in_use.filter_map(|(id, number)| Some((id, catalog.definitions.get(id)?.numbered(number)?)));
        open.extend(versions.filter(|(_, version)| version.reads.contains(collection)));
    }
    let mut found = BTreeMap::new();
    while let Some((id, version)) = open.pop() {
        if found.insert((id, version.number), version).is_some() {
            continue;
        }
        for Dependent { user, used } in dependents.get(id).into_iter().flatten() {
            let of = catalog.definition_version(&used.id, &used.version);
            if of.is_ok_and(|of| of.number == version.number) {
                open.push(*user);
            }
        }
    }
    let others = found.into_iter().filter(|((id, _), _)| *id != changed);
    others.map(|((id, _), version)| (id, version)).collect()
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
