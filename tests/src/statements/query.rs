//! A statement as a tree of clauses, each of which can be left out.

use super::{Expr, Spelling};

/// A SELECT, or several of them combined.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Query {
    /// WITH.
    pub with: Vec<(String, Self)>,
    /// SELECT DISTINCT.
    pub distinct: bool,
    /// What is selected; the columns are named `c0`, `c1`, ….
    pub items: Vec<Expr>,
    /// FROM; the first has no join.
    pub from: Vec<Source>,
    /// WHERE.
    pub filter: Option<Expr>,
    /// GROUP BY: items by number, and whether they are written out.
    pub group: Vec<(usize, bool)>,
    /// Which sets of these keys, where they are written out.
    pub sets: Sets,
    /// HAVING.
    pub having: Option<Expr>,
    /// What is combined with it.
    pub combined: Vec<(Combine, Self)>,
    /// ORDER BY.
    pub order: Vec<Order>,
    /// LIMIT.
    pub limit: Option<u64>,
    /// OFFSET.
    pub offset: Option<u64>,
}

/// One of FROM.
#[derive(Debug, Clone, PartialEq)]
pub struct Source {
    /// How it is joined to those before it.
    pub join: Join,
    /// What it is.
    pub relation: Relation,
    /// What it is called.
    pub alias: Option<String>,
    /// ON.
    pub on: Option<Expr>,
}

/// The sets of keys of a GROUP BY.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Sets {
    /// All keys together.
    #[default]
    One,
    /// ROLLUP.
    Rollup,
    /// CUBE.
    Cube,
    /// GROUPING SETS: each key alone.
    Each,
}

/// How two sources are joined.
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

/// What stands in FROM.
#[derive(Debug, Clone, PartialEq)]
pub enum Relation {
    /// A collection, or a query of WITH.
    Named(String),
    /// A sub-query.
    Query(Box<Query>),
}

/// How two queries are combined.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Combine {
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

/// One key of ORDER BY.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Order {
    /// The item.
    pub item: usize,
    /// DESC.
    pub descending: bool,
    /// NULLS FIRST or NULLS LAST, where it is said.
    pub nulls_first: Option<bool>,
    /// By its name, not by its number.
    pub by_name: bool,
}

impl Query {
    /// Of one collection.
    pub fn of(collection: &str, alias: Option<&str>) -> Self {
        let source = Source {
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

    /// Whether rows come in one order only: all columns are keys.
    pub fn ordered(&self) -> bool {
        !self.items.is_empty() && (0..self.items.len()).all(|item| self.order.iter().any(|key| key.item == item))
    }

    /// As it is written.
    pub fn text(&self, spelling: Spelling) -> String {
        let mut out = String::new();
        if !self.with.is_empty() {
            let with: Vec<String> = self
                .with
                .iter()
                .map(|(name, query)| format!("{name} as ({})", query.text(spelling)))
                .collect();
            out += &format!("with {} ", with.join(", "));
        }
        out += &self.body(spelling);
        for (combine, query) in &self.combined {
            let word = match combine {
                Combine::Union => "union",
                Combine::UnionAll => "union all",
                Combine::Except => "except",
                Combine::ExceptAll => "except all",
                Combine::Intersect => "intersect",
                Combine::IntersectAll => "intersect all",
            };
            out = format!("{out} {word} {}", query.body(spelling));
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

    fn body(&self, spelling: Spelling) -> String {
        let items: Vec<String> = self
            .items
            .iter()
            .enumerate()
            .map(|(i, item)| format!("{} as c{i}", item.text(spelling)))
            .collect();
        let mut out = format!(
            "select {}{}",
            if self.distinct { "distinct " } else { "" },
            items.join(", ")
        );
        for (at, source) in self.from.iter().enumerate() {
            out += &source.text(at == 0, spelling);
        }
        if let Some(filter) = &self.filter {
            out += &format!(" where {}", filter.text(spelling));
        }
        if !self.group.is_empty() {
            let word = |(item, written): &(usize, bool)| {
                if *written {
                    self.items[*item].text(spelling)
                } else {
                    (item + 1).to_string()
                }
            };
            let keys: Vec<String> = self.group.iter().map(word).collect();
            // A key that begins with a parenthesis would be read as a tuple.
            let in_sets = || format!("(({}))", keys.join("), ("));
            out += " group by ";
            out += &match self.sets {
                Sets::One => keys.join(", "),
                Sets::Rollup => format!("rollup {}", in_sets()),
                Sets::Cube => format!("cube {}", in_sets()),
                Sets::Each => format!("grouping sets {}", in_sets()),
            };
        }
        if let Some(having) = &self.having {
            out += &format!(" having {}", having.text(spelling));
        }
        out
    }
}

impl Order {
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

impl Source {
    fn text(&self, first: bool, spelling: Spelling) -> String {
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
            Relation::Query(query) => format!("({})", query.text(spelling)),
        };
        let alias = self
            .alias
            .as_ref()
            .map(|alias| format!(" as {alias}"))
            .unwrap_or_default();
        let on = self
            .on
            .as_ref()
            .map(|on| format!(" on {}", on.text(spelling)))
            .unwrap_or_default();
        format!("{join} {relation}{alias}{on}")
    }
}
