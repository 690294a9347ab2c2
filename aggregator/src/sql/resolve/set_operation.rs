//! Resolves set operations and VALUES.

use datafusion::sql::sqlparser::ast::{
    Expr, Parens, Query, Select, SelectItem, SetExpr, SetOperator, SetQuantifier, TableWithJoins, Values, WindowSpec,
    WindowType, helpers::attached_token::AttachedToken,
};
use proto::Problem;

use super::{
    build::{derived, empty_query, empty_select, select_columns},
    problem::{bad, not_offered, shortened},
    resolver::Resolver,
    scope::OutputColumn,
    select::check_column_count,
    value::{call, column, quoted},
};

impl Resolver<'_> {
    /// Resolves SELECT, VALUES, (query), or a set operation of two of them.
    pub(super) fn set_expression(&mut self, body: &SetExpr) -> Result<(SetExpr, Vec<OutputColumn>), Problem> {
        self.count_expression()?;
        match body {
            SetExpr::Select(select) => {
                let (select, _, columns) = self.select(select, vec![])?;
                Ok((SetExpr::Select(Box::new(select)), columns))
            }
            SetExpr::Query(query) => {
                let (query, columns) = self.query(query)?;
                Ok((SetExpr::Query(Box::new(query)), columns))
            }
            SetExpr::SetOperation {
                left,
                op,
                set_quantifier,
                right,
            } => self.set_operation(left, *op, *set_quantifier, right),
            SetExpr::Values(values) => self.values(values),
            other => Err(not_offered(shortened(&other.to_string()))),
        }
    }

    fn set_operation(
        &mut self,
        left: &SetExpr,
        op: SetOperator,
        quantifier: SetQuantifier,
        right: &SetExpr,
    ) -> Result<(SetExpr, Vec<OutputColumn>), Problem> {
        if !matches!(
            quantifier,
            SetQuantifier::All | SetQuantifier::Distinct | SetQuantifier::None
        ) {
            return Err(not_offered(format!("{op} {quantifier}")));
        }
        let (left, columns) = self.set_expression(left)?;
        let (right, others) = self.set_expression(right)?;
        if columns.len() != others.len() {
            return Err(bad(format!("{op} of {} and {} columns", columns.len(), others.len()))
                .hint("both sides must return the same number of columns"));
        }
        let columns = columns.into_iter().zip(others).map(|(l, r)| OutputColumn {
            origin: l.origin.clone().filter(|_| l.origin == r.origin),
            ..l
        });
        let columns: Vec<OutputColumn> = columns.collect();
        let op = if op == SetOperator::Minus {
            SetOperator::Except
        } else {
            op
        };
        if quantifier == SetQuantifier::All && op != SetOperator::Union {
            return Ok((with_row_numbers(left, op, right, &columns), columns));
        }
        Ok((
            SetExpr::SetOperation {
                left: Box::new(left),
                op,
                set_quantifier: quantifier,
                right: Box::new(right),
            },
            columns,
        ))
    }

    fn values(&mut self, values: &Values) -> Result<(SetExpr, Vec<OutputColumn>), Problem> {
        let width = values.rows.first().map_or(0, |row| row.content.len());
        check_column_count(width)?;
        let mut rows = Vec::with_capacity(values.rows.len());
        for row in &values.rows {
            let content = row.iter().map(|expr| self.expression(expr)).collect::<Result<_, _>>()?;
            rows.push(Parens {
                opening_token: AttachedToken::empty(),
                content,
                closing_token: AttachedToken::empty(),
            });
        }
        let columns = (1..=width)
            .map(|number| OutputColumn::new(format!("column{number}")))
            .collect();
        Ok((
            SetExpr::Values(Values {
                explicit_row: false,
                value_keyword: false,
                rows,
            }),
            columns,
        ))
    }
}

/// EXCEPT ALL and INTERSECT ALL as EXCEPT and INTERSECT: equal rows are numbered, so that all rows of a side differ.
fn with_row_numbers(left: SetExpr, op: SetOperator, right: SetExpr, columns: &[OutputColumn]) -> SetExpr {
    let set = SetExpr::SetOperation {
        left: Box::new(numbered(left, columns)),
        op,
        set_quantifier: SetQuantifier::None,
        right: Box::new(numbered(right, columns)),
    };
    select_columns(set, columns)
}

/// Adds a column that numbers equal rows.
fn numbered(side: SetExpr, columns: &[OutputColumn]) -> SetExpr {
    const ALIAS: &str = "side";
    const NUMBER: &str = "\u{1}number";
    let names: Vec<String> = (0..columns.len()).map(|index| format!("column_{index}")).collect();
    let mut row_number = call("row_number", vec![]);
    if let Expr::Function(function) = &mut row_number {
        function.over = Some(WindowType::WindowSpec(WindowSpec {
            window_name: None,
            partition_by: names.iter().map(|name| column(ALIAS, name)).collect(),
            order_by: vec![],
            window_frame: None,
        }));
    }
    let items = names.iter().zip(columns).map(|(name, c)| SelectItem::ExprWithAlias {
        expr: column(ALIAS, name),
        alias: quoted(&c.name),
    });
    let number = SelectItem::ExprWithAlias {
        expr: row_number,
        alias: quoted(NUMBER),
    };
    let query = Query {
        body: Box::new(side),
        ..empty_query()
    };
    let select = Select {
        projection: items.chain([number]).collect(),
        from: vec![TableWithJoins {
            relation: derived(query, ALIAS, &names),
            joins: vec![],
        }],
        ..empty_select()
    };
    SetExpr::Select(Box::new(select))
}
