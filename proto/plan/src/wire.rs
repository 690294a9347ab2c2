//! Converts the messages between aggregators and leaves to and from their wire form.
//!
//! Conditions and aggregates travel in DataFusion's own encoding. A leaf rejects anything else that this encoding could
//! carry: a condition must be one that may be pushed down, and an aggregate must be one partial aggregate over an empty
//! input.

mod answer;

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use datafusion::{
    error::DataFusionError,
    logical_expr::Expr,
    physical_plan::{
        aggregates::{AggregateExec, AggregateMode},
        empty::EmptyExec,
    },
};
use datafusion_proto::bytes::{Serializeable as _, physical_plan_from_bytes, physical_plan_to_bytes};
use proto::{
    Address, Code, Problem,
    ingest::ShardId,
    limits::SHARDS_MAX,
    wire::{
        ingest::{self as wire_ingest, require},
        leaf as wire,
        problem::malformed,
    },
};
use uuid::Uuid;

pub use self::answer::{AnswerEncoder, BatchDecoder, decode_trailer};
use crate::{
    Column, Path, functions, pushdown,
    scan::{PageStart, PartialAggregate, ScanRequest, ScanSource, SortKey, Stage},
};

fn unencodable(error: &impl std::fmt::Display) -> Problem {
    Problem::new(
        Code::NotSupported,
        format!("a part of the query cannot be sent to a leaf: {error}"),
    )
}

fn undecodable(error: &impl std::fmt::Display) -> Problem {
    malformed(&error.to_string())
}

fn column(name: &str) -> Result<Column, Problem> {
    Column::parse(name).ok_or_else(|| malformed(&format!("{name:?} is not a column")))
}

fn path(text: &str) -> Result<Path, Problem> {
    Path::parse(text).map_err(|e| malformed(&e))
}

fn address(text: &str) -> Result<Address, Problem> {
    text.parse().map_err(|e: proto::address::Malformed| undecodable(&e))
}

/// Encodes a request without its shards, for views that the caller adds. Its deadline is sent as the time that is left.
pub fn encode_request(request: &ScanRequest) -> Result<wire::ScanRequest, Problem> {
    let stage = match &request.stage {
        Stage::Rows { limit } => wire::scan_request::Stage::Rows(wire::Rows {
            limit: limit.map(|limit| limit as u64),
        }),
        Stage::Top {
            keys,
            after,
            limit,
            counts_all,
        } => wire::scan_request::Stage::Top(wire::Top {
            keys: keys.iter().map(encode_sort_key).collect(),
            after: after.as_ref().map(encode_page_start).transpose()?,
            limit: *limit as u64,
            counts_all: *counts_all,
        }),
        Stage::Partial(aggregate) => {
            wire::scan_request::Stage::Partial(encode_aggregate(aggregate).map_err(|e| unencodable(&e))?)
        }
    };
    Ok(wire::ScanRequest {
        views: Bytes::new(),
        shards: Vec::new(),
        raw: request.read == ScanSource::Raw,
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

/// Bytes that are equal only for requests that want the same, of whatever shards. Different texts of the same condition
/// may have different bytes.
pub fn request_key(request: &ScanRequest) -> Result<Vec<u8>, Problem> {
    let message = wire::ScanRequest {
        wait_ms: 0,
        ..encode_request(request)?
    };
    Ok(proto::wire::bytes_of(&message))
}

/// Whether a leaf scans the views that it has opened in the same call: it opened all of them, and the caller, who
/// planned the scan, knows the path table of each.
pub fn is_scanned(opened: &wire::OpenAnswer) -> bool {
    let is_known = |outcome: &wire::OpenOutcome| match &outcome.outcome {
        Some(wire::open_outcome::Outcome::View(view)) => view.paths.is_none(),
        _ => false,
    };
    opened.outcomes.iter().all(is_known)
}

/// Which views a scan reads, and until when.
#[derive(Debug, Clone)]
pub struct ScanHead {
    /// The id of the views.
    pub views: Uuid,
    /// The shards, at least one.
    pub shards: Vec<ShardId>,
    /// When the scan must end.
    pub deadline: Instant,
}

/// Takes out of a request what differs between requests that want the same.
pub fn take_head(message: &mut wire::ScanRequest) -> Result<ScanHead, Problem> {
    let shards = std::mem::take(&mut message.shards).into_iter();
    let shards = shards.map(|shard| wire_ingest::shard(Some(shard)));
    let shards = shards.collect::<Result<Vec<ShardId>, _>>()?;
    if !(1..=SHARDS_MAX as usize).contains(&shards.len()) {
        return Err(malformed(&format!("a scan of {} shards", shards.len())));
    }
    Ok(ScanHead {
        views: wire_ingest::uid(&std::mem::take(&mut message.views))?,
        shards,
        deadline: Instant::now() + Duration::from_millis(std::mem::take(&mut message.wait_ms)),
    })
}

/// Decodes a request whose head was taken. Fails if it contains anything that a leaf must not run.
pub fn decode_request(head: ScanHead, message: wire::ScanRequest) -> Result<ScanRequest, Problem> {
    let columns = message
        .columns
        .iter()
        .map(|name| column(name))
        .collect::<Result<Vec<_>, _>>()?;
    let stage = match require(message.stage, "the stage")? {
        wire::scan_request::Stage::Rows(rows) => Stage::Rows {
            limit: rows.limit.map(|limit| limit as usize),
        },
        wire::scan_request::Stage::Top(top) => Stage::Top {
            keys: top.keys.iter().map(decode_sort_key).collect::<Result<_, _>>()?,
            after: top.after.as_ref().map(decode_page_start).transpose()?,
            limit: top.limit as usize,
            counts_all: top.counts_all,
        },
        wire::scan_request::Stage::Partial(bytes) => Stage::Partial(Arc::new(decode_aggregate(&bytes)?)),
    };
    let filter = message
        .filter
        .iter()
        .map(|bytes| decode_condition(bytes))
        .collect::<Result<_, _>>()?;
    let ScanHead { shards, deadline, .. } = head;
    Ok(ScanRequest {
        shards,
        read: if message.raw { ScanSource::Raw } else { ScanSource::Auto },
        time_path: message.time_path.as_deref().map(path).transpose()?,
        columns,
        filter,
        stage,
        deadline,
    })
}

fn decode_condition(bytes: &[u8]) -> Result<Expr, Problem> {
    let condition = Expr::from_bytes_with_ctx(bytes, functions::task_context()).map_err(|e| undecodable(&e))?;
    match pushdown::is_exact(&condition) {
        true => Ok(condition),
        false => Err(malformed(&format!("a leaf cannot evaluate {condition}"))),
    }
}

fn encode_sort_key(key: &SortKey) -> wire::SortKey {
    wire::SortKey {
        column: key.column.name(),
        descending: key.descending,
        nulls_first: key.nulls_first,
    }
}

fn decode_sort_key(key: &wire::SortKey) -> Result<SortKey, Problem> {
    Ok(SortKey {
        column: column(&key.column)?,
        descending: key.descending,
        nulls_first: key.nulls_first,
    })
}

fn encode_page_start(after: &PageStart) -> Result<wire::After, Problem> {
    let values = after
        .values
        .iter()
        .map(|value| Expr::Literal(value.clone(), None).to_bytes());
    Ok(wire::After {
        values: values.collect::<Result<_, _>>().map_err(|e| unencodable(&e))?,
        address: after.address.to_string(),
    })
}

fn decode_page_start(after: &wire::After) -> Result<PageStart, Problem> {
    let value = |bytes: &Bytes| match Expr::from_bytes_with_ctx(bytes, functions::task_context()) {
        Ok(Expr::Literal(value, _)) => Ok(value),
        Ok(other) => Err(malformed(&format!("{other} is not a value"))),
        Err(error) => Err(undecodable(&error)),
    };
    Ok(PageStart {
        values: after.values.iter().map(value).collect::<Result<_, _>>()?,
        address: address(&after.address)?,
    })
}

fn encode_aggregate(aggregate: &PartialAggregate) -> Result<Bytes, DataFusionError> {
    let empty = EmptyExec::new(aggregate.input.clone());
    physical_plan_to_bytes(Arc::new(aggregate.over(Arc::new(empty))?))
}

fn decode_aggregate(bytes: &[u8]) -> Result<PartialAggregate, Problem> {
    let plan = physical_plan_from_bytes(bytes, functions::task_context()).map_err(|e| undecodable(&e))?;
    let aggregate = plan
        .downcast_ref::<AggregateExec>()
        .filter(|aggregate| *aggregate.mode() == AggregateMode::Partial);
    let Some(aggregate) = aggregate.filter(|aggregate| aggregate.input().is::<EmptyExec>()) else {
        return Err(malformed("a leaf runs one partial aggregate and no other plan"));
    };
    Ok(PartialAggregate::of(aggregate))
}
