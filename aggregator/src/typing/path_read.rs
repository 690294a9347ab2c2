//! Reads of paths in JSON, and the columns of a scan with the same values: both are what [`plan::value::read_value`]
//! returns. A search in the value of a path is also sent to the index, which leaves few documents to check.

use datafusion::{
    common::{Column, Result, tree_node::Transformed},
    logical_expr::{Expr, expr::ScalarFunction},
};
use plan::{ColumnSource, Path, PathType, Type, functions::json, path::Step, search::Clause, walk::Walk as _};

use super::operand::literal;

/// `json_get(column, path, path_type)`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct PathRead {
    /// The column with the JSON.
    pub column: Column,
    /// The path in it.
    pub path: Path,
    /// What the value is read as.
    pub path_type: PathType,
}

impl PathRead {
    /// The read that an expression is, if it is one.
    pub(crate) fn of(expr: &Expr) -> Option<Self> {
        let Expr::ScalarFunction(ScalarFunction { func, args }) = expr else {
            return None;
        };
        let [Expr::Column(column), path, path_type, ..] = args.as_slice() else {
            return None;
        };
        if func.name() != json::GET {
            return None;
        }
        let text = |expr: &Expr| {
            literal(expr)
                .and_then(|value| value.try_as_str().flatten())
                .map(str::to_owned)
        };
        Some(Self {
            column: column.clone(),
            path: Path::try_from(text(path)?).ok()?,
            path_type: json::parse_path_type(&text(path_type)?)?,
        })
    }

    /// The column of a scan with the same values, if the read is over a column of a scan.
    pub(crate) fn scan_column(&self) -> Option<plan::Column> {
        let read = plan::Column::parse(&self.column.name)?;
        match read.source {
            ColumnSource::Path(path) if read.read_as.to == Type::Json => Some(plan::Column {
                source: ColumnSource::Path(joined(&path, &self.path)),
                read_as: self.path_type,
            }),
            // The paths of the whole document are columns.
            ColumnSource::Doc if !self.path.steps().is_empty() => Some(plan::Column {
                source: ColumnSource::Path(self.path.clone()),
                read_as: self.path_type,
            }),
            _ => None,
        }
    }
}

/// One path followed by another.
pub(crate) fn joined(path: &Path, further: &Path) -> Path {
    Path::new(
        path.steps()
            .iter()
            .chain(further.steps())
            .cloned()
            .collect::<Vec<Step>>(),
    )
}

/// Replaces every read of a path in a condition with the column that a leaf reads for it, and combines every search of
/// a path with the result of the index.
pub(crate) fn condition_over_columns(condition: Expr) -> Result<Expr> {
    let to_expr = |column: plan::Column| Expr::Column(Column::new_unqualified(column.name()));
    let replace = |node: Expr| match PathRead::of(&node).and_then(|read| read.scan_column()) {
        Some(column) => Ok(Transformed::yes(to_expr(column))),
        None => Ok(match search_column(&node) {
            Some(search) => Transformed::yes(to_expr(search).and(node)),
            None => Transformed::no(node),
        }),
    };
    Ok(condition.transform_up(replace)?.data)
}

/// For a search in the value of a stored path, the search of documents that finds at least all documents in which it
/// matches. It may find more: it also looks inside lists on the way to the path, where the value is NULL, and without a
/// path it looks everywhere.
fn search_column(node: &Expr) -> Option<plan::Column> {
    let arguments = |expr: &Expr, name: &str| match expr {
        Expr::ScalarFunction(ScalarFunction { func, args }) if func.name() == name => Some(args.clone()),
        _ => None,
    };
    let [value, clause] = arguments(node, json::SEARCH_MATCH)?.try_into().ok()?;
    let value = arguments(&value, json::TO_JSON)
        .and_then(|arguments| arguments.into_iter().next())
        .unwrap_or(value);
    let (Expr::Column(column), Some(clause)) = (value, literal(&clause)) else {
        return None;
    };
    let mut clause: Clause = serde_json::from_str(clause.try_as_str().flatten()?).ok()?;
    let read = plan::Column::parse(&column.name)?;
    let ColumnSource::Path(path) = read.source else {
        return None;
    };
    clause.path = clause.path.map(|further| joined(&path, &further));
    (read.read_as.to == Type::Json).then(|| plan::Column::search(clause))
}
