"""What stands between users and two versions of the example's model, one class a kind: how it is started, how a version is deployed through it."""

import json
import os
import shutil
import time
from pathlib import Path

from benchmarks._running import free_port
from examples.digits.served import Digits
from examples.digits.stage import Actor, Stage, answers, printed_url
from examples.mlserver.served import HOOK, MLServer
from examples.torchserve.served import TorchServe
from tests.haproxy import say

VERSIONS = ("0", "1", "2")  # an older good one, a good one, a bad one
HAPROXY = """
global
    maxconn 2000
    stats socket {folder}/admin.sock mode 600 level admin
    server-state-file {folder}/state
defaults
    mode http
    timeout connect 2s
    timeout client 30s
    timeout server 30s
    load-server-state-from-file global
frontend models
    bind 127.0.0.1:{port}
    default_backend digits
backend digits
{servers}
"""
NGINX = """
pid {folder}/nginx.pid;
error_log {folder}/error.log;
worker_processes 2;
daemon off;
events {{ worker_connections 2048; }}
http {{
  access_log off;
  keepalive_requests 1000000;
  client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy; fastcgi_temp_path {folder}/f;
  uwsgi_temp_path {folder}/u; scgi_temp_path {folder}/s;
  upstream digits {{ include {folder}/digits.servers; keepalive 64; }}
  server {{ listen 127.0.0.1:{port}; location / {{ proxy_pass http://digits; proxy_http_version 1.1; proxy_set_header Connection ""; }} }}
}}
"""


class Missing(Exception):
    """What this kind needs is not here; says how to get it."""


class OverOip:
    """What is asked in the Open Inference Protocol, by users and by the agent: its target as configuration, and the URL of an inference."""

    url: str

    @property
    def server(self) -> str:
        return json.dumps({"url": f"oip+{self.url}/digits", "within": "2s"})

    @property
    def asked(self) -> str:
        return f"{self.url}/v2/models/digits/infer"


class Apart(OverOip):
    """A server for each version, each with all of them loaded, and something before them that moves the traffic."""

    def __init__(self, stage: Stage) -> None:
        self.stage, self.url = stage, f"http://127.0.0.1:{free_port()}"

    def start(self) -> None:
        models = self.stage.folder / "models" / "digits"
        self.behind = [
            self.stage.python(f"server {v}", "examples.digits.server", "--models", models, "--port", "0", "--versions", "0,1,2", "--serve", v)
            for v in VERSIONS
        ]

    def places(self) -> dict[str, str] | None:
        """version -> host:port; None as long as one of them has not said so."""
        found = [printed_url(actor, "digits .* at ") for actor in self.behind]
        return dict(zip(VERSIONS, [url.removeprefix("http://") for url in found if url], strict=True)) if all(found) else None

    def folder(self) -> Path:
        """A short one: the path of a socket has a limit."""
        return self.stage.folder

    @property
    def port(self) -> str:
        return self.url.rpartition(":")[2]


class Haproxy(Apart):
    """HAProxy, moved through its runtime API by weights; a deployment is that too."""

    name = "HAProxy"

    def __init__(self, stage: Stage) -> None:
        super().__init__(stage)
        self.program, self._actor = needed("haproxy", "apt install haproxy"), None

    def up(self) -> bool:
        places = self.places()
        if places and self._actor is None:
            lines = "\n".join(f"    server v{version} {place} weight {100 if version == '1' else 0}" for version, place in places.items())
            config = self.folder() / "haproxy.cfg"
            config.write_text(HAPROXY.format(folder=self.folder(), port=self.port, servers=lines))
            self._actor = self.stage.start("haproxy", [self.program, "-W", "-db", "-f", config])
        return bool(places) and answers(f"{self.url}/v2/models/digits/ready")

    def router(self) -> str:
        options = {"backend": "digits", "versions": {version: f"v{version}" for version in VERSIONS}, "state_file": str(self.folder() / "state")}
        return json.dumps({"url": f"haproxy+unix:{self.folder()}/admin.sock", "within": "2s", **options})

    def served(self) -> str:
        rows = [line.split() for line in say(self.folder() / "admin.sock", "show servers state digits").splitlines()]
        header = next(row for row in rows if row[:1] == ["#"])[1:]
        servers = [dict(zip(header, row, strict=False)) for row in rows if len(row) > 5 and row[0] != "#"]
        return next(one["srv_name"].removeprefix("v") for one in servers if one["srv_uweight"] != "0")

    def deploy(self, version: str) -> None:
        was = self.served()
        say(self.folder() / "admin.sock", f"set server digits/v{version} weight 100; set server digits/v{was} weight 0")


class Nginx(Apart):
    """nginx, moved by a file that it includes and a reload."""

    name = "nginx"

    def __init__(self, stage: Stage) -> None:
        super().__init__(stage)
        self.program, self._actor = needed("nginx", "apt install nginx-light"), None

    def up(self) -> bool:
        places = self.places()
        if places and self._actor is None:
            self._write("1")
            config = self.folder() / "nginx.conf"
            config.write_text(NGINX.format(folder=self.folder(), port=self.port))
            self._actor = self.stage.start("nginx", [self.program, "-c", config])
        return bool(places) and answers(f"{self.url}/v2/models/digits/ready")

    def router(self) -> str:
        options = {"versions": self.places(), "pid": str(self.folder() / "nginx.pid")}
        return json.dumps({"url": f"nginx:{self.folder()}/digits.servers", "within": "5s", **options})

    def served(self) -> str:
        lines = (self.folder() / "digits.servers").read_text().splitlines()
        places = {place: version for version, place in (self.places() or {}).items()}
        return next(places[line.split()[1].rstrip(";")] for line in lines if line.startswith("server") and "down" not in line)

    def deploy(self, version: str) -> None:
        self._write(version)
        time.sleep(0.05)  # so that the file is older than the workers that read it
        os.kill(int((self.folder() / "nginx.pid").read_text()), 1)

    def _write(self, version: str) -> None:
        lines = [f"server {place} max_fails=0{'' if name == version else ' down'};" for name, place in (self.places() or {}).items()]
        (self.folder() / "digits.servers").write_text("\n".join(lines) + "\n")


class Pointer(OverOip, Digits):
    """The example's server alone: all versions in one process, and its own pointer."""

    name = "example server"

    def router(self) -> str:
        return json.dumps({"url": f"pointer+{self.url}", "within": "2s"})

    def start(self) -> None:
        models = self.stage.folder / "models" / "digits"
        self._actor: Actor = self.stage.python("model server", "examples.digits.server", "--models", models, "--port", "0", "--versions", "0,1,2")


class Mlserver(OverOip, MLServer):
    """MLServer, whose versions are moved by loading, through the example's hook."""

    name = "MLServer"
    most = 40.0  # requests a second that it is sure to answer on two cores beside the agent and its users

    def __init__(self, stage: Stage) -> None:
        super().__init__(stage, Path(needed("mlserver", "make peers")))

    def router(self) -> str:
        lines = HOOK.replace("${SWITCH_PORT}", self.hook.rpartition(":")[2]).splitlines()
        return "\n" + "\n".join(lines)


class Torchserve(TorchServe):
    """TorchServe, whose default is one of the versions that it has loaded; it speaks a protocol of its own."""

    most = 200.0  # requests a second that one worker and a JVM are sure to answer on two cores beside the agent and its users

    def __init__(self, stage: Stage) -> None:
        needed("java", "apt install openjdk-17-jre-headless")
        super().__init__(stage, Path(needed("torchserve", "make peers")))

    @property
    def server(self) -> str:
        return json.dumps({"url": f"torchserve+{self.url}/digits", "management": self.management, "within": "5s"})

    @property
    def asked(self) -> str:
        return f"{self.url}/predictions/digits"

    def router(self) -> str:
        return json.dumps({"url": f"torchserve+{self.management}/digits", "within": "5s"})


KINDS = {"haproxy": Haproxy, "nginx": Nginx, "pointer": Pointer, "mlserver": Mlserver, "torchserve": Torchserve}


def needed(program: str, remedy: str) -> str:
    from tests.conftest import peers

    places = os.pathsep.join([str(peers() / program / "bin"), os.environ.get("PATH", ""), "/usr/sbin", "/usr/local/sbin"])
    found = shutil.which(program, path=places)
    if found is None:
        raise Missing(f"{program} is not installed: {remedy}")
    return found
