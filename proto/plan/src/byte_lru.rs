//! A cache with a limit in bytes: what was used least recently makes room. Shared by: aggregator (plans), leaf (decoded
//! columns).
//!
//! It has no lock of its own. What a change displaces is returned, so that its owner can drop it outside of a lock.

use std::{borrow::Borrow, hash::Hash, num::NonZeroUsize};

use lru::LruCache;

/// Values by key. The caller says how many bytes a value takes, its key included.
pub struct ByteLru<K, V> {
    bytes_max: usize,
    bytes: usize,
    entries: LruCache<K, (V, usize)>,
}

impl<K: Hash + Eq, V> ByteLru<K, V> {
    /// An empty cache with a limit in bytes, and one for the number of values, however small they are.
    pub fn new(bytes_max: usize, entries_max: NonZeroUsize) -> Self {
        Self {
            bytes_max,
            bytes: 0,
            entries: LruCache::new(entries_max),
        }
    }

    /// The bytes of all values.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// The value of a key, which is now the one used most recently.
    pub fn get<Q: Hash + Eq + ?Sized>(&mut self, key: &Q) -> Option<&V>
    where
        K: Borrow<Q>,
    {
        self.entries.get(key).map(|(value, _)| value)
    }

    /// Stores a value, unless it alone is over the limit. Returns what is not stored any more: the value before, what was
    /// used least recently, or the value itself.
    #[must_use = "drop it outside of the lock"]
    pub fn put(&mut self, key: K, value: V, bytes: usize) -> Vec<V> {
        if bytes > self.bytes_max {
            return self.remove(&key).into_iter().chain([value]).collect();
        }
        self.bytes += bytes;
        let mut displaced = Vec::new();
        // Either the value that the key had, or the one that exceeds the limit for their number.
        if let Some((_, (value, bytes))) = self.entries.push(key, (value, bytes)) {
            self.bytes -= bytes;
            displaced.push(value);
        }
        while self.bytes > self.bytes_max
            && let Some((_, (value, bytes))) = self.entries.pop_lru()
        {
            self.bytes -= bytes;
            displaced.push(value);
        }
        displaced
    }

    /// Removes a value.
    #[must_use = "drop it outside of the lock"]
    pub fn remove<Q: Hash + Eq + ?Sized>(&mut self, key: &Q) -> Option<V>
    where
        K: Borrow<Q>,
    {
        let (value, bytes) = self.entries.pop(key)?;
        self.bytes -= bytes;
        Some(value)
    }

    /// The values, the one used most recently first.
    pub fn values(&self) -> impl Iterator<Item = &V> {
        self.entries.iter().map(|(_, (value, _))| value)
    }

    /// Removes all values for which the condition does not hold.
    #[must_use = "drop them outside of the lock"]
    pub fn retain(&mut self, mut holds: impl FnMut(&K, &V) -> bool) -> Vec<V>
    where
        K: Clone,
    {
        let others: Vec<K> = (self.entries.iter())
            .filter(|(key, (value, _))| !holds(key, value))
            .map(|(key, _)| key.clone())
            .collect();
        others.iter().filter_map(|key| self.remove(key)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_used_least_recently_makes_room() {
        let mut cache = ByteLru::new(100, NonZeroUsize::new(4).expect("not zero"));
        let stored = |cache: &mut ByteLru<u64, u64>| {
            let stored: Vec<u64> = (0..9).filter(|key| cache.entries.peek(key).is_some()).collect();
            (stored, cache.bytes())
        };
        for key in 0..3 {
            assert!(cache.put(key, key, 30).is_empty());
        }
        cache.get(&0);
        assert_eq!(cache.put(3, 3, 40), [1]);
        assert_eq!(stored(&mut cache), (vec![0, 2, 3], 100));
        assert_eq!(cache.put(4, 4, 101), [4], "larger than the cache");
        assert_eq!(stored(&mut cache), (vec![0, 2, 3], 100));
        assert_eq!(cache.put(3, 33, 10), [3], "another value");
        assert_eq!(stored(&mut cache), (vec![0, 2, 3], 70));
        assert_eq!((cache.remove(&0), cache.remove(&0)), (Some(0), None));
        assert_eq!(stored(&mut cache), (vec![2, 3], 40));
        assert_eq!(cache.put(2, 22, 101), [2, 22], "the old value is outdated, too");
        assert_eq!(stored(&mut cache), (vec![3], 10));
        assert!((4..7).all(|key| cache.put(key, key, 1).is_empty()));
        assert_eq!(cache.put(7, 7, 1), [33], "too many");
        assert_eq!(cache.retain(|key, _| key % 2 == 1), [6, 4]);
        assert_eq!(stored(&mut cache), (vec![5, 7], 2));
    }
}
