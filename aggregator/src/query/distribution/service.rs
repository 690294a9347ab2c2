//! The gRPC service by which other aggregators have this one compute parts of their queries.

use std::{
    convert::Infallible,
    error::Error,
    fmt::Display,
    task::{Context, Poll},
};

use axum::http::{HeaderValue, Request, Response};
use futures::{FutureExt as _, future::BoxFuture};
use proto::{Code, Problem, limits::MESSAGE_BYTES_MAX};
use tokio::runtime::Handle;
use tokio_util::task::AbortOnDropHandle;
use tonic::{Status, body::Body, server::NamedService, service::RoutesBuilder};
use tower::Service;

use crate::query::Engine;

impl Engine {
    /// Adds the service by which other aggregators have this one compute parts of their queries, if they shall.
    pub fn add_services(&self, routes: &mut RoutesBuilder) {
        if let Some(distribution) = self.enabled_distribution() {
            let service = distribution.worker.clone().into_worker_server();
            routes.add_service(OnRuntime {
                service: service.max_decoding_message_size(MESSAGE_BYTES_MAX),
                handle: self.runtime.handle().clone(),
            });
        }
    }
}

/// What a query says if another aggregator has not computed its part.
pub(super) fn failed_elsewhere(error: &dyn Display) -> Problem {
    tracing::warn!(%error, "another aggregator has not computed its part of a query");
    let detail = "another aggregator, which computes a part of the query, has failed, or cannot be reached";
    Problem::new(Code::Unavailable, detail).hint("retry")
}

/// The problem of a query if this is the failure of a connection to another aggregator.
pub(crate) fn connection_problem(error: &(dyn Error + 'static)) -> Option<Problem> {
    error.downcast_ref::<Status>().map(|status| failed_elsewhere(status))
}

/// The header of requests that have come over the network.
pub(super) const FROM_NETWORK: &str = "rachis-from-network";

/// A service whose work is done on the query runtime.
#[derive(Clone)]
struct OnRuntime<S> {
    service: S,
    handle: Handle,
}

impl<S: NamedService> NamedService for OnRuntime<S> {
    const NAME: &'static str = S::NAME;
}

impl<S> Service<Request<Body>> for OnRuntime<S>
where
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible>,
    S::Future: Send + 'static,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Response<Body>, Infallible>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.service.poll_ready(context)
    }

    fn call(&mut self, mut request: Request<Body>) -> Self::Future {
        request
            .headers_mut()
            .insert(FROM_NETWORK, HeaderValue::from_static("true"));
        let answer = AbortOnDropHandle::new(self.handle.spawn(self.service.call(request)));
        let ended = || Status::unavailable("the aggregator is shutting down, or the call has failed").into_http();
        async move { answer.await.unwrap_or_else(|_| Ok(ended())) }.boxed()
    }
}
