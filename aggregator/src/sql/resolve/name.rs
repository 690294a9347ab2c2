//! Scopes, and what a name means in them: inner ones first; in each, as written before regardless of case.

use std::rc::Rc;

use datafusion::sql::sqlparser::{
    ast::{self, Expr, Ident},
    tokenizer::Span,
};
use plan::{Column, Kinds, Path, path::Step};
use proto::{Problem, catalog::DefinitionId};

use super::{
    EXPANSIONS_MAX, Resolver, at, bad,
    expression::nested,
    value::{Base, PathRef, Stored, Value, column, literal},
};
use crate::sql::{
    names::{Fit, Found, Names, nearest},
    statement,
};

/// A FROM clause and what else names mean beside it.
#[derive(Debug, Default, Clone)]
pub struct Scope {
    /// Its inputs.
    pub inputs: Vec<Input>,
    /// Columns that joins have merged, with what they mean unqualified.
    pub merged: Vec<Merged>,
    /// The select list's aliases, where they may be used.
    pub aliases: Vec<(String, Expr)>,
    /// Whether names outside of it are out of sight.
    pub closed: bool,
    /// Lists that rows are multiplied by.
    pub unnested: Vec<Unnested>,
}

/// `unnest(list)` in FROM: the input that has the list gets a column of its elements, and a row for each.
#[derive(Debug, Clone)]
pub struct Unnested {
    /// The input's alias.
    pub input: String,
    /// The list.
    pub list: Expr,
    /// The column of the elements.
    pub column: String,
}

/// A column named in USING.
#[derive(Debug, Clone)]
pub struct Merged {
    /// Its name.
    pub name: String,
    /// Aliases of the inputs that have it.
    pub inputs: Vec<String>,
    /// What it means.
    pub value: Value,
}

/// An input of a FROM clause.
#[derive(Debug, Clone)]
pub struct Input {
    /// What the statement calls it.
    pub alias: String,
    /// What it is.
    pub rows: Rows,
}

/// What an input's rows are.
#[derive(Debug, Clone)]
pub enum Rows {
    /// Documents.
    Documents {
        /// The index in `tables`.
        table: usize,
        /// Their names.
        names: Rc<Names>,
    },
    /// Rows of fixed columns.
    Columns(Vec<OutColumn>),
}

/// A column of a query's result.
#[derive(Debug, Clone, PartialEq)]
pub struct OutColumn {
    /// Its name.
    pub name: String,
    /// The path it was taken from, for the kinds below it.
    pub origin: Option<Stored>,
    /// How it is spelled, if not as a column of the input's alias.
    pub expr: Option<Expr>,
}

impl OutColumn {
    /// A column.
    pub fn new(name: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            origin: None,
            expr: None,
        }
    }
}

/// A name as the statement spells it.
pub struct Spelled {
    /// The steps.
    pub steps: Vec<Step>,
    /// Where it stands.
    pub span: Span,
}

impl Spelled {
    fn first(&self) -> Option<&str> {
        match self.steps.first() {
            Some(Step::Key(key)) => Some(key),
            _ => None,
        }
    }

    fn path(&self) -> Path {
        Path::new(self.steps.clone())
    }
}

impl Resolver<'_> {
    /// What a name means.
    pub fn name(&mut self, name: &Spelled) -> Result<Value, Problem> {
        for depth in (0..self.scopes.len()).rev() {
            if let Some(value) = self.name_in(depth, name)? {
                self.reached = self.reached.min(depth);
                return Ok(value);
            }
            if self.scopes[depth].closed {
                break;
            }
        }
        if let Some(value) = self.alias_of_item(name)? {
            return Ok(value);
        }
        self.unseen(name)
    }

    /// What a name means in one scope: an input's alias and what follows, or a name of one of its inputs.
    fn name_in(&mut self, depth: usize, name: &Spelled) -> Result<Option<Value>, Problem> {
        let qualified = self.input_called(depth, name);
        if let Some((input, rest)) = &qualified {
            for fit in [Fit::Exact, Fit::Folded] {
                if let Some(value) = self.name_of(input, rest, fit)? {
                    return Ok(Some(value));
                }
            }
        }
        for fit in [Fit::Exact, Fit::Folded] {
            if let Some(merged) = self.merged(depth, name, fit) {
                return Ok(Some(merged));
            }
            let inputs = self.scopes[depth].inputs.clone();
            let mut found = Vec::new();
            for input in &inputs {
                if let Some(value) = self.name_of(input, &name.steps, fit)? {
                    found.push((input.alias.clone(), value));
                }
            }
            if found.len() > 1 {
                let path = name.path();
                let ways: Vec<String> = found
                    .iter()
                    .map(|(alias, _)| format!("{}.{path}", Path::default().key(alias)))
                    .collect();
                let inputs: Vec<&str> = found.iter().map(|(alias, _)| alias.as_str()).collect();
                return Err(at(
                    bad(format!("{path} is ambiguous: {} have it", inputs.join(" and ")))
                        .hint(format!("write {}", ways.join(" or "))),
                    name.span,
                ));
            }
            if let Some((_, value)) = found.pop() {
                return Ok(Some(value));
            }
        }
        // Behind an alias nothing else can be meant.
        match qualified {
            Some((input, rest)) => self.unseen_of(&input, &rest, name.span).map(Some),
            None => Ok(None),
        }
    }

    /// The input that a name begins with, and the rest of it.
    fn input_called(&self, depth: usize, name: &Spelled) -> Option<(Input, Vec<Step>)> {
        let keys: Vec<&str> = name
            .steps
            .iter()
            .map_while(|step| if let Step::Key(key) = step { Some(&**key) } else { None })
            .collect();
        let inputs = &self.scopes[depth].inputs;
        let called = |alias: &str| {
            inputs
                .iter()
                .find(|i| i.alias == alias)
                .or_else(|| inputs.iter().find(|i| i.alias.eq_ignore_ascii_case(alias)))
        };
        // `rachis.sources.state`: the schema may stand before a table that has no other alias.
        if keys.len() > 2
            && ["rachis", "information_schema"].contains(&keys[0].to_ascii_lowercase().as_str())
            && let Some(input) = called(keys[1])
        {
            return Some((input.clone(), name.steps[2..].to_vec()));
        }
        if keys.is_empty() || name.steps.len() < 2 {
            return None;
        }
        called(keys[0]).map(|input| (input.clone(), name.steps[1..].to_vec()))
    }

    fn merged(&mut self, depth: usize, name: &Spelled, fit: Fit) -> Option<Value> {
        let path = name.path().to_string();
        let same = |m: &&Merged| {
            if fit == Fit::Exact {
                m.name == path
            } else {
                m.name.eq_ignore_ascii_case(&path)
            }
        };
        self.scopes[depth].merged.iter().find(same).map(|m| m.value.clone())
    }

    /// What a name means in one input.
    fn name_of(&mut self, input: &Input, steps: &[Step], fit: Fit) -> Result<Option<Value>, Problem> {
        match &input.rows {
            Rows::Documents { table, names } => {
                self.name_in_documents(&input.alias, *table, &Rc::clone(names), steps, fit)
            }
            Rows::Columns(columns) => Ok(self.name_in_columns(&input.alias, columns, steps, fit)),
        }
    }

    pub fn name_in_columns(&mut self, alias: &str, columns: &[OutColumn], steps: &[Step], fit: Fit) -> Option<Value> {
        let (Step::Key(key), rest) = steps.split_first()? else {
            return None;
        };
        let same = |c: &&OutColumn| {
            if fit == Fit::Exact {
                *c.name == **key
            } else {
                c.name.eq_ignore_ascii_case(key)
            }
        };
        let found = columns.iter().find(same)?;
        let expr = found.expr.clone().unwrap_or_else(|| column(alias, &found.name));
        let base = Base::Computed {
            expr: Box::new(expr),
            shows: found.origin.clone(),
        };
        let mut path = PathRef {
            base,
            path: Path::new(rest.to_vec()),
            kinds: Kinds::default(),
        };
        path.kinds = self.kinds_of(&path);
        Some(Value::Path(path))
    }

    fn name_in_documents(
        &mut self,
        alias: &str,
        table: usize,
        names: &Names,
        steps: &[Step],
        fit: Fit,
    ) -> Result<Option<Value>, Problem> {
        let base = Base::Table {
            alias: alias.to_owned(),
            table,
            collection: names.collection.clone(),
        };
        if let [Step::Key(key), rest @ ..] = steps
            && let Some(always) = Column::always(
                if fit == Fit::Exact {
                    key.to_string()
                } else {
                    key.to_lowercase()
                }
                .as_str(),
            )
        {
            if &*always.name() == "_doc" {
                let document = Value::Path(PathRef {
                    base,
                    path: Path::default(),
                    kinds: Kinds::default(),
                });
                return Ok(Some(if rest.is_empty() {
                    document
                } else {
                    self.step(document, rest.to_vec())
                }));
            }
            let name = always.name();
            self.read(table, always);
            let value = Value::Expr(column(alias, &name));
            return if rest.is_empty() { Ok(Some(value)) } else { Ok(None) };
        }
        if let Some((field, version)) = versioned(steps)
            && matches!(names.find(field.steps(), fit), Some(Found::Field(..)))
        {
            return self.field(alias, table, names, &field, Some(version), vec![]).map(Some);
        }
        match names.find(steps, fit) {
            None => Ok(None),
            Some(Found::Field(field, rest)) => self.field(alias, table, names, &field, None, rest).map(Some),
            Some(Found::Path(path, kinds)) => {
                if kinds.without(Kinds::NULL).only(Kinds::ELEMENT)
                    && let Some(way) = names.through_list(&path)
                {
                    self.warn(format!(
                        "{path} lies inside of a list, so it is NULL here; write {way}, or unnest the list"
                    ));
                }
                Ok(Some(Value::Path(PathRef { base, path, kinds })))
            }
        }
    }

    /// Expands a field in the scope of its own documents.
    fn field(
        &mut self,
        alias: &str,
        table: usize,
        names: &Names,
        field: &Path,
        version: Option<u32>,
        rest: Vec<Step>,
    ) -> Result<Value, Problem> {
        let id = DefinitionId::field(names.collection.clone(), &field.to_string());
        let catalog = self.catalog;
        let definition = catalog
            .definitions
            .get(&id)
            .ok_or_else(|| bad(format!("there is no {id}")))?;
        let text = match version {
            None => &definition.current().text,
            Some(number) => {
                let numbers: Vec<String> = definition.versions.iter().map(|v| v.number.to_string()).collect();
                let found = definition.version(number);
                &found
                    .ok_or_else(|| {
                        bad(format!("{id} has no version {number}")).hint(format!("it has {}", numbers.join(", ")))
                    })?
                    .text
            }
        };
        let expression = statement::parse_expression(text, proto::limits::DEFINITION_BYTES_MAX)?;
        let input = Input {
            alias: alias.to_owned(),
            rows: Rows::Documents {
                table,
                names: self.names(&names.collection),
            },
        };
        let value = self.expand(&id, |resolver| {
            resolver.scopes.push(Scope {
                inputs: vec![input],
                closed: true,
                ..Scope::default()
            });
            let value = resolver.value(&expression);
            resolver.scopes.pop();
            value
        })?;
        Ok(if rest.is_empty() {
            parenthesised(value)
        } else {
            self.step(value, rest)
        })
    }

    /// The select list's item of this name, where aliases may be used.
    fn alias_of_item(&mut self, name: &Spelled) -> Result<Option<Value>, Problem> {
        let ([Step::Key(key)], Some(scope)) = (name.steps.as_slice(), self.scopes.last_mut()) else {
            return Ok(None);
        };
        let aliases = std::mem::take(&mut scope.aliases);
        let item = aliases
            .iter()
            .find(|(alias, _)| **alias == **key)
            .or_else(|| aliases.iter().find(|(alias, _)| alias.eq_ignore_ascii_case(key)));
        // The item is resolved without the aliases: it cannot mean itself.
        let value = match item {
            Some((_, expr)) => self.value(expr).map(Some),
            None => Ok(None),
        };
        if let Some(scope) = self.scopes.last_mut() {
            scope.aliases = aliases;
        }
        value
    }

    /// A name that nothing answers to: NULL with a warning where there are documents, an error where columns are fixed.
    fn unseen(&mut self, name: &Spelled) -> Result<Value, Problem> {
        let Some(scope) = self.scopes.last() else {
            return Err(at(bad(format!("{} is not known here", name.path())), name.span));
        };
        let documents: Vec<Input> = scope
            .inputs
            .iter()
            .filter(|input| matches!(input.rows, Rows::Documents { .. }))
            .cloned()
            .collect();
        match documents.as_slice() {
            [] => {
                let mut names: Vec<String> = Vec::new();
                for input in &scope.inputs {
                    if let Rows::Columns(columns) = &input.rows {
                        names.extend(columns.iter().map(|c| c.name.clone()));
                    }
                }
                Err(at(unknown_column(name, &names), name.span))
            }
            [one] => self.unseen_of(&one.clone(), &name.steps, name.span),
            many => {
                if let Some(over) = many
                    .iter()
                    .find(|i| matches!(&i.rows, Rows::Documents { names, .. } if names.overflow()))
                {
                    return self.unseen_of(&over.clone(), &name.steps, name.span);
                }
                let path = name.path();
                let near = many.iter().find_map(|i| match &i.rows {
                    Rows::Documents { names, .. } => names.suggest(&path).map(|near| format!("{}.{near}", i.alias)),
                    Rows::Columns(_) => None,
                });
                let inputs: Vec<&str> = many.iter().map(|i| i.alias.as_str()).collect();
                self.warn(format!(
                    "no document of {} has {path}, so it is NULL{}",
                    inputs.join(" or "),
                    meant(near)
                ));
                Ok(Value::Expr(literal(ast::Value::Null)))
            }
        }
    }

    fn unseen_of(&mut self, input: &Input, steps: &[Step], span: Span) -> Result<Value, Problem> {
        let path = Path::new(steps.to_vec());
        match &input.rows {
            Rows::Columns(columns) => {
                let names: Vec<String> = columns.iter().map(|c| c.name.clone()).collect();
                Err(at(
                    unknown_column(
                        &Spelled {
                            steps: steps.to_vec(),
                            span,
                        },
                        &names,
                    ),
                    span,
                ))
            }
            Rows::Documents { table, names } => {
                if !names.overflow() {
                    self.warn(format!(
                        "no document of {} has {path}, so it is NULL{}",
                        names.collection,
                        meant(names.suggest(&path))
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

    /// The kinds at a path, for a step further.
    pub fn kinds_of(&mut self, path: &PathRef) -> Kinds {
        let Some((collection, path)) = path.stored() else {
            return Kinds::default();
        };
        match self.names(&collection).stored(&path) {
            Some(Found::Path(_, kinds)) => kinds,
            _ => Kinds::default(),
        }
    }

    /// All scopes and WITH queries out of sight.
    pub fn closed<T>(&mut self, inside: impl FnOnce(&mut Self) -> Result<T, Problem>) -> Result<T, Problem> {
        let (scopes, with) = (std::mem::take(&mut self.scopes), std::mem::take(&mut self.with));
        let result = inside(self);
        (self.scopes, self.with) = (scopes, with);
        result
    }
}

/// `price@2`: a field and a number of a version.
fn versioned(steps: &[Step]) -> Option<(Path, u32)> {
    let (Step::Key(last), before) = steps.split_last()? else {
        return None;
    };
    let (name, number) = last.rsplit_once('@').filter(|(name, _)| !name.is_empty())?;
    let path = Path::new(before.iter().cloned().chain([Step::Key(name.into())]).collect());
    Some((path, number.parse().ok()?))
}

/// An expansion keeps its meaning among operators around it.
fn parenthesised(value: Value) -> Value {
    match value {
        Value::Expr(expr) => Value::Expr(nested(expr)),
        path => path,
    }
}

fn meant(name: Option<String>) -> String {
    name.map_or(String::new(), |name| format!("; perhaps {name} was meant"))
}

fn unknown_column(name: &Spelled, columns: &[String]) -> Problem {
    let path = name.path();
    let problem = bad(format!("there is no column {path}"));
    match nearest(name.first().unwrap_or_default(), columns.iter().map(String::as_str)) {
        Some(near) => problem.hint(format!("perhaps {near} was meant")),
        None if columns.is_empty() => problem,
        None => problem.hint(format!(
            "there are {}",
            columns.iter().take(20).cloned().collect::<Vec<_>>().join(", ")
        )),
    }
}

/// The steps of identifiers.
pub fn steps(idents: &[Ident]) -> Vec<Step> {
    idents
        .iter()
        .map(|ident| Step::Key(ident.value.as_str().into()))
        .collect()
}

// A definition in a definition recurses on the stack that the limit is made for.
const _: () = assert!(EXPANSIONS_MAX <= 50);
