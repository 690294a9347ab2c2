//! What a set of documents holds: the paths with one kind of value, samples of them, and the same values laid out flat
//! for DuckDB.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use rand::{rngs::StdRng, seq::IndexedRandom as _};
use serde_json::{Map, Value, json};

use super::Kind;

/// Paths of one set that statements are made of.
const COLUMNS_MAX: usize = 40;
/// A path that fewer documents have shows little.
const VALUES_MIN: usize = 40;
/// A path with a longer text is left out: an answer shows every row.
const TEXT_CHARS_MAX: usize = 240;
/// Samples kept of each path, for literals.
const SAMPLES_MAX: usize = 40;
/// Integers up to here are the same as doubles.
const EXACT_MAX: u64 = 1 << 53;

/// The path that numbers the documents of every set: a key, and what makes an order total.
pub const NUMBER: &str = "nr";

/// A path with one kind of value.
#[derive(Debug, Clone, PartialEq)]
pub struct Column {
    /// The keys and indexes on the way, as they stand in a document.
    pub steps: Vec<Step>,
    /// Its name in DuckDB's table.
    pub flat: String,
    /// The kind of all its values.
    pub kind: Kind,
    /// Some of its values.
    pub samples: Vec<Value>,
    /// All of its texts are ASCII.
    pub ascii: bool,
    /// All of its texts are integers in digits.
    pub digits: bool,
    /// All of its texts are times with a date, a `T` and an offset.
    pub times: bool,
    /// How often each value is there, to know how large a join would be.
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

/// A set of documents as statements see it.
#[derive(Debug)]
pub struct Set {
    /// The collection, and DuckDB's table.
    pub name: String,
    /// Its paths; [`NUMBER`] is the first.
    pub columns: Vec<Column>,
    /// The documents as they are pushed.
    pub documents: Vec<String>,
    /// The same as rows of flat columns.
    pub rows: Vec<Value>,
}

impl Set {
    /// Numbers the documents and looks through them.
    pub fn new(name: &str, documents: &[String], random: &mut StdRng) -> Self {
        let parsed: Vec<Map<String, Value>> = documents
            .iter()
            .map(|text| serde_json::from_str(text).expect("real events are objects"))
            .collect();
        let numbered =
            |(n, text): (usize, &String)| format!("{{\"{NUMBER}\":{n},{}", text.trim_start().trim_start_matches('{'));
        let documents: Vec<String> = documents.iter().enumerate().map(numbered).collect();
        let mut seen: BTreeMap<Vec<Step>, Seen> = BTreeMap::new();
        for (n, document) in parsed.into_iter().enumerate() {
            let document: Map<String, Value> = std::iter::once((NUMBER.to_owned(), json!(n))).chain(document).collect();
            look(&mut Vec::new(), Value::Object(document), n, &mut seen);
        }
        let spellings: Vec<String> = seen.keys().map(|steps| flat(steps).to_lowercase()).collect();
        let unique = |steps: &[Step]| {
            spellings
                .iter()
                .filter(|other| **other == flat(steps).to_lowercase())
                .count()
                == 1
        };
        let number = vec![Step::Key(NUMBER.to_owned())];
        let usable: Vec<(&Vec<Step>, &Seen, Kind)> = seen
            .iter()
            .filter(|(steps, _)| unique(steps))
            .filter_map(|(steps, seen)| Some((steps, seen, seen.kind()?)))
            .collect();
        let others: Vec<_> = usable.iter().filter(|(steps, ..)| **steps != number).collect();
        // Short paths are what people ask for; of the others the seed chooses.
        let (short, long): (Vec<&_>, Vec<&_>) = others.into_iter().partition(|(steps, ..)| steps.len() <= 2);
        let mut chosen: Vec<_> = usable.iter().filter(|(steps, ..)| **steps == number).collect();
        chosen.extend(short.sample(random, COLUMNS_MAX / 2).copied());
        chosen.extend(
            long.sample(random, COLUMNS_MAX - chosen.len().min(COLUMNS_MAX))
                .copied(),
        );
        let columns: Vec<Column> = chosen
            .iter()
            .map(|(steps, seen, kind)| seen.column(steps, *kind, random))
            .collect();
        let mut rows = vec![Map::new(); documents.len()];
        for (steps, seen, _) in chosen {
            seen.values
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
        let word = |kind| match kind {
            Kind::Integer => "BIGINT",
            Kind::Fraction => "DOUBLE",
            Kind::Boolean => "BOOLEAN",
            Kind::Text | Kind::Time => "VARCHAR",
        };
        Value::Object(
            self.columns
                .iter()
                .map(|column| (column.flat.clone(), json!(word(column.kind))))
                .collect(),
        )
    }
}

#[derive(Default)]
struct Seen {
    values: Vec<(usize, Value)>,
    odd: bool,
}

impl Seen {
    /// The one kind of its values, if there is one that statements are made of.
    fn kind(&self) -> Option<Kind> {
        if self.odd || self.values.len() < VALUES_MIN {
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
            times: kind == Kind::Text && texts().all(is_time),
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

fn is_time(text: &str) -> bool {
    let shape: String = text.chars().map(|c| if c.is_ascii_digit() { '9' } else { c }).collect();
    shape
        .strip_prefix("9999-99-99T99:99:99")
        .is_some_and(|rest| matches!(rest, "Z" | ".999Z" | "+99:99" | "-99:99"))
}

/// The name of a path in DuckDB: its steps, parted by what no key holds.
fn flat(steps: &[Step]) -> String {
    let word = |step: &Step| match step {
        Step::Key(key) => key.clone(),
        Step::Index(index) => index.to_string(),
    };
    steps.iter().map(word).collect::<Vec<_>>().join("/")
}

/// Notes every value below a path; of a list the first item alone.
fn look(steps: &mut Vec<Step>, value: Value, n: usize, seen: &mut BTreeMap<Vec<Step>, Seen>) {
    match value {
        Value::Null => {}
        Value::Object(object) => {
            seen.entry(steps.clone()).or_default().odd = true;
            for (key, value) in object {
                steps.push(Step::Key(key));
                look(steps, value, n, seen);
                steps.pop();
            }
        }
        Value::Array(list) => {
            seen.entry(steps.clone()).or_default().odd = true;
            steps.push(Step::Index(0));
            list.into_iter().take(1).for_each(|value| look(steps, value, n, seen));
            steps.pop();
        }
        value => seen.entry(steps.clone()).or_default().values.push((n, value)),
    }
}
