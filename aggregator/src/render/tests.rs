//! Tests of `render`.

use std::sync::Arc;

use datafusion::arrow::array::{
    BinaryArray, BooleanArray, Date32Array, Decimal128Array, DictionaryArray, Float64Array, Int64Array,
    LargeStringArray, ListArray, StringViewArray, StructArray, TimestampMicrosecondArray, UInt64Array,
};

use super::*;

fn rendered(field: Field, array: ArrayRef) -> Vec<String> {
    let array = plain(&array);
    let one = |row| {
        let mut out = Vec::new();
        json(&mut out, &field, &array, row, LineBreaks::ToSpaces);
        String::from_utf8(out).expect("UTF-8")
    };
    (0..array.len()).map(one).collect()
}

fn rendered_array(array: impl Array + 'static) -> Vec<String> {
    let array: ArrayRef = Arc::new(array);
    rendered(Field::new("x", array.data_type().clone(), true), array)
}

fn rendered_csv(array: impl Array + 'static) -> Vec<String> {
    separated(Separated::Csv, array)
}

fn separated(format: Separated, array: impl Array + 'static) -> Vec<String> {
    let field = Field::new("x", array.data_type().clone(), true);
    let one = |row| {
        let mut out = Vec::new();
        format.value(&mut out, &field, &array, row);
        String::from_utf8(out).expect("UTF-8")
    };
    (0..array.len()).map(one).collect()
}

fn json_field(name: &str) -> Field {
    plan::column::json_field(name, plan::Kinds::default())
}

#[test]
fn numbers_keep_their_digits_and_nan_and_infinity_are_null() {
    assert_eq!(
        rendered_array(Int64Array::from(vec![Some(i64::MAX), Some(i64::MIN), None])),
        ["9223372036854775807", "-9223372036854775808", "null"]
    );
    assert_eq!(
        rendered_array(UInt64Array::from(vec![u64::MAX])),
        ["18446744073709551615"]
    );
    assert_eq!(
        rendered_array(Float64Array::from(vec![1.0, 0.1, f64::NAN, f64::INFINITY, -0.0, 1e300])),
        ["1.0", "0.1", "null", "null", "-0.0", "1e+300"]
    );
    let sums = Decimal128Array::from(vec![i128::from(i64::MAX) * 10, -5]);
    assert_eq!(
        rendered_array(sums.clone().with_precision_and_scale(38, 0).expect("fits")),
        ["92233720368547758070", "-5"]
    );
    assert_eq!(
        rendered_array(sums.with_precision_and_scale(38, 2).expect("fits")),
        ["922337203685477580.70", "-0.05"]
    );
    assert_eq!(rendered_array(BooleanArray::from(vec![true, false])), ["true", "false"]);
}

#[test]
fn times_are_rfc_3339_in_utc() {
    let times = TimestampMicrosecondArray::from(vec![0, 1_700_000_000_123_456, -1, i64::MAX]).with_timezone("UTC");
    let shown = [
        "\"1970-01-01T00:00:00Z\"",
        "\"2023-11-14T22:13:20.123456Z\"",
        "\"1969-12-31T23:59:59.999999Z\"",
        "\"9223372036854775807\"",
    ];
    assert_eq!(rendered_array(times), shown);
    assert_eq!(rendered_array(Date32Array::from(vec![19_675])), ["\"2023-11-14\""]);
}

#[test]
fn json_is_embedded_verbatim_and_a_document_is_a_string() {
    let texts = vec!["{\"a\" : 1.50}", "\"x\"", "1e400", "[\n1]", "not json"];
    let cells = || Arc::new(StringViewArray::from(texts.clone())) as ArrayRef;
    assert_eq!(
        rendered(json_field("x"), Arc::new(LargeStringArray::from(texts.clone()))),
        ["{\"a\" : 1.50}", "\"x\"", "1e400", "[ 1]", "\"not json\""]
    );
    assert_eq!(
        rendered(plan::Column::system("_doc").expect("a system column").field(), cells()),
        [
            "\"{\\\"a\\\" : 1.50}\"",
            "\"\\\"x\\\"\"",
            "\"1e400\"",
            "\"[\\n1]\"",
            "\"not json\""
        ]
    );
}

#[test]
fn nested_values_are_json() {
    use datafusion::arrow::datatypes::Int64Type;
    let list = ListArray::from_iter_primitive::<Int64Type, _, _>(vec![Some(vec![Some(1), None]), None, Some(vec![])]);
    assert_eq!(rendered_array(list), ["[1,null]", "null", "[]"]);
    let fields = vec![Field::new("a\"b", DataType::Int64, true), json_field("j")];
    let columns: Vec<ArrayRef> = vec![
        Arc::new(Int64Array::from(vec![1])),
        Arc::new(LargeStringArray::from(vec!["{\"k\":[]}"])),
    ];
    assert_eq!(
        rendered_array(StructArray::new(fields.into(), columns, None)),
        ["{\"a\\\"b\":1,\"j\":{\"k\":[]}}"]
    );
    let dictionary: DictionaryArray<datafusion::arrow::datatypes::Int32Type> =
        vec!["x", "y", "x"].into_iter().collect();
    assert_eq!(rendered_array(dictionary), ["\"x\"", "\"y\"", "\"x\""]);
    assert_eq!(rendered_array(BinaryArray::from(vec![&b"\x00\xff"[..]])), ["\"00ff\""]);
}

#[test]
fn tsv_escapes_what_separates_values_and_rows() {
    let texts = StringViewArray::from(vec![
        Some("a\tb"),
        Some(""),
        None,
        Some("two\nlines\r"),
        Some("\\N"),
        Some("\"q\", ü"),
    ]);
    assert_eq!(
        separated(Separated::Tsv, texts),
        ["a\\tb", "", "\\N", "two\\nlines\\r", "\\\\N", "\"q\", ü"]
    );
    assert_eq!(
        separated(Separated::Tsv, Float64Array::from(vec![1.5, f64::NAN])),
        ["1.5", "\\N"]
    );
}

#[test]
fn csv_distinguishes_null_from_empty_text_and_quotes_if_necessary() {
    let texts = StringViewArray::from(vec![
        Some("a,b"),
        Some(""),
        None,
        Some("say \"hi\""),
        Some("two\nlines"),
        Some("plain"),
    ]);
    assert_eq!(
        rendered_csv(texts),
        ["\"a,b\"", "\"\"", "", "\"say \"\"hi\"\"\"", "\"two\nlines\"", "plain"]
    );
    assert_eq!(rendered_csv(Float64Array::from(vec![1.5, f64::NAN])), ["1.5", ""]);
    use datafusion::arrow::datatypes::Int64Type;
    assert_eq!(
        rendered_csv(ListArray::from_iter_primitive::<Int64Type, _, _>(vec![Some(vec![
            Some(1),
            Some(2)
        ])])),
        ["\"[1,2]\""]
    );
}

#[test]
fn types_have_sql_names() {
    let name = |to: DataType| crate::answer::type_name(&to);
    assert_eq!(name(DataType::Int64), "BIGINT");
    assert_eq!(name(DataType::Decimal128(38, 0)), "DECIMAL(38,0)");
    assert_eq!(name(DataType::new_list(DataType::Utf8, true)), "TEXT[]");
    assert_eq!(
        name(DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()))),
        "TIMESTAMP"
    );
    assert_eq!(crate::answer::type_name(json_field("x").data_type()), "JSON");
}
