//! The documents of a store as views have them: the store can be closed under its readers. A store that failed has to
//! be opened again, and a view may be held for as long as somebody takes to read an answer.

use std::sync::Arc;

use parking_lot::RwLock;
use proto::{Address, Code, Problem, ingest::ShardId};

use super::Store;
use crate::{document::Document, error::Error, view::Documents};

/// Documents of a store, as long as it is open.
pub struct Shared {
    shard: ShardId,
    store: RwLock<Option<Arc<Store>>>,
}

impl Shared {
    /// Of this store.
    pub fn new(store: Arc<Store>) -> Arc<Self> {
        Arc::new(Self {
            shard: store.shard(),
            store: RwLock::new(Some(store)),
        })
    }

    /// Lets go of the store. Reads that run end, and later ones fail.
    pub fn close(&self) {
        *self.store.write() = None;
    }
}

impl Documents for Shared {
    fn read(&self, addresses: &[Address]) -> Result<Vec<Document>, Error> {
        let store = self.store.read().clone();
        let closed = || {
            Problem::new(
                Code::Unavailable,
                format!("shard {} was opened again meanwhile", self.shard),
            )
            .hint("ask again")
        };
        store.ok_or_else(closed)?.read_documents(addresses)
    }
}
