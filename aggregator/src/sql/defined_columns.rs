//! What the definitions of a collection add to its columns, for lists of them.

use plan::{Path, Type, parser::FieldType};
use proto::{
    Catalog, CollectionName,
    catalog::{DefinitionId, DefinitionKind, DefinitionVersion},
};

use super::parser_text::ParserText;
use crate::deep_stack::on_deep_stack;

/// A field, a parser, or a path of one.
#[derive(Debug, Clone)]
pub(crate) struct DefinedColumn {
    /// The path, in SQL spelling.
    pub path: String,
    /// Whether a field or a parser defines it.
    pub kind: DefinitionKind,
    /// Its type, if the definition says it.
    pub data_type: Option<Type>,
    /// The text of the definition.
    pub definition: String,
    /// The number of its current version.
    pub version: u32,
}

/// The fields and parsers of a collection, and the paths of parsers whose fields are known beforehand.
pub(crate) fn defined_columns(catalog: &Catalog, collection: &CollectionName) -> Vec<DefinedColumn> {
    on_deep_stack(|| {
        let mut columns = Vec::new();
        for (id, definition) in catalog.columns(collection) {
            let version = definition.current();
            columns.push(column(id, version, None, None));
            if id.kind == DefinitionKind::Parser {
                columns.extend(parts(id, version));
            }
        }
        columns
    })
}

fn column(
    id: &DefinitionId,
    version: &DefinitionVersion,
    part: Option<&str>,
    data_type: Option<Type>,
) -> DefinedColumn {
    let path = part.and_then(|part| {
        let own = Path::parse(&id.name).ok()?;
        Some(part.split('.').fold(own, |path, key| path.key(key)).to_string())
    });
    DefinedColumn {
        path: path.unwrap_or_else(|| id.name.clone()),
        kind: id.kind,
        data_type,
        definition: version.text.clone(),
        version: version.number,
    }
}

/// The paths below a parser.
fn parts(id: &DefinitionId, version: &DefinitionVersion) -> Vec<DefinedColumn> {
    let compiled = ParserText::parse(&version.text).and_then(|parser| parser.compiled());
    let compiled = compiled.ok();
    let fields = compiled.as_ref().and_then(|parser| parser.fields()).unwrap_or_default();
    let part = |field: &plan::parser::ParsedField| {
        let data_type = match field.field_type {
            FieldType::Text => Type::Text,
            FieldType::Int => Type::Int,
            FieldType::Double => Type::Double,
            FieldType::Json => Type::Json,
        };
        column(id, version, Some(&field.name), Some(data_type))
    };
    fields.iter().map(part).collect()
}
