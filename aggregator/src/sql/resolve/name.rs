//! Resolves names, innermost scope first. Within a scope, a name as written takes precedence over one that differs in
//! case.

use std::rc::Rc;

use plan::{Column, Kinds, Path, path::Step};
use proto::{
    Problem,
    catalog::{DefinitionId, DefinitionKind, VersionRef},
};

use super::{
    operator::nested,
    problem::{at, bad},
    resolver::Resolver,
    scope::{Input, InputKind, MergedColumn, OutputColumn, SpelledName},
    value::{Base, PathRef, Value, check_steps, column},
};
use crate::sql::{
    names::{CollectionNames, MatchQuality, ResolvedName},
    parser_text::ParserText,
    statement,
};

impl<'c> Resolver<'c> {
    /// Resolves a name in the scopes around it.
    pub(crate) fn resolve_name(&mut self, name: &SpelledName) -> Result<Value, Problem> {
        // The first may name an input.
        check_steps(name.steps.len().saturating_sub(1)).map_err(|problem| at(problem, name.span))?;
        for depth in (0..self.scopes.len()).rev() {
            if let Some(value) = self.resolve_in_scope(depth, name)? {
                self.outermost_scope = self.outermost_scope.min(depth);
                return Ok(value);
            }
            if self.scopes[depth].closed {
                break;
            }
        }
        if let Some(value) = self.select_alias(name)? {
            return Ok(value);
        }
        self.unresolved(name)
    }

    /// Resolves a name in one scope: an input's alias and a path, or a name of one of its inputs.
    fn resolve_in_scope(&mut self, depth: usize, name: &SpelledName) -> Result<Option<Value>, Problem> {
        let qualified = self.qualifying_input(depth, name);
        if let Some((input, rest)) = &qualified {
            for quality in [MatchQuality::Exact, MatchQuality::Folded] {
                if let Some(value) = self.resolve_in_input(input, rest, quality)? {
                    return Ok(Some(value));
                }
            }
        }
        for quality in [MatchQuality::Exact, MatchQuality::Folded] {
            if let Some(merged) = self.merged_column(depth, name, quality) {
                if let Value::Expr(expr) = &merged {
                    self.charge_expression(1, expr)?;
                }
                return Ok(Some(merged));
            }
            let inputs = self.scopes[depth].inputs.clone();
            let mut found = Vec::new();
            for input in &inputs {
                if let Some(value) = self.resolve_in_input(input, &name.steps, quality)? {
                    found.push((input.alias.clone(), value));
                }
            }
            if found.len() > 1 {
                let aliases: Vec<&str> = found.iter().map(|(alias, _)| alias.as_str()).collect();
                return Err(ambiguous(name, &aliases));
            }
            if let Some((_, value)) = found.pop() {
                return Ok(Some(value));
            }
        }
        // A name that begins with an alias can refer to nothing else.
        match qualified {
            Some((input, rest)) => self.unresolved_in(&input, &rest, name.span).map(Some),
            None => Ok(None),
        }
    }

    /// The input whose alias a name begins with, and the rest of the name.
    fn qualifying_input(&self, depth: usize, name: &SpelledName) -> Option<(Input<'c>, Vec<Step>)> {
        let keys: Vec<&str> = name
            .steps
            .iter()
            .map_while(|step| if let Step::Key(key) = step { Some(&**key) } else { None })
            .collect();
        let inputs = &self.scopes[depth].inputs;
        let by_alias = |alias: &str| {
            inputs
                .iter()
                .find(|i| i.alias == alias)
                .or_else(|| inputs.iter().find(|i| i.alias.eq_ignore_ascii_case(alias)))
        };
        // `rachis.sources.state`: a table without another alias can be qualified with its schema.
        if keys.len() > 2
            && ["rachis", "information_schema"].contains(&keys[0].to_ascii_lowercase().as_str())
            && let Some(input) = by_alias(keys[1])
        {
            return Some((input.clone(), name.steps[2..].to_vec()));
        }
        if keys.is_empty() || name.steps.len() < 2 {
            return None;
        }
        by_alias(keys[0]).map(|input| (input.clone(), name.steps[1..].to_vec()))
    }

    fn merged_column(&mut self, depth: usize, name: &SpelledName, quality: MatchQuality) -> Option<Value> {
        let path = name.path().to_string();
        let same = |m: &&MergedColumn| {
            if quality == MatchQuality::Exact {
                m.name == path
            } else {
                m.name.eq_ignore_ascii_case(&path)
            }
        };
        self.scopes[depth].merged.iter().find(same).map(|m| m.value.clone())
    }

    fn resolve_in_input(
        &mut self,
        input: &Input,
        steps: &[Step],
        quality: MatchQuality,
    ) -> Result<Option<Value>, Problem> {
        match &input.kind {
            InputKind::Documents { table, names } => {
                self.resolve_in_documents(&input.alias, *table, &Rc::clone(names), steps, quality)
            }
            InputKind::Columns(columns) => Ok(self.resolve_in_columns(&input.alias, columns, steps, quality)),
        }
    }

    /// Resolves a name in an input of fixed columns.
    pub(crate) fn resolve_in_columns(
        &mut self,
        alias: &str,
        columns: &[OutputColumn],
        steps: &[Step],
        quality: MatchQuality,
    ) -> Option<Value> {
        let (Step::Key(key), rest) = steps.split_first()? else {
            return None;
        };
        let same = |c: &&OutputColumn| {
            if quality == MatchQuality::Exact {
                *c.name == **key
            } else {
                c.name.eq_ignore_ascii_case(key)
            }
        };
        let found = columns.iter().find(same)?;
        let expr = found.expr.clone().unwrap_or_else(|| column(alias, &found.name));
        let base = Base::Computed {
            expr: Box::new(expr),
            origin: found.origin.clone(),
        };
        let mut path = PathRef {
            base,
            path: Path::new(rest.to_vec()),
            kinds: Kinds::default(),
        };
        path.kinds = self.kinds_of(&path);
        Some(Value::Path(path))
    }

    /// Resolves a name in documents: a system column, a field or parser, a version of one, or a path.
    fn resolve_in_documents(
        &mut self,
        alias: &str,
        table: usize,
        names: &CollectionNames,
        steps: &[Step],
        quality: MatchQuality,
    ) -> Result<Option<Value>, Problem> {
        let base = Base::Table {
            alias: alias.to_owned(),
            table,
            collection: names.collection.clone(),
        };
        if let [Step::Key(key), rest @ ..] = steps
            && let Some(source) = system_column(key, quality)
        {
            return self.resolve_system_column(base, source, rest);
        }
        if let Some((name, version, rest)) = split_version(steps)
            && let Some(ResolvedName::Defined(id, inside)) = names.find(name.steps(), quality)
            && inside.is_empty()
            && let Ok(version) = VersionRef::parse(version)
            // Otherwise a document's key may contain the `@`.
            && (self.catalog.definition_version(&id, &version).is_ok()
                || names.stored_path(&Path::new(steps.to_vec())).is_none())
        {
            return self.expand_defined(alias, table, &id, &version, rest).map(Some);
        }
        match names.find(steps, quality) {
            None => Ok(None),
            Some(ResolvedName::Defined(id, rest)) => self
                .expand_defined(alias, table, &id, &VersionRef::latest(), rest)
                .map(Some),
            Some(ResolvedName::Path(path, kinds)) => {
                if kinds.without(Kinds::NULL).only(Kinds::ELEMENT)
                    && let Some(indexed) = names.indexed_list_path(&path)
                {
                    self.warn(format!(
                        "{path} is inside a list, so it is NULL here; write {indexed}, or unnest the list"
                    ));
                }
                Ok(Some(Value::Path(PathRef { base, path, kinds })))
            }
        }
    }

    /// Resolves a system column. Only `_doc` has paths below it.
    fn resolve_system_column(&mut self, base: Base, source: Column, rest: &[Step]) -> Result<Option<Value>, Problem> {
        let Base::Table { alias, table, .. } = &base else {
            return Ok(None);
        };
        let name = source.name();
        if &*name == "_doc" {
            let document = Value::Path(PathRef {
                base,
                path: Path::default(),
                kinds: Kinds::default(),
            });
            return self.descend(document, rest.to_vec()).map(Some);
        }
        self.add_column(*table, source);
        Ok(rest.is_empty().then(|| Value::Expr(column(alias, &name))))
    }

    /// Expands a field or a parser in a scope of its own documents only.
    fn expand_defined(
        &mut self,
        alias: &str,
        table: usize,
        id: &DefinitionId,
        version: &VersionRef,
        rest: Vec<Step>,
    ) -> Result<Value, Problem> {
        let version = self.used(id, version)?;
        let collection = id
            .collection
            .as_ref()
            .ok_or_else(|| bad(format!("{id} has no collection")))?;
        let kind = InputKind::Documents {
            table,
            names: self.collection_names(collection),
        };
        let text = &version.text;
        if id.kind == DefinitionKind::Parser {
            return self.expand(id, version.number, |resolver| {
                let parser = ParserText::parse(text)?;
                resolver.within(alias, kind, |resolver| resolver.parsed(id, &parser, rest))
            });
        }
        let expression = statement::parse_expression(text, proto::limits::DEFINITION_BYTES_MAX)?;
        let value = self.expand(id, version.number, |resolver| {
            resolver.within(alias, kind, |resolver| resolver.value(&expression))
        })?;
        Ok(if rest.is_empty() {
            parenthesized(value)
        } else {
            self.descend(value, rest)?
        })
    }

    /// Resolves an alias of the select list, where aliases can be used.
    fn select_alias(&mut self, name: &SpelledName) -> Result<Option<Value>, Problem> {
        let ([Step::Key(key)], Some(scope)) = (name.steps.as_slice(), self.scopes.last_mut()) else {
            return Ok(None);
        };
        let aliases = std::mem::take(&mut scope.aliases);
        let item = aliases
            .iter()
            .find(|(alias, _)| **alias == **key)
            .or_else(|| aliases.iter().find(|(alias, _)| alias.eq_ignore_ascii_case(key)));
        // The item is resolved without the aliases, so that it cannot refer to itself.
        let value = match item {
            Some((_, expr)) => {
                let begun = self.resolved();
                let value = self.value(expr);
                value.and_then(|value| self.charge_as_copy(begun).map(|()| Some(value)))
            }
            None => Ok(None),
        };
        if let Some(scope) = self.scopes.last_mut() {
            scope.aliases = aliases;
        }
        value
    }

    /// The kinds of the values at a path, if it leads into stored documents.
    pub(crate) fn kinds_of(&mut self, path: &PathRef) -> Kinds {
        let Some((collection, path)) = path.stored() else {
            return Kinds::default();
        };
        match self.collection_names(&collection).stored_path(&path) {
            Some(ResolvedName::Path(_, kinds)) => kinds,
            _ => Kinds::default(),
        }
    }

    /// Runs `inside` without any scope or WITH query of the statement.
    pub(crate) fn isolated<T>(&mut self, inside: impl FnOnce(&mut Self) -> Result<T, Problem>) -> Result<T, Problem> {
        let (scopes, ctes) = (std::mem::take(&mut self.scopes), std::mem::take(&mut self.ctes));
        let result = inside(self);
        (self.scopes, self.ctes) = (scopes, ctes);
        result
    }
}

fn ambiguous(name: &SpelledName, aliases: &[&str]) -> Problem {
    let path = name.path();
    let qualified: Vec<String> = aliases
        .iter()
        .map(|alias| format!("{}.{path}", Path::default().key(alias)))
        .collect();
    at(
        bad(format!("{path} is ambiguous: {} have it", aliases.join(" and ")))
            .hint(format!("write {}", qualified.join(" or "))),
        name.span,
    )
}

fn system_column(key: &str, quality: MatchQuality) -> Option<Column> {
    match quality {
        MatchQuality::Exact => Column::system(key),
        MatchQuality::Folded => Column::system(&key.to_lowercase()),
    }
}

/// Splits `price@2.x` into a name, what follows the `@`, and the steps into its value.
pub(super) fn split_version(steps: &[Step]) -> Option<(Path, &str, Vec<Step>)> {
    let versioned = |step: &Step| matches!(step, Step::Key(key) if key.rfind('@').is_some_and(|at| at > 0));
    let index = steps.iter().position(versioned)?;
    let Step::Key(key) = &steps[index] else { return None };
    let (name, version) = key.rsplit_once('@')?;
    let field = steps[..index].iter().cloned().chain([Step::Key(name.into())]);
    Some((Path::new(field.collect()), version, steps[index + 1..].to_vec()))
}

/// Puts an expanded expression in parentheses, so that operators around it do not regroup it.
fn parenthesized(value: Value) -> Value {
    match value {
        Value::Expr(expr) => Value::Expr(nested(expr)),
        path => path,
    }
}

// Nested definitions recurse on the stack, whose size is chosen for this limit.
const _: () = assert!(proto::limits::DEFINITION_DEPTH_MAX <= 50);
