"""Retraining whose agent is killed: another one carries it on, the training is one and the same, and the champion is never touched."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import pytest

from agent import verbs
from agent.store import Store
from tests.campaign import Warm
from tests.learning import ended, learning

HALF = {"1": 0.5, "2": 0.5}
BEGUN = "open({begun!r}, 'a').write('begun\\n')\n"
