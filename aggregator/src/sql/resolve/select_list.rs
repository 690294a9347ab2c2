//! Expands the select list: its items, their names, and `*`.

use datafusion::sql::sqlparser::ast::{
    AccessExpr, ExcludeSelectItem, Expr, Function, ObjectName, ObjectNamePart, Query, SelectItem,
    SelectItemQualifiedWildcardKind, SetExpr, Value as Literal, ValueWithSpan, WildcardAdditionalOptions,
};
use plan::{Path, nearest::nearest, path::Step};
use proto::Problem;

use super::{
    problem::{bad, not_offered, shortened},
    resolver::{Resolver, STAR_KEYS_MAX},
    scope::{Input, InputKind, OutputColumn, SpelledName},
    value::{StoredPath, Value, text_literal},
};
use crate::sql::{
    names::{CollectionNames, MatchQuality},
    score::STATISTICS,
};

/// An item of the select list, after `*` is expanded.
pub(crate) struct SelectedItem {
    /// The expression or column.
    pub source: ItemSource,
    /// The name that the item asks for. Another item may have the same.
    pub name: String,
}

#[expect(clippy::large_enum_variant, reason = "a select list has few items")]
pub(crate) enum ItemSource {
    /// An expression of the statement.
    Written(Expr),
    /// A column that `*` expands to.
    Star(Box<Value>),
}

/// Whether this is a call of a function, and nothing besides.
fn is_plain_call_of(call: &Function, name: &str) -> bool {
    let is_plain = call.filter.is_none() && call.over.is_none() && call.within_group.is_empty();
    is_plain && matches!(call.name.0.as_slice(), [ObjectNamePart::Identifier(only)] if only.value == name)
}

impl Resolver<'_> {
    /// The items of a select list, with `*` expanded.
    pub(crate) fn items(&mut self, projection: &[SelectItem]) -> Result<Vec<SelectedItem>, Problem> {
        let mut items = Vec::new();
        for item in projection {
            match item {
                SelectItem::UnnamedExpr(Expr::Function(call)) if is_plain_call_of(call, STATISTICS) => {
                    let statistics = self.statistics_columns(call)?.into_iter();
                    items.extend(statistics.map(|(name, expr)| SelectedItem {
                        source: ItemSource::Star(Box::new(Value::Expr(expr))),
                        name: name.to_owned(),
                    }));
                }
                SelectItem::UnnamedExpr(expr) => items.push(SelectedItem {
                    name: default_name(expr),
                    source: ItemSource::Written(expr.clone()),
                }),
                SelectItem::ExprWithAlias { expr, alias } => items.push(SelectedItem {
                    name: alias.value.clone(),
                    source: ItemSource::Written(expr.clone()),
                }),
                SelectItem::Wildcard(options) => {
                    let star = self.star_of_all()?;
                    items.extend(with_options(star, options)?);
                }
                SelectItem::QualifiedWildcard(SelectItemQualifiedWildcardKind::ObjectName(name), options) => {
                    let star = self.qualified_star(name)?;
                    items.extend(with_options(star, options)?);
                }
                other => return Err(not_offered(format!("{other} in a select list"))),
            }
        }
        Ok(items)
    }

    /// The items of `*`: all columns of all inputs.
    fn star_of_all(&mut self) -> Result<Vec<SelectedItem>, Problem> {
        let scope = self.scopes.last().cloned().unwrap_or_default();
        if scope.inputs.is_empty() {
            return Err(bad("SELECT * without FROM").hint("name a collection; SHOW TABLES lists them"));
        }
        let mut items = Vec::new();
        for (i, input) in scope.inputs.iter().enumerate() {
            let before: Vec<&str> = scope.inputs[..i].iter().map(|i| i.alias.as_str()).collect();
            // A column that USING has merged is shown once.
            let shown = |name: &str| {
                !scope.merged.iter().any(|m| {
                    m.name == name
                        && m.inputs.contains(&input.alias)
                        && m.inputs.iter().any(|a| before.contains(&a.as_str()))
                })
            };
            items.extend(self.star(input)?.into_iter().filter(|item| shown(&item.name)));
        }
        Ok(items)
    }

    /// The items of `alias.*`.
    fn qualified_star(&mut self, name: &ObjectName) -> Result<Vec<SelectedItem>, Problem> {
        let alias = last_part(name).ok_or_else(|| bad(format!("{name}.* does not name a table in FROM")))?;
        let input = self.scopes.iter().rev().find_map(|scope| {
            scope
                .inputs
                .iter()
                .find(|i| i.alias == alias)
                .or_else(|| scope.inputs.iter().find(|i| i.alias.eq_ignore_ascii_case(&alias)))
                .cloned()
        });
        match input {
            Some(input) => self.star(&input),
            None => Err(bad(format!("{name} is not in the FROM clause"))
                .hint(format!("name the keys, or select {name} as a whole"))),
        }
    }

    /// The items that `*` expands to for one input.
    fn star(&mut self, input: &Input) -> Result<Vec<SelectedItem>, Problem> {
        match &input.kind {
            InputKind::Columns(columns) => Ok(self.star_of_columns(&input.alias, columns)),
            InputKind::Documents { names, .. } => self.star_of_documents(&input.alias, names),
        }
    }

    fn star_of_columns(&mut self, alias: &str, columns: &[OutputColumn]) -> Vec<SelectedItem> {
        let mut items = Vec::with_capacity(columns.len());
        for column in columns {
            let whole = [Step::Key(column.name.as_str().into())];
            if let Some(value) = self.resolve_in_columns(alias, columns, &whole, MatchQuality::Exact) {
                items.push(SelectedItem {
                    source: ItemSource::Star(Box::new(value)),
                    name: column.name.clone(),
                });
            }
        }
        items
    }

    /// `_id`, `_time` and the top-level names of documents.
    fn star_of_documents(&mut self, alias: &str, names: &CollectionNames) -> Result<Vec<SelectedItem>, Problem> {
        // A system column takes precedence over a key of the same name, which `_doc->'key'` still reads.
        let mut top = names.top_level();
        top.retain(|path| path.keys().is_none_or(|keys| plan::Column::system(keys[0]).is_none()));
        if top.len() > STAR_KEYS_MAX {
            let at_least = if names.overflow() { "at least " } else { "" };
            self.warn(format!(
                "{} has {at_least}{} top-level keys; * shows the first {STAR_KEYS_MAX}",
                names.collection,
                top.len()
            ));
            top.truncate(STAR_KEYS_MAX);
        }
        let mut items = Vec::new();
        for path in [Path::of_keys(["_id"]), Path::of_keys(["_time"])]
            .into_iter()
            .chain(top)
        {
            let qualified: Vec<Step> = [Step::Key(alias.into())]
                .into_iter()
                .chain(path.steps().iter().cloned())
                .collect();
            let value = self.resolve_name(&SpelledName {
                steps: qualified,
                span: datafusion::sql::sqlparser::tokenizer::Span::empty(),
            })?;
            let name = path.keys().map_or_else(|| path.to_string(), |keys| keys.join("."));
            items.push(SelectedItem {
                source: ItemSource::Star(Box::new(value)),
                name,
            });
        }
        Ok(items)
    }
}

/// `* EXCLUDE (…)`, `* EXCEPT (…)` and `* REPLACE (… AS name)`.
fn with_options(
    mut items: Vec<SelectedItem>,
    options: &WildcardAdditionalOptions,
) -> Result<Vec<SelectedItem>, Problem> {
    if options.opt_ilike.is_some() || options.opt_rename.is_some() || options.opt_alias.is_some() {
        return Err(not_offered(format!("*{options}")).hint("name the columns"));
    }
    let mut excluded: Vec<String> = Vec::new();
    match &options.opt_exclude {
        None => {}
        Some(ExcludeSelectItem::Single(name)) => excluded.extend(last_part(name)),
        Some(ExcludeSelectItem::Multiple(names)) => excluded.extend(names.iter().filter_map(last_part)),
    }
    if let Some(except) = &options.opt_except {
        let names = std::iter::once(&except.first_element).chain(&except.additional_elements);
        excluded.extend(names.map(|name| name.value.clone()));
    }
    for name in excluded {
        let index = index_of(&items, &name)?;
        items.remove(index);
    }
    for replaced in options.opt_replace.iter().flat_map(|replace| &replace.items) {
        let index = index_of(&items, &replaced.column_name.value)?;
        items[index].source = ItemSource::Written(replaced.expr.clone());
    }
    Ok(items)
}

/// The item of this name: in exact case, or else in any case.
fn index_of(items: &[SelectedItem], name: &str) -> Result<usize, Problem> {
    let exact = items.iter().position(|item| item.name == name);
    let similar = || items.iter().position(|item| item.name.eq_ignore_ascii_case(name));
    exact.or_else(similar).ok_or_else(|| {
        let problem = bad(format!("* has no column {name}"));
        match nearest(name, items.iter().map(|item| item.name.as_str())) {
            Some(near) => problem.hint(format!("did you mean {near}?")),
            None => problem,
        }
    })
}

/// Gives result columns unique names: a repeated name gets a number.
#[derive(Default)]
pub(super) struct OutputNames {
    taken: std::collections::HashSet<String>,
}

impl OutputNames {
    /// The name itself, or the name with a number if it is taken.
    pub(super) fn unique(&mut self, name: &str) -> String {
        let mut unique = name.to_owned();
        let mut count = 1usize;
        while !self.taken.insert(unique.clone()) {
            count += 1;
            unique = format!("{name}_{count}");
        }
        unique
    }
}

/// The stored path that an item returns unchanged.
pub(super) fn origin(value: &Value) -> Option<StoredPath> {
    match value {
        Value::Path(path) => path.stored(),
        Value::Expr(_) => None,
    }
}

/// The name of a result column without an alias.
pub(in crate::sql) fn default_name(expr: &Expr) -> String {
    match expr {
        Expr::Identifier(ident) => ident.value.clone(),
        Expr::CompoundIdentifier(idents) => idents.last().map_or_else(String::new, |ident| ident.value.clone()),
        Expr::CompoundFieldAccess { root, access_chain } => {
            let path = access_chain.iter().rev().find_map(|access| match access {
                AccessExpr::Dot(Expr::Identifier(ident)) => Some(ident.value.clone()),
                _ => None,
            });
            path.unwrap_or_else(|| default_name(root))
        }
        Expr::BinaryOp { left, op, right } if matches!(op.to_string().as_str(), "->" | "->>") => {
            match text_literal(right) {
                Some(key) => key.to_owned(),
                None => default_name(left),
            }
        }
        Expr::Nested(inner) => default_name(inner),
        Expr::Cast { expr: inner, .. } if !matches!(**inner, Expr::Value(_)) => default_name(inner),
        Expr::Function(function) => {
            last_part(&function.name).map_or_else(|| function.name.to_string(), |name| name.to_lowercase())
        }
        Expr::Case { .. } => "case".into(),
        Expr::Extract { .. } => "extract".into(),
        Expr::Exists { .. } => "exists".into(),
        Expr::Substring { .. } => "substring".into(),
        Expr::Position { .. } => "position".into(),
        Expr::Trim { .. } => "trim".into(),
        Expr::Ceil { .. } => "ceil".into(),
        Expr::Floor { .. } => "floor".into(),
        Expr::Subquery(query) => subquery_name(query),
        Expr::Value(ValueWithSpan {
            value: Literal::Placeholder(name),
            ..
        }) => name.clone(),
        other => shortened(&other.to_string()),
    }
}

/// The name of a scalar subquery: that of its only column.
fn subquery_name(query: &Query) -> String {
    match &*query.body {
        SetExpr::Select(select) => match select.projection.as_slice() {
            [SelectItem::UnnamedExpr(inner)] => default_name(inner),
            [SelectItem::ExprWithAlias { alias, .. }] => alias.value.clone(),
            _ => "column".into(),
        },
        _ => "column".into(),
    }
}

pub(super) fn last_part(name: &ObjectName) -> Option<String> {
    match name.0.last() {
        Some(ObjectNamePart::Identifier(ident)) => Some(ident.value.clone()),
        _ => None,
    }
}
