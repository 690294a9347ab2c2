//! Values of JSON with the defaults of other systems.

use std::{collections::BTreeSet, sync::Arc};

use datafusion::{
    arrow::{
        array::{ArrayRef, AsArray as _, BooleanArray, Float64Array, Int64Array, LargeStringBuilder, StringViewArray},
        datatypes::{DataType, Field},
    },
    common::{Result, exec_datafusion_err, plan_err},
    logical_expr::{ReturnFieldArgs, ScalarUDF},
};
use proto::json::{self, Value};

use super::{
    super::{
        function::{Call, Function, Returns},
        json::text_views,
    },
    each_row::each_row,
};
use crate::{
    path::{Path, Step},
    value::{canonical, canonical_double},
};

/// `json_scalar(json)`: the text of a text, a number or a boolean; NULL for lists and objects.
const SCALAR: &str = "json_scalar";
/// `json_size(json, rule)`: the number of items, by the rule of a system.
const SIZE: &str = "json_size";
/// `json_value_length(json)`: the number of items of a list, and of characters of any other value's text.
pub const VALUE_LENGTH: &str = "json_value_length";
/// `values_at(json, 'items.sku')`: a list of the texts, numbers and booleans at a path, also in lists.
const VALUES_AT: &str = "values_at";
/// `json_default(json, 'int')` is ClickHouse's `JSONExtractInt`: 0 if there is no such value.
pub const DEFAULT: &str = "json_default";

/// All these functions.
pub(super) fn functions() -> Vec<Arc<ScalarUDF>> {
    let text = || Returns::Type(DataType::Utf8View);
    vec![
        Function::new(SCALAR, Some(1), text(), scalars).strict().into(),
        Function::new(SIZE, Some(2), Returns::Type(DataType::Int64), sizes)
            .strict()
            .into(),
        Function::new(VALUE_LENGTH, Some(1), Returns::Type(DataType::Int64), lengths)
            .strict()
            .into(),
        Function::new(VALUES_AT, Some(2), Returns::Json, values_at)
            .strict()
            .into(),
        Function::new(DEFAULT, Some(2), Returns::Of(default_field), defaults).into(),
    ]
}

fn scalars(call: &Call) -> Result<ArrayRef> {
    let texts = text_views(&call.column(0)?)?;
    let found = texts.as_string_view().iter().map(|text| {
        let text = text?;
        match json::parse(text.as_bytes()).ok()? {
            Value::Null | Value::Array(_) | Value::Object(_) => None,
            Value::Text(text) => Some(text.into_owned()),
            _ => Some(text.trim().to_owned()),
        }
    });
    Ok(Arc::new(StringViewArray::from_iter(found)))
}

fn sizes(call: &Call) -> Result<ArrayRef> {
    let texts = text_views(&call.column(0)?)?;
    let rule = call.text(1)?;
    let found = each_row(call, &[&texts], |row| {
        let value = json::parse(texts.as_string_view().value(row).as_bytes()).ok()?;
        let size = match (&value, rule) {
            (Value::Array(items), _) => items.len(),
            (Value::Object(members), "mysql" | "clickhouse") => members.len(),
            (_, "duckdb" | "clickhouse") => 0,
            (_, "mysql") => 1,
            _ => return None,
        };
        i64::try_from(size).ok()
    });
    Ok(Arc::new(Int64Array::from(found)))
}

fn lengths(call: &Call) -> Result<ArrayRef> {
    let texts = text_views(&call.column(0)?)?;
    let found = each_row(call, &[&texts], |row| {
        let text = texts.as_string_view().value(row);
        let length = match json::parse(text.as_bytes()).ok()? {
            Value::Null => return None,
            Value::Array(items) => items.len(),
            Value::Text(text) => text.chars().count(),
            _ => text.trim().chars().count(),
        };
        i64::try_from(length).ok()
    });
    Ok(Arc::new(Int64Array::from(found)))
}

/// Returns the distinct values as a JSON list, or NULL if the path has none.
fn values_at(call: &Call) -> Result<ArrayRef> {
    let path = Path::try_from(call.text(1)?.to_owned()).map_err(|e| exec_datafusion_err!("{VALUES_AT}: {e}"))?;
    let texts = text_views(&call.column(0)?)?;
    let mut lists = LargeStringBuilder::with_capacity(call.rows, 0);
    let mut found = BTreeSet::new();
    for text in texts.as_string_view() {
        call.check()?;
        found.clear();
        if let Some(value) = text.and_then(|text| json::parse(text.as_bytes()).ok()) {
            collect_at(&value, path.steps(), &mut found);
        }
        if found.is_empty() {
            lists.append_null();
            continue;
        }
        let items: Vec<&str> = found.iter().map(String::as_str).collect();
        lists.append_value(format!("[{}]", items.join(",")));
    }
    Ok(Arc::new(lists.finish()))
}

/// Collects the texts, numbers and booleans at the end of a path. Keys lead into the items of lists.
fn collect_at(value: &Value<'_>, steps: &[Step], found: &mut BTreeSet<String>) {
    match (value, steps) {
        (Value::Array(items), [Step::Index(index), rest @ ..]) => {
            if let Some(item) = usize::try_from(*index).ok().and_then(|index| items.get(index)) {
                collect_at(item, rest, found);
            }
        }
        (Value::Array(items), _) => items.iter().for_each(|item| collect_at(item, steps, found)),
        (Value::Object(members), [Step::Key(key), rest @ ..]) => {
            let member = members.iter().find(|(name, _)| name.as_ref() == key.as_ref());
            member.into_iter().for_each(|(_, value)| collect_at(value, rest, found));
        }
        (Value::Null | Value::Object(_), _) | (_, [_, ..]) => {}
        (scalar, []) => drop(found.insert(canonical(scalar))),
    }
}

fn default_field(name: &'static str, args: &ReturnFieldArgs) -> Result<Field> {
    let kind = args.scalar_arguments.get(1).copied().flatten();
    let data_type = match kind.and_then(|kind| kind.try_as_str().flatten()) {
        Some("text") => DataType::Utf8View,
        Some("int" | "uint") => DataType::Int64,
        Some("double") => DataType::Float64,
        Some("bool") => DataType::Boolean,
        _ => return plan_err!("{name} takes a kind"),
    };
    Ok(Field::new(name, data_type, true))
}

fn defaults(call: &Call) -> Result<ArrayRef> {
    let texts = text_views(&call.column(0)?)?;
    let kind = call.text(1)?;
    let values = texts.as_string_view().iter();
    let mut unrepresentable = 0;
    let found: ArrayRef = match kind {
        "text" => {
            let spelled = |text: Option<&str>| match text.map(|text| (text, json::parse(text.as_bytes()))) {
                None | Some((_, Err(_) | Ok(Value::Null))) => String::new(),
                Some((_, Ok(Value::Text(text)))) => text.into_owned(),
                Some((_, Ok(Value::Float(double)))) => canonical_double(double),
                Some((text, Ok(_))) => text.trim().to_owned(),
            };
            Arc::new(values.map(|text| Some(spelled(text))).collect::<StringViewArray>())
        }
        "double" => {
            let double = |text: &str| match json::parse(text.as_bytes()).ok()? {
                Value::Int(int) => Some(int as f64),
                Value::Float(double) => Some(double),
                Value::Text(text) => text.parse().ok().filter(|double: &f64| double.is_finite()),
                _ => None,
            };
            let numbers = values.map(|text| Some(text.and_then(double).unwrap_or_default()));
            Arc::new(numbers.collect::<Float64Array>())
        }
        "bool" => {
            let truth = |text: &str| match json::parse(text.as_bytes()).ok()? {
                Value::Bool(bool) => Some(bool),
                Value::Int(int) => Some(int != 0),
                // ClickHouse reads a fraction as false.
                Value::Float(double) => Some(double != 0.0 && double.fract() == 0.0),
                _ => None,
            };
            let truths = values.map(|text| Some(text.and_then(truth).unwrap_or_default()));
            Arc::new(truths.collect::<BooleanArray>())
        }
        _ => {
            let is_signed = kind == "int";
            let integer = |text: Option<&str>| {
                let (number, whole) = match text.map(|text| json::parse(text.as_bytes())) {
                    Some(Ok(Value::Int(int))) => (int as f64, Some(int)),
                    Some(Ok(Value::Float(double))) => (double, None),
                    Some(Ok(Value::Text(text))) => (text.parse().unwrap_or(0.0), text.parse().ok()),
                    _ => (0.0, Some(0)),
                };
                in_range(number, whole, is_signed)
                    .map_err(|()| unrepresentable += 1)
                    .ok()
            };
            let numbers: Vec<Option<i64>> = values.map(integer).collect();
            Arc::new(Int64Array::from(numbers))
        }
    };
    call.count(call.name, unrepresentable, call.rows);
    Ok(found)
}

/// A number without its fraction; 0 if it is outside of the range of the type; an error if only we cannot represent it.
fn in_range(number: f64, whole: Option<i64>, is_signed: bool) -> std::result::Result<i64, ()> {
    const INT64_END: f64 = 9_223_372_036_854_775_808.0; // 2^63
    match whole {
        Some(whole) if is_signed || whole >= 0 => Ok(whole),
        Some(_) => Ok(0),
        None if !number.is_finite() || (!is_signed && number <= -1.0) => Ok(0),
        None if (-INT64_END..INT64_END).contains(&number.trunc()) => Ok(number.trunc() as i64),
        None if !is_signed && number < 2.0 * INT64_END => Err(()),
        None => Ok(0),
    }
}
