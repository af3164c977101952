"""Drives the runs of a store to their end, killing itself at the n-th durable commit: python -m tests.crash CONFIG before|after|never N"""

import os
import signal
import sys
import time
from pathlib import Path

from agent import config
from agent.respond import Responder
from agent.store import Store, locked
from agent.workers import Pool
from agent.world import World


def main(path: str, where: str, n: int) -> int:
    seen = 0

    def mark(point: str) -> None:
        nonlocal seen
        if point == where:
            seen += 1
            if seen == n:
                os.kill(os.getpid(), signal.SIGKILL)

    made = config.load(Path(path))
    with locked(Path(made.store)):
        store = Store.open(made.store, mark=mark).start()
        world = World(made, store, Pool(1))
        responder = Responder(world)
        responder.recover()
        end = time.monotonic() + 30
        while time.monotonic() < end:
            for future in responder.tick(world.clock()):
                future.result(30)
            time.sleep(0.02)  # runs wait in steps of 200 ms: do not spin meanwhile
            with store.read() as ledger:
                if not ledger.runs(active_only=True):
                    break
        responder.stop()
        store.close()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2], int(sys.argv[3])))
