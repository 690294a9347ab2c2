//! Limits the work of regular expressions: their states and their compiled size.

use datafusion::common::Result;
use regex_syntax::hir::{Hir, HirKind};

use super::super::function::limit_reached;

/// Maximum size of a compiled regular expression.
const PATTERN_BYTES_MAX: usize = 1 << 20;

/// The approximate number of states that a regular expression may be in at once: the length of its expansion. If the
/// library cannot cache all combinations of states, it visits each of them at every byte.
pub(super) fn states(pattern: &str) -> u64 {
    fn count(part: &Hir) -> u64 {
        match part.kind() {
            HirKind::Empty | HirKind::Look(_) => 0,
            HirKind::Literal(literal) => literal.0.len() as u64,
            HirKind::Class(_) => 1,
            HirKind::Repetition(repeated) => {
                u64::from(repeated.max.unwrap_or(repeated.min + 1)).saturating_mul(count(&repeated.sub))
            }
            HirKind::Capture(group) => count(&group.sub),
            HirKind::Concat(parts) | HirKind::Alternation(parts) => {
                parts.iter().map(count).fold(0, u64::saturating_add)
            }
        }
    }
    regex_syntax::parse(pattern).as_ref().map_or(0, count)
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
