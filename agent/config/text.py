"""Reads YAML files into a tree that remembers where everything was written; hostile text is refused quickly."""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from agent.config.problems import Problem
from agent.errors import ConfigError

FILE_LIMIT = 1 << 20  # bytes in one file
DEPTH_LIMIT = 50

_Loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


@dataclass(slots=True, eq=False)
class Node:
    """A scalar (text), a list (items) or a mapping (pairs), and where it stands. Lines and columns count from 1."""

    kind: str  # scalar, list, mapping
    file: str
    line: int
    column: int
    tag: str | None = None
    text: str = ""
    quoted: bool = False
    items: list[Node] = field(default_factory=list)
    pairs: list[tuple[Node, Node]] = field(default_factory=list)

    def child(self, step: str | int) -> tuple[Node, Node] | None:
        """The key node and the node found one step down, or None."""
        if self.kind == "mapping":
            return next(((key, item) for key, item in self.pairs if key.text == step), None)
        if self.kind == "list" and isinstance(step, int) and step < len(self.items):
            return self.items[step], self.items[step]
        return None


CONFIGURATION = "a configuration", "services"  # what a file is called, and the key it cannot do without


def read(path: Path, holds: tuple[str, str] = CONFIGURATION) -> list[tuple[Path, bytes, Node]]:
    """The file, or every *.yaml and *.yml of the folder in order; ConfigError tells what is wrong with each that cannot be parsed."""
    names = list(_files(path))
    texts = [(name, _text(name)) for name in names]
    trees = [(name, text, text if isinstance(text, Problem) else compose(str(name), text, holds)) for name, text in texts]
    problems = [tree for _, _, tree in trees if isinstance(tree, Problem)]
    if problems:
        raise ConfigError([str(problem) for problem in sorted(problems)])
    return [(name, text, tree) for name, text, tree in trees if isinstance(text, bytes) and isinstance(tree, Node)]


def _files(path: Path) -> Iterator[Path]:
    try:
        if not path.is_dir():
            yield path
            return
        names = sorted(name for name in path.iterdir() if name.suffix in (".yaml", ".yml") and not name.name.startswith("."))
    except (OSError, ValueError) as problem:
        raise ConfigError(f"{path}: cannot be read ({problem})") from problem
    if not names:
        raise ConfigError(f"{path}: no *.yaml file in this folder; write one, or start from `watchkeeper init`")
    yield from names


def _text(path: Path) -> bytes | Problem:
    """The bytes of one file, known to be UTF-8 and not too many."""
    try:
        if not path.exists():
            return Problem(str(path), 0, 0, "", "no such file; write it, or start from `watchkeeper init`")
        if not path.is_file():
            return Problem(str(path), 0, 0, "", "is not a file")
        with path.open("rb") as file:
            data = file.read(FILE_LIMIT + 1)
            size = os.fstat(file.fileno()).st_size
    except (OSError, ValueError) as problem:
        return Problem(str(path), 0, 0, "", f"cannot be read ({getattr(problem, 'strerror', None) or problem})")
    if len(data) > FILE_LIMIT:
        text = f"has {size:,} bytes, and a configuration file may have {FILE_LIMIT:,}; split it into a folder of files"
        return Problem(str(path), 0, 0, "", text)
    return _utf8(path, data.removeprefix(b"\xef\xbb\xbf"))


def _utf8(path: Path, data: bytes) -> bytes | Problem:
    try:
        data.decode()
    except UnicodeDecodeError as problem:
        line = data.count(b"\n", 0, problem.start) + 1
        column = problem.start - data.rfind(b"\n", 0, problem.start)
        text = f"is not UTF-8: byte 0x{data[problem.start]:02x} at offset {problem.start}; save the file as UTF-8"
        return Problem(str(path), line, column, "", text)
    return data


def compose(file: str, data: bytes, holds: tuple[str, str] = CONFIGURATION) -> Node | Problem:
    """The one document of a file. Events are read one by one, for the library's own composer overflows the stack on deep nesting."""
    loader: Any = None
    try:
        loader = _Loader(io.BytesIO(data))
        node = _Composer(file, loader).document()
    except _Refused as problem:
        return problem.problem
    except yaml.MarkedYAMLError as problem:
        return _broken(file, problem)
    except yaml.reader.ReaderError as problem:
        line = data.count(b"\n", 0, problem.position) + 1
        return Problem(file, line, 1, "", f"is not YAML: {problem.reason} (offset {problem.position}); remove the character")
    finally:
        if loader is not None:
            loader.dispose()
    if node is None or (node.kind == "scalar" and not node.text):
        return Problem(file, 1, 1, "", f"is empty; {holds[0]} has at least `{holds[1]}:`")
    if node.kind != "mapping":
        what = "a list" if node.kind == "list" else "a single value"
        return Problem(file, node.line, node.column, "", f"is {what}; {holds[0]} is a mapping with `{holds[1]}:`")
    return node


class _Refused(Exception):
    def __init__(self, file: str, mark: yaml.Mark, text: str) -> None:
        self.problem = Problem(file, mark.line + 1, mark.column + 1, "", text)


class _Composer:
    """Builds the tree of one document from the parser's events."""

    def __init__(self, file: str, loader: Any) -> None:
        self.file = file
        self.next = loader.get_event
        self.anchors: dict[str, Node | None] = {}

    def document(self) -> Node | None:
        self.next()  # the stream begins
        if isinstance(self.next(), yaml.StreamEndEvent):
            return None
        node = self.node(self.next(), 0)
        self.next()  # the document ends
        event = self.next()
        if not isinstance(event, yaml.StreamEndEvent):
            raise _Refused(self.file, event.start_mark, "a second document (`---`) starts here; put it into a file of its own")
        return node

    def node(self, event: Any, depth: int) -> Node:
        if isinstance(event, yaml.AliasEvent):
            return self.alias(event)
        mark = event.start_mark
        if depth > DEPTH_LIMIT:
            raise _Refused(self.file, mark, f"is nested more than {DEPTH_LIMIT} deep")
        if event.anchor:
            self.anchors[event.anchor] = None  # not to be referred to from within itself
        node = Node("scalar", self.file, mark.line + 1, mark.column + 1, event.tag)
        if isinstance(event, yaml.ScalarEvent):
            node.text, node.quoted = event.value, bool(event.style)
        elif isinstance(event, yaml.SequenceStartEvent):
            node.kind, node.items = "list", list(self.nodes(yaml.SequenceEndEvent, depth))
        else:
            flat = list(self.nodes(yaml.MappingEndEvent, depth))
            node.kind, node.pairs = "mapping", list(zip(flat[::2], flat[1::2], strict=True))
        if event.anchor:
            self.anchors[event.anchor] = node
        return node

    def nodes(self, end: type[yaml.Event], depth: int) -> Iterator[Node]:
        while not isinstance(event := self.next(), end):
            yield self.node(event, depth + 1)

    def alias(self, event: Any) -> Node:
        node = self.anchors.get(event.anchor)
        if node is None:
            inside = event.anchor in self.anchors
            text = f"the alias *{event.anchor} " + ("stands inside what it names" if inside else f"has no anchor &{event.anchor} before it")
            raise _Refused(self.file, event.start_mark, text)
        return node


def _broken(file: str, problem: yaml.MarkedYAMLError) -> Problem:
    mark = problem.problem_mark or problem.context_mark
    line, column = (mark.line + 1, mark.column + 1) if mark else (1, 1)
    said = problem.problem or "it does not parse"
    if "nesting" in said or "nesting" in (problem.context or ""):
        return Problem(file, line, column, "", f"is nested more than {DEPTH_LIMIT} deep")
    if "cannot start any token" in said:
        said += "; indent with spaces, not tabs"
    elif problem.context:
        said += f" ({problem.context})"
    return Problem(file, line, column, "", f"is not YAML: {said}")
