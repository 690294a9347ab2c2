//! The state that all handlers share.

use std::sync::Arc;

use proto::Problem;
use tokio_util::sync::CancellationToken;

use crate::{doors::push::PushPipeline, query::Engine};

/// Renders the metrics of this process as Prometheus text.
pub type MetricsText = Arc<dyn Fn() -> String + Send + Sync>;

/// Returns why a node is not ready, if it is not.
pub type ReadinessCheck = Arc<dyn Fn() -> Result<(), Problem> + Send + Sync>;

/// State that all handlers share.
#[derive(Clone)]
pub(in crate::doors) struct AppState(pub Arc<Shared>);

pub(in crate::doors) struct Shared {
    pub engine: Arc<Engine>,
    pub metrics: Option<MetricsText>,
    pub pushes: Arc<PushPipeline>,
    pub closing: CancellationToken,
}

impl std::ops::Deref for AppState {
    type Target = Shared;
    fn deref(&self) -> &Shared {
        &self.0
    }
}
