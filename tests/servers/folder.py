"""A registry folder as training code leaves it: version 1 doubles x and version 2 trebles it, each with golden rows."""

from __future__ import annotations

from datetime import datetime, timedelta
from pathlib import Path

from agent import UTC
from agent.targets.folder import record
from tests.servers.oip import FACTORS, TENSOR

SPEAKS = ("registry:folder",)
BEGAN_AT = datetime(2026, 1, 1, tzinfo=UTC)


class Speaker:
    """Registers 2 before 1, so that the order of names is not the order of registration."""

    def __init__(self, root: Path, lineage: dict | None = None) -> None:
        self.root, self.url, self.options = root, f"folder:{root}", {}
        for place, version in enumerate(("2", "1")):
            record(
                root,
                version,
                {"model.bin": f"times {FACTORS[version]}".encode()},
                golden=[(_request(row), _answer(row, version)) for row in range(5)],
                lineage={"signature": {"inputs": [TENSOR], "outputs": [{**TENSOR, "name": "y"}]}} if lineage is None else lineage,
                now=BEGAN_AT + timedelta(days=place),
            )

    @property
    def recorded(self) -> str | None:
        path = self.root / "_promoted"
        return path.read_text().strip() if path.exists() else None

    @recorded.setter
    def recorded(self, version: str) -> None:
        (self.root / "_promoted").write_text(version)

    def stop(self) -> None: ...


def _request(row: int) -> dict:
    return {"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 2], "data": [row, row / 3]}]}


def _answer(row: int, version: str) -> dict:
    factor = FACTORS[version]
    return {"outputs": [{"name": "y", "datatype": "FP32", "shape": [1, 2], "data": [factor * row, factor * row / 3]}]}
