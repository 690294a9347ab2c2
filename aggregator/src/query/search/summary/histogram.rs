//! Histograms: how many matches fall into each interval of time.

use datafusion::arrow::{
    array::{AsArray as _, RecordBatch},
    compute::cast,
    datatypes::{DataType, Int64Type, TimeUnit, TimestampMicrosecondType},
    error::ArrowError,
};
use plan::{Path, calendar::Interval, functions::interval_number::NUMBER};
use proto::{Code, Problem};

use super::{Matches, counts};
use crate::{
    answer::{Bucket, Histogram},
    failure,
    query::search::statement::input_path,
};

/// The intervals of a histogram, at most.
const BUCKETS_MAX: usize = 10_000;
/// The intervals of a histogram that chooses their length, at most.
const AUTO_BUCKETS_MAX: usize = 100;

/// A histogram as it was asked for.
#[derive(Debug, PartialEq)]
pub(super) struct HistogramRequest {
    /// The path of the time; None for `_time`.
    path: Option<Path>,
    /// None to choose one.
    interval: Option<Interval>,
}

impl HistogramRequest {
    /// Parses `1h`, `auto` or `order.paid_at:1d`.
    pub(super) fn parse(text: &str) -> Result<Self, Problem> {
        let bad = |detail: String| {
            Problem::new(Code::BadRequest, detail).hint(
                "write histogram=1h, histogram=auto, or order.paid_at:1d for another time than _time; the units \
                       are ms, s, m, h, d, w, M (months) and y",
            )
        };
        let (path, interval) = text
            .rsplit_once(':')
            .map_or((None, text), |(path, interval)| (Some(path), interval));
        let path = path.map(|path| Path::parse(path.trim())).transpose();
        let interval = match interval.trim() {
            "auto" => None,
            other => {
                Some(Interval::parse(other).ok_or_else(|| bad(format!("histogram: {other:?} is not an interval")))?)
            }
        };
        let path = path.map_err(|e| bad(format!("histogram: {e}")))?;
        Ok(Self {
            path: path.filter(|path| path.keys() != Some(vec!["_time"])),
            interval,
        })
    }

    pub(super) async fn compute(&self, matches: &Matches<'_>) -> Result<Histogram, Problem> {
        let time = format!(
            "{}::timestamp",
            input_path(self.path.as_ref().unwrap_or(&Path::of_keys(["_time"])))
        );
        let from = matches.input_sql();
        // The bounds of the search, which are bounds of `_time`, show where nothing is.
        let bounds = Some(matches.search.time_range).filter(|_| self.path.is_none());
        let (first, last) = (
            bounds.and_then(|range| range.from),
            bounds.and_then(|range| Some(range.to?.saturating_sub(1))),
        );
        let interval = match self.interval {
            Some(interval) => interval,
            None => {
                let span = match (first, last) {
                    (Some(first), Some(last)) => Some((first, last)),
                    _ => {
                        let found = matches.rows(&format!("SELECT min({time}), max({time}) {from}")).await?;
                        let (earliest, latest) = (times(&found, 0)?, times(&found, 1)?);
                        let found = earliest
                            .first()
                            .copied()
                            .flatten()
                            .zip(latest.first().copied().flatten());
                        found.map(|(earliest, latest)| (first.unwrap_or(earliest), last.unwrap_or(latest)))
                    }
                };
                let Some((first, last)) = span else {
                    return Ok(Histogram::default());
                };
                Interval::of_span(first, last, AUTO_BUCKETS_MAX)
            }
        };
        let sql = format!(
            "SELECT {NUMBER}({time}, '{interval}') AS number, count(*) AS count {from} \
             GROUP BY 1 ORDER BY 1 NULLS LAST LIMIT {}",
            BUCKETS_MAX + 1
        );
        let rows = matches.rows(&sql).await?;
        let numbers = rows.column(0).as_primitive::<Int64Type>().iter();
        let found = numbers.zip(counts(&rows, 1)?);
        let found: Vec<(i64, u64)> = found.filter_map(|(number, count)| Some((number?, count))).collect();
        filled(&found, interval, first, last)
    }
}

/// A column of times, in microseconds since 1970.
fn times(rows: &RecordBatch, column: usize) -> Result<Vec<Option<i64>>, Problem> {
    let micros = DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()));
    let times = cast(rows.column(column), &micros).map_err(|e: ArrowError| failure::problem(e.into()))?;
    Ok(times.as_primitive::<TimestampMicrosecondType>().iter().collect())
}

/// The intervals from that of `first` to that of `last`, or those of the found ones, with 0 where nothing was found. The
/// found ones have their numbers.
fn filled(
    found: &[(i64, u64)],
    interval: Interval,
    first: Option<i64>,
    last: Option<i64>,
) -> Result<Histogram, Problem> {
    let histogram = |buckets| Histogram {
        interval: interval.to_string(),
        buckets,
    };
    let number = |time: Option<i64>| time.and_then(|time| interval.number(time));
    let (earliest, latest) = (
        found.first().map(|(number, _)| *number),
        found.last().map(|(number, _)| *number),
    );
    let span = number(first).or(earliest).zip(number(last).or(latest));
    let Some((first, last)) = span.filter(|(first, last)| first <= last) else {
        return Ok(histogram(Vec::new()));
    };
    let parts = usize::try_from(last.saturating_sub(first))
        .unwrap_or(usize::MAX)
        .saturating_add(1);
    if parts > BUCKETS_MAX || found.len() > BUCKETS_MAX {
        let parts = match found.len() > BUCKETS_MAX {
            true => format!("more than {BUCKETS_MAX}"),
            false => parts.to_string(),
        };
        let detail = format!("a histogram of {interval} has {parts} intervals; the limit is {BUCKETS_MAX}");
        return Err(Problem::new(Code::LimitReached, detail)
            .hint("choose a longer interval, or auto, or limit the times by from and to"));
    }
    let mut counted = found.iter().peekable();
    let mut buckets = Vec::with_capacity(parts);
    for number in first..=last {
        let count = counted
            .next_if(|(found, _)| *found == number)
            .map_or(0, |(_, count)| *count);
        let time = interval.start(number).ok_or_else(|| {
            Problem::new(
                Code::LimitReached,
                format!("an interval of {interval} begins before the first time there is"),
            )
            .hint("choose a shorter interval")
        })?;
        buckets.push(Bucket { time, count });
    }
    Ok(histogram(buckets))
}
