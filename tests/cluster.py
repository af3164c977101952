"""A private PostgreSQL: made from nothing in a folder of its own, on a free port of this machine, gone when the tests are."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

SETTINGS = ("fsync=off", "synchronous_commit=off", "full_page_writes=off", "shared_buffers=32MB", "max_connections=40", "autovacuum=off")
OWNER = "keeper"
RUNNING: list[Cluster] = []  # the one of these tests, once a fixture has started it


class Cluster:
    """`do` runs SQL as the owner of everything; `url` is where an adapter finds a table."""

    def __init__(self, programs: Path) -> None:
        self.programs, self.port, self.user = programs, _free_port(), _not_root()
        self.folder = Path(tempfile.mkdtemp(prefix="watchkeeper-postgres-"))
        if self.user:
            shutil.chown(self.folder, self.user)
        self._run("initdb", "-D", str(self.folder / "data"), "-U", OWNER, "-A", "trust", "-E", "UTF8", "--locale=C.UTF-8", "--no-sync")
        rules = f"local all all trust\nhost all {OWNER} 127.0.0.1/32 trust\nhost all all 127.0.0.1/32 scram-sha-256\n"
        (self.folder / "data" / "pg_hba.conf").write_text(rules)
        try:
            self.start()
        except BaseException:
            self.stop()
            raise

    def start(self) -> None:
        """Started, and answering."""
        import psycopg

        said = [word for setting in (*SETTINGS, f"unix_socket_directories={self.folder}") for word in ("-c", setting)]
        command = [self.programs / "postgres", "-D", self.folder / "data", "-p", str(self.port), "-h", "127.0.0.1", *said]
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(command, user=self.user, stdout=log, stderr=log)
        for _ in range(600):
            with suppress(psycopg.OperationalError), self.connected():
                return
            assert self.process.poll() is None, (self.folder / "log").read_text()
            time.sleep(0.05)
        raise AssertionError((self.folder / "log").read_text())

    def stop(self) -> None:
        self.halt()
        shutil.rmtree(self.folder, ignore_errors=True)

    def halt(self) -> None:
        """The server ends at once, whoever is connected."""
        self.process.send_signal(2)  # SIGINT: fast shutdown
        self.process.wait(30)

    def do(self, *statements: str) -> None:
        with self.connected() as con:
            for statement in statements:
                con.execute(statement)

    def connected(self) -> Any:
        import psycopg

        return psycopg.connect(host="127.0.0.1", port=self.port, user=OWNER, dbname="postgres", autocommit=True)

    def url(self, table: str = "", user: str = OWNER) -> str:
        return f"postgresql://{user}@127.0.0.1:{self.port}/postgres" + (f"?table={table}" if table else "")

    def load(self, table: str, columns: dict[str, str], rows: Any) -> str:
        """A table made anew with these columns and rows; its URL."""
        import psycopg.sql

        name = psycopg.sql.Identifier(*table.split(".", 1))
        shape = psycopg.sql.SQL(", ").join(psycopg.sql.SQL("{} " + kind).format(psycopg.sql.Identifier(column)) for column, kind in columns.items())
        with self.connected() as con:
            con.execute(psycopg.sql.SQL("DROP TABLE IF EXISTS {}").format(name))
            con.execute(psycopg.sql.SQL("CREATE TABLE {} ({})").format(name, shape))
            with con.cursor().copy(psycopg.sql.SQL("COPY {} FROM STDIN").format(name)) as copy:
                for row in rows:
                    copy.write_row(row)
        return self.url(table)

    def _run(self, program: str, *words: str) -> None:
        done = subprocess.run([self.programs / program, *words], user=self.user, capture_output=True, text=True, cwd=self.folder)
        assert done.returncode == 0, done.stdout + done.stderr


def _not_root() -> str | None:
    """PostgreSQL refuses to run as root; the user its package makes will do, or nobody."""
    import pwd

    if os.geteuid():
        return None
    known = {entry.pw_name for entry in pwd.getpwall()}
    return next(name for name in ("postgres", "nobody") if name in known)


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        return int(taken.getsockname()[1])
