//! Limits the work of regular expressions: their states and their compiled size.

use datafusion::common::Result;
use regex_syntax::hir::{Class, Hir, HirKind};

use super::super::context::limit_reached;

/// Maximum size of a compiled regular expression.
const PATTERN_BYTES_MAX: usize = 1 << 20;

/// The approximate number of states that a regular expression may be in at once: the length of its expansion. If the
/// library cannot cache all combinations of states, it visits each of them at every byte.
pub(super) fn states(pattern: &str) -> u64 {
    regex_syntax::parse(pattern).map_or(0, |pattern| count(&pattern, &|_| 1))
}

/// The approximate number of states that a regular expression is compiled to. Zero for an invalid one.
pub fn compiled_states(pattern: &str) -> u64 {
    let ranges = |class: &Class| match class {
        Class::Unicode(class) => class.ranges().len() as u64,
        Class::Bytes(class) => class.ranges().len() as u64,
    };
    regex_syntax::parse(pattern).map_or(0, |pattern| count(&pattern, &ranges))
}

/// The length of the expansion, in which a class of characters counts as much as `of_class` says.
fn count(part: &Hir, of_class: &dyn Fn(&Class) -> u64) -> u64 {
    match part.kind() {
        HirKind::Empty | HirKind::Look(_) => 0,
        HirKind::Literal(literal) => literal.0.len() as u64,
        HirKind::Class(class) => of_class(class),
        HirKind::Repetition(repeated) => {
            let times = u64::from(repeated.max.unwrap_or(repeated.min.saturating_add(1)));
            times.saturating_mul(count(&repeated.sub, of_class))
        }
        HirKind::Capture(group) => count(&group.sub, of_class),
        HirKind::Concat(parts) | HirKind::Alternation(parts) => parts
            .iter()
            .map(|part| count(part, of_class))
            .fold(0, u64::saturating_add),
    }
}

/// Rejects a regular expression from the data if it compiles to more than the limit. The function itself handles an
/// invalid one.
pub(super) fn check_pattern(name: &str, pattern: &str) -> Result<()> {
    match regex::RegexBuilder::new(pattern).size_limit(PATTERN_BYTES_MAX).build() {
        Err(regex::Error::CompiledTooBig(_)) => Err(limit_reached(
            format!("{name}: a regular expression takes over {PATTERN_BYTES_MAX} bytes when it is compiled"),
            "repeat less: (a{1000}){1000} is a million states",
        )),
        _ => Ok(()),
    }
}
