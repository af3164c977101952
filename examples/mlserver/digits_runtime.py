"""The digits classifier as a custom MLServer runtime; `implementation: examples.mlserver.digits_runtime.Digits`."""

from __future__ import annotations

from pathlib import Path

from mlserver import MLModel
from mlserver.errors import InferenceError
from mlserver.types import InferenceRequest, InferenceResponse, ResponseOutput

from examples.digits.model import DigitModel, RefusedError, pixels_of


class Digits(MLModel):
    """Loads the version folder that `parameters.uri` names, with the preparation that the server's code has for it."""

    async def load(self) -> bool:
        self._digits = DigitModel(Path(self.settings.parameters.uri))
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        try:
            found = self._digits.predict(pixels_of(payload.model_dump()))
        except RefusedError as problem:
            raise InferenceError(str(problem)) from problem
        outputs = [
            ResponseOutput(name=one["name"], datatype=one["datatype"], shape=list(found[one["name"]].shape), data=found[one["name"]].ravel().tolist())
            for one in self._digits.outputs
        ]
        return InferenceResponse(model_name=self.name, model_version=self.version, id=payload.id, outputs=outputs)
