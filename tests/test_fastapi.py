"""The plain HTTP adapter against FastAPI, set up as docs/targets.md shows it: a body posted, and a query asked with GET."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from typing import Annotated, Any

import pytest
import uvicorn
from fastapi import FastAPI, Header, HTTPException, Query, Response
from pydantic import BaseModel

from agent import Auth, Locator
from agent.errors import AnswerError, DeniedError
from agent.targets import connect
from tests.test_mlserver import free_ports
from tests.test_targets import again

OPTIONS = {"ready": "/healthz", "version": {"header": "X-Model-Version"}}
LOOK = Auth("header", {"name": "X-Api-Key", "value": "may-look"})
app = FastAPI()


class Row(BaseModel):
    amount: float
    country: str


@app.get("/healthz")
def healthz() -> dict[str, bool]:
    return {"ok": True}


@app.post("/score")
def score(row: Row, response: Response, x_api_key: Annotated[str, Header()] = "") -> dict[str, float]:
    if x_api_key != "may-look":
        raise HTTPException(401)
    response.headers["X-Model-Version"] = "3"
    return {"score": row.amount / 100}


@app.get("/lookup")
def lookup(amount: Annotated[list[float], Query()], country: str = "none") -> dict[str, Any]:
    return {"sum": sum(amount), "country": country}


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    (port,) = free_ports(1)
    server = uvicorn.Server(uvicorn.Config(app, port=port, log_level="error"))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        assert thread.is_alive(), "uvicorn did not start"
        time.sleep(0.01)
    yield f"http://127.0.0.1:{port}"
    server.should_exit = True
    thread.join(20)


def test_fastapi_is_posted_a_body_and_says_its_version_in_a_header(address):
    server = connect(Locator("fraud", "server", f"{address}/score", OPTIONS, look=LOOK))
    assert server.ready() is True
    answer = server.infer({"amount": 25, "country": "se"})
    assert (answer.body, answer.version, server.version()) == ({"score": 0.25}, "3", "3")
    assert json.loads(again(server.request({"amount": 50, "country": "se"}))) == {"score": 0.5}
    with pytest.raises(AnswerError, match="Field required") as caught:
        server.infer({"amount": 25})
    assert caught.value.status == 422
    with pytest.raises(DeniedError):
        connect(Locator("fraud", "server", f"{address}/score", OPTIONS)).infer({"amount": 25, "country": "se"})


def test_fastapi_is_asked_a_query_with_get(address):
    server = connect(Locator("fraud", "server", f"{address}/lookup", {"ready": "/healthz", "method": "GET"}))
    assert server.infer({"amount": [1, 2.5], "country": "Österreich & co"}).body == {"sum": 3.5, "country": "Österreich & co"}
    assert json.loads(again(server.request({"amount": [4], "country": None}))) == {"sum": 4, "country": "none"}
    with pytest.raises(AnswerError) as caught:
        server.infer({"amount": ["a"]})
    assert caught.value.status == 422
