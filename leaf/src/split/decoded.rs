//! Decoded values of columns, cached between queries within one limit for the process. The least recently used is
//! evicted first.
//!
//! Its key is a slot of a column, its limit [`DECODED_BYTES_MAX`]. A column never changes; its values are dropped with it.

use std::{
    any::Any,
    marker::PhantomData,
    num::NonZeroUsize,
    sync::{
        Arc, LazyLock, Weak,
        atomic::{AtomicU64, Ordering},
    },
};

use parking_lot::Mutex;
use plan::byte_lru::ByteLru;

use crate::error::Error;

/// Bytes of all cached values.
const DECODED_BYTES_MAX: usize = 256 << 20;

/// The number of cached values, however small they are.
const DECODED_VALUES_MAX: NonZeroUsize = NonZeroUsize::new(1 << 16).unwrap();

static NEXT_SLOT: AtomicU64 = AtomicU64::new(0);
/// By slot.
static DECODED: LazyLock<Mutex<ByteLru<u64, Value>>> =
    LazyLock::new(|| Mutex::new(ByteLru::new(DECODED_BYTES_MAX, DECODED_VALUES_MAX)));

/// A place for a decoded value. Its value is dropped with it, if not earlier.
pub(super) struct DecodedSlot<T> {
    id: u64,
    of: PhantomData<fn() -> T>,
}

impl<T> Default for DecodedSlot<T> {
    fn default() -> Self {
        Self {
            id: NEXT_SLOT.fetch_add(1, Ordering::Relaxed),
            of: PhantomData,
        }
    }
}

impl<T> Drop for DecodedSlot<T> {
    fn drop(&mut self) {
        // Dropped after the lock is released.
        let _value = DECODED.lock().remove(&self.id);
    }
}

impl<T: Send + Sync + 'static> DecodedSlot<T> {
    /// The value, if it is cached.
    pub(super) fn get(&self) -> Option<Arc<T>> {
        let value = DECODED.lock().get(&self.id).map(Arc::clone)?;
        Arc::downcast(value).ok()
    }

    /// Caches a value of this many bytes.
    pub(super) fn put(&self, value: Arc<T>, bytes: usize) {
        // Dropped after the lock is released.
        let _dropped = DECODED.lock().put(self.id, value, bytes);
    }
}

type Value = Arc<dyn Any + Send + Sync>;

/// Slots of the last keys that were asked for, at most `MAX`.
pub(super) struct RecentSlots<K, T, const MAX: usize>(Mutex<Vec<(K, Arc<ComputedSlot<T>>)>>);

impl<K, T, const MAX: usize> Default for RecentSlots<K, T, MAX> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<K: Clone + PartialEq, T, const MAX: usize> RecentSlots<K, T, MAX> {
    /// The slot of a key.
    pub(super) fn slot(&self, key: &K) -> Arc<ComputedSlot<T>> {
        let mut slots = self.0.lock();
        let known = slots.iter().position(|(known, _)| known == key);
        let (key, slot) = known.map_or_else(|| (key.clone(), Arc::default()), |at| slots.remove(at));
        if slots.len() >= MAX {
            slots.remove(0);
        }
        slots.push((key, Arc::clone(&slot)));
        slot
    }
}

/// A place for what one thread computes while others wait for it; None if the part does not know enough.
pub(super) struct ComputedSlot<T> {
    value: DecodedSlot<Option<T>>,
    /// Held while it is computed. It has what was computed last, for those who waited: the slot may be empty again.
    computed: Mutex<Weak<Option<T>>>,
}

impl<T> Default for ComputedSlot<T> {
    fn default() -> Self {
        Self {
            value: DecodedSlot::default(),
            computed: Mutex::default(),
        }
    }
}

impl<T: Send + Sync + 'static> ComputedSlot<T> {
    /// The value of this slot. What is computed comes with its number of bytes.
    pub(super) fn get_or_compute(
        &self,
        compute: impl FnOnce() -> Result<Option<(T, usize)>, Error>,
    ) -> Result<Arc<Option<T>>, Error> {
        if let Some(known) = self.value.get() {
            return Ok(known);
        }
        let mut computed = self.computed.lock();
        if let Some(known) = computed.upgrade().or_else(|| self.value.get()) {
            return Ok(known);
        }
        let (value, bytes) = compute()?.map_or((None, 0), |(value, bytes)| (Some(value), bytes));
        let value = Arc::new(value);
        *computed = Arc::downgrade(&value);
        self.value.put(Arc::clone(&value), bytes);
        Ok(value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_dropped_with_its_slot() {
        let (slot, other) = (DecodedSlot::<String>::default(), DecodedSlot::<String>::default());
        let value = Arc::new("value".to_owned());
        slot.put(Arc::clone(&value), 5);
        assert!(slot.get().is_some_and(|cached| Arc::ptr_eq(&cached, &value)) && other.get().is_none());
        drop(slot);
        assert_eq!(Arc::strong_count(&value), 1);
    }

    #[test]
    fn the_slots_of_the_last_keys_are_kept() {
        let slots = RecentSlots::<u32, u32, 3>::default();
        let first = [1, 2, 3].map(|key| slots.slot(&key));
        assert!(Arc::ptr_eq(&slots.slot(&1), &first[0]), "a known key has its slot");
        let fourth = slots.slot(&4);
        for (key, slot) in [(1, &first[0]), (3, &first[2]), (4, &fourth)] {
            assert!(Arc::ptr_eq(&slots.slot(&key), slot), "{key} is one of the last three");
        }
        assert!(!Arc::ptr_eq(&slots.slot(&2), &first[1]), "2 was asked for longest ago");
        assert_eq!(slots.0.lock().len(), 3);
    }
}
