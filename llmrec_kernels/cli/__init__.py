"""The `llmrec-kernels` command: a module for each family of verbs."""

from llmrec_kernels.cli import bench, cost, describe, evaluate, explain, fit, recommend, show, train
from llmrec_kernels.cli.app import app

__all__ = [
    "app",
    "bench",
    "cost",
    "describe",
    "evaluate",
    "explain",
    "fit",
    "main",
    "recommend",
    "show",
    "train",
]


def main() -> None:
    """Run the command line."""
    app()
