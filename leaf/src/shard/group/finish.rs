//! Finishes a group: adds the rows of partitions, keys, digests, requests and path kinds to its batch.

use std::collections::BTreeMap;

use super::{FinishedGroup, Group, Requests};
use crate::{
    error::Error,
    fault,
    store::{Family, Partition, RowKey, RowKind, digest, kinds, request},
};

/// The maximum number of expired requests that one push removes.
const EXPIRED_REQUESTS_MAX: usize = 100;

impl Group<'_> {
    /// Returns everything to be written, and what becomes visible once it is. None if nothing changes.
    pub(crate) fn finish(mut self) -> Result<Option<FinishedGroup>, Error> {
        self.count_gone();
        if self.rows.is_empty() {
            return Ok(None);
        }
        self.put_partitions();
        self.put_key_index();
        self.put_digests();
        self.put_requests()?;
        self.put_kinds();
        let mut change = self.change;
        change.rows = self.rows;
        Ok(Some(FinishedGroup {
            batch: self.batch,
            change,
        }))
    }

    fn put_partitions(&mut self) {
        for (partition, row) in &self.rows {
            debug_assert!(
                row.outcomes.balance() || fault::on("dead-letter-dropped"),
                "{partition}: {:?}",
                row.outcomes
            );
            let key = RowKey::new(RowKind::Partition).partition(partition).bytes();
            fault::late("position-in-second-batch", &mut self.batch, |batch| {
                self.store.put(batch, Family::Meta, &key, &row.encode());
            });
        }
    }

    fn put_key_index(&mut self) {
        for (id, row) in &self.key_index {
            match row.is_empty() {
                true => self.store.delete(&mut self.batch, Family::Keys, id.as_bytes()),
                false => self
                    .store
                    .put(&mut self.batch, Family::Keys, id.as_bytes(), &row.encode()),
            }
        }
    }

    fn put_digests(&mut self) {
        for ((partition, block), sum) in &self.digests {
            let key = RowKey::new(RowKind::Digest).partition(partition).signed(*block).bytes();
            self.store
                .put(&mut self.batch, Family::Meta, &key, &digest::encode(*sum));
        }
    }

    fn put_requests(&mut self) -> Result<(), Error> {
        let requests = std::mem::take(&mut self.requests);
        let mut newest: BTreeMap<Partition, i64> = BTreeMap::new();
        for ((partition, key), row) in &requests {
            let time = newest.entry(partition.clone()).or_insert(row.time_ms);
            *time = (*time).max(row.time_ms);
            fault::late("request-row-outside", &mut self.batch, |batch| {
                self.store
                    .put(batch, Family::Meta, &request_key(partition, key), &row.encode());
            });
            self.store.put(
                &mut self.batch,
                Family::Meta,
                &age_key(partition, row.time_ms, key),
                &request::age(),
            );
        }
        for (partition, time_ms) in newest {
            let before_ms = time_ms.saturating_sub(self.request_retention_ms());
            self.delete_expired_requests(&partition, before_ms, &requests)?;
        }
        Ok(())
    }

    /// Deletes requests before `before_ms`. `requests` are the requests of this group.
    fn delete_expired_requests(
        &mut self,
        partition: &Partition,
        before_ms: i64,
        requests: &Requests,
    ) -> Result<(), Error> {
        for (time_ms, key) in self.store.requests_before(partition, before_ms, EXPIRED_REQUESTS_MAX)? {
            self.store
                .delete(&mut self.batch, Family::Meta, &age_key(partition, time_ms, &key));
            // A key that was used again has one request row, that of its newest use.
            let row = (partition.clone(), key);
            let used_again = match requests.get(&row) {
                Some(_) => true,
                None => self
                    .store
                    .request(partition, &row.1)?
                    .is_some_and(|row| row.time_ms > time_ms),
            };
            if !used_again {
                self.store
                    .delete(&mut self.batch, Family::Meta, &request_key(partition, &row.1));
            }
        }
        Ok(())
    }

    fn put_kinds(&mut self) {
        for (partition, trie) in &self.kinds_cache.tries {
            for (path, kinds) in trie.unsaved() {
                let key = RowKey::new(RowKind::Kinds)
                    .partition(partition)
                    .rest(path.to_string().as_bytes())
                    .bytes();
                self.store
                    .put(&mut self.batch, Family::Meta, &key, &kinds::encode(kinds));
                self.change.kinds.push((path, kinds));
            }
            if trie.overflow_unsaved() {
                self.change.overflowed.push(trie.known());
                let key = RowKey::new(RowKind::Kinds).partition(partition).bytes();
                let value = kinds::encode(plan::Kinds::default());
                self.store.put(&mut self.batch, Family::Meta, &key, &value);
            }
        }
    }
}

fn request_key(partition: &Partition, key: &str) -> Vec<u8> {
    RowKey::new(RowKind::Request)
        .partition(partition)
        .rest(key.as_bytes())
        .bytes()
}

fn age_key(partition: &Partition, time_ms: i64, key: &str) -> Vec<u8> {
    RowKey::new(RowKind::RequestAge)
        .partition(partition)
        .signed(time_ms)
        .rest(key.as_bytes())
        .bytes()
}
