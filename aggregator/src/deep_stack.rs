//! A stack for work that recurses over a statement, whichever thread does it.

/// Size of the stack that parsing and resolving run on, whichever thread calls them.
const STACK_BYTES: usize = 64 << 20;
/// A new stack is allocated if the current one has less than this left.
const STACK_FREE_BYTES: usize = 48 << 20;

/// Runs work that recurses over a statement on a stack deep enough for every statement within the limits.
pub(crate) fn on_deep_stack<T>(work: impl FnOnce() -> T) -> T {
    stacker::maybe_grow(STACK_FREE_BYTES, STACK_BYTES, work)
}
