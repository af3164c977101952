"""What TorchServe and OpenAI-compatible servers say otherwise than the rest; what all servers share is in tests/test_targets.py."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import Any

import pytest

from agent import Locator
from agent.errors import AnswerError, CannotError, ConfigError, UnreachableError
from agent.targets import connect
from tests.servers import openai, torchserve
from tests.test_targets import again

ASKED = openai.REQUEST


def spoken(speaker: Any, **options: Any) -> Any:
    return connect(Locator("fraud", "server", speaker.url, options, within=timedelta(seconds=5)))


@pytest.fixture
def torch():
    speaker = torchserve.Speaker()
    yield speaker
    speaker.stop()


@pytest.fixture
def llm():
    speaker = openai.Speaker()
    yield speaker
    speaker.stop()


# TorchServe


def test_torchserve_without_its_management_api_claims_no_version(torch):
    server = spoken(torch)
    assert server.can == {"at", "load"}
    assert (server.ready(), server.version(), server.signature()) == (True, None, None)
    assert server.infer(torchserve.REQUEST).version is None
    assert server.at("2").infer(torchserve.REQUEST).version == "2"


@pytest.mark.parametrize(("worker", "ready"), [("READY", True), ("LOADING", False), ("UNLOADING", False), (None, False)])
def test_torchserve_is_ready_when_a_worker_of_the_model_is(torch, worker, ready):
    torch.worker = worker
    assert spoken(torch, **torch.options).ready() is ready


def test_torchserve_is_not_ready_for_a_model_or_version_it_has_not_loaded(torch):
    server = spoken(torch, **torch.options)
    assert server.at("2").ready() is True
    assert server.at("9").ready() is False
    assert connect(Locator("fraud", "server", torch.url[:-1] + "other", torch.options)).ready() is False


def test_torchserve_that_answers_while_its_management_api_does_not_is_an_error_and_no_verdict(torch):
    server = spoken(torch, management="http://127.0.0.1:9")
    for ask in (server.ready, server.version):
        with pytest.raises(UnreachableError):
            ask()
    assert server.infer(torchserve.REQUEST).body == [2.0, 4.0]


@pytest.mark.parametrize("fault", ["list", "nan", "html"])
def test_torchserve_described_in_no_known_way_is_an_error(torch, fault):
    server = spoken(torch, **torch.options)
    torch.fault = fault
    with pytest.raises(AnswerError):
        server.version()


def test_torchserve_keeps_a_prefix_and_needs_a_model():
    server = connect(Locator("fraud", "server", "torchserve+http://host/torch/predictions/m"))
    assert server.at("1.0").request({}).url == "http://host/torch/predictions/m/1.0"
    with pytest.raises(ConfigError, match="names no model"):
        connect(Locator("fraud", "server", "torchserve+http://host:8080"))
    with pytest.raises(ConfigError, match="not an HTTP address"):
        connect(Locator("fraud", "server", "torchserve+http://host/m", {"management": "host:8081"}))


# OpenAI-compatible


def test_a_prompt_and_a_chat_go_to_places_of_their_own(llm):
    server = spoken(llm)
    assert server.infer(ASKED).body["choices"][0]["message"]["content"] == "[2.0, 4.0]"
    assert server.infer({"prompt": "[1, 2]"}).body["choices"][0]["text"] == "[2.0, 4.0]"
    assert [path for method, path, *_ in llm.requests if method == "POST"] == ["/v1/chat/completions", "/v1/completions"]


def test_a_request_that_is_neither_chat_nor_prompt_is_not_sent(llm):
    for ask in (spoken(llm).infer, spoken(llm).request):
        for wrong in ([1], {"input": "text"}):
            with pytest.raises(CannotError, match=r"fraud.server: a request has `messages` or a `prompt`"):
                ask(wrong)
    assert llm.requests == []


def test_infer_never_streams_and_a_request_for_load_does(llm):
    server = spoken(llm)
    assert server.infer({**ASKED, "stream": True, "stream_options": {"include_usage": True}}).version == "1"
    events = again(server.request(ASKED)).decode().split("\n\n")
    assert events[-2] == "data: [DONE]"
    assert json.loads(events[-3].removeprefix("data: "))["usage"] == {"completion_tokens": 2}
    words = [json.loads(event.removeprefix("data: "))["choices"][0]["delta"]["content"] for event in events[1:-3]]
    assert words == ["[2.0,", "4.0]"]


def test_a_request_may_say_how_it_streams(llm):
    server = spoken(llm)
    whole = server.request({**ASKED, "stream": False})
    assert json.loads(again(whole))["choices"][0]["message"]["content"] == "[2.0, 4.0]"
    assert (whole.fields, server.request(ASKED).fields) == (("choices.0",), ())
    assert json.loads(server.request({**ASKED, "stream_options": None}).body)["stream_options"] is None


@pytest.mark.parametrize(
    ("listed", "model", "ready", "version"),
    [
        (("1",), "", True, "1"),
        (("1", "2"), "", True, None),  # several, and nobody says which is meant
        (("1", "2"), "2", True, "2"),
        (("1",), "2", False, None),
        ((), "2", True, None),  # transformers serve 5.23 lists none, and serves one
    ],
)
def test_a_models_id_is_its_version(llm, listed, model, ready, version):
    llm.listed = listed
    server = spoken(llm, **({"model": model} if model else {}))
    assert (server.ready(), server.version()) == (ready, version)


def test_a_request_names_its_model_or_gets_the_one_that_is_meant(llm):
    llm.listed = ("1", "2")
    assert spoken(llm, model="2").infer(ASKED).version == "2"
    assert spoken(llm, model="2").infer({**ASKED, "model": "1"}).version == "1"
    assert spoken(llm, model="1").at("2").infer({**ASKED, "model": "1"}).version == "2"
    with pytest.raises(CannotError, match=r"fraud.server: 2 models are listed, and the request names none; give the target `model: ID`"):
        spoken(llm).infer(ASKED)


def test_the_only_model_is_looked_up_once_and_again_when_it_is_gone(llm):
    server = spoken(llm)
    for _ in range(3):
        server.request(ASKED)
    assert len(llm.requests) == 1
    llm.listed = ("3",)  # which it cannot answer for either
    server._listed = "gone"
    with pytest.raises(AnswerError):
        server.infer(ASKED)
    llm.listed = ("2",)
    assert server.infer(ASKED).version == "2"


def test_a_model_that_is_no_text_is_refused():
    with pytest.raises(ConfigError, match=r"fraud.server.model: write the id of a model, not 7"):
        connect(Locator("fraud", "server", "openai+http://host/v1", {"model": 7}))


def test_an_answer_without_choices_is_none(llm):
    llm.fault = "list"
    with pytest.raises(AnswerError, match="no list of choices"):
        spoken(llm, model="1").infer(ASKED)
