//! Intervals of time on the calendar, such as hours or months in UTC: which one a time is in, and where they begin.
//! Times are microseconds since 1970. Shared by: leaf (counts documents by interval), aggregator (shows the intervals).

use std::{fmt, ops::Range};

use chrono::{DateTime, Datelike as _, NaiveDate};

/// A number of units, such as 30 minutes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Interval {
    count: u32,
    unit: CalendarUnit,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum CalendarUnit {
    Millisecond,
    Second,
    Minute,
    Hour,
    Day,
    Week,
    Month,
    Year,
}

impl CalendarUnit {
    /// Its letters, its name, and its microseconds or months.
    const TABLE: [(Self, &'static str, &'static str, Length); 8] = [
        (Self::Millisecond, "ms", "millisecond", Length::Micros(1_000)),
        (Self::Second, "s", "second", Length::Micros(1_000_000)),
        (Self::Minute, "m", "minute", Length::Micros(60_000_000)),
        (Self::Hour, "h", "hour", Length::Micros(3_600_000_000)),
        (Self::Day, "d", "day", Length::Micros(86_400_000_000)),
        (Self::Week, "w", "week", Length::Micros(7 * 86_400_000_000)),
        (Self::Month, "M", "month", Length::Months(1)),
        (Self::Year, "y", "year", Length::Months(12)),
    ];

    fn row(self) -> &'static (Self, &'static str, &'static str, Length) {
        let row = Self::TABLE.iter().find(|row| row.0 == self);
        row.unwrap_or(&Self::TABLE[0])
    }
}

/// A length of time. Months have no fixed one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Length {
    Micros(i64),
    Months(i64),
}

/// 1970-01-05, a Monday: weeks begin there.
const MONDAY: i64 = 4 * 86_400_000_000;

/// From short to long, those from which a histogram chooses.
const NICE: [(u32, CalendarUnit); 32] = [
    (1, CalendarUnit::Millisecond),
    (5, CalendarUnit::Millisecond),
    (10, CalendarUnit::Millisecond),
    (50, CalendarUnit::Millisecond),
    (100, CalendarUnit::Millisecond),
    (500, CalendarUnit::Millisecond),
    (1, CalendarUnit::Second),
    (5, CalendarUnit::Second),
    (10, CalendarUnit::Second),
    (30, CalendarUnit::Second),
    (1, CalendarUnit::Minute),
    (5, CalendarUnit::Minute),
    (10, CalendarUnit::Minute),
    (30, CalendarUnit::Minute),
    (1, CalendarUnit::Hour),
    (3, CalendarUnit::Hour),
    (6, CalendarUnit::Hour),
    (12, CalendarUnit::Hour),
    (1, CalendarUnit::Day),
    (2, CalendarUnit::Day),
    (1, CalendarUnit::Week),
    (2, CalendarUnit::Week),
    (1, CalendarUnit::Month),
    (3, CalendarUnit::Month),
    (6, CalendarUnit::Month),
    (1, CalendarUnit::Year),
    (2, CalendarUnit::Year),
    (5, CalendarUnit::Year),
    (10, CalendarUnit::Year),
    (50, CalendarUnit::Year),
    (100, CalendarUnit::Year),
    (1_000, CalendarUnit::Year),
];

impl Interval {
    /// Parses `1h`, `30m`, `hour`.
    pub fn parse(text: &str) -> Option<Self> {
        let (number, name) = text.split_at(text.find(|c: char| !c.is_ascii_digit())?);
        let name = name.trim();
        let spelled = |row: &&(CalendarUnit, &str, &str, Length)| {
            row.1 == name
                || name
                    .strip_suffix('s')
                    .filter(|name| name.len() > 1)
                    .unwrap_or(name)
                    .eq_ignore_ascii_case(row.2)
        };
        let (unit, ..) = CalendarUnit::TABLE.iter().find(spelled)?;
        let count = if number.is_empty() { 1 } else { number.parse().ok()? };
        (1..=100_000).contains(&count).then_some(Self { count, unit: *unit })
    }

    /// The shortest nice interval that divides the times from `first` to `last` into at most so many parts.
    pub fn of_span(first: i64, last: i64, parts_max: usize) -> Self {
        let intervals = NICE.map(|(count, unit)| Self { count, unit });
        let fits = |interval: &&Self| interval.parts(first, last).is_some_and(|parts| parts <= parts_max);
        *intervals.iter().find(fits).unwrap_or(&intervals[NICE.len() - 1])
    }

    /// How many intervals reach from that of `first` to that of `last`.
    pub fn parts(self, first: i64, last: i64) -> Option<usize> {
        let (first, last) = (self.number(first)?, self.number(last)?);
        usize::try_from(last.checked_sub(first)?.checked_add(1)?).ok()
    }

    /// The number of the interval that contains a time.
    pub fn number(self, time: i64) -> Option<i64> {
        let count = i64::from(self.count);
        match self.unit.row().3 {
            Length::Micros(micros) => Some(time.checked_sub(self.origin())?.div_euclid(micros.checked_mul(count)?)),
            Length::Months(months) => {
                let date = DateTime::from_timestamp_micros(time)?.date_naive();
                let since_1970 = (i64::from(date.year()) - 1970) * 12 + i64::from(date.month0());
                Some(since_1970.div_euclid(months * count))
            }
        }
    }

    /// When an interval begins.
    pub fn start(self, number: i64) -> Option<i64> {
        let count = i64::from(self.count);
        match self.unit.row().3 {
            Length::Micros(micros) => number
                .checked_mul(micros.checked_mul(count)?)?
                .checked_add(self.origin()),
            Length::Months(months) => {
                let since_1970 = number.checked_mul(months * count)?;
                let year = i32::try_from(since_1970.div_euclid(12).checked_add(1970)?).ok()?;
                let month = u32::try_from(since_1970.rem_euclid(12)).ok()? + 1;
                let date = NaiveDate::from_ymd_opt(year, month, 1)?;
                Some(date.and_hms_opt(0, 0, 0)?.and_utc().timestamp_micros())
            }
        }
    }

    /// From when to when the interval reaches that contains a time. None if a time cannot be that early or late.
    pub fn span(self, time: i64) -> Option<Range<i64>> {
        let number = self.number(time)?;
        Some(self.start(number)?..self.start(number.checked_add(1)?)?)
    }

    fn origin(self) -> i64 {
        if self.unit == CalendarUnit::Week { MONDAY } else { 0 }
    }
}

impl fmt::Display for Interval {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.count, self.unit.row().1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn time(text: &str) -> i64 {
        crate::value::time_of_text(text).expect("a time")
    }

    #[test]
    fn intervals_are_spelled_in_letters_or_words() {
        for (text, expected) in [
            ("1h", "1h"),
            ("30m", "30m"),
            ("hour", "1h"),
            ("2 days", "2d"),
            ("Month", "1M"),
            ("3M", "3M"),
        ] {
            assert_eq!(
                Interval::parse(text).map(|interval| interval.to_string()).as_deref(),
                Some(expected)
            );
        }
        for text in ["", "h1", "0h", "1x", "-1h", "1.5h", "99999999h", "M M"] {
            assert_eq!(Interval::parse(text), None, "{text}");
        }
    }

    #[test]
    fn every_time_is_in_the_interval_that_begins_before_it() {
        for interval in ["1ms", "7s", "1h", "1d", "1w", "3w", "1M", "5M", "1y", "100y"] {
            let interval = Interval::parse(interval).expect("an interval");
            for text in [
                "0001-01-01",
                "1583-03-04T05:06:07Z",
                "1969-12-31T23:59:59.999999Z",
                "1970-01-01",
                "2024-02-29",
                "9999-12-31",
            ] {
                let time = time(text);
                let number = interval.number(time).expect("a number");
                let next = interval.start(number + 1).unwrap_or(i64::MAX);
                assert!(
                    interval.start(number).is_none_or(|start| start <= time) && time < next,
                    "{interval} {text}"
                );
            }
        }
        let week = Interval::parse("1w").expect("an interval");
        let of_week = |text| week.number(time(text)).and_then(|number| week.start(number));
        assert_eq!(of_week("2026-11-26"), Some(time("2026-11-23")), "a Monday");
    }

    #[test]
    fn a_span_has_as_many_parts_as_wanted_at_most() {
        let span = |from, to| Interval::of_span(time(from), time(to), 100).to_string();
        assert_eq!(span("2026-01-01", "2026-01-01T00:00:10Z"), "500ms");
        assert_eq!(span("2026-01-01", "2026-01-31"), "12h");
        assert_eq!(span("2020-01-01", "2026-01-31"), "1M");
        assert_eq!(span("0001-01-01", "9999-01-31"), "1000y");
    }
}
