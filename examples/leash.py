"""Runs a command that ends when the process that started it ends, however that one ended: `python leash.py PARENT COMMAND...`.

Linux tells a process of its parent's death when it has asked to be told; elsewhere the command just runs. Standard library only.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1


def main() -> None:
    parent, command = int(sys.argv[1]), sys.argv[2:]
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != parent:  # it was gone before we could ask
        sys.exit(1)
    os.execv(command[0], command)  # noqa: S606 - there is nothing a shell would add


if __name__ == "__main__":
    main()
