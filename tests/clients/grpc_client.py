"""A client in Python, over gRPC: needs grpcio and grpcio-reflection, and no generated code: the server describes itself.

    python grpc_client.py HOST:PORT COLLECTION
"""

import json
import sys

import grpc
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message_factory import GetMessageClass
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase

PUSHES, DOCUMENTS = 20, 50


def main(address, collection):
    channel = grpc.insecure_channel(address)
    described = ProtoReflectionDescriptorDatabase(channel)
    assert "rachis.v1.Query" in described.get_services(), described.get_services()
    pool = DescriptorPool(described)

    def message(name):
        return GetMessageClass(pool.FindMessageTypeByName("rachis.v1." + name))

    def method(service, name):
        found = pool.FindServiceByName("rachis.v1." + service).FindMethodByName(name)
        kind = ("stream" if found.client_streaming else "unary") + "_" + ("stream" if found.server_streaming else "unary")
        path = "/rachis.v1.%s/%s" % (service, name)
        answer = GetMessageClass(found.output_type)
        return getattr(channel, kind)(path, request_serializer=lambda m: m.SerializeToString(), response_deserializer=answer.FromString)

    push = message("PushRequest")
    pushes = (
        push(collection=collection, documents=[json.dumps({"push": p, "n": n}).encode() for n in range(DOCUMENTS)], idempotency_key="python %d" % p)
        for p in range(PUSHES)
    )
    accepted = sum(answer.accepted for answer in method("Ingest", "PushMany")(pushes))
    assert accepted == PUSHES * DOCUMENTS, accepted

    sql = message("SqlRequest")(sql="SELECT push, sum(n) AS total FROM %s GROUP BY push ORDER BY push" % collection, form=1)
    rows, end = b"", None
    for part in method("Query", "Sql")(sql):
        rows += part.rows
        end = part.end if part.WhichOneof("part") == "end" else end
    rows = [json.loads(line) for line in rows.splitlines()]
    assert rows == [{"push": p, "total": sum(range(DOCUMENTS))} for p in range(PUSHES)], rows
    assert end is not None and end.shards_answered == end.shards_total, end

    try:
        list(method("Query", "Sql")(message("SqlRequest")(sql="SELECT 1 +")))
        raise AssertionError("what is no statement is refused")
    except grpc.RpcError as refused:
        assert refused.code() == grpc.StatusCode.INVALID_ARGUMENT, refused
    print("pushed %d documents, read %d rows" % (accepted, len(rows)))


if __name__ == "__main__":
    main(*sys.argv[1:])
