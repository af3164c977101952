"""Strategies that keep no rows, and hold the net to where it was, or to what it said."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch.nn import functional

from runbooks._continual_rows import Rows
from runbooks._fisher import fisher
from runbooks._learning import Part, under


class Anchors(Part):
    """Elastic weight consolidation (Kirkpatrick et al. 2017): each weight is held to where it ended after every task, as firmly as it mattered there.

    The penalty is strength/2 times the sum over tasks of F (w - w*)^2. Of all tasks together only A = sum F and B = sum F w* are kept, which say the
    same (Huszar 2018). `decay` below 1 lets earlier tasks fade (online EWC, Schwarz et al. 2018). The penalty is not followed by its gradient, which
    runs away once lr x strength x F passes 2, but solved for: w <- (w + lr strength B) / (1 + lr strength A), the proximal step, which cannot.
    """

    def __init__(self, strength: float, decay: float, rows: int) -> None:
        self.strength, self.decay, self.rows = strength, decay, rows
        self.firm: dict[str, Any] = {}  # A
        self.pull: dict[str, Any] = {}  # B

    def stepped(self, net: Any, rate: float) -> None:
        if not self.firm:
            return
        reach = rate * self.strength
        with torch.no_grad():
            for name, weights in net.named_parameters():
                weights.add_(self.pull[name], alpha=reach).div_(self.firm[name].mul(reach).add_(1.0))

    def learned(self, net: Any, rows: Rows, random: torch.Generator) -> None:
        places = torch.randperm(len(rows), generator=random)[: self.rows].to(rows.y.device)
        for name, matters in fisher(net, rows.x[places]).items():
            weights = net.get_parameter(name).detach()
            self.firm[name] = matters + self.decay * self.firm.get(name, torch.zeros_like(matters))
            self.pull[name] = matters * weights + self.decay * self.pull.get(name, torch.zeros_like(matters))

    def state(self) -> Mapping[str, Any]:
        return {f"firm.{name}": value for name, value in self.firm.items()} | {f"pull.{name}": value for name, value in self.pull.items()}

    def restore(self, net: Any, state: Mapping[str, Any], tasks: Sequence[int]) -> None:
        self.firm, self.pull = under(state, "firm."), under(state, "pull.")


class Distilled(Part):
    """Learning without forgetting (Li and Hoiem 2016): on the new rows the net must also still say what it said of them before it learned any."""

    def __init__(self, strength: float, temperature: float) -> None:
        self.strength, self.temperature = strength, temperature
        self.before: Any = None  # the net as it was when the task began

    def begin(self, net: Any, task: int, first: bool) -> None:
        self.before = None if first else copy.deepcopy(net).eval().requires_grad_(False)

    def loss(self, net: Any, x: Any, y: Any, random: torch.Generator) -> Any:
        if self.before is None:
            return None
        found, heat = net(x), self.temperature
        with torch.no_grad():
            taught = functional.softmax(self.before(x) / heat, 1)
        apart = functional.kl_div(functional.log_softmax(found / heat, 1), taught, reduction="batchmean")
        return functional.cross_entropy(found, y) + self.strength * heat**2 * apart

    def learned(self, net: Any, rows: Rows, random: torch.Generator) -> None:
        self.before = None

    def state(self) -> Mapping[str, Any]:
        return {} if self.before is None else {f"before.{name}": value for name, value in self.before.state_dict().items()}

    def restore(self, net: Any, state: Mapping[str, Any], tasks: Sequence[int]) -> None:
        if taught := under(state, "before."):
            self.before = copy.deepcopy(net).eval().requires_grad_(False)
            self.before.load_state_dict(taught)
