//! Resolves `search('level:error AND "disk full"')` in SQL to a boolean expression over columns, one for each clause,
//! that say whether the clause matches.

use datafusion::sql::sqlparser::ast::{
    BinaryOperator, Expr, Function, FunctionArg, FunctionArgExpr, FunctionArguments, UnaryOperator, Value as Literal,
};
use plan::{
    Column, Path,
    functions::highlight::HIGHLIGHT,
    matcher::positive_clauses,
    path::Step,
    search::{Clause, Match, SearchExpr},
};
use proto::{Code, Problem};

use super::resolve::{
    Resolver, Value,
    scope::{Input, InputKind, OutputColumn, SpelledName},
    unnest::add_inputs_of,
    value::{Base, PathRef, call, column, literal, text, text_literal},
};

impl<'c> Resolver<'c> {
    /// `search('…')`, or `search(alias, '…')` if there are several inputs.
    pub(super) fn search_call(&mut self, function: &Function) -> Result<Expr, Problem> {
        let wrong = || {
            Problem::new(Code::BadSql, "search needs a query string")
                .hint("write search('level:error AND \"disk full\"'), or search(alias, '…') in a join")
        };
        let (alias, query) = search_arguments(function).ok_or_else(wrong)?;
        let text = match parameter_index(query) {
            Some(index) => self.parameter(index).and_then(serde_json::Value::as_str),
            None => text_literal(query),
        };
        let search = plan::search::parse(text.ok_or_else(wrong)?, self.now)?;
        search.notes.into_iter().for_each(|note| self.warn(note));
        self.is_relative |= search.is_relative;
        let input = self.searched_input(alias)?;
        let condition = self.search_query(&search.expr, &input)?;
        if self.in_filter {
            let found = self.positive_tests(&search.expr, &input)?;
            if let Some(scope) = self.scopes.last_mut() {
                scope.scored.push((input.alias.clone(), search.expr));
                scope.searched.extend(
                    found
                        .into_iter()
                        .map(|(value, test)| (input.alias.clone(), value, test)),
                );
            }
        }
        Ok(Expr::Nested(Box::new(condition)))
    }

    /// The tests of a search that a match passes, each with the value that it names.
    fn positive_tests(&mut self, search: &SearchExpr, input: &Input) -> Result<Vec<(Option<Value>, Match)>, Problem> {
        let mut tests = Vec::new();
        for (name, test) in positive_clauses(search) {
            let warnings_before = self.warning_count();
            let value = name
                .map(|name| self.resolve_search_path(&input.alias, name))
                .transpose()?;
            // The condition has given them.
            self.forget_warnings(warnings_before);
            tests.push((value, test.clone()));
        }
        Ok(tests)
    }

    /// `highlight(path)`, or `highlight(path, 'disk full')` without a search in WHERE.
    pub(super) fn highlight_call(&mut self, function: &Function) -> Result<Expr, Problem> {
        let wrong = |detail: &str| {
            Problem::new(Code::BadSql, detail)
                .hint("write SELECT highlight(msg) … WHERE search('disk full'), or highlight(msg, 'disk full')")
        };
        let arguments = unnamed_arguments(function).unwrap_or_default();
        let (shown, tests) = match arguments.as_slice() {
            [shown] => {
                let searched = self
                    .scopes
                    .last()
                    .map(|scope| scope.searched.clone())
                    .unwrap_or_default();
                if searched.is_empty() {
                    return Err(wrong(
                        "highlight finds no search in WHERE that a word could be marked for",
                    ));
                }
                (*shown, searched)
            }
            [shown, query] => {
                let search = plan::search::parse(
                    text_literal(query).ok_or_else(|| wrong("the search of highlight must be a text"))?,
                    self.now,
                )?;
                self.is_relative |= search.is_relative;
                let input = self.searched_input(None)?;
                let tests = self.positive_tests(&search.expr, &input)?.into_iter();
                (
                    *shown,
                    tests.map(|(value, test)| (input.alias.clone(), value, test)).collect(),
                )
            }
            _ => return Err(wrong("highlight takes a value, and perhaps a search")),
        };
        let shown = self.value(shown)?;
        let shown = self.lower(shown);
        let mut inputs = Vec::new();
        add_inputs_of(&shown, &mut inputs);
        let mut applied = Vec::new();
        for (alias, value, test) in tests {
            let applies = match value {
                Some(value) => self.lower(value) == shown,
                None => inputs.is_empty() || inputs.contains(&alias),
            };
            if applies {
                applied.push(test);
            }
        }
        let applied = serde_json::to_string(&applied).map_err(|e| Problem::new(Code::Internal, e.to_string()))?;
        self.charge_text(1, &applied)?;
        Ok(call(HIGHLIGHT, vec![call("to_json", vec![shown]), text(&applied)]))
    }

    /// The input to search: the one named, else the only collection, else the only input.
    pub(super) fn searched_input(&mut self, alias: Option<&str>) -> Result<Input<'c>, Problem> {
        let inputs = self.scopes.last().map(|scope| scope.inputs.clone()).unwrap_or_default();
        let documents: Vec<&Input> = inputs
            .iter()
            .filter(|input| matches!(input.kind, InputKind::Documents { .. }))
            .collect();
        let found = match (alias, documents.as_slice(), inputs.as_slice()) {
            (Some(alias), ..) => inputs.iter().find(|input| input.alias.eq_ignore_ascii_case(alias)),
            (None, [only], _) => Some(*only),
            (None, _, [only]) => Some(only),
            _ => None,
        };
        found.cloned().ok_or_else(|| {
            let names: Vec<String> = inputs
                .iter()
                .map(|input| format!("search({}, '…')", input.alias))
                .collect();
            match (alias, names.is_empty()) {
                (Some(alias), _) => Problem::new(Code::BadSql, format!("{alias} is not in the FROM clause"))
                    .hint("search works on a collection, a view, a subquery or a WITH query"),
                (None, true) => {
                    Problem::new(Code::BadSql, "search needs a FROM clause").hint("name a collection or view in FROM")
                }
                (None, false) => Problem::new(Code::BadSql, "search is ambiguous: it could search several tables")
                    .hint(format!("write {}", names.join(" or "))),
            }
        })
    }

    /// Converts a search to a condition over the columns of one input. The condition is never NULL.
    pub(super) fn search_query(&mut self, query: &SearchExpr, input: &Input) -> Result<Expr, Problem> {
        self.count_expression()?;
        match query {
            SearchExpr::All => Ok(literal(Literal::Boolean(true))),
            SearchExpr::And(parts) => self.search_parts(parts, BinaryOperator::And, input),
            SearchExpr::Or(parts) => self.search_parts(parts, BinaryOperator::Or, input),
            SearchExpr::Not(part) => Ok(Expr::UnaryOp {
                op: UnaryOperator::Not,
                expr: Box::new(Expr::Nested(Box::new(self.search_query(part, input)?))),
            }),
            SearchExpr::Weighted(part, _) => self.search_query(part, input),
            SearchExpr::Clause { name, matches } => self.search_clause(name.as_deref(), matches, input),
        }
    }

    fn search_parts(&mut self, parts: &[SearchExpr], op: BinaryOperator, input: &Input) -> Result<Expr, Problem> {
        let resolved = parts
            .iter()
            .map(|part| self.search_query(part, input).map(|e| Expr::Nested(Box::new(e))))
            .collect::<Result<Vec<_>, _>>()?;
        balanced(resolved, &op).ok_or_else(|| Problem::new(Code::BadRequest, "a search contains an empty group"))
    }

    pub(super) fn search_clause(
        &mut self,
        name: Option<&str>,
        matches: &Match,
        input: &Input,
    ) -> Result<Expr, Problem> {
        let table = match &input.kind {
            InputKind::Documents { table, .. } => *table,
            InputKind::Columns(columns) => return self.search_columns(name, matches, &input.alias, columns),
        };
        let clause = |path| Clause {
            path,
            matches: matches.clone(),
        };
        let Some(name) = name else {
            return Ok(self.clause_column(&input.alias, table, clause(None)));
        };
        let warnings_before = self.warning_count();
        match self.resolve_search_path(&input.alias, name)? {
            Value::Path(found) if found.is_document() => Ok(self.clause_column(&input.alias, table, clause(None))),
            Value::Path(found) if found.is_stored() => {
                // Search also matches elements of lists, so a path that exists only inside a list needs no warning.
                if found.kinds != plan::Kinds::default() {
                    self.forget_warnings(warnings_before);
                }
                Ok(self.clause_column(&input.alias, table, clause(Some(found.path))))
            }
            value => {
                // The name is a field or a system column: its value is matched like that of a path.
                let value = self.lower(value);
                Ok(search_match(value, &clause_text(&clause(Some(Path::default())))?))
            }
        }
    }

    /// Matches a clause against fixed columns: the one it names, or any of them. A column is matched like a path of a
    /// document: elements of lists match, while values inside an object are matched only under their own path.
    fn search_columns(
        &mut self,
        name: Option<&str>,
        matches: &Match,
        alias: &str,
        columns: &[OutputColumn],
    ) -> Result<Expr, Problem> {
        let Some(name) = name else {
            let clause = Clause {
                path: None,
                matches: matches.clone(),
            };
            let clause = clause_text(&clause)?;
            self.charge_text(columns.len().saturating_sub(1), &clause)?;
            let mut any = Vec::with_capacity(columns.len());
            for output in columns {
                self.count_expression()?;
                let value = output.expr.clone().unwrap_or_else(|| column(alias, &output.name));
                any.push(search_match(value, &clause));
            }
            let no_columns = || literal(Literal::Boolean(false));
            return Ok(balanced(any, &BinaryOperator::Or).unwrap_or_else(no_columns));
        };
        let (value, path) = match self.resolve_search_path(alias, name)? {
            Value::Path(PathRef {
                base: Base::Computed { expr, .. },
                path,
                ..
            }) => (*expr, path),
            value => (self.lower(value), Path::default()),
        };
        let clause = Clause {
            path: Some(path),
            matches: matches.clone(),
        };
        Ok(search_match(value, &clause_text(&clause)?))
    }

    /// Resolves the path that a clause names in one input.
    pub(super) fn resolve_search_path(&mut self, alias: &str, name: &str) -> Result<Value, Problem> {
        let path = Path::parse(name)
            .map_err(|detail| Problem::new(Code::BadRequest, detail).hint("write paths in a search as in SQL"))?;
        let steps = [Step::Key(alias.into())]
            .into_iter()
            .chain(path.steps().iter().cloned())
            .collect();
        let outer = std::mem::replace(&mut self.in_search, true);
        let value = self.resolve_name(&SpelledName {
            steps,
            span: datafusion::sql::sqlparser::tokenizer::Span::empty(),
        });
        self.in_search = outer;
        value
    }

    fn clause_column(&mut self, alias: &str, table: usize, clause: Clause) -> Expr {
        let wanted = Column::search(clause);
        let name = wanted.name();
        self.add_column(table, wanted);
        column(alias, &name)
    }
}

/// The arguments of a call, if all of them are expressions without names.
pub(super) fn unnamed_arguments(function: &Function) -> Option<Vec<&Expr>> {
    let FunctionArguments::List(list) = &function.args else {
        return None;
    };
    let expression = |argument| match argument {
        &FunctionArg::Unnamed(FunctionArgExpr::Expr(ref expr)) => Some(expr),
        _ => None,
    };
    list.args.iter().map(expression).collect()
}

/// The alias, if given, and the query expression of a call of `search`. `None` if the arguments have another form.
pub(super) fn search_arguments(function: &Function) -> Option<(Option<&str>, &Expr)> {
    match unnamed_arguments(function)?.as_slice() {
        [query] => Some((None, *query)),
        [Expr::Identifier(alias), query] => Some((Some(alias.value.as_str()), *query)),
        _ => None,
    }
}

/// The number of a parameter: 1 for `$1`.
pub(super) fn parameter_index(expr: &Expr) -> Option<usize> {
    match expr {
        Expr::Value(value) => match &value.value {
            Literal::Placeholder(name) => name.strip_prefix('$').and_then(|n| n.parse::<usize>().ok()),
            _ => None,
        },
        _ => None,
    }
}

/// Combines conditions into a balanced tree, so that a thousand of them are ten levels deep. `None` if there are none.
fn balanced(mut conditions: Vec<Expr>, op: &BinaryOperator) -> Option<Expr> {
    while conditions.len() > 1 {
        let mut next = Vec::with_capacity(conditions.len().div_ceil(2));
        let mut pairs = conditions.into_iter();
        while let Some(left) = pairs.next() {
            next.push(match pairs.next() {
                Some(right) => Expr::Nested(Box::new(Expr::BinaryOp {
                    left: Box::new(left),
                    op: op.clone(),
                    right: Box::new(right),
                })),
                None => left,
            });
        }
        conditions = next;
    }
    conditions.pop()
}

/// A call that tests whether a clause matches a computed value.
fn search_match(value: Expr, clause: &str) -> Expr {
    call("search_match", vec![call("to_json", vec![value]), text(clause)])
}

fn clause_text(clause: &Clause) -> Result<String, Problem> {
    serde_json::to_string(clause).map_err(|e| Problem::new(Code::Internal, e.to_string()))
}
