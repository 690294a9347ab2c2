//! The test that a clause applies to a value, prepared for many of them.

use std::{
    borrow::Cow,
    cmp::Ordering,
    net::{IpAddr, Ipv4Addr},
};

use ipnet::IpNet;
use proto::json::Value;
use regex::Regex;

use super::{
    number::Number,
    pattern::{TokenTest, Wildcard, is_match, regex},
};
use crate::{
    search::{Match, RangeBound, WHOLE_TEXT_BYTES_MAX},
    token::{self, NearPhrase},
    value::{time_of_double, time_of_int, time_of_text},
};

/// A test of a value.
#[derive(Debug, Clone)]
pub enum ValueTest {
    /// A phrase, a number or a boolean.
    Words {
        /// The tokens of the phrase.
        tokens: Vec<String>,
        /// The number that the text spells.
        number: Option<Number>,
        /// The boolean that it spells.
        boolean: Option<bool>,
    },
    /// A phrase whose tokens may be apart.
    Near(NearPhrase),
    /// A token of a text.
    Token(TokenTest),
    /// A whole text, in lower case.
    Text(Regex),
    /// A token or a whole text.
    TokenOrText(Regex),
    /// An IP address in a text.
    Address(IpNet),
    /// A number.
    Numbers(Range<Number>),
    /// A whole text, compared byte by byte.
    Texts(Range<String>),
    /// A time.
    Times(Range<i64>),
    /// Any value but null.
    Exists,
    /// No value.
    Nothing,
}

/// A range of values. Each bound says whether it is inclusive; None is unbounded.
#[derive(Debug, Clone)]
pub struct Range<T> {
    /// The lower bound.
    pub from: Option<(T, bool)>,
    /// The upper bound.
    pub to: Option<(T, bool)>,
}

impl<T> Range<T> {
    fn contains(&self, compare_to: impl Fn(&T) -> Ordering) -> bool {
        let within = |order: Ordering, inclusive: bool| order.is_gt() || (inclusive && order.is_eq());
        let above = |(bound, inclusive): &(T, bool)| within(compare_to(bound), *inclusive);
        let below = |(bound, inclusive): &(T, bool)| within(compare_to(bound).reverse(), *inclusive);
        self.from.as_ref().is_none_or(above) && self.to.as_ref().is_none_or(below)
    }
}

impl ValueTest {
    /// Prepares a test.
    pub fn new(matches: &Match) -> Self {
        let tokens = |text: &str| token::tokens(text).map(Cow::into_owned).collect();
        match matches {
            Match::Exists | Match::Range { from: None, to: None } | Match::Times { from: None, to: None } => {
                Self::Exists
            }
            Match::Prefix(prefix) => Self::Token(TokenTest::Prefix(token::lower(prefix).into_owned())),
            Match::Words(text) => Self::Words {
                tokens: tokens(text),
                number: Number::of_text(text.trim()),
                boolean: token::lower(text.trim()).parse().ok(),
            },
            Match::Near { text, slop } => Self::Near(NearPhrase::new(text, *slop)),
            Match::Wildcard(pattern) => match Wildcard::new(pattern) {
                None => Self::Nothing,
                Some(wildcard) if wildcard.is_of_token => Self::Token(TokenTest::Pattern {
                    prefix: wildcard.prefix,
                    pattern: wildcard.pattern,
                }),
                Some(wildcard) => Self::Text(wildcard.pattern),
            },
            Match::Regex(pattern) => regex(pattern).map_or(Self::Nothing, Self::TokenOrText),
            Match::Fuzzy { token, changes } => Self::Token(TokenTest::fuzzy(token, *changes)),
            Match::Network(network) => network.parse().map_or(Self::Nothing, Self::Address),
            Match::Times { from, to } => Self::Times(Range {
                from: from.map(|from| (from, true)),
                to: to.map(|to| (to, true)),
            }),
            Match::Range { from, to } => Self::range(from.as_ref(), to.as_ref()),
        }
    }

    /// A range of numbers if all of its bounds are numbers, otherwise of texts.
    fn range(from: Option<&RangeBound>, to: Option<&RangeBound>) -> Self {
        let number = |bound: Option<&RangeBound>| match bound {
            None => Some(None),
            Some(bound) => Number::of_text(bound.value.trim()).map(|number| Some((number, bound.inclusive))),
        };
        let text = |bound: Option<&RangeBound>| bound.map(|bound| (bound.value.clone(), bound.inclusive));
        match (number(from), number(to)) {
            (Some(from), Some(to)) => Self::Numbers(Range { from, to }),
            _ => Self::Texts(Range {
                from: text(from),
                to: text(to),
            }),
        }
    }

    /// Whether a value that is neither a list nor an object passes.
    pub fn value(&self, value: &Value<'_>) -> bool {
        match value {
            Value::Null => false,
            _ if matches!(self, Self::Exists) => true,
            Value::Text(text) => self.text(text),
            Value::Bool(bool) => self.boolean(*bool),
            number => Number::of(number).is_some_and(|number| self.number(number)),
        }
    }

    /// Whether a text passes.
    pub fn text(&self, text: &str) -> bool {
        match self {
            Self::Words { tokens, .. } => token::contains_phrase(text, tokens),
            Self::Near(phrase) => phrase.is_in(text),
            Self::Token(test) => test.text(text),
            Self::Text(pattern) => text.len() <= WHOLE_TEXT_BYTES_MAX && is_match(pattern, &token::lower(text)),
            Self::TokenOrText(pattern) => {
                is_match(pattern, text) || token::tokens(text).any(|token| is_match(pattern, &token))
            }
            Self::Address(network) => has_address(text, network),
            Self::Texts(range) => range.contains(|bound| text.cmp(bound)),
            Self::Times(_) => time_of_text(text).is_some_and(|time| self.time(time)),
            Self::Exists => true,
            Self::Numbers(_) | Self::Nothing => false,
        }
    }

    /// Whether a number passes.
    pub fn number(&self, number: Number) -> bool {
        match self {
            Self::Words {
                number: Some(wanted), ..
            } => wanted.compare(number).is_eq(),
            Self::Numbers(range) => range.contains(|bound| number.compare(*bound)),
            Self::Times(_) => {
                let time = match number {
                    Number::Int(int) => time_of_int(int),
                    Number::Double(double) => time_of_double(double),
                };
                time.is_some_and(|time| self.time(time))
            }
            Self::Exists => true,
            _ => false,
        }
    }

    /// Whether a time, in microseconds since 1970, passes as a time.
    pub fn time(&self, time: i64) -> bool {
        matches!(self, Self::Times(range) if range.contains(|bound| time.cmp(bound)))
    }

    /// Whether a boolean passes.
    pub fn boolean(&self, value: bool) -> bool {
        match self {
            Self::Words { boolean, .. } => *boolean == Some(value),
            Self::Exists => true,
            _ => false,
        }
    }

    /// Whether some text may pass.
    pub fn may_pass_texts(&self) -> bool {
        !matches!(self, Self::Numbers(_) | Self::Nothing)
    }

    /// Whether some number may pass.
    pub fn may_pass_numbers(&self) -> bool {
        matches!(
            self,
            Self::Words { number: Some(_), .. } | Self::Numbers(_) | Self::Times(_) | Self::Exists
        )
    }
}

/// Whether a text has an IP address of a network, perhaps with a port, or with a name and a colon before it.
fn has_address(text: &str, network: &IpNet) -> bool {
    addresses(text, network).next().is_some()
}

/// The places of the IP addresses of a network in a text.
pub(super) fn addresses<'a>(text: &'a str, network: &'a IpNet) -> impl Iterator<Item = std::ops::Range<usize>> + 'a {
    let contains = |address: IpAddr| network.contains(&address) || network.contains(&address.to_canonical());
    let is_of_address = |c: char| c.is_ascii_hexdigit() || matches!(c, '.' | ':');
    let place = |part: &str| {
        let start = part.as_ptr() as usize - text.as_ptr() as usize;
        start..start + part.len()
    };
    text.split(move |c| !is_of_address(c))
        .filter(|part| part.len() > 1)
        .filter_map(move |part| {
            let part = part.trim_end_matches('.');
            let host = part.rsplit_once(':').map(|(host, _)| host);
            // Of `src:10.0.0.1:80`, the colons are not those of an address.
            let between_colons = part.split(':').filter(|part| part.parse::<Ipv4Addr>().is_ok());
            let candidates = [Some(part), host].into_iter().flatten().chain(between_colons);
            candidates
                .into_iter()
                .find(|part| part.parse().is_ok_and(contains))
                .map(place)
        })
}
