"""Training: the same bits for a seed, those that plain torch would train, and a report."""

from __future__ import annotations

import io
import math
import signal
import sys
import threading

import pytest
import torch
from training_tasks import SETTINGS, Factors, pressing, same_bits

from llmrec_kernels.training import Training, TrainingDivergedError, learner, train
from llmrec_kernels.training.interrupt import Interrupt
from llmrec_kernels.training.learner import Learner

WHOLE = SETTINGS._replace(batch_size=100, accumulate=1)


def trained(task, **settings):
    report = train(task, SETTINGS._replace(**settings))
    return task.weights(), report


def plain(**options):
    return Factors(dropout=0.0, draws=False, **options)


def test_the_same_seed_gives_the_same_bits_whatever_was_drawn_before():
    once, _ = trained(Factors())
    torch.randn(7)
    again, _ = trained(Factors())
    other, _ = trained(Factors(), seed=1)
    assert same_bits(once, again)
    assert not same_bits(once, other)


def test_the_callers_random_numbers_are_as_they_were():
    task = Factors()
    torch.manual_seed(3)
    expected = torch.rand(4)
    torch.manual_seed(3)
    train(task, SETTINGS)
    assert torch.equal(torch.rand(4), expected)


def test_each_epoch_has_each_example_once_in_another_order():
    task = Factors()
    trained(task, epochs=2)
    seen = torch.cat(task.seen)
    first, second = seen[:100], seen[100:]
    assert first.sort().values.tolist() == second.sort().values.tolist() == list(range(100))
    assert not torch.equal(first, second)
    assert {len(one) for one in task.seen} == {9, 1}


def test_it_trains_as_a_loop_of_plain_torch_does():
    task, twin = plain(), plain()
    report = train(task, WHOLE._replace(epochs=5, clip=0.02, weight_decay=0.1))
    optimizer = torch.optim.AdamW(
        [one for one in twin.network.parameters() if one.requires_grad], lr=0.05, weight_decay=0.1
    )
    losses = []
    for _ in range(5):
        optimizer.zero_grad()
        twin.network.train()
        loss = twin.loss(torch.arange(100))
        loss.backward()
        norm = sum(
            one.grad.square().sum() for one in twin.network.parameters() if one.grad is not None
        )
        assert norm.sqrt() > 0.02
        for one in twin.network.parameters():
            if one.grad is not None:
                one.grad *= 0.02 / norm.sqrt()
        optimizer.step()
        losses.append(loss.item())
    assert [one.loss for one in report.epochs] == pytest.approx(losses, rel=1e-4)
    best = train(plain(), WHOLE._replace(epochs=report.best_epoch, clip=0.02, weight_decay=0.1))
    assert best.epochs[-1].validation == report.epochs[report.best_epoch - 1].validation


def test_accumulated_batches_are_one_batch_as_large_also_where_the_last_is_short():
    several, _ = trained(plain(validates=False), batch_size=9, accumulate=4)
    one, report = trained(plain(validates=False), batch_size=36, accumulate=1)
    assert report.steps == 3 * 3
    for name, tensor in one.items():
        torch.testing.assert_close(several[name], tensor, rtol=1e-4, atol=1e-6)


def test_it_stops_when_validation_gets_no_better_and_keeps_the_best_weights():
    task = plain()
    values = iter([3.0, 2.0, 4.0, 2.0, 5.0, 1.0])
    kept = []

    def validate():
        kept.append(task.weights())
        return next(values)

    task.validate = validate
    _, report = trained(task, epochs=6, patience=3)
    assert (report.stopped_early, report.best_epoch, len(report.epochs)) == (True, 2, 5)
    assert report.steps == 5 * 6
    assert same_bits(task.weights(), kept[1])
    assert not task.network.training


def test_without_validation_all_epochs_are_trained_and_the_last_is_kept():
    weights, report = trained(plain(validates=False), patience=1)
    best = trained(plain(validates=False), epochs=2)[0]
    assert (report.stopped_early, report.best_epoch, len(report.epochs)) == (False, 3, 3)
    assert not same_bits(weights, best)


def test_validation_is_in_eval_mode_without_gradients_and_learning_in_train_mode():
    task, modes = plain(), []
    inner = task.loss
    task.loss = lambda examples: modes.append(task.network.training) or inner(examples)
    trained(task)
    assert set(task.modes) == {(False, False)}
    assert set(modes) == {True}


def test_bfloat16_is_of_products_and_weights_stay_float32():
    task = plain()
    dtypes = []
    task.network["frozen"].register_forward_hook(lambda *parts: dtypes.append(parts[2].dtype))
    weights, _ = trained(task, precision="bfloat16")
    exact, _ = trained(plain())
    assert set(dtypes) == {torch.bfloat16}
    assert {one.dtype for one in weights.values()} == {torch.float32}
    assert not same_bits(weights, exact)
    auto = Learner(plain(), SETTINGS._replace(precision="auto")).precision
    assert auto == ("bfloat16" if learner._has_bfloat16(torch.device("cpu")) else "float32")


def test_groups_of_parameters_have_settings_of_their_own():
    task, before = plain(), plain().weights()
    user, *rest = (one for one in task.network.parameters() if one.requires_grad)
    groups = [{"params": [user], "lr": 0.0}, {"params": rest}]
    train(task, SETTINGS, parameter_groups=groups)
    after = task.weights()
    assert torch.equal(before["user.weight"], after["user.weight"])
    assert not torch.equal(before["item.weight"], after["item.weight"])
    with pytest.raises(ValueError, match="parameter_groups have 1 parameters; expected the 4"):
        train(plain(), SETTINGS, parameter_groups=groups[:1])


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_loss_that_is_not_finite_stops_before_it_meets_the_weights(bad):
    task, good = plain(bad=15), plain()
    inner = task.loss
    task.loss = lambda examples: inner(examples).nan_to_num(bad)
    steps = Learner(good, SETTINGS)
    good.network.train()
    for epoch, number in [*((0, number) for number in range(6)), (1, 0)]:
        examples = steps.order(epoch).split(18)[number]
        steps.step(examples, epoch, number, Interrupt(0.0))
    with pytest.raises(TrainingDivergedError) as caught:
        train(task, SETTINGS)
    said = str(caught.value)
    assert f"at epoch 2, step 2 of 6, learning rate 0.05: loss {bad}" in said
    assert "No checkpoint was kept, as training.checkpoint is None" in said
    assert "Try a smaller learning_rate" in said
    assert same_bits(task.weights(), good.weights())


def test_a_gradient_that_is_not_finite_stops_it_too():
    task = plain()
    task.loss = lambda examples: (task.network["user"].weight * 0).abs().sqrt().sum()
    with pytest.raises(TrainingDivergedError, match=r"loss 0.0, norm of the gradient nan"):
        train(task, SETTINGS._replace(precision="bfloat16"))


def test_a_validation_that_is_not_finite_stops_it_too():
    task = plain()
    task.validate = lambda: math.nan
    with pytest.raises(TrainingDivergedError, match=r"at epoch 1, step 6 of 6.* validation nan"):
        train(task, SETTINGS)


class Line:
    """A line through points, whose loss has another level."""

    size = 8

    def __init__(self, level=0.0, learned=False):
        torch.manual_seed(0)
        self.network = torch.nn.Linear(1, 1)
        self.level = level
        if learned:
            self.network.load_state_dict({"weight": torch.tensor([[2.0]]), "bias": torch.zeros(1)})

    def loss(self, examples):
        x = examples[:, None] / 8
        return (self.network(x) - 2 * x).square().mean() + self.level

    def validate(self):
        return None

    def identity(self):
        return {"architecture": "line"}


@pytest.mark.parametrize("level", [0.0, -1000.0, 1000.0])
@pytest.mark.parametrize("rate", [1e3, 1e12, 1e30])
def test_the_last_step_is_not_allowed_to_lose_what_was_learned(level, rate):
    settings = Training(epochs=1, batch_size=8, learning_rate=rate)
    with pytest.raises(TrainingDivergedError, match=r"at epoch 1, step 1 of 1.* first batch"):
        train(Line(level), settings)


def test_weights_that_are_infinite_are_told():
    task = Line()
    task.loss = lambda _: sum(one.sum() * 0 for one in task.network.parameters())
    with torch.no_grad():
        task.network.weight.fill_(3e38)
    settings = Training(epochs=1, batch_size=8, learning_rate=1e30, weight_decay=1e6)
    with pytest.raises(TrainingDivergedError, match=r"step 1 of 1.* weights are NaN or infinite"):
        train(task, settings)


@pytest.mark.parametrize("level", [0.0, -1000.0, 1000.0])
def test_a_loss_may_be_of_any_level_and_begin_at_its_best(level):
    for learned in (False, True):
        report = train(Line(level, learned), Training(epochs=3, batch_size=2, learning_rate=0.3))
        assert len(report.epochs) == 3


def test_to_see_whether_weights_are_good_changes_none():
    task = Factors()
    looking = Learner(task, SETTINGS)
    before = task.weights()
    assert looking.first_loss() == looking.first_loss()
    assert same_bits(task.weights(), before)


def test_torch_is_as_deterministic_afterwards_as_before():
    during = []
    task = plain()
    inner = task.loss
    task.loss = lambda examples: (
        during.append(torch.are_deterministic_algorithms_enabled()) or inner(examples)
    )
    train(task, SETTINGS)
    assert set(during) == {True}
    assert torch.get_deterministic_debug_mode() == 0
    torch.use_deterministic_algorithms(True)
    try:
        train(plain(), SETTINGS)
        assert torch.get_deterministic_debug_mode() == 2
    finally:
        torch.use_deterministic_algorithms(False)


def test_ctrl_c_is_told_when_the_step_is_done_and_the_handler_is_as_it_was():
    before = signal.getsignal(signal.SIGINT)
    task = pressing(plain(), True)
    with pytest.raises(KeyboardInterrupt, match=r"interrupted at epoch 1, after step 5. No checkp"):
        train(task, SETTINGS)
    assert task.calls == 10
    assert signal.getsignal(signal.SIGINT) is before


def test_a_launcher_that_passes_ctrl_c_on_is_no_second_press():
    at_once, patient = Interrupt(0.0), Interrupt(60.0)
    for interrupt in (at_once, patient):
        interrupt.hear(signal.SIGINT, None)
    patient.hear(signal.SIGINT, None)
    with pytest.raises(KeyboardInterrupt):
        at_once.hear(signal.SIGINT, None)


def test_it_trains_in_other_threads_where_no_signal_can_be_heard():
    task = plain()
    thread = threading.Thread(target=train, args=(task, SETTINGS))
    thread.start()
    thread.join()
    assert same_bits(task.weights(), trained(plain())[0])


def test_a_file_has_a_line_an_epoch_and_a_terminal_a_bar(monkeypatch):
    def shown(terminal, progress):
        file = io.StringIO()
        file.isatty = lambda: terminal
        monkeypatch.setattr(sys, "stderr", file)
        trained(plain(), progress=progress)
        return file.getvalue()

    report = train(plain(), SETTINGS)
    lines = shown(False, True).splitlines()
    assert [line.split(":")[0] for line in lines] == ["epoch 1/3", "epoch 2/3", "epoch 3/3"]
    assert f"loss {report.epochs[0].loss:.4g}, validation 0.0" in lines[0]
    assert lines[0].endswith(" left")
    bar = shown(True, None)
    assert "epoch 3/3" in bar
    assert " left, loss=" in bar or "left, loss" in bar
    assert "validation 0.0" in bar
    assert shown(False, None) == shown(True, False) == shown(False, False) == ""


@pytest.mark.parametrize(
    ("given", "error", "said"),
    [
        ({"epochs": 0}, ValueError, "training.epochs is 0; expected at least 1"),
        ({"batch_size": 2.5}, TypeError, "training.batch_size is 2.5; expected an integer"),
        ({"learning_rate": 0}, ValueError, "training.learning_rate is 0.0; expected more than 0"),
        ({"learning_rate": "1"}, TypeError, "training.learning_rate is '1'; expected a number"),
        ({"learning_rate": 1e38}, ValueError, r"learning_rate is 1e\+38; expected at most 1e\+30"),
        (
            {"weight_decay": 1e7},
            ValueError,
            "training.weight_decay is 10000000.0; expected at most",
        ),
        ({"weight_decay": -1}, ValueError, "training.weight_decay is -1.0; expected at least 0"),
        ({"clip": math.nan}, ValueError, "training.clip is nan; expected a finite number"),
        ({"clip": True}, TypeError, "training.clip is True; expected a number"),
        ({"patience": 0}, ValueError, "training.patience is 0; expected at least 1"),
        ({"precision": "float16"}, ValueError, "training.precision is 'float16'; expected one of"),
        ({"seed": -1}, ValueError, "training.seed is -1; expected 0 to"),
        ({"checkpoint": 3}, TypeError, "training.checkpoint is 3; expected the path of a folder"),
        ({"checkpoint": ""}, ValueError, "training.checkpoint is empty"),
        ({"progress": 1}, TypeError, "training.progress is 1; expected a bool or None"),
        ({"epoch": 1}, ValueError, "training has 'epoch'; expected names among epochs"),
        (3, TypeError, "training is 3; expected a Training or a dictionary"),
    ],
)
def test_settings_that_are_none_are_refused_by_name(given, error, said):
    with pytest.raises(error, match=said):
        Training.of(given)


def test_a_dictionary_changes_the_defaults_of_its_model():
    default = Training(epochs=7, batch_size=3)
    assert Training.of({"epochs": 2}, default) == Training(epochs=2, batch_size=3)
    assert Training.of(None, default) == default
    assert Training.of(Training(), default) == Training()


def test_tasks_that_nothing_can_be_learned_from_are_refused():
    empty, frozen, shaped, constant = plain(), plain(), plain(), plain()
    empty.size = 0
    frozen.network.requires_grad_(False)
    shaped.loss = lambda examples: shaped.network["user"].weight.sum(dim=0)
    constant.loss = lambda examples: torch.tensor(1.0)
    for task, said in (
        (empty, "task.size is 0; expected at least 1"),
        (frozen, "the network has no parameter that requires a gradient"),
        (shaped, r"the task's loss has shape \[6\]; expected a scalar"),
        (constant, "the task's loss depends on no parameter that is trained"),
    ):
        with pytest.raises(ValueError, match=said):
            train(task, SETTINGS)


def test_large_networks_have_the_fused_optimiser_with_the_same_results(monkeypatch):
    small, _ = trained(plain())
    monkeypatch.setattr(learner, "_MANY", 1)
    task = plain()
    assert Learner(task, SETTINGS).optimizer.defaults["fused"]
    fused, _ = trained(task)
    for name, tensor in small.items():
        torch.testing.assert_close(fused[name], tensor, rtol=1e-4, atol=1e-5)


def test_work_is_where_any_weight_is_that_is_not_on_the_cpu():
    from llmrec_kernels.training.learner import _device

    head = torch.nn.Parameter(torch.zeros(2))
    model = torch.nn.Parameter(torch.zeros(2, device="meta"))  # stands in for a GPU
    assert _device([head]).type == "cpu"
    assert _device([head, model]).type == "meta"
