//! Which paths of a collection look like times, so that one of them may be its time path.

use plan::{scan::PathStatus, value};
use serde_json::Value;

/// The names that are suggested at most.
const SUGGESTED_MAX: usize = 5;
/// The times that events have, in microseconds since 1970: from 1990 to 2100. Other numbers are no times.
const EVENTS_US: std::ops::Range<i64> = 631_152_000_000_000..4_102_444_800_000_000;
/// A number is a time only if the last name of its path says so: it ends with one of these words.
const WORDS: [&str; 12] = [
    "time",
    "timestamp",
    "ts",
    "date",
    "at",
    "when",
    "created",
    "updated",
    "modified",
    "started",
    "ended",
    "epoch",
];
/// What may follow such a word: the unit.
const UNITS: [&str; 7] = ["s", "ms", "us", "ns", "sec", "millis", "micros"];

/// The paths that look like times, those of most documents first.
pub(super) fn time_paths(fields: &[PathStatus]) -> Vec<String> {
    let mut paths: Vec<&PathStatus> = fields.iter().filter(|field| looks_like_time(field)).collect();
    paths.sort_by_key(|field| std::cmp::Reverse(field.documents));
    let names = paths.into_iter().map(|field| field.path.to_string());
    names.take(SUGGESTED_MAX).collect()
}

fn looks_like_time(field: &PathStatus) -> bool {
    let sample = field
        .sample
        .as_deref()
        .and_then(|sample| serde_json::from_str(sample).ok());
    let time_us = match sample {
        Some(Value::String(text)) => value::time_of_text(&text),
        Some(Value::Number(number)) if is_named_like_a_time(&field.path.to_string()) => match number.as_i64() {
            Some(int) => value::time_of_int(int),
            None => number.as_f64().and_then(value::time_of_double),
        },
        _ => None,
    };
    time_us.is_some_and(|time_us| EVENTS_US.contains(&time_us))
}

/// Whether the last word of a path is one for times: `createdAt`, `event_time`, `ts`, `time_us`.
fn is_named_like_a_time(path: &str) -> bool {
    let mut words: Vec<String> = vec![String::new()];
    for letter in path.chars() {
        if !letter.is_alphanumeric() || letter.is_uppercase() {
            words.push(String::new());
        }
        if let Some(word) = words.last_mut().filter(|_| letter.is_alphanumeric()) {
            word.extend(letter.to_lowercase());
        }
    }
    words.retain(|word| !word.is_empty());
    let is = |word: Option<&String>, of: &[&str]| word.is_some_and(|word| of.contains(&word.as_str()));
    let before_unit = if is(words.last(), &UNITS) {
        words.iter().nth_back(1)
    } else {
        None
    };
    is(words.last(), &WORDS) || is(before_unit, &WORDS)
}

#[cfg(test)]
mod tests {
    use plan::{Kinds, Path, scan::PathIndex};

    use super::*;

    fn field(path: &str, documents: u64, sample: &str) -> PathStatus {
        PathStatus {
            path: Path::parse(path).expect("a path"),
            kinds: Kinds(0),
            documents,
            indexed: PathIndex::Columns,
            sample: Some(sample.to_owned()),
        }
    }

    #[test]
    fn texts_that_are_times_and_numbers_that_are_named_like_times_are_suggested() {
        for (path, sample, expected) in [
            ("created_at", "\"2026-11-28T10:00:00Z\"", true),
            ("anything", "\"2026-11-28\"", true),
            ("time_us", "1764324000000000", true),
            ("createdAt", "1764324000.5", true),
            ("a.eventTime", "1764324000000", true),
            ("ts", "1764324000", true),
            ("ts", "17", false),
            ("seat", "1764324000", false),
            ("id", "1764324000", false),
            ("format", "1764324000", false),
            ("items", "1764324000", false),
            ("name", "\"2026\"", false),
            ("at", "\"2026-11-28T10:00:00Z", false),
            ("at", "null", false),
            ("born_at", "\"1804-01-01\"", false),
        ] {
            let found = time_paths(&[field(path, 1, sample)]);
            assert_eq!(!found.is_empty(), expected, "{path}: {sample}");
        }
        let day = "\"2026-11-28\"";
        let fields = [field("rare", 1, day), field("usual", 9, day), field("no", 20, "7")];
        assert_eq!(time_paths(&fields), ["usual", "rare"]);
    }
}
