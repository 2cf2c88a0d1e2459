"""Models of the command line: fitted, saved, asked, explained and updated, with real files."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from cli_files import RATINGS, TITLES, done, fit, ratings_frame, run, table, write_files

from llmrec_kernels.cli.making import Model
from llmrec_kernels.recommenders import Recommender

pytest.importorskip("pyarrow", reason="pyarrow is not installed")


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the files, and it is the current one."""
    write_files(tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def parts_of(folder: str) -> Any:
    model: Any = Recommender.load(folder)
    return model.parts


def clicks(rows: list[tuple[int, int, int]] = RATINGS) -> np.ndarray:
    """Who took what, [users 1 to 5, items in their order]."""
    taken = np.zeros((5, len(TITLES)))
    for user, item, _ in rows:
        taken[user - 1, list(TITLES).index(item)] = 1
    return taken


def ease_scores(strength: float) -> np.ndarray:
    """The closed form of H. Steck (2019), written out."""
    taken = clicks()
    inverse = np.linalg.inv(taken.T @ taken + strength * np.eye(len(TITLES)))
    weights = -inverse / np.diag(inverse)
    np.fill_diagonal(weights, 0)
    return taken @ weights


@pytest.mark.parametrize("ending", ["csv", "parquet"])
def test_a_saved_model_answers_as_its_formula_does(files: Path, ending: str) -> None:
    result = fit("ease", "--set", "regularization=0.5", ending=ending)
    assert result.stdout == "saved: model (EASERecommender: 4 users, 5 items, 0.0 MB)\n"
    ranked = table("recommend", "--from", "model", "--user", 2, "-k", 9)
    assert ranked.columns.tolist() == ["user", "rank", "item", "title", "score"]
    assert ranked.user.tolist() == [2, 2, 2]
    assert ranked["rank"].tolist() == [1, 2, 3]
    assert sorted(ranked.item) == [10, 30, 40]  # what user 2 has not rated
    assert ranked.title.tolist() == [TITLES[item] for item in ranked.item]
    places = [list(TITLES).index(item) for item in ranked.item]
    np.testing.assert_allclose(ranked.score, ease_scores(0.5)[1, places], atol=1e-6)
    assert (np.diff(ranked.score) <= 0).all()


def test_everyone_is_answered_where_no_user_is_named_and_seen_items_when_asked(files: Path) -> None:
    fit("popularity")
    ranked = table("recommend", "--from", "model", "-k", 1, "--seen")
    assert ranked.user.tolist() == [1, 2, 3, 4]
    assert ranked.item.tolist() == [20] * 4
    written = files / "best.json"
    done("recommend", "--from", "model", "--user", 4, "--user", 1, "-k", 1, "--output", written)
    rows = json.loads(written.read_text())
    assert [(row["user"], row["item"]) for row in rows] == [(4, 20), (1, 30)]
    assert rows[0] == {"user": 4, "rank": 1, "item": 20, "title": "Heat (1995)", "score": 3.0}


def test_only_what_is_allowed_and_not_excluded_is_recommended(files: Path) -> None:
    fit("popularity")
    ask = ("recommend", "--from", "model", "--user", 4)
    assert table(*ask, "--exclude", 20, "-k", 2).item.tolist() == [10, 50]
    allowed = ("--allow", 50, "--allow", 40, "--allow", 30)
    assert table(*ask, *allowed).item.tolist() == [50, 40]
    assert table(*ask, *allowed, "--exclude", 50).item.tolist() == [40]


def test_someone_new_is_known_by_what_they_liked(files: Path) -> None:
    fit("ease", "--set", "regularization=0.5")
    inverse = np.linalg.inv(clicks().T @ clicks() + 0.5 * np.eye(len(TITLES)))
    scores = dict(zip(TITLES, -inverse[1] / np.diag(inverse), strict=True))
    ask = ("recommend", "--from", "model", "--liked", 20)
    ranked = table(*ask)
    assert ranked.columns.tolist() == ["rank", "item", "title", "score"]
    assert ranked.item.tolist() == sorted({10, 30, 40, 50}, key=lambda one: (-scores[one], one))
    np.testing.assert_allclose(ranked.score, [scores[one] for one in ranked.item], atol=1e-6)
    rest = [one for one in ranked.item if one != ranked.item[0]]
    without = table(*ask, "--exclude", ranked.item[0], "-k", 2)
    assert without["rank"].tolist() == [1, 2]
    assert without.item.tolist() == rest[:2]
    last = table(*ask, "--allow", rest[-1], "-k", 1)
    assert last.item.tolist() == rest[-1:]


def test_a_text_finds_what_it_describes_and_features_are_told_apart(files: Path) -> None:
    features = ("--feature", "genres=0.25", "--feature", "year", "--feature", "price=0.5")
    fit("content", *features)
    ask = ("recommend", "--from", "model", "--text", "gangsters in Las Vegas", "-k", 1)
    assert table(*ask).item.tolist() == [50]
    assert table(*ask, "--liked", 50).item.tolist() != [50]
    done("explain", "--from", "model", "--user", 2, "--item", 30, "--output", "why.json")
    why = json.loads((files / "why.json").read_text())
    by_kind: dict[str, dict[Any, float]] = {"history": {}, "block": {}}
    for row in why["shares"]:
        by_kind[row["kind"]][row["source"]] = row["share"]
    assert set(by_kind["history"]) == {20, 50}
    assert list(by_kind["block"]) == ["text", "genres", "year", "price"]
    for shares in by_kind.values():
        assert sum(shares.values()) == pytest.approx(why["score"], abs=1e-6)
    printed = done("explain", "--from", "model", "--user", 2, "--item", 30).stdout
    assert printed.startswith(f"30 GoldenEye (1995) for 2: score {why['score']:.4f}\n")
    # The ratings 5 and 4 less the lowest, 1, are 4 of 7 and 3 of 7.
    assert f"{by_kind['history'][20]:9.4f}    0.5714  20 Heat (1995)" in printed
    assert f"{by_kind['block']['genres']:9.4f}            genres" in printed


def test_items_are_similar_by_the_cosine_of_who_took_them(files: Path) -> None:
    fit("item-knn", "--set", "shrink=0")
    found = table("similar", "--from", "model", "--item", 20, "--item", 30, "-k", 2)
    assert found.columns.tolist() == ["item", "rank", "similar", "title", "score"]
    ours = found[found.item == 20]
    taken = clicks()
    lengths = np.linalg.norm(taken, axis=0)
    for similar, score in zip(ours.similar, ours.score, strict=True):
        place = list(TITLES).index(similar)
        assert score == pytest.approx(taken[:, 1] @ taken[:, place] / lengths[1] / lengths[place])
    assert ours.similar.tolist() == [10, 50]
    assert ours.title.tolist() == ["Toy Story (1995)", "Casino (1995)"]


def test_a_hybrid_has_the_parts_and_weights_that_were_chosen(files: Path) -> None:
    parts = ("--part", "ease=2", "--part", "user-knn")
    result = fit("hybrid", *parts, "--set", "ease.regularization=3", "--set", "fusion=ranks")
    assert "HybridRecommender of ease 2, user-knn 1" in result.stdout
    model: Any = Recommender.load("model")
    assert list(model.parts) == ["ease", "user-knn"]
    assert (model.parts["ease"].regularization, model.fusion, model.adaptive) == (3, "ranks", False)
    done("explain", "--from", "model", "--user", 1, "--item", 50, "--output", "why.csv")
    why = pd.read_csv("why.csv")
    assert why.columns.tolist() == ["kind", "source", "title", "weight", "share"]
    assert dict(zip(why.source, why.weight, strict=True)) == {"ease": 2.0, "user-knn": 1.0}
    part = ("--part", "ease")
    done("explain", "--from", "model", "--user", 1, "--item", 50, *part, "--output", "part.csv")
    assert set(pd.read_csv("part.csv").source) == {10, 20}
    assert table("similar", "--from", "model", "--item", 20, *part).similar.tolist() == [10, 50]


def test_an_adaptive_hybrid_moves_to_the_part_that_foresaw_the_update(files: Path) -> None:
    parts = ("--part", "popularity", "--part", "ease", "--set", "rate=2", "--adaptive")
    fit("hybrid", *parts)
    # What hardly anyone took: by popularity it comes late, by who takes what with what it is first.
    pd.DataFrame({"user": [2, 3], "item": [10, 50]}).to_csv("next.csv", index=False)
    before: Any = Recommender.load("model")
    foreseen = {
        name: part.recommend([2, 3]).to_pandas().merge(pd.read_csv("next.csv"))["rank"].sum()
        for name, part in before.parts.items()
    }
    done("update", "--from", "model", "--ratings", "next.csv")
    after: Any = Recommender.load("model")
    gained = {name: after.current_weights[name] - before.current_weights[name] for name in foreseen}
    assert len(set(foreseen.values())) == 2
    assert max(gained, key=gained.__getitem__) == min(foreseen, key=foreseen.__getitem__)
    assert sum(gained.values()) == pytest.approx(0)


def test_the_hybrid_that_nobody_chose_has_three_kinds_of_parts_with_settings(files: Path) -> None:
    result = fit("hybrid", "--set", "item-knn.half_life=null", "--set", "content.pooling=mean")
    assert "HybridRecommender of ease 1, item-knn 0.5, content 0.25" in result.stdout
    assert table("recommend", "--from", "model", "--text", "a crime film", "-k", 2).shape == (2, 4)
    parts = parts_of("model")
    assert (parts["ease"].regularization, parts["ease"].half_life) == (500, 5)
    assert (parts["item-knn"].half_life, parts["content"].pooling) == (None, "mean")
    fit("hybrid", "--part", "ease", "--part", "item-knn")
    parts = parts_of("model")
    assert (parts["ease"].regularization, parts["ease"].half_life) == (200, None)


@pytest.mark.parametrize("ending", ["csv", "parquet"])
def test_an_update_is_as_if_all_had_been_there(files: Path, ending: str) -> None:
    fit("popularity")
    result = done("update", "--from", "model", "--ratings", f"later.{ending}")
    assert "taken in: 2 ratings of 2 users" in result.stderr
    assert "5 users, 5 items" in result.stdout
    done("fit", "--items", "items.csv", "--ratings", "all.csv", "--model", "popularity",
         "--out", "whole")  # fmt: skip
    updated, whole = (table("recommend", "--from", name) for name in ("model", "whole"))
    pd.testing.assert_frame_equal(updated, whole)
    assert set(updated.title) <= set(TITLES.values())


def test_an_update_counts_what_it_leaves_out_and_says_what_waits_for_a_fit(files: Path) -> None:
    fit("ease")
    Path("more.csv").write_text("user,item\n7,20\n7,99\n8,98\n")
    result = done("update", "--from", "model", "--ratings", "more.csv")
    assert "2 ratings of items that the model does not know are left out" in result.stderr
    assert "taken in: 1 ratings of 1 users" in result.stderr
    assert "until the next fit" in result.stderr
    assert 20 not in table("recommend", "--from", "model", "--user", 7).item.tolist()


def test_users_without_ratings_are_known_and_answered_with_what_is_popular(files: Path) -> None:
    for ending in ("csv", "parquet"):
        for items in ((), ("--items", f"items.{ending}")):
            done("fit", "--ratings", f"ratings.{ending}", "--users", f"users.{ending}", *items,
                 "--model", "ease", "--out", "model")  # fmt: skip
            result = done("recommend", "--from", "model", "--user", 9, "-k", 1)
            assert result.stdout.splitlines()[1].startswith("9,1,20,")
            assert "popular" in result.stderr


def test_a_model_without_items_has_those_rated_and_no_titles(files: Path) -> None:
    fit("popularity")
    done("fit", "--ratings", "ratings.csv", "--model", "popularity", "--out", "model")
    ranked = table("recommend", "--from", "model", "--user", 4)
    assert ranked.item.tolist() == [20, 10, 50]
    assert ranked.title.isna().all()  # not those of the model that was there
    straight = table("recommend", "--ratings", "ratings.csv", "--model", "popularity", "--user", 4)
    pd.testing.assert_frame_equal(straight, ranked)


def test_ids_of_words_and_of_whole_numbers_meet_in_an_update(files: Path) -> None:
    Path("words.csv").write_text("user,item\nann,10\nbob,A2\n")
    done("fit", "--ratings", "words.csv", "--model", "popularity", "--out", "model")
    Path("numbers.csv").write_text("user,item\n7,10\n")
    done("update", "--from", "model", "--ratings", "numbers.csv")
    assert table("recommend", "--from", "model", "--user", 7).item.tolist() == ["A2"]


def test_one_word_among_whole_numbers_leaves_out_its_row_alone(files: Path) -> None:
    fit("popularity")
    Path("mixed.csv").write_text("user,item\n7,20\n8,30\n8,new-film\nann,10\n")
    result = done("update", "--from", "model", "--ratings", "mixed.csv")
    assert "1 ratings of items that the model does not know are left out" in result.stderr
    assert "1 ratings of users whose ids are no whole numbers" in result.stderr
    assert "taken in: 2 ratings of 2 users" in result.stderr
    assert Recommender.load("model").recommend([7], k=9).item.tolist() == [10, 30, 50, 40]


def test_an_update_of_users_and_items_alone_is_of_the_newest_and_best_liked(files: Path) -> None:
    fit("popularity")
    Path("today.csv").write_text("user,item\n1,40\n")
    done("update", "--from", "model", "--ratings", "today.csv")
    known = Recommender.load("model")._ready()
    rows = known.history.of(known.users.codes([1])).rows
    assert rows["rating"].tolist() == [5, 1, 5]  # the highest of any user is 5
    assert rows["timestamp"].tolist() == [1, 2, 7]  # the latest of any user is 7


def test_a_model_that_python_saved_is_asked_alike(files: Path) -> None:
    from llmrec_kernels.recommenders import PopularityRecommender

    PopularityRecommender().fit(ratings_frame(RATINGS)).save("python")
    ranked = table("recommend", "--from", "python", "--user", 4, "-k", 1)
    assert (ranked.item[0], ranked.title.isna().all()) == (20, True)


@pytest.mark.parametrize("model", [one.value for one in Model])
def test_every_model_is_fitted_saved_and_asked(files: Path, model: str) -> None:
    quick = {"als": ("--set", "factors=2"), "aligned": ("--set", "factors=2")}
    fit(model, *quick.get(model, ()))
    ranked = table("recommend", "--from", "model", "--user", 1, "-k", 3)
    assert len(ranked) == 3
    assert not {10, 20} & set(ranked.item)


def test_a_text_encoder_is_found_from_everywhere_and_given_again_when_it_is_gone(
    files: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from llmrec_kernels.encoders import bundled_encoder_path

    (files / "encoder").mkdir()
    for path in bundled_encoder_path().iterdir():
        (files / "encoder" / path.name).symlink_to(path)
    fit("content", "--encoder", "encoder")
    ask = ("recommend", "--from", files / "model", "--text", "gangsters in Las Vegas", "-k", 1)
    with monkeypatch.context() as elsewhere:
        elsewhere.chdir("/")
        assert table(*ask).item.tolist() == [50]
    (files / "encoder").rename("moved")
    assert len(table("recommend", "--from", "model", "--user", 1)) == 3  # which reads no text
    result = run(*ask)
    assert result.exit_code == 1
    assert "is not to be had here" in result.stderr
    assert result.stderr.strip().endswith("here with --encoder")
    assert table(*ask, "--encoder", "moved").item.tolist() == [50]


def test_a_model_is_replaced_whole_with_its_titles(files: Path) -> None:
    fit("ease")
    first = {path.name for path in (files / "model").iterdir()}
    fit("popularity")
    second = {path.name for path in (files / "model").iterdir()}
    assert first & second == {"model.json", "titles.json"}
    assert len(second) == 3
    assert type(Recommender.load("model")).__name__ == "PopularityRecommender"
    assert json.loads((files / "model" / "titles.json").read_text())["50"] == "Casino (1995)"


def test_the_installed_command_fits_in_a_process_of_its_own(files: Path) -> None:
    code = "from llmrec_kernels.cli import main; main()"
    arguments = ["fit", "--ratings", "ratings.parquet", "--model", "popularity", "--out", "m"]
    fitted = subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True
    )
    assert (fitted.returncode, fitted.stderr) == (0, "fitting popularity on 7 ratings\n")
    assert fitted.stdout == "saved: m (PopularityRecommender: 4 users, 4 items, 0.0 MB)\n"
    asked = done("recommend", "--from", "m", "--user", "4", "-k", "1").stdout
    assert asked.split() == ["user,rank,item,title,score", "4,1,20,,3.0"]


def test_help_imports_no_recommender() -> None:
    code = (
        "import sys; from llmrec_kernels.cli import main; sys.argv = ['x', 'fit', '--help']\n"
        "try: main()\nfinally: print(sorted({'pandas', 'transformers', 'scipy', "
        "'llmrec_kernels.recommenders'} & set(sys.modules)))"
    )
    found = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        env=os.environ | {"COLUMNS": "200"},
    )
    assert "--adaptive" in found.stdout
    assert found.stdout.splitlines()[-1] == "[]"
