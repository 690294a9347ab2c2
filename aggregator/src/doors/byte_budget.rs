//! Backpressure in bytes: limits the memory that all pushes in flight use together. A push waits for memory until its
//! deadline; after that the client is asked to retry.

use std::{sync::Arc, time::Duration};

use proto::{Code, Problem};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{Instant, timeout_at},
};

/// How long a push waits for memory in the byte budget, and for shards that are busy.
pub(super) const BUDGET_WAIT_MAX: Duration = Duration::from_secs(10);

/// A number of bytes that all requests share.
pub(super) struct ByteBudget {
    semaphore: Arc<Semaphore>,
    bytes_max: usize,
}

/// The bytes that one request has reserved. Dropping it releases them.
pub(super) struct Reservation {
    permit: OwnedSemaphorePermit,
    semaphore: Arc<Semaphore>,
    bytes_max: usize,
    /// How long [`Self::grow_to`] waits for more.
    wait_max: Duration,
}

impl ByteBudget {
    pub(super) fn new(bytes_max: usize) -> Self {
        let bytes_max = bytes_max.clamp(1, (u32::MAX as usize).min(Semaphore::MAX_PERMITS));
        Self {
            semaphore: Arc::new(Semaphore::new(bytes_max)),
            bytes_max,
        }
    }

    /// Reserves bytes, at most the whole budget. Waits for them until the deadline.
    pub(super) async fn reserve(&self, bytes: usize, deadline: Instant) -> Result<Reservation, Problem> {
        let wait_max = deadline.saturating_duration_since(Instant::now());
        let permit = acquire(&self.semaphore, bytes.min(self.bytes_max), deadline).await?;
        Ok(Reservation {
            permit,
            semaphore: Arc::clone(&self.semaphore),
            bytes_max: self.bytes_max,
            wait_max,
        })
    }
}

impl Reservation {
    /// Makes the reservation at least this large. Waits for the additional bytes as long as [`ByteBudget::reserve`]
    /// could have waited for the first ones.
    pub(super) async fn grow_to(&mut self, bytes: usize) -> Result<(), Problem> {
        let more = bytes.min(self.bytes_max).saturating_sub(self.permit.num_permits());
        if more > 0 {
            self.permit
                .merge(acquire(&self.semaphore, more, Instant::now() + self.wait_max).await?);
        }
        Ok(())
    }

    /// Releases all but this many bytes.
    pub(super) fn shrink_to(&mut self, bytes: usize) {
        let excess = self.permit.num_permits().saturating_sub(bytes);
        drop(self.permit.split(excess));
    }
}

async fn acquire(semaphore: &Arc<Semaphore>, bytes: usize, deadline: Instant) -> Result<OwnedSemaphorePermit, Problem> {
    let permits = u32::try_from(bytes).unwrap_or(u32::MAX);
    match timeout_at(deadline, Arc::clone(semaphore).acquire_many_owned(permits)).await {
        Ok(Ok(permit)) => Ok(permit),
        _ => Err(Problem::new(Code::Busy, "the memory for pushes in flight is exhausted")
            .hint("retry in a moment, or send smaller bodies")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn soon() -> Instant {
        Instant::now() + Duration::from_millis(20)
    }

    #[tokio::test]
    async fn a_reservation_that_waits_past_its_deadline_is_busy() {
        let budget = ByteBudget::new(100);
        let first = budget.reserve(80, soon()).await.expect("enough is free");
        let rejected = budget.reserve(30, soon()).await.err().map(|p| p.code);
        assert_eq!(rejected, Some(Code::Busy));
        drop(first);
        assert!(budget.reserve(30, soon()).await.is_ok());
    }

    #[tokio::test]
    async fn a_body_larger_than_the_budget_passes_alone() {
        let budget = ByteBudget::new(100);
        let mut reserved = budget.reserve(10, soon()).await.expect("enough is free");
        reserved.grow_to(1_000).await.expect("it gets the whole budget");
        assert!(budget.reserve(1, soon()).await.is_err());
        reserved.shrink_to(40);
        assert!(budget.reserve(60, soon()).await.is_ok());
    }
}
