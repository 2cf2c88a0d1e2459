"""Two processes that torchrun starts, and Ctrl-C at its terminal: slow, as each imports torch."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys

import pytest
import training_tasks

LAUNCHER = ("-m", "torch.distributed.run", "--standalone", "--local_addr", "127.0.0.1")
TWO = ("--nproc_per_node", "2")


@pytest.mark.skipif(sys.platform == "win32", reason="a group of processes gets the signal")
def test_ctrl_c_at_the_launcher_leaves_a_checkpoint_of_the_last_step(tmp_path):
    process = subprocess.Popen(
        [sys.executable, *LAUNCHER, *TWO, training_tasks.__file__, "launched", str(tmp_path)],
        env=os.environ | {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"},
        start_new_session=True,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr is not None
    shown = [next(line for line in process.stderr if line.startswith("epoch 2/"))]
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does
    shown += process.stderr.readlines()  # the launcher sends the signal on to its processes
    assert process.wait() != 0
    state = json.loads((tmp_path / "checkpoint.json").read_text())["state"]
    assert len(state["epochs"]) == 2
    assert 0 < state["step"] < 6
    said = [line for line in shown if f"interrupted at epoch 3, after step {state['step']}" in line]
    assert len(said) == 2
