//! Faults of a broker and its topics, seen by a whole cluster. Whatever happens there, stored documents are correct,
//! `rachis.sources` shows what is wrong and what to do, no record is skipped silently, and `rachis.losses` lists every
//! lost range.
//!
//! A cluster takes seconds to start, so checks that leave the broker and the nodes alone share one, each with its own
//! topics.

#[path = "broker_trouble/brokers.rs"]
mod brokers;
#[path = "broker_trouble/rebalances.rs"]
mod rebalances;
#[path = "broker_trouble/support.rs"]
mod support;
#[path = "broker_trouble/topics.rs"]
mod topics;

use self::support::start;

/// Settings with which a broker runs retention and compaction within a second instead of after minutes.
const BUSY_BROKER: [&str; 4] = [
    "log.retention.check.interval.ms=200",
    "log.initial.task.delay.ms=200",
    "log.segment.delete.delay.ms=100",
    "log.cleaner.backoff.ms=200",
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn topic_faults_are_reported_and_stored_documents_stay_correct() {
    let cluster = start(2, &BUSY_BROKER).await;
    tokio::join!(
        topics::aborted_transactions_are_skipped_and_an_open_one_delays_what_follows(&cluster),
        topics::a_compacted_topic_is_read_to_its_end_with_the_latest_record_of_each_key(&cluster),
        topics::added_partitions_are_read_from_their_first_record(&cluster),
        topics::a_range_deleted_by_retention_stops_its_partition_until_it_is_skipped(&cluster),
        topics::a_deleted_topic_is_reported_and_its_successor_is_not_read_in_its_place(&cluster),
        topics::a_recreated_topic_that_grew_past_our_position_is_detected(&cluster),
        topics::a_source_of_a_missing_topic_is_refused(&cluster),
        topics::large_records_are_ingested_and_oversized_ones_block_nothing(&cluster),
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn broker_faults_are_reported_and_lose_no_stored_document() {
    let mut cluster = start(1, &[]).await;
    brokers::a_killed_broker_is_reported_without_loss_or_duplicates(&mut cluster).await;
    brokers::a_broker_frozen_past_the_session_timeout_is_reported_without_loss_or_duplicates(&mut cluster).await;
    brokers::a_truncated_log_is_detected_and_never_read_as_the_old_one(&mut cluster).await;
    brokers::changes_of_a_topic_during_a_tailer_freeze_are_detected_after_it(&cluster).await;
}
