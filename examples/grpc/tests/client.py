"""A client with grpcio, driven by the tests: `client.py ADDRESS`.

Each line on stdin is a command, and each is answered by one line on stdout, both in JSON. What the messages look like is learned from
the server's reflection.

| command | answer |
|---|---|
| {"do": "services", "version": "v1" or "v1alpha"} | {"services": [names]} |
| {"do": "open", "call": id, "rpc": "package.Service/Method", "metadata": [[name, value]], "message": {..}} | {} |
| {"do": "send", "call": id, "message": {..}} | {} |
| {"do": "half_close", "call": id} | {} |
| {"do": "receive", "call": id} | {"message": {..}}, or {"message": null} if the call has ended |
| {"do": "initial", "call": id} | {"metadata": {..}}: waits for the initial metadata |
| {"do": "cancel", "call": id} | {} |
| {"do": "end", "call": id} | waits for the end: {"code", "text", "details", "initial", "trailing", "messages"} |

"message" opens an RPC whose client sends one message. Where the client streams, messages are sent by "send".
"""

import json
import queue
import sys

import grpc
from google.protobuf import descriptor_pool, json_format, message_factory
from google.rpc import error_details_pb2  # noqa: F401: registers the messages of details
from grpc_reflection.v1alpha import reflection_pb2
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase
from grpc_status import rpc_status

# For every call. A test that hangs fails earlier.
DEADLINE_S = 120


class Rpc:
    """How an RPC is called."""

    def __init__(self, client_streams, server_streams, encode, decode):
        self.client_streams = client_streams
        self.server_streams = server_streams
        self.encode = encode
        self.decode = decode

    @staticmethod
    def described_by(pool, name):
        """From reflection. An RPC that the server does not describe is one of bytes."""
        service, method = name.split("/")
        try:
            method = pool.FindServiceByName(service).methods_by_name[method]
        except (KeyError, grpc.RpcError):
            return Rpc(False, False, lambda _: b"", lambda _: {})
        request = message_factory.GetMessageClass(method.input_type)
        response = message_factory.GetMessageClass(method.output_type)
        return Rpc(
            method.client_streaming,
            method.server_streaming,
            lambda message: json_format.ParseDict(message, request()).SerializeToString(),
            lambda data: json_format.MessageToDict(response.FromString(data)),
        )


class Call:
    """A call that is open, or has ended."""

    def __init__(self, channel, name, rpc, metadata, message):
        self.rpc = rpc
        self.messages = []
        self.requests = queue.SimpleQueue()
        kind = "{}_{}".format(*("stream" if streams else "unary" for streams in (rpc.client_streams, rpc.server_streams)))
        function = getattr(channel, kind)(f"/{name}", request_serializer=rpc.encode, response_deserializer=rpc.decode)
        if not rpc.server_streams:
            # With a future, a single response does not block.
            function = function.future
        sent = iter(self.requests.get, None) if rpc.client_streams else message
        self.call = function(sent, metadata=metadata, timeout=DEADLINE_S)

    def receive(self):
        try:
            if self.rpc.server_streams:
                message = next(self.call, None)
            else:
                message = None if self.messages else self.call.result()
        except grpc.RpcError:
            return None
        if message is not None:
            self.messages.append(message)
        return message

    def end(self):
        while self.receive() is not None:
            pass
        code = self.call.code()
        self.requests.put(None)
        return {
            "code": code.name,
            "text": self.call.details(),
            "details": details(self.call),
            "initial": texts(self.call.initial_metadata()),
            "trailing": texts(self.call.trailing_metadata()),
            "messages": self.messages,
        }


def details(call):
    """The decoded details. An error if their code or their message is not that of the call."""
    status = rpc_status.from_call(call)
    return [] if status is None else [json_format.MessageToDict(detail) for detail in status.details]


def texts(metadata):
    return {name: value for name, value in metadata or () if not name.endswith("-bin")}


def services(channel, version):
    """The names of all services. Both versions of the protocol have the same messages."""
    list_services = channel.stream_stream(
        f"/grpc.reflection.{version}.ServerReflection/ServerReflectionInfo",
        request_serializer=reflection_pb2.ServerReflectionRequest.SerializeToString,
        response_deserializer=reflection_pb2.ServerReflectionResponse.FromString,
    )
    request = reflection_pb2.ServerReflectionRequest(list_services="")
    responses = list_services(iter([request]), timeout=DEADLINE_S)
    return [service.name for response in responses for service in response.list_services_response.service]


def main():
    channel = grpc.insecure_channel(sys.argv[1])
    pool = descriptor_pool.DescriptorPool(ProtoReflectionDescriptorDatabase(channel))
    calls = {}

    def answer(command):
        match command["do"]:
            case "services":
                return {"services": services(channel, command["version"])}
            case "open":
                rpc = Rpc.described_by(pool, command["rpc"])
                metadata = [tuple(entry) for entry in command["metadata"]]
                calls[command["call"]] = Call(channel, command["rpc"], rpc, metadata, command["message"])
            case "send":
                calls[command["call"]].requests.put(command["message"])
            case "half_close":
                calls[command["call"]].requests.put(None)
            case "receive":
                return {"message": calls[command["call"]].receive()}
            case "initial":
                return {"metadata": texts(calls[command["call"]].call.initial_metadata())}
            case "cancel":
                calls[command["call"]].call.cancel()
            case "end":
                return calls.pop(command["call"]).end()
        return {}

    for line in sys.stdin:
        print(json.dumps(answer(json.loads(line))), flush=True)


if __name__ == "__main__":
    main()
