//! Keeps pages in a browser from asking a node. A page can send a request to any address without reading the answer,
//! and its own name can be made to mean 127.0.0.1 (DNS rebinding), so that it reads the answer, too. A node has no
//! password that would stop it.
//!
//! The `Origin` is checked everywhere, the name only where the connection came to a loopback address: elsewhere a node
//! does not know its names.

use std::net::IpAddr;

use axum::{
    extract::Request,
    http::{HeaderMap, HeaderName, HeaderValue, Uri, header, uri::Authority},
    middleware::Next,
    response::Response,
};
use proto::{Code, Problem};

/// Names that a node answers to besides its own addresses, such as that of a proxy in front of it.
pub type Names = std::sync::Arc<[String]>;

/// Passes a request on, unless a page of another origin may have sent it.
pub(super) async fn guard(names: Names, on_loopback: bool, request: Request, next: Next) -> Response {
    match refused(request.headers(), request.uri(), on_loopback, &names) {
        None => next.run(request).await,
        Some(problem) => super::refuse(&request, problem),
    }
}

fn refused(headers: &HeaderMap, uri: &Uri, on_loopback: bool, names: &[String]) -> Option<Problem> {
    let text = |name: HeaderName| {
        headers
            .get(name)
            .map(|value: &HeaderValue| value.to_str().unwrap_or_default())
    };
    if headers.get_all(header::HOST).iter().count() > 1 {
        return Some(
            Problem::new(Code::BadRequest, "the request has more than one Host header")
                .hint("send one, with the node's address"),
        );
    }
    let host = uri.authority().map(Authority::as_str).or_else(|| text(header::HOST));
    let known = |authority: &str| {
        names
            .iter()
            .any(|name| name.eq_ignore_ascii_case(host_of(authority)) || name.eq_ignore_ascii_case(authority))
    };
    if let Some(host) = host
        && on_loopback
        && !is_here(host_of(host))
        && !known(host)
    {
        return Some(
            Problem::new(
                Code::Forbidden,
                format!("on this machine's own address the node does not answer to the name {host}"),
            )
            .hint("ask 127.0.0.1 or localhost, or add the name to `names` in [http] of its settings"),
        );
    }
    let Some(origin) = text(header::ORIGIN) else {
        // A page that shows an image sends no origin. A browser says so itself, where the address is a secure or a
        // local one. A person who follows a link is let in: the page with the link does not see the answer.
        let says = |name: &'static str, words: &[&str]| {
            text(HeaderName::from_static(name)).is_some_and(|said| words.contains(&said))
        };
        let embedded = says("sec-fetch-site", &["cross-site", "same-site"]) && !says("sec-fetch-dest", &["document"]);
        return embedded.then(|| {
            Problem::new(Code::Forbidden, "a page of another site may not ask this node")
                .hint("open the address in a tab of its own, or ask with curl")
        });
    };
    let from = origin.split_once("://").map_or("", |(_, authority)| authority);
    let own = host.is_some_and(|host| host.eq_ignore_ascii_case(from));
    (!own && !known(from)).then(|| {
        Problem::new(Code::Forbidden, format!("a page of {origin} may not ask this node")).hint(
            "a program that is no browser leaves Origin out; add the page's name to `names` in [http] to let it ask",
        )
    })
}

/// An authority without its port.
fn host_of(authority: &str) -> &str {
    match authority.rsplit_once(':') {
        Some((host, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => host,
        _ => authority,
    }
}

/// Whether a host always means the address that was asked: an IP address does, and `localhost` and names below it do.
/// Other names can be rebound.
fn is_here(host: &str) -> bool {
    let address = host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
    let name = host.trim_end_matches('.').to_ascii_lowercase();
    address.is_ok() || name == "localhost" || name.ends_with(".localhost")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_names_one_host_and_is_not_sent_by_a_page_of_another_site() {
        let refused = |sent: &[(&'static str, &'static str)], on_loopback| {
            let of = |(name, value): &(&'static str, &'static str)| {
                (HeaderName::from_static(name), HeaderValue::from_static(value))
            };
            let mut headers = HeaderMap::new();
            headers.extend(sent.iter().map(of));
            refused(&headers, &Uri::from_static("/v1/sql"), on_loopback, &[]).map(|problem| problem.code)
        };
        let here = ("host", "127.0.0.1");
        assert_eq!(refused(&[here], true), None);
        assert_eq!(refused(&[], true), None, "no browser leaves it out");
        assert_eq!(
            refused(&[here, ("host", "evil.example.com")], true),
            Some(Code::BadRequest)
        );
        assert_eq!(
            refused(&[here, ("sec-fetch-site", "none")], true),
            None,
            "typed into the address bar"
        );
        assert_eq!(refused(&[here, ("sec-fetch-site", "same-origin")], true), None);
        assert_eq!(
            refused(&[here, ("sec-fetch-site", "cross-site")], true),
            Some(Code::Forbidden)
        );
        assert_eq!(
            refused(
                &[here, ("sec-fetch-site", "same-site"), ("sec-fetch-dest", "image")],
                true
            ),
            Some(Code::Forbidden)
        );
        assert_eq!(
            refused(
                &[here, ("sec-fetch-site", "cross-site"), ("sec-fetch-dest", "document")],
                true
            ),
            None,
            "a link was followed"
        );
    }

    #[test]
    fn only_a_strange_page_is_refused() {
        let names = ["rachis.example.com".to_owned(), format!("grafana.example.com:{}", 7)];
        // A port is part of an authority, and of an origin.
        let at_port = |host: &str| {
            if host.is_empty() || host == "null" {
                host.to_owned()
            } else {
                format!("{host}:{}", 7)
            }
        };
        let refused = |host: &str, origin: &str, on_loopback| {
            let mut headers = HeaderMap::new();
            let header = |text: String| HeaderValue::from_str(&text).expect("a header");
            headers.insert(header::HOST, header(at_port(host)));
            if !origin.is_empty() {
                headers.insert(header::ORIGIN, header(at_port(origin)));
            }
            refused(&headers, &Uri::from_static("/v1/sql"), on_loopback, &names).map(|problem| problem.code)
        };
        for (host, origin, on_loopback) in [
            ("127.0.0.1", "", true),
            ("127.9.8.7", "", true),
            ("localhost", "http://localhost", true),
            ("LOCALHOST", "", true),
            ("[::1]", "", true),
            ("[::ffff:127.0.0.1]", "", true),
            ("0.0.0.0", "", true),
            ("leaf.localhost.", "", true),
            ("rachis.example.com", "", true),
            ("10.0.0.7", "", false),
            ("leaf-1", "", false),
            ("10.0.0.7", "http://10.0.0.7", false),
            ("10.0.0.7", "https://grafana.example.com", false),
        ] {
            assert_eq!(refused(host, origin, on_loopback), None, "{host} {origin}");
        }
        for (host, origin, on_loopback) in [
            ("evil.example.com", "", true),
            ("localhost.evil.example.com", "", true),
            ("127.0.0.1", "http://evil.example.com", true),
            ("127.0.0.1", "http://localhost", true),
            ("127.0.0.1", "null", true),
            ("10.0.0.7", "http://evil.example.com", false),
            ("10.0.0.7", "https://other.example.com", false),
        ] {
            assert_eq!(
                refused(host, origin, on_loopback),
                Some(Code::Forbidden),
                "{host} {origin}"
            );
        }
    }
}
