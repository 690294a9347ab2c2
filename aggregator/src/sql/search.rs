//! Search in SQL: `search('level:error AND "disk full"')` is a boolean like any other, made of columns that say whether
//! a clause matches.

use std::sync::LazyLock;

use datafusion::sql::sqlparser::ast::{
    BinaryOperator, Expr, ExprWithAlias as SQLExprWithAlias, Function, FunctionArg, FunctionArgExpr, FunctionArguments,
    UnaryOperator, Value as Literal,
};
use datafusion::{
    arrow::datatypes::Schema,
    common::{
        Column as UnqualifiedColumn, DFSchema,
        tree_node::{Transformed, TreeNode},
    },
    execution::session_state::SessionState,
};
use plan::{
    Column, Path,
    path::Step,
    search::{Clause, Match, Query},
};
use proto::{Code, CollectionName, Problem};

use super::{
    World,
    resolve::{
        Resolver, Value,
        name::{Input, OutColumn, Rows, Scope, Spelled},
        value::{Base, PathRef, call, column, literal, text, text_literal},
    },
};
use crate::typing;

/// Plans conditions for the search door: expressions only, over the library's functions and our own.
static PLANNER: LazyLock<SessionState> = LazyLock::new(|| typing::session().build());

impl Resolver<'_> {
    /// `search('…')`, or `search(alias, '…')` where there are several inputs.
    pub fn search_call(&mut self, function: &Function) -> Result<Expr, Problem> {
        let wrong = || {
            Problem::new(Code::BadSql, "search takes a text")
                .hint("write search('level:error AND \"disk full\"'), or search(alias, '…') in a join")
        };
        let FunctionArguments::List(list) = &function.args else {
            return Err(wrong());
        };
        let mut arguments = Vec::new();
        for argument in &list.args {
            match argument {
                FunctionArg::Unnamed(FunctionArgExpr::Expr(expr)) => arguments.push(expr),
                _ => return Err(wrong()),
            }
        }
        let (alias, query) = match arguments.as_slice() {
            [query] => (None, *query),
            [Expr::Identifier(alias), query] => (Some(alias.value.as_str()), *query),
            _ => return Err(wrong()),
        };
        let parameter = match query {
            Expr::Value(value) => match &value.value {
                Literal::Placeholder(name) => name.strip_prefix('$').and_then(|n| n.parse::<usize>().ok()),
                _ => None,
            },
            _ => None,
        };
        let text = match parameter {
            Some(index) => self.parameter(index).and_then(serde_json::Value::as_str),
            None => text_literal(query),
        };
        let query = plan::search::parse(text.ok_or_else(wrong)?)?;
        let input = self.searched(alias)?;
        let condition = self.search_query(&query, &input)?;
        Ok(Expr::Nested(Box::new(condition)))
    }

    /// The input that is searched: the one named, else the only collection, else the only input.
    fn searched(&mut self, alias: Option<&str>) -> Result<Input, Problem> {
        let inputs = self.scopes.last().map(|scope| scope.inputs.clone()).unwrap_or_default();
        let documents: Vec<&Input> = inputs
            .iter()
            .filter(|input| matches!(input.rows, Rows::Documents { .. }))
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
                (Some(alias), _) => Problem::new(Code::BadSql, format!("{alias} is no input of this FROM"))
                    .hint("a search looks into a collection, a view, a sub-query or a WITH query"),
                (None, true) => {
                    Problem::new(Code::BadSql, "there is nothing to search here").hint("put search('…') behind a FROM")
                }
                (None, false) => Problem::new(Code::BadSql, "search does not say where")
                    .hint(format!("write {}", names.join(" or "))),
            }
        })
    }

    /// A search as a condition over the columns of one input; never NULL.
    pub fn search_query(&mut self, query: &Query, input: &Input) -> Result<Expr, Problem> {
        self.count()?;
        match query {
            Query::All => Ok(literal(Literal::Boolean(true))),
            Query::And(parts) => self.search_parts(parts, BinaryOperator::And, input),
            Query::Or(parts) => self.search_parts(parts, BinaryOperator::Or, input),
            Query::Not(part) => Ok(Expr::UnaryOp {
                op: UnaryOperator::Not,
                expr: Box::new(Expr::Nested(Box::new(self.search_query(part, input)?))),
            }),
            Query::Clause { name, matches } => self.search_clause(name.as_deref(), matches, input),
        }
    }

    fn search_parts(&mut self, parts: &[Query], op: BinaryOperator, input: &Input) -> Result<Expr, Problem> {
        let resolved = parts
            .iter()
            .map(|part| self.search_query(part, input).map(|e| Expr::Nested(Box::new(e))))
            .collect::<Result<Vec<_>, _>>()?;
        joined(resolved, &op).ok_or_else(|| Problem::new(Code::BadRequest, "an empty group in a search"))
    }

    fn search_clause(&mut self, name: Option<&str>, matches: &Match, input: &Input) -> Result<Expr, Problem> {
        let table = match &input.rows {
            Rows::Documents { table, .. } => *table,
            Rows::Columns(columns) => return self.search_columns(name, matches, &input.alias, columns),
        };
        let Some(name) = name else {
            return Ok(self.clause_column(
                &input.alias,
                table,
                Clause {
                    path: None,
                    matches: matches.clone(),
                },
            ));
        };
        let told = self.warning_count();
        match self.named_in(&input.alias, name)? {
            Value::Path(found) if found.is_document() => Ok(self.clause_column(
                &input.alias,
                table,
                Clause {
                    path: None,
                    matches: matches.clone(),
                },
            )),
            Value::Path(found) if found.is_stored() => {
                // Search sees the elements of lists too, so a path that SQL finds only there is a path like any other.
                if found.kinds != plan::Kinds::default() {
                    self.forget_warnings(told);
                }
                Ok(self.clause_column(
                    &input.alias,
                    table,
                    Clause {
                        path: Some(found.path),
                        matches: matches.clone(),
                    },
                ))
            }
            value => {
                // A field, or what every document has: its value is asked.
                let value = self.written(value);
                search_match(
                    value,
                    &Clause {
                        path: None,
                        matches: matches.clone(),
                    },
                )
            }
        }
    }

    /// A clause asked of rows of fixed columns: of the one it names, or of all. A column is asked as a path of a
    /// document is: elements of lists match, what is inside of an object has a name of its own.
    fn search_columns(
        &mut self,
        name: Option<&str>,
        matches: &Match,
        alias: &str,
        columns: &[OutColumn],
    ) -> Result<Expr, Problem> {
        let Some(name) = name else {
            let clause = Clause {
                path: None,
                matches: matches.clone(),
            };
            let mut any = Vec::with_capacity(columns.len());
            for place in columns {
                self.count()?;
                let value = place.expr.clone().unwrap_or_else(|| column(alias, &place.name));
                any.push(search_match(value, &clause)?);
            }
            let none = || literal(Literal::Boolean(false));
            return Ok(joined(any, &BinaryOperator::Or).unwrap_or_else(none));
        };
        let (value, path) = match self.named_in(alias, name)? {
            Value::Path(PathRef {
                base: Base::Computed { expr, .. },
                path,
                ..
            }) => (*expr, path),
            value => (self.written(value), Path::default()),
        };
        search_match(
            value,
            &Clause {
                path: Some(path),
                matches: matches.clone(),
            },
        )
    }

    /// What the name of a clause means in one input.
    fn named_in(&mut self, alias: &str, name: &str) -> Result<Value, Problem> {
        let path = Path::parse(name)
            .map_err(|detail| Problem::new(Code::BadRequest, detail).hint("a path in a search is spelled as in SQL"))?;
        let steps = [Step::Key(alias.into())]
            .into_iter()
            .chain(path.steps().iter().cloned())
            .collect();
        self.name(&Spelled {
            steps,
            span: datafusion::sql::sqlparser::tokenizer::Span::empty(),
        })
    }

    fn clause_column(&mut self, alias: &str, table: usize, clause: Clause) -> Expr {
        let wanted = Column::search(clause);
        let name = wanted.name();
        self.read(table, wanted);
        column(alias, &name)
    }
}

/// Conditions as one; none of none. Balanced, so that a thousand are ten levels deep.
fn joined(mut conditions: Vec<Expr>, op: &BinaryOperator) -> Option<Expr> {
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

/// Whether a clause matches a computed value.
fn search_match(value: Expr, clause: &Clause) -> Result<Expr, Problem> {
    let clause = serde_json::to_string(clause).map_err(|e| Problem::new(Code::Internal, e.to_string()))?;
    Ok(call("search_match", vec![call("to_json", vec![value]), text(&clause)]))
}

/// A search of a collection as a condition over flat columns without qualifier, and those columns.
pub fn condition(
    query: &str,
    collection: &CollectionName,
    world: &dyn World,
) -> Result<(datafusion::logical_expr::Expr, Vec<Column>, Vec<String>), Problem> {
    const ALIAS: &str = "documents";
    let query = plan::search::parse(query)?;
    let mut resolver = Resolver::new(world, world.catalog(), &[]);
    let names = resolver.names(collection);
    let table = resolver.document_table(collection)?;
    let input = Input {
        alias: ALIAS.to_owned(),
        rows: Rows::Documents { table, names },
    };
    resolver.scopes.push(Scope {
        inputs: vec![input.clone()],
        closed: true,
        ..Scope::default()
    });
    let condition = resolver.search_query(&query, &input)?;
    let columns = resolver.columns(table);
    let schema = Schema::new(columns.iter().map(Column::field).collect::<Vec<_>>());
    let planned = DFSchema::try_from_qualified_schema(ALIAS, &schema).and_then(|schema| {
        let condition = SQLExprWithAlias {
            expr: condition,
            alias: None,
        };
        typing::typed(PLANNER.create_logical_expr_from_sql_expr(condition, &schema)?, &schema)
    });
    let unqualified = planned.and_then(|expr| {
        let strip = |expr| match expr {
            datafusion::logical_expr::Expr::Column(column) => Ok(Transformed::yes(
                datafusion::logical_expr::Expr::Column(UnqualifiedColumn::new_unqualified(column.name)),
            )),
            other => Ok(Transformed::no(other)),
        };
        expr.transform(strip)
            .and_then(|transformed| typing::over_columns(transformed.data))
    });
    let expr = unqualified.map_err(crate::query::failure::problem)?;
    let columns = expr
        .column_refs()
        .into_iter()
        .filter_map(|column| Column::parse(&column.name))
        .collect();
    Ok((expr, columns, resolver.take_warnings()))
}
