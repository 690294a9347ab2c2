//! Tests of `simplify`.

use datafusion::{
    arrow::datatypes::Schema,
    common::DFSchema,
    prelude::{cast, col, lit},
};

use super::*;

fn list(needle: &str, first: i64, negated: bool) -> Expr {
    let items = (first..first + 4).map(lit).collect();
    col(needle).in_list(items, negated)
}

/// A list over an outer reference.
fn outer_list(first: i64, negated: bool) -> Expr {
    let field = Arc::new(Field::new("x", DataType::Int64, true));
    Expr::OuterReferenceColumn(field, "x".into()).in_list(vec![lit(first), lit(first + 1)], negated)
}

#[test]
fn the_expression_around_two_lists_is_simplified() {
    let schema = Schema::new(["x", "y"].map(|name| Field::new(name, DataType::Int64, true)).to_vec());
    let schema = Arc::new(DFSchema::try_from(schema).expect("a schema"));
    let simplifier = ExprSimplifier::new(SimplifyContext::builder().with_schema(schema).build());
    let simple = |expr: Expr| simplify(expr, &simplifier).expect("simple");
    let (one, other) = (list("x", 1, false), list("x", 7, true));
    let same = col("y").gt(lit(3i64));
    assert_eq!(
        simple(one.clone().and(other.clone()).and(lit(true))),
        one.clone().and(other.clone())
    );
    assert_eq!(simple(one.clone().and(other.clone()).and(lit(false))), lit(false));
    assert_eq!(
        simple(same.clone().and(one.clone()).or(same.clone().and(other.clone()))),
        same.and(one.clone().or(other.clone())),
        "a condition on both sides of an OR is factored out"
    );
    assert_eq!(
        simple(
            col("x")
                .is_null()
                .and(lit(1i64).gt(lit(2i64)).or(other.clone().or(other.clone())))
        ),
        col("x").is_null().and(other)
    );
}

#[test]
fn lists_that_could_merge_are_detected_at_any_depth() {
    let (within, without) = (list("x", 1, false), list("x", 7, true));
    for merges in [
        within.clone().and(within.clone()),
        within.clone().and(without.clone()),
        without.clone().or(without.clone()),
        (!(within.clone().and(col("y").gt(lit(1i64)).or(without.clone())))).is_null(),
        col("x").eq(lit(1i64)).or(col("x").eq(lit(2i64))).and(within.clone()),
        within.clone().or(without.clone()),
        without.clone().and(col("x").eq(lit(1i64))),
        !(without
            .clone()
            .or(col("x").not_eq(lit(1i64)).and(col("x").not_eq(lit(2i64))))),
        without
            .clone()
            .and(col("x").eq(cast(lit("1"), DataType::Int64)).or(col("x").eq(lit(2i64)))),
        col("y")
            .eq(lit(1i64))
            .or(within.clone().and(list("x", 9, false)).is_not_null().eq(lit(false))),
        outer_list(1, false).and(outer_list(7, false)),
        outer_list(1, true).or(outer_list(7, true)).is_null(),
    ] {
        assert!(may_merge_lists(&merges), "{merges}");
    }
    for stays in [
        within.clone().and(list("y", 1, true)),
        within.clone().or(within.clone()).or(col("x").eq(lit(1i64))),
        col("x").eq(lit(1i64)).or(col("x").eq(lit(2i64))),
        without.and(col("y").eq(lit(1i64))),
    ] {
        assert!(!may_merge_lists(&stays), "{stays}");
    }
}
