//! Pages of a top-k scan agree with a sorted table.

use std::sync::Arc;

use datafusion::{arrow::array::AsArray, logical_expr::SortExpr, prelude::SessionContext, scalar::ScalarValue};
use plan::{
    Column,
    scan::{PageStart, ScanSource, SortKey, Stage},
};

use super::{
    document, in_order,
    random::{SeededRng, column, random_documents},
    request, scan, table, view,
};
use crate::{document::Document, view::ReadView};

#[test]
fn pages_enumerate_every_row_exactly_once_in_order() {
    let mut rng = SeededRng::new("pages_enumerate_every_row_exactly_once_in_order");
    let documents = random_documents(&mut rng, 500);
    let view = view(&documents, &[100, 250, 30], &[]);
    for (names, limit) in [
        (vec!["a:int"], 7),
        (vec!["b:bool", "s:text"], 60),
        (vec!["s:text", "a:int"], 5),
        (vec!["t:text"], 3),
        (vec!["o.\"p q\":double!"], 1_000),
        (vec!["_time"], 33),
    ] {
        let keys: Vec<SortKey> = names
            .iter()
            .map(|name| SortKey {
                column: Column::parse(name).expect("a column"),
                descending: rng.below(2) == 0,
                nulls_first: rng.below(2) == 0,
            })
            .collect();
        let shown: Vec<&str> = names.iter().copied().chain(["_id"]).collect();
        for counts_all in [true, false] {
            let paged = all_pages(&view, &keys, &shown, limit, counts_all);
            assert_eq!(paged, sorted(&documents, &keys, &shown), "{names:?}");
        }
    }
}

/// Five hundred documents in segments of one hundred and a tail of one hundred: `n` and `time` ascend.
fn ascending() -> Vec<Arc<Document>> {
    let time = |n: i64| format!("2024-01-01T00:{:02}:{:02}Z", n / 60, n % 60);
    let text = |n: i64| match n {
        // A segment in which some have no value.
        100..200 if n % 2 == 0 => format!(r#"{{"time":"{}"}}"#, time(n)),
        _ => format!(r#"{{"n":{n},"d":{n}.5,"time":"{}"}}"#, time(n)),
    };
    (0..500).map(|n| document(n, &text(n))).collect()
}

#[test]
fn the_newest_rows_are_found_without_reading_older_parts() {
    let documents = ascending();
    let view = view(&documents, &[100, 100, 100, 100], &[399]);
    let first_rows = |name: &str, descending: bool, nulls_first: bool, counts_all: bool| {
        let stage = Stage::Top {
            keys: vec![SortKey {
                column: Column::parse(name).expect("a column"),
                descending,
                nulls_first,
            }],
            after: None,
            limit: 3,
            counts_all,
        };
        let request = request(ScanSource::Auto, &["_offset"], vec![], stage);
        let (rows, trailer) = scan(&view, request).expect("an answer");
        (in_order(&rows), trailer)
    };
    let offsets = |offsets: [i64; 3]| offsets.map(|offset| format!("|{offset}|"));
    for name in ["n:int", "n:double", "d:double", "time:text", "_time", "_ingested"] {
        let (rows, trailer) = first_rows(name, true, false, false);
        assert_eq!(rows, offsets([499, 498, 497]), "{name}");
        assert_eq!(trailer.documents, 100, "{name}: only the tail is read");
        let (rows, trailer) = first_rows(name, false, false, false);
        assert_eq!(rows, offsets([0, 1, 2]), "{name}");
        assert_eq!(
            trailer.documents, 200,
            "{name}: only the tail and the oldest segment are read"
        );
        let (rows, trailer) = first_rows(name, true, false, true);
        assert_eq!(rows, offsets([499, 498, 497]), "{name}");
        assert_eq!(
            (trailer.matched, trailer.counts.columns),
            (499, 0),
            "{name}: all are counted, and nothing but the tail is read"
        );
    }
    let (rows, trailer) = first_rows("n:int", true, true, false);
    assert_eq!(rows, offsets([100, 102, 104]), "NULLs are in the second segment");
    assert_eq!(trailer.documents, 200);
    let (rows, trailer) = first_rows("n:int!", true, false, false);
    assert_eq!(
        (rows, trailer.documents),
        (offsets([499, 498, 497]).to_vec(), 499),
        "values are converted and counted"
    );
}

/// The rows of all pages. The last shown column must be `_id`, the others the sort keys.
fn all_pages(view: &ReadView, keys: &[SortKey], shown: &[&str], limit: usize, counts_all: bool) -> Vec<String> {
    let mut paged = Vec::new();
    let mut after = None;
    loop {
        let stage = Stage::Top {
            keys: keys.to_vec(),
            after: after.clone(),
            limit,
            counts_all,
        };
        let (rows, trailer) = scan(view, request(ScanSource::Auto, shown, vec![], stage)).expect("an answer");
        if counts_all {
            assert_eq!(trailer.matched, 500, "paging does not change the total");
        }
        let page = in_order(&rows);
        let Some(last) = rows.last() else { return paged };
        let row = last.num_rows() - 1;
        let values = (0..keys.len())
            .map(|key| ScalarValue::try_from_array(last.column(key), row).expect("a value"))
            .collect();
        let address = last
            .column(keys.len())
            .as_string_view()
            .value(row)
            .parse()
            .expect("an address");
        after = Some(PageStart { values, address });
        assert!(page.len() <= limit);
        paged.extend(page);
    }
}

/// The rows of a plain table in the order of the keys, with ties by offset.
fn sorted(documents: &[Arc<Document>], keys: &[SortKey], shown: &[&str]) -> Vec<String> {
    let by_keys = keys
        .iter()
        .zip(shown)
        .map(|(key, name)| column(name).sort(!key.descending, key.nulls_first));
    let order: Vec<SortExpr> = by_keys.chain([column("_offset").sort(true, false)]).collect();
    let names: Vec<String> = shown
        .iter()
        .map(ToString::to_string)
        .chain(["_offset".to_owned()])
        .collect();
    let batch = table(documents, &names);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .expect("a runtime");
    runtime.block_on(async {
        let context = SessionContext::new();
        let sorted = context
            .read_batch(batch)
            .expect("a table")
            .sort(order)
            .expect("an order");
        let frame = sorted.select(shown.iter().map(|name| column(name))).expect("columns");
        in_order(&frame.collect().await.expect("rows"))
    })
}
