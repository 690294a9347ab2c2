//! The cache of Rachis: a limit in bytes, and the least recently used makes room. Shared by: aggregator (plans, path
//! tables, merged kinds), leaf (decoded columns, prepared requests, aggregate states).
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
        // Either the value that the key had, or the one that exceeds the limit for their number.
        let pushed = self.entries.push(key, (value, bytes));
        let mut displaced: Vec<V> = pushed.map(|(_, entry)| self.subtract(entry)).into_iter().collect();
        self.evict(&mut displaced);
        displaced
    }

    /// Changes the value of a key, and the number of its bytes, in place. It is now the one used most recently. Returns
    /// what is not stored any more: what was used least recently or, if it alone is over the limit, the value itself.
    #[must_use = "drop it outside of the lock"]
    pub fn update<Q: Hash + Eq + ?Sized>(&mut self, key: &Q, change: impl FnOnce(&mut V, &mut usize)) -> Vec<V>
    where
        K: Borrow<Q>,
    {
        let Some((value, bytes)) = self.entries.get_mut(key) else {
            return Vec::new();
        };
        let before = *bytes;
        change(value, bytes);
        let after = *bytes;
        self.bytes = self.bytes - before + after;
        if after > self.bytes_max {
            return self.remove(key).into_iter().collect();
        }
        let mut displaced = Vec::new();
        self.evict(&mut displaced);
        displaced
    }

    fn evict(&mut self, displaced: &mut Vec<V>) {
        while self.bytes > self.bytes_max
            && let Some((_, entry)) = self.entries.pop_lru()
        {
            displaced.push(self.subtract(entry));
        }
    }

    fn subtract(&mut self, (value, bytes): (V, usize)) -> V {
        self.bytes -= bytes;
        value
    }

    /// Removes a value.
    #[must_use = "drop it outside of the lock"]
    pub fn remove<Q: Hash + Eq + ?Sized>(&mut self, key: &Q) -> Option<V>
    where
        K: Borrow<Q>,
    {
        let entry = self.entries.pop(key)?;
        Some(self.subtract(entry))
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

    #[test]
    fn a_value_that_grows_in_place_displaces_others() {
        let mut cache = ByteLru::new(100, NonZeroUsize::new(4).expect("not zero"));
        let stored = |cache: &ByteLru<u64, usize>| {
            let stored: Vec<Option<usize>> = (1..4)
                .map(|key| cache.entries.peek(&key).map(|(value, _)| *value))
                .collect();
            (stored, cache.bytes())
        };
        let grow = |by: usize| {
            move |value: &mut usize, bytes: &mut usize| {
                *value += by;
                *bytes += by;
            }
        };
        assert!((1..4).all(|key| cache.put(key, 30, 30).is_empty()));
        assert!(cache.update(&1, grow(10)).is_empty());
        assert_eq!(stored(&cache), (vec![Some(40), Some(30), Some(30)], 100));
        assert_eq!(cache.update(&1, grow(1)), [30], "the least recently used");
        assert_eq!(stored(&cache), (vec![Some(41), None, Some(30)], 71));
        assert_eq!(cache.update(&1, grow(60)), [101], "larger than the cache");
        assert_eq!(stored(&cache), (vec![None, None, Some(30)], 30));
        assert!(cache.update(&1, grow(1)).is_empty(), "it is not stored");
        assert!(cache.update(&3, |_, bytes| *bytes = 10).is_empty());
        assert_eq!(cache.bytes(), 10);
    }
}
