//! Parsers of definitions as functions. Their arguments are a text, the format and its argument as
//! [`TextParser::compile`] takes them, and the name of the parser for the warning.
//!
//! - `parsed(text, format, argument, name)` returns a struct of the parser's fields, so that several fields of a text
//!   are one common subexpression;
//! - `parsed_part(struct, field)` returns one of its fields;
//! - `parsed_json(text, format, argument, name)` returns all fields as one JSON object.

use std::{borrow::Cow, collections::BTreeMap, sync::Arc};

use datafusion::{
    arrow::{
        array::{
            Array as _, ArrayRef, AsArray as _, Float64Builder, Int64Builder, LargeStringBuilder, StringViewArray,
            StringViewBuilder, StructArray,
        },
        datatypes::{DataType, Field, Fields},
    },
    common::{DataFusionError, Result, ScalarValue, exec_err, plan_err},
    logical_expr::{ReturnFieldArgs, ScalarUDF},
};
use proto::Problem;

use super::{
    function::{Call, Function, Returns},
    json::text_views,
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
        Function::new(PARSED, Some(4), Returns::Of(struct_field), parsed).into(),
        Function::new(PARSED_PART, Some(2), Returns::Of(part_field), part).into(),
        Function::new(PARSED_JSON, Some(4), Returns::Json, parsed_json)
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

fn struct_field(name: &'static str, args: &ReturnFieldArgs) -> Result<Field> {
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
    let (mut values, mut failed): (Values<'_>, usize) = (Vec::new(), 0);
    for text in texts.iter() {
        match text {
            None => values.clear(),
            Some(text) => failed += usize::from(!parser.parse(text, &mut values)),
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
    call.count(name, failed, call.rows - texts.null_count());
    for (field, (failed, total)) in fields.iter().zip(unfit) {
        if failed > 0 {
            call.count(&format!("{name}.{}", field.name), failed, total);
        }
    }
    let columns = columns.into_iter().map(FieldColumn::finish).collect();
    Ok(Arc::new(StructArray::try_new(arrow_fields(&parser)?, columns, None)?))
}

fn parsed_json(call: &Call) -> Result<ArrayRef> {
    let parser = parser(call.text(1)?, call.text(2)?)?;
    let texts = text_views(&call.column(0)?)?;
    let texts: &StringViewArray = texts.as_string_view();
    let (mut objects, mut failed) = (LargeStringBuilder::with_capacity(call.rows, 0), 0);
    let (name, mut unfit) = (call.text(3)?, BTreeMap::<String, usize>::new());
    for text in texts.iter() {
        let parsed =
            text.and_then(|text| parser.parse_json(text, |field| *unfit.entry(field.to_owned()).or_default() += 1));
        failed += usize::from(text.is_some() && parsed.is_none());
        objects.append_option(parsed);
    }
    let total = call.rows - texts.null_count();
    call.count(name, failed, total);
    for (field, failed) in unfit {
        call.count(&format!("{name}.{field}"), failed, total);
    }
    Ok(Arc::new(objects.finish()))
}
