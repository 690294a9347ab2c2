//! The path to a value in a document, and its only spelling: `user.name`, `items[0].sku`, `"odd key".x`.

use std::fmt;

use proto::json;
use serde::{Deserialize, Serialize};

/// Steps of a path that is read from a text. A document has at most 100 levels.
pub const STEPS_MAX: usize = 200;

/// One step of a path.
pub type Step = json::Step<Box<str>>;

/// The steps to a value. The empty path is the document itself.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Path(Vec<Step>);

impl Path {
    /// A path of these steps.
    pub fn new(steps: Vec<Step>) -> Self {
        Self(steps)
    }

    /// A path of these keys.
    pub fn of_keys<'a>(keys: impl IntoIterator<Item = &'a str>) -> Self {
        Self(keys.into_iter().map(|key| Step::Key(key.into())).collect())
    }

    /// This path, extended by a key.
    pub fn key(&self, key: &str) -> Self {
        self.with(Step::Key(key.into()))
    }

    /// This path, extended by a step.
    pub fn with(&self, step: Step) -> Self {
        Self(self.0.iter().cloned().chain([step]).collect())
    }

    /// The steps of the path.
    pub fn steps(&self) -> &[Step] {
        &self.0
    }

    /// Its keys, if no step is an index.
    pub fn keys(&self) -> Option<Vec<&str>> {
        self.0.iter().map(Step::key).collect()
    }

    /// The last key, which names the result column of the path.
    pub fn last_key(&self) -> Option<&str> {
        self.0.iter().rev().find_map(Step::key)
    }

    /// Parses a spelling. Keys that are not plain words are in double quotes, with each quote inside doubled.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut steps = Vec::new();
        let mut rest = text;
        loop {
            let (key, after) = match rest.strip_prefix('"') {
                Some(quoted) => quoted_key(quoted).ok_or_else(|| format!("{text:?}: a quote is not closed"))?,
                None => plain_key(rest),
            };
            if key.is_empty() && !rest.starts_with('"') {
                return Err(format!(
                    "{text:?}: a key is missing; write a path as user.name, items[0].sku or \"odd key\".x"
                ));
            }
            steps.push(Step::Key(key.into()));
            rest = after;
            check_steps(steps.len())?;
            while let Some(bracket) = rest.strip_prefix('[') {
                let (index, after) = bracket
                    .split_once(']')
                    .ok_or_else(|| format!("{text:?}: a bracket is not closed"))?;
                let index = index
                    .trim()
                    .parse()
                    .map_err(|_| format!("{text:?}: {index:?} is not an index; brackets count from 0"))?;
                steps.push(Step::Index(index));
                rest = after;
                check_steps(steps.len())?;
            }
            match rest.strip_prefix('.') {
                Some(after) => rest = after,
                None if rest.is_empty() => return Ok(Self(steps)),
                None => return Err(format!("{text:?}: unexpected {rest:?}")),
            }
        }
    }
}

/// Whether a path may have so many steps. What reads paths recurses over them.
pub fn check_steps(count: usize) -> Result<(), String> {
    match count > STEPS_MAX {
        true => Err(format!("a path has more than {STEPS_MAX} steps")),
        false => Ok(()),
    }
}

/// Splits a text at its closing quote into the key and the remaining text.
fn quoted_key(text: &str) -> Option<(String, &str)> {
    let mut key = String::new();
    let mut rest = text;
    loop {
        let (part, after) = rest.split_once('"')?;
        key.push_str(part);
        match after.strip_prefix('"') {
            Some(after) => {
                key.push('"');
                rest = after;
            }
            None => return Some((key, after)),
        }
    }
}

fn plain_key(text: &str) -> (String, &str) {
    let end = text.find(['.', '[', '"', ']']).unwrap_or(text.len());
    (text[..end].to_owned(), &text[end..])
}

/// Whether a key is spelled without quotes.
fn is_plain(key: &str) -> bool {
    let mut chars = key.chars();
    chars
        .next()
        .is_some_and(|c| c.is_alphabetic() || c == '_' || c == '@' || c == '$')
        && chars.all(|c| c.is_alphanumeric() || matches!(c, '_' | '@' | '$' | '-'))
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, step) in self.0.iter().enumerate() {
            match step {
                Step::Index(index) => write!(f, "[{index}]")?,
                Step::Key(key) => {
                    let dot = if i == 0 { "" } else { "." };
                    if is_plain(key) {
                        write!(f, "{dot}{key}")?
                    } else {
                        write!(f, "{dot}\"{}\"", key.replace('"', "\"\""))?
                    }
                }
            }
        }
        Ok(())
    }
}

impl TryFrom<String> for Path {
    type Error = String;
    fn try_from(text: String) -> Result<Self, String> {
        match text.chars().next() {
            None => Ok(Self::default()),
            // The path begins inside a list: parse it with a placeholder key for the list, then drop that key.
            Some('[') => Self::parse(&format!("list{text}")).map(|path| Self(path.0[1..].to_vec())),
            Some(_) => Self::parse(&text),
        }
    }
}

impl From<Path> for String {
    fn from(path: Path) -> String {
        path.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_spelling_parses_to_the_same_path() {
        let odd = Path::of_keys(["a.b", "c\"d", "", "e f", "\0", "😀", "x[0]", "9"])
            .with(Step::Index(7))
            .key("z");
        assert_eq!(Path::parse(&odd.to_string()), Ok(odd));
        for text in [
            "user.name",
            "items[0].sku",
            "\"odd key\".x",
            "a[0][1]",
            "@timestamp",
            "user-agent",
        ] {
            assert_eq!(Path::parse(text).map(|p| p.to_string()).as_deref(), Ok(text));
        }
        for text in ["", ".", "a.", "a..b", "a[", "a[x]", "a[0]b", "\"a", "[0]"] {
            assert!(Path::parse(text).is_err(), "{text:?} is not a path");
        }
    }

    #[test]
    fn a_path_that_begins_inside_a_list_parses_to_the_same_path() {
        for path in [
            Path::default(),
            Path::default().with(Step::Index(1)).key("kind"),
            Path::default().with(Step::Index(0)).with(Step::Index(2)),
        ] {
            assert_eq!(Path::try_from(path.to_string()), Ok(path));
        }
    }
}
