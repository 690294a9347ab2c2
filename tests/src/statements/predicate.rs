//! Random predicates, some with subqueries.

use rand::RngExt as _;
use serde_json::Value;

use super::{
    Expr, Kind, Query, StatementGenerator,
    expression::quoted,
    generate::{DEPTH_MAX, Scope},
};

/// How many literals an IN may have.
const IN_MAX: usize = 6;

impl StatementGenerator<'_> {
    /// A predicate over a scope.
    pub(super) fn predicate(&mut self, scope: &[Expr], depth: usize) -> Expr {
        if depth > 0 && self.chance(40) {
            let one = self.predicate(scope, depth - 1);
            return match self.below(5) {
                0 | 1 => Expr::call(
                    Kind::Boolean,
                    "({0} and {1})",
                    vec![one, self.predicate(scope, depth - 1)],
                ),
                2 | 3 => Expr::call(
                    Kind::Boolean,
                    "({0} or {1})",
                    vec![one, self.predicate(scope, depth - 1)],
                ),
                _ => Expr::call(Kind::Boolean, "(not {0})", vec![one]),
            };
        }
        if depth > 0 && self.subqueries_left > 0 && self.chance(12) {
            self.subqueries_left -= 1;
            return self.subquery_predicate(scope);
        }
        let deep = if depth > 0 && self.chance(30) {
            depth.min(DEPTH_MAX) - 1
        } else {
            0
        };
        match self.below(20) {
            0..=6 => self.comparison(scope, deep),
            7 | 8 => self.membership(scope),
            9 => self.between(scope),
            10..=13 => self.pattern(scope, deep),
            14 | 15 => {
                let kind = self.kind(scope);
                let form = self.pick(&["({0} is null)", "({0} is not null)"]);
                Expr::call(Kind::Boolean, form, vec![self.expr(scope, kind, deep)])
            }
            16 | 17 => {
                let form = self.pick(&["({0} is distinct from {1})", "({0} is not distinct from {1})"]);
                let (one, other) = self.operands(scope, deep);
                Expr::call(Kind::Boolean, form, vec![one, other])
            }
            _ => self.truth(scope),
        }
    }

    /// Two operands of one kind that are likely to be equal for some rows.
    fn operands(&mut self, scope: &[Expr], depth: usize) -> (Expr, Expr) {
        let kind = self.kind(scope);
        let one = self.expr(scope, kind, depth);
        let other = match self.below(10) {
            0 | 1 => self.expr(scope, kind, 0),
            2 => Expr::Literal {
                kind,
                value: Value::Null,
            },
            _ => self.literal_like(&one),
        };
        (one, other)
    }

    fn comparison(&mut self, scope: &[Expr], depth: usize) -> Expr {
        let (one, other) = self.operands(scope, depth);
        let form = self.pick(&[
            "({0} = {1})",
            "({0} = {1})",
            "({0} <> {1})",
            "({0} < {1})",
            "({0} <= {1})",
            "({0} > {1})",
            "({0} >= {1})",
        ]);
        if let (
            Expr::Path { column, .. },
            Expr::Literal {
                value: Value::Number(number),
                ..
            },
        ) = (&one, &other)
            && column.kind == Kind::Integer
            && self.chance(15)
        {
            // A quoted number equals the number.
            let quoted_number = Expr::literal(Kind::Text, number.to_string());
            return Expr::call(Kind::Boolean, form, vec![one, quoted_number]);
        }
        let parts = if self.random.random_range(0..8) == 0 {
            vec![other, one]
        } else {
            vec![one, other]
        };
        Expr::call(Kind::Boolean, form, parts)
    }

    fn membership(&mut self, scope: &[Expr]) -> Expr {
        let kind = self.kind(scope);
        let depth = usize::from(self.chance(20));
        let one = match self.expr(scope, kind, depth) {
            // DuckDB returns rows for which CASE without ELSE, or nullif, is NULL.
            Expr::Call { server, .. }
                if (server.starts_with("case") && !server.contains("else")) || server.starts_with("nullif") =>
            {
                self.expr(scope, kind, 0)
            }
            one => one,
        };
        let list = self.list(one.clone());
        let form = match self.below(20) {
            0 | 1 => "({0} and {1})",
            2 | 3 => "({0} or {1})",
            4 => "(({0} and {1}) is null)",
            5 => "(({0} or {1}) is not null)",
            6 => "(({0} and {1}) = ({0} or {1}))",
            _ => return list,
        };
        Expr::call(Kind::Boolean, form, vec![list, self.list(one)])
    }

    fn list(&mut self, one: Expr) -> Expr {
        let mut parts: Vec<Expr> = (0..1 + self.below(IN_MAX)).map(|_| self.literal_like(&one)).collect();
        if self.chance(12) {
            parts.push(Expr::Literal {
                kind: one.kind(),
                value: Value::Null,
            });
        }
        let list: Vec<String> = (1..=parts.len()).map(|part| format!("{{{part}}}")).collect();
        let not = if self.chance(35) { "not " } else { "" };
        parts.insert(0, one);
        Expr::call(Kind::Boolean, format!("({{0}} {not}in ({}))", list.join(", ")), parts)
    }

    fn between(&mut self, scope: &[Expr]) -> Expr {
        let kind = self.kind(scope);
        let one = self.expr(scope, kind, 0);
        let (low, high) = (self.literal_like(&one), self.literal_like(&one));
        let form = self.pick(&[
            "({0} between {1} and {2})",
            "({0} between {2} and {1})",
            "({0} not between {1} and {2})",
        ]);
        Expr::call(Kind::Boolean, form, vec![one, low, high])
    }

    fn pattern(&mut self, scope: &[Expr], depth: usize) -> Expr {
        let one = self.expr(scope, Kind::Text, depth);
        let sample = self.literal_like(&one);
        let Expr::Literal {
            value: Value::String(sample),
            ..
        } = sample
        else {
            return self.truth(scope);
        };
        let letters: Vec<char> = sample.chars().filter(|c| *c != '\\').collect();
        if letters.is_empty() {
            return self.truth(scope); // For DuckDB, a NULL from nullif begins with the empty string.
        }
        let (server, duckdb) = self.pattern_forms(one.ascii(), &letters);
        // A brace in the data would be read as a placeholder.
        if [&server, duckdb.as_ref().unwrap_or(&server)]
            .iter()
            .any(|form| form.matches(['{', '}']).count() != 2)
        {
            return self.truth(scope);
        }
        match duckdb {
            Some(duckdb) => Expr::call_two(Kind::Boolean, server, duckdb, vec![one]),
            None => Expr::call(Kind::Boolean, server, vec![one]),
        }
    }

    /// A pattern match against a sample: the form for the server, and the form for DuckDB if it differs.
    fn pattern_forms(&mut self, ascii: bool, letters: &[char]) -> (String, Option<String>) {
        let from = self.below(letters.len() + 1);
        let until = letters.len().min(from + 1 + self.below(6));
        let piece: String = letters[from.min(until)..until].iter().collect();
        let prefix: String = letters[..letters.len().min(1 + self.below(8))].iter().collect();
        match self.below(10) {
            0 | 1 => (format!("({{0}} like {})", quoted(&format!("{prefix}%"))), None),
            2 | 3 => (format!("({{0}} like {})", quoted(&format!("%{piece}%"))), None),
            4 => (format!("({{0}} not like {})", quoted(&format!("%{piece}%"))), None),
            5 => (format!("({{0}} like {})", quoted(&format!("%{piece}"))), None),
            6 => (
                format!(
                    "({{0}} like {})",
                    quoted(&format!("_{}%", letters.iter().skip(1).take(3).collect::<String>()))
                ),
                None,
            ),
            7 => (format!("(starts_with({{0}}, {}))", quoted(&prefix)), None),
            8 if ascii && piece.is_ascii() => (
                format!("({{0}} ilike {})", quoted(&format!("%{}%", piece.to_uppercase()))),
                None,
            ),
            _ => {
                let word: String = piece.chars().filter(char::is_ascii_alphanumeric).collect();
                let pattern = match self.below(4) {
                    0 => format!("^{word}"),
                    1 => format!("{word}$"),
                    2 => format!("[0-9]+{word}"),
                    _ => format!("{word}[a-z]*"),
                };
                (
                    format!("({{0}} ~ {})", quoted(&pattern)),
                    Some(format!("regexp_matches({{0}}, {})", quoted(&pattern))),
                )
            }
        }
    }

    fn truth(&mut self, scope: &[Expr]) -> Expr {
        let Some(leaf) = self.leaf(scope, Kind::Boolean) else {
            return self.comparison(scope, 0);
        };
        let form = self.pick(&[
            "{0}",
            "(not {0})",
            "({0} = true)",
            "({0} is true)",
            "({0} is not true)",
            "({0} is false)",
            "({0} is not false)",
        ]);
        Expr::call(Kind::Boolean, form, vec![leaf])
    }

    fn subquery_predicate(&mut self, scope: &[Expr]) -> Expr {
        let set = self.set();
        let alias = self.alias();
        let inner = self.scope(set, Some(&alias));
        let mut query = Query::of(&set.name, Some(&alias));
        if self.chance(70) {
            query.filter = Some(self.predicate(&inner, 1));
        }
        let and = |query: &mut Query, more: Expr| {
            query.filter = Some(match query.filter.take() {
                Some(filter) => Expr::call(Kind::Boolean, "({0} and {1})", vec![more, filter]),
                None => more,
            });
        };
        let Some((outer, key)) = self.join_keys(scope, &inner) else {
            return self.comparison(scope, 0);
        };
        let correlate = Expr::call(Kind::Boolean, "({0} = {1})", vec![key.clone(), outer.clone()]);
        match self.below(6) {
            0 | 1 => {
                query.items = vec![key];
                let form = self.pick(&["({0} in ({q}))", "({0} in ({q}))", "({0} not in ({q}))"]);
                Expr::with_subquery(Kind::Boolean, form, vec![outer], query)
            }
            2 | 3 => {
                query.items = vec![Expr::literal(Kind::Integer, 1)];
                and(&mut query, correlate);
                Expr::with_subquery(
                    Kind::Boolean,
                    self.pick(&["(exists ({q}))", "(not exists ({q}))"]),
                    vec![],
                    query,
                )
            }
            4 => {
                let (form, compared) = self.pick(&[
                    ("min({0})", "({0} <= ({q}))"),
                    ("max({0})", "({0} >= ({q}))"),
                    ("max({0})", "({0} = ({q}))"),
                ]);
                let kind = key.kind();
                query.items = vec![Expr::call(kind, form, vec![key])];
                Expr::with_subquery(Kind::Boolean, compared, vec![outer], query)
            }
            _ => {
                query.items = vec![Expr::call(Kind::Integer, "count(*)", vec![])];
                and(&mut query, correlate);
                let count = Expr::literal(Kind::Integer, 1 + self.below(4));
                Expr::with_subquery(
                    Kind::Boolean,
                    self.pick(&["(({q}) >= {0})", "(({q}) < {0})"]),
                    vec![count],
                    query,
                )
            }
        }
    }

    /// A name from each of two scopes, of one kind: mostly the same path if the inner scope has it.
    pub(super) fn join_keys(&mut self, scope: &[Expr], inner: &Scope) -> Option<(Expr, Expr)> {
        for _ in 0..20 {
            let kind = self.pick(&[Kind::Text, Kind::Text, Kind::Integer]);
            let outer = self.leaf(scope, kind)?;
            let same = inner.iter().find(
                |leaf| matches!((leaf, &outer), (Expr::Path { column: a, .. }, Expr::Path { column: b, .. }) if a == b),
            );
            let key = match same {
                Some(same) if self.chance(80) => Some(same.clone()),
                _ => self.leaf(inner, kind),
            };
            if let Some(key) = key {
                return Some((outer, key));
            }
        }
        None
    }
}
