"""The documentation: every link has a target, and the README stays short.

*.md, docs/**/*.md, examples/*.md -> [text](path#heading) -> the file, and the heading in it
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final
from urllib.parse import unquote

import pytest

ROOT: Final = Path(__file__).parents[2]
README: Final = ROOT / "README.md"
PAGES: Final = sorted((ROOT / "docs").glob("*.md"))
DOCUMENTS: Final = (
    *sorted(ROOT.glob("*.md")),
    *PAGES,
    *sorted((ROOT / "docs").glob("*/*.md")),
    *sorted((ROOT / "examples").glob("*.md")),
)
MOST_LINES: Final = 150

_FENCE: Final = re.compile(r"^(```|~~~).*?^\1", re.MULTILINE | re.DOTALL)
_CODE: Final = re.compile(r"`[^`\n]+`")
_LINK: Final = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
_HEADING: Final = re.compile(r"^#{1,6} +(.+?) *$", re.MULTILINE)
_ELSEWHERE: Final = re.compile(r"[a-z][a-z0-9+.-]*:")


def links(text: str) -> Iterator[str]:
    """Yield the targets of the links of a document, except those to other sites."""
    prose = _FENCE.sub("", text)
    # The text of a link can be code, but its target is not.
    for target in _LINK.findall(_CODE.sub("code", prose)):
        if not _ELSEWHERE.match(target):
            yield target


def anchors(text: str) -> set[str]:
    """Return the anchors of the headings of a document, as GitHub makes them."""
    found: dict[str, int] = {}
    made: set[str] = set()
    for heading in _HEADING.findall(_FENCE.sub("", text)):
        plain = _LINK.sub(lambda link: link[0][1:].partition("]")[0], heading)
        anchor = re.sub(r"[^\w\- ]", "", plain.lower()).replace(" ", "-")
        again = found[anchor] = found.get(anchor, -1) + 1
        made.add(f"{anchor}-{again}" if again else anchor)
    return made


def broken(document: Path, text: str) -> Iterator[str]:
    """Yield the links of a document without a target."""
    for target in links(text):
        path, _, anchor = unquote(target).partition("#")
        file = (document.parent / path).resolve() if path else document
        if not (file.is_relative_to(ROOT) and file.exists() and _has(file, anchor)):
            yield target


def _has(file: Path, anchor: str) -> bool:
    return not anchor or anchor in anchors(file.read_text(encoding="utf-8"))


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_relative_link_leads_somewhere(document: Path) -> None:
    assert list(broken(document, document.read_text(encoding="utf-8"))) == []


def test_a_broken_link_is_found() -> None:
    text = (
        "# A `b`: c\n[here](#a-b-c) [file](README.md#chatcompletion) [site](https://a.example)\n"
        "[`x`](nowhere.md) [y](README.md#nowhere) [z](../outside)\n"
        "```\n[code](nowhere.md)\n# no heading\n```\n`[code](nowhere.md)`\n"
    )
    assert anchors(text) == {"a-b-c"}
    assert [link for link in broken(README, text) if link != "#a-b-c"] == [
        "nowhere.md",
        "README.md#nowhere",
        "../outside",
    ]


def test_equal_headings_have_anchors_of_their_own() -> None:
    assert anchors("## Map\n## Map\n") == {"map", "map-1"}


def test_the_readme_is_short() -> None:
    assert len(README.read_text(encoding="utf-8").splitlines()) <= MOST_LINES


def test_the_readme_links_to_every_page() -> None:
    linked = {target.partition("#")[0] for target in links(README.read_text(encoding="utf-8"))}
    assert [page.name for page in PAGES if f"docs/{page.name}" not in linked] == []
