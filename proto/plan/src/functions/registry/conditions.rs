//! Functions that choose among values, and functions about the server.

use super::entry::{
    ArgumentTypes::*,
    Meaning::{Constant, Hint},
    Property::IsRandom,
    SqlFunction, compat, expression, scalar,
};

/// One function a line.
#[rustfmt::skip]
pub(super) const FUNCTIONS: &[SqlFunction] = &[
    scalar(Common, "coalesce(value, …)", "The first value that is not NULL."),
    scalar(Common, "nvl(value, otherwise)", "The value, or the other one if it is NULL."),
    scalar(Native, "nvl2(value, some, none)", "The second value, or the third one if the first is NULL."),
    scalar(Native, "nullif(a, b)", "a, or NULL if the two are equal."),
    scalar(Common, "greatest(value, …)", "The greatest value that is not NULL."),
    scalar(Common, "least(value, …)", "The least value that is not NULL."),
    scalar(Native, "uuid()", "A random UUID.").with(&[IsRandom]),
    scalar(Native, "arrow_typeof(value)", "The type that DataFusion gives to an expression."),
    // Not of use in statements, but known to DataFusion.
    scalar(Texts(&[]), "get_field(struct, name)", "A field of a struct; of a document, write document->'name'."),
    scalar(Texts(&[]), "row(value, …)", "A struct; of documents, use to_json."),
    scalar(Texts(&[]), "cast_to_type(value, other)", "The value in the type of the other one; write CAST."),
    scalar(Texts(&[]), "try_cast_to_type(value, other)", "The value in the type of another one, or NULL; write TRY_CAST."),
    scalar(Texts(&[]), "file_row_index()", "The number of a row in its file; documents are in no file."),
    // Of other systems.
    expression("if(condition, value, otherwise)", &["CASE WHEN $1 THEN $2 ELSE $3 END"],
        "The value, or the other one if the condition does not hold.").also("iff iif"),
    compat("multiIf(condition, value, …, otherwise)", Hint("write multiIf(condition, value, …, otherwise)"),
        "The value after the first condition that holds, or the last one."),
    expression("isNull(value)", &["$1 IS NULL"], "Whether a value is NULL."),
    expression("isNotNull(value)", &["$1 IS NOT NULL"], "Whether a value is not NULL."),
    expression("gen_random_uuid()", &["uuid()"], "A random UUID.").also("generateuuidv4 newid"),
    compat("version()", Constant(concat!("Rachis ", env!("CARGO_PKG_VERSION"))), "The name and version of the server."),
    compat("current_database()", Constant("rachis"), "The name that drivers expect of a database.").also("database"),
    compat("current_schema()", Constant("public"), "The name that drivers expect of a schema."),
];
