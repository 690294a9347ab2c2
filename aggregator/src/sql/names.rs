//! Looks names up in one collection: known paths, defined fields, and suggestions for names that do not exist.

use std::{
    cell::{Cell, OnceCell},
    collections::{BTreeSet, HashMap},
    sync::Arc,
};

use plan::{Kinds, Path, PathKinds, path::Step};
use proto::{
    Catalog, CollectionName,
    catalog::{DefinitionId, DefinitionKind},
};

use plan::nearest::nearest;

/// The names that can be used for documents of one collection.
#[derive(Debug)]
pub(super) struct CollectionNames<'c> {
    /// The collection that the names belong to.
    pub collection: CollectionName,
    /// Paths that documents are known to have, with their kinds. Keys only, no indexes.
    known_paths: Arc<PathKinds>,
    /// Has the fields and parsers. An exact name is looked up there: a statement does not pay for those that it does not
    /// use.
    catalog: &'c Catalog,
    /// Paths by lower-case spelling. Built on the first name that has no exact match.
    folded_paths: OnceCell<HashMap<String, Vec<Path>>>,
    /// The names of fields and parsers, likewise.
    folded_definitions: OnceCell<HashMap<String, Vec<&'c str>>>,
    /// Number of suggestions computed so far.
    suggestions: Cell<usize>,
}

/// Suggestions per statement. Each one scans all names, of which there may be thousands.
const SUGGESTIONS_MAX: usize = 20;

/// What a name refers to.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum ResolvedName {
    /// A field or a parser, and the steps into its value.
    Defined(DefinitionId, Vec<Step>),
    /// A path and the kinds of its values; no kinds if the path contains an index.
    Path(Path, Kinds),
}

/// How a name has to match.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum MatchQuality {
    /// Exactly as written.
    Exact,
    /// Ignoring case.
    Folded,
}

impl<'c> CollectionNames<'c> {
    /// The names of a collection in the catalog and its known paths.
    pub(super) fn new(collection: &CollectionName, catalog: &'c Catalog, known_paths: Arc<PathKinds>) -> Self {
        Self {
            collection: collection.clone(),
            known_paths,
            catalog,
            folded_paths: OnceCell::new(),
            folded_definitions: OnceCell::new(),
            suggestions: Cell::new(0),
        }
    }

    /// The names of all fields and parsers.
    fn defined(&self) -> impl Iterator<Item = Path> {
        let columns = self.catalog.columns(&self.collection);
        columns.filter_map(|(id, _)| Path::parse(&id.name).ok())
    }

    /// Paths, fields and parsers with this lower-case spelling. Every object along a path counts as a path, too.
    fn spelled_like(&self, spelling: &str) -> Vec<Path> {
        let mut found = self.folded_paths().get(spelling).cloned().unwrap_or_default();
        let defined = self.folded_definitions().get(spelling).into_iter().flatten();
        for path in defined.filter_map(|name| Path::parse(name).ok()) {
            if !found.contains(&path) {
                found.push(path);
            }
        }
        found
    }

    fn folded_paths(&self) -> &HashMap<String, Vec<Path>> {
        self.folded_paths.get_or_init(|| {
            let mut folded: HashMap<String, Vec<Path>> = HashMap::new();
            for path in self.known_paths.paths.keys() {
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

    fn folded_definitions(&self) -> &HashMap<String, Vec<&'c str>> {
        self.folded_definitions.get_or_init(|| {
            let mut folded: HashMap<String, Vec<&str>> = HashMap::new();
            for (id, _) in self.catalog.columns(&self.collection) {
                folded.entry(id.name.to_lowercase()).or_default().push(&id.name);
            }
            folded
        })
    }

    /// The kinds of a path of keys. An object along a known path has no kinds of its own unless they were recorded.
    fn kinds(&self, path: &Path) -> Option<Kinds> {
        // Paths are ordered by their steps, so the paths below this one follow it directly.
        let (next, kinds) = self.known_paths.paths.range::<Path, _>(path..).next()?;
        match next.steps().strip_prefix(path.steps())? {
            [] => Some(*kinds),
            _ => Some(Kinds::default()),
        }
    }

    /// Finds the field, parser or path for these steps. Fields and parsers take precedence over known paths.
    pub(super) fn find(&self, steps: &[Step], quality: MatchQuality) -> Option<ResolvedName> {
        let path = Path::new(steps.to_vec());
        match quality {
            MatchQuality::Exact => self.exact_defined(&path).or_else(|| self.exact_path(&path)),
            MatchQuality::Folded => self.folded_defined(&path).or_else(|| self.folded_path(&path)),
        }
    }

    /// Finds a path of stored documents; never a field.
    pub(super) fn stored_path(&self, path: &Path) -> Option<ResolvedName> {
        self.exact_path(path)
    }

    /// Whether documents have more paths than are recorded.
    pub(super) fn overflow(&self) -> bool {
        self.known_paths.overflow
    }

    /// The longest field or parser that is a prefix of the path.
    fn exact_defined(&self, path: &Path) -> Option<ResolvedName> {
        let steps = path.steps();
        (1..=steps.len())
            .rev()
            .find_map(|length| self.defined_name(&Path::new(steps[..length].to_vec()), &steps[length..]))
    }

    /// The field or parser of this name, and the steps into its value.
    fn defined_name(&self, name: &Path, rest: &[Step]) -> Option<ResolvedName> {
        let spelling = name.to_string();
        let id = |kind| DefinitionId::of_collection(kind, self.collection.clone(), &spelling);
        let ids = [DefinitionKind::Field, DefinitionKind::Parser].map(id);
        let found = ids.into_iter().find(|id| self.catalog.definitions.contains_key(id))?;
        Some(ResolvedName::Defined(found, rest.to_vec()))
    }

    /// A field or a parser whose name begins with a path, if there is one.
    pub(super) fn defined_below(&self, path: &Path) -> Option<Path> {
        let steps = path.steps();
        let is_below = |name: &Path| name.steps().len() > steps.len() && name.steps().starts_with(steps);
        self.defined().find(is_below)
    }

    fn exact_path(&self, path: &Path) -> Option<ResolvedName> {
        let keys = without_indexes(path);
        let kinds = self.kinds(&keys)?;
        // An index leads to array elements, whose kinds are not recorded.
        Some(ResolvedName::Path(
            path.clone(),
            if keys == *path { kinds } else { Kinds::default() },
        ))
    }

    fn folded_defined(&self, path: &Path) -> Option<ResolvedName> {
        let steps = path.steps();
        (1..=steps.len()).rev().find_map(|length| {
            let field = Path::new(steps[..length].to_vec());
            match self.spelled_like(&field.to_string().to_lowercase()).as_slice() {
                [only] => self.defined_name(only, &steps[length..]),
                _ => None,
            }
        })
    }

    fn folded_path(&self, path: &Path) -> Option<ResolvedName> {
        let keys = without_indexes(path);
        let spelled = self.spelled_like(&keys.to_string().to_lowercase());
        let [only] = spelled.as_slice() else {
            return None;
        };
        let mut spelled = only.steps().iter();
        let steps = path.steps().iter().map(|step| match step {
            Step::Key(_) => spelled.next().cloned().unwrap_or_else(|| step.clone()),
            Step::Index(_) => step.clone(),
        });
        self.exact_path(&Path::new(steps.collect()))
    }

    /// The top-level names, fields and parsers included: what `*` expands to in addition to `_id` and `_time`.
    pub(super) fn top_level(&self) -> Vec<Path> {
        let first = |path: &Path| Path::new(path.steps().iter().take(1).cloned().collect());
        let mut all: BTreeSet<Path> = self
            .known_paths
            .paths
            .keys()
            .map(first)
            .filter(|path| !path.steps().is_empty() && path.last_key() != Some("_id"))
            .collect();
        all.extend(self.defined());
        all.into_iter().collect()
    }

    /// An existing name similar to an unknown one. After `SUGGESTIONS_MAX` of them, only a name
    /// that differs in case is suggested.
    pub(super) fn suggest(&self, path: &Path) -> Option<String> {
        let wanted = path.to_string();
        if let Some(same) = self.spelled_like(&wanted.to_lowercase()).first() {
            return Some(same.to_string());
        }
        if self.suggestions.replace(self.suggestions.get() + 1) >= SUGGESTIONS_MAX {
            return None;
        }
        let last = path.last_key().map(str::to_lowercase);
        let same_key = |candidate: &Path| candidate.last_key().map(str::to_lowercase) == last;
        let all: Vec<Path> = self.known_paths.paths.keys().cloned().chain(self.defined()).collect();
        let names: Vec<String> = all.iter().map(Path::to_string).collect();
        let similar = nearest(&wanted, names.iter().map(String::as_str)).map(str::to_owned);
        similar.or_else(|| all.iter().find(|path| same_key(path)).map(Path::to_string))
    }

    /// The path with an index after the innermost list on it, as a suggestion.
    pub(super) fn indexed_list_path(&self, path: &Path) -> Option<String> {
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
