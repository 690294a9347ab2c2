//! Handles names that nothing matches: NULL with a warning for documents, an error for fixed columns.

use datafusion::sql::sqlparser::{ast, tokenizer::Span};
use plan::{Kinds, Path, path::Step};
use proto::{Problem, catalog::VersionRef};

use super::{
    name::split_version,
    problem::{at, bad},
    resolver::Resolver,
    scope::{Input, InputKind, SpelledName},
    value::{Base, PathRef, Value, literal},
};
use plan::nearest::nearest;

/// Refuses `price@2` where nothing has this name: a version is meant, and it may become one later.
fn refuse_unknown_version(inputs: &str, steps: &[Step]) -> Result<(), Problem> {
    match split_version(steps) {
        Some((name, version, _)) if VersionRef::parse(version).is_ok() => Err(bad(format!(
            "{inputs} has no field or parser {name}, so it has no {name}@{version}"
        ))
        .hint("SHOW DEFINITIONS lists them; _doc->'a@b' reads a key with an @")),
        _ => Ok(()),
    }
}

impl Resolver<'_> {
    /// Resolves a name that no scope has: NULL with a warning if an input has documents, else an error.
    pub(crate) fn unresolved(&mut self, name: &SpelledName) -> Result<Value, Problem> {
        let Some(scope) = self.scopes.last() else {
            return Err(at(
                bad(format!("column {} cannot be used here", name.path())),
                name.span,
            ));
        };
        let documents: Vec<Input> = scope
            .inputs
            .iter()
            .filter(|input| matches!(input.kind, InputKind::Documents { .. }))
            .cloned()
            .collect();
        match documents.as_slice() {
            [] => {
                let mut names: Vec<String> = Vec::new();
                for input in &scope.inputs {
                    if let InputKind::Columns(columns) = &input.kind {
                        names.extend(columns.iter().map(|c| c.name.clone()));
                    }
                }
                Err(at(unknown_column(name, &names), name.span))
            }
            [only] => self.unresolved_in(only, &name.steps, name.span),
            several => self.unresolved_in_several(several, name),
        }
    }

    fn unresolved_in_several(&mut self, inputs: &[Input], name: &SpelledName) -> Result<Value, Problem> {
        // The path may exist in a collection whose paths are not all recorded, so it is read from there.
        if let Some(incomplete) = inputs
            .iter()
            .find(|i| matches!(&i.kind, InputKind::Documents { names, .. } if names.overflow()))
        {
            return self.unresolved_in(incomplete, &name.steps, name.span);
        }
        let aliases: Vec<&str> = inputs.iter().map(|i| i.alias.as_str()).collect();
        let all = aliases.join(" or ");
        refuse_unknown_version(&all, &name.steps).map_err(|problem| at(problem, name.span))?;
        let path = name.path();
        let near = inputs.iter().find_map(|i| match &i.kind {
            InputKind::Documents { names, .. } => names.suggest(&path).map(|near| format!("{}.{near}", i.alias)),
            InputKind::Columns(_) => None,
        });
        self.warn(format!(
            "no document in {all} has {path}, so it is NULL{}",
            suggestion(near)
        ));
        Ok(Value::Expr(literal(ast::Value::Null)))
    }

    /// Resolves a path that an input does not have: a path with a warning for documents, else an error.
    pub(crate) fn unresolved_in(&mut self, input: &Input, steps: &[Step], span: Span) -> Result<Value, Problem> {
        let path = Path::new(steps.to_vec());
        match &input.kind {
            InputKind::Columns(columns) => {
                let names: Vec<String> = columns.iter().map(|c| c.name.clone()).collect();
                let name = SpelledName {
                    steps: steps.to_vec(),
                    span,
                };
                Err(at(unknown_column(&name, &names), span))
            }
            InputKind::Documents { table, names } => {
                if !names.overflow() {
                    refuse_unknown_version(names.collection.as_str(), steps).map_err(|problem| at(problem, span))?;
                    let near = names.suggest(&path);
                    // Names in a definition are those of its expression.
                    let is_searched = self.in_search && self.expanding.is_empty();
                    let as_text = match (&near, steps) {
                        (_, [Step::Key(key)]) if is_searched => instead_in_search(key).to_owned(),
                        (None, [Step::Key(key)]) if self.in_filter => {
                            format!(
                                "; if it is a text, write '{}' in single quotes",
                                key.replace('\'', "''")
                            )
                        }
                        _ => String::new(),
                    };
                    let result = if is_searched { "" } else { ", so it is NULL" };
                    self.warn(format!(
                        "no document in {} has {path}{result}{}{as_text}",
                        names.collection,
                        suggestion(near)
                    ));
                }
                let base = Base::Table {
                    alias: input.alias.clone(),
                    table: *table,
                    collection: names.collection.clone(),
                };
                Ok(Value::Path(PathRef {
                    base,
                    path,
                    kinds: Kinds::default(),
                }))
            }
        }
    }
}

/// What to write in a search instead of a condition of other systems.
fn instead_in_search(name: &str) -> &'static str {
    match name.to_ascii_lowercase().as_str() {
        "has" | "exists" => "; to find documents that have a path, write _exists_:path",
        "_missing_" | "missing" => "; to find documents without a path, write NOT _exists_:path",
        _ => "",
    }
}

fn suggestion(name: Option<String>) -> String {
    name.map_or(String::new(), |name| format!("; did you mean {name}?"))
}

fn unknown_column(name: &SpelledName, columns: &[String]) -> Problem {
    let path = name.path();
    let problem = bad(format!("column {path} does not exist"));
    match nearest(name.first().unwrap_or_default(), columns.iter().map(String::as_str)) {
        Some(near) => problem.hint(format!("did you mean {near}?")),
        None if columns.is_empty() => problem,
        None => problem.hint(format!(
            "available columns: {}",
            columns.iter().take(20).cloned().collect::<Vec<_>>().join(", ")
        )),
    }
}
