"""Turns the tree of a configuration's text into plain values, fills in `${...}`, and keeps the problems found on the way."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass, field
from pathlib import Path as FilePath

from agent.config.filled import HIDES, REFERENCE, meant
from agent.config.problems import Given, Path, Problem, shown, spell_path
from agent.config.text import CONFIGURATION, Node
from agent.config.text import read as read_trees
from agent.errors import ConfigError
from agent.model import Json

ALIAS_LIMIT = 100_000  # values that aliases may add
PROBLEM_LIMIT = 500

_MERGED: frozenset[Path] = frozenset({("services",), ("runbooks",), ("notify",), ("notify", "channels")})  # what the files of a folder add up


@dataclass
class Source:
    """A configuration as text: its values, the tree they came from, and what is wrong so far."""

    path: FilePath
    folder: FilePath
    digest: str
    root: Node
    value: dict[str, Json] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)
    filled: dict[str, str] = field(default_factory=dict)  # text with `${...}` -> the same filled in
    lost: set[int] = field(default_factory=set)  # nodes whose `${...}` could not be filled in: nothing more is said of them

    def complain(self, path: Path, text: str, *, at_key: bool = False) -> None:
        """Note a problem at a path; steps that are not in the text (a default, a shorthand) are passed over."""
        key = node = self.root
        real: Path = ()
        for step in path:
            found = node.child(step)
            if found is not None:
                (key, node), real = found, (*real, step)
        if id(node) not in self.lost:
            self.note(key if at_key and len(real) == len(path) else node, real, text)

    def note(self, node: Node, path: Path, text: str) -> None:
        """Note a problem at a node; what `${...}` brought in is shown as it was written."""
        about = [node.text] if node.kind == "scalar" else self.filled
        for written in about:
            if secret := self.filled.get(written):
                text = text.replace(shown(secret), shown(written)).replace(secret, written)
        self.problems.append(Problem(node.file, node.line, node.column, spell_path(path), text))

    def place(self, path: Path) -> str:
        """file:line of a path, to name a second place."""
        node = self.root
        for step in path:
            found = node.child(step)
            node = found[1] if found else node
        return f"{node.file}:{node.line}"

    def raise_problems(self) -> None:
        """ConfigError with every problem noted, in the order of the text."""
        if self.problems:
            lines = [str(problem) for problem in sorted(set(self.problems))]
            more = len(lines) - PROBLEM_LIMIT
            raise ConfigError([*lines[:PROBLEM_LIMIT], f"... and {more:,} more"] if more > 0 else lines)


def read(path: FilePath, holds: tuple[str, str] = CONFIGURATION) -> Source:
    """The configuration at `path`, a file or a folder of files; ConfigError when it cannot be read as YAML at all."""
    files = read_trees(path, holds)
    seal = hashlib.sha256()
    for name, text, _ in files:
        seal.update(f"{name.name}\0{len(text)}\0".encode())
        seal.update(text)
    folder = path if path.is_dir() else path.parent
    source = Source(path, folder.resolve(), seal.hexdigest(), _merge([tree for _, _, tree in files], ()))
    _Reader(source).read()
    return source


def _merge(nodes: list[Node], path: Path) -> Node:
    """One mapping of several files'. What may not be added up stays twice in it, and is refused as a duplicate."""
    if len(nodes) == 1:
        return nodes[0]
    groups: dict[str, list[tuple[Node, Node]]] = {}
    for node in nodes:
        for key, item in node.pairs:
            groups.setdefault(key.text, []).append((key, item))
    made = Node("mapping", nodes[0].file, nodes[0].line, nodes[0].column)
    for name, group in groups.items():
        apart = len({key.file for key, _ in group}) == len(group)
        if (*path, name) in _MERGED and apart and all(item.kind == "mapping" for _, item in group):
            made.pairs.append((group[0][0], _merge([item for _, item in group], (*path, name))))
        else:
            made.pairs += group
    return made


_FLOAT = re.compile(r"[-+]?(\d+\.\d*|\.\d+|\d+(?=[eE]))([eE][-+]?\d{1,3})?", re.ASCII)
_INTEGER = re.compile(r"[-+]?(0|[1-9]\d{0,17})", re.ASCII)
_WORDS: dict[str, Json] = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL"), None),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
}


def plain(text: str) -> Json:
    """An unquoted scalar as YAML 1.2 reads it: yes, on, 1:30 and dates stay text, and so does what is too large for a number."""
    if text in _WORDS:
        return _WORDS[text]
    if text[0] in "+-.0123456789" and len(text) < 64:
        if _INTEGER.fullmatch(text):
            return int(text)
        if _FLOAT.fullmatch(text) and abs(number := float(text)) < float("inf"):
            return number
    return text


class _TooMuch(Exception):
    pass


class _Reader:
    """Walks the tree once."""

    def __init__(self, source: Source) -> None:
        self.source = source
        self.seen: set[int] = set()
        self.repeated = 0

    def read(self) -> None:
        try:
            self.source.value = self.mapping(self.source.root, ())
        except _TooMuch:
            self.source.raise_problems()

    def value(self, node: Node, path: Path) -> Json:
        self.count(node, path)
        if node.tag is not None:
            self.source.note(node, path, f"the tag {shown(node.tag)} means nothing here; remove it")
        if node.kind == "scalar":
            return self.scalar(node, path)
        if node.kind == "mapping":
            return self.mapping(node, path)
        return [self.value(item, (*path, place)) for place, item in enumerate(node.items)]

    def count(self, node: Node, path: Path) -> None:
        """Aliases of aliases can make a short text endless, or deeper than Python's stack."""
        before = len(self.seen)
        self.seen.add(id(node))
        self.repeated += len(self.seen) == before
        if self.repeated > ALIAS_LIMIT or len(path) > 100:
            self.source.note(node, path[:4], f"aliases make this grow by more than {ALIAS_LIMIT:,} values; write out what you need")
            raise _TooMuch

    def mapping(self, node: Node, path: Path) -> dict[str, Json]:
        if any(_lends(key) for key, _ in node.pairs):
            node.pairs = self.flatten(node, path)
        made: dict[str, Json] = {}
        first: dict[str, Node] = {}
        for key, item in node.pairs:
            if key.kind != "scalar" or not key.text:
                self.source.note(key, path, "a key must be a word")
            elif key.text in first:
                other = first[key.text]
                text = f"is already defined at {other.file}:{other.line}; keep one of the two"
                self.source.note(key, (*path, key.text), text)
            else:
                first[key.text] = key
                made[key.text] = self.value(item, (*path, key.text))
        return made

    def flatten(self, node: Node, path: Path) -> list[tuple[Node, Node]]:
        """`<<: *other` written out; what the mapping itself says wins."""
        own = [pair for pair in node.pairs if not _lends(pair[0])]
        names = {key.text for key, _ in own}
        lent: list[tuple[Node, Node]] = []
        for key, item in node.pairs:
            for other in (item.items or [item]) if _lends(key) else []:
                if other.kind != "mapping" or any(_lends(inner) for inner, _ in other.pairs):
                    self.source.note(key, path, "`<<` takes an alias of a mapping (or a list of them) that has no `<<` itself")
                    continue
                fresh = [pair for pair in other.pairs if pair[0].text not in names]
                names |= {inner.text for inner, _ in fresh}
                lent += fresh
        return [*own, *lent]

    def scalar(self, node: Node, path: Path) -> Json:
        if "$" in node.text:
            return self.substitute(node, path)
        return node.text if node.quoted else plain(node.text)

    def substitute(self, node: Node, path: Path) -> str:
        """`${NAME}`, `${NAME:-default}` and `${file:path}` filled in; `$$` is a dollar."""

        def fill(match: re.Match[str]) -> str:
            try:
                return meant(match, self.source.folder)
            except ValueError as problem:
                self.source.note(node, path, str(problem))
                self.source.lost.add(id(node))
                return ""

        filled = REFERENCE.sub(fill, node.text)
        if "${" not in node.text.replace("$$", ""):
            return filled
        if len(filled) > HIDES:
            self.source.filled[node.text] = filled
        return Given(filled, node.text)


def _lends(key: Node) -> bool:
    return key.text == "<<" and not key.quoted and key.kind == "scalar"
