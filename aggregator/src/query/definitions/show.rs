//! SHOW of definitions: their versions, what uses them, and the statements that create them.

use std::collections::{BTreeMap, BTreeSet};

use plan::Type;
use proto::{
    Catalog, Problem,
    catalog::{DefinitionId, VersionRef, no_definition},
};
use serde_json::{Value, json};

use super::super::{run::QueryOutput, system};

/// The definitions with their latest versions.
pub(in crate::query) const SHOW_DEFINITIONS: &str = "SELECT kind, collection, name, version, tags, text, note, author, \
    created FROM rachis.definitions WHERE in_force ORDER BY kind, collection, name LIMIT 100000";

/// SHOW VERSIONS OF.
pub(in crate::query) fn show_versions(catalog: &Catalog, id: &DefinitionId) -> Result<QueryOutput, Problem> {
    let definition = catalog.definitions.get(id).ok_or_else(|| no_definition(id))?;
    let rows = definition.versions.iter().map(|version| {
        let uses: Vec<String> = version.uses.iter().map(ToString::to_string).collect();
        json!({
            "version": version.number,
            "tags": definition.tags_of(version.number).collect::<Vec<_>>().join(", "),
            "text": version.text,
            "note": version.note,
            "author": version.origin.author,
            "created": version.origin.at_ms,
            "uses": uses.join(", "),
        })
    });
    let columns = [
        ("version", Type::Int),
        ("tags", Type::Text),
        ("text", Type::Text),
        ("note", Type::Text),
        ("author", Type::Text),
        ("created", Type::Time),
        ("uses", Type::Text),
    ];
    let rows: Vec<Value> = rows.collect();
    Ok(QueryOutput::of_batch(system::batch(&columns, &rows)?))
}

/// SHOW DEPENDENTS OF: what uses a definition, directly or through another one.
pub(in crate::query) fn show_dependents(catalog: &Catalog, id: &DefinitionId) -> Result<QueryOutput, Problem> {
    catalog.definitions.get(id).ok_or_else(|| no_definition(id))?;
    let mut users: BTreeMap<&DefinitionId, Vec<_>> = BTreeMap::new();
    for (user, number) in catalog.versions_in_use() {
        let version = catalog.definition_version(user, &VersionRef::Number(number))?;
        for used in &version.uses {
            users.entry(&used.id).or_default().push((user, version, used));
        }
    }
    let (mut rows, mut seen, mut open) = (Vec::new(), BTreeSet::new(), vec![id]);
    while let Some(used_id) = open.pop() {
        for (user, version, used) in users.get(used_id).into_iter().flatten() {
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
