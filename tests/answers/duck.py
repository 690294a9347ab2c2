"""DuckDB as a process that is asked one statement after the other.

Reads JSON lines from standard input. The first says what there is, `{"tables": {name: {"file": path, "columns": {name: type}}}}`, where a file
holds one JSON object of flat columns a line; each further one is `{"sql": text}` and is answered by one line, `{"rows": [[value, ...]]}` or
`{"error": text}`. Nothing here knows how the server computes anything.
"""

import json
import sys

import duckdb

sys.dont_write_bytecode = True
from oracle import plain  # noqa: E402: beside this file


def main():
    connection = duckdb.connect()
    connection.execute("set default_null_order = 'nulls_last_on_asc_first_on_desc'; set timezone = 'UTC'; set threads = 1")
    for name, table in json.loads(sys.stdin.readline())["tables"].items():
        columns = ", ".join("'" + column.replace("'", "''") + f"': '{kind}'" for column, kind in table["columns"].items())
        read = f"read_json('{table['file']}', format='newline_delimited', columns={{{columns}}}, maximum_object_size=33554432)"
        connection.execute(f"create table {name} as select * from {read}")
    for line in sys.stdin:
        try:
            rows = connection.execute(json.loads(line)["sql"]).fetchall()
            said = {"rows": [[plain(value) for value in row] for row in rows]}
        except Exception as error:
            said = {"error": str(error)}
        print(json.dumps(said), flush=True)


main()
