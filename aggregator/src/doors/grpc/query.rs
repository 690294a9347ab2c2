//! `rachis.v1.Query`: SQL with a streamed answer, searches, and documents by id.

use std::{pin::Pin, sync::Arc, time::Duration};

use futures::{Stream, StreamExt as _, stream};
use plan::scan::ScanSource;
use proto::{
    Code, PositionVector, Problem,
    limits::PART_BYTES_MAX,
    wire::{
        problem::malformed,
        v1::{self as wire, query_server, sql_part},
    },
};
use tonic::{Request, Response, Status};

use super::non_empty;
use crate::{
    answer::{
        Answer, AnswerChunk, Bucket, Facet, FacetValue, Highlight, Histogram, Hit, QueryOptions, SearchQuery,
        SearchedField, SearchedFields, SqlQuery, Stats, type_name,
    },
    doors::{
        answer_writer::{AnswerFormat, AnswerWriter},
        names::collection_name,
    },
    query::Engine,
};

/// The query service of an aggregator.
pub(super) struct QueryService {
    pub engine: Arc<Engine>,
}

fn query_options(options: Option<wire::How>) -> Result<QueryOptions, Problem> {
    let options = options.unwrap_or_default();
    let at_least = match options.at_least.as_str() {
        "" => PositionVector::default(),
        text => text
            .parse()
            .map_err(|e: proto::address::Malformed| Problem::new(Code::BadRequest, e.to_string()))?,
    };
    let timeout = (options.timeout_ms > 0).then(|| Duration::from_millis(options.timeout_ms));
    let id = non_empty(options.query_id)
        .map(|text| QueryOptions::parse_query_id(&text))
        .transpose()?;
    Ok(QueryOptions {
        at_least,
        allow_partial: options.allow_partial,
        timeout,
        read: if options.raw { ScanSource::Raw } else { ScanSource::Auto },
        id,
    })
}

fn wire_stats(stats: &Stats) -> wire::Stats {
    wire::Stats {
        query_id: stats.query_id.map(|id| id.to_string()).unwrap_or_default(),
        elapsed_ms: stats.elapsed_ms,
        freshness_ms: stats.freshness_ms,
        position: stats.position.to_string(),
        shards_total: stats.shards_total,
        shards_answered: stats.shards_answered,
        documents_scanned: stats.documents_scanned,
        rows_shipped: stats.rows_shipped,
        read_index: stats.read.index,
        read_columns: stats.read.columns,
        read_raw: stats.read.raw,
        read_cached: stats.read.cached,
        read_pruned: stats.read.pruned,
        index_us: u64::try_from(stats.index_time.as_micros()).unwrap_or(u64::MAX),
        partial: stats.partial,
        truncated: stats.truncated,
        warnings: stats.warnings.clone(),
    }
}

fn wire_hit(hit: Hit) -> wire::Hit {
    wire::Hit {
        id: hit.id,
        address: hit.address,
        document: hit.document,
        json: hit.json,
        score: hit.score,
        highlights: hit.highlights.into_iter().map(wire_highlight).collect(),
    }
}

fn wire_highlight(found: Highlight) -> wire::Highlight {
    wire::Highlight {
        path: found.path,
        fragments: found.fragments,
    }
}

fn wire_facet(facet: Facet) -> wire::Facet {
    let value = |FacetValue { value, count }| wire::FacetValue { value, count };
    wire::Facet {
        path: facet.path,
        values: facet.values.into_iter().map(value).collect(),
        others: facet.others,
    }
}

fn wire_histogram(histogram: Histogram) -> wire::Histogram {
    let bucket = |Bucket { time, count }| wire::Bucket { time_us: time, count };
    wire::Histogram {
        interval: histogram.interval,
        buckets: histogram.buckets.into_iter().map(bucket).collect(),
    }
}

fn wire_fields(found: SearchedFields) -> wire::SearchedFields {
    let field = |field: SearchedField| wire::SearchedField {
        path: field.path,
        kinds: field.kinds.names().into_iter().map(str::to_owned).collect(),
        documents: field.documents,
        samples: field.samples,
    };
    wire::SearchedFields {
        documents: found.documents,
        fields: found.fields.into_iter().map(field).collect(),
    }
}

/// Converts an answer to messages: the columns, the rows in pieces of a bounded size, the statistics.
fn sql_parts(
    answer: Answer,
    form: wire::Form,
) -> Result<impl Stream<Item = Result<wire::SqlPart, Status>> + Send, Problem> {
    let format = match form {
        wire::Form::Arrow => AnswerFormat::Arrow,
        wire::Form::Ndjson => AnswerFormat::Ndjson,
    };
    let mut writer = AnswerWriter::new(format, answer.schema.clone())?;
    let column = |field: &Arc<datafusion::arrow::datatypes::Field>| wire::Column {
        name: field.name().clone(),
        r#type: type_name(field.data_type()),
    };
    let columns = wire::Columns {
        columns: answer.schema.fields().iter().map(column).collect(),
    };
    let head = wire::SqlPart {
        part: Some(sql_part::Part::Columns(columns)),
    };
    let rest = answer.chunks.flat_map(move |chunk| {
        let messages: Vec<Result<wire::SqlPart, Status>> = match chunk.and_then(|chunk| encode(&mut writer, chunk)) {
            Ok(parts) => parts
                .into_iter()
                .map(|part| Ok(wire::SqlPart { part: Some(part) }))
                .collect(),
            Err(problem) => vec![Err(problem.into())],
        };
        stream::iter(messages)
    });
    Ok(stream::iter([Ok(head)]).chain(rest))
}

fn encode(writer: &mut AnswerWriter, chunk: AnswerChunk) -> Result<Vec<sql_part::Part>, Problem> {
    let batch = match chunk {
        AnswerChunk::Rows(batch) => batch,
        AnswerChunk::End(stats) => return Ok(vec![sql_part::Part::End(wire_stats(&stats))]),
    };
    writer.rows(&batch)?;
    let bytes = writer.take();
    let piece = |from: usize| bytes.slice(from..(from + PART_BYTES_MAX).min(bytes.len()));
    Ok((0..bytes.len())
        .step_by(PART_BYTES_MAX)
        .map(|from| sql_part::Part::Rows(piece(from)))
        .collect())
}

#[tonic::async_trait]
impl query_server::Query for QueryService {
    type SqlStream = Pin<Box<dyn Stream<Item = Result<wire::SqlPart, Status>> + Send>>;

    async fn sql(&self, request: Request<wire::SqlRequest>) -> Result<Response<Self::SqlStream>, Status> {
        let request = request.into_inner();
        let form = request.form();
        let options = query_options(request.how)?;
        let parameter = |text: &String| {
            serde_json::from_str(text).map_err(|e| malformed(&format!("the parameter {text} is not JSON: {e}")))
        };
        let parameters = request.parameters.iter().map(parameter).collect::<Result<_, _>>()?;
        let answer = self
            .engine
            .query(SqlQuery {
                sql: request.sql,
                parameters,
                author: non_empty(request.author),
                all_rows: request.all_rows,
                options,
            })
            .await?;
        Ok(Response::new(sql_parts(answer, form)?.boxed()))
    }

    async fn search(&self, request: Request<wire::SearchRequest>) -> Result<Response<wire::SearchAnswer>, Status> {
        let request = request.into_inner();
        let options = query_options(request.how)?;
        let search = SearchQuery {
            collection: collection_name(&request.collection)?.to_string(),
            query: request.query,
            from: non_empty(request.from),
            to: non_empty(request.to),
            sort: non_empty(request.sort),
            limit: (request.limit > 0).then_some(request.limit as usize),
            after: non_empty(request.after),
            highlight: non_empty(request.highlight),
            facets: non_empty(request.facets),
            histogram: non_empty(request.histogram),
            fields: (request.fields > 0).then_some(Some(request.fields as usize)),
            options,
        };
        let answer = self.engine.search(search).await?;
        Ok(Response::new(wire::SearchAnswer {
            total: answer.total,
            after: answer.after.unwrap_or_default(),
            stats: Some(wire_stats(&answer.stats)),
            hits: answer.hits.into_iter().map(wire_hit).collect(),
            facets: answer.facets.into_iter().map(wire_facet).collect(),
            histogram: answer.histogram.map(wire_histogram),
            fields: answer.fields.map(wire_fields),
        }))
    }

    async fn document(
        &self,
        request: Request<wire::DocumentRequest>,
    ) -> Result<Response<wire::DocumentAnswer>, Status> {
        let request = request.into_inner();
        let name = collection_name(&request.collection)?;
        let document = self.engine.document(&name, &request.id).await?.ok_or_else(|| {
            Problem::new(
                Code::NotFound,
                format!("document {:?} does not exist in collection {name}", request.id),
            )
        })?;
        let address = document.address.to_string();
        Ok(Response::new(wire::DocumentAnswer {
            id: document.id,
            address,
            document: document.bytes,
            json: document.json,
        }))
    }
}
