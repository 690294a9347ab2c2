"""The oracle of the answers test: the same questions, answered by other means.

Statements are answered by DuckDB over the files themselves; searches by the few lines below, over the parsed documents. Reads one JSON
request from standard input, `{"data": folder, "sets": {name: file}, "statements": [sql], "searches": [{"set", "means"}], "summaries": {name:
what to ask about all matches}}`, and writes `{"statements": [[row, ...]], "searches": [{"lines": [line number, ...], "facets", "ranges",
"histogram", "fields"}]}`. Nothing here knows how the server computes anything.
"""

import collections
import datetime
import decimal
import gzip
import json
import math
import re
import sys

import duckdb


def load(connection, name, path):
    """A table of typed columns as DuckDB infers them (times stay text, as in JSON), and NAME_raw with each document whole."""
    # Two keys of a CloudTrail event differ by case only, which DuckDB's structs cannot hold: its inner objects stay JSON.
    depth = 1 if name == "trail" else -1
    options = f"format='newline_delimited', sample_size=-1, maximum_depth={depth}, map_inference_threshold=-1, maximum_object_size=33554432"
    plain = "dateformat='%n-%n', timestampformat='%n-%n'"
    connection.execute(f"create table {name} as select * from read_json('{path}', {options}, {plain})")
    connection.execute(f"create table {name}_raw as select json as doc from read_ndjson_objects('{path}', maximum_object_size=33554432)")


def plain(value):
    """A value as JSON can say it: numbers stay numbers, times are RFC 3339 in UTC."""
    if isinstance(value, decimal.Decimal):
        return int(value) if value == value.to_integral_value() else float(value)
    if isinstance(value, datetime.datetime):
        if value.tzinfo is not None:
            value = value.astimezone(datetime.timezone.utc).replace(tzinfo=None)
        return value.isoformat(timespec="auto" if value.microsecond % 1000 else "milliseconds").removesuffix(".000") + "Z"
    if isinstance(value, datetime.date):
        return value.isoformat()
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    return value


WORD = re.compile(r"[^\W_]+")


def tokens(text):
    return [token.lower() for token in WORD.findall(text)]


def number(text):
    try:
        return float(text)
    except ValueError:
        return None


def values(document, path):
    """All scalars at a path (a list of keys), inside arrays too; anywhere, if the path is None."""
    if isinstance(document, list):
        for item in document:
            yield from values(item, path)
    elif isinstance(document, dict):
        if path is None:
            for item in document.values():
                yield from values(item, None)
        elif path and path[0] in document:
            yield from values(document[path[0]], path[1:])
    elif document is not None and not path:
        yield document


def has(document, path):
    """Whether there is a value other than null at a path."""
    if isinstance(document, list) and path:
        return any(has(item, path) for item in document)
    if not path:
        return document is not None and document != [None]
    return isinstance(document, dict) and path[0] in document and has(document[path[0]], path[1:])


def words_match(value, text):
    if isinstance(value, bool):
        return text.lower() == ("true" if value else "false")
    if isinstance(value, (int, float)):
        return number(text) is not None and number(text) == value
    wanted, there = tokens(text), tokens(value)
    return bool(wanted) and any(there[i : i + len(wanted)] == wanted for i in range(len(there) - len(wanted) + 1))


def in_range(value, low, high, low_in, high_in):
    bounds = [bound for bound in (low, high) if bound is not None]
    if all(number(bound) is not None for bound in bounds):
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            return False
        low, high = (None if bound is None else number(bound) for bound in (low, high))
    elif not isinstance(value, str):
        return False
    above = low is None or value > low or (low_in and value == low)
    below = high is None or value < high or (high_in and value == high)
    return above and below


def matches(document, means):
    kind, *rest = means
    if kind == "and":
        return all(matches(document, part) for part in rest)
    if kind == "or":
        return any(matches(document, part) for part in rest)
    if kind == "not":
        return not matches(document, rest[0])
    if kind == "weight":
        return matches(document, rest[1])
    if kind == "all":
        return True
    path = rest[0].split("/") if rest[0] else None
    if kind == "exists":
        return has(document, path)
    if kind == "words":
        return any(words_match(value, rest[1]) for value in values(document, path))
    if kind == "prefix":
        return any(isinstance(value, str) and any(token.startswith(rest[1]) for token in tokens(value)) for value in values(document, path))
    if kind == "range":
        return any(in_range(value, *rest[1:]) for value in values(document, path))
    raise ValueError(f"unknown condition {kind}")


def stored_length(length):
    """The length that Lucene keeps in a byte: of what exceeds 24, four significant bits."""
    above = length - 24
    dropped = max(0, above.bit_length() - 4)
    return length if above < 0 else 24 + (above >> dropped << dropped)


class Scores:
    """BM25 over all documents of a set."""

    def __init__(self, documents):
        self.documents = documents
        self.texts_at = {}
        self.statistics_of = {}

    def texts(self, path):
        """For each document, the tokens of each text at a path."""
        if path not in self.texts_at:
            keys = path.split("/") if path else None
            self.texts_at[path] = [
                [tokens(value) for value in values(document, keys) if isinstance(value, str)] for document in self.documents
            ]
        return self.texts_at[path]

    def score(self, line, means):
        """The score of a line; None if it does not match."""
        kind, *rest = means
        if kind in ("and", "or"):
            scores = [self.score(line, part) for part in rest]
            found = [score for score in scores if score is not None]
            return sum(found) if found and (kind == "or" or len(found) == len(scores)) else None
        if kind == "weight":
            score = self.score(line, rest[1])
            return None if score is None else rest[0] * score
        if kind == "not":
            return 0.0 if self.score(line, rest[0]) is None else None
        if not matches(self.documents[line], means):
            return None
        return self.words_score(line, *rest) if kind == "words" else 1.0

    def words_score(self, line, path, text):
        wanted = tokens(text)
        texts = self.texts(path)
        starts = lambda there: sum(there[i : i + len(wanted)] == wanted for i in range(len(there)))
        occurrences = sum(starts(there) for there in texts[line])
        if occurrences == 0:
            return 1.0
        if (path, text) not in self.statistics_of:
            lengths = [sum(map(len, there)) for there in texts]
            count = sum(length > 0 for length in lengths)
            rarity = 0.0
            for token in wanted:
                having = sum(any(token in there for there in of_document) for of_document in texts)
                rarity += math.log(1 + (count - having + 0.5) / (having + 0.5))
            self.statistics_of[path, text] = rarity, lengths, sum(lengths) / count
        rarity, lengths, mean = self.statistics_of[path, text]
        saturation = 1.2 * (0.25 + 0.75 * stored_length(lengths[line]) / mean)
        return rarity * 2.2 * occurrences / (occurrences + saturation)


def bucket(time, interval):
    """The beginning of the interval of a time: ten minutes, an hour, a week from Monday, a month."""
    time = time.astimezone(datetime.timezone.utc).replace(second=0, microsecond=0)
    if interval == "10m":
        return time.replace(minute=time.minute // 10 * 10)
    day = time.replace(hour=0, minute=0)
    return {"1h": time.replace(minute=0), "1w": day - datetime.timedelta(days=day.weekday()), "1M": day.replace(day=1)}[interval]


def after(start, interval):
    """The beginning of the next interval."""
    if interval == "1M":
        return (start + datetime.timedelta(days=32)).replace(day=1)
    return start + {"10m": datetime.timedelta(minutes=10), "1h": datetime.timedelta(hours=1), "1w": datetime.timedelta(days=7)}[interval]


def add_paths(value, path, there):
    """All paths of a document that have something else than null; what is in a list has the path of the list."""
    if value is not None and path:
        there.add(path)
    if isinstance(value, list):
        for item in value:
            add_paths(item, path, there)
    elif isinstance(value, dict):
        for key, item in value.items():
            add_paths(item, (*path, key), there)


def count_values(values_of_documents):
    """How many documents have each value, the most frequent first. JSON tells 1 from true."""
    counts = collections.Counter(value for found in values_of_documents for value in {json.dumps(value) for value in found})
    return [[json.loads(value), count] for value, count in counts.most_common()]


def summary(documents, wanted):
    """What there is to say about all matches."""
    path, interval = wanted["histogram"]
    times = [value for document in documents for value in values(document, path.split("."))]
    starts = collections.Counter(bucket(datetime.datetime.fromisoformat(time), interval) for time in times)
    buckets, start = [], min(starts, default=None)
    while start is not None and start <= max(starts):
        buckets.append([start.strftime("%Y-%m-%dT%H:%M:%SZ"), starts[start]])
        start = after(start, interval)
    ranges = {}
    for path, bounds in wanted["ranges"].items():
        edges = [None, *map(str, bounds), None]
        ranges[path] = [
            sum(any(in_range(value, low, high, True, False) for value in values(document, path.split("."))) for document in documents)
            for low, high in zip(edges, edges[1:])
        ]
    paths = collections.Counter()
    for document in documents:
        there = set()
        add_paths(document, (), there)
        paths.update(there)
    return {
        "facets": {path: count_values(values(document, path.split(".")) for document in documents) for path in wanted["facets"]},
        "ranges": ranges,
        "histogram": buckets,
        "fields": [[list(path), count] for path, count in paths.items()],
    }


def main():
    request = json.load(sys.stdin)
    connection = duckdb.connect()
    connection.execute("set default_null_order = 'nulls_last_on_asc_first_on_desc'; set timezone = 'UTC'")
    documents = {}
    for name, file in request["sets"].items():
        path = f"{request['data']}/{file}"
        load(connection, name, path)
        with gzip.open(path, "rt", encoding="utf-8") as lines:
            documents[name] = [json.loads(line) for line in lines if line.strip()]
    answers = []
    for sql in request["statements"]:
        try:
            rows = connection.execute(sql).fetchall()
        except Exception as error:
            sys.exit(f"the oracle cannot answer\n{sql}\n{error}")
        answers.append([[plain(value) for value in row] for row in rows])
    found, scores = [], {}
    for search in request["searches"]:
        name = search["set"]
        lines = [line for line, document in enumerate(documents[name]) if matches(document, search["means"])]
        about = summary([documents[name][line] for line in lines], request["summaries"][name])
        of_set = scores.setdefault(name, Scores(documents[name]))
        best = [of_set.score(line, search["means"]) for line in lines]
        found.append({"lines": lines, "scores": best, **about})
    json.dump({"statements": answers, "searches": found}, sys.stdout)


if __name__ == "__main__":
    main()
