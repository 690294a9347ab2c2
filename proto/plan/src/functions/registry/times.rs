//! Functions of times. What other systems call them is in `calendar`.

use super::entry::{ArgumentTypes::*, Meaning::Expressions, Property::IgnoresZoneName, SqlFunction, scalar};
use crate::functions::growth;

/// One function a line.
#[rustfmt::skip]
pub(super) const FUNCTIONS: &[SqlFunction] = &[
    scalar(Native, "now()", "The time at which the query began."),
    scalar(Native, "current_date()", "The day on which the query began, in UTC."),
    scalar(Native, "current_time()", "The time of day at which the query began, in UTC."),
    scalar(Times(&[1]), "date_trunc(unit, time)", "The beginning of a unit, such as 'hour', in which a time lies.")
        .with(&[IgnoresZoneName]),
    scalar(Times(&[1, 2]), "date_bin(interval, time[, origin])",
        "The beginning of the interval, counted from an origin, in which a time lies.")
        .with(&[IgnoresZoneName]),
    scalar(Times(&[1]), "date_part(part, time)",
        "A part of a time, such as 'hour', as extract(hour FROM time) returns it.")
        .with(&[IgnoresZoneName]),
    scalar(Times(&[1, 2]), "date_diff(unit, from, to)",
        "How many beginnings of a unit, such as 'day', lie between two times.")
        .also("datediff").becomes(Expressions(&["date_diff($1, $2, $3)"])),
    scalar(Times(&[1, 2]), "time_bucket(interval, time[, origin or offset])",
        "The beginning of the interval in which a time lies, as DuckDB counts.")
        .becomes(Expressions(&["time_bucket($1, $2)", "time_bucket($1, $2, $3)"])),
    scalar(Times(&[0]), "start_of_interval(time, width)",
        "The beginning of the interval, such as '2 week', in which a time lies, as ClickHouse counts."),
    scalar(Times(&[0]), "to_char(time, pattern)",
        "A time as text, in a pattern like 'YYYY-MM-DD HH24:MI:SS' or '%Y-%m-%d'.")
        .grows(growth::time_pattern),
    scalar(Times(&[0]), "to_unixtime(time)", "Seconds since 1970."),
    scalar(Times(&[0]), "to_local_time(time)", "The time without its zone."),
    scalar(Times(&[0]), "epoch_millis(time)", "Milliseconds since 1970, rounded down."),
    scalar(Times(&[0]), "epoch_millis_truncated(time)", "Milliseconds since 1970, rounded towards 1970."),
    scalar(Native, "to_timestamp(value)", "The time that a text spells, or so many seconds after 1970."),
    scalar(Native, "to_timestamp_seconds(value)", "The time that a text spells, or so many seconds after 1970."),
    scalar(Native, "to_timestamp_millis(value)", "The time that a text spells, or so many milliseconds after 1970."),
    scalar(Native, "to_timestamp_micros(value)", "The time that a text spells, or so many microseconds after 1970."),
    scalar(Native, "to_timestamp_nanos(value)", "The time that a text spells, or so many nanoseconds after 1970."),
    scalar(Native, "to_date(value)", "The day that a text spells, or on which a time lies."),
    scalar(Texts(&[]), "to_time(text[, pattern, …])", "The time of day that a text spells."),
    scalar(Integers, "from_unixtime(seconds)", "The time so many seconds after 1970.")
        .becomes(Expressions(&["to_timestamp_micros(CAST(round($1 * 1000000) AS BIGINT))"])),
    scalar(Integers, "make_date(year, month, day)", "The date."),
    scalar(Integers, "make_time(hour, minute, second)", "The time of day."),
    scalar(Texts(&[2]), "parse_time(text, pattern, year)",
        "The time that a text spells in a pattern of strftime, in a year if it has none."),
    scalar(Json(&[0]), "day_of(value)", "ClickHouse's toDate: a number up to 65535 counts days, a larger one seconds."),
];
