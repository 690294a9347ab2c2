//! Weighs the rows of a call: the bytes or steps that each may take, by the sizes of its arguments.

use std::collections::{HashMap, hash_map::Entry};

use datafusion::{common::Result, logical_expr::ScalarFunctionArgs};

use super::{
    super::{
        context::limit_reached,
        growth::{Argument, ArgumentRow, Growth, is_compiled},
        parsed::{PARSED, PARSED_JSON},
        registry::{self, Property},
        text,
    },
    pattern::check_pattern,
    spelling,
};
use crate::{
    parser::{Format, TEXT_BYTES_MAX, TextParser},
    regex_states::states,
};

/// Maximum weight of the rows of one part: bytes produced, or steps of work.
const PART_WEIGHT_MAX: u64 = 16 << 20;
/// Maximum weight of one row. A part has at least one row.
const ROW_WEIGHT_MAX: u64 = 256 << 20;
/// The weight of compiling a regular expression, besides what the library caches for each.
const PATTERN_WEIGHT: u64 = 2 << 20;
/// States of a regular expression that are visited in one step, at worst.
const STATES_PER_STEP_AT_WORST: u64 = 2;
/// States of a regular expression that are usually visited in one step. Parts are sized by this: with the worst case
/// they would be so small that compiling the pattern for each takes longer than its rows.
const STATES_PER_STEP_USUALLY: u64 = 16;

/// How many values of a parser's result may contain one byte of a text.
fn overlap(args: &[Argument]) -> u64 {
    let text = |index: usize| args.get(index).and_then(|arg| arg.text(0)).unwrap_or_default();
    let parser = Format::parse(text(1)).map(|format| TextParser::cached(format, text(2)));
    parser.and_then(Result::ok).map_or(0, |parser| parser.overlap())
}

/// A call and the weights of its rows.
pub(super) struct WeighedCall<'a> {
    name: &'a str,
    args: Vec<Argument>,
    rows: usize,
    growth: Option<Growth>,
    /// Whether the second argument is a regular expression.
    takes_regex: bool,
    /// States of the pattern, if it is the same for all rows.
    states: u64,
    /// How many values of a parser's result may contain one byte of a text; 0 for other functions.
    overlap: u64,
}

impl<'a> WeighedCall<'a> {
    pub(super) fn new(name: &'a str, args: &ScalarFunctionArgs, rows: usize) -> Result<Self> {
        let entry = registry::function(name);
        let growth = entry.and_then(|entry| entry.growth);
        let takes_regex = entry.is_some_and(|entry| entry.has(Property::TakesRegex));
        let parses = matches!(name, PARSED | PARSED_JSON);
        let per_value = growth.is_some() || takes_regex || parses;
        let args: Vec<_> = args
            .args
            .iter()
            .map(|arg| Argument::new(arg, per_value))
            .collect::<Result<_>>()?;
        let states = match args
            .get(1)
            .filter(|pattern| pattern.is_constant())
            .and_then(|pattern| pattern.text(0))
        {
            Some(pattern) if takes_regex => {
                check_pattern(name, pattern)?;
                states(pattern)
            }
            Some(pattern) if matches!(name, text::LIKE | text::ILIKE) && is_compiled(pattern) => pattern.len() as u64,
            _ => 0,
        };
        Ok(Self {
            overlap: if parses { overlap(&args) } else { 0 },
            name,
            args,
            rows,
            growth,
            takes_regex,
            states,
        })
    }

    pub(super) fn weight(&self, row: usize) -> u64 {
        let row = ArgumentRow { args: &self.args, row };
        match self.overlap {
            0 => row.weight(self.growth),
            // Its other arguments are read once. A text that is not parsed may be copied.
            overlap => row.bytes(0) + row.bytes(0).min(TEXT_BYTES_MAX as u64).saturating_mul(overlap),
        }
    }

    /// Bytes of the row's text times states of the pattern: the states that a search may visit. A regular expression
    /// that differs by row is handled in [`part_end`](Self::part_end) instead.
    fn visited_states(&self, row: usize) -> u64 {
        let row = ArgumentRow { args: &self.args, row };
        let states = match (self.name, row.args.get(1)) {
            (text::LIKE | text::ILIKE, Some(Argument::Texts(_))) if is_compiled(row.text(1)) => row.bytes(1),
            _ => self.states,
        };
        row.bytes(0).saturating_mul(states)
    }

    /// Whether the rows together are too heavy for one part.
    pub(super) fn is_heavy(&self) -> bool {
        let weight = match self.growth {
            None if self.states == 0 && self.overlap == 0 => self
                .args
                .iter()
                .map(|arg| arg.total_bytes(self.rows))
                .fold(0, u64::saturating_add),
            _ => (0..self.rows)
                .map(|row| {
                    self.weight(row)
                        .saturating_add(self.visited_states(row) / STATES_PER_STEP_USUALLY)
                })
                .fold(0, u64::saturating_add),
        };
        weight > PART_WEIGHT_MAX || (self.rows > 0 && self.regex_column().is_some())
    }

    /// The argument that is a regular expression, if it differs by row.
    fn regex_column(&self) -> Option<&Argument> {
        self.args
            .get(1)
            .filter(|pattern| self.takes_regex && !pattern.is_constant())
    }

    /// The end of the part that begins at row `from`. Fails if one row is too heavy.
    pub(super) fn part_end(&self, from: usize) -> Result<usize> {
        let (mut sum, mut patterns) = (0_u64, HashMap::new());
        for row in from..self.rows {
            let mut weight = self.weight(row);
            let mut visited = self.visited_states(row);
            if let Some(pattern) = self.regex_column().and_then(|pattern| pattern.text(row)) {
                let states = match patterns.entry(pattern) {
                    Entry::Occupied(known) => *known.get(),
                    Entry::Vacant(new) => {
                        check_pattern(self.name, pattern)?;
                        weight += PATTERN_WEIGHT;
                        *new.insert(states(pattern))
                    }
                };
                visited = ArgumentRow { args: &self.args, row }.bytes(0).saturating_mul(states);
            }
            let worst = weight.saturating_add(visited / STATES_PER_STEP_AT_WORST);
            if worst > ROW_WEIGHT_MAX {
                return Err(limit_reached(
                    format!(
                        "{} would take {worst} bytes or steps for one row; the limit is {ROW_WEIGHT_MAX}",
                        spelling(self.name)
                    ),
                    "pass shorter texts or lists, for example left(x, 1000)",
                ));
            }
            sum = sum
                .saturating_add(weight)
                .saturating_add(visited / STATES_PER_STEP_USUALLY);
            if sum > PART_WEIGHT_MAX && row > from {
                return Ok(row);
            }
        }
        Ok(self.rows)
    }
}
