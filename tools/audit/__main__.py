"""Reports known vulnerabilities of the locked packages, and writes their SBOM: `make audit`.

    requirements.lock -> pip-audit    -> vulnerabilities: exit status 1
                                         packages that the index cannot tell about: a warning
                      -> cyclonedx-py -> dist/sbom.json, in CycloneDX's form

PyPI's JSON API is the source, so that no other service is asked. Behind a mirror without that API,
nothing is audited: the command says so and exits with 0, because a build cannot mend it.
"""

import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

ROOT: Final = Path(__file__).parents[2]
LOCK: Final = ROOT / "requirements.lock"
SBOM: Final = ROOT / "dist" / "sbom.json"
_LONGEST: Final = 300
"""Seconds."""


def main(programs: Path) -> int:
    """Audit the packages, write the SBOM, and return the exit status.

    Args:
        programs: The directory with pip-audit and cyclonedx-py.
    """
    SBOM.parent.mkdir(exist_ok=True)
    _run(
        *(programs / "cyclonedx-py", "requirements", LOCK),
        *("--output-reproducible", "--output-format", "JSON", "--output-file", SBOM),
    )
    components = json.loads(SBOM.read_text(encoding="utf-8"))["components"]
    _say(f"{SBOM.relative_to(ROOT)}: {len(components)} packages")
    told = _run(
        *(programs / "pip-audit", "--vulnerability-service", "pypi", "--disable-pip"),
        *("--require-hashes", "--requirement", LOCK, "--format", "json", "--progress-spinner=off"),
    )
    if not told.stdout.startswith("{"):
        _say(f"NOT AUDITED: pip-audit cannot reach the index: {_last_line(told.stderr)}")
        return 0
    lines, status = report(json.loads(told.stdout)["dependencies"])
    _say("\n".join(lines))
    return status


def report(dependencies: Sequence[Mapping[str, Any]]) -> tuple[Sequence[str], int]:
    """Return the lines and the exit status for what pip-audit found.

    Args:
        dependencies: The packages, as pip-audit's JSON has them.
    """
    lines = [
        f"VULNERABLE: {package['name']} {package['version']}: {found['id']}, "
        f"fixed in {', '.join(found['fix_versions']) or 'no version'}"
        for package in dependencies
        for found in package.get("vulns", ())
    ]
    status = min(len(lines), 1)
    unknown = [package["name"] for package in dependencies if "skip_reason" in package]
    audited = len(dependencies) - len(unknown)
    lines.append(f"{audited} of {len(dependencies)} packages audited")
    if unknown:
        lines.append(f"NOT AUDITED, because the index has no data: {', '.join(unknown)}")
    return lines, status


def _run(*command: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(  # noqa: S603  (pinned programs)
        [str(part) for part in command],
        capture_output=True,
        text=True,
        timeout=_LONGEST,
        check=False,
    )


def _last_line(text: str) -> str:
    return next((line for line in reversed(text.splitlines()) if line.strip()), "no reason given")


def _say(text: str) -> None:
    print(text, flush=True)  # noqa: T201


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
