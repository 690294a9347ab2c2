//! `POST /v1/sql`: a statement as JSON with what goes with it, or as plain text.

use std::time::Duration;

use axum::{
    body::Body,
    extract::State,
    http::{HeaderMap, header},
    response::Response,
};
use plan::scan::Read;
use proto::{Code, PositionVector, Problem};
use serde::Deserialize;

use super::{
    App, answer,
    body::{self, not_understood},
    refusal::Refusal,
};
use crate::answer::{self as questions, Question};

/// Bytes of a request beyond those of its statement: parameters, and the escapes of JSON.
const EXTRA_BYTES_MAX: usize = 4 << 20;

/// The body of a question.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Asked {
    sql: String,
    #[serde(default)]
    parameters: Vec<serde_json::Value>,
    #[serde(flatten)]
    how: How,
}

/// What may be said about any question.
#[derive(Debug, Default, Deserialize)]
pub(super) struct How {
    #[serde(default)]
    pub at_least: Option<PositionVector>,
    #[serde(default)]
    pub allow_partial: bool,
    #[serde(default)]
    pub timeout_ms: Option<u64>,
    #[serde(default)]
    pub scan: ScanFrom,
    #[serde(default)]
    pub query_id: Option<String>,
}

/// From what an answer is computed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum ScanFrom {
    #[default]
    Auto,
    Raw,
}

impl How {
    /// What it says.
    pub fn read(self) -> Result<questions::How, Problem> {
        if self.timeout_ms == Some(0) {
            return Err(Problem::new(Code::BadRequest, "timeout_ms is 0").hint("give at least 1, or leave it out"));
        }
        Ok(questions::How {
            at_least: self.at_least.unwrap_or_default(),
            allow_partial: self.allow_partial,
            timeout: self.timeout_ms.map(Duration::from_millis),
            read: match self.scan {
                ScanFrom::Auto => Read::Auto,
                ScanFrom::Raw => Read::Raw,
            },
            id: self.query_id.as_deref().map(questions::How::chosen_id).transpose()?,
        })
    }
}

/// Answers a statement.
pub(super) async fn ask(State(app): State<App>, headers: HeaderMap, body: Body) -> Result<Response, Refusal> {
    let form = answer::Form::of(&headers)?;
    let bytes = body::read(
        &headers,
        body,
        app.engine.options.statement_bytes_max.saturating_add(EXTRA_BYTES_MAX),
        None,
    )
    .await?;
    let question = question(&headers, &bytes)?;
    let answer = app.engine.ask(question).await?;
    Ok(answer::respond(answer, form).await?)
}

fn question(headers: &HeaderMap, bytes: &[u8]) -> Result<Question, Problem> {
    if !is_json(headers, bytes)? {
        let sql = std::str::from_utf8(bytes)
            .map_err(|e| Problem::new(Code::BadSql, format!("the statement is not UTF-8: {e}")))?;
        return Ok(Question {
            sql: sql.to_owned(),
            ..Question::default()
        });
    }
    let asked: Asked = serde_json::from_slice(bytes).map_err(|e| {
        not_understood(&e)
            .hint("a question is {\"sql\", \"parameters\", \"at_least\", \"allow_partial\", \"timeout_ms\", \"scan\", \"query_id\"}, or plain text as text/plain")
    })?;
    Ok(Question {
        sql: asked.sql,
        parameters: asked.parameters,
        how: asked.how.read()?,
    })
}

/// Whether a body is JSON: by its content type or, where that says nothing of use, by its look.
fn is_json(headers: &HeaderMap, bytes: &[u8]) -> Result<bool, Problem> {
    let given = headers
        .get(header::CONTENT_TYPE)
        .and_then(|value| value.to_str().ok())
        .unwrap_or_default();
    let essence = given.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    match essence.as_str() {
        "application/json" => Ok(true),
        "text/plain" | "application/sql" | "text/sql" => Ok(false),
        "" | "application/x-www-form-urlencoded" | "application/octet-stream" => {
            Ok(bytes.trim_ascii_start().starts_with(b"{"))
        }
        other => Err(
            Problem::new(Code::UnsupportedMedia, format!("a question cannot be {other:?}"))
                .hint("send application/json or text/plain"),
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(content_type: &str, body: &str) -> Result<Question, Problem> {
        let headers = [(header::CONTENT_TYPE, content_type.parse().expect("a header"))]
            .into_iter()
            .collect();
        question(&headers, body.as_bytes())
    }

    #[test]
    fn a_question_says_what_goes_with_it() {
        let body = r#"{"sql":"select $1","parameters":[1],"at_least":"push/0@3","allow_partial":true,"timeout_ms":5,"scan":"raw",
            "query_id":"00000000-0000-0000-0000-0000000000ff"}"#;
        let Question { sql, parameters, how } = asked("application/json", body).expect("a question");
        assert_eq!(
            (sql.as_str(), parameters.len(), how.at_least.to_string().as_str()),
            ("select $1", 1, "push/0@3")
        );
        assert_eq!(
            (how.allow_partial, how.timeout, how.read),
            (true, Some(Duration::from_millis(5)), Read::Raw)
        );
        assert_eq!(how.id.map(|id| id.0), Some(255));
    }

    #[test]
    fn a_statement_may_be_plain_text() {
        assert_eq!(
            asked("text/plain; charset=utf-8", "select 1").map(|q| q.sql),
            Ok("select 1".into())
        );
        assert_eq!(
            asked("application/x-www-form-urlencoded", " {\"sql\":\"select 2\"}").map(|q| q.sql),
            Ok("select 2".into())
        );
        assert_eq!(
            asked("application/x-www-form-urlencoded", "select 3").map(|q| q.sql),
            Ok("select 3".into())
        );
        assert_eq!(
            asked("application/xml", "<a/>").map_err(|p| p.code).err(),
            Some(Code::UnsupportedMedia)
        );
    }

    #[test]
    fn what_is_not_known_is_refused_and_named() {
        let problem = asked("application/json", r#"{"sql":"select 1","limt":3}"#).expect_err("it is refused");
        assert!(problem.detail.contains("limt"), "{problem}");
        for body in [
            r#"{"sql":1}"#,
            "{}",
            "[",
            r#"{"sql":"x","scan":"fast"}"#,
            r#"{"sql":"x","at_least":"here"}"#,
            r#"{"sql":"x","timeout_ms":0}"#,
            r#"{"sql":"x","query_id":"mine"}"#,
        ] {
            assert_eq!(
                asked("application/json", body).map_err(|p| p.code).err(),
                Some(Code::BadRequest),
                "{body}"
            );
        }
    }
}
