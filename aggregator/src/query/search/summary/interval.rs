//! Intervals of a histogram: where they begin, in microseconds since 1970 in UTC.

use std::fmt;

use chrono::{DateTime, Datelike as _, NaiveDate};

/// A number of units, such as 30 minutes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Interval {
    count: u32,
    unit: Unit,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Unit {
    Millisecond,
    Second,
    Minute,
    Hour,
    Day,
    Week,
    Month,
    Year,
}

impl Unit {
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
const NICE: [(u32, Unit); 32] = [
    (1, Unit::Millisecond),
    (5, Unit::Millisecond),
    (10, Unit::Millisecond),
    (50, Unit::Millisecond),
    (100, Unit::Millisecond),
    (500, Unit::Millisecond),
    (1, Unit::Second),
    (5, Unit::Second),
    (10, Unit::Second),
    (30, Unit::Second),
    (1, Unit::Minute),
    (5, Unit::Minute),
    (10, Unit::Minute),
    (30, Unit::Minute),
    (1, Unit::Hour),
    (3, Unit::Hour),
    (6, Unit::Hour),
    (12, Unit::Hour),
    (1, Unit::Day),
    (2, Unit::Day),
    (1, Unit::Week),
    (2, Unit::Week),
    (1, Unit::Month),
    (3, Unit::Month),
    (6, Unit::Month),
    (1, Unit::Year),
    (2, Unit::Year),
    (5, Unit::Year),
    (10, Unit::Year),
    (50, Unit::Year),
    (100, Unit::Year),
    (1_000, Unit::Year),
];

impl Interval {
    /// Parses `1h`, `30m`, `hour`.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let (number, name) = text.split_at(text.find(|c: char| !c.is_ascii_digit())?);
        let name = name.trim();
        let spelled = |row: &&(Unit, &str, &str, Length)| {
            row.1 == name
                || name
                    .strip_suffix('s')
                    .filter(|name| name.len() > 1)
                    .unwrap_or(name)
                    .eq_ignore_ascii_case(row.2)
        };
        let (unit, ..) = Unit::TABLE.iter().find(spelled)?;
        let count = if number.is_empty() { 1 } else { number.parse().ok()? };
        (1..=100_000).contains(&count).then_some(Self { count, unit: *unit })
    }

    /// The shortest nice interval that divides the times from `first` to `last` into at most so many parts.
    pub(super) fn of_span(first: i64, last: i64, parts_max: usize) -> Self {
        let intervals = NICE.map(|(count, unit)| Self { count, unit });
        let fits = |interval: &&Self| interval.parts(first, last).is_some_and(|parts| parts <= parts_max);
        *intervals.iter().find(fits).unwrap_or(&intervals[NICE.len() - 1])
    }

    /// How many intervals reach from that of `first` to that of `last`.
    pub(super) fn parts(self, first: i64, last: i64) -> Option<usize> {
        let (first, last) = (self.number(first)?, self.number(last)?);
        usize::try_from(last.checked_sub(first)?.checked_add(1)?).ok()
    }

    /// The number of the interval that contains a time.
    pub(super) fn number(self, time: i64) -> Option<i64> {
        let count = i64::from(self.count);
        match self.unit.row().3 {
            Length::Micros(micros) => Some(time.checked_sub(self.origin())?.div_euclid(micros * count)),
            Length::Months(months) => {
                let date = DateTime::from_timestamp_micros(time)?.date_naive();
                let since_1970 = (i64::from(date.year()) - 1970) * 12 + i64::from(date.month0());
                Some(since_1970.div_euclid(months * count))
            }
        }
    }

    /// When an interval begins.
    pub(super) fn start(self, number: i64) -> Option<i64> {
        let count = i64::from(self.count);
        match self.unit.row().3 {
            Length::Micros(micros) => number.checked_mul(micros * count)?.checked_add(self.origin()),
            Length::Months(months) => {
                let since_1970 = number.checked_mul(months * count)?;
                let year = i32::try_from(since_1970.div_euclid(12).checked_add(1970)?).ok()?;
                let month = u32::try_from(since_1970.rem_euclid(12)).ok()? + 1;
                let date = NaiveDate::from_ymd_opt(year, month, 1)?;
                Some(date.and_hms_opt(0, 0, 0)?.and_utc().timestamp_micros())
            }
        }
    }

    fn origin(self) -> i64 {
        if self.unit == Unit::Week { MONDAY } else { 0 }
    }

    /// The SQL of the beginning of the interval that contains a time.
    pub(super) fn start_sql(self, time: &str) -> String {
        let origin = if self.unit == Unit::Week {
            "1970-01-05"
        } else {
            "1970-01-01"
        };
        let name = self.unit.row().2;
        format!(
            "date_bin(INTERVAL '{} {name}', {time}, TIMESTAMP '{origin}T00:00:00Z')",
            self.count
        )
    }
}

impl fmt::Display for Interval {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.count, self.unit.row().1)
    }
}
