//! Back pressure in bytes: what pushes hold in memory at once. A push waits for room until its deadline; then it is
//! told to come again.

use std::{sync::Arc, time::Duration};

use proto::{Code, Problem};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{Instant, timeout_at},
};

/// Bytes that a request may hold, shared by all.
pub(super) struct Room {
    semaphore: Arc<Semaphore>,
    bytes_max: usize,
}

/// Bytes that one request holds; given back when dropped.
pub(super) struct Held {
    permit: OwnedSemaphorePermit,
    semaphore: Arc<Semaphore>,
    bytes_max: usize,
    /// How long it waits for more.
    patience: Duration,
}

impl Room {
    /// Room for so many bytes.
    pub fn new(bytes_max: usize) -> Self {
        let bytes_max = bytes_max.clamp(1, (u32::MAX as usize).min(Semaphore::MAX_PERMITS));
        Self {
            semaphore: Arc::new(Semaphore::new(bytes_max)),
            bytes_max,
        }
    }

    /// Holds so many bytes (all there are, if it asks for more than that), waiting for them until the deadline.
    pub async fn hold(&self, bytes: usize, deadline: Instant) -> Result<Held, Problem> {
        let patience = deadline.saturating_duration_since(Instant::now());
        let permit = acquire(&self.semaphore, bytes.min(self.bytes_max), deadline).await?;
        Ok(Held {
            permit,
            semaphore: Arc::clone(&self.semaphore),
            bytes_max: self.bytes_max,
            patience,
        })
    }
}

impl Held {
    /// Holds at least so many bytes from now on, waiting for them as long as the first ones could be waited for.
    pub async fn grow_to(&mut self, bytes: usize) -> Result<(), Problem> {
        let more = bytes.min(self.bytes_max).saturating_sub(self.permit.num_permits());
        if more > 0 {
            self.permit
                .merge(acquire(&self.semaphore, more, Instant::now() + self.patience).await?);
        }
        Ok(())
    }

    /// Gives back what is over so many bytes.
    pub fn shrink_to(&mut self, bytes: usize) {
        let over = self.permit.num_permits().saturating_sub(bytes);
        drop(self.permit.split(over));
    }
}

async fn acquire(semaphore: &Arc<Semaphore>, bytes: usize, deadline: Instant) -> Result<OwnedSemaphorePermit, Problem> {
    let permits = u32::try_from(bytes).unwrap_or(u32::MAX);
    match timeout_at(deadline, Arc::clone(semaphore).acquire_many_owned(permits)).await {
        Ok(Ok(permit)) => Ok(permit),
        _ => Err(
            Problem::new(Code::Busy, "more pushes are under way than there is room for")
                .hint("repeat it in a moment; smaller bodies find room sooner"),
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn soon() -> Instant {
        Instant::now() + Duration::from_millis(20)
    }

    #[tokio::test]
    async fn who_finds_no_room_until_the_deadline_is_told_so() {
        let room = Room::new(100);
        let first = room.hold(80, soon()).await.expect("there is room");
        let refused = room.hold(30, soon()).await.err().map(|p| p.code);
        assert_eq!(refused, Some(Code::Busy));
        drop(first);
        assert!(room.hold(30, soon()).await.is_ok());
    }

    #[tokio::test]
    async fn a_body_larger_than_all_the_room_passes_alone() {
        let room = Room::new(100);
        let mut held = room.hold(10, soon()).await.expect("there is room");
        held.grow_to(1_000).await.expect("it may have all");
        assert!(room.hold(1, soon()).await.is_err());
        held.shrink_to(40);
        assert!(room.hold(60, soon()).await.is_ok());
    }
}
