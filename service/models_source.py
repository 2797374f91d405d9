"""Where the models come from: a models file, or the settings of one upstream.

CHAT_MODELS_FILE        -> the file                         -> a document of models
CHAT_UPSTREAM_BASE_URL  -> one upstream, the model default  -> a document of models
SIMPLISMART_API_KEY     -> the same, at Simplismart
none                    -> the simulator, or NO_UPSTREAM
"""

import tomllib
from collections.abc import Mapping
from decimal import Decimal
from pathlib import Path
from typing import Any, Final

from service.models_document import CatalogueError

SELECTING: Final = frozenset(
    {
        "models_file",
        "upstream_base_url",
        "upstream_model",
        "upstream_api_key",
        "simplismart_api_key",
    }
)
"""The settings that select the models."""

SIMPLISMART_BASE_URL: Final = "https://api.simplismart.live"

DEFAULT: Final = "default"
"""The only model without a models file."""

SIMULATOR: Final = "simulator"
"""The value of CHAT_UPSTREAM_BASE_URL that selects the built-in simulator."""

NO_UPSTREAM: Final = (
    "CHAT_UPSTREAM_BASE_URL must be the base URL of an OpenAI-compatible server; found nothing. "
    "Write for example: CHAT_UPSTREAM_BASE_URL=http://127.0.0.1:11434/v1 "
    "CHAT_UPSTREAM_MODEL=llama3.1:8b. "
    f"For the built-in simulator, write: CHAT_UPSTREAM_BASE_URL={SIMULATOR}. "
    "For several models, set CHAT_MODELS_FILE"
)
"""The error of a service that has no upstream."""


def models_file(path: str) -> Mapping[str, Any]:
    """Return the document of a models file.

    Raises:
        CatalogueError: The file cannot be read, or it is not TOML.
    """
    try:
        return tomllib.loads(Path(path).read_text(encoding="utf-8"), parse_float=Decimal)
    except OSError as error:
        raise CatalogueError(f"cannot read {path}: {error.strerror}") from error
    except ValueError as error:
        raise CatalogueError(f"is not TOML ({error})") from error
    except ArithmeticError as error:
        raise CatalogueError("has a number with too large an exponent") from error


def names_of_models(environment: Mapping[str, str]) -> tuple[str, ...] | None:
    """Return the names and patterns of the models that an environment selects.

    No upstream and no key has to be configured. Without a models file and an upstream, the models
    are not known: None is returned.

    Raises:
        CatalogueError: The models file cannot be used.
    """
    path = environment.get("CHAT_MODELS_FILE")
    if path:
        tables = models_file(path).get("models")
        if not isinstance(tables, dict):
            raise CatalogueError("models: there must be at least one [models.NAME]")
        return tuple(tables)
    is_configured = environment.get("CHAT_UPSTREAM_BASE_URL") or environment.get(
        "SIMPLISMART_API_KEY"
    )
    return (DEFAULT,) if is_configured else None


def document_of(
    values: Mapping[str, Any], environment: Mapping[str, str], *, simulates: bool
) -> Mapping[str, Any]:
    """Return the document of models that the settings select.

    Args:
        values: The settings in `SELECTING`, by their fields.
        environment: The environment.
        simulates: Whether the simulator is the upstream if none is configured.

    Raises:
        CatalogueError: There is no upstream, or the models file cannot be used.
    """
    if values["models_file"]:
        return models_file(values["models_file"])
    upstream = _upstream(values, environment, simulates=simulates)
    # Nobody pays for the simulator.
    prices = {} if "simulator" in upstream else _PRICES
    return {
        "upstreams": {"default": upstream},
        "models": {
            DEFAULT: {
                "upstream": "default",
                "upstream_model": values["upstream_model"],
                "default_output_tokens": 1024,
                "maximum_output_tokens": 8192,
                **prices,
            }
        },
    }


_PRICES: Final = {"input_price": Decimal("0.05"), "output_price": Decimal("0.10")}
"""The prices of the model that needs no file."""


def _upstream(
    values: Mapping[str, Any], environment: Mapping[str, str], *, simulates: bool
) -> Mapping[str, Any]:
    """Return the entry of the upstream that applies without a models file."""
    base_url, key = values["upstream_base_url"], values["upstream_api_key"]
    if base_url == SIMULATOR:
        return {"simulator": True}
    if base_url:
        named = {"api_key_variable": "CHAT_UPSTREAM_API_KEY"} if key else {}
        return {"base_url": base_url, **named}
    if values["simplismart_api_key"]:
        return {"base_url": SIMPLISMART_BASE_URL, "api_key_variable": "SIMPLISMART_API_KEY"}
    # With its key or model, the operator wants a real upstream.
    if simulates and not key and not environment.get("CHAT_UPSTREAM_MODEL"):
        return {"simulator": True}
    raise CatalogueError(NO_UPSTREAM)
