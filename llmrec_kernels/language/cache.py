"""Completions kept on disk, so that a prompt is written to once and an interrupted run goes on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from llmrec_kernels.encoders.cache import BlobCache


class CompletionCache(BlobCache):
    """Texts by key in one SQLite file, safe for threads and processes side by side.

    Parameters
    ----------
    path : Path
        The file. It and its folder are made by the first write.

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> cache = CompletionCache(Path(tempfile.mkdtemp()) / "completions.sqlite")
    >>> cache.write({b"a": "A film."})
    >>> cache.read([b"a", b"b"])
    {b'a': 'A film.'}
    """

    name, rows, made = "completion", "completions", "written"

    def read(self, keys: Sequence[bytes]) -> dict[bytes, str]:
        """Those of `keys` that are stored and undamaged."""
        return {key: blob.decode() for key, blob in self.read_blobs(keys)}

    def write(self, texts: Mapping[bytes, str]) -> None:
        """Store texts, all or none; nothing once the file has refused."""
        self.write_blobs(list(texts), [text.encode() for text in texts.values()])
