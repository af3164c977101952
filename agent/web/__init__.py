"""The way in over HTTP: one page, a JSON API, health and metrics, on 127.0.0.1 unless told otherwise."""

from agent.web.api import app
from agent.web.server import Server, serve

__all__ = ["Server", "app", "serve"]
