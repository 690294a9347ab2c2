//! Statements over such expressions: their text, and the answer that the rules give.

use serde_json::Value;

use super::{
    expression::{Expr, Row},
    value::{Number, Unsaid, V, same},
};

/// A statement that keeps apart what each document gives, by its number `k`.
#[derive(Debug, Clone)]
pub enum Statement {
    /// A value of each row: `select k, e`.
    Item(Expr),
    /// The rows of a condition: `select k … where p`.
    Filter(Expr),
    /// The rows of each group: `select array_agg(k order by k) … group by e, f`.
    Groups(Vec<Expr>),
    /// `select distinct e`
    Distinct(Expr),
    /// `select a … union select b …`, over even and odd rows.
    Combined(&'static str, Expr, Expr),
    /// `x join y on x.a = y.b`, or a left join.
    Join(bool, &'static str, &'static str),
    /// `a [not] in (select b …)`
    Member(bool, &'static str, &'static str),
    /// `[not] exists (select 1 … where y.b = x.a)`
    Exists(bool, &'static str, &'static str),
    /// `order by a [desc], k`
    Ordered(&'static str, bool),
    /// `select count(a), count(distinct a), sum(a)`
    Counted(&'static str),
    /// `select k, min(a), max(a) … group by k`
    Extremes(&'static str),
    /// `select k, count(*) over (partition by a), lag(a) over (order by k)`
    Window(&'static str),
}

/// What the rules say.
#[derive(Debug, Clone)]
pub struct Answer {
    /// The rows.
    pub rows: Vec<Vec<V>>,
}

impl Statement {
    /// As it is asked of a collection; with a limit, of its documents before this number.
    pub fn text(&self, collection: &str, before: Option<usize>) -> String {
        let limit = |alias: &str, word: &str| before.map(|k| format!(" {word} {alias}k < {k}")).unwrap_or_default();
        let lone = limit("", "where");
        match self {
            Self::Item(item) => format!("select k, {} as v from {collection}{lone}", item.text("")),
            Self::Filter(filter) => format!(
                "select k from {collection} where {}{}",
                filter.text(""),
                limit("", "and")
            ),
            Self::Groups(keys) => {
                let keys: Vec<String> = keys.iter().map(|key| key.text("")).collect();
                format!(
                    "select array_agg(k order by k) as ks from {collection}{lone} group by {}",
                    keys.join(", ")
                )
            }
            Self::Distinct(item) => format!("select distinct {} as v from {collection}{lone}", item.text("")),
            Self::Combined(word, a, b) => {
                let and = limit("", "and");
                let half = |item: &Expr, rest: u8| {
                    format!(
                        "select {} as v from {collection} where k % 2 = {rest}{and}",
                        item.text("")
                    )
                };
                format!("{} {word} {}", half(a, 0), half(b, 1))
            }
            Self::Join(outer, a, b) => {
                let (x, y) = (limit("x.", "where"), limit("y.", "and"));
                format!(
                    "select x.k as k, y.k as j from {collection} x {}join {collection} y on x.{a} = y.{b}{y}{x}",
                    if *outer { "left " } else { "" }
                )
            }
            Self::Member(not, a, b) => {
                let not = if *not { "not " } else { "" };
                format!(
                    "select k from {collection} where {a} {not}in (select {b} from {collection}{lone}){}",
                    limit("", "and")
                )
            }
            Self::Exists(not, a, b) => {
                let (not, x, y) = (if *not { "not " } else { "" }, limit("x.", "and"), limit("y.", "and"));
                format!(
                    "select x.k as k from {collection} x where {not}exists (select 1 from {collection} y where y.{b} = x.{a}{y}){x}"
                )
            }
            Self::Ordered(a, descending) => {
                format!(
                    "select k, {a} as v from {collection}{lone} order by {a}{}, k",
                    if *descending { " desc" } else { "" }
                )
            }
            Self::Counted(a) => format!(
                "select count({a}) as there, count(distinct {a}) as kinds, sum({a}) as sum from {collection}{lone}"
            ),
            Self::Extremes(a) => {
                format!("select k, min({a}) as low, max({a}) as high from {collection}{lone} group by k")
            }
            Self::Window(a) => {
                format!(
                    "select k, count(*) over (partition by {a}) as size, lag({a}) over (order by k) as v from {collection}{lone}"
                )
            }
        }
    }

    /// Its text without paths and literals: what it has in common with others.
    pub fn shape(&self) -> String {
        let text = self.text("c", None);
        let mut shape = String::new();
        let mut rest = text.as_str();
        while let Some(c) = rest.chars().next() {
            let word = rest
                .find(|c: char| !(c.is_alphanumeric() || "_.$".contains(c)))
                .unwrap_or(rest.len());
            let quoted = rest
                .strip_prefix('\'')
                .and_then(|inside| inside.find('\''))
                .map_or(0, |end| end + 2);
            let (length, piece) = match &rest[..word] {
                _ if quoted > 0 => (quoted, "'…'"),
                "" => (c.len_utf8(), &rest[..c.len_utf8()]),
                path if super::generate::PATHS.contains(&path) => (word, "p"),
                path if path.starts_with("x.") && path != "x.k" => (word, "x.p"),
                path if path.starts_with("y.") && path != "y.k" => (word, "y.p"),
                number if number.starts_with(|c: char| c.is_ascii_digit()) => (word, "1"),
                other => (word, other),
            };
            shape.push_str(piece);
            rest = &rest[length..];
        }
        while shape.contains("1, 1") || shape.contains("'…', '…'") || shape.contains("p, p") {
            shape = shape
                .replace("1, 1", "1")
                .replace("'…', '…'", "'…'")
                .replace("p, p", "p");
        }
        shape
    }

    /// Whether rows come in an order.
    pub fn is_ordered(&self) -> bool {
        matches!(self, Self::Ordered(..))
    }

    /// Whether each row is of one document alone, so that those of the first documents can be told from the others.
    pub fn is_by_row(&self) -> bool {
        matches!(
            self,
            Self::Item(_) | Self::Filter(_) | Self::Ordered(..) | Self::Extremes(_)
        )
    }

    /// Whether it computes with numbers.
    pub fn computes(&self) -> bool {
        match self {
            Self::Item(item) | Self::Filter(item) | Self::Distinct(item) => item.computes(),
            Self::Groups(keys) => keys.iter().any(Expr::computes),
            Self::Counted(_) => true,
            _ => false,
        }
    }

    /// Whether a value is left out of arithmetic, which must be said.
    pub fn leaves_out(&self, rows: &[Row]) -> bool {
        matches!(self, Self::Item(item) if rows.iter().any(|row| item.leaves_out(row)))
    }

    /// What the rules say, of documents numbered from 0.
    pub fn answer(&self, rows: &[Row]) -> Result<Answer, Unsaid> {
        let at = |row: &Row, path: &'static str| row.get(path).cloned().unwrap_or(V::Null);
        let numbered = || rows.iter().enumerate();
        let rows = match self {
            Self::Item(item) => numbered()
                .map(|(k, row)| Ok(vec![V::count(k), item.value(row)?]))
                .collect::<Result<_, _>>()?,
            Self::Filter(filter) => {
                let mut found = Vec::new();
                for (k, row) in numbered() {
                    if filter.truth(row)? == Some(true) {
                        found.push(vec![V::count(k)]);
                    }
                }
                found
            }
            Self::Groups(keys) => {
                let keys = rows
                    .iter()
                    .map(|row| keys.iter().map(|key| key.value(row)).collect())
                    .collect::<Result<Vec<Vec<V>>, _>>()?;
                groups(&keys)?
                    .into_iter()
                    .map(|(_, members)| vec![V::Json(Value::from(members), None)])
                    .collect()
            }
            Self::Distinct(item) => {
                let values = rows
                    .iter()
                    .map(|row| Ok(vec![item.value(row)?]))
                    .collect::<Result<Vec<_>, _>>()?;
                groups(&values)?.into_iter().map(|(value, _)| value).collect()
            }
            Self::Combined(word, a, b) => {
                let half = |item: &Expr, rest: usize| {
                    numbered()
                        .filter(|(k, _)| k % 2 == rest)
                        .map(|(_, row)| Ok(vec![item.value(row)?]))
                        .collect::<Result<Vec<_>, _>>()
                };
                combined(word, half(a, 0)?, half(b, 1)?)?
            }
            Self::Join(outer, a, b) => {
                let mut pairs = Vec::new();
                for (k, x) in numbered() {
                    let before = pairs.len();
                    for (j, y) in numbered() {
                        if at(x, a).equals(&at(y, b))? == Some(true) {
                            pairs.push(vec![V::count(k), V::count(j)]);
                        }
                    }
                    if *outer && pairs.len() == before {
                        pairs.push(vec![V::count(k), V::Null]);
                    }
                }
                pairs
            }
            Self::Member(not, a, b) | Self::Exists(not, a, b) => {
                let exists = matches!(self, Self::Exists(..));
                let mut found = Vec::new();
                for (k, x) in numbered() {
                    let equal = rows
                        .iter()
                        .map(|y| at(x, a).equals(&at(y, b)))
                        .collect::<Result<Vec<_>, _>>()?;
                    let unknown = !exists && equal.contains(&None);
                    let member = if equal.contains(&Some(true)) {
                        Some(true)
                    } else if unknown {
                        None
                    } else {
                        Some(false)
                    };
                    if member == Some(!not) {
                        found.push(vec![V::count(k)]);
                    }
                }
                found
            }
            Self::Ordered(a, descending) => {
                let mut ordered: Vec<(usize, V)> = numbered().map(|(k, row)| (k, at(row, a))).collect();
                ordered.sort_by(|(k, a), (j, b)| {
                    let inside = if a.place() < 2 {
                        a.compared(b).ok().flatten()
                    } else {
                        None
                    };
                    let order = a
                        .place()
                        .cmp(&b.place())
                        .then(inside.unwrap_or(std::cmp::Ordering::Equal));
                    if *descending { order.reverse() } else { order }.then(k.cmp(j))
                });
                ordered.into_iter().map(|(k, value)| vec![V::count(k), value]).collect()
            }
            Self::Counted(a) => {
                let values: Vec<Vec<V>> = rows
                    .iter()
                    .map(|row| vec![at(row, a)])
                    .filter(|value| !value[0].is_null())
                    .collect();
                let mut sum: Option<Number> = None;
                for value in &values {
                    if let V::Number(number) = &value[0] {
                        sum = Some(sum.unwrap_or(Number::integer(0)).computed('+', number)?);
                    }
                }
                vec![vec![
                    V::count(values.len()),
                    V::count(groups(&values)?.len()),
                    sum.map_or(V::Null, V::Number),
                ]]
            }
            Self::Extremes(a) => {
                let extreme = |(k, row): (usize, &Row)| match at(row, a) {
                    V::Bool(_) | V::Json(..) => Err(Unsaid),
                    value => Ok(vec![V::count(k), value.clone(), value]),
                };
                numbered().map(extreme).collect::<Result<_, _>>()?
            }
            Self::Window(a) => {
                let values: Vec<Vec<V>> = rows.iter().map(|row| vec![at(row, a)]).collect();
                let sizes = groups(&values)?;
                let size = |k: usize| {
                    sizes
                        .iter()
                        .find(|(_, members)| members.contains(&k))
                        .map_or(0, |(_, members)| members.len())
                };
                let before = |k: usize| k.checked_sub(1).map_or(V::Null, |before| values[before][0].clone());
                (0..rows.len())
                    .map(|k| vec![V::count(k), V::count(size(k)), before(k)])
                    .collect()
            }
        };
        Ok(Answer { rows })
    }

    /// What an answer has that the rules have not, and the other way round.
    pub fn difference(&self, expected: &Answer, got: &[Vec<Value>]) -> Option<String> {
        let (left, missing) = unmatched(got, &expected.rows, |got, expected| {
            got.len() == expected.len() && expected.iter().zip(got).all(|(v, cell)| v.is(cell))
        });
        if !left.is_empty() || !missing.is_empty() {
            let missing: Vec<String> = missing
                .iter()
                .map(|row| format!("[{}]", row.iter().map(V::to_string).collect::<Vec<_>>().join(",")))
                .collect();
            return Some(told_apart(
                left.iter().map(|row| Value::from((*row).clone()).to_string()).collect(),
                missing,
            ));
        }
        let place = |row: &[V]| row[1].place();
        let wrong = |(at, (expected, got)): (usize, (&Vec<V>, &Vec<Value>))| {
            let same = if place(expected) == 2 {
                place(&[V::Null, V::of_cell(&got[1])]) == 2
            } else {
                expected[0].is(&got[0])
            };
            (!same).then(|| {
                format!(
                    "row {at} is {}, expected [{},{}]",
                    Value::from(got.clone()),
                    expected[0],
                    expected[1]
                )
            })
        };
        if self.is_ordered() {
            expected.rows.iter().zip(got).enumerate().find_map(wrong)
        } else {
            None
        }
    }

    /// What two answers to the same question have not in common.
    pub fn apart(&self, expected: &[Vec<Value>], got: &[Vec<Value>]) -> Option<String> {
        let alike = |a: &Vec<Value>, b: &Vec<Value>| a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same(a, b));
        let (left, missing) = unmatched(got, expected, alike);
        let text = |rows: Vec<&Vec<Value>>| {
            rows.into_iter()
                .map(|row| Value::from(row.clone()).to_string())
                .collect::<Vec<_>>()
        };
        if !left.is_empty() || !missing.is_empty() {
            return Some(told_apart(text(left), text(missing)));
        }
        let at = got.iter().zip(expected).position(|(a, b)| !alike(a, b))?;
        self.is_ordered().then(|| {
            format!(
                "row {at} is {}, expected {}",
                Value::from(got[at].clone()),
                Value::from(expected[at].clone())
            )
        })
    }
}

/// Rows shown of a difference.
const SHOWN_ROWS_MAX: usize = 6;

fn told_apart(got: Vec<String>, expected: Vec<String>) -> String {
    let shown = |rows: &[String]| {
        let more = if rows.len() > SHOWN_ROWS_MAX { " …" } else { "" };
        format!("{}{more}", rows[..rows.len().min(SHOWN_ROWS_MAX)].join(" "))
    };
    format!(
        "got {} rows too many: {}; expected {} that are not there: {}",
        got.len(),
        shown(&got),
        expected.len(),
        shown(&expected)
    )
}

/// What each side has that the other has not, row by row.
fn unmatched<'a, A, B>(got: &'a [A], expected: &'a [B], is: impl Fn(&A, &B) -> bool) -> (Vec<&'a A>, Vec<&'a B>) {
    let mut missing: Vec<&B> = expected.iter().collect();
    let mut left = Vec::new();
    for row in got {
        match missing.iter().position(|expected| is(row, expected)) {
            Some(at) => drop(missing.remove(at)),
            None => left.push(row),
        }
    }
    (left, missing)
}

/// A key, and the numbers of the rows that have it.
type Group = (Vec<V>, Vec<usize>);

/// Rows that are one, with their numbers.
fn groups(rows: &[Vec<V>]) -> Result<Vec<Group>, Unsaid> {
    let mut groups: Vec<Group> = Vec::new();
    for (k, row) in rows.iter().enumerate() {
        if row.iter().any(|value| matches!(value, V::About(_))) {
            return Err(Unsaid);
        }
        match groups.iter_mut().find(|(key, _)| is_one(key, row)) {
            Some((_, members)) => members.push(k),
            None => groups.push((row.clone(), vec![k])),
        }
    }
    Ok(groups)
}

fn is_one(a: &[V], b: &[V]) -> bool {
    a.iter().zip(b).all(|(a, b)| a.is_one_with(b))
}

fn combined(word: &str, left: Vec<Vec<V>>, right: Vec<Vec<V>>) -> Result<Vec<Vec<V>>, Unsaid> {
    let distinct = |rows: &[Vec<V>]| Ok(groups(rows)?.into_iter().map(|(row, _)| row).collect::<Vec<_>>());
    let all = word.ends_with(" all");
    let (left, mut right) = if all || word == "union" {
        (left, right)
    } else {
        (distinct(&left)?, distinct(&right)?)
    };
    let mut out = Vec::new();
    if word.starts_with("union") {
        out.extend(left.into_iter().chain(right));
        return if all { Ok(out) } else { distinct(&out) };
    }
    for row in left {
        let met = right.iter().position(|other| is_one(other, &row));
        met.iter().for_each(|at| drop(right.swap_remove(*at)));
        if met.is_some() == word.starts_with("intersect") {
            out.push(row);
        }
    }
    Ok(out)
}
