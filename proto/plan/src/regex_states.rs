//! How many states a regular expression has, before it is compiled.

use regex_syntax::hir::{Class, Hir, HirKind};

/// The approximate number of states that a regular expression may be in at once: the length of its expansion. If the
/// library cannot cache all combinations of states, it visits each of them at every byte.
pub fn states(pattern: &str) -> u64 {
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
