//! Decoded: what columns keep decoded between questions, within one limit for the process. What was used least recently
//! is dropped first.

use std::{
    any::Any,
    marker::PhantomData,
    num::NonZeroUsize,
    sync::{
        Arc, LazyLock,
        atomic::{AtomicU64, Ordering},
    },
};

use lru::LruCache;
use parking_lot::Mutex;

/// Bytes of decoded values that the process keeps.
const DECODED_BYTES_MAX: usize = 256 << 20;

/// Decoded values that the process keeps, however small they are.
const DECODED_VALUES_MAX: NonZeroUsize = NonZeroUsize::new(1 << 16).unwrap();

static NEXT_SLOT: AtomicU64 = AtomicU64::new(0);
static DECODED: LazyLock<Mutex<DecodedValues>> = LazyLock::new(|| Mutex::new(DecodedValues::new(DECODED_BYTES_MAX)));

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
        let _value = DECODED.lock().remove(self.id);
    }
}

impl<T: Send + Sync + 'static> DecodedSlot<T> {
    /// The value, if it is kept.
    pub(super) fn get(&self) -> Option<Arc<T>> {
        let value = DECODED.lock().get(self.id)?;
        Arc::downcast(value).ok()
    }

    /// Keeps a value of so many bytes.
    pub(super) fn keep(&self, value: Arc<T>, bytes: usize) {
        // Dropped after the lock is released.
        let _dropped = DECODED.lock().put(self.id, value, bytes);
    }
}

type Value = Arc<dyn Any + Send + Sync>;

/// Values by slot.
struct DecodedValues {
    bytes_max: usize,
    bytes: usize,
    values: LruCache<u64, (Value, usize)>,
}

impl DecodedValues {
    fn new(bytes_max: usize) -> Self {
        Self {
            bytes_max,
            bytes: 0,
            values: LruCache::new(DECODED_VALUES_MAX),
        }
    }

    fn get(&mut self, slot: u64) -> Option<Value> {
        self.values.get(&slot).map(|(value, _)| Arc::clone(value))
    }

    /// Keeps a value, unless it is larger than all may be, and returns the values that it displaces.
    fn put(&mut self, slot: u64, value: Value, bytes: usize) -> Vec<Value> {
        if bytes > self.bytes_max {
            return vec![value];
        }
        self.bytes += bytes;
        // Displaced: the value kept for this slot before, or the one that is too many.
        let mut dropped: Vec<_> = self.values.push(slot, (value, bytes)).into_iter().collect();
        let mut bytes = self.bytes - dropped.iter().map(|(_, (_, bytes))| bytes).sum::<usize>();
        while bytes > self.bytes_max
            && let Some(oldest) = self.values.pop_lru()
        {
            bytes -= oldest.1.1;
            dropped.push(oldest);
        }
        self.bytes = bytes;
        dropped.into_iter().map(|(_, (value, _))| value).collect()
    }

    fn remove(&mut self, slot: u64) -> Option<Value> {
        let (value, bytes) = self.values.pop(&slot)?;
        self.bytes -= bytes;
        Some(value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_values_used_least_recently_make_room_for_others() {
        let mut values = DecodedValues::new(100);
        let kept = |values: &mut DecodedValues| (0..5).filter(|slot| values.get(*slot).is_some()).collect::<Vec<u64>>();
        for slot in 0..3 {
            assert!(values.put(slot, Arc::new(slot), 30).is_empty());
        }
        values.get(0);
        assert_eq!(values.put(3, Arc::new(3), 40).len(), 1);
        assert_eq!((kept(&mut values), values.bytes), (vec![0, 2, 3], 100));
        assert_eq!(values.put(4, Arc::new(4), 101).len(), 1);
        assert_eq!((kept(&mut values), values.bytes), (vec![0, 2, 3], 100));
        assert_eq!(values.put(3, Arc::new(3), 10).len(), 1);
        assert_eq!((kept(&mut values), values.bytes), (vec![0, 2, 3], 70));
        assert!(values.remove(0).is_some() && values.remove(0).is_none());
        assert_eq!((kept(&mut values), values.bytes), (vec![2, 3], 40));
    }

    #[test]
    fn a_value_is_dropped_with_its_slot() {
        let (slot, other) = (DecodedSlot::<String>::default(), DecodedSlot::<String>::default());
        let value = Arc::new("value".to_owned());
        slot.keep(Arc::clone(&value), 5);
        assert!(slot.get().is_some_and(|kept| Arc::ptr_eq(&kept, &value)) && other.get().is_none());
        drop(slot);
        assert_eq!(Arc::strong_count(&value), 1);
    }
}
