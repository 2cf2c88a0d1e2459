"""What nvdisasm prints of a kernel: its instructions, their loops, and how often a warp has each.

Code is cut at labels and jumps into blocks. Of jumps only those to later code are followed when a
path is sought, so that code put out of line for rare cases, which jumps back, is on none. A jump
back to code that leads to it closes a loop.
"""

from __future__ import annotations

import heapq
import itertools
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

INSTRUCTION = re.compile(
    r"/\*[0-9a-f]{4,}\*/\s+(@!?U?P\w+\s+)?([A-Z][A-Z0-9_.]*)"
    r"(?:\s+(!?U?P\w+),)?(?:[^`;]*`\((\.L_x_\d+)\))?"
)
FUNCTION = re.compile(r"^\.text\.(\w+):$", re.MULTILINE)
LABEL = re.compile(r"^(\.L_x_\d+|\$\w+):")
WIDTHS = {"256": 32, "128": 16, "64": 8, "U16": 2, "S16": 2, "U8": 1, "S8": 1}
MEMORY = ("LDG", "LDS", "LDL", "STG", "STS", "STL", "LDGSTS")
FLOAT64 = ("DFMA", "DMUL", "DADD", "DSETP", "DMNMX")
CONVERSIONS = ("F2F", "F2I", "I2F", "FRND")
NAMED = ("I2FP", "IDP", "MUFU", "SHFL", "BAR", "FFMA")
MULTIPLIES = {"8816": 1024, "16816": 2048, "16832": 4096}  # of int8, by the end of IMMA's name

Counts = dict[str, int]


def kind_of(opcode: str) -> str:
    """What an instruction is counted as: `LDS.64` by its bytes, `FP64`, `I2F.64`, `other`."""
    name, *modifiers = opcode.split(".")
    if name in MEMORY:
        width = next((WIDTHS[each] for each in modifiers if each in WIDTHS), 4)
        return f"{name}.{8 * width}"
    if name.endswith("MMA") and name not in ("FFMA", "DFMA"):
        return f"{name}.{modifiers[0]}" if modifiers else name
    if name in FLOAT64:
        return "FP64"
    if name in CONVERSIONS:
        return f"{name}.64" if any(each in ("F64", "S64", "U64") for each in modifiers) else name
    if name in ("ATOM", "ATOMG", "ATOMS", "RED"):
        return "ATOM"
    return name if name in NAMED else "other"


class Instruction(NamedTuple):
    opcode: str
    predicate: str  # "@P0", "@!PT"; empty for always
    target: str  # the label that it names, or empty

    @property
    def idle(self) -> bool:
        """Whether it fills a slot and does nothing."""
        return self.predicate == "@!PT"


@dataclass
class Block:
    instructions: list[Instruction]
    next: list[int] = field(default_factory=list)  # blocks that may follow, further on
    back: list[int] = field(default_factory=list)  # and those that it may jump back to

    def counts(self) -> Counter[str]:
        return Counter(
            "other" if each.idle else kind_of(each.opcode)
            for each in self.instructions
            if each.opcode != "NOP"
        )


class Loop(NamedTuple):
    """From the block that is jumped back to until the block that jumps."""

    first: int
    last: int
    blocks: frozenset[int]


def functions(text: str) -> dict[str, list[str]]:
    """The lines of each kernel, by its mangled name."""
    places = [*FUNCTION.finditer(text), None]
    return {
        place[1]: text[place.end() : following.start() if following else None].splitlines()
        for place, following in itertools.pairwise(places)
        if place
    }


def opcodes(lines: Iterable[str]) -> Counter[str]:
    """How often each opcode with its modifiers, like LDG.E.128, is in the code."""
    return Counter(each.opcode for each in instructions(lines) if isinstance(each, Instruction))


def instructions(lines: Iterable[str]) -> Iterator[Instruction | str]:
    """Instructions and, as text, labels."""
    for line in lines:
        if label := LABEL.match(line):
            yield label[1]
        elif found := INSTRUCTION.search(line):
            guard = found[3] if found[4] else None  # of a jump
            yield Instruction(found[2], (found[1] or guard or "").strip(), found[4] or "")


def blocks_of(lines: Iterable[str]) -> list[Block]:
    """A kernel's own code, without the functions that it calls."""
    blocks = [Block([])]
    labels: dict[str, int] = {}
    for each in instructions(lines):
        if isinstance(each, str):
            if each.startswith("$"):  # what is called lies behind the kernel
                break
            if blocks[-1].instructions:
                blocks.append(Block([]))
            labels[each] = len(blocks) - 1
            continue
        blocks[-1].instructions.append(each)
        if each.opcode.split(".")[0] in ("BRA", "EXIT", "RET") or far(each):
            blocks.append(Block([]))
    for place, block in enumerate(blocks):
        last = block.instructions[-1] if block.instructions else Instruction("NOP", "", "")
        name = last.opcode.split(".")[0]
        # BRA.DIV leaves for code that is for warps whose lanes are apart.
        leaves = (name == "BRA" and not last.opcode.startswith("BRA.DIV")) or far(last)
        targets = [labels[last.target]] if leaves and last.target in labels else []
        always = (leaves or name in ("EXIT", "RET")) and not last.predicate
        if not always and place + 1 < len(blocks):
            targets.append(place + 1)
        block.next = [each for each in targets if each > place]
        block.back = [each for each in targets if each <= place]
    return blocks


def far(each: Instruction) -> bool:
    """Whether this is a jump that is written as a call of a place in the same kernel."""
    return each.opcode.startswith("CALL.") and each.target != ""


def reachable(blocks: Sequence[Block], start: int) -> set[int]:
    """What may follow a block on the way forward, with itself."""
    found, todo = {start}, [start]
    while todo:
        for each in blocks[todo.pop()].next:
            if each not in found:
                found.add(each)
                todo.append(each)
    return found


def loops_of(blocks: Sequence[Block]) -> list[Loop]:
    """All loops, inner ones too."""
    found = []
    for last, block in enumerate(blocks):
        for first in block.back:
            inside = reachable(blocks, first)
            if last in inside:
                body = {each for each in inside if last in reachable(blocks, each)}
                found.append(Loop(first, last, frozenset(body)))
    return found


class Route(NamedTuple):
    """What a path is looked for by.

    Parameters
    ----------
    exactly
        How many instructions of a kind are on it.
    most
        Kinds of which it has as many as it can; of the others it has as few as it can.
    """

    exactly: Mapping[str, int] = {}
    most: Sequence[str] = ()


def path(
    blocks: Sequence[Block],
    start: int,
    ends: Iterable[int],
    route: Route,
    free: Iterable[frozenset[int]] = (),
    again: Iterable[tuple[int, int]] = (),
) -> Counter[str] | None:
    """The instructions on the way from `start` to one of `ends`.

    Each set of blocks in `free` is passed through, and counts nothing. Jumps back are not on the
    way, but for those in `again`.
    """
    passed, ends = list(free), set(ends)
    kinds = list(route.exactly)
    wanted = tuple(route.exactly[kind] for kind in kinds)
    own = [
        Counter() if any(place in each for each in passed) else block.counts()
        for place, block in enumerate(blocks)
    ]
    bits = [sum(1 << i for i, b in enumerate(passed) if p in b) for p in range(len(blocks))]
    following = [list(block.next) for block in blocks]
    for last, first in again:
        following[last].append(first)

    # By what `exactly` has counted, the block, and the sets passed as bits: the best way there.
    best: dict[tuple[tuple[int, ...], int, int], tuple[tuple[int, int], Counter[str]]] = {}
    todo: list[tuple[int, int, tuple[tuple[int, ...], int, int]]] = []

    def step(place: int, exact: tuple[int, ...], sets: int, counts: Counter[str]) -> None:
        exact = tuple(a + own[place][kind] for a, kind in zip(exact, kinds, strict=True))
        if any(a > b for a, b in zip(exact, wanted, strict=True)):
            return
        total = counts + own[place]
        value = (-sum(total[kind] for kind in route.most), total.total())
        state = (exact, place, sets | bits[place])
        if state not in best or value < best[state][0]:
            best[state] = (value, total)
            heapq.heappush(todo, (sum(exact), place, state))

    step(start, tuple(0 for _ in kinds), 0, Counter())
    done: dict[tuple[tuple[int, ...], int, int], tuple[int, int]] = {}
    while todo:
        _, place, state = heapq.heappop(todo)
        if done.get(state) == best[state][0]:
            continue
        done[state] = best[state][0]
        for each in following[place]:
            step(each, state[0], state[2], best[state][1])
    complete = (wanted, (1 << len(passed)) - 1)
    found = [best[state] for state in best if state[1] in ends and (state[0], state[2]) == complete]
    return min(found, key=lambda each: each[0])[1] if found else None


def repeats(
    blocks: Sequence[Block], loop: Loop, loops: Sequence[Loop], route: Route
) -> set[tuple[int, int]]:
    """The jumps back of inner loops that have what is wanted exactly, and nothing else of it."""
    found = set()
    for inner in loops:
        if inner.blocks < loop.blocks and inner.first != loop.first:
            kinds = {kind for place in inner.blocks for kind in blocks[place].counts()}
            if kinds & set(route.exactly) and not kinds & set(route.most):
                found.add((inner.last, inner.first))
    return found


class Work(NamedTuple):
    """What a warp does: a turn of each of its main loops, and what is outside of them."""

    loops: list[Counts]
    outside: Counts


def work_of(
    lines: Iterable[str], unit: str, loops: int, inside: Route, outside: Route
) -> Work | None:
    """A kernel's work. Its main loops are those with most instructions of the kind `unit`."""
    blocks = blocks_of(lines)
    turns = []
    every = loops_of(blocks)
    for loop in every:
        if any(other.blocks < loop.blocks and unit_count(blocks, other, unit) for other in every):
            continue  # an outer one
        body = [
            Block(b.instructions, [n for n in b.next if n in loop.blocks], b.back)
            if place in loop.blocks
            else Block([])
            for place, b in enumerate(blocks)
        ]
        jumps = repeats(blocks, loop, every, inside)
        counts = path(body, loop.first, [loop.last], inside, again=jumps)
        if counts and counts[unit]:
            turns.append((counts[unit], loop, counts))
    turns.sort(key=lambda each: -each[0])
    main: list[tuple[Loop, Counter[str]]] = []
    for _, loop, counts in turns:
        if len(main) < loops and not any(loop.blocks & other.blocks for other, _ in main):
            main.append((loop, counts))
    if len(main) < loops:
        return None
    main.sort(key=lambda each: each[0].first)
    ends = [
        p for p, b in enumerate(blocks) if b.instructions and b.instructions[-1].opcode == "EXIT"
    ]
    rest = path(blocks, 0, ends, outside, [loop.blocks for loop, _ in main])
    if rest is None:
        return None
    return Work([dict(counts) for _, counts in main], dict(rest))


def unit_count(blocks: Sequence[Block], loop: Loop, unit: str) -> int:
    return sum(blocks[place].counts()[unit] for place in loop.blocks)
