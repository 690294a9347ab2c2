//! USER_AGENT: which browser, crawler or other client, and which system, a User-Agent header names.

use std::borrow::Cow;

use super::{Parse, ParsedField};

/// What the library writes where it does not know.
const UNKNOWN: &str = "UNKNOWN";

/// A User-Agent header.
pub(super) struct UserAgent {
    fields: Vec<ParsedField>,
}

impl UserAgent {
    pub(super) fn new() -> Self {
        let names = ["name", "version", "category", "os", "os_version", "vendor"];
        Self {
            fields: names.into_iter().map(ParsedField::text).collect(),
        }
    }
}

impl Parse for UserAgent {
    fn fields(&self) -> &[ParsedField] {
        &self.fields
    }

    fn parse<'t>(&self, text: &'t str, values: &mut [Option<Cow<'t, str>>]) -> bool {
        let Some(found) = woothee::parser::Parser::new().parse(text) else {
            return false;
        };
        let parts = [
            Cow::Borrowed(found.name),
            Cow::Borrowed(found.version),
            Cow::Borrowed(found.category),
            Cow::Borrowed(found.os),
            found.os_version,
            Cow::Borrowed(found.vendor),
        ];
        for (value, part) in values.iter_mut().zip(parts) {
            *value = Some(part).filter(|part| !part.is_empty() && part != UNKNOWN);
        }
        true
    }
}
