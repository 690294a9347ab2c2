//! Keeps web pages in a browser from reaching a node. A page can send a request to any address without reading the
//! response. With DNS rebinding, which makes the page's own name resolve to 127.0.0.1, it can read the response too. A
//! node has no password that would stop it.
//!
//! The `Origin` header is always checked. The `Host` header is checked only for connections to a loopback address:
//! elsewhere a node does not know its names.

use std::net::IpAddr;

use axum::{
    extract::Request,
    http::{HeaderMap, HeaderName, HeaderValue, Uri, header, uri::Authority},
    middleware::Next,
    response::Response,
};
use proto::{Code, Problem};

/// Names that a node accepts besides its own addresses, for example that of a proxy in front of it. Pages from these
/// names may send requests.
pub type AllowedHosts = std::sync::Arc<[String]>;

/// Passes a request on unless a page from another origin may have sent it.
pub(super) async fn guard(allowed: AllowedHosts, on_loopback: bool, request: Request, next: Next) -> Response {
    match check(request.headers(), request.uri(), on_loopback, &allowed) {
        Ok(()) => next.run(request).await,
        Err(problem) => super::reject(&request, problem),
    }
}

fn check(headers: &HeaderMap, uri: &Uri, on_loopback: bool, allowed: &[String]) -> Result<(), Problem> {
    if headers.get_all(header::HOST).iter().count() > 1 {
        return Err(
            Problem::new(Code::BadRequest, "the request has more than one Host header")
                .hint("send one, with the node's address"),
        );
    }
    let host = uri
        .authority()
        .map(Authority::as_str)
        .or_else(|| text(headers, header::HOST));
    if let Some(host) = host
        && on_loopback
        && !is_local(host_of(host))
        && !is_allowed(host, allowed)
    {
        return Err(Problem::new(
            Code::Forbidden,
            format!("the node does not accept the host name {host} on a loopback address"),
        )
        .hint("use 127.0.0.1 or localhost, or add the name to `names` in [http] of the node's settings"));
    }
    match text(headers, header::ORIGIN) {
        Some(origin) => check_origin(origin, host, allowed),
        None => check_embedded(headers),
    }
}

fn check_origin(origin: &str, host: Option<&str>, allowed: &[String]) -> Result<(), Problem> {
    let authority = origin.split_once("://").map_or("", |(_, authority)| authority);
    let is_own = host.is_some_and(|host| host.eq_ignore_ascii_case(authority));
    if is_own || is_allowed(authority, allowed) {
        return Ok(());
    }
    Err(Problem::new(
        Code::Forbidden,
        format!("pages from {origin} may not send requests to this node"),
    )
    .hint("programs other than browsers should not send Origin; to allow this page, add its host to `names` in [http]"))
}

/// Rejects a request that another site's page makes without an `Origin`, for example for an image. Browsers mark such
/// requests if the address is secure or local. Following a link is allowed: the page with the link does not see the
/// response.
fn check_embedded(headers: &HeaderMap) -> Result<(), Problem> {
    let is_one_of = |name: &'static str, values: &[&str]| {
        text(headers, HeaderName::from_static(name)).is_some_and(|value| values.contains(&value))
    };
    if is_one_of("sec-fetch-site", &["cross-site", "same-site"]) && !is_one_of("sec-fetch-dest", &["document"]) {
        return Err(Problem::new(
            Code::Forbidden,
            "pages from another site may not send requests to this node",
        )
        .hint("open the address in its own tab, or use curl"));
    }
    Ok(())
}

/// The value of a header. Empty if it is not text.
fn text(headers: &HeaderMap, name: HeaderName) -> Option<&str> {
    headers
        .get(name)
        .map(|value: &HeaderValue| value.to_str().unwrap_or_default())
}

fn is_allowed(authority: &str, allowed: &[String]) -> bool {
    allowed
        .iter()
        .any(|name| name.eq_ignore_ascii_case(host_of(authority)) || name.eq_ignore_ascii_case(authority))
}

/// An authority without its port.
fn host_of(authority: &str) -> &str {
    match authority.rsplit_once(':') {
        Some((host, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => host,
        _ => authority,
    }
}

/// Whether a host can mean only the address that was connected to, as IP addresses, `localhost` and its subdomains do.
/// Any other name can be rebound.
fn is_local(host: &str) -> bool {
    let address = host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
    let name = host.trim_end_matches('.').to_ascii_lowercase();
    address.is_ok() || name == "localhost" || name.ends_with(".localhost")
}

#[cfg(test)]
mod tests;
