"""Data sets: one frame format, found wherever they may be, and never half-written."""

import http.server
import importlib.util
import io
import os
import sys
import threading
import unicodedata
import zipfile
from pathlib import Path

import pandas as pd
import pytest

from llmrec_kernels import datasets
from llmrec_kernels.datasets import movielens
from llmrec_kernels.datasets.frames import items_frame
from llmrec_kernels.datasets.locate import TIMEOUT_S

INTERACTIONS = ["user", "item", "rating", "timestamp"]
ITEMS = ["item", "title", "year", "genres", "text"]
FILMS_WITH_ACCENTS = {543, 1005, 1104, 1233, 1252, 1322, 1366, 1623, 1633}


def data_folder(name: str, *files: str) -> Path:
    root = os.environ.get("LLMREC_DATA")
    folder = Path(root or "") / name
    if not root or not all((folder / file).is_file() for file in files):
        pytest.skip(f"LLMREC_DATA is not set to a folder that holds {name}/{files[0]}")
    return folder


@pytest.fixture(scope="module")
def recbole_folder() -> Path:
    spec = importlib.util.find_spec("recbole")
    if spec is None or not spec.submodule_search_locations:
        pytest.skip("the recbole wheel is not installed")
    return Path(spec.submodule_search_locations[0]) / "dataset_example" / "ml-100k"


@pytest.fixture
def official_folder() -> Path:
    return data_folder("ml-100k", "u.data", "u.item", "u.user")


@pytest.fixture
def nowhere(tmp_path, monkeypatch):
    """A machine with no data, no wheel, and an empty cache."""
    monkeypatch.delenv("LLMREC_DATA", raising=False)
    monkeypatch.setenv("LLMREC_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(movielens, "_RECBOLE", None)
    monkeypatch.setattr(movielens, "_PUBLISHER", "http://127.0.0.1:9")  # nobody listens there
    return tmp_path / "cache" / "datasets"


TINY = {
    "u.data": "1\t2\t3\t881250949\n2\t1\t5\t881250950\n",
    "u.item": (
        '1|Caf\xe9 "A" (1995) |01-Jan-1995||http://x|' + "|".join("0001100000000000000") + "\n"
        "2|unknown||||" + "|".join("1000000000000000000") + "\n"
    ),
    "u.user": "1|24|M|technician|85711\n2|53|F|other|T8H1N\n",
    "u1.base": "1\t2\t3\t881250949\n",
    "u1.test": "2\t1\t5\t881250950\n",
}


def tiny_folder(folder: Path, **changed: str | None) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in (TINY | changed).items():
        if text is not None:
            (folder / name).write_text(text, encoding="latin-1")
    return folder


def tiny_zip() -> bytes:
    """The same bytes at any time: what is written by name alone has the clock's time in it."""
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w") as archive:
        for name, text in TINY.items():
            entry = zipfile.ZipInfo(f"ml-100k/{name}")
            archive.writestr(entry, text.encode("latin-1"))
    return target.getvalue()


@pytest.fixture
def publisher(monkeypatch, nowhere):
    """A server of one file, whose contents and requests the test sees."""
    served = {"/ml-100k.zip": tiny_zip(), "requests": 0}

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            served["requests"] += 1
            body = served.get(self.path)
            self.send_response(200 if body is not None else 404)
            self.send_header("Content-Length", str(len(body or b"")))
            self.end_headers()
            self.wfile.write(body or b"")

        def log_message(self, *args):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    monkeypatch.setattr(movielens, "_PUBLISHER", f"http://127.0.0.1:{server.server_port}")
    yield served
    server.shutdown()
    server.server_close()


def assert_one_frame_format(data: datasets.Dataset) -> None:
    assert list(data.interactions.columns) == INTERACTIONS
    kinds = [str(kind) for kind in data.interactions.dtypes]
    assert kinds == ["int64", "int64", "float64", "int64"]
    assert list(data.items.columns[: len(ITEMS)]) == ITEMS
    assert str(data.items.dtypes["item"]) == "int64"
    assert str(data.items.dtypes["year"]) == "Int64"
    assert all(type(genres) is tuple for genres in data.items.genres)
    assert data.items.item.is_unique
    assert data.interactions.item.isin(data.items.item).all()
    assert not data.interactions.isna().any().any()


# --- MovieLens, on the real data ---------------------------------------------------------------


def test_movielens_100k_has_the_publishers_counts_and_one_frame_format(recbole_folder):
    data = datasets.movielens_100k()
    assert_one_frame_format(data)
    assert len(data.interactions) == 100_000
    assert data.interactions.user.nunique() == 943
    assert data.interactions.item.nunique() == len(data.items) == 1682
    assert sorted(data.interactions.rating.unique()) == [1, 2, 3, 4, 5]
    assert list(data.users.columns) == ["user", "age", "gender", "occupation", "zip_code"]
    assert data.users.iloc[0].tolist() == [1, 24, "M", "technician", "85711"]


def test_movielens_100k_items_read_as_a_film_and_its_genres(recbole_folder):
    items = datasets.movielens_100k(recbole_folder).items.set_index("item")
    assert items.title[1] == "Toy Story (1995)"
    assert items.year[1] == 1995
    assert items.genres[1] == ("Animation", "Children's", "Comedy")
    assert items.text[1] == "Toy Story (1995). Genres: Animation, Children's, Comedy."


def test_movielens_100k_has_one_film_of_which_nothing_is_known(recbole_folder):
    items = datasets.movielens_100k(recbole_folder).items.set_index("item")
    assert items.index[items.year.isna()].tolist() == [267]
    assert items.loc[267, ["title", "genres", "text"]].tolist() == ["unknown", (), "unknown."]


def test_movielens_100k_is_the_same_from_the_publisher_and_from_the_wheel(
    recbole_folder, official_folder
):
    """But for accents, which some copies of u.item lost and the wheel has."""
    official = datasets.movielens_100k(official_folder)
    wheel = datasets.movielens_100k(recbole_folder)
    pd.testing.assert_frame_equal(official.interactions, wheel.interactions)
    pd.testing.assert_frame_equal(official.users, wheel.users)
    exact = ["item", "year", "genres"]
    pd.testing.assert_frame_equal(official.items[exact], wheel.items[exact])
    for column in ("title", "text"):
        differ = official.items[column] != wheel.items[column]
        assert set(wheel.items.item[differ]) <= FILMS_WITH_ACCENTS
        assert official.items[column].map(bare).equals(wheel.items[column].map(bare))


def bare(text: str) -> str:
    """Drop the accents of a text."""
    return "".join(c for c in unicodedata.normalize("NFKD", text) if not unicodedata.combining(c))


def test_movielens_100k_with_plots_tells_who_made_the_film_and_who_is_in_it():
    data_folder("ml-100k", "items_info.json")
    data = datasets.movielens_100k(plots=True)
    assert_one_frame_format(data)
    items = data.items.set_index("item")
    plot = items["plot"][1]
    assert plot.startswith("A cowboy doll is profoundly threatened")
    assert items.directors[1] == ("John Lasseter",)
    assert len(items.cast[1]) > 4
    assert items.text[1] == (
        f"Toy Story (1995). Genres: Animation, Children's, Comedy. {items['plot'][1]} "
        "Directed by John Lasseter. Starring Tom Hanks, Tim Allen, Don Rickles, Jim Varney."
    )
    assert (items["plot"] != "").sum() == 1674
    # Nothing is known of film 1358, so its text says no more than without plots.
    assert items.text[1358] == "The Deadly Cure (1996). Genres: Action."


@pytest.mark.parametrize("fold", ["u1", "u2", "u3", "u4", "u5", "ua", "ub"])
def test_the_publishers_splits_divide_the_ratings(fold, official_folder):
    train, test = datasets.movielens_100k_split(fold)
    whole = datasets.movielens_100k(official_folder).interactions
    assert len(test) == (20_000 if fold < "ua" else 9430)
    together = pd.concat([train, test]).sort_values(INTERACTIONS, ignore_index=True)
    pd.testing.assert_frame_equal(together, whole.sort_values(INTERACTIONS, ignore_index=True))


def test_movielens_latest_small_has_the_publishers_counts_and_one_frame_format():
    data_folder("ml-latest-small", "ratings.csv", "movies.csv")
    data = datasets.movielens_latest_small()
    assert_one_frame_format(data)
    assert (len(data.interactions), len(data.items), data.users) == (100_836, 9742, None)
    assert data.interactions.user.nunique() == 610
    assert data.interactions.iloc[0].tolist() == [1, 1, 4.0, 964982703]
    items = data.items.set_index("item")
    assert items.text[1] == (
        "Toy Story (1995). Genres: Adventure, Animation, Children, Comedy, Fantasy."
    )
    assert items.loc[171631, "text"] == "Maria Bamford: Old Baby."  # no year, no genres listed
    assert items.year[171749] == 2006  # "(2006–2007)"
    assert not items.title.str.contains(r"^\s|\s$|\s\s").any()


def test_load_takes_a_name_and_lists_the_names_it_knows(recbole_folder):
    assert datasets.load("ml-100k", recbole_folder).name == "ml-100k"
    with pytest.raises(ValueError, match="ml-100k, ml-latest-small, online-retail; got 'ml-1m'"):
        datasets.load("ml-1m")
    with pytest.raises(ValueError, match="u1, u2, u3, u4, u5, ua, ub; got 'u6'"):
        datasets.movielens_100k_split("u6")


# --- where the files are looked for ------------------------------------------------------------


def test_a_folder_or_a_zip_file_may_be_named(tmp_path, nowhere):
    folder = tiny_folder(tmp_path / "anything")
    archive = tmp_path / "anything.zip"
    archive.write_bytes(tiny_zip())
    for path in (folder, str(folder), archive):
        data = datasets.movielens_100k(path)
        assert data.items.title.tolist() == ['Café "A" (1995)', "unknown"]  # latin-1, quotes kept
        assert data.items.genres.tolist() == [("Animation", "Children's"), ()]
        assert data.users.zip_code.tolist() == ["85711", "T8H1N"]
        assert len(datasets.movielens_100k_split("u1", path)[1]) == 1


def test_the_data_folder_comes_before_the_wheel(tmp_path, monkeypatch, recbole_folder):
    tiny_folder(tmp_path / "ml-100k")
    monkeypatch.setenv("LLMREC_DATA", str(tmp_path))
    assert len(datasets.movielens_100k().interactions) == 2
    monkeypatch.setenv("LLMREC_DATA", str(tmp_path / "elsewhere"))
    assert len(datasets.movielens_100k().interactions) == 100_000


def test_a_named_folder_is_the_only_one_searched(tmp_path, recbole_folder):
    with pytest.raises(datasets.DatasetNotFoundError, match=r"path='.*' \(has no u.data\)"):
        datasets.movielens_100k(tmp_path)


def test_the_wheel_is_read_without_importing_it(recbole_folder, monkeypatch):
    monkeypatch.delenv("LLMREC_DATA", raising=False)
    assert len(datasets.movielens_100k(download=False).interactions) == 100_000
    assert "recbole" not in sys.modules  # and it could not be imported: its dependencies are absent


def test_what_is_nowhere_is_reported_with_every_place_and_the_way_out(nowhere):
    with pytest.raises(datasets.DatasetNotFoundError) as caught:
        datasets.movielens_100k()
    message = str(caught.value)
    assert isinstance(caught.value, FileNotFoundError)
    for said in ("LLMREC_DATA (not set)", str(nowhere), "refused", "path=", "--no-deps recbole"):
        assert said in message
    assert "\n" not in message
    assert not list(nowhere.glob("*"))


def test_the_network_is_left_alone_on_request(publisher):
    with pytest.raises(datasets.DatasetNotFoundError):
        datasets.movielens_100k(download=False)
    with pytest.raises(datasets.DatasetNotFoundError):
        datasets.movielens_latest_small(download=False)
    assert publisher["requests"] == 0


def test_plots_that_are_missing_are_reported_with_their_source(tmp_path, nowhere):
    tiny_folder(tmp_path / "data")
    with pytest.raises(datasets.DatasetNotFoundError, match=r"items_info\.json.*ClayRS"):
        datasets.movielens_100k(tmp_path / "data", plots=True)


# --- downloads ---------------------------------------------------------------------------------


def test_a_download_is_kept_and_used_again(publisher, nowhere):
    first = datasets.movielens_100k()
    second = datasets.movielens_100k(download=False)
    pd.testing.assert_frame_equal(first.interactions, second.interactions)
    assert publisher["requests"] == 1
    assert [file.name for file in nowhere.iterdir()] == ["ml-100k.zip"]


def damaged(how: str) -> bytes | None:
    whole, empty = tiny_zip(), io.BytesIO()
    zipfile.ZipFile(empty, "w").close()
    middle = whole.index(b"881250949")
    return {
        "not a zip": b"<html>please log in</html>",
        "cut short": whole[: len(whole) // 2],
        "flipped": whole[:middle] + b"9" + whole[middle + 1 :],
        "lacks a file": empty.getvalue(),
        "not there": None,
    }[how]


@pytest.mark.parametrize("how", ["not a zip", "cut short", "flipped", "lacks a file", "not there"])
def test_a_bad_download_leaves_nothing_behind(how, publisher, nowhere):
    publisher["/ml-100k.zip"] = damaged(how)
    with pytest.raises(datasets.DatasetNotFoundError, match=r"http://127.0.0.1:\d+/ml-100k.zip \("):
        datasets.movielens_100k()
    assert not list(nowhere.iterdir())


@pytest.mark.parametrize("how", ["not a zip", "cut short", "flipped", "lacks a file"])
def test_a_damaged_file_in_the_cache_is_replaced(how, publisher, nowhere):
    nowhere.mkdir(parents=True)
    (nowhere / "ml-100k.zip").write_bytes(damaged(how))
    assert len(datasets.movielens_100k().interactions) == 2
    assert (nowhere / "ml-100k.zip").read_bytes() == tiny_zip()


def test_a_cache_that_cannot_be_written_is_reported(publisher, nowhere):
    nowhere.parent.mkdir(parents=True)
    nowhere.write_text("a file where the folder should be")
    with pytest.raises(datasets.DatasetNotFoundError, match="exists"):
        datasets.movielens_100k()


def test_no_download_waits_for_ever():
    assert 0 < TIMEOUT_S <= 60


# --- files that are not what they seem ---------------------------------------------------------


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("u.data", "1\t2\tgood\t881250949\n"),
        ("u.data", "1\t2\t3\n"),
        ("u.data", ""),
        ("u.item", "1|Heat (1995)|01-Jan-1995\n"),
        ("u.user", "one|24|M|technician|85711\n"),
        ("items_info.json", "[{'movielens_id': 1}]"),
        ("items_info.json", '[{"id": 1}]'),
        ("items_info.json", '{"movielens_id": 1}'),
    ],
)
def test_a_file_of_another_kind_is_named(file, text, tmp_path):
    folder = tiny_folder(tmp_path / "data", **{file: text})
    with pytest.raises(ValueError, match=file):
        datasets.movielens_100k(folder, plots=file == "items_info.json")


# --- texts -------------------------------------------------------------------------------------


def test_a_text_says_what_is_known_and_nothing_else():
    cast = ["A", "B", "C", "D", "E"]
    assert datasets.item_text("T (1999)", ["x", "y"], "Plot.", ["X", "Y"], cast) == (
        "T (1999). Genres: x, y. Plot. Directed by X, Y. Starring A, B, C, D."
    )
    assert datasets.item_text("When Harry Met Sally...") == "When Harry Met Sally..."
    assert datasets.item_text("", cast=["A"]) == "Starring A."


@pytest.mark.parametrize(
    ("title", "year"),
    [
        ("Heat (1995)", 1995),
        ("Land Before Time III (1995) (V)", 1995),
        ("2001 (1968)", 1968),
        ("Show (2006\u20132007)", 2006),
        ("Blade Runner (1982) (2007)", 2007),
        ("1984", None),
        ("Heat (95)", None),
    ],
)
def test_the_year_is_the_last_one_in_brackets(title, year):
    found = items_frame([1], [title], [()]).year[0]
    assert (found is pd.NA) if year is None else found == year
