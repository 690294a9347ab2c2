//! Retention: how long a collection keeps its documents.

use std::{str::FromStr, sync::Arc, time::Duration};

use serde::{Deserialize, Serialize};

use crate::address::{Malformed, malformed};

/// The shortest and the longest retention.
const KEPT_MIN: Duration = Duration::from_secs(1);
const KEPT_MAX: Duration = Duration::from_hours(100 * 366 * 24);
/// Expired documents are removed this often within the retention …
const STEPS: u32 = 100;
/// … but at least and at most after this time.
const STEP_MIN: Duration = Duration::from_mins(1);
const STEP_MAX: Duration = Duration::from_hours(24);

/// How long documents are kept, as text: `30d`, `12h`, `30d by event`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Retention {
    text: Arc<str>,
    /// How old a document may become.
    pub kept: Duration,
    /// Which time its age is counted from.
    pub by: AgeBy,
}

/// The time from which the age of a document is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AgeBy {
    /// When it was ingested.
    Ingest,
    /// Its event time, at the time path of the collection.
    Event,
}

impl AgeBy {
    /// The system column with this time.
    pub fn column(self) -> &'static str {
        match self {
            Self::Ingest => "_ingested",
            Self::Event => "_time",
        }
    }
}

impl Retention {
    /// How often expired documents are removed: so documents become at most 1% older, or a minute, or a day.
    pub fn step(&self) -> Duration {
        (self.kept / STEPS).clamp(STEP_MIN, STEP_MAX)
    }

    /// Documents from before this time are expired, in milliseconds since 1970.
    pub fn expires_before_ms(&self, now_ms: i64) -> i64 {
        now_ms.saturating_sub(i64::try_from(self.kept.as_millis()).unwrap_or(i64::MAX))
    }

    /// The setting as text.
    pub fn as_str(&self) -> &str {
        &self.text
    }
}

impl FromStr for Retention {
    type Err = Malformed;
    fn from_str(text: &str) -> Result<Self, Malformed> {
        let words: Vec<&str> = text.split_whitespace().collect();
        let (duration, by) = match &words[..] {
            [duration @ .., by, column] if by.eq_ignore_ascii_case("by") => (duration, age_by(column)),
            duration => (duration, Some(AgeBy::Ingest)),
        };
        let kept = humantime::parse_duration(&duration.concat()).ok();
        let kept = kept.filter(|kept| (KEPT_MIN..=KEPT_MAX).contains(kept));
        match (kept, by) {
            (Some(kept), Some(by)) => Ok(Self {
                text: words.join(" ").into(),
                kept,
                by,
            }),
            _ => Err(malformed(
                text,
                "a retention (a duration of 1s to 100 years, such as 30d or 12h, by the time of ingest; or 30d by event, by _time)",
            )),
        }
    }
}

fn age_by(column: &str) -> Option<AgeBy> {
    match column.to_ascii_lowercase().as_str() {
        "ingest" | "_ingested" => Some(AgeBy::Ingest),
        "event" | "_time" => Some(AgeBy::Event),
        _ => None,
    }
}

impl TryFrom<String> for Retention {
    type Error = Malformed;
    fn try_from(text: String) -> Result<Self, Malformed> {
        text.parse()
    }
}

impl From<Retention> for String {
    fn from(retention: Retention) -> Self {
        retention.text.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_retention_is_a_duration_and_which_time_it_is_counted_from() {
        const DAY: u64 = 24 * 3_600;
        for (text, seconds, by, step) in [
            ("30d", 30 * DAY, AgeBy::Ingest, 30 * DAY / 100),
            (" 12h  by  Ingest", DAY / 2, AgeBy::Ingest, DAY / 200),
            ("30 days by event", 30 * DAY, AgeBy::Event, 30 * DAY / 100),
            ("1d 12h by _time", DAY * 3 / 2, AgeBy::Event, DAY * 3 / 200),
            ("10s", 10, AgeBy::Ingest, 60),
            ("2000d", 2_000 * DAY, AgeBy::Ingest, DAY),
            ("100y", 100 * 1_461 * DAY / 4, AgeBy::Ingest, DAY),
        ] {
            let retention: Retention = text.parse().expect(text);
            assert_eq!((retention.kept.as_secs(), retention.by), (seconds, by), "{text}");
            assert_eq!(retention.step().as_secs(), step, "{text}");
            assert_eq!(retention.expires_before_ms(0), -1_000 * seconds.cast_signed(), "{text}");
            assert_eq!(retention.as_str().parse(), Ok(retention.clone()), "{text}");
            let json = serde_json::to_string(&retention).expect("JSON");
            assert_eq!(serde_json::from_str::<Retention>(&json).ok(), Some(retention), "{text}");
        }
        for text in [
            "",
            "30",
            "0s",
            "999ms",
            "-1d",
            "30d by",
            "by event",
            "30d by size",
            "101y",
            "30d by event by event",
            "∞",
        ] {
            assert!(text.parse::<Retention>().is_err(), "{text}");
        }
    }
}
