//! `GET` and `POST /v1/collections/{c}/search`: the same search by query string or by JSON body.

use std::fmt::Display;

use axum::{
    extract::{Query, Request, State, rejection::QueryRejection},
    http::{HeaderMap, HeaderValue, header},
    response::{IntoResponse, Response},
};
use chrono::{DateTime, SecondsFormat};
use proto::PositionVector;
use serde::{Deserialize, Deserializer};
use serde_json::{Map, Value, json};
use utoipa::{IntoParams, ToSchema};

use super::{
    body,
    error::{HttpError, PathText, path_text},
    openapi::schemas,
    shape::bad_query,
    sql::{QueryOptionsBody, ScanSourceBody},
    state::AppState,
};
use crate::{
    answer::{Bucket, Facet, FacetValue, Highlight, SearchAnswer, SearchQuery, SearchedField, SearchedFields},
    doors::{
        answer_writer::AnswerFormat,
        names::{collection_name, no_collection},
    },
    render::{self, LineBreaks},
};

const HINT: &str = "the parameters of a search are q, from, to, sort, limit, after, highlight, facets, histogram, fields, \
                    at_least, allow_partial, timeout_ms, scan and query_id";

/// What to search for, and what to answer.
#[derive(Debug, Default, Deserialize, IntoParams, ToSchema)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct SearchParameters {
    /// What to search for: `level:error AND "disk full"`; an empty text matches everything.
    #[serde(default)]
    q: String,
    /// Only documents with this time or a later one.
    #[serde(default, deserialize_with = "time_bound")]
    #[param(value_type = Option<String>)]
    #[schema(value_type = Option<TimeText>)]
    from: Option<String>,
    /// Only documents before this time.
    #[serde(default, deserialize_with = "time_bound")]
    #[param(value_type = Option<String>)]
    #[schema(value_type = Option<TimeText>)]
    to: Option<String>,
    /// `_time`, newest first, by default; a path, a field or a column with an optional `:asc` or `:desc`; or `_score`.
    #[serde(default)]
    sort: Option<String>,
    /// The number of hits on a page: 20 by default, at most 10,000.
    #[serde(default)]
    limit: Option<usize>,
    /// The cursor of the previous page.
    #[serde(default)]
    after: Option<String>,
    /// Marks in the hits what was found: `true`, or only at and below these paths.
    #[param(value_type = Option<String>)]
    #[schema(value_type = Option<HighlightText>)]
    #[serde(default)]
    highlight: HighlightParameter,
    /// Counts the values or the ranges of the matches: `kind,user.country:20,ms(10,100)`.
    #[serde(default, deserialize_with = "facet_list")]
    #[param(value_type = Option<String>)]
    #[schema(value_type = Option<PathList>)]
    facets: Option<String>,
    /// Counts the matches by time: `1h`, `auto`, `order.paid_at:1d`.
    #[serde(default)]
    histogram: Option<String>,
    /// Lists the paths of the newest matches: `true`, or a number of matches.
    #[param(value_type = Option<String>)]
    #[schema(value_type = Option<FieldsText>)]
    #[serde(default)]
    fields: FieldsParameter,
    /// Waits until the answer contains this position.
    #[param(value_type = Option<String>)]
    #[schema(value_type = Option<String>)]
    #[serde(default)]
    at_least: Option<PositionVector>,
    /// Answers without the shards that are missing.
    #[serde(default)]
    allow_partial: bool,
    /// When to give up, in milliseconds.
    #[serde(default)]
    timeout_ms: Option<u64>,
    /// What is read.
    #[serde(default)]
    scan: ScanSourceBody,
    /// A UUID by which the search can be cancelled.
    #[serde(default)]
    query_id: Option<String>,
}

/// A time: `2026-01-31T10:00:00Z`, `now-1h`, or in a JSON body also a number of seconds or milliseconds since 1970.
#[derive(Deserialize, ToSchema)]
#[serde(
    untagged,
    expecting = "must be a time such as \"2026-01-31T10:00:00Z\" or \"now-1h\", or a number of seconds since 1970"
)]
enum TimeText {
    Text(String),
    Whole(i64),
    Fraction(f64),
}

fn time_bound<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    let text = |time: TimeText| match time {
        TimeText::Text(text) => text,
        TimeText::Whole(number) => number.to_string(),
        // Below this, a number is one of seconds: until the year 5138.
        TimeText::Fraction(seconds) if seconds.abs() < 1e11 => {
            let time = DateTime::from_timestamp_micros((seconds * 1e6).round() as i64);
            time.map_or_else(
                || seconds.to_string(),
                |time| time.to_rfc3339_opts(SecondsFormat::Micros, true),
            )
        }
        TimeText::Fraction(number) => (number.round() as i64).to_string(),
    };
    Ok(Option::<TimeText>::deserialize(deserializer)?.map(text))
}

/// Paths: `kind,user.country`, or in a JSON body also `["kind", "user.country"]`.
#[derive(Deserialize, ToSchema)]
#[serde(
    untagged,
    expecting = "must be a text such as \"kind,user.country\", or a list of such texts"
)]
enum PathList {
    Text(String),
    List(Vec<String>),
}

impl PathList {
    fn joined(self) -> String {
        match self {
            Self::Text(text) => text,
            Self::List(list) => list.join(","),
        }
    }
}

fn facet_list<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    Ok(Option::<PathList>::deserialize(deserializer)?.map(PathList::joined))
}

/// Where to mark what was found, as [`SearchQuery::highlight`].
#[derive(Debug, Default, PartialEq, Deserialize)]
#[serde(try_from = "Option<HighlightText>")]
struct HighlightParameter(Option<String>);

/// How requests spell it: in a query string, everything is a text.
#[derive(Deserialize, ToSchema)]
#[serde(untagged, expecting = "must be true, false or a list of paths")]
enum HighlightText {
    Wanted(bool),
    Paths(PathList),
}

impl TryFrom<Option<HighlightText>> for HighlightParameter {
    type Error = String;

    fn try_from(text: Option<HighlightText>) -> Result<Self, String> {
        let paths = match text {
            None | Some(HighlightText::Wanted(false)) => None,
            Some(HighlightText::Wanted(true)) => Some("*".to_owned()),
            Some(HighlightText::Paths(list)) => match list.joined() {
                text if text.is_empty() || text == "false" => None,
                text if text == "true" => Some("*".to_owned()),
                text if text.bytes().all(|b| b.is_ascii_digit()) => {
                    let quoted = "a path that is a number is written in quotes: \"1\"";
                    return Err(format!("must be true, false or a list of paths; {quoted}"));
                }
                paths => Some(paths),
            },
        };
        Ok(Self(paths))
    }
}

/// Whether to describe fields, and by how many documents.
#[derive(Debug, Default, PartialEq, Deserialize)]
#[serde(try_from = "Option<FieldsText>")]
struct FieldsParameter(Option<Option<usize>>);

/// How requests spell it: in a query string, everything is a text.
#[derive(Deserialize, ToSchema)]
#[serde(untagged, expecting = "must be true, false or a number of documents")]
enum FieldsText {
    Wanted(bool),
    Documents(usize),
    Text(String),
}

impl TryFrom<Option<FieldsText>> for FieldsParameter {
    type Error = String;

    fn try_from(text: Option<FieldsText>) -> Result<Self, String> {
        let wanted = match text {
            None | Some(FieldsText::Wanted(false)) => None,
            Some(FieldsText::Wanted(true)) => Some(None),
            Some(FieldsText::Documents(documents)) => Some(Some(documents)),
            Some(FieldsText::Text(text)) => match (text.as_str(), text.parse()) {
                ("" | "false", _) => None,
                ("true", _) => Some(None),
                (_, Ok(documents)) => Some(Some(documents)),
                (_, Err(_)) => return Err("must be true, false or a number of documents".to_owned()),
            },
        };
        Ok(Self(wanted))
    }
}

/// Searches a collection or a view, with parameters in the query string.
#[utoipa::path(
    get,
    path = "/v1/collections/{collection}/search",
    operation_id = "search",
    tag = "Search",
    params(("collection" = String, Path, description = "The name of a collection or a view"), SearchParameters),
    responses((status = 200, description = "A page of hits, and what else was asked for", body = schemas::SearchedPage))
)]
pub(super) async fn by_query(
    State(app): State<AppState>,
    path: PathText,
    headers: HeaderMap,
    query: Result<Query<SearchParameters>, QueryRejection>,
) -> Result<Response, HttpError> {
    AnswerFormat::require_json(&headers)?;
    let Query(parameters) = query.map_err(|e| bad_query(&e).hint(HINT))?;
    search(&app, path, parameters).await
}

/// Searches a collection or a view, with parameters in the body.
#[utoipa::path(
    post,
    path = "/v1/collections/{collection}/search",
    operation_id = "search_by_body",
    tag = "Search",
    params(("collection" = String, Path, description = "The name of a collection or a view")),
    request_body = SearchParameters,
    responses((status = 200, description = "A page of hits, and what else was asked for", body = schemas::SearchedPage))
)]
pub(super) async fn by_body(
    State(app): State<AppState>,
    path: PathText,
    request: Request,
) -> Result<Response, HttpError> {
    AnswerFormat::require_json(request.headers())?;
    let parameters = body::json(request, HINT).await?;
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
        highlight: parameters.highlight.0,
        facets: parameters.facets,
        histogram: parameters.histogram,
        fields: parameters.fields.0,
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
        out.extend_from_slice(format!(",\"score\":{},\"document\":", json!(hit.score)).as_bytes());
        match hit.json {
            true => render::verbatim(&mut out, &hit.document, LineBreaks::Keep),
            false => render::string(&mut out, &hit.document),
        }
        if !hit.highlights.is_empty() {
            let highlight = |found: &Highlight| (found.path.clone(), json!(found.fragments));
            let found: Value = hit.highlights.iter().map(highlight).collect::<Map<_, _>>().into();
            out.extend_from_slice(format!(",\"highlight\":{found}").as_bytes());
        }
        out.push(b'}');
    }
    out.push(b']');
    let mut member = |name: &str, value: &dyn Display| {
        out.extend_from_slice(format!(",\"{name}\":{value}").as_bytes());
    };
    member("total", &answer.total);
    member("after", &json!(answer.after));
    if !answer.facets.is_empty() {
        member("facets", &facets_json(&answer.facets));
        let others = answer
            .facets
            .iter()
            .filter_map(|facet| Some((facet.path.clone(), facet.others?.into())));
        member("others", &Value::Object(others.collect()));
    }
    if let Some(histogram) = &answer.histogram {
        let bucket = |bucket: &Bucket| json!({ "time": time_text(bucket.time), "count": bucket.count });
        member("histogram", &histogram.buckets.iter().map(bucket).collect::<Value>());
        member("interval", &json!(histogram.interval));
    }
    if let Some(fields) = &answer.fields {
        member("fields", &fields_json(fields));
        member("fields_documents", &fields.documents);
    }
    member("stats", &answer.stats.to_json());
    out.push(b'}');
    out
}

/// The values are spelled as JSON already.
fn facets_json(facets: &[Facet]) -> String {
    let value = |value: &FacetValue| format!("{{\"value\":{},\"count\":{}}}", value.value, value.count);
    let facet = |facet: &Facet| {
        let values: Vec<String> = facet.values.iter().map(value).collect();
        format!("{}:[{}]", json!(facet.path), values.join(","))
    };
    format!("{{{}}}", facets.iter().map(facet).collect::<Vec<_>>().join(","))
}

fn fields_json(fields: &SearchedFields) -> String {
    let field = |field: &SearchedField| {
        let (path, kinds, documents) = (json!(field.path), json!(field.kinds.names()), field.documents);
        let samples = field.samples.join(",");
        format!("{{\"path\":{path},\"kinds\":{kinds},\"documents\":{documents},\"samples\":[{samples}]}}")
    };
    format!("[{}]", fields.fields.iter().map(field).collect::<Vec<_>>().join(","))
}

fn time_text(micros: i64) -> String {
    let time = DateTime::from_timestamp_micros(micros).unwrap_or_default();
    time.to_rfc3339_opts(SecondsFormat::AutoSi, true)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        answer::{Hit, Stats},
        doors::http::shape::read,
    };

    #[test]
    fn a_hit_has_its_document_verbatim() {
        let hit = |document: &str, json| Hit {
            id: "push/0@1".into(),
            address: "push/0@1".into(),
            document: document.into(),
            json,
            score: None,
            highlights: Vec::new(),
        };
        let hits = vec![hit("{\"n\" : 1.50}", true), hit("a \"line\"", false)];
        let text = String::from_utf8(to_json(&SearchAnswer {
            hits,
            total: 2,
            after: None,
            facets: Vec::new(),
            histogram: None,
            fields: None,
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
            score: None,
            highlights: Vec::new(),
        }];
        let text = String::from_utf8(to_json(&SearchAnswer {
            hits,
            total: 1,
            after: None,
            facets: Vec::new(),
            histogram: None,
            fields: None,
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
        let error = serde_json::from_str::<SearchParameters>(r#"{"q":"x","facet":["a"]}"#).expect_err("an error");
        assert!(error.to_string().contains("facet"), "{error}");
    }

    #[test]
    fn a_body_that_is_no_search_is_refused_in_plain_words() {
        let refused = |body: &str| read::<SearchParameters>(body.as_bytes()).expect_err(body).detail;
        assert_eq!(refused(r#"["disk"]"#), "the body must be an object, not a list");
        assert_eq!(refused("[]"), "the body must be an object, not a list");
        assert_eq!(
            refused(r#"{"limit":"5"}"#),
            "limit must be a whole number from 0, not the text \"5\""
        );
        assert_eq!(refused(r#"{"scan":"rw"}"#), "scan must be `auto` or `raw`, not `rw`");
        assert!(refused(r#"{"from":true}"#).starts_with("from must be a time such as"));
        assert_eq!(
            refused(r#"{"highlight":1}"#),
            "highlight must be true, false or a list of paths"
        );
        assert_eq!(
            refused(r#"{"fields":"many"}"#),
            "fields must be true, false or a number of documents"
        );
        assert!(refused(r#"{"facets":1}"#).starts_with("facets must be a text such as"));
        assert!(refused(r#"{"at_least":"here"}"#).starts_with("at_least: \"here\" is not a position"));
    }

    #[test]
    fn times_may_be_numbers() {
        let from = |body: &str| read::<SearchParameters>(body.as_bytes()).expect(body).from;
        assert_eq!(from(r#"{"from":1790000000}"#).as_deref(), Some("1790000000"));
        let fraction = from(r#"{"from":1790000000.5}"#);
        assert_eq!(fraction.as_deref(), Some("2026-09-21T14:13:20.500000Z"));
        assert_eq!(from(r#"{"from":1790000000123.6}"#).as_deref(), Some("1790000000124"));
        assert_eq!(from(r#"{"from":-5}"#).as_deref(), Some("-5"));
        assert_eq!(from(r#"{"from":"now-1h"}"#).as_deref(), Some("now-1h"));
        assert_eq!(from(r#"{"from":null}"#), None);
        assert_eq!(from("{}"), None);
        let uri = "/search?from=1790000000&to=now".parse().expect("an address");
        let Query(parameters) = Query::<SearchParameters>::try_from_uri(&uri).expect("parameters");
        assert_eq!(
            (parameters.from.as_deref(), parameters.to.as_deref()),
            (Some("1790000000"), Some("now"))
        );
    }

    #[test]
    fn a_number_is_no_path_to_highlight() {
        let highlight = |query: &str| {
            let uri = format!("/search?highlight={query}").parse().expect("an address");
            let read = Query::<SearchParameters>::try_from_uri(&uri);
            read.map(|Query(parameters)| parameters.highlight.0)
                .map_err(|e| bad_query(&e).detail)
        };
        assert_eq!(highlight("true"), Ok(Some("*".to_owned())));
        assert_eq!(highlight("false"), Ok(None));
        assert_eq!(highlight(""), Ok(None));
        assert_eq!(highlight("msg,user"), Ok(Some("msg,user".to_owned())));
        assert_eq!(highlight("%221%22"), Ok(Some("\"1\"".to_owned())));
        for number in ["0", "1"] {
            let detail = highlight(number).expect_err(number);
            assert!(
                detail.starts_with("highlight must be true, false or a list of paths"),
                "{detail}"
            );
        }
    }
}
