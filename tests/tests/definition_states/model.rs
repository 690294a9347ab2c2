//! Definitions and documents in plain Rust: what a value is under the versions that are in force.

use std::collections::BTreeMap;

use rand::{Rng, RngExt as _};
use serde_json::{Value as Json, json};

/// Fields; each may use those before it.
pub(crate) const FIELDS: usize = 4;

/// A document of the collection.
#[derive(Debug, Clone)]
pub(crate) struct Document {
    a: Option<i64>,
    line: Option<LineForm>,
}

/// What is in a line, in the forms that the formats tell apart.
#[derive(Debug, Clone, Copy)]
enum LineForm {
    NumberAndWord(i64),
    Number(i64),
    WordAndNumber(i64),
    NotANumber,
    Other,
}

impl Document {
    /// A document of any form.
    pub(crate) fn random(rng: &mut impl Rng) -> Self {
        let number = rng.random_range(0..40);
        let line = match rng.random_range(0..8) {
            0..=2 => Some(LineForm::NumberAndWord(number)),
            3 => Some(LineForm::Number(number)),
            4 => Some(LineForm::WordAndNumber(number)),
            5 => Some(LineForm::NotANumber),
            6 => Some(LineForm::Other),
            _ => None,
        };
        let a = rng.random_bool(0.9).then(|| rng.random_range(-20..60));
        Self { a, line }
    }

    /// Its JSON.
    pub(crate) fn json(&self) -> Json {
        let mut json = json!({});
        if let Some(a) = self.a {
            json["a"] = json!(a);
        }
        let text = self.line.map(|line| match line {
            LineForm::NumberAndWord(n) => format!("n={n} w=red"),
            LineForm::Number(n) => format!("n={n}"),
            LineForm::WordAndNumber(n) => format!("w=red n={n}"),
            LineForm::NotANumber => "n=x w=red".to_owned(),
            LineForm::Other => "panic: out of range".to_owned(),
        });
        if let Some(text) = text {
            json["line"] = json!(text);
        }
        json
    }
}

/// A version by its number, by the tag `prod`, or the one without `@`.
#[derive(Debug, Clone, Copy)]
pub(crate) enum VersionName {
    Latest,
    Prod,
    Number(usize),
}

impl VersionName {
    fn suffix(self) -> String {
        match self {
            Self::Latest => String::new(),
            Self::Prod => "@prod".to_owned(),
            Self::Number(number) => format!("@{number}"),
        }
    }
}

/// The versions of a definition, and where its tags are.
#[derive(Debug, Clone)]
pub(crate) struct History<T> {
    versions: Vec<T>,
    /// The number of the version that each of them replaced; the first one replaced none.
    replaced: Vec<Option<usize>>,
    /// The number of the version with the tag `latest`.
    latest: usize,
    prod: Option<usize>,
}

impl<T> History<T> {
    fn new(first: T) -> Self {
        Self {
            versions: vec![first],
            replaced: vec![None],
            latest: 1,
            prod: None,
        }
    }

    fn number(&self, name: VersionName) -> usize {
        match name {
            VersionName::Latest => self.latest,
            VersionName::Prod => self.prod.expect("the generator names tags that exist"),
            VersionName::Number(number) => number,
        }
    }

    fn get(&self, name: VersionName) -> &T {
        &self.versions[self.number(name) - 1]
    }

    /// A new version gets the tag `latest`. The text of the latest version is no new version.
    fn define(&mut self, version: T, is_same: bool) {
        if !is_same {
            self.versions.push(version);
            self.replaced.push(Some(self.latest));
            self.latest = self.versions.len();
        }
    }

    /// Moves one of the tags, and returns the statement that does.
    fn move_tag(&mut self, rng: &mut impl Rng, name: &str) -> String {
        let number = rng.random_range(1..=self.versions.len());
        match (rng.random_range(0..3), self.replaced[self.latest - 1]) {
            (0, Some(replaced)) => {
                self.latest = replaced;
                format!("REVERT {name}")
            }
            (1, _) => {
                self.latest = number;
                format!("REVERT {name} TO {number}")
            }
            _ => {
                self.prod = Some(number);
                format!("ALTER {name} SET TAG prod TO {number}")
            }
        }
    }

    /// A version that exists.
    fn any_name(&self, rng: &mut impl Rng) -> VersionName {
        match rng.random_range(0..4) {
            0 if self.prod.is_some() => VersionName::Prod,
            1 => VersionName::Number(rng.random_range(1..=self.versions.len())),
            _ => VersionName::Latest,
        }
    }
}

/// An integer computed from a document.
#[derive(Debug, Clone)]
pub(crate) enum Value {
    /// The path `a`.
    A,
    /// What the parser finds as `n`.
    Parsed(VersionName),
    Field(usize, VersionName),
    Plus(Box<Value>, i64),
    Times(Box<Value>, i64),
    Shift(VersionName, Box<Value>),
    Coalesce(Box<Value>, i64),
    /// 1 if the value is above the number, else 0.
    IsAbove(Box<Value>, i64),
}

/// A format of the parser.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Format {
    Grok,
    Regex,
    Logfmt,
}

impl Format {
    fn sql(self) -> &'static str {
        match self {
            Self::Grok => "GROK '^n=%{INT:n:int}'",
            Self::Regex => "REGEX '^n=(?<n>[0-9]+) w='",
            Self::Logfmt => "LOGFMT",
        }
    }

    fn number(self, line: LineForm) -> Option<i64> {
        match (self, line) {
            (_, LineForm::NumberAndWord(n))
            | (Self::Grok | Self::Logfmt, LineForm::Number(n))
            | (Self::Logfmt, LineForm::WordAndNumber(n)) => Some(n),
            _ => None,
        }
    }
}

/// Which documents the view has, and what it shows of them as `x` and `y`.
#[derive(Debug, Clone)]
pub(crate) struct View {
    x: Value,
    y: Value,
    above: Value,
    limit: i64,
}

/// All definitions.
#[derive(Debug, Clone)]
pub(crate) struct Definitions {
    fields: Vec<History<Value>>,
    shift: History<i64>,
    parser: History<Format>,
    view: History<View>,
}

impl Definitions {
    /// Definitions with one version each, and the statements that create them.
    pub(crate) fn first() -> (Self, Vec<String>) {
        let field = |number: usize| match number {
            0 => Value::Plus(Box::new(Value::A), 1),
            1 => Value::Parsed(VersionName::Latest),
            _ => Value::Times(Box::new(Value::Field(number - 2, VersionName::Latest)), 2),
        };
        let view = View {
            x: Value::Field(0, VersionName::Latest),
            y: Value::Field(1, VersionName::Latest),
            above: Value::A,
            limit: 10,
        };
        let definitions = Self {
            fields: (0..FIELDS).map(|number| History::new(field(number))).collect(),
            shift: History::new(1),
            parser: History::new(Format::Grok),
            view: History::new(view),
        };
        let mut statements = vec![Self::create_shift(1), Self::create_parser(Format::Grok)];
        for (number, field) in definitions.fields.iter().enumerate() {
            statements.push(definitions.create_field(number, field.get(VersionName::Latest)));
        }
        statements.push(definitions.create_view(definitions.view.get(VersionName::Latest)));
        (definitions, statements)
    }

    fn create_shift(by: i64) -> String {
        format!("CREATE OR REPLACE FUNCTION shift(x bigint) RETURNS bigint AS x + ({by})")
    }

    fn create_parser(format: Format) -> String {
        format!("CREATE OR REPLACE PARSER events.access ON line AS {}", format.sql())
    }

    fn create_field(&self, number: usize, value: &Value) -> String {
        format!("CREATE OR REPLACE FIELD events.f{number} AS {}", self.sql(value))
    }

    fn create_view(&self, View { x, y, above, limit }: &View) -> String {
        format!(
            "CREATE OR REPLACE VIEW some AS SELECT _id AS id, {} AS x, {} AS y FROM events WHERE {} > {limit}",
            self.sql(x),
            self.sql(y),
            self.sql(above)
        )
    }

    /// A value over everything below a field with this number.
    pub(crate) fn random_value(&self, rng: &mut impl Rng, below: usize, depth: usize) -> Value {
        let number = rng.random_range(-9..10);
        let inner = |rng: &mut _| Box::new(self.random_value(rng, below, depth.saturating_sub(1)));
        match rng.random_range(0..if depth == 0 { 4 } else { 9 }) {
            0 => Value::A,
            1 => Value::Parsed(self.parser.any_name(rng)),
            2 | 3 if below > 0 => {
                let field = rng.random_range(0..below);
                Value::Field(field, self.fields[field].any_name(rng))
            }
            2 | 3 => Value::A,
            4 => Value::Plus(inner(rng), number),
            5 => Value::Times(inner(rng), number % 3),
            6 => Value::Shift(self.shift.any_name(rng), inner(rng)),
            7 => Value::Coalesce(inner(rng), number),
            _ => Value::IsAbove(inner(rng), number * 3),
        }
    }

    /// A value in SQL.
    pub(crate) fn sql(&self, value: &Value) -> String {
        match value {
            Value::A => "a::bigint".to_owned(),
            Value::Parsed(version) => format!("access{}.n::bigint", version.suffix()),
            Value::Field(number, version) => format!("f{number}{}", version.suffix()),
            Value::Plus(value, number) => format!("({} + ({number}))", self.sql(value)),
            Value::Times(value, number) => format!("({} * ({number}))", self.sql(value)),
            Value::Shift(version, value) => format!("shift{}({})", version.suffix(), self.sql(value)),
            Value::Coalesce(value, number) => format!("coalesce({}, {number})", self.sql(value)),
            Value::IsAbove(value, number) => format!("CASE WHEN {} > {number} THEN 1 ELSE 0 END", self.sql(value)),
        }
    }

    /// A value of a document, with the versions that are in force.
    pub(crate) fn evaluate(&self, value: &Value, document: &Document) -> Option<i64> {
        match value {
            Value::A => document.a,
            Value::Parsed(version) => self.parser.get(*version).number(document.line?),
            Value::Field(number, version) => self.evaluate(self.fields[*number].get(*version), document),
            Value::Plus(value, number) => Some(self.evaluate(value, document)? + number),
            Value::Times(value, number) => Some(self.evaluate(value, document)? * number),
            Value::Shift(version, value) => Some(self.evaluate(value, document)? + self.shift.get(*version)),
            Value::Coalesce(value, number) => Some(self.evaluate(value, document).unwrap_or(*number)),
            Value::IsAbove(value, number) => Some(i64::from(self.evaluate(value, document) > Some(*number))),
        }
    }

    /// The rows of the view.
    pub(crate) fn view_rows(&self, documents: &BTreeMap<String, Document>) -> Vec<[Option<i64>; 2]> {
        let View { x, y, above, limit } = self.view.get(VersionName::Latest);
        let shown = documents
            .values()
            .filter(|document| self.evaluate(above, document) > Some(*limit));
        shown
            .map(|document| [self.evaluate(x, document), self.evaluate(y, document)])
            .collect()
    }

    /// Makes a change, and returns its statement.
    pub(crate) fn random_change(&mut self, rng: &mut impl Rng) -> String {
        let field = rng.random_range(0..FIELDS);
        match rng.random_range(0..12) {
            0..=3 => {
                let value = self.random_value(rng, field, 2);
                let statement = self.create_field(field, &value);
                let current = self.create_field(field, self.fields[field].get(VersionName::Latest));
                self.fields[field].define(value, statement == current);
                statement
            }
            4 => {
                let by = rng.random_range(-5..6);
                let is_same = by == *self.shift.get(VersionName::Latest);
                self.shift.define(by, is_same);
                Self::create_shift(by)
            }
            5 => {
                let format = [Format::Grok, Format::Regex, Format::Logfmt][rng.random_range(0..3)];
                let is_same = format == *self.parser.get(VersionName::Latest);
                self.parser.define(format, is_same);
                Self::create_parser(format)
            }
            6 => {
                let view = View {
                    x: self.random_value(rng, FIELDS, 1),
                    y: self.random_value(rng, FIELDS, 1),
                    above: self.random_value(rng, FIELDS, 1),
                    limit: rng.random_range(0..40),
                };
                let statement = self.create_view(&view);
                let is_same = statement == self.create_view(self.view.get(VersionName::Latest));
                self.view.define(view, is_same);
                statement
            }
            7 => self.shift.move_tag(rng, "FUNCTION shift"),
            8 => self.parser.move_tag(rng, "PARSER events.access"),
            9 => self.view.move_tag(rng, "VIEW some"),
            _ => self.fields[field].move_tag(rng, &format!("FIELD events.f{field}")),
        }
    }
}
