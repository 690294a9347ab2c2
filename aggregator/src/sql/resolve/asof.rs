//! ASOF JOIN: each row on the left with the row on the right that is next to it in time, among those with equal keys.
//!
//! The right side gets the time of its next row, for `left.time >= right.time`: a row on the left then belongs to the
//! one row on the right with `right.time <= left.time < next`. So the join is one of equal keys and conditions:
//!
//! ```text
//!   ASOF JOIN prices p ON o.symbol = p.symbol AND o.at >= p.at
//!   JOIN (SELECT p.*, lead(p.at) OVER (PARTITION BY p.symbol ORDER BY p.at) AS next FROM prices p) p
//!     ON o.symbol = p.symbol AND o.at >= p.at AND (p.next IS NULL OR o.at < p.next)
//! ```
//!
//! Rows are ordered as they are compared: as times if one of the two values is a time, as numbers if one is a number and
//! the other a computed text, else by themselves, those of each kind apart. Only typing knows which of these it is, so
//! there is a column for each, and `asof_bound` takes one of them. What cannot be compared is next to nothing. Keys are
//! compared without a conversion: `asof_key` refuses types that `=` would convert.

use datafusion::sql::sqlparser::ast::{
    BinaryOperator as Op, Expr, Ident, Join, JoinConstraint, JoinOperator, ObjectName, OrderByExpr, OrderByOptions,
    SelectItem, TableFactor, WindowSpec, WindowType,
};
use proto::Problem;

use super::{
    build::with_columns,
    operator::{balanced, binary, nested, operands, truth},
    problem::{bad, not_offered, shortened},
    resolver::Resolver,
    scope::MergedColumn,
    select_list::last_part,
    unnest::add_inputs_of,
    value::{call, column, quoted, text},
};

/// The hint for joins that are wrong.
const EXAMPLE: &str = "write ASOF JOIN prices p ON o.symbol = p.symbol AND o.at >= p.at";
/// The ways to order the values of the right side: as they are, as times, as numbers.
const ORDERS: [&str; 3] = ["own", "time", "number"];

/// What an ASOF JOIN compares.
struct Nearest {
    /// The values of the left and the right side, resolved.
    left: Expr,
    right: Expr,
    /// `left op right`.
    op: Op,
    /// The keys of the right side, resolved.
    keys: Vec<Expr>,
    /// The keys of the left side, resolved, and the conditions that say which keys are equal, as written.
    equalities: Vec<(Expr, Expr)>,
}

/// Whether a join is an ASOF JOIN, and what its conditions are. `ASOF JOIN … ON` arrives as `GLOBAL JOIN … ON`.
pub(super) fn asof_conditions(join: &Join) -> Option<(&JoinConstraint, Option<&Expr>, bool)> {
    match &join.join_operator {
        JoinOperator::AsOf {
            match_condition,
            constraint,
        } => Some((constraint, Some(match_condition), false)),
        JoinOperator::Join(constraint) | JoinOperator::Inner(constraint) if join.global => {
            Some((constraint, None, false))
        }
        JoinOperator::Left(constraint) | JoinOperator::LeftOuter(constraint) if join.global => {
            Some((constraint, None, true))
        }
        _ => None,
    }
}

impl Resolver<'_> {
    /// Resolves an ASOF JOIN with the last input; the first `before` inputs of the scope are the left side.
    pub(super) fn asof_join(
        &mut self,
        relation: TableFactor,
        before: usize,
        (constraint, matched, keeps_left): (&JoinConstraint, Option<&Expr>, bool),
    ) -> Result<Join, Problem> {
        let inputs = self
            .scopes
            .last()
            .map(|scope| &scope.inputs[before.min(scope.inputs.len())..]);
        let alias = match inputs {
            Some([only]) => only.alias.clone(),
            _ => return Err(not_offered("ASOF JOIN with a join in parentheses").hint("join with a subquery")),
        };
        let mut conditions = match constraint {
            JoinConstraint::On(condition) => operands(condition, &Op::And).into_iter().cloned().collect(),
            JoinConstraint::Using(names) => self.asof_using(names, before, &alias, matched.is_some())?,
            JoinConstraint::None if matched.is_some() => Vec::new(),
            _ => return Err(bad("ASOF JOIN needs a condition").hint(EXAMPLE)),
        };
        conditions.extend(matched.cloned());
        let nearest = self.nearest(&conditions, &alias)?;
        let hidden = ORDERS.map(|order| format!("asof_{before}_{order}"));
        let bounds = hidden.iter().map(|name| column(&alias, name));
        let compared = [nearest.left.clone(), nearest.right.clone()];
        let bound = call("asof_bound", compared.into_iter().chain(bounds).collect());
        let beyond = match nearest.op {
            Op::GtEq => Op::Lt,
            Op::Gt => Op::LtEq,
            Op::LtEq => Op::Gt,
            _ => Op::GtEq,
        };
        let is_last = Expr::IsNull(Box::new(bound.clone()));
        let within = nested(binary(is_last, Op::Or, binary(nearest.left.clone(), beyond, bound)));
        let mut resolved = Vec::with_capacity(conditions.len() + 1);
        for ((left, condition), right) in nearest.equalities.iter().zip(&nearest.keys) {
            resolved.push(self.filter(condition)?);
            resolved.push(truth(call("asof_key", vec![left.clone(), right.clone()])));
        }
        resolved.push(truth(binary(
            nearest.left.clone(),
            nearest.op.clone(),
            nearest.right.clone(),
        )));
        resolved.push(within);
        let neighbours = ORDERS
            .iter()
            .zip(&hidden)
            .map(|(order, name)| SelectItem::ExprWithAlias {
                expr: neighbour(&nearest, order),
                alias: quoted(name),
            });
        let on = JoinConstraint::On(balanced(resolved, &Op::And).ok_or_else(|| bad(EXAMPLE))?);
        Ok(Join {
            relation: with_columns(relation, &alias, neighbours.collect(), None),
            global: false,
            join_operator: match keeps_left {
                true => JoinOperator::LeftOuter(on),
                false => JoinOperator::Inner(on),
            },
        })
    }

    /// `USING (a, at)` as conditions: the last name is the time, unless the times are compared by another condition. In the
    /// result, the names stand for the values of the left side.
    fn asof_using(
        &mut self,
        names: &[ObjectName],
        before: usize,
        alias: &str,
        has_match: bool,
    ) -> Result<Vec<Expr>, Problem> {
        let conditions = self.conditions_of_using(names, before, alias, has_match)?;
        for (name, condition) in &conditions {
            let Expr::BinaryOp { left, .. } = condition else {
                continue;
            };
            let value = self.value(left)?;
            if let Some(scope) = self.scopes.last_mut() {
                let inputs = scope.inputs.iter().take(before).map(|input| input.alias.clone());
                let inputs = inputs.chain([alias.to_owned()]).collect();
                scope.merged.retain(|merged| merged.name != *name);
                scope.merged.push(MergedColumn {
                    name: name.clone(),
                    inputs,
                    value,
                });
            }
        }
        Ok(conditions.into_iter().map(|(_, condition)| condition).collect())
    }

    fn conditions_of_using(
        &self,
        names: &[ObjectName],
        before: usize,
        alias: &str,
        has_match: bool,
    ) -> Result<Vec<(String, Expr)>, Problem> {
        let lefts = self
            .scopes
            .last()
            .map(|scope| &scope.inputs[..before.min(scope.inputs.len())]);
        let Some([left]) = lefts else {
            return Err(not_offered("ASOF JOIN with USING after another join").hint(EXAMPLE));
        };
        let condition = |(index, name): (usize, &ObjectName)| {
            let name = last_part(name).ok_or_else(|| bad("USING takes column names"))?;
            let of = |alias: &str| Expr::CompoundIdentifier(vec![quoted(alias), Ident::new(&name)]);
            let op = match !has_match && index + 1 == names.len() {
                true => Op::GtEq,
                false => Op::Eq,
            };
            Ok((name.clone(), binary(of(&left.alias), op, of(alias))))
        };
        names.iter().enumerate().map(condition).collect()
    }

    /// The one comparison, and the keys.
    fn nearest(&mut self, conditions: &[Expr], alias: &str) -> Result<Nearest, Problem> {
        let (mut nearest, mut keys, mut equalities) = (None, Vec::new(), Vec::new());
        for condition in conditions {
            let refused = || {
                let detail = format!(
                    "ASOF JOIN compares each table with the other: {} does not",
                    shortened(&condition.to_string())
                );
                Err(bad(detail).hint(EXAMPLE))
            };
            let mut compared = condition;
            while let Expr::Nested(inner) = compared {
                compared = inner;
            }
            let Expr::BinaryOp { left, op, right } = compared else {
                return refused();
            };
            let (left, right) = (self.expression(left)?, self.expression(right)?);
            let (left, op, right) = match (is_of(&left, alias), is_of(&right, alias)) {
                (Some(false), Some(true)) => (left, op.clone(), right),
                (Some(true), Some(false)) => (right, mirrored(op), left),
                _ => return refused(),
            };
            match op {
                Op::Eq => {
                    keys.push(right);
                    equalities.push((left, condition.clone()));
                }
                Op::Lt | Op::LtEq | Op::Gt | Op::GtEq if nearest.is_none() => nearest = Some((left, op, right)),
                Op::Lt | Op::LtEq | Op::Gt | Op::GtEq => {
                    return Err(bad("ASOF JOIN has one comparison by <, <=, > or >=").hint(EXAMPLE));
                }
                _ => return refused(),
            }
        }
        let Some((left, op, right)) = nearest else {
            return Err(bad("ASOF JOIN needs a comparison by <, <=, > or >=").hint(EXAMPLE));
        };
        Ok(Nearest {
            left,
            right,
            op,
            keys,
            equalities,
        })
    }
}

/// Whether an expression reads only this input; none if it reads others, too, or no input.
fn is_of(expr: &Expr, alias: &str) -> Option<bool> {
    let mut inputs = Vec::new();
    add_inputs_of(expr, &mut inputs);
    match inputs.iter().filter(|input| *input == alias).count() {
        0 if !inputs.is_empty() => Some(false),
        1 if inputs.len() == 1 => Some(true),
        _ => None,
    }
}

fn mirrored(op: &Op) -> Op {
    match op {
        Op::Lt => Op::Gt,
        Op::LtEq => Op::GtEq,
        Op::Gt => Op::Lt,
        Op::GtEq => Op::LtEq,
        other => other.clone(),
    }
}

/// The value of the row after or before each row on the right, if they are ordered as this. Of rows of one time, the last
/// or the first remains.
fn neighbour(nearest: &Nearest, order: &str) -> Expr {
    let value = call("asof_value", vec![nearest.right.clone(), text(order)]);
    let kind = call("asof_kind", vec![nearest.right.clone(), text(order)]);
    let function = match nearest.op {
        Op::GtEq | Op::Gt => "lead",
        _ => "lag",
    };
    let by_value = OrderByExpr {
        expr: value.clone(),
        options: OrderByOptions {
            asc: Some(true),
            nulls_first: Some(false),
        },
        with_fill: None,
    };
    let window = WindowSpec {
        window_name: None,
        partition_by: nearest.keys.iter().cloned().chain([kind]).collect(),
        order_by: vec![by_value],
        window_frame: None,
    };
    let mut neighbour = call(function, vec![value]);
    if let Expr::Function(function) = &mut neighbour {
        function.over = Some(WindowType::WindowSpec(window));
    }
    neighbour
}
