//! A statement as a tree of clauses, each of which can be dropped while shrinking.

use super::{Dialect, Expr};

/// A SELECT, or several of them combined.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Query {
    /// WITH.
    pub with: Vec<(String, Self)>,
    /// SELECT DISTINCT.
    pub distinct: bool,
    /// The select list; its columns are named `c0`, `c1`, ….
    pub items: Vec<Expr>,
    /// FROM; the first has no join.
    pub from: Vec<FromItem>,
    /// WHERE.
    pub filter: Option<Expr>,
    /// GROUP BY: positions in the select list, and whether each key is written as an expression.
    pub group: Vec<(usize, bool)>,
    /// The grouping sets of these keys, if they are written as expressions.
    pub grouping_sets: GroupingSets,
    /// HAVING.
    pub having: Option<Expr>,
    /// UNION, EXCEPT and INTERSECT with further queries.
    pub set_operations: Vec<(SetOperation, Self)>,
    /// ORDER BY.
    pub order: Vec<SortKey>,
    /// LIMIT.
    pub limit: Option<u64>,
    /// OFFSET.
    pub offset: Option<u64>,
}

/// An item of FROM.
#[derive(Debug, Clone, PartialEq)]
pub struct FromItem {
    /// How it is joined to the items before it.
    pub join: Join,
    /// The relation.
    pub relation: Relation,
    /// Its alias.
    pub alias: Option<String>,
    /// ON.
    pub on: Option<Expr>,
}

/// The grouping sets of a GROUP BY.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum GroupingSets {
    /// All keys together.
    #[default]
    AllKeys,
    /// ROLLUP.
    Rollup,
    /// CUBE.
    Cube,
    /// GROUPING SETS: each key alone.
    EachKey,
}

/// How two items of FROM are joined.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Join {
    /// JOIN.
    Inner,
    /// LEFT JOIN.
    Left,
    /// RIGHT JOIN.
    Right,
    /// FULL JOIN.
    Full,
    /// CROSS JOIN.
    Cross,
}

/// A relation in FROM.
#[derive(Debug, Clone, PartialEq)]
pub enum Relation {
    /// A collection, or a query of WITH, by name.
    Named(String),
    /// A subquery.
    Query(Box<Query>),
}

/// A set operation between two queries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SetOperation {
    /// UNION.
    Union,
    /// UNION ALL.
    UnionAll,
    /// EXCEPT.
    Except,
    /// EXCEPT ALL.
    ExceptAll,
    /// INTERSECT.
    Intersect,
    /// INTERSECT ALL.
    IntersectAll,
}

/// A key of ORDER BY.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SortKey {
    /// The position in the select list.
    pub item: usize,
    /// DESC.
    pub descending: bool,
    /// NULLS FIRST or NULLS LAST, if specified.
    pub nulls_first: Option<bool>,
    /// Whether it is written as a name instead of a position.
    pub by_name: bool,
}

impl Query {
    /// A query of one collection.
    pub fn of(collection: &str, alias: Option<&str>) -> Self {
        let source = FromItem {
            join: Join::Inner,
            relation: Relation::Named(collection.to_owned()),
            alias: alias.map(str::to_owned),
            on: None,
        };
        Self {
            from: vec![source],
            ..Self::default()
        }
    }

    /// Whether ORDER BY is a total order: all columns are keys.
    pub fn is_totally_ordered(&self) -> bool {
        !self.items.is_empty() && (0..self.items.len()).all(|item| self.order.iter().any(|key| key.item == item))
    }

    /// Its SQL.
    pub fn text(&self, dialect: Dialect) -> String {
        let mut out = String::new();
        if !self.with.is_empty() {
            let with: Vec<String> = self
                .with
                .iter()
                .map(|(name, query)| format!("{name} as ({})", query.text(dialect)))
                .collect();
            out += &format!("with {} ", with.join(", "));
        }
        out += &self.body(dialect);
        for (operation, query) in &self.set_operations {
            let operator = match operation {
                SetOperation::Union => "union",
                SetOperation::UnionAll => "union all",
                SetOperation::Except => "except",
                SetOperation::ExceptAll => "except all",
                SetOperation::Intersect => "intersect",
                SetOperation::IntersectAll => "intersect all",
            };
            out = format!("{out} {operator} {}", query.body(dialect));
        }
        if !self.order.is_empty() {
            let keys: Vec<String> = self.order.iter().map(|key| key.text()).collect();
            out += &format!(" order by {}", keys.join(", "));
        }
        out += &self.limit.map(|limit| format!(" limit {limit}")).unwrap_or_default();
        out += &self
            .offset
            .map(|offset| format!(" offset {offset}"))
            .unwrap_or_default();
        out
    }

    fn body(&self, dialect: Dialect) -> String {
        let items: Vec<String> = self
            .items
            .iter()
            .enumerate()
            .map(|(i, item)| format!("{} as c{i}", item.text(dialect)))
            .collect();
        let mut out = format!(
            "select {}{}",
            if self.distinct { "distinct " } else { "" },
            items.join(", ")
        );
        for (at, source) in self.from.iter().enumerate() {
            out += &source.text(at == 0, dialect);
        }
        if let Some(filter) = &self.filter {
            out += &format!(" where {}", filter.text(dialect));
        }
        if !self.group.is_empty() {
            let key = |(item, as_expression): &(usize, bool)| {
                if *as_expression {
                    self.items[*item].text(dialect)
                } else {
                    (item + 1).to_string()
                }
            };
            let keys: Vec<String> = self.group.iter().map(key).collect();
            // A key that begins with a parenthesis would be parsed as a tuple.
            let in_sets = || format!("(({}))", keys.join("), ("));
            out += " group by ";
            out += &match self.grouping_sets {
                GroupingSets::AllKeys => keys.join(", "),
                GroupingSets::Rollup => format!("rollup {}", in_sets()),
                GroupingSets::Cube => format!("cube {}", in_sets()),
                GroupingSets::EachKey => format!("grouping sets {}", in_sets()),
            };
        }
        if let Some(having) = &self.having {
            out += &format!(" having {}", having.text(dialect));
        }
        out
    }
}

impl SortKey {
    fn text(&self) -> String {
        let name = if self.by_name {
            format!("c{}", self.item)
        } else {
            (self.item + 1).to_string()
        };
        let nulls = match self.nulls_first {
            None => "",
            Some(true) => " nulls first",
            Some(false) => " nulls last",
        };
        format!("{name}{}{nulls}", if self.descending { " desc" } else { "" })
    }
}

impl FromItem {
    fn text(&self, first: bool, dialect: Dialect) -> String {
        let join = match self.join {
            _ if first => " from",
            Join::Inner => " join",
            Join::Left => " left join",
            Join::Right => " right join",
            Join::Full => " full join",
            Join::Cross => " cross join",
        };
        let relation = match &self.relation {
            Relation::Named(name) => name.clone(),
            Relation::Query(query) => format!("({})", query.text(dialect)),
        };
        let alias = self
            .alias
            .as_ref()
            .map(|alias| format!(" as {alias}"))
            .unwrap_or_default();
        let on = self
            .on
            .as_ref()
            .map(|on| format!(" on {}", on.text(dialect)))
            .unwrap_or_default();
        format!("{join} {relation}{alias}{on}")
    }
}
