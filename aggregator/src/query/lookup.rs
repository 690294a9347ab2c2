//! Lookups that need no query: a document by its id, and the paths of a collection.

use std::time::Instant;

use futures::future::join_all;
use plan::scan::Document;
use proto::{Address, Code, CollectionName, Problem, ingest::ShardId};

use super::{CollectionFields, Engine, context::timed_out, find_collection::find_collection, system};

impl Engine {
    /// Returns a document by its id, which is its key or its address. A key that occurs in two partitions is two
    /// documents; the one in the lower shard is returned.
    pub async fn document(&self, collection: &CollectionName, id: &str) -> Result<Option<Document>, Problem> {
        let catalog = self.catalog();
        let found = find_collection(&catalog, collection)?;
        let shards = found.settings.shards;
        let numbers = match id.parse::<Address>() {
            Ok(address) => {
                let of = found.shard_at(&address.source, address.partition, address.offset);
                of.number..of.number + 1
            }
            Err(_) => 0..shards,
        };
        let requests = numbers.map(|number| {
            self.roles.leaf.document(
                ShardId {
                    collection: found.uid,
                    number,
                },
                id,
            )
        });
        let deadline = Instant::now() + self.options.timeout;
        let answers = tokio::time::timeout_at(deadline.into(), join_all(requests))
            .await
            .map_err(|_| timed_out())?;
        let mut failed = None;
        for answer in answers {
            match answer {
                Ok(Some(document)) => return Ok(Some(document)),
                Ok(None) => {}
                Err(problem) => failed = Some(problem),
            }
        }
        // The document may be in a shard that did not answer, so "not found" could be wrong.
        failed.map_or(Ok(None), |problem| {
            Err(Problem::new(
                Code::Incomplete,
                format!("a shard of {collection} is unavailable: {}", problem.detail),
            )
            .hint("retry"))
        })
    }

    /// Returns all paths that occur in a collection's documents.
    pub async fn fields(&self, collection: &CollectionName) -> Result<CollectionFields, Problem> {
        system::merged_fields(self, collection).await
    }
}
