//! Quantiles of times.

use std::time::Duration;

/// The time that this share of the times does not exceed; there must be at least one, in ascending order.
pub(crate) fn quantile(sorted: &[Duration], share: f64) -> Duration {
    sorted[((sorted.len() - 1) as f64 * share).round() as usize]
}
