"""Your own CSV files: read exactly, or refused with the file and the line."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmrec_kernels import datasets

INTERACTIONS = ["user", "item", "rating", "timestamp"]
ITEMS = ["item", "title", "year", "genres", "text"]


def write(folder: Path, text: str, name: str = "ratings.csv") -> Path:
    path = folder / name
    path.write_bytes(text.encode())
    return path


def test_ratings_keep_their_order_and_come_in_the_frame_format(tmp_path):
    path = write(tmp_path, "timestamp,rating,item,note,user\r\n5,3.5,20,x,2\r\n\r\n4,1,10,y,1\r\n")
    frame = datasets.read_ratings(path)
    assert list(frame.columns) == INTERACTIONS
    assert [str(kind) for kind in frame.dtypes] == ["int64", "int64", "float64", "int64"]
    assert frame.to_numpy().tolist() == [[2, 20, 3.5, 5], [1, 10, 1, 4]]


def test_ratings_without_a_time_are_all_at_time_zero(tmp_path):
    frame = datasets.read_ratings(write(tmp_path, "\ufeffuser,item,rating\nann,a,1\n"))
    assert frame.to_numpy().tolist() == [["ann", "a", 1.0, 0]]


@pytest.mark.parametrize("item", ["007", "1.0", "+1", "1e3", "A1", "99999999999999999999", "-0"])
def test_ids_that_are_not_plain_whole_numbers_stay_as_they_are_written(item, tmp_path):
    frame = datasets.read_ratings(write(tmp_path, f"user,item,rating\n1,{item},1\n2,5,1\n"))
    assert frame.item.tolist() == [item, "5"]
    assert frame.user.tolist() == [1, 2]


@settings(deadline=None)
@given(
    ids=st.lists(st.integers(-(2**59), 2**59), min_size=1, max_size=20),
    ratings=st.lists(st.floats(-1e6, 1e6), min_size=20, max_size=20),
)
def test_what_pandas_writes_is_read_back_exactly(ids, ratings, tmp_path_factory):
    written = pd.DataFrame(
        {
            "user": np.array(ids, dtype=np.int64),
            "item": [f'"{i}", item' for i in ids],
            "rating": ratings[: len(ids)],
            "timestamp": np.abs(ids) % 2**53,
        }
    )
    path = tmp_path_factory.mktemp("csv") / "ratings.csv"
    written.to_csv(path, index=False)
    pd.testing.assert_frame_equal(datasets.read_ratings(path), written)


def test_items_get_a_text_from_title_and_genres(tmp_path):
    path = write(tmp_path, "item,title,genres\nm1,Heat (1995),Crime| Drama\nm2,Why?,\n", "i.csv")
    frame = datasets.read_items(path)
    assert list(frame.columns) == ITEMS
    assert frame.item.tolist() == ["m1", "m2"]
    assert frame.genres.tolist() == [("Crime", "Drama"), ()]
    assert frame.text.tolist() == ["Heat (1995). Genres: Crime, Drama.", "Why?"]
    assert frame.year.isna().tolist() == [False, True]


def test_an_items_own_text_is_kept(tmp_path):
    path = write(tmp_path, 'item,text,title\n1,"Two\nlines, one text",Mug\n', "i.csv")
    frame = datasets.read_items(path)
    assert frame.text.tolist() == ["Two\nlines, one text"]
    assert frame.title.tolist() == ["Mug"]
    only_text = datasets.read_items(write(tmp_path, "item,text\n1,A mug\n", "t.csv"))
    assert only_text[["title", "text"]].to_numpy().tolist() == [["A mug", "A mug"]]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "ratings.csv is empty"),
        ("\n\n", "ratings.csv is empty"),
        ("user,item,rating\n", "has a header but no rows"),
        ("userId,item,rating\n1,2,3\n", "has no column user; its columns are userId, item, rating"),
        ("user;item;rating\n1;2;3\n", "has no column user; its columns are user;item;rating"),
        ("user,item,rating,item\n1,2,3,4\n", "has the column item more than once"),
        ("user,item,rating\n1,2,3\n\n1,2,good\n", "line 4: rating must be a number.*'good'"),
        ('user,item,rating\n"1\n1",2,3\n1,2,\n', "line 4: rating must be a number.*''"),
        ("user,item,rating\n1,2,nan\n", "line 2: rating must be a number"),
        ("user,item,rating\n1,2,inf\n", "line 2: rating must be a number"),
        ("user,item,rating,timestamp\n1,2,3,today\n", "line 2: timestamp must be a number"),
        ("user,item,rating,timestamp\n1,2,3,1e300\n", "line 2: timestamp must be a number"),
        ("user,item,rating\n1,2,3\n ,2,3\n", "line 3: user is empty"),
        ("user,item,rating\n1,2,3\n1,2\n", "line 3: expected 3 fields.*found 2"),
        ("user,item,rating\n1,2,3,4\n", "line 2: expected 3 fields.*found 4"),
        ('user,item,rating\n"1,2,3\n', "line 2: not CSV"),
    ],
)
def test_a_bad_ratings_file_is_named_with_the_line(text, message, tmp_path):
    with pytest.raises(ValueError, match=message) as caught:
        datasets.read_ratings(write(tmp_path, text))
    assert "ratings.csv" in str(caught.value)


def test_a_file_in_another_encoding_is_named(tmp_path):
    path = tmp_path / "ratings.csv"
    path.write_bytes("user,item,rating\nané,1,1\n".encode("latin-1"))
    with pytest.raises(ValueError, match=r"ratings\.csv is not UTF-8"):
        datasets.read_ratings(path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("item,name\n1,Mug\n", "items.csv has no column title or text; its columns are item, name"),
        ("title\nMug\n", "items.csv has no column item; its columns are title"),
        ("item,title\n1,Mug\n2,Cup\n1,Jar\n", "items.csv, line 4: item '1' is already on line 2"),
        ("item,title\n,Mug\n", "items.csv, line 2: item is empty"),
    ],
)
def test_a_bad_items_file_is_named(text, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        datasets.read_items(write(tmp_path, text, "items.csv"))


def test_no_file_is_an_error_that_names_it(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"ratings\.csv"):
        datasets.read_ratings(tmp_path / "ratings.csv")


def test_item_ids_of_both_files_become_of_one_kind(tmp_path):
    ratings = write(tmp_path, "user,item,rating\n1,10,5\n1,11,4\n")
    items = write(tmp_path, "item,title\n10,Mug\nA11,Cup\n", "items.csv")
    data = datasets.read_dataset(ratings, items)
    assert data.name == "ratings"
    assert data.interactions.item.tolist() == ["10", "11"]
    assert data.items.item.tolist() == ["10", "A11"]
    assert data.interactions.user.tolist() == [1, 1]


def test_files_that_share_no_item_are_refused(tmp_path):
    ratings = write(tmp_path, "user,item,rating\n1,10,5\n")
    items = write(tmp_path, "item,title\nm10,Mug\n", "items.csv")
    with pytest.raises(
        ValueError, match=r"no item of .*ratings.csv is in .*items.csv.*'10'.*'m10'"
    ):
        datasets.read_dataset(ratings, items)
