"""What only the whole can tell of the runbooks that a configuration writes out: whether their steps fit together and can be done here."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from agent.config import parameters, steps
from agent.config.file import STEP_KEYS
from agent.config.links import items, mapping, name_of, options_of
from agent.config.plans import FILLED, SHORT, TYPES, actions, made, typed
from agent.config.problems import Given, Path, near, shown
from agent.config.source import Source
from agent.config.words import Known
from agent.errors import PluginError, WatchkeeperError
from agent.fitting import Misfit, misfits, refs
from agent.model import Action, Json, Locator, Step
from agent.plugins import Plugin, two_called
from agent.targets import KINDS, speaker


@dataclass
class Plans:
    """One walk over the runbooks of a source; works on unproven values, so that no mistake hides another."""

    source: Source
    known: Known
    verbs: dict[str, Any] = field(default_factory=dict)

    def check(self) -> None:
        """Note every problem in the source."""
        for name, book in mapping(self.source.value, "runbooks").items():
            path: Path = ("runbooks", name)
            if name in self.known.plans and name in self.known.packaged:
                said = two_called(name, self.known.plans[name], self.known.packaged[name])
                self.source.complain(path, f"{said}; rename this one", at_key=True)
            self.parameters(mapping(book, "parameters"), (*path, "parameters"))
            for n, step in enumerate(items(book, "steps")):
                self.step(step, mapping(book, "parameters"), (*path, "steps", n))
            self.fit(book, (*path, "steps"))

    def parameters(self, given: Mapping[str, Json], path: Path) -> None:
        """Each default is of its type, and nothing that the environment gives."""
        for name, value in given.items():
            self.shows(value, (*path, name))
            if isinstance(value, dict) and value.get("default") is not None and (kind := TYPES.get(str(value.get("type")))):
                for text in parameters.of_type(kind, value["default"]):
                    self.source.complain((*path, name, "default"), text)

    def step(self, step: Json, given: Mapping[str, Json], path: Path) -> None:
        """It does one thing, in words that are known, shows no secret, and names parameters there are."""
        if not isinstance(step, dict):
            return
        found = actions(step)
        for key in step:
            if key not in STEP_KEYS and key not in found:
                self.source.complain((*path, key), f"no such action{near(key, (*SHORT, *STEP_KEYS))}", at_key=True)
        if not found and step.keys() <= STEP_KEYS:
            self.source.complain(path, f"does nothing; it needs one of {', '.join(SHORT)}, or a role.verb of a target")
        for extra in found[1:]:
            self.source.complain((*path, extra), f"'{found[0]}' and '{extra}' are two steps; begin a new one with `- {extra}:`", at_key=True)
        for key in found:
            self.shows(step[key], (*path, key), key if key in ("http", "command") else "")
            for where, name in _named(step[key], "parameter"):
                if name not in given:
                    self.source.complain(
                        (*path, key, *where), f"there is no parameter {shown(name)}{near(name, given) or '; add it under `parameters`'}"
                    )
            for where, name in _named(step[key], "from"):
                if "." not in name:
                    self.source.complain((*path, key, *where), f"{shown(name)} is not step.field, such as flip.from")
        if steps.referring(step.get("within")) == "from":
            self.source.complain((*path, "within"), "must be a duration or a parameter: it is written in the plan before any step is done")

    def shows(self, value: Json, path: Path, word: str = "") -> None:
        """A plan is printed, approved and kept: what the environment gives has no place in it but where the step fills it in itself."""
        if isinstance(value, Given):
            where = "write it in `url`, `headers` or `env` of a step, which fill it in when they act"
            self.source.complain(path, f"the plan would show what {shown(value)} stands for; {where}")
        elif isinstance(value, dict):
            one, many = FILLED if word else ((), ())
            for key, item in value.items():
                if key in many and isinstance(item, dict):
                    item = {name: inner for name, inner in item.items() if not isinstance(inner, Given)}
                if key not in one or not isinstance(item, str):
                    self.shows(item, (*path, key), word if key in ("look", "undo") else "")
        elif isinstance(value, list):
            for n, item in enumerate(value):
                self.shows(item, (*path, n))

    def fit(self, book: Json, path: Path) -> None:
        """The steps fit together, and each is something that can be done here."""
        given = {name: typed(value)[1] for name, value in mapping(book, "parameters").items()}
        defaults = {name: default for name, default in given.items() if default is not None}
        places = [n for n, step in enumerate(items(book, "steps")) if len(actions(step)) == 1]
        found = made(book, defaults) if isinstance(book, dict) else ()
        for step, n in zip(found, places, strict=True):
            (word,) = actions(items(book, "steps")[n])
            if word in SHORT:
                self.platform(step, (*path, n, word))
            else:
                self.target(step, (*path, n, word))
        known = {**steps.PLATFORM, **self.verbs}
        for misfit in misfits(found, known):
            n = places[misfit.n]
            (word,) = actions(items(book, "steps")[n])
            unknown = "takes no" in misfit.text
            if not (unknown and word in SHORT):  # told by its shape
                self.source.complain((*path, n, *self.at(items(book, "steps")[n], word, misfit)), misfit.text, at_key=unknown)

    def at(self, step: Mapping[str, Json], word: str, misfit: Misfit) -> Path:
        if not misfit.arg:
            return ("name",) if "name" in step else (word,)
        return (word, misfit.arg)

    def platform(self, step: Step, path: Path) -> None:
        """What a short form names that only the whole configuration knows: a watch, a target, a check or a runbook and its parameters."""
        match step.action:
            case "check.ok":
                self.watch(step.args.get("watch"), (*path, "watch"))
            case "sql.run":
                self.role(step.args.get("target"), (*path, "target"))
            case "check.hold":
                self.given(self.known.checks.get(str(step.args.get("check"))), mapping(step.args, "with"), (*path, "with"))
            case "run.child":
                self.given(self.known.runbooks.get(str(step.args.get("runbook"))), mapping(step.args, "parameters"), (*path, "with"))

    def watch(self, name: Json, path: Path) -> None:
        services = mapping(self.source.value, "services").values()
        watches = {found for one in services for watch in items(one, "watches") if (found := name_of(watch))}
        if isinstance(name, str) and name.rpartition("/")[2] not in watches:
            self.source.complain(path, f"no service has a watch {shown(name)}{near(name, watches)}")

    def role(self, name: Json, path: Path) -> None:
        roles = {role for one in mapping(self.source.value, "services").values() for role in mapping(one, "targets")}
        if isinstance(name, str) and name not in roles:
            self.source.complain(path, f"no service has a target {shown(name)}{near(name, roles)}")

    def given(self, plugin: Plugin | None, values: Mapping[str, Json], path: Path) -> None:
        """Parameters of another plugin, as far as they are not references; of one there is not, nothing is said."""
        if plugin is None:
            return
        lent = {name for name, value in values.items() if any(refs(value)) or any(_named(value, "parameter"))}
        try:
            for where, text in parameters.problems(plugin, {name: value for name, value in values.items() if name not in lent}):
                if where or not any(f"with.{name}" in text for name in lent):
                    self.source.complain((*path, *where), text, at_key="has no parameter" in text)
        except PluginError as problem:
            self.source.complain(path, str(problem))

    def target(self, step: Step, path: Path) -> None:
        """The action is a verb of a target that some service has."""
        if step.action in self.verbs:
            return
        role, _, verb = step.action.partition(".")
        bound = [(name, one) for name, service in mapping(self.source.value, "services").items() if (one := mapping(service, "targets").get(role))]
        found = [adapter for name, one in bound if (adapter := self.built(name, role, one)) is not None]
        able = [adapter for adapter in found if verb in _verbs(adapter)]
        for adapter in found:
            getattr(adapter, "close", lambda: None)()
        if able:
            there = [getattr(adapter, verb) for adapter in able]
            takes, gives = (_joined([getattr(one, said, None) for one in there]) for said in ("takes", "gives"))
            self.verbs[step.action] = steps.Verb(takes, gives)
        elif not bound:
            roles = {role for one in mapping(self.source.value, "services").values() for role in mapping(one, "targets")}
            self.source.complain(path, f"no service has a {shown(role)[1:-1]}{near(role, roles)}", at_key=True)
        elif found:
            names = sorted({name for adapter in found for name in _verbs(adapter)})
            schemes = " and ".join(sorted({Locator(name, role, _url(one)).scheme for name, one in bound}))
            self.source.complain(path, f"no {role} here ({schemes}) can '{verb}'{near(verb, names)}", at_key=True)

    def built(self, service: str, role: str, target: Json) -> Any:
        """The adapter of a target, spoken to by nobody; None for one whose mistakes are told elsewhere."""
        at = Locator(service, role, _url(target), options_of(target) if isinstance(target, dict) else {}, folder=str(self.source.folder))
        try:
            speaks = speaker(KINDS.get(role, role), at.scheme, self.known.adapters)
            return speaks(at) if speaks else None
        except Exception:  # noqa: BLE001 - told where the target stands
            return None


def _named(value: Json, word: str, path: Path = ()) -> Iterator[tuple[Path, str]]:
    """Every {word: name} in a value, with where it stands."""
    if steps.referring(value) == word:
        yield path, value[word]
    elif isinstance(value, (dict, list)):
        for key, item in value.items() if isinstance(value, dict) else enumerate(value):
            yield from _named(item, word, (*path, key))


def _verbs(adapter: Any) -> list[str]:
    """The verbs an adapter has: those of its properties that are an Action."""
    return [name for name, one in _properties(type(adapter)) if _is_action(one, adapter)]


def _properties(kind: type) -> Iterator[tuple[str, property]]:
    for name in dir(kind):
        if not name.startswith("_") and isinstance(one := getattr(kind, name), property):
            yield name, one


def _is_action(one: property, adapter: Any) -> bool:
    try:
        return isinstance(one.__get__(adapter), Action)
    except WatchkeeperError:  # what it is can only be told by asking its target
        return False


def _joined(said: Sequence[frozenset[str] | None]) -> frozenset[str] | None:
    """What any of them takes, or gives; None when one does not say."""
    return None if None in said else frozenset().union(*(one for one in said if one is not None))


def _url(target: Json) -> str:
    return str(target.get("url") if isinstance(target, dict) else target)
