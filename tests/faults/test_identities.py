"""Keys that are bound to client certificates, on each engine and as callers see them.

bound                 a call without a key spends the credit of the account, within the key's limits
not bound, revoked    INVALID_API_KEY
a key as well         the key counts
bound twice           ALREADY_EXISTS, until the first key was revoked or has expired
"""

from __future__ import annotations  # the types of grpc are generic for type checkers only

import json
from pathlib import Path
from typing import Any, Final

import grpc
import pytest
import trustme

from chatcompletion.v1.model_service_pb2 import ListModelsRequest
from service.accounts import keys
from service.accounts.directory import Directory
from service.errors import AlreadyExists, InvalidRequest
from service.ledger.store import Store
from tests.faults.stores import migrated
from tests.support.certificates import Files, written, written_authority
from tests.support.grpc_client import KEY, Client, failed
from tests.support.processes import environment, process
from tests.support.waiting import PATIENCE

__all__ = ["migrated"]

IDENTITY: Final = "spiffe://example/ns/a/sa/b"


def test_one_valid_key_is_bound_to_an_identity(migrated: Store) -> None:
    directory = Directory(migrated)
    for account in ("acme", "other"):
        directory.create_account(account)
    row, secret = directory.create_key("acme", "first", identity=IDENTITY, concurrency=3)
    assert (secret, row.identity, row.concurrency) == ("", IDENTITY, 3)
    digest = keys.identity_digest(IDENTITY)
    found = directory.callers.find(digest)
    assert found is not None
    assert (found.account_name, found.key_name) == ("acme", "first")

    with pytest.raises(InvalidRequest, match="has no secret"):
        directory.lifecycle.rotate_key("acme", "first", grace=0)
    with pytest.raises(AlreadyExists, match="is bound to another key"):
        directory.create_key("other", "second", identity=IDENTITY)
    directory.revoke_key("acme", "first")
    assert directory.callers.find(digest) is None
    directory.create_key("other", "second", identity=IDENTITY)
    found = directory.callers.find(digest)
    assert found is not None
    assert found.account_name == "other"
    assert [row.identity for row in directory.keys("acme")] == [IDENTITY]


async def _command(folder: Path, *arguments: str) -> dict[str, Any]:
    variables = {"CHAT_DATABASE_URL": f"sqlite:///{folder}/store"}
    async with process("service", variables, *arguments, "--json") as running:
        assert await running.exit_status() == 0, running.lines
        document: dict[str, Any] = json.loads(running.output)
        return document


async def test_a_certificate_can_stand_for_a_key(tmp_path: Path) -> None:
    ours = trustme.CA()
    ca = written_authority(tmp_path, ours, "ca")
    server = written(tmp_path, ours, "server", "localhost", "127.0.0.1")
    bound = written(tmp_path, ours, "bound", IDENTITY)
    subject = written(tmp_path, ours, "subject", "spiffe-free.example")
    await _command(tmp_path, "accounts", "create", "acme", "--credit", "5")
    named = ("--name", "mesh", "--identity", IDENTITY, "--models", "default")
    created = await _command(tmp_path, "keys", "create", "acme", *named)
    assert created["api_key"]["identity"] == IDENTITY
    assert not created.get("key_string")
    variables = environment(
        CHAT_DATABASE_URL=f"sqlite:///{tmp_path}/store",
        CHAT_TLS_CERT_FILE=server.certificate,
        CHAT_TLS_KEY_FILE=server.key,
        CHAT_TLS_CLIENT_CA_FILE=ca,
    )
    async with process("service", variables) as running:
        target = await running.address()

        async def reason(files: Files, *, key: str = "") -> str:
            """Return the reason of a refusal; "" if a call without one succeeded."""
            credentials = grpc.ssl_channel_credentials(
                *map(_read, (ca, files.key, files.certificate))
            )
            options = (("grpc.use_local_subchannel_pool", 1),)
            async with grpc.aio.secure_channel(target, credentials, options=options) as channel:
                client = Client(channel)
                metadata = (("authorization", f"Bearer {key}"),) if key else ()
                call = client.models.ListModels(
                    ListModelsRequest(), metadata=metadata, timeout=PATIENCE
                )
                try:
                    await call
                except grpc.aio.AioRpcError as error:
                    return failed(error).reason
                return ""

        assert await reason(bound) == ""
        call = await running.event("call")
        assert (call["account"], call["key"]) == ("acme", "mesh")
        assert await reason(subject) == "INVALID_API_KEY"
        assert await reason(subject, key=KEY) == ""
        assert await reason(bound, key=f"{KEY}x") == "INVALID_API_KEY"
        assert await reason(bound, key=IDENTITY) == "INVALID_API_KEY"


def _read(path: str) -> bytes:
    return Path(path).read_bytes()
