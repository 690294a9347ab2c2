//! URL: the parts of an absolute URL, or of a path with a query, as access logs have them.

use std::borrow::Cow;

use serde_json::{Map, Value};

use super::{FieldType, Parse, ParsedField};

/// The parts of a URL.
pub(super) struct Url {
    fields: Vec<ParsedField>,
}

impl Url {
    pub(super) fn new() -> Self {
        let field = |name, field_type| ParsedField {
            field_type,
            ..ParsedField::text(name)
        };
        Self {
            fields: vec![
                field("scheme", FieldType::Text),
                field("user", FieldType::Text),
                field("host", FieldType::Text),
                field("port", FieldType::Int),
                field("path", FieldType::Text),
                field("query", FieldType::Text),
                field("fragment", FieldType::Text),
                field("params", FieldType::Json),
            ],
        }
    }
}

impl Parse for Url {
    fn fields(&self) -> &[ParsedField] {
        &self.fields
    }

    /// `params` are the keys and values of the query; of a key that occurs twice, the first value counts. A path alone
    /// stays as it is written.
    fn parse<'t>(&self, text: &'t str, values: &mut [Option<Cow<'t, str>>]) -> bool {
        let [scheme, user, host, port, path, query, fragment, params] = values else {
            return false;
        };
        if text.starts_with('/') && !text.starts_with("//") {
            let (before, after) = text
                .split_once('#')
                .map_or((text, None), |(before, after)| (before, Some(after)));
            let (before, asked) = before
                .split_once('?')
                .map_or((before, None), |(before, after)| (before, Some(after)));
            *path = Some(Cow::Borrowed(before));
            *query = asked.map(Cow::Borrowed);
            *fragment = after.map(Cow::Borrowed);
        } else {
            let Ok(url) = ::url::Url::parse(text) else { return false };
            if is_host_and_port(&url) {
                return false;
            }
            let owned = |part: &str| Some(Cow::Owned(part.to_owned()));
            *scheme = owned(url.scheme());
            *user = owned(url.username());
            *host = url.host_str().and_then(owned);
            *port = url.port_or_known_default().map(|port| Cow::Owned(port.to_string()));
            *path = owned(url.path());
            *query = url.query().and_then(owned);
            *fragment = url.fragment().and_then(owned);
        }
        if let Some(query) = query.as_deref() {
            let mut found = Map::new();
            for (key, value) in ::url::form_urlencoded::parse(query.as_bytes()) {
                found.entry(key).or_insert_with(|| Value::String(value.into_owned()));
            }
            *params = Some(Cow::Owned(Value::Object(found).to_string()));
        }
        for value in values {
            if value.as_ref().is_some_and(|value| value.is_empty()) {
                *value = None;
            }
        }
        true
    }
}

/// Whether what looks like a scheme is a host before a port: `example.com:8080`.
fn is_host_and_port(url: &::url::Url) -> bool {
    let port = url.path().split('/').next().unwrap_or_default();
    let is_port = (1..=5).contains(&port.len()) && port.bytes().all(|byte| byte.is_ascii_digit());
    !url.has_host() && (url.scheme().contains('.') || (is_port && !matches!(url.scheme(), "tel" | "sms")))
}
