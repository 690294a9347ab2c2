//! What uses a definition: the catalog records it, except for what names a field or a parser that was defined later.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use plan::Path;
use proto::{
    Catalog, CollectionName, PositionVector, Problem,
    catalog::{DefinitionId, DefinitionUse, Dependent, Pinned, VersionRef},
};

use crate::{
    query::{context::QueryContext, read_views::QueryViews},
    sql,
};

/// The versions in use whose meaning may change with these definitions: their own, those that follow one of their tags,
/// directly or through others, and those that may name a field or a parser without knowing that it is one.
pub(super) fn affected<'a>(catalog: &'a Catalog, changed: &BTreeSet<DefinitionId>) -> Vec<Pinned<'a>> {
    let names: Vec<ReadName<'_>> = changed.iter().filter_map(ReadName::of).collect();
    let mut reads = Reads::of(catalog);
    let begin = versions_in_use(catalog).filter(|pinned| {
        changed.contains(pinned.0) || {
            let text = pinned.1.text.to_lowercase();
            names.iter().any(|name| name.may_be_in(*pinned, &text, &mut reads))
        }
    });
    let begin = begin.collect();
    with_followers(catalog, changed, begin)
}

/// The versions in use that follow a tag of a definition, directly or through others.
pub(super) fn users_of<'a>(catalog: &'a Catalog, changed: &DefinitionId) -> Vec<Pinned<'a>> {
    let users = with_followers(catalog, &BTreeSet::from([changed.clone()]), Vec::new());
    users.into_iter().filter(|(id, _)| *id != changed).collect()
}

/// The versions in use that read a field or a parser which was defined after them, and how they name it.
pub(super) async fn unrecorded_users<'a>(
    context: &QueryContext,
    catalog: &'a Arc<Catalog>,
    id: &DefinitionId,
) -> Result<Vec<(Pinned<'a>, DefinitionUse)>, Problem> {
    let Some(name) = ReadName::of(id) else {
        return Ok(Vec::new());
    };
    let mut reads = Reads::of(catalog);
    let candidates = versions_in_use(catalog).filter(|(user, version)| {
        let is_recorded = version.uses.iter().any(|used| used.id == *id);
        *user != id && !is_recorded && name.may_be_in((user, version), &version.text.to_lowercase(), &mut reads)
    });
    let candidates: Vec<Pinned<'_>> = candidates.collect();
    if candidates.is_empty() {
        return Ok(Vec::new());
    }
    let names = candidates.iter();
    let names = names.flat_map(|(user, version)| sql::collections_of(user, &version.text, catalog).unwrap_or_default());
    let views = QueryViews::open(context, catalog, &names.collect(), &PositionVector::default()).await?;
    let used = |pinned: Pinned<'a>| {
        // One that no longer works uses nothing.
        let uses = sql::uses_of(pinned.0, &pinned.1.text, &views).ok()?;
        let used = uses.into_iter().find(|used| used.id == *id)?;
        Some((pinned, used))
    };
    Ok(candidates.into_iter().filter_map(used).collect())
}

fn versions_in_use(catalog: &Catalog) -> impl Iterator<Item = Pinned<'_>> {
    let in_use = catalog.versions_in_use().into_iter();
    in_use.filter_map(|(id, number)| Some((id, catalog.definitions.get(id)?.numbered(number)?)))
}

/// These versions and those that follow a tag of these definitions, with all that follow them.
fn with_followers<'a>(
    catalog: &'a Catalog,
    changed: &BTreeSet<DefinitionId>,
    begin: Vec<Pinned<'a>>,
) -> Vec<Pinned<'a>> {
    let dependents = catalog.dependents();
    let mut open = begin;
    for id in changed {
        let of_changed = dependents.get(id).into_iter().flatten();
        let follow_tags = of_changed.filter(|dependent| matches!(dependent.used.version, VersionRef::Tag(_)));
        open.extend(follow_tags.map(|dependent| dependent.user));
    }
    let mut found = BTreeMap::new();
    while let Some((id, version)) = open.pop() {
        if found.insert((id, version.number), version).is_some() {
            continue;
        }
        for Dependent { user, used } in dependents.get(id).into_iter().flatten() {
            let of = catalog.definition_version(&used.id, &used.version);
            if of.is_ok_and(|of| of.number == version.number) {
                open.push(*user);
            }
        }
    }
    found.into_iter().map(|((id, _), version)| (id, version)).collect()
}

/// The name of a field or a parser as texts may have it, although they were written before it was one.
struct ReadName<'a> {
    collection: &'a CollectionName,
    /// Its first key, as in SQL and in lower case.
    key: String,
}

impl<'a> ReadName<'a> {
    fn of(id: &'a DefinitionId) -> Option<Self> {
        let path = Path::parse(&id.name).ok()?;
        Some(Self {
            collection: id.collection.as_ref()?,
            key: path.keys()?.first()?.replace('"', "\"\"").to_lowercase(),
        })
    }

    /// Whether a version has it as a word and reads its collection. `text` is its text in lower case.
    fn may_be_in<'c>(&self, version: Pinned<'c>, text: &str, reads: &mut Reads<'c>) -> bool {
        let goes_on = |next: Option<char>| next.is_some_and(|next| next.is_alphanumeric() || next == '_');
        let mut words = text.match_indices(&self.key);
        words.any(|(at, key)| {
            !goes_on(text[..at].chars().next_back()) && !goes_on(text[at + key.len()..].chars().next())
        }) && reads.includes(version, self.collection)
    }
}

/// The collections that versions read, directly or through what they use.
struct Reads<'a> {
    catalog: &'a Catalog,
    known: BTreeMap<(&'a DefinitionId, u32), BTreeSet<&'a CollectionName>>,
}

impl<'a> Reads<'a> {
    fn of(catalog: &'a Catalog) -> Self {
        Self {
            catalog,
            known: BTreeMap::new(),
        }
    }

    fn includes(&mut self, version: Pinned<'a>, collection: &CollectionName) -> bool {
        self.collections(version).contains(collection)
    }

    /// How deep definitions use each other is limited.
    fn collections(&mut self, (id, version): Pinned<'a>) -> BTreeSet<&'a CollectionName> {
        let key = (id, version.number);
        if let Some(known) = self.known.get(&key) {
            return known.clone();
        }
        let mut found: BTreeSet<&CollectionName> = version.reads.iter().collect();
        for used in &version.uses {
            if let Ok(of) = self.catalog.definition_version(&used.id, &used.version) {
                found.extend(self.collections((&used.id, of)));
            }
        }
        self.known.insert(key, found.clone());
        found
    }
}
