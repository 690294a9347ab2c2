//! What a search says about all its matches: facets, histograms, fields.

use proto::Code;
use serde_json::json;

use super::{
    search_support::{sales, search_query},
    *,
};
use crate::answer::{Facet, SearchAnswer, SearchQuery};

impl Bench {
    async fn facets(&self, name: &str, query: &str, facets: &str) -> Vec<Facet> {
        let request = SearchQuery {
            facets: Some(facets.into()),
            limit: Some(0),
            ..search_query(name, query)
        };
        self.run_search(request).await.facets
    }

    async fn histogram(&self, name: &str, histogram: &str) -> SearchAnswer {
        let request = SearchQuery {
            histogram: Some(histogram.into()),
            limit: Some(0),
            ..search_query(name, "")
        };
        self.run_search(request).await
    }
}

/// The values of a facet with their counts: `"new" 4, "old" 8`.
fn shown(facet: &Facet) -> String {
    let values = facet
        .values
        .iter()
        .map(|value| format!("{} {}", value.value, value.count));
    values.collect::<Vec<_>>().join(", ")
}

/// The intervals that have matches: `1970-01-01T00:00:00Z 3`.
fn buckets(answer: &SearchAnswer) -> Vec<String> {
    let histogram = answer.histogram.as_ref().expect("a histogram");
    let time = |micros| {
        chrono::DateTime::from_timestamp_micros(micros)
            .expect("a time")
            .format("%FT%TZ")
    };
    let buckets = histogram.buckets.iter();
    buckets
        .map(|bucket| format!("{} {}", time(bucket.time), bucket.count))
        .collect()
}

#[tokio::test]
async fn facets_count_values_of_any_kind_also_in_lists() {
    let bench = bench([
        json!({ "n": 1, "size": 1, "tags": ["a", "b", "a"], "items": [{ "sku": "x" }, { "sku": ["y", "x"] }] }),
        json!({ "n": 2, "size": "1", "tags": "b", "items": { "sku": "x" } }),
        json!({ "n": 3, "size": true, "tags": [["b", null], { "a": 1 }], "items": [] }),
        json!({ "n": 4, "size": 1, "tags": null }),
        json!({ "n": 5, "size": 1.5, "tags": {} }),
    ])
    .await;
    let facets = bench.facets("events", "", "size,tags,items.sku:1,items,nowhere").await;
    let shown: Vec<String> = facets.iter().map(shown).collect();
    assert_eq!(
        shown,
        [r#"1 2, 1.5 1, "1" 1, true 1"#, r#""b" 3, "a" 1"#, r#""x" 2"#, "", ""]
    );
    let others: Vec<_> = facets.iter().map(|facet| facet.others).collect();
    assert_eq!(others, [Some(0), Some(0), Some(1), Some(0), Some(0)]);
    let narrowed = bench.facets("events", "tags:a", "tags,n").await;
    assert_eq!(
        (self::shown(&narrowed[0]), self::shown(&narrowed[1])),
        (r#""a" 1, "b" 1"#.into(), "1 1".into())
    );
    bench.until_released().await;
}

#[tokio::test]
async fn a_view_a_field_and_its_documents_have_the_same_facets() {
    let bench = bench(sales(60)).await;
    bench
        .sql("create view shown as select _time, n, cents, tags, user from events")
        .await;
    bench.sql("create field events.label as tags").await;
    let query = "user.name:3 OR cents:>0";
    let expected = bench
        .facets("events", query, "cents,tags,tags.kind,user.name,n(10,30)")
        .await;
    assert!(
        expected
            .iter()
            .all(|facet| facet.values.iter().any(|value| value.count > 1)),
        "{expected:?}"
    );
    let of_view = bench
        .facets("shown", query, "cents,tags,tags.kind,user.name,n(10,30)")
        .await;
    assert_eq!(of_view, expected);
    let of_field = bench.facets("events", query, "label,label.kind").await;
    assert_eq!(
        (&of_field[0].values, &of_field[1].values),
        (&expected[1].values, &expected[2].values)
    );
    bench
        .sql("create view empty as select _time, NULL as x from events")
        .await;
    let of_nothing = bench.facets("empty", "", "x").await;
    assert_eq!((of_nothing[0].values.len(), of_nothing[0].others), (0, Some(0)));
}

#[tokio::test]
async fn a_range_of_a_facet_can_be_searched_for() {
    let bench = bench(sales(60)).await;
    for (path, bounds) in [
        ("cents", "100,300"),
        ("_time", "1970-01-01T00:00:03Z,1970-01-01T00:00:09Z"),
        ("n", "-1,30.5,1e9"),
    ] {
        let facets = bench
            .facets("events", "NOT user.name:3", &format!("{path}({bounds})"))
            .await;
        let ranges = &facets[0].values;
        assert_eq!(ranges.len(), bounds.split(',').count() + 1);
        for range in ranges {
            let text: String = serde_json::from_str(&range.value).expect("a text");
            let found = bench
                .run_search(search_query("events", &format!("NOT user.name:3 AND {path}:{text}")))
                .await;
            assert_eq!(found.total, range.count, "{path}:{text}");
        }
        assert!(ranges.iter().any(|range| range.count > 0), "{ranges:?}");
    }
}

#[tokio::test]
async fn every_match_is_in_one_interval() {
    let seed: u64 = std::env::var("RACHIS_SEED")
        .ok()
        .and_then(|seed| seed.parse().ok())
        .unwrap_or(33);
    let mut state = seed;
    let mut random = move || {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        i64::try_from(state >> 33).unwrap_or_default()
    };
    // From 1938 to 2005.
    let documents: Vec<Value> = (0..500).map(|_| json!({ "at": random() - 1_000_000_000 })).collect();
    let bench = bench(documents).await;
    for interval in ["7d", "1w", "3w", "1M", "5M", "1y", "7y", "auto"] {
        let answer = bench.histogram("events", interval).await;
        let histogram = answer.histogram.expect("a histogram");
        let counted: u64 = histogram.buckets.iter().map(|bucket| bucket.count).sum();
        assert_eq!(counted, 500, "{interval}, seed {seed}");
        assert!(histogram.buckets.is_sorted_by(|a, b| a.time < b.time), "{interval}");
        let ends = (histogram.buckets.first(), histogram.buckets.last());
        assert!(
            ends.0.is_some_and(|b| b.count > 0) && ends.1.is_some_and(|b| b.count > 0),
            "{interval}: {ends:?}"
        );
    }
    let too_fine = SearchQuery {
        histogram: Some("1h".into()),
        ..search_query("events", "")
    };
    let problem = bench.search_error(too_fine).await;
    assert_eq!(problem.code, Code::LimitReached, "{problem}");
}

#[tokio::test]
async fn intervals_without_matches_are_shown() {
    let bench = bench([json!({ "at": 10 }), json!({ "at": 12 }), json!({ "at": 3_000_000 })]).await;
    let week = bench.histogram("events", "1w").await;
    // 1970-01-01 was a Thursday.
    assert_eq!(
        buckets(&week),
        [
            "1969-12-29T00:00:00Z 2",
            "1970-01-05T00:00:00Z 0",
            "1970-01-12T00:00:00Z 0",
            "1970-01-19T00:00:00Z 0",
            "1970-01-26T00:00:00Z 0",
            "1970-02-02T00:00:00Z 1"
        ]
    );
    let month = bench.histogram("events", "month").await;
    assert_eq!(buckets(&month), ["1970-01-01T00:00:00Z 2", "1970-02-01T00:00:00Z 1"]);
    let request = SearchQuery {
        histogram: Some("5s".into()),
        from: Some("1970-01-01T00:00:02Z".into()),
        to: Some("1970-01-01T00:00:20Z".into()),
        ..search_query("events", "")
    };
    let bounded = bench.run_search(request.clone()).await;
    assert_eq!(
        buckets(&bounded),
        [
            "1970-01-01T00:00:00Z 0",
            "1970-01-01T00:00:05Z 0",
            "1970-01-01T00:00:10Z 2",
            "1970-01-01T00:00:15Z 0"
        ]
    );
    let chosen = bench
        .run_search(SearchQuery {
            histogram: Some("auto".into()),
            ..request.clone()
        })
        .await;
    assert_eq!(
        chosen
            .histogram
            .as_ref()
            .map(|h| (h.interval.as_str(), h.buckets.len())),
        Some(("500ms", 36))
    );
    let nothing = bench
        .run_search(SearchQuery {
            query: "nothing".into(),
            histogram: Some("auto".into()),
            from: None,
            to: None,
            ..request
        })
        .await;
    assert_eq!(
        nothing.histogram.map(|h| (h.interval, h.buckets.len())),
        Some((String::new(), 0))
    );
}

#[tokio::test]
async fn fields_describe_what_the_matches_have() {
    let bench = bench(sales(60)).await;
    bench.sql("create field events.label as upper(user.name)").await;
    bench
        .sql("create view shown as select n, tags as labels from events")
        .await;
    let request = |name, fields| SearchQuery {
        fields: Some(fields),
        limit: Some(0),
        ..search_query(
            name,
            if name == "shown" {
                "labels.kind:gift"
            } else {
                "tags.kind:gift"
            },
        )
    };
    let found = bench.run_search(request("events", None)).await.fields.expect("fields");
    let field = |path: &str| {
        let field = found.fields.iter().find(|field| field.path == path).expect(path);
        (field.kinds.to_string(), field.documents, field.samples.join(" "))
    };
    assert_eq!(found.documents, 20);
    assert_eq!(field("tags"), ("text, object, array".into(), 20, r#""new""#.into()));
    assert_eq!(field("tags.kind"), ("text".into(), 20, r#""gift""#.into()));
    assert_eq!(field("cents").1, 17);
    assert_eq!(field("label").2, r#""USER 1" "USER 2" "USER 4""#);
    let newest = bench
        .run_search(request("events", Some(2)))
        .await
        .fields
        .expect("fields");
    assert_eq!(
        (
            newest.documents,
            newest
                .fields
                .iter()
                .find(|field| field.path == "n")
                .map(|field| field.samples.join(" "))
        ),
        (2, Some("54 57".into()))
    );
    let of_view = bench.run_search(request("shown", None)).await.fields.expect("fields");
    let paths: Vec<_> = of_view
        .fields
        .iter()
        .map(|field| (field.path.as_str(), field.documents))
        .collect();
    assert_eq!(paths, [("labels", 20), ("labels.kind", 20), ("n", 20)]);
}

#[tokio::test]
async fn facets_find_names_that_a_search_finds() {
    let bench = bench([
        json!({ "Tags": ["a", "b"], "$price": 5, "odd, key": { "x:y": 1 }, "a": { "b": ["p", "q"] } }),
        json!({ "Tags": "a", "$price": 50, "odd, key": { "x:y": 1 }, "a": { "b": "q" } }),
    ])
    .await;
    bench.sql("create field events.label as tags").await;
    for (facets, expected) in [
        ("tags", r#""a" 2, "b" 1"#),
        ("A.b", r#""q" 2, "p" 1"#),
        ("label@1", r#""a" 2, "b" 1"#),
        ("$price(10)", r#""[* TO 10}" 1, "[10 TO *]" 1"#),
        (r#""odd, key"."x:y""#, "1 2"),
        (
            r#""odd, key"."x:y"(1,2)"#,
            r#""[* TO 1}" 0, "[1 TO 2}" 2, "[2 TO *]" 0"#,
        ),
    ] {
        let found = bench.facets("events", "", facets).await;
        assert_eq!(shown(&found[0]), expected, "{facets}");
    }
}

#[tokio::test]
async fn times_at_the_ends_of_the_calendar_are_counted() {
    // 0001-01-01, 1969-12-31, 9999-12-31.
    let bench = bench([
        json!({ "at": -62_135_596_800_i64 }),
        json!({ "at": -1 }),
        json!({ "at": 253_402_214_400_i64 }),
    ])
    .await;
    for interval in ["100y", "1000y", "auto", "20000w", "100000d"] {
        let answer = bench.histogram("events", interval).await;
        let counted: u64 = answer
            .histogram
            .iter()
            .flat_map(|h| &h.buckets)
            .map(|bucket| bucket.count)
            .sum();
        assert_eq!(counted, 3, "{interval}: {answer:?}");
    }
}

#[tokio::test]
async fn what_is_asked_about_all_matches_counts_in_the_statistics() {
    let bench = bench(sales(60)).await;
    let plain = bench.run_search(search_query("events", "gift")).await.stats;
    let request = SearchQuery {
        facets: Some("user.name".into()),
        ..search_query("events", "gift")
    };
    // The plan of the page is from the cache, that of the facet is not; then both are.
    for _ in 0..2 {
        let stats = bench.run_search(request.clone()).await.stats;
        assert_eq!(stats.documents_scanned, 2 * plain.documents_scanned, "{stats:?}");
    }
}

#[tokio::test]
async fn everything_that_is_asked_comes_from_one_read_view() {
    let bench = bench(sales(60)).await;
    let opened = || bench.leaf.opened.load(std::sync::atomic::Ordering::Relaxed);
    let request = SearchQuery {
        facets: Some("user.name,tags,cents(100)".into()),
        histogram: Some("auto".into()),
        fields: Some(None),
        ..search_query("events", "gift")
    };
    for _ in 0..2 {
        let before = opened();
        let answer = bench.run_search(request.clone()).await;
        assert_eq!((answer.total, answer.facets.len()), (20, 3));
        assert_eq!(opened() - before, 1, "opens of all shards");
    }
    bench.until_released().await;
}

#[tokio::test]
async fn what_cannot_be_summarized_is_an_error_with_a_hint() {
    let bench = bench(sales(5)).await;
    bench.sql("create view timeless as select n from events").await;
    let facets = |facets: &str| SearchQuery {
        facets: Some(facets.into()),
        ..search_query("events", "")
    };
    let histogram = |name, histogram: &str| SearchQuery {
        histogram: Some(histogram.into()),
        ..search_query(name, "")
    };
    let many = (0..51).map(|n| format!("a{n}")).collect::<Vec<_>>().join(",");
    for (request, expected) in [
        (facets("n,"), "not a path"),
        (facets("n:0"), "number of values"),
        (facets("n:many"), "number of values"),
        (facets("n,n"), "n occurs twice"),
        (facets("n()"), "not a bound"),
        (facets("n(1,*)"), "not a bound"),
        (facets("n(10,2)"), "not in order"),
        (facets("n(2,2)"), "not in order"),
        (facets("at(now,now-1d)"), "not in order"),
        (facets("n(1,2\\)"), "not a bound"),
        (
            SearchQuery {
                to: Some("now+9000y".into()),
                ..facets("n")
            },
            "years 1 and 9999",
        ),
        (facets("user..name"), "facets: "),
        (facets(&many), "50 facets"),
        (histogram("events", "1x"), "not an interval"),
        (histogram("events", "0h"), "not an interval"),
        (histogram("events", "at:"), "not an interval"),
        (histogram("events", "at..b:1h"), "histogram: "),
        (histogram("timeless", "1h"), "_time"),
        (
            SearchQuery {
                fields: Some(Some(0)),
                ..search_query("events", "")
            },
            "cannot read 0",
        ),
        (
            SearchQuery {
                fields: Some(Some(10_001)),
                ..search_query("events", "")
            },
            "cannot read 10001",
        ),
    ] {
        let problem = bench.search_error(request).await;
        assert!(
            problem.detail.contains(expected) && problem.hint.is_some() && problem.at.is_none(),
            "{problem:?}"
        );
        assert!(matches!(problem.code, Code::BadRequest | Code::BadSql), "{problem:?}");
    }
}
