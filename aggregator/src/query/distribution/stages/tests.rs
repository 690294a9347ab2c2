//! Tests of `stages`.

use datafusion::{
    arrow::{
        array::{Int64Array, RecordBatch, StringArray},
        datatypes::{DataType, Field, Schema},
    },
    datasource::MemTable,
    physical_plan::displayable,
    prelude::{SessionConfig, SessionContext},
};
use serde_json::json;

use super::*;

/// A session with two tables of several partitions.
fn session() -> SessionContext {
    let config = SessionConfig::new()
        .with_target_partitions(4)
        .set_usize("datafusion.optimizer.hash_join_single_partition_threshold", 0)
        .set_usize("datafusion.optimizer.hash_join_single_partition_threshold_rows", 0);
    let session = SessionContext::new_with_config(config);
    let schema = Arc::new(Schema::new(vec![
        Field::new("k", DataType::Int64, true),
        Field::new("text", DataType::Utf8, true),
    ]));
    for name in ["a", "b"] {
        let partition = |from: i64| {
            let numbers = Int64Array::from_iter_values(from..from + 50);
            let texts = StringArray::from_iter_values((from..from + 50).map(|n| format!("{name}{n}")));
            vec![RecordBatch::try_new(schema.clone(), vec![Arc::new(numbers), Arc::new(texts)]).expect("a batch")]
        };
        let table = MemTable::try_new(schema.clone(), vec![partition(0), partition(50)]).expect("a table");
        session.register_table(name, Arc::new(table)).expect("a name");
    }
    session
}

async fn planned(sql: &str) -> Arc<dyn ExecutionPlan> {
    let statement = session().sql(sql).await.expect("a statement");
    statement.create_physical_plan().await.expect("a plan")
}

/// What runs where: a line for each operator, indented by its depth; `None` if all of it runs on the coordinator.
async fn staged(sql: &str) -> Option<String> {
    let (staged, _) = in_stages(&planned(sql).await, 3, 8_192).expect("stages")?;
    let text = displayable(staged.as_ref()).indent(false).to_string();
    let name = |line: &str| {
        let operator = line.trim_start();
        let depth = line.len() - operator.len();
        // `[Stage 1] => NetworkShuffleExec: …`
        let operator = operator.split_once("=> ").map_or(operator, |(_, operator)| operator);
        let name = operator.split([':', ' ', ',']).next().unwrap_or_default();
        format!("{}{name}\n", " ".repeat(depth))
    };
    Some(text.lines().map(name).collect())
}

#[tokio::test]
async fn joins_sorts_and_groups_run_on_all_aggregators() {
    for sql in [
        "select a.text, b.text from a join b on a.k = b.k",
        "select a.k, b.text from a left join b on a.k = b.k order by a.k",
        "select k, count(*) from a group by k",
        "select * from a order by text",
        "select a.k, count(*) from a join b on a.text = b.text group by a.k order by 2",
    ] {
        let staged = staged(sql)
            .await
            .unwrap_or_else(|| panic!("{sql} stays on the coordinator"));
        assert!(
            staged.contains("NetworkCoalesceExec") && staged.contains("NetworkShuffleExec"),
            "{sql}:\n{staged}"
        );
        let scans = staged.lines().skip_while(|line| !line.contains("NetworkShuffleExec"));
        assert!(
            scans.last().is_some_and(|line| line.contains("DataSourceExec")),
            "{sql}:\n{staged}"
        );
    }
}

#[tokio::test]
async fn what_needs_all_rows_or_reports_something_stays_on_the_coordinator() {
    for sql in [
        "select count(*) from a",
        "select * from a",
        "select * from a order by k limit 3",
        "select * from a cross join b",
        // What is left to compute of it has a function.
        "select k, sum(length(upper(text))) from a group by k",
    ] {
        assert_eq!(staged(sql).await, None, "{sql}");
    }
    // A function of the last projection is computed where the query was asked.
    let staged = staged("select upper(a.text) from a join b on a.k = b.k")
        .await
        .expect("stages");
    let (first, rest) = staged.split_once("NetworkCoalesceExec").expect("a boundary");
    assert!(
        first.contains("ProjectionExec") && rest.contains("HashJoinExec"),
        "{staged}"
    );
}

#[tokio::test]
async fn only_what_is_sent_is_run_for_another_aggregator() {
    let plan = planned("select * from a").await;
    assert!(!is_sent(&plan).expect("an operator"), "a scan");
}

#[tokio::test]
async fn a_stage_has_the_batches_that_the_plan_wants_at_its_place() {
    let watch = json!({ "reason": "ScalarSubquery", "paced": false, "input_batch_rows": 64 });
    let watch: Watch = serde_json::from_value(watch).expect("how an input is watched");
    let watched = watch.over(planned("select a.k, b.text from a join b on a.k = b.k").await);
    let (staged, between) = in_stages(&watched, 3, 8_192).expect("stages").expect("stages");
    assert_eq!(between, 64);
    let mut rows = Vec::new();
    staged
        .apply(|node| {
            let end = node.downcast_ref::<StageExec>().map(|stage| stage.end);
            if let Some(StageEnd::Sends { batch_rows }) = end {
                rows.push(batch_rows);
            }
            Ok(TreeNodeRecursion::Continue)
        })
        .expect("a walk");
    assert_eq!(
        rows,
        [8_192, 64, 64],
        "of the merge, which is above, and of both inputs"
    );
}
