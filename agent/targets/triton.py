"""Which version of a model NVIDIA Triton answers with: moved by loading it anew under another version policy."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence, Set

from agent import Json, Locator, Swap, adapter
from agent.errors import AnswerError, CannotError
from agent.targets import _shapes
from agent.wire import Wire

NUMBER = re.compile("[0-9]{1,18}")


@adapter(role="router", schemes=("triton",))
class Triton:
    """`triton+http://host:port/MODEL`, a Triton with `--model-control-mode=explicit`: of the versions that are loaded the highest answers.

    A switch loads the model with `version_policy: specific`: the version pointed at, and those below it that were loaded; those above are
    dropped once they have answered what they were asked. Triton compares nothing: what stood is looked at right before. It writes nothing down
    either: after a restart config.pbtxt decides again.
    """

    can: frozenset[str] = frozenset({"switch", "unload"})

    def __init__(self, at: Locator) -> None:
        _shapes.options(at, ())
        self._where = f"{at.service}.{at.role}"
        prefix, self._model = _shapes.model(at, "v2", "models")
        self._root, self._wire = f"{prefix}/v2", Wire(at)

    def served(self) -> Mapping[str, float]:
        """All requests that name no version go to the highest that is loaded."""
        return {self._version(): 1.0}

    @property
    def point(self) -> Swap:
        """Makes `{"to": version}` the highest that is loaded; Triton answers with what stood until it is."""
        return Swap(self._version, self._move)

    def loaded(self) -> Sequence[str]:
        """The versions that are loaded; each can still be asked by name."""
        return self._loaded()

    @property
    def unload(self) -> _shapes.Unload:
        """Drops the loaded `{"version": version}`, once it has answered what it was asked."""
        return _shapes.Unload(self.served, self._loaded, self._drop)

    def close(self) -> None:
        """Closes the connections."""
        self._wire.close()

    def _version(self) -> str:
        return max(self._loaded(), key=int)

    def _loaded(self) -> Sequence[str]:
        path = f"{self._root}/models/{self._model}"
        body = self._wire.get(path).json()
        stated = body.get("versions") if isinstance(body, Mapping) else None
        if not isinstance(stated, list) or not stated or not all(NUMBER.fullmatch(str(one)) for one in stated):
            raise AnswerError(f"{path}: the metadata states no versions that are whole numbers; is it a Triton, and {self._model} loaded?")
        return [str(one) for one in stated]

    def _move(self, to: Json, expected: Json) -> None:
        loaded = self._loaded()
        if (found := max(loaded, key=int)) != expected:
            raise _shapes.moved(self._where, expected, f"it is {found}")
        if not NUMBER.fullmatch(str(to)):
            raise CannotError(f"{self._where}: a version of Triton is a whole number, the name of its folder; {to!r:.80} is none")
        self._load({*(version for version in loaded if int(version) < int(to)), to})
        if (now := self._version()) != to:
            raise AnswerError(f"{self._where}: Triton took the load and still answers with {now}; has the repository a folder {self._model}/{to}?")

    def _drop(self, version: str) -> None:
        self._load({*self._loaded()} - {version})

    def _load(self, versions: Set[str]) -> None:
        config = {**self._config(), "version_policy": {"specific": {"versions": sorted(map(int, versions))}}}
        self._wire.post(f"{self._root}/repository/models/{self._model}/load", json={"parameters": {"config": json.dumps(config)}}, acting=True)

    def _config(self) -> Mapping[str, Json]:
        path = f"{self._root}/models/{self._model}/config"
        config = self._wire.get(path).json()
        if not isinstance(config, Mapping) or config.get("name") != self._model:
            raise AnswerError(f"{path}: the answer is no configuration of {self._model}")
        return config
