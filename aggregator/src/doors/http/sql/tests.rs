//! Tests of `sql`.

use super::*;

fn query(content_type: &str, body: &str) -> Result<SqlQuery, Problem> {
    let headers = [(header::CONTENT_TYPE, content_type.parse().expect("a header"))]
        .into_iter()
        .collect();
    parse(&headers, body.as_bytes())
}

#[test]
fn a_json_body_has_parameters_and_options() {
    let body = r#"{"sql":"select $1","parameters":[1],"at_least":"push/0@3","allow_partial":true,"timeout_ms":5,"scan":"raw",
            "query_id":"00000000-0000-0000-0000-0000000000ff","author":"ann","all_rows":true}"#;
    let SqlQuery {
        sql,
        parameters,
        author,
        all_rows,
        options,
    } = query("application/json", body).expect("a query");
    assert_eq!(
        (sql.as_str(), parameters.len(), options.at_least.to_string().as_str()),
        ("select $1", 1, "push/0@3")
    );
    assert_eq!(
        (options.allow_partial, options.timeout, options.read),
        (true, Some(Duration::from_millis(5)), ScanSource::Raw)
    );
    assert_eq!(options.id.map(|id| id.0), Some(255));
    assert_eq!((author.as_deref(), all_rows), (Some("ann"), true));
}

#[test]
fn a_statement_may_be_plain_text() {
    assert_eq!(
        query("text/plain; charset=utf-8", "select 1").map(|q| q.sql),
        Ok("select 1".into())
    );
    assert_eq!(
        query("application/x-www-form-urlencoded", " {\"sql\":\"select 2\"}").map(|q| q.sql),
        Ok("select 2".into())
    );
    assert_eq!(
        query("application/x-www-form-urlencoded", "select 3").map(|q| q.sql),
        Ok("select 3".into())
    );
    assert_eq!(
        query("application/xml", "<a/>").map_err(|p| p.code).err(),
        Some(Code::UnsupportedMedia)
    );
}

#[test]
fn an_unknown_key_is_an_error_that_names_it() {
    let problem = query("application/json", r#"{"sql":"select 1","limt":3}"#).expect_err("an error");
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
            query("application/json", body).map_err(|p| p.code).err(),
            Some(Code::BadRequest),
            "{body}"
        );
    }
}

#[test]
fn a_body_that_is_no_statement_is_refused_in_plain_words() {
    for (body, words) in [
        (r#"["select 1"]"#, "the body must be an object, not a list"),
        (r#""select 1""#, "the body must be an object, not a text"),
        (
            r#"{"sql":"x","parameters":{"a":{}}}"#,
            "parameters must be a list, not an object",
        ),
        (r#"{"sql":1}"#, "sql must be a text, not 1"),
        (r#"{"sql":"x","scan":"rw"}"#, "scan must be `auto` or `raw`, not `rw`"),
        (
            r#"{"sql":"x","timeout_ms":"5"}"#,
            "timeout_ms must be a whole number from 0, not the text \"5\"",
        ),
        (
            r#"{"sql":"x","allow_partial":1}"#,
            "allow_partial must be true or false, not 1",
        ),
        (r#"{"sql":"x","sql":"y"}"#, "sql is given twice"),
        (r#"{"query":"x"}"#, "missing field `sql`"),
    ] {
        let problem = query("application/json", body).expect_err(body);
        assert_eq!(problem.detail, words, "{body}");
        let hint = problem.hint.unwrap_or_default();
        assert!(hint.starts_with("send {\"sql\": \"SELECT 1\"}"), "{hint}");
    }
}
