//! The description of the interface: `/openapi.json`, made from the annotations of the handlers, and the page at `/`.

pub(super) mod schemas;

use std::fmt::Write as _;

use axum::{
    Router,
    http::{HeaderMap, HeaderValue, header},
    response::{Html, IntoResponse as _, Response},
    routing::get,
};
use bytes::Bytes;
use utoipa::{
    OpenApi,
    openapi::{Content, Ref, ResponseBuilder, path::Operation},
};

/// What the description says of the interface as a whole.
#[derive(OpenApi)]
#[openapi(
    info(
        title = "Rachis",
        description = "Live analytics for event streams: raw documents, indexed on every field, asked by SQL and search."
    ),
    components(schemas(schemas::Problem))
)]
pub(super) struct Interface;

/// Adds the routes that show the description of an interface.
pub(super) fn add<S: Clone + Send + Sync + 'static>(
    router: Router<S>,
    mut interface: utoipa::openapi::OpenApi,
) -> Router<S> {
    complete(&mut interface);
    let json = Bytes::from(interface.to_json().unwrap_or_default());
    let (text, html) = (text_page(&interface), html_page(&interface));
    let json = move || async move {
        (
            [(header::CONTENT_TYPE, HeaderValue::from_static("application/json"))],
            json,
        )
    };
    let page = move |headers: HeaderMap| async move {
        let accepts = |value: &HeaderValue| value.to_str().is_ok_and(|value| value.contains("text/html"));
        let response: Response = match headers.get_all(header::ACCEPT).iter().any(accepts) {
            true => Html(html).into_response(),
            false => text.into_response(),
        };
        response
    };
    router.route("/openapi.json", get(json)).route("/", get(page))
}

/// Adds what holds for every call.
fn complete(interface: &mut utoipa::openapi::OpenApi) {
    let problem = Content::new(Some(Ref::from_schema_name("Problem")));
    let problem = ResponseBuilder::new()
        .description("Why the request failed, and what to do next")
        .content("application/problem+json", problem)
        .build();
    let paths = std::mem::take(&mut interface.paths.paths);
    for (path, mut item) in paths {
        let operations = [&mut item.get, &mut item.put, &mut item.post, &mut item.delete];
        for operation in operations.into_iter().flatten() {
            let responses = &mut operation.responses.responses;
            responses.insert("default".to_owned(), problem.clone().into());
        }
        // OpenAPI knows no parameter that takes the rest of a path.
        interface.paths.paths.insert(path.replace("{*", "{"), item);
    }
}

/// The calls: method, path, summary.
fn calls(interface: &utoipa::openapi::OpenApi) -> impl Iterator<Item = (&'static str, &str, &str)> {
    interface.paths.paths.iter().flat_map(move |(path, item)| {
        let operations = [
            ("GET", &item.get),
            ("PUT", &item.put),
            ("POST", &item.post),
            ("DELETE", &item.delete),
        ];
        operations
            .into_iter()
            .filter_map(move |(method, operation)| Some((method, path.as_str(), summary(operation.as_ref()?))))
    })
}

fn summary(operation: &Operation) -> &str {
    operation.summary.as_deref().unwrap_or_default()
}

const INTRODUCTION: &str =
    "Rachis keeps event streams as raw documents, indexes every field, and answers SQL and search.";

fn text_page(interface: &utoipa::openapi::OpenApi) -> String {
    let mut page = format!(
        "{INTRODUCTION}\n\n\
         Ask by SQL:   curl ADDRESS/v1/sql -d 'SELECT * FROM rachis.collections'\n\
         Search:       curl 'ADDRESS/v1/collections/NAME/search?q=error'\n\
         In a shell:   rachis sql --url ADDRESS\n\
         All calls, for programs: /openapi.json\n\n"
    );
    for (method, path, summary) in calls(interface) {
        let head = format!("{method:<7} {path:<48} ");
        let next_line = format!("\n{}", " ".repeat(head.chars().count()));
        let summary: Vec<&str> = summary.lines().map(str::trim).collect();
        let _ = writeln!(page, "{head}{}", summary.join(&next_line));
    }
    page
}

fn html_page(interface: &utoipa::openapi::OpenApi) -> String {
    let mut rows = String::new();
    for (method, path, summary) in calls(interface) {
        let path = match method == "GET" && !path.contains('{') {
            true => format!("<a href=\"{path}\">{path}</a>"),
            false => escaped(path),
        };
        let _ = writeln!(rows, "<tr><td>{method}<td><code>{path}</code><td>{}", escaped(summary));
    }
    format!(
        "<!doctype html>\n<html lang=\"en\"><meta charset=\"utf-8\"><title>Rachis</title>\n\
         <style>body{{font-family:sans-serif;margin:2em;max-width:70em}}td{{padding:.2em 1em .2em 0;vertical-align:top}}</style>\n\
         <h1>Rachis</h1>\n<p>{INTRODUCTION}</p>\n\
         <p>Ask by SQL: <code>curl ADDRESS/v1/sql -d 'SELECT * FROM rachis.collections'</code></p>\n\
         <p>Search: <code>curl 'ADDRESS/v1/collections/NAME/search?q=error'</code></p>\n\
         <p>In a shell: <code>rachis sql --url ADDRESS</code></p>\n\
         <p>All calls, for programs: <a href=\"/openapi.json\">/openapi.json</a></p>\n\
         <table>\n{rows}</table>\n</html>\n"
    )
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doors::http::described_routes;

    #[test]
    fn every_line_of_a_description_is_below_its_first() {
        let (_, interface) = described_routes().split_for_parts();
        let page = text_page(&interface);
        let (_, calls) = page.split_once("/openapi.json\n\n").expect("calls");
        let begins_call = |line: &str| {
            ["GET ", "PUT ", "POST ", "DELETE "]
                .iter()
                .any(|method| line.starts_with(*method))
        };
        let (first, more): (Vec<&str>, Vec<&str>) = calls.lines().partition(|line| begins_call(line));
        assert!(first.len() > 20 && !more.is_empty(), "{page}");
        let indent = " ".repeat(57);
        for line in more {
            assert!(
                line.starts_with(&indent) && !line[57..].starts_with(' '),
                "{line:?} in\n{page}"
            );
        }
    }
}
