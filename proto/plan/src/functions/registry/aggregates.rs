//! Aggregates, window functions, and what other systems call them.

use super::entry::{
    ArgumentTypes::*,
    Meaning::{Call, Expressions},
    Property::*,
    SqlFunction, aggregate, compat, expression, refused, window,
};

/// One function a line.
#[rustfmt::skip]
pub(super) const FUNCTIONS: &[SqlFunction] = &[
    aggregate(Native, "count(value)", "The number of values that are not NULL; count(*) counts rows.")
        .becomes(Expressions(&["count(*)"])).with(&[IgnoresOrder, HasStableStates]),
    aggregate(Numbers, "sum(number)", "The sum; that of integers is exact.").with(&[IgnoresOrder, HasStableStates]),
    aggregate(Numbers, "avg(number)", "The average.").with(&[IgnoresOrder, HasStableStates]),
    aggregate(Native, "min(value)", "The least value.").with(&[IgnoresOrder, HasStableStates]),
    aggregate(Native, "max(value)", "The greatest value.").with(&[IgnoresOrder, HasStableStates]),
    aggregate(Conditions, "bool_and(condition)", "Whether the condition holds for all rows.")
        .with(&[IgnoresOrder, HasStableStates]),
    aggregate(Conditions, "bool_or(condition)", "Whether the condition holds for a row.")
        .with(&[IgnoresOrder, HasStableStates]),
    aggregate(Integers, "bit_and(integer)", "The bits that all integers have."),
    aggregate(Integers, "bit_or(integer)", "The bits that some integer has."),
    aggregate(Integers, "bit_xor(integer)", "The bits that an odd number of integers has."),
    aggregate(Native, "approx_distinct(value)", "An estimate of the number of different values.")
        .also("uniq uniqcombined uniqhll12 approx_count_distinct").with(&[IgnoresOrder]),
    aggregate(Native, "any_value(value)", "The least value: any will do, and this one is the same in every run.")
        .also("any anyvalue").becomes(Expressions(&["min($1)"])),
    aggregate(Native, "first_value(value ORDER BY key)", "The value of the first row.").also("first"),
    aggregate(Native, "last_value(value ORDER BY key)", "The value of the last row.").also("last"),
    aggregate(Native, "nth_value(value, n ORDER BY key)", "The value of the n-th row, counted from 1."),
    aggregate(Native, "array_agg(value [ORDER BY key])", "A list of all values, NULLs included.")
        .also("list jsonb_agg json_agg json_group_array json_arrayagg"),
    aggregate(Texts(&[]), "string_agg(text[, separator] [ORDER BY key])", "All texts, joined by ',' or a separator.")
        .also("group_concat listagg").becomes(Call("string_agg", ",")),
    aggregate(Native, "grouping(key, …)", "Which keys are left out in a row of ROLLUP or CUBE, as bits."),
    aggregate(Native, "mode(value)", "The most frequent value; the least of several.")
        .with(&[IgnoresOrder, HasStableStates]),
    aggregate(Native, "approx_top_k(value, k)", "A list of the k most frequent values; the counts are exact.")
        .with(&[IgnoresOrder, HasStableStates]),
    aggregate(Native, "histogram(value)", "An object of all values with their counts.")
        .with(&[IgnoresOrder, HasStableStates]),
    aggregate(Doubles, "median(number)", "The median."),
    aggregate(Doubles, "approx_median(number)", "An estimate of the median."),
    aggregate(Doubles, "percentile_cont(number, share)", "The value below which a share of all lies, interpolated."),
    aggregate(Doubles, "approx_percentile_cont(number, share)", "An estimate of percentile_cont.")
        .also("approx_quantile quantiletdigest"),
    aggregate(Doubles, "approx_percentile_cont_with_weight(number, weight, share)",
        "An estimate of percentile_cont in which each number counts as often as its weight says."),
    aggregate(Doubles, "stddev_samp(number)", "The standard deviation of a sample.").also("stddevsamp"),
    aggregate(Doubles, "stddev_pop(number)", "The standard deviation of a population.").also("stddevpop"),
    aggregate(Doubles, "var_samp(number)", "The variance of a sample.").also("varsamp"),
    aggregate(Doubles, "var_pop(number)", "The variance of a population.").also("varpop"),
    aggregate(Doubles, "covar_samp(y, x)", "The covariance of a sample.").also("covarsamp"),
    aggregate(Doubles, "covar_pop(y, x)", "The covariance of a population.").also("covarpop"),
    aggregate(Doubles, "corr(y, x)", "The correlation, from -1 to 1."),
    aggregate(Doubles, "regr_slope(y, x)", "The slope of the line that fits best."),
    aggregate(Doubles, "regr_intercept(y, x)", "Where the line that fits best meets x = 0."),
    aggregate(Doubles, "regr_count(y, x)", "The number of rows in which both numbers are given."),
    aggregate(Doubles, "regr_r2(y, x)", "The share of the variance of y that the line explains."),
    aggregate(Doubles, "regr_avgx(y, x)", "The average of x where both are given."),
    aggregate(Doubles, "regr_avgy(y, x)", "The average of y where both are given."),
    aggregate(Doubles, "regr_sxx(y, x)", "The sum of the squared deviations of x."),
    aggregate(Doubles, "regr_syy(y, x)", "The sum of the squared deviations of y."),
    aggregate(Doubles, "regr_sxy(y, x)", "The sum of the products of the deviations of x and y."),
    // Window functions.
    window(Native, "row_number()", "The number of the row in its partition."),
    window(Native, "rank()", "The number of rows with lesser keys, plus 1."),
    window(Native, "dense_rank()", "The number of different lesser keys, plus 1."),
    window(Native, "percent_rank()", "(rank() - 1) / (rows of the partition - 1)."),
    window(Native, "cume_dist()", "The share of the rows whose keys are not greater."),
    window(Integers, "ntile(n)", "The number of the part, of n equal ones, in which the row lies."),
    window(Native, "lag(value[, offset[, default]])", "The value of the row before, or some rows before."),
    window(Native, "lead(value[, offset[, default]])", "The value of the row after, or some rows after."),
    // Of other systems.
    expression("countIf(condition)", &["count(*) FILTER (WHERE $1)"], "The number of rows for which a condition holds.")
        .also("count_if"),
    expression("sumIf(number, condition)", &["sum($1) FILTER (WHERE $2)"], "The sum where a condition holds."),
    expression("avgIf(number, condition)", &["avg($1) FILTER (WHERE $2)"], "The average where a condition holds."),
    expression("minIf(value, condition)", &["min($1) FILTER (WHERE $2)"], "The least value where a condition holds."),
    expression("maxIf(value, condition)", &["max($1) FILTER (WHERE $2)"], "The greatest where a condition holds."),
    expression("uniqIf(value, condition)", &["count(DISTINCT $1) FILTER (WHERE $2)"],
        "The number of different values where a condition holds.").also("uniqexactif"),
    expression("uniqExact(value)", &["count(DISTINCT $1)"], "The number of different values.").also("count_distinct"),
    expression("argMax(value, key)",
        &["first_value($1 ORDER BY $2 DESC) FILTER (WHERE $1 IS NOT NULL AND $2 IS NOT NULL)"],
        "The value of the row with the greatest key.").also("arg_max max_by maxby"),
    expression("argMin(value, key)",
        &["first_value($1 ORDER BY $2 ASC) FILTER (WHERE $1 IS NOT NULL AND $2 IS NOT NULL)"],
        "The value of the row with the least key.").also("arg_min min_by minby"),
    refused("anyLast", "write argMax(value, _time) for the latest value, or any_value(value) for any")
        .also("arbitrary"),
    expression("groupArray(value)", &["array_agg($1) FILTER (WHERE $1 IS NOT NULL)"], "A list of all values.")
        .also("collect_list"),
    expression("groupUniqArray(value)", &["array_agg(DISTINCT $1) FILTER (WHERE $1 IS NOT NULL)"],
        "A list of all different values.").also("collect_set"),
    compat("groupConcat(text[, separator])", Call("string_agg", ""), "All texts, joined."),
    // `quantile(0.9)(x)` of ClickHouse interpolates, `quantile(x, 0.9)` of DuckDB does not.
    expression("quantile(value, share)",
        &["array_element(array_agg($1 ORDER BY $1) FILTER (WHERE $1 IS NOT NULL), \
           CAST(greatest(ceil($2 * count($1)), 1) AS BIGINT))"],
        "The least value that a share of all values does not exceed.").also("quantile_disc"),
    expression("quantileExact(value, share)",
        &["array_element(array_agg($1 ORDER BY $1) FILTER (WHERE $1 IS NOT NULL), \
           CAST(least(floor($2 * count($1)) + 1, count($1)) AS BIGINT))"],
        "The value at a share of all values, as ClickHouse counts it."),
    refused("quantiles", "call quantile_cont(value, share) once for each share"),
    refused("topK", "write approx_top_k(value, 10), or SELECT value, count(*) … GROUP BY 1 ORDER BY 2 DESC LIMIT 10"),
];
