//! Tests of `bounded`.

use datafusion::{
    arrow::{
        array::{AsArray as _, StringViewArray},
        compute::cast,
        datatypes::Field,
    },
    common::ScalarValue,
    config::ConfigOptions,
};
use proto::{Code, Problem};

use super::{
    super::{text, warnings::WarningCounts},
    *,
};
use crate::regex_states::states;

fn args(columns: &[ColumnarValue], rows: usize, context: &FunctionContext) -> ScalarFunctionArgs {
    let mut options = ConfigOptions::new();
    options.extensions.insert(context.clone());
    ScalarFunctionArgs {
        args: columns.to_vec(),
        arg_fields: columns
            .iter()
            .map(|arg| Arc::new(Field::new("", arg.data_type(), true)))
            .collect(),
        number_rows: rows,
        return_field: Arc::new(Field::new("", DataType::Utf8View, true)),
        config_options: Arc::new(options),
    }
}

fn call(name: &str, columns: &[ColumnarValue], rows: usize, context: &FunctionContext) -> Result<ColumnarValue> {
    let function = super::super::scalar()
        .into_iter()
        .find(|function| function.name() == name)
        .expect("a function");
    let mut args = args(columns, rows, context);
    let types: Vec<DataType> = columns.iter().map(ColumnarValue::data_type).collect();
    args.return_field = Arc::new(Field::new(
        "",
        function.return_type(&types).unwrap_or(DataType::Utf8View),
        true,
    ));
    function.invoke_with_args(args)
}

fn texts(text: &str, rows: usize) -> ColumnarValue {
    ColumnarValue::Array(Arc::new(StringViewArray::from_iter_values(std::iter::repeat_n(
        text, rows,
    ))))
}

fn constant(text: &str) -> ColumnarValue {
    ColumnarValue::Scalar(ScalarValue::Utf8View(Some(text.to_owned())))
}

#[test]
fn a_heavy_batch_computed_in_parts_has_the_same_result() {
    let context = FunctionContext::default();
    let (rows, long) = (100, "ab".repeat(5_000));
    let replaced = call(
        "replace",
        &[texts(&long, rows), constant("a"), constant(&"x".repeat(100))],
        rows,
        &context,
    )
    .expect("50 MB");
    let ColumnarValue::Array(replaced) = replaced else {
        panic!("rows")
    };
    let expected = long.replace('a', &"x".repeat(100));
    assert_eq!(replaced.len(), rows);
    let replaced = cast(&replaced, &DataType::Utf8View).expect("texts");
    assert!(
        replaced
            .as_string_view()
            .iter()
            .all(|text| text == Some(expected.as_str()))
    );
}

#[test]
fn results_count_towards_the_limit_while_they_are_in_use() {
    let context = FunctionContext::default().with_memory_limit(128 << 20);
    let (rows, long) = (200, "a".repeat(10_000));
    let replace = || {
        call(
            "replace",
            &[texts(&long, rows), constant("a"), constant(&"x".repeat(35))],
            rows,
            &context,
        )
    };
    let first = replace().expect("70 MB fit");
    let refused = replace().expect_err("twice that does not");
    assert!(refused.to_string().contains("replace produces"), "{refused}");
    drop(first);
    assert!(replace().is_ok(), "a dropped result does not count");
}

#[test]
fn the_query_may_end_between_two_parts() {
    // The deadline passes between the first part and the second: the light call checks it once, the heavy one
    // before it begins and before each part.
    let checks = std::sync::atomic::AtomicUsize::new(0);
    let over = move || {
        (checks.fetch_add(1, std::sync::atomic::Ordering::SeqCst) > 2).then(|| Problem::new(Code::Timeout, "over"))
    };
    let context = FunctionContext::new(WarningCounts::default(), over);
    let rows = 100;
    assert!(
        call(
            "replace",
            &[texts("ab", rows), constant("a"), constant("b")],
            rows,
            &context
        )
        .is_ok(),
        "a light call checks once"
    );
    let long = "ab".repeat(5_000);
    let ended = call(
        "replace",
        &[texts(&long, rows), constant("a"), constant(&"x".repeat(100))],
        rows,
        &context,
    )
    .expect_err("the deadline is over");
    assert!(ended.to_string().contains("over"), "{ended}");
}

#[test]
fn a_constant_that_grows_too_large_is_refused() {
    let context = FunctionContext::default();
    let refused = call(
        text::JOIN,
        &[constant(&"a".repeat(9 << 20)), constant(&"a".repeat(9 << 20))],
        1,
        &context,
    )
    .expect_err("18 MiB");
    assert!(refused.to_string().contains("|| produces"), "{refused}");
}

#[test]
fn the_states_of_a_regular_expression_are_those_of_its_expansion() {
    for (pattern, expected) in [
        ("abc", 3),
        ("a.*b", 3),
        ("(a|bc)+", 6),
        ("[a-z]{10}", 10),
        ("(a.*){50}", 100),
        ("((a{9}){9}){9}", 729),
        ("(", 0),
    ] {
        assert_eq!(states(pattern), expected, "{pattern}");
    }
}

#[test]
fn a_pattern_from_the_data_is_bounded() {
    let patterns = ColumnarValue::Array(Arc::new(StringViewArray::from_iter_values(["a+", r"(\w{100}){100}"])));
    let refused = call(
        "regexp_like",
        &[texts("aaa", 2), patterns],
        2,
        &FunctionContext::default(),
    )
    .expect_err("it is large");
    assert!(refused.to_string().contains("when it is compiled"), "{refused}");
}

#[test]
fn the_edit_distance_of_texts_that_are_too_long_is_refused() {
    let distance = |length: usize| {
        call(
            "levenshtein",
            &[texts(&"a".repeat(length), 1), constant(&"b".repeat(length))],
            1,
            &FunctionContext::default(),
        )
    };
    assert!(distance(1_000).is_ok());
    let refused = distance(20_000).expect_err("it would take seconds");
    assert!(refused.to_string().contains("for one row"), "{refused}");
}

#[test]
fn no_result_is_larger_than_the_weight_of_its_call() {
    let context = FunctionContext::default();
    let long = "aß(".repeat(300);
    let two = [constant(&long), constant("ß")];
    let three = [constant(&long), constant("a"), constant("xyzß")];
    let calls: [(&str, &[ColumnarValue]); 9] = [
        ("replace", &three),
        ("replace", &[constant(&long), constant(""), constant("xyz")]),
        ("translate", &three),
        ("regexp_replace", &three),
        ("upper", &two[..1]),
        ("string_to_array", &two),
        ("concat", &three),
        ("concat_ws", &three),
        (text::JOIN, &three),
    ];
    for (name, columns) in calls {
        let texts = |column: &ColumnarValue| cast(&column.to_array(3).expect("rows"), &DataType::Utf8).expect("texts");
        let rows: Vec<ColumnarValue> = columns
            .iter()
            .map(|column| ColumnarValue::Array(texts(column)))
            .collect();
        let weighed = WeighedCall::new(name, &args(&rows, 3, &context), 3).expect("weighed");
        let weight: u64 = (0..3).map(|row| weighed.weight(row)).sum();
        let ColumnarValue::Array(result) = call(name, &rows, 3, &context).expect("computed") else {
            panic!("rows")
        };
        assert!(
            size(&result) <= weight,
            "{name}: {} bytes, weighed {weight}",
            size(&result)
        );
    }
}

/// The arguments of a parser whose pattern has so many states.
fn pattern_of(states: usize, text: &str, rows: usize) -> [ColumnarValue; 4] {
    let pattern = format!("(?<x>a[ab]{{{states}}}c)");
    [
        texts(text, rows),
        constant("REGEX"),
        constant(&pattern),
        constant("logs.p"),
    ]
}

#[test]
fn a_batch_is_parsed_and_counted_once_for_all_its_fields() {
    let context = || FunctionContext::new(WarningCounts::default(), || None);
    let (first, second) = (context(), context());
    let columns = pattern_of(2, "no match", 10);
    for context in [&first, &first, &second] {
        call("parsed", &columns, 10, context).expect("a result");
    }
    let counted = [("logs.p".to_owned(), 10, 10)];
    assert_eq!(first.warnings.counts(), counted, "once");
    assert_eq!(second.warnings.counts(), counted, "another query counts by itself");
    let others = pattern_of(2, "no match", 10);
    call("parsed", &others, 10, &first).expect("a result");
    assert_eq!(first.warnings.counts(), [("logs.p".to_owned(), 20, 20)], "other texts");
}

#[test]
fn a_parser_with_many_states_ends_with_its_query() {
    let checks = std::sync::atomic::AtomicUsize::new(0);
    let context = FunctionContext::new(WarningCounts::default(), move || {
        let earlier = checks.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        (earlier > 2).then(|| Problem::new(Code::Timeout, "the time is over"))
    });
    // All of them would take minutes.
    let columns = pattern_of(20_000, &"ab".repeat(1_000), 5_000);
    let ended = call("parsed", &columns, 5_000, &context).expect_err("it ends early");
    assert!(ended.to_string().contains("the time is over"), "{ended}");
}
