"""What is raised where files are not what an index wrote."""

from __future__ import annotations


class IndexFormatError(ValueError):
    """A saved index is truncated, corrupted, foreign, or of a version that this one cannot read."""
