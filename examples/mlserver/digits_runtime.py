"""The digits classifier as a custom MLServer runtime; `implementation: examples.mlserver.digits_runtime.Digits`.

With DIGITS_LOG set, what is asked and answered is logged to that SQLite file: MLServer has no place for a middleware.
"""

from __future__ import annotations

import json
import os
import time
from functools import cache
from pathlib import Path
from typing import Any

from mlserver import MLModel
from mlserver.errors import InferenceError
from mlserver.types import InferenceRequest, InferenceResponse, ResponseOutput

from examples.digits.model import DigitModel, RefusedError, pixels_of
from examples.prediction_log import PredictionLog


class Digits(MLModel):
    """Loads the version folder that `parameters.uri` names, with the preparation that the server's code has for it."""

    async def load(self) -> bool:
        self._digits = DigitModel(Path(self.settings.parameters.uri))
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        began = time.time()
        try:
            found = self._digits.predict(pixels_of(payload.model_dump()))
        except RefusedError as problem:
            self._log(payload, began, 400, {"error": str(problem), "model_name": self.name, "model_version": self.version})
            raise InferenceError(str(problem)) from problem
        outputs = [
            ResponseOutput(name=one["name"], datatype=one["datatype"], shape=list(found[one["name"]].shape), data=found[one["name"]].ravel().tolist())
            for one in self._digits.outputs
        ]
        answer = InferenceResponse(model_name=self.name, model_version=self.version, id=payload.id, outputs=outputs)
        self._log(payload, began, 200, answer.model_dump())
        return answer

    def _log(self, payload: InferenceRequest, began: float, status: int, said: dict[str, Any]) -> None:
        path = os.environ.get("DIGITS_LOG")
        if path:
            headers = (payload.parameters and payload.parameters.headers) or {}
            asked = payload.model_dump_json(exclude={"parameters"}).encode()
            seen = {"at": began, "seconds": time.time() - began, "status": status, "asked": asked, "said": json.dumps(said).encode()}
            log_at(path).keep({**seen, "probe": "x-watchkeeper-probe" in headers})


@cache
def log_at(path: str) -> PredictionLog:
    """One for all versions, however often they are loaded."""
    return PredictionLog(None, path)
