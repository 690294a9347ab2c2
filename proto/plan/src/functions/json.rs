//! Functions over JSON text that is no column of a leaf: such as a path into a view's result. They show exactly what a
//! leaf's column of the same view shows, so a scan may put its column in the place of a call.

use std::sync::Arc;

use datafusion::{
    arrow::{
        array::{Array, ArrayRef, AsArray, BooleanBuilder, Int64Builder, LargeStringBuilder, ListBuilder, RecordBatch},
        compute::cast,
        datatypes::{DataType, Field, Float32Type, Float64Type},
        json::{LineDelimitedWriter, writer::LineDelimited},
    },
    common::{DataFusionError, Result, ScalarValue, exec_err, plan_err},
    logical_expr::{ColumnarValue, ReturnFieldArgs, ScalarUDF},
};
use proto::json;

use super::function::{Call, Function, Returns};
use crate::{
    Kinds, Path, Type, View,
    builder::Builder,
    clause::Matcher,
    column::{is_json, json_field, kinds_of},
    value::{Seen, canonical, canonical_double, compare, view},
};

/// `json_get`.
pub const GET: &str = "json_get";
/// `json_items`.
pub const ITEMS: &str = "json_items";
/// `to_json`.
pub const TO_JSON: &str = "to_json";
/// `json_compare`.
pub const COMPARE: &str = "json_compare";
/// `search_match`.
pub const SEARCH_MATCH: &str = "search_match";

/// All of them, to be registered with a session.
pub fn functions() -> Vec<Arc<ScalarUDF>> {
    let items = || DataType::List(Arc::new(json_field("item", Kinds::default())));
    vec![
        Function::new(GET, None, Returns::Of(field), get).into(),
        Function::new(ITEMS, Some(1), Returns::Type(items()), elements).into(),
        Function::new(TO_JSON, Some(1), Returns::Json, |call| json_of(&call.column(0)?)).into(),
        Function::new(COMPARE, None, Returns::Type(DataType::Int64), comparisons).into(),
        Function::new(SEARCH_MATCH, Some(2), Returns::Type(DataType::Boolean), matches).into(),
    ]
}

fn literal<'a>(scalars: &[Option<&'a ScalarValue>], index: usize) -> Result<&'a str> {
    match scalars
        .get(index)
        .copied()
        .flatten()
        .and_then(|scalar| scalar.try_as_str().flatten())
    {
        Some(text) => Ok(text),
        None => plan_err!("argument {index} is a text literal"),
    }
}

/// A view by its word in column names.
pub fn view_of(word: &str) -> Option<View> {
    let (name, cast) = word.strip_suffix('!').map_or((word, false), |name| (name, true));
    Type::TABLE
        .iter()
        .find(|row| row.1 == name)
        .map(|row| View { to: row.0, cast })
}

fn known_view(word: &str) -> Result<View> {
    view_of(word).map_or_else(|| plan_err!("{word} is no view"), Ok)
}

fn path_of(text: &str) -> Result<Path> {
    Path::try_from(text.to_owned()).map_err(|e| DataFusionError::Plan(e.to_string()))
}

fn field(name: &'static str, args: &ReturnFieldArgs) -> Result<Field> {
    let to = known_view(literal(args.scalar_arguments, 2)?)?.to;
    if !matches!(to, Type::Json | Type::Canonical) {
        return Ok(Field::new(name, to.arrow(), true));
    }
    let said = args
        .scalar_arguments
        .get(3)
        .copied()
        .flatten()
        .and_then(|kinds| kinds.try_as_str().flatten())
        .and_then(|bits| bits.parse().ok());
    let same = literal(args.scalar_arguments, 1)?.is_empty();
    let kinds = said
        .map(Kinds)
        .or_else(|| args.arg_fields.first().filter(|_| same).map(|field| kinds_of(field)));
    Ok(json_field(name, kinds.unwrap_or_default()))
}

/// `json_get(text, 'user.name', 'int!'[, kinds])`: a view of a value inside of JSON text; the `!` is a cast's. Text
/// that is not JSON is NULL. The kinds that the values there have had may be said.
fn get(call: &Call) -> Result<ArrayRef> {
    let (path, view) = (call.text(1)?, known_view(call.text(2)?)?);
    let steps = path_of(path)?;
    let mut built = Builder::new(view.to, call.rows);
    texts(&call.column(0)?)?
        .as_string_view()
        .iter()
        .for_each(|text| push(&mut built, text, &steps, view));
    if built.misfits > 0 {
        let name = Type::TABLE
            .iter()
            .find(|row| row.0 == view.to)
            .map_or("JSON", |row| row.2);
        let subject = if path.is_empty() {
            String::new()
        } else {
            format!("{path} ")
        };
        call.count(
            &format!("{subject}as {name}"),
            built.misfits as usize,
            built.present as usize,
        );
    }
    Ok(built.finish())
}

fn push(built: &mut Builder, text: Option<&str>, path: &Path, to: View) {
    let verbatim = text.and_then(|text| json::raw_at(text, &path.json_steps()));
    let value = verbatim.and_then(|text| json::parse(text.as_bytes()).ok());
    built.push(
        value
            .as_ref()
            .map_or(Seen::Absent, |value| view(value, || verbatim, to)),
    );
}

/// Any array of texts as the one kind that we read.
fn texts(array: &ArrayRef) -> Result<ArrayRef> {
    match array.data_type() {
        DataType::Utf8View => Ok(Arc::clone(array)),
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Null | DataType::Dictionary(..) => {
            Ok(cast(array, &DataType::Utf8View)?)
        }
        other => exec_err!("{other} is no text"),
    }
}

/// `json_items(text)`: the elements of a JSON list as JSON texts; NULL for anything else.
fn elements(call: &Call) -> Result<ArrayRef> {
    let mut lists = ListBuilder::new(LargeStringBuilder::new()).with_field(json_field("item", Kinds::default()));
    for text in texts(&call.column(0)?)?.as_string_view() {
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

/// Any array as canonical JSON texts; JSON as it is.
pub fn json_of(array: &ArrayRef) -> Result<ArrayRef> {
    let mut spelled = LargeStringBuilder::with_capacity(array.len(), 0);
    match array.data_type() {
        json if is_json(json) => return Ok(Arc::clone(array)),
        DataType::Null => return Ok(cast(array, &DataType::LargeUtf8)?),
        DataType::Utf8 | DataType::Utf8View => {
            texts(array)?
                .as_string_view()
                .iter()
                .for_each(|text| spelled.append_option(text.map(|text| serde_json::Value::from(text).to_string())));
        }
        DataType::Float64 => {
            array
                .as_primitive::<Float64Type>()
                .iter()
                .for_each(|double| spelled.append_option(double.filter(|d| d.is_finite()).map(canonical_double)));
        }
        DataType::Float32 => {
            let doubles = array
                .as_primitive::<Float32Type>()
                .iter()
                .map(|float| float.map(f64::from));
            doubles.for_each(|double| spelled.append_option(double.filter(|d| d.is_finite()).map(canonical_double)));
        }
        _ => {
            // The library's own writer spells every other type; one row is one line.
            let batch = RecordBatch::try_from_iter([("v", Arc::clone(array))])?;
            let mut writer: LineDelimitedWriter<Vec<u8>> =
                datafusion::arrow::json::WriterBuilder::new().build::<_, LineDelimited>(Vec::new());
            writer.write(&batch)?;
            writer.finish()?;
            let lines =
                String::from_utf8(writer.into_inner()).map_err(|e| DataFusionError::Execution(e.to_string()))?;
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
        }
    }
    Ok(Arc::new(spelled.finish()))
}

/// `json_compare(a, b, …)`: -1, 0 or 1 where both are numbers, texts or booleans; NULL between kinds, and counted.
/// Several right sides are alternatives, and the first of the left side's kind is compared: a quoted number serves as a
/// text and as a number.
fn comparisons(call: &Call) -> Result<ArrayRef> {
    let columns = call.columns(0)?.iter().map(texts).collect::<Result<Vec<_>>>()?;
    let [left, right @ ..] = columns.as_slice() else {
        return exec_err!("{COMPARE} takes two values");
    };
    let constant = call
        .args()
        .iter()
        .skip(1)
        .all(|arg| matches!(arg, ColumnarValue::Scalar(_)));
    let at = |row| -> Vec<json::Value> { right.iter().filter_map(|column| known(column, row)).collect() };
    let mut others = if call.rows == 0 { Vec::new() } else { at(0) };
    let mut compared = Int64Builder::with_capacity(call.rows);
    let (mut unlike, mut pairs) = (0, 0);
    for row in 0..call.rows {
        if !constant {
            others = at(row);
        }
        let pair = known(left, row).filter(|_| !others.is_empty());
        let ordering = pair
            .as_ref()
            .and_then(|left| others.iter().find_map(|right| compare(left, right)));
        pairs += usize::from(pair.is_some());
        unlike += usize::from(pair.is_some() && ordering.is_none());
        compared.append_option(ordering.map(|ordering| ordering as i64));
    }
    call.count("comparison of a value with another kind", unlike, pairs);
    Ok(Arc::new(compared.finish()))
}

fn known(column: &ArrayRef, row: usize) -> Option<json::Value<'_>> {
    let texts = column.as_string_view();
    let text = texts.is_valid(row).then(|| texts.value(row))?;
    json::parse(text.as_bytes())
        .ok()
        .filter(|value| *value != json::Value::Null)
}

/// `search_match(json, clause)`: whether a search clause matches a value; false for NULL.
fn matches(call: &Call) -> Result<ArrayRef> {
    let clause = serde_json::from_str(call.text(1)?).map_err(|e| DataFusionError::Execution(e.to_string()))?;
    let matcher = Matcher::new(&clause);
    let mut matches = BooleanBuilder::with_capacity(call.rows);
    for text in texts(&call.column(0)?)?.as_string_view() {
        let value = text.and_then(|text| json::parse(text.as_bytes()).ok());
        matches.append_value(value.is_some_and(|value| matcher.matches(&value)));
    }
    Ok(Arc::new(matches.finish()))
}
