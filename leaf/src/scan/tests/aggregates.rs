//! Partial aggregates agree with DataFusion's over the same rows.

use std::sync::Arc;

use datafusion::{
    arrow::{
        array::RecordBatch,
        compute::concat_batches,
        datatypes::{Schema, SchemaRef},
    },
    datasource::MemTable,
    execution::TaskContext,
    functions_aggregate::{average::avg_udaf, min_max::min_udaf, sum::sum_udaf},
    physical_expr::{
        aggregate::{AggregateExprBuilder, AggregateFunctionExpr},
        expressions,
    },
    physical_plan::{
        ExecutionPlan,
        aggregates::{AggregateExec, AggregateMode, PhysicalGroupBy},
        collect,
    },
    prelude::SessionContext,
};
use plan::scan::{PartialAggregate, ScanSource, Stage};

use super::{super::partial::counting, document, lines, random::SeededRng, request, scan, table, tail, view};

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
        let group_by = PhysicalGroupBy::new_single(groups);
        let (expected, output) = model_states(&batch, &group_by, &aggregates);
        let partial = Arc::new(PartialAggregate {
            group_by,
            aggregates: aggregates.clone(),
            filters: vec![None; aggregates.len()],
            input: schema.clone(),
            output: output.clone(),
        });
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
fn counts_by_texts_equal_datafusions_over_the_rows() {
    let mut rng = SeededRng::new("counts_by_texts_equal_datafusions_over_the_rows");
    let text = |rng: &mut SeededRng| {
        format!(
            r#"{{"s":{},"t":{}}}"#,
            rng.pick(&["\"x\"", "\"y z\"", "1", "null", "[\"x\"]"]),
            rng.pick(&["\"x\"", "\"ß\"", "\"\""])
        )
    };
    let documents: Vec<_> = (0..2_000).map(|offset| document(offset, &text(&mut rng))).collect();
    let deleted: Vec<u32> = (0..1_800).filter(|_| rng.below(10) == 0).collect();
    let live: Vec<_> = (0..)
        .zip(&documents)
        .filter(|(number, _)| !deleted.contains(number))
        .map(|(_, document)| document.clone())
        .collect();
    let names = ["s:text", "t:text"];
    let batch = table(&live, &names.map(ToString::to_string));
    let schema = batch.schema();
    let key = |name: &str| (expressions::col(name, &schema).expect("a column"), name.to_owned());
    let count = vec![count_of_documents(&schema)];
    for keys in [vec![key("s:text")], vec![key("t:text"), key("s:text")]] {
        for aggregates in [vec![], count.clone()] {
            let group_by = PhysicalGroupBy::new_single(keys.clone());
            let (expected, output) = model_states(&batch, &group_by, &aggregates);
            let partial = Arc::new(PartialAggregate {
                group_by,
                filters: vec![None; aggregates.len()],
                aggregates,
                input: schema.clone(),
                output: output.clone(),
            });
            let by_groups = counting(&partial).expect("a plan");
            assert!(by_groups.is_some(), "segments may count its documents");
            let view = view(&documents, &[1_500, 300], &deleted);
            let mut failures = Vec::new();
            for read in [ScanSource::Auto, ScanSource::Raw] {
                let request = request(read, &names, vec![], Stage::Partial(partial.clone()));
                let (states, trailer) = scan(&view, request).expect("an answer");
                let states = concat_batches(&output, &states).expect("one batch");
                assert_eq!(lines(&[states]), lines(&expected));
                let counted = (trailer.matched, trailer.documents);
                assert_eq!(counted, (live.len() as u64, live.len() as u64));
                failures.push(trailer.cast_failures);
            }
            assert_eq!(failures[0], failures[1], "values that are no texts are counted alike");
        }
    }
}

/// `count(*)` as queries have it.
fn count_of_documents(schema: &Arc<Schema>) -> Arc<AggregateFunctionExpr> {
    let functions = plan::functions::aggregates();
    let count = functions
        .iter()
        .find(|function| function.name() == "count")
        .expect("a function");
    let count = AggregateExprBuilder::new(count.clone(), vec![expressions::lit(1i64)]);
    Arc::new(count.schema(schema.clone()).alias("n").build().expect("an aggregate"))
}

fn aggregates(schema: &Arc<Schema>) -> Vec<Arc<AggregateFunctionExpr>> {
    let at = |name: &str| expressions::col(name, schema).expect("a column");
    let aggregate = |udaf, arguments, alias: &str| {
        Arc::new(
            AggregateExprBuilder::new(udaf, arguments)
                .schema(schema.clone())
                .alias(alias)
                .build()
                .expect("an aggregate"),
        )
    };
    vec![
        count_of_documents(schema),
        aggregate(sum_udaf(), vec![at("a:int")], "sum"),
        aggregate(avg_udaf(), vec![at("a:double")], "avg"),
        aggregate(min_udaf(), vec![at("s:text")], "min"),
    ]
}

/// DataFusion's partial aggregate over a plain table: its states and their schema.
fn model_states(
    batch: &RecordBatch,
    group_by: &PhysicalGroupBy,
    aggregates: &[Arc<AggregateFunctionExpr>],
) -> (Vec<RecordBatch>, SchemaRef) {
    let schema = batch.schema();
    let source = MemTable::try_new(schema.clone(), vec![vec![batch.clone()]]).expect("a table");
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
        let plan = AggregateExec::try_new(
            AggregateMode::Partial,
            group_by.clone(),
            aggregates.to_vec(),
            vec![None; aggregates.len()],
            input,
            schema,
        );
        let plan: Arc<dyn ExecutionPlan> = Arc::new(plan.expect("an aggregate"));
        let states = collect(plan.clone(), Arc::new(TaskContext::default()))
            .await
            .expect("states");
        (states, plan.schema())
    })
}
