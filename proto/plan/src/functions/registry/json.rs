//! Functions of JSON, and what other systems call them.

use super::entry::{
    ArgumentTypes::*,
    Meaning::{Expressions, Path},
    PathResult::{Exists, Json as AsJson, OrDefault, Scalar, Text},
    Property::IsGenerated,
    SqlFunction, compat, expression, internal, refused, scalar, syntax,
};
use crate::functions::growth;

/// One function a line.
#[rustfmt::skip]
pub(super) const FUNCTIONS: &[SqlFunction] = &[
    syntax("search(condition)", "Whether a document satisfies a condition of the search syntax."),
    syntax("highlight(value[, condition])",
        "A text with <em> and </em> around what a condition of the search syntax finds; without one, that of WHERE."),
    syntax("score([condition])",
        "How well a row fits a condition of the search syntax (BM25); without one, that of WHERE."),
    internal("to_json(value)", "A value as JSON.").with(&[IsGenerated]).grows(growth::json),
    scalar(Typed, "json_keys(json)", "A list of the keys of an object.")
        .becomes(Expressions(&["json_keys(CAST($1 AS JSONB))"])),
    scalar(Typed, "json_typeof(json)", "object, array, string, number or boolean.")
        .also("jsonb_typeof").becomes(Expressions(&["json_typeof(to_json($1))"])),
    scalar(Json(&[0, 1]), "jsonb_contains(json, contained)", "PostgreSQL's json @> contained.")
        .grows(growth::containment),
    scalar(Json(&[0]), "jsonb_exists(json, key)", "PostgreSQL's json ? key."),
    scalar(Json(&[0]), "json_has(json, steps)", "Whether something is at a path, given as '[\"key\", 0]'."),
    scalar(Json(&[0]), "json_scalar(json)", "The text of a text, a number or a boolean."),
    scalar(Json(&[0]), "values_at(json, path)",
        "A list of the texts, numbers and booleans at a path, also in lists along it; each once.")
        .grows(growth::json),
    scalar(Json(&[0]), "json_size(json, system)", "The number of items, as a system such as 'duckdb' counts."),
    scalar(Json(&[0]), "json_value_length(json)",
        "The number of items of a list, and of characters of any other value's text."),
    scalar(Json(&[0]), "json_default(json, type)",
        "The value as a type such as 'int'; 0, false or an empty text if it has another type."),
    // Of other systems.
    compat("json_extract(json, path)", Path(AsJson), "The JSON at a path such as '$.user.name'."),
    compat("jsonb_extract_path(json, key, …)", Path(AsJson), "The JSON at a path of keys.").also("json_extract_path"),
    compat("json_extract_string(json, path)", Path(Text), "The text at a path.").also("get_json_object"),
    compat("jsonb_extract_path_text(json, key, …)", Path(Text), "The text at a path of keys.")
        .also("json_extract_path_text"),
    compat("json_value(json, path)", Path(Scalar), "The text of a text, a number or a boolean at a path.")
        .also("json_extract_scalar"),
    compat("JSONExtractString(json, key, …)", Path(OrDefault("text")), "The text at a path of keys, or an empty text."),
    compat("JSONExtractInt(json, key, …)", Path(OrDefault("int")), "The integer at a path of keys, or 0."),
    compat("JSONExtractUInt(json, key, …)", Path(OrDefault("uint")), "The integer at a path of keys, or 0."),
    compat("JSONExtractFloat(json, key, …)", Path(OrDefault("double")), "The double at a path of keys, or 0."),
    compat("JSONExtractBool(json, key, …)", Path(OrDefault("bool")), "The boolean at a path of keys, or false."),
    compat("JSONHas(json, key, …)", Path(Exists), "Whether something is at a path of keys.").also("json_exists"),
    expression("json_array_length(json)", &["json_size(CAST($1 AS JSONB), 'duckdb')"],
        "The number of items of a list, or 0."),
    expression("jsonb_array_length(json)", &["json_size(CAST($1 AS JSONB), 'postgresql')"],
        "The number of items of a list."),
    expression("json_length(json)", &["json_size(CAST($1 AS JSONB), 'mysql')"],
        "The number of items or members; 1 for a scalar."),
    expression("JSONLength(json)", &["json_size(CAST($1 AS JSONB), 'clickhouse')"],
        "The number of items or members, or 0."),
    expression("to_jsonb(value)", &["to_json($1)"], "A value as JSON."),
    expression("jsonb_object_keys(json)", &["unnest(json_keys(CAST($1 AS JSONB)))"], "A row for each key of an object.")
        .also("json_object_keys"),
    refused("json_type", "json_typeof(x) is object, array, string, number or boolean")
        .also("jsontype typeof pg_typeof totypename"),
    refused("json_query", "json_extract(document, '$.path') returns any value"),
    refused("JSONExtractRaw", "write document->'key', which returns NULL where the key is missing"),
    refused("json_contains_path", "write json_exists(document, '$.path')"),
    refused("visitParamExtractString", "write JSONExtractString(document, 'user', 'name'), which reads one path")
        .also("simplejsonextractstring simplejsonextractint simplejsonextractfloat simplejsonextractbool"),
];
