//! Tests of casts: the cast of a computed value is the cast of its JSON.

use datafusion::{
    arrow::{
        array::{
            BooleanArray, Float64Array, Int64Array, ListArray, StringArray, StringViewArray, TimestampMicrosecondArray,
            UInt64Array, new_null_array,
        },
        datatypes::Int64Type,
    },
    common::ScalarValue,
    config::ConfigOptions,
    logical_expr::{ColumnarValue, ScalarFunctionArgs},
};
use proptest::{collection::vec, option, prelude::*, sample::select};

use super::*;
use crate::functions::{FunctionContext, rachis_function};

/// The types of casts in statements.
const TYPES: [Type; 5] = [Type::Bool, Type::Int, Type::Double, Type::Text, Type::Time];

/// 2^53: above it, doubles are integers, and not all integers are doubles.
const TWO_53: i64 = 1 << 53;

const INTS: [i64; 15] = [
    0,
    1,
    -1,
    TWO_53 - 1,
    TWO_53,
    TWO_53 + 1,
    i64::MAX,
    i64::MIN,
    99_999_999_999,
    100_000_000_000,
    -100_000_000_000,
    99_999_999_999_999,
    1_704_164_645_678,
    1_704_164_645_678_901,
    1_704_164_645_678_901_999,
];

const DOUBLES: [f64; 23] = [
    0.0,
    -0.0,
    0.5,
    -0.5,
    1.5,
    2.5,
    0.1,
    f64::NAN,
    f64::INFINITY,
    f64::NEG_INFINITY,
    f64::MIN_POSITIVE,
    5e-324,
    f64::MAX,
    9_007_199_254_740_994.0,
    // The doubles at the ends of int64, and the next ones.
    9_223_372_036_854_774_784.0,
    9_223_372_036_854_775_808.0,
    -9_223_372_036_854_775_808.0,
    -9_223_372_036_854_777_856.0,
    1_704_164_645.25,
    1_704_164_645_678.9,
    1_704_164_645_678_901.5,
    1_704_164_645_678_902_016.0,
    1e17,
];

const TEXTS: [&str; 22] = [
    "",
    " ",
    "null",
    "TRUE",
    " off ",
    "1",
    " -12 ",
    "+5",
    "1.5",
    "-0",
    " 1.5e3",
    "NaN",
    "inf",
    "1e999",
    "9223372036854775807",
    "9223372036854775808",
    "2024-01-02",
    "2024-01-02T03:04:05.6Z",
    " 2024-01-02 03:04:05+01:00",
    r#"{"a": [1]}"#,
    "\"\\\u{0}\u{1f600}",
    "yesterday",
];

/// The cast of the JSON that `to_json` returns, as if it were in a document.
fn cast_of_json(values: &ArrayRef, to: Type) -> Builder {
    let mut converted = Builder::new(to, values.len());
    for text in to_json(values).expect("JSON").as_string::<i64>() {
        let value = text.map(|text| json::parse(text.as_bytes()).expect("JSON"));
        converted.push(value.as_ref().map_or(CastResult::Absent, |value| {
            read_value(value, || text, PathType { to, cast: true })
        }));
    }
    converted
}

fn check(values: &ArrayRef) {
    for to in TYPES {
        let (cast, expected) = (cast_as_json(values, to).expect("a cast"), cast_of_json(values, to));
        let counts = |built: &Builder| (built.present, built.cast_failures);
        assert_eq!(counts(&cast), counts(&expected), "{values:?} as {to:?}");
        assert_eq!(&cast.finish(), &expected.finish(), "{values:?} as {to:?}");
    }
}

/// Checks values and those of them that fit into each of the other types, from the second one on, too.
fn check_in(values: &ArrayRef, types: &[DataType]) {
    for of in types {
        let values = cast(values, of).expect("a type to which values can be cast");
        check(&values);
        check(&values.slice(1, values.len() - 1));
    }
}

fn check_ints(ints: Vec<Option<i64>>) {
    use DataType::{Int8, Int16, Int32, Int64, UInt8, UInt16, UInt32, UInt64};
    let ints: ArrayRef = Arc::new(Int64Array::from(ints));
    check_in(&ints, &[Int64, Int32, Int16, Int8, UInt64, UInt32, UInt16, UInt8]);
    check_in(&ints, &[DataType::Decimal128(38, 0), DataType::Decimal128(38, 4)]);
}

fn check_doubles(doubles: Vec<Option<f64>>) {
    let doubles: ArrayRef = Arc::new(Float64Array::from(doubles));
    check_in(&doubles, &[DataType::Float64, DataType::Float32]);
}

fn check_texts(texts: Vec<Option<String>>) {
    let texts: ArrayRef = Arc::new(StringViewArray::from(texts));
    check_in(&texts, &[DataType::Utf8View, DataType::Utf8]);
}

/// All of these values, after a NULL.
fn all<T: Clone>(values: &[T]) -> Vec<Option<T>> {
    std::iter::once(None).chain(values.iter().cloned().map(Some)).collect()
}

#[test]
fn edge_values_are_cast_as_their_json() {
    check_ints(all(&INTS));
    check_doubles(all(&DOUBLES));
    check_texts(all(&TEXTS.map(str::to_owned)));
    check(&(Arc::new(BooleanArray::from(vec![Some(true), None, Some(false)])) as ArrayRef));
    check(&(Arc::new(UInt64Array::from(vec![Some(u64::MAX), None, Some(1 << 63)])) as ArrayRef));
    check(&(Arc::new(StringArray::from(Vec::<Option<&str>>::new())) as ArrayRef));
    let lists = ListArray::from_iter_primitive::<Int64Type, _, _>([Some(vec![Some(1)]), None]);
    check(&(Arc::new(lists) as ArrayRef));
    check(&(Arc::new(TimestampMicrosecondArray::from(vec![Some(-1), None])) as ArrayRef));
    check(&new_null_array(&DataType::Null, 3));
}

proptest! {
    #[test]
    fn any_value_is_cast_as_its_json(
        ints in vec(option::of(prop_oneof![any::<i64>(), -300..300i64, select(INTS.to_vec())]), 1..30),
        doubles in vec(option::of(prop_oneof![
            any::<u64>().prop_map(f64::from_bits),
            any::<i64>().prop_map(|int| int as f64),
            -3e9..3e9,
            -2e18..2e18,
            select(DOUBLES.to_vec()),
        ]), 1..30),
        texts in vec(option::of(prop_oneof![
            any::<String>(),
            any::<i64>().prop_map(|int| int.to_string()),
            any::<f64>().prop_map(|double| double.to_string()),
            "[0-9]{4}-[0-9]{2}-[0-9]{2}[ T]?([0-9]{2}:[0-9]{2}(:[0-9]{2}(\\.[0-9]{1,9})?)?)?(Z|[+-][0-9]{2}:?[0-9]{2})?",
            select(TEXTS.to_vec()).prop_map(str::to_owned),
        ]), 1..30),
    ) {
        check_ints(ints);
        check_doubles(doubles);
        check_texts(texts);
    }
}

#[test]
fn a_double_is_cast_as_the_integer_that_it_is() {
    let doubles: ArrayRef = Arc::new(Float64Array::from(all(&[-0.0, 2.5, 1e18, f64::NAN, 1e19])));
    let cast = cast_as_json(&doubles, Type::Int).expect("integers");
    assert_eq!(
        (cast.present, cast.cast_failures),
        (4, 1),
        "NaN is no value, and 1e19 is no int64"
    );
    let ints = [None, Some(0), Some(2), Some(1_000_000_000_000_000_000), None, None];
    assert_eq!(&cast.finish(), &(Arc::new(Int64Array::from(ints.to_vec())) as ArrayRef));
    let texts = cast_as_json(&doubles, Type::Text).expect("texts").finish();
    let texts: Vec<Option<&str>> = texts.as_string_view().iter().collect();
    let spelled = [Some("0"), Some("2.5"), Some("1000000000000000000"), None, Some("1e+19")];
    assert_eq!(texts[1..], spelled);
}

/// The result of `json_cast(values, NULL::type, 'BIGINT')`, and what it counts.
fn call(values: ColumnarValue, rows: usize) -> (ColumnarValue, FunctionContext) {
    let context = FunctionContext::default();
    let mut options = ConfigOptions::new();
    options.extensions.insert(context.clone());
    let args = vec![
        values,
        ScalarValue::Int64(None).into(),
        ScalarValue::from("BIGINT").into(),
    ];
    let fields = args.iter().map(|arg| Arc::new(Field::new("", arg.data_type(), true)));
    let called = rachis_function(JSON_CAST).invoke_with_args(ScalarFunctionArgs {
        arg_fields: fields.collect(),
        args,
        number_rows: rows,
        return_field: Arc::new(Field::new("", DataType::Int64, true)),
        config_options: Arc::new(options),
    });
    (called.expect("a result"), context)
}

#[test]
fn only_failures_are_counted_by_the_name_of_the_type() {
    let doubles = |doubles: &[f64]| ColumnarValue::Array(Arc::new(Float64Array::from(all(doubles))));
    let (_, context) = call(doubles(&[1.0, 2.0]), 3);
    assert!(
        context.warnings.is_empty(),
        "so a leaf computes it once for many equal values"
    );
    let (_, context) = call(doubles(&[1.0, 1e30]), 3);
    assert_eq!(
        context.warnings.messages(),
        ["as BIGINT: 1 of 2 values had no result and are NULL"]
    );
}

#[test]
fn the_cast_of_a_constant_is_a_constant() {
    let (cast, _) = call(ScalarValue::Float64(Some(2.5)).into(), 8);
    assert!(
        matches!(cast, ColumnarValue::Scalar(ScalarValue::Int64(Some(2)))),
        "{cast:?}"
    );
}
