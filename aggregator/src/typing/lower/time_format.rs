//! Lowers AT TIME ZONE, and converts time patterns to those of `strftime`.

use std::str::FromStr as _;

use datafusion::{
    arrow::{
        array::timezone::Tz,
        datatypes::{DataType, TimeUnit},
    },
    common::Result,
    logical_expr::{Expr, lit},
};
use plan::functions::local_time::TIME_OF_LOCAL;

use super::arguments::function_call;
use crate::typing::operand::{Operand, bad_sql, call, cast};

/// `time AT TIME ZONE zone`: the local time in the zone. A time without a zone is taken as local time in that zone, and
/// the result is the timestamp.
pub(super) fn at_time_zone(time: &Operand, zone: &Operand) -> Result<Expr> {
    let Some(name) = zone.quoted() else {
        return Err(bad_sql(
            "the time zone must be a literal".into(),
            "write AT TIME ZONE 'Europe/Berlin'",
        ));
    };
    if Tz::from_str(name).is_err() {
        return Err(bad_sql(
            format!("time zone {name} does not exist"),
            "use a name such as 'Europe/Berlin', or an offset such as '+02:00'",
        ));
    }
    let in_zone = DataType::Timestamp(TimeUnit::Microsecond, Some(name.into()));
    if matches!(time.data_type(), DataType::Timestamp(_, None)) {
        return Ok(call(TIME_OF_LOCAL, vec![time.expr.clone(), lit(name)]));
    }
    let time = time.time()?;
    Ok(function_call(
        datafusion::functions::datetime::to_local_time(),
        vec![cast(time, in_zone)],
    ))
}

/// Fields of PostgreSQL's time patterns and those of `strftime`. A field comes before those that are a prefix of it.
const PATTERN_FIELDS: [(&str, &str); 29] = [
    ("YYYY", "%Y"),
    ("yyyy", "%Y"),
    ("YY", "%y"),
    ("HH24", "%H"),
    ("hh24", "%H"),
    ("HH12", "%I"),
    ("hh12", "%I"),
    ("HH", "%I"),
    ("hh", "%I"),
    ("MI", "%M"),
    ("mi", "%M"),
    ("SS", "%S"),
    ("ss", "%S"),
    ("MS", "%3f"),
    ("ms", "%3f"),
    ("US", "%6f"),
    ("us", "%6f"),
    ("AM", "%p"),
    ("PM", "%p"),
    ("Month", "%B"),
    ("Mon", "%b"),
    ("MM", "%m"),
    ("mm", "%m"),
    ("DDD", "%j"),
    ("DD", "%d"),
    ("dd", "%d"),
    ("Day", "%A"),
    ("Dy", "%a"),
    ("TZ", "%Z"),
];

/// Converts a pattern as PostgreSQL and others write it (`YYYY-MM-DD`) to one of `strftime`. A pattern with a `%` is
/// returned unchanged.
pub(super) fn to_strftime(pattern: &str) -> String {
    if pattern.contains('%') {
        return pattern.to_owned();
    }
    let mut out = String::new();
    let mut rest = pattern;
    while let Some(next) = rest.chars().next() {
        if let Some(quoted) = rest.strip_prefix('"') {
            let end = quoted.find('"').unwrap_or(quoted.len());
            out.push_str(&quoted[..end]);
            rest = quoted.get(end + 1..).unwrap_or_default();
            continue;
        }
        match PATTERN_FIELDS.iter().find(|(field, _)| rest.starts_with(field)) {
            Some((field, format)) => {
                out.push_str(format);
                rest = &rest[field.len()..];
            }
            None => {
                out.push(next);
                rest = &rest[next.len_utf8()..];
            }
        }
    }
    out
}
