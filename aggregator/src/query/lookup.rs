//! Lookups that need no query: a document by its id, and the paths of a collection.

use std::time::Instant;

use futures::future::join_all;
use plan::{
    scan::{Document, Lookup},
    views::WantedShards,
};
use proto::{Address, Code, CollectionName, Position, PositionVector, Problem, ingest::ShardId};

use super::{CollectionFields, Engine, QueryOptions, context::timed_out, find_collection::find_collection, system};

impl Engine {
    /// Returns a document by its id, which is its key or its address. A key that occurs in two partitions is two
    /// documents; the one in the lower shard is returned.
    pub async fn document(&self, collection: &CollectionName, id: &str) -> Result<Option<Document>, Problem> {
        let catalog = self.catalog();
        let found = find_collection(&catalog, collection)?;
        let numbers = match id.parse::<Address>() {
            Ok(address) => {
                let of = found.shard_at(&address.source, address.partition, address.offset);
                of.number..of.number + 1
            }
            Err(_) => 0..found.settings.shards,
        };
        let shard = |number| ShardId {
            collection: found.uid,
            number,
        };
        let any: Vec<_> = numbers
            .map(|number| (shard(number), PositionVector::default()))
            .collect();
        let started = Instant::now();
        let context = self.context_until(&QueryOptions::default(), started, self.options.timeout);
        let seen: Vec<_> = any
            .iter()
            .map(|(shard, _)| (*shard, context.watermarks.awaited(*shard)))
            .collect();
        let lookup = async {
            // A document must not be older than in earlier answers.
            if let Ok(Some((document, true))) = self.document_in(collection, &seen, id).await {
                return Ok(Some(document));
            }
            // These replicas may lack pushes that other aggregators acknowledged: one with the document, or one that
            // replaces it. The lookup waits for them as a query would.
            let (opened, behind) = context.watermarks.open(&context, &any, None).await;
            let views = any.iter().zip(opened.outcomes);
            let covered = views.map(|((shard, _), view)| match view {
                Ok(view) => Ok((*shard, view.positions)),
                Err(problem) => Err(incomplete(collection, *shard, &problem)),
            });
            let covered = covered.collect::<Result<Vec<_>, Problem>>()?;
            let found = self.document_in(collection, &covered, id).await?;
            match behind.first() {
                Some(warning) if found.is_none() => Err(Problem::new(
                    Code::Incomplete,
                    format!("no document {id} in what {collection} has now, but {warning}"),
                )
                .hint("retry once the shard has caught up: see rachis.sources")),
                _ => Ok(found.map(|(document, _)| document)),
            }
        };
        let deadline = started + self.options.timeout;
        let answer = tokio::time::timeout_at(deadline.into(), lookup).await;
        answer.unwrap_or_else(|_| Err(timed_out()))
    }

    /// A document by its id, in one of these shards at these positions. Also returns whether the tailers have covered its
    /// shard since its leaf started. No later answer lacks the document.
    async fn document_in(
        &self,
        collection: &CollectionName,
        shards: &WantedShards,
        id: &str,
    ) -> Result<Option<(Document, bool)>, Problem> {
        let requests = shards
            .iter()
            .map(|(shard, at_least)| self.roles.leaf.document(*shard, id, at_least));
        let mut failed = None;
        for ((shard, _), answer) in shards.iter().zip(join_all(requests).await) {
            match answer {
                Ok(Lookup {
                    document: Some(document),
                    boot,
                }) => {
                    let address = &document.address;
                    let position = Position {
                        source: address.source.clone(),
                        partition: address.partition,
                        offset: address.offset,
                    };
                    self.watermarks.advance(*shard, &PositionVector::from_iter([position]));
                    return Ok(Some((document, self.watermarks.is_confirmed(*shard, boot))));
                }
                Ok(Lookup { document: None, .. }) => {}
                Err(problem) => failed = Some(incomplete(collection, *shard, &problem)),
            }
        }
        // The document may be in a shard that did not answer, so "not found" could be wrong.
        failed.map_or(Ok(None), Err)
    }

    /// Returns all paths that occur in a collection's documents.
    pub async fn fields(&self, collection: &CollectionName) -> Result<CollectionFields, Problem> {
        system::merged_fields(self, collection).await
    }
}

fn incomplete(collection: &CollectionName, shard: ShardId, problem: &Problem) -> Problem {
    let number = shard.number;
    let detail = format!("shard {number} of {collection} is unavailable: {}", problem.detail);
    Problem::new(Code::Incomplete, detail).hint("retry")
}
