//! The dialect of statements: PostgreSQL's, and what people know from other systems and PostgreSQL has no other meaning
//! for.

use std::{any::TypeId, cell::Cell};

use datafusion::sql::sqlparser::{
    ast::Expr,
    dialect::{Dialect, PostgreSqlDialect, Precedence},
    keywords::Keyword,
    parser::{Parser, ParserError},
};

/// Expressions that the parser may begin to read for each token. Where a text can mean two things, it tries one and then
/// the other; nested, each level doubles its work.
const EXPRESSIONS_PER_TOKEN_MAX: usize = 16;

/// PostgreSQL's dialect with additions.
#[derive(Debug)]
pub(super) struct RachisDialect {
    /// The expressions that the parser may still begin to read.
    expressions_left: Cell<usize>,
}

impl RachisDialect {
    /// The dialect for the parser of one statement.
    pub(super) fn for_tokens(count: usize) -> Self {
        Self {
            expressions_left: Cell::new((count + 1).saturating_mul(EXPRESSIONS_PER_TOKEN_MAX)),
        }
    }

    /// The dialect for splitting a text into tokens.
    pub(super) fn for_tokenizer() -> Self {
        Self::for_tokens(0)
    }
}

macro_rules! as_postgres {
    ($(fn $name:ident(&self $(, $argument:ident: $type:ty)*) -> $result:ty;)*) => {
        $(fn $name(&self $(, $argument: $type)*) -> $result {
            PostgreSqlDialect {}.$name($($argument),*)
        })*
    };
}

macro_rules! also {
    ($($name:ident)*) => {
        $(fn $name(&self) -> bool {
            true
        })*
    };
}

impl Dialect for RachisDialect {
    /// The parser asks some questions by the type of the dialect.
    fn dialect(&self) -> TypeId {
        TypeId::of::<PostgreSqlDialect>()
    }

    /// Names in backticks, as MySQL and ClickHouse write them, are names in quotes.
    fn is_delimited_identifier_start(&self, character: char) -> bool {
        matches!(character, '"' | '`')
    }

    /// Counts an expression. Of all errors, only this one ends every attempt that is under way.
    fn parse_prefix(&self, parser: &mut Parser<'_>) -> Option<Result<Expr, ParserError>> {
        match self.expressions_left.get().checked_sub(1) {
            Some(left) => self.expressions_left.set(left),
            None => return Some(Err(ParserError::RecursionLimitExceeded)),
        }
        PostgreSqlDialect {}.parse_prefix(parser)
    }

    as_postgres! {
        fn identifier_quote_style(&self, identifier: &str) -> Option<char>;
        fn is_identifier_start(&self, character: char) -> bool;
        fn is_identifier_part(&self, character: char) -> bool;
        fn is_custom_operator_part(&self, character: char) -> bool;
        fn is_reserved_for_identifier(&self, keyword: Keyword) -> bool;
        fn get_next_precedence(&self, parser: &Parser<'_>) -> Option<Result<u8, ParserError>>;
        fn prec_value(&self, precedence: Precedence) -> u8;
        fn supports_unicode_string_literal(&self) -> bool;
        fn supports_filter_during_aggregation(&self) -> bool;
        fn supports_group_by_expr(&self) -> bool;
        fn allow_extract_custom(&self) -> bool;
        fn allow_extract_single_quotes(&self) -> bool;
        fn supports_factorial_operator(&self) -> bool;
        fn supports_bitwise_shift_operators(&self) -> bool;
        fn supports_named_fn_args_with_colon_operator(&self) -> bool;
        fn supports_empty_projections(&self) -> bool;
        fn supports_nested_comments(&self) -> bool;
        fn supports_string_escape_constant(&self) -> bool;
        fn supports_numeric_literal_underscores(&self) -> bool;
        fn supports_array_typedef_with_brackets(&self) -> bool;
        fn supports_geometric_types(&self) -> bool;
        fn supports_notnull_operator(&self) -> bool;
        fn supports_interval_options(&self) -> bool;
        fn supports_select_wildcard_with_alias(&self) -> bool;
        fn supports_comma_separated_trim(&self) -> bool;
        fn supports_xml_expressions(&self) -> bool;
    }

    also! {
        supports_from_first_select
        supports_group_by_with_modifier
        supports_limit_comma
        supports_order_by_all
        supports_select_wildcard_except
        supports_select_wildcard_exclude
        supports_select_wildcard_replace
    }
}
