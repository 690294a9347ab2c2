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
    ("any anyvalue any_value arbitrary", As("min($1)")),
    ("anylast", As("max($1)")),
    ("first", Same("first_value")),
    ("last", Same("last_value")),
    ("list grouparray collect_list", Same("array_agg")),
    ("groupuniqarray collect_set", As("array_agg(DISTINCT $1)")),
    (
        "group_concat groupconcat listagg string_agg",
        SameWith("string_agg", ","),
    ),
    ("quantile quantileexact quantile_disc", Same("quantile_cont")),
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
    ("week weekofyear toisoweek", As("date_part('week', $1)")),
    ("dayofweek weekday", As("date_part('dow', $1)")),
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
    ("tostartofweek tomonday", As("date_trunc('week', $1)")),
    ("tostartofmonth", As("date_trunc('month', $1)")),
    ("tostartofquarter", As("date_trunc('quarter', $1)")),
    ("tostartofyear", As("date_trunc('year', $1)")),
    (
        "tostartoffiveminutes tostartoffiveminute",
        As("date_bin(INTERVAL '5 minutes', $1)"),
    ),
    ("tostartoftenminutes", As("date_bin(INTERVAL '10 minutes', $1)")),
    ("tostartoffifteenminutes", As("date_bin(INTERVAL '15 minutes', $1)")),
    ("tostartofinterval", As("date_bin($2, $1)")),
    ("time_bucket", As("date_bin($1, $2, TIMESTAMP '2000-01-03')")),
    ("time_bucket", As("date_bin($1, $2, $3)")),
    ("strftime formatdatetime", Same("date_format")),
    ("strptime parsedatetime str_to_date", As("to_timestamp($1, $2)")),
    (
        "todatetime todatetime64 parsedatetimebesteffort",
        As("CAST($1 AS TIMESTAMP)"),
    ),
    (
        "todatetimeornull parsedatetimebesteffortornull",
        As("TRY_CAST($1 AS TIMESTAMP)"),
    ),
    ("todate", As("CAST($1 AS DATE)")),
    ("epoch", As("date_part('epoch', $1)")),
    (
        "tounixtimestamp unix_timestamp",
        As("CAST(floor(date_part('epoch', $1)) AS BIGINT)"),
    ),
    (
        "epoch_ms tounixtimestamp64milli",
        As("CAST(floor(date_part('epoch', $1) * 1000) AS BIGINT)"),
    ),
    ("fromunixtimestamp from_unixtime", As("to_timestamp_seconds($1)")),
    (
        "fromunixtimestamp64milli make_timestamp_ms",
        As("to_timestamp_millis($1)"),
    ),
    ("fromunixtimestamp64micro make_timestamp", As("to_timestamp_micros($1)")),
    ("date_add adddate", As("$1 + $2")),
    ("date_sub subdate age", As("$1 - $2")),
    ("addseconds", As("$1 + $2 * INTERVAL '1 second'")),
    ("addminutes", As("$1 + $2 * INTERVAL '1 minute'")),
    ("addhours", As("$1 + $2 * INTERVAL '1 hour'")),
    ("adddays", As("$1 + $2 * INTERVAL '1 day'")),
    ("subtractminutes", As("$1 - $2 * INTERVAL '1 minute'")),
    ("subtracthours", As("$1 - $2 * INTERVAL '1 hour'")),
    ("subtractdays", As("$1 - $2 * INTERVAL '1 day'")),
    // The boundaries of the unit between two times.
    (
        "date_diff datediff",
        As("CAST(CASE lower($1) \
            WHEN 'year' THEN date_part('year', $3) - date_part('year', $2) \
            WHEN 'quarter' THEN (date_part('year', $3) - date_part('year', $2)) * 4 \
                + date_part('quarter', $3) - date_part('quarter', $2) \
            WHEN 'month' THEN (date_part('year', $3) - date_part('year', $2)) * 12 \
                + date_part('month', $3) - date_part('month', $2) \
            WHEN 'week' THEN (date_part('epoch', date_trunc('week', $3)) \
                - date_part('epoch', date_trunc('week', $2))) / 604800 \
            WHEN 'day' THEN (date_part('epoch', date_trunc('day', $3)) \
                - date_part('epoch', date_trunc('day', $2))) / 86400 \
            WHEN 'hour' THEN (date_part('epoch', date_trunc('hour', $3)) \
                - date_part('epoch', date_trunc('hour', $2))) / 3600 \
            WHEN 'minute' THEN (date_part('epoch', date_trunc('minute', $3)) \
                - date_part('epoch', date_trunc('minute', $2))) / 60 \
            WHEN 'second' THEN date_part('epoch', date_trunc('second', $3)) \
                - date_part('epoch', date_trunc('second', $2)) \
            WHEN 'millisecond' THEN (date_part('epoch', date_trunc('millisecond', $3)) \
                - date_part('epoch', date_trunc('millisecond', $2))) * 1000 \
            END AS BIGINT)"),
    ),
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
    ("match regexp_matches rlike", As("regexp_like($1, $2)")),
    ("regexp_full_match", As("regexp_like($1, '^(?:' || $2 || ')$')")),
    (
        "regexp_extract regexp_substr",
        As("array_element(regexp_match($1, '(' || $2 || ')'), 1)"),
    ),
    (
        "regexp_extract",
        As("array_element(regexp_match($1, '(' || $2 || ')'), $3 + 1)"),
    ),
    ("string_split str_split split", As("string_to_array($1, $2)")),
    ("splitbychar splitbystring", As("string_to_array($2, $1)")),
    ("len lengthutf8", Same("length")),
    ("lcase lowerutf8", Same("lower")),
    ("ucase upperutf8", Same("upper")),
    ("reverseutf8", Same("reverse")),
    ("mid substringutf8", Same("substr")),
    ("concatwithseparator", Same("concat_ws")),
    ("hex", As("upper(encode($1, 'hex'))")),
    ("base64 to_base64 base64encode", As("encode($1, 'base64')")),
    ("tostring", As("CAST($1 AS TEXT)")),
    (
        "toint8 toint16 toint32 toint64 touint8 touint16 touint32 touint64",
        As("CAST($1 AS BIGINT)"),
    ),
    ("tofloat32 tofloat64", As("CAST($1 AS DOUBLE)")),
    (
        "toint32ornull toint64ornull touint64ornull",
        As("TRY_CAST($1 AS BIGINT)"),
    ),
    ("tofloat64ornull", As("TRY_CAST($1 AS DOUBLE)")),
    // Numbers and conditions.
    ("intdiv", As("CAST(trunc(CAST($1 AS DOUBLE) / $2) AS BIGINT)")),
    ("truncate", As("trunc($1, $2)")),
    ("rand", As("random()")),
    ("gen_random_uuid generateuuidv4 newid", As("uuid()")),
    ("if iff iif", As("CASE WHEN $1 THEN $2 ELSE $3 END")),
    ("isnull", As("$1 IS NULL")),
    ("isnotnull", As("$1 IS NOT NULL")),
    // Lists.
    ("has", Same("array_has")),
    ("hasany", Same("array_has_any")),
    ("hasall", Same("array_has_all")),
    ("arraystringconcat", SameWith("array_to_string", "")),
    ("arraysort", Same("array_sort")),
    ("arrayreverse", Same("array_reverse")),
    ("arraydistinct", Same("array_distinct")),
    ("arrayconcat", Same("array_concat")),
    ("indexof", As("array_position($1, $2)")),
    (
        "json_array_length jsonb_array_length json_length jsonlength",
        As("array_length($1)"),
    ),
    ("to_jsonb", As("to_json($1)")),
    ("jsonb_agg json_agg json_group_array json_arrayagg", Same("array_agg")),
    ("json_keys", As("json_keys(to_json($1))")),
    (
        "jsonb_object_keys json_object_keys",
        As("unnest(json_keys(to_json($1)))"),
    ),
    (
        "json_typeof jsonb_typeof json_type jsontype typeof pg_typeof totypename",
        As("json_typeof(to_json($1))"),
    ),
    (
        "arrayjoin jsonb_array_elements json_array_elements jsonb_array_elements_text json_array_elements_text",
        Same("unnest"),
    ),
    (
        "arraysum list_sum list_avg",
        Hint("add the items in a subquery: (SELECT sum(item) FROM unnest(list) AS t(item))"),
    ),
];
