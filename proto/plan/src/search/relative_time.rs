//! Times, also relative to another one, as Elasticsearch and Grafana write them: `now`, `now-1h`, `now/d`, `2026-01-31||+1M/w`.

use chrono::{DateTime, Datelike as _, Days, Duration, Months, NaiveDate, TimeZone as _, Timelike as _, Utc};

use super::Match;
use crate::value::time_of_text;

/// The first and the last microsecond of a time. They differ for a date, and if the time is rounded to a unit, as
/// `now/d` to a day.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct TimeSpan {
    pub(super) first: i64,
    pub(super) last: i64,
}

impl From<TimeSpan> for Match {
    fn from(span: TimeSpan) -> Self {
        Self::Times {
            from: Some(span.first),
            to: Some(span.last),
        }
    }
}

/// Whether a text was probably meant to be a time: `now-5min`, `-1h`, `2026-13-45`.
pub(super) fn is_like_time(text: &str) -> bool {
    const UNITS: [&str; 25] = [
        "y", "M", "w", "d", "h", "H", "m", "s", "ms", "sec", "secs", "second", "seconds", "min", "mins", "minute",
        "minutes", "hour", "hours", "day", "days", "week", "weeks", "month", "months",
    ];
    let is_step = |text: &str| {
        let unit = text.trim_start_matches(|digit: char| digit.is_ascii_digit());
        unit.len() < text.len() && UNITS.contains(&unit)
    };
    let (date, after) = text.as_bytes().split_at(text.len().min("2026-01-31".len()));
    let is_of_date = |(at, byte): (usize, &u8)| match at {
        4 | 7 => *byte == b'-',
        _ => byte.is_ascii_digit(),
    };
    let is_date = date.len() == "2026-01-31".len()
        && date.iter().enumerate().all(is_of_date)
        && matches!(after.first(), None | Some(b'T' | b' ' | b'|'));
    let after_now = text.strip_prefix("now");
    after_now.is_some_and(|steps| steps.starts_with(['+', '-', '/']))
        || text.strip_prefix(['+', '-']).is_some_and(is_step)
        || is_date
}

/// Whether a text is a relative time.
pub(super) fn is_relative(text: &str) -> bool {
    let steps = match (text.strip_prefix("now"), text.split_once("||")) {
        (Some(steps), _) => steps,
        (None, Some((anchor, steps))) if time_of_text(anchor).is_some() => steps,
        _ => return false,
    };
    (steps.is_empty() && text == "now") || (!steps.is_empty() && parse_steps(steps).is_some())
}

/// Whether a text is a date or a time of its own.
pub(super) fn is_absolute(text: &str) -> bool {
    time_of_text(text).is_some()
}

/// Parses a relative or an absolute time. None if the text is not a time, or the time is out of range.
pub(super) fn parse(text: &str, now: DateTime<Utc>) -> Option<TimeSpan> {
    let (start, steps) = match (text.strip_prefix("now"), text.split_once("||")) {
        (Some(steps), _) => (now, steps),
        (None, Some((anchor, steps))) => (time(anchor)?, steps),
        (None, None) => (time(text)?, ""),
    };
    let is_date = NaiveDate::parse_from_str(text.trim(), "%Y-%m-%d").is_ok();
    let (mut at, mut rounded_to) = (start, is_date.then_some(StepUnit::Day));
    for step in parse_steps(steps)? {
        (at, rounded_to) = match step {
            TimeStep::Move(count, unit) => (moved(at, count, unit)?, None),
            TimeStep::Round(unit) => (begin_of(at, unit)?, Some(unit)),
        };
    }
    let first = at.timestamp_micros();
    let last = match rounded_to {
        Some(unit) => moved(at, 1, unit)?.timestamp_micros() - 1,
        None => first,
    };
    Some(TimeSpan { first, last })
}

fn time(text: &str) -> Option<DateTime<Utc>> {
    DateTime::from_timestamp_micros(time_of_text(text)?)
}

#[derive(Debug, Clone, Copy)]
enum StepUnit {
    Year,
    Month,
    Week,
    Day,
    Hour,
    Minute,
    Second,
}

enum TimeStep {
    Move(i64, StepUnit),
    Round(StepUnit),
}

fn parse_steps(mut rest: &str) -> Option<Vec<TimeStep>> {
    let mut steps = Vec::new();
    while let Some(sign) = rest.chars().next() {
        let after = rest.get(1..)?;
        let digits = after.bytes().take_while(u8::is_ascii_digit).count();
        let (count, unit) = after.split_at(digits);
        let of = match unit.chars().next()? {
            'y' => StepUnit::Year,
            'M' => StepUnit::Month,
            'w' => StepUnit::Week,
            'd' => StepUnit::Day,
            'h' | 'H' => StepUnit::Hour,
            'm' => StepUnit::Minute,
            's' => StepUnit::Second,
            _ => return None,
        };
        let count = if count.is_empty() { 1 } else { count.parse().ok()? };
        steps.push(match sign {
            '+' => TimeStep::Move(count, of),
            '-' => TimeStep::Move(-count, of),
            '/' if digits == 0 => TimeStep::Round(of),
            _ => return None,
        });
        rest = &unit[1..];
    }
    Some(steps)
}

fn moved(at: DateTime<Utc>, count: i64, unit: StepUnit) -> Option<DateTime<Utc>> {
    let months = |months: i64| {
        let size = Months::new(u32::try_from(months.unsigned_abs()).ok()?);
        match months < 0 {
            true => at.checked_sub_months(size),
            false => at.checked_add_months(size),
        }
    };
    match unit {
        StepUnit::Year => months(count.checked_mul(12)?),
        StepUnit::Month => months(count),
        StepUnit::Week => at.checked_add_signed(Duration::try_weeks(count)?),
        StepUnit::Day => at.checked_add_signed(Duration::try_days(count)?),
        StepUnit::Hour => at.checked_add_signed(Duration::try_hours(count)?),
        StepUnit::Minute => at.checked_add_signed(Duration::try_minutes(count)?),
        StepUnit::Second => at.checked_add_signed(Duration::try_seconds(count)?),
    }
}

/// The begin of the unit that a time is in. A week begins on Monday.
fn begin_of(at: DateTime<Utc>, unit: StepUnit) -> Option<DateTime<Utc>> {
    let day = at.date_naive();
    let (day, (hour, minute, second)) = match unit {
        StepUnit::Year => (day.with_ordinal(1)?, (0, 0, 0)),
        StepUnit::Month => (day.with_day(1)?, (0, 0, 0)),
        StepUnit::Week => {
            let since_monday = u64::from(day.weekday().num_days_from_monday());
            (day.checked_sub_days(Days::new(since_monday))?, (0, 0, 0))
        }
        StepUnit::Day => (day, (0, 0, 0)),
        StepUnit::Hour => (day, (at.hour(), 0, 0)),
        StepUnit::Minute => (day, (at.hour(), at.minute(), 0)),
        StepUnit::Second => (day, (at.hour(), at.minute(), at.second())),
    };
    Some(Utc.from_utc_datetime(&day.and_hms_opt(hour, minute, second)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> DateTime<Utc> {
        time(text).expect(text)
    }

    #[test]
    fn steps_are_taken_from_left_to_right() {
        let now = at("2026-01-31T12:34:56.789Z");
        for (text, first, next) in [
            ("now", "2026-01-31T12:34:56.789Z", ""),
            ("now-1h", "2026-01-31T11:34:56.789Z", ""),
            ("now-d", "2026-01-30T12:34:56.789Z", ""),
            ("now+1M", "2026-02-28T12:34:56.789Z", ""),
            ("now/d", "2026-01-31", "2026-02-01"),
            ("now-1d/d", "2026-01-30", "2026-01-31"),
            ("now/d-1h", "2026-01-30T23:00:00Z", ""),
            ("now/w", "2026-01-26", "2026-02-02"),
            ("now/M", "2026-01-01", "2026-02-01"),
            ("now-1y/y", "2025-01-01", "2026-01-01"),
            ("now/h", "2026-01-31T12:00:00Z", "2026-01-31T13:00:00Z"),
            ("now/m+90s", "2026-01-31T12:35:30Z", ""),
            ("now-2H/s", "2026-01-31T10:34:56Z", "2026-01-31T10:34:57Z"),
            ("2026-01-31", "2026-01-31", "2026-02-01"),
            ("2024-02-29||+1y", "2025-02-28", ""),
            ("2026-01-31||/M", "2026-01-01", "2026-02-01"),
            ("2026-01-31T08:00:00+02:00", "2026-01-31T06:00:00Z", ""),
        ] {
            let first = at(first).timestamp_micros();
            let last = match next {
                "" => first,
                next => at(next).timestamp_micros() - 1,
            };
            assert_eq!(parse(text, now), Some(TimeSpan { first, last }), "{text}");
        }
    }

    #[test]
    fn what_was_meant_to_be_a_time_is_like_one() {
        for text in [
            "now-5min",
            "now+x",
            "-1h",
            "+30min",
            "2026-13-45",
            "2026-01-31",
            "2026-01-31T25:00",
        ] {
            assert!(is_like_time(text), "{text}");
        }
        for text in [
            "nowhere",
            "-1",
            "1h",
            "-h",
            "-1.5",
            "2026",
            "2026-01",
            "12-2026-01",
            "5 - 3",
            "größer-als",
            "",
            "-3px",
            "2026-00001",
            "1234-567890",
            "2026-01-31-rc1",
            "2026-01-310",
        ] {
            assert!(!is_like_time(text), "{text}");
        }
    }

    #[test]
    fn what_only_looks_like_a_time_is_none() {
        for text in [
            "nowhere",
            "now-x",
            "now-1",
            "now/2d",
            "now--1d",
            "x||+1d",
            "now-1dd",
            "now-99999999999999999y",
            "",
        ] {
            assert_eq!(parse(text, at("2026-01-31")), None, "{text}");
        }
        for (text, expected) in [
            ("now", true),
            ("now/M", true),
            ("2026-01-31||/M", true),
            ("2026-01-31||", false),
            ("2026-01-31", false),
            ("a||/d", false),
            ("nowhere", false),
        ] {
            assert_eq!(is_relative(text), expected, "{text}");
        }
    }
}
