"""What a newcomer starts from: a commented configuration that is valid as it stands, and the demo."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence
from pathlib import Path

from agent.errors import ConfigError

DEMO, GAMEDAY = "examples.digits.demo", "examples.digits.gameday"
TEXT = """\
# Watchkeeper's configuration. `watchkeeper validate` tells every error at once, `watchkeeper schema` gives editors the shape of this file.
# ${NAME} is taken from the environment, ${file:PATH} from a file, and $$ is a dollar sign.

team: ml-platform                  # who runs these services, unless a service says otherwise
store: watchkeeper.db              # findings, incidents and evidence: one SQLite file on a local disk, beside this file
listen: 127.0.0.1:8420             # status page, API and /metrics; another address takes a token:

notify:
  ack_within: 15m                  # then the next in a service's `escalation` is told
  channels: {}
  #  ada: slack+https://hooks.slack.com/services/${ADA_HOOK}
  #  duty: https://alerts.example.com/hook

services:
  fraud:                           # a name of yours
    # owner: ada                   # a channel from above; who is told first
    # escalation: [duty]
    # load: {rate: 50, longest: 10m}   # what a load test may do to it; without this there is none
    # drills: {live: true}         # its users may be part of a drill; without this each drill takes --live
    mode: observe                  # observe, suggest, approve or auto: what runbooks may do by themselves
    targets:
      # oip: Open Inference Protocol v2 (MLServer, Triton, KServe, ...). http: any other web server. See `watchkeeper plugins --kind adapter`.
      server: oip+http://127.0.0.1:8080/fraud
      # router: hook+http://127.0.0.1:8081/route       # what decides which version has the traffic: needed to roll back
      # registry: folder:models/fraud                  # versions with their golden rows: needed for serving.parity
      # server:                                        # the long form, with credentials
      #   url: oip+https://models.example.com/fraud
      #   auth:
      #     look: {bearer: "${LOOK_TOKEN}"}            # may only read
      #     act: {bearer: "${ACT_TOKEN}"}              # may change; without it every action is refused
    watches:
      - check: serving.ready       # `watchkeeper plugins serving.ready` tells what a check needs and can be told
        every: 10s
      - check: serving.latency
        every: 30s
      - check: service.owner       # fails until somebody owns the service
        every: 1h
"""


def write(folder: Path) -> Path:
    """Write the starter file; ConfigError when there is one already."""
    path = folder / "watchkeeper.yaml"
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with path.open("x", encoding="utf-8") as file:
            file.write(TEXT)
    except FileExistsError as problem:
        raise ConfigError(f"{path} exists already and was left as it is; name another folder: watchkeeper init DIR") from problem
    return path


def played(program: str, arguments: Sequence[str]) -> None:
    """Play the demo or a game day; SystemExit with its exit code. The example stack comes with the repository, not with the package."""
    house = Path(__file__).resolve().parent.parent
    if not (house / Path(*program.split("."))).with_suffix(".py").exists():
        raise ConfigError("the example stack comes with the repository, not with the installed package: clone it, and run `make demo` there")
    sys.path.insert(0, str(house))  # in this process, so that Ctrl-C and SIGTERM reach the one that ends the others
    raise SystemExit(importlib.import_module(program).main(arguments))
