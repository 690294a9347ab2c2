//! Makes the bytes of an event from its number: every event can be rebuilt at the end, so the ledger need not keep it
//! and every byte can be compared.

use crate::ledger::{Kind, key_text};

/// Adjacent numbers that share a word, by which a search finds them.
pub(crate) const GROUP_SIZE: u64 = 500;

/// The year of events that never expire.
const KEYED_YEAR: u32 = 2099;

/// Makes the events of one run.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Documents {
    seed: u64,
}

impl Documents {
    pub(crate) fn new(seed: u64) -> Self {
        Self { seed }
    }

    /// The day of January of an event.
    pub(crate) fn day(&self, number: u64) -> u64 {
        mix(self.seed ^ mix(number)) % 28 + 1
    }

    /// The bytes of an event. They contain odd spacing, escapes, duplicate keys and unusual number literals, which the
    /// server must store byte for byte.
    pub(crate) fn bytes(&self, number: u64, kind: Kind, key: u32) -> String {
        let hash = mix(self.seed ^ mix(number));
        let id = match kind {
            Kind::PushedWithId => format!("\"_id\":\"{}\", ", key_text(kind, key)),
            _ => String::new(),
        };
        let (kind_name, group, filler) = (kind.as_str(), number / GROUP_SIZE, filler(hash));
        let (ratio, list, day) = (hash % 1_000, hash % 97, self.day(number));
        let year = if kind == Kind::Keyed { KEYED_YEAR } else { 2026 };
        let mixed = ["17", "1.50", "\"slow\"", "null", "[1,2]", "{\"a\":{}}", "true"][(hash % 7) as usize];
        match kind {
            // Not JSON, but its number can be read.
            Kind::DeadLetter | Kind::PushedDeadLetter => {
                format!("{{\"n\": {number}, \"kind\":\"{kind_name}\", \"cut\":\"{filler}")
            }
            Kind::Empty | Kind::Tombstone => String::new(),
            _ => format!(
                "{{{id}\"n\": {number} ,\"kind\":\"{kind_name}\",\
                 \"words\":\"g{group} m{number} {filler}\",  \"ratio\":{ratio}.50,\"mixed\":{mixed},\
                 \"nested\":{{\"list\":[{list}, 1e3,\"\\u00e9 ü\"],\"odd key\":true}},\
                 \"twice\":1,\"twice\":2,\"when\":\"{year}-01-{day:02}T10:00:00Z\"}}"
            ),
        }
    }
}

fn filler(hash: u64) -> String {
    const WORDS: [&str; 12] = [
        "stem",
        "leaf",
        "vein",
        "petiole",
        "node",
        "bud",
        "disk full",
        "rachis",
        "pinna",
        "lobe",
        "margin",
        "tip",
    ];
    let mut rest = mix(hash);
    let mut text = String::new();
    for _ in 0..hash % 40 {
        text.push_str(WORDS[(rest % 12) as usize]);
        text.push(' ');
        rest = mix(rest);
    }
    text
}

/// One step of a well-mixed sequence (splitmix64).
fn mix(value: u64) -> u64 {
    let mut z = value.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}
