//! What goes between aggregators and leaves, in wire form and back.
//!
//! Conditions and aggregates travel in DataFusion's own encoding. A leaf takes nothing else: a condition must be one
//! that may be pushed down, and what arrives as an aggregate must be one partial aggregate over an empty input, or it
//! is refused.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use datafusion::{
    arrow::{
        array::{ArrayRef, RecordBatch},
        buffer::Buffer,
        datatypes::SchemaRef,
        ipc::{reader::StreamDecoder, writer::StreamWriter},
    },
    error::DataFusionError,
    logical_expr::Expr,
    physical_plan::{
        ExecutionPlan,
        aggregates::{AggregateExec, AggregateMode},
        empty::EmptyExec,
    },
    scalar::ScalarValue,
};
use datafusion_proto::bytes::{Serializeable as _, physical_plan_from_bytes, physical_plan_to_bytes};
use proto::{
    Code, Problem,
    limits::PART_BYTES_MAX,
    wire::{
        ingest::{self as wire_ingest, query_bytes, query_id, there, vector},
        leaf as wire,
        problem::malformed,
    },
};

use crate::{
    Column, Kinds, Path, PathKinds, functions, pushdown,
    scan::{
        After, DeadLetter, Document, FieldStatus, Misfit, PartialAggregate, Read, ReadCounts, ScanRequest, ShardStatus,
        SortKey, SplitStatus, Stage, Trailer,
    },
};

/// Words of [`FieldStatus::indexed`].
const INDEXED: [&str; 3] = ["columns", "text", "raw"];

fn unencodable(error: &impl std::fmt::Display) -> Problem {
    Problem::new(
        Code::NotSupported,
        format!("a part of the question cannot be told to a leaf: {error}"),
    )
}

fn undecodable(error: &impl std::fmt::Display) -> Problem {
    malformed(&error.to_string())
}

fn column(name: &str) -> Result<Column, Problem> {
    Column::parse(name).ok_or_else(|| malformed(&format!("{name:?} is no column")))
}

fn path(text: &str) -> Result<Path, Problem> {
    Path::parse(text).map_err(|e| malformed(&e))
}

/// A request, with the time that is left for it.
pub fn request(request: &ScanRequest) -> Result<wire::ScanRequest, Problem> {
    let stage = match &request.stage {
        Stage::Rows { limit } => wire::scan_request::Stage::Rows(wire::Rows {
            limit: limit.map(|limit| limit as u64),
        }),
        Stage::Top { keys, after, limit } => wire::scan_request::Stage::Top(wire::Top {
            keys: keys.iter().map(sort_key).collect(),
            after: after.as_ref().map(after_bytes).transpose()?,
            limit: *limit as u64,
        }),
        Stage::Partial(aggregate) => {
            wire::scan_request::Stage::Partial(partial_bytes(aggregate).map_err(|e| unencodable(&e))?)
        }
    };
    Ok(wire::ScanRequest {
        query: query_bytes(request.query),
        shard: Some(request.shard.into()),
        raw: request.read == Read::Raw,
        time_path: request.time_path.as_ref().map(Path::to_string),
        columns: request.columns.iter().map(Column::name).collect(),
        filter: request
            .filter
            .iter()
            .map(Expr::to_bytes)
            .collect::<Result<_, _>>()
            .map_err(|e| unencodable(&e))?,
        stage: Some(stage),
        wait_ms: request.deadline.saturating_duration_since(Instant::now()).as_millis() as u64,
    })
}

/// A request as it came; nothing is in it that a leaf should not run.
pub fn read_request(told: wire::ScanRequest) -> Result<ScanRequest, Problem> {
    let columns = told
        .columns
        .iter()
        .map(|name| column(name))
        .collect::<Result<Vec<_>, _>>()?;
    let stage = match there(told.stage, "the stage")? {
        wire::scan_request::Stage::Rows(rows) => Stage::Rows {
            limit: rows.limit.map(|limit| limit as usize),
        },
        wire::scan_request::Stage::Top(top) => Stage::Top {
            keys: top.keys.iter().map(read_sort_key).collect::<Result<_, _>>()?,
            after: top.after.map(read_after).transpose()?,
            limit: top.limit as usize,
        },
        wire::scan_request::Stage::Partial(bytes) => Stage::Partial(Arc::new(read_partial(&bytes)?)),
    };
    let filter = told
        .filter
        .iter()
        .map(|bytes| condition(bytes))
        .collect::<Result<_, _>>()?;
    Ok(ScanRequest {
        query: query_id(&told.query)?,
        shard: wire_ingest::shard(told.shard)?,
        read: if told.raw { Read::Raw } else { Read::Auto },
        time_path: told.time_path.as_deref().map(path).transpose()?,
        columns,
        filter,
        stage,
        deadline: Instant::now() + Duration::from_millis(told.wait_ms),
    })
}

fn condition(bytes: &[u8]) -> Result<Expr, Problem> {
    let condition = Expr::from_bytes_with_ctx(bytes, functions::by_name()).map_err(|e| undecodable(&e))?;
    match pushdown::is_exact(&condition) {
        true => Ok(condition),
        false => Err(malformed(&format!("a leaf does not evaluate {condition}"))),
    }
}

fn sort_key(key: &SortKey) -> wire::SortKey {
    wire::SortKey {
        column: key.column.name(),
        descending: key.descending,
        nulls_first: key.nulls_first,
    }
}

fn read_sort_key(key: &wire::SortKey) -> Result<SortKey, Problem> {
    Ok(SortKey {
        column: column(&key.column)?,
        descending: key.descending,
        nulls_first: key.nulls_first,
    })
}

fn after_bytes(after: &After) -> Result<wire::After, Problem> {
    let array =
        |(at, value): (usize, &ScalarValue)| Ok::<_, DataFusionError>((format!("{at}"), value.to_array()?, true));
    let columns = after
        .values
        .iter()
        .enumerate()
        .map(array)
        .collect::<Result<Vec<(String, ArrayRef, bool)>, _>>();
    let values = columns.and_then(|columns| {
        let row = RecordBatch::try_from_iter_with_nullable(columns)?;
        let mut writer = StreamWriter::try_new(Vec::new(), row.schema_ref())?;
        writer.write(&row)?;
        writer.finish()?;
        Ok(writer.into_inner()?)
    });
    Ok(wire::After {
        values: values.map_err(|e| unencodable(&e))?.into(),
        address: after.address.to_string(),
    })
}

fn read_after(after: wire::After) -> Result<After, Problem> {
    let address = after
        .address
        .parse()
        .map_err(|e: proto::address::Malformed| undecodable(&e))?;
    let mut rows = Rows::default();
    let batches = rows.read(after.values)?;
    let row = there(batches.first(), "the row")?;
    let values = row
        .columns()
        .iter()
        .map(|column| ScalarValue::try_from_array(column, 0))
        .collect::<Result<_, _>>();
    Ok(After {
        values: values.map_err(|e| undecodable(&e))?,
        address,
    })
}

fn partial_bytes(aggregate: &PartialAggregate) -> Result<Bytes, DataFusionError> {
    let plan = AggregateExec::try_new(
        AggregateMode::Partial,
        aggregate.group_by.clone(),
        aggregate.aggregates.clone(),
        aggregate.filters.clone(),
        Arc::new(EmptyExec::new(aggregate.input.clone())),
        aggregate.input.clone(),
    )?;
    physical_plan_to_bytes(Arc::new(plan))
}

fn read_partial(bytes: &[u8]) -> Result<PartialAggregate, Problem> {
    let plan = physical_plan_from_bytes(bytes, functions::by_name()).map_err(|e| undecodable(&e))?;
    let aggregate = plan
        .downcast_ref::<AggregateExec>()
        .filter(|aggregate| *aggregate.mode() == AggregateMode::Partial);
    let Some(aggregate) = aggregate.filter(|aggregate| aggregate.input().is::<EmptyExec>()) else {
        return Err(malformed("a leaf runs one partial aggregate and no other plan"));
    };
    Ok(PartialAggregate {
        group_by: aggregate.group_expr().clone(),
        aggregates: aggregate.aggr_expr().to_vec(),
        filters: aggregate.filter_expr().to_vec(),
        input: aggregate.input().schema(),
        output: aggregate.schema(),
    })
}

/// Batches -> the bytes of one Arrow IPC stream, in parts.
pub struct Parts {
    writer: StreamWriter<Vec<u8>>,
}

impl Parts {
    /// For batches of this schema.
    pub fn new(schema: &SchemaRef) -> Result<Self, Problem> {
        Ok(Self {
            writer: StreamWriter::try_new(Vec::new(), schema).map_err(|e| unencodable(&e))?,
        })
    }

    /// The parts of a batch.
    pub fn of(&mut self, batch: &RecordBatch) -> Result<Vec<wire::ScanPart>, Problem> {
        self.writer.write(batch).map_err(|e| unencodable(&e))?;
        Ok(self.written())
    }

    /// The end of the stream, and then that of the answer. A batch without bytes (rows that have no column) is read
    /// when something follows it.
    pub fn end(&mut self, trailer: Trailer) -> Result<Vec<wire::ScanPart>, Problem> {
        self.writer.finish().map_err(|e| unencodable(&e))?;
        let mut parts = self.written();
        parts.push(wire::ScanPart {
            part: Some(wire::scan_part::Part::End(told(trailer))),
        });
        Ok(parts)
    }

    /// The statistics up to here.
    pub fn so_far(trailer: Trailer) -> wire::ScanPart {
        wire::ScanPart {
            part: Some(wire::scan_part::Part::SoFar(told(trailer))),
        }
    }

    fn written(&mut self) -> Vec<wire::ScanPart> {
        let written = Bytes::from(std::mem::take(self.writer.get_mut()));
        let cut = |from: usize| written.slice(from..(from + PART_BYTES_MAX).min(written.len()));
        let part = |bytes| wire::ScanPart {
            part: Some(wire::scan_part::Part::Arrow(bytes)),
        };
        (0..written.len()).step_by(PART_BYTES_MAX).map(cut).map(part).collect()
    }
}

/// The bytes of one Arrow IPC stream -> batches, as they come.
#[derive(Default)]
pub struct Rows {
    decoder: StreamDecoder,
}

impl Rows {
    /// The batches that these bytes complete.
    pub fn read(&mut self, bytes: Bytes) -> Result<Vec<RecordBatch>, Problem> {
        let (mut buffer, mut batches) = (Buffer::from(bytes), Vec::new());
        while !buffer.is_empty() {
            batches.extend(self.decoder.decode(&mut buffer).map_err(|e| undecodable(&e))?);
        }
        Ok(batches)
    }
}

fn told(trailer: Trailer) -> wire::Trailer {
    let misfit = |m: Misfit| wire::Misfit {
        column: m.column.name(),
        values: m.values,
        of: m.of,
    };
    wire::Trailer {
        documents: trailer.documents,
        matched: trailer.matched,
        shipped: trailer.shipped,
        read_index: trailer.counts.index,
        read_columns: trailer.counts.columns,
        read_raw: trailer.counts.raw,
        misfits: trailer.misfits.into_iter().map(misfit).collect(),
        warnings: trailer.warnings,
    }
}

/// The statistics of a scan, from its end or from before.
pub fn end_of(told: wire::Trailer) -> Result<Trailer, Problem> {
    let misfit = |m: wire::Misfit| {
        Ok(Misfit {
            column: column(&m.column)?,
            values: m.values,
            of: m.of,
        })
    };
    Ok(Trailer {
        documents: told.documents,
        matched: told.matched,
        shipped: told.shipped,
        counts: ReadCounts {
            index: told.read_index,
            columns: told.read_columns,
            raw: told.read_raw,
        },
        misfits: told.misfits.into_iter().map(misfit).collect::<Result<_, Problem>>()?,
        warnings: told.warnings,
    })
}

impl From<&PathKinds> for wire::Paths {
    fn from(paths: &PathKinds) -> Self {
        let (paths_, kinds) = paths
            .paths
            .iter()
            .map(|(path, kinds)| (path.to_string(), u32::from(kinds.0)))
            .unzip();
        Self {
            paths: paths_,
            kinds,
            overflow: paths.overflow,
        }
    }
}

impl TryFrom<wire::Paths> for PathKinds {
    type Error = Problem;
    fn try_from(told: wire::Paths) -> Result<Self, Problem> {
        if told.paths.len() != told.kinds.len() {
            return Err(malformed("paths and kinds are not as many"));
        }
        let pair = |(text, kinds): (&String, &u32)| {
            Ok((path(text)?, Kinds(u16::try_from(*kinds).map_err(|e| undecodable(&e))?)))
        };
        let paths = told
            .paths
            .iter()
            .zip(&told.kinds)
            .map(pair)
            .collect::<Result<BTreeMap<_, _>, Problem>>()?;
        Ok(Self {
            paths,
            overflow: told.overflow,
        })
    }
}

impl From<Document> for wire::Document {
    fn from(document: Document) -> Self {
        Self {
            address: document.address.to_string(),
            id: document.id,
            bytes: document.bytes,
            json: document.json,
        }
    }
}

impl TryFrom<wire::Document> for Document {
    type Error = Problem;
    fn try_from(told: wire::Document) -> Result<Self, Problem> {
        let address = told
            .address
            .parse()
            .map_err(|e: proto::address::Malformed| undecodable(&e))?;
        Ok(Self {
            address,
            id: told.id,
            bytes: told.bytes,
            json: told.json,
        })
    }
}

impl From<FieldStatus> for wire::Field {
    fn from(field: FieldStatus) -> Self {
        Self {
            path: field.path.to_string(),
            kinds: field.kinds.0.into(),
            documents: field.documents,
            indexed: field.indexed.to_owned(),
            sample: field.sample,
        }
    }
}

impl TryFrom<wire::Field> for FieldStatus {
    type Error = Problem;
    fn try_from(told: wire::Field) -> Result<Self, Problem> {
        Ok(Self {
            path: path(&told.path)?,
            kinds: Kinds(u16::try_from(told.kinds).map_err(|e| undecodable(&e))?),
            documents: told.documents,
            indexed: there(
                INDEXED.into_iter().find(|word| *word == told.indexed),
                "how the field is indexed",
            )?,
            sample: told.sample,
        })
    }
}

impl From<ShardStatus> for wire::ShardStatus {
    fn from(status: ShardStatus) -> Self {
        let split = |split: SplitStatus| wire::Split {
            id: split.id,
            on_disk: split.place == "disk",
            generation: split.generation,
            documents: split.documents,
            gone: split.gone,
            bytes: split.bytes,
            paths: split.paths,
        };
        Self {
            shard: Some(status.shard.into()),
            positions: wire_ingest::positions(&status.positions),
            outcomes: Some(status.outcomes.into()),
            tail: status.tail,
            splits: status.splits.into_iter().map(split).collect(),
            bytes: status.bytes,
        }
    }
}

impl TryFrom<wire::ShardStatus> for ShardStatus {
    type Error = Problem;
    fn try_from(told: wire::ShardStatus) -> Result<Self, Problem> {
        let split = |split: wire::Split| SplitStatus {
            id: split.id,
            place: if split.on_disk { "disk" } else { "memory" },
            generation: split.generation,
            documents: split.documents,
            gone: split.gone,
            bytes: split.bytes,
            paths: split.paths,
        };
        Ok(Self {
            shard: wire_ingest::shard(told.shard)?,
            positions: vector(told.positions)?,
            outcomes: there(told.outcomes, "the outcomes")?.into(),
            tail: told.tail,
            splits: told.splits.into_iter().map(split).collect(),
            bytes: told.bytes,
        })
    }
}

impl From<DeadLetter> for wire::DeadLetter {
    fn from(letter: DeadLetter) -> Self {
        Self {
            address: letter.address.to_string(),
            ingested_ms: letter.ingested_ms,
            code: letter.code,
            detail: letter.detail,
            bytes: letter.bytes,
            length: letter.length,
        }
    }
}

impl TryFrom<wire::DeadLetter> for DeadLetter {
    type Error = Problem;
    fn try_from(told: wire::DeadLetter) -> Result<Self, Problem> {
        let address = told
            .address
            .parse()
            .map_err(|e: proto::address::Malformed| undecodable(&e))?;
        Ok(Self {
            address,
            ingested_ms: told.ingested_ms,
            code: told.code,
            detail: told.detail,
            bytes: told.bytes,
            length: told.length,
        })
    }
}
