"""Your own Parquet files: read as CSV of the same rows is, or refused with the file and the row."""

import subprocess
import sys
from datetime import date, datetime, timezone
from decimal import Decimal
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmrec_kernels import datasets

pa = pytest.importorskip("pyarrow", reason="pyarrow is not installed")
parquet = pytest.importorskip("pyarrow.parquet", reason="pyarrow is not installed")

SCRIPTS = ["となりのトトロ", "ألف ليلة وليلة", "🎬🍿👩‍👩‍👧", "עברית", "हिन्दी", "e\u0301clair"]


def write(folder: Path, columns: dict, name: str = "ratings.parquet") -> Path:
    parquet.write_table(pa.table(columns), folder / name)
    return folder / name


# --- what is read ------------------------------------------------------------------------------


def test_ratings_come_in_the_frame_format(tmp_path):
    columns = {"note": ["x", "y"], "timestamp": [5, 4], "rating": [3.5, 1], "item": ["b", "a"]}
    frame = datasets.read_ratings(write(tmp_path, columns | {"user": [2, 1]}))
    assert list(frame.columns) == ["user", "item", "rating", "timestamp"]
    assert [str(frame[one].dtype) for one in ("user", "rating", "timestamp")] == [
        "int64",
        "float64",
        "int64",
    ]
    assert frame.to_numpy().tolist() == [[2, "b", 3.5, 5], [1, "a", 1, 4]]


def test_ratings_without_rating_and_time_are_ones_at_time_zero(tmp_path):
    frame = datasets.read_ratings(write(tmp_path, {"user": ["ann"], "item": ["a"]}))
    assert frame.to_numpy().tolist() == [["ann", "a", 1.0, 0]]


@settings(deadline=None)
@given(
    ids=st.lists(st.integers(-(2**63), 2**63 - 1), min_size=1, max_size=20),
    ratings=st.lists(st.floats(-1e6, 1e6), min_size=20, max_size=20),
    words=st.lists(st.text("aé語🎬 7", min_size=1).filter(str.strip), min_size=20, max_size=20),
)
def test_what_pandas_writes_is_read_back_exactly(ids, ratings, words, tmp_path_factory):
    written = pd.DataFrame(
        {
            "user": np.array(ids, dtype=np.int64),
            "item": [word.strip() for word in words[: len(ids)]],
            "rating": ratings[: len(ids)],
            "timestamp": np.array(ids, dtype=np.int64) >> 11,
        }
    )
    path = tmp_path_factory.mktemp("parquet") / "ratings.parquet"
    written.to_parquet(path, index=True)
    pd.testing.assert_frame_equal(datasets.read_ratings(path), written)


@pytest.mark.parametrize("kind", [pa.int8(), pa.uint8(), pa.int32(), pa.uint64(), pa.int64()])
def test_integers_of_any_width_are_ids(kind, tmp_path):
    columns = {"user": pa.array([7, 1], kind), "item": pa.array([1, 2], kind)}
    frame = datasets.read_ratings(write(tmp_path, columns))
    assert [str(frame[one].dtype) for one in ("user", "item")] == ["int64", "int64"]
    assert frame.user.tolist() == [7, 1]


@pytest.mark.parametrize("kind", [pa.large_string(), pa.dictionary(pa.int32(), pa.string())])
def test_strings_of_any_kind_are_ids_and_stay_strings(kind, tmp_path):
    columns = {"user": pa.array(["7", "007"], kind), "item": pa.array(["1", "2"], kind)}
    frame = datasets.read_ratings(write(tmp_path, columns))
    assert frame[["user", "item"]].to_numpy().tolist() == [["7", "1"], ["007", "2"]]


def test_categories_of_integers_are_ids_too(tmp_path):
    path = tmp_path / "ratings.parquet"
    pd.DataFrame({"user": pd.Categorical([7, 1, 7]), "item": [1, 2, 3]}).to_parquet(path)
    assert datasets.read_ratings(path).user.tolist() == [7, 1, 7]


@pytest.mark.parametrize("unit", ["s", "ms", "us", "ns"])
@pytest.mark.parametrize("zone", [None, "Asia/Tokyo"])
def test_parquets_own_times_become_seconds(unit, zone, tmp_path):
    moments = [
        datetime(2020, 5, 17, 12, 0, 1, 999000 * (unit != "s"), tzinfo=timezone.utc),
        datetime(1969, 12, 31, 23, 59, 58, tzinfo=timezone.utc),
    ]
    kind = pa.timestamp(unit, tz=zone)
    times = pa.array(moments, pa.timestamp(unit, tz="UTC")).cast(pa.int64()).cast(kind)
    columns = {"user": [1, 1], "item": [1, 2], "timestamp": times}
    frame = datasets.read_ratings(write(tmp_path, columns))
    assert frame.timestamp.tolist() == [1589716801, -2]


@pytest.mark.parametrize("kind", [pa.int16(), pa.float32(), pa.decimal128(5, 2), pa.bool_()])
def test_ratings_may_be_numbers_of_any_type(kind, tmp_path):
    values = [Decimal(1), Decimal(0)] if pa.types.is_decimal(kind) else [1, 0]
    rating = pa.array(values).cast(kind)
    path = write(tmp_path, {"user": [1, 2], "item": [1, 1], "rating": rating})
    assert datasets.read_ratings(path).rating.tolist() == [1.0, 0.0]


def test_items_keep_the_columns_that_may_be_features(tmp_path):
    columns = {
        "item": [1, 2],
        "title": ["Red mug", None],
        "genres": [["Kitchen", "Gift"], None],
        "price": pa.array([2.5, None]),
        "stock": pa.array([None, 3], pa.int32()),
        "new": [True, None],
        "weight": pa.array([Decimal("0.25"), None], pa.decimal128(5, 2)),
        "colour": ["red", None],
        "code": ["007", ""],
        "tags": [["a"], None],
        "nothing": pa.nulls(2),
        "since": [date(2020, 1, 1), None],
        "size": [{"height": 1}, None],
        "picture": [b"", None],
        "__index_level_0__": [0, 1],
    }
    frame = datasets.read_items(write(tmp_path, columns, "items.parquet"))
    base = ["item", "title", "year", "genres", "text"]
    numbers = ["price", "stock", "new", "weight", "nothing"]
    assert list(frame.columns) == [
        *base,
        *("price", "stock", "new", "weight", "colour", "code", "tags", "nothing"),
    ]
    assert all(str(frame[one].dtype) == "float64" for one in numbers)
    assert frame[numbers].iloc[0].fillna(-1).tolist() == [2.5, -1, 1, 0.25, -1]
    assert frame[numbers].iloc[1].fillna(-1).tolist() == [-1, 3, -1, -1, -1]
    assert frame.text.tolist() == ["Red mug. Genres: Kitchen, Gift.", ""]
    assert frame.genres.tolist() == [("Kitchen", "Gift"), ()]
    assert frame.tags.tolist() == [("a",), ()]
    assert frame.colour.isna().tolist() == frame.code.isna().tolist() == [False, True]
    assert (frame.colour[0], frame.code[0]) == ("red", "007")


def test_the_same_items_are_read_from_csv_and_from_parquet(tmp_path):
    written = pd.DataFrame(
        {
            "item": range(len(SCRIPTS)),
            "title": [f"{title} (2001)" for title in SCRIPTS],
            "genres": ["A|B", "", "A", "", "", "C"],
            "price": [1.5, np.nan, 3, 4, 5, 1e-3],
            "colour": ["red", None, "青", "red", None, "x"],
        }
    )
    written.to_csv(tmp_path / "items.csv", index=False)
    written.to_csv(tmp_path / "items.csv.gz", index=False)
    written.to_parquet(tmp_path / "items.parquet")
    first, *others = (
        datasets.read_items(tmp_path / f"items{one}") for one in (".csv", ".csv.gz", ".parquet")
    )
    assert first.title.tolist() == written.title.tolist()
    assert first.year.tolist() == [2001] * len(SCRIPTS)
    for other in others:
        pd.testing.assert_frame_equal(first, other)


def test_texts_of_any_length_and_script_are_kept_whole(tmp_path):
    texts = [*SCRIPTS, "very long " * 100_000 + "indeed", ""]
    columns = {"item": list(range(len(texts))), "text": texts}
    frame = datasets.read_items(write(tmp_path, columns, "items.parquet"))
    assert frame.text.tolist() == texts


def test_years_may_be_given(tmp_path):
    columns = {"item": [1, 2], "title": ["Heat (1995)", "Big"], "year": [1996.0, None]}
    frame = datasets.read_items(write(tmp_path, columns, "items.parquet"))
    assert str(frame.year.dtype) == "Int64"
    assert frame.year.fillna(0).tolist() == [1996, 0]


def test_users_and_mixed_kinds_of_files_make_a_dataset(tmp_path):
    pd.DataFrame({"user": [1, 2], "item": [10, 11], "rating": [5, 4]}).to_csv(
        tmp_path / "ratings.csv.gz", index=False
    )
    items = write(tmp_path, {"item": ["10", "A11"], "title": ["Mug", "Cup"]}, "items.parquet")
    users = write(tmp_path, {"user": ["1", "2"], "age": [31, None]}, "users.parquet")
    data = datasets.read_dataset(tmp_path / "ratings.csv.gz", items, users)
    assert data.name == "ratings"
    assert data.interactions.item.tolist() == ["10", "11"]
    assert data.interactions.user.tolist() == ["1", "2"]
    assert data.users.age.fillna(-1).tolist() == [31, -1]


# --- what is refused ---------------------------------------------------------------------------

ONE = {"user": [1], "item": [2]}


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"userId": [1], "item": [2]}, "has no column user; its columns are userId, item"),
        (ONE | {"Rating": [3]}, "has no column rating; its columns are user, item, Rating"),
        ({"user": pa.array([], pa.int64()), "item": pa.array([], pa.int64())}, "but no rows"),
        ({"user": [1.0], "item": [2]}, "user is a column of type double; expected ids that are"),
        ({"user": [1], "item": [b"2"]}, "item is a column of type binary; expected ids that are"),
        ({"user": [1], "item": [[2]]}, "item is a column of type list.*; expected ids that are"),
        ({"user": [1], "item": [True]}, "item is a column of type bool; expected ids that are"),
        ({"user": pa.array([2**63], pa.uint64()), "item": [1]}, "user has an id beyond int64"),
        ({"user": ["a", None], "item": [2, 3]}, r"row 1 \(from 0\): user is empty"),
        ({"user": ["a", " "], "item": [2, 3]}, r"row 1 \(from 0\): user is empty"),
        ({"user": [1, None], "item": [2, 3]}, r"row 1 \(from 0\): user is empty"),
        ({"user": pa.nulls(1), "item": [2]}, r"row 0 \(from 0\): user is empty"),
        (ONE | {"rating": ["5"]}, "rating is a column of type string; expected numbers"),
        (ONE | {"rating": [float("nan")]}, r"row 0 .*: rating must be a number.*; got nan"),
        (ONE | {"rating": pa.array([None], pa.int8())}, r"row 0 .*: rating must.*; got None"),
        (ONE | {"rating": [float("inf")]}, r"row 0 .*: rating must be a number.*; got inf"),
        (ONE | {"timestamp": ["today"]}, "timestamp is a column of type string; expected numbers"),
        (ONE | {"timestamp": pa.array([None], pa.int64())}, "row 0 .*: timestamp must be a number"),
        (ONE | {"timestamp": pa.array([None], pa.timestamp("s"))}, "row 0 .*: timestamp is empty"),
        (ONE | {"timestamp": [date(2020, 1, 1)]}, "timestamp is a column of type date32"),
    ],
)
def test_a_bad_ratings_file_is_named_with_the_row(columns, message, tmp_path):
    with pytest.raises(ValueError, match=message) as caught:
        datasets.read_ratings(write(tmp_path, columns))
    assert "ratings.parquet" in str(caught.value)


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"item": [1], "name": ["Mug"]}, "has no column title or text; its columns are item, name"),
        ({"item": [1], "title": [7]}, "title is a column of type int64; expected strings"),
        ({"item": [1, 2, 1], "title": ["a", "b", "c"]}, "row 2 .*: item 1 is already on row 0"),
        ({"item": ["a", " a"], "title": ["a", "b"]}, "row 1 .*: item ' a' is already on row 0"),
        ({"item": [1], "title": ["a"], "genres": [[7]]}, "genres is a column of type list<.*int64"),
        ({"item": [1], "title": ["a"], "year": [1.5]}, "row 0 .*: year must be a year; got 1.5"),
        ({"item": [1], "title": ["a"], "year": [10**6]}, "row 0 .*: year must be a year"),
    ],
)
def test_a_bad_items_file_is_named_with_the_row(columns, message, tmp_path):
    with pytest.raises(ValueError, match=message) as caught:
        datasets.read_items(write(tmp_path, columns, "items.parquet"))
    assert "items.parquet" in str(caught.value)


def test_a_repeated_user_and_a_repeated_column_are_named(tmp_path):
    path = write(tmp_path, {"user": ["a", "b", "b"]}, "users.parquet")
    with pytest.raises(ValueError, match=r"row 2 .*: user 'b' is already on row 1"):
        datasets.read_users(path)
    table = pa.Table.from_arrays([pa.array([1]), pa.array([2])], ["user", "user"])
    parquet.write_table(table, path)
    with pytest.raises(ValueError, match=r"users\.parquet has the column user more than once"):
        datasets.read_users(path)


def test_users_without_ratings_are_refused(tmp_path):
    ratings = write(tmp_path, {"user": [1], "item": [2]})
    items = write(tmp_path, {"item": [2], "title": ["Mug"]}, "items.parquet")
    users = write(tmp_path, {"user": ["u1"]}, "users.parquet")
    with pytest.raises(ValueError, match=r"no user of .*ratings\.parquet is in .*users\.parquet"):
        datasets.read_dataset(ratings, items, users)


def test_no_file_and_a_folder_are_errors_that_name_them(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"ratings\.parquet"):
        datasets.read_ratings(tmp_path / "ratings.parquet")
    (tmp_path / "ratings.parquet").mkdir()
    with pytest.raises(OSError, match=r"ratings\.parquet"):
        datasets.read_ratings(tmp_path / "ratings.parquet")


@pytest.mark.parametrize("contents", [b"", b"PAR1", b"user,item\n1,2\n", b"PAR1" + b"\0" * 90])
def test_a_file_that_is_not_parquet_is_named(contents, tmp_path):
    path = tmp_path / "ratings.parquet"
    path.write_bytes(contents)
    with pytest.raises(ValueError, match=r"ratings\.parquet is not a whole Parquet file: ."):
        datasets.read_ratings(path)


@pytest.fixture(scope="module")
def checked_file(tmp_path_factory) -> bytes:
    """A file with checksums of its pages."""
    path = tmp_path_factory.mktemp("whole") / "ratings.parquet"
    columns = {"user": list(range(500)), "item": [f"item {one % 7}" for one in range(500)]}
    parquet.write_table(pa.table(columns), path, write_page_checksum=True)
    return path.read_bytes()


def test_a_value_that_changed_on_the_disk_is_found_by_its_checksum(tmp_path):
    path = tmp_path / "ratings.parquet"
    plain = {"compression": "none", "use_dictionary": False, "write_statistics": False}
    table = pa.table({"user": [1], "item": ["needle"]})
    parquet.write_table(table, path, write_page_checksum=True, **plain)
    path.write_bytes(path.read_bytes().replace(b"needle", b"noodle"))
    with pytest.raises(ValueError, match=r"is not a whole Parquet file: .*CRC"):
        datasets.read_ratings(path)


@settings(deadline=None, max_examples=200)
@given(at=st.floats(0, 1, exclude_max=True), flip=st.integers(1, 255))
def test_a_flipped_byte_is_an_error_or_harmless(at, flip, checked_file, tmp_path_factory):
    """Pages have checksums, the footer has none: a name in it may change and still be one."""
    damaged = bytearray(checked_file)
    damaged[int(at * len(damaged))] ^= flip
    path = tmp_path_factory.mktemp("damaged") / "ratings.parquet"
    path.write_bytes(damaged)
    try:
        said = repr(len(datasets.read_ratings(path)))
    except ValueError as error:
        said = str(error)
    assert said == "500" or "ratings.parquet" in said
    assert "\n" not in said


@pytest.mark.parametrize("part", [0.1, 0.5, 0.9, 0.999])
def test_a_file_cut_short_is_named(part, checked_file, tmp_path):
    path = tmp_path / "ratings.parquet"
    path.write_bytes(checked_file[: int(part * len(checked_file))])
    with pytest.raises(ValueError, match="is not a whole Parquet file"):
        datasets.read_ratings(path)


def test_a_text_that_is_not_utf8_is_named(tmp_path):
    raw = pa.array([b"caf\xe9"], pa.binary())
    text = pa.Array.from_buffers(pa.string(), 1, raw.buffers())
    path = write(tmp_path, {"item": [1], "title": text}, "items.parquet")
    with pytest.raises(ValueError, match=r"items\.parquet is not a whole Parquet file: .*UTF"):
        datasets.read_items(path)


@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="no list of threads here")
def test_reading_starts_no_threads_that_may_outlive_the_interpreter(tmp_path):
    """A thread that lets go of the file while Python ends would abort the process."""
    write(tmp_path, {"user": ["a", "b"], "item": ["x", None], "rating": [1.0, 2.0]})
    code = (
        "import os, pyarrow.parquet\n"
        "from llmrec_kernels.datasets.tables import read_ratings\n"
        "before = len(os.listdir('/proc/self/task'))\n"
        "try: read_ratings('ratings.parquet')\n"
        "except ValueError: print(len(os.listdir('/proc/self/task')) - before)"
    )
    ran = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert ran.stdout == "0\n"


# --- pyarrow -----------------------------------------------------------------------------------


def test_without_pyarrow_the_way_to_get_it_is_said_and_csv_is_read(tmp_path):
    (tmp_path / "ratings.csv").write_text("user,item\n1,2\n")
    (tmp_path / "ratings.parquet").write_bytes(b"")
    code = (
        "import sys; sys.modules['pyarrow'] = None\n"
        "from llmrec_kernels import datasets\n"
        "assert len(datasets.read_ratings('ratings.csv')) == 1\n"
        "try: datasets.read_ratings('ratings.parquet')\n"
        "except ImportError as error: print(error)"
    )
    ran = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert ran.stdout == (
        "reading ratings.parquet needs pyarrow: pip install llmrec_kernels[parquet]\n"
    )
