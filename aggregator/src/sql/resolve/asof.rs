//! ASOF JOIN: each row on the left with the row on the right that is next to it in time, among those with equal keys.
//!
//! The right side gets the time of its next row, for `left.time >= right.time`: a row on the left then belongs to the
//! one row on the right with `right.time <= left.time < next`. So the join is one of equal keys and conditions:
//!
//! ```text
//!   ASOF JOIN prices p ON o.symbol = p.symbol AND o.at >= p.at
//!   JOIN (SELECT p.*, lead(p.at) OVER (PARTITION BY p.symbol ORDER BY p.at) AS asof_1 FROM prices p) p
//!     ON o.symbol = p.symbol AND o.at >= p.at AND (p.asof_1 IS NULL OR o.at < p.asof_1)
//! ```
//!
//! Rows are ordered as they are compared: if one of the two values is a time, the other is cast to one; of a path with
//! values of several kinds, one kind is compared. What is of another kind is NULL, and next to nothing.

use datafusion::sql::sqlparser::ast::{
    BinaryOperator as Op, CastKind, DataType, Expr, Ident, Join, JoinConstraint, JoinOperator, ObjectName, OrderByExpr,
    OrderByOptions, SelectItem, TableFactor, TimezoneInfo, WindowSpec, WindowType,
};
use plan::{Column, Type};
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
use crate::sql::search::unnamed_arguments;

/// The hint for joins that are wrong.
const EXAMPLE: &str = "write ASOF JOIN prices p ON o.symbol = p.symbol AND o.at >= p.at";

/// What an ASOF JOIN compares.
struct Nearest {
    /// The values of the left and the right side, resolved.
    left: Expr,
    right: Expr,
    /// `left op right`.
    op: Op,
    /// The keys of the right side, resolved.
    keys: Vec<Expr>,
    /// The conditions that say which keys are equal, as written.
    equalities: Vec<Expr>,
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
        let hidden = format!("asof_{before}");
        let bound = column(&alias, &hidden);
        let beyond = match nearest.op {
            Op::GtEq => Op::Lt,
            Op::Gt => Op::LtEq,
            Op::LtEq => Op::Gt,
            _ => Op::GtEq,
        };
        let is_last = Expr::IsNull(Box::new(bound.clone()));
        let within = nested(binary(is_last, Op::Or, binary(nearest.left.clone(), beyond, bound)));
        let mut resolved = Vec::with_capacity(conditions.len() + 1);
        for condition in &nearest.equalities {
            resolved.push(self.filter(condition)?);
        }
        resolved.push(truth(binary(
            nearest.left.clone(),
            nearest.op.clone(),
            nearest.right.clone(),
        )));
        resolved.push(within);
        let neighbour = SelectItem::ExprWithAlias {
            expr: neighbour(&nearest),
            alias: quoted(&hidden),
        };
        let on = JoinConstraint::On(balanced(resolved, &Op::And).ok_or_else(|| bad(EXAMPLE))?);
        Ok(Join {
            relation: with_columns(relation, &alias, vec![neighbour], None),
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
                    equalities.push(condition.clone());
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
        let are_times = is_time(&left) || is_time(&right);
        let compared = |value: Expr| match are_times {
            true if is_time(&value) => value,
            true => as_time(value),
            false => call("comparable", vec![value]),
        };
        Ok(Nearest {
            left: compared(left),
            right: compared(right),
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

/// Whether a resolved expression is a time, whatever documents have.
fn is_time(expr: &Expr) -> bool {
    let is_time_type = |of: &DataType| matches!(of, DataType::Timestamp(..) | DataType::Date | DataType::Datetime(_));
    match expr {
        Expr::Nested(inner) => is_time(inner),
        Expr::Cast { data_type, .. } => is_time_type(data_type),
        Expr::TypedString(typed) => is_time_type(&typed.data_type),
        Expr::BinaryOp { left, op, right } => matches!(op, Op::Plus | Op::Minus) && (is_time(left) || is_time(right)),
        Expr::CompoundIdentifier(parts) => {
            let name = parts.last().map_or("", |part| part.value.as_str());
            Column::system(name).is_some_and(|column| column.read_as.to == Type::Time)
        }
        Expr::Function(function) => match (function.name.to_string().trim_matches('"'), unnamed_arguments(function)) {
            ("cast" | "positive", Some(arguments)) => arguments.first().is_some_and(|value| is_time(value)),
            (name, _) => matches!(name, "now" | "to_timestamp" | "date_trunc" | "date_bin" | "time_bucket"),
        },
        _ => false,
    }
}

fn as_time(value: Expr) -> Expr {
    let data_type = DataType::Timestamp(None, TimezoneInfo::None);
    let name = text(&data_type.to_string());
    let cast = Expr::Cast {
        kind: CastKind::Cast,
        expr: Box::new(value),
        data_type,
        array: false,
        format: None,
    };
    call("cast", vec![cast, name])
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

/// The time of the row after or before each row on the right. Of rows of one time, the last or the first remains.
fn neighbour(nearest: &Nearest) -> Expr {
    let function = match nearest.op {
        Op::GtEq | Op::Gt => "lead",
        _ => "lag",
    };
    let by_time = OrderByExpr {
        expr: nearest.right.clone(),
        options: OrderByOptions {
            asc: Some(true),
            nulls_first: Some(false),
        },
        with_fill: None,
    };
    let window = WindowSpec {
        window_name: None,
        partition_by: nearest.keys.clone(),
        order_by: vec![by_time],
        window_frame: None,
    };
    let mut neighbour = call(function, vec![nearest.right.clone()]);
    if let Expr::Function(function) = &mut neighbour {
        function.over = Some(WindowType::WindowSpec(window));
    }
    neighbour
}
