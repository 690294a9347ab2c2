//! What is asked of a collection without a query: a document by its id, the paths that were seen.

use std::time::Instant;

use futures::future::join_all;
use plan::scan::Document;
use proto::{Address, Code, CollectionName, Problem, ingest::ShardId, routing::shard_of};

use super::{Engine, Fields, context::timed_out, pins::no_collection, system};

impl Engine {
    /// A document by its id: its key or its address. A key met in two partitions is two documents; the one of the lower
    /// shard is told.
    pub async fn document(&self, collection: &CollectionName, id: &str) -> Result<Option<Document>, Problem> {
        let catalog = self.catalog();
        let there = catalog
            .collections
            .get(collection)
            .ok_or_else(|| no_collection(collection, &catalog))?;
        let shards = there.settings.shards;
        let numbers = match id.parse::<Address>() {
            Ok(address) => {
                let number = shard_of(&address.source, address.partition, shards);
                number..number + 1
            }
            Err(_) => 0..shards,
        };
        let asked = numbers.map(|number| {
            self.roles.leaf.document(
                ShardId {
                    collection: there.uid,
                    number,
                },
                id,
            )
        });
        let deadline = Instant::now() + self.options.timeout;
        let answers = tokio::time::timeout_at(deadline.into(), join_all(asked))
            .await
            .map_err(|_| timed_out())?;
        let mut missing = None;
        for answer in answers {
            match answer {
                Ok(Some(document)) => return Ok(Some(document)),
                Ok(None) => {}
                Err(problem) => missing = Some(problem),
            }
        }
        // It may be where nobody answered: that it is not there must not be said.
        missing.map_or(Ok(None), |why| {
            Err(Problem::new(
                Code::Incomplete,
                format!("a shard of {collection} did not answer: {}", why.detail),
            )
            .hint("try again"))
        })
    }

    /// All paths that were seen in a collection's documents.
    pub async fn fields(&self, collection: &CollectionName) -> Result<Fields, Problem> {
        system::merged_fields(self, collection).await
    }
}
