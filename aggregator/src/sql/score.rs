//! Resolves `score()`: how well a row fits the search in WHERE.
//!
//! ```text
//!   search_score('the search', lengths, frequencies, value, …)
//!                                 │         └─ SELECT make_array(count(*) FILTER (WHERE a word matches), …) FROM …
//!                                 └─ SELECT make_array(count(tokens), sum(tokens), …) FROM …
//! ```
//!
//! Both subqueries read all rows of the searched collection, view or subquery, so a score does not depend on where a
//! document is. They are separate because leaves cache the first one for each split.
//!
//! A search that is sorted by score asks for these statistics first, `SELECT search_statistics(documents, 'the search')`:
//! a column for each number, because leaves know most of them from their indexes, and one for the search as leaves
//! evaluate it, which then need not be resolved again. Then they are constants, `search_score(documents, 'the search', 'statistics')`, and leaves
//! compute the scores of stored documents: [`Column::score`].

use datafusion::sql::sqlparser::ast::{
    CaseWhen, Expr, Function, Query, Select, SelectItem, SetExpr, TableFactor, TableWithJoins, Value as Literal,
    helpers::attached_token::AttachedToken,
};
use plan::{
    Column, Path,
    functions::score::{SCORE, TOKENS},
    matcher::{DocumentScore, ScoreStatistics, ScoredClause, ScoredSearch, WordStatistics, scored_tokens, token_test},
    search::{Clause, Match, SearchExpr},
};
use proto::{Code, CollectionName, Problem, SourceName, catalog::Source, record::Format};

use super::{
    resolve::{
        Resolver, Value,
        build::{empty_query, empty_select},
        scope::{Input, InputKind},
        value::{Base, PathRef, call, column, literal, number, text},
    },
    search::{parameter_index, search_arguments, unnamed_arguments},
};

/// `search_statistics(input, search)`, an item of a select list: first the [`ScoredSearch`] as JSON, or NULL if leaves
/// cannot compute its scores, then the numbers of [`ScoreStatistics::lengths`] and of [`ScoreStatistics::frequencies`].
pub(crate) const STATISTICS: &str = "search_statistics";
/// The columns of the lengths begin with this.
pub(crate) const LENGTHS: &str = "lengths";

/// Words of a search whose occurrences are counted in each match.
const WORDS_MAX: usize = 100;
/// The product of the weights of nested groups. Sums of scores with it are finite.
const WEIGHT_MAX: f64 = 1e100;

/// What a scored search refers to.
#[derive(Default)]
struct Scored {
    /// The arguments of the call.
    values: Vec<Expr>,
    /// The paths whose lengths are counted: each with the name in the search.
    paths: Vec<(Option<String>, Option<Path>)>,
    /// The tokens whose documents are counted: each with the number of its path.
    tokens: Vec<(usize, String)>,
    /// The words of all clauses.
    words: usize,
    /// Whether leaves compute the score. Then the only value is the document.
    by_leaves: bool,
}

impl Scored {
    /// The numbers of lengths and of frequencies.
    fn statistics_len(&self) -> (usize, usize) {
        (2 * self.paths.len(), self.tokens.len())
    }
}

/// Texts of stored documents: those at a path or, without one, all.
struct StoredTexts {
    alias: String,
    table: usize,
    path: Option<Path>,
}

impl<'c> Resolver<'c> {
    /// `score()` with a search in WHERE, `score('disk full')`, or `score(alias, 'disk full')`.
    pub(super) fn score_call(&mut self, function: &Function) -> Result<Expr, Problem> {
        let wrong = |detail: &str| {
            Problem::new(Code::BadSql, detail)
                .hint("write SELECT score() … WHERE search('disk full'), or score('disk full')")
        };
        let is_empty = unnamed_arguments(function).is_some_and(|arguments| arguments.is_empty());
        let warnings_before = self.warning_count();
        let (input, search) = if is_empty {
            let scored = self.scopes.last().map(|scope| scope.scored.clone()).unwrap_or_default();
            let [(alias, search)] = scored.as_slice() else {
                return Err(match (scored.len(), self.in_filter) {
                    (0, false) => wrong("score finds no search in WHERE"),
                    (0, true) => wrong("score finds no search before it in WHERE"),
                    _ => {
                        wrong("score finds several searches in WHERE").hint("name the one to score: score('disk full')")
                    }
                });
            };
            (self.searched_input(Some(alias))?, search.clone())
        } else {
            let malformed = || wrong("the argument of score must be a search");
            let (alias, query) = search_arguments(function).ok_or_else(malformed)?;
            let query = match parameter_index(query) {
                Some(index) => self.parameter(index).and_then(serde_json::Value::as_str),
                None => super::resolve::value::text_literal(query),
            };
            let search = plan::search::parse(query.ok_or_else(malformed)?, self.now)?;
            search.notes.into_iter().for_each(|note| self.warn(note));
            self.is_relative |= search.is_relative;
            let input = self.searched_input(alias)?;
            // Gives the warnings that the condition in WHERE would give.
            self.search_query(&search.expr, &input)?;
            (input, search.expr)
        };
        let given = match is_empty {
            true => warnings_before,
            false => self.warning_count(),
        };
        let score = self.score_once(search, &input);
        self.forget_warnings(given);
        score
    }

    /// The score of a search. In a SELECT, that of the same search is the same expression, so that it is computed once.
    fn score_once(&mut self, search: SearchExpr, input: &Input<'c>) -> Result<Expr, Problem> {
        let known = self.scopes.last().and_then(|scope| {
            let same = |(alias, known, _): &&(String, SearchExpr, Expr)| *alias == input.alias && *known == search;
            scope.scores.iter().find(same)
        });
        if let Some((.., score)) = known {
            let score = score.clone();
            self.charge_expression(1, &score)?;
            return Ok(score);
        }
        let score = self.score(&search, input)?;
        if let Some(scope) = self.scopes.last_mut() {
            scope.scores.push((input.alias.clone(), search, score.clone()));
        }
        Ok(score)
    }

    /// The search and the input of a call like `search_score(input, 'disk full', …)`.
    fn scored_input(&mut self, function: &Function) -> Result<(SearchExpr, Input<'c>, Option<String>), Problem> {
        let malformed = || {
            Problem::new(
                Code::BadSql,
                "the arguments are an input, a search, and perhaps its statistics",
            )
        };
        let arguments = unnamed_arguments(function).ok_or_else(malformed)?;
        let [Expr::Identifier(alias), query, rest @ ..] = arguments.as_slice() else {
            return Err(malformed());
        };
        let query = super::resolve::value::text_literal(query).ok_or_else(malformed)?;
        let search = plan::search::parse(query, self.now)?;
        self.is_relative |= search.is_relative;
        let statistics = rest.first().and_then(|text| super::resolve::value::text_literal(text));
        let statistics = statistics.map(str::to_owned);
        Ok((search.expr, self.searched_input(Some(&alias.value))?, statistics))
    }

    /// The columns of [`STATISTICS`], with their names. A sum without rows is NULL.
    pub(super) fn statistics_columns(&mut self, function: &Function) -> Result<Vec<(&'static str, Expr)>, Problem> {
        let given = self.warning_count();
        let (search, input, _) = self.scored_input(function)?;
        let mut scored = Scored {
            by_leaves: self.are_scored_by_leaves(&search, &input)?.is_some(),
            ..Scored::default()
        };
        let search = self.scored_search(&search, 1.0, &input, &mut scored)?;
        let resolved = match scored.by_leaves {
            true => {
                let search = serde_json::to_string(&search).map_err(|e| Problem::new(Code::Internal, e.to_string()))?;
                self.charge_text(1, &search)?;
                text(&search)
            }
            false => literal(Literal::Null),
        };
        let mut columns = vec![("search", resolved)];
        for (documents, tokens) in self.lengths(&scored, &input)? {
            columns.extend([(LENGTHS, documents), (LENGTHS, tokens)]);
        }
        let frequencies = self.frequencies(&scored, &input)?.into_iter();
        columns.extend(frequencies.map(|count| ("frequency", count)));
        self.forget_warnings(given);
        Ok(columns)
    }

    /// `search_score` with known statistics.
    pub(super) fn score_by_statistics(&mut self, function: &Function) -> Result<Expr, Problem> {
        let given = self.warning_count();
        let malformed = || {
            Problem::new(Code::BadRequest, format!("the statistics in {SCORE} are malformed"))
                .hint("copy `after` unchanged from the previous page; SQL has score()")
        };
        let (search, input, statistics) = self.scored_input(function)?;
        let statistics: ScoreStatistics = statistics
            .and_then(|text| serde_json::from_str(&text).ok())
            .ok_or_else(malformed)?;
        let stored = self.are_scored_by_leaves(&search, &input)?;
        let mut scored = Scored {
            by_leaves: stored.is_some(),
            ..Scored::default()
        };
        let search = self.scored_search(&search, 1.0, &input, &mut scored)?;
        self.forget_warnings(given);
        // They may come from a cursor, and a cursor from anywhere.
        let (lengths, frequencies) = (&statistics.lengths, &statistics.frequencies);
        let are_counts = lengths.iter().chain(frequencies).all(|count| *count >= 0);
        if !are_counts || (lengths.len(), frequencies.len()) != scored.statistics_len() {
            return Err(malformed());
        }
        if let Some(StoredTexts { alias, table, .. }) = stored {
            let score = DocumentScore { search, statistics };
            let score = serde_json::to_string(&score).map_err(|e| Problem::new(Code::Internal, e.to_string()))?;
            self.charge_text(1, &score)?;
            return Ok(self.table_column(&alias, table, Column::score(score.into())));
        }
        let list = |numbers: &[i64]| match numbers {
            [] => literal(Literal::Null),
            numbers => call("make_array", numbers.iter().map(|n| number(&n.to_string())).collect()),
        };
        let search = serde_json::to_string(&search).map_err(|e| Problem::new(Code::Internal, e.to_string()))?;
        self.charge_text(1, &search)?;
        let arguments = [text(&search), list(&statistics.lengths), list(&statistics.frequencies)];
        Ok(call(SCORE, arguments.into_iter().chain(scored.values).collect()))
    }

    /// Whether all clauses are about stored documents of one table: then its leaves can compute the score.
    fn are_scored_by_leaves(&mut self, search: &SearchExpr, input: &Input<'c>) -> Result<Option<StoredTexts>, Problem> {
        let mut names: Vec<Option<&str>> = Vec::new();
        clause_names(search, &mut names);
        let mut table = match &input.kind {
            InputKind::Documents { table, .. } => Some(StoredTexts {
                alias: input.alias.clone(),
                table: *table,
                path: None,
            }),
            InputKind::Columns(_) => None,
        };
        for name in names {
            let texts = self.stored_texts(name, input)?;
            table = table.filter(|table| texts.is_some_and(|texts| texts.table == table.table));
        }
        Ok(table)
    }

    /// Where a clause with this name looks, if that is in stored documents.
    fn stored_texts(&mut self, name: Option<&str>, input: &Input<'c>) -> Result<Option<StoredTexts>, Problem> {
        Ok(match (&input.kind, name) {
            (InputKind::Documents { table, .. }, None) => Some(StoredTexts {
                alias: input.alias.clone(),
                table: *table,
                path: None,
            }),
            (InputKind::Columns(_), None) => None,
            (_, Some(name)) => match self.resolve_search_path(&input.alias, name)? {
                Value::Path(PathRef {
                    base: Base::Table { alias, table, .. },
                    path,
                    ..
                }) => Some(StoredTexts {
                    alias,
                    table,
                    path: Some(path).filter(|path| !path.steps().is_empty()),
                }),
                _ => None,
            },
        })
    }

    fn table_column(&mut self, alias: &str, table: usize, read: Column) -> Expr {
        let name = read.name();
        self.add_column(table, read);
        column(alias, &name)
    }

    fn score(&mut self, search: &SearchExpr, input: &Input<'c>) -> Result<Expr, Problem> {
        let mut scored = Scored::default();
        let search = self.scored_search(search, 1.0, input, &mut scored)?;
        let search = serde_json::to_string(&search).map_err(|e| Problem::new(Code::Internal, e.to_string()))?;
        self.charge_text(1, &search)?;
        let none = || literal(Literal::Null);
        let (lengths, frequencies) = match scored.tokens.is_empty() {
            true => (none(), none()),
            false => (
                self.statistics(input, |resolver, input| {
                    let lengths = resolver.lengths(&scored, input)?.into_iter();
                    let numbers = |(documents, tokens)| [documents, call("coalesce", vec![tokens, number("0")])];
                    Ok(lengths.flat_map(numbers).collect())
                })?,
                self.statistics(input, |resolver, input| resolver.frequencies(&scored, input))?,
            ),
        };
        let arguments = [text(&search), lengths, frequencies].into_iter().chain(scored.values);
        Ok(call(SCORE, arguments.collect()))
    }

    /// The search with the weights of its groups in its clauses. Adds what it refers to.
    fn scored_search(
        &mut self,
        search: &SearchExpr,
        weight: f64,
        input: &Input<'c>,
        scored: &mut Scored,
    ) -> Result<ScoredSearch, Problem> {
        self.count_expression()?;
        let mut parts = |parts: &[SearchExpr]| {
            let parts = parts.iter().map(|part| self.scored_search(part, weight, input, scored));
            parts.collect::<Result<Vec<_>, _>>()
        };
        Ok(match search {
            SearchExpr::All => ScoredSearch::All(weight),
            SearchExpr::And(all) => ScoredSearch::And(parts(all)?),
            SearchExpr::Or(any) => ScoredSearch::Or(parts(any)?),
            SearchExpr::Not(part) => ScoredSearch::Not(Box::new(self.scored_search(part, weight, input, scored)?)),
            SearchExpr::Weighted(part, factor) => {
                let weight = (weight * factor).min(WEIGHT_MAX);
                self.scored_search(part, weight, input, scored)?
            }
            SearchExpr::Clause { name, matches } => {
                ScoredSearch::Clause(self.scored_clause(name.as_deref(), matches, weight, input, scored)?)
            }
        })
    }

    fn scored_clause(
        &mut self,
        name: Option<&str>,
        test: &Match,
        weight: f64,
        input: &Input<'c>,
        scored: &mut Scored,
    ) -> Result<ScoredClause, Problem> {
        let (values, path) = match scored.by_leaves {
            true => (vec![0], self.stored_texts(name, input)?.and_then(|texts| texts.path)),
            false => {
                let (values, path) = self.scored_values(name, input)?;
                let values = values.into_iter().map(|value| index_in(&mut scored.values, value));
                (values.collect(), path)
            }
        };
        let words = scored_tokens(test).map(|tokens| {
            let path = index_in(&mut scored.paths, (name.map(str::to_owned), path.clone()));
            scored.words += tokens.len();
            let tokens = tokens
                .into_iter()
                .map(|token| index_in(&mut scored.tokens, (path, token)));
            WordStatistics {
                path,
                tokens: tokens.collect(),
            }
        });
        if scored.words > WORDS_MAX {
            let detail = format!("the search has more than {WORDS_MAX} words, which is the limit for scores");
            return Err(Problem::new(Code::TooComplex, detail).hint("sort by _time, or search for fewer words"));
        }
        let matches = test.clone();
        Ok(ScoredClause {
            clause: Clause { path, matches },
            values,
            weight,
            words,
        })
    }

    /// The whole document of a row: one value or, if the collection has sources of plain text, another for these. A line
    /// of plain text may look like JSON.
    fn document(&mut self, alias: &str, table: usize, collection: &CollectionName) -> Result<Vec<Expr>, Problem> {
        let document = self.system_column(alias, table, "_doc")?;
        let of_text = |(name, source): (&SourceName, &Source)| {
            let settings = &source.settings;
            (settings.collection == *collection && settings.rules.format == Format::Text).then(|| text(name.as_str()))
        };
        let text_sources: Vec<Expr> = self.catalog.sources.iter().filter_map(of_text).collect();
        if text_sources.is_empty() {
            return Ok(vec![document]);
        }
        let source = self.system_column(alias, table, "_source")?;
        let where_source = |negated, result| Expr::Case {
            case_token: AttachedToken::empty(),
            end_token: AttachedToken::empty(),
            operand: None,
            conditions: vec![CaseWhen {
                condition: Expr::InList {
                    expr: Box::new(source.clone()),
                    list: text_sources.clone(),
                    negated,
                },
                result,
            }],
            else_result: None,
        };
        let of_text = call("to_json", vec![document.clone()]);
        Ok(vec![where_source(true, document), where_source(false, of_text)])
    }

    fn system_column(&mut self, alias: &str, table: usize, name: &str) -> Result<Expr, Problem> {
        let missing = || Problem::new(Code::Internal, format!("documents have no column {name}"));
        let system = Column::system(name).ok_or_else(missing)?;
        Ok(self.table_column(alias, table, system))
    }

    /// The values of an input in which a clause with this name looks for something, and the path in them.
    fn scored_values(&mut self, name: Option<&str>, input: &Input<'c>) -> Result<(Vec<Expr>, Option<Path>), Problem> {
        let json = |value| vec![call("to_json", vec![value])];
        match (&input.kind, name) {
            (InputKind::Documents { table, names }, None) => {
                Ok((self.document(&input.alias, *table, &names.collection)?, None))
            }
            (InputKind::Columns(columns), None) => {
                self.charge_text(columns.len(), "")?;
                let value = |output: &super::resolve::scope::OutputColumn| {
                    let value = output
                        .expr
                        .clone()
                        .unwrap_or_else(|| column(&input.alias, &output.name));
                    call("to_json", vec![value])
                };
                Ok((columns.iter().map(value).collect(), None))
            }
            (_, Some(name)) => match self.resolve_search_path(&input.alias, name)? {
                Value::Path(PathRef {
                    base:
                        Base::Table {
                            alias,
                            table,
                            collection,
                        },
                    path,
                    ..
                }) => {
                    let path = Some(path).filter(|path| !path.steps().is_empty());
                    Ok((self.document(&alias, table, &collection)?, path))
                }
                Value::Path(PathRef {
                    base: Base::Computed { expr, .. },
                    path,
                    ..
                }) => Ok((json(*expr), Some(path))),
                value => Ok((json(self.lower(value)), Some(Path::default()))),
            },
        }
    }

    /// The statistics of all rows of an input: a subquery that returns a list.
    fn statistics(
        &mut self,
        input: &Input<'c>,
        numbers: impl FnOnce(&mut Self, &Input<'c>) -> Result<Vec<Expr>, Problem>,
    ) -> Result<Expr, Problem> {
        let Some(relation) = &input.relation else {
            return Err(Problem::new(
                Code::NotSupported,
                format!("the rows of {} cannot be scored", input.alias),
            )
            .hint("search a collection, a view, a WITH query or a subquery in FROM"));
        };
        let relation = TableFactor::clone(relation);
        let begun = self.resolved();
        let in_filter = std::mem::replace(&mut self.in_filter, false);
        // In its own FROM, the relation has been resolved without this scope.
        let scope = self.scopes.pop();
        let scopes = self.scopes.len();
        let resolved = self.within_subquery(|resolver| {
            let joins = Vec::new();
            let from = resolver.from(&[TableWithJoins { relation, joins }])?;
            let inputs = resolver
                .scopes
                .last()
                .map(|scope| scope.inputs.clone())
                .unwrap_or_default();
            let input = inputs
                .first()
                .ok_or_else(|| Problem::new(Code::Internal, "a scored input has no rows"))?;
            Ok((from, numbers(resolver, input)?))
        });
        self.scopes.truncate(scopes);
        self.scopes.extend(scope);
        self.in_filter = in_filter;
        let (from, numbers) = resolved?;
        self.charge_as_copy(begun)?;
        let select = Select {
            projection: vec![SelectItem::UnnamedExpr(call("make_array", numbers))],
            from,
            ..empty_select()
        };
        Ok(Expr::Subquery(Box::new(Query {
            body: Box::new(SetExpr::Select(Box::new(select))),
            ..empty_query()
        })))
    }

    /// For each path, the number of rows with texts there, and the number of tokens in them.
    fn lengths(&mut self, scored: &Scored, input: &Input<'c>) -> Result<Vec<(Expr, Expr)>, Problem> {
        let mut numbers = Vec::with_capacity(scored.paths.len());
        for (name, _) in &scored.paths {
            let tokens = match self.stored_texts(name.as_deref(), input)? {
                Some(StoredTexts { alias, table, path }) => self.table_column(&alias, table, Column::tokens(path)),
                None => {
                    let (values, path) = self.scored_values(name.as_deref(), input)?;
                    let path = serde_json::to_string(&path).map_err(|e| Problem::new(Code::Internal, e.to_string()))?;
                    call(TOKENS, std::iter::once(text(&path)).chain(values).collect())
                }
            };
            let sum = call("sum", vec![tokens.clone()]);
            numbers.push((call("count", vec![tokens]), sum));
        }
        Ok(numbers)
    }

    /// For each token, the number of rows that have it.
    fn frequencies(&mut self, scored: &Scored, input: &Input<'c>) -> Result<Vec<Expr>, Problem> {
        let mut numbers = Vec::with_capacity(scored.tokens.len());
        for (path, token) in &scored.tokens {
            let (name, _) = &scored.paths[*path];
            let condition = self.search_clause(name.as_deref(), &token_test(token), input)?;
            let Expr::Function(mut count) = call("count", vec![number("1")]) else {
                continue;
            };
            count.filter = Some(Box::new(condition));
            numbers.push(Expr::Function(count));
        }
        Ok(numbers)
    }
}

/// The names of the clauses of a search, in order.
fn clause_names<'s>(search: &'s SearchExpr, names: &mut Vec<Option<&'s str>>) {
    match search {
        SearchExpr::All => {}
        SearchExpr::And(parts) | SearchExpr::Or(parts) => parts.iter().for_each(|part| clause_names(part, names)),
        SearchExpr::Not(part) | SearchExpr::Weighted(part, _) => clause_names(part, names),
        SearchExpr::Clause { name, .. } => names.push(name.as_deref()),
    }
}

/// The place of an item in a list; a new item is appended.
fn index_in<T: PartialEq>(items: &mut Vec<T>, item: T) -> usize {
    items.iter().position(|known| *known == item).unwrap_or_else(|| {
        items.push(item);
        items.len() - 1
    })
}
