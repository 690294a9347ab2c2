//! Checks regular expressions and converts SIMILAR TO to them.

use datafusion::sql::sqlparser::ast::{BinaryOperator as Op, Expr};
use proto::{Code, Problem};

use super::{
    problem::{bad, not_offered},
    resolver::Resolver,
    value::{text, text_literal},
};

/// Bytes of one regular expression. Nothing can stop the library while it compiles one.
const PATTERN_BYTES_MAX: usize = 64 << 10;
/// States of all regular expressions of a statement, once they are compiled.
const PATTERN_STATES_MAX: u64 = 200_000;

impl Resolver<'_> {
    /// Rejects a regular expression that cannot be used, before anything runs.
    pub(super) fn check_pattern(&mut self, pattern: &str) -> Result<(), Problem> {
        let too_complex = |detail, hint: &str| Err(Problem::new(Code::TooComplex, detail).hint(hint));
        if pattern.len() > PATTERN_BYTES_MAX {
            let detail = format!(
                "a regular expression has {} bytes: the limit is {PATTERN_BYTES_MAX}",
                pattern.len()
            );
            return too_complex(detail, "use IN (…) for a list of whole texts, or several conditions");
        }
        let states = plan::regex_states::compiled_states(pattern);
        self.pattern_states = self.pattern_states.saturating_add(states);
        if self.pattern_states > PATTERN_STATES_MAX {
            let detail = format!(
                "the regular expressions of the statement have {} states: the limit is {PATTERN_STATES_MAX}",
                self.pattern_states
            );
            return too_complex(detail, "repeat less: (a{1000}){1000} is a million states");
        }
        match regex::Regex::new(pattern) {
            Ok(_) => Ok(()),
            Err(regex::Error::CompiledTooBig(bytes)) => too_complex(
                format!("the regular expression takes over {bytes} bytes when it is compiled"),
                "repeat less: (a{1000}){1000} is a million states",
            ),
            Err(error) => Err(bad(format!("invalid regular expression: {error}"))),
        }
    }

    /// `expr [NOT] SIMILAR TO pattern` as a match of a regular expression.
    pub(super) fn similar_to(
        &mut self,
        negated: bool,
        expr: Box<Expr>,
        pattern: &Expr,
        has_escape: bool,
    ) -> Result<Expr, Problem> {
        let (Some(similar), false) = (text_literal(pattern), has_escape) else {
            return Err(
                not_offered("SIMILAR TO with a computed pattern or ESCAPE").hint("use ~ with a regular expression")
            );
        };
        let pattern = regex_of_similar(similar);
        self.check_pattern(&pattern)?;
        let op = if negated { Op::PGRegexNotMatch } else { Op::PGRegexMatch };
        Ok(Expr::BinaryOp {
            left: expr,
            op,
            right: Box::new(text(&pattern)),
        })
    }
}

/// Converts a pattern of SIMILAR TO to a regular expression over the whole text. `%` matches any text and `_` any
/// character; the rest has the same syntax.
fn regex_of_similar(pattern: &str) -> String {
    let mut regex = String::from("(?s)^(?:");
    let mut chars = pattern.chars();
    let mut in_class = false;
    while let Some(c) = chars.next() {
        match c {
            ']' => {
                in_class = false;
                regex.push(c);
            }
            '[' if !in_class => {
                in_class = true;
                regex.push(c);
            }
            c if in_class && c != '\\' => regex.push(c),
            // In SIMILAR TO, a group never begins with a flag.
            '(' => regex.push_str("(?:"),
            '%' => regex.push_str(".*"),
            '_' => regex.push('.'),
            '\\' => regex.extend(chars.next().map(|c| regex::escape(&c.to_string()))),
            '.' | '^' | '$' => regex.extend(['\\', c]),
            c => regex.push(c),
        }
    }
    regex + ")$"
}
