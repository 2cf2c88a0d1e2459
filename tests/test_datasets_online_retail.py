"""Online Retail: what is kept of a shop's invoices, counted again line by line."""

import csv
import datetime
import gzip
import os
import resource
import statistics
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pandas as pd
import pytest

from llmrec_kernels import datasets
from llmrec_kernels.datasets.online_retail import tidy

HEADER = "InvoiceNo,StockCode,Description,Quantity,InvoiceDate,UnitPrice,CustomerID,Country"
MUG = "536365,85123A,RED MUG ,6,2010-12-01 08:26:00,2.55,17850.0,United Kingdom"
FILE = "online_retail.csv.gz"


def shop(folder: Path, *lines: str, header: str = HEADER) -> Path:
    with gzip.open(folder / FILE, "wt", encoding="utf-8", newline="") as file:
        file.write("\n".join((header, *lines, "")))
    return folder


@pytest.fixture(scope="module")
def real_folder() -> Path:
    root = os.environ.get("LLMREC_DATA")
    folder = Path(root or "") / "online-retail"
    if not root or not (folder / FILE).is_file():
        pytest.skip(f"LLMREC_DATA is not set to a folder that holds online-retail/{FILE}")
    return folder


# --- on the real data --------------------------------------------------------------------------


@pytest.fixture(scope="module")
def data(real_folder) -> datasets.Dataset:
    return datasets.online_retail()


@pytest.fixture(scope="module")
def kept_lines(real_folder) -> list[dict[str, str]]:
    """The lines that remain, by plain Python."""
    with gzip.open(real_folder / FILE, "rt", encoding="utf-8", newline="") as file:
        return [
            line
            for line in csv.DictReader(file)
            if line["CustomerID"]
            and line["InvoiceNo"][0] != "C"
            and line["StockCode"][:5].isdigit()
            and all(one.isalpha() for one in line["StockCode"][5:])
            and int(line["Quantity"]) > 0
            and float(line["UnitPrice"]) > 0
        ]


def test_events_are_those_counted_line_by_line(data, kept_lines):
    quantities: Counter[tuple[int, str, str]] = Counter()
    times: dict[tuple[int, str, str], int] = {}
    for line in kept_lines:
        event = (int(float(line["CustomerID"])), line["StockCode"], line["InvoiceNo"])
        quantities[event] += int(line["Quantity"])
        at = datetime.datetime.fromisoformat(line["InvoiceDate"] + "+00:00").timestamp()
        times[event] = min(int(at), times.get(event, 2**40))
    frame = data.interactions
    rows = list(zip(frame.user, frame.item, frame.invoice, strict=True))
    assert rows == list(quantities)  # in the source's order
    assert frame.quantity.tolist() == list(quantities.values())
    assert frame.timestamp.tolist() == [times[event] for event in rows]
    assert set(frame.rating) == {1.0}


def test_prices_are_medians_and_titles_the_most_common_descriptions(data, kept_lines):
    prices: dict[str, list[float]] = {}
    titles: dict[str, Counter[str]] = {}
    for line in kept_lines:
        prices.setdefault(line["StockCode"], []).append(float(line["UnitPrice"]))
        title = tidy(line["Description"])
        titles.setdefault(line["StockCode"], Counter())[title] += 1
    items = data.items
    assert items.item.tolist() == sorted(prices)
    assert items.price.tolist() == pytest.approx(
        [statistics.median(prices[one]) for one in sorted(prices)], rel=1e-12
    )
    for item, title in zip(items.item, items.title, strict=True):
        assert titles[item][title] == max(titles[item].values())


def test_users_keep_the_country_most_often_named(data, kept_lines):
    countries: dict[int, Counter[str]] = {}
    for line in kept_lines:
        user = int(float(line["CustomerID"]))
        countries.setdefault(user, Counter())[line["Country"]] += 1
    assert data.users.user.tolist() == sorted(countries)
    for user, country in zip(data.users.user, data.users.country, strict=True):
        assert countries[user][country] == max(countries[user].values())


def test_the_frames_have_the_one_format(data):
    assert repr(data) == (
        "Dataset('online-retail': 386,326 interactions of 4,334 users with 3,659 items)"
    )
    columns = ["user", "item", "rating", "timestamp", "quantity", "invoice"]
    assert list(data.interactions.columns) == columns
    kinds = [str(data.interactions[one].dtype) for one in ("user", "rating", "timestamp")]
    assert kinds == ["int64", "float64", "int64"]
    assert list(data.items.columns) == ["item", "title", "year", "genres", "text", "price"]
    assert str(data.items.year.dtype) == "Int64"
    assert data.items.year.isna().all()
    assert set(data.items.genres) == {()}
    items = data.items.set_index("item")
    assert items.title["85123A"] == "White hanging heart t-light holder"
    assert items.text["85123A"] == "White hanging heart t-light holder."
    assert not data.interactions.isna().any().any()


def test_loading_takes_seconds_and_a_bounded_memory(real_folder):
    """In a process of its own, since the peak of memory is one of the whole process."""
    code = (
        "import resource; from llmrec_kernels.datasets import online_retail; import pandas\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss; online_retail()\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)"
    )
    begun = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    took = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime - begun
    assert int(ran.stdout) < 400 * 1024  # KiB; the text alone is 47 MiB unpacked
    assert took < 15  # of the processor, imports included; about 4 where this was written


# --- which lines are kept, on lines written by hand --------------------------------------------


@pytest.mark.parametrize(
    "line",
    [
        MUG.replace("17850.0", ""),  # nobody is known
        MUG.replace("536365", "C536365"),  # cancelled
        MUG.replace("85123A", "POST"),
        MUG.replace("85123A", "D"),
        MUG.replace("85123A", "M"),
        MUG.replace("85123A", "DOT"),
        MUG.replace("85123A", "BANK CHARGES"),
        MUG.replace("85123A", "C2"),
        MUG.replace("85123A", "851234A"),
        MUG.replace("85123A", "85123A1"),
        MUG.replace(",6,", ",-6,"),
        MUG.replace(",6,", ",0,"),
        MUG.replace("2.55", "0.0"),
        MUG.replace("2.55", "-11062.06"),
    ],
)
def test_a_line_that_is_no_purchase_is_dropped(line, tmp_path):
    kept = MUG.replace("85123A", "22222BL")
    data = datasets.online_retail(shop(tmp_path, line, kept))
    assert data.interactions.item.tolist() == ["22222BL"]
    assert data.items.item.tolist() == ["22222BL"]
    assert data.users.user.tolist() == [17850]


def test_lines_of_one_product_on_one_invoice_are_one_event(tmp_path):
    later = MUG.replace(",6,", ",2,").replace("08:26", "08:27").replace("2.55", "2.95")
    other = MUG.replace("536365", "536366")
    data = datasets.online_retail(shop(tmp_path, MUG, other, later))
    assert data.interactions.to_numpy().tolist() == [
        [17850, "85123A", 1.0, 1291191960, 8, "536365"],
        [17850, "85123A", 1.0, 1291191960, 6, "536366"],
    ]
    assert data.items.price.tolist() == [2.55]


def test_equally_common_descriptions_and_countries_come_in_alphabetical_order(tmp_path):
    other = MUG.replace("RED MUG", "BLUE MUG").replace("United Kingdom", "Eire")
    data = datasets.online_retail(shop(tmp_path, MUG, other))
    assert data.items.title.tolist() == ["Blue mug"]
    assert data.users.country.tolist() == ["Eire"]


def test_a_description_that_is_missing_is_an_empty_text(tmp_path):
    data = datasets.online_retail(shop(tmp_path, MUG.replace("RED MUG ", "")))
    assert data.items[["title", "text"]].to_numpy().tolist() == [["", ""]]
    named_na = datasets.online_retail(shop(tmp_path, MUG.replace("RED MUG ", "NA")))
    assert named_na.items.title.tolist() == ["Na"]


@pytest.mark.parametrize(
    ("description", "title"),
    [
        ("WHITE METAL LANTERN", "White metal lantern"),
        ("  LUNCH BAG  BLACK SKULL.", "Lunch bag black skull"),
        ("ELEPHANT, BIRTHDAY CARD, ", "Elephant, birthday card"),
        ("AIRLINE LOUNGE,METAL SIGN", "Airline lounge, metal sign"),
        ("BAG 500g SWIRLY MARBLES", "Bag 500g swirly marbles"),
        ("CAFÉ ÉCLAIR", "Café éclair"),
        ("", ""),
    ],
)
def test_a_title_reads_as_a_sentence_begins(description, title):
    assert tidy(description) == title


# --- files that are not there, or are not what they seem ---------------------------------------


def test_what_is_nowhere_is_reported_with_the_way_to_make_it(tmp_path, monkeypatch):
    monkeypatch.delenv("LLMREC_DATA", raising=False)
    monkeypatch.setenv("LLMREC_CACHE", str(tmp_path))
    with pytest.raises(datasets.DatasetNotFoundError) as caught:
        datasets.load("online-retail")
    message = str(caught.value)
    for said in (FILE, "LLMREC_DATA (not set)", "archive.ics.uci.edu/dataset/352", "read_excel"):
        assert said in message
    assert "\n" not in message


def test_what_the_advice_writes_is_read(tmp_path):
    """The spreadsheet's columns as pandas reads and writes them: numbers, texts and times."""
    sheet = pd.DataFrame(
        {
            "InvoiceNo": [536365, "C536379"],
            "StockCode": [22752, "D"],
            "Description": ["SET 7 BABUSHKA NESTING BOXES", None],
            "Quantity": [2, -1],
            "InvoiceDate": pd.to_datetime(["2010-12-01 08:26", "2010-12-01 09:41"]),
            "UnitPrice": [7.65, 27.5],
            "CustomerID": [17850.0, None],
            "Country": ["United Kingdom", "United Kingdom"],
        }
    )
    sheet.to_csv(tmp_path / FILE, index=False)
    data = datasets.load("online-retail", tmp_path)
    assert data.interactions.to_numpy().tolist() == [[17850, "22752", 1.0, 1291191960, 2, "536365"]]


@pytest.mark.parametrize(
    ("lines", "header", "message"),
    [
        ([], HEADER, "no purchase by a known customer"),
        ([MUG.replace("17850.0", "")], HEADER, "no purchase by a known customer"),
        ([MUG], HEADER.replace("StockCode", "Code"), "StockCode"),
        ([MUG.replace(",6,", ",six,")], HEADER, "six"),
        ([MUG.replace("2010-12-01", "12/1/2010")], HEADER, "12/1/2010"),
        (["one more field," + MUG], HEADER, "is not Online Retail's"),
    ],
)
def test_a_file_of_another_kind_is_named(lines, header, message, tmp_path):
    with pytest.raises(ValueError, match=message) as caught:
        datasets.online_retail(shop(tmp_path, *lines, header=header))
    assert FILE in str(caught.value)
    assert not isinstance(caught.value, FileNotFoundError)


@pytest.mark.parametrize("how", ["not gzip", "cut short", "flipped", "empty"])
def test_a_damaged_file_is_named(how, tmp_path):
    whole = (shop(tmp_path, *[MUG] * 2000) / FILE).read_bytes()
    middle = len(whole) // 2
    damaged = {
        "not gzip": b"<html>please log in</html>",
        "cut short": whole[:middle],
        "flipped": whole[:middle] + bytes([whole[middle] ^ 255]) + whole[middle + 1 :],
        "empty": b"",
    }[how]
    (tmp_path / FILE).write_bytes(damaged)
    with pytest.raises(ValueError, match=FILE):
        datasets.online_retail(tmp_path)
