//! Parsers of texts: log lines, CSV, URLs, names of browsers. A parser turns one text into the values of its fields.
//!
//! GROK, REGEX, CSV, URL and USER_AGENT have fields that are known beforehand. JSON and LOGFMT find their keys in each
//! text. Every format reads a text in time proportional to its length. Texts over [`TEXT_BYTES_MAX`] are not read, except
//! as JSON; a pattern with many states reads only shorter ones, so that no text takes longer than [`STEPS_MAX`].

mod csv;
mod grok;
mod logfmt;
mod pattern;
mod url;
mod user_agent;

use std::{
    borrow::Cow,
    fmt,
    num::NonZeroUsize,
    sync::{Arc, LazyLock},
};

use parking_lot::Mutex;
use proto::{Code, Problem, json};
use serde_json::{Map, Value};

use crate::byte_lru::ByteLru;

/// Longer texts are not parsed.
pub const TEXT_BYTES_MAX: usize = 64 << 10;
/// Steps of one text: its bytes times the states that the parser may be in. A tenth of a second, or a few.
pub const STEPS_MAX: u64 = 128 << 20;
/// Keys in the path of a field. A key of LOGFMT with more dots is one key.
pub const PATH_KEYS_MAX: usize = 32;
/// Fields of one parser.
pub const FIELDS_MAX: usize = 200;
/// Bytes of the pattern or the names of one parser.
pub const ARGUMENT_BYTES_MAX: usize = 8 << 10;

/// Bytes of the compiled parsers of one process, and their number.
const CACHED_BYTES_MAX: usize = 256 << 20;
const CACHED_MAX: NonZeroUsize = NonZeroUsize::new(4_096).expect("not zero");
/// What a compiled parser takes beside what its format says.
const PARSER_BYTES: usize = 64 << 10;

/// Compiled parsers, by their format and its argument.
type CompiledParsers = ByteLru<(Format, String), Arc<TextParser>>;

/// How a parser reads a text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Format {
    /// A JSON value.
    Json,
    /// `key=value key="quoted value"`.
    Logfmt,
    /// A pattern of named patterns: `%{IP:client} %{NUMBER:status:int}`.
    Grok,
    /// A regular expression with named groups.
    Regex,
    /// Values between separators.
    Csv,
    /// A URL, or the path of one.
    Url,
    /// What a browser or another client says it is.
    UserAgent,
}

impl Format {
    const TABLE: [(Self, &'static str); 7] = [
        (Self::Json, "JSON"),
        (Self::Logfmt, "LOGFMT"),
        (Self::Grok, "GROK"),
        (Self::Regex, "REGEX"),
        (Self::Csv, "CSV"),
        (Self::Url, "URL"),
        (Self::UserAgent, "USER_AGENT"),
    ];

    /// Its name in statements.
    pub fn as_str(self) -> &'static str {
        let row = Self::TABLE.iter().find(|row| row.0 == self);
        row.map_or("", |row| row.1)
    }

    /// The format of a name, in any case.
    pub fn parse(name: &str) -> Option<Self> {
        let row = Self::TABLE.iter().find(|row| row.1.eq_ignore_ascii_case(name));
        row.map(|row| row.0)
    }
}

/// The type of a field's values.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FieldType {
    /// A text.
    Text,
    /// An integer.
    Int,
    /// A double.
    Double,
    /// JSON.
    Json,
}

/// A field of a parser.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ParsedField {
    /// Its name; dots separate the keys of a path.
    pub name: String,
    /// Its type.
    pub field_type: FieldType,
}

impl ParsedField {
    fn text(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            field_type: FieldType::Text,
        }
    }
}

/// What a format does: it fills in a value for each of its fields.
trait Parse: Send + Sync {
    /// The fields, in the order of the values.
    fn fields(&self) -> &[ParsedField];

    /// About how many bytes it takes, with what matching remembers.
    fn bytes(&self) -> usize {
        0
    }

    /// The states that it may be in at once.
    fn states(&self) -> u64 {
        1
    }

    /// How many values may contain one byte of a text.
    fn overlap(&self) -> u64 {
        4
    }

    /// Parses a text. All values are None before. Returns false if the text has another form.
    fn parse<'t>(&self, text: &'t str, values: &mut [Option<Cow<'t, str>>]) -> bool;
}

/// A compiled parser.
pub struct TextParser {
    /// Its format.
    pub format: Format,
    /// None for JSON and LOGFMT, whose keys are in the texts.
    inner: Option<Box<dyn Parse>>,
    /// The longest text that it reads, unless it is JSON.
    text_bytes_max: usize,
}

impl fmt::Debug for TextParser {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} parser of {:?}", self.format.as_str(), self.fields())
    }
}

/// A text's value for each field of a parser.
pub type Values<'t> = Vec<Option<Cow<'t, str>>>;

impl TextParser {
    /// Compiles a parser. The argument is the pattern of GROK and REGEX; of CSV, its separator followed by the names,
    /// which the separator separates; empty for other formats.
    pub fn compile(format: Format, argument: &str) -> Result<Self, Problem> {
        if argument.len() > ARGUMENT_BYTES_MAX {
            return Err(Problem::new(
                Code::TooComplex,
                format!(
                    "{} has {} bytes; the limit is {ARGUMENT_BYTES_MAX}",
                    format.as_str(),
                    argument.len()
                ),
            ));
        }
        let inner: Option<Box<dyn Parse>> = match format {
            Format::Json | Format::Logfmt => None,
            Format::Grok => Some(Box::new(grok::compile(argument)?)),
            Format::Regex => Some(Box::new(pattern::Pattern::of_regex(argument)?)),
            Format::Csv => Some(Box::new(csv::Csv::new(argument)?)),
            Format::Url => Some(Box::new(url::Url::new())),
            Format::UserAgent => Some(Box::new(user_agent::UserAgent::new())),
        };
        let states = inner.as_ref().map_or(1, |inner| inner.states().max(1));
        let parser = Self {
            format,
            inner,
            text_bytes_max: TEXT_BYTES_MAX.min((STEPS_MAX / states) as usize),
        };
        parser.check_fields()?;
        Ok(parser)
    }

    /// A compiled parser, from a cache of this process if it was used before.
    pub fn cached(format: Format, argument: &str) -> Result<Arc<Self>, Problem> {
        static COMPILED: LazyLock<Mutex<CompiledParsers>> =
            LazyLock::new(|| Mutex::new(ByteLru::new(CACHED_BYTES_MAX, CACHED_MAX)));
        let key = (format, argument.to_owned());
        if let Some(parser) = COMPILED.lock().get(&key) {
            return Ok(Arc::clone(parser));
        }
        let parser = Arc::new(Self::compile(format, argument)?);
        // A few of the largest ones fit: they are not compiled for each batch.
        let bytes = parser.inner.as_ref().map_or(0, |inner| inner.bytes());
        let bytes = (PARSER_BYTES + bytes).min(CACHED_BYTES_MAX / 4);
        let displaced = COMPILED.lock().put(key, Arc::clone(&parser), bytes);
        drop(displaced);
        Ok(parser)
    }

    /// The fields; None if each text has its own.
    pub fn fields(&self) -> Option<&[ParsedField]> {
        self.inner.as_ref().map(|inner| inner.fields())
    }

    /// The bytes of the longest text that is parsed.
    pub fn text_bytes_max(&self) -> usize {
        match self.format {
            // A document is not longer.
            Format::Json => usize::MAX,
            _ => self.text_bytes_max,
        }
    }

    /// The steps that a text may take.
    pub fn steps(&self, text: &str) -> u64 {
        let states = self.inner.as_ref().map_or(1, |inner| inner.states());
        (text.len().min(self.text_bytes_max) as u64).saturating_mul(states)
    }

    /// How many values of the result may contain one byte of a text.
    pub fn overlap(&self) -> u64 {
        // As JSON, a byte may take six.
        self.inner.as_ref().map_or(6, |inner| inner.overlap())
    }

    /// Parses a text into these values, one for each field. Returns false, and leaves no value, if the text has another
    /// form or is too long.
    pub fn parse<'t>(&self, text: &'t str, values: &mut Values<'t>) -> bool {
        values.clear();
        let Some(inner) = &self.inner else { return false };
        values.resize(inner.fields().len(), None);
        let is_parsed = text.len() <= self.text_bytes_max && inner.parse(text, values);
        if !is_parsed {
            values.fill(None);
        }
        is_parsed
    }

    /// Parses a text into JSON; None if it has another form or is too long. `seen` is called for each field that has a
    /// value, and whether the value has the type of the field; if not, the field is left out.
    pub fn parse_json<'t>(&self, text: &'t str, mut seen: impl FnMut(&str, bool)) -> Option<Cow<'t, str>> {
        if self.format == Format::Json {
            // As a document is read: what is nested too deeply has no values.
            return json::parse(text.as_bytes()).is_ok().then_some(Cow::Borrowed(text));
        }
        if text.len() > self.text_bytes_max {
            return None;
        }
        let Some(inner) = &self.inner else {
            let object = logfmt::parse(text)?;
            return Some(Cow::Owned(Value::Object(object).to_string()));
        };
        let mut values = Values::new();
        if !self.parse(text, &mut values) {
            return None;
        }
        let mut object = Map::new();
        for (field, value) in inner.fields().iter().zip(values) {
            let Some(value) = value else { continue };
            let value = field.field_type.json(value);
            seen(&field.name, value.is_some());
            if let Some(value) = value {
                put(&mut object, &field.name, value);
            }
        }
        Some(Cow::Owned(Value::Object(object).to_string()))
    }

    /// Checks that each field can be reached by its name.
    fn check_fields(&self) -> Result<(), Problem> {
        let Some(fields) = self.fields() else { return Ok(()) };
        let bad = |detail: String| Problem::new(Code::BadSql, format!("{}: {detail}", self.format.as_str()));
        if fields.is_empty() {
            return Err(bad("the pattern has no field".to_owned()).hint(match self.format {
                Format::Grok => "name the parts that you want: %{IP:client}",
                _ => "name the parts that you want: (?<client>[0-9.]+)",
            }));
        }
        if fields.len() > FIELDS_MAX {
            let count = fields.len();
            let detail = format!("{count} fields; the limit is {FIELDS_MAX}");
            return Err(Problem::new(Code::TooComplex, detail));
        }
        for (index, field) in fields.iter().enumerate() {
            if field.name.split('.').count() > PATH_KEYS_MAX {
                let detail = format!("the name of a field has over {PATH_KEYS_MAX} keys");
                return Err(bad(detail).hint("write names like client or client.address"));
            }
            if field.name.split('.').any(str::is_empty) {
                return Err(bad(format!("{:?} cannot be the name of a field", field.name))
                    .hint("write names like client or client.address"));
            }
            let inside = |other: &str| {
                other == field.name
                    || other
                        .strip_prefix(&field.name)
                        .is_some_and(|rest| rest.starts_with('.'))
            };
            let clash = fields
                .iter()
                .enumerate()
                .find(|(at, other)| *at != index && inside(&other.name));
            if let Some((_, other)) = clash {
                return Err(bad(format!(
                    "the fields {} and {} have the same path",
                    field.name, other.name
                ))
                .hint("give each field a name of its own"));
            }
        }
        Ok(())
    }
}

impl FieldType {
    /// A value of this type as JSON; None if it cannot be one.
    fn json(self, value: Cow<'_, str>) -> Option<Value> {
        match self {
            Self::Text => Some(Value::String(value.into_owned())),
            Self::Int => int(&value).map(Value::from),
            Self::Double => double(&value).map(Value::from),
            Self::Json => serde_json::from_str(&value).ok(),
        }
    }
}

/// The integer that a text spells.
pub fn int(text: &str) -> Option<i64> {
    text.trim().parse().ok()
}

/// The finite double that a text spells.
pub fn double(text: &str) -> Option<f64> {
    text.trim().parse().ok().filter(|double: &f64| double.is_finite())
}

/// Puts a value at a path of keys that dots separate. Objects along the path are made. If there is another value in the
/// way, or the path has too many keys, it is one key.
fn put(object: &mut Map<String, Value>, path: &str, value: Value) {
    let mut keys: Vec<&str> = path.split('.').take(PATH_KEYS_MAX + 1).collect();
    let (Some(last), true) = (keys.pop(), keys.len() < PATH_KEYS_MAX) else {
        object.insert(path.to_owned(), value);
        return;
    };
    let mut inside = &*object;
    for key in &keys {
        match inside.get(*key) {
            Some(Value::Object(next)) => inside = next,
            Some(_) => {
                object.insert(path.to_owned(), value);
                return;
            }
            None => break,
        }
    }
    let mut inside = object;
    for key in keys {
        let next = inside.entry(key).or_insert_with(|| Value::Object(Map::new()));
        let Value::Object(next) = next else { return };
        inside = next;
    }
    inside.insert(last.to_owned(), value);
}

/// Whether there is a value at a path of keys that dots separate.
fn has(object: &Map<String, Value>, path: &str) -> bool {
    if object.contains_key(path) {
        return true;
    }
    let mut keys = path.split('.').take(PATH_KEYS_MAX);
    let first = keys.next().and_then(|key| object.get(key));
    keys.try_fold(first, |inside, key| Some(inside?.as_object()?.get(key)))
        .flatten()
        .is_some()
}

#[cfg(test)]
mod tests;
