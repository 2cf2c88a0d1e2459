"""Does each mask, bound, guard and tie-break of the Triton kernels matter to a test?

    python tests/triton_mutants.py            # tries again what has changed, and writes the table
    python tests/triton_mutants.py --check    # and fails where the table was not up to date

Each mutant is the package with one change in one kernel, in a folder of its own; the tests of its
operator run there until one fails. `triton_mutants.md` says of each change which test did, or why
none can. A kernel is tried again when its source is not the one that the table has a digest of.

The changes:

*   the mask of a load, a store or an atomic operation dropped;
*   either side of a condition `a & b` or `a | b` dropped;
*   `<` made `<=`, `>` made `>=`, and back;
*   tl.where(c, a, b) made a; tl.minimum and tl.maximum made their first or second argument;
*   the tie-break: what makes smaller ids first in a key dropped.
"""

from __future__ import annotations

import argparse
import ast
import copy
import hashlib
import importlib
import os
import pathlib
import re
import shutil
import signal
import sys
import tempfile
from collections.abc import Iterator
from typing import NamedTuple

import pytest

ROOT = pathlib.Path(__file__).resolve().parent.parent
TABLE = ROOT / "tests" / "triton_mutants.md"
OPS = pathlib.Path("llmrec_kernels/ops")
LIMIT = 120  # seconds; a mutant that never ends is found, too
WORKERS = 2

# Files with kernels, and the tests of what is in them.
FILES = {
    OPS / "embedding_bag/triton.py": ("embedding_bag",),
    OPS / "quantize/triton.py": ("quantize",),
    OPS / "candidate_scores/triton.py": ("candidate_scores", "cosine_topk"),
    OPS / "cosine_topk/triton_kernels.py": ("cosine_topk",),
    OPS / "triton_common.py": ("embedding_bag", "quantize", "candidate_scores", "cosine_topk"),
}
KEYS = ("key_of", "keys_of", "opened")  # they agree on the order, so they change together

# Changes that no test can see, and why.
_LIMIT_ITSELF = "none: the limit itself becomes the limit"
_NONE_KEPT = "none: a key that is equal to the least kept changes nothing among them"
_ZERO_SIGN = "none: of equal numbers either will do, and only the sign of a zero differs"
_SAME_CODE = "none: 2^-6 is the same either way, next to the largest subnormal number"
EXPLAINED = {
    ("pool", "sums >= values -> sums > values"): _ZERO_SIGN,
    ("fp8_bits", "magnitude < 1015021568 -> magnitude <= 1015021568"): _SAME_CODE,
    ("codes_of", "magnitude < 8 -> magnitude <= 8"): _SAME_CODE,
    ("codes_of", "bits >= 128 -> bits > 128"): _ZERO_SIGN,
    ("quantize_rows", "scaled > 448.0 -> scaled >= 448.0"): _LIMIT_ITSELF,
    ("quantize_rows", "scaled < -448.0 -> scaled <= -448.0"): _LIMIT_ITSELF,
    ("quantize_rows", "exact > LARGEST -> exact >= LARGEST"): _LIMIT_ITSELF,
    ("quantize_rows", "exact < floor -> exact <= floor"): _LIMIT_ITSELF,
    ("quantize_rows", "tl.where(exact == exact, exact, 0.0) -> exact"): (
        "none: LLVM leaves open what integer a NaN becomes; NumPy's has the same lowest byte"
    ),
    (
        "best_of_part",
        "tl.max(keys, axis=0) > tl.min(kept, axis=0) -> "
        "tl.max(keys, axis=0) >= tl.min(kept, axis=0)",
    ): _NONE_KEPT,
    (
        "search_exactly",
        "tl.max(keys, axis=0) > tl.min(kept, axis=0) -> "
        "tl.max(keys, axis=0) >= tl.min(kept, axis=0)",
    ): _NONE_KEPT,
    ("search_exactly", "KEPT > PAIRS -> KEPT >= PAIRS"): (
        "none: as many as are kept need no LOWEST behind them, and get none"
    ),
}


class Mutant(NamedTuple):
    """One change of one function."""

    path: pathlib.Path
    function: str
    change: str
    source: str  # of the whole file
    likely: str = ""  # the test that failed last time, to be run first


class Outcome(NamedTuple):
    """What became of it: the test that failed, or None."""

    mutant: Mutant
    killer: str | None


def is_kernel(node: ast.AST) -> bool:
    """Whether it is a function that Triton compiles."""
    return isinstance(node, ast.FunctionDef) and any(
        "triton.jit" in ast.unparse(decorator) for decorator in node.decorator_list
    )


def is_number(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant) and isinstance(node.value, int | float)


def replacements(node: ast.AST) -> Iterator[ast.expr]:
    """What an expression may become."""
    match node:
        case ast.Call(func=ast.Attribute(value=ast.Name("tl"), attr=name)):
            if any(word.arg == "mask" for word in node.keywords):
                bare = copy.deepcopy(node)
                bare.keywords = [w for w in node.keywords if w.arg not in ("mask", "other")]
                yield bare
            elif name == "where":
                yield node.args[1]
            elif name in ("minimum", "maximum"):
                yield from node.args
        case ast.BinOp(left, ast.BitAnd() | ast.BitOr(), right):
            if not (is_number(left) or is_number(right)):
                yield from (left, right)
        case ast.Compare(left, [ast.Lt() | ast.LtE() | ast.Gt() | ast.GtE() as sign], [right]):
            other = {ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt}
            yield ast.Compare(left, [other[type(sign)]()], [right])


class _Replace(ast.NodeTransformer):
    def __init__(self, old: ast.AST, new: ast.AST) -> None:
        self.old, self.new = old, new

    def visit(self, node: ast.AST) -> ast.AST:
        return self.new if node is self.old else self.generic_visit(node)


def mutants_of(path: pathlib.Path, tree: ast.Module) -> Iterator[Mutant]:
    """All mutants of a file, in the order of its lines."""
    for function in filter(is_kernel, tree.body):
        assert isinstance(function, ast.FunctionDef)
        seen: dict[str, int] = {}
        for node in ast.walk(ast.Module(function.body, [])):
            for new in replacements(node):
                change = f"{ast.unparse(node)} -> {ast.unparse(new)}"
                seen[change] = seen.get(change, 0) + 1
                if seen[change] > 1:
                    change += f" (place {seen[change]})"
                # Not a copy of the tree: it is changed, written and changed back.
                source = ast.unparse(_Replace(node, new).visit(tree))
                _Replace(new, node).visit(tree)
                yield Mutant(path, function.name, change, source)
    if any(isinstance(node, ast.FunctionDef) and node.name in KEYS for node in tree.body):
        text = ast.unparse(tree)
        source = text.replace("2147483647 - item.to(tl.int64)", "item.to(tl.int64)")
        source = source.replace("MOST_ITEMS - items", "items")
        source = source.replace("MOST_ITEMS - (keys & 4294967295)", "keys & 4294967295")
        assert source.count("MOST_ITEMS") == text.count("MOST_ITEMS") - 2
        yield Mutant(path, "key_of, keys_of, opened", "the larger of two ids first", source)


def digests(tree: ast.Module) -> dict[str, str]:
    """A digest of each kernel's source, whatever its layout."""

    def of(*names: str) -> str:
        found = [n for n in tree.body if isinstance(n, ast.FunctionDef) and n.name in names]
        return hashlib.sha256("".join(map(ast.unparse, found)).encode()).hexdigest()[:12]

    known = {n.name: of(n.name) for n in tree.body if isinstance(n, ast.FunctionDef)}
    return known | {"key_of, keys_of, opened": of(*KEYS)}


def new_folder(folder: pathlib.Path) -> pathlib.Path:
    """The package and its tests, for mutants to be made in."""
    ignored = shutil.ignore_patterns("__pycache__", "*.so", "cpp")
    for name in ("llmrec_kernels", "tests"):
        shutil.copytree(ROOT / name, folder / name, ignore=ignored)
    for library in (ROOT / "llmrec_kernels").glob("*.so"):
        (folder / "llmrec_kernels" / library.name).symlink_to(library)
    return folder


def begin(mutant: Mutant, folder: pathlib.Path) -> int:
    """Run the mutant's tests in a child that has torch already; its process id."""
    (folder / mutant.path).write_text(mutant.source)
    child = os.fork()
    if child:
        return child
    with (folder / "log").open("w") as log:
        os.dup2(log.fileno(), 1)
        os.dup2(log.fileno(), 2)
    os.chdir(folder)
    sys.path.insert(0, str(folder))  # before the package that is installed
    tests = [f"tests/test_triton_{op}.py" for op in FILES[mutant.path]]
    if mutant.likely:
        tests.insert(0, f"tests/test_triton_{mutant.likely}")
    signal.alarm(LIMIT)
    ended = pytest.main(["-xq", "--tb=short", "-rfE", "-p", "no:cacheprovider", *tests])
    sys.stdout.flush()
    os._exit(ended)


def end(mutant: Mutant, folder: pathlib.Path, status: int) -> Outcome:
    """What became of it, from the child's status and log."""
    (folder / mutant.path).write_text((folder.parent / "original" / mutant.path).read_text())
    if os.WIFSIGNALED(status):
        return Outcome(mutant, f"ends by {signal.Signals(os.WTERMSIG(status)).name}")
    if status == 0:
        return Outcome(mutant, None)
    log = (folder / "log").read_text()
    failed = re.search(r"^(?:FAILED|ERROR) tests/([^\[\s]+)", log, re.MULTILINE)
    assert failed, f"{mutant.function}: {mutant.change}: no test ran\n{log}"
    return Outcome(mutant, failed[1].removeprefix("test_triton_"))


def preload() -> None:
    """What every child needs, imported once."""
    os.environ |= {"OMP_NUM_THREADS": "1", "CI": "true"}
    sys.dont_write_bytecode = True
    for module in ("torch", "numpy", "hypothesis"):
        importlib.import_module(module)


def try_all(mutants: list[Mutant]) -> list[Outcome]:
    """Outcomes in the order of the mutants; first, that nothing fails where nothing is changed."""
    preload()
    paths = sorted({mutant.path for mutant in mutants})
    unchanged = [Mutant(path, "", "unchanged", (ROOT / path).read_text()) for path in paths]
    waiting, running, outcomes = [*unchanged, *mutants], {}, {}
    with tempfile.TemporaryDirectory() as parent:
        new_folder(pathlib.Path(parent) / "original")
        free = [new_folder(pathlib.Path(parent) / str(number)) for number in range(WORKERS)]
        while waiting or running:
            while waiting and free:
                mutant, folder = waiting.pop(0), free.pop()
                running[begin(mutant, folder)] = mutant, folder
            child, status = os.wait()
            mutant, folder = running.pop(child)
            outcome = outcomes[mutant] = end(mutant, folder, status)
            if mutant in unchanged and outcome.killer:
                raise SystemExit(f"{mutant.path}: {outcome.killer} fails as it is")
            free.append(folder)
            print(f"{mutant.function}: {mutant.change}: {outcome.killer}", flush=True)
    return [outcomes[mutant] for mutant in mutants]


def cell(text: str) -> str:
    """As a Markdown table takes it."""
    return text.replace("|", "\\|").replace("\n", " ")


def section(function: str, digest: str, verdicts: dict[str, str]) -> str:
    """A kernel's part of the table."""
    head = ["| Change | Test that fails, or why none can |", "| --- | --- |"]
    rows = [f"| `{cell(change)}` | {cell(verdict)} |" for change, verdict in verdicts.items()]
    return "\n".join([f"### {function} ({digest})", "", *head, *rows, ""])


def known_verdicts(text: str) -> dict[tuple[str, str], str]:
    """What a table says of the changes below each of its headings, both as cells."""
    known = {}
    for part in re.split(r"^### ", text, flags=re.MULTILINE)[1:]:
        heading = part.partition("\n")[0]
        rows = re.findall(r"^\| `(.*)` \| (.*) \|$", part, re.MULTILINE)
        known.update({(heading, change): verdict for change, verdict in rows})
    return known


HEAD = f"""\
{__doc__.split(chr(10))[0]} `python tests/triton_mutants.py` tries each
change alone and writes this down; it tells what the changes are. Beside a kernel's name is a digest
of its source: what is not the same is tried again by `make mutants`.
"""


def exists(test: str) -> bool:
    """Whether there is a test of that name: file::function."""
    file, _, function = test.partition("::")
    path = ROOT / "tests" / f"test_triton_{file}"
    return path.exists() and f"def {function}(" in path.read_text()


def main() -> int:
    """Try what has changed; 1 where something survives that nobody explained."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--check", action="store_true", help="fail where the table changes")
    parser.add_argument("--only", default="", help="kernels whose name holds this, tried anyway")
    options = parser.parse_args()
    before = TABLE.read_text() if TABLE.exists() else ""
    known = known_verdicts(before)
    likely = {(heading.partition(" (")[0], change): v for (heading, change), v in known.items()}
    verdicts: dict[Mutant, str] = {}
    pending, parts = [], ["# Mutants of the Triton kernels\n", HEAD]
    kernels: list[tuple[pathlib.Path, str, str, list[Mutant]]] = []
    for path in FILES:
        tree = ast.parse((ROOT / path).read_text())
        found: dict[str, list[Mutant]] = {}
        for mutant in mutants_of(path, tree):
            found.setdefault(mutant.function, []).append(mutant)
        for function, mutants in found.items():
            kernels.append((path, function, digests(tree)[function], mutants))
            for mutant in mutants:
                change = cell(mutant.change)
                verdict = known.get((f"{function} ({digests(tree)[function]})", change), "")
                explained = EXPLAINED.get((function, mutant.change))
                good = verdict == explained or verdict.startswith("ends by ") or exists(verdict)
                if good and not (options.only and options.only in function):
                    verdicts[mutant] = verdict
                    continue
                last = likely.get((function, change), "")
                pending.append(mutant._replace(likely=last if exists(last) else ""))
    for (mutant, killer), asked in zip(try_all(pending), pending, strict=True):
        reason = EXPLAINED.get((asked.function, asked.change), "SURVIVED")
        verdicts[mutant._replace(likely="")] = killer or reason
    for path, function, digest, mutants in kernels:
        if (title := f"## {path.relative_to(OPS)}\n") not in parts:
            parts.append(title)
        parts.append(section(function, digest, {m.change: verdicts[m] for m in mutants}))
    text = "\n".join(parts)
    TABLE.write_text(text)
    survivors = list(verdicts.values()).count("SURVIVED")
    print(
        f"{len(verdicts)} mutants, {len(pending)} tried now, {survivors} survived without a reason"
    )
    if options.check and text != before:
        print(f"{TABLE.relative_to(ROOT)} was not up to date; commit it as it is now")
        return 1
    return int(survivors > 0)


if __name__ == "__main__":
    sys.exit(main())
