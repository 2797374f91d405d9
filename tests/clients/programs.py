"""The client libraries, by language: the program of each, and the classes of its exceptions.

`PYTHON`, `NODE`, `GO`, `JAVA` and `RUST`; `make test-clients` installs or builds what they need.
"""

from typing import Any, Final

from tests.clients.scenarios import HERE, Client
from tests.support.tree import ROOT

LANGCHAIN4J: Final = ("1.8.0", "1.19.0")
"""The versions of langchain4j, as in the Makefile; the last is the one that is compiled against."""


def _python(name: str, environment: str, **members: Any) -> Client:
    """Return the client of a program in `python/`, with an environment of the Makefile."""
    interpreter = ROOT / ".venv-clients" / environment / "bin" / "python"
    usual = {"refused": "UnprocessableEntityError", "broken": ("APIError",)}
    return Client(
        name=name,
        command=(str(interpreter), "-B", str(HERE / "python" / f"{name}_client.py")),
        needs=(interpreter,),
        variables={"LITELLM_LOCAL_MODEL_COST_MAP": "True"},  # instead of asking the network
        **{**usual, **members},
    )


def _node(provider: str) -> Client:
    """Return the client of Vercel's AI SDK with a provider."""
    return Client(
        name=f"ai-sdk-{provider}",
        command=("node", str(HERE / "node" / "ai_sdk.mjs"), provider),
        needs=(HERE / "node" / "node_modules" / ".stamp",),
        refused="AI_APICallError",
        # The provider "openai" raises the second one if the first event is the error.
        broken=("AI_StreamProviderError", "AI_APICallError"),
    )


def _go(name: str, *, refused: str, broken: tuple[str, ...]) -> Client:
    """Return the client of a program in `go/`."""
    program = HERE / "go" / "bin" / name
    return Client(
        name=name,
        command=(str(program),),
        needs=(program,),
        refused=refused,
        broken=broken,
    )


def _java(program: str, version: str = LANGCHAIN4J[-1], **members: Any) -> Client:
    """Return the client of a program in `java/`, with a version of langchain4j beside it."""
    target = HERE / "java" / "target"
    packages = target / version
    return Client(
        name=f"{program}-{version}",
        command=("java", "-cp", f"{target / 'classes'}:{packages}/*", program),
        needs=(target / ".stamp", packages),
        **members,
    )


LITELLM: Final = _python(
    "litellm",
    "litellm",
    refused="BadRequestError",
    broken=("MidStreamFallbackError",),
)
OPENAI_JAVA: Final = _java(
    "OpenAiJava",
    refused="UnprocessableEntityException",
    broken=("SseException",),
)
PYTHON: Final = (
    _python("langchain", "frameworks"),
    _python("openai_agents", "frameworks"),
    _python(
        "pydantic_ai",
        "frameworks",
        refused="ModelRequestRejectedError",
        broken=("ModelServerError",),
    ),
    _python("llamaindex", "llamaindex"),
    _python("instructor", "litellm", refused="InstructorRetryException"),
    LITELLM,
)
NODE: Final = (_node("openai-compatible"), _node("openai"))
GO: Final = (
    _go("openai", refused="*apierror.Error", broken=("*ssestream.StreamError",)),
    _go(
        "go_openai",
        refused="*openai.APIError",
        # The second one after a comment, which go-openai takes for a part of the error.
        broken=("*fmt.wrapError", "*json.SyntaxError"),
    ),
)
JAVA: Final = (
    OPENAI_JAVA,
    # It reads an error event as an empty chunk, so only the end of the connection is an error.
    *(
        _java(
            "LangChain4j",
            version,
            refused="InvalidRequestException",
            broken=("LangChain4jException",),
        )
        for version in LANGCHAIN4J
    ),
)
RUST: Final = (
    Client(
        name="async-openai",
        command=(str(HERE / "rust" / "target" / "debug" / "clients"),),
        needs=(HERE / "rust" / "target" / "debug" / "clients",),
        refused="ApiError",
        broken=("JSONDeserialize",),
    ),
)
