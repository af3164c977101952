"""Avalanche on the protocols of `_digits`: a program of an environment of its own, asked one run a line of JSON, answering with one.

torchvision's wheel is linked to CUDA, and with a torch for the CPU its import fails where it describes operators that never came. Avalanche imports
it, wandb and tensorboard whether they are used or not; nothing of them is used here.
"""

from __future__ import annotations

import json
import sys
import time
import types
from typing import Any

import torch

WHAT_IS_MISSING = "does not exist"


def without_operators() -> None:
    """Import torchvision with what it says of operators that are not there passed over, and empty modules in the others' places."""
    library = torch.library
    kept = library.Library.impl, library.register_fake

    def impl(self: Any, *args: Any, **more: Any) -> Any:
        try:
            return kept[0](self, *args, **more)
        except RuntimeError as problem:
            if WHAT_IS_MISSING not in str(problem):
                raise

    def register_fake(*args: Any, **more: Any) -> Any:
        described = kept[1](*args, **more)

        def described_if_there(function: Any) -> Any:
            try:
                return described(function)
            except RuntimeError as problem:
                if WHAT_IS_MISSING not in str(problem):
                    raise
                return function

        return described_if_there if callable(described) else described

    library.Library.impl, library.register_fake = impl, register_fake
    try:
        import torchvision  # noqa: F401
    finally:
        library.Library.impl, library.register_fake = kept
    for name in ("wandb", "torch.utils.tensorboard", "torch.utils.tensorboard.writer"):
        module = types.ModuleType(name)
        module.SummaryWriter = object  # type: ignore[attr-defined]  # what is imported from it
        sys.modules.setdefault(name, module)


def strategy(method: str, given: dict[str, Any], net: Any) -> Any:
    """Avalanche's own, at the settings that both sides share and those that are given."""
    from avalanche.training import supervised
    from avalanche.training.plugins import EvaluationPlugin

    from benchmarks import _digits as digits

    common = {
        "model": net,
        "optimizer": torch.optim.SGD(net.parameters(), digits.RATE),
        "criterion": torch.nn.CrossEntropyLoss(),
        "train_mb_size": digits.BATCH,
        "train_epochs": digits.EPOCHS,
        "evaluator": EvaluationPlugin(loggers=[]),
    }
    made = {
        "naive": lambda: supervised.Naive(**common),
        "replay": lambda: supervised.Replay(mem_size=digits.BUFFER, **common),
        "ewc": lambda: supervised.EWC(ewc_lambda=given["strength"], mode="separate", **common),
        "der++": lambda: supervised.DER(mem_size=digits.BUFFER, alpha=given["alpha"], beta=given["beta"], **common),
        "packnet": lambda: supervised.PackNet(post_prune_epochs=3, prune_proportion=given["prune"], **common),
    }
    return made[method]()


def stream(tasks: Any, told: bool) -> Any:
    """The tasks as Avalanche takes them; `told` gives each its own number."""
    from avalanche.benchmarks.scenarios import with_classes_timeline, with_task_labels
    from avalanche.benchmarks.scenarios.dataset_scenario import benchmark_from_datasets
    from avalanche.benchmarks.utils.classification_dataset import _make_taskaware_tensor_classification_dataset as dataset

    found = benchmark_from_datasets(train=[dataset(x, y, task_labels=k if told else 0) for k, (x, y, _, _) in enumerate(tasks)])
    return (with_task_labels(with_classes_timeline(found)) if told else found).train_stream


def run(protocol: str, method: str, given: dict[str, Any], seed: int, tuning: bool) -> dict[str, float]:
    """One run: accuracy, forgetting, and the CPU seconds of learning alone."""
    from avalanche.models.packnet import PackNetModel

    from benchmarks import _digits as digits

    tasks, net, told, cpu = digits.tasks(protocol, seed, tuning), digits.net(seed), method == "packnet", 0.0
    net = PackNetModel(net) if told else net
    torch.manual_seed(seed)
    learner, matrix = strategy(method, given, net), []
    for k, experience in enumerate(stream(tasks, told)):
        began = time.process_time()
        learner.train(experience, num_workers=0)
        cpu += time.process_time() - began
        net.eval()
        with torch.no_grad():
            matrix.append([_share(net, x, y, place if told else None) if place <= k or not told else 0.0 for place, (_, _, x, y) in enumerate(tasks)])
        if not told:
            net.train()
    return {**digits.summary(matrix), "seconds": cpu}


def _share(net: Any, x: Any, y: Any, task: int | None) -> float:
    from benchmarks import _digits as digits

    return digits.share(net(x) if task is None else net(x, torch.full((len(x),), task)), y)


def main() -> None:
    torch.set_num_threads(1)
    out, sys.stdout = sys.stdout, sys.stderr  # it prints much
    without_operators()
    for line in sys.stdin:
        print(json.dumps(run(**json.loads(line))), file=out, flush=True)


if __name__ == "__main__":
    main()
