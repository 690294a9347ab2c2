"""A gRPC client in Python. Needs grpcio and grpcio-reflection but no generated code: the server describes itself.

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
    descriptors = ProtoReflectionDescriptorDatabase(channel)
    assert "rachis.v1.Query" in descriptors.get_services(), descriptors.get_services()
    pool = DescriptorPool(descriptors)

    def message(name):
        return GetMessageClass(pool.FindMessageTypeByName("rachis.v1." + name))

    def method(service, name):
        descriptor = pool.FindServiceByName("rachis.v1." + service).FindMethodByName(name)
        request = "stream" if descriptor.client_streaming else "unary"
        response = "stream" if descriptor.server_streaming else "unary"
        path = "/rachis.v1.%s/%s" % (service, name)
        output = GetMessageClass(descriptor.output_type)
        return getattr(channel, request + "_" + response)(
            path, request_serializer=lambda m: m.SerializeToString(), response_deserializer=output.FromString
        )

    push = message("PushRequest")
    pushes = (
        push(
            collection=collection,
            documents=[json.dumps({"push": p, "n": n}).encode() for n in range(DOCUMENTS)],
            idempotency_key="python %d" % p,
        )
        for p in range(PUSHES)
    )
    accepted = sum(response.accepted for response in method("Ingest", "PushMany")(pushes))
    assert accepted == PUSHES * DOCUMENTS, accepted

    statement = "SELECT push, sum(n) AS total FROM %s GROUP BY push ORDER BY push" % collection
    sql = message("SqlRequest")(sql=statement, form=1)
    rows, end = b"", None
    for part in method("Query", "Sql")(sql):
        rows += part.rows
        end = part.end if part.WhichOneof("part") == "end" else end
    rows = [json.loads(line) for line in rows.splitlines()]
    assert rows == [{"push": p, "total": sum(range(DOCUMENTS))} for p in range(PUSHES)], rows
    assert end is not None and end.shards_answered == end.shards_total, end

    try:
        list(method("Query", "Sql")(message("SqlRequest")(sql="SELECT 1 +")))
        raise AssertionError("the server accepted an invalid statement")
    except grpc.RpcError as error:
        assert error.code() == grpc.StatusCode.INVALID_ARGUMENT, error
    print("pushed %d documents, read %d rows" % (accepted, len(rows)))


if __name__ == "__main__":
    main(*sys.argv[1:])
