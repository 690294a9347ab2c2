//! Decides where to start reading a partition.
//!
//! Pure: a function of what the leaf has stored, what the broker has, and the skips of the catalog.

use proto::catalog::{PartitionStart, Skip};

/// Where to start, or why reading cannot start.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum StartDecision {
    /// Read from this offset.
    From(i64),
    /// Nothing is stored, and the source does not start at the first record: first store `through` as the position, so that
    /// a restart begins there too.
    Advance {
        /// The last offset before the first record of the source.
        through: i64,
    },
    /// Records were deleted before they were ingested.
    Lost {
        /// The first missing offset.
        from: i64,
        /// The last missing offset.
        through: i64,
    },
    /// The broker has less than the leaf: the topic was truncated or recreated.
    Shorter {
        /// One after the last offset that the broker has.
        end: i64,
    },
    /// The broker does not have the offset at which a skip ends.
    SkipAhead {
        /// The end of the skip.
        to: i64,
        /// One after the last offset that the broker has.
        end: i64,
    },
}

/// Decides where to start a partition. The leaf has stored everything through `stored` and had once acknowledged
/// `acknowledged`; the broker has `low..high`.
pub(super) fn decide_start(
    stored: i64,
    acknowledged: i64,
    low: i64,
    high: i64,
    skips: &[Skip],
    start: PartitionStart,
) -> StartDecision {
    if let Some(to) = skips.iter().filter_map(|skip| skip.jump_from(stored + 1)).max() {
        return match to {
            to if to > high => StartDecision::SkipAhead { to, end: high },
            to if to < low => StartDecision::Lost {
                from: to,
                through: low - 1,
            },
            to => StartDecision::From(to),
        };
    }
    match (stored, start) {
        (..0, PartitionStart::At(end)) if end > high => StartDecision::Shorter { end: high },
        (..0, PartitionStart::At(end)) if end > 0 => StartDecision::Advance { through: end - 1 },
        (..0, PartitionStart::At(_)) if low > 0 => StartDecision::Lost {
            from: 0,
            through: low - 1,
        },
        // The leaf has lost everything. It gets again what the broker still has; the rest is reported as lost.
        (..0, _) if acknowledged >= 0 && low > 0 => StartDecision::Lost {
            from: 0,
            through: low - 1,
        },
        (..0, _) if acknowledged >= 0 => StartDecision::From(0),
        (..0, PartitionStart::Latest) if high > 0 => StartDecision::Advance { through: high - 1 },
        (..0, _) => StartDecision::From(low),
        _ if stored + 1 > high => StartDecision::Shorter { end: high },
        _ if stored + 1 < low => StartDecision::Lost {
            from: stored + 1,
            through: low - 1,
        },
        // At the last stored record, so that the leaf can compare it.
        _ => StartDecision::From(stored.max(low)),
    }
}
