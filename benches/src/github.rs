//! GitHub events of two hours, copied into later hours.
//!
//! A copy differs from its original in three values: `id` is 100,000 greater per copy, the event's own `created_at` two
//! hours later, and the commit that a push ends with (`payload.head`, unique in the file for most pushes) begins with
//! the number of the copy. All other bytes are equal.

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
    /// Elsewhere in an event, a head is an object.
    const HEAD: &str = "\"head\":\"";
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
    write!(out, "{ID}{}\"", id + copy * ID_STEP)?;
    match before_day.split_once(HEAD) {
        Some((before, head)) if copy > 0 && head.is_char_boundary(2) => {
            write!(out, "{before}{HEAD}{:02x}{}", copy % 256, &head[2..])?;
        }
        _ => out.push_str(before_day),
    }
    write!(out, "{:02}T{:02}{minutes}", 1 + hour / 24, hour % 24)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::write_copy;

    #[test]
    fn a_copy_moves_only_the_events_own_id_and_time_and_marks_its_head() {
        let event = concat!(
            r#"{"id":"2489368070","payload":{"id":"7","head":"fe2b","created_at":"2015-01-01T01:00:00Z"},"#,
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
            .replace("fe2b", "0c2b")
            .replace("2015-01-01T01:59:59Z", "2015-01-02T01:59:59Z");
        assert_eq!(copy(12), moved);
    }
}
