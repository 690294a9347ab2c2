//! Refuses a search over no time at all: its empty answer would hide a mistake.

use chrono::{DateTime, NaiveDate, Utc};
use plan::{search, value::time_of_int};
use proto::{Code, Problem};

/// Fails unless `from` is before `to`, if both are given. Whether they are times, the search itself checks.
pub(super) fn check(from: Option<&str>, to: Option<&str>, now: DateTime<Utc>) -> Result<(), Problem> {
    let (Some(from), Some(to)) = (from.map(str::trim), to.map(str::trim)) else {
        return Ok(());
    };
    let (Some(begin), Some(end)) = (time(from, now), time(to, now)) else {
        return Ok(());
    };
    if begin < end {
        return Ok(());
    }
    let next_day = NaiveDate::parse_from_str(to, "%Y-%m-%d")
        .ok()
        .and_then(|day| day.succ_opt())
        .map(|day| day.to_string())
        .filter(|day| time(day, now).is_some_and(|end| begin < end));
    let hint = match next_day {
        Some(day) => format!("to is exclusive: for the whole day write to={day}"),
        None => {
            "from is inclusive and to is exclusive: write an earlier time for from, or a later one for to".to_owned()
        }
    };
    let detail = format!("from={from} is not before to={to}, so no time is between them");
    Err(Problem::new(Code::BadRequest, detail).hint(hint))
}

/// Reads a time as searches do, in microseconds since 1970.
fn time(text: &str, now: DateTime<Utc>) -> Option<i64> {
    let of_number = text.parse().ok().and_then(time_of_int);
    of_number.or_else(|| search::time(text, now))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn checked(from: &str, to: &str) -> Result<(), String> {
        let now = DateTime::from_timestamp(1_769_853_600, 0).expect("a time");
        check(Some(from), Some(to), now).map_err(|problem| problem.hint.unwrap_or_default())
    }

    #[test]
    fn a_range_without_any_time_is_refused() {
        let whole_day = Err("to is exclusive: for the whole day write to=2026-11-28".to_owned());
        assert_eq!(checked("2026-11-27", "2026-11-27"), whole_day);
        assert_eq!(checked("2026-11-27T10:00:00Z", "2026-11-27"), whole_day);
        for (from, to) in [
            ("2026-11-28", "2026-11-27"),
            ("now", "now-1h"),
            ("now", "now"),
            ("1790000000", "1790000000000"),
            ("2026-11-27T10:00:00Z", "2026-11-27T10:00:00Z"),
        ] {
            let hint = checked(from, to).expect_err(from);
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
            // No times: the search says so.
            ("", ""),
            ("tomorrow", "yesterday"),
        ] {
            assert_eq!(checked(from, to), Ok(()), "{from} to {to}");
        }
        let now = DateTime::from_timestamp(0, 0).expect("a time");
        assert_eq!(check(Some("2026-11-27"), None, now), Ok(()));
        assert_eq!(check(None, Some("2026-11-27"), now), Ok(()));
    }
}
