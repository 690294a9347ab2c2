//! A handle for read views to a store that can be closed while they exist. A failed store must be reopened promptly,
//! but a client may keep a read view for as long as it takes to read a response.

use std::sync::Arc;

use parking_lot::RwLock;
use proto::{Address, Code, Problem, ingest::ShardId};

use super::Store;
use crate::{document::Document, error::Error, view::Documents};

/// The documents of a store while it is open.
pub(crate) struct SharedStore {
    shard: ShardId,
    store: RwLock<Option<Arc<Store>>>,
}

impl SharedStore {
    /// Wraps a store.
    pub(crate) fn new(store: Arc<Store>) -> Arc<Self> {
        Arc::new(Self {
            shard: store.shard(),
            store: RwLock::new(Some(store)),
        })
    }

    /// Drops the store: reads in progress complete, later reads fail.
    pub(crate) fn close(&self) {
        *self.store.write() = None;
    }
}

impl Documents for SharedStore {
    fn read(&self, addresses: &[Address]) -> Result<Vec<Document>, Error> {
        let store = self.store.read().clone();
        let closed = || {
            Problem::new(
                Code::Unavailable,
                format!("shard {} was reopened during the query", self.shard),
            )
            .hint("retry the query")
        };
        store.ok_or_else(closed)?.read_documents(addresses)
    }
}
