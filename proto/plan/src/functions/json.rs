//! Functions over JSON text that is not a column of a leaf, such as a path into the result of a SQL view. They return
//! exactly what a leaf's column of the same path and type does, so a scan may replace a call by a column.

use std::sync::Arc;

use datafusion::{
    arrow::{
        array::{
            Array, ArrayRef, AsArray, BooleanBuilder, GenericListArray, Int64Builder, LargeStringBuilder, ListBuilder,
            OffsetSizeTrait, RecordBatch, StringViewBuilder,
        },
        compute::cast,
        datatypes::{DataType, Field, Float64Type},
        json::{LineDelimitedWriter, writer::LineDelimited},
    },
    common::{DataFusionError, Result, ScalarValue, exec_err, plan_err},
    logical_expr::{ColumnarValue, ReturnFieldArgs, ScalarUDF},
};
use proto::json;

use super::function::{Call, Function, Returns};
use crate::{
    Kinds, Path, PathType, Type,
    builder::Builder,
    column::{is_json, json_field, kinds_of},
    matcher::Matcher,
    search::Clause,
    value::{CastResult, canonical, canonical_double, compare, read_value},
};

/// `json_get`.
pub const GET: &str = "json_get";
/// `json_items`.
pub const ITEMS: &str = "json_items";
/// `json_texts`.
pub const TEXTS: &str = "json_texts";
/// `json_keys`.
pub const KEYS: &str = "json_keys";
/// `json_typeof`.
pub const TYPEOF: &str = "json_typeof";
/// `to_json`.
pub const TO_JSON: &str = "to_json";
/// `json_compare`.
pub const COMPARE: &str = "json_compare";
/// `search_match`.
pub const SEARCH_MATCH: &str = "search_match";

/// All these functions, for registration with a session.
pub fn functions() -> Vec<Arc<ScalarUDF>> {
    let list = || DataType::List(Arc::new(json_field("item", Kinds::default())));
    let texts = || Returns::Type(DataType::new_list(DataType::Utf8View, true));
    vec![
        Function::new(GET, None, Returns::Of(get_field), get).into(),
        Function::new(ITEMS, Some(1), Returns::Type(list()), list_items).into(),
        Function::new(TEXTS, Some(1), texts(), list_texts).into(),
        Function::new(KEYS, Some(1), texts(), object_keys).into(),
        Function::new(TYPEOF, Some(1), Returns::Type(DataType::Utf8View), type_names).into(),
        Function::new(TO_JSON, Some(1), Returns::Json, |call| to_json(&call.column(0)?)).into(),
        Function::new(COMPARE, None, Returns::Type(DataType::Int64), compare_values).into(),
        Function::new(SEARCH_MATCH, Some(2), Returns::Type(DataType::Boolean), search_matches).into(),
    ]
}

fn text_literal<'a>(scalars: &[Option<&'a ScalarValue>], index: usize) -> Result<&'a str> {
    match scalars
        .get(index)
        .copied()
        .flatten()
        .and_then(|scalar| scalar.try_as_str().flatten())
    {
        Some(text) => Ok(text),
        None => plan_err!("argument {index} must be a text literal"),
    }
}

/// Parses a type as spelled in column names: `int`, or `int!` for a cast.
pub fn parse_path_type(spelling: &str) -> Option<PathType> {
    let (name, cast) = spelling
        .strip_suffix('!')
        .map_or((spelling, false), |name| (name, true));
    Type::TABLE
        .iter()
        .find(|row| row.1 == name)
        .map(|row| PathType { to: row.0, cast })
}

fn require_path_type(spelling: &str) -> Result<PathType> {
    parse_path_type(spelling).map_or_else(|| plan_err!("{spelling} is not a type of a column"), Ok)
}

fn parse_path(text: &str) -> Result<Path> {
    Path::try_from(text.to_owned()).map_err(|e| DataFusionError::Plan(e.to_string()))
}

fn get_field(name: &'static str, args: &ReturnFieldArgs) -> Result<Field> {
    let to = require_path_type(text_literal(args.scalar_arguments, 2)?)?.to;
    if !matches!(to, Type::Json | Type::Canonical) {
        return Ok(Field::new(name, to.arrow(), true));
    }
    let given = args
        .scalar_arguments
        .get(3)
        .copied()
        .flatten()
        .and_then(|kinds| kinds.try_as_str().flatten())
        .and_then(|bits| bits.parse().ok());
    let is_whole_value = text_literal(args.scalar_arguments, 1)?.is_empty();
    let kinds = given.map(Kinds).or_else(|| {
        args.arg_fields
            .first()
            .filter(|_| is_whole_value)
            .map(|field| kinds_of(field))
    });
    Ok(json_field(name, kinds.unwrap_or_default()))
}

/// `json_get(text, 'user.name', 'int!'[, kinds])`: reads a value inside JSON text as a type; the `!` marks a cast.
/// NULL if the text is not JSON. The optional `kinds` are those that the values at this path have had.
fn get(call: &Call) -> Result<ArrayRef> {
    let (path, path_type) = (call.text(1)?, require_path_type(call.text(2)?)?);
    let steps = parse_path(path)?;
    let mut values = Builder::new(path_type.to, call.rows);
    text_views(&call.column(0)?)?
        .as_string_view()
        .iter()
        .for_each(|text| push_value(&mut values, text, &steps, path_type));
    if values.cast_failures > 0 {
        let name = Type::TABLE
            .iter()
            .find(|row| row.0 == path_type.to)
            .map_or("JSON", |row| row.2);
        let subject = if path.is_empty() {
            String::new()
        } else {
            format!("{path} ")
        };
        call.count(
            &format!("{subject}as {name}"),
            values.cast_failures as usize,
            values.present as usize,
        );
    }
    Ok(values.finish())
}

fn push_value(values: &mut Builder, text: Option<&str>, path: &Path, to: PathType) {
    let verbatim = text.and_then(|text| json::raw_at(text, path.steps()));
    let value = verbatim.and_then(|text| json::parse(text.as_bytes()).ok());
    values.push(
        value
            .as_ref()
            .map_or(CastResult::Absent, |value| read_value(value, || verbatim, to)),
    );
}

/// Whether [`text_views`] reads arrays of this type.
pub(super) fn is_text(data_type: &DataType) -> bool {
    use DataType::{Dictionary, LargeUtf8, Null, Utf8, Utf8View};
    matches!(data_type, Utf8View | Utf8 | LargeUtf8 | Null | Dictionary(..))
}

/// Casts any array of texts to Utf8View.
pub(super) fn text_views(array: &ArrayRef) -> Result<ArrayRef> {
    match array.data_type() {
        DataType::Utf8View => Ok(Arc::clone(array)),
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Null | DataType::Dictionary(..) => {
            Ok(cast(array, &DataType::Utf8View)?)
        }
        other => exec_err!("{other} is not a text type"),
    }
}

/// `json_items(text)`: the elements of a JSON list as JSON texts; NULL for anything else.
fn list_items(call: &Call) -> Result<ArrayRef> {
    let mut lists = ListBuilder::new(LargeStringBuilder::new()).with_field(json_field("item", Kinds::default()));
    for text in text_views(&call.column(0)?)?.as_string_view() {
        match text
            .filter(|text| text.trim_start().starts_with('['))
            .and_then(|text| json::raw_items(text).ok())
        {
            Some(items) => lists.append_value(items.into_iter().map(|item| (item != "null").then_some(item))),
            None => lists.append_null(),
        }
    }
    Ok(Arc::new(lists.finish()))
}

/// Lists of texts, one for each JSON text for which there is one.
fn lists_of_texts(texts: &ArrayRef, list: impl Fn(&str) -> Option<Vec<Option<String>>>) -> Result<ArrayRef> {
    let mut lists = ListBuilder::new(StringViewBuilder::new());
    for text in text_views(texts)?.as_string_view() {
        match text.and_then(&list) {
            Some(items) => lists.append_value(items),
            None => lists.append_null(),
        }
    }
    Ok(Arc::new(lists.finish()))
}

/// `json_texts(text)`: the elements of a JSON list as texts, as `->>` returns them; NULL for anything else.
fn list_texts(call: &Call) -> Result<ArrayRef> {
    lists_of_texts(&call.column(0)?, |text| {
        let items = json::raw_items(text)
            .ok()
            .filter(|_| text.trim_start().starts_with('['))?;
        let as_text = |item: &str| match json::parse(item.as_bytes()) {
            Ok(json::Value::Null) | Err(_) => None,
            Ok(json::Value::Text(text)) => Some(text.into_owned()),
            Ok(_) => Some(item.to_owned()),
        };
        Some(items.into_iter().map(as_text).collect())
    })
}

/// `json_keys(text)`: the keys of a JSON object; NULL for anything else.
fn object_keys(call: &Call) -> Result<ArrayRef> {
    lists_of_texts(&call.column(0)?, |text| match json::parse(text.as_bytes()) {
        Ok(json::Value::Object(members)) => Some(members.into_iter().map(|(key, _)| Some(key.into_owned())).collect()),
        _ => None,
    })
}

/// `json_typeof(text)`: `object`, `array`, `string`, `number` or `boolean`; NULL for null.
fn type_names(call: &Call) -> Result<ArrayRef> {
    let mut names = StringViewBuilder::with_capacity(call.rows);
    for text in text_views(&call.column(0)?)?.as_string_view() {
        names.append_option(text.and_then(|text| match json::parse(text.as_bytes()).ok()? {
            json::Value::Null => None,
            json::Value::Bool(_) => Some("boolean"),
            json::Value::Int(_) | json::Value::Float(_) | json::Value::Big(_) => Some("number"),
            json::Value::Text(_) => Some("string"),
            json::Value::Array(_) => Some("array"),
            json::Value::Object(_) => Some("object"),
        }));
    }
    Ok(Arc::new(names.finish()))
}

/// Any array as canonical JSON texts; JSON text is returned unchanged.
pub fn to_json(array: &ArrayRef) -> Result<ArrayRef> {
    let mut spelled = LargeStringBuilder::with_capacity(array.len(), 0);
    match array.data_type() {
        json if is_json(json) => return Ok(Arc::clone(array)),
        DataType::Null => return Ok(cast(array, &DataType::LargeUtf8)?),
        DataType::Utf8 | DataType::Utf8View => {
            text_views(array)?
                .as_string_view()
                .iter()
                .for_each(|text| spelled.append_option(text.map(|text| serde_json::Value::from(text).to_string())));
        }
        DataType::Float64 | DataType::Float32 => {
            cast(array, &DataType::Float64)?
                .as_primitive::<Float64Type>()
                .iter()
                .for_each(|double| spelled.append_option(double.filter(|d| d.is_finite()).map(canonical_double)));
        }
        DataType::List(_) => append_lists::<i32>(array.as_list(), &mut spelled)?,
        DataType::LargeList(_) => append_lists::<i64>(array.as_list(), &mut spelled)?,
        _ => append_by_writer(array, &mut spelled)?,
    }
    Ok(Arc::new(spelled.finish()))
}

/// Spells lists with their items as [`to_json`] spells these: an item that is JSON stays what it is.
fn append_lists<O: OffsetSizeTrait>(lists: &GenericListArray<O>, spelled: &mut LargeStringBuilder) -> Result<()> {
    let offsets = lists.offsets();
    let (first, last) = (offsets[0].as_usize(), offsets[lists.len()].as_usize());
    let items = to_json(&lists.values().slice(first, last - first))?;
    let items = items.as_string::<i64>();
    for row in 0..lists.len() {
        if lists.is_null(row) {
            spelled.append_null();
            continue;
        }
        let in_list = offsets[row].as_usize() - first..offsets[row + 1].as_usize() - first;
        let item = |index: usize| {
            if items.is_valid(index) {
                items.value(index)
            } else {
                "null"
            }
        };
        spelled.append_value(format!("[{}]", in_list.map(item).collect::<Vec<_>>().join(",")));
    }
    Ok(())
}

/// Converts a type that has no special spelling by Arrow's JSON writer, which writes one line per row.
fn append_by_writer(array: &ArrayRef, spelled: &mut LargeStringBuilder) -> Result<()> {
    let batch = RecordBatch::try_from_iter([("v", Arc::clone(array))])?;
    let mut writer: LineDelimitedWriter<Vec<u8>> =
        datafusion::arrow::json::WriterBuilder::new().build::<_, LineDelimited>(Vec::new());
    writer.write(&batch)?;
    writer.finish()?;
    let lines = String::from_utf8(writer.into_inner()).map_err(|e| DataFusionError::Execution(e.to_string()))?;
    for (line, row) in lines.lines().zip(0..array.len()) {
        let value = line
            .strip_prefix("{\"v\":")
            .and_then(|rest| rest.strip_suffix('}'))
            .filter(|_| array.is_valid(row));
        let value = value
            .and_then(|text| json::parse(text.as_bytes()).ok())
            .map(|value| canonical(&value));
        spelled.append_option(value);
    }
    Ok(())
}

/// `json_compare(a, b, …)`: -1, 0 or 1 if both are numbers, texts or booleans; NULL, and counted, if their kinds
/// differ. Several right sides are alternatives: the first of the left side's kind is compared, so that a quoted number
/// can serve as a text and as a number.
fn compare_values(call: &Call) -> Result<ArrayRef> {
    let columns = call.columns(0)?.iter().map(text_views).collect::<Result<Vec<_>>>()?;
    let [left, right @ ..] = columns.as_slice() else {
        return exec_err!("{COMPARE} takes two values");
    };
    let is_constant = call
        .args()
        .iter()
        .skip(1)
        .all(|arg| matches!(arg, ColumnarValue::Scalar(_)));
    let alternatives_at =
        |row| -> Vec<json::Value> { right.iter().filter_map(|column| non_null_value(column, row)).collect() };
    let mut alternatives = if call.rows == 0 { Vec::new() } else { alternatives_at(0) };
    let mut compared = Int64Builder::with_capacity(call.rows);
    let (mut mismatches, mut pairs) = (0, 0);
    for row in 0..call.rows {
        if !is_constant {
            alternatives = alternatives_at(row);
        }
        let pair = non_null_value(left, row).filter(|_| !alternatives.is_empty());
        let ordering = pair
            .as_ref()
            .and_then(|left| alternatives.iter().find_map(|right| compare(left, right)));
        pairs += usize::from(pair.is_some());
        mismatches += usize::from(pair.is_some() && ordering.is_none());
        compared.append_option(ordering.map(|ordering| ordering as i64));
    }
    call.count("comparison of values of different kinds", mismatches, pairs);
    Ok(Arc::new(compared.finish()))
}

fn non_null_value(column: &ArrayRef, row: usize) -> Option<json::Value<'_>> {
    let texts = column.as_string_view();
    let text = texts.is_valid(row).then(|| texts.value(row))?;
    json::parse(text.as_bytes())
        .ok()
        .filter(|value| *value != json::Value::Null)
}

/// `search_match(json, clause)`: whether a search clause matches a value; false for NULL.
fn search_matches(call: &Call) -> Result<ArrayRef> {
    let clause: Clause = serde_json::from_str(call.text(1)?).map_err(|e| DataFusionError::Execution(e.to_string()))?;
    if clause.matches.place().is_some() {
        // The optimizer leaves the call as it is.
        return exec_err!("the template of a search does not run");
    }
    let matcher = Matcher::new(&clause);
    let mut matches = BooleanBuilder::with_capacity(call.rows);
    for text in text_views(&call.column(0)?)?.as_string_view() {
        let value = text.and_then(|text| json::parse(text.as_bytes()).ok());
        matches.append_value(value.is_some_and(|value| matcher.matches(&value)));
    }
    Ok(Arc::new(matches.finish()))
}
