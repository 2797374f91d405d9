"""The receipt of a call in the metadata of gRPC, and as text for HTTP.

Charge -> metadata -> chatcompletion-charge-bin -> of -> Charge
                                                      -> text -> nano-credits=206000, prompt=…
"""

from collections.abc import Iterable
from typing import Final

from google.protobuf.message import DecodeError

from chatcompletion.v1.chat_completion_service_pb2 import Charge

KEY: Final = "chatcompletion-charge-bin"
"""The key of the trailing metadata that holds a serialized `Charge`."""


def metadata(charge: Charge) -> tuple[tuple[str, bytes], ...]:
    """Return the trailing metadata of a call with this charge."""
    return ((KEY, charge.SerializeToString()),)


def of(trailers: Iterable[tuple[str, str | bytes]] | None) -> Charge | None:
    """Return the charge in the trailing metadata of a call; None if there is none."""
    for key, value in trailers or ():
        if key == KEY and isinstance(value, bytes):
            try:
                return Charge.FromString(value)
            except DecodeError:
                return None
    return None


def text(charge: Charge) -> str:
    """Return a charge as a dictionary of HTTP's structured fields (RFC 9651), in nano-credits."""
    marks = [name for name in ("estimated", "partial") if getattr(charge, name)]
    if charge.HasField("worth"):
        marks.append(f'worth="{charge.worth.amount} {charge.worth.currency_code}"')
    return ", ".join(
        (
            f"nano-credits={charge.amount_nano_credits}",
            f"prompt={charge.prompt_nano_credits}",
            f"completion={charge.completion_nano_credits}",
            f'hold="{charge.hold_id}"',
            *marks,
        )
    )
