//! CSV: values between separators, quoted where they contain one.

use std::{borrow::Cow, collections::BTreeSet};

use proto::{Code, Problem};

use super::{Parse, ParsedField};

/// A line of values.
pub(super) struct Csv {
    separator: u8,
    fields: Vec<ParsedField>,
}

impl Csv {
    /// The separator, followed by the names, which the separator separates: `,a,b,c`.
    pub(super) fn new(argument: &str) -> Result<Self, Problem> {
        let bad =
            |detail: String| Problem::new(Code::BadSql, detail).hint("write CSV (a, b, c) or CSV (a, b) SEPARATOR ';'");
        let separator = match argument.as_bytes() {
            [first, ..] if first.is_ascii() && !first.is_ascii_alphanumeric() && !b"\"\r\n".contains(first) => *first,
            _ => {
                return Err(bad(
                    "CSV needs a separator of one ASCII character, such as , or ;".to_owned()
                ));
            }
        };
        let names: Vec<&str> = argument[1..].split(char::from(separator)).map(str::trim).collect();
        let mut seen = BTreeSet::new();
        match names.iter().find(|name| name.is_empty() || !seen.insert(**name)) {
            Some(wrong) => Err(bad(format!("CSV: the name {wrong:?} is empty or occurs twice"))),
            None => Ok(Self {
                separator,
                fields: names.into_iter().map(ParsedField::text).collect(),
            }),
        }
    }
}

impl Parse for Csv {
    fn fields(&self) -> &[ParsedField] {
        &self.fields
    }

    /// A text with another number of values has another form. An empty value is NULL.
    fn parse<'t>(&self, text: &'t str, values: &mut [Option<Cow<'t, str>>]) -> bool {
        let text = text.trim_end_matches(['\r', '\n']);
        if !text.contains(['"', '\n', '\r']) {
            let mut found = 0;
            for part in text.split(char::from(self.separator)) {
                let Some(value) = values.get_mut(found) else {
                    return false;
                };
                *value = Some(part).filter(|part| !part.is_empty()).map(Cow::Borrowed);
                found += 1;
            }
            return found == values.len();
        }
        let mut reader = ::csv::ReaderBuilder::new()
            .has_headers(false)
            .flexible(true)
            .delimiter(self.separator)
            .from_reader(text.as_bytes());
        let mut records = reader.records();
        let (Some(Ok(record)), None) = (records.next(), records.next()) else {
            return false;
        };
        for (value, found) in values.iter_mut().zip(&record) {
            *value = Some(found)
                .filter(|found| !found.is_empty())
                .map(|found| Cow::Owned(found.to_owned()));
        }
        record.len() == values.len()
    }
}
