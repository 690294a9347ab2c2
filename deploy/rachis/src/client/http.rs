//! HTTP requests to a server; converts its problems to failures.

use std::time::Duration;

use reqwest::{Method, RequestBuilder, Response, Url, header::ACCEPT};
use serde_json::Value;

use super::Failure;

/// Timeout for connecting.
const CONNECT_WAIT_MAX: Duration = Duration::from_secs(5);

/// An HTTP client of one server.
#[derive(Debug, Clone)]
pub(crate) struct Client {
    base: Url,
    http: reqwest::Client,
}

impl Client {
    /// A client of the server at `url`.
    pub(crate) fn new(url: &str) -> Result<Self, Failure> {
        let invalid = |why: String| {
            Failure::usage(format!("invalid server URL {url:?}: {why}"))
                .hint("use an address like 127.0.0.1:7700 or http://127.0.0.1:7700")
        };
        let has_port = |address: &str| {
            address
                .rsplit_once(':')
                .is_some_and(|(_, port)| port.parse::<u16>().is_ok())
        };
        // `host:port` alone is the address of a server, too, also with a slash at its end.
        let address = url.trim_end_matches('/');
        let spelled = match url.contains("://") {
            true => url.to_owned(),
            false if has_port(address) => format!("http://{address}"),
            false => return Err(invalid("it is neither HOST:PORT nor an http:// URL".into())),
        };
        let base: Url = spelled
            .parse()
            .map_err(|e: <Url as std::str::FromStr>::Err| invalid(e.to_string()))?;
        if base.scheme() != "http" || base.cannot_be_a_base() {
            return Err(invalid("only http:// is supported".into()));
        }
        let http = reqwest::Client::builder()
            .connect_timeout(CONNECT_WAIT_MAX)
            .build()
            .map_err(|e| Failure::with_cause("cannot create an HTTP client", &e))?;
        Ok(Self { base, http })
    }

    /// The address of the server as it is shown: without a password and the slash at its end.
    pub(crate) fn address(&self) -> String {
        let mut shown = self.base.clone();
        // An address that has none cannot be changed either.
        let _ = shown.set_password(None);
        shown.as_str().trim_end_matches('/').to_owned()
    }

    /// A request to a path below `/v1`. The segments are percent-encoded here.
    pub(crate) fn request(&self, method: Method, segments: &[&str]) -> RequestBuilder {
        let mut url = self.base.clone();
        if let Ok(mut path) = url.path_segments_mut() {
            path.pop_if_empty().push("v1").extend(segments);
        }
        self.http.request(method, url)
    }

    /// The body at a path outside `/v1`, whatever its status.
    pub(crate) async fn raw(&self, path: &str) -> Result<Vec<u8>, Failure> {
        let mut url = self.base.clone();
        url.set_path(path);
        let response = self.http.get(url).send().await.map_err(|e| self.unreachable(&e))?;
        Ok(response.bytes().await.map_err(|e| broke_off(&e))?.to_vec())
    }

    /// Sends a request; an error status is a failure.
    pub(crate) async fn send(&self, request: RequestBuilder) -> Result<Response, Failure> {
        let response = request.send().await.map_err(|e| self.unreachable(&e))?;
        match response.status().is_success() {
            true => Ok(response),
            false => Err(failure_from_response(response).await),
        }
    }

    /// Sends a request and reads the whole answer.
    pub(crate) async fn text(&self, request: RequestBuilder) -> Result<String, Failure> {
        let text = self.send(request).await?.text().await;
        text.map_err(|e| broke_off(&e))
    }

    /// Sends a request and parses the JSON answer.
    pub(crate) async fn json(&self, request: RequestBuilder) -> Result<Value, Failure> {
        let text = self.text(request).await?;
        serde_json::from_str(&text).map_err(|e| {
            Failure::new(format!("the answer is not JSON: {e}")).hint("is the server at this address Rachis?")
        })
    }

    /// Runs a statement; the body may have its options. Returns the JSON answer.
    pub(crate) async fn sql(&self, body: &Value) -> Result<Value, Failure> {
        let request = self.request(Method::POST, &["sql"]).header(ACCEPT, "application/json");
        self.json(request.json(body)).await
    }

    /// The failure of a request without an answer.
    pub(crate) fn unreachable(&self, error: &reqwest::Error) -> Failure {
        let failure = Failure::with_cause(&format!("no response from {}", self.base), &error.root_cause());
        failure.hint("is the server running? `rachis dev` starts one; --url or RACHIS_URL selects another")
    }
}

trait RootCause {
    /// The innermost source, which does not repeat the URL.
    fn root_cause(&self) -> std::io::Error;
}

impl RootCause for reqwest::Error {
    fn root_cause(&self) -> std::io::Error {
        let mut deepest: &dyn std::error::Error = self;
        while let Some(cause) = deepest.source() {
            deepest = cause;
        }
        std::io::Error::other(deepest.to_string())
    }
}

/// The failure of an answer that did not arrive completely.
pub(crate) fn broke_off(error: &reqwest::Error) -> Failure {
    Failure::with_cause("the answer ended early", error)
}

/// The failure for an error response.
pub(crate) async fn failure_from_response(response: Response) -> Failure {
    let status = response.status();
    let text = response.text().await.unwrap_or_default();
    let Ok(body) = serde_json::from_str::<Value>(&text) else {
        return Failure::new(format!(
            "the server returned {status}: {}",
            text.chars().take(300).collect::<String>()
        ));
    };
    failure_from_problem(&body).unwrap_or_else(|| Failure::new(format!("the server returned {status}")))
}

/// The failure for the body of a problem; `None` if it has no `detail`.
pub(crate) fn failure_from_problem(body: &Value) -> Option<Failure> {
    let mut detail = body["detail"].as_str()?.to_owned();
    if let (Some(line), Some(column)) = (body["line"].as_u64(), body["column"].as_u64()) {
        detail = format!("{detail} (line {line}, column {column})");
    }
    let failure = Failure::new(detail);
    Some(match body["hint"].as_str() {
        Some(hint) => failure.hint(hint),
        None => failure,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_in_paths_are_percent_encoded() {
        let client = Client::new("http://127.0.0.1:7700/").expect("a client");
        let request = client
            .request(Method::GET, &["collections", "a b", "documents", "push/0@1"])
            .build()
            .expect("a request");
        assert_eq!(
            request.url().as_str(),
            "http://127.0.0.1:7700/v1/collections/a%20b/documents/push%2F0@1"
        );
    }

    #[test]
    fn a_host_and_a_port_are_an_address() {
        for (address, url) in [
            ("127.0.0.1:7700", "http://127.0.0.1:7700/"),
            ("127.0.0.1:7700/", "http://127.0.0.1:7700/"),
            ("localhost:7700/", "http://localhost:7700/"),
            ("[::1]:7700", "http://[::1]:7700/"),
        ] {
            let client = Client::new(address).expect(address);
            assert_eq!(client.base.as_str(), url);
        }
    }

    #[test]
    fn an_invalid_url_is_a_usage_error_with_an_example() {
        for url in [
            "",
            "/",
            "127.0.0.1:port",
            "127.0.0.1:7700/v1",
            "https://x",
            "http://",
            "nonsense",
            "mailto:a@b",
        ] {
            let failure = Client::new(url).map(|_| ()).expect_err(url);
            assert_eq!(failure.exit_code(), 2, "{url}");
            let text = failure.to_string();
            assert!(
                text.contains("hint: use an address like 127.0.0.1:7700") && !text.contains("without a base"),
                "{text}"
            );
        }
    }

    #[test]
    fn a_problem_becomes_detail_position_and_hint() {
        let body =
            serde_json::json!({"detail": "no such function", "hint": "did you mean lower?", "line": 1, "column": 8});
        assert_eq!(
            failure_from_problem(&body).map(|f| f.to_string()),
            Some("error: no such function (line 1, column 8)\nhint: did you mean lower?".into())
        );
    }
}
