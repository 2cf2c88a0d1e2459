"""`llmrec-kernels train`: trained, watched, interrupted and gone on with, as a user would."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from cli_files import done, run, table, write_files

from llmrec_kernels.cli.making import TRAINED
from llmrec_kernels.cli.train import Trained
from llmrec_kernels.recommenders import Recommender

pytest.importorskip("pyarrow", reason="pyarrow is not installed")
FILES = ("--items", "items.csv", "--ratings", "ratings.csv")
SHORT = ("--epochs", 2, "--batch-size", 4)


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the files, and it is the current one."""
    write_files(tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def numbers(folder: str | Path) -> dict[str, Any]:
    """What a model has learned."""
    model: Any = Recommender.load(folder)
    return {name: value.numpy() for name, value in model._learned.weights.items()}


def many_ratings(folder: Path) -> None:
    """Enough to train on for some seconds, and to be interrupted in."""
    draw = np.random.default_rng(0)
    users, items = 300, 200
    frame = pd.DataFrame(
        {
            "user": np.repeat(np.arange(users), 30),
            "item": np.concatenate([draw.permutation(items)[:30] for _ in range(users)]),
            "timestamp": np.arange(users * 30),
        }
    )
    frame.to_csv(folder / "many.csv", index=False)


def test_what_can_be_trained_is_a_model_that_fit_knows_too():
    assert [one.value for one in Trained] == [one.value for one in TRAINED]


@pytest.mark.parametrize("model", list(Trained))
def test_a_trained_model_is_saved_and_answers(files: Path, model: Trained) -> None:
    result = done("train", *FILES, "--model", model.value, *SHORT, "--out", "films")
    assert result.stdout.startswith("saved: films (")
    assert "epoch 2/2" in result.stderr.replace("epochs", "epoch") or "2 epochs" in result.stderr
    assert not (files / "films.checkpoint").exists()
    ranked = table("recommend", "--from", "films", "--user", 2, "-k", 9)
    assert sorted(ranked.item) == [10, 30, 40]


def test_fit_takes_the_same_settings_and_comes_to_the_same_model(files: Path) -> None:
    done("train", *FILES, "--model", "sequence", *SHORT, "--seed", 3, "--out", "trained")
    training = 'training={"epochs": 2, "batch_size": 4, "seed": 3}'
    done("fit", *FILES, "--model", "sequence", "--set", training, "--out", "fitted")
    np.testing.assert_equal(numbers("trained"), numbers("fitted"))


def test_sequences_need_no_texts(files: Path) -> None:
    ask = ("train", "--ratings", "ratings.csv", "--model", "sequence", *SHORT)
    done(*ask, "--out", "clicks")
    assert not Recommender.load("clicks").reads_text
    assert (
        "--encoder is for texts of items, but there are no --items"
        in run(*ask, "--encoder", "any", "--out", "more").stderr
    )


def test_a_trained_model_can_be_a_part_of_a_hybrid(files: Path) -> None:
    parts = ("--part", "ease=1", "--part", "sequence=2", "--set", 'sequence.training={"epochs": 1}')
    result = done("fit", *FILES, "--model", "hybrid", *parts, "--out", "both")
    assert "ease 1, sequence 2" in result.stdout


def test_ctrl_c_keeps_a_checkpoint_and_the_same_command_goes_on_to_the_same_model(
    files: Path,
) -> None:
    many_ratings(files)
    command = [sys.executable, "-m", "llmrec_kernels", "train", "--ratings", "many.csv"]
    command += ["--model", "sequence", "--epochs", "6", "--patience", "0", "--set", "dim=16"]
    subprocess.run([*command, "--out", "whole"], check=True, capture_output=True)
    process = subprocess.Popen(
        [*command, "--out", "twice"], stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    for _ in range(3000):  # until there is something to go on from
        if (files / "twice.checkpoint").exists() and any((files / "twice.checkpoint").iterdir()):
            break
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    _, told = process.communicate(timeout=60)
    assert process.returncode == 130, told
    assert "stopped; what was learned is in twice.checkpoint: the same command goes on" in told
    assert not (files / "twice").exists()
    again = subprocess.run([*command, "--out", "twice"], check=True, capture_output=True, text=True)
    assert "saved: twice" in again.stdout
    assert not (files / "twice.checkpoint").exists()
    np.testing.assert_equal(numbers("twice"), numbers("whole"))


def test_ctrl_c_before_there_is_a_checkpoint_promises_none(files: Path, monkeypatch) -> None:
    def pressed(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("llmrec_kernels.recommenders.SequenceRecommender.fit", pressed)
    (files / "kept").mkdir()
    for given in ((), ("--checkpoint", "kept")):
        ask = ("train", "--ratings", "ratings.csv", "--model", "sequence", "--out", "new", *given)
        result = run(*ask)
        assert result.exit_code == 130
        assert "stopped before anything was learned" in result.stderr


def test_of_several_processes_one_saves_however_they_were_started(files: Path, monkeypatch) -> None:
    monkeypatch.setattr("llmrec_kernels.recommenders.SequenceRecommender.fit", lambda *_: None)
    monkeypatch.setenv("OMPI_COMM_WORLD_SIZE", "2")
    monkeypatch.setenv("OMPI_COMM_WORLD_RANK", "1")
    result = done("train", "--ratings", "ratings.csv", "--model", "sequence", "--out", "new")
    assert result.stdout == ""
    assert not (files / "new").exists()


MISTAKES = [
    (("--epochs", 0), "training.epochs is 0; expected"),
    (("--precision", "float8"), "training.precision"),
    (("--learning-rate", 1e38), "training.learning_rate is 1e+38; expected at most 1e+30"),
    (("--learning-rate", -1), "training.learning_rate is -1.0; expected more than 0"),
    (("--set", "training={}"), "--set has training twice"),
    (("--set", "depth=3"), "--set has 'depth'; two-tower takes"),
    (("--encoder", "./none"), "none"),
    (("--out", "items.csv"), "--out is items.csv, which is a file"),
    (("--learning-rate", 1e30, "--epochs", 20, "--set", "loss=rating"), "learning rate"),
]


@pytest.mark.parametrize(("words", "told"), MISTAKES, ids=[str(one[0]) for one in MISTAKES])
def test_a_mistake_is_a_sentence_and_no_model_is_written(files: Path, words, told) -> None:
    given = ("train", *FILES, *SHORT) + (() if "--out" in words else ("--out", "new"))
    result = run(*given, *words)
    assert result.exit_code == 1
    assert told in result.stderr
    assert "Traceback" not in result.stderr
    assert not (files / "new").exists()


def test_texts_are_needed_by_models_that_read_them(files: Path) -> None:
    result = run("train", "--ratings", "ratings.csv", "--model", "text-ratings", "--out", "new")
    assert result.exit_code == 1
    assert "there are no --items, whose texts text-ratings reads; give them" in result.stderr


def test_one_rating_for_all_is_nothing_to_learn_from(files: Path) -> None:
    frame = pd.read_csv("ratings.csv").assign(rating=4)
    frame.to_csv("even.csv", index=False)
    given = ("--items", "items.csv", "--ratings", "even.csv")
    result = run("train", *given, "--model", "text-ratings", "--out", "new")
    assert result.exit_code == 1
    assert "7 ratings and each is 4; expected ratings of at least two values" in result.stderr
    assert not (files / "new").exists()
