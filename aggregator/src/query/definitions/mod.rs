//! Changes definitions: checks a change against all definitions that use the changed one, then proposes it.
//!
//! ```text
//! statement, file ─┬─ for each change: check the text itself, apply it to a copy of the catalog ─ check all users ─ propose
//!                  └───────────────────────── other definitions were changed <──────────────────────────────┘
//! ```
//!
//! The change log accepts changes only under the definitions that they were checked with. If others were changed in the
//! meantime, for example by another aggregator, they are checked again. The changes of a file are accepted together.

mod diff;
mod documents;
mod errors;
mod show;
mod trial;
mod users;

use std::{collections::BTreeSet, sync::Arc};

use plan::Type;
use proto::{
    Catalog, Code, PositionVector, Problem,
    catalog::{CATALOG_RULES_LEVEL, Change, ChangeRecord, DefinitionId, DefinitionVersion, VersionRef, no_definition},
};
use serde_json::{Value, json};
use uuid::Uuid;

use self::users::{affected, unrecorded_users};
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
use crate::{
    definition_file::{DefinitionFile, Step},
    sql::{self, DefinitionChange, NewDefinition, ResolvedDefinition, TagTarget},
};

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

/// Where changes come from.
#[derive(Clone, Copy)]
enum Source {
    /// A statement.
    Statement,
    /// A file. With `dry_run`, its changes are only checked.
    File { dry_run: bool },
}

/// What became of a definition.
pub(super) struct Changed {
    id: DefinitionId,
    /// The version that was created, or that has the tag.
    version: Option<u32>,
}

/// Makes the change of one statement. The answer is the name and the version of the definition.
pub(super) async fn change(
    engine: &Engine,
    context: &Arc<QueryContext>,
    wanted: &DefinitionChange,
    author: Option<&str>,
) -> Result<QueryOutput, Problem> {
    // Decided once: of two concurrent REVERTs, the second must not go back another version.
    let wanted = back_to_version(wanted, &engine.catalog())?;
    let plan = |_: &Catalog| (vec![wanted.clone()], ());
    let (changed, ()) = change_all(engine, context, plan, author, Source::Statement).await?;
    let columns = [("definition", Type::Text), ("version", Type::Int)];
    let row = |changed: &Changed| json!({ "definition": changed.id.to_string(), "version": changed.version });
    let rows: Vec<Value> = changed.iter().map(row).collect();
    Ok(QueryOutput::of_batch(system::batch(&columns, &rows)?))
}

/// Makes the changes that a file asks for: all, or none. With `dry_run`, they are only checked.
pub(super) async fn apply(
    engine: &Engine,
    context: &Arc<QueryContext>,
    file: &str,
    author: Option<&str>,
    dry_run: bool,
) -> Result<Vec<Step>, Problem> {
    let file = DefinitionFile::parse(file)?;
    let plan = |catalog: &Catalog| {
        let steps = file.steps(catalog);
        (steps.iter().map(|step| step.change.clone()).collect(), steps)
    };
    let (_, steps) = change_all(engine, context, plan, author, Source::File { dry_run }).await?;
    Ok(steps)
}

/// Makes several changes, all or none: checks what they would break, and proposes them; again while other definitions are
/// changed. `plan` says what is wanted, given the definitions that there are.
async fn change_all<T>(
    engine: &Engine,
    context: &Arc<QueryContext>,
    plan: impl Fn(&Catalog) -> (Vec<DefinitionChange>, T),
    author: Option<&str>,
    source: Source,
) -> Result<(Vec<Changed>, T), Problem> {
    let mut catalogs = engine.roles.changes.catalog();
    for _ in 0..CHECKS_MAX {
        let catalog = Arc::clone(&catalogs.borrow_and_update());
        let (wanted, planned) = plan(&catalog);
        let draft = Draft::new(engine, context, &catalog, &wanted, author, source).await?;
        draft.check_users(engine, context, &catalog).await?;
        let changes_nothing = draft.after.definitions == catalog.definitions;
        if changes_nothing || matches!(source, Source::File { dry_run: true }) {
            return Ok((draft.finish(context), planned));
        }
        let change = match draft.changes.as_slice() {
            [only] => only.clone(),
            _ => Change::All {
                changes: draft.changes.clone(),
            },
        };
        let proposal = engine.roles.changes.propose(change, Some(catalog.definitions_version));
        let proposed = context.outcome_of("look at the definition before you repeat the change", proposal);
        match proposed.await {
            // Another change came first. This node may still have to read it.
            Err(problem) if problem.code == Code::Conflict => {
                if catalogs.wait_for(|now| now.version > catalog.version).await.is_err() {
                    return Err(problem);
                }
            }
            Err(problem) if problem.code == Code::TooLarge && draft.changes.len() > 1 => {
                return Err(
                    problem.hint("apply the file in parts: a definition may be in a later one than those that it uses")
                );
            }
            Err(problem) => return Err(problem),
            Ok(_) => return Ok((draft.finish(context), planned)),
        }
    }
    Err(Problem::new(
        Code::Conflict,
        "other definitions are changed faster than this change can be checked",
    )
    .hint("retry"))
}

/// Changes that are accepted one by one, and the catalog after them.
struct Draft {
    changes: Vec<Change>,
    changed: Vec<Changed>,
    warnings: Vec<String>,
    after: Arc<Catalog>,
    /// The definitions that are changed, under their names before and after.
    ids: BTreeSet<DefinitionId>,
}

impl Draft {
    async fn new(
        engine: &Engine,
        context: &Arc<QueryContext>,
        catalog: &Arc<Catalog>,
        wanted: &[DefinitionChange],
        author: Option<&str>,
        source: Source,
    ) -> Result<Self, Problem> {
        let mut draft = Self {
            changes: Vec::new(),
            changed: Vec::new(),
            warnings: Vec::new(),
            after: Arc::clone(catalog),
            ids: BTreeSet::new(),
        };
        for change in wanted {
            let added = draft.add(engine, context, change, author).await;
            added.map_err(|problem| match (source, change) {
                (Source::File { .. }, DefinitionChange::Define(new)) => Problem {
                    detail: format!("{}: {}", new.id, problem.detail),
                    at: problem.at.or(Some(new.at)),
                    ..problem
                },
                // The place of its problem is one in the text of an earlier version.
                (Source::File { .. }, other) => Problem {
                    detail: format!("{}: {}", other.id(), problem.detail),
                    at: None,
                    ..problem
                },
                (Source::Statement, _) => problem,
            })?;
        }
        Ok(draft)
    }

    async fn add(
        &mut self,
        engine: &Engine,
        context: &Arc<QueryContext>,
        wanted: &DefinitionChange,
        author: Option<&str>,
    ) -> Result<(), Problem> {
        let prepared = prepare(engine, context, &self.after, wanted, author).await?;
        let (after, verdict) = self.after.apply(&ChangeRecord {
            uid: Uuid::now_v7(),
            level: CATALOG_RULES_LEVEL,
            expected: None,
            change: prepared.change.clone(),
        });
        verdict?;
        let version = match &prepared.change {
            Change::Define {
                number: Some(number), ..
            } => Some(*number),
            Change::SetTag { to: Some(number), .. } => Some(*number),
            _ => {
                let shown = after.definitions.get(&prepared.id);
                let shown = shown.or(self.after.definitions.get(&prepared.id));
                shown.map(|definition| definition.current().number)
            }
        };
        let after = Arc::new(after);
        if !self.after.definitions.contains_key(&prepared.id) {
            for ((user, version), _) in unrecorded_users(context, &after, &prepared.id).await? {
                let text = format!("{user}@{} reads {} from now on", version.number, prepared.id);
                self.warnings.push(text);
            }
        }
        self.ids.extend([wanted.id().clone(), prepared.id.clone()]);
        self.changed.push(Changed {
            id: prepared.id,
            version,
        });
        self.changes.push(prepared.change);
        self.warnings.extend(prepared.warnings);
        self.after = after;
        Ok(())
    }

    /// What was changed. Its warnings become those of the query.
    fn finish(self, context: &QueryContext) -> Vec<Changed> {
        self.warnings.iter().for_each(|warning| context.report.warn(warning));
        self.changed
    }

    /// Refuses changes that would break definitions that work now, and lists them.
    async fn check_users(
        &self,
        engine: &Engine,
        context: &Arc<QueryContext>,
        before: &Arc<Catalog>,
    ) -> Result<(), Problem> {
        let users = affected(&self.after, &self.ids);
        if users.is_empty() {
            return Ok(());
        }
        let mut names = BTreeSet::new();
        for (id, user) in &users {
            for catalog in [&self.after, before] {
                // A text that no longer parses fails the check below.
                names.extend(sql::collections_of(id, &user.text, catalog).unwrap_or_default());
            }
        }
        let read_views = QueryViews::open(context, &self.after, &names, &PositionVector::default()).await?;
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
            let known = before.definitions.get(*id);
            let is_new = known.and_then(|known| known.numbered(version.number)).is_none();
            if is_new || is_sound(engine, context, &views_before, id, version).await.is_ok() {
                broken.push(format!("{id}@{} ({})", version.number, problem.detail));
            }
        }
        // A name that nothing has afterwards is NULL, which is no error. What the catalog records has been checked by it.
        let is_gone =
            |id: &&DefinitionId| before.definitions.contains_key(*id) && !self.after.definitions.contains_key(*id);
        for id in self.ids.iter().filter(is_gone) {
            if sql::is_stored_path(id, &read_views) {
                continue;
            }
            for ((user, version), _) in unrecorded_users(context, before, id).await? {
                broken.push(format!("{user}@{} (it reads {id})", version.number));
            }
        }
        if broken.is_empty() {
            return Ok(());
        }
        let more = match broken.len().saturating_sub(BROKEN_MAX) {
            0 => String::new(),
            more => format!(", and {more} more"),
        };
        let (count, noun) = match broken.len() {
            1 => (1, "definition"),
            count => (count, "definitions"),
        };
        broken.truncate(BROKEN_MAX);
        let changed: Vec<String> = self.ids.iter().take(BROKEN_MAX).map(ToString::to_string).collect();
        Err(Problem::new(
            Code::InUse,
            format!(
                "changing {} would break {count} {noun}: {}{more}",
                changed.join(", "),
                broken.join(", ")
            ),
        )
        .hint("change those first, or let them name the version that they need, for example price@1"))
    }
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
            let defined = defined.map_err(|problem| Problem {
                at: problem.at.map(|at| sql::place_within(new.at, Some(at))),
                ..problem
            })?;
            let change = Change::Define {
                id: new.id.clone(),
                text: new.text.clone(),
                uses: defined.uses,
                reads: defined.reads,
                replace: new.replace,
                note: new.note.clone(),
                author,
                number: new.number,
            };
            return Ok(Prepared {
                change,
                id: new.id.clone(),
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
    let replaced = definition.current().replaces;
    let replaced = replaced.filter(|number| definition.numbered(*number).is_some());
    let mut earlier = definition.versions.iter().rev().map(|version| version.number);
    let before = replaced.or_else(|| earlier.find(|number| *number < current));
    let before = before.ok_or_else(|| {
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
