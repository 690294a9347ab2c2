//! Parsers of definitions as functions. Their arguments are a text, the format and its argument as
//! [`TextParser::compile`] takes them, and the name of the parser for the warning.
//!
//! - `parsed(text, format, argument, name)` returns a struct of the parser's fields, so that several fields of a text
//!   are one common subexpression;
//! - `parsed_part(struct, field)` returns one of its fields;
//! - `parsed_json(text, format, argument, name)` returns all fields as one JSON object.

use std::{
    borrow::Cow,
    cell::RefCell,
    collections::BTreeMap,
    sync::{Arc, Weak},
};

use datafusion::{
    arrow::{
        array::{
            Array, ArrayRef, AsArray as _, Float64Builder, Int64Builder, LargeStringBuilder, StringViewArray,
            StringViewBuilder, StructArray,
        },
        datatypes::{DataType, Field, Fields},
    },
    common::{DataFusionError, Result, ScalarValue, exec_err, plan_err},
    logical_expr::{ColumnarValue, ReturnFieldArgs, ScalarUDF},
};
use proto::Problem;

use super::{
    function::{Call, Function, Returns},
    json::{is_text, text_views},
    warnings::WarningCounts,
};
use crate::{
    Kinds,
    column::json_field,
    parser::{FieldType, Format, ParsedField, TextParser, Values, double, int},
};

/// All fields of a text, as a struct.
pub const PARSED: &str = "parsed";
/// One field of such a struct.
pub const PARSED_PART: &str = "parsed_part";
/// All fields of a text, as JSON.
pub const PARSED_JSON: &str = "parsed_json";

/// All these functions, for registration with a session.
pub fn functions() -> Vec<Arc<ScalarUDF>> {
    vec![
        Function::new(PARSED, Some(4), Returns::Of(struct_field), |call| once(call, parsed)).into(),
        Function::new(PARSED_PART, Some(2), Returns::Of(part_field), part).into(),
        Function::new(PARSED_JSON, Some(4), Returns::Of(object_field), |call| {
            once(call, parsed_json)
        })
        .strict()
        .into(),
    ]
}

fn literal<'a>(scalars: &[Option<&'a ScalarValue>], index: usize) -> Result<&'a str> {
    let scalar = scalars.get(index).copied().flatten();
    match scalar.and_then(|scalar| scalar.try_as_str().flatten()) {
        Some(text) => Ok(text),
        None => plan_err!("argument {index} must be a text literal"),
    }
}

fn parser(format: &str, argument: &str) -> Result<Arc<TextParser>> {
    let external = |problem: Problem| DataFusionError::External(Box::new(problem));
    match Format::parse(format) {
        Some(format) => TextParser::cached(format, argument).map_err(external),
        None => plan_err!("{format} is not a format of a parser"),
    }
}

fn arrow_field(field: &ParsedField) -> Field {
    match field.field_type {
        FieldType::Text => Field::new(&field.name, DataType::Utf8View, true),
        FieldType::Int => Field::new(&field.name, DataType::Int64, true),
        FieldType::Double => Field::new(&field.name, DataType::Float64, true),
        FieldType::Json => json_field(&field.name, Kinds::default()),
    }
}

fn arrow_fields(parser: &TextParser) -> Result<Fields> {
    match parser.fields() {
        Some(fields) => Ok(fields.iter().map(arrow_field).collect()),
        None => plan_err!("the fields of {} are not known beforehand", parser.format.as_str()),
    }
}

fn check_text(args: &ReturnFieldArgs) -> Result<()> {
    match args.arg_fields.first().map(|field| field.data_type()) {
        Some(data_type) if !is_text(data_type) => plan_err!("a parser reads a text, not {data_type}"),
        _ => Ok(()),
    }
}

fn object_field(name: &'static str, args: &ReturnFieldArgs) -> Result<Field> {
    check_text(args)?;
    Ok(json_field(name, Kinds::default()))
}

fn struct_field(name: &'static str, args: &ReturnFieldArgs) -> Result<Field> {
    check_text(args)?;
    let scalars = args.scalar_arguments;
    let parser = parser(literal(scalars, 1)?, literal(scalars, 2)?)?;
    Ok(Field::new_struct(name, arrow_fields(&parser)?, true))
}

fn part_field(_: &'static str, args: &ReturnFieldArgs) -> Result<Field> {
    let wanted = literal(args.scalar_arguments, 1)?;
    let found = match args.arg_fields.first().map(|field| field.data_type()) {
        Some(DataType::Struct(fields)) => fields.find(wanted),
        _ => None,
    };
    match found {
        Some((_, field)) => Ok(field.as_ref().clone()),
        None => plan_err!("the text has no field {wanted}"),
    }
}

fn part(call: &Call) -> Result<ArrayRef> {
    let (parts, wanted) = (call.column(0)?, call.text(1)?);
    match parts.as_struct_opt().and_then(|parts| parts.column_by_name(wanted)) {
        Some(column) => Ok(Arc::clone(column)),
        None => exec_err!("the text has no field {wanted}"),
    }
}

/// The values of one field for a batch of texts.
enum FieldColumn {
    Text(StringViewBuilder),
    Int(Int64Builder),
    Double(Float64Builder),
    Json(LargeStringBuilder),
}

impl FieldColumn {
    fn new(of: FieldType, rows: usize) -> Self {
        match of {
            FieldType::Text => Self::Text(StringViewBuilder::with_capacity(rows)),
            FieldType::Int => Self::Int(Int64Builder::with_capacity(rows)),
            FieldType::Double => Self::Double(Float64Builder::with_capacity(rows)),
            FieldType::Json => Self::Json(LargeStringBuilder::with_capacity(rows, 0)),
        }
    }

    /// Appends a value. Returns whether it has the column's type.
    fn push(&mut self, value: Option<&str>) -> bool {
        let fits = |is_null: bool| value.is_none() || !is_null;
        match self {
            Self::Text(array) => {
                array.append_option(value);
                true
            }
            Self::Int(array) => {
                let value = value.and_then(int);
                array.append_option(value);
                fits(value.is_none())
            }
            Self::Double(array) => {
                let value = value.and_then(double);
                array.append_option(value);
                fits(value.is_none())
            }
            Self::Json(array) => {
                array.append_option(value);
                true
            }
        }
    }

    fn finish(self) -> ArrayRef {
        match self {
            Self::Text(mut array) => Arc::new(array.finish()),
            Self::Int(mut array) => Arc::new(array.finish()),
            Self::Double(mut array) => Arc::new(array.finish()),
            Self::Json(mut array) => Arc::new(array.finish()),
        }
    }
}

/// A thread's last call, and its result.
struct LastCall {
    function: &'static str,
    texts: Weak<dyn Array>,
    /// The format, its argument and the name.
    literals: [String; 3],
    /// Where the call has counted.
    counts: Option<WarningCounts>,
    result: ArrayRef,
}

thread_local! {
    static LAST_CALL: RefCell<Option<LastCall>> = const { RefCell::new(None) };
}

/// Larger results are computed again.
const REMEMBERED_BYTES_MAX: usize = 4 << 20;

/// Computes a call unless it was the last one of this thread: an aggregate on a leaf has a call for each field that it
/// reads. So a batch is parsed once for all of them, and what does not match is counted once.
fn once(call: &Call, compute: fn(&Call) -> Result<ArrayRef>) -> Result<ArrayRef> {
    let Some(ColumnarValue::Array(texts)) = call.args().first() else {
        return compute(call);
    };
    let (literals, counts) = ([call.text(1)?, call.text(2)?, call.text(3)?], call.counts());
    let known = LAST_CALL.with_borrow(|last| {
        let last = last.as_ref()?;
        let is_same = last.function == call.name
            && last.literals == literals
            && std::ptr::addr_eq(last.texts.as_ptr(), Arc::as_ptr(texts))
            && last.texts.strong_count() > 0
            && last.counts.as_ref().map(WarningCounts::id) == counts.map(WarningCounts::id);
        is_same.then(|| Arc::clone(&last.result))
    });
    if let Some(known) = known {
        return Ok(known);
    }
    let result = compute(call)?;
    let last = (result.get_array_memory_size() <= REMEMBERED_BYTES_MAX).then(|| LastCall {
        function: call.name,
        texts: Arc::downgrade(texts),
        literals: literals.map(str::to_owned),
        counts: counts.cloned(),
        result: Arc::clone(&result),
    });
    LAST_CALL.set(last);
    Ok(result)
}

/// The steps of texts between two looks at whether the query must end.
const STEPS_BETWEEN_CHECKS: u64 = 64 << 20;

/// Counts the steps of texts, and ends if the query must.
struct Steps<'a> {
    call: &'a Call<'a>,
    parser: &'a TextParser,
    steps: u64,
}

impl<'a> Steps<'a> {
    fn new(call: &'a Call<'a>, parser: &'a TextParser) -> Self {
        Self { call, parser, steps: 0 }
    }

    fn add(&mut self, text: &str) -> Result<()> {
        self.steps += self.parser.steps(text);
        if self.steps > STEPS_BETWEEN_CHECKS {
            self.steps = 0;
            self.call.check()?;
        }
        Ok(())
    }
}

fn parsed(call: &Call) -> Result<ArrayRef> {
    let parser = parser(call.text(1)?, call.text(2)?)?;
    let texts = text_views(&call.column(0)?)?;
    let texts: &StringViewArray = texts.as_string_view();
    let fields = parser.fields().unwrap_or_default();
    let mut columns: Vec<FieldColumn> = fields
        .iter()
        .map(|field| FieldColumn::new(field.field_type, call.rows))
        .collect();
    let mut unfit = vec![(0, 0); fields.len()];
    let (mut values, mut failed, mut long): (Values<'_>, usize, usize) = (Vec::new(), 0, 0);
    let mut steps = Steps::new(call, &parser);
    for text in texts.iter() {
        match text {
            None => values.clear(),
            Some(text) => {
                steps.add(text)?;
                let is_long = text.len() > parser.text_bytes_max();
                long += usize::from(is_long);
                failed += usize::from(!parser.parse(text, &mut values) && !is_long);
            }
        }
        for (index, column) in columns.iter_mut().enumerate() {
            let value = values.get(index).and_then(|value| value.as_ref()).map(Cow::as_ref);
            let is_fit = column.push(value);
            if value.is_some() {
                unfit[index].0 += usize::from(!is_fit);
                unfit[index].1 += 1;
            }
        }
    }
    let name = call.text(3)?;
    let total = call.rows - texts.null_count();
    call.count(name, failed, total);
    count_long(call, &parser, long, total)?;
    for (field, (failed, total)) in fields.iter().zip(unfit) {
        if failed > 0 {
            call.count(&format!("{name}.{}", field.name), failed, total);
        }
    }
    let columns = columns.into_iter().map(FieldColumn::finish).collect();
    Ok(Arc::new(StructArray::try_new(arrow_fields(&parser)?, columns, None)?))
}

/// Counts texts that are too long to be parsed.
fn count_long(call: &Call, parser: &TextParser, failed: usize, total: usize) -> Result<()> {
    if failed > 0 {
        let operation = format!("{} (texts over {} bytes)", call.text(3)?, parser.text_bytes_max());
        call.count(&operation, failed, total);
    }
    Ok(())
}

fn parsed_json(call: &Call) -> Result<ArrayRef> {
    let parser = parser(call.text(1)?, call.text(2)?)?;
    let texts = text_views(&call.column(0)?)?;
    let texts: &StringViewArray = texts.as_string_view();
    let (mut objects, mut failed, mut long) = (LargeStringBuilder::with_capacity(call.rows, 0), 0, 0);
    let (name, mut unfit) = (call.text(3)?, BTreeMap::<String, (usize, usize)>::new());
    let (mut steps, mut total) = (Steps::new(call, &parser), 0);
    for text in texts.iter() {
        // As in a document, null is no value.
        let text = text.filter(|text| parser.format != Format::Json || text.trim() != "null");
        let Some(text) = text else {
            objects.append_null();
            continue;
        };
        steps.add(text)?;
        let parsed = parser.parse_json(text, |field, is_fit| {
            let (failed, total) = match unfit.get_mut(field) {
                Some(counts) => counts,
                None => unfit.entry(field.to_owned()).or_default(),
            };
            *failed += usize::from(!is_fit);
            *total += 1;
        });
        total += 1;
        let is_long = text.len() > parser.text_bytes_max();
        long += usize::from(parsed.is_none() && is_long);
        failed += usize::from(parsed.is_none() && !is_long);
        objects.append_option(parsed);
    }
    call.count(name, failed, total);
    count_long(call, &parser, long, total)?;
    for (field, (failed, total)) in unfit {
        if failed > 0 {
            call.count(&format!("{name}.{field}"), failed, total);
        }
    }
    Ok(Arc::new(objects.finish()))
}
