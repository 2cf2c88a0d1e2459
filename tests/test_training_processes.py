"""Trainings that are interrupted and killed from outside, and trainings by two processes."""

from __future__ import annotations

import os
import sys
from types import SimpleNamespace

import pytest
import torch
from training_tasks import ONE_BATCH, SETTINGS, Factors, told_by

from llmrec_kernels.training import processes, train

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="processes are forked")


def test_ctrl_c_and_kills_lose_nothing(tmp_path):
    found, _ = told_by("signals", tmp_path)
    interrupted, killed = found["interrupted"], found["killed"]
    assert interrupted["same"]
    assert [one.split(". ")[0] for one in interrupted["messages"]] == [
        f"left True training was interrupted at epoch {epoch}, after step {step}"
        for epoch in (1, 2, 3)
        for step in (3, 6)
    ]
    assert found["twice"] == "left"
    assert killed["same"]
    assert killed["kills"] >= 3
    assert killed["left"] == [".json", ".safetensors"]


def test_two_processes_train_as_one_and_stop_together(tmp_path):
    found, shown = told_by("several", tmp_path)
    task = Factors(dropout=0.0, draws=False)
    report = train(task, ONE_BATCH)
    weights = [torch.load(tmp_path / f"weights-{rank}.pt") for rank in range(2)]
    for name, tensor in task.weights().items():
        assert torch.equal(weights[0][name], weights[1][name])
        torch.testing.assert_close(weights[0][name], tensor, rtol=1e-4, atol=1e-6)
    for one in found:
        assert one["losses"] == pytest.approx([epoch.loss for epoch in report.epochs], rel=1e-5)
        assert "training diverged at epoch 1, step 4 of 6" in one["diverged"]
        assert "items is 17 in the checkpoint; expected 18" in one["refused"]
        assert (
            "KeyboardInterrupt: training was interrupted at epoch 1, after step 5"
            in one["interrupted"]
        )
    assert [one["examples"] for one in found] == [
        3 * 56,
        3 * 44,
    ]  # batches of 9, and one of 1
    assert sum(line.startswith("epoch") for line in shown.splitlines()) == 3
    assert (tmp_path / "several" / "checkpoint.json").exists()


def test_threads_that_share_the_work_come_to_the_same_bits(tmp_path):
    found, _ = told_by("threads", tmp_path)
    assert found == dict.fromkeys(("sequence", "two towers", "text ratings"), True)


@pytest.mark.parametrize(
    ("names", "first"),
    [
        ({}, True),
        ({"RANK": "1"}, True),  # of one process
        ({"RANK": "0", "WORLD_SIZE": "2"}, True),
        ({"RANK": "1", "WORLD_SIZE": "2"}, False),
        ({"OMPI_COMM_WORLD_RANK": "1", "OMPI_COMM_WORLD_SIZE": "2"}, False),
        ({"PMI_RANK": "0", "PMI_SIZE": "2"}, True),
        ({"PMI_RANK": "1", "PMI_SIZE": "2"}, False),
        ({"MV2_COMM_WORLD_RANK": "3", "MV2_COMM_WORLD_SIZE": "4"}, False),
    ],
)
def test_launchers_say_which_process_is_the_first(monkeypatch, names, first):
    for name in (*processes._RANKS, *processes._COUNTS):
        monkeypatch.delenv(name, raising=False)
    for name, value in names.items():
        monkeypatch.setenv(name, value)
    assert processes.first_process() == first


def test_what_several_processes_lack_is_told(monkeypatch):
    state = SimpleNamespace(num_processes=2, process_index=1, device=torch.device("cuda:1"))
    with monkeypatch.context() as context:
        context.setattr(processes, "_state", lambda _: state)
        with pytest.raises(ValueError, match="process 1 is on cuda:0; expected cuda:1: make it on"):
            processes.ManyProcesses(torch.device("cuda:0"))
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setitem(sys.modules, "accelerate", None)
    with pytest.raises(ImportError, match="pip install 'llmrec_kernels"):
        train(Factors(), SETTINGS)
