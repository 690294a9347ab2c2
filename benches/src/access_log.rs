//! Generates lines of an access log, reproducibly from a seed. Line `i` depends only on the seed and on `i`.

use std::fmt::Write as _;

/// The time of the first line in milliseconds since 1970, and the time between two lines.
const FIRST_MS: i64 = 1_790_000_000_000;
const STEP_MS: i64 = 40;
const METHODS: [&str; 5] = ["GET", "GET", "GET", "POST", "DELETE"];
const STATUSES: [u32; 8] = [200, 200, 200, 200, 304, 404, 302, 500];
const HOSTS: u64 = 20;

/// An access log.
pub(crate) struct AccessLog {
    seed: u64,
}

impl AccessLog {
    pub(crate) fn new(seed: u64) -> Self {
        Self { seed }
    }

    /// Appends a document.
    pub(crate) fn document(&self, i: u64, out: &mut String) {
        let random = scramble(self.seed ^ scramble(i));
        let part = |shift: u32, below: u64| (random >> shift) % below;
        let time = chrono::DateTime::from_timestamp_millis(FIRST_MS + i as i64 * STEP_MS).unwrap_or_default();
        let _ = write!(
            out,
            r#"{{"time":"{}","host":"web-{}","line":"10.{}.{}.{} \"{} /products/{}?page={} HTTP/1.1\" {} {} {}ms"}}"#,
            time.format("%Y-%m-%dT%H:%M:%S%.3fZ"),
            part(0, HOSTS),
            part(5, 4),
            part(8, 250),
            part(16, 250),
            METHODS[part(24, METHODS.len() as u64) as usize],
            part(27, 40_000),
            part(33, 9),
            STATUSES[part(37, STATUSES.len() as u64) as usize],
            part(41, 90_000),
            1 + part(52, 2_000),
        );
    }
}

/// Mixes the bits of a number (SplitMix64).
fn scramble(number: u64) -> u64 {
    let mut mixed = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}
