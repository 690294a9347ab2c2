"""Writes `exploring.sql`: statements about lists, series, neighbours in time, frequent values and correlated subqueries.

    python3 write_exploring.py           writes the file
    python3 write_exploring.py --check   fails if it would write another one

Each statement has two texts, for the server and for DuckDB. Paths come from the tables below, values and bounds from the documents; random
numbers are always the same. A statement that finds nothing in DuckDB is replaced by another one, nine times out of ten.
"""

import os
import pathlib
import random
import sys

import duckdb

import oracle

HERE = pathlib.Path(__file__).parent
FILE = HERE / "exploring.sql"
DATA = pathlib.Path(os.environ.get("RACHIS_TEST_DATA", HERE / "../../../shared/data"))
FILES = {
    "wiki": "wikiticker_2015.ndjson.gz",
    "github": "gharchive_2015.ndjson.gz",
    "orders": "osd_ecommerce.ndjson.gz",
    "trail": "cloudtrail.ndjson.gz",
}
# What a statement may name: texts of few values, numbers, the event time, and what tells documents apart. Of a list, the items' paths;
# of a list of plain values, none.
TEXTS = {
    "wiki": ["channel", "namespace", "countryName", "regionName", "user"],
    "github": ["type", "payload.action", "payload.ref_type", "actor.login", "repo.name"],
    "orders": ["day_of_week", "customer_gender", "geoip.city_name", "geoip.country_iso_code", "user"],
    "trail": ["eventSource", "eventName", "errorCode", "awsRegion"],
}
NUMBERS = {
    "wiki": ["added", "deleted", "delta", "metroCode"],
    "github": ["payload.size", "payload.distinct_size", "actor.id"],
    "orders": ["total_quantity", "customer_id", "day_of_week_i", "total_unique_products"],
}
TIMES = {"wiki": "time", "github": "created_at", "orders": "order_date", "trail": "eventTime"}
IDS = {"wiki": "page", "github": "id", "orders": "order_id", "trail": "eventID"}
LISTS = {
    "github": {"payload.commits": ["sha", "author.name", "message", "distinct"]},
    "orders": {
        "products": ["sku", "price", "quantity", "category", "product_name"],
        "manufacturer": [],
        "sku": [],
        "category": [],
    },
}
# Two keys of these events differ by case only, so DuckDB keeps values as JSON.
TRAIL = "(select " + ", ".join(f"doc->>'$.{path}' as {path}" for path in [*TEXTS["trail"], "eventTime", "eventID"]) + " from trail_raw)"
ZONES = ["Europe/Berlin", "America/New_York", "Asia/Kolkata", "Australia/Lord_Howe"]


class Writer:
    """What has been written, and the documents to choose from."""

    def __init__(self):
        self.random = random.Random(33)
        self.connection = duckdb.connect()
        for name, file in FILES.items():
            oracle.load(self.connection, name, DATA / file)
        self.statements = {}
        self.empty = 0

    def rows(self, sql):
        return self.connection.execute(sql).fetchall()

    def choose(self, table):
        """A set and one of its paths."""
        name = self.random.choice(sorted(table))
        return name, self.random.choice(sorted(table[name]))

    def item(self):
        """A set, the path of a list, and what to read of an item."""
        name, path = self.choose(LISTS)
        field = self.random.choice(LISTS[name][path] or [""])
        return name, path, f"item.{field}" if field else "item"

    def value(self, name, path):
        """A value of a path, rather a frequent one, as a literal."""
        frequent = f"select {path}, count(*) from {TRAIL if name == 'trail' else name} where {path} is not null group by 1 order by 2 desc, 1 limit 12"
        return literal(self.random.choice(self.rows(frequent))[0])

    def condition(self, name, alias=""):
        """A condition that some documents satisfy."""
        path = self.random.choice(TEXTS[name])
        return f"{alias}{path} = {self.value(name, path)}"

    def add(self, feature, sql, theirs=None, ordered=False):
        """Adds a statement; false if it is there or finds nothing."""
        theirs = (theirs or sql).replace("from trail", f"from {TRAIL}")
        found = self.rows(theirs)
        is_empty = all(value is None or value == 0 for row in found for value in row)
        if sql in self.statements or len(found) > 3000 or (is_empty and self.empty * 12 >= len(self.statements)):
            return False
        self.empty += is_empty
        features = [feature] + (["ordered"] if ordered else [])
        self.statements[sql] = f"-- [{', '.join(features)}]\n{sql}\n" + (f"-- oracle: {theirs}\n" if theirs != sql else "")
        return True


def literal(value):
    if isinstance(value, str):
        return "'" + value.replace("'", "''") + "'"
    return str(value)


def positions(w):
    name, path, item = w.item()
    condition = w.condition(name)
    n = w.random.choice(["n", "n + 1", "n * 10"])
    ours = f"select d.{IDS[name]}, {n} as n, {item} as i from {name} d, unnest(d.{path}) with ordinality as u(item, n) where {condition}"
    inner = f"select {IDS[name]}, unnest({path}) as item, generate_subscripts({path}, 1) as n from {name} where {condition}"
    return w.add("unnest with ordinality", ours, f"select {IDS[name]}, {n}, {item} from ({inner})")


def kept(w):
    name, path, item = w.item()
    condition = w.condition(name)
    ours = f"select d.{IDS[name]}, {item} as i from {name} d left join unnest(d.{path}) as u(item) on true where {condition}"
    items = f"unnest(case when len({path}) > 0 then {path} else [null] end)"
    return w.add("left join unnest", ours, f"select {IDS[name]}, {item} from (select {IDS[name]}, {items} as item from {name} where {condition})")


def counted_items(w):
    name, path, item = w.item()
    least = w.random.choice([2, 5, 20])
    ours = f"select {item} as i, count(*) as n from {name} d, unnest(d.{path}) as u(item) group by 1 having count(*) >= {least} order by 2 desc, 1 limit 50"
    theirs = f"select {item} as i, count(*) as n from (select unnest({path}) as item from {name}) where {item} is not null group by 1 having count(*) >= {least} order by 2 desc, 1 limit 50"
    ours = ours.replace(" group by 1", f" where {item} is not null group by 1")
    return w.add("unnest, group by", ours, theirs, ordered=True)


def in_step(w):
    paths = w.random.sample(["manufacturer", "sku", "category", "products"], 2)
    shown = [f"{name}.sku" if path == "products" else name for name, path in zip("ab", paths)]
    condition = w.condition("orders")
    ours = f"select d.order_id, {', '.join(f'{value} as {name}1' for name, value in zip('ab', shown))} from orders d, unnest({', '.join('d.' + path for path in paths)}) as u(a, b) where {condition}"
    inner = ", ".join(f"unnest({path}) as {name}" for name, path in zip("ab", paths))
    return w.add("unnest in step", ours, f"select order_id, {', '.join(shown)} from (select order_id, {inner} from orders where {condition})")


def series(w):
    name, path = w.choose(NUMBERS)
    low = w.rows(f"select quantile_disc({path}, 0.5) from {name}")[0][0] or 0
    step, count = w.random.choice([1, 2, 5]), w.random.randint(3, 12)
    low = int(low) - step * w.random.randint(0, count)
    call = f"generate_series({low}, {low + step * count}, {step})"
    sql = f"select s.n, count(d.{path}) as documents from {call} as s(n) left join {name} d on d.{path} = s.n group by s.n order by s.n"
    return w.add("generate_series", sql, ordered=True)


def gaps(w):
    name = w.random.choice(sorted(TIMES))
    time, unit = TIMES[name], w.random.choice(["hour", "day"] if name != "github" else ["hour", "minute"])
    condition = w.condition(name)
    start = w.rows(f"select min(date_trunc('{unit}', {time}::timestamp)) from {TRAIL if name == 'trail' else name} where {condition}")[0][0]
    steps = w.random.randint(3, 40)
    bounds = f"timestamp '{start}', timestamp '{start}' + interval '{steps} {unit}s', interval '1 {unit}'"
    counted = f"select date_trunc('{unit}', {time}::timestamp) as t, count(*) as n from {name} where {condition} group by 1"
    sql = f"select s.t, coalesce(c.n, 0) as n from generate_series({bounds}) as s(t) left join ({counted}) c on c.t = s.t order by s.t"
    return w.add("gap filling", sql, ordered=True)


def most_frequent(w):
    name, path = w.choose(TEXTS if w.random.random() < 0.7 else NUMBERS)
    key = w.random.choice([text for text in TEXTS[name] if text != path])
    where = f"where {path} is not null"
    ours = f"select {key} as k, mode({path}) as m, count(*) as n from {name} {where} group by 1 having count(*) > 3"
    ranked = f"select {key} as k, {path} as m, row_number() over (partition by {key} order by count(*) desc, {path}) as place, sum(count(*)) over (partition by {key}) as n from {name} {where} group by 1, 2"
    return w.add("mode", ours, f"select k, m, n from ({ranked}) where place = 1 and n > 3")


def top_k(w):
    name, path = w.choose(TEXTS if w.random.random() < 0.7 else NUMBERS)
    k, condition = w.random.randint(1, 12), w.condition(name)
    counted = f"select {path} as x, count(*) as n from {name} where {condition} and {path} is not null group by 1 order by n desc, x limit {k}"
    return w.add(
        "approx_top_k",
        f"select approx_top_k({path}, {k}) as best from {name} where {condition}",
        f"select list(x order by n desc, x) from ({counted})",
    )


def counts(w):
    name, path = w.choose(TEXTS if w.random.random() < 0.7 else NUMBERS)
    condition = w.condition(name)
    return w.add("histogram", f"select histogram({path}) as counts from {name} where {condition}")


def neighbours(w):
    name = w.random.choice(sorted(TIMES))
    key, kind = w.random.sample(TEXTS[name], 2)
    one, other = w.value(name, kind), w.value(name, kind)
    op, side = w.random.choice([">=", ">", "<=", "<"]), w.random.choice(["", "left "])
    left = f"(select {IDS[name]} as id, {key} as k, {TIMES[name]}::timestamp as t from {name} where {kind} = {one})"
    right = f"(select {key} as k, {TIMES[name]}::timestamp as t, count(*) as n from {name} where {kind} = {other} group by 1, 2)"
    return w.add("asof join", f"select a.id, a.t, b.t as near, b.n from {left} a asof {side}join {right} b on a.k = b.k and a.t {op} b.t")


def neighbouring_numbers(w):
    name, path = w.choose(NUMBERS)
    key = w.random.choice(TEXTS[name])
    op, side = w.random.choice([">=", ">", "<=", "<"]), w.random.choice(["", "left "])
    left = f"(select {IDS[name]} as id, {key} as k, {path} as t from {name} where {w.condition(name)})"
    right = f"(select {key} as k, {path} as t, count(*) as n from {name} where {w.condition(name)} group by 1, 2)"
    return w.add("asof join of numbers", f"select a.id, a.t, b.t as near, b.n from {left} a asof {side}join {right} b on a.k = b.k and a.t {op} b.t")


def scalar(w):
    name, path = w.choose(NUMBERS)
    key, least = w.random.choice(TEXTS[name]), w.random.choice([0, 1, 2])
    what = w.random.choice([f"max(e.{path})", f"min(e.{path})", "count(*)", f"sum(e.{path})"])
    inner = f"select {what} from {name} e where e.{key} = d.k and e.{path} > {least}"
    sql = f"select d.k, ({inner}) as x from (select {key} as k, count(*) as n from {name} where {key} is not null group by 1 having count(*) > 20) d"
    return w.add("correlated scalar", sql)


def compared_with_own(w):
    name, path = w.choose(NUMBERS)
    key = w.random.choice(TEXTS[name])
    inner = f"select avg(e.{path}) from {name} e where e.{key} = d.{key}"
    condition = w.condition(name, "d.")
    return w.add("correlated scalar in where", f"select count(*), sum(d.{path}) from {name} d where {condition} and d.{path} > ({inner})")


def two_levels(w):
    name, path = w.choose(NUMBERS)
    first, second = w.random.sample(TEXTS[name], 2)
    negated = w.random.choice(["", "not "])
    inmost = f"select 1 from {name} g where g.{second} = e.{second} and g.{path} > {w.value(name, path)}"
    inner = f"select 1 from {name} e where e.{first} = d.{first} and {w.condition(name, 'e.')} and {negated}exists ({inmost})"
    return w.add("exists in two levels", f"select d.{first} as k, count(*) as n from {name} d where exists ({inner}) group by 1")


def zones(w):
    name, zone = w.random.choice(sorted(TIMES)), w.random.choice(ZONES)
    unit = w.random.choice(["hour", "day"])
    time, condition = TIMES[name], w.condition(name)
    ours = f"select date_trunc('{unit}', {time}::timestamp at time zone '{zone}') as t, count(*) as n from {name} where {condition} group by 1"
    return w.add("at time zone", ours, ours.replace("::timestamp at", "::timestamptz at"))


def whole_sample(w):
    name, path = w.choose(TEXTS)
    method = w.random.choice(["tablesample (100)", "tablesample system (100)", "tablesample bernoulli (100 percent)"])
    sql = f"select {path} as k, count(*) as n from {name} {method} group by 1"
    return w.add("tablesample", sql, f"select {path} as k, count(*) as n from {name} group by 1")


# Each with how many statements it makes.
MAKERS = [
    (positions, 20), (kept, 16), (counted_items, 12), (in_step, 12), (series, 14), (gaps, 18), (most_frequent, 16), (top_k, 16), (counts, 14),
    (neighbours, 20), (neighbouring_numbers, 14), (scalar, 14), (compared_with_own, 8), (two_levels, 14), (zones, 12), (whole_sample, 6),
]


def text():
    w = Writer()
    w.connection.execute("set timezone = 'UTC'")
    for make, number in MAKERS:
        made = 0
        for _ in range(number * 20):
            made += make(w) if made < number else 0
        print(f"{make.__name__}: {made}", file=sys.stderr)
    head = "-- Written by write_exploring.py.\n\n"
    return head + "\n".join(w.statements.values())


def main():
    written = text()
    if sys.argv[1:] == ["--check"]:
        sys.exit(0 if written == FILE.read_text() else f"{FILE} would be written otherwise")
    FILE.write_text(written)


if __name__ == "__main__":
    main()
