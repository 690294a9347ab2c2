//! Tables of what the catalog contains: definitions, and `information_schema`.

use std::collections::BTreeMap;

use plan::{
    column::SYSTEM_COLUMNS,
    functions::registry::{self, FunctionKind},
};
use proto::catalog::DefinitionKind;
use serde_json::{Value, json};

use super::{super::Engine, fields::all_fields, sql_name, tables::TABLES};
use crate::sql;

/// The catalog's name in `information_schema`.
const CATALOG: &str = "rachis";
/// The schema of collections and views in `information_schema`.
const SCHEMA: &str = "public";

/// `rachis.definitions`: every version of every definition.
pub(super) fn definitions(engine: &Engine) -> Vec<Value> {
    let catalog = engine.catalog();
    let mut rows = Vec::new();
    for (id, definition) in &catalog.definitions {
        for version in &definition.versions {
            let uses: Vec<String> = version.uses.iter().map(ToString::to_string).collect();
            let reads: Vec<&str> = version.reads.iter().map(|name| name.as_str()).collect();
            rows.push(json!({
                "kind": id.kind,
                "collection": id.collection,
                "name": id.name,
                "version": version.number,
                "in_force": version.number == definition.current().number,
                "tags": definition.tags_of(version.number).collect::<Vec<_>>().join(", "),
                "text": version.text,
                "note": version.note,
                "author": version.origin.author,
                "created": version.origin.at_ms,
                "uses": uses.join(", "),
                "reads": reads.join(", "),
            }));
        }
    }
    rows
}

/// `rachis.functions`: what statements may call, under its own name.
pub(super) fn functions(engine: &Engine) -> Vec<Value> {
    let catalog = engine.catalog();
    let known = registry::all()
        .filter(|function| function.is_offered())
        .map(|function| {
            let kind = match function.kind {
                FunctionKind::Aggregate => "aggregate",
                FunctionKind::Window => "window",
                _ => "scalar",
            };
            json!({
                "name": function.name(),
                "signature": function.signature,
                "summary": function.summary,
                "kind": kind,
                "other_names": function.synonyms.split_whitespace().collect::<Vec<_>>().join(", "),
            })
        });
    let defined = catalog
        .definitions
        .iter()
        .filter(|(id, _)| id.kind == DefinitionKind::Function);
    let defined = defined.map(|(id, definition)| {
        let text = &definition.current().text;
        json!({ "name": id.name, "signature": signature(text), "summary": text, "kind": "defined", "other_names": "" })
    });
    known.chain(defined).collect()
}

/// `f(a int, b text)` of `CREATE FUNCTION f(a int, b text) AS …`.
fn signature(definition: &str) -> &str {
    let end = definition.find(')').map_or(definition.len(), |end| end + 1);
    let head = &definition[..end];
    head.rsplit_once("FUNCTION ").map_or(head, |(_, signature)| signature)
}

/// `information_schema.tables`.
pub(super) fn tables(engine: &Engine) -> Vec<Value> {
    let catalog = engine.catalog();
    let row = |schema: &str, name: &str, kind: &str| json!({ "table_catalog": CATALOG, "table_schema": schema, "table_name": name, "table_type": kind });
    let collections = catalog
        .collections
        .keys()
        .map(|name| row(SCHEMA, name.as_str(), "BASE TABLE"));
    let views = catalog
        .definitions
        .keys()
        .filter(|id| id.kind == DefinitionKind::View)
        .map(|id| row(SCHEMA, &id.name, "VIEW"));
    let system = TABLES.iter().map(|table| row(table.schema, table.name, "SYSTEM VIEW"));
    collections.chain(views).chain(system).collect()
}

/// `information_schema.columns`. A collection has its system columns, its fields and the paths of its documents. The
/// paths of a shard that does not answer are missing; `rachis.fields` has the error.
pub(super) async fn columns(engine: &Engine) -> Vec<Value> {
    let catalog = engine.catalog();
    let mut rows = Vec::new();
    for (name, paths, _) in all_fields(engine).await {
        let system_columns = SYSTEM_COLUMNS
            .iter()
            .map(|(column, _, data_type)| ((*column).to_owned(), sql_name(*data_type)));
        let defined = sql::defined_columns(&catalog, &name).into_iter();
        let defined = defined.map(|column| (column.path, column.data_type.map_or("JSON", sql_name)));
        let defined: BTreeMap<String, &str> = defined.collect();
        let paths = paths
            .iter()
            .filter(|field| !field.path.steps().is_empty())
            .map(|field| (field.path.to_string(), field.kinds.native().map_or("JSON", sql_name)));
        let paths = paths.filter(|(path, _)| !defined.contains_key(path));
        let of_definitions = defined.iter().map(|(path, data_type)| (path.clone(), *data_type));
        let all = system_columns.chain(of_definitions).chain(paths);
        rows.extend(
            all.enumerate()
                .map(|(index, (column, data_type))| row(SCHEMA, name.as_str(), &column, index, data_type)),
        );
    }
    for table in TABLES {
        rows.extend(
            table
                .columns
                .iter()
                .enumerate()
                .map(|(index, (column, data_type))| row(table.schema, table.name, column, index, sql_name(*data_type))),
        );
    }
    rows
}

fn row(schema: &str, table: &str, column: &str, index: usize, data_type: &str) -> Value {
    json!({
        "table_catalog": CATALOG,
        "table_schema": schema,
        "table_name": table,
        "column_name": column,
        "ordinal_position": index + 1,
        "is_nullable": "YES",
        "data_type": data_type,
    })
}
