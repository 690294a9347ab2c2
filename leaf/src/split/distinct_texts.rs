//! Distinct texts: numbers the texts of a column, or the tokens of a path, in the order of their first occurrence.

use std::{
    hash::{BuildHasher as _, RandomState},
    sync::LazyLock,
};

use xxhash_rust::xxh3::xxh3_64_with_seed;

/// Differs from process to process, so a client cannot choose texts that all have the same hash.
static SEED: LazyLock<u64> = LazyLock::new(|| RandomState::new().hash_one(0));

/// Slots of the first table.
const FIRST_SLOTS: usize = 16;

/// Texts without duplicates. Their numbers count from 0.
#[derive(Debug, Default)]
pub(super) struct DistinctTexts {
    /// All texts, one after another.
    texts: String,
    /// Where each text ends.
    ends: Vec<u32>,
    /// A hash table of the texts: the upper half of a slot is from the hash, the lower half is the number plus one. An
    /// empty slot is 0. The number of slots is a power of two, and at most half of them are in use.
    slots: Vec<u64>,
}

impl DistinctTexts {
    /// The number of texts.
    pub(super) fn len(&self) -> usize {
        self.ends.len()
    }

    /// The bytes of all texts together.
    pub(super) fn bytes(&self) -> usize {
        self.texts.len()
    }

    /// The text with a number.
    pub(super) fn get(&self, number: u32) -> &str {
        let number = number as usize;
        let start = number.checked_sub(1).map_or(0, |before| self.ends[before]);
        &self.texts[start as usize..self.ends[number] as usize]
    }

    /// All texts, by number.
    pub(super) fn iter(&self) -> impl Iterator<Item = &str> {
        (0..self.len() as u32).map(|number| self.get(number))
    }

    /// The number of a text, which is added if it is new.
    pub(super) fn number(&mut self, text: &str) -> u32 {
        if self.len() * 2 >= self.slots.len() {
            self.grow();
        }
        let hash = xxh3_64_with_seed(text.as_bytes(), *SEED) >> 32;
        let mask = self.slots.len() - 1;
        let mut at = hash as usize & mask;
        loop {
            let slot = self.slots[at];
            if slot == 0 {
                break;
            }
            let number = slot as u32 - 1;
            if slot >> 32 == hash && self.get(number) == text {
                return number;
            }
            at = (at + 1) & mask;
        }
        let number = self.len() as u32;
        self.slots[at] = hash << 32 | u64::from(number + 1);
        self.texts.push_str(text);
        // A part is far smaller than 4 GiB.
        self.ends
            .push(u32::try_from(self.texts.len()).expect("texts of at most 4 GiB"));
        number
    }

    fn grow(&mut self) {
        let count = (self.slots.len() * 4).max(FIRST_SLOTS);
        let old = std::mem::replace(&mut self.slots, vec![0; count]);
        let mask = count - 1;
        for slot in old.into_iter().filter(|slot| *slot != 0) {
            let mut at = (slot >> 32) as usize & mask;
            while self.slots[at] != 0 {
                at = (at + 1) & mask;
            }
            self.slots[at] = slot;
        }
    }

    /// The numbers in the order of the texts.
    pub(super) fn sorted(&self) -> Vec<u32> {
        // Most comparisons are decided by the first bytes after the prefix that all texts share.
        let shared = self.shared_prefix_bytes();
        let rest = |number: u32| &self.get(number).as_bytes()[shared..];
        let key = |number: u32| {
            let (mut first, rest) = ([0; 8], rest(number));
            let length = rest.len().min(first.len());
            first[..length].copy_from_slice(&rest[..length]);
            (u64::from_be_bytes(first), number)
        };
        let mut keys: Vec<(u64, u32)> = (0..self.len() as u32).map(key).collect();
        keys.sort_unstable_by(|(one, number), (other, other_number)| {
            one.cmp(other).then_with(|| rest(*number).cmp(rest(*other_number)))
        });
        keys.into_iter().map(|(_, number)| number).collect()
    }

    fn shared_prefix_bytes(&self) -> usize {
        let mut texts = self.iter().map(str::as_bytes);
        let first = texts.next().unwrap_or_default();
        let mut shared = first.len();
        for text in texts {
            let same = first[..shared].iter().zip(text).take_while(|(a, b)| a == b);
            shared = same.count();
            if shared == 0 {
                break;
            }
        }
        shared
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::DistinctTexts;

    proptest! {
        #[test]
        fn texts_are_numbered_once_and_sorted(prefix in "[a-zß]{0,3}", texts in prop::collection::vec("[ab\0é]{0,12}", 0..300)) {
            let mut distinct = DistinctTexts::default();
            let mut model: Vec<String> = Vec::new();
            for text in texts.iter().map(|text| format!("{prefix}{text}")) {
                let expected = model.iter().position(|known| *known == text).unwrap_or_else(|| {
                    model.push(text.clone());
                    model.len() - 1
                });
                prop_assert_eq!(distinct.number(&text) as usize, expected);
            }
            prop_assert!(distinct.iter().eq(&model));
            let sorted: Vec<&str> = distinct.sorted().into_iter().map(|number| distinct.get(number)).collect();
            model.sort();
            prop_assert_eq!(sorted, model);
        }
    }
}
