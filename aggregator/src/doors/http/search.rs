//! `GET` and `POST /v1/collections/{c}/search`: the same search by query string or by JSON body.

use axum::{
    extract::{Query, Request, State, rejection::QueryRejection},
    http::{HeaderValue, header},
    response::{IntoResponse, Response},
};
use proto::{Code, PositionVector, Problem};
use serde::Deserialize;

use super::{
    body,
    error::{HttpError, PathText, path_text},
    sql::{QueryOptionsBody, ScanSourceBody},
    state::AppState,
};
use crate::{
    answer::{SearchAnswer, SearchQuery},
    doors::names::{collection_name, no_collection},
    render::{self, LineBreaks},
};

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct SearchParameters {
    q: String,
    from: Option<String>,
    to: Option<String>,
    sort: Option<String>,
    limit: Option<usize>,
    after: Option<String>,
    at_least: Option<PositionVector>,
    allow_partial: bool,
    timeout_ms: Option<u64>,
    scan: ScanSourceBody,
    query_id: Option<String>,
}

/// `GET`: parameters in the query string.
pub(super) async fn by_query(
    State(app): State<AppState>,
    path: PathText,
    query: Result<Query<SearchParameters>, QueryRejection>,
) -> Result<Response, HttpError> {
    let Query(parameters) = query.map_err(|e| {
        Problem::new(Code::BadRequest, e.body_text()).hint(
            "the parameters of a search are q, from, to, sort, limit, after, at_least, allow_partial, timeout_ms, \
             scan and query_id",
        )
    })?;
    search(&app, path, parameters).await
}

/// `POST`: parameters in the body.
pub(super) async fn by_body(
    State(app): State<AppState>,
    path: PathText,
    request: Request,
) -> Result<Response, HttpError> {
    let parameters = body::json(request).await?;
    search(&app, path, parameters).await
}

async fn search(app: &AppState, path: PathText, parameters: SearchParameters) -> Result<Response, HttpError> {
    let name = collection_name(&path_text(path)?)?;
    let catalog = app.engine.catalog();
    if !catalog.collections.contains_key(&name) && catalog.view(name.as_str()).is_none() {
        return Err(no_collection(&name, &catalog).into());
    }
    let SearchParameters {
        at_least,
        allow_partial,
        timeout_ms,
        scan,
        query_id,
        ..
    } = parameters;
    let options = QueryOptionsBody {
        at_least,
        allow_partial,
        timeout_ms,
        scan,
        query_id,
    };
    let query = SearchQuery {
        collection: name.to_string(),
        query: parameters.q,
        from: parameters.from,
        to: parameters.to,
        sort: parameters.sort,
        limit: parameters.limit,
        after: parameters.after.filter(|after| !after.is_empty()),
        options: options.parse()?,
    };
    let answer = app.engine.search(query).await?;
    let mut response = to_json(&answer).into_response();
    response
        .headers_mut()
        .insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    Ok(response)
}

/// Writes the documents verbatim, so that numbers and the order of keys stay as they were ingested.
fn to_json(answer: &SearchAnswer) -> Vec<u8> {
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
            true => render::verbatim(&mut out, &hit.document, LineBreaks::Keep),
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
    fn a_hit_has_its_document_verbatim() {
        let hit = |document: &str, json| Hit {
            id: "push/0@1".into(),
            address: "push/0@1".into(),
            document: document.into(),
            json,
        };
        let hits = vec![hit("{\"n\" : 1.50}", true), hit("a \"line\"", false)];
        let text = String::from_utf8(to_json(&SearchAnswer {
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
    fn a_hit_without_an_id_has_null() {
        let hits = vec![Hit {
            id: String::new(),
            address: String::new(),
            document: "{\"n\":1}".into(),
            json: true,
        }];
        let text = String::from_utf8(to_json(&SearchAnswer {
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
    fn an_unknown_parameter_is_an_error_that_names_it() {
        let error = serde_json::from_str::<SearchParameters>(r#"{"q":"x","facets":["a"]}"#).expect_err("an error");
        assert!(error.to_string().contains("facets"), "{error}");
    }
}
