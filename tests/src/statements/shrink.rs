//! Shrinks a failing statement: each candidate drops a part of it.

use super::{Expr, GroupingSets, Query, Relation};

/// Slightly smaller statements, the largest cuts first. Some are invalid; running them shows which.
pub fn shrink_candidates(query: &Query) -> Vec<Query> {
    let mut out = Vec::new();
    let mut with = |change: &dyn Fn(&mut Query)| out.extend(changed(query, change));
    if let Some(Relation::Query(inner)) = query.from.first().map(|source| &source.relation) {
        with(&|cut| *cut = (**inner).clone());
    }
    query
        .with
        .iter()
        .for_each(|(_, inner)| with(&|cut| *cut = inner.clone()));
    query
        .set_operations
        .iter()
        .for_each(|(_, inner)| with(&|cut| *cut = inner.clone()));
    with(&|cut| cut.set_operations.clear());
    with(&|cut| cut.set_operations.truncate(1));
    with(&|cut| cut.from.truncate(1));
    with(&|cut| cut.filter = None);
    with(&|cut| cut.having = None);
    with(&|cut| (cut.limit, cut.offset) = (None, None));
    with(&|cut| cut.offset = None);
    with(&|cut| {
        if cut.limit.is_none() {
            cut.order.clear();
        }
    });
    with(&|cut| cut.distinct = false);
    with(&|cut| cut.grouping_sets = GroupingSets::AllKeys);
    for item in 0..query.items.len() {
        with(&|cut| drop_item(cut, item));
    }
    out.extend(shrink_parts(query));
    out
}

/// The query after a change, if that changed it.
fn changed(query: &Query, change: &dyn Fn(&mut Query)) -> Option<Query> {
    let mut cut = query.clone();
    change(&mut cut);
    (cut != *query).then_some(cut)
}

/// Smaller expressions and smaller nested queries in place of the query's own.
fn shrink_parts(query: &Query) -> Vec<Query> {
    let mut out = Vec::new();
    let mut with = |change: &dyn Fn(&mut Query)| out.extend(changed(query, change));
    for (i, item) in query.items.iter().enumerate() {
        shrink_expr(item)
            .into_iter()
            .for_each(|expr| with(&|cut| cut.items[i] = expr.clone()));
    }
    for expr in query.filter.iter().flat_map(shrink_expr) {
        with(&|cut| cut.filter = Some(expr.clone()));
    }
    for expr in query.having.iter().flat_map(shrink_expr) {
        with(&|cut| cut.having = Some(expr.clone()));
    }
    for (i, source) in query.from.iter().enumerate() {
        for expr in source.on.iter().flat_map(shrink_expr) {
            with(&|cut| cut.from[i].on = Some(expr.clone()));
        }
        if let Relation::Query(inner) = &source.relation {
            shrink_candidates(inner)
                .into_iter()
                .for_each(|inner| with(&|cut| cut.from[i].relation = Relation::Query(Box::new(inner.clone()))));
        }
    }
    for (i, (_, inner)) in query.with.iter().enumerate() {
        shrink_candidates(inner)
            .into_iter()
            .for_each(|inner| with(&|cut| cut.with[i].1 = inner.clone()));
    }
    for (i, (_, inner)) in query.set_operations.iter().enumerate() {
        shrink_candidates(inner)
            .into_iter()
            .for_each(|inner| with(&|cut| cut.set_operations[i].1 = inner.clone()));
    }
    out
}

/// Removes an item of the select list, and the keys that refer to its position.
fn drop_item(query: &mut Query, item: usize) {
    if query.items.len() < 2 {
        return;
    }
    query.items.remove(item);
    query.group.retain(|(key, _)| *key != item);
    query.order.retain(|key| key.item != item);
    query
        .group
        .iter_mut()
        .filter(|(key, _)| *key > item)
        .for_each(|(key, _)| *key -= 1);
    query
        .order
        .iter_mut()
        .filter(|key| key.item > item)
        .for_each(|key| key.item -= 1);
    query
        .set_operations
        .iter_mut()
        .filter(|(_, inner)| inner.items.len() > item)
        .for_each(|(_, inner)| drop(inner.items.remove(item)));
}

/// An operand in place of the expression, or the expression with a smaller operand.
fn shrink_expr(expr: &Expr) -> Vec<Expr> {
    let Expr::Call { kind, parts, query, .. } = expr else {
        return Vec::new();
    };
    let mut out: Vec<Expr> = parts.iter().filter(|part| part.kind() == *kind).cloned().collect();
    let with = |i: usize, part: Expr| {
        let mut cut = expr.clone();
        if let Expr::Call { parts, .. } = &mut cut {
            parts[i] = part;
        }
        cut
    };
    for (i, part) in parts.iter().enumerate() {
        out.extend(shrink_expr(part).into_iter().map(|part| with(i, part)));
    }
    for inner in query.iter().flat_map(|query| shrink_candidates(query)) {
        let mut cut = expr.clone();
        if let Expr::Call { query, .. } = &mut cut {
            *query = Some(Box::new(inner));
        }
        out.push(cut);
    }
    out
}
