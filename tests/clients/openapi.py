"""Checks the description of the HTTP interface: that it is OpenAPI, and that each call answers as it says.

    python openapi.py URL KAFKA

KAFKA is the address of a broker with a topic `clicks`. Needs openapi-spec-validator.
"""

import json
import sys
import urllib.error
import urllib.parse
import urllib.request

import openapi_spec_validator
from jsonschema import Draft202012Validator

# Calls in this order: method, path in the description, the rest of the address, the body, the expected status.
PUSH = '{"n":1,"level":"error","msg":"disk full","at":"2026-01-31T08:00:00Z"}\n{"n":2,"tags":["a"]}\n'
FIRST = "the id of the first document"
VIEW = "CREATE VIEW errors AS SELECT * FROM events WHERE level = 'error'"
QUERY = "CREATE QUERY first(k int DEFAULT 1) AS SELECT n FROM events LIMIT $k"
SEARCH = {
    "q": "disk", "sort": "_score", "highlight": ["msg"], "facets": "level,n(2)", "histogram": "auto", "fields": True,
}


def calls(kafka):
    source = {"collection": "events", "topic": "clicks", "config": {"bootstrap.servers": kafka}}
    collection, source_path = "/v1/collections/{collection}", "/v1/sources/{source}"
    events, clicks = {"collection": "events"}, {"source": "clicks"}
    return [
        ("GET", "/healthz", {}, None, 200),
        ("GET", "/readyz", {}, None, 200),
        ("GET", "/metrics", {}, None, 200),
        ("PUT", collection, events, {"shards": 1, "time_path": None}, 201),
        ("PUT", collection, events, {}, 200),
        ("PUT", collection, events, {"sharts": 1}, 400),
        ("POST", collection + "/documents", events, PUSH, 200),
        ("POST", collection + "/documents", events, "no JSON", 400),
        ("POST", collection + "/documents", {"collection": "numbers"}, [5], 200),
        ("GET", collection + "/documents/{id}", {"collection": "numbers", "id": FIRST}, None, 200),
        ("GET", collection, events, None, 200),
        ("GET", "/v1/collections", {}, None, 200),
        ("GET", collection + "/fields", events, None, 200),
        ("GET", collection + "/documents/{id}", events | {"id": FIRST}, None, 200),
        ("GET", collection + "/documents/{id}", events | {"id": "nothing"}, None, 404),
        ("GET", collection + "/search", events | {"?": "q=disk&limit=1&highlight=true&facets=level&fields=10"}, None, 200),
        ("GET", collection + "/search", events | {"?": "q=n:["}, None, 400),
        ("POST", collection + "/search", events, SEARCH, 200),
        ("POST", collection + "/search", events, {"q": "*", "limit": 1, "facets": ["level", "msg"]}, 200),
        ("POST", "/v1/sql", {}, "SELECT n, msg FROM events ORDER BY n", 200),
        ("POST", "/v1/sql", {}, {"sql": "SELECT $1", "parameters": [[1]], "timeout_ms": 9000, "scan": "raw"}, 200),
        ("POST", "/v1/sql", {}, {"sql": "SELEC 1"}, 400),
        ("POST", "/v1/sql", {}, VIEW, 200),
        ("POST", "/v1/sql", {}, QUERY, 200),
        ("GET", "/v1/saved/{query}", {"query": "first", "?": "k=2&allow_partial=true"}, None, 200),
        ("POST", "/v1/saved/{query}", {"query": "first@1"}, {"parameters": {"k": 2}, "allow_partial": True}, 200),
        ("GET", "/v1/definitions", {}, None, 200),
        ("GET", "/v1/definitions/export", {}, None, 200),
        ("POST", "/v1/definitions/apply", {"?": "dry_run=true"}, VIEW + ";", 200),
        ("POST", "/v1/definitions/try", {}, {"sql": "CREATE FIELD events.x AS n + 1", "limit": 2}, 200),
        ("DELETE", "/v1/nodes/{node}", {"node": "leaf-9", "?": "lost=true"}, None, 404),
        ("POST", "/v1/nodes/{node}/drain", {"node": "leaf-9", "?": "dry_run=true"}, None, 404),
        ("DELETE", "/v1/nodes/{node}/drain", {"node": "leaf-9"}, None, 404),
        ("POST", "/v1/rebalance", {"?": "dry_run=true"}, None, 400),
        ("POST", "/v1/replacements/hold", {}, None, 400),
        ("DELETE", "/v1/replacements/hold", {}, None, 400),
        ("GET", "/v1/snapshots", {}, None, 400),
        ("POST", "/v1/snapshots", {}, {"collections": ["events"]}, 400),
        ("GET", "/v1/snapshots/{id}", {"id": "nothing", "?": "digests=true"}, None, 400),
        ("POST", "/v1/snapshots/{id}/check", {"id": "nothing", "?": "read=true"}, None, 400),
        ("POST", "/v1/snapshots/{id}/restore", {"id": "nothing"}, {"as": "copy"}, 400),
        ("DELETE", "/v1/snapshots/{id}", {"id": "nothing"}, None, 400),
        ("GET", "/v1/queries", {}, None, 200),
        ("DELETE", "/v1/queries/{query}", {"query": "0123"}, None, 404),
        ("POST", source_path + "/preview", clicks, source | {"limit": 1}, 200),
        ("PUT", source_path, clicks, source, 201),
        ("PUT", source_path, clicks, source | {"start": "earliest", "format": "json"}, 200),
        ("PUT", source_path, clicks, source | {"start": "latest"}, 409),
        ("GET", source_path, clicks, None, 200),
        ("GET", "/v1/sources", {}, None, 200),
        ("POST", source_path + "/suspend", clicks, None, 200),
        ("POST", source_path + "/skip", clicks, {"to": {"0": "latest"}}, 200),
        ("POST", source_path + "/resume", clicks, None, 200),
        ("POST", source_path + "/spread", clicks, {"partition": 0}, 400),
        ("DELETE", source_path + "/spread", clicks | {"?": "partition=0"}, None, 409),
        ("POST", collection + "/skip", events, {"to": {"0": 1}}, (400, 409, 503)),
        ("POST", collection + "/dead-letters/redrive", events, {"dry_run": True}, 200),
        ("POST", collection + "/dead-letters/redrive", events, {"source": "push", "code": "not_json"}, 200),
        ("POST", collection + "/dead-letters/redrive", events, {"value": "{}"}, 400),
        ("GET", collection + "/dead-letters/{address}", events | {"address": "push/0@99"}, None, 404),
        ("DELETE", collection + "/dead-letters", events | {"?": "source=push"}, None, 200),
        ("POST", collection + "/delete", events, {"where": "n = $1", "parameters": [1], "dry_run": True}, 200),
        ("POST", collection + "/delete", events, {"where": "n ="}, 400),
        ("POST", collection + "/delete", events, {"where": "n = 1 AND msg < 5"}, 200),
        ("DELETE", collection + "/documents/{id}", events | {"id": FIRST}, None, 200),
        ("DELETE", collection + "/documents/{id}", events | {"id": "nothing"}, None, 404),
        ("DELETE", source_path, clicks, None, 200),
        ("DELETE", collection, {"collection": "nothing"}, None, 404),
        ("POST", "/v1/sql", {}, "DROP VIEW errors", 200),
        ("POST", "/v1/sql", {}, "DROP QUERY first", 200),
        ("DELETE", collection, events, None, 200),
    ]


def ask(url, method, path, values, body):
    query = values.get("?")
    for name, value in values.items():
        path = path.replace("{" + name + "}", value)
    headers = {}
    if isinstance(body, (dict, list)):
        headers["content-type"], body = "application/json", json.dumps(body)
    elif body is not None:
        headers["content-type"] = "application/x-ndjson" if path.endswith("/documents") else "text/plain"
    address = url + path + ("?" + query if query else "")
    data = None if body is None else body.encode()
    request = urllib.request.Request(address, data, headers, method=method)
    try:
        answer = urllib.request.urlopen(request, timeout=60)
    except urllib.error.HTTPError as error:
        answer = error
    with answer:
        media_type = answer.headers["content-type"].split(";")[0]
        return answer.status, media_type, answer.read()


def main(url, kafka):
    _, _, document = ask(url, "GET", "/openapi.json", {}, None)
    document = json.loads(document)
    openapi_spec_validator.validate(document)

    def check(value, schema):
        Draft202012Validator({"components": document["components"], **schema}).validate(value)

    called = set()
    for method, path, values, body, expected in calls(kafka):
        operation = document["paths"][path][method.lower()]
        called.add((path, method.lower()))
        if values.get("id") == FIRST:
            rows = json.loads(ask(url, "POST", "/v1/sql", {}, f"SELECT _id FROM {values['collection']} LIMIT 1")[2])["rows"]
            values = values | {"id": urllib.parse.quote(rows[0]["_id"], safe="")}
        what = f"{method} {path} {values} {body}"
        for name in values:
            known = [parameter["name"] for parameter in operation.get("parameters", [])]
            assert name == "?" or name in known, f"{what}: {name} is not among {known}"
        for pair in values.get("?", "").split("&"):
            name = pair.partition("=")[0]
            assert not name or name in known or path.startswith("/v1/saved"), f"{what}: {name} is not among {known}"
        status, media_type, answer = ask(url, method, path, values, body)
        assert status == expected or isinstance(expected, tuple) and status in expected, f"{what}: {status} {answer}"
        if isinstance(body, (dict, list)) and status < 300:
            check(body, operation["requestBody"]["content"]["application/json"]["schema"])
        described = operation["responses"].get(str(status)) or operation["responses"]["default"]
        content = described["content"]
        assert media_type in content, f"{what}: {media_type} is not among {list(content)}"
        if media_type.endswith("json"):
            try:
                check(json.loads(answer), content[media_type]["schema"])
            except Exception as error:
                raise AssertionError(f"{what}: {answer[:1000]}: {str(error)[:2000]}") from None
    described = {(path, method) for path, item in document["paths"].items() for method in item}
    assert called == described, f"not called: {described - called}"
    identifiers = [operation["operationId"] for item in document["paths"].values() for operation in item.values()]
    assert len(identifiers) == len(set(identifiers)), identifiers
    without = [operation for item in document["paths"].values() for operation in item.values() if not operation.get("summary")]
    assert not without, without
    print(f"{len(called)} calls answer as the description says")


main(*sys.argv[1:])
