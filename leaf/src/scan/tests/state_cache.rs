//! Cached aggregate states answer like a scan of all documents.

use std::{collections::BTreeMap, sync::Arc};

use datafusion::{
    arrow::{
        array::{Array as _, AsArray as _, RecordBatch},
        datatypes::Int64Type,
    },
    functions_aggregate::{count::count_udaf, min_max::max_udaf},
    logical_expr::{Expr, lit},
    physical_expr::{aggregate::AggregateExprBuilder, expressions},
    physical_plan::{ExecutionPlan as _, aggregates::PhysicalGroupBy, empty::EmptyExec},
};
use plan::{
    Column,
    scan::{PartialAggregate, ScanSource, ScanTrailer, Stage},
};
use roaring::RoaringBitmap;

use super::{ScanPool, column, document, origin, random::SeededRng, request, scan_in, view};
use crate::{document::Document, split::Segment, view::ReadView};

/// Documents per split.
const SPLIT: usize = 1_500;

/// Per text: the number of documents and the greatest number.
type ExpectedGroups = BTreeMap<Option<String>, (i64, Option<i64>)>;

fn random_documents(rng: &mut SeededRng) -> Vec<Arc<Document>> {
    let text = |rng: &mut SeededRng| {
        let (kind, number) = (rng.pick(&["\"push\"", "\"fork\"", "null", "7"]), rng.below(1_000));
        format!(r#"{{"kind":{kind},"n":{number}}}"#)
    };
    (0..3 * SPLIT as i64 + 50)
        .map(|offset| document(offset, &text(rng)))
        .collect()
}

/// A view with two splits in files, a micro-split and a tail.
fn view_with_splits(documents: &[Arc<Document>], folder: &std::path::Path) -> ReadView {
    let mut view = view(documents, &[SPLIT, SPLIT, SPLIT], &[]);
    for number in 0..2 {
        let of_split = documents[number * SPLIT..(number + 1) * SPLIT].iter().cloned().map(Ok);
        let file = folder.join(number.to_string());
        view.segments[number].segment =
            Arc::new(Segment::to_file(&mut of_split.into_iter(), origin(), &file).expect("a split"));
    }
    view
}

/// `select kind, count(*), max(n) … group by kind`.
fn counts_by_kind() -> Stage {
    let columns = ["kind:text", "n:int"].map(|name| Column::parse(name).expect("a column"));
    let schema = plan::column::schema(&columns);
    let aggregate = |function, argument, name: &str| {
        let aggregate = AggregateExprBuilder::new(function, vec![argument]);
        Arc::new(
            aggregate
                .schema(schema.clone())
                .alias(name)
                .build()
                .expect("an aggregate"),
        )
    };
    let at = |name: &str| expressions::col(name, &schema).expect("a column");
    let mut partial = PartialAggregate {
        group_by: PhysicalGroupBy::new_single(vec![(at("kind:text"), "kind".to_owned())]),
        aggregates: vec![
            aggregate(count_udaf(), expressions::lit(1i64), "count"),
            aggregate(max_udaf(), at("n:int"), "max"),
        ],
        filters: vec![None, None],
        input: schema.clone(),
        output: schema.clone(),
    };
    let over = partial.over(Arc::new(EmptyExec::new(schema))).expect("an aggregate");
    partial.output = over.schema();
    Stage::Partial(Arc::new(partial))
}

fn ask(pool: &ScanPool, view: &ReadView, filter: &[Expr]) -> (ExpectedGroups, ScanTrailer) {
    let request = request(
        ScanSource::Auto,
        &["kind:text", "n:int"],
        filter.to_vec(),
        counts_by_kind(),
    );
    let (states, trailer) = scan_in(pool, view, request).expect("an answer");
    (united(&states), trailer)
}

/// The groups that the states add up to.
fn united(states: &[RecordBatch]) -> ExpectedGroups {
    let mut groups = ExpectedGroups::new();
    for batch in states {
        let (kinds, counts, greatest) = (
            batch.column(0).as_string_view(),
            batch.column(1).as_primitive::<Int64Type>(),
            batch.column(2).as_primitive::<Int64Type>(),
        );
        for row in 0..batch.num_rows() {
            let kind = kinds.is_valid(row).then(|| kinds.value(row).to_owned());
            let (count, max) = groups.entry(kind).or_default();
            *count += counts.value(row);
            *max = (*max).max(greatest.is_valid(row).then(|| greatest.value(row)));
        }
    }
    groups
}

/// The groups of the documents whose number is at least `from`, from their JSON.
fn expected(documents: &[Arc<Document>], from: i64, deleted: &[usize]) -> ExpectedGroups {
    let mut groups = ExpectedGroups::new();
    for (number, document) in documents.iter().enumerate() {
        let json: serde_json::Value = serde_json::from_slice(&document.bytes).expect("JSON");
        let n = json["n"].as_i64().expect("a number");
        if n < from || deleted.contains(&number) {
            continue;
        }
        let (count, max) = groups.entry(json["kind"].as_str().map(ToOwned::to_owned)).or_default();
        *count += 1;
        *max = (*max).max(Some(n));
    }
    groups
}

#[test]
fn splits_are_not_read_again_for_an_aggregate_that_was_asked_before() {
    let mut rng = SeededRng::new("splits_are_not_read_again_for_an_aggregate_that_was_asked_before");
    let documents = random_documents(&mut rng);
    let folder = tempfile::tempdir().expect("a folder");
    let mut view = view_with_splits(&documents, folder.path());
    let pool = ScanPool::new(2, 1 << 20).expect("threads");
    let in_splits = 2 * SPLIT as u64;
    let mut failures = Vec::new();
    for (time, cached) in [(1, 0), (2, 0), (3, in_splits), (4, in_splits)] {
        let (groups, trailer) = ask(&pool, &view, &[]);
        assert_eq!(groups, expected(&documents, 0, &[]), "time {time}");
        assert_eq!(trailer.counts.cached, cached, "time {time}");
        assert_eq!(
            (trailer.documents, trailer.matched),
            (documents.len() as u64, documents.len() as u64)
        );
        failures.push(trailer.cast_failures);
    }
    assert!(
        failures
            .iter()
            .all(|counted| *counted == failures[0] && counted[0].values > 0)
    );

    // Another condition is another request.
    let from = lit(500i64);
    for cached in [0, 0, in_splits] {
        let (groups, trailer) = ask(&pool, &view, &[column("n:int").gt_eq(from.clone())]);
        assert_eq!(groups, expected(&documents, 500, &[]));
        assert_eq!(trailer.counts.cached, cached);
    }

    // A deletion changes one split, which is aggregated again.
    view.segments[1].deleted = Arc::new(RoaringBitmap::from([7]));
    for cached in [SPLIT as u64, in_splits - 1] {
        let (groups, trailer) = ask(&pool, &view, &[]);
        assert_eq!(groups, expected(&documents, 0, &[SPLIT + 7]));
        assert_eq!(trailer.counts.cached, cached);
    }

    // Raw documents are the reference, and always read.
    let raw = request(ScanSource::Raw, &["kind:text", "n:int"], vec![], counts_by_kind());
    let (states, trailer) = scan_in(&pool, &view, raw).expect("an answer");
    assert_eq!(united(&states), expected(&documents, 0, &[SPLIT + 7]));
    assert_eq!(trailer.counts.cached, 0);
}

#[test]
fn nothing_is_cached_beyond_the_limit_of_the_memory() {
    let mut rng = SeededRng::new("nothing_is_cached_beyond_the_limit_of_the_memory");
    let documents = random_documents(&mut rng);
    let folder = tempfile::tempdir().expect("a folder");
    let view = view_with_splits(&documents, folder.path());
    for bytes_max in [0, 1] {
        let pool = ScanPool::new(2, bytes_max).expect("threads");
        for _ in 0..4 {
            let (groups, trailer) = ask(&pool, &view, &[]);
            assert_eq!(groups, expected(&documents, 0, &[]));
            assert_eq!(trailer.counts.cached, 0);
        }
    }
}

#[test]
fn a_deeply_nested_condition_does_not_exhaust_the_stack() {
    let mut rng = SeededRng::new("a_deeply_nested_condition_does_not_exhaust_the_stack");
    let documents = random_documents(&mut rng);
    let folder = tempfile::tempdir().expect("a folder");
    let view = view_with_splits(&documents, folder.path());
    let pool = ScanPool::new(2, 1 << 20).expect("threads");
    let sum = (0..500).fold(column("n:int"), |sum, _| sum + lit(1i64) - lit(1i64));
    for _ in 0..3 {
        let (groups, _) = ask(&pool, &view, &[sum.clone().gt_eq(lit(500i64))]);
        assert_eq!(groups, expected(&documents, 500, &[]));
    }
}
