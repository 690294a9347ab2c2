"""Computes calls in the systems that define them: DuckDB, ClickHouse (chdb), PostgreSQL, or plain Python.

Reads {"rows": [...], "calls": [{"home", "call", "columns", "condition", "aggregate"}], "postgresql": folder} from its
standard input and writes one list for each call: for each row (or group) {"is": value}, {"error": text} or "skipped".
"""
import datetime
import glob
import json
import os
import pwd
import re
import subprocess
import sys

TYPES = {
    "k": "bigint", "g": "bigint", "b": "boolean", "i": "bigint", "j": "bigint", "u": "bigint", "d": "double precision",
    "s": "text", "x": "text", "n": "text", "h": "text", "t": "timestamp", "w": "timestamp", "e": "bigint",
    "m": "jsonb", "l": "bigint[]", "p": "text[]",
}
UTC = datetime.timezone.utc


def spelled_time(moment):
    text = moment.strftime("%Y-%m-%dT%H:%M:%S").rjust(19, "0")
    return text + (".%06d" % moment.microsecond if moment.microsecond else "") + "Z"


def plain_value(value):
    """A value as the server spells it in JSON."""
    if isinstance(value, datetime.datetime):
        return spelled_time(value)
    if isinstance(value, datetime.date):
        return value.isoformat()
    if isinstance(value, float):
        return value if value == value and abs(value) != float("inf") else None
    if isinstance(value, (list, tuple)):
        return [plain_value(item) for item in value]
    if value is None or isinstance(value, (bool, int, str, dict)):
        return value
    return float(value)


def at_home(call, rows, whole, single):
    """All rows at once; one by one only if one of them is an error."""
    try:
        return [{"is": value} for value in whole(call)]
    except Exception:
        answers = []
        for row in rows:
            try:
                answers.append({"is": single(call, row)})
            except Exception as error:
                answers.append({"error": str(error)[:200]})
        return answers


def last_of(texts):
    """The last of several JSON values."""
    value, rest = None, texts.strip()
    while rest:
        value, end = json.JSONDecoder().raw_decode(rest)
        rest = rest[end:].lstrip()
    return value


def duckdb_answers(rows, calls):
    import duckdb

    db = duckdb.connect()
    db.execute("SET TimeZone = 'UTC'")
    columns = ", ".join(f"{name} {kind.replace('jsonb', 'json')}" for name, kind in TYPES.items())
    db.execute(f"CREATE TABLE v ({columns})")
    values = [[json.dumps(row[c]) if c == "m" and row[c] is not None else row[c] for c in TYPES] for row in rows]
    db.executemany(f"INSERT INTO v VALUES ({', '.join('?' * len(TYPES))})", values)

    def parsed(value, call):
        # Of JSON, DuckDB returns the text.
        if isinstance(value, str) and call["call"].startswith(("json_extract(", "json_value(", "json_group_array(")):
            return json.loads(value)
        return plain_value(value)

    def whole(call):
        key = "g" if call["aggregate"] else "k"
        group = "GROUP BY g" if call["aggregate"] else ""
        found = db.execute(f"SELECT {call['call']} FROM v {group} ORDER BY {key}").fetchall()
        return [parsed(value, call) for (value,) in found]

    def single(call, row):
        key = "g" if call["aggregate"] else "k"
        (value,) = db.execute(f"SELECT {call['call']} FROM v WHERE {key} = {row[key]}").fetchone()
        return parsed(value, call)

    return whole, single


def clickhouse_answers(rows, calls):
    from chdb import session

    db = session.Session()
    kinds = {
        "bigint": "Nullable(Int64)", "boolean": "Nullable(Bool)", "double precision": "Nullable(Float64)",
        "text": "Nullable(String)", "timestamp": "Nullable(DateTime64(6, 'UTC'))", "jsonb": "Nullable(String)",
        "bigint[]": "Array(Nullable(Int64))", "text[]": "Array(Nullable(String))",
    }
    db.query(f"CREATE TABLE v ({', '.join(f'{name} {kinds[kind]}' for name, kind in TYPES.items())}) ENGINE = Memory")
    lines = "\n".join(
        json.dumps({c: json.dumps(row[c]) if c == "m" and row[c] is not None else row[c] for c in TYPES})
        for row in rows
    )
    db.query(f"INSERT INTO v FORMAT JSONEachRow {lines}")
    settings = (
        "SETTINGS session_timezone = 'UTC', enable_extended_results_for_datetime_functions = 1, "
        "output_format_json_quote_64bit_integers = 0, allow_experimental_nullable_tuple_type = 0"
    ).rsplit(", ", 1)[0]

    def typed(value, kind):
        if value is None:
            return None
        if isinstance(value, list):
            inner = kind[len("Array(") : -1]
            return [typed(item, inner) for item in value]
        if "DateTime" in kind:
            return spelled_time(datetime.datetime.fromisoformat(value))
        return plain_value(value)

    def ask(query):
        # After an error, the beginning of the failed answer comes first.
        answer = last_of(str(db.query(f"{query} {settings}", "JSONCompact")))
        kind = answer["meta"][0]["type"]
        return [typed(row[0], kind) for row in answer["data"]]

    def whole(call):
        key = "g" if call["aggregate"] else "k"
        group = "GROUP BY g" if call["aggregate"] else ""
        return ask(f"SELECT {call['call']} FROM v {group} ORDER BY {key}")

    def single(call, row):
        key = "g" if call["aggregate"] else "k"
        return ask(f"SELECT {call['call']} FROM v WHERE {key} = {row[key]}")[0]

    return whole, single


def postgresql_answers(rows, calls, folder):
    """All answers at once, from a server of our own that listens only on a socket in this folder."""
    # The newest that is installed.
    binaries = max(glob.glob("/usr/lib/postgresql/*/bin"), key=lambda folder: float(folder.split("/")[4]))
    user = "postgres" if os.getuid() == 0 else None
    os.chmod(folder, 0o755)
    data = os.path.join(folder, "postgresql")
    os.mkdir(data)
    if user:
        owner = pwd.getpwnam(user)
        os.chown(data, owner.pw_uid, owner.pw_gid)

    def run(*command, **options):
        options = {"check": True, "capture_output": True, "text": True, "cwd": "/", **options}
        return subprocess.run(command, **options, **({"user": user, "group": user, "extra_groups": []} if user else {}))

    database = os.path.join(data, "data")
    run(f"{binaries}/initdb", "-D", database, "-A", "trust", "-U", "tests", "--no-sync", "-E", "UTF8", "--locale=C.UTF-8")
    settings = f"-c listen_addresses= -c unix_socket_directories={data} -c fsync=off -c timezone=UTC"
    run(f"{binaries}/pg_ctl", "-D", database, "-o", settings, "-l", f"{data}/log", "-w", "start")
    try:
        columns = ", ".join(f"{name} {kind}" for name, kind in TYPES.items())
        asked = "".join(
            f"SELECT json_agg(answer($call${call['call']}$call$, '{key}', id) ORDER BY id) "
            f"FROM (SELECT DISTINCT {key} AS id FROM v) AS ids;\n"
            for call in calls
            for key in ["g" if call["aggregate"] else "k"]
        )
        # PostgreSQL has no text with the character 0, and no documents with it.
        script = f"""
CREATE TABLE v ({columns});
INSERT INTO v SELECT * FROM json_populate_recordset(NULL::v, $rows${json.dumps(rows)}$rows$);
CREATE FUNCTION answer(call text, key text, id bigint) RETURNS json AS $body$
DECLARE found json;
BEGIN
    EXECUTE format('SELECT to_json(%s) FROM v WHERE %I = %s', call, key, id) INTO found;
    RETURN json_build_object('is', found);
EXCEPTION WHEN OTHERS THEN
    RETURN json_build_object('error', SQLERRM);
END $body$ LANGUAGE plpgsql;
{asked}"""
        found = run(
            f"{binaries}/psql", "-h", data, "-U", "tests", "-d", "postgres", "-qAtX", "-v", "ON_ERROR_STOP=1",
            input=script,
        ).stdout
        # A list over several lines is still one answer.
        decoder, answers, rest = json.JSONDecoder(), [], found.strip()
        while rest:
            answer, end = decoder.raw_decode(rest)
            answers.append(answer)
            rest = rest[end:].lstrip()
        return answers
    finally:
        run(f"{binaries}/pg_ctl", "-D", database, "-m", "immediate", "-w", "stop")


# What conditions and plain answers use.


def moment(text):
    return datetime.datetime.fromisoformat(text)


def epoch(text):
    return (moment(text) - datetime.datetime(1970, 1, 1)) / datetime.timedelta(seconds=1)


def shifted(text, seconds):
    return spelled_time(moment(text) + datetime.timedelta(seconds=seconds))


def time(seconds):
    return spelled_time(datetime.datetime(1970, 1, 1) + datetime.timedelta(seconds=seconds))


def parsed(text):
    try:
        return spelled_time(datetime.datetime.strptime(text, "%Y-%m-%d %H:%M:%S"))
    except ValueError:
        return None


def mid(text, begin, length):
    """MySQL's MID."""
    if begin == 0 or length <= 0 or -begin > len(text):
        return ""
    begin = begin - 1 if begin > 0 else len(text) + begin
    return text[begin : begin + length]


def at(document, *keys):
    for key in keys:
        document = document.get(key) if isinstance(document, dict) else None
    return document


def is_null(document, *keys):
    """Whether a document has a null at a path."""
    *before, last = keys
    inside = at(document, *before)
    return isinstance(inside, dict) and last in inside and inside[last] is None


def overflows(text):
    return text is not None and re.fullmatch(r"[+-]?\d{10,}", text) is not None


def values_of(row, rows, aggregate):
    inside = [other for other in rows if other["g"] == row["g"]] if aggregate else [row]
    counts = {f"count_of_{c}": sum(other[c] is not None for other in inside) for c in TYPES}
    both = sum(other["d"] is not None and other["j"] is not None for other in inside)
    group = lambda column: [other[column] for other in inside if other[column] is not None]
    return {**globals(), **row, **counts, "count_of_both": both, "group": group}


def evaluated(expression, values):
    return eval(re.sub(r"\{(\w+)\}", r"\1", expression), values)


def plain_answer(call, row, rows):
    strict = not call["call"].startswith("lax: ")
    if strict and not call["aggregate"] and any(row[column] is None for column in call["columns"]):
        return None
    return evaluated(call["call"].removeprefix("lax: "), values_of(row, rows, call["aggregate"]))


def main():
    request = json.load(sys.stdin)
    rows, calls = request["rows"], request["calls"]
    groups = sorted({row["g"] for row in rows})
    firsts = [next(row for row in rows if row["g"] == group) for group in groups]
    own = lambda home: [call for call in calls if call["home"] == home]
    asked = {"DuckDB": duckdb_answers(rows, own("DuckDB")), "ClickHouse": clickhouse_answers(rows, own("ClickHouse"))}
    from_postgresql = iter(postgresql_answers(rows, own("PostgreSQL"), request["folder"]))
    answers = []
    for call in calls:
        subjects = firsts if call["aggregate"] else rows
        if call["home"] == "PostgreSQL":
            found = next(from_postgresql)
        elif call["home"] == "plain":
            found = [{"is": plain_answer(call, row, rows)} for row in subjects]
        else:
            found = at_home(call, subjects, *asked[call["home"]])
        for index, row in enumerate(subjects):
            if call["condition"] and not evaluated_safely(call["condition"], values_of(row, rows, call["aggregate"])):
                found[index] = "skipped"
        answers.append(found)
    json.dump(answers, sys.stdout)


def evaluated_safely(condition, values):
    """A condition over a NULL that it does not mention is no reason to leave a row out."""
    try:
        return evaluated(condition, values)
    except TypeError:
        return True


main()
