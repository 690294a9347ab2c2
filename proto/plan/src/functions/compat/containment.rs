//! PostgreSQL's containment of JSON, and whether a document has a key. Both are true or false; they are NULL only if
//! the document is.

use std::sync::Arc;

use datafusion::{
    arrow::{
        array::{Array as _, ArrayRef, AsArray as _, BooleanArray},
        datatypes::DataType,
    },
    common::{DataFusionError, Result},
    logical_expr::{ColumnarValue, ScalarUDF},
};
use proto::json::{self, Value};

use super::super::{
    function::{Call, Function, Returns},
    json::text_views,
};
use crate::value::compare;

/// `jsonb_contains(document, contained)` is PostgreSQL's `document @> contained`.
const CONTAINS: &str = "jsonb_contains";
/// `jsonb_exists(document, key)` is PostgreSQL's `document ? key`.
const EXISTS: &str = "jsonb_exists";
/// `json_has(document, '["key", 0]')`: whether something is at a path, be it null.
const HAS: &str = "json_has";

/// All these functions.
pub(super) fn functions() -> Vec<Arc<ScalarUDF>> {
    let condition = |name, compute| {
        Function::new(name, Some(2), Returns::Type(DataType::Boolean), compute)
            .strict()
            .into()
    };
    vec![
        condition(CONTAINS, contain),
        condition(EXISTS, exist),
        condition(HAS, have),
    ]
}

fn contain(call: &Call) -> Result<ArrayRef> {
    let documents = text_views(&call.column(0)?)?;
    let contained = text_views(&call.column(1)?)?;
    let is_constant = matches!(call.args().get(1), Some(ColumnarValue::Scalar(_)));
    let (documents, contained) = (documents.as_string_view(), contained.as_string_view());
    let wanted_at = |row: usize| {
        let text = contained.is_valid(row).then(|| contained.value(row))?;
        json::parse(text.as_bytes()).ok()
    };
    let mut wanted = if call.rows == 0 { None } else { wanted_at(0) };
    let found: BooleanArray = (0..call.rows)
        .map(|row| {
            if !is_constant {
                wanted = wanted_at(row);
            }
            let document = documents.is_valid(row).then(|| documents.value(row))?;
            let document = json::parse(document.as_bytes()).ok()?;
            Some(contains(&document, wanted.as_ref()?, true))
        })
        .collect();
    Ok(Arc::new(found))
}

/// Whether a value contains another one. At the top, a list also contains a value that is one of its elements.
fn contains(value: &Value, contained: &Value, at_top: bool) -> bool {
    match (value, contained) {
        (Value::Object(_), Value::Object(members)) => members
            .iter()
            .all(|(key, member)| value.get(key).is_some_and(|value| contains(value, member, false))),
        (Value::Array(items), Value::Array(wanted)) => wanted
            .iter()
            .all(|wanted| items.iter().any(|item| contains(item, wanted, false))),
        (Value::Array(items), scalar) if at_top => items.iter().any(|item| is_equal(item, scalar)),
        (value, contained) => is_equal(value, contained),
    }
}

/// Whether two values are equal, and neither a list nor an object.
fn is_equal(one: &Value, other: &Value) -> bool {
    match (one, other) {
        (Value::Array(_) | Value::Object(_), _) | (_, Value::Array(_) | Value::Object(_)) => false,
        (Value::Null, Value::Null) => true,
        (one, other) => one == other || compare(one, other).is_some_and(std::cmp::Ordering::is_eq),
    }
}

fn exist(call: &Call) -> Result<ArrayRef> {
    let (documents, keys) = (text_views(&call.column(0)?)?, text_views(&call.column(1)?)?);
    let (documents, keys) = (documents.as_string_view(), keys.as_string_view());
    let found: BooleanArray = (0..call.rows)
        .map(|row| {
            let key = keys.is_valid(row).then(|| keys.value(row))?;
            let document = documents.is_valid(row).then(|| documents.value(row))?;
            let document = json::parse(document.as_bytes()).ok()?;
            let is_key = |value: &Value| matches!(value, Value::Text(text) if *text == key);
            Some(match &document {
                Value::Object(_) => document.get(key).is_some(),
                Value::Array(items) => items.iter().any(is_key),
                scalar => is_key(scalar),
            })
        })
        .collect();
    Ok(Arc::new(found))
}

fn have(call: &Call) -> Result<ArrayRef> {
    let documents = text_views(&call.column(0)?)?;
    let path: Vec<serde_json::Value> =
        serde_json::from_str(call.text(1)?).map_err(|e| DataFusionError::Execution(e.to_string()))?;
    let steps: Vec<json::Step<_>> = path
        .iter()
        .filter_map(|step| match step {
            serde_json::Value::String(key) => Some(json::Step::Key(key)),
            index => index
                .as_u64()
                .and_then(|i| u32::try_from(i).ok())
                .map(json::Step::Index),
        })
        .collect();
    let found: BooleanArray = documents
        .as_string_view()
        .iter()
        .map(|document| Some(json::raw_at(document?, &steps).is_some()))
        .collect();
    Ok(Arc::new(found))
}
