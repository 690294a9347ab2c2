//! GitHub events of two hours, copied into later hours.
//!
//! A copy differs from its original in two values: `id` is 100,000 greater per copy, and the event's own `created_at`
//! two hours later. All other bytes are equal.

use std::fmt::Write as _;

use anyhow::{Context as _, Result};

/// The file of real events, all of 2015-01-01 from 0:00 to 2:00.
pub(crate) const FILE: &str = "gharchive_2015.ndjson.gz";
/// Greater than the distance between any two ids of the file.
const ID_STEP: u64 = 100_000;
const HOURS_STEP: u64 = 2;

/// Appends the copy with this number (0 is the original) of an event, without a line break.
pub(crate) fn write_copy(event: &str, copy: u64, out: &mut String) -> Result<()> {
    const ID: &str = "{\"id\":\"";
    // Objects inside the event have this key as well; that of the event itself comes last.
    const CREATED: &str = "\"created_at\":\"2015-01-01T";
    let rest = event.strip_prefix(ID).context("an event does not begin with its id")?;
    let (id, rest) = rest.split_once('"').context("an id does not end")?;
    let id: u64 = id.parse().context("an id is not a number")?;
    let hour_at = rest
        .rfind(CREATED)
        .context("an event has no created_at on 2015-01-01")?
        + CREATED.len();
    let (before_day, minutes) = (&rest[..hour_at - "01T".len()], &rest[hour_at + 2..]);
    let hour: u64 = rest[hour_at..hour_at + 2].parse().context("no hour in created_at")?;
    let hour = hour + copy * HOURS_STEP;
    write!(out, "{ID}{}\"{before_day}", id + copy * ID_STEP)?;
    write!(out, "{:02}T{:02}{minutes}", 1 + hour / 24, hour % 24)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::write_copy;

    #[test]
    fn a_copy_moves_only_the_events_own_id_and_time() {
        let event = concat!(
            r#"{"id":"2489368070","payload":{"id":"7","created_at":"2015-01-01T01:00:00Z"},"#,
            r#""created_at":"2015-01-01T01:59:59Z","org":{"id":3}}"#
        );
        let copy = |number| {
            let mut out = String::new();
            write_copy(event, number, &mut out).expect("an event");
            out
        };
        assert_eq!(copy(0), event);
        let moved = event
            .replace("2489368070", "2490568070")
            .replace("2015-01-01T01:59:59Z", "2015-01-02T01:59:59Z");
        assert_eq!(copy(12), moved);
    }
}
