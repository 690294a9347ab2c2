//! How fast the machine is while a test runs.

use std::{collections::BTreeMap, time::Duration};

/// CPU time of the fixed work at the speed for which the limits were chosen.
const USUAL: Duration = Duration::from_millis(90);
const KEYS: u64 = 100_000;

/// How many times as long as usual a fixed piece of work takes now, in CPU time; at least 1.
///
/// Other guests of the machine, a low clock and a busy sibling of a core stretch CPU time too. A limit of CPU time is
/// therefore multiplied by this, measured beside it. The work allocates and compares texts, as planning does.
pub fn slowness() -> f64 {
    let before = thread_cpu_time();
    let numbers = (0..KEYS).map(|number| number.wrapping_mul(0x9E37_79B9_7F4A_7C15));
    let by_text: BTreeMap<String, u64> = numbers.map(|number| (format!("{number:020}"), number)).collect();
    assert_eq!(by_text.len() as u64, KEYS);
    drop(by_text);
    let taken = thread_cpu_time().saturating_sub(before);
    (taken.as_secs_f64() / USUAL.as_secs_f64()).max(1.0)
}

fn thread_cpu_time() -> Duration {
    let stat = std::fs::read_to_string("/proc/thread-self/schedstat").expect("the times of this thread");
    let nanos = stat.split(' ').next().and_then(|nanos| nanos.parse().ok());
    Duration::from_nanos(nanos.expect("nanoseconds on the CPU"))
}
