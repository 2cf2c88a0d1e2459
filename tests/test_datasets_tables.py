"""Your own CSV files: read exactly, or refused with the file and the line."""

import csv
import gzip
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


def test_ratings_without_a_rating_are_implicit_feedback_and_all_ones(tmp_path):
    frame = datasets.read_ratings(write(tmp_path, "item,user,timestamp\na,1,7\na,1,9\n"))
    assert frame.to_numpy().tolist() == [[1, "a", 1.0, 7], [1, "a", 1.0, 9]]


def test_a_gzipped_file_is_read_as_what_is_in_it(tmp_path):
    text = "\ufeffuser,item,rating\r\n1,トトロ,5\r\n"
    (tmp_path / "r.csv.gz").write_bytes(gzip.compress(text.encode()))
    pd.testing.assert_frame_equal(
        datasets.read_ratings(tmp_path / "r.csv.gz"), datasets.read_ratings(write(tmp_path, text))
    )


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


def test_texts_in_any_script_of_any_length_or_empty_are_kept(tmp_path):
    titles = ["となりのトトロ", "ألف ليلة وليلة", "🎬🍿👩‍👩‍👧", "e\u0301clair", "x" * 1_000_000, ""]
    path = tmp_path / "items.csv"
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([["item", "title"], *enumerate(titles)])
    frame = datasets.read_items(path)
    assert frame.title.tolist() == titles
    assert frame.text.tolist() == [*(f"{title}." for title in titles[:-1]), ""]


def test_other_columns_of_items_are_numbers_where_all_that_is_filled_is(tmp_path):
    path = write(
        tmp_path,
        "price,item,title,colour,code,nothing,big,,size\n"
        "2.5,1,Mug,red,007,,1,x,-1e-3\n"
        " ,2,Cup,,12,,1e999,y,.5\n"
        "3,3,Jar,7,1_0,,3,z,0\n",
        "items.csv",
    )
    frame = datasets.read_items(path)
    assert list(frame.columns) == [*ITEMS, "price", "colour", "code", "nothing", "big", "size"]
    for name, values in {"price": [2.5, np.nan, 3], "size": [-1e-3, 0.5, 0]}.items():
        assert str(frame[name].dtype) == "float64"
        np.testing.assert_array_equal(frame[name], values)
    assert frame.nothing.dtype == np.float64
    assert frame.nothing.isna().all()
    assert frame.code.tolist() == ["007", "12", "1_0"]  # as written: they may be codes
    assert frame.big.tolist() == ["1", "1e999", "3"]
    assert frame.colour.isna().tolist() == [False, True, False]
    assert frame.colour[[0, 2]].tolist() == ["red", "7"]


def test_a_column_may_have_any_name(tmp_path):
    path = write(tmp_path, "item,title,self,index\n1,Mug,2,3\n", "items.csv")
    frame = datasets.read_items(path)
    assert frame[["self", "index"]].to_numpy().tolist() == [[2.0, 3.0]]


def test_a_year_that_is_given_comes_before_the_one_in_the_title(tmp_path):
    path = write(tmp_path, "item,title,year\n1,Heat (1995),1996\n2,Big (1988),\n", "items.csv")
    frame = datasets.read_items(path)
    assert str(frame.year.dtype) == "Int64"
    assert frame.year.fillna(0).tolist() == [1996, 0]


def test_users_have_an_id_and_whatever_else_is_known(tmp_path):
    path = write(tmp_path, "town,user,age,zip\nYork,7,31,01234\n,8,,99999\n", "users.csv")
    frame = datasets.read_users(path)
    assert list(frame.columns) == ["user", "town", "age", "zip"]
    assert frame.user.tolist() == [7, 8]
    assert frame.age.fillna(-1).tolist() == [31, -1]
    assert frame.zip.tolist() == ["01234", "99999"]
    assert frame.town.isna().tolist() == [False, True]
    assert list(datasets.read_users(write(tmp_path, "user\nann\n")).columns) == ["user"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "ratings.csv is empty"),
        ("\n\n", "ratings.csv is empty"),
        ("user,item,rating\n", "has a header but no rows"),
        ("userId,item,rating\n1,2,3\n", "has no column user; its columns are userId, item, rating"),
        ("user,item,Rating\n1,2,3\n", "has no column rating; its columns are user, item, Rating"),
        ("user,item,TIMESTAMP\n1,2,3\n", "has no column timestamp; its columns are"),
        ("user,item,timestamp\n1,2,3\n1,3,\n", "line 3: timestamp must be a number.*got ''"),
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
        ("item,Title\n1,Mug\n", "items.csv has no column title; its columns are item, Title"),
        ("item,title,year\n1,Mug,new\n", "items.csv, line 2: year must be a year; got 'new'"),
        ("item,title,year\n1,Mug,\n2,Cup,1.5\n", "items.csv, line 3: year must be a year"),
    ],
)
def test_a_bad_items_file_is_named(text, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        datasets.read_items(write(tmp_path, text, "items.csv"))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("name\nann\n", "users.csv has no column user; its columns are name"),
        ("user\n1\n2\n1\n", "users.csv, line 4: user '1' is already on line 2"),
    ],
)
def test_a_bad_users_file_is_named(text, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        datasets.read_users(write(tmp_path, text, "users.csv"))


@pytest.mark.parametrize("name", ["ratings.xlsx", "ratings", "ratings.tsv", "csv", "ratings.gz"])
def test_a_file_of_another_ending_is_named_with_those_that_are_read(name, tmp_path):
    with pytest.raises(ValueError, match=rf"{name} must have.* \.csv, \.csv\.gz or \.parquet"):
        datasets.read_ratings(write(tmp_path, "user,item,rating\n1,2,3\n", name))


@pytest.mark.parametrize("how", ["not gzip", "cut short", "flipped"])
def test_a_damaged_gzip_file_is_named(how, tmp_path):
    whole = gzip.compress(b"user,item\n" + b"".join(b"%d,%d\n" % (i, i * i) for i in range(999)))
    middle = len(whole) // 2
    (tmp_path / "ratings.csv.gz").write_bytes(
        {
            "not gzip": b"user,item\n1,2\n",
            "cut short": whole[:middle],
            "flipped": whole[:-5] + bytes([whole[-5] ^ 1]) + whole[-4:],  # of the checksum
        }[how]
    )
    with pytest.raises(ValueError, match=r"ratings\.csv\.gz is not a whole gzip file"):
        datasets.read_ratings(tmp_path / "ratings.csv.gz")


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
