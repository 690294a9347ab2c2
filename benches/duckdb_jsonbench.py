"""Loads a file of JSON lines into DuckDB and prints, as JSON, the load time, the database size and the median of
JSONBench's queries."""

import json
import os
import statistics
import sys
import tempfile
import time

import duckdb

QUERIES = [
    "select commit.collection as event, count(*) as n from bluesky group by event order by n desc",
    "select commit.collection as event, count(*) as n, count(distinct did) as users from bluesky "
    "where kind = 'commit' and commit.operation = 'create' group by event order by n desc",
    "select commit.collection as event, extract(hour from make_timestamp(time_us)) as hour, count(*) as n "
    "from bluesky where kind = 'commit' and commit.operation = 'create' and commit.collection in "
    "('app.bsky.feed.post', 'app.bsky.feed.repost', 'app.bsky.feed.like') group by event, hour order by hour, event",
    "select did, min(time_us) as first from bluesky where kind = 'commit' and commit.operation = 'create' "
    "and commit.collection = 'app.bsky.feed.post' group by did order by first limit 3",
    "select did, max(time_us) - min(time_us) as span from bluesky where kind = 'commit' "
    "and commit.operation = 'create' and commit.collection = 'app.bsky.feed.post' "
    "group by did order by span desc limit 3",
]


def main() -> None:
    lines, runs = sys.argv[1], int(sys.argv[2])
    with tempfile.TemporaryDirectory() as folder:
        file = os.path.join(folder, "duck.db")
        connection = duckdb.connect(file)
        started = time.perf_counter()
        connection.execute(
            f"create table bluesky as select * from "
            f"read_json('{lines}', format = 'newline_delimited', sample_size = 100000)"
        )
        connection.execute("checkpoint")
        load_seconds = time.perf_counter() - started
        medians = []
        for query in QUERIES:
            times = []
            for _ in range(runs):
                started = time.perf_counter()
                rows = connection.execute(query).fetchall()
                times.append((time.perf_counter() - started) * 1000)
                assert rows, query
            medians.append(statistics.median(times))
        size = os.path.getsize(file)
    figures = {"version": duckdb.__version__, "load_seconds": load_seconds, "bytes": size, "milliseconds": medians}
    print(json.dumps(figures))


main()
