//! gRPC clients: they implement the traits of a role that runs in another process.
//!
//! Each peer has two channels, so that a stream of documents never delays a small request. Every call has a deadline,
//! and errors of the transport become problems like all others.

pub mod ingest;
pub mod leaf_loads;
pub mod nodes;
pub mod peers;
pub mod replicas;
pub mod tailers;

use std::{error::Error as _, sync::Arc, time::Duration};

use serde::{Serialize, de::DeserializeOwned};
use tokio::sync::watch;
use tonic::{
    Request, Response, Status,
    transport::{Channel, Endpoint},
};
use uuid::Uuid;

use crate::{
    catalog::Catalog,
    cluster::NodeName,
    problem::{Code, Problem},
    wire::leaf::Json,
};

/// The metadata key of the catalog version that the caller has seen.
pub const CATALOG_METADATA: &str = "rachis-catalog";
/// The metadata key of the data folder whose node is called. Another node at its address refuses the call.
pub const INSTANCE_METADATA: &str = "rachis-instance";

const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
const KEEPALIVE_EVERY: Duration = Duration::from_secs(5);
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(5);
const STREAM_WINDOW_BYTES: u32 = 4 << 20;
/// Large enough that only the window of a stream limits it: a stream that is not read must not stop the other streams
/// of its connection.
const CONNECTION_WINDOW_BYTES: u32 = 1 << 30;
/// Streams that were reset a moment ago, of which parts may still arrive.
const RESET_STREAMS_MAX: usize = 4_096;
/// How long a small request may take.
pub const ASK_WAIT: Duration = Duration::from_secs(10);

/// A connection to another node. It connects on the first call, and reconnects after a failure.
#[derive(Debug, Clone)]
pub struct Peer {
    /// The name of the node.
    pub name: NodeName,
    /// The channel for small requests and answers.
    pub control: Channel,
    /// The channel for events and rows.
    pub data: Channel,
    /// The id of its data folder, if only that node may answer.
    instance: Option<Uuid>,
    catalog: watch::Receiver<Arc<Catalog>>,
}

impl Peer {
    /// A node at a URL. `catalog` is the catalog that this process has seen. Must be called within a tokio runtime.
    pub fn new(name: NodeName, url: &str, catalog: watch::Receiver<Arc<Catalog>>) -> Result<Self, Problem> {
        let endpoint =
            endpoint(url).map_err(|e| Problem::new(Code::BadRequest, format!("the URL of {name} is invalid: {e}")))?;
        Ok(Self {
            name,
            control: endpoint.connect_lazy(),
            data: endpoint.connect_lazy(),
            instance: None,
            catalog,
        })
    }

    /// The same connection for calls that only the node with this data folder answers.
    pub fn of_instance(self, instance: Uuid) -> Self {
        Self {
            instance: Some(instance),
            ..self
        }
    }

    /// A request with a deadline and the catalog version of this process.
    pub fn request<T>(&self, message: T, wait: Duration) -> Request<T> {
        let mut request = self.endless_request(message);
        request.set_timeout(wait);
        request
    }

    /// A request for a stream that does not end, with the catalog version of this process.
    pub fn endless_request<T>(&self, message: T) -> Request<T> {
        let mut request = Request::new(message);
        let version = self.catalog.borrow().version;
        let instance = self.instance.map(|instance| instance.to_string());
        for (key, value) in [
            (CATALOG_METADATA, Some(version.to_string())),
            (INSTANCE_METADATA, instance),
        ] {
            if let Some(value) = value.and_then(|value| value.parse().ok()) {
                request.metadata_mut().insert(key, value);
            }
        }
        request
    }

    /// The message with which this peer has answered a call.
    pub fn answer<T>(&self, answer: Result<Response<T>, Status>) -> Result<T, Problem> {
        answer.map(Response::into_inner).map_err(|status| self.problem(status))
    }

    /// The value with which this peer has answered a call.
    pub fn value<T: DeserializeOwned>(&self, answer: Result<Response<Json>, Status>) -> Result<T, Problem> {
        // Not the caller's fault, so a batch is sent again.
        self.answer(answer)?.decode().map_err(|problem| {
            let detail = format!("node {} answered in another form: {}", self.name, problem.detail);
            Problem::new(Code::Internal, detail).hint("run the same release on all nodes")
        })
    }

    /// A request with a value, see [`Peer::request`].
    pub fn json(&self, value: &impl Serialize, wait: Duration) -> Result<Request<Json>, Problem> {
        Ok(self.request(Json::of(value)?, wait))
    }

    /// Converts an error status of this peer. A failure of the transport names the peer.
    pub fn problem(&self, status: Status) -> Problem {
        let answered = !status.details().is_empty();
        let problem = Problem::from(status);
        if answered {
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
            detail: format!("{} does not respond: {}", self.name, problem.detail),
            ..problem
        }
    }
}

/// Whether a call was not sent, because there was no connection.
pub fn was_not_sent(status: &Status) -> bool {
    let mut cause = status.source();
    while let Some(error) = cause {
        if error.is::<tonic::ConnectError>() {
            return true;
        }
        cause = error.source();
    }
    false
}

fn endpoint(url: &str) -> Result<Endpoint, tonic::transport::Error> {
    Ok(Endpoint::from_shared(url.to_owned())?
        .connect_timeout(CONNECT_TIMEOUT)
        .tcp_nodelay(true)
        .http2_keep_alive_interval(KEEPALIVE_EVERY)
        .keep_alive_timeout(KEEPALIVE_TIMEOUT)
        .keep_alive_while_idle(true)
        // Queries that are cancelled reset their streams, and the answers that are on the way then are no error of the
        // peer. By default, 1,024 of them close the connection, with every other query on it.
        .http2_max_concurrent_reset_streams(RESET_STREAMS_MAX)
        .http2_max_local_error_reset_streams(None)
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES))
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;
    use crate::wire::node::node_client::NodeClient;

    #[tokio::test]
    async fn only_a_call_without_a_connection_was_certainly_not_sent() {
        let call = async |url: String| {
            let catalog = watch::channel(Arc::new(Catalog::default())).1;
            let peer = Peer::new("peer".parse().expect("a name"), &url, catalog).expect("a peer");
            let request = peer.json(&(), Duration::from_secs(5)).expect("a request");
            let status = NodeClient::new(peer.control.clone()).describe(request).await;
            was_not_sent(&status.expect_err("no node answers"))
        };
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a free port");
        let url = format!("http://{}", listener.local_addr().expect("an address"));
        let closing = tokio::spawn(async move {
            while let Ok((connection, _)) = listener.accept().await {
                // It is open until the call has been sent.
                let mut bytes = [0; 1];
                let _ = connection.readable().await;
                let _ = connection.try_read(&mut bytes);
            }
        });
        assert!(!call(url.clone()).await, "it was connected");
        closing.abort();
        let _ = closing.await;
        assert!(call(url).await, "no process accepts connections at this address");
    }
}
