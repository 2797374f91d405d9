"""The channel to the service, and the metadata of every call."""

import json
import os

import grpc

TARGET = os.environ.get("CHAT_TARGET", "127.0.0.1:50051")
"""One address, or a name of several: dns:///chat-service-headless:50051."""

MODEL = os.environ.get("CHAT_MODEL", "default")

METADATA = [("authorization", f"Bearer {os.environ.get('CHAT_KEY', '')}")]

OPTIONS = [
    # Each call goes to the next address of the name.
    ("grpc.service_config", json.dumps({"loadBalancingConfig": [{"round_robin": {}}]})),
    # Ping a silent server, also between calls, and notice within 10 s that it is gone.
    ("grpc.keepalive_time_ms", 60_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.keepalive_permit_without_calls", 1),
    # The default of 4 MiB is too small for the largest answers.
    ("grpc.max_receive_message_length", 64 * 1024 * 1024),
]


def connect() -> grpc.Channel:
    """Return a channel. A process needs one: it carries any number of calls at a time."""
    return grpc.insecure_channel(TARGET, OPTIONS)  # with TLS: grpc.secure_channel
