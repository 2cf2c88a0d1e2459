"""Checkpoints: trainings go on from them to the same bits, and what does not fit is refused."""

from __future__ import annotations

import json
import os
import shutil

import pytest
import torch
from safetensors.torch import load_file
from training_tasks import SETTINGS, Factors, pressing, same_bits

from llmrec_kernels.index import disk
from llmrec_kernels.training import CheckpointError, TrainingDivergedError, checkpoint, train


@pytest.fixture
def settings(tmp_path):
    return SETTINGS._replace(checkpoint=str(tmp_path / "checkpoint"))


@pytest.fixture
def half(settings):
    """Settings with a checkpoint in the middle of the second epoch."""
    with pytest.raises(KeyboardInterrupt):
        train(pressing(Factors(), True, call=15), settings)
    return settings


def files(settings):
    folder = os.scandir(settings.checkpoint)
    return {one.name: open(one.path, "rb").read() for one in folder}  # noqa: PTH123


def only(settings, suffix):
    names = [name for name in files(settings) if name.endswith(suffix)]
    assert len(names) == 1
    return os.path.join(settings.checkpoint, names[0])  # noqa: PTH118


@pytest.mark.parametrize("call", [1, 2, 11, 12, 13, 23, 24, 36])
def test_from_wherever_it_was_interrupted_it_goes_on_to_the_same_bits(settings, call):
    whole, again = Factors(), Factors()
    expected = train(whole, SETTINGS)
    with pytest.raises(KeyboardInterrupt, match="the same call goes on from there"):
        train(pressing(Factors(), True, call=call), settings)
    report = train(again, settings)
    assert same_bits(whole.weights(), again.weights())
    assert [one[:2] for one in report.epochs] == [one[:2] for one in expected.epochs]
    assert report.best_epoch == expected.best_epoch
    assert again.calls + call + call % 2 == whole.calls


def test_a_finished_training_returns_at_once_and_more_epochs_go_on(settings):
    short, long = Factors(), Factors()
    report = train(short, settings)
    twin = Factors()
    assert train(twin, settings) == report
    assert twin.calls == 0
    assert same_bits(short.weights(), twin.weights())
    assert not twin.network.training
    train(twin, settings._replace(epochs=5))
    assert twin.calls == 24
    train(long, SETTINGS._replace(epochs=5))
    assert same_bits(twin.weights(), long.weights())


def test_one_that_stopped_early_goes_on_with_more_patience(settings):
    def task(*values):
        made, left = Factors(), iter(values)
        made.validate = lambda: next(left)
        return made

    impatient = settings._replace(epochs=5, patience=1)
    assert len(train(task(1.0, 2.0), impatient).epochs) == 2
    again = task(3.0, 0.5, 4.0)
    assert train(again, impatient).stopped_early
    assert again.calls == 0
    report = train(again, impatient._replace(patience=3))
    assert [one.validation for one in report.epochs] == [1.0, 2.0, 3.0, 0.5, 4.0]
    assert (report.best_epoch, report.stopped_early, report.steps) == (4, False, 30)


def test_less_epochs_than_there_are_are_refused(half):
    with pytest.raises(CheckpointError, match="of epoch 2, after step 2, further than"):
        train(Factors(), half._replace(epochs=1))


def test_a_checkpoint_has_what_is_trained_and_no_frozen_weights(settings):
    task = Factors()
    train(task, settings)
    tensors = load_file(only(settings, ".safetensors"))
    assert {name for name in tensors if name.startswith("best.")} == {
        f"best.{name}" for name in task.weights() if "frozen" not in name
    }
    assert not [name for name in tensors if "frozen" in name or "step.unused" in name]
    assert "optimizer.exp_avg.user.weight" in tensors
    assert not (set(files(settings)) - {"checkpoint.json"} - {only(settings, "s").split("/")[-1]})


def test_another_vocabulary_architecture_or_data_is_named(half):
    task = Factors(items=18)
    with pytest.raises(CheckpointError, match="items is 17 in the checkpoint; expected 18"):
        train(task, half)
    renamed, deeper, other, frozen = (Factors() for _ in range(4))
    renamed.identity = lambda: {"items": 17, "architecture": "towers", "dimensions": 6, "data": "a"}
    deeper.network["more"] = torch.nn.Linear(1, 1)
    other.network["user"] = torch.nn.Embedding(5, 6)
    frozen.network["frozen"].weight[0, 0] += 1
    for task, said in (
        (renamed, r"architecture is factors in the checkpoint; expected towers; data is not there"),
        (deeper, r"more.weight is not there in the checkpoint; expected \[1, 1\] float32"),
        (other, r"user.weight is \[24, 6\] float32 in the checkpoint; expected \[5, 6\] float32"),
        (frozen, r"weights that are not trained is"),
    ):
        with pytest.raises(CheckpointError, match=said):
            train(task, half)
    assert train(Factors(), half).steps == 18


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"batch_size": 8}, "training.batch_size is 9 in the checkpoint; expected 8"),
        ({"accumulate": 1}, "training.accumulate is 2"),
        ({"seed": 2}, "training.seed is 0"),
        ({"learning_rate": 0.01}, "training.learning_rate is 0.05"),
        ({"weight_decay": 0.01}, "training.weight_decay is 0.0"),
        ({"clip": 0.5}, "training.clip is 1.0"),
        ({"precision": "bfloat16"}, "training.precision is float32 in the checkpoint; expected bf"),
    ],
)
def test_other_settings_are_named(half, change, said):
    with pytest.raises(CheckpointError, match=said.replace("expected bf", "expected bfloat16")):
        train(Factors(), half._replace(**change))


def test_identities_that_json_cannot_have_are_refused_before_anything_is_trained(settings):
    task = Factors()
    task.identity = lambda: {"items": float("nan")}
    with pytest.raises(ValueError, match="JSON"):
        train(task, settings)
    assert task.calls == 0


def test_after_a_loss_of_nan_the_last_good_checkpoint_is_there_for_a_smaller_learning_rate(
    settings,
):
    bad = Factors(bad=15)
    with pytest.raises(TrainingDivergedError) as caught:
        train(bad, settings)
    assert (
        f"The last good checkpoint is in {settings.checkpoint}, of the end of epoch 1. "
        "Try a smaller learning_rate (the same call with it goes on from the checkpoint)"
    ) in str(caught.value)
    again = Factors()
    report = train(again, settings._replace(learning_rate=0.01))
    assert again.calls == 24
    assert len(report.epochs) == 3
    with pytest.raises(CheckpointError, match=r"training.learning_rate is 0.01 in the checkpoint"):
        train(Factors(), settings)


def exploding(call=15):
    """A task whose weights are far too large from a call on, and finite."""
    task = Factors()
    inner = task.loss

    def loss(examples):
        if torch.is_grad_enabled() and task.calls + 1 == call:
            task.network["item"].weight.data *= -1e6
        return inner(examples)

    task.loss = loss
    return task


def test_weights_that_are_lost_are_in_no_checkpoint(settings, monkeypatch):
    said = r"epoch 2, step 6 of 6.* first batch, 0.3\d+ before it was learned from, is .*of the end"
    with pytest.raises(TrainingDivergedError, match=said + " of epoch 1. Try a smaller"):
        train(exploding(), settings)
    pressed = pressing(exploding(), True, call=15)
    with pytest.raises(TrainingDivergedError, match=r"epoch 3, step 2 of 6.* the end of epoch 2"):
        train(pressed, settings)
    again = Factors()
    assert len(train(again, settings._replace(learning_rate=0.01)).epochs) == 3
    assert again.calls == 12
    shutil.rmtree(settings.checkpoint)
    monkeypatch.setattr(checkpoint, "SAVE_EVERY_SECONDS", 0.0)
    with pytest.raises(TrainingDivergedError, match=r"step 6 of 6.* of epoch 2, after step 1"):
        train(exploding(), settings)


def test_where_the_first_step_is_nan_there_is_no_checkpoint_to_speak_of(settings):
    with pytest.raises(TrainingDivergedError, match=r"There is no checkpoint in .* yet"):
        train(Factors(bad=1), settings)
    assert not files(settings)


def test_damaged_files_are_told(half):
    whole = shutil.copytree(half.checkpoint, half.checkpoint + " whole")
    body = json.loads(files(half)["checkpoint.json"])
    name = body["tensors"]["file"]

    def refused(said):
        with pytest.raises(CheckpointError, match=said):
            train(Factors(), half)
        shutil.rmtree(half.checkpoint)
        shutil.copytree(whole, half.checkpoint)

    def write(name, data):
        with open(os.path.join(half.checkpoint, name), "wb") as file:  # noqa: PTH118, PTH123
            file.write(data)

    tensors = files(half)[name]
    write(name, tensors[:-1])
    refused("is damaged: it has")
    write(name, tensors[:900] + bytes([tensors[900] ^ 1]) + tensors[901:])
    refused("is damaged: its checksum is not the one in checkpoint.json")
    os.unlink(os.path.join(half.checkpoint, name))  # noqa: PTH108, PTH118
    refused("is missing, which checkpoint.json names")
    for text, said in (
        (b"", "is damaged or no checkpoint"),
        (b"[1]", "is damaged or no checkpoint"),
        (b"{}", "is damaged or no checkpoint"),
        (files(half)["checkpoint.json"].replace(b'"step": 2', b'"step": 3'), "its checksum is not"),
        (signed(body | {"format": "other"}), "has the format 'other'; expected 'llmrec_kernels.tr"),
        (signed(body | {"version": 1}), "is of version 1; expected 2"),
        (signed(body | {"state": {}}), "is damaged or no checkpoint: KeyError"),
    ):
        write("checkpoint.json", text)
        refused(said)
    assert train(Factors(), half).steps == 18


def signed(body):
    body = {name: one for name, one in body.items() if name != "checksum"}
    canonical = json.dumps(body, sort_keys=True, separators=(",", ":")).encode()
    return json.dumps(body | {"checksum": disk.checksum(canonical)}).encode()


@pytest.mark.parametrize("call", ["write_new", "replace"])
def test_a_disk_that_is_full_leaves_the_checkpoint_before(half, monkeypatch, call):
    before = files(half)

    def full(*_):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as context:
        context.setattr(disk, call, full)
        with pytest.raises(OSError, match="the one before is whole"):
            train(Factors(), half)
    assert files(half)["checkpoint.json"] == before["checkpoint.json"]
    whole, again = Factors(), Factors()
    train(whole, SETTINGS)
    train(again, half)
    assert same_bits(whole.weights(), again.weights())
    assert len(files(half)) == 2


def test_a_checkpoint_is_written_each_minute(settings, monkeypatch):
    written = []
    monkeypatch.setattr(checkpoint, "SAVE_EVERY_SECONDS", 0.0)
    monkeypatch.setattr(
        checkpoint.Checkpoints,
        "write",
        lambda self, state, tensors: written.append((state.epoch, state.step)),
    )
    train(Factors(), settings._replace(epochs=1))
    assert written == [(0, 1), (0, 2), (0, 3), (0, 4), (0, 5), (0, 6), (1, 0)]


def test_one_folder_is_one_trainings(settings):
    class Another(Factors):
        def validate(self):
            with pytest.raises(BlockingIOError, match="another training writes its checkpoints to"):
                train(Factors(), settings)
            return super().validate()

    train(Another(), settings)


def test_a_folder_that_cannot_be_made_is_told(tmp_path):
    with pytest.raises(FileNotFoundError, match="there is no folder"):
        train(Factors(), SETTINGS._replace(checkpoint=str(tmp_path / "no" / "folder")))
