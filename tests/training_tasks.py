"""A small task, and what other processes do with it: `python training_tasks.py NAME FOLDER`.

Torch is imported once, in a process with one thread, and each process that is interrupted or killed
is a fork of that one.
"""

from __future__ import annotations

import json
import math
import os
import signal
import subprocess
import sys
import time
import traceback
from pathlib import Path

import torch
from torch import nn
from torch.nn.functional import logsigmoid

from llmrec_kernels.training import (
    CheckpointError,
    Training,
    TrainingDivergedError,
    checkpoint,
    train,
)

USERS, ITEMS = 24, 17
SETTINGS = Training(epochs=3, batch_size=9, accumulate=2, learning_rate=0.05, patience=None)
ONE_BATCH = SETTINGS._replace(accumulate=1)  # the last step has one example


class Centred(nn.Module):
    """Vectors less a mean that follows them: a buffer that training changes."""

    def __init__(self):
        super().__init__()
        self.register_buffer("mean", torch.zeros(6))

    def forward(self, vectors):
        if self.training:
            self.mean.lerp_(vectors.detach().mean(dim=0), 0.1)
        return vectors - self.mean


class Factors:
    """Bayesian personalised ranking by matrix factorisation, with dropout and drawn negatives."""

    def __init__(self, items=ITEMS, *, dropout=0.2, draws=True, validates=True, bad=None):
        generator = torch.Generator().manual_seed(5)
        self.pairs = torch.stack(
            [torch.randint(count, (100,), generator=generator) for count in (USERS, items)]
        )
        self.others = torch.randint(items, (100,), generator=generator)
        self.size, self.items, self.draws, self.validates = 100, items, draws, validates
        self.bad = bad  # the call of `loss` that is not finite
        self.calls = 0  # to learn from
        self.modes = []
        self.seen = []
        torch.manual_seed(1)
        self.network = nn.ModuleDict(
            {
                "user": nn.Embedding(USERS, 6),
                "item": nn.Embedding(items, 6),
                "centred": Centred(),
                "dropout": nn.Dropout(dropout),
                "unused": nn.Linear(2, 2),
                "frozen": nn.Linear(6, 6),
            }
        )
        self.network["frozen"].requires_grad_(False)

    def loss(self, examples):
        if torch.is_grad_enabled():
            self.calls += 1
            self.seen.append(examples)
        other = self.others[examples]
        if self.draws:
            other = torch.randint(self.items, (len(examples),))
        scores = self._scores(self.pairs[0, examples])
        rows = torch.arange(len(examples))
        gap = scores[rows, self.pairs[1, examples]] - scores[rows, other]
        loss = -logsigmoid(gap).mean()
        return loss * math.nan if torch.is_grad_enabled() and self.bad == self.calls else loss

    def validate(self):
        self.modes.append((self.network.training, torch.is_grad_enabled()))
        if not self.validates:
            return None
        return float(self._scores(self.pairs[0]).softmax(1).square().mean())

    def identity(self):
        return {"items": self.items, "architecture": "factors", "dimensions": 6}

    def weights(self):
        return {name: one.clone() for name, one in self.network.state_dict().items()}

    def _scores(self, users):
        profile = self.network["dropout"](self.network["user"](users))
        profile = self.network["frozen"](profile)
        if self.draws:  # else the same in parts of a batch as in the whole
            profile = self.network["centred"](profile)
        return profile @ self.network["item"].weight.T


def same_bits(first, second):
    return first.keys() == second.keys() and all(
        torch.equal(one, second[name]) for name, one in first.items()
    )


def forked(do):
    """The number of a process that does something and reports on itself, and its report."""
    here, there = os.pipe()
    child = os.fork()
    if not child:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        os.close(here)
        failed = 1
        try:
            with os.fdopen(there, "w", buffering=1) as pipe:
                do(lambda *words: print(*words, file=pipe, flush=True))
            failed = 0
        finally:
            if failed:
                traceback.print_exc()
            os._exit(failed)
    os.close(there)
    return child, os.fdopen(here)


def slow(task, say, seconds=0.01):
    """The task, with a word for each loss and time to be interrupted in."""
    inner = task.loss

    def loss(examples):
        if torch.is_grad_enabled():
            say("loss")
            time.sleep(seconds)
        return inner(examples)

    task.loss = loss
    return task


def signals(folder):
    """All that is done to trainings from outside."""
    train(Factors(), SETTINGS._replace(epochs=1))  # imports what torch imports late
    return {
        "interrupted": interrupted(folder),
        "twice": pressed_twice(folder),
        "killed": killed(folder),
    }


def interrupted(folder):
    """Interrupt a training by Ctrl-C each few steps until it is done."""
    settings = SETTINGS._replace(checkpoint=str(Path(folder) / "interrupted"))
    finished, messages = False, []

    def do(say):
        try:
            train(slow(Factors(), say), settings)
            say("finished")
        except KeyboardInterrupt as error:
            default = signal.getsignal(signal.SIGINT) is signal.default_int_handler
            say(f"left {default} {error}")

    while not finished:
        child, pipe = forked(do)
        lines = [pipe.readline() for _ in range(5)]  # in the middle of the third step
        finished = "finished\n" in lines
        if not finished:
            os.kill(child, signal.SIGINT)
        os.waitpid(child, 0)
        lines += pipe.readlines()
        messages += [line.strip() for line in lines if line.startswith("left")]
    return {"same": _ends_alike(settings), "messages": messages}


def pressed_twice(folder):
    """Interrupt a training twice within a step that takes for ever."""

    def do(say):
        try:
            train(slow(Factors(), say, 1000), SETTINGS._replace(checkpoint=folder))
        except KeyboardInterrupt as error:
            say(f"left {error}")

    child, pipe = forked(do)
    assert pipe.readline() == "loss\n"
    os.kill(child, signal.SIGINT)
    time.sleep(0.05)
    os.kill(child, signal.SIGINT)
    os.waitpid(child, 0)
    return pipe.read().strip()


def killed(folder):
    """Kill a training, which writes a checkpoint after each step, until it is done."""
    settings = SETTINGS._replace(checkpoint=str(Path(folder) / "killed"))
    before = checkpoint.SAVE_EVERY_SECONDS
    checkpoint.SAVE_EVERY_SECONDS = 0.0
    kills, done = 0, False

    def do(say):
        say("begun")
        train(Factors(), settings)

    while not done:
        child, pipe = forked(do)
        pipe.readline()
        time.sleep(0.01 + 0.01 * (kills % 20))
        os.kill(child, signal.SIGKILL)
        status = os.waitpid(child, 0)[1]
        assert os.WIFSIGNALED(status) or not status, "a training failed that was not killed"
        done = status == 0
        kills += not done
        pipe.close()
    checkpoint.SAVE_EVERY_SECONDS = before
    left = sorted(one.suffix for one in Path(settings.checkpoint).iterdir())
    return {"same": _ends_alike(settings), "kills": kills, "left": left}


def _ends_alike(settings):
    """Whether a training that is done has the weights of one that nothing came between."""
    once, again = Factors(), Factors()
    expected = train(once, settings._replace(checkpoint=None))
    report = train(again, settings)
    losses = [one.loss for one in report.epochs] == [one.loss for one in expected.epochs]
    return same_bits(once.weights(), again.weights()) and losses and again.calls == 0


def several(folder):
    """Train in two processes, and note what came of it in each."""
    from accelerate import debug_launcher

    debug_launcher(one_of_several, (folder,), num_processes=2)
    return [json.loads((Path(folder) / f"found-{rank}.json").read_text()) for rank in range(2)]


def one_of_several(folder):
    """What each does."""
    torch.set_num_threads(1)
    from accelerate import PartialState

    rank, found = PartialState(cpu=True).process_index, {}
    plain = ONE_BATCH._replace(checkpoint=str(Path(folder) / "several"), progress=True)
    task = Factors(dropout=0.0, draws=False)
    report = train(task, plain)
    torch.save(task.weights(), Path(folder) / f"weights-{rank}.pt")
    found["losses"] = [one.loss for one in report.epochs]
    found["examples"] = len(torch.cat(task.seen))
    bad = Factors(dropout=0.0, draws=False, bad=8 if rank else None)
    found["diverged"] = said_by(bad, SETTINGS)
    found["refused"] = said_by(Factors(items=18), plain)
    found["interrupted"] = said_by(pressing(Factors(), rank == 1), SETTINGS)
    (Path(folder) / f"found-{rank}.json").write_text(json.dumps(found))


def threads(_):
    """Whether recommenders come to the same bits by two threads that share the work."""
    import numpy as np
    import pandas as pd

    from llmrec_kernels import recommenders

    torch.set_num_threads(2)
    draw = np.random.default_rng(0)
    users, items, each = 100, 300, 60
    rows = {
        "user": np.repeat(np.arange(users), each),
        "item": np.concatenate([draw.permutation(items)[:each] for _ in range(users)]),
        "rating": draw.integers(1, 6, users * each).astype(float),
        "timestamp": np.arange(users * each),
    }
    seen, known = pd.DataFrame(rows), pd.DataFrame({"item": np.arange(items)})
    vectors = draw.normal(size=(items, 32)).astype(np.float32)
    made = {
        "sequence": recommenders.SequenceRecommender,
        "two towers": recommenders.TwoTowerRecommender,
        "text ratings": recommenders.TextRatingRegressor,
    }

    def learned(kind):
        model = kind(embeddings=vectors, training={"epochs": 2, "progress": False})
        return model.fit(seen, known)._learned.items.data

    return {name: torch.equal(learned(kind), learned(kind)) for name, kind in made.items()}


def launched(folder):
    """Train for minutes, for somebody to interrupt."""
    settings = SETTINGS._replace(checkpoint=folder, epochs=100, progress=True)
    train(slow(Factors(), lambda _: None, 0.2), settings)


def said_by(task, settings):
    """The error of a training."""
    try:
        train(task, settings)
    except (TrainingDivergedError, CheckpointError, KeyboardInterrupt) as error:
        return f"{type(error).__name__}: {error}"
    return None


def pressing(task, presses, call=9):
    """The task, during whose loss Ctrl-C is pressed."""
    inner = task.loss

    def loss(examples):
        if presses and torch.is_grad_enabled() and task.calls + 1 == call:
            signal.raise_signal(signal.SIGINT)
        return inner(examples)

    task.loss = loss
    return task


def told_by(name, folder):
    """What another process finds; its threads are one, so that a part of it can be forked."""
    process = subprocess.run(
        [sys.executable, __file__, name, str(folder)],
        env=os.environ | {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert not process.returncode, process.stderr
    return json.loads(process.stdout.splitlines()[-1]), process.stderr


if __name__ == "__main__":
    torch.set_num_threads(1)
    sys.stdout.write(json.dumps(globals()[sys.argv[1]](sys.argv[2])) + "\n")
