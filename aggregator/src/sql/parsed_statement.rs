//! Parsed statements, and the texts in them.

use std::ops::Range;

use datafusion::sql::sqlparser::{ast, tokenizer::Location};
use proto::{
    Code, CollectionName, Problem,
    catalog::{DefinitionId, DefinitionKind, VersionRef},
};
use serde_json::Value;

/// What a SUMMARIZE is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Summarized {
    /// The table, or the query in parentheses, as an item of FROM.
    pub relation: String,
    /// The table, if it may be a collection.
    pub collection: Option<CollectionName>,
}

/// What an EXPLAIN shows.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct ExplainOptions {
    /// Whether the query is also run.
    pub analyze: bool,
    /// Whether to show DataFusion's plans.
    pub verbose: bool,
}

/// A statement of any kind.
#[derive(Debug, Clone)]
pub(crate) enum Statement {
    /// SELECT, WITH, VALUES.
    Query(Box<ast::Query>),
    /// SUMMARIZE of a table or a query.
    Summarize(Summarized),
    /// EXPLAIN of a query.
    Explain {
        /// The query to explain.
        query: Box<ast::Query>,
        /// What to show.
        options: ExplainOptions,
    },
    /// CREATE, ALTER, REVERT and DROP of a definition.
    ChangeDefinition(DefinitionChange),
    /// CALL of a saved query.
    Call {
        /// The saved query.
        id: DefinitionId,
        /// Which version of it.
        version: VersionRef,
        /// The values of its parameters.
        arguments: Arguments,
    },
    /// DELETE of the documents that meet a condition.
    Delete(Box<DocumentDelete>),
    /// DIFF of two versions of a definition.
    Diff(Box<DefinitionDiff>),
    /// TRY of a CREATE: what a definition would find in some documents.
    Try {
        /// The definition, which is not stored.
        new: NewDefinition,
        /// The number of documents.
        limit: usize,
    },
    /// SHOW DEFINITIONS.
    ShowDefinitions(Option<DefinitionKind>),
    /// SHOW VERSIONS OF.
    ShowVersions(DefinitionId),
    /// SHOW ERRORS OF.
    ShowErrors {
        /// A field or a parser.
        id: DefinitionId,
        /// Which version of it.
        version: VersionRef,
    },
    /// SHOW DEPENDENTS OF.
    ShowDependents(DefinitionId),
    /// SHOW CREATE.
    ShowCreate {
        /// The definition.
        id: DefinitionId,
        /// Which version of it.
        version: VersionRef,
    },
    /// SHOW TABLES.
    ShowTables,
    /// SHOW FUNCTIONS.
    ShowFunctions {
        /// The pattern of LIKE that their names match, in lower case.
        pattern: Option<String>,
    },
    /// DESCRIBE name.
    Describe {
        /// A collection, a view or a system table.
        name: String,
    },
}

/// What a DELETE statement deletes.
#[derive(Debug, Clone)]
pub(crate) struct DocumentDelete {
    /// The collection.
    pub collection: CollectionName,
    /// The name that the condition has for the collection, if it is another one.
    pub alias: Option<String>,
    /// WHERE: which documents.
    pub condition: ast::Expr,
    /// The condition as it was written, with `?` for its values: they may be what must be forgotten.
    pub text: String,
}

/// What a DIFF statement compares.
#[derive(Debug, Clone)]
pub(crate) struct DefinitionDiff {
    /// A field or a parser.
    pub id: DefinitionId,
    /// The version before.
    pub from: VersionRef,
    /// The version after.
    pub to: VersionRef,
    /// WHERE: the documents that are compared.
    pub condition: Option<ast::Expr>,
    /// SAMPLE: percent of the documents.
    pub sample: Option<f64>,
}

/// A change of a definition.
#[derive(Debug, Clone)]
pub(crate) enum DefinitionChange {
    /// CREATE [OR REPLACE].
    Define(NewDefinition),
    /// ALTER … SET TAG, ALTER … DROP TAG and REVERT.
    MoveTag {
        /// The definition.
        id: DefinitionId,
        /// The tag.
        tag: String,
        /// Where it goes.
        to: TagTarget,
        /// Only if this version has the tag.
        from: Option<u32>,
    },
    /// ALTER … RENAME TO.
    Rename {
        /// The definition.
        id: DefinitionId,
        /// Its new name; for a field, a path in SQL spelling.
        to: String,
    },
    /// DROP [IF EXISTS].
    Drop {
        /// The definition.
        id: DefinitionId,
        /// IF EXISTS.
        if_exists: bool,
    },
}

impl DefinitionChange {
    /// The definition that is changed.
    pub(crate) fn id(&self) -> &DefinitionId {
        match self {
            Self::Define(NewDefinition { id, .. })
            | Self::MoveTag { id, .. }
            | Self::Rename { id, .. }
            | Self::Drop { id, .. } => id,
        }
    }
}

/// What a CREATE statement defines.
#[derive(Debug, Clone)]
pub(crate) struct NewDefinition {
    /// The definition.
    pub id: DefinitionId,
    /// Its text, verbatim: of a field the expression, of a view the query, of other kinds everything after the name.
    pub text: String,
    /// Where the text begins in the statement, or in the file with the statement: line and column, both from 1.
    pub at: (u64, u64),
    /// OR REPLACE.
    pub replace: bool,
    /// COMMENT.
    pub note: Option<String>,
    /// The number after the `@` of the name.
    pub number: Option<u32>,
}

/// The place in a whole text of a place in a part that begins at `start`: line and column, both from 1. Without a place in
/// the part, its beginning.
pub(crate) fn place_within(start: (u64, u64), part: Option<(u64, u64)>) -> (u64, u64) {
    match (start, part) {
        (start, None) => start,
        ((line, column), Some((1, part_column))) => (line, column + part_column - 1),
        ((line, _), Some((part_line, part_column))) => (line + part_line - 1, part_column),
    }
}

/// The arguments of a call, in order.
#[derive(Debug, Clone, Default)]
pub(crate) struct Arguments(pub Vec<Argument>);

/// An argument of a call.
#[derive(Debug, Clone)]
pub(crate) struct Argument {
    /// The name of the parameter; without it, the next one is meant.
    pub name: Option<String>,
    /// Its value.
    pub value: ArgumentValue,
}

/// The value of an argument.
#[derive(Debug, Clone)]
pub(crate) enum ArgumentValue {
    /// A literal.
    Literal(Value),
    /// The value of `$1`, …: a number from 1 on.
    Parameter(usize),
}

impl Arguments {
    /// The values, given those of `$1`, `$2`, …
    pub(crate) fn values(self, parameters: &[Value]) -> Result<Vec<(Option<String>, Value)>, Problem> {
        let value = |argument: Argument| match argument.value {
            ArgumentValue::Literal(value) => Ok((argument.name, value)),
            ArgumentValue::Parameter(number) => match parameters.get(number.wrapping_sub(1)) {
                Some(value) => Ok((argument.name, value.clone())),
                None => Err(Problem::new(Code::BadSql, format!("parameter ${number} has no value"))
                    .hint(given_parameters(parameters.len()))),
            },
        };
        self.0.into_iter().map(value).collect()
    }
}

/// How many parameters were given, as a sentence.
pub(super) fn given_parameters(count: usize) -> String {
    match count {
        0 => "no parameters were given".to_owned(),
        1 => "1 parameter was given".to_owned(),
        several => format!("{several} parameters were given"),
    }
}

/// Where a tag goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum TagTarget {
    /// To this version.
    Version(VersionRef),
    /// To the version before the one that has it.
    Back,
    /// To none: it is removed.
    Nowhere,
}

/// A quoted text of a statement, or the place of a parameter.
pub(crate) struct StatementText {
    /// Where it is in the statement, in bytes.
    pub span: Range<usize>,
    /// Where it begins, as the parser counts.
    pub start: Location,
    /// `$1`, …; none for a quoted text.
    pub parameter: Option<String>,
    /// The text without quotes; empty for a parameter.
    pub text: String,
    /// Whether it is the right operand of `=` or `<>`, or in a list after IN.
    pub is_compared: bool,
}
