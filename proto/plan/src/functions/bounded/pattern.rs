//! Limits the work of regular expressions: their states and their compiled size.

use datafusion::common::Result;

use super::super::context::limit_reached;

/// Maximum size of a compiled regular expression.
const PATTERN_BYTES_MAX: usize = 1 << 20;

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
