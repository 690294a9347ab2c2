//! Hits sorted by how well they fit a search, and `score()` in SQL.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use proto::Code;
use serde_json::json;

use super::{
    definitions::refused,
    search_support::{search_query, values},
    *,
};
use plan::scan::Stage;

use crate::answer::SearchQuery;

/// Messages of different lengths. `disk` is in most of them, `full` in few.
fn messages() -> impl Iterator<Item = Value> {
    (0..60).map(|n| {
        let filler = "word ".repeat(n % 11);
        let msg = match n % 10 {
            0 => format!("disk full {filler}"),
            1 => format!("disk disk {filler}"),
            2 => format!("full {filler}"),
            9 => filler,
            _ => format!("disk {filler}"),
        };
        json!({ "n": n, "msg": msg, "tags": [{ "name": "disk" }, { "name": format!("t{}", n % 4) }], "code": n % 3 })
    })
}

fn by_score(name: &str, query: &str) -> SearchQuery {
    SearchQuery {
        sort: Some("_score".into()),
        limit: Some(1_000),
        ..search_query(name, query)
    }
}

/// The scores of `msg:word`, by the number of the document.
fn expected(word: &str) -> Vec<(i64, f64)> {
    let texts: Vec<Vec<String>> = messages()
        .map(|message| {
            let text = message["msg"].as_str().expect("a text");
            text.split_whitespace().map(str::to_owned).collect()
        })
        .collect();
    let with_text = texts.iter().filter(|text| !text.is_empty()).count() as f64;
    let mean = texts.iter().map(Vec::len).sum::<usize>() as f64 / with_text;
    let having = texts
        .iter()
        .filter(|text| text.iter().any(|there| there == word))
        .count() as f64;
    let rarity = (1.0 + (with_text - having + 0.5) / (having + 0.5)).ln();
    let mut scores = Vec::new();
    for (n, text) in (0..).zip(&texts) {
        let occurrences = text.iter().filter(|there| *there == word).count() as f64;
        if occurrences > 0.0 {
            let saturation = 1.2 * (0.25 + 0.75 * text.len() as f64 / mean);
            scores.push((n, rarity * 2.2 * occurrences / (occurrences + saturation)));
        }
    }
    scores.sort_by(|(n, one), (m, other)| other.total_cmp(one).then(n.cmp(m)));
    scores
}

fn assert_close(found: &[(i64, f64)], expected: &[(i64, f64)]) {
    assert_eq!(found.len(), expected.len());
    for ((_, score), (_, wanted)) in found.iter().zip(expected) {
        assert!((score - wanted).abs() < 1e-12, "{found:?}\n{expected:?}");
    }
    let sorted = |scores: &[(i64, f64)]| {
        let mut numbers: Vec<i64> = scores.iter().map(|(n, _)| *n).collect();
        numbers.sort_unstable();
        numbers
    };
    assert_eq!(sorted(found), sorted(expected));
}

impl Bench {
    /// The number and the score of each hit.
    async fn scores(&self, request: SearchQuery) -> Vec<(i64, f64)> {
        let answer = self.run_search(request).await;
        let numbers = values(&answer, "n").into_iter().map(|n| n.as_i64().expect("a number"));
        let scores = answer.hits.iter().map(|hit| hit.score.expect("a score"));
        numbers.zip(scores).collect()
    }
}

#[tokio::test]
async fn hits_are_sorted_by_their_score_over_the_whole_collection() {
    let bench = bench(messages()).await;
    for word in ["disk", "full", "word"] {
        let found = bench.scores(by_score("events", &format!("msg:{word}"))).await;
        assert_close(&found, &expected(word));
        // A condition on other paths does not change the statistics.
        let narrowed = bench
            .scores(by_score("events", &format!("msg:{word} AND NOT code:0")))
            .await;
        let wanted: Vec<(i64, f64)> = expected(word).into_iter().filter(|(n, _)| n % 3 != 0).collect();
        assert_close(&narrowed, &wanted);
    }
    let pages = bench
        .all_pages(SearchQuery {
            limit: Some(7),
            ..by_score("events", "msg:disk")
        })
        .await;
    let whole = bench.run_search(by_score("events", "msg:disk")).await;
    let whole: Vec<String> = whole.hits.into_iter().map(|hit| hit.document).collect();
    assert_eq!(pages, whole);
    let unsorted = bench.run_search(search_query("events", "msg:disk")).await;
    assert!(unsorted.hits.iter().all(|hit| hit.score.is_none()));
    bench.until_released().await;
}

#[tokio::test]
async fn weights_and_boolean_operators_add_up() {
    let bench = bench(messages()).await;
    let score = |query: &'static str| {
        let bench = &bench;
        async move {
            let (rows, _) = bench
                .sql(&format!("select score('{query}') from events where n = 0"))
                .await;
            let [row] = rows.as_slice() else {
                panic!("{query}: {rows:?}")
            };
            row.parse::<f64>().unwrap_or_else(|e| panic!("{query}: {row:?}: {e}"))
        }
    };
    let (disk, full) = (score("msg:disk").await, score("msg:full").await);
    assert!(0.0 < disk && disk < full, "{disk} {full}");
    for (query, expected) in [
        ("msg:disk msg:full", disk + full),
        ("msg:disk OR msg:full OR msg:nothing", disk + full),
        ("msg:\"disk full\"", disk + full),
        ("msg:disk^2 msg:full^0.5", 2.0 * disk + 0.5 * full),
        ("(msg:disk msg:full^3)^2 -msg:nothing", 2.0 * disk + 6.0 * full),
        ("msg:nothing OR code:0", 1.0),
        ("code:0 msg:dis* n:[0 TO 5]^3 *", 6.0),
        ("msg:disk msg:nothing", 0.0),
        ("-msg:nothing", 0.0),
    ] {
        let found = score(query).await;
        assert!((found - expected).abs() < 1e-12, "{query}: {found}, not {expected}");
    }
}

#[tokio::test]
async fn rows_of_views_fields_and_subqueries_have_scores() {
    let bench = bench(messages()).await;
    bench.sql("create field events.loud as upper(msg)").await;
    bench
        .sql("create view shown as select n, msg as text, tags from events")
        .await;
    let wanted = expected("full");
    assert_close(&bench.scores(by_score("events", "loud:full")).await, &wanted);
    assert_close(&bench.scores(by_score("shown", "text:full")).await, &wanted);
    for sql in [
        "select n, score() as s from events where search('msg:full') order by s desc, n",
        "select n, score() from shown where search('text:full') order by score() desc, n",
        "with x as (select n, msg from events) select n, score() as s from x where search('msg:full') order by 2 desc, 1",
        "select n, score('msg:full') from (select * from events) as e where msg like '%full%' order by 2 desc, 1",
        "select e.n, score() from events e join shown s on e.n = s.n where search(e, 'msg:full') order by 2 desc, 1",
        "select n, score('msg:full') from events where search('msg:full') and search('msg:full OR disk') order by 2 desc, 1",
    ] {
        let (rows, _) = bench.sql(sql).await;
        let number = |text: &str| text.parse::<f64>().unwrap_or_else(|e| panic!("{sql}: {text}: {e}"));
        let pair = |row: &String| {
            let (n, score) = row.split_once(" | ").expect("two columns");
            (number(n) as i64, number(score))
        };
        let found: Vec<(i64, f64)> = rows.iter().map(pair).collect();
        assert_close(&found, &wanted);
        assert!(
            found.is_sorted_by(|(_, one), (_, other)| one >= other),
            "{sql}: {found:?}"
        );
    }
    // Words are found in items of lists, and without a path anywhere in a document.
    let inside = bench.scores(by_score("events", "tags.name:disk OR t3")).await;
    assert_eq!(inside.len(), 60);
    assert!(inside[0].1 > inside[59].1, "{inside:?}");
}

#[tokio::test]
async fn equal_scores_of_a_select_are_one_expression() {
    let bench = bench(messages()).await;
    let (rows, _) = bench
        .sql("select distinct score() from events where search('msg:full') order by score() desc")
        .await;
    let mut scores: Vec<f64> = expected("full").into_iter().map(|(_, score)| score).collect();
    scores.dedup();
    assert_eq!(rows.len(), scores.len(), "{rows:?}");
    let (groups, _) = bench
        .sql("select score() as s, count(*) from events where search('msg:full') group by s having score() > 0 order by s desc")
        .await;
    let counts = groups.iter().map(|row| row.split_once(" | ").expect("two columns").1);
    let counted: usize = counts.map(|count| count.parse::<usize>().expect("a count")).sum();
    assert_eq!(
        (groups.len(), counted),
        (scores.len(), expected("full").len()),
        "{groups:?}"
    );
}

#[tokio::test]
async fn new_documents_change_the_scores_of_the_same_statement() {
    let bench = bench(messages()).await;
    let sql = "select score() from events where search('msg:full') and n = 0";
    let (before, _) = bench.sql(sql).await;
    let shard = ShardId {
        collection: bench.engine.catalog().collections[&events()].uid,
        number: 0,
    };
    for n in 100..200 {
        bench.leaf.add(shard, json!({ "n": n, "msg": "full" }));
    }
    let (after, _) = bench.sql(sql).await;
    let score = |rows: &[String]| rows[0].parse::<f64>().expect("a score");
    assert!(score(&after) < score(&before), "{before:?} {after:?}");
}

#[tokio::test]
async fn documents_that_arrive_between_pages_move_no_hit_to_another_page() {
    let bench = bench(messages()).await;
    bench.sql("create view shown as select n, msg from events").await;
    let shard = ShardId {
        collection: bench.engine.catalog().collections[&events()].uid,
        number: 0,
    };
    for (name, arrives) in [("events", 1_000), ("shown", 2_000)] {
        let whole = bench.scores(by_score(name, "msg:disk OR msg:full")).await;
        let (mut request, mut found) = (by_score(name, "msg:disk OR msg:full"), Vec::new());
        request.limit = Some(7);
        for page in 0.. {
            let answer = bench.run_search(request.clone()).await;
            found.extend(values(&answer, "n").into_iter().map(|n| n.as_i64().expect("a number")));
            let Some(after) = answer.after else { break };
            request.after = Some(after);
            // `full` is rare no more.
            for n in 0..if page < 3 { 20 } else { 0 } {
                let n = arrives + page * 20 + n;
                bench.leaf.add(
                    shard,
                    json!({ "n": n, "msg": "full and of many other words".repeat(9) }),
                );
            }
        }
        found.retain(|n| whole.iter().any(|(other, _)| other == n));
        let whole: Vec<i64> = whole.into_iter().map(|(n, _)| n).collect();
        assert_eq!(found, whole, "{name}");
    }
    let after = bench
        .run_search(SearchQuery {
            limit: Some(7),
            ..by_score("events", "msg:disk")
        })
        .await
        .after;
    let upwards = SearchQuery {
        sort: Some("_score:asc".into()),
        ..by_score("events", "msg:disk")
    };
    for (other, word) in [
        (by_score("events", "msg:full"), "another search"),
        (by_score("shown", "msg:disk"), "another search"),
        (upwards, "another sort order"),
    ] {
        let other = SearchQuery {
            after: after.clone(),
            ..other
        };
        let problem = bench
            .engine
            .search(other)
            .await
            .expect_err("a cursor of another search");
        assert!(problem.detail.contains(word), "{problem}");
    }
}

#[tokio::test]
async fn statistics_of_a_forged_cursor_are_refused() {
    let bench = bench(messages()).await;
    let first = || SearchQuery {
        limit: Some(1),
        ..by_score("events", "msg:disk")
    };
    let after = bench.run_search(first()).await.after.expect("another page");
    let cursor = URL_SAFE_NO_PAD.decode(&after).expect("base64");
    let cursor: Value = serde_json::from_slice(&cursor).expect("JSON");
    for (list, counts) in [
        ("frequencies", json!([-1])),
        ("frequencies", json!([1, 1])),
        ("lengths", json!([])),
    ] {
        let mut forged = cursor.clone();
        forged["statistics"][list] = counts;
        let search = SearchQuery {
            after: Some(URL_SAFE_NO_PAD.encode(forged.to_string())),
            ..first()
        };
        let problem = bench.engine.search(search).await.expect_err("it is forged");
        assert!(
            problem.code == Code::BadRequest && problem.detail.contains("malformed") && problem.hint.is_some(),
            "{problem:?}"
        );
    }
}

#[tokio::test]
async fn no_definition_hides_what_counts_the_words_of_scores() {
    let bench = bench(messages()).await;
    let problem = refused(&bench, "CREATE FUNCTION search_statistics(a text, b text) AS 1").await;
    assert_eq!(problem.code, Code::Conflict, "{problem:?}");
    for sql in [
        "SELECT search_statistics(d, 'disk') FILTER (WHERE n = 1) FROM events d",
        "SELECT search_statistics(d, 'disk') OVER () FROM events d",
        "SELECT level FROM events d WHERE search_statistics(d, 'disk') > 1",
        "SELECT search_statistics(d, 'disk') AS s FROM events d",
    ] {
        let problem = refused(&bench, sql).await;
        assert_eq!(problem.code, Code::NotSupported, "{sql}: {problem:?}");
        assert!(problem.hint.is_some(), "{sql}: {problem:?}");
    }
}

#[tokio::test]
async fn leaves_compute_the_scores_of_stored_documents_and_return_the_best() {
    let bench = bench(messages()).await;
    bench.sql("create field events.loud as upper(msg)").await;
    let is_top = |bench: &Bench| {
        let requests = bench.leaf.requests.lock();
        requests
            .last()
            .is_some_and(|request| matches!(request.stage, Stage::Top { .. }))
    };
    for (query, by_leaves) in [("msg:disk word", true), ("msg:disk loud:full", false)] {
        let limit = Some(3);
        bench
            .run_search(SearchQuery {
                limit,
                ..by_score("events", query)
            })
            .await;
        assert_eq!(is_top(&bench), by_leaves, "{query}");
    }
}

#[tokio::test]
async fn pages_of_very_many_hits_contain_each_once() {
    let many = (0..10_500).map(|n| json!({ "n": n, "msg": format!("disk {}", "x ".repeat(n % 5)) }));
    let bench = bench(many).await;
    let request = SearchQuery {
        limit: Some(4_000),
        ..by_score("events", "msg:disk")
    };
    let first = bench.scores(request.clone()).await;
    assert!(first.is_sorted_by(|(_, one), (_, other)| one >= other));
    let mut documents = bench.all_pages(request).await;
    assert_eq!(documents.len(), 10_500);
    documents.sort_unstable();
    documents.dedup();
    assert_eq!(documents.len(), 10_500);
}

#[tokio::test]
async fn a_score_is_that_of_the_search_in_where_and_warns_of_its_own() {
    let bench = bench(messages()).await;
    let (rows, _) = bench
        .sql(
            "select e.n, score() from events e join events f on e.n = f.n and search(f, 'msg:disk') \
             where search(e, 'msg:full') order by 2 desc, 1",
        )
        .await;
    assert_eq!(rows.len(), 6, "{rows:?}");
    let warnings = |stats: Stats| stats.warnings.join("; ");
    let (_, stats) = bench.sql("select score('mgs:disk') from events limit 1").await;
    let found = warnings(stats);
    assert!(found.contains("mgs"), "{found}");
    let (_, stats) = bench
        .sql("select score() from events where search('mgs:disk OR n:1') limit 1")
        .await;
    let found = warnings(stats);
    assert_eq!(found.matches("mgs").count(), 1, "{found}");
    // The statistics read the relation as FROM does: without the names of the SELECT that is scored.
    let (rows, _) = bench
        .sql("select l.n, (select score('t:full') from (select max(msg) as t, max(n) as n from events) as l) from events l where n = 2")
        .await;
    assert_eq!(rows.len(), 1);
    let heaviest = format!("{}msg:\"disk full\"{}", "(".repeat(22), ")^1000000".repeat(22));
    let (rows, _) = bench
        .sql(&format!("select score('{heaviest}') < 1e200 from events where n = 0"))
        .await;
    assert_eq!(rows, ["true"]);
}

#[tokio::test]
async fn a_score_without_a_search_or_of_too_many_words_is_an_error_with_a_hint() {
    let bench = bench(messages()).await;
    let many: Vec<String> = (0..200).map(|n| format!("w{n}")).collect();
    let many = format!("select score() from events where search('{}')", many.join(" OR "));
    for sql in [
        "select score() from events",
        "select score(n) from events",
        "select score() from events where search('a') and search('b')",
        "select score('msg:x') from generate_series(1, 3) as g",
        "select score(other, 'x') from events",
        "select n from events where score() > 1 and search('disk')",
        &format!("select score('{}') from events", "disk ".repeat(101)),
        &many,
    ] {
        let problem = refused(&bench, sql).await;
        assert!(
            matches!(problem.code, Code::BadSql | Code::NotSupported | Code::TooComplex) && problem.hint.is_some(),
            "{sql}: {problem:?}"
        );
    }
}
