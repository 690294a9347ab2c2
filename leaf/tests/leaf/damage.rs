//! Damage on disk: what is lost is said, and nothing is answered as if it had never been.

use std::path::{Path, PathBuf};

use proto::Code;

use super::support::{Fixture, tail_only};

#[tokio::test(flavor = "multi_thread")]
async fn a_store_without_its_current_file_is_refused_and_not_emptied() {
    let fixture = Fixture::start(tail_only);
    fixture.push(&["1", "2"]).await;
    let before = fixture.documents().await;
    let aside = tempfile::tempdir().expect("a folder");
    let current = |folder: &Path| found(folder, "CURRENT").expect("the store has one");
    let fixture = fixture.restart_changed(|folder| drop(std::fs::rename(current(folder), aside.path().join("CURRENT")))).await;
    let refused = fixture.try_push(fixture.pushing(&["3"])).await.expect_err("the store is not whole");
    assert_eq!(refused.code, Code::Unavailable, "{refused:?}");
    assert!(refused.detail.contains("no CURRENT"), "{refused:?}");
    let back = |folder: &Path| drop(std::fs::copy(aside.path().join("CURRENT"), found(folder, "LOCK").expect("the store").with_file_name("CURRENT")));
    let fixture = fixture.restart_changed(back).await;
    assert_eq!(fixture.documents().await, before);
    fixture.push(&["3"]).await;
    assert_eq!(fixture.documents().await.len(), 3);
}

/// The first file of this name below a folder.
fn found(folder: &Path, name: &str) -> Option<PathBuf> {
    let entries: Vec<PathBuf> = std::fs::read_dir(folder).ok()?.filter_map(|entry| Some(entry.ok()?.path())).collect();
    let here = entries.iter().find(|path| path.file_name() == Some(name.as_ref())).cloned();
    here.or_else(|| entries.iter().filter(|path| path.is_dir()).find_map(|folder| found(folder, name)))
}
