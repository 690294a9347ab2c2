//! Ranges and comparisons: `[1 TO 9]`, `{now-1h TO *}`, `>=3`.

use proto::Problem;

use super::{Parser, notes};
use crate::search::{
    Match, RangeBound,
    relative_time::{self, TimeSpan},
};

/// A bound of a range, and where it is in the text.
struct Bound {
    at: usize,
    /// Whether it is a relative time.
    is_relative: bool,
    limit: RangeBound,
}

impl Bound {
    fn is_time(&self) -> bool {
        self.is_relative || relative_time::is_absolute(&self.limit.value)
    }
}

impl Parser<'_> {
    /// Rejects a bound that looks like a time but does not parse as one. Compared as a text, it would match nothing or
    /// everything.
    fn check_time(&self, at: usize, text: &str) -> Result<(), Problem> {
        if relative_time::is_like_time(text) {
            self.time(at, text)?;
        }
        Ok(())
    }

    /// The time that a bound says.
    pub(super) fn time(&self, at: usize, text: &str) -> Result<TimeSpan, Problem> {
        relative_time::parse(text, self.now).ok_or_else(|| {
            self.error_at(
                at,
                &format!("{text} is not a time"),
                "write now, now-1h, now-1d/d, 2026-01-31 or \"2026-01-31T08:00:00Z\"; put other texts in quotes",
            )
        })
    }

    /// A range between two bounds, which are times if one of them is relative or all of them are dates or times. Each
    /// bound has its place in the text.
    fn between(&mut self, from: Option<Bound>, to: Option<Bound>) -> Result<Match, Problem> {
        let bounds = || from.iter().chain(&to);
        let is_relative = bounds().any(|bound| bound.is_relative);
        self.is_relative |= is_relative;
        let are_times = bounds().next().is_some() && bounds().all(Bound::is_time);
        if !is_relative && !are_times {
            let limit = |bound: Option<Bound>| bound.map(|bound| bound.limit);
            return Ok(Match::Range {
                from: limit(from),
                to: limit(to),
            });
        }
        let span = |bound: Option<Bound>| -> Result<Option<(TimeSpan, bool)>, Problem> {
            let Some(bound) = bound else { return Ok(None) };
            Ok(Some((self.time(bound.at, &bound.limit.value)?, bound.limit.inclusive)))
        };
        let (from, to) = (span(from)?, span(to)?);
        Ok(Match::Times {
            from: from.map(|(span, inclusive)| {
                if inclusive {
                    span.first
                } else {
                    span.last.saturating_add(1)
                }
            }),
            to: to.map(|(span, inclusive)| {
                if inclusive {
                    span.last
                } else {
                    span.first.saturating_sub(1)
                }
            }),
        })
    }

    pub(super) fn comparison(&mut self) -> Result<Option<Match>, Problem> {
        let started = self.at;
        let below = self.rest().starts_with('<');
        self.at += 1;
        let inclusive = self.rest().starts_with('=');
        self.at += usize::from(inclusive);
        let at = self.at;
        let (value, is_quoted) = match self.rest().starts_with('"') {
            true => (self.quoted()?, true),
            false => {
                let word = self.bare(&[]);
                if word.has_wildcard {
                    return Err(self.error_at(at, "a comparison has no wildcards", "put literal text in quotes"));
                }
                self.check_time(at, &word.text)?;
                notes::of_bound(&word.text).into_iter().for_each(|note| self.note(note));
                (word.text, false)
            }
        };
        if value.is_empty() {
            return Err(self.error_at(
                started,
                "there is nothing to compare with",
                "write path:>3, without a space",
            ));
        }
        let bound = Some(Bound {
            at,
            is_relative: !is_quoted && relative_time::is_relative(&value),
            limit: RangeBound { value, inclusive },
        });
        let matches = if below {
            self.between(None, bound)
        } else {
            self.between(bound, None)
        };
        matches.map(Some)
    }

    /// `[1 TO 9]`; `{` and `}` exclude the bound itself; `*` leaves a side unbounded.
    pub(super) fn range(&mut self) -> Result<Match, Problem> {
        let opened = self.at;
        let hint = "write path:[1 TO 9], path:{1 TO 9} or path:[1 TO *]";
        let from_inclusive = self.rest().starts_with('[');
        self.at += 1;
        let from = self.bound()?;
        if !self.take_keyword("TO") {
            return Err(self.error_at(opened, "a range has no TO", hint));
        }
        let to = self.bound()?;
        let to_inclusive = match self.rest().chars().next() {
            Some(']') => true,
            Some('}') => false,
            _ => return Err(self.error_at(opened, "a range is not closed", hint)),
        };
        self.at += 1;
        let limit = |bound: Option<Bound>, inclusive| {
            bound.map(|mut bound| {
                bound.limit.inclusive = inclusive;
                bound
            })
        };
        self.between(limit(from, from_inclusive), limit(to, to_inclusive))
    }

    fn bound(&mut self) -> Result<Option<Bound>, Problem> {
        self.skip_space();
        let at = self.at;
        let (value, is_relative) = if self.rest().starts_with('"') {
            (self.quoted()?, false)
        } else {
            let word = self.bare(&[']', '}']);
            if word.is_star() {
                self.skip_space();
                return Ok(None);
            }
            if word.text.is_empty() || word.has_wildcard {
                return Err(self.error(
                    "a bound of the range is missing",
                    "write path:[1 TO 9]; * leaves a side unbounded",
                ));
            }
            self.check_time(at, &word.text)?;
            notes::of_bound(&word.text).into_iter().for_each(|note| self.note(note));
            let is_relative = relative_time::is_relative(&word.text);
            (word.text, is_relative)
        };
        self.skip_space();
        let limit = RangeBound { value, inclusive: true };
        Ok(Some(Bound { at, is_relative, limit }))
    }
}
