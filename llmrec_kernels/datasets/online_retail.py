"""Online Retail: the invoices of a British shop for gifts, December 2010 to December 2011.

Daqing Chen, Sai Liang Sain and Kun Guo, Data mining for the online retail industry: a case study of
RFM model-based customer segmentation using data mining, Journal of Database Marketing and Customer
Strategy Management 19, 2012, doi 10.1057/dbm.2012.17. The data are number 352 of the UCI Machine
Learning Repository, under CC BY 4.0.

A line of an invoice is no event yet. Kept are, as is usual, lines whose customer is known, of
invoices that are not cancelled (those begin with C), of products (a stock code is five digits and
perhaps letters; POST, D, M, DOT, BANK CHARGES and the like are postage, discounts and fees), with a
positive quantity and price. The lines that name one product on one invoice are one event. That
someone bought is all that is known, so each event has rating 1: feedback is implicit.
"""

from __future__ import annotations

import io
import os
import re
import zlib
from typing import Any

import pandas as pd

from llmrec_kernels.datasets.frames import Dataset, items_frame
from llmrec_kernels.datasets.locate import Found, locate

_FILE = "online_retail.csv.gz"
_TYPES: dict[str, Any] = {
    "InvoiceNo": str,
    "StockCode": str,
    "Description": str,
    "Quantity": "int64",
    "InvoiceDate": str,
    "UnitPrice": "float64",
    "CustomerID": "float64",  # written as 17850.0, and empty where nobody is known
    "Country": str,
}
_NAMES = {
    "InvoiceNo": "invoice",
    "StockCode": "item",
    "Description": "description",
    "Quantity": "quantity",
    "UnitPrice": "price",
    "Country": "country",
}
_PRODUCT = r"[0-9]{5}[A-Za-z]*"
_CHUNK = 100_000  # lines; what is dropped of one chunk is gone before the next is read
_ADVICE = (
    "the publisher's file is a spreadsheet, https://archive.ics.uci.edu/dataset/352; save it with "
    f"pandas.read_excel('Online Retail.xlsx').to_csv('{_FILE}', index=False) and pass the folder "
    "as path=, or put it into $LLMREC_DATA/online-retail"
)


def online_retail(path: str | os.PathLike[str] | None = None) -> Dataset:
    """Load Online Retail: 386,326 purchases of 3,659 products by 4,334 customers, 2010-2011.

    Parameters
    ----------
    path : path-like, optional
        The folder with ``online_retail.csv.gz``. Without it the file is looked for in
        ``$LLMREC_DATA/online-retail``. It is not downloaded, since the publisher has a spreadsheet
        alone; the error says how to turn that into the file.

    Returns
    -------
    Dataset
        One row of the interactions is a product on an invoice: ``rating`` is 1, ``timestamp`` is
        the time of the invoice (the shop's clock taken as UTC), and ``quantity`` (int64) and
        ``invoice`` (string) are added. An item is a stock code, a string; its title is the most
        common description, ``year`` is missing and ``genres`` are (); added is ``price``
        (float64, pounds), the median over the lines of invoices. ``users`` has ``country``, the
        one most often named.

    Raises
    ------
    DatasetNotFoundError
        The file is in none of these places.
    ValueError
        The file is not what its name says.

    Examples
    --------
    >>> data = online_retail()  # doctest: +SKIP
    >>> data.items.loc[0, ["item", "text", "price"]].tolist()  # doctest: +SKIP
    ['10002', 'Inflatable political globe.', 0.85]
    """
    lines = _lines(locate("online-retail", [(_FILE,)], path, advice=_ADVICE))
    by_event = lines.groupby(["user", "item", "invoice"], sort=False, as_index=False)
    # A few invoices were written over two minutes.
    events = by_event.agg(timestamp=("timestamp", "min"), quantity=("quantity", "sum"))
    order = ["user", "item", "rating", "timestamp", "quantity", "invoice"]
    users = _most_common(lines, "user", "country")
    return Dataset("online-retail", events.assign(rating=1.0)[order], _items(lines), users)


def _lines(found: Found) -> pd.DataFrame:
    """The lines of invoices that are kept, in the source's order."""
    try:
        chunks = pd.read_csv(
            io.BytesIO(found.contents[_FILE]),
            compression="gzip",
            usecols=list(_TYPES),
            dtype=_TYPES,
            na_values={"CustomerID": [""]},
            keep_default_na=False,
            chunksize=_CHUNK,
        )
        lines = pd.concat([_kept(chunk) for chunk in chunks], ignore_index=True)
        times = pd.to_datetime(lines.pop("InvoiceDate"), format="ISO8601", utc=True)
    # pandas' parser errors and UnicodeDecodeError are ValueErrors; the others are gzip's.
    except (ValueError, OSError, EOFError, zlib.error) as error:
        raise ValueError(f"{_FILE} in {found.place} is not Online Retail's: {error}") from error
    if lines.empty:
        raise ValueError(f"{_FILE} in {found.place} has no purchase by a known customer")
    seconds = (times - pd.Timestamp(0, tz="UTC")) // pd.Timedelta(seconds=1)
    return lines.rename(columns=_NAMES).assign(
        user=lines["CustomerID"].astype("int64"), timestamp=seconds.astype("int64")
    )


def _kept(lines: pd.DataFrame) -> pd.DataFrame:
    return lines[
        lines["CustomerID"].notna()
        & ~lines["InvoiceNo"].str.startswith("C")
        & lines["StockCode"].str.fullmatch(_PRODUCT)
        & (lines["Quantity"] > 0)
        & (lines["UnitPrice"] > 0)
    ]


def _items(lines: pd.DataFrame) -> pd.DataFrame:
    tidied = {one: tidy(one) for one in lines["description"].unique()}
    described = lines[["item"]].assign(title=lines["description"].map(tidied))
    titles = _most_common(described, "item", "title")
    n = len(titles)
    frame = items_frame(titles["item"], titles["title"], [()] * n)
    frame["price"] = lines.groupby("item")["price"].median().loc[titles["item"]].to_numpy()
    return frame


def tidy(description: str) -> str:
    """Write a description, mostly all capitals, as the beginning of a sentence.

    Examples
    --------
    >>> tidy("KEY FOB , FRONT  DOOR ")
    'Key fob, front door'
    """
    spaced = re.sub(r"\s*,\s*", ", ", description)
    return " ".join(spaced.split()).strip(" ,.").capitalize()


def _most_common(frame: pd.DataFrame, key: str, value: str) -> pd.DataFrame:
    """The most common value of each key, the first of the alphabet among equals; keys sorted."""
    counts = frame.groupby([key, value], as_index=False).size()
    first = counts.sort_values([key, "size", value], ascending=[True, False, True])
    return first.drop_duplicates(key)[[key, value]].reset_index(drop=True)
