//! Statements that the reference evaluator can answer, and their SQL.

use super::expression::{EvalExpr, PATHS, Row};

/// A statement over one collection. Its documents are numbered by `k`, so that each row can be traced to its documents.
#[derive(Debug, Clone)]
pub enum EvalStatement {
    /// A value per row: `select k, e`.
    Item(EvalExpr),
    /// The rows that match a condition: `select k … where p`.
    Filter(EvalExpr),
    /// The rows of each group: `select array_agg(k order by k) … group by e, f`.
    Groups(Vec<EvalExpr>),
    /// `select distinct e`
    Distinct(EvalExpr),
    /// `select a … union select b …`, over even and odd rows.
    SetOperation(&'static str, EvalExpr, EvalExpr),
    /// `x join y on x.a = y.b`, or a left join.
    Join(bool, &'static str, &'static str),
    /// `a [not] in (select b …)`
    InSubquery(bool, &'static str, &'static str),
    /// `[not] exists (select 1 … where y.b = x.a)`
    Exists(bool, &'static str, &'static str),
    /// `order by a [desc], k`
    OrderBy(&'static str, bool),
    /// `select count(a), count(distinct a), sum(a)`
    Counts(&'static str),
    /// `select k, min(a), max(a) … group by k`
    MinMax(&'static str),
    /// `select k, count(*) over (partition by a), lag(a) over (order by k)`
    Window(&'static str),
}

impl EvalStatement {
    /// Its SQL over a collection, or over the documents whose number is less than `before`.
    pub fn text(&self, collection: &str, before: Option<usize>) -> String {
        let limit =
            |alias: &str, keyword: &str| before.map(|k| format!(" {keyword} {alias}k < {k}")).unwrap_or_default();
        let bound = limit("", "where");
        match self {
            Self::Item(item) => format!("select k, {} as v from {collection}{bound}", item.text("")),
            Self::Filter(filter) => format!(
                "select k from {collection} where {}{}",
                filter.text(""),
                limit("", "and")
            ),
            Self::Groups(keys) => {
                let keys: Vec<String> = keys.iter().map(|key| key.text("")).collect();
                format!(
                    "select array_agg(k order by k) as ks from {collection}{bound} group by {}",
                    keys.join(", ")
                )
            }
            Self::Distinct(item) => format!("select distinct {} as v from {collection}{bound}", item.text("")),
            Self::SetOperation(operator, a, b) => {
                let and = limit("", "and");
                let half = |item: &EvalExpr, remainder: u8| {
                    format!(
                        "select {} as v from {collection} where k % 2 = {remainder}{and}",
                        item.text("")
                    )
                };
                format!("{} {operator} {}", half(a, 0), half(b, 1))
            }
            Self::Join(outer, a, b) => {
                let (x, y) = (limit("x.", "where"), limit("y.", "and"));
                format!(
                    "select x.k as k, y.k as j from {collection} x {}join {collection} y on x.{a} = y.{b}{y}{x}",
                    if *outer { "left " } else { "" }
                )
            }
            Self::InSubquery(not, a, b) => {
                let not = if *not { "not " } else { "" };
                format!(
                    "select k from {collection} where {a} {not}in (select {b} from {collection}{bound}){}",
                    limit("", "and")
                )
            }
            Self::Exists(not, a, b) => {
                let (not, x, y) = (if *not { "not " } else { "" }, limit("x.", "and"), limit("y.", "and"));
                format!(
                    "select x.k as k from {collection} x \
                     where {not}exists (select 1 from {collection} y where y.{b} = x.{a}{y}){x}"
                )
            }
            Self::OrderBy(a, descending) => {
                format!(
                    "select k, {a} as v from {collection}{bound} order by {a}{}, k",
                    if *descending { " desc" } else { "" }
                )
            }
            Self::Counts(a) => format!(
                "select count({a}) as there, count(distinct {a}) as kinds, sum({a}) as sum from {collection}{bound}"
            ),
            Self::MinMax(a) => {
                format!("select k, min({a}) as low, max({a}) as high from {collection}{bound} group by k")
            }
            Self::Window(a) => {
                format!(
                    "select k, count(*) over (partition by {a}) as size, lag({a}) over (order by k) as v \
                     from {collection}{bound}"
                )
            }
        }
    }

    /// Its SQL without paths and literals: what it has in common with others.
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
                path if PATHS.contains(&path) => (word, "p"),
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

    /// Whether the order of the rows matters.
    pub fn is_ordered(&self) -> bool {
        matches!(self, Self::OrderBy(..))
    }

    /// Whether each row depends on one document alone, so that the rows of the first documents can be picked out.
    pub fn is_per_document(&self) -> bool {
        matches!(
            self,
            Self::Item(_) | Self::Filter(_) | Self::OrderBy(..) | Self::MinMax(_)
        )
    }

    /// Whether it computes numbers.
    pub fn has_arithmetic(&self) -> bool {
        match self {
            Self::Item(item) | Self::Filter(item) | Self::Distinct(item) => item.has_arithmetic(),
            Self::Groups(keys) => keys.iter().any(EvalExpr::has_arithmetic),
            Self::Counts(_) => true,
            _ => false,
        }
    }

    /// Whether arithmetic skips a value that is not a number, which requires a warning.
    pub fn skips_values(&self, rows: &[Row]) -> bool {
        matches!(self, Self::Item(item) if rows.iter().any(|row| item.skips_values(row)))
    }
}
