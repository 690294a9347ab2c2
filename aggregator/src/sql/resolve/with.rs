//! Resolves WITH: each query gets an internal name and its list of columns.

use datafusion::sql::sqlparser::ast::{
    Cte, Query, SetExpr, SetOperator, SetQuantifier, TableAlias, With, helpers::attached_token::AttachedToken,
};
use proto::{Code, Problem};

use super::{
    build::{empty_query, untyped_column},
    query::rename,
    resolver::Resolver,
    scope::CteInScope,
    scope::OutputColumn,
    value::quoted,
};

/// Queries of one WITH. Each may read the one before, and the planner inlines them.
const WITH_QUERIES_MAX: usize = 100;
/// Nesting of WITH in queries of WITH. DataFusion visits the inside of each twice to find the tables.
const WITH_NESTED_MAX: usize = 8;

impl Resolver<'_> {
    /// Resolves a WITH clause and brings its queries into scope. The caller removes them.
    pub(super) fn with_clause(&mut self, with: &With) -> Result<With, Problem> {
        if with.cte_tables.len() > WITH_QUERIES_MAX {
            let detail = format!(
                "WITH has {} queries: the limit is {WITH_QUERIES_MAX}",
                with.cte_tables.len()
            );
            return Err(Problem::new(Code::TooComplex, detail).hint("use fewer queries, or views"));
        }
        if self.with_clauses_around == WITH_NESTED_MAX {
            let detail = format!("WITH is nested more than {WITH_NESTED_MAX} levels deep");
            return Err(
                Problem::new(Code::TooComplex, detail).hint("write the queries one after the other in one WITH")
            );
        }
        self.with_clauses_around += 1;
        let mut tables = Vec::new();
        for cte in &with.cte_tables {
            tables.push(self.cte(cte, with.recursive)?);
        }
        self.with_clauses_around -= 1;
        Ok(With {
            with_token: AttachedToken::empty(),
            recursive: with.recursive,
            cte_tables: tables,
        })
    }

    fn cte(&mut self, cte: &Cte, recursive: bool) -> Result<Cte, Problem> {
        let name = cte.alias.name.value.clone();
        let internal = format!("with_{}", self.cte_count);
        self.cte_count += 1;
        let renamed: Vec<String> = cte.alias.columns.iter().map(|c| c.name.value.clone()).collect();
        let (before, begun) = (self.relations, self.resolved());
        let parts = if recursive { recursive_parts(&cte.query) } else { None };
        let (query, columns) = match parts {
            Some(parts) => self.recursive_query(&name, &internal, &renamed, parts)?,
            None => self.query(&cte.query)?,
        };
        let columns = rename(columns, &renamed, &name)?;
        // Its relations count for each use, not for the definition.
        let relations = std::mem::replace(&mut self.relations, before)
            .saturating_sub(before)
            .max(1);
        let expressions = self.resolved().expressions.saturating_sub(begun.expressions);
        let names = columns.iter().map(|c| untyped_column(&c.name)).collect();
        self.ctes.push(CteInScope {
            name,
            internal: internal.clone(),
            columns,
            relations,
            expressions,
            used: false,
        });
        Ok(Cte {
            alias: TableAlias {
                explicit: false,
                name: quoted(&internal),
                columns: names,
                at: None,
            },
            query: Box::new(query),
            from: None,
            materialized: None,
            closing_paren_token: AttachedToken::empty(),
        })
    }

    /// Resolves `WITH RECURSIVE name AS (start UNION [ALL] step)`. The step sees the columns of the start.
    fn recursive_query(
        &mut self,
        name: &str,
        internal: &str,
        renamed: &[String],
        parts: RecursiveParts<'_>,
    ) -> Result<(Query, Vec<OutputColumn>), Problem> {
        let (left, columns) = self.set_expression(parts.start)?;
        let visible = rename(columns.clone(), renamed, name)?;
        self.ctes.push(CteInScope {
            name: name.to_owned(),
            internal: internal.to_owned(),
            columns: visible,
            relations: 1,
            expressions: 0,
            used: false,
        });
        let right = self.set_expression(parts.step);
        self.ctes.pop();
        let (right, _) = right?;
        let body = SetExpr::SetOperation {
            left: Box::new(left),
            op: SetOperator::Union,
            set_quantifier: parts.quantifier,
            right: Box::new(right),
        };
        Ok((
            Query {
                body: Box::new(body),
                ..empty_query()
            },
            columns,
        ))
    }
}

/// The parts of `start UNION [ALL] step`.
struct RecursiveParts<'q> {
    start: &'q SetExpr,
    quantifier: SetQuantifier,
    step: &'q SetExpr,
}

fn recursive_parts(query: &Query) -> Option<RecursiveParts<'_>> {
    match &*query.body {
        SetExpr::SetOperation {
            left,
            op: SetOperator::Union,
            set_quantifier,
            right,
        } if query.with.is_none() && query.order_by.is_none() => Some(RecursiveParts {
            start: left,
            quantifier: *set_quantifier,
            step: right,
        }),
        _ => None,
    }
}
