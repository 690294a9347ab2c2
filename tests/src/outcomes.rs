//! The outcomes of the events of a source, as `rachis.sources` counts them.

use crate::Client;

/// The columns of [`Client::outcomes`].
const COLUMNS: [&str; 7] = [
    "events",
    "accepted",
    "tombstones",
    "dead_letters",
    "superseded",
    "deleted",
    "documents",
];

impl Client {
    /// The counts of a source, over all partitions: events, accepted, tombstones, dead letters, superseded, deleted,
    /// documents.
    pub async fn outcomes(&self, source: &str) -> [i64; 7] {
        let sums = COLUMNS.map(|column| format!("sum({column})::bigint as {column}"));
        let answer = self
            .sql(&format!(
                "select {} from rachis.sources where source = '{source}'",
                sums.join(", ")
            ))
            .await;
        std::array::from_fn(|column| {
            let count = answer.rows[0][column].as_i64();
            count.unwrap_or_else(|| panic!("no {} of {source}: {answer:?}", COLUMNS[column]))
        })
    }

    /// Asserts for each partition of a source that every event has one outcome, and that the documents are those
    /// accepted less those removed.
    pub async fn assert_outcomes_add_up(&self, source: &str) {
        let imbalance = "events <> accepted + tombstones + duplicates + dead_letters \
                         or documents <> accepted - superseded - deleted - expired";
        let wrong = self
            .sql(&format!(
                "select * from rachis.sources where source = '{source}' and ({imbalance})"
            ))
            .await;
        assert!(wrong.rows.is_empty(), "the outcomes do not add up: {wrong:?}");
    }
}
