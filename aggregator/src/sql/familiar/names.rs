//! The table of familiar names: functions as other systems call them, and what they are here.

/// What a familiar name is here.
#[derive(Debug)]
pub(super) enum Meaning {
    /// The same function by another name.
    Same(&'static str),
    /// The same function by another name; with a single argument it gets this second one.
    SameWith(&'static str, &'static str),
    /// An expression of the arguments `$1`, `$2`, …, for as many arguments as it names.
    As(&'static str),
    /// No function of this kind exists; this is what to write instead.
    Hint(&'static str),
}

use Meaning::{As, Hint, Same, SameWith};

use super::time_patterns;

/// Names in lower case, separated by spaces, and their meaning. A name with several expressions takes the one with as
/// many arguments as the call.
pub(super) const NAMES: &[(&str, Meaning)] = &[
    // Aggregates.
    ("count", As("count(*)")),
    ("countif count_if", As("count(*) FILTER (WHERE $1)")),
    ("sumif", As("sum($1) FILTER (WHERE $2)")),
    ("avgif", As("avg($1) FILTER (WHERE $2)")),
    ("minif", As("min($1) FILTER (WHERE $2)")),
    ("maxif", As("max($1) FILTER (WHERE $2)")),
    ("uniqif uniqexactif", As("count(DISTINCT $1) FILTER (WHERE $2)")),
    ("uniqexact count_distinct", As("count(DISTINCT $1)")),
    (
        "uniq uniqcombined uniqhll12 approx_count_distinct",
        Same("approx_distinct"),
    ),
    (
        "argmax arg_max max_by maxby",
        As("first_value($1 ORDER BY $2 DESC) FILTER (WHERE $1 IS NOT NULL AND $2 IS NOT NULL)"),
    ),
    (
        "argmin arg_min min_by minby",
        As("first_value($1 ORDER BY $2 ASC) FILTER (WHERE $1 IS NOT NULL AND $2 IS NOT NULL)"),
    ),
    // Any value will do. The least is the same one in each run.
    ("any anyvalue any_value", As("min($1)")),
    (
        "anylast arbitrary",
        Hint("write argMax(value, _time) for the latest value, or any_value(value) for any"),
    ),
    ("first", Same("first_value")),
    ("last", Same("last_value")),
    ("list", Same("array_agg")),
    (
        "grouparray collect_list",
        As("array_agg($1) FILTER (WHERE $1 IS NOT NULL)"),
    ),
    (
        "groupuniqarray collect_set",
        As("array_agg(DISTINCT $1) FILTER (WHERE $1 IS NOT NULL)"),
    ),
    ("group_concat listagg string_agg", SameWith("string_agg", ",")),
    ("groupconcat", SameWith("string_agg", "")),
    // `quantile(0.9)(x)` of ClickHouse interpolates, `quantile(x, 0.9)` of DuckDB does not.
    (
        "quantile quantile_disc",
        As(
            "array_element(array_agg($1 ORDER BY $1) FILTER (WHERE $1 IS NOT NULL), \
            CAST(greatest(ceil($2 * count($1)), 1) AS BIGINT))",
        ),
    ),
    (
        "quantileexact",
        As(
            "array_element(array_agg($1 ORDER BY $1) FILTER (WHERE $1 IS NOT NULL), \
            CAST(least(floor($2 * count($1)) + 1, count($1)) AS BIGINT))",
        ),
    ),
    ("approx_quantile quantiletdigest", Same("approx_percentile_cont")),
    ("stddevpop", Same("stddev_pop")),
    ("stddevsamp", Same("stddev_samp")),
    ("varpop", Same("var_pop")),
    ("varsamp", Same("var_samp")),
    ("covarpop", Same("covar_pop")),
    ("covarsamp", Same("covar_samp")),
    (
        "quantiles",
        Hint("call quantile_cont(value, share) once for each share"),
    ),
    (
        "topk approx_top_k",
        Hint("write SELECT value, count(*) … GROUP BY 1 ORDER BY 2 DESC LIMIT 10"),
    ),
    (
        "histogram",
        Hint("write SELECT value, count(*) … GROUP BY 1, or round values with floor(value / 10) * 10"),
    ),
    // Times.
    ("hour tohour", As("date_part('hour', $1)")),
    ("minute tominute", As("date_part('minute', $1)")),
    ("second tosecond", As("date_part('second', $1)")),
    ("day dayofmonth todayofmonth", As("date_part('day', $1)")),
    ("month tomonth", As("date_part('month', $1)")),
    ("quarter toquarter", As("date_part('quarter', $1)")),
    ("year toyear", As("date_part('year', $1)")),
    ("weekofyear toisoweek", As("date_part('week', $1)")),
    (
        "week",
        Hint("weekofyear(x) is the ISO week, as in DuckDB; strftime(x, '%U') is the week of MySQL and ClickHouse"),
    ),
    (
        "dayofweek weekday",
        Hint("systems count differently: extract(dow FROM x) is 0 on Sunday, isodow(x) is 1 on Monday"),
    ),
    ("isodow todayofweek", As("date_part('isodow', $1)")),
    ("dayofyear todayofyear", As("date_part('doy', $1)")),
    ("monthname", As("to_char($1, '%B')")),
    ("dayname", As("to_char($1, '%A')")),
    ("toyyyymm", As("CAST(to_char($1, '%Y%m') AS BIGINT)")),
    ("toyyyymmdd", As("CAST(to_char($1, '%Y%m%d') AS BIGINT)")),
    ("tostartofsecond", As("date_trunc('second', $1)")),
    ("tostartofminute", As("date_trunc('minute', $1)")),
    ("tostartofhour", As("date_trunc('hour', $1)")),
    ("tostartofday", As("date_trunc('day', $1)")),
    (
        "tostartofweek",
        As("CAST(date_trunc('week', $1 + INTERVAL '1 day') AS DATE) - 1"),
    ),
    ("tomonday", As("CAST(date_trunc('week', $1) AS DATE)")),
    ("tostartofmonth", As("CAST(date_trunc('month', $1) AS DATE)")),
    ("tostartofquarter", As("CAST(date_trunc('quarter', $1) AS DATE)")),
    ("tostartofyear", As("CAST(date_trunc('year', $1) AS DATE)")),
    (
        "tostartoffiveminutes tostartoffiveminute",
        As("date_bin(INTERVAL '5 minutes', $1)"),
    ),
    ("tostartoftenminutes", As("date_bin(INTERVAL '10 minutes', $1)")),
    ("tostartoffifteenminutes", As("date_bin(INTERVAL '15 minutes', $1)")),
    (
        "tostartofinterval",
        Hint("write toStartOfInterval(time, INTERVAL 15 MINUTE), with one number and one unit"),
    ),
    ("time_bucket", As("time_bucket($1, $2)")),
    ("time_bucket", As("time_bucket($1, $2, $3)")),
    ("strftime date_format formatdatetime", Hint(time_patterns::HINT)),
    ("strptime parsedatetime str_to_date", Hint(time_patterns::HINT)),
    (
        "todatetime parsedatetimebesteffort",
        As("date_trunc('second', CAST($1 AS TIMESTAMP))"),
    ),
    (
        "todatetimeornull parsedatetimebesteffortornull",
        As("date_trunc('second', TRY_CAST($1 AS TIMESTAMP))"),
    ),
    ("todatetime64", Hint("CAST(x AS TIMESTAMP) keeps microseconds")),
    ("todate", As("day_of($1)")),
    ("epoch unix_timestamp", As("date_part('epoch', $1)")),
    ("tounixtimestamp", As("CAST(floor(date_part('epoch', $1)) AS BIGINT)")),
    ("epoch_ms", As("epoch_millis($1)")),
    ("tounixtimestamp64milli", As("epoch_millis_truncated($1)")),
    ("fromunixtimestamp", As("to_timestamp_seconds($1)")),
    (
        "from_unixtime",
        As("to_timestamp_micros(CAST(round($1 * 1000000) AS BIGINT))"),
    ),
    (
        "fromunixtimestamp64milli make_timestamp_ms",
        As("to_timestamp_millis($1)"),
    ),
    ("fromunixtimestamp64micro make_timestamp", As("to_timestamp_micros($1)")),
    // Only an interval can be multiplied by one and then added to a time.
    ("date_add adddate", As("to_timestamp($1) + $2 * 1")),
    ("date_sub subdate", As("to_timestamp($1) - $2 * 1")),
    (
        "age",
        Hint("a - b is the interval between two times; date_diff('day', b, a) counts days"),
    ),
    ("addseconds", As("to_timestamp($1) + trunc($2) * INTERVAL '1 second'")),
    ("addminutes", As("to_timestamp($1) + trunc($2) * INTERVAL '1 minute'")),
    ("addhours", As("to_timestamp($1) + trunc($2) * INTERVAL '1 hour'")),
    ("adddays", As("$1 + trunc($2) * INTERVAL '1 day'")),
    (
        "subtractminutes",
        As("to_timestamp($1) - trunc($2) * INTERVAL '1 minute'"),
    ),
    ("subtracthours", As("to_timestamp($1) - trunc($2) * INTERVAL '1 hour'")),
    ("subtractdays", As("$1 - trunc($2) * INTERVAL '1 day'")),
    ("date_diff datediff", As("date_diff($1, $2, $3)")),
    ("timestampdiff", Hint("write date_diff('minute', from, to)")),
    ("curdate", As("current_date")),
    (
        "getdate sysdate localtimestamp statement_timestamp transaction_timestamp clock_timestamp now64",
        As("now()"),
    ),
    (
        "make_interval",
        Hint("write INTERVAL '2 hours', or n * INTERVAL '1 hour'"),
    ),
    // Texts.
    ("startswith prefix", Same("starts_with")),
    ("endswith suffix", Same("ends_with")),
    ("position", As("strpos($1, $2)")),
    ("positioncaseinsensitive", As("strpos(lower($1), lower($2))")),
    ("locate charindex", As("strpos($2, $1)")),
    ("regexp_matches rlike", As("regexp_like($1, $2)")),
    // In ClickHouse, a dot also matches the end of a line.
    ("match", As("regexp_like($1, '(?s)' || $2)")),
    ("regexp_full_match", As("regexp_like($1, '^(?:' || $2 || ')$')")),
    ("regexp_extract", As("regexp_extract($1, $2)")),
    ("regexp_extract", As("regexp_extract($1, $2, $3)")),
    (
        "regexp_substr",
        As("array_element(regexp_match($1, '(?s)(' || $2 || ')'), 1)"),
    ),
    ("string_split str_split split", As("text_split($1, $2)")),
    ("splitbychar splitbystring", As("text_split($2, $1)")),
    ("len lengthutf8", Same("length")),
    ("lcase lowerutf8", Same("lower")),
    ("ucase upperutf8", Same("upper")),
    ("reverseutf8", Same("reverse")),
    ("mid", As("text_mid($1, $2)")),
    ("mid", As("text_mid($1, $2, $3)")),
    ("substringutf8", As("text_slice($1, $2)")),
    ("substringutf8", As("text_slice($1, $2, $3)")),
    (
        "concatwithseparator",
        Hint("a || '-' || b is NULL if a part is; concat_ws('-', a, b) leaves out NULLs"),
    ),
    ("hex", As("text_hex($1)")),
    ("base64 to_base64 base64encode", As("encode($1, 'base64pad')")),
    ("tostring", As("CAST($1 AS TEXT)")),
    ("toint8", As("wrapped_int($1, 'int8')")),
    ("toint16", As("wrapped_int($1, 'int16')")),
    ("toint32", As("wrapped_int($1, 'int32')")),
    ("toint64", As("wrapped_int($1, 'int64')")),
    ("touint8", As("wrapped_int($1, 'uint8')")),
    ("touint16", As("wrapped_int($1, 'uint16')")),
    ("touint32", As("wrapped_int($1, 'uint32')")),
    ("touint64", As("wrapped_int($1, 'uint64')")),
    ("toint32ornull", As("int_or_null($1, 'int32')")),
    ("toint64ornull", As("int_or_null($1, 'int64')")),
    ("touint64ornull", As("int_or_null($1, 'uint64')")),
    ("tofloat64", As("CAST($1 AS DOUBLE)")),
    ("tofloat64ornull", As("TRY_CAST($1 AS DOUBLE)")),
    (
        "tofloat32",
        Hint("toFloat64(x) keeps all digits; there is no smaller type"),
    ),
    // Numbers and conditions.
    ("intdiv", As("int_div($1, $2)")),
    ("truncate", As("trunc($1)")),
    ("truncate", As("trunc($1, $2)")),
    (
        "rand",
        Hint("random() is a fraction below 1, as MySQL's rand(); ClickHouse's rand() is floor(random() * 4294967296)"),
    ),
    ("gen_random_uuid generateuuidv4 newid", As("uuid()")),
    ("if iff iif", As("CASE WHEN $1 THEN $2 ELSE $3 END")),
    ("multiif", Hint("write multiIf(condition, value, …, otherwise)")),
    ("isnull", As("$1 IS NULL")),
    ("isnotnull", As("$1 IS NOT NULL")),
    // Lists.
    ("has", Same("array_has")),
    ("hasany", Same("array_has_any")),
    ("hasall", Same("array_has_all")),
    ("arraystringconcat", SameWith("array_to_string", "")),
    (
        "arraysort",
        Hint("sort the items: (SELECT array_agg(item ORDER BY item) FROM unnest(list) AS t(item))"),
    ),
    ("arrayreverse", Same("array_reverse")),
    ("arraydistinct", Same("array_distinct")),
    ("arrayconcat", Same("array_concat")),
    ("indexof", As("coalesce(array_position($1, $2), 0)")),
    ("json_array_length", As("json_size(CAST($1 AS JSONB), 'duckdb')")),
    ("jsonb_array_length", As("json_size(CAST($1 AS JSONB), 'postgresql')")),
    ("json_length", As("json_size(CAST($1 AS JSONB), 'mysql')")),
    ("jsonlength", As("json_size(CAST($1 AS JSONB), 'clickhouse')")),
    ("to_jsonb", As("to_json($1)")),
    ("jsonb_agg json_agg json_group_array json_arrayagg", Same("array_agg")),
    ("json_keys", As("json_keys(CAST($1 AS JSONB))")),
    (
        "jsonb_object_keys json_object_keys",
        As("unnest(json_keys(CAST($1 AS JSONB)))"),
    ),
    ("json_typeof jsonb_typeof", As("json_typeof(to_json($1))")),
    (
        "json_type jsontype typeof pg_typeof totypename",
        Hint("json_typeof(x) is object, array, string, number or boolean"),
    ),
    (
        "arrayjoin jsonb_array_elements json_array_elements jsonb_array_elements_text json_array_elements_text",
        Same("unnest"),
    ),
    (
        "arraysum list_sum list_avg",
        Hint("add the items in a subquery: (SELECT sum(item) FROM unnest(list) AS t(item))"),
    ),
    // Ways into JSON beside those of `json.rs`.
    ("json_query", Hint("json_extract(document, '$.path') returns any value")),
    (
        "jsonextractraw",
        Hint("write document->'key', which returns NULL where the key is missing"),
    ),
    ("json_contains_path", Hint("write json_exists(document, '$.path')")),
    (
        "visitparamextractstring simplejsonextractstring simplejsonextractint simplejsonextractfloat \
         simplejsonextractbool",
        Hint("write JSONExtractString(document, 'user', 'name'), which reads one path"),
    ),
];
