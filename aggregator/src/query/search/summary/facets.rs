//! Facets: how often each value of a path occurs among the matches, or how many matches lie in each range.
//!
//! The values of a list count each; a value that a document has several times counts once. If a path may hold lists, or
//! leads through them, the lists are counted first, by the leaves, and taken apart after that.

use chrono::{DateTime, Utc};
use datafusion::arrow::{
    array::{ArrayRef, RecordBatch},
    datatypes::DataType,
};
use plan::{
    Column, Kinds, Path, PathKinds,
    column::{is_json, kinds_of},
    path::Step,
    search,
};
use proto::{Code, Problem};

use super::{Matches, counts};
use crate::{
    answer::{Facet, FacetValue},
    query::search::{
        Searched,
        path_list::split_outside,
        statement::{INPUT, input_path},
    },
    render::{self, LineBreaks},
    sql::SchemaContext as _,
};

/// The facets of a search, at most.
const FACETS_MAX: usize = 50;
/// The values of a facet if the request does not say how many.
const VALUES_DEFAULT: usize = 10;
/// The values of a facet, at most.
const VALUES_MAX: usize = 10_000;
/// The ranges of a facet, at most.
const RANGES_MAX: usize = 50;

const HINT: &str = "write facets=kind,user.country:20 for the most frequent values (10, or as many as you say), or \
                    ms(10,100) for the numbers of documents below 10, from 10 to below 100, and from 100 on";

/// A facet as it was asked for.
#[derive(Debug, PartialEq)]
pub(super) struct FacetRequest {
    path: Path,
    counted: Counted,
}

/// What a facet counts.
#[derive(Debug, PartialEq)]
enum Counted {
    /// The documents with each of this many values.
    Values(usize),
    /// The documents in each of these ranges, as a search spells them: `[10 TO 100}`.
    Ranges(Vec<String>),
}

/// Parses a list of facets: `kind,user.country:20,ms(10,100)`.
pub(super) fn parse(text: &str, now: DateTime<Utc>) -> Result<Vec<FacetRequest>, Problem> {
    let mut facets: Vec<FacetRequest> = Vec::new();
    for part in split_outside(text, ',') {
        let facet = parse_facet(part.trim(), now)?;
        if facets.iter().any(|other| other.path == facet.path) {
            return Err(bad(format!("facets: {} occurs twice", facet.path)));
        }
        facets.push(facet);
    }
    match facets.len() > FACETS_MAX {
        true => Err(bad(format!(
            "a search can have {FACETS_MAX} facets, not {}",
            facets.len()
        ))),
        false => Ok(facets),
    }
}

fn bad(detail: String) -> Problem {
    Problem::new(Code::BadRequest, detail).hint(HINT)
}

fn parse_facet(text: &str, now: DateTime<Utc>) -> Result<FacetRequest, Problem> {
    let path = |path: &str| match Path::parse(path.trim()) {
        Ok(path) if !path.steps().is_empty() => Ok(path),
        Ok(_) => Err(bad("facets: a path is empty".to_owned())),
        Err(e) => Err(bad(format!("facets: {e}"))),
    };
    if let Some((name, bounds)) = text.strip_suffix(')').and_then(|text| text.rsplit_once('(')) {
        let counted = Counted::Ranges(ranges(bounds, now)?);
        return Ok(FacetRequest {
            path: path(name)?,
            counted,
        });
    }
    let (name, size) = match split_outside(text, ':').as_slice() {
        [name] => (*name, VALUES_DEFAULT),
        [name, size] => {
            let size = size.trim().parse().ok().filter(|size| (1..=VALUES_MAX).contains(size));
            let wrong = || {
                bad(format!(
                    "facets: the number of values in {text:?} is not between 1 and {VALUES_MAX}"
                ))
            };
            (*name, size.ok_or_else(wrong)?)
        }
        _ => return Err(bad(format!("facets: {text:?} is not a path with a number of values"))),
    };
    Ok(FacetRequest {
        path: path(name)?,
        counted: Counted::Values(size),
    })
}

/// The ranges between these bounds, with those below the first and from the last on.
fn ranges(bounds: &str, now: DateTime<Utc>) -> Result<Vec<String>, Problem> {
    let bounds: Vec<&str> = bounds.split(',').map(str::trim).collect();
    let is_bound =
        |bound: &&str| !bound.is_empty() && !bound.contains(|c: char| c.is_whitespace() || "[](){}\"*\\".contains(c));
    if let Some(wrong) = bounds.iter().find(|bound| !is_bound(bound)) {
        return Err(bad(format!("facets: {wrong:?} is not a bound of a range")));
    }
    if bounds.len() >= RANGES_MAX {
        return Err(bad(format!(
            "facets: {} bounds are too many: the limit is {}",
            bounds.len(),
            RANGES_MAX - 1
        )));
    }
    let is_ascending = |pair: &[&str]| {
        let numbers = pair[0].parse::<f64>().ok().zip(pair[1].parse::<f64>().ok());
        let times = || search::time(pair[0], now).zip(search::time(pair[1], now));
        match (numbers, times()) {
            (Some((below, above)), _) => below < above,
            (None, Some((earlier, later))) => earlier < later,
            (None, None) => pair[0] < pair[1],
        }
    };
    if let Some(pair) = bounds.windows(2).find(|pair| !is_ascending(pair)) {
        return Err(bad(format!(
            "facets: the bounds {} and {} are not in order",
            pair[0], pair[1]
        )));
    }
    let (first, last) = (bounds[0], bounds[bounds.len() - 1]);
    let between = bounds.windows(2).map(|pair| format!("[{} TO {}}}", pair[0], pair[1]));
    let below = std::iter::once(format!("[* TO {first}}}"));
    Ok(below.chain(between).chain([format!("[{last} TO *]")]).collect())
}

/// Computes facets, one after another.
pub(super) async fn compute(matches: &Matches<'_>, requests: &[FacetRequest]) -> Result<Vec<Facet>, Problem> {
    let mut facets = Vec::with_capacity(requests.len());
    for request in requests {
        facets.push(match &request.counted {
            Counted::Values(size) => values(matches, &request.path, *size).await?,
            Counted::Ranges(ranges) => in_ranges(matches, &request.path, ranges).await?,
        });
    }
    Ok(facets)
}

async fn values(matches: &Matches<'_>, path: &Path, size: usize) -> Result<Facet, Problem> {
    let from = matches.input_sql();
    let (rows, total) = match lists_of(matches, path).await? {
        None => {
            // Matches without a value come first, so that their number is known; the rest have one value each.
            let sql = format!(
                "SELECT value, count FROM (SELECT {} AS value, count(*) AS count {from} GROUP BY 1) AS counted \
                 ORDER BY value IS NULL DESC, count DESC, value LIMIT {}",
                input_path(path),
                size + 1
            );
            let rows = matches.rows(&sql).await?;
            let without = rows.column(0).logical_null_count();
            let missing: u64 = counts(&rows, 1)?.iter().take(without).sum();
            let found = (rows.num_rows() - without).min(size);
            (rows.slice(without, found), matches.total.saturating_sub(missing))
        }
        Some(lists) => {
            let sql = format!(
                "SELECT value, count, sum(count) OVER () AS total FROM (SELECT value, sum(count) AS count FROM \
                 (SELECT unnest(list) AS value, count FROM (SELECT {lists} AS list, count(*) AS count {from} GROUP BY 1) \
                 AS lists) AS items GROUP BY 1) AS counted WHERE value IS NOT NULL \
                 ORDER BY count DESC, value LIMIT {size}"
            );
            let rows = matches.rows(&sql).await?;
            let total = counts(&rows, 2)?.first().copied().unwrap_or_default();
            (rows, total)
        }
    };
    let found = counts(&rows, 1)?;
    let column = render::plain_columns(&rows).swap_remove(0);
    let value = |(row, count): (usize, &u64)| FacetValue {
        value: json(&rows, &column, row),
        count: *count,
    };
    Ok(Facet {
        path: path.to_string(),
        others: Some(total.saturating_sub(found.iter().sum())),
        values: found.iter().enumerate().map(value).collect(),
    })
}

/// The value in the first column of a row.
fn json(rows: &RecordBatch, column: &ArrayRef, row: usize) -> String {
    let mut text = Vec::new();
    render::json(&mut text, rows.schema().field(0), column, row, LineBreaks::ToSpaces);
    String::from_utf8(text).unwrap_or_default()
}

/// How many of the matches lie in each range. The ranges mean what they do in a search, so a range that was found can be
/// searched for.
async fn in_ranges(matches: &Matches<'_>, path: &Path, ranges: &[String]) -> Result<Facet, Problem> {
    let name = quoted_path(path);
    let count = |range: &String| {
        let condition = format!("{name}:{range}").replace('\'', "''");
        format!("count(*) FILTER (WHERE search({INPUT}, '{condition}'))")
    };
    let counted: Vec<String> = ranges.iter().map(count).collect();
    let sql = format!("SELECT {} {}", counted.join(", "), matches.input_sql());
    let rows = matches.rows(&sql).await?;
    let mut values = Vec::with_capacity(ranges.len());
    for (column, range) in ranges.iter().enumerate() {
        values.push(FacetValue {
            value: serde_json::Value::from(range.as_str()).to_string(),
            count: counts(&rows, column)?.first().copied().unwrap_or_default(),
        });
    }
    Ok(Facet {
        path: path.to_string(),
        values,
        others: None,
    })
}

/// A path as a search spells it whatever its keys are: each in quotes.
fn quoted_path(path: &Path) -> String {
    path.steps().iter().fold(String::new(), |start, step| match step {
        Step::Index(index) => format!("{start}[{index}]"),
        Step::Key(key) => {
            let dot = if start.is_empty() { "" } else { "." };
            format!("{start}{dot}\"{}\"", key.replace('"', "\"\""))
        }
    })
}

/// The SQL of the values of a path as lists. None if it has no lists and leads through none.
async fn lists_of(matches: &Matches<'_>, path: &Path) -> Result<Option<String>, Problem> {
    let scalars = Kinds::NULL | Kinds::BOOL | Kinds::NUMBER | Kinds::TEXT;
    let (has_lists, whole) = match matches.searched {
        Searched::Collection(name) => match matches.defined_steps(path) {
            Some(steps) => (may_be_list(matches, path, scalars).await?, steps),
            None => {
                let paths = matches.read_views.paths(name);
                let stored = stored_spelling(&paths, path);
                let kinds_of = |steps| paths.paths.get(&prefix(&stored, steps)).copied();
                let kinds = kinds_of(stored.steps().len());
                let is_stored = Column::system(&path.to_string()).is_none();
                let has_scalars = kinds.is_some_and(|kinds| kinds.only(scalars));
                let may_exist = kinds.is_some() || paths.overflow || path.keys().is_none();
                let is_list = |steps: &usize| kinds_of(*steps).is_some_and(|kinds| kinds.any(Kinds::ARRAY));
                let lists = (1..stored.steps().len()).find(is_list);
                (
                    is_stored && !has_scalars && may_exist,
                    lists.unwrap_or(path.steps().len()),
                )
            }
        },
        Searched::View(_) => (may_be_list(matches, path, scalars).await?, 1),
    };
    let rest = Path::new(path.steps()[whole..].to_vec());
    let values = || {
        format!(
            "values_at(to_jsonb({}), '{}')",
            input_path(&prefix(path, whole)),
            rest.to_string().replace('\'', "''")
        )
    };
    Ok(has_lists.then(values))
}

fn prefix(path: &Path, steps: usize) -> Path {
    Path::new(path.steps()[..steps].to_vec())
}

/// The path as documents spell it, if they spell it in other letters only.
fn stored_spelling(paths: &PathKinds, path: &Path) -> Path {
    let is_same = |(one, other): (&Step, &Step)| match (one.key(), other.key()) {
        (Some(one), Some(other)) => one.eq_ignore_ascii_case(other),
        _ => one == other,
    };
    let is_spelling = |stored: &&Path| {
        let (one, other) = (stored.steps(), path.steps());
        one.len() == other.len() && one.iter().zip(other).all(is_same)
    };
    match paths.paths.contains_key(path) {
        true => path.clone(),
        false => paths.paths.keys().find(is_spelling).unwrap_or(path).clone(),
    }
}

/// Whether the type of a computed value allows lists, or its path may lead through one.
async fn may_be_list(matches: &Matches<'_>, path: &Path, scalars: Kinds) -> Result<bool, Problem> {
    let typed = matches
        .typed(&format!("SELECT {} {}", input_path(path), matches.input_sql()))
        .await?;
    let field = typed.field(0);
    Ok(match field.data_type() {
        json if is_json(json) => {
            let kinds = kinds_of(field);
            kinds == Kinds::default() || !kinds.only(scalars)
        }
        DataType::Null => path.steps().len() > 1,
        other => other.is_nested(),
    })
}
