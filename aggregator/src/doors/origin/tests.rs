//! Tests of `origin`.

use super::*;

#[test]
fn a_request_has_one_host_and_does_not_come_from_a_page_of_another_site() {
    let rejection = |sent: &[(&'static str, &'static str)], on_loopback| {
        let header = |(name, value): &(&'static str, &'static str)| {
            (HeaderName::from_static(name), HeaderValue::from_static(value))
        };
        let mut headers = HeaderMap::new();
        headers.extend(sent.iter().map(header));
        check(&headers, &Uri::from_static("/v1/sql"), on_loopback, &[])
            .err()
            .map(|problem| problem.code)
    };
    let host = ("host", "127.0.0.1");
    assert_eq!(rejection(&[host], true), None);
    assert_eq!(rejection(&[], true), None, "browsers always send Host");
    assert_eq!(
        rejection(&[host, ("host", "evil.example.com")], true),
        Some(Code::BadRequest)
    );
    assert_eq!(
        rejection(&[host, ("sec-fetch-site", "none")], true),
        None,
        "typed into the address bar"
    );
    assert_eq!(rejection(&[host, ("sec-fetch-site", "same-origin")], true), None);
    assert_eq!(
        rejection(&[host, ("sec-fetch-site", "cross-site")], true),
        Some(Code::Forbidden)
    );
    assert_eq!(
        rejection(
            &[host, ("sec-fetch-site", "same-site"), ("sec-fetch-dest", "image")],
            true
        ),
        Some(Code::Forbidden)
    );
    assert_eq!(
        rejection(
            &[host, ("sec-fetch-site", "cross-site"), ("sec-fetch-dest", "document")],
            true
        ),
        None,
        "a link was followed"
    );
}

#[test]
fn only_pages_from_other_hosts_are_rejected() {
    let allowed = ["rachis.example.com".to_owned(), format!("grafana.example.com:{}", 7)];
    // A port is part of an authority, and of an origin.
    let at_port = |host: &str| {
        if host.is_empty() || host == "null" {
            host.to_owned()
        } else {
            format!("{host}:{}", 7)
        }
    };
    let rejection = |host: &str, origin: &str, on_loopback| {
        let mut headers = HeaderMap::new();
        let header = |text: String| HeaderValue::from_str(&text).expect("a header");
        headers.insert(header::HOST, header(at_port(host)));
        if !origin.is_empty() {
            headers.insert(header::ORIGIN, header(at_port(origin)));
        }
        check(&headers, &Uri::from_static("/v1/sql"), on_loopback, &allowed)
            .err()
            .map(|problem| problem.code)
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
        assert_eq!(rejection(host, origin, on_loopback), None, "{host} {origin}");
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
            rejection(host, origin, on_loopback),
            Some(Code::Forbidden),
            "{host} {origin}"
        );
    }
}
