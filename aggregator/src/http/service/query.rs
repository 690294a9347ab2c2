//! `rachis.v1.Query`.

use std::{pin::Pin, sync::Arc, time::Duration};

use futures::{Stream, StreamExt as _, stream};
use plan::scan::Read;
use proto::{
    Code, PositionVector, Problem,
    limits::PART_BYTES_MAX,
    wire::{
        problem::malformed,
        v1::{self as wire, query_server, sql_part},
    },
};
use tonic::{Request, Response, Status};

use super::{
    super::answer::{Form, Writer},
    collection, said,
};
use crate::{
    answer::{Answer, How, Part, Question, SearchQuestion, Stats},
    query::Engine,
};

/// The service.
pub struct QueryService {
    /// Who answers.
    pub engine: Arc<Engine>,
}

fn how(told: Option<wire::How>) -> Result<How, Problem> {
    let told = told.unwrap_or_default();
    let at_least = match told.at_least.as_str() {
        "" => PositionVector::default(),
        text => text
            .parse()
            .map_err(|e: proto::address::Malformed| Problem::new(Code::BadRequest, e.to_string()))?,
    };
    let timeout = (told.timeout_ms > 0).then(|| Duration::from_millis(told.timeout_ms));
    let id = said(told.query_id).map(|text| How::chosen_id(&text)).transpose()?;
    Ok(How {
        at_least,
        allow_partial: told.allow_partial,
        timeout,
        read: if told.raw { Read::Raw } else { Read::Auto },
        id,
    })
}

fn stats(stats: &Stats) -> wire::Stats {
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
        partial: stats.partial,
        truncated: stats.truncated,
        warnings: stats.warnings.clone(),
    }
}

/// The parts of an answer: columns, rows in pieces of a bounded size, the end.
fn parts(
    answer: Answer,
    form: wire::Form,
) -> Result<impl Stream<Item = Result<wire::SqlPart, Status>> + Send, Problem> {
    let form = match form {
        wire::Form::Arrow => Form::Arrow,
        wire::Form::Ndjson => Form::Ndjson,
    };
    let mut writer = Writer::new(form, answer.schema.clone())?;
    let column = |field: &Arc<datafusion::arrow::datatypes::Field>| wire::Column {
        name: field.name().clone(),
        r#type: crate::answer::type_name(field.data_type()),
    };
    let columns = wire::Columns {
        columns: answer.schema.fields().iter().map(column).collect(),
    };
    let head = wire::SqlPart {
        part: Some(sql_part::Part::Columns(columns)),
    };
    let rest = answer.parts.flat_map(move |part| {
        let told = part.and_then(|part| match part {
            Part::Rows(batch) => {
                writer.rows(&batch)?;
                let bytes = writer.take();
                let piece = |from: usize| bytes.slice(from..(from + PART_BYTES_MAX).min(bytes.len()));
                Ok((0..bytes.len())
                    .step_by(PART_BYTES_MAX)
                    .map(|from| sql_part::Part::Rows(piece(from)))
                    .collect())
            }
            Part::End(end) => Ok(vec![sql_part::Part::End(stats(&end))]),
        });
        match told {
            Ok(parts) => stream::iter(
                parts
                    .into_iter()
                    .map(|part| Ok(wire::SqlPart { part: Some(part) }))
                    .collect::<Vec<_>>(),
            ),
            Err(problem) => stream::iter(vec![Err(problem.into())]),
        }
    });
    Ok(stream::iter([Ok(head)]).chain(rest))
}

#[tonic::async_trait]
impl query_server::Query for QueryService {
    type SqlStream = Pin<Box<dyn Stream<Item = Result<wire::SqlPart, Status>> + Send>>;

    async fn sql(&self, request: Request<wire::SqlRequest>) -> Result<Response<Self::SqlStream>, Status> {
        let asked = request.into_inner();
        let form = asked.form();
        let how = how(asked.how)?;
        let parameter = |text: &String| {
            serde_json::from_str(text).map_err(|e| malformed(&format!("the parameter {text} is no JSON: {e}")))
        };
        let parameters = asked.parameters.iter().map(parameter).collect::<Result<_, _>>()?;
        let answer = self
            .engine
            .ask(Question {
                sql: asked.sql,
                parameters,
                how,
            })
            .await?;
        Ok(Response::new(parts(answer, form)?.boxed()))
    }

    async fn search(&self, request: Request<wire::SearchRequest>) -> Result<Response<wire::SearchAnswer>, Status> {
        let asked = request.into_inner();
        let how = how(asked.how)?;
        let question = SearchQuestion {
            collection: collection(&asked.collection)?.to_string(),
            query: asked.query,
            from: said(asked.from),
            to: said(asked.to),
            sort: said(asked.sort),
            limit: (asked.limit > 0).then_some(asked.limit as usize),
            after: said(asked.after),
            how,
        };
        let found = self.engine.search(question).await?;
        let hit = |hit: crate::answer::Hit| wire::Hit {
            id: hit.id,
            address: hit.address,
            document: hit.document,
            json: hit.json,
        };
        Ok(Response::new(wire::SearchAnswer {
            total: found.total,
            after: found.after.unwrap_or_default(),
            stats: Some(stats(&found.stats)),
            hits: found.hits.into_iter().map(hit).collect(),
        }))
    }

    async fn document(
        &self,
        request: Request<wire::DocumentRequest>,
    ) -> Result<Response<wire::DocumentAnswer>, Status> {
        let asked = request.into_inner();
        let name = collection(&asked.collection)?;
        let found = self.engine.document(&name, &asked.id).await?;
        let document = found
            .ok_or_else(|| Problem::new(Code::NotFound, format!("there is no document {:?} in {name}", asked.id)))?;
        let address = document.address.to_string();
        Ok(Response::new(wire::DocumentAnswer {
            id: document.id,
            address,
            document: document.bytes,
            json: document.json,
        }))
    }
}
