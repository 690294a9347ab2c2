//! An entry of the registry: what the rest of the code knows about a function by its name.

use crate::functions::growth::Growth;

/// A function that a statement may name, an operator, or a function that is inserted for one.
#[derive(Debug, Clone, Copy)]
pub struct SqlFunction {
    /// Its name and its arguments, as a statement writes them.
    pub signature: &'static str,
    /// What it returns, in one line.
    pub summary: &'static str,
    /// Where it comes from.
    pub kind: FunctionKind,
    /// The types to which its arguments are coerced.
    pub arguments: ArgumentTypes,
    /// Its names in other systems, in lower case, separated by spaces.
    pub synonyms: &'static str,
    /// What a call becomes before names are resolved.
    pub meaning: Meaning,
    /// What else is true of it.
    pub properties: &'static [Property],
    /// The operator for which a function stands.
    pub(in crate::functions) operator: Option<&'static str>,
    /// How its result or its work grows beyond its arguments. None if the result is no larger than they are.
    pub(in crate::functions) growth: Option<Growth>,
}

/// Where a function comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FunctionKind {
    /// Computed for each row.
    Scalar,
    /// An aggregate; some are window functions, too.
    Aggregate,
    /// Only a window function.
    Window,
    /// Replaced by the resolver.
    Syntax,
    /// A name of another system that becomes something else.
    Compat,
    /// Written by the resolver for an operator. It becomes an expression when the types of its operands are known.
    Operator,
    /// Inserted for operators and functions when the types of their operands are known.
    Internal,
}

/// The types to which a function's arguments are coerced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ArgumentTypes {
    /// All as numbers.
    Numbers,
    /// All as integers.
    Integers,
    /// All as doubles, for functions that would otherwise truncate their arguments to integers.
    Doubles,
    /// As texts, except for integers at these positions.
    Texts(&'static [usize]),
    /// As timestamps at these positions, as texts elsewhere.
    Times(&'static [usize]),
    /// As JSON at these positions, as texts elsewhere.
    Json(&'static [usize]),
    /// As conditions.
    Conditions,
    /// All as one common type, which is also the type of the result.
    Common,
    /// Each in its native type.
    Native,
    /// As they are: the call has them in their types.
    Typed,
}

/// What a call becomes before names are resolved.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Meaning {
    /// The function itself; its synonyms become its name.
    Itself,
    /// A call of another function. With a single argument it gets this second one.
    Call(&'static str, &'static str),
    /// The first of these expressions with as many arguments `$1`, `$2`, … as the call has.
    Expressions(&'static [&'static str]),
    /// The value at a path of a document.
    Path(PathResult),
    /// The text of a time in a pattern of these letters.
    TimeToText(TimeLetters),
    /// The time that a text spells in a pattern of these letters. The year is that of patterns without one.
    TextToTime(TimeLetters, &'static str),
    /// A text.
    Constant(&'static str),
    /// No function of this kind exists, or not for these arguments; this is what to write instead.
    Hint(&'static str),
}

/// The type in which a function returns the value at a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PathResult {
    /// JSON.
    Json,
    /// Text.
    Text,
    /// The text of a number, a text or a boolean.
    Scalar,
    /// A type, with an empty text, 0 or false where nothing is at the path.
    OrDefault(&'static str),
    /// Whether something is at the path.
    Exists,
}

/// The letters in patterns of times.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TimeLetters {
    /// Those of DuckDB.
    DuckDb,
    /// Those of ClickHouse.
    ClickHouse,
    /// Those of MySQL.
    MySql,
}

/// What is true of some functions, beside the types of their arguments.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Property {
    /// The second argument is a regular expression.
    TakesRegex,
    /// The second argument is the length to which a text is padded.
    PadsText,
    /// The resolver writes calls of it into statements.
    IsGenerated,
    /// Its value differs each time it is computed.
    IsRandom,
    /// It needs only the offset of a zone, so times in UTC may be passed without one.
    IgnoresZoneName,
    /// DataFusion would rewrite it to an operator, which fails the whole query on one invalid pattern in the data.
    IsNotSimplified,
    /// The result of an aggregate does not depend on the order of its rows.
    IgnoresOrder,
    /// The partial states of an aggregate are the same however its rows are divided, unless they are sums of doubles.
    HasStableStates,
}

const fn entry(
    kind: FunctionKind,
    arguments: ArgumentTypes,
    signature: &'static str,
    summary: &'static str,
) -> SqlFunction {
    SqlFunction {
        signature,
        summary,
        kind,
        arguments,
        synonyms: "",
        meaning: Meaning::Itself,
        properties: &[],
        operator: None,
        growth: None,
    }
}

/// A function that is computed for each row.
pub(super) const fn scalar(arguments: ArgumentTypes, signature: &'static str, summary: &'static str) -> SqlFunction {
    entry(FunctionKind::Scalar, arguments, signature, summary)
}

/// An aggregate.
pub(super) const fn aggregate(arguments: ArgumentTypes, signature: &'static str, summary: &'static str) -> SqlFunction {
    entry(FunctionKind::Aggregate, arguments, signature, summary)
}

/// A window function that is no aggregate.
pub(super) const fn window(arguments: ArgumentTypes, signature: &'static str, summary: &'static str) -> SqlFunction {
    entry(FunctionKind::Window, arguments, signature, summary)
}

/// A call that the resolver replaces.
pub(super) const fn syntax(signature: &'static str, summary: &'static str) -> SqlFunction {
    entry(FunctionKind::Syntax, ArgumentTypes::Typed, signature, summary)
}

/// A function of another system.
pub(super) const fn compat(signature: &'static str, meaning: Meaning, summary: &'static str) -> SqlFunction {
    SqlFunction {
        meaning,
        ..entry(FunctionKind::Compat, ArgumentTypes::Typed, signature, summary)
    }
}

/// A function of another system that is an expression here.
pub(super) const fn expression(
    signature: &'static str,
    expressions: &'static [&'static str],
    summary: &'static str,
) -> SqlFunction {
    compat(signature, Meaning::Expressions(expressions), summary)
}

/// A function of another system that does not exist here, and what to write instead.
pub(super) const fn refused(name: &'static str, hint: &'static str) -> SqlFunction {
    compat(name, Meaning::Hint(hint), hint)
}

/// A function that the resolver writes for an operator.
pub(super) const fn operator(signature: &'static str, summary: &'static str) -> SqlFunction {
    entry(FunctionKind::Operator, ArgumentTypes::Typed, signature, summary)
}

/// A function that is inserted when the types of operands are known.
pub(super) const fn internal(signature: &'static str, summary: &'static str) -> SqlFunction {
    entry(FunctionKind::Internal, ArgumentTypes::Typed, signature, summary)
}

impl SqlFunction {
    /// Its name, as its home spells it.
    pub fn name(&self) -> &'static str {
        self.signature.split('(').next().unwrap_or_default()
    }

    /// Whether a statement may call it once names are resolved.
    pub fn is_callable(&self) -> bool {
        use FunctionKind::{Aggregate, Scalar, Syntax, Window};
        matches!(self.kind, Scalar | Aggregate | Window | Syntax)
    }

    /// Whether statements may write it, also if it then becomes something else.
    pub fn is_offered(&self) -> bool {
        self.is_callable() || (self.kind == FunctionKind::Compat && !matches!(self.meaning, Meaning::Hint(_)))
    }

    /// Whether something is true of it.
    pub fn has(&self, property: Property) -> bool {
        self.properties.contains(&property)
    }

    /// Sets the types to which its arguments are coerced.
    pub(super) const fn takes(self, arguments: ArgumentTypes) -> Self {
        Self { arguments, ..self }
    }

    /// Adds names in other systems.
    pub(super) const fn also(self, synonyms: &'static str) -> Self {
        Self { synonyms, ..self }
    }

    /// Sets what a call becomes.
    pub(super) const fn becomes(self, meaning: Meaning) -> Self {
        Self { meaning, ..self }
    }

    /// Sets how its result or its work grows.
    pub(super) const fn grows(self, growth: Growth) -> Self {
        Self {
            growth: Some(growth),
            ..self
        }
    }

    /// Sets what else is true of it.
    pub(super) const fn with(self, properties: &'static [Property]) -> Self {
        Self { properties, ..self }
    }

    /// Sets the operator for which it stands.
    pub(super) const fn spelled(self, operator: &'static str) -> Self {
        Self {
            operator: Some(operator),
            ..self
        }
    }
}
