//! The gRPC service that every node offers, and code that all services share.

pub mod node;

use std::{sync::Arc, time::Duration};

use tokio::sync::watch;
use tonic::Request;

use crate::{
    catalog::Catalog,
    client::CATALOG_METADATA,
    problem::{Code, Problem},
};

/// How long a call waits until this node has seen the catalog version of its caller.
const CATALOG_WAIT: Duration = Duration::from_secs(5);

/// The catalog version that a request names, if this node has not seen it.
pub fn unseen_version<T>(request: &Request<T>, catalog: &watch::Receiver<Arc<Catalog>>) -> Option<u64> {
    let named = request.metadata().get(CATALOG_METADATA)?.to_str().ok()?.parse().ok();
    named.filter(|version| *version > catalog.borrow().version)
}

/// Waits until this node has seen the catalog version that the request names.
pub async fn wait_for_catalog<T>(request: &Request<T>, catalog: &watch::Receiver<Arc<Catalog>>) -> Result<(), Problem> {
    let Some(version) = unseen_version(request, catalog) else {
        return Ok(());
    };
    let mut catalog = catalog.clone();
    let seen = tokio::time::timeout(CATALOG_WAIT, catalog.wait_for(|catalog| catalog.version >= version)).await;
    match seen {
        Ok(Ok(_)) => Ok(()),
        _ => Err(Problem::new(
            Code::Unavailable,
            format!("this node has not received catalog version {version} yet"),
        )
        .hint("check whether the node can reach its peers")),
    }
}
