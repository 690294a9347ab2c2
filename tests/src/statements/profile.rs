//! The profile of a document set: paths with one kind of value, samples of their values, and the same values flattened
//! into columns for DuckDB.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use rand::{rngs::StdRng, seq::IndexedRandom as _};
use serde_json::{Map, Value, json};

use super::Kind;

/// How many paths of a set are used in statements.
const COLUMNS_MAX: usize = 40;
/// How many documents must have a path; rarer paths test little.
const VALUES_MIN: usize = 40;
/// Paths with longer strings are left out, because answers contain every row.
const TEXT_CHARS_MAX: usize = 240;
/// How many values of each path are sampled, for literals.
const SAMPLES_MAX: usize = 40;
/// Up to here, every integer is exactly a double.
const EXACT_MAX: u64 = 1 << 53;

/// The path that numbers the documents of every set: a unique key, which makes an order total.
pub(super) const NUMBER_PATH: &str = "nr";

/// A path with one kind of value.
#[derive(Debug, Clone, PartialEq)]
pub struct Column {
    /// The keys and indexes that lead to it.
    pub steps: Vec<Step>,
    /// Its column in DuckDB's table.
    pub flat: String,
    /// The kind of all its values.
    pub kind: Kind,
    /// Some of its values.
    pub samples: Vec<Value>,
    /// Whether all its strings are ASCII.
    pub ascii: bool,
    /// Whether all its strings are integers in digits.
    pub digits: bool,
    /// Whether all its strings are timestamps with a date, a `T` and an offset.
    pub timestamps: bool,
    /// How often each value occurs, to estimate the size of a join.
    pub counts: HashMap<String, u64>,
}

/// One step of a path.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Step {
    /// Into an object.
    Key(String),
    /// Into a list, from 0.
    Index(usize),
}

/// A set of documents, as profiled for statements.
#[derive(Debug)]
pub struct DocumentSet {
    /// The name of the collection, and of DuckDB's table.
    pub name: String,
    /// Its paths; [`NUMBER_PATH`] is the first.
    pub columns: Vec<Column>,
    /// The documents' JSON.
    pub documents: Vec<String>,
    /// The same documents as rows of flat columns.
    pub rows: Vec<Value>,
}

impl DocumentSet {
    /// Numbers the documents and profiles their paths.
    pub fn new(name: &str, documents: &[String], random: &mut StdRng) -> Self {
        let parsed: Vec<Map<String, Value>> = documents
            .iter()
            .map(|text| serde_json::from_str(text).expect("real events are objects"))
            .collect();
        let numbered = |(n, text): (usize, &String)| {
            format!("{{\"{NUMBER_PATH}\":{n},{}", text.trim_start().trim_start_matches('{'))
        };
        let documents: Vec<String> = documents.iter().enumerate().map(numbered).collect();
        let mut profiles: BTreeMap<Vec<Step>, PathProfile> = BTreeMap::new();
        for (n, document) in parsed.into_iter().enumerate() {
            let document: Map<String, Value> = std::iter::once((NUMBER_PATH.to_owned(), json!(n)))
                .chain(document)
                .collect();
            profile_value(&mut Vec::new(), Value::Object(document), n, &mut profiles);
        }
        let chosen = choose_paths(&profiles, random);
        let columns: Vec<Column> = chosen
            .iter()
            .map(|(steps, profile, kind)| profile.column(steps, *kind, random))
            .collect();
        let mut rows = vec![Map::new(); documents.len()];
        for (steps, profile, _) in chosen {
            profile
                .values
                .iter()
                .for_each(|(n, value)| drop(rows[*n].insert(flat(steps), value.clone())));
        }
        Self {
            name: name.to_owned(),
            columns,
            documents,
            rows: rows.into_iter().map(Value::Object).collect(),
        }
    }

    /// DuckDB's type of each flat column.
    pub fn types(&self) -> Value {
        let duckdb_type = |kind| match kind {
            Kind::Integer => "BIGINT",
            Kind::Fraction => "DOUBLE",
            Kind::Boolean => "BOOLEAN",
            Kind::Text | Kind::Time => "VARCHAR",
        };
        Value::Object(
            self.columns
                .iter()
                .map(|column| (column.flat.clone(), json!(duckdb_type(column.kind))))
                .collect(),
        )
    }
}

/// A path that statements can use, with its profile and the kind of its values.
type UsablePath<'a> = (&'a Vec<Step>, &'a PathProfile, Kind);

/// Chooses the paths of a set: the document number, and a sample of the others.
fn choose_paths<'a>(profiles: &'a BTreeMap<Vec<Step>, PathProfile>, random: &mut StdRng) -> Vec<UsablePath<'a>> {
    let names: Vec<String> = profiles.keys().map(|steps| flat(steps).to_lowercase()).collect();
    let unique = |steps: &[Step]| {
        names
            .iter()
            .filter(|other| **other == flat(steps).to_lowercase())
            .count()
            == 1
    };
    let number = vec![Step::Key(NUMBER_PATH.to_owned())];
    let usable: Vec<UsablePath<'a>> = profiles
        .iter()
        .filter(|(steps, _)| unique(steps))
        .filter_map(|(steps, profile)| Some((steps, profile, profile.kind()?)))
        .collect();
    let others: Vec<&UsablePath<'a>> = usable.iter().filter(|(steps, ..)| **steps != number).collect();
    // People mostly query short paths; half of the columns are short.
    let (short, long): (Vec<&UsablePath<'a>>, Vec<&UsablePath<'a>>) =
        others.into_iter().partition(|(steps, ..)| steps.len() <= 2);
    let mut chosen: Vec<&UsablePath<'a>> = usable.iter().filter(|(steps, ..)| **steps == number).collect();
    chosen.extend(short.sample(random, COLUMNS_MAX / 2).copied());
    chosen.extend(
        long.sample(random, COLUMNS_MAX - chosen.len().min(COLUMNS_MAX))
            .copied(),
    );
    chosen.into_iter().copied().collect()
}

/// The values of one path.
#[derive(Default)]
struct PathProfile {
    /// Document numbers and values.
    values: Vec<(usize, Value)>,
    /// Whether it is a list or an object somewhere.
    nested: bool,
}

impl PathProfile {
    /// The kind of its values, if there is exactly one that statements support.
    fn kind(&self) -> Option<Kind> {
        if self.nested || self.values.len() < VALUES_MIN {
            return None;
        }
        let kinds: Option<BTreeSet<Kind>> = self.values.iter().map(|(_, value)| kind_of(value)).collect();
        match kinds?.into_iter().collect::<Vec<_>>()[..] {
            [kind] => Some(kind),
            [Kind::Integer, Kind::Fraction] => Some(Kind::Fraction),
            _ => None,
        }
    }

    fn column(&self, steps: &[Step], kind: Kind, random: &mut StdRng) -> Column {
        let texts = || self.values.iter().filter_map(|(_, value)| value.as_str());
        let digits = |text: &str| (1..=15).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_digit());
        let mut counts = HashMap::new();
        self.values
            .iter()
            .for_each(|(_, value)| *counts.entry(value.to_string()).or_default() += 1);
        Column {
            steps: steps.to_vec(),
            flat: flat(steps),
            kind,
            samples: self
                .values
                .sample(random, SAMPLES_MAX)
                .map(|(_, value)| value.clone())
                .collect(),
            ascii: texts().all(str::is_ascii),
            digits: kind == Kind::Text && texts().all(digits),
            timestamps: kind == Kind::Text && texts().all(is_timestamp),
            counts,
        }
    }
}

fn kind_of(value: &Value) -> Option<Kind> {
    match value {
        Value::Bool(_) => Some(Kind::Boolean),
        Value::Number(number) if number.is_f64() => Some(Kind::Fraction),
        Value::Number(number) => number
            .as_i64()
            .filter(|n| n.unsigned_abs() < EXACT_MAX)
            .map(|_| Kind::Integer),
        Value::String(text) => (text.chars().count() <= TEXT_CHARS_MAX && !text.contains('\0')).then_some(Kind::Text),
        _ => None,
    }
}

fn is_timestamp(text: &str) -> bool {
    let shape: String = text.chars().map(|c| if c.is_ascii_digit() { '9' } else { c }).collect();
    shape
        .strip_prefix("9999-99-99T99:99:99")
        .is_some_and(|rest| matches!(rest, "Z" | ".999Z" | "+99:99" | "-99:99"))
}

/// The column of a path in DuckDB: its steps, separated by a character that no key contains.
fn flat(steps: &[Step]) -> String {
    let name = |step: &Step| match step {
        Step::Key(key) => key.clone(),
        Step::Index(index) => index.to_string(),
    };
    steps.iter().map(name).collect::<Vec<_>>().join("/")
}

/// Records every value at and below a path; of a list only the first item.
fn profile_value(steps: &mut Vec<Step>, value: Value, n: usize, profiles: &mut BTreeMap<Vec<Step>, PathProfile>) {
    match value {
        Value::Null => {}
        Value::Object(object) => {
            profiles.entry(steps.clone()).or_default().nested = true;
            for (key, value) in object {
                steps.push(Step::Key(key));
                profile_value(steps, value, n, profiles);
                steps.pop();
            }
        }
        Value::Array(list) => {
            profiles.entry(steps.clone()).or_default().nested = true;
            steps.push(Step::Index(0));
            list.into_iter()
                .take(1)
                .for_each(|value| profile_value(steps, value, n, profiles));
            steps.pop();
        }
        value => profiles.entry(steps.clone()).or_default().values.push((n, value)),
    }
}
