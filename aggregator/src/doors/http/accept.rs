//! Content negotiation: which format of an answer `Accept` prefers.

use axum::http::{HeaderMap, header};
use proto::{Code, Problem};

use crate::doors::answer_writer::AnswerFormat;

impl AnswerFormat {
    /// The row of the table for JSON.
    const JSON: (AnswerFormat, &'static str, &'static str) =
        (AnswerFormat::Json, "application/json", "application/json");

    /// The format, the media type that selects it, and the content type of the response.
    const TABLE: [(AnswerFormat, &'static str, &'static str); 5] = [
        Self::JSON,
        (AnswerFormat::Ndjson, "application/x-ndjson", "application/x-ndjson"),
        (AnswerFormat::Csv, "text/csv", "text/csv; charset=utf-8; header=present"),
        (
            AnswerFormat::Tsv,
            "text/tab-separated-values",
            "text/tab-separated-values; charset=utf-8",
        ),
        (
            AnswerFormat::Arrow,
            "application/vnd.apache.arrow.stream",
            "application/vnd.apache.arrow.stream",
        ),
    ];

    /// The supported format that `Accept` prefers. JSON without an `Accept` header.
    pub(crate) fn of(headers: &HeaderMap) -> Result<Self, Problem> {
        Self::preferred(headers, &Self::TABLE)
    }

    /// Fails unless `Accept` includes JSON, the only format of a search.
    pub(super) fn require_json(headers: &HeaderMap) -> Result<(), Problem> {
        match Self::preferred(headers, &[Self::JSON]) {
            Ok(_) => Ok(()),
            Err(problem) => Err(problem.hint(
                "a search is written as application/json; SELECT … WHERE search('…') by POST /v1/sql also as NDJSON, \
                 CSV, TSV and Arrow",
            )),
        }
    }

    /// The format among these rows of the table that `Accept` prefers. JSON without an `Accept` header.
    fn preferred(headers: &HeaderMap, rows: &[(Self, &'static str, &'static str)]) -> Result<Self, Problem> {
        let accept: Vec<&str> = headers
            .get_all(header::ACCEPT)
            .iter()
            .filter_map(|value| value.to_str().ok())
            .collect();
        let mut best: Option<(f32, Self)> = None;
        for entry in accept.iter().flat_map(|value| value.split(',')) {
            let mut parts = entry.split(';').map(str::trim);
            let range = parts.next().unwrap_or_default().to_ascii_lowercase();
            let weight = parts
                .find_map(|part| part.strip_prefix("q="))
                .map_or(1.0, |q| q.parse().unwrap_or(0.0));
            let format = rows.iter().find(|row| matches(&range, row.1)).map(|row| row.0);
            if let Some(format) = format.filter(|_| weight > 0.0 && best.is_none_or(|(other, _)| weight > other)) {
                best = Some((weight, format));
            }
        }
        match best {
            Some((_, format)) => Ok(format),
            None if accept.iter().all(|value| value.trim().is_empty()) => Ok(Self::Json),
            None => Err(not_acceptable(&accept.join(", "))),
        }
    }

    pub(super) fn content_type(self) -> &'static str {
        Self::TABLE
            .iter()
            .find(|row| row.0 == self)
            .map_or("application/json", |row| row.2)
    }

    /// Whether the statistics go into a header or trailer, because the format has no place for them.
    pub(super) fn has_stats_header(self) -> bool {
        matches!(self, Self::Csv | Self::Tsv | Self::Arrow)
    }
}

fn not_acceptable(accept: &str) -> Problem {
    let supported: Vec<&str> = AnswerFormat::TABLE.iter().map(|row| row.1).collect();
    Problem::new(
        Code::NotAcceptable,
        format!("no supported format matches Accept: {accept}"),
    )
    .hint(format!("Accept can be {}", supported.join(", ")))
}

/// Whether a media range of `Accept` includes a media type.
fn matches(range: &str, media: &str) -> bool {
    range == media
        || range == "*/*"
        || range
            .strip_suffix("/*")
            .is_some_and(|kind| media.split('/').next() == Some(kind))
        || (range == "application/ndjson" && media == "application/x-ndjson")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_search_is_refused_unless_json_is_accepted() {
        let checked = |accept: &str| {
            let headers = [(header::ACCEPT, accept.parse().expect("a header"))];
            AnswerFormat::require_json(&headers.into_iter().collect())
        };
        assert_eq!(AnswerFormat::require_json(&HeaderMap::new()), Ok(()));
        for accept in [
            "",
            "*/*",
            "application/json",
            "application/*",
            "text/csv, application/json;q=0.1",
            "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8",
        ] {
            assert_eq!(checked(accept), Ok(()), "{accept}");
        }
        for accept in [
            "text/csv",
            "text/html",
            "application/xml",
            "application/x-ndjson",
            "application/json;q=0",
        ] {
            let problem = checked(accept).expect_err(accept);
            assert_eq!(problem.code, Code::NotAcceptable, "{accept}");
            assert!(problem.to_string().contains("application/json"), "{problem}");
        }
    }
}
