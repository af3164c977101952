"""How a store of an older version becomes one of this version."""

from __future__ import annotations

import contextlib
import io
from pathlib import Path

from sqlalchemy import Connection, inspect, text

from agent.errors import StoreSchemaError

HEAD = "0005"  # the newest revision; a test holds it to the files, so that opening a store that fits need not import Alembic


def bring_up(conn: Connection, path: Path, *, upgrade: bool = False) -> str:
    """Make a new store, or check that this one fits; with `upgrade`, take an older one up. Gives the revision.

    StoreSchemaError when a newer Watchkeeper made it, or when it is older and `upgrade` was not asked for.
    """
    tables = inspect(conn).get_table_names()
    at = conn.execute(text("SELECT version_num FROM alembic_version")).scalar() if "alembic_version" in tables else None
    if at == HEAD:
        return HEAD
    if at is None and tables:
        raise StoreSchemaError(f"{path} is an SQLite file, but not a Watchkeeper store; name another file with 'store:'")
    if at is not None and at not in revisions():
        raise StoreSchemaError(f"{path} has schema {at}, made by a newer Watchkeeper; this one knows up to {HEAD}: upgrade the program")
    if at is not None and not upgrade:
        raise StoreSchemaError(f"{path} has the older schema {at}; run 'watchkeeper db upgrade' (it keeps a backup)")
    _climb(conn)
    return HEAD


def revisions() -> list[str]:
    """Every revision there is a file for, newest first."""
    from alembic.config import Config
    from alembic.script import ScriptDirectory

    setup = Config(stdout=io.StringIO())
    setup.set_main_option("script_location", str(Path(__file__).parent))
    return [script.revision for script in ScriptDirectory.from_config(setup).walk_revisions()]


def _climb(conn: Connection) -> None:
    from alembic import command
    from alembic.config import Config

    setup = Config(stdout=io.StringIO())
    setup.set_main_option("script_location", str(Path(__file__).parent))
    setup.attributes["connection"] = conn
    with contextlib.redirect_stderr(io.StringIO()):
        command.upgrade(setup, "head")
