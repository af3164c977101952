"""What a repository says: who looked a commit over, what a lock pins, how its tests ended, what a card states."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase

from agent import Code, Commit, Json

SECTIONS = ("intended use", "factors", "metrics", "evaluation data", "training data", "ethical considerations", "caveats")
BACK = 10  # commits
PACKAGE = re.compile(r"^([A-Za-z0-9][A-Za-z0-9._-]*)(?:\[[^\]]*\])?\s*(.*)$")
ONE = re.compile(r"^===?\s*([^\s;,\\]+)")
NUMBER = r"[-+]?\d+(?:\.\d+)?(?:[eE][-+]?\d+)?"


def others(commit: Commit, merge: Commit) -> list[str]:
    """Who had a part in it and did not write it, by name: who merged it, and who is named as a reviewer."""
    merged = [merge.author, merge.committer] if merge.id != commit.id else [commit.committer]
    people = [*commit.reviewers, *merge.reviewers, *(merged if len(merge.parents) > 1 else [])]
    return sorted({one.partition(" <")[0] for one in people if _who(one) != _who(commit.author)})


def _who(person: str) -> str:
    """People are told apart by their address; where there is none, by name."""
    return (person.partition("<")[2].rstrip(">").strip() or person).lower()


def known(author: str, actors: Sequence[str]) -> bool:
    """Whether an author is one of these names or addresses."""
    names = {author.partition(" <")[0].lower(), _who(author)}
    return any(one.lower() in names for one in actors)


# Locks


def packages(lock: bytes) -> dict[str, str | None]:
    """Package -> the one version it is pinned to, None where it is pinned to none. As pip reads requirements, and uv, poetry and pdm write locks."""
    text = lock.decode("utf-8", "replace")
    if "[[package]]" in text:
        found = re.findall(r'\[\[package\]\]\s*\nname = "([^"]+)"\s*\nversion = "([^"]+)"', text)
        return {_called(name): version for name, version in found}
    made: dict[str, str | None] = {}
    for line in text.replace("\\\n", " ").splitlines():
        if (match := PACKAGE.match(line.partition("#")[0].strip())) is not None:
            one = ONE.match(match[2])
            made[_called(match[1])] = one[1] if one else None
    return made


def _called(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def hashed(lock: bytes) -> bool:
    """Whether each package has the sha256 of what is installed."""
    text = lock.decode("utf-8", "replace")
    return len(re.findall(r"sha256:[0-9a-f]{64}", text)) >= len(packages(lock))


def differs(recorded: Json, lock: bytes) -> bool:
    """Whether a recorded sha256 is another than that of the lock."""
    return isinstance(recorded, str) and recorded != hashlib.sha256(lock).hexdigest()


def apart(trained: Mapping[str, str | None], serves: Mapping[str, str | None]) -> list[str]:
    """A sentence for what is installed in both, and is not the same down to the minor version."""
    both = [(name, one, other) for name, one in trained.items() if one and (other := serves.get(name))]
    wrong = [f"{name} {one} trained and {other} serves" for name, one, other in both if one.split(".")[:2] != other.split(".")[:2]]
    return wrong[:3]


# Results of tests


def results(code: Code, commit: Commit, path: str) -> tuple[bytes | None, int]:
    """The results of a commit's tests, or of its nearest ancestor that has some, and how far back that is."""
    line: list[Commit | None] = [commit]
    for back in range(BACK + 1):
        one = line[back]
        if one is None:
            break
        if (found := code.read(path.replace("{commit}", one.id))) is not None:
            return found, back
        line.append(code.commit(one.parents[0]) if one.parents else None)
    return None, 0


def by_kind(junit: bytes, kinds: Mapping[str, str]) -> dict[str, tuple[int, int]]:
    """Kind -> (tests that ran, tests that did not end well), by the names of their classes. Read as text: a parser of XML can be led on."""
    counts = dict.fromkeys(kinds, (0, 0))
    for piece in junit.decode("utf-8", "replace").split("<testcase")[1:]:
        head, _, inside = piece.partition(">")
        name, ended = re.search(r'\bclassname="([^"]*)"', head), "" if head.endswith("/") else inside.partition("</testcase>")[0]
        if name is None or "<skipped" in ended:
            continue
        bad = "<failure" in ended or "<error" in ended
        for kind in (kind for kind, pattern in kinds.items() if fnmatchcase(name[1], pattern)):
            counts[kind] = (counts[kind][0] + 1, counts[kind][1] + bad)
    return counts


# Cards


def headed(text: str, section: str) -> bool:
    """Whether a card has a heading that begins with these words."""
    return re.search(rf"^#+\s*{re.escape(section)}", text, re.IGNORECASE | re.MULTILINE) is not None


def names(text: str, version: str) -> bool:
    """Whether a card names a version: "version 7" or "version: 7"."""
    return re.search(rf"\bversion[:\s]+{re.escape(version)}(?![\w.-]*\w)", text, re.IGNORECASE) is not None


def untrue(text: str, metrics: Json, within: float) -> list[str]:
    """A sentence for each recorded metric that the card does not give, or gives otherwise."""
    wrong = []
    for name, value in metrics.items() if isinstance(metrics, Mapping) else ():
        if isinstance(value, bool) or not isinstance(value, int | float):
            continue
        said = re.search(rf"\b{re.escape(name)}\b[^\n\d+-]*({NUMBER})(\s*%)?", text, re.IGNORECASE)
        number = None if said is None else float(said[1]) / (100 if said[2] else 1)
        if number is None:
            wrong.append(f"it gives no {name}, which is {value:g}")
        elif abs(number - value) > within * max(1.0, abs(value)):
            wrong.append(f"{name} is {value:g}, and it says {number:g}")
    return wrong
