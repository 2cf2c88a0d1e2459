"""Models as folders: loaded ones answer alike, and nothing that happens to a file is not told."""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from recommender_cases import (
    RECOMMENDERS,
    Letters,
    everything,
    ids,
    make_interactions,
    make_items,
    name,
    profile_noise,
)
from recommender_processes import told_by

from llmrec_kernels.index import disk
from llmrec_kernels.recommenders import (
    ContentRecommender,
    EASERecommender,
    ModelFormatError,
    PopularityRecommender,
    Recommender,
    UnsupportedError,
)
from llmrec_kernels.recommenders.saving import VERSION

NEWS = make_interactions(name)[:3].assign(user=name(7))


@pytest.fixture(params=RECOMMENDERS)
def which(request):
    return request.param


@pytest.fixture
def fitted(which):
    return RECOMMENDERS[which]().fit(make_interactions(name), make_items(name))


@pytest.fixture
def folder(tmp_path):
    """One saved model, small so that each of its bytes can be tried."""
    seen = pd.DataFrame({"user": ["ann", "ann", "bob"], "item": [3, 1, 3], "rating": [5, 4, 2]})
    EASERecommender(1.5).fit(seen).save(tmp_path / "model")
    return tmp_path / "model"


def loaded(path):
    return Recommender.load(path, encoder=Letters(), privacy=profile_noise())


def answers(path):
    model = Recommender.load(path)
    best = model.recommend(["ann", "bob", "eve"], filter_seen=False)
    return best.to_pandas().to_dict("list"), best.unknown_users


def numbers_of(path):
    return next(path.glob("numbers-*"))


def test_a_loaded_model_answers_alike_also_after_feedback(fitted, tmp_path):
    fitted.update(make_interactions(name)[-4:].assign(user=name(3), rating=1.3, timestamp=200))
    fitted.save(tmp_path)
    again = loaded(tmp_path)
    assert type(again) is type(fitted)
    assert again.update_is_refit == fitted.update_is_refit
    assert everything(again, name) == everything(fitted, name)
    assert everything(again.update(NEWS), name) == everything(fitted.update(NEWS), name)


def test_a_loaded_model_saves_to_the_same_again(fitted, tmp_path):
    fitted.save(tmp_path / "one")
    loaded(tmp_path / "one").save(tmp_path / "two")
    one, two = (numbers_of(tmp_path / part).read_bytes() for part in ("one", "two"))
    assert one == two
    bodies = [json.loads((tmp_path / part / "model.json").read_text()) for part in ("one", "two")]
    assert bodies[0]["model"] == bodies[1]["model"]
    assert bodies[0]["fitted"] == bodies[1]["fitted"]


def test_another_process_answers_alike(tmp_path):
    wanted = {}
    for place, make in enumerate(RECOMMENDERS.values()):
        model = make().fit(make_interactions(name), make_items(name))
        model.save(tmp_path / f"{place:02}")
        before = everything(model, name)
        wanted[f"{place:02}"] = [before, everything(model.update(NEWS), name)]
    found = told_by("answers", tmp_path)
    assert found == json.loads(json.dumps(wanted))


KINDS = {
    "integers": lambda code: 5 - code,
    "of both ends": lambda code: code - 2**63 if code % 2 else 2**63 - 1 - code,
    "beyond int64": lambda code: 10**40 + code,
    "strange strings": ["", " ", "é", "e\u0301", "🎬", "\ud83c", "\udfac", "\0", "nan", "1"][
        :10
    ].__getitem__,
}


@pytest.mark.parametrize("kind", KINDS)
def test_ids_of_any_kind_are_saved(kind, tmp_path):
    one = KINDS[kind]
    users, items = ids([one(9), one(0), one(5)]), ids([one(1), one(2), one(0)])
    model = PopularityRecommender().fit(pd.DataFrame({"user": users, "item": items}))
    model.save(tmp_path)
    again = Recommender.load(tmp_path)
    for asked in (list(users), [one(3)]):
        told, wanted = (each.recommend(asked, filter_seen=False) for each in (again, model))
        assert told.item.tolist() == wanted.item.tolist()
        assert told.unknown_users == wanted.unknown_users


def test_a_model_without_interactions_is_saved(tmp_path):
    nobody = make_interactions(name)[:0]
    for place, make in enumerate(RECOMMENDERS.values()):
        model = make().fit(nobody, make_items(name))
        model.save(tmp_path / str(place))
        assert everything(loaded(tmp_path / str(place)), name) == everything(model, name)


def test_without_its_encoder_a_model_answers_all_but_texts(tmp_path):
    model = RECOMMENDERS["content from texts"]().fit(make_interactions(name), make_items(name))
    model.save(tmp_path)
    again = Recommender.load(tmp_path)
    assert again.recommend([name(3)]).item.tolist() == model.recommend([name(3)]).item.tolist()
    with pytest.raises(UnsupportedError, match=r"a Letters, which is not saved; load .* encoder="):
        again.recommend_from_text("abba")


def test_a_model_is_loaded_as_what_it_is(folder):
    assert type(EASERecommender.load(folder)) is type(Recommender.load(folder)) is EASERecommender
    with pytest.raises(
        ModelFormatError, match="has a EASERecommender; expected a ContentRecommender: load it with"
    ):
        ContentRecommender.load(folder)


def test_a_model_that_is_not_fitted_is_not_saved(which, tmp_path):
    with pytest.raises(RuntimeError, match="is not fitted; call fit first"):
        RECOMMENDERS[which]().save(tmp_path / "model")
    assert not (tmp_path / "model").exists()


def flips(size):
    """Places of a file to change: all of a short one, and many of a long one."""
    return range(size) if size < 600 else sorted({*range(0, size, size // 400), size - 1})


@pytest.mark.parametrize("part", ["model", "numbers"])
@pytest.mark.parametrize("mask", [0x01, 0x10, 0x80])
def test_a_changed_byte_is_told_or_changes_no_answer(folder, part, mask):
    path = folder / "model.json" if part == "model" else numbers_of(folder)
    whole, wanted = path.read_bytes(), answers(folder)
    told = 0
    for place in flips(len(whole)):
        spoilt = bytearray(whole)
        spoilt[place] ^= mask
        path.write_bytes(spoilt)
        try:
            assert answers(folder) == wanted
        except ModelFormatError as error:
            told += len(str(error)) > 20
    assert told > len(flips(len(whole))) * (0.5 if part == "model" else 0.999)
    path.write_bytes(whole)
    assert answers(folder) == wanted


@pytest.mark.parametrize("part", ["model", "numbers"])
def test_a_file_that_is_cut_short_or_goes_on_is_told(folder, part):
    path = folder / "model.json" if part == "model" else numbers_of(folder)
    whole = path.read_bytes()
    lengths = {0, 1, len(whole) // 3, len(whole) // 2, len(whole) - 2}
    for spoilt in [*(whole[:length] for length in lengths), whole + b"x", whole * 2]:
        path.write_bytes(spoilt)
        with pytest.raises(ModelFormatError, match="damaged"):
            Recommender.load(folder)


def changed(folder, **entries):
    """The same with other entries, as another program may have written them: rightly signed."""
    body = json.loads((folder / "model.json").read_text())
    body |= entries
    del body["checksum"]
    text = json.dumps(body, sort_keys=True, separators=(",", ":")).encode()
    body["checksum"] = disk.checksum(text)
    (folder / "model.json").write_text(json.dumps(body))


STRANGERS = {
    "a newer version": (
        lambda folder: changed(folder, version=VERSION + 1),
        f"version {VERSION + 1}, and this llmrec_kernels reads up to {VERSION}: install a newer",
    ),
    "a version that is none": (lambda folder: changed(folder, version="new"), "version 'new'"),
    "version 0": (lambda folder: changed(folder, version=0), "version 0"),
    "another format": (lambda folder: changed(folder, format="index"), "has the format 'index'"),
    "a class of another program": (
        lambda folder: changed(folder, model={"class": "os", "options": {}, "learned": {}}),
        "class 'os', which this version has not",
    ),
    "a class that is none to load": (
        lambda folder: changed(folder, model={"class": "Recommender", "options": {}}),
        "class 'Recommender', which this version has not",
    ),
    "no model": (lambda folder: changed(folder, model={}), "damaged"),
    "a model that is a list": (lambda folder: changed(folder, model=[1]), "damaged"),
    "an option it has not": (
        lambda folder: changed(
            folder,
            model={"class": "PopularityRecommender", "options": {"is": "dict", "x": 1}}
            | {"learned": None},
        ),
        "damaged",
    ),
    "no users": (lambda folder: changed(folder, fitted={}), "damaged"),
    "numbers elsewhere": (
        lambda folder: changed(
            folder, numbers={"file": "../other", "bytes": 1, "checksum": "0" * 16}
        ),
        "elsewhere",
    ),
    "numbers that are gone": (lambda folder: numbers_of(folder).unlink(), "is missing"),
    "a list": (lambda folder: (folder / "model.json").write_text("[1]"), "damaged or not a"),
    "a number": (lambda folder: (folder / "model.json").write_text("1"), "damaged or not a"),
    "no text": (lambda folder: (folder / "model.json").write_bytes(b"\xff\xfe"), "damaged or not"),
    "no JSON number": (
        lambda folder: (folder / "model.json").write_text(
            json.dumps({"format": "llmrec_kernels.recommender", "version": 1, "x": np.nan})
        ),
        "damaged",
    ),
    "very deep": (
        lambda folder: (folder / "model.json").write_text("[" * 200_000),
        "damaged or not",
    ),
    "no model.json": (lambda folder: (folder / "model.json").unlink(), "there is no model in"),
}


@pytest.mark.parametrize("stranger", STRANGERS)
def test_what_is_no_model_of_ours_is_told(folder, stranger):
    spoil, message = STRANGERS[stranger]
    spoil(folder)
    with pytest.raises(ModelFormatError, match=message):
        Recommender.load(folder)


def test_there_is_no_model_in_a_file_or_where_nothing_is(tmp_path):
    (tmp_path / "file").write_text("mine")
    for path in ("file", "nothing", "nothing/below"):
        with pytest.raises(ModelFormatError, match="there is no model in"):
            Recommender.load(tmp_path / path)


def test_the_numbers_of_another_model_are_told(folder, tmp_path):
    seen = pd.DataFrame({"user": ["ann", "ann", "bob"], "item": [3, 1, 3], "rating": [5, 4, 2]})
    EASERecommender(2.0).fit(seen).save(tmp_path / "other")
    numbers_of(folder).write_bytes(numbers_of(tmp_path / "other").read_bytes())
    with pytest.raises(ModelFormatError, match="is damaged"):
        Recommender.load(folder)


STEPS = ("make_folder", "write_new", "replace", "checksum", "locked", "new_token")


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_a_save_that_is_interrupted_leaves_the_model_before_whole(folder, monkeypatch, step, error):
    wanted = answers(folder)
    model = Recommender.load(folder).update(pd.DataFrame({"user": ["eve"], "item": [1]}))

    def interrupted(*_):
        raise error

    with monkeypatch.context() as patched:
        patched.setattr(disk, step, interrupted)
        with pytest.raises(type(error)):
            model.save(folder)
    assert answers(folder) == wanted
    model.save(folder)
    assert answers(folder) != wanted
    assert len(list(folder.glob("numbers-*"))) == 1


def test_saving_again_leaves_one_file_of_numbers(folder):
    for _ in range(3):
        Recommender.load(folder).save(folder)
    assert sorted(path.name for path in folder.iterdir()) == [
        "model.json",
        numbers_of(folder).name,
    ]


def test_files_of_others_in_the_folder_stay(folder):
    (folder / "notes.txt").write_text("mine")
    Recommender.load(folder).save(folder)
    assert (folder / "notes.txt").read_text() == "mine"


def test_where_a_file_is_no_folder_is_made(tmp_path):
    (tmp_path / "file").write_text("mine")
    model = PopularityRecommender().fit(make_interactions(name))
    with pytest.raises(FileExistsError, match="is a file; expected a folder"):
        model.save(tmp_path / "file")
    with pytest.raises(OSError, match=r"no folder|Not a directory"):
        model.save(tmp_path / "file" / "below")
    with pytest.raises(FileNotFoundError, match=r"there is no folder .* to make model in"):
        model.save(tmp_path / "nothing" / "model")
    assert (tmp_path / "file").read_text() == "mine"


@pytest.mark.skipif(sys.platform == "win32", reason="users and their rights are those of POSIX")
def test_a_folder_that_may_not_be_written_to_stays_as_it_was():
    with tempfile.TemporaryDirectory() as folder:  # tmp_path is below folders of its user alone
        Path(folder).chmod(0o755)
        found = told_by("save_as_nobody", folder)
        if found["root"]:
            pytest.skip("there is no user but root, who may write everywhere")
        assert found["as before"]
        assert all("Permission denied" in one for one in found["refused"])
        answer = Recommender.load(Path(folder) / "model").recommend([name(1), name(40)])
        assert answer.unknown_users == (name(40),)
