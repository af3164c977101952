"""Finds checks, runbooks and adapters by name; lists them from their sources without importing any."""

from __future__ import annotations

import ast
import functools
import importlib
import importlib.util
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeVar

from agent.errors import PluginError

Kind = Literal["check", "runbook", "adapter"]
KINDS: tuple[Kind, ...] = ("check", "runbook", "adapter")
Made = TypeVar("Made", bound=Callable[..., Any])

TABLES = ("live", "labels", "reference", "offline", "parents", "inputs", "train", "old", "new", "guard")
MODELS = ("champion", "candidate", "again")
TRAINERS = ("trainer", "quantizer")
ROLES = ("server", "online", "registry", "router", *TRAINERS, "metrics", "code", "data", "process", *TABLES, *MODELS)
PLATFORM = (
    *("memory", "history", "baseline", "now", "window", "scratch", "tell", "party", "service"),  # told to checks,
    *("run_length", "load", "budgets", "past"),  # where they ask for it
    *("trigger", "good", "looks", "judges", "upstream", "drill", "most"),  # and to runbooks
)


# The marks. They set one attribute and return what they were given: a plugin stays a plain function that tests just call.


def check(
    *, pillar: str, asks: str, cause: str = "", exact: bool = False, severity: str = "page", answers: Sequence[str] = ()
) -> Callable[[Made], Made]:
    """Mark a function as a check.

    `pillar` is data, training, deployment, monitoring or learning; `asks` the question it answers; `cause` what its fail points at
    (answers, errors, latency, data, drift, stale, business, owner), which is what chooses a runbook; `exact` that a second look may
    confirm it at once (statistics wait for k of n intervals instead); `severity` page, or ticket where a fail can wait for the morning;
    `answers` the audit items it is evidence for.
    """
    return _mark("check", pillar=pillar, asks=asks, cause=cause, exact=exact, severity=severity, answers=tuple(answers))


def runbook(*, asks: str, cures: Sequence[str] = (), promotes: bool = False) -> Callable[[Made], Made]:
    """Mark a function that returns the steps of a plan; `cures` are the causes it is the default answer to.

    `promotes`: it brings something new to the users of the service, which waits while an error budget is used up.
    """
    return _mark("runbook", asks=asks, cures=tuple(cures), promotes=promotes)


def adapter(*, role: str, schemes: Sequence[str], heavy: bool = False) -> Callable[[Made], Made]:
    """Mark a class that speaks to one kind of target: built from a Locator, it offers what its `role` asks for.

    `heavy`: it computes here rather than waits for somebody else, so that whatever uses it runs in a worker and is killed at its deadline.
    """
    return _mark("adapter", role=role, schemes=tuple(schemes), heavy=heavy)


def _mark(kind: Kind, **promises: Any) -> Callable[[Made], Made]:
    def mark(made: Made) -> Made:
        made.__watchkeeper__ = (kind, promises)  # type: ignore[attr-defined]
        return made

    return mark


# What is known of a plugin without importing it


@dataclass(frozen=True, slots=True)
class Need:
    """One positional parameter: a role a service binds, or a word the platform fills."""

    name: str
    annotation: str
    optional: bool


@dataclass(frozen=True, slots=True)
class Parameter:
    """One keyword-only parameter, as written in the source."""

    name: str
    annotation: str
    default: str | None


@dataclass(frozen=True, slots=True)
class Plugin:
    """A plugin as its source tells it. `broken` says why it cannot be used; that is an error only where it is used."""

    kind: Kind
    name: str
    module: str
    attribute: str
    owner: str
    path: str
    line: int
    promises: Mapping[str, Any] = field(default_factory=dict)
    needs: tuple[Need, ...] = ()
    parameters: tuple[Parameter, ...] = ()
    doc: str = ""
    broken: str = ""
    made: Callable[..., Any] | None = field(default=None, repr=False, compare=False)  # the function itself, where no module holds it

    def load(self) -> Callable[..., Any]:
        """Import the module and return the function or class; PluginError says whose it is and what happened."""
        if self.broken:
            raise PluginError(f"{self.kind} '{self.name}' of {self.owner} cannot be used: {self.broken}; mend or remove {self.path}")
        if self.made is not None:
            return self.made
        try:
            made = getattr(importlib.import_module(self.module), self.attribute)
        except Exception as problem:
            raise PluginError(
                f"{self.kind} '{self.name}' of {self.owner} does not import: {type(problem).__name__}: {problem}; see {self.path}:{self.line}"
            ) from problem
        assert callable(made)
        return made  # type: ignore[no-any-return]

    @property
    def heavy(self) -> bool:
        """Whether it reads tables or model files, makes load, or says so itself, and so runs in a worker."""
        reads = any(need.annotation.split(" ")[0] in ("Table", "Columns", "Model") for need in self.needs)
        return bool(self.promises.get("heavy")) or reads or self.loads

    @property
    def sequential(self) -> bool:
        """Whether it adds up evidence over windows and promises how seldom it is wrong: it is told `run_length`, its part of that budget."""
        return any(need.name == "run_length" for need in self.needs)

    @property
    def loads(self) -> bool:
        """Whether it makes load: it is told `load`, what the service's configuration lets it do."""
        return any(need.name == "load" for need in self.needs)


def listing(kind: Kind) -> Mapping[str, Plugin]:
    """Every plugin of a kind by name, read from the sources. Two owners of one name: PluginError."""
    found: dict[str, Plugin] = {}
    for owner, package in _packages(kind):
        for plugin in _in_package(kind, owner, package):
            for name in _names(plugin):
                if name in found and found[name].path != plugin.path:
                    raise PluginError(f"{two_called(name, found[name], plugin)}; uninstall one or rename it")
                found[name] = plugin
    return dict(sorted(found.items()))


def two_called(name: str, one: Plugin, other: Plugin) -> str:
    """What is wrong when two plugins of a kind have one name: both owners, and where each is."""
    return f"two {one.kind}s are called '{name}': {one.owner} ({one.path}) and {other.owner} ({other.path})"


def find(kind: Kind, name: str) -> Plugin:
    """The plugin of that name; PluginError suggests the nearest one. A module that does not parse answers for every name it may hold."""
    return among(listing(kind), kind, name)


def among(known: Mapping[str, Plugin], kind: Kind, name: str) -> Plugin:
    """The plugin of that name among those known; PluginError as for `find`."""
    if name in known:
        return known[name]
    module = known.get(name.split(".")[0].split(":")[-1])
    if module and module.broken:
        return module
    raise PluginError(f"no {kind} '{name}'{suggest(name, known)}")


def suggest(word: str, known: Sequence[str] | Mapping[str, Any]) -> str:
    """ "; did you mean 'x'?", or the list of what there is when it is short, or nothing."""
    import difflib

    near = difflib.get_close_matches(word, list(known), 1, 0.6)
    if near:
        return f"; did you mean '{near[0]}'?"
    return f"; there is {', '.join(sorted(known))}" if 0 < len(known) <= 13 else ""


@functools.cache
def _packages(kind: Kind) -> tuple[tuple[str, str], ...]:
    from importlib import metadata  # brings the email package: a fifth of what `watchkeeper --help` costs

    found = {(point.dist.name if point.dist else "?", point.value) for point in metadata.entry_points(group=f"watchkeeper.{kind}s")}
    return tuple(sorted(found))


def _names(plugin: Plugin) -> Iterator[str]:
    """An adapter is found by each of its schemes for its role; everything else by its path."""
    if plugin.kind == "adapter" and not plugin.broken:
        for scheme in plugin.promises.get("schemes", ()):
            yield f"{plugin.promises.get('role')}:{scheme}"
    else:
        yield plugin.name


def _in_package(kind: Kind, owner: str, package: str) -> Iterator[Plugin]:
    spec = importlib.util.find_spec(package)
    if spec is None or spec.submodule_search_locations is None:
        raise PluginError(f"{owner} promises {kind}s in package '{package}', which is not there; reinstall {owner}")
    for folder in spec.submodule_search_locations:
        for path in sorted(Path(folder).glob("*.py")):
            if not path.name.startswith(("_", ".")):  # an editor's lock beside an open file is called .#name.py
                stamp = path.stat()
                yield from _in_file(kind, owner, f"{package}.{path.stem}", str(path), stamp.st_mtime_ns, stamp.st_size)


@functools.lru_cache(maxsize=4096)
def _in_file(kind: Kind, owner: str, module: str, path: str, _mtime: int, _size: int) -> tuple[Plugin, ...]:
    try:
        tree = ast.parse(Path(path).read_text(encoding="utf-8"))
    except (SyntaxError, ValueError) as problem:
        stem = module.rsplit(".", 1)[1]
        return (Plugin(kind, stem, module, "", owner, path, 1, broken=f"its source does not parse ({problem})"),)
    return tuple(plugin for node in tree.body for plugin in _in_node(kind, owner, module, path, node))


def _in_node(kind: Kind, owner: str, module: str, path: str, node: ast.stmt) -> Iterator[Plugin]:
    if not isinstance(node, (ast.FunctionDef, ast.ClassDef)):
        return
    broken = ""
    try:
        promises = next((p for p in (_promises(kind, d) for d in node.decorator_list) if p is not None), None)
    except ValueError:
        promises, broken = {}, f"line {node.lineno}: what it promises must be written out as plain values"
    if promises is None:
        return
    stem = module.rsplit(".", 1)[1]
    function = node if isinstance(node, ast.FunctionDef) else None
    yield Plugin(
        kind,
        stem if node.name == stem else f"{stem}.{node.name}",
        module,
        node.name,
        owner,
        path,
        node.lineno,
        promises,
        tuple(_needs(function)) if function else (),
        tuple(_parameters(function)) if function else (),
        ast.get_docstring(node) or "",
        broken,
    )


def _promises(kind: Kind, decorator: ast.expr) -> Mapping[str, Any] | None:
    if not isinstance(decorator, ast.Call):
        return None
    name = decorator.func.attr if isinstance(decorator.func, ast.Attribute) else getattr(decorator.func, "id", "")
    if name != kind:
        return None
    return {word.arg: ast.literal_eval(word.value) for word in decorator.keywords if word.arg}


def _needs(function: ast.FunctionDef) -> Iterator[Need]:
    words = [*function.args.posonlyargs, *function.args.args]
    bare = len(words) - len(function.args.defaults)
    for place, word in enumerate(words):
        yield Need(word.arg, ast.unparse(word.annotation) if word.annotation else "", place >= bare)


def _parameters(function: ast.FunctionDef) -> Iterator[Parameter]:
    for word, default in zip(function.args.kwonlyargs, function.args.kw_defaults, strict=True):
        text = ast.unparse(word.annotation) if word.annotation else ""
        yield Parameter(word.arg, text, ast.unparse(default) if default is not None else None)
