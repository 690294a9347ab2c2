//! What other systems call functions of times.

use super::entry::{
    Meaning::{Hint, TextToTime, TimeToText},
    SqlFunction,
    TimeLetters::{ClickHouse, DuckDb, MySql},
    compat, expression, refused,
};

/// One function a line.
#[rustfmt::skip]
pub(super) const FUNCTIONS: &[SqlFunction] = &[
    // Parts.
    expression("hour(time)", &["date_part('hour', $1)"], "The hour, 0 to 23.").also("tohour"),
    expression("minute(time)", &["date_part('minute', $1)"], "The minute, 0 to 59.").also("tominute"),
    expression("second(time)", &["date_part('second', $1)"], "The second, 0 to 59.").also("tosecond"),
    expression("day(time)", &["date_part('day', $1)"], "The day of the month, 1 to 31.")
        .also("dayofmonth todayofmonth"),
    expression("month(time)", &["date_part('month', $1)"], "The month, 1 to 12.").also("tomonth"),
    expression("quarter(time)", &["date_part('quarter', $1)"], "The quarter, 1 to 4.").also("toquarter"),
    expression("year(time)", &["date_part('year', $1)"], "The year.").also("toyear"),
    expression("weekofyear(time)", &["date_part('week', $1)"], "The week by ISO 8601, 1 to 53.").also("toisoweek"),
    refused("week",
        "weekofyear(x) is the ISO week, as in DuckDB; strftime(x, '%U') is the week of MySQL and ClickHouse"),
    refused("dayofweek", "systems count differently: extract(dow FROM x) is 0 on Sunday, isodow(x) is 1 on Monday")
        .also("weekday"),
    expression("isodow(time)", &["date_part('isodow', $1)"], "The day of the week, 1 on Monday to 7.")
        .also("todayofweek"),
    expression("dayofyear(time)", &["date_part('doy', $1)"], "The day of the year, 1 to 366.").also("todayofyear"),
    expression("monthname(time)", &["to_char($1, '%B')"], "The name of the month."),
    expression("dayname(time)", &["to_char($1, '%A')"], "The name of the day of the week."),
    expression("toYYYYMM(time)", &["CAST(to_char($1, '%Y%m') AS BIGINT)"], "Year and month as a number: 202611."),
    expression("toYYYYMMDD(time)", &["CAST(to_char($1, '%Y%m%d') AS BIGINT)"], "The day as a number: 20261124."),
    // Beginnings.
    expression("toStartOfSecond(time)", &["date_trunc('second', $1)"], "The beginning of the second."),
    expression("toStartOfMinute(time)", &["date_trunc('minute', $1)"], "The beginning of the minute."),
    expression("toStartOfHour(time)", &["date_trunc('hour', $1)"], "The beginning of the hour."),
    expression("toStartOfDay(time)", &["date_trunc('day', $1)"], "The beginning of the day."),
    expression("toStartOfWeek(time)", &["CAST(date_trunc('week', $1 + INTERVAL '1 day') AS DATE) - 1"],
        "The Sunday of the week."),
    expression("toMonday(time)", &["CAST(date_trunc('week', $1) AS DATE)"], "The Monday of the week."),
    expression("toStartOfMonth(time)", &["CAST(date_trunc('month', $1) AS DATE)"], "The first day of the month."),
    expression("toStartOfQuarter(time)", &["CAST(date_trunc('quarter', $1) AS DATE)"], "The first day of the quarter."),
    expression("toStartOfYear(time)", &["CAST(date_trunc('year', $1) AS DATE)"], "The first day of the year."),
    expression("toStartOfFiveMinutes(time)", &["date_bin(INTERVAL '5 minutes', $1)"], "The beginning of five minutes.")
        .also("tostartoffiveminute"),
    expression("toStartOfTenMinutes(time)", &["date_bin(INTERVAL '10 minutes', $1)"], "The beginning of ten minutes."),
    expression("toStartOfFifteenMinutes(time)", &["date_bin(INTERVAL '15 minutes', $1)"],
        "The beginning of a quarter of an hour."),
    compat("toStartOfInterval(time, INTERVAL n unit)",
        Hint("write toStartOfInterval(time, INTERVAL 15 MINUTE), with one number and one unit"),
        "The beginning of the interval in which a time lies."),
    // Texts.
    compat("strftime(time, pattern)", TimeToText(DuckDb), "A time as text, in a pattern of DuckDB."),
    compat("date_format(time, pattern)", TimeToText(MySql), "A time as text, in a pattern of MySQL."),
    compat("formatDateTime(time, pattern)", TimeToText(ClickHouse), "A time as text, in a pattern of ClickHouse."),
    compat("strptime(text, pattern)", TextToTime(DuckDb, "1900"),
        "The time that a text spells in a pattern of DuckDB."),
    compat("str_to_date(text, pattern)", TextToTime(MySql, "1970"),
        "The time that a text spells in a pattern of MySQL."),
    compat("parseDateTime(text, pattern)", TextToTime(ClickHouse, "1970"),
        "The time that a text spells in a pattern of ClickHouse."),
    expression("toDateTime(value)", &["date_trunc('second', CAST($1 AS TIMESTAMP))"], "A time of whole seconds.")
        .also("parsedatetimebesteffort"),
    expression("toDateTimeOrNull(value)", &["date_trunc('second', TRY_CAST($1 AS TIMESTAMP))"],
        "A time of whole seconds, if it is one.")
        .also("parsedatetimebesteffortornull"),
    refused("toDateTime64", "CAST(x AS TIMESTAMP) keeps microseconds"),
    expression("toDate(value)", &["day_of($1)"],
        "The day that a text spells, on which a time lies, or that a number counts."),
    // Numbers.
    expression("epoch(time)", &["date_part('epoch', $1)"], "Seconds since 1970, with a fraction.")
        .also("unix_timestamp"),
    expression("toUnixTimestamp(time)", &["CAST(floor(date_part('epoch', $1)) AS BIGINT)"],
        "Whole seconds since 1970."),
    expression("epoch_ms(time)", &["epoch_millis($1)"], "Milliseconds since 1970, rounded down."),
    expression("toUnixTimestamp64Milli(time)", &["epoch_millis_truncated($1)"],
        "Milliseconds since 1970, rounded towards 1970."),
    expression("fromUnixTimestamp(seconds)", &["to_timestamp_seconds($1)"], "The time so many seconds after 1970."),
    expression("fromUnixTimestamp64Milli(number)", &["to_timestamp_millis($1)"],
        "The time so many milliseconds after 1970.")
        .also("make_timestamp_ms"),
    expression("fromUnixTimestamp64Micro(number)", &["to_timestamp_micros($1)"],
        "The time so many microseconds after 1970.")
        .also("make_timestamp"),
    // Sums and differences. Only an interval can be multiplied by one and then added to a time.
    expression("date_add(time, interval)", &["to_timestamp($1) + $2 * 1"], "The time so much later.").also("adddate"),
    expression("date_sub(time, interval)", &["to_timestamp($1) - $2 * 1"], "The time so much earlier.").also("subdate"),
    refused("age", "a - b is the interval between two times; date_diff('day', b, a) counts days"),
    expression("addSeconds(time, n)", &["to_timestamp($1) + trunc($2) * INTERVAL '1 second'"],
        "The time n seconds later."),
    expression("addMinutes(time, n)", &["to_timestamp($1) + trunc($2) * INTERVAL '1 minute'"],
        "The time n minutes later."),
    expression("addHours(time, n)", &["to_timestamp($1) + trunc($2) * INTERVAL '1 hour'"], "The time n hours later."),
    expression("addDays(time, n)", &["$1 + trunc($2) * INTERVAL '1 day'"], "The time or date n days later."),
    expression("subtractMinutes(time, n)", &["to_timestamp($1) - trunc($2) * INTERVAL '1 minute'"],
        "The time n minutes earlier."),
    expression("subtractHours(time, n)", &["to_timestamp($1) - trunc($2) * INTERVAL '1 hour'"],
        "The time n hours earlier."),
    expression("subtractDays(time, n)", &["$1 - trunc($2) * INTERVAL '1 day'"], "The time or date n days earlier."),
    refused("timestampdiff", "write date_diff('minute', from, to)"),
    expression("curdate()", &["current_date"], "The day on which the query began, in UTC."),
    expression("getdate()", &["now()"], "The time at which the query began.")
        .also("sysdate localtimestamp statement_timestamp transaction_timestamp clock_timestamp now64"),
    refused("make_interval", "write INTERVAL '2 hours', or n * INTERVAL '1 hour'"),
];
