"""The protobuf messages of the Open Inference Protocol and of gRPC's health service, as far as the server reads them.

Sources: ``specification/protocol/open_inference_grpc.proto`` of kserve/open-inference-protocol, ``grpc_service.proto``
of triton-inference-server/common (its messages ``Repository*``), and ``grpc/health/v1/health.proto``.

They are described here rather than generated, so that no generated file ties the server to a version of protobuf, and
in a pool of their own, so that a process may have the stubs of a client too. What the server ignores, such as
parameters, is left out: protobuf skips fields that it does not know. Names of messages are not on the wire.
"""

from __future__ import annotations

from typing import Any, Final

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

_FIELDS: Final = {
    # the two words by which every request about a model names it, before the rest is looked at
    "Address": "string name = 1; string version = 2",
    "Live": "bool live = 1",
    "Ready": "bool ready = 1",
    "Server": "string name = 1; string version = 2; repeated string extensions = 3",
    "Model": "string name = 1; repeated string versions = 2; string platform = 3; repeated Described inputs = 4; "
    "repeated Described outputs = 5",
    "Described": "string name = 1; string datatype = 2; repeated int64 shape = 3",
    "InferRequest": "string model_name = 1; string model_version = 2; string id = 3; repeated Tensor inputs = 5; "
    "repeated Wanted outputs = 6; repeated bytes raw_input_contents = 7",
    "InferResponse": "string model_name = 1; string model_version = 2; string id = 3; repeated Tensor outputs = 5; "
    "repeated bytes raw_output_contents = 6",
    "Tensor": "string name = 1; string datatype = 2; repeated int64 shape = 3; Contents contents = 5",
    "Wanted": "string name = 1",
    "Contents": "repeated bool bool_contents = 1; repeated int32 int_contents = 2; repeated int64 int64_contents = 3; "
    "repeated uint32 uint_contents = 4; repeated uint64 uint64_contents = 5; repeated float fp32_contents = 6; "
    "repeated double fp64_contents = 7; repeated bytes bytes_contents = 8",
    "IndexRequest": "bool ready = 2",
    "Index": "repeated State models = 1",
    "State": "string name = 1; string version = 2; string state = 3; string reason = 4",
    "ChangeRequest": "string model_name = 2; repeated Parameter parameters = 3",
    "Parameter": "string key = 1",
    "HealthRequest": "string service = 1",
    "Health": "int32 status = 1",
}
"""Message -> its fields, as a .proto file has them."""

_Field: Final = descriptor_pb2.FieldDescriptorProto
_TYPES: Final = {
    "bool": _Field.TYPE_BOOL,
    "bytes": _Field.TYPE_BYTES,
    "double": _Field.TYPE_DOUBLE,
    "float": _Field.TYPE_FLOAT,
    "int32": _Field.TYPE_INT32,
    "int64": _Field.TYPE_INT64,
    "string": _Field.TYPE_STRING,
    "uint32": _Field.TYPE_UINT32,
    "uint64": _Field.TYPE_UINT64,
}


def _classes() -> dict[str, Any]:
    """Return name -> class of every message."""
    file = descriptor_pb2.FileDescriptorProto(name="modelrel.proto", package="modelrel", syntax="proto3")
    for message, fields in _FIELDS.items():
        made = file.message_type.add(name=message)
        for field in fields.split("; "):
            words, _, number = field.partition(" = ")
            *repeated, kind, name = words.split()
            label = _Field.LABEL_REPEATED if repeated else _Field.LABEL_OPTIONAL
            added = made.field.add(name=name, number=int(number), label=label, type=_TYPES.get(kind))
            if kind not in _TYPES:
                added.type, added.type_name = _Field.TYPE_MESSAGE, f".modelrel.{kind}"
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return {name: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"modelrel.{name}")) for name in _FIELDS}


MESSAGES: Final = _classes()
"""Name -> class of every message."""
