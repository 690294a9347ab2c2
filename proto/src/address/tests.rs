//! Tests of `address`.

use super::*;

#[test]
fn an_address_has_exactly_one_spelling() {
    for text in [
        "clicks/0@1234",
        "clicks/12@0.7",
        "push/0@9223372036854775807",
        "a.b-c/3@1",
    ] {
        assert_eq!(text.parse::<Address>().map(|a| a.to_string()).as_deref(), Ok(text));
    }
    for text in [
        "clicks",
        "clicks/0",
        "clicks/0@",
        "clicks/00@1",
        "clicks/0@-1",
        "clicks/0@1.",
        "clicks/0@+1",
        "Clicks/0@1",
        "/0@1",
    ] {
        assert!(text.parse::<Address>().is_err(), "{text} is not an address");
    }
}

#[test]
fn a_vector_round_trips_in_both_forms() {
    for partitions in [0, 1, 32, 33, 500] {
        let vector: PositionVector = (0..partitions)
            .map(|p| Position {
                source: SourceName::push(),
                partition: p,
                offset: i64::from(p) - 1,
            })
            .collect();
        assert_eq!(vector.to_string().parse(), Ok(vector));
    }
}

#[test]
fn a_vector_covers_every_vector_that_is_not_ahead_of_it() {
    let at = |text: &str| text.parse::<PositionVector>().expect("a vector");
    assert!(at("a/0@5,a/1@3").covers(&at("a/0@5")));
    assert!(!at("a/0@5").covers(&at("a/0@6")));
    assert!(!at("a/0@5").covers(&at("b/0@1")));
    assert!(
        at("a/0@5").covers(&at("b/0@-1")),
        "a partition that is at its start requires nothing"
    );
    assert_eq!(
        at("a/0@5,a/1@3").describe_missing(&at("a/0@6,a/1@3,b/0@-1,b/1@0")),
        "a/0@6 (it is at 5), b/1@0 (nothing is stored yet)"
    );
    assert_eq!(
        at("")
            .describe_missing(&at("a/0@1,a/1@1,a/2@1,a/3@1,a/4@1,a/5@1"))
            .split(" and ")
            .nth(1),
        Some("2 more")
    );
}
