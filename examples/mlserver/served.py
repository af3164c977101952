"""MLServer as a stage needs it: started with the hook beside it, a version deployed through the hook."""

from __future__ import annotations

import socket
from pathlib import Path
from urllib.parse import urlsplit

from examples.digits.served import CONFIG
from examples.digits.stage import Actor, Stage, answers, fetch, printed_url
from examples.mlserver.repository import lay

POINTER = """\
        url: pointer+http://127.0.0.1:${DIGITS_PORT}
        within: 2s
"""
HOOK = """\
        url: hook+http://127.0.0.1:${SWITCH_PORT}
        read: {path: /version, field: version}
        write: {method: POST, path: /version, body: {to: "{to}", expected: "{expected}"}}
        within: 10s
"""


class MLServer:
    """All four versions laid, the highest of those shown is served. `program` is where `mlserver` is."""

    name = "MLServer"

    def __init__(self, stage: Stage, program: Path) -> None:
        self.stage, self.program, self.url, self.hook = stage, program.resolve(), "", ""

    def start(self) -> None:
        """Starts what serves; `up` tells when it does."""
        repository, ports = self.stage.folder / "repository", free_ports(3)
        settings = dict(zip(("http_port", "grpc_port", "metrics_port"), ports, strict=True))
        lay(repository, self.stage.folder / "models" / "digits", ["0", "1", "2", "3"], serve="1", **settings)
        self.url = f"http://127.0.0.1:{ports[0]}"
        self._actor = self.stage.start("model server", [self.program, "start", repository], {"DIGITS_LOG": str(self.stage.folder / "predictions.db")})
        words = ("--mlserver", self.url, "--repository", repository, "--port", "0")
        self._switch: Actor = self.stage.python("switch", "examples.mlserver.switch", *words)

    def up(self) -> bool:
        self._actor.check()
        self.hook = printed_url(self._switch, "switch at ") or ""
        return bool(self.hook) and answers(f"{self.url}/v2/models/digits/ready")

    def configure(self) -> dict[str, str]:
        """Writes the agent's configuration; gives the variables that it refers to."""
        text = CONFIG.read_text(encoding="utf-8").replace(POINTER, HOOK)
        (self.stage.folder / "watchkeeper.yaml").write_text(text, encoding="utf-8")
        return {"DIGITS_PORT": str(urlsplit(self.url).port), "SWITCH_PORT": str(urlsplit(self.hook).port)}

    def served(self) -> str:
        """The version that answers."""
        return str(fetch(f"{self.hook}/version")["version"])

    def deploy(self, version: str) -> str:
        """Makes this version the one that answers; what that took, in words."""
        was = self.served()
        fetch(f"{self.hook}/version", {"to": version, "expected": was})
        return f"has MLServer load version {version} above version {was}"

    def by_hand(self, version: str) -> list[str]:
        """The commands with which a person does the same."""
        return [f"""curl -s -d '{{"to": "{version}", "expected": "{self.served()}"}}' {self.hook}/version"""]


def free_ports(count: int) -> list[int]:
    """Ports that nobody listened at a moment ago: MLServer cannot be told to take free ones and say which."""
    taken = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [one.getsockname()[1] for one in taken]
    for one in taken:
        one.close()
    return ports
