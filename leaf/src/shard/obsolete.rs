//! Replaced segments that a read view may still hold.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use super::state::LiveSegment;
use crate::{
    split::Segment,
    store::{Ranges, manifest::file_name},
};

/// Replaced segments, kept until no read view holds them.
pub(crate) struct ObsoleteSegments {
    pub segments: Vec<Arc<Segment>>,
    /// The files of those on disk.
    pub files: Vec<PathBuf>,
    /// The records that they cover.
    pub ranges: Ranges,
    /// Whether no read view holds them any more.
    pub unreferenced: bool,
}

impl ObsoleteSegments {
    /// Segments that were replaced, with their files in the folder of the splits.
    pub(super) fn of(splits: &Path, replaced: Vec<LiveSegment>, ranges: Ranges) -> Self {
        let files = replaced
            .iter()
            .filter(|entry| entry.on_disk)
            .map(|entry| splits.join(file_name(entry.id)))
            .collect();
        Self {
            segments: replaced.into_iter().map(|entry| entry.segment).collect(),
            files,
            ranges,
            unreferenced: false,
        }
    }
}
