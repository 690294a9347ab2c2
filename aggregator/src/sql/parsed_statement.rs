//! Parsed statements, and the texts in them.

use std::ops::Range;

use datafusion::sql::sqlparser::{ast, tokenizer::Location};
use proto::catalog::DefinitionId;

/// A statement of any kind.
#[derive(Debug, Clone)]
pub(crate) enum Statement {
    /// SELECT, WITH, VALUES.
    Query(Box<ast::Query>),
    /// EXPLAIN [ANALYZE] of a query.
    Explain {
        /// The query to explain.
        query: Box<ast::Query>,
        /// Whether the query is also run.
        analyze: bool,
    },
    /// CREATE [OR REPLACE] FIELD | VIEW.
    Define {
        /// The field or view.
        id: DefinitionId,
        /// The expression or query, verbatim.
        text: String,
        /// Where the text begins in the statement: line and column, both from 1.
        at: (u64, u64),
        /// OR REPLACE.
        replace: bool,
    },
    /// DROP FIELD | VIEW [IF EXISTS].
    Undefine {
        /// The field or view.
        id: DefinitionId,
        if_exists: bool,
    },
    /// SHOW DEFINITIONS.
    ShowDefinitions,
    /// SHOW TABLES.
    ShowTables,
    /// DESCRIBE name.
    Describe {
        /// A collection, a view or a system table.
        name: String,
    },
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
