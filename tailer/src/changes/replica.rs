//! The replica of the change log's state on a node, and the file in which it is saved.

use std::sync::Arc;

use parking_lot::Mutex;
use proto::{
    Catalog,
    catalog::{State, StatePosition},
    cluster::NodeName,
    tailer::LogHealth,
};
use tokio::sync::watch;
use tracing::{debug, error, info, warn};

use super::catalog_file::CatalogFile;

/// A node's replica of the change log's state, saved in the data folder.
#[derive(Debug)]
pub struct CatalogReplica {
    file: CatalogFile,
    state: watch::Sender<Arc<State>>,
    catalog: watch::Sender<Arc<Catalog>>,
    fault: Mutex<Option<String>>,
    /// Held while a state is compared and saved, so that the replica never goes back.
    saving: Mutex<()>,
    /// Held while a state is fetched from a peer: all peers have it, and one of them sends it.
    pub(super) fetching: tokio::sync::Mutex<()>,
}

impl CatalogReplica {
    /// Loads the saved state.
    pub fn open(file: CatalogFile) -> std::io::Result<Arc<Self>> {
        let state = match file.load() {
            // The peers or the log itself provide the state again.
            Err(error) if error.kind() == std::io::ErrorKind::InvalidData => {
                let aside = file.set_aside()?;
                error!(
                    %error,
                    aside = %aside.display(),
                    "the saved catalog is unreadable; it was moved aside, and the peers will provide the catalog"
                );
                None
            }
            loaded => loaded?,
        };
        let state = state.unwrap_or_default();
        info!(
            file = %file.path().display(),
            offset = state.offset,
            changes = state.catalog.version,
            "loaded the saved catalog"
        );
        let catalog = Arc::new(state.catalog.clone());
        metrics::gauge!("rachis_changes_offset").set(state.offset as f64);
        metrics::gauge!("rachis_changes_trouble").set(0.0);
        Ok(Arc::new(Self {
            file,
            state: watch::channel(Arc::new(state)).0,
            catalog: watch::channel(catalog).0,
            fault: Mutex::new(None),
            saving: Mutex::new(()),
            fetching: tokio::sync::Mutex::new(()),
        }))
    }

    /// The state, now and as it changes.
    pub fn state(&self) -> watch::Receiver<Arc<State>> {
        self.state.subscribe()
    }

    /// The catalog, now and as it changes.
    pub fn catalog(&self) -> watch::Receiver<Arc<Catalog>> {
        self.catalog.subscribe()
    }

    /// Whether the node has read the change log, or has a copy of it, so that it knows its cluster.
    pub fn knows_cluster(&self) -> bool {
        self.state.borrow().cluster.is_some()
    }

    /// Installs and saves a state, if it is newer than the current one. Blocks for an fsync.
    pub(super) fn advance(&self, state: State) {
        let _saving = self.saving.lock();
        let own = self.state.borrow().clone();
        if state.position().is_newer_than(&own.position()) {
            self.install(state);
        }
    }

    fn install(&self, state: State) {
        // Without the file, the node cannot start while the log is unavailable. The catalog itself is not at risk.
        if let Err(error) = self.file.save(&state) {
            warn!(%error, file = %self.file.path().display(), "could not save the catalog");
        }
        // The catalog comes first: a task that has waited for a state must find its catalog.
        if self.catalog.borrow().version != state.catalog.version {
            self.catalog.send_replace(Arc::new(state.catalog.clone()));
        }
        metrics::gauge!("rachis_changes_offset").set(state.offset as f64);
        self.state.send_replace(Arc::new(state));
    }

    /// Installs the state of a peer, if it is newer and of the same cluster.
    pub(super) fn offer(&self, state: State, from: &NodeName) {
        let _saving = self.saving.lock();
        if self.notice(&state.position(), from) {
            debug!(%from, offset = state.offset, "adopting the catalog of a peer");
            self.install(state);
        }
    }

    /// Notes how far a peer has read: a peer of another cluster is a fault. Returns whether the peer has a newer state of
    /// the same cluster.
    pub(super) fn notice(&self, state: &StatePosition, from: &NodeName) -> bool {
        let own = self.state.borrow().position();
        if let (Some(ours), Some(theirs)) = (own.cluster, state.cluster)
            && ours != theirs
        {
            self.set_fault(Some(format!(
                "{from} belongs to cluster {}, this node to {}",
                theirs.simple(),
                ours.simple()
            )));
            return false;
        }
        if !state.is_known_here() {
            self.set_fault(Some(format!(
                "{from} has read changes of a newer release than this node's: upgrade this node"
            )));
            return false;
        }
        // A fault of this peer no longer holds.
        self.forget_peer(from);
        state.is_newer_than(&own)
    }

    /// A peer is no member any more, or not where it was: what it said of its cluster does not matter.
    pub(super) fn forget_peer(&self, peer: &NodeName) {
        let fault = self.fault.lock().clone();
        if fault.is_some_and(|fault| fault.starts_with(&format!("{peer} "))) {
            self.set_fault(None);
        }
    }

    /// Records that the log has not been read yet, so that no change is accepted.
    pub(super) fn mark_unread(&self) {
        *self.fault.lock() = Some("the change log has not been read yet".to_owned());
    }

    /// Sets the reason why no change is accepted, or clears it.
    pub(super) fn set_fault(&self, fault: Option<String>) {
        let mut current = self.fault.lock();
        metrics::gauge!("rachis_changes_trouble").set(f64::from(u8::from(fault.is_some())));
        if *current != fault {
            match &fault {
                Some(why) => error!(
                    why,
                    "the change log has a fault: this node serves the catalog that it has and accepts no changes"
                ),
                None => info!("the change log is healthy"),
            }
            *current = fault;
        }
    }

    /// The health of the log, as this node sees it.
    pub fn health(&self) -> LogHealth {
        let state = self.state.borrow().clone();
        LogHealth {
            offset: state.offset,
            hash: state.hash,
            cluster: state.cluster,
            fault: self.fault.lock().clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};

    use proto::catalog::CATALOG_RULES_LEVEL;

    use super::*;

    #[test]
    fn a_replica_never_goes_back_and_publishes_the_catalog_before_the_state() {
        const STATES: i64 = 100;
        let folder = tempfile::tempdir().expect("a folder");
        let file = CatalogFile::new(folder.path()).expect("a file");
        let replica = CatalogReplica::open(file.clone()).expect("nothing is saved yet");
        let state = |offset: i64| State {
            offset,
            catalog: Catalog {
                version: offset as u64,
                ..Catalog::default()
            },
            ..State::default()
        };
        let (states, catalogs, done) = (replica.state(), replica.catalog(), AtomicBool::new(false));
        std::thread::scope(|scope| {
            // As on a tailer: it reads the log itself, and its peers send their states.
            let writers = [0, 1].map(|from| {
                scope.spawn({
                    let replica = &replica;
                    move || (from..=STATES).for_each(|offset| replica.advance(state(offset)))
                })
            });
            scope.spawn(|| {
                let mut seen = -1;
                while !done.load(Ordering::Relaxed) {
                    let now = states.borrow().clone();
                    let catalog = catalogs.borrow().version;
                    assert!(now.offset >= seen, "{} after {seen}", now.offset);
                    assert!(
                        catalog >= now.catalog.version,
                        "the catalog is {catalog}, the state has {}",
                        now.catalog.version
                    );
                    seen = now.offset;
                }
            });
            writers
                .into_iter()
                .for_each(|writer| writer.join().expect("the writer ends"));
            done.store(true, Ordering::Relaxed);
        });
        replica.advance(state(STATES - 1));
        assert_eq!(
            (replica.state().borrow().offset, replica.catalog().borrow().version),
            (STATES, STATES as u64)
        );
        assert_eq!(file.load().expect("it reads"), Some(state(STATES)));
    }

    #[test]
    fn a_state_of_a_newer_release_is_not_taken_over_and_the_fault_ends_with_it() {
        let folder = tempfile::tempdir().expect("a folder");
        let replica = CatalogReplica::open(CatalogFile::new(folder.path()).expect("a file")).expect("nothing is saved");
        let peer: NodeName = "leaf-1".parse().expect("a name");
        let state = |offset, rules_level| State {
            offset,
            rules_level,
            ..State::default()
        };
        replica.offer(state(3, CATALOG_RULES_LEVEL), &peer);
        assert_eq!((replica.health().offset, replica.health().fault), (3, None));
        replica.offer(state(4, CATALOG_RULES_LEVEL + 1), &peer);
        let fault = replica.health().fault.unwrap_or_default();
        assert_eq!(replica.health().offset, 3);
        assert!(
            fault.starts_with("leaf-1 ") && fault.contains("upgrade this node"),
            "{fault}"
        );
        replica.forget_peer(&"leaf-2".parse().expect("a name"));
        assert!(replica.health().fault.is_some(), "another peer says nothing of it");
        replica.forget_peer(&peer);
        assert_eq!(replica.health().fault, None);
    }
}
