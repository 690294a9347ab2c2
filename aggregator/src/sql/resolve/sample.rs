//! `TABLESAMPLE (10)`: a part of an input, chosen row by row. A document is chosen by a hash of its id: the sample is the
//! same every time, on every node and by every plan, and grows with the percentage. Other rows are chosen by chance.

use datafusion::sql::sqlparser::ast::{
    BinaryOperator, Expr, Ident, TableFactor, TableSample, TableSampleKind, TableSampleUnit, UnaryOperator,
    Value as Literal,
};
use proto::Problem;

use super::{
    build::with_columns,
    operator::binary,
    problem::{bad, not_offered},
    resolver::Resolver,
    scope::InputKind,
    value::{call, number, quoted, text},
};

/// The hint for samples that are wrong.
const EXAMPLE: &str = "write FROM events TABLESAMPLE (10 PERCENT), or TABLESAMPLE BERNOULLI (0.5) REPEATABLE (7)";

/// Takes the sample off a relation.
pub(super) fn without_sample(relation: &TableFactor) -> Option<(TableFactor, TableSample)> {
    let mut relation = relation.clone();
    let sample = match &mut relation {
        TableFactor::Table { sample, .. } | TableFactor::Derived { sample, .. } => sample.take()?,
        _ => return None,
    };
    match sample {
        TableSampleKind::AfterTableAlias(sample) | TableSampleKind::BeforeTableAlias(sample) => {
            Some((relation, *sample))
        }
    }
}

impl Resolver<'_> {
    /// The part of the last input that a sample asks for.
    pub(super) fn sampled(&mut self, factor: TableFactor, sample: &TableSample) -> Result<TableFactor, Problem> {
        let percent = percent(sample)?;
        let input = self.scopes.last().and_then(|scope| scope.inputs.last());
        let Some((alias, is_documents)) =
            input.map(|input| (input.alias.clone(), matches!(input.kind, InputKind::Documents { .. })))
        else {
            return Err(bad("FROM is missing"));
        };
        let condition = match (is_documents, &sample.seed) {
            (true, seed) => {
                let id = Expr::CompoundIdentifier(vec![quoted(&alias), Ident::new("_id")]);
                let hashed = match seed {
                    Some(seed) => call("concat", vec![id, text(&format!(" {}", seed.value))]),
                    None => id,
                };
                // The first 32 bits of the hash.
                let end = (percent / 100.0 * 2.0_f64.powi(32)) as u64;
                let hash = call("md5", vec![hashed]);
                match end > u64::from(u32::MAX) {
                    true => return Ok(factor),
                    false => binary(hash, BinaryOperator::Lt, text(&format!("{end:08x}"))),
                }
            }
            (false, None) => {
                let chance = number(&(percent / 100.0).to_string());
                binary(call("random", Vec::new()), BinaryOperator::Lt, chance)
            }
            (false, Some(_)) => {
                let what = "REPEATABLE for a sample of rows that are not documents";
                return Err(not_offered(what).hint("take the sample of a collection, or leave REPEATABLE out"));
            }
        };
        let condition = self.filter(&condition)?;
        Ok(with_columns(factor, &alias, Vec::new(), Some(condition)))
    }
}

/// The percentage, from 0 to 100.
fn percent(sample: &TableSample) -> Result<f64, Problem> {
    if sample.bucket.is_some() || sample.offset.is_some() {
        return Err(not_offered("a sample of buckets").hint(EXAMPLE));
    }
    let quantity = sample
        .quantity
        .as_ref()
        .ok_or_else(|| bad("a sample needs a percentage").hint(EXAMPLE))?;
    if quantity.unit == Some(TableSampleUnit::Rows) {
        return Err(not_offered("a sample of a number of rows").hint("write ORDER BY random() LIMIT 100"));
    }
    let percent = match &quantity.value {
        Expr::Value(value) => match &value.value {
            Literal::Number(digits, _) => digits.to_string().parse::<f64>().ok(),
            _ => None,
        },
        Expr::UnaryOp {
            op: UnaryOperator::Minus,
            ..
        } => Some(-1.0),
        _ => None,
    };
    match percent {
        Some(percent) if (0.0..=100.0).contains(&percent) => Ok(percent),
        Some(_) => Err(bad("the percentage of a sample is from 0 to 100").hint(EXAMPLE)),
        None => Err(bad("the percentage of a sample is a number").hint(EXAMPLE)),
    }
}
