"""`make audit`: known vulnerabilities, code, secrets, licences, and a bill of materials.

Every step says what it found, or that it could not look; a step that could not look is no success.
Exits with 1 if anything was found; with `--strict`, also if anything was not checked.
"""

import argparse
import json
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
TOOLS = ROOT / ".audit-venv" / "bin"
LOCK = ROOT / "requirements.lock"
POLICY = ROOT / "scripts" / "audit.toml"
CONSOLE = ROOT / "console"
SBOM = ROOT / "build" / "sbom.cdx.json"
CODE = ("runner", "sdk", "scripts", "sandbox_images", "benchmarks", "deploy")
NOT_SCANNED = re.compile(r"\.lock$|^scripts/audit\.toml$")
TIMEOUT_S = 300


@dataclass(frozen=True, slots=True)
class Step:
    """The end of a step. `checked` is false if it could not look."""

    summary: str
    findings: tuple[str, ...] = ()
    checked: bool = True


def run(*command: str | Path) -> subprocess.CompletedProcess[str]:
    """Run a tool of the audit's own environment."""
    tool, *arguments = map(str, command)
    return subprocess.run(  # noqa: S603 - our own tools and arguments
        [str(TOOLS / tool), *arguments],
        cwd=ROOT, capture_output=True, text=True, timeout=TIMEOUT_S, check=False,
    )  # fmt: skip


def last_line(text: str) -> str:
    """Return the last line of a tool's output."""
    return next((line for line in reversed(text.splitlines()) if line.strip()), "nothing said")


def vulnerabilities(policy: dict[str, Any]) -> Step:
    """Ask an advisory service about every package of the lock file."""
    found: list[str] = []
    for service in ("pypi", "osv"):
        done = run(
            "pip-audit", "--requirement", LOCK, "--require-hashes", "--disable-pip",
            "--vulnerability-service", service, "--format", "json", "--timeout", "10",
        )  # fmt: skip
        try:
            packages = json.loads(done.stdout)["dependencies"]
        except ValueError:
            said = last_line(done.stderr)
            continue
        asked = [each for each in packages if "skip_reason" not in each]
        # A service that knows none of the packages still says "no known vulnerabilities".
        if len(asked) < len(packages):
            said = f"{service} answered for {len(asked)} of {len(packages)} packages"
            continue
        accepted = policy.get("vulnerabilities", {}).get("accepted", {})
        found = [
            f"{each['name']} {each['version']}: {flaw['id']}, fixed in {flaw['fix_versions']}"
            for each in asked
            for flaw in each["vulns"]
            if flaw["id"] not in accepted
        ]
        return Step(f"{len(asked)} packages by {service}", tuple(found))
    return Step(f"no advisory service could be asked ({said[:160]})", checked=False)


def console(policy: dict[str, Any]) -> Step:
    """Ask npm's registry about every package of the console, and compare their licences.

    Those that only build or test it count, too: what they write is delivered.
    """
    rules = policy["console"]
    listed = json.loads((CONSOLE / "package-lock.json").read_text())["packages"]
    packages = {path.rpartition("node_modules/")[2]: each for path, each in listed.items() if path}
    found = [
        f"{name}: {each.get('license', 'no licence')}"
        for name, each in packages.items()
        if each.get("license") not in rules["licences"] and name not in rules["exceptions"]
    ]
    found += [f"{name} has no hash" for name, each in packages.items() if "integrity" not in each]
    npm = shutil.which("npm")
    if npm is None:
        return Step("npm is not installed: vulnerabilities not looked up", (*found,), checked=False)
    done = subprocess.run(  # noqa: S603 - our own arguments
        [npm, "audit", "--json"],
        cwd=CONSOLE, capture_output=True, text=True, timeout=TIMEOUT_S, check=False,
    )  # fmt: skip
    try:
        answer = json.loads(done.stdout)
        flaws = answer["vulnerabilities"]
    except (ValueError, KeyError):
        # The address of the registry may hold a credential.
        status = re.search(r"\b[45]\d\d [A-Z][\w ]+", done.stdout)
        said = f"it says {status[0].strip()}" if status else "it does not answer"
        return Step(
            f"npm's registry serves no advisories ({said}); licences and hashes of "
            f"{len(packages)} packages looked at",
            (*found,),
            checked=False,
        )
    told = {
        (flaw["name"], flaw["url"].rpartition("/")[2], flaw["severity"])
        for each in flaws.values()
        for flaw in each["via"]
        if isinstance(flaw, dict)
    }
    found += [
        f"{name}: {id_}, {severity}" for name, id_, severity in sorted(told)
        if id_ not in rules["accepted"]
    ]  # fmt: skip
    found += [
        f"accepted for nothing: {id_}"
        for id_ in sorted(rules["accepted"].keys() - {id_ for _, id_, _ in told})
    ]
    return Step(f"{len(packages)} packages by npm", (*found,))


def code(policy: dict[str, Any]) -> Step:
    """Run bandit, without the findings that the policy accepts."""
    done = run(
        "bandit", "--quiet", "--recursive", *CODE, "--format", "json",
        "--skip", ",".join(policy["code"]["skip"]),
    )  # fmt: skip
    try:
        report = json.loads(done.stdout)
    except ValueError:
        return Step(f"bandit: {last_line(done.stderr)}", checked=False)
    accepted = policy["code"]["accepted"]
    used: set[int] = set()
    found = [f"not read: {each['filename']}: {each['reason']}" for each in report["errors"]]
    for each in report["results"]:
        fitting = [
            at
            for at, entry in enumerate(accepted)
            if entry["rule"] == each["test_id"]
            and each["filename"].removeprefix("./")
            == entry.get("path", each["filename"].removeprefix("./"))
        ]
        used.update(fitting)
        if not fitting:
            place = f"{each['filename']}:{each['line_number']}"
            found.append(f"{place}: {each['test_id']} {each['issue_text']}")
    unused = [entry for at, entry in enumerate(accepted) if at not in used]
    found += [f"accepted for nothing: {entry['rule']} {entry.get('path', '')}" for entry in unused]
    lines = report["metrics"]["_totals"]["loc"]
    return Step(
        f"{lines} lines, {len(report['results'])} findings, {len(found)} not accepted", tuple(found)
    )


def secrets(policy: dict[str, Any]) -> Step:
    """Search every file under version control for text that looks like a credential."""
    listed = subprocess.run(
        ["git", "ls-files", "-z"],  # noqa: S607 - whichever git the developer uses
        cwd=ROOT, capture_output=True, text=True, timeout=TIMEOUT_S, check=False,
    )  # fmt: skip
    files = [name for name in listed.stdout.split("\0") if name and not NOT_SCANNED.search(name)]
    if not files:
        return Step(f"git: {last_line(listed.stderr)}", checked=False)
    done = run("detect-secrets", "scan", *files)
    try:
        results = json.loads(done.stdout)["results"]
    except ValueError:
        return Step(f"detect-secrets: {last_line(done.stderr)}", checked=False)
    accepted = {
        (entry["path"], hash_)
        for entry in policy["secrets"]["accepted"]
        for hash_ in entry["hashes"]
    }
    seen = {
        (path, each["hashed_secret"][:12]): each for path, all_ in results.items() for each in all_
    }
    found = [
        f"{path}:{seen[path, hash_]['line_number']}: {seen[path, hash_]['type']} ({hash_})"
        for path, hash_ in sorted(seen.keys() - accepted)
    ]
    found += [
        f"accepted for nothing: {path} {hash_}" for path, hash_ in sorted(accepted - seen.keys())
    ]
    return Step(f"{len(files)} files, {len(seen)} looked at by hand", tuple(found))


def licences(policy: dict[str, Any]) -> Step:
    """Compare the licence of every delivered package with the policy's list."""
    named = re.findall(r"^([A-Za-z0-9_.-]+)==", LOCK.read_text(), re.MULTILINE)
    done = run(
        "pip-licenses", "--python", ROOT / ".venv" / "bin" / "python", "--format", "json",
        "--packages", *named,
    )  # fmt: skip
    try:
        packages = json.loads(done.stdout)
    except ValueError:
        return Step(f"pip-licenses: {last_line(done.stderr)}", checked=False)
    allowed, exceptions = policy["licences"]["allowed"], policy["licences"]["exceptions"]
    found = [
        f"{each['Name']}: {each['License']}"
        for each in packages
        if each["License"] not in allowed and each["Name"] not in exceptions
    ]
    absent = len(named) - len(packages)
    return Step(f"{len(packages)} packages; {absent} are for other systems", tuple(found))


def materials(_policy: dict[str, Any]) -> Step:
    """Write the bill of materials of what we deliver, with the lock file's hashes."""
    SBOM.parent.mkdir(exist_ok=True)
    done = run(
        "cyclonedx-py", "requirements", LOCK, "--pyproject", ROOT / "pyproject.toml",
        "--output-reproducible", "--output-format", "JSON", "--output-file", SBOM,
    )  # fmt: skip
    if done.returncode:
        return Step(f"cyclonedx-py: {last_line(done.stderr)}", checked=False)
    document = json.loads(SBOM.read_text())
    return Step(
        f"{len(document['components'])} components, CycloneDX {document['specVersion']}, "
        f"in {SBOM.relative_to(ROOT)}"
    )


STEPS: tuple[Callable[[dict[str, Any]], Step], ...] = (
    vulnerabilities,
    console,
    code,
    secrets,
    licences,
    materials,
)


def report(steps: Iterable[tuple[str, Step]], *, strict: bool) -> int:
    """Print how each step ended; return the exit code."""
    failed = False
    for name, step in steps:
        word = "NOT CHECKED" if not step.checked else "found" if step.findings else "ok"
        print(f"{name:16} {word:12} {step.summary}", flush=True)
        for each in step.findings:
            print(f"  {each}")
        failed |= bool(step.findings) or (strict and not step.checked)
    return int(failed)


def main() -> int:
    """Run every step."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--strict", action="store_true", help="what was not checked fails, too")
    strict = parser.parse_args().strict
    policy = tomllib.loads(POLICY.read_text())
    return report(((step.__name__, step(policy)) for step in STEPS), strict=strict)


if __name__ == "__main__":
    sys.exit(main())
