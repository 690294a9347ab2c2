//! What all services have in common, and the one that every node offers.

pub mod node;

use std::{sync::Arc, time::Duration};

use tokio::sync::watch;
use tonic::Request;

use crate::{
    catalog::Catalog,
    client::CATALOG_METADATA,
    problem::{Code, Problem},
};

/// How long a call waits for this node to hear of what its caller knows.
const CATALOG_WAIT: Duration = Duration::from_secs(5);

/// Waits until this node has seen the catalog that the caller has seen.
pub async fn caught_up<T>(request: &Request<T>, catalog: &watch::Receiver<Arc<Catalog>>) -> Result<(), Problem> {
    let named = request
        .metadata()
        .get(CATALOG_METADATA)
        .and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
    let Some(version) = named.filter(|version| *version > catalog.borrow().version) else {
        return Ok(());
    };
    let mut catalog = catalog.clone();
    let heard = tokio::time::timeout(CATALOG_WAIT, catalog.wait_for(|catalog| catalog.version >= version)).await;
    match heard {
        Ok(Ok(_)) => Ok(()),
        _ => Err(Problem::new(
            Code::Unavailable,
            format!("this node has not heard of change {version} yet"),
        )
        .hint("is it cut off from its peers?")),
    }
}
