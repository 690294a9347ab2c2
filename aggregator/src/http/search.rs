//! `GET` and `POST /v1/collections/{c}/search`: the same question by query string and by body.

use axum::{
    body::Body,
    extract::{Query, State, rejection::QueryRejection},
    http::{HeaderMap, HeaderValue, header},
    response::{IntoResponse, Response},
};
use proto::{Code, PositionVector, Problem};
use serde::Deserialize;

use super::{
    App, body,
    refusal::{PathText, Refusal, collection_name, no_collection, path_text},
    sql::{How, ScanFrom},
};
use crate::{
    answer::{SearchAnswer, SearchQuestion},
    render::{self, Lines},
};

/// What may be asked.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Asked {
    q: String,
    from: Option<String>,
    to: Option<String>,
    sort: Option<String>,
    limit: Option<usize>,
    after: Option<String>,
    at_least: Option<PositionVector>,
    allow_partial: bool,
    timeout_ms: Option<u64>,
    scan: ScanFrom,
    query_id: Option<String>,
}

/// Answers a search by query string.
pub(super) async fn by_query(
    State(app): State<App>,
    path: PathText,
    query: Result<Query<Asked>, QueryRejection>,
) -> Result<Response, Refusal> {
    let Query(asked) = query.map_err(|e| {
        Problem::new(Code::BadRequest, e.body_text())
            .hint("a search is q, from, to, sort, limit, after, at_least, allow_partial, timeout_ms, scan, query_id")
    })?;
    search(&app, path, asked).await
}

/// Answers a search by body.
pub(super) async fn by_body(
    State(app): State<App>,
    path: PathText,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Refusal> {
    let asked = body::json(&headers, body).await?;
    search(&app, path, asked).await
}

async fn search(app: &App, path: PathText, asked: Asked) -> Result<Response, Refusal> {
    let name = collection_name(&path_text(path)?)?;
    let catalog = app.engine.catalog();
    if !catalog.collections.contains_key(&name) && catalog.view(name.as_str()).is_none() {
        return Err(no_collection(&name, &catalog).into());
    }
    let Asked {
        at_least,
        allow_partial,
        timeout_ms,
        scan,
        query_id,
        ..
    } = asked;
    let how = How {
        at_least,
        allow_partial,
        timeout_ms,
        scan,
        query_id,
    };
    let question = SearchQuestion {
        collection: name.to_string(),
        query: asked.q,
        from: asked.from,
        to: asked.to,
        sort: asked.sort,
        limit: asked.limit,
        after: asked.after.filter(|after| !after.is_empty()),
        how: how.read()?,
    };
    let answer = app.engine.search(question).await?;
    let mut response = told(&answer).into_response();
    response
        .headers_mut()
        .insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    Ok(response)
}

fn told(answer: &SearchAnswer) -> Vec<u8> {
    let mut out = Vec::with_capacity(
        256 + answer
            .hits
            .iter()
            .map(|hit| hit.document.len() + hit.id.len() + 64)
            .sum::<usize>(),
    );
    out.extend_from_slice(b"{\"hits\":[");
    for (i, hit) in answer.hits.iter().enumerate() {
        out.extend_from_slice(if i > 0 { b",{\"id\":" } else { b"{\"id\":" });
        match hit.id.as_str() {
            "" => out.extend_from_slice(b"null"),
            id => render::string(&mut out, id),
        }
        out.extend_from_slice(b",\"score\":null,\"document\":");
        match hit.json {
            true => render::verbatim(&mut out, &hit.document, Lines::Any),
            false => render::string(&mut out, &hit.document),
        }
        out.push(b'}');
    }
    let rest = serde_json::json!({ "total": answer.total, "after": answer.after, "stats": answer.stats.to_json() })
        .to_string();
    out.extend_from_slice(b"],");
    out.extend_from_slice(&rest.as_bytes()[1..]);
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::answer::{Hit, Stats};

    #[test]
    fn a_hit_holds_its_document_verbatim() {
        let hit = |document: &str, json| Hit {
            id: "push/0@1".into(),
            address: "push/0@1".into(),
            document: document.into(),
            json,
        };
        let hits = vec![hit("{\"n\" : 1.50}", true), hit("a \"line\"", false)];
        let text = String::from_utf8(told(&SearchAnswer {
            hits,
            total: 2,
            after: None,
            stats: Stats::default(),
        }))
        .expect("UTF-8");
        assert!(
            text.starts_with(
                r#"{"hits":[{"id":"push/0@1","score":null,"document":{"n" : 1.50}},{"id":"push/0@1","score":null,"document":"a \"line\""}],"#
            ),
            "{text}"
        );
        let json: serde_json::Value = serde_json::from_str(&text).expect("JSON");
        assert_eq!((&json["total"], &json["after"]), (&2.into(), &serde_json::Value::Null));
    }

    #[test]
    fn a_hit_without_an_id_says_so() {
        let hits = vec![Hit {
            id: String::new(),
            address: String::new(),
            document: "{\"n\":1}".into(),
            json: true,
        }];
        let text = String::from_utf8(told(&SearchAnswer {
            hits,
            total: 1,
            after: None,
            stats: Stats::default(),
        }))
        .expect("UTF-8");
        assert!(
            text.starts_with(r#"{"hits":[{"id":null,"score":null,"document":{"n":1}}],"#),
            "{text}"
        );
    }

    #[test]
    fn what_is_not_known_is_refused_and_named() {
        let error = serde_json::from_str::<Asked>(r#"{"q":"x","facets":["a"]}"#).expect_err("it is refused");
        assert!(error.to_string().contains("facets"), "{error}");
    }
}
