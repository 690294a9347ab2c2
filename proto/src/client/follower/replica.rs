//! The replica of the change log's state on a node, and the file in which it is saved.

use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::watch;
use tracing::{debug, error, info, warn};

use crate::{
    catalog::{Catalog, State},
    client::catalog_file::CatalogFile,
    cluster::NodeName,
    tailer::LogHealth,
};

/// A node's replica of the change log's state, saved in the data folder.
#[derive(Debug)]
pub struct CatalogReplica {
    file: CatalogFile,
    state: watch::Sender<Arc<State>>,
    catalog: watch::Sender<Arc<Catalog>>,
    fault: Mutex<Option<String>>,
    /// Held while a state is compared and saved, so that the replica never goes back.
    saving: Mutex<()>,
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

    /// Installs and saves a state, if it is newer than the current one. Blocks for an fsync.
    pub fn advance(&self, state: State) {
        let _saving = self.saving.lock();
        let own = self.state.borrow().clone();
        if state.is_newer_than(&own) {
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
        let own = self.state.borrow().clone();
        if let (Some(ours), Some(theirs)) = (own.cluster, state.cluster)
            && ours != theirs
        {
            self.set_fault(Some(format!(
                "{} {}, this node to {}",
                foreign_peer(from),
                theirs.simple(),
                ours.simple()
            )));
            return;
        }
        // A fault about the cluster of this peer no longer holds.
        let fault = self.fault.lock().clone();
        if fault.is_some_and(|fault| fault.starts_with(&foreign_peer(from))) {
            self.set_fault(None);
        }
        if state.is_newer_than(&own) {
            debug!(%from, offset = state.offset, "adopting the catalog of a peer");
            self.install(state);
        }
    }

    /// Records that the log has not been read yet, so that no change is accepted.
    pub fn mark_unread(&self) {
        *self.fault.lock() = Some("the change log has not been read yet".to_owned());
    }

    /// Sets the reason why no change is accepted, or clears it.
    pub fn set_fault(&self, fault: Option<String>) {
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

/// The beginning of the fault that a peer belongs to another cluster.
fn foreign_peer(peer: &NodeName) -> String {
    format!("{peer} belongs to cluster")
}
