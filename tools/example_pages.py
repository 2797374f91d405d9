"""`make pages`: write docs/grpc/, which shows the files of examples/.

examples/go/*.go, buf.gen.yaml -> docs/grpc/go.md
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parents[1]
PAGES: Final = ROOT / "docs" / "grpc"

TITLES: Final[Mapping[str, str]] = {
    "python": "Python",
    "go": "Go",
    "java": "Java",
    "node": "Node.js",
    "browser": "browsers",
    "rust": "Rust",
    "grpcurl": "the shell",
}
"""The languages, with their names in titles."""

CAPTIONS: Final[Mapping[str, str]] = {
    "connect": "The connection: its address, keep-alive and balancing, and the key of every call.",
    "connection": "The connection: its address, keep-alive and balancing, and the key of calls.",
    "caller": "A helper that calls generated services with grpc-js.",
    "requests": "Parts of requests.",
    "calls": "A whole answer, a stream, a deadline, and a cancellation.",
    "cancel": "A stream that the caller ends.",
    "tools": "A function that the model calls.",
    "failures": "The details of a failed call.",
    "examples": "All examples.",
    "main": "The program.",
    "assistant": "The program.",
    "index": "The page that runs the program.",
    "envoy": "Envoy, which translates gRPC-Web to gRPC.",
    "error_details": "Two messages of `google.rpc`, which no package for JavaScript generates.",
    "build": "The generator.",
    "buf.gen": "The generator.",
    "Cargo": "The packages.",
    "package": "The packages.",
    "go": "The packages.",
    "requirements": "The packages.",
}
"""What a file is for, by the lower-case beginning of its name, in the order of a page."""

LANGUAGES: Final[Mapping[str, str]] = {
    ".go": "go",
    ".html": "html",
    ".in": "text",
    ".java": "java",
    ".json": "json",
    ".mod": "text",
    ".proto": "protobuf",
    ".py": "python",
    ".rs": "rust",
    ".sh": "sh",
    ".toml": "toml",
    ".ts": "ts",
    ".xml": "xml",
    ".yaml": "yaml",
}
"""The kinds of files that a page shows, with their names in Markdown."""

OMITTED: Final = {"package-lock.json", "pom.xml", "tsconfig.json"}
"""Files of these kinds that a page does not show."""

_GENERATED: Final = {".venv", "bin", "dist", "gen", "node_modules", "target"}


def sources(language: str) -> Iterator[Path]:
    """Yield the files that the page of a language shows, in its order.

    Raises:
        ValueError: A file has no caption.
    """
    directory = ROOT / "examples" / language
    order = list(CAPTIONS)
    found = [
        file
        for file in directory.rglob("*")
        if file.suffix in LANGUAGES
        and file.name not in OMITTED
        and not _GENERATED.intersection(file.relative_to(directory).parts)
    ]
    yield from sorted(found, key=lambda file: (order.index(_key(file)), file))


def page(language: str) -> str:
    """Return the page of a language."""
    directory = ROOT / "examples" / language
    parts = [
        f"# gRPC from {TITLES[language]}",
        f"These are the files of [`examples/{language}`](../../examples/{language}), which the "
        "tests build and run.\n[The examples](../../examples/README.md) lists the commands, and "
        "[gRPC clients](../grpc.md) explains them.",
    ]
    for file in sources(language):
        text = file.read_text(encoding="utf-8").rstrip("\n")
        parts += [
            f"## {file.relative_to(directory).as_posix()}",
            CAPTIONS[_key(file)],
            f"```{LANGUAGES[file.suffix]}\n{text}\n```",
        ]
    return "\n\n".join(parts) + "\n"


def _key(file: Path) -> str:
    """Return the name of a file without suffix, as `CAPTIONS` has it."""
    for name in (file.stem, file.stem.lower()):
        if name in CAPTIONS:
            return name
    raise ValueError(f"CAPTIONS lacks {file}")


if __name__ == "__main__":
    PAGES.mkdir(exist_ok=True)
    for name in TITLES:
        (PAGES / f"{name}.md").write_text(page(name), encoding="utf-8")
