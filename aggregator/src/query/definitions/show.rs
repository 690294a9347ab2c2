//! SHOW of definitions: their versions, what uses them, and the statements that create them.

use std::{collections::BTreeSet, sync::Arc};

use plan::Type;
use proto::{
    Catalog, Problem,
    catalog::{DefinitionId, Dependent, VersionRef, no_definition},
};
use serde_json::json;

use super::{
    super::{context::QueryContext, run::QueryOutput, system},
    users::unrecorded_users,
};

/// The definitions with their latest versions. Its parameter is their kind; all kinds if it is NULL.
pub(in crate::query) const SHOW_DEFINITIONS: &str = "SELECT kind, collection, name, version, tags, text, note, author, \
    created FROM rachis.definitions WHERE in_force AND kind = coalesce($1, kind) ORDER BY kind, collection, name LIMIT 100000";

/// The versions of one definition. Its parameters are kind, collection (empty for none) and name.
pub(in crate::query) const SHOW_VERSIONS: &str = "SELECT version, tags, text, note, author, created, uses \
    FROM rachis.definitions WHERE kind = $1 AND coalesce(collection, '') = $2 AND name = $3 ORDER BY version \
    LIMIT 100000";

/// SHOW DEPENDENTS OF: what uses a definition, directly or through another one.
pub(in crate::query) async fn show_dependents(
    context: &QueryContext,
    catalog: &Arc<Catalog>,
    id: &DefinitionId,
) -> Result<QueryOutput, Problem> {
    catalog.definitions.get(id).ok_or_else(|| no_definition(id))?;
    let unrecorded = unrecorded_users(context, catalog, id).await?;
    let mut dependents = catalog.dependents();
    let of_id = dependents.entry(id).or_default();
    of_id.extend(unrecorded.iter().map(|(user, used)| Dependent { user: *user, used }));
    let (mut rows, mut seen, mut open) = (Vec::new(), BTreeSet::new(), vec![id]);
    while let Some(used_id) = open.pop() {
        for Dependent {
            user: (user, version),
            used,
        } in dependents.get(used_id).into_iter().flatten()
        {
            if !seen.insert((*user, version.number, *used)) {
                continue;
            }
            open.push(user);
            let now = catalog.definition_version(&used.id, &used.version).ok();
            rows.push(json!({
                "dependent": user.to_string(),
                "version": version.number,
                "uses": used.to_string(),
                "uses_version": now.map(|now| now.number),
                "direct": used.id == *id,
            }));
        }
    }
    let columns = [
        ("dependent", Type::Text),
        ("version", Type::Int),
        ("uses", Type::Text),
        ("uses_version", Type::Int),
        ("direct", Type::Bool),
    ];
    Ok(QueryOutput::of_batch(system::batch(&columns, &rows)?))
}

/// SHOW CREATE: the statement that creates a version again.
pub(in crate::query) fn show_create(
    catalog: &Catalog,
    id: &DefinitionId,
    version: &VersionRef,
) -> Result<QueryOutput, Problem> {
    let statement = catalog.definition_version(id, version)?.statement(id);
    let row = json!({ "statement": statement });
    Ok(QueryOutput::of_batch(system::batch(
        &[("statement", Type::Text)],
        &[row],
    )?))
}
