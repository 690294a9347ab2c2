//! Functions over JSON text that is no column of a leaf: such as a path into a view's result. They show exactly what a leaf's column of the
//! same view shows, so a scan may put its column in the place of a call.

use std::sync::Arc;

use datafusion::{
    arrow::{
        array::{Array, ArrayRef, AsArray, BooleanBuilder, Int64Builder, LargeStringBuilder, ListBuilder, RecordBatch, StringViewArray},
        compute::cast,
        datatypes::{DataType, Field, FieldRef, Float32Type, Float64Type},
        json::{LineDelimitedWriter, writer::LineDelimited},
    },
    common::{DataFusionError, Result, ScalarValue, exec_err, plan_err},
    logical_expr::{ColumnarValue, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility},
};
use proto::json;

use super::notices::Notices;
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
    let any = |arguments| Signature::any(arguments, Volatility::Immutable);
    let many = || Signature::variadic_any(Volatility::Immutable);
    vec![
        Arc::new(ScalarUDF::from(JsonGet { signature: many() })),
        Arc::new(ScalarUDF::from(JsonItems { signature: any(1) })),
        Arc::new(ScalarUDF::from(ToJson { signature: any(1) })),
        Arc::new(ScalarUDF::from(JsonCompare { signature: many() })),
        Arc::new(ScalarUDF::from(SearchMatch { signature: any(2) })),
    ]
}

/// `json_get(text, 'user.name', 'int!'[, kinds])`: a view of a value inside of JSON text; the `!` is a cast's. Text that is not JSON is NULL.
/// The kinds that the values there have had may be said.
#[derive(Debug, PartialEq, Eq, Hash)]
struct JsonGet {
    signature: Signature,
}

fn literal<'a>(scalars: &[Option<&'a ScalarValue>], index: usize) -> Result<&'a str> {
    match scalars.get(index).copied().flatten().and_then(|scalar| scalar.try_as_str().flatten()) {
        Some(text) => Ok(text),
        None => plan_err!("argument {index} is a text literal"),
    }
}

/// A view by its word in column names.
pub fn view_of(word: &str) -> Option<View> {
    let (name, cast) = word.strip_suffix('!').map_or((word, false), |name| (name, true));
    Type::TABLE.iter().find(|row| row.1 == name).map(|row| View { to: row.0, cast })
}

fn known_view(word: &str) -> Result<View> {
    view_of(word).map_or_else(|| plan_err!("{word} is no view"), Ok)
}

fn path_of(text: &str) -> Result<Path> {
    Path::try_from(text.to_owned()).map_err(|e| DataFusionError::Plan(e.to_string()))
}

impl ScalarUDFImpl for JsonGet {
    fn name(&self) -> &str {
        GET
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        plan_err!("the type follows from the third argument")
    }

    fn return_field_from_args(&self, args: ReturnFieldArgs) -> Result<FieldRef> {
        let to = known_view(literal(args.scalar_arguments, 2)?)?.to;
        if !matches!(to, Type::Json | Type::Canonical) {
            return Ok(Arc::new(Field::new(GET, to.arrow(), true)));
        }
        let said = args.scalar_arguments.get(3).copied().flatten().and_then(|kinds| kinds.try_as_str().flatten()).and_then(|bits| bits.parse().ok());
        let same = literal(args.scalar_arguments, 1)?.is_empty();
        let kinds = said.map(Kinds).or_else(|| args.arg_fields.first().filter(|_| same).map(|field| kinds_of(field)));
        Ok(Arc::new(json_field(GET, kinds.unwrap_or_default())))
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let (path, word) = (scalar_text(&args.args, 1)?, scalar_text(&args.args, 2)?);
        let (steps, view) = (path_of(&path)?, known_view(&word)?);
        rowwise(&args, |texts| {
            let mut built = Builder::new(view.to, texts.len());
            texts.iter().for_each(|text| push(&mut built, text, &steps, view));
            if built.misfits > 0
                && let Some(notices) = Notices::of(&args.config_options)
            {
                let name = Type::TABLE.iter().find(|row| row.0 == view.to).map_or("JSON", |row| row.2);
                let subject = if path.is_empty() { String::new() } else { format!("{path} ") };
                notices.count(&format!("{subject}as {name}"), built.misfits, built.present);
            }
            Ok(built.finish())
        })
    }
}

fn push(built: &mut Builder, text: Option<&str>, path: &Path, to: View) {
    let verbatim = text.and_then(|text| json::raw_at(text, &path.json_steps()));
    let value = verbatim.and_then(|text| json::parse(text.as_bytes()).ok());
    built.push(value.as_ref().map_or(Seen::Absent, |value| view(value, || verbatim, to)));
}

fn scalar_text(args: &[ColumnarValue], index: usize) -> Result<String> {
    match args.get(index) {
        Some(ColumnarValue::Scalar(scalar)) => Ok(scalar.try_as_str().flatten().unwrap_or_default().to_owned()),
        _ => exec_err!("argument {index} is a literal"),
    }
}

/// Computes an array over the texts of the first argument; a scalar stays one.
fn rowwise(args: &ScalarFunctionArgs, compute: impl FnOnce(&StringViewArray) -> Result<ArrayRef>) -> Result<ColumnarValue> {
    let Some(first) = args.args.first() else { return exec_err!("an argument is missing") };
    match first {
        ColumnarValue::Scalar(scalar) => {
            let computed = compute(texts(&scalar.to_array()?)?.as_string_view())?;
            Ok(ColumnarValue::Scalar(ScalarValue::try_from_array(&computed, 0)?))
        }
        ColumnarValue::Array(array) => Ok(ColumnarValue::Array(compute(texts(array)?.as_string_view())?)),
    }
}

/// Any array of texts as the one kind that we read.
fn texts(array: &ArrayRef) -> Result<ArrayRef> {
    match array.data_type() {
        DataType::Utf8View => Ok(Arc::clone(array)),
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Null | DataType::Dictionary(..) => Ok(cast(array, &DataType::Utf8View)?),
        other => exec_err!("{other} is no text"),
    }
}

/// `json_items(text)`: the elements of a JSON list as JSON texts; NULL for anything else.
#[derive(Debug, PartialEq, Eq, Hash)]
struct JsonItems {
    signature: Signature,
}

impl ScalarUDFImpl for JsonItems {
    fn name(&self) -> &str {
        ITEMS
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(DataType::List(Arc::new(json_field("item", Kinds::default()))))
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        rowwise(&args, |texts| {
            let mut lists = ListBuilder::new(LargeStringBuilder::new()).with_field(json_field("item", Kinds::default()));
            for text in texts {
                match text.filter(|text| text.trim_start().starts_with('[')).and_then(|text| json::raw_items(text).ok()) {
                    Some(items) => lists.append_value(items.into_iter().map(|item| (item != "null").then_some(item))),
                    None => lists.append_null(),
                }
            }
            Ok(Arc::new(lists.finish()))
        })
    }
}

/// `to_json(value)`: any value as canonical JSON text; JSON as it is.
#[derive(Debug, PartialEq, Eq, Hash)]
struct ToJson {
    signature: Signature,
}

impl ScalarUDFImpl for ToJson {
    fn name(&self) -> &str {
        TO_JSON
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(DataType::LargeUtf8)
    }

    fn return_field_from_args(&self, _: ReturnFieldArgs) -> Result<FieldRef> {
        Ok(Arc::new(json_field(TO_JSON, Kinds::default())))
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        match args.args.first() {
            Some(ColumnarValue::Scalar(scalar)) => Ok(ColumnarValue::Scalar(ScalarValue::try_from_array(&json_of(&scalar.to_array()?)?, 0)?)),
            Some(ColumnarValue::Array(array)) => Ok(ColumnarValue::Array(json_of(array)?)),
            None => exec_err!("an argument is missing"),
        }
    }
}

/// Any array as canonical JSON texts.
pub fn json_of(array: &ArrayRef) -> Result<ArrayRef> {
    let mut spelled = LargeStringBuilder::with_capacity(array.len(), 0);
    match array.data_type() {
        json if is_json(json) => return Ok(Arc::clone(array)),
        DataType::Null => return Ok(cast(array, &DataType::LargeUtf8)?),
        DataType::Utf8 | DataType::Utf8View => {
            texts(array)?.as_string_view().iter().for_each(|text| spelled.append_option(text.map(|text| serde_json::Value::from(text).to_string())));
        }
        DataType::Float64 => {
            array
                .as_primitive::<Float64Type>()
                .iter()
                .for_each(|double| spelled.append_option(double.filter(|d| d.is_finite()).map(canonical_double)));
        }
        DataType::Float32 => {
            let doubles = array.as_primitive::<Float32Type>().iter().map(|float| float.map(f64::from));
            doubles.for_each(|double| spelled.append_option(double.filter(|d| d.is_finite()).map(canonical_double)));
        }
        _ => {
            // The library's own writer spells every other type; one row is one line.
            let batch = RecordBatch::try_from_iter([("v", Arc::clone(array))])?;
            let mut writer: LineDelimitedWriter<Vec<u8>> = datafusion::arrow::json::WriterBuilder::new().build::<_, LineDelimited>(Vec::new());
            writer.write(&batch)?;
            writer.finish()?;
            let lines = String::from_utf8(writer.into_inner()).map_err(|e| DataFusionError::Execution(e.to_string()))?;
            for (line, row) in lines.lines().zip(0..array.len()) {
                let value = line.strip_prefix("{\"v\":").and_then(|rest| rest.strip_suffix('}')).filter(|_| array.is_valid(row));
                let value = value.and_then(|text| json::parse(text.as_bytes()).ok()).map(|value| canonical(&value));
                spelled.append_option(value);
            }
        }
    }
    Ok(Arc::new(spelled.finish()))
}

/// `json_compare(a, b, …)`: -1, 0 or 1 where both are numbers, texts or booleans; NULL between kinds, and counted. Of several it is the first
/// that is of the value's kind: a quoted number is a text and a number.
#[derive(Debug, PartialEq, Eq, Hash)]
struct JsonCompare {
    signature: Signature,
}

impl ScalarUDFImpl for JsonCompare {
    fn name(&self) -> &str {
        COMPARE
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(DataType::Int64)
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let scalar = args.args.iter().all(|arg| matches!(arg, ColumnarValue::Scalar(_)));
        let rows = if scalar { 1 } else { args.number_rows };
        let columns = args.args.iter().map(|arg| texts(&arg.to_array(rows)?)).collect::<Result<Vec<_>>>()?;
        let [left, right @ ..] = columns.as_slice() else { return exec_err!("{COMPARE} takes two values") };
        let mut compared = Int64Builder::with_capacity(rows);
        let (mut unlike, mut pairs) = (0, 0);
        for row in 0..rows {
            let others: Vec<json::Value> = right.iter().filter_map(|column| known(column, row)).collect();
            let pair = known(left, row).filter(|_| !others.is_empty());
            let ordering = pair.as_ref().and_then(|left| others.iter().find_map(|right| compare(left, right)));
            pairs += u64::from(pair.is_some());
            unlike += u64::from(pair.is_some() && ordering.is_none());
            compared.append_option(ordering.map(|ordering| ordering as i64));
        }
        if let Some(notices) = Notices::of(&args.config_options) {
            notices.count("comparison of a value with another kind", unlike, pairs);
        }
        let compared: ArrayRef = Arc::new(compared.finish());
        match scalar {
            true => Ok(ColumnarValue::Scalar(ScalarValue::try_from_array(&compared, 0)?)),
            false => Ok(ColumnarValue::Array(compared)),
        }
    }
}

fn known(column: &ArrayRef, row: usize) -> Option<json::Value<'_>> {
    let texts = column.as_string_view();
    let text = texts.is_valid(row).then(|| texts.value(row))?;
    json::parse(text.as_bytes()).ok().filter(|value| *value != json::Value::Null)
}

/// `search_match(json, clause)`: whether a search clause matches a value; false for NULL.
#[derive(Debug, PartialEq, Eq, Hash)]
struct SearchMatch {
    signature: Signature,
}

impl ScalarUDFImpl for SearchMatch {
    fn name(&self) -> &str {
        SEARCH_MATCH
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(DataType::Boolean)
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let clause = serde_json::from_str(&scalar_text(&args.args, 1)?).map_err(|e| DataFusionError::Execution(e.to_string()))?;
        let matcher = Matcher::new(&clause);
        rowwise(&args, |texts| {
            let mut matches = BooleanBuilder::with_capacity(texts.len());
            for text in texts {
                let value = text.and_then(|text| json::parse(text.as_bytes()).ok());
                matches.append_value(value.is_some_and(|value| matcher.matches(&value)));
            }
            Ok(Arc::new(matches.finish()))
        })
    }
}
