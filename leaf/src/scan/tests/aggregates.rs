//! Partial aggregates agree with DataFusion's over the same rows.

use std::{collections::HashSet, sync::Arc};

use datafusion::{
    arrow::{
        array::{ArrayRef, Int64Array, RecordBatch},
        compute::concat_batches,
        datatypes::Schema,
    },
    datasource::MemTable,
    execution::TaskContext,
    functions_aggregate::{
        average::avg_udaf,
        min_max::{max_udaf, min_udaf},
        sum::sum_udaf,
    },
    logical_expr::{AggregateUDF, Operator},
    physical_expr::{
        PhysicalExpr, ScalarFunctionExpr,
        aggregate::{AggregateExprBuilder, AggregateFunctionExpr},
        expressions::{self, BinaryExpr},
    },
    physical_plan::{ExecutionPlan, aggregates::PhysicalGroupBy, collect, empty::EmptyExec},
    prelude::SessionContext,
    scalar::ScalarValue,
};
use plan::{
    Column, Path,
    calendar::Interval,
    functions::{FunctionContext, WarningCounts, interval_number::NUMBER},
    scan::{PartialAggregate, SUMMED_INTEGER, ScanSource, ScanTrailer, Stage},
    search::Match,
};

use super::{
    super::{
        index_totals::IndexTotals,
        weighted::{FunctionTrial, WeightedAggregate},
    },
    document, lines,
    random::{SeededRng, clause},
    request, scan, table, tail, view,
};
use crate::{
    document::Document,
    split::{DocumentNumbers, Segment},
    view::ReadView,
};

#[test]
fn partial_aggregates_equal_datafusions_over_the_rows() {
    let mut rng = SeededRng::new("partial_aggregates_equal_datafusions_over_the_rows");
    // Sums of halves are exact in any order.
    let text = |rng: &mut SeededRng| {
        format!(
            r#"{{"s":{},"a":{}}}"#,
            rng.pick(&["\"x\"", "\"y z\"", "1", "null"]),
            rng.pick(&["1", "-7", "2.5", "\"7\"", "null"])
        )
    };
    let documents: Vec<_> = (0..2_000).map(|offset| document(offset, &text(&mut rng))).collect();
    let names = ["s:text", "a:int", "a:double"];
    let batch = table(&documents, &names.map(ToString::to_string));
    let schema = batch.schema();
    let aggregates = aggregates(&schema);
    let by_text = expressions::col("s:text", &schema).expect("a column");
    for groups in [vec![], vec![(by_text, "s".to_owned())]] {
        let partial = partial_of(&batch, groups, aggregates.clone(), vec![None; aggregates.len()]);
        let (expected, output) = (model_states(&batch, &partial), partial.output.clone());
        for (read, view) in [
            (ScanSource::Auto, tail(&documents)),
            (ScanSource::Auto, view(&documents, &[1_500, 300], &[])),
            (ScanSource::Raw, tail(&documents)),
        ] {
            let (states, trailer) =
                scan(&view, request(read, &names, vec![], Stage::Partial(partial.clone()))).expect("an answer");
            assert!(
                states.iter().all(|states| states.schema() == output),
                "the schema is the planned one"
            );
            let states = concat_batches(&output, &states).expect("one batch");
            assert_eq!(lines(&[states]), lines(&expected));
            assert_eq!(trailer.matched, 2_000);
        }
    }
}

#[test]
fn aggregates_of_texts_equal_datafusions_over_the_rows() {
    let mut rng = SeededRng::new("aggregates_of_texts_equal_datafusions_over_the_rows");
    let (documents, deleted, live) = documents_with_texts(&mut rng);
    let names = ["s:text", "t:text"];
    let batch = table(&live, &names.map(ToString::to_string));
    let schema = batch.schema();
    let at = |name: &str| expressions::col(name, &schema).expect("a column");
    let key = |key: Arc<dyn PhysicalExpr>| (key, "key".to_owned());
    let upper = call("upper", vec![at("t:text")], &schema, &FunctionContext::default());
    let length = call(
        "character_length",
        vec![at("s:text")],
        &schema,
        &FunctionContext::default(),
    );
    let is_x: Arc<dyn PhysicalExpr> = Arc::new(BinaryExpr::new(at("s:text"), Operator::Eq, text("x")));
    let count = |argument: Arc<dyn PhysicalExpr>| aggregate(function("count"), vec![argument], "n", &schema);
    let calls = vec![
        (count(expressions::lit(1i64)), None),
        (count(at("s:text")), None),
        (count(at("s:text")), Some(is_x.clone())),
        (count(expressions::lit(ScalarValue::Int64(None))), None),
        (
            aggregate(min_udaf(), vec![upper.clone()], "min", &schema),
            Some(is_x.clone()),
        ),
        (aggregate(max_udaf(), vec![length.clone()], "max", &schema), None),
    ];
    let all_keys = [
        vec![],
        vec![key(at("s:text"))],
        vec![key(at("t:text")), key(at("s:text"))],
        vec![key(upper)],
        vec![key(length), key(is_x)],
    ];
    for keys in all_keys {
        for calls in [&calls[..0], &calls[..1], &calls] {
            if keys.is_empty() && calls.is_empty() {
                continue;
            }
            let (aggregates, filters): (Vec<_>, Vec<_>) = calls.iter().cloned().unzip();
            let partial = partial_of(&batch, keys.clone(), aggregates, filters);
            let weighted = WeightedAggregate::of(&partial).expect("a plan");
            let filters_functions = keys.is_empty() && calls.len() > 1;
            assert_eq!(
                weighted.is_none(),
                filters_functions,
                "segments may count its documents"
            );
            let view = view(&documents, &[1_500, 300], &deleted);
            let [auto, raw] = [ScanSource::Auto, ScanSource::Raw].map(|read| {
                let (states, trailer) = check_states(&view, read, &names, &partial, &batch);
                let counted = (trailer.matched, trailer.documents);
                assert_eq!(counted, (live.len() as u64, live.len() as u64));
                (states, trailer.cast_failures, trailer.counts.raw)
            });
            assert_eq!(auto.1, raw.1, "values that are no texts are counted alike");
            assert!(auto.2 < raw.2, "segments count most documents");
        }
    }
}

#[test]
fn matches_and_lengths_that_an_index_counts_equal_datafusions_over_the_rows() {
    let mut rng = SeededRng::new("matches_and_lengths_that_an_index_counts_equal_datafusions_over_the_rows");
    // The index does not know the tokens of all texts.
    let (long_token, long_text) = ("x".repeat(60_001), "two ".repeat(100));
    let text = |rng: &mut SeededRng| {
        let words = match rng.below(100) {
            0 => format!("\"one {long_token}\""),
            1 => format!("\"{long_text}\""),
            _ => (*rng.pick(&[
                "\"one\"",
                "\"one two two\"",
                "[\"one\",[\"two three\"]]",
                "\"\"",
                "7",
                "null",
            ]))
            .to_owned(),
        };
        format!(r#"{{"s":{words}}}"#)
    };
    let documents: Vec<_> = (0..2_000).map(|offset| document(offset, &text(&mut rng))).collect();
    let deleted: Vec<u32> = (0..1_800).filter(|_| rng.below(10) == 0).collect();
    let numbered = (0..).zip(&documents);
    let live: Vec<_> = numbered
        .filter(|(number, _)| !deleted.contains(number))
        .map(|(_, document)| document.clone())
        .collect();
    let word = |word: &str| clause(Some("s"), Match::Words(word.to_owned()));
    let names = [word("one"), word("two"), Column::tokens(Path::parse("s").ok()).name()];
    let batch = table(&live, &names);
    let schema = batch.schema();
    let at = |name: &str| expressions::col(name, &schema).expect("a column");
    let decimal = expressions::cast(at(&names[2]), &schema, SUMMED_INTEGER).expect("a decimal");
    let count = |argument| aggregate(function("count"), vec![argument], "n", &schema);
    let all = || count(expressions::lit(1i64));
    let calls = vec![
        (all(), None),
        (all(), Some(at(&names[0]))),
        (all(), Some(at(&names[1]))),
        (count(at(&names[2])), None),
        (aggregate(sum_udaf(), vec![decimal], "sum", &schema), None),
    ];
    let (aggregates, filters): (Vec<_>, Vec<_>) = calls.into_iter().unzip();
    let partial = partial_of(&batch, vec![], aggregates, filters);
    let columns = names.each_ref().map(|name| Column::parse(name).expect("a column"));
    assert!(
        IndexTotals::of(&partial, &columns).is_some(),
        "an index may count all of it"
    );
    let view = view(&documents, &[1_500, 300], &deleted);
    let names = names.each_ref().map(String::as_str);
    let [auto, raw] = [ScanSource::Auto, ScanSource::Raw].map(|read| {
        let (_, trailer) = check_states(&view, read, &names, &partial, &batch);
        assert_eq!(
            (trailer.matched, trailer.documents),
            (live.len() as u64, live.len() as u64)
        );
        trailer.counts.raw
    });
    assert_eq!(raw, live.len() as u64);
    assert!(
        (201..raw / 2).contains(&auto),
        "{auto} documents are read: the tail, and those with unknown texts"
    );
}

#[test]
fn sums_of_integers_and_of_lengths_equal_datafusions_over_the_rows() {
    let mut rng = SeededRng::new("sums_of_integers_and_of_lengths_equal_datafusions_over_the_rows");
    let text = |rng: &mut SeededRng| {
        let n = rng.pick(&[
            "9223372036854775807",
            "-9223372036854775808",
            "9223372036854775000",
            "null",
            "\"x\"",
        ]);
        let words = rng.pick(&["\"one\"", "\"one two two\"", "[\"one\",[\"two three\"]]", "\"\"", "7"]);
        format!(r#"{{"n":{n},"s":{words}}}"#)
    };
    let documents: Vec<_> = (0..2_000).map(|offset| document(offset, &text(&mut rng))).collect();
    let view = view(&documents, &[1_500, 300], &[]);
    for column in ["n:int".to_owned(), Column::tokens(Path::parse("s").ok()).name()] {
        let batch = table(&documents, std::slice::from_ref(&column));
        let schema = batch.schema();
        let value = expressions::col(&column, &schema).expect("a column");
        let decimal = expressions::cast(value.clone(), &schema, SUMMED_INTEGER).expect("a decimal");
        let calls = vec![
            aggregate(sum_udaf(), vec![decimal], "sum", &schema),
            aggregate(function("count"), vec![value.clone()], "n", &schema),
        ];
        for keys in [vec![], vec![(value, "key".to_owned())]] {
            let partial = partial_of(&batch, keys, calls.clone(), vec![None, None]);
            assert!(WeightedAggregate::of(&partial).expect("a plan").is_some(), "{column}");
            for read in [ScanSource::Auto, ScanSource::Raw] {
                check_states(&view, read, &[&column], &partial, &batch);
            }
        }
    }
}

#[test]
fn histograms_equal_datafusions_over_the_rows() {
    let mut rng = SeededRng::new("histograms_equal_datafusions_over_the_rows");
    // Only texts are grouped by their times, so that the first segment of two has no numbers.
    let time = |rng: &mut SeededRng, offset: i64, are_alike: bool| {
        let (day, hour, minute) = (1 + rng.below(3), rng.below(24), rng.below(60));
        match rng.below(10) {
            0 if are_alike => "null".to_owned(),
            _ if are_alike => format!("\"2015-01-0{day}T{hour:02}:{minute:02}:00Z\""),
            0 if offset > 1_600 => "7".to_owned(),
            0 => (*rng.pick(&["null", "\"x\"", "\"2015-01-01\""])).to_owned(),
            1 => format!("\"2015-01-0{day} {hour:02}:{minute:02}\""),
            _ => format!("\"2015-01-0{day}T{hour:02}:{minute:02}:00Z\""),
        }
    };
    for are_alike in [false, true] {
        let text = |offset| format!(r#"{{"t":{}}}"#, time(&mut rng, offset, are_alike));
        let documents: Vec<_> = (0..2_000).map(text).collect();
        let documents: Vec<_> = (0..)
            .zip(&documents)
            .map(|(offset, text)| document(offset, text))
            .collect();
        for interval in ["1h", "1d", "7m", "1M"] {
            check_histograms(&documents, interval);
        }
    }
}

fn check_histograms(documents: &[Arc<Document>], interval: &str) {
    let context = FunctionContext::new(WarningCounts::default(), || None);
    assert_merges_times(&documents[..1_500], Interval::parse(interval).expect("an interval"));
    let names = ["t:time"];
    let batch = table(documents, &names.map(ToString::to_string));
    let schema = batch.schema();
    let at = expressions::col(names[0], &schema).expect("a column");
    let number = call(NUMBER, vec![at.clone(), expressions::lit(interval)], &schema, &context);
    let key = (number, "key".to_owned());
    let all = aggregate(function("count"), vec![expressions::lit(1i64)], "n", &schema);
    let with_time = aggregate(function("count"), vec![at.clone()], "with_time", &schema);
    let earliest = aggregate(min_udaf(), vec![at], "min", &schema);
    for (calls, is_histogram) in [
        (vec![all.clone()], true),
        (vec![all.clone(), with_time], false),
        (vec![all, earliest], false),
    ] {
        let filters = vec![None; calls.len()];
        let partial = partial_of(&batch, vec![key.clone()], calls, filters);
        let weighted = WeightedAggregate::of(&partial).expect("a plan").expect("counts");
        assert_eq!(weighted.interval.is_some(), is_histogram, "{interval}");
        for segments in [&[1_800][..], &[1_500, 300]] {
            let view = view(documents, segments, &[]);
            for read in [ScanSource::Auto, ScanSource::Raw] {
                check_states(&view, read, &names, &partial, &batch);
            }
        }
    }
}

/// A segment of these documents has a group for each time, but far fewer when it may merge those of an interval.
fn assert_merges_times(documents: &[Arc<Document>], interval: Interval) {
    let segment = Segment::in_memory(documents).expect("a segment");
    let column = Column::parse("t:time").expect("a column");
    let all = DocumentNumbers::Range(0..documents.len() as u32);
    let groups = segment.count_groups(&[&column], Some(interval), &all);
    let groups = groups.expect("an answer").expect("groups");
    let texts: HashSet<&str> = documents.iter().map(|document| document.text()).collect();
    let merged: usize = groups.iter().map(|groups| groups.documents.len()).sum();
    assert!(
        merged < texts.len() * 3 / 4,
        "{interval:?}: {merged} groups of {} times",
        texts.len()
    );
}

#[test]
fn groups_of_cast_values_equal_datafusions_over_the_rows() {
    let mut rng = SeededRng::new("groups_of_cast_values_equal_datafusions_over_the_rows");
    let text = |rng: &mut SeededRng| {
        let entry = |rng: &mut SeededRng, key: &str, values: &[&str]| format!(r#""{key}":{}"#, rng.pick(values));
        let entries = [
            entry(rng, "n", &["0", "1", "-7", "null"]),
            entry(rng, "b", &["true", "false", "null"]),
            entry(
                rng,
                "t",
                &["\"2015-01-01\"", "\"2015-01-01T00:00:00Z\"", "\"7\"", "\"x\"", "null"],
            ),
            entry(rng, "m", &["1", "1.0", "2.5", "true", "\"1\"", "[1]", "1e999", "null"]),
        ];
        format!("{{{}}}", entries.join(","))
    };
    let documents: Vec<_> = (0..2_000).map(|offset| document(offset, &text(&mut rng))).collect();
    let view = view(&documents, &[1_500, 300], &[]);
    for path in ["n", "b", "t", "m"] {
        for to in ["text", "int", "double", "bool", "time"] {
            for cast in ["", "!"] {
                let name = format!("{path}:{to}{cast}");
                let batch = table(&documents, std::slice::from_ref(&name));
                let key = expressions::col(&name, &batch.schema()).expect("a column");
                let count = aggregate(function("count"), vec![key.clone()], "n", &batch.schema());
                let partial = partial_of(&batch, vec![(key, "key".to_owned())], vec![count], vec![None]);
                let counted = [ScanSource::Auto, ScanSource::Raw].map(|read| {
                    let (_, trailer) = check_states(&view, read, &[&name], &partial, &batch);
                    trailer.cast_failures
                });
                assert_eq!(counted[0], counted[1], "{name}");
            }
        }
    }
}

#[test]
fn a_function_without_a_result_is_counted_for_each_document() {
    let mut rng = SeededRng::new("a_function_without_a_result_is_counted_for_each_document");
    let (documents, deleted, live) = documents_with_texts(&mut rng);
    let names = ["t:text"];
    let batch = table(&live, &names.map(ToString::to_string));
    let schema = batch.schema();
    let view = view(&documents, &[1_500, 300], &deleted);
    let counted = |read, is_key: bool, filter: &Option<Arc<dyn PhysicalExpr>>| {
        let warnings = WarningCounts::default();
        let context = FunctionContext::new(warnings.clone(), || None);
        let argument = expressions::col("t:text", &schema).expect("a column");
        let time = call("to_timestamp", vec![argument], &schema, &context);
        let (keys, argument) = match is_key {
            true => (vec![(time, "key".to_owned())], expressions::lit(1i64)),
            false => (Vec::new(), time),
        };
        let count = aggregate(function("count"), vec![argument], "n", &schema);
        let partial = partial_of(&batch, keys, vec![count], vec![filter.clone()]);
        let request = request(read, &names, vec![], Stage::Partial(partial));
        let (states, trailer) = scan(&view, request).expect("an answer");
        assert!(warnings.is_empty(), "the scan counts");
        (lines(&states), trailer.warnings)
    };
    let is_time = |time: &str| -> Option<Arc<dyn PhysicalExpr>> {
        let argument = expressions::col("t:text", &schema).expect("a column");
        Some(Arc::new(BinaryExpr::new(argument, Operator::Eq, text(time))))
    };
    for (is_key, filter, fails) in [
        (true, None, true),
        (false, None, true),
        (true, is_time("2015-01-01T00:00:00Z"), true),
        // A filter protects the argument of an aggregate without groups.
        (false, is_time("2015-01-01T00:00:00Z"), false),
        (false, is_time("x"), true),
    ] {
        let [auto, raw] = [ScanSource::Auto, ScanSource::Raw].map(|read| counted(read, is_key, &filter));
        assert_eq!(auto, raw, "{is_key} {filter:?}");
        let has_failed = raw.1.iter().any(|(_, failed, _)| *failed > 0);
        assert_eq!(has_failed, fails, "some texts are no times: {is_key} {filter:?}");
    }
}

#[test]
fn a_function_with_results_is_counted_for_each_document() {
    let text = |n: usize| format!(r#"{{"n":{}}}"#, [1, 1, 2, 3, 3, 3][n % 6]);
    let mut documents: Vec<_> = (0..1_800).map(|n| document(n, &text(n as usize))).collect();
    documents.extend((1_800..1_900).map(|n| document(n, r#"{"n":0}"#)));
    let batch = table(&documents, &["n:int".to_owned()]);
    let schema = batch.schema();
    let warnings = WarningCounts::default();
    let context = FunctionContext::new(warnings.clone(), || None);
    let n = || expressions::col("n:int", &schema).expect("a column");
    let remainder = || call("checked_mod", vec![expressions::lit(7i64), n()], &schema, &context);
    let partial = |key: Arc<dyn PhysicalExpr>| {
        let count = aggregate(function("count"), vec![expressions::lit(1i64)], "n", &schema);
        partial_of(&batch, vec![(key, "key".to_owned())], vec![count], vec![None])
    };
    let view = view(&documents, &[1_200, 600], &[]);
    let answers = [ScanSource::Auto, ScanSource::Raw].map(|read| {
        let stage = Stage::Partial(partial(remainder()));
        let (states, trailer) = scan(&view, request(read, &["n:int"], vec![], stage)).expect("an answer");
        (lines(&states), trailer.warnings)
    });
    assert_eq!(answers[0], answers[1]);
    assert_eq!(answers[1].1, [("remainder".to_owned(), 100, 1_900)]);

    // Segments count these documents: the functions are computed for three rows.
    let is_positive: Arc<dyn PhysicalExpr> = Arc::new(BinaryExpr::new(n(), Operator::Gt, expressions::lit(0i64)));
    let is_odd = Arc::new(BinaryExpr::new(remainder(), Operator::Eq, expressions::lit(1i64)));
    let both = |left, right| -> Arc<dyn PhysicalExpr> { Arc::new(BinaryExpr::new(left, Operator::And, right)) };
    for (key, is_accepted) in [
        (remainder(), true),
        (both(is_odd.clone(), is_positive.clone()), true),
        // Whether it is called for a row depends on the others.
        (both(is_positive, is_odd), false),
    ] {
        let weighted = WeightedAggregate::of(&partial(key.clone()))
            .expect("a plan")
            .expect("one");
        let columns: Vec<ArrayRef> = [[1, 2, 3], [600, 300, 900]]
            .map(|column| Arc::new(Int64Array::from_iter_values(column)) as ArrayRef)
            .into();
        let rows = RecordBatch::try_new(weighted.aggregate.input.clone(), columns).expect("rows");
        let own = WarningCounts::default();
        let in_own = FunctionContext::new(own.clone(), || None);
        let trial = FunctionTrial::new(&weighted.aggregate, warnings.clone(), own, &in_own);
        let accepted = trial.expect("a trial").accepts(&[rows], 1_800).expect("functions");
        assert_eq!(accepted, is_accepted, "{key}");
        let counted = warnings.take();
        counted.count("remainder", 1, 3);
        let total = if is_accepted { 1_800 } else { 3 };
        let message = format!("remainder: 1 of {total} values had no result and are NULL");
        assert_eq!(counted.messages(), [message], "{key}");
    }
}

/// Documents with few distinct texts, some of which are deleted; and those that are not.
fn documents_with_texts(rng: &mut SeededRng) -> (Vec<Arc<Document>>, Vec<u32>, Vec<Arc<Document>>) {
    let text = |rng: &mut SeededRng| {
        format!(
            r#"{{"s":{},"t":{}}}"#,
            rng.pick(&["\"x\"", "\"y z\"", "1", "null", "[\"x\"]"]),
            rng.pick(&["\"x\"", "\"ß\"", "\"\"", "\"2015-01-01T00:00:00Z\""])
        )
    };
    let documents: Vec<_> = (0..2_000).map(|offset| document(offset, &text(rng))).collect();
    let deleted: Vec<u32> = (0..1_800).filter(|_| rng.below(10) == 0).collect();
    let live = (0..)
        .zip(&documents)
        .filter(|(number, _)| !deleted.contains(number))
        .map(|(_, document)| document.clone())
        .collect();
    (documents, deleted, live)
}

/// A partial aggregate over a table.
fn partial_of(
    batch: &RecordBatch,
    keys: Vec<(Arc<dyn PhysicalExpr>, String)>,
    aggregates: Vec<Arc<AggregateFunctionExpr>>,
    filters: Vec<Option<Arc<dyn PhysicalExpr>>>,
) -> Arc<PartialAggregate> {
    let mut partial = PartialAggregate {
        group_by: PhysicalGroupBy::new_single(keys),
        aggregates,
        filters,
        input: batch.schema(),
        output: batch.schema(),
    };
    let over = partial.over(Arc::new(EmptyExec::new(batch.schema())));
    partial.output = over.expect("an aggregate").schema();
    Arc::new(partial)
}

/// The states of a scan, which must be those of DataFusion over the rows.
fn check_states(
    view: &ReadView,
    read: ScanSource,
    names: &[&str],
    partial: &Arc<PartialAggregate>,
    batch: &RecordBatch,
) -> (Vec<String>, ScanTrailer) {
    let request = request(read, names, vec![], Stage::Partial(partial.clone()));
    let (states, trailer) = scan(view, request).expect("an answer");
    let states = lines(&[concat_batches(&partial.output, &states).expect("one batch")]);
    assert_eq!(states, lines(&model_states(batch, partial)));
    (states, trailer)
}

/// A call of a function in a context.
fn call(
    name: &str,
    arguments: Vec<Arc<dyn PhysicalExpr>>,
    schema: &Arc<Schema>,
    context: &FunctionContext,
) -> Arc<dyn PhysicalExpr> {
    let functions = plan::functions::scalar();
    let function = functions.iter().find(|function| function.name() == name);
    let mut settings = plan::functions::settings().options().as_ref().clone();
    settings.extensions.insert(context.clone());
    let call = ScalarFunctionExpr::try_new(
        function.expect("a function").clone(),
        arguments,
        schema,
        Arc::new(settings),
    );
    Arc::new(call.expect("a call"))
}

fn text(text: &str) -> Arc<dyn PhysicalExpr> {
    expressions::lit(ScalarValue::Utf8View(Some(text.to_owned())))
}

/// An aggregate function as queries have it.
fn function(name: &str) -> Arc<AggregateUDF> {
    let functions = plan::functions::aggregates();
    let function = functions.iter().find(|function| function.name() == name);
    function.expect("a function").clone()
}

fn aggregate(
    function: Arc<AggregateUDF>,
    arguments: Vec<Arc<dyn PhysicalExpr>>,
    alias: &str,
    schema: &Arc<Schema>,
) -> Arc<AggregateFunctionExpr> {
    let aggregate = AggregateExprBuilder::new(function, arguments);
    Arc::new(
        aggregate
            .schema(schema.clone())
            .alias(alias)
            .build()
            .expect("an aggregate"),
    )
}

fn aggregates(schema: &Arc<Schema>) -> Vec<Arc<AggregateFunctionExpr>> {
    let at = |name: &str| expressions::col(name, schema).expect("a column");
    vec![
        aggregate(function("count"), vec![expressions::lit(1i64)], "n", schema),
        aggregate(sum_udaf(), vec![at("a:int")], "sum", schema),
        aggregate(avg_udaf(), vec![at("a:double")], "avg", schema),
        aggregate(min_udaf(), vec![at("s:text")], "min", schema),
    ]
}

/// The states of DataFusion's partial aggregate over a plain table.
fn model_states(batch: &RecordBatch, partial: &PartialAggregate) -> Vec<RecordBatch> {
    let source = MemTable::try_new(batch.schema(), vec![vec![batch.clone()]]).expect("a table");
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .expect("a runtime");
    runtime.block_on(async {
        let input = SessionContext::new()
            .read_table(Arc::new(source))
            .expect("a frame")
            .create_physical_plan()
            .await
            .expect("a plan");
        let plan: Arc<dyn ExecutionPlan> = Arc::new(partial.over(input).expect("an aggregate"));
        collect(plan, Arc::new(TaskContext::default())).await.expect("states")
    })
}
