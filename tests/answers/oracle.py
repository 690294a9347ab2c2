"""The oracle of the answers test: the same questions, answered by other means.

Statements are answered by DuckDB over the files themselves; searches by the few lines below, over the parsed documents. Reads one JSON
request from standard input, `{"data": folder, "sets": {name: file}, "statements": [sql], "searches": [{"set", "means"}]}`, and writes
`{"statements": [[row, ...]], "searches": [[line number, ...]]}`. Nothing here knows how the server computes anything.
"""

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
        return value.isoformat() + "Z"
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
    found = [
        [line for line, document in enumerate(documents[search["set"]]) if matches(document, search["means"])] for search in request["searches"]
    ]
    json.dump({"statements": answers, "searches": found}, sys.stdout)


if __name__ == "__main__":
    main()
