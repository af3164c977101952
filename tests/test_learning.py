"""Learning one task after the other, without files: what each strategy promises, held to an oracle outside of it."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from agent.errors import ConfigError, TrainingError
from tests.conftest import library
from tests.lessons import NETS, clouds

torch = library("torch")

from runbooks._continual_rows import Rows, chance, split  # noqa: E402 - not to be imported where torch is missing
from runbooks._fisher import fisher  # noqa: E402
from runbooks._learning import How, Learner, Lesson  # noqa: E402
from runbooks._strategies import STRATEGIES, made, parts  # noqa: E402
from runbooks._strategies_anchored import Anchors  # noqa: E402
from runbooks._strategies_apart import Switch  # noqa: E402
from runbooks._strategies_rehearsal import Kept, sample  # noqa: E402

FACTORIES: dict[str, object] = {}
exec(NETS, FACTORIES)
HOW = How(epochs=8, batch=16, lr=0.1, seed=1)
OLD, NEW = (Rows(*map(torch.from_numpy, clouds(classes, seed=seed))) for classes, seed in (((0, 1), 1), ((2, 3), 2)))


@pytest.fixture(autouse=True)
def alone():
    """As in the program."""
    torch.set_num_threads(1)


def net(name="mlp", seed=0):
    torch.manual_seed(seed)
    return FACTORIES[name]()


def learner(name, how=HOW, factory="mlp", **given):
    torch.manual_seed(0)
    start = made(name, given, FACTORIES[factory])
    return Learner(start.net, start.parts, how)


def two(apart=False):
    return [Lesson(0, OLD, name="old"), Lesson(1 if apart else 0, NEW)]


def bits(thing):
    return {name: value.clone() for name, value in thing.items()}


# What is forgotten


def test_naive_forgets_and_rehearsal_does_not():
    kept = {}
    for name in ("naive", "replay", "der++", "ewc+replay"):
        one = learner(name)
        one.learn(two())
        kept[name] = one.measure(OLD, 0)[0]
        assert one.measure(NEW, 0)[0] > 0.9, name
    assert kept.pop("naive") < 0.7
    assert min(kept.values()) > 0.9, kept


@pytest.mark.parametrize("name", ["ewc", "lwf"])
def test_what_keeps_no_rows_holds_on_to_more_than_naive_where_the_head_is_shared(name):
    """The same two answers for both tasks; two other classes of rows, so that the old answers can stay right."""
    old, new = (Rows(rows.x, rows.y % 2) for rows in (OLD, NEW))
    lost = {}
    for each in ("naive", name):
        one = learner(each, How(epochs=30, batch=16, lr=0.1, seed=1), **({"strength": 300.0} if each == "ewc" else {}))
        one.learn([Lesson(0, old), Lesson(0, Rows(new.x, 1 - new.y))])
        lost[each] = one.measure(old, 0)[1]
    assert lost[name] < lost["naive"]


@pytest.mark.parametrize("name", ["packnet", "progressive"])
def test_a_task_with_weights_of_its_own_is_answered_bit_for_bit_as_before(name):
    one = learner(name)
    one.learn(two(True)[:1])
    before = one.answer(OLD.x, 0)
    one.learn(two(True))
    assert torch.equal(one.answer(OLD.x, 0), before)
    assert one.measure(OLD, 0)[0] > 0.9 and one.measure(NEW, 1)[0] > 0.9


def test_one_graph_answers_for_every_task_and_with_no_number_for_an_unknown_one():
    one = learner("packnet")
    one.learn(two(True))
    both = Switch({task: one.view(task) for task in one.tasks}).eval()
    asked = torch.cat((torch.cat((OLD.x, torch.zeros(len(OLD), 1)), 1), torch.cat((NEW.x, torch.ones(len(NEW), 1)), 1)))
    with torch.no_grad():
        assert torch.equal(both(asked), torch.cat((one.answer(OLD.x, 0), one.answer(NEW.x, 1))))
        assert both(torch.cat((OLD.x, torch.full((len(OLD), 1), 5.0)), 1)).isnan().all()


@pytest.mark.parametrize("name", ["packnet", "progressive"])
def test_a_task_that_is_closed_is_not_learned_again(name):
    one = learner(name)
    with pytest.raises(TrainingError, match="task 0 was learned before"):
        one.learn([Lesson(0, OLD), Lesson(0, NEW)])
    with pytest.raises(TrainingError, match="task 9 was never learned"):
        one.answer(OLD.x, 9)


def test_packnet_says_when_no_weight_is_left():
    one = learner("packnet", How(epochs=1, batch=64, lr=0.1), prune=0.01, settle_for=1)
    with pytest.raises(TrainingError, match="no weight is left"):
        one.learn([Lesson(task, OLD) for task in range(30)])


def test_packnet_refuses_statistics_that_run_and_progressive_what_is_no_row_of_layers():
    with pytest.raises(ConfigError, match="BatchNorm"):
        learner("packnet", factory="normed").learn(two(True))
    with pytest.raises(ConfigError, match=r"torch\.nn\.Sequential"):
        learner("progressive", factory="Odd").learn(two(True))


# Taken up again


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
@pytest.mark.parametrize("name", list(STRATEGIES))
def test_what_is_taken_up_after_any_epoch_ends_in_the_same_bits(name, optimizer):
    apart = name in ("packnet", "progressive")
    factory = "mlp" if apart else "dropped"
    how = How(epochs=2, batch=32, lr=0.05 if optimizer == "sgd" else 0.01, optimizer=optimizer, momentum=0.5, patience=5, seed=4)
    lessons = [Lesson(one.task, one.rows, ((one.task, one.rows),)) for one in two(apart)]
    stood = []
    whole = learner(name, how, factory)
    whole.learn(lessons, lambda: stood.append((bits(whole.state()), list(whole.tasks), whole.place)))
    assert len(stood) > 3
    for state, tasks, place in stood[::2]:
        again = learner(name, how, factory)
        again.restore(state, tasks, place)
        again.learn(lessons)
        found, meant = again.state(), whole.state()
        assert found.keys() == meant.keys()
        assert all(torch.equal(found[key], meant[key]) for key in meant), place


def test_learning_ends_early_and_with_the_net_of_the_best_epoch():
    hard = Rows(NEW.x, NEW.y[torch.randperm(len(NEW), generator=torch.Generator().manual_seed(0))])  # nothing there to learn
    how = How(epochs=200, batch=8, lr=0.2, patience=3, seed=1)
    one, losses = learner("naive", how), []
    held = Rows(*map(torch.from_numpy, clouds((2, 3), seed=9)))
    one.learn([Lesson(0, hard, ((0, held),))], lambda: losses.append(one.measure(held, 0)[1]))
    assert len(losses) < 200 and len(losses) - 1 - int(np.argmin(losses)) == 3
    assert one.measure(held, 0)[1] == min(losses)


def test_a_loss_that_is_no_number_ends_learning_with_what_to_do():
    with pytest.raises(TrainingError, match=r"ran away; lower lr \(1e\+30\)"):
        learner("naive", How(epochs=3, lr=1e30)).learn(two())


# Oracles


def test_the_fisher_information_is_the_expected_square_of_each_row_s_own_gradient():
    one, x = net(), OLD.x[:20]
    meant = {name: torch.zeros_like(value) for name, value in one.named_parameters()}
    for row in x:
        logs = torch.log_softmax(one(row[None])[0], 0)
        for log in logs:
            one.zero_grad()
            log.backward(retain_graph=True)
            for name, value in one.named_parameters():
                meant[name] += log.exp().detach() * value.grad**2 / len(x)
    found = fisher(one, x)
    assert found.keys() == meant.keys()
    for name in meant:
        torch.testing.assert_close(found[name], meant[name], rtol=1e-4, atol=1e-8)


def test_the_short_way_to_the_fisher_information_agrees_with_the_long_one():
    one, x = net(), OLD.x[:12]
    wrapped = torch.nn.Sequential(one, torch.nn.LayerNorm(4, elementwise_affine=False))
    scaled = torch.nn.Sequential(one, torch.nn.LayerNorm(4, elementwise_affine=True))  # its own weights are of no linear layer: the long way
    short, long = fisher(wrapped, x), fisher(scaled, x)
    for name in short:
        torch.testing.assert_close(short[name], long[name], rtol=1e-4, atol=1e-8)
    assert not set(short) ^ {name for name in long if not name.startswith("1.")}


@given(st.integers(0, 2**31), st.floats(0.1, 1e6), st.floats(0.001, 0.5))
@settings(max_examples=25, deadline=None)
def test_the_step_towards_the_anchors_is_the_minimum_of_the_penalty_and_the_distance(seed, strength, rate):
    """argmin over w of |w - v|^2 / (2 rate) + strength / 2 sum over tasks of F (w - w*)^2, by solving for the zero of its slope."""
    random = np.random.default_rng(seed)
    one = torch.nn.Linear(3, 2, bias=False).double()
    start = random.normal(size=(2, 3))
    firm, ends = random.uniform(0, 2, (4, 2, 3)), random.normal(size=(4, 2, 3))
    anchors = Anchors(strength, 1.0, 10)
    anchors.firm = {"weight": torch.from_numpy(firm.sum(0))}
    anchors.pull = {"weight": torch.from_numpy((firm * ends).sum(0))}
    with torch.no_grad():
        one.weight.copy_(torch.from_numpy(start))
    anchors.stepped(one, rate)
    found = one.weight.detach().numpy()
    slope = (found - start) / rate + strength * (firm * (found - ends)).sum(0)
    assert np.abs(slope).max() <= 1e-9 * (1 + strength + 1 / rate) * 20


def test_anchors_of_several_tasks_are_kept_as_one_sum_and_fade():
    one, first, second = net(), Anchors(1.0, 1.0, 50), Anchors(1.0, 0.5, 50)
    for anchors in (first, second):
        anchors.learned(one, OLD, chance(0))
        anchors.learned(one, OLD, chance(0))
    alone = fisher(one, OLD.x[torch.randperm(len(OLD), generator=chance(0))[:50]])
    for name, value in one.named_parameters():
        torch.testing.assert_close(first.firm[name], 2 * alone[name])
        torch.testing.assert_close(second.firm[name], 1.5 * alone[name])
        torch.testing.assert_close(second.pull[name], 1.5 * alone[name] * value.detach())


# The buffer


def stream(n, labels=None, seed=0):
    lots = torch.rand(n, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    y = torch.zeros(n, dtype=torch.int64) if labels is None else torch.from_numpy(np.asarray(labels, dtype=np.int64))
    return Kept(torch.arange(n, dtype=torch.float32)[:, None], y, lots, torch.zeros(n, 4))


def test_every_row_of_a_stream_is_as_likely_to_be_kept():
    counts = np.zeros(40)
    for seed in range(600):
        kept = sample(stream(40, seed=seed), 10, "stream")
        counts[kept.x[:, 0].int().numpy()] += 1
    assert counts.sum() == 6000
    assert stats.chisquare(counts).pvalue > 0.001


@given(st.lists(st.integers(0, 3), min_size=1, max_size=60), st.integers(1, 30), st.sampled_from(["stream", "class"]), st.data())
@settings(max_examples=60, deadline=None)
def test_it_does_not_matter_in_which_parts_a_stream_comes(labels, size, balance, data):
    whole = stream(len(labels), labels)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(labels)), max_size=4)))
    held = None
    for begin, end in zip([0, *cuts], [*cuts, len(labels)], strict=True):
        part = whole.at_places(torch.arange(begin, end))
        both = [one for one in (held, part) if one is not None]
        held = sample(Kept(*(torch.cat([getattr(one, name) for one in both]) for name in ("x", "y", "lot", "logits"))), size, balance)
    at_once = sample(whole, size, balance)
    assert set(held.x[:, 0].tolist()) == set(at_once.x[:, 0].tolist())


@given(st.lists(st.integers(0, 3), min_size=1, max_size=80), st.integers(1, 40))
@settings(max_examples=60, deadline=None)
def test_by_class_no_class_has_two_more_than_one_that_still_had_rows(labels, size):
    kept = sample(stream(len(labels), labels), size, "class").y.tolist()
    there = {label: labels.count(label) for label in set(labels)}
    assert len(kept) == min(size, len(labels))
    for label, many in there.items():
        assert all(kept.count(label) >= min(many, kept.count(other) - 1) for other in there)


def test_a_part_of_the_rows_is_held_out_and_nothing_is_lost_or_twice():
    rows = Rows(torch.arange(50.0)[:, None], torch.zeros(50, dtype=torch.int64))
    learned, held = split(rows, 0.2, chance(1))
    assert len(held) == 10 and sorted([*learned.x[:, 0].tolist(), *held.x[:, 0].tolist()]) == list(range(50))
    assert len(split(rows.at_places(torch.tensor([3])), 0.2, chance(1))[0]) == 1


# Settings


@pytest.mark.parametrize(
    ("name", "given", "said"),
    [
        ("replayy", {}, "there is no strategy 'replayy'; there is naive"),
        ("replay", {"buffer": 0}, "parameters.with.buffer: input should be greater than or equal to 1"),
        ("replay", {"buffer": "many"}, "parameters.with.buffer: input should be a valid integer"),
        ("replay", {"strength": 1.0}, "parameters.with.strength: replay has no such setting"),
        ("replay", {"balance": "random"}, "parameters.with.balance: input should be 'stream' or 'class'"),
        ("packnet", {"prune": 1.0}, "parameters.with.prune: input should be less than 1"),
        ("ewc", {"strength": float("nan")}, "parameters.with.strength"),
    ],
)
def test_a_setting_that_cannot_be_meant_is_named(name, given, said):
    with pytest.raises(ConfigError) as problem:
        parts(name, given)
    assert said in str(problem.value)
