//! Batch + what is stored -> verdict, before anything is read of the records themselves.
//!
//! Pure. The positions decide what is new; the hash of the last record decides whether it is still the same topic.

use proto::ingest::{Batch, LEVEL};

use crate::store::PartitionRow;

/// What to do with a batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Judgement {
    /// All of it is there.
    Already,
    /// Something before it is missing.
    Gap,
    /// Never; why.
    Refused(String),
    /// Apply the records above the stored position.
    Take,
}

/// Judges a batch that has come to the right shard.
pub fn judge(batch: &Batch, row: &PartitionRow) -> Judgement {
    if let Err(reason) = check_shape(batch).and_then(|()| check_source(batch, row)) {
        return Judgement::Refused(reason);
    }
    if batch.through <= row.offset {
        return Judgement::Already;
    }
    if batch.after > row.offset && !crate::fault::on("no-gap-check") {
        return Judgement::Gap;
    }
    Judgement::Take
}

/// Refuses by the level, which says what rules the sender knows.
pub fn check_level(level: u16) -> Result<(), String> {
    match level {
        LEVEL => Ok(()),
        other => Err(format!(
            "level {other} is unknown here, {LEVEL} is known; update this node first"
        )),
    }
}

fn check_shape(batch: &Batch) -> Result<(), String> {
    check_level(batch.level)?;
    if batch.partition < 0 || batch.after < -1 || batch.through < batch.after {
        return Err(format!(
            "the range after {} through {} of partition {} is none",
            batch.after, batch.through, batch.partition
        ));
    }
    // The record at the stored position may come along for its hash, so one offset before the range is allowed.
    let ascending = batch.records.windows(2).all(|pair| pair[0].offset < pair[1].offset);
    let inside = batch
        .records
        .iter()
        .all(|record| record.offset >= batch.after.max(0) && record.offset <= batch.through);
    if ascending && inside {
        Ok(())
    } else {
        Err("the records are not ascending within the range of their batch".into())
    }
}

fn check_source(batch: &Batch, row: &PartitionRow) -> Result<(), String> {
    let name = format!("{}/{}", batch.source, batch.partition);
    if let Some(topic) = row.topic.as_ref().filter(|topic| **topic != batch.topic) {
        return Err(format!(
            "{name} was read from topic {topic} and now comes from {}: the topic was deleted and made anew, or the source points elsewhere; \
             create a source of another name for it",
            batch.topic
        ));
    }
    if row.dead {
        return Err(dead_reason(&name, row));
    }
    let same =
        |record: &proto::record::Record| record.offset != row.last_offset || row.hash == 0 || record.hash() == row.hash;
    if !batch.records.iter().all(same) {
        return Err(format!(
            "{name}@{} holds another record than the one that was taken in: the topic was truncated or made anew; create a source of another name \
             for it, or skip to where it should go on",
            row.last_offset
        ));
    }
    Ok(())
}

/// Why a partition takes nothing more.
pub fn dead_reason(name: &str, row: &PartitionRow) -> String {
    format!(
        "{name} is stopped: {} of {} events could not become documents ({} bytes of them are kept); see rachis.dead_letters. If the format is wrong, \
         create the source under another name with the right one; if the rest can be meant, clear them with \
         DELETE /v1/collections/{{collection}}/dead-letters?source={} and it goes on",
        row.outcomes.dead_letters,
        row.outcomes.events,
        row.dead_bytes,
        name.rsplit_once('/').map_or(name, |(source, _)| source)
    )
}

#[cfg(test)]
mod tests {
    use proto::{
        ingest::ShardId,
        record::{Record, Rules, Value},
    };

    use super::*;

    fn record(offset: i64, text: &'static str) -> Record {
        Record {
            offset,
            value: Value::One(text.into()),
            ..Record::default()
        }
    }

    fn batch(after: i64, through: i64) -> Batch {
        Batch {
            shard: ShardId {
                collection: proto::CollectionUid(uuid::Uuid::nil()),
                number: 0,
            },
            source: "clicks".parse().expect("a name"),
            topic: "t".into(),
            partition: 0,
            after,
            through,
            level: LEVEL,
            rules: Rules::default(),
            records: (after + 1..=through).map(|offset| record(offset, "{}")).collect(),
        }
    }

    fn stored(offset: i64) -> PartitionRow {
        PartitionRow {
            topic: Some("t".into()),
            offset,
            last_offset: offset,
            hash: record(offset, "{}").hash(),
            ..PartitionRow::default()
        }
    }

    fn refusal(batch: &Batch, row: &PartitionRow) -> String {
        match judge(batch, row) {
            Judgement::Refused(reason) => reason,
            other => panic!("{other:?} is no refusal"),
        }
    }

    #[test]
    fn the_position_decides_what_is_new() {
        assert_eq!(judge(&batch(-1, 4), &PartitionRow::default()), Judgement::Take);
        assert_eq!(judge(&batch(4, 9), &stored(4)), Judgement::Take);
        assert_eq!(judge(&batch(2, 9), &stored(4)), Judgement::Take);
        assert_eq!(judge(&batch(2, 4), &stored(4)), Judgement::Already);
        assert_eq!(judge(&batch(-1, 2), &stored(4)), Judgement::Already);
        assert_eq!(judge(&batch(5, 9), &stored(4)), Judgement::Gap);
    }

    #[test]
    fn another_record_at_the_stored_position_is_refused() {
        let mut other = batch(3, 9);
        other.records[0] = record(4, "{\"another\":1}");
        assert!(refusal(&other, &stored(4)).contains("clicks/0@4 holds another record"));
        assert_eq!(
            judge(&batch(3, 9), &stored(4)),
            Judgement::Take,
            "the same record proves the topic"
        );
        other.through = 4;
        other.records.truncate(1);
        assert!(
            refusal(&other, &stored(4)).contains("another record"),
            "even where nothing is new"
        );
    }

    #[test]
    fn what_cannot_be_right_is_refused_with_a_reason() {
        assert!(
            refusal(
                &Batch {
                    topic: "u".into(),
                    ..batch(4, 9)
                },
                &stored(4)
            )
            .contains("was read from topic t")
        );
        assert!(
            refusal(
                &Batch {
                    level: 99,
                    ..batch(4, 9)
                },
                &stored(4)
            )
            .contains("level 99")
        );
        assert!(
            refusal(
                &Batch {
                    records: vec![record(6, ""), record(5, "")],
                    ..batch(4, 9)
                },
                &stored(4)
            )
            .contains("ascending")
        );
        assert!(
            refusal(
                &Batch {
                    records: vec![record(10, "")],
                    ..batch(4, 9)
                },
                &stored(4)
            )
            .contains("within")
        );
        assert!(
            refusal(
                &batch(4, 9),
                &PartitionRow {
                    dead: true,
                    ..stored(4)
                }
            )
            .contains("dead_letters")
        );
    }
}
