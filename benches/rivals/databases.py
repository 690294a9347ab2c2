"""DuckDB or chdb as a process that is asked one request after the other.

    databases.py duckdb|chdb FOLDER

Reads JSON lines from standard input and answers each with one line: `{"load": {"file": path, "table": name, "types":
{column: type}, "settings": text, "text": bool}}` (types for DuckDB, the others for chdb) with `{"seconds": s, "documents": n}`,
`{"sql": text}` with `{"seconds": s, "rows": [[value, ...]]}`; or with `{"error": text}`. The seconds are those of the
database, without those of the pipe.
"""

import datetime
import decimal
import json
import os
import resource
import sys
import time


class DuckDb:
    """A table of typed columns, inferred from the first documents, and the column `json`, the whole document."""

    # As many as DuckDB itself reads to infer types.
    SAMPLE_DOCUMENTS = 20_480

    def __init__(self, folder):
        import duckdb

        self.connection = duckdb.connect(os.path.join(folder, "duck.db"))

    def load(self, file, table, types, settings, text):
        objects = f"read_json_objects('{file}', format = 'newline_delimited')"
        sample = f"select json_group_structure(json) from (select json from {objects} limit {self.SAMPLE_DOCUMENTS})"
        structure = json.loads(self.connection.execute(sample).fetchall()[0][0])
        structure.update(types)
        # A path that only has nulls in the sample may have values of any type later.
        text = json.dumps(structure).replace('"NULL"', '"JSON"').replace("'", "''")
        columns = f"json, unnest(from_json(json, '{text}'))"
        self.connection.execute(f"create table {table} as select {columns} from {objects}")
        self.connection.execute("checkpoint")

    def execute(self, sql):
        return self.connection.execute(sql).fetchall()

    def rows(self, result):
        return result


class Chdb:
    """A MergeTree table with one column `data`, JSON without hints or text. Conditions are not cached."""

    SETTINGS = (
        "settings use_query_condition_cache = 0, session_timezone = 'UTC', output_format_json_quote_64bit_integers = 0"
    )

    def __init__(self, folder):
        from chdb import session

        self.session = session.Session(folder)
        self.session.query("create database if not exists benches engine = Atomic")
        self.session.query("use benches")

    def load(self, file, table, types, settings, text):
        kind, format = ("String", "LineAsString") if text else ("JSON", "JSONAsObject")
        self.session.query(f"create table {table} (data {kind}) engine = MergeTree order by tuple() {settings}")
        self.session.query(f"insert into {table} select data from file('{file}', '{format}', 'data {kind}')")

    def execute(self, sql):
        return self.session.query(f"{sql} {self.SETTINGS}", "JSONCompact").bytes()

    def rows(self, result):
        return json.loads(result)["data"]


def plain(value):
    """What JSON has no type for."""
    if isinstance(value, (datetime.datetime, datetime.date)):
        return value.isoformat()
    return float(value) if isinstance(value, decimal.Decimal) else str(value)


def respond(database, request):
    started = time.perf_counter()
    if "load" in request:
        load = request["load"]
        database.load(**load)
        seconds = time.perf_counter() - started
        count = database.rows(database.execute(f"select count(*) from {load['table']}"))[0][0]
        return {"seconds": seconds, "documents": int(count)}
    result = database.execute(request["sql"])
    seconds = time.perf_counter() - started
    return {"seconds": seconds, "rows": [list(row) for row in database.rows(result)]}


def main():
    # ClickHouse's server does this for itself: a part of a table has a file for every path.
    open_files_max = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (open_files_max, open_files_max))
    database = {"duckdb": DuckDb, "chdb": Chdb}[sys.argv[1]](sys.argv[2])
    # The databases may print; only answers belong on standard output.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    for line in sys.stdin:
        try:
            response = respond(database, json.loads(line))
        except Exception as error:
            response = {"error": f"{type(error).__name__}: {error}"}
        print(json.dumps(response, default=plain), file=answers, flush=True)


main()
