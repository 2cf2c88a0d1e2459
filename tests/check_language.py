"""What docs/language.md says of a small model's writing, measured again: a rung of `make test-all`.

The floors leave room for other machines, whose rounding may change a word.
"""

from __future__ import annotations

from language_models import smollm
from small_histories import real

from llmrec_kernels.datasets import movielens_100k
from llmrec_kernels.encoders import TextEncoder, bundled_encoder_path
from llmrec_kernels.language import Summarizer, unsupported
from llmrec_kernels.studies.writing import writing


def test_most_of_what_smollm_writes_of_films_stands():
    real(movielens_100k, plots=True)
    rates, outputs = (table.frame for table in writing(texts=16).tables)
    assert (rates["all stands"] + rates["a part stands"] >= 0.6).all()
    assert (rates["texts"] == 16).all()
    assert len(outputs) == 10
    assert outputs["verdict"].str.startswith(("stands", "refused")).all()


def test_smollm_shortens_a_text_to_the_window_and_adds_nothing():
    films = real(movielens_100k, plots=True)
    encoder = TextEncoder(bundled_encoder_path(), cache_dir=False)
    plots = [plot for plot in films.items["plot"] if len(plot) > 900][:2]
    for plot, made in zip(
        plots,
        Summarizer(smollm(), encoder, window=96, cache_dir=False).summarize(plots),
        strict=True,
    ):
        assert encoder.token_counts([made.text])[0] <= 96
        assert made.source in ("model", "template")
        assert unsupported(made.text, {"text": plot}) == []
