//! Checks that all replicas of a shard have ingested the same.

use std::time::{Duration, Instant};

use anyhow::Result;
use serde::Deserialize;
use serde_json::json;

use crate::{Run, http::COLLECTION};

/// How long replicas may take to catch up.
const CAUGHT_UP_WAIT: Duration = Duration::from_secs(60);

/// The replicas of a block of a partition.
#[derive(Debug, Deserialize)]
struct Block {
    /// Its source, partition and first offset, and its shard.
    name: String,
    replicas: u32,
    digests: u32,
}

/// Waits until each block is the same in all replicas. Returns those that are not.
pub(super) async fn check(run: &Run) -> Result<Vec<String>> {
    if run.replicas <= 1 {
        return Ok(Vec::new());
    }
    let sql = format!(
        "SELECT source || '/' || partition || '@' || from_offset || ' of shard ' || shard AS name, count(digest) AS replicas,
            count(DISTINCT digest) AS digests
        FROM rachis.digests WHERE collection = '{COLLECTION}' GROUP BY 1"
    );
    let began = Instant::now();
    loop {
        let blocks: Vec<Block> = run.client.rows(json!({ "sql": sql })).await?;
        let differs = |block: &&Block| block.replicas != run.replicas || block.digests != 1;
        let different: Vec<&Block> = blocks.iter().filter(differs).collect();
        if !blocks.is_empty() && different.is_empty() {
            return Ok(Vec::new());
        }
        if began.elapsed() > CAUGHT_UP_WAIT {
            let describe = |block: &Block| {
                let Block {
                    name,
                    replicas,
                    digests,
                } = block;
                format!("block {name} is on {replicas} replicas with {digests} digests")
            };
            let mut found: Vec<String> = different.into_iter().map(describe).collect();
            if blocks.is_empty() {
                found.push("no replica has a digest".to_owned());
            }
            return Ok(found);
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
}
