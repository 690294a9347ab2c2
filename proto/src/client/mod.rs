//! The other side of a role, in another process: the same traits, over gRPC.
//!
//! Two channels go to each peer, so that a stream of documents never holds back a small question. Every call has a
//! deadline; what the transport says becomes a problem like any other.

pub mod copy;
pub mod follower;
pub mod leaves;
pub mod nodes;
pub mod tailers;

use std::{sync::Arc, time::Duration};

use tokio::sync::watch;
use tonic::{
    Request,
    transport::{Channel, Endpoint},
};

use crate::{
    catalog::Catalog,
    cluster::NodeName,
    problem::{Code, Problem},
};

/// The metadata that names the version of the catalog which the caller has seen.
pub const CATALOG_METADATA: &str = "rachis-catalog";

const CONNECT_WAIT: Duration = Duration::from_secs(2);
const KEEPALIVE_EVERY: Duration = Duration::from_secs(5);
const KEEPALIVE_WAIT: Duration = Duration::from_secs(5);
const STREAM_WINDOW_BYTES: u32 = 4 << 20;
/// Streams hold each other up by nothing but their own windows: one that nobody reads must not stop the others of its
/// connection.
const CONNECTION_WINDOW_BYTES: u32 = 1 << 30;
/// How long a small question may take.
pub const ASK_WAIT: Duration = Duration::from_secs(10);

/// A node as another one calls it. Connects when it is first called, and again after a failure.
#[derive(Debug, Clone)]
pub struct Peer {
    /// Who.
    pub name: NodeName,
    /// For questions and small answers.
    pub control: Channel,
    /// For events and rows.
    pub data: Channel,
    catalog: watch::Receiver<Arc<Catalog>>,
}

impl Peer {
    /// A node at an address. Must be called within a tokio runtime. `catalog` is what this process has seen.
    pub fn new(name: NodeName, url: &str, catalog: watch::Receiver<Arc<Catalog>>) -> Result<Self, Problem> {
        let endpoint = endpoint(url).map_err(|e| {
            Problem::new(
                Code::BadRequest,
                format!("the address of {name} is not understood: {e}"),
            )
        })?;
        Ok(Self {
            name,
            control: endpoint.connect_lazy(),
            data: endpoint.connect_lazy(),
            catalog,
        })
    }

    /// A request with its deadline and the version of the catalog.
    pub fn request<T>(&self, message: T, wait: Duration) -> Request<T> {
        let mut request = Request::new(message);
        request.set_timeout(wait);
        let version = self.catalog.borrow().version;
        if let Ok(value) = version.to_string().parse() {
            request.metadata_mut().insert(CATALOG_METADATA, value);
        }
        request
    }

    /// What a status of this peer means, with its name.
    pub fn problem(&self, status: tonic::Status) -> Problem {
        let told = !status.details().is_empty();
        let problem = Problem::from(status);
        if told {
            return problem;
        }
        metrics::counter!("rachis_peer_failures_total", "peer" => self.name.to_string()).increment(1);
        let code = if problem.code == Code::Timeout {
            Code::Unavailable
        } else {
            problem.code
        };
        Problem {
            code,
            detail: format!("{} does not answer: {}", self.name, problem.detail),
            ..problem
        }
    }
}

fn endpoint(url: &str) -> Result<Endpoint, tonic::transport::Error> {
    Ok(Endpoint::from_shared(url.to_owned())?
        .connect_timeout(CONNECT_WAIT)
        .tcp_nodelay(true)
        .http2_keep_alive_interval(KEEPALIVE_EVERY)
        .keep_alive_timeout(KEEPALIVE_WAIT)
        .keep_alive_while_idle(true)
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES))
}
