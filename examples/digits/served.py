"""The example's own model server as a stage needs it: how it is started, what it serves, how a version is deployed."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import urlsplit

from examples.digits.stage import HOUSE, Actor, Stage, fetch, printed_url

CONFIG = HOUSE / "examples" / "digits" / "watchkeeper.yaml"


class Digits:
    """`examples.digits.server` with versions 0 and 1 loaded, and 1 served. A deployment is a load and a compare-and-set of its pointer."""

    name = "the example's own server"
    versions, serves, follows = "0,1", "1", False
    config = CONFIG

    def __init__(self, stage: Stage) -> None:
        self.stage, self.url = stage, ""

    def start(self) -> None:
        """Starts what serves; `up` tells when it does."""
        models = self.stage.folder / "models" / "digits"
        log, follow = self.stage.folder / "predictions.db", ["--follow"] if self.follows else []
        which = ("--versions", self.versions, "--serve", self.serves, *follow)
        self._actor: Actor = self.stage.python("model server", "examples.digits.server", "--models", models, *which, "--port", "0", "--log", log)

    def up(self) -> bool:
        self.url = printed_url(self._actor, "digits .* at ") or ""
        return bool(self.url)

    def configure(self) -> dict[str, str]:
        """Writes the agent's configuration; gives the variables that it refers to."""
        (self.stage.folder / "watchkeeper.yaml").write_bytes(self.config.read_bytes())
        return {"DIGITS_PORT": str(urlsplit(self.url).port)}

    def served(self) -> str:
        """The version that answers."""
        return str(fetch(f"{self.url}/admin/pointer")["version"])

    def deploy(self, version: str) -> str:
        """Makes this version the one that answers; what that took, in words."""
        was = self.served()
        fetch(f"{self.url}/admin/load", {"version": version})
        fetch(f"{self.url}/admin/pointer", {"to": version, "expected": was})
        return f"loads version {version} beside version {was} and moves the pointer to it"

    def by_hand(self, version: str) -> list[str]:
        """The commands with which a person does the same."""
        post = f"curl -s -H 'content-type: application/json' {self.url}/admin"
        return [f"""{post}/load -d '{{"version": "{version}"}}'""", f"""{post}/pointer -d '{{"to": "{version}", "expected": "{self.served()}"}}'"""]


def folder_of(path: Path) -> Path:
    """Makes a folder that may be there already, unless it holds an earlier demo."""
    path.mkdir(parents=True, exist_ok=True)
    if (path / "watchkeeper.yaml").exists():
        raise FileExistsError(f"{path} holds an earlier demo")
    return path
