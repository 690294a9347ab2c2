//! Converts the parts of a scan's answer, rows and statistics, to and from their wire form.

use std::time::Duration;

use bytes::Bytes;
use datafusion::arrow::{
    array::RecordBatch,
    buffer::Buffer,
    datatypes::SchemaRef,
    ipc::{reader::StreamDecoder, writer::StreamWriter},
};
use proto::{
    Problem,
    limits::PART_BYTES_MAX,
    wire::leaf::{self as wire, scan_part::Part},
};

use super::{column, undecodable, unencodable};
use crate::{
    Column,
    scan::{CastFailure, ColumnReads, ConditionCounts, ReadCounts, ScanTrailer},
};

/// Encodes the answer of one shard: its batches, as one Arrow IPC stream that is split into parts, and its statistics.
pub struct AnswerEncoder {
    /// The index of the shard in the request.
    shard: u32,
    writer: StreamWriter<Vec<u8>>,
}

impl AnswerEncoder {
    /// An encoder for batches of this schema, for the shard with this index in the request.
    pub fn new(shard: u32, schema: &SchemaRef) -> Result<Self, Problem> {
        Ok(Self {
            shard,
            writer: StreamWriter::try_new(Vec::new(), schema).map_err(|e| unencodable(&e))?,
        })
    }

    /// The parts of a batch.
    pub fn encode(&mut self, batch: &RecordBatch) -> Result<Vec<wire::ScanPart>, Problem> {
        self.writer.write(batch).map_err(|e| unencodable(&e))?;
        Ok(self.written())
    }

    /// The end of the stream, followed by the end of the answer. The decoder returns a batch without bytes (rows
    /// without columns) only once something follows it.
    pub fn end(&mut self, trailer: ScanTrailer) -> Result<Vec<wire::ScanPart>, Problem> {
        self.writer.finish().map_err(|e| unencodable(&e))?;
        let mut parts = self.written();
        parts.push(self.part(Part::End(encode_trailer(trailer))));
        Ok(parts)
    }

    /// The statistics so far.
    pub fn progress(&self, trailer: ScanTrailer) -> wire::ScanPart {
        self.part(Part::SoFar(encode_trailer(trailer)))
    }

    /// The end of an answer that has failed.
    pub fn problem(&self, problem: Problem) -> wire::ScanPart {
        self.part(Part::Problem(problem.into()))
    }

    fn part(&self, part: Part) -> wire::ScanPart {
        wire::ScanPart {
            part: Some(part),
            shard: self.shard,
        }
    }

    fn written(&mut self) -> Vec<wire::ScanPart> {
        let written = Bytes::from(std::mem::take(self.writer.get_mut()));
        let slice = |from: usize| written.slice(from..(from + PART_BYTES_MAX).min(written.len()));
        (0..written.len())
            .step_by(PART_BYTES_MAX)
            .map(slice)
            .map(|bytes| self.part(Part::Arrow(bytes)))
            .collect()
    }
}

/// Decodes the bytes of one Arrow IPC stream, which arrive in parts, into batches.
#[derive(Default)]
pub struct BatchDecoder {
    decoder: StreamDecoder,
}

impl BatchDecoder {
    /// The batches that these bytes complete.
    pub fn decode(&mut self, bytes: Bytes) -> Result<Vec<RecordBatch>, Problem> {
        let (mut buffer, mut batches) = (Buffer::from(bytes), Vec::new());
        while !buffer.is_empty() {
            batches.extend(self.decoder.decode(&mut buffer).map_err(|e| undecodable(&e))?);
        }
        Ok(batches)
    }
}

fn encode_trailer(trailer: ScanTrailer) -> wire::Trailer {
    let failure = |m: CastFailure| wire::Misfit {
        column: m.column.name(),
        values: m.values,
        of: m.total,
    };
    wire::Trailer {
        documents: trailer.documents,
        matched: trailer.matched,
        shipped: trailer.shipped,
        read_index: trailer.counts.index,
        read_columns: trailer.counts.columns,
        read_raw: trailer.counts.raw,
        read_cached: trailer.counts.cached,
        read_pruned: trailer.counts.pruned,
        index_us: u64::try_from(trailer.index_time.as_micros()).unwrap_or(u64::MAX),
        misfits: trailer.cast_failures.into_iter().map(failure).collect(),
        without_result: (trailer.warnings.into_iter())
            .map(|(column, values, of)| wire::Misfit { column, values, of })
            .collect(),
        conditions: trailer.conditions.iter().map(encode_condition).collect(),
        column_reads: (trailer.column_reads.iter())
            .map(|(column, reads)| encode_reads(column, reads))
            .collect(),
    }
}

fn encode_condition(counts: &ConditionCounts) -> wire::ConditionCounts {
    wire::ConditionCounts {
        pruned: counts.pruned,
        index: counts.index,
        distinct: counts.distinct,
        bytes: counts.bytes,
        evaluated: counts.evaluated,
    }
}

fn decode_condition(message: &wire::ConditionCounts) -> ConditionCounts {
    ConditionCounts {
        pruned: message.pruned,
        index: message.index,
        distinct: message.distinct,
        bytes: message.bytes,
        evaluated: message.evaluated,
    }
}

fn encode_reads(column: &Column, reads: &ColumnReads) -> wire::ColumnReads {
    wire::ColumnReads {
        column: column.name(),
        stored: reads.stored,
        asked: reads.asked,
        tail: reads.tail,
        unstored: reads.unstored,
        outside: reads.outside,
    }
}

fn decode_reads(message: &wire::ColumnReads) -> Result<(Column, ColumnReads), Problem> {
    let reads = ColumnReads {
        stored: message.stored,
        asked: message.asked,
        tail: message.tail,
        unstored: message.unstored,
        outside: message.outside,
    };
    Ok((column(&message.column)?, reads))
}

/// Decodes the statistics of a scan.
pub fn decode_trailer(message: wire::Trailer) -> Result<ScanTrailer, Problem> {
    let failure = |m: wire::Misfit| {
        Ok(CastFailure {
            column: column(&m.column)?,
            values: m.values,
            total: m.of,
        })
    };
    Ok(ScanTrailer {
        documents: message.documents,
        matched: message.matched,
        shipped: message.shipped,
        counts: ReadCounts {
            index: message.read_index,
            columns: message.read_columns,
            raw: message.read_raw,
            cached: message.read_cached,
            pruned: message.read_pruned,
        },
        index_time: Duration::from_micros(message.index_us),
        cast_failures: message
            .misfits
            .into_iter()
            .map(failure)
            .collect::<Result<_, Problem>>()?,
        warnings: (message.without_result.into_iter())
            .map(|misfit| (misfit.column, misfit.values, misfit.of))
            .collect(),
        conditions: message.conditions.iter().map(decode_condition).collect(),
        column_reads: (message.column_reads.iter())
            .map(decode_reads)
            .collect::<Result<_, Problem>>()?,
    })
}
