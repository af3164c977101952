"""Users of the digits service: sends held-out images at a steady rate and writes down every answer.

    python -m examples.digits.traffic --url http://127.0.0.1:8080 --stream models/stream.jsonl --answers answers.jsonl --control mode

The word in the control file is the mode, read before each request: `good`; `broken`, an upstream that sends 8 x 7 pixels from 0 to 255;
`bright`, one that sends the right number of pixels from 0 to 255; `short`, one that leaves a column out; `nulls`, one that sends every third
pixel as null; `dim`, one whose images are half as bright; `turned`, one that turns them by a quarter; `silent`, one that sends nothing. Requests
leave on time whether or not earlier ones are answered.
"""

from __future__ import annotations

import argparse
import http.client
import itertools
import json
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TextIO
from urllib.parse import urlsplit

Image = Sequence[float]
PATH = "/v2/models/digits/infer"


def as_it_is(image: Image) -> list[float]:
    """64 pixels from 0 to 16, as the model was promised."""
    return list(image)


def broken(image: Image) -> list[float]:
    """The last of eight columns is lost, and the values are bytes."""
    return [float(round(pixel * 255 / 16)) for place, pixel in enumerate(image) if place % 8 != 7]


def bright(image: Image) -> list[float]:
    """All 64 pixels, as bytes."""
    return [float(round(pixel * 255 / 16)) for pixel in image]


def short(image: Image) -> list[float]:
    """The last of eight columns is lost."""
    return [pixel for place, pixel in enumerate(image) if place % 8 != 7]


def nulls(image: Image) -> list[float | None]:
    """Every third pixel is null."""
    return [None if place % 3 == 0 else pixel for place, pixel in enumerate(image)]


def dim(image: Image) -> list[float]:
    """All 64 pixels, half as bright: every one of them is within what was promised."""
    return [pixel / 2 for pixel in image]


def turned(image: Image) -> list[float]:
    """All 64 pixels, turned by a quarter against the clock."""
    return [image[8 * row + 7 - column] for column in range(8) for row in range(8)]


SILENT = "silent"
MODES: Mapping[str, Callable[[Image], Sequence[float | None]]] = {
    "good": as_it_is,
    "broken": broken,
    "bright": bright,
    "short": short,
    "nulls": nulls,
    "dim": dim,
    "turned": turned,
    SILENT: as_it_is,
}


def mode_in(control: Path | None) -> str:
    """The word in the control file; `good` where there is none, or one that is being written just now."""
    try:
        word = control.read_text(encoding="utf-8").strip() if control else "good"
    except OSError:
        return "good"
    return word if word in MODES else "good"


def asked(name: str, pixels: Sequence[float | None]) -> bytes:
    """An Open Inference Protocol request for one image."""
    tensor = {"name": "image", "shape": [1, len(pixels)], "datatype": "FP32", "data": list(pixels)}
    return json.dumps({"id": name, "inputs": [tensor]}).encode()


class Caller:
    """One keep-alive connection, opened anew after it broke. `post` never raises: no answer is status 0."""

    def __init__(self, url: str, within: float) -> None:
        self._connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=within)

    def post(self, body: bytes) -> tuple[int, Mapping[str, Any]]:
        """Status and decoded answer."""
        try:
            self._connection.request("POST", PATH, body, {"content-type": "application/json"})
            reply = self._connection.getresponse()
            return reply.status, json.loads(reply.read())
        except (OSError, http.client.HTTPException, ValueError) as problem:
            self._connection.close()
            return 0, {"error": f"{type(problem).__name__}: {problem}"}


class Traffic:
    """`workers` callers that share one timetable, and one file in which they write."""

    def __init__(self, url: str, images: Sequence[Mapping[str, Any]], answers: TextIO, rate: float, control: Path | None = None) -> None:
        self.url, self.images, self.answers, self.control = url, images, answers, control
        self.stop = threading.Event()
        self._slots: Iterator[int] = itertools.count()
        self._began, self._every, self._run = time.monotonic(), 1 / rate, format(time.time_ns(), "x")
        self._lock = threading.Lock()

    def work(self) -> None:
        """Takes the next slot of the timetable, waits for it, asks, and writes the answer down; until told to stop."""
        caller = Caller(self.url, within=5)
        while not self.stop.is_set():
            with self._lock:
                slot = next(self._slots)
            if self.stop.wait(max(0.0, self._began + slot * self._every - time.monotonic())):
                return
            if mode_in(self.control) != SILENT:
                self._write(self._ask(caller, slot))

    def _ask(self, caller: Caller, slot: int) -> Mapping[str, Any]:
        one, mode, name = self.images[slot % len(self.images)], mode_in(self.control), f"user-{self._run}-{slot}"
        body, at, began = asked(name, MODES[mode](one["image"])), datetime.now(UTC), time.perf_counter()
        status, said = caller.post(body)
        label = said["outputs"][0]["data"][0] if status == 200 else None
        return {
            "at": at.isoformat(timespec="microseconds"),
            "answered_at": datetime.now(UTC).isoformat(timespec="microseconds"),
            "id": name,
            "mode": mode,
            "version": said.get("model_version"),
            "status": status,
            "label": label,
            "truth": one["truth"],
            "wrong": status == 200 and label != one["truth"],
            "seconds": round(time.perf_counter() - began, 6),
            "error": said.get("error"),
        }

    def _write(self, answer: Mapping[str, Any]) -> None:
        with self._lock:
            self.answers.write(json.dumps(answer) + "\n")
            self.answers.flush()

    def run(self, workers: int) -> None:
        """Until told to stop."""
        threads = [threading.Thread(target=self.work, daemon=True) for _ in range(workers)]
        for thread in threads:
            thread.start()
        self.stop.wait()
        for thread in threads:
            thread.join(6)


def main() -> None:
    parser = argparse.ArgumentParser(description="Send held-out digits to the example's server.")
    parser.add_argument("--url", required=True, help="where the server is: http://host:port")
    parser.add_argument("--stream", type=Path, required=True, help="stream.jsonl, as written by the training")
    parser.add_argument("--answers", type=Path, required=True, help="the file to which every answer is added as a line of JSON")
    parser.add_argument("--control", type=Path, help=f"a file that holds the mode: {', '.join(MODES)}")
    parser.add_argument("--rate", type=float, default=20, help="requests a second")
    parser.add_argument("--workers", type=int, default=8, help="how many may wait for an answer at a time")
    given = parser.parse_args()
    images = [json.loads(line) for line in given.stream.read_text(encoding="utf-8").splitlines()]
    with given.answers.open("a", encoding="utf-8") as answers:
        traffic = Traffic(given.url, images, answers, given.rate, given.control)
        for one in (signal.SIGTERM, signal.SIGINT):
            signal.signal(one, lambda *_: traffic.stop.set())
        print(f"traffic: {given.rate:g} a second to {given.url}", flush=True)
        traffic.run(given.workers)


if __name__ == "__main__":
    main()
