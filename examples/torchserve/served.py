"""TorchServe as a stage needs it: started with an empty store's worth of models, each version registered, one of them the default."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from examples.digits.stage import HOUSE, Stage, answers, fetch
from examples.mlserver.served import free_ports
from examples.torchserve.archives import MODEL, pack

STUB = "class Tensor: ...\n"  # all that TorchServe's worker asks of torch, which the digits model does not need
CONFIG = """
inference_address={url}
management_address={management}
metrics_address=http://127.0.0.1:{metrics}
grpc_inference_address=127.0.0.1
grpc_management_address=127.0.0.1
grpc_inference_port={grpc}
grpc_management_port={grpc_management}
disable_token_authorization=true
enable_model_api=true
default_workers_per_model=1
number_of_netty_threads=2
"""


class TorchServe:
    """All versions registered and loaded, `serve` the default. `program` is where `torchserve` is, whose Python must have onnxruntime."""

    name = "TorchServe"

    def __init__(self, stage: Stage, program: Path, versions: Sequence[str] = ("0", "1", "2"), serve: str = "1") -> None:
        self.stage, self.program, self.versions, self.serve = stage, program.resolve().parent / program.name, versions, serve
        self.ports = dict(zip(("url", "management", "metrics", "grpc", "grpc_management"), free_ports(5), strict=True))
        self.url, self.management = (f"http://127.0.0.1:{self.ports[name]}" for name in ("url", "management"))
        self._registered = False

    def start(self) -> None:
        """Starts what serves; `up` tells when it does."""
        place = self.stage.folder / "torchserve"
        for name in ("stub", "tmp", "logs"):
            (place / name).mkdir(parents=True)
        pack(place / "store", self.stage.folder / "models" / MODEL, self.versions)
        (place / "stub" / "torch.py").write_text(STUB, encoding="utf-8")
        (place / "config.properties").write_text(CONFIG.format(**{**self.ports, "url": self.url, "management": self.management}), encoding="utf-8")
        env = {
            "PATH": os.pathsep.join([str(self.program.parent), os.environ.get("PATH", "")]),
            "PYTHONPATH": os.pathsep.join([str(place / "stub"), str(HOUSE)]),
            "TMPDIR": str(place / "tmp"),
            "LOG_LOCATION": str(place / "logs"),
            "METRICS_LOCATION": str(place / "logs"),
        }
        words = ["--start", "--foreground", "--ncs", "--model-store", place / "store", "--ts-config", place / "config.properties"]
        self._actor = self.stage.start("model server", [self.program, *words], env)

    def up(self) -> bool:
        self._actor.check()
        if not self._registered and answers(f"{self.url}/ping"):
            for version in self.versions:
                asked = f"url={MODEL}-{version}.mar&model_name={MODEL}&initial_workers=1&synchronous=true"
                fetch(f"{self.management}/models?{asked}", method="POST")
            self.deploy(self.serve)
            self._registered = True
        return self._registered

    def served(self) -> str:
        """The version that answers where none is named."""
        return str(fetch(f"{self.management}/models/{MODEL}")[0]["modelVersion"])

    def deploy(self, version: str) -> str:
        """Makes this version the one that answers; what that took, in words."""
        was = self.served()
        fetch(f"{self.management}/models/{MODEL}/{version}/set-default", method="PUT")
        return f"makes version {version}, loaded beside version {was}, the default"
