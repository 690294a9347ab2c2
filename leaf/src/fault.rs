//! Fault injection: seeded bugs and crash points that prove the tests would catch such a bug. Without the feature
//! `seeded-bugs` they compile to nothing.
//!
//! `RACHIS_FAULT=<name>` switches one bug on: `position-in-second-batch`, `no-gap-check`, `dead-letter-dropped`,
//! `request-row-outside`, `manifest-before-files`, `delete-per-split`. `RACHIS_CRASH_AT=<point>[:n]` aborts the process
//! the n-th time it reaches a crash point, as `kill -9` would.
//!
//! Some faults affect only documents that contain the fault's name (`panic-in-writer`, `panic-in-build`,
//! `unbuildable`), or folders that contain a file of that name (`no-room`). These are always on in the crate's unit
//! tests.

#[cfg(test)]
mod tests;

use crate::store::WriteBatch;

/// True if this bug is switched on.
#[cfg(not(feature = "seeded-bugs"))]
#[inline(always)]
pub(crate) fn on(_fault: &str) -> bool {
    false
}

/// Aborts the process here if `RACHIS_CRASH_AT` names this point.
#[cfg(not(feature = "seeded-bugs"))]
#[inline(always)]
pub(crate) fn crash_point(_point: &str) {}

/// Adds rows to a batch or, if this bug is switched on, to those that are written after it.
#[cfg(not(feature = "seeded-bugs"))]
#[inline(always)]
pub(crate) fn late(_fault: &str, batch: &mut WriteBatch, add: impl FnOnce(&mut WriteBatch)) {
    add(batch);
}

/// The rows that a bug writes after the batch to which they belong.
#[cfg(not(feature = "seeded-bugs"))]
#[inline(always)]
pub(crate) fn late_rows() -> Option<WriteBatch> {
    None
}

/// True if a fault affects a document with these bytes.
#[cfg(not(any(test, feature = "seeded-bugs")))]
#[inline(always)]
pub(crate) fn affects(_fault: &str, _bytes: &[u8]) -> bool {
    false
}

/// True if a fault affects a document with these bytes.
#[cfg(any(test, feature = "seeded-bugs"))]
pub(crate) fn affects(fault: &str, bytes: &[u8]) -> bool {
    (cfg!(test) || on(fault)) && memchr::memmem::find(bytes, fault.as_bytes()).is_some()
}

/// True if a fault affects this folder.
#[cfg(not(any(test, feature = "seeded-bugs")))]
#[inline(always)]
pub(crate) fn affects_folder(_fault: &str, _folder: &std::path::Path) -> bool {
    false
}

/// True if a fault affects this folder.
#[cfg(any(test, feature = "seeded-bugs"))]
pub(crate) fn affects_folder(fault: &str, folder: &std::path::Path) -> bool {
    (cfg!(test) || on(fault)) && folder.join(fault).exists()
}

/// Panics if a fault affects a document with these bytes.
pub(crate) fn panic_on(fault: &str, bytes: &[u8]) {
    assert!(!affects(fault, bytes), "the fault {fault} is switched on");
}

/// True if this bug is switched on.
#[cfg(feature = "seeded-bugs")]
pub(crate) fn on(fault: &str) -> bool {
    static CONFIGURED: std::sync::LazyLock<Option<String>> =
        std::sync::LazyLock::new(|| std::env::var("RACHIS_FAULT").ok());
    CONFIGURED.as_deref() == Some(fault)
}

#[cfg(feature = "seeded-bugs")]
thread_local! {
    /// A writer builds a batch and writes it on one thread.
    static LATE: std::cell::RefCell<Option<WriteBatch>> = const { std::cell::RefCell::new(None) };
}

/// Adds rows to a batch or, if this bug is switched on, to those that are written after it.
#[cfg(feature = "seeded-bugs")]
pub(crate) fn late(fault: &str, batch: &mut WriteBatch, add: impl FnOnce(&mut WriteBatch)) {
    match on(fault) {
        true => LATE.with_borrow_mut(|late| add(late.get_or_insert_default())),
        false => add(batch),
    }
}

/// The rows that a bug writes after the batch to which they belong.
#[cfg(feature = "seeded-bugs")]
pub(crate) fn late_rows() -> Option<WriteBatch> {
    LATE.take()
}

/// Aborts the process here if `RACHIS_CRASH_AT` names this point.
#[cfg(feature = "seeded-bugs")]
pub(crate) fn crash_point(point: &str) {
    use std::sync::{
        LazyLock,
        atomic::{AtomicU64, Ordering},
    };
    static CONFIGURED: LazyLock<Option<(String, u64)>> = LazyLock::new(|| {
        let text = std::env::var("RACHIS_CRASH_AT").ok()?;
        let (point, pass) = text.split_once(':').unwrap_or((&text, "1"));
        Some((point.to_owned(), pass.parse().ok()?))
    });
    static PASSES: AtomicU64 = AtomicU64::new(0);
    if let Some((name, pass)) = CONFIGURED.as_ref()
        && name == point
        && PASSES.fetch_add(1, Ordering::SeqCst) + 1 == *pass
    {
        tracing::error!(point, "crash point reached");
        std::process::abort();
    }
}
