//! Seeded bugs and crash points, with which the tests prove that they would notice. Without the feature `seeded-bugs`
//! they are nothing.
//!
//! `RACHIS_FAULT=<name>` switches one bug on: `position-in-second-batch`, `no-gap-check`, `dead-letter-dropped`,
//! `request-row-outside`, `manifest-before-files`, `delete-per-split`. `RACHIS_CRASH_AT=<point>[:n]` ends the process
//! at the n-th pass of a point, as `kill -9` would.
//!
//! Some faults strike only what carries their name in its bytes (`panic-in-writer`, `panic-in-build`, `unbuildable`),
//! or a folder in which a file of that name lies (`no-room`). The crate's own tests have these switched on always.

#[cfg(test)]
mod tests;

/// Whether a bug is switched on.
#[cfg(not(feature = "seeded-bugs"))]
#[inline(always)]
pub fn on(_fault: &str) -> bool {
    false
}

/// Passes a crash point.
#[cfg(not(feature = "seeded-bugs"))]
#[inline(always)]
pub fn crash_point(_point: &str) {}

/// Whether a fault strikes what has these bytes.
#[cfg(not(any(test, feature = "seeded-bugs")))]
#[inline(always)]
pub fn strikes(_fault: &str, _bytes: &[u8]) -> bool {
    false
}

/// Whether a fault strikes what has these bytes.
#[cfg(any(test, feature = "seeded-bugs"))]
pub fn strikes(fault: &str, bytes: &[u8]) -> bool {
    (cfg!(test) || on(fault)) && memchr::memmem::find(bytes, fault.as_bytes()).is_some()
}

/// Whether a fault strikes a folder.
#[cfg(not(any(test, feature = "seeded-bugs")))]
#[inline(always)]
pub fn lies_in(_fault: &str, _folder: &std::path::Path) -> bool {
    false
}

/// Whether a fault strikes a folder.
#[cfg(any(test, feature = "seeded-bugs"))]
pub fn lies_in(fault: &str, folder: &std::path::Path) -> bool {
    (cfg!(test) || on(fault)) && folder.join(fault).exists()
}

/// Panics where a fault strikes.
pub fn panic_on(fault: &str, bytes: &[u8]) {
    assert!(!strikes(fault, bytes), "the fault {fault} is switched on");
}

/// Whether a bug is switched on.
#[cfg(feature = "seeded-bugs")]
pub fn on(fault: &str) -> bool {
    static CHOSEN: std::sync::LazyLock<Option<String>> =
        std::sync::LazyLock::new(|| std::env::var("RACHIS_FAULT").ok());
    CHOSEN.as_deref() == Some(fault)
}

/// Passes a crash point.
#[cfg(feature = "seeded-bugs")]
pub fn crash_point(point: &str) {
    use std::sync::{
        LazyLock,
        atomic::{AtomicU64, Ordering},
    };
    static CHOSEN: LazyLock<Option<(String, u64)>> = LazyLock::new(|| {
        let text = std::env::var("RACHIS_CRASH_AT").ok()?;
        let (point, pass) = text.split_once(':').unwrap_or((&text, "1"));
        Some((point.to_owned(), pass.parse().ok()?))
    });
    static PASSES: AtomicU64 = AtomicU64::new(0);
    if let Some((chosen, pass)) = CHOSEN.as_ref()
        && chosen == point
        && PASSES.fetch_add(1, Ordering::SeqCst) + 1 == *pass
    {
        tracing::error!(point, "crash point reached");
        std::process::abort();
    }
}
