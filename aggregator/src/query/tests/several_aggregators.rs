//! Tests of what several aggregators compute: the plans of statements over scans.

use std::{collections::BTreeSet, sync::Arc, time::Instant};

use datafusion::{
    arrow::array::{ArrayRef, Int64Array, RecordBatch},
    common::tree_node::TreeNodeRecursion,
    physical_plan::ExecutionPlan,
};
use futures::{Stream, StreamExt as _, TryStreamExt as _, stream};
use plan::walk::Walk as _;
use proto::{Code, PositionVector, Problem};
use serde_json::json;

use super::{bench_with, events, resolved};
use crate::{
    answer::QueryOptions,
    query::{
        distribution::in_stages, planner, read_views::QueryViews, run::QueryOutput, shard_scan::ShardScan,
        statement_shape::StatementValues,
    },
};

/// How many scans of a plan have join filters.
fn filtered_scans(plan: &Arc<dyn ExecutionPlan>) -> usize {
    let mut filtered = 0;
    let _never_fails = plan.apply(|node| {
        let scan = node.downcast_ref::<ShardScan>();
        filtered += usize::from(scan.is_some_and(ShardScan::has_join_filters));
        Ok(TreeNodeRecursion::Continue)
    });
    filtered
}

#[tokio::test]
async fn a_join_on_several_aggregators_filters_no_scan_because_each_knows_a_share_of_the_keys() {
    let documents = (0..40).map(|n| json!({ "k": n, "v": n % 7 }));
    let bench = bench_with(documents, |options| options.collected_join_rows_max = 1).await;
    let engine = &bench.engine;
    let context = engine
        .context(&QueryOptions::default(), Instant::now())
        .expect("a query");
    let names = BTreeSet::from([events()]);
    let views = QueryViews::open(&context, &engine.catalog(), &names, &PositionVector::default())
        .await
        .expect("read views");
    let sql = "SELECT count(*) FROM rachis_0 a JOIN rachis_1 b ON a.\"k:int\" = b.\"k:int\"";
    let columns: &[&str] = &["k:int"];
    let planned = planner::plan(
        engine,
        &context,
        &views,
        resolved(sql, &[columns, columns]),
        StatementValues::default(),
        None,
    );
    let plan = planned.await.expect("a plan").executable.physical;
    assert_eq!(
        filtered_scans(&plan),
        1,
        "on one aggregator, the join filters the scan of one input"
    );
    let (staged, _) = in_stages(&plan, 2, 8_192).expect("stages").expect("a join for several");
    assert_eq!(filtered_scans(&staged), 0);
}

/// The output of a query that several aggregators compute.
fn distributed(rows: impl Stream<Item = Result<i64, Problem>> + Send + 'static) -> QueryOutput {
    let batch = |n: i64| {
        let column: ArrayRef = Arc::new(Int64Array::from(vec![n]));
        RecordBatch::try_from_iter([("n", column)]).expect("a batch")
    };
    QueryOutput {
        rows: rows.map_ok(batch).boxed(),
        is_distributed: true,
        ..QueryOutput::of_batch(batch(0))
    }
}

#[tokio::test]
async fn an_error_soon_after_the_first_rows_lets_the_query_run_again() {
    let failed = stream::iter([
        Ok(1),
        Err(Problem::new(Code::Unavailable, "another aggregator refuses")),
    ]);
    let begun = distributed(failed).begin_if_repeatable().await;
    assert_eq!(begun.err().map(|problem| problem.code), Some(Code::Unavailable));
}

#[tokio::test]
async fn rows_that_come_slowly_or_are_many_begin_before_they_have_ended() {
    let slow = distributed(stream::iter([Ok(1), Ok(2)]).chain(stream::pending()));
    let many = distributed(stream::repeat_with(|| Ok(3)));
    for (output, expected) in [(slow, 2), (many, 10_000)] {
        let begun = output.begin_if_repeatable().await.expect("the first rows");
        let rows: Vec<usize> = begun
            .rows
            .map(|batch| batch.expect("rows").num_rows())
            .take(expected)
            .collect()
            .await;
        assert_eq!(rows, vec![1; expected]);
    }
}
