//! The names that documents of one collection answer to: paths seen, fields defined, and the near misses worth
//! suggesting.

use std::{
    cell::{Cell, OnceCell},
    collections::{BTreeSet, HashMap},
    sync::Arc,
};

use plan::{Kinds, Path, PathKinds, path::Step};
use proto::{Catalog, CollectionName};

/// The names of one collection.
#[derive(Debug)]
pub struct Names {
    /// Whose.
    pub collection: CollectionName,
    /// Paths that were seen, of keys only, and their kinds.
    seen: Arc<PathKinds>,
    /// Fields by path.
    fields: BTreeSet<Path>,
    /// Paths and fields by their spelling in lower case: made when a name is not found as it is written.
    folded: OnceCell<HashMap<String, Vec<Path>>>,
    /// How often something was suggested.
    suggested: Cell<usize>,
}

/// Suggestions for one statement: each looks at all names, of which there may be thousands.
const SUGGESTIONS_MAX: usize = 20;

/// What a name is.
#[derive(Debug, Clone, PartialEq)]
pub enum Found {
    /// A field, and what of its value is asked.
    Field(Path, Vec<Step>),
    /// A path with the kinds of its values; none where an index is on the way.
    Path(Path, Kinds),
}

/// How exactly a name was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fit {
    /// As it was written.
    Exact,
    /// But for the case of letters.
    Folded,
}

impl Names {
    /// The names of a collection.
    pub fn new(collection: &CollectionName, catalog: &Catalog, seen: Arc<PathKinds>) -> Self {
        let own = |id: &&proto::catalog::DefinitionId| id.collection.as_ref() == Some(collection);
        let fields: BTreeSet<Path> = catalog
            .definitions
            .keys()
            .filter(own)
            .filter_map(|id| Path::parse(&id.name).ok())
            .collect();
        Self {
            collection: collection.clone(),
            seen,
            fields,
            folded: OnceCell::new(),
            suggested: Cell::new(0),
        }
    }

    /// Paths and fields by their spelling in lower case; every object on the way is a path too.
    fn folded(&self) -> &HashMap<String, Vec<Path>> {
        self.folded.get_or_init(|| {
            let mut folded: HashMap<String, Vec<Path>> = HashMap::new();
            for path in self.seen.paths.keys().chain(&self.fields) {
                for length in 1..=path.steps().len() {
                    let path = Path::new(path.steps()[..length].to_vec());
                    let spellings = folded.entry(path.to_string().to_lowercase()).or_default();
                    if !spellings.contains(&path) {
                        spellings.push(path);
                    }
                }
            }
            folded
        })
    }

    /// The kinds of a path of keys. An object on the way to one has none of its own if nobody noted any.
    fn kinds(&self, path: &Path) -> Option<Kinds> {
        // Paths are ordered by their steps, so what lies below a path follows it at once.
        let (next, kinds) = self.seen.paths.range::<Path, _>(path..).next()?;
        match next.steps().strip_prefix(path.steps())? {
            [] => Some(*kinds),
            _ => Some(Kinds::default()),
        }
    }

    /// What these steps are called here, if anything: fields first, then paths that were seen.
    pub fn find(&self, steps: &[Step], fit: Fit) -> Option<Found> {
        let path = Path::new(steps.to_vec());
        match fit {
            Fit::Exact => self.field(&path).or_else(|| self.seen(&path)),
            Fit::Folded => self.folded_field(&path).or_else(|| self.folded_path(&path)),
        }
    }

    /// A path of stored documents; never a field.
    pub fn stored(&self, path: &Path) -> Option<Found> {
        self.seen(path)
    }

    /// Whether documents have paths beyond those remembered.
    pub fn overflow(&self) -> bool {
        self.seen.overflow
    }

    /// The longest field that is a beginning of the path.
    fn field(&self, path: &Path) -> Option<Found> {
        let steps = path.steps();
        (1..=steps.len()).rev().find_map(|length| {
            let field = Path::new(steps[..length].to_vec());
            self.fields
                .contains(&field)
                .then(|| Found::Field(field, steps[length..].to_vec()))
        })
    }

    fn seen(&self, path: &Path) -> Option<Found> {
        let keys = without_indexes(path);
        let kinds = self.kinds(&keys)?;
        // Behind an index only arrays' elements are met, whose kinds nobody has noted.
        Some(Found::Path(
            path.clone(),
            if keys == *path { kinds } else { Kinds::default() },
        ))
    }

    fn folded_field(&self, path: &Path) -> Option<Found> {
        let steps = path.steps();
        (1..=steps.len()).rev().find_map(|length| {
            let field = Path::new(steps[..length].to_vec());
            let [one] = self.folded().get(&field.to_string().to_lowercase())?.as_slice() else {
                return None;
            };
            self.fields
                .contains(one)
                .then(|| Found::Field(one.clone(), steps[length..].to_vec()))
        })
    }

    fn folded_path(&self, path: &Path) -> Option<Found> {
        let keys = without_indexes(path);
        let [one] = self.folded().get(&keys.to_string().to_lowercase())?.as_slice() else {
            return None;
        };
        let mut spelled = one.steps().iter();
        let steps = path.steps().iter().map(|step| match step {
            Step::Key(_) => spelled.next().cloned().unwrap_or_else(|| step.clone()),
            Step::Index(_) => step.clone(),
        });
        self.seen(&Path::new(steps.collect()))
    }

    /// The top level, fields included: what `*` stands for besides `_id` and `_time`.
    pub fn top_level(&self) -> Vec<Path> {
        let first = |path: &Path| Path::new(path.steps().iter().take(1).cloned().collect());
        let mut all: BTreeSet<Path> = self
            .seen
            .paths
            .keys()
            .map(first)
            .filter(|path| !path.steps().is_empty() && path.last_key() != Some("_id"))
            .collect();
        all.extend(self.fields.iter().cloned());
        all.into_iter().collect()
    }

    /// A name that was perhaps meant, for the first names that are not known.
    pub fn suggest(&self, path: &Path) -> Option<String> {
        let wanted = path.to_string();
        if let Some(all) = self.folded().get(&wanted.to_lowercase()) {
            return all.first().map(Path::to_string);
        }
        if self.suggested.replace(self.suggested.get() + 1) >= SUGGESTIONS_MAX {
            return None;
        }
        let last = path.last_key().map(str::to_lowercase);
        let elsewhere = |candidate: &Path| candidate.last_key().map(str::to_lowercase) == last;
        let names: Vec<String> = self
            .seen
            .paths
            .keys()
            .chain(&self.fields)
            .map(Path::to_string)
            .collect();
        nearest(&wanted, names.iter().map(String::as_str))
            .map(str::to_owned)
            .or_else(|| {
                self.seen
                    .paths
                    .keys()
                    .chain(&self.fields)
                    .find(|path| elsewhere(path))
                    .map(Path::to_string)
            })
    }

    /// The nearest list on the way to this path, spelled with an index.
    pub fn through_list(&self, path: &Path) -> Option<String> {
        let kinds = self.kinds(path)?;
        let steps = path.steps();
        (1..steps.len()).rev().find_map(|length| {
            let list = Path::new(steps[..length].to_vec());
            let is_list = kinds.any(Kinds::ELEMENT) && self.kinds(&list).is_some_and(|kinds| kinds.any(Kinds::ARRAY));
            is_list.then(|| {
                Path::new(
                    steps[..length]
                        .iter()
                        .cloned()
                        .chain([Step::Index(0)])
                        .chain(steps[length..].iter().cloned())
                        .collect(),
                )
                .to_string()
            })
        })
    }
}

fn without_indexes(path: &Path) -> Path {
    Path::new(
        path.steps()
            .iter()
            .filter(|step| matches!(step, Step::Key(_)))
            .cloned()
            .collect(),
    )
}

/// The name nearest to the one wanted, if it is near: at most a third of its letters differ.
pub fn nearest<'a>(wanted: &str, names: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let wanted: Vec<char> = wanted.to_lowercase().chars().take(64).collect();
    let most = wanted.len() / 3;
    let near = |name: &&str| name.chars().count().abs_diff(wanted.len()) <= most;
    let ranked = names.into_iter().filter(near).map(|name| {
        (
            distance(&wanted, &name.to_lowercase().chars().take(64).collect::<Vec<_>>()),
            name,
        )
    });
    ranked
        .filter(|(distance, _)| *distance <= most)
        .min()
        .map(|(_, name)| name)
}

/// Insertions, deletions, substitutions and swaps of neighbours between two words (optimal string alignment).
fn distance(a: &[char], b: &[char]) -> usize {
    let mut rows = vec![(0..=b.len()).collect::<Vec<usize>>()];
    for i in 1..=a.len() {
        let mut row = vec![i];
        for j in 1..=b.len() {
            let change = rows[i - 1][j - 1] + usize::from(a[i - 1] != b[j - 1]);
            let mut best = change.min(rows[i - 1][j] + 1).min(row[j - 1] + 1);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                best = best.min(rows[i - 2][j - 2] + 1);
            }
            row.push(best);
        }
        rows.push(row);
    }
    rows[a.len()][b.len()]
}
