"""The demo runs the whole chain on real data, and the README shows what it prints."""

from pathlib import Path

import pytest
from typer.testing import CliRunner

from llmrec_kernels.cli import app

README = Path(__file__).parent.parent / "README.md"


@pytest.fixture(scope="module")
def output(tmp_path_factory):
    cache = str(tmp_path_factory.mktemp("cache"))
    result = CliRunner(env={"LLMREC_CACHE": cache}).invoke(app, ["demo", "--users", "2"])
    assert result.exit_code == 0, result.output
    return result.output


def metrics(output):
    """The printed lines of a model's metrics, as they are."""
    return [line for line in output.splitlines() if "NDCG@10" in line]


def test_new_films_are_ranked_from_their_texts(output):
    cold = next(line for line in metrics(output) if "from" in line and "content" in line)
    assert float(cold.split()[2]) >= 0.215


def test_two_people_get_titles_scores_and_reasons(output):
    lines = output.splitlines()
    assert sum(line.startswith("  user ") for line in lines) == 2
    reasons = [line for line in lines if "because of" in line]
    assert len(reasons) == 6
    assert all("(+0." in line for line in reasons)


def test_the_cost_of_each_step_is_shown(output):
    steps = [line.split() for line in output.splitlines() if line.endswith(("texts", "users"))]
    encode = next(words for words in steps if words[:2] == ["encode", "texts"])
    assert float(encode[3]) > 100, "GFLOP to encode 1,682 texts"
    assert "cosine_topk" in output
    assert "embedding_bag" in output


def test_the_readme_states_what_the_demo_prints(output):
    stated = README.read_text(encoding="utf-8")
    for line in metrics(output):
        assert line in stated
