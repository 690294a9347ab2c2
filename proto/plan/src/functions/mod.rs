//! Functions that aggregator and leaf both know: DataFusion's, some of them lenient, and those of our own that resolved queries call. Those
//! look into JSON that is no column, such as a path into a view's result; a statement cannot name them, the resolver puts them where a path
//! needs them.

pub mod checked;
pub mod lenient;

use std::sync::{Arc, LazyLock};

use datafusion::{
    arrow::{
        array::{
            Array, ArrayRef, AsArray, BooleanBuilder, Float64Builder, Int64Builder, ListBuilder, RecordBatch, StringViewArray, StringViewBuilder,
            TimestampMicrosecondBuilder,
        },
        compute::cast,
        datatypes::{DataType, Field, FieldRef},
        json::{LineDelimitedWriter, writer::LineDelimited},
    },
    common::{DataFusionError, Result, ScalarValue, exec_err, plan_err},
    execution::{SessionStateDefaults, TaskContext},
    logical_expr::{ColumnarValue, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility},
    prelude::SessionConfig,
};
use proto::json;

use crate::{
    Path, Type, View,
    clause::Matcher,
    column::JSON_METADATA,
    value::{Scalar, Seen, view},
};

/// All functions of rows, to be registered with a session.
pub fn scalar() -> Vec<Arc<ScalarUDF>> {
    SessionStateDefaults::default_scalar_functions().into_iter().map(lenient::lenient).chain(own()).collect()
}

/// The settings on which the meaning of an expression depends.
pub fn settings() -> SessionConfig {
    SessionConfig::new().set("datafusion.execution.time_zone", &ScalarValue::from("UTC"))
}

/// All functions by name, for expressions that come from another process.
pub fn by_name() -> &'static TaskContext {
    static ALL: LazyLock<TaskContext> = LazyLock::new(|| {
        let (scalar, aggregates) = (scalar(), SessionStateDefaults::default_aggregate_functions());
        let scalar = scalar.iter().flat_map(|function| under_names(function, function.name(), function.aliases()));
        let aggregates = aggregates.iter().flat_map(|function| under_names(function, function.name(), function.aliases()));
        TaskContext::new(
            None,
            String::new(),
            settings(),
            scalar.collect(),
            Default::default(),
            aggregates.collect(),
            Default::default(),
            Arc::default(),
        )
    });
    &ALL
}

/// A function by its name and by every alias.
fn under_names<F>(function: &Arc<F>, name: &str, aliases: &[String]) -> Vec<(String, Arc<F>)> {
    std::iter::once(name).chain(aliases.iter().map(String::as_str)).map(|name| (name.to_owned(), Arc::clone(function))).collect()
}

/// Those of our own.
pub fn own() -> Vec<Arc<ScalarUDF>> {
    vec![
        Arc::new(ScalarUDF::from(JsonGet { signature: Signature::any(3, Volatility::Immutable) })),
        Arc::new(ScalarUDF::from(JsonItems { signature: Signature::any(1, Volatility::Immutable) })),
        Arc::new(ScalarUDF::from(ToJson { signature: Signature::any(1, Volatility::Immutable) })),
        Arc::new(ScalarUDF::from(SearchMatch { signature: Signature::any(2, Volatility::Immutable) })),
    ]
    .into_iter()
    .chain(checked::functions())
    .collect()
}

/// The field of JSON text.
fn json_field(name: &str) -> Field {
    Field::new(name, DataType::Utf8View, true).with_metadata([(JSON_METADATA.0.to_owned(), JSON_METADATA.1.to_owned())].into())
}

/// `json_get(text, 'user.name', 'int!')`: a view of a value inside of JSON text; the `!` is a cast's. Text that is not JSON is NULL.
#[derive(Debug, PartialEq, Eq, Hash)]
struct JsonGet {
    signature: Signature,
}

fn literal(scalars: &[Option<&ScalarValue>], index: usize) -> Result<String> {
    match scalars.get(index).copied().flatten().and_then(|scalar| scalar.try_as_str().flatten()) {
        Some(text) => Ok(text.to_owned()),
        None => plan_err!("argument {index} is a text literal"),
    }
}

fn view_of(word: &str) -> Result<View> {
    let (name, cast) = word.strip_suffix('!').map_or((word, false), |name| (name, true));
    match Type::TABLE.iter().find(|row| row.1 == name) {
        Some(row) => Ok(View { to: row.0, cast }),
        None => plan_err!("{word} is no view"),
    }
}

fn path_of(text: &str) -> Result<Path> {
    Path::try_from(text.to_owned()).map_err(|e| DataFusionError::Plan(e.to_string()))
}

impl ScalarUDFImpl for JsonGet {
    fn name(&self) -> &str {
        "json_get"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        plan_err!("the type follows from the third argument")
    }

    fn return_field_from_args(&self, args: ReturnFieldArgs) -> Result<FieldRef> {
        let to = view_of(&literal(args.scalar_arguments, 2)?)?.to;
        Ok(Arc::new(if to == Type::Json { json_field(self.name()) } else { Field::new(self.name(), to.arrow(), true) }))
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let (path, view) = (path_of(&scalar_text(&args.args, 1)?)?, view_of(&scalar_text(&args.args, 2)?)?);
        rowwise(&args, |texts| {
            let mut shown = Shown::new(view.to, texts.len());
            for text in texts {
                shown.push(text, &path, view);
            }
            Ok(shown.finish())
        })
    }
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

/// An array of one view in the making.
enum Shown {
    Bool(BooleanBuilder),
    Int(Int64Builder),
    Double(Float64Builder),
    Text(StringViewBuilder),
    Time(TimestampMicrosecondBuilder),
}

impl Shown {
    fn new(to: Type, rows: usize) -> Self {
        match to {
            Type::Bool => Self::Bool(BooleanBuilder::with_capacity(rows)),
            Type::Int => Self::Int(Int64Builder::with_capacity(rows)),
            Type::Double => Self::Double(Float64Builder::with_capacity(rows)),
            Type::Text | Type::Json => Self::Text(StringViewBuilder::with_capacity(rows)),
            Type::Time => Self::Time(TimestampMicrosecondBuilder::with_capacity(rows).with_timezone("UTC")),
        }
    }

    fn push(&mut self, text: Option<&str>, path: &Path, to: View) {
        let verbatim = text.and_then(|text| json::raw_at(text, &path.json_steps()));
        let value = verbatim.and_then(|text| json::parse(text.as_bytes()).ok());
        let seen = match &value {
            Some(value) => view(value, || verbatim, to),
            None => Seen::Absent,
        };
        match (self, seen) {
            (Self::Bool(b), Seen::Fits(Scalar::Bool(v))) => b.append_value(v),
            (Self::Int(b), Seen::Fits(Scalar::Int(v))) => b.append_value(v),
            (Self::Double(b), Seen::Fits(Scalar::Double(v))) => b.append_value(v),
            (Self::Text(b), Seen::Fits(Scalar::Text(v))) => b.append_value(v),
            (Self::Time(b), Seen::Fits(Scalar::Time(v))) => b.append_value(v),
            (Self::Bool(b), _) => b.append_null(),
            (Self::Int(b), _) => b.append_null(),
            (Self::Double(b), _) => b.append_null(),
            (Self::Text(b), _) => b.append_null(),
            (Self::Time(b), _) => b.append_null(),
        }
    }

    fn finish(self) -> ArrayRef {
        match self {
            Self::Bool(mut b) => Arc::new(b.finish()),
            Self::Int(mut b) => Arc::new(b.finish()),
            Self::Double(mut b) => Arc::new(b.finish()),
            Self::Text(mut b) => Arc::new(b.finish()),
            Self::Time(mut b) => Arc::new(b.finish()),
        }
    }
}

/// `json_items(text)`: the elements of a JSON list as JSON texts; NULL for anything else.
#[derive(Debug, PartialEq, Eq, Hash)]
struct JsonItems {
    signature: Signature,
}

impl ScalarUDFImpl for JsonItems {
    fn name(&self) -> &str {
        "json_items"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(DataType::List(Arc::new(json_field("item"))))
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        rowwise(&args, |texts| {
            let mut lists = ListBuilder::new(StringViewBuilder::new()).with_field(json_field("item"));
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

/// `to_json(value)`: a plain value as JSON text.
#[derive(Debug, PartialEq, Eq, Hash)]
struct ToJson {
    signature: Signature,
}

impl ScalarUDFImpl for ToJson {
    fn name(&self) -> &str {
        "to_json"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(DataType::Utf8View)
    }

    fn return_field_from_args(&self, _: ReturnFieldArgs) -> Result<FieldRef> {
        Ok(Arc::new(json_field(self.name())))
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        match args.args.first() {
            Some(ColumnarValue::Scalar(scalar)) => Ok(ColumnarValue::Scalar(ScalarValue::try_from_array(&json_of(&scalar.to_array()?)?, 0)?)),
            Some(ColumnarValue::Array(array)) => Ok(ColumnarValue::Array(json_of(array)?)),
            None => exec_err!("an argument is missing"),
        }
    }
}

fn json_of(array: &ArrayRef) -> Result<ArrayRef> {
    let mut spelled = StringViewBuilder::with_capacity(array.len());
    match array.data_type() {
        DataType::Utf8 | DataType::Utf8View | DataType::LargeUtf8 => {
            for text in texts(array)?.as_string_view() {
                spelled.append_option(text.map(|text| serde_json::Value::from(text).to_string()));
            }
        }
        _ => {
            // The library's own writer spells every other type; one row is one line.
            let batch = RecordBatch::try_from_iter([("v", Arc::clone(array))])?;
            let mut writer: LineDelimitedWriter<Vec<u8>> = datafusion::arrow::json::WriterBuilder::new().build::<_, LineDelimited>(Vec::new());
            writer.write(&batch)?;
            writer.finish()?;
            let lines = String::from_utf8(writer.into_inner()).map_err(|e| DataFusionError::Execution(e.to_string()))?;
            for (line, row) in lines.lines().zip(0..array.len()) {
                let value = line.strip_prefix("{\"v\":").and_then(|rest| rest.strip_suffix('}'));
                spelled.append_option(value.filter(|_| array.is_valid(row)));
            }
        }
    }
    Ok(Arc::new(spelled.finish()))
}

/// `search_match(json, clause)`: whether a search clause matches a value; false where there is none.
#[derive(Debug, PartialEq, Eq, Hash)]
struct SearchMatch {
    signature: Signature,
}

impl ScalarUDFImpl for SearchMatch {
    fn name(&self) -> &str {
        "search_match"
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
