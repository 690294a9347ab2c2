//! The time range of a search: `from` and `to`.

use std::ops::Range;

use chrono::{DateTime, NaiveDate, Utc};
use plan::{search, value::time_of_int};
use proto::{Code, Problem};

use crate::answer::SearchQuery;

/// The times that statements can name, in microseconds since 1970: the years 1 to 9999.
const TIMES: Range<i64> = -62_135_596_800_000_000..253_402_300_800_000_000;

/// The time range of the hits, in microseconds since 1970.
#[derive(Clone, Copy)]
pub(super) struct TimeRange {
    /// Inclusive.
    pub from: Option<i64>,
    /// Exclusive.
    pub to: Option<i64>,
}

impl TimeRange {
    pub(super) fn parse(request: &SearchQuery, now: DateTime<Utc>) -> Result<Self, Problem> {
        let time = |text: &Option<String>| {
            let time = text.as_deref().map(|text| parse_time(text, now)).transpose()?;
            match time.is_none_or(|time| TIMES.contains(&time)) {
                true => Ok(time),
                false => Err(Problem::new(
                    Code::BadRequest,
                    format!(
                        "{} is not between the years 1 and 9999",
                        text.as_deref().unwrap_or_default()
                    ),
                )
                .hint("leave from or to out if there is no bound")),
            }
        };
        let range = Self {
            from: time(&request.from)?,
            to: time(&request.to)?,
        };
        match range.from.zip(range.to) {
            Some((from, to)) if from >= to => Err(empty(from, request, now)),
            _ => Ok(range),
        }
    }
}

/// The problem of a range without any time: an empty answer would hide the mistake.
fn empty(from: i64, request: &SearchQuery, now: DateTime<Utc>) -> Problem {
    let text = |bound: &Option<String>| bound.as_deref().unwrap_or_default().trim().to_owned();
    let (from_text, to_text) = (text(&request.from), text(&request.to));
    let day = NaiveDate::parse_from_str(&to_text, "%Y-%m-%d").ok();
    let next_day = day.and_then(|day| day.succ_opt()).map(|day| day.to_string());
    let next_day = next_day.filter(|day| parse_time(day, now).is_ok_and(|end| from < end));
    let hint = match next_day {
        Some(day) => format!("to is exclusive: for the whole day write to={day}"),
        None => "to is exclusive: write an earlier time for from, or a later one for to".to_owned(),
    };
    let detail = format!("from={from_text} is not before to={to_text}, so no time is between them");
    Problem::new(Code::BadRequest, detail).hint(hint)
}

/// Parses a time to microseconds since 1970: one that statements and documents may contain, one relative to now, or a
/// number of seconds, milli-, micro- or nanoseconds, depending on its size.
fn parse_time(text: &str, now: DateTime<Utc>) -> Result<i64, Problem> {
    let text = text.trim();
    text.parse()
        .ok()
        .and_then(time_of_int)
        .or_else(|| search::time(text, now))
        .ok_or_else(|| {
            let excerpt: String = text.chars().take(100).collect();
            Problem::new(Code::BadRequest, format!("{excerpt:?} is not a time")).hint(
                "write 2026-01-31T10:00:00Z, 2026-01-31, now-1h, or a number of seconds or milliseconds since 1970",
            )
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_can_be_written_in_several_formats() {
        let now = DateTime::from_timestamp_micros(1_769_853_600_000_000).expect("a time");
        for text in [
            "2026-01-31T10:00:00Z",
            "2026-01-31T11:00:00+01:00",
            "2026-01-31 10:00:00",
            "2026-01-31T10:00:00.0",
            "1769853600",
            "1769853600000",
            "1769853600000000",
            "1769853600000000000",
            "now",
            "now/d+10h",
        ] {
            assert_eq!(parse_time(text, now), Ok(1_769_853_600_000_000), "{text}");
        }
        assert_eq!(parse_time("2026-01-31", now), Ok(1_769_817_600_000_000));
        for text in ["", "yesterday", "2026-13-01", "1e9"] {
            assert_eq!(
                parse_time(text, now).map_err(|p| p.code),
                Err(Code::BadRequest),
                "{text}"
            );
        }
    }

    fn checked(from: Option<&str>, to: Option<&str>) -> Result<(), String> {
        let request = SearchQuery {
            from: from.map(str::to_owned),
            to: to.map(str::to_owned),
            ..SearchQuery::default()
        };
        let now = DateTime::from_timestamp(1_769_853_600, 0).expect("a time");
        let range = TimeRange::parse(&request, now);
        range.map(|_| ()).map_err(|problem| problem.hint.unwrap_or_default())
    }

    #[test]
    fn a_range_without_any_time_is_refused() {
        let whole_day = Err("to is exclusive: for the whole day write to=2026-11-28".to_owned());
        assert_eq!(checked(Some("2026-11-27"), Some("2026-11-27")), whole_day);
        assert_eq!(checked(Some("2026-11-27T10:00:00Z"), Some("2026-11-27")), whole_day);
        for (from, to) in [
            ("2026-11-28", "2026-11-27"),
            ("now", "now-1h"),
            ("now", "now"),
            ("1790000000", "1790000000000"),
            ("2026-11-27T10:00:00Z", "2026-11-27T10:00:00Z"),
        ] {
            let hint = checked(Some(from), Some(to)).expect_err(from);
            assert!(hint.contains("to is exclusive"), "{from} to {to}: {hint}");
        }
    }

    #[test]
    fn a_range_with_some_time_is_searched() {
        for (from, to) in [
            ("2026-11-27", "2026-11-28"),
            ("now-1h", "now"),
            ("1790000000", "1790000000001"),
            ("2026-01-01", " now "),
        ] {
            assert_eq!(checked(Some(from), Some(to)), Ok(()), "{from} to {to}");
        }
        assert_eq!(checked(Some("2026-11-27"), None), Ok(()));
        assert_eq!(checked(None, Some("2026-11-27")), Ok(()));
    }
}
