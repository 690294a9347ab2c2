//! REGEX: a regular expression whose named groups are fields. Matching takes time proportional to the text.

use std::borrow::Cow;

use proto::{Code, Problem};
use regex::Regex;
use regex_syntax::hir::{Hir, HirKind};

use super::{Parse, ParsedField};
use crate::regex_states::{compiled_states, states};

/// Bytes of a compiled pattern, and of what matching remembers of a text.
const COMPILED_BYTES_MAX: usize = 4 << 20;
/// Bytes of a state of a compiled pattern, about.
const BYTES_OF_STATE: usize = 64;
/// States of a pattern times its groups.
const PLACES_MAX: u64 = 4 << 20;
/// What each thread that matches remembers for one of them: where the group begins and ends, now and next.
const BYTES_OF_PLACE: usize = 64;

/// A regular expression whose groups are fields.
pub(super) struct Pattern {
    regex: Regex,
    /// Groups, each with the index of its field. Of several groups of a field, the first that matches counts.
    groups: Vec<(usize, usize)>,
    fields: Vec<ParsedField>,
    /// The states that it may be in at once.
    states: u64,
    /// How deep its groups are within each other.
    group_depth: u64,
}

impl Pattern {
    /// A regular expression as the user wrote it.
    pub(super) fn of_regex(pattern: &str) -> Result<Self, Problem> {
        let regex = regex(pattern).map_err(|reason| {
            Problem::new(Code::BadSql, format!("REGEX is not a regular expression: {reason}"))
                .hint("look-around and back references are not supported, because they can take very long")
        })?;
        let named = regex.capture_names().enumerate();
        let named = named.filter_map(|(group, name)| Some((group, ParsedField::text(name?))));
        let named = named.collect();
        Ok(Self::new(regex, named))
    }

    /// A regular expression and the field of each group.
    pub(super) fn new(regex: Regex, named: Vec<(usize, ParsedField)>) -> Self {
        let (mut groups, mut fields) = (Vec::with_capacity(named.len()), Vec::<ParsedField>::new());
        for (group, field) in named {
            let known = fields.iter().position(|known| known.name == field.name);
            groups.push((group, known.unwrap_or(fields.len())));
            if known.is_none() {
                fields.push(field);
            }
        }
        let syntax = regex_syntax::parse(regex.as_str());
        Self {
            states: states(regex.as_str()),
            group_depth: syntax.map_or(1, |syntax| group_depth(&syntax)),
            regex,
            groups,
            fields,
        }
    }
}

/// Compiles a regular expression. Returns the reason in one line if its syntax is wrong or it is too large.
pub(super) fn regex(pattern: &str) -> Result<Regex, String> {
    let compiled = regex::RegexBuilder::new(pattern)
        .size_limit(COMPILED_BYTES_MAX)
        .dfa_size_limit(COMPILED_BYTES_MAX)
        .build();
    let compiled = compiled.map_err(|error| match error {
        regex::Error::CompiledTooBig(_) => format!("compiled, it takes more than {COMPILED_BYTES_MAX} bytes"),
        // The message repeats the pattern over several lines; its last one has the reason.
        other => {
            let message = other.to_string();
            let last = message.lines().last().unwrap_or_default();
            last.trim().trim_start_matches("error: ").to_owned()
        }
    })?;
    // Matching may remember the place of each group for each state.
    let places = compiled_states(pattern).saturating_mul(compiled.captures_len() as u64);
    match places > PLACES_MAX {
        true => Err(format!(
            "it has {places} states times groups; the limit is {PLACES_MAX}"
        )),
        false => Ok(compiled),
    }
}

impl Parse for Pattern {
    fn fields(&self) -> &[ParsedField] {
        &self.fields
    }

    fn bytes(&self) -> usize {
        let states = compiled_states(self.regex.as_str()) as usize;
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        states * (BYTES_OF_STATE + threads * BYTES_OF_PLACE * self.regex.captures_len())
    }

    fn states(&self) -> u64 {
        self.states
    }

    fn overlap(&self) -> u64 {
        self.group_depth
    }

    fn parse<'t>(&self, text: &'t str, values: &mut [Option<Cow<'t, str>>]) -> bool {
        let Some(captures) = self.regex.captures(text) else {
            return false;
        };
        for (group, field) in &self.groups {
            let unset = values.get_mut(*field).filter(|value| value.is_none());
            if let (Some(value), Some(found)) = (unset, captures.get(*group)) {
                *value = Some(Cow::Borrowed(found.as_str()));
            }
        }
        true
    }
}

/// How deep the groups of a pattern are within each other.
fn group_depth(part: &Hir) -> u64 {
    match part.kind() {
        HirKind::Empty | HirKind::Look(_) | HirKind::Literal(_) | HirKind::Class(_) => 0,
        HirKind::Repetition(repeated) => group_depth(&repeated.sub),
        HirKind::Capture(group) => 1 + group_depth(&group.sub),
        HirKind::Concat(parts) | HirKind::Alternation(parts) => parts.iter().map(group_depth).max().unwrap_or(0),
    }
}
