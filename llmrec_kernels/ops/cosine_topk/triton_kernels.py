"""The kernels of the Triton top-K: lengths, filters as bits, scan, look again, exact search."""

from __future__ import annotations

import triton
import triton.language as tl

from llmrec_kernels.ops.triton_common import (
    LOWEST,
    better_keys,
    elements_of,
    key_of,
    owner_of,
    reference_scores,
)

GROUP = tl.constexpr(64)  # items of which the scan remembers one number


@triton.jit(do_not_specialize=["items"])
def squares(
    data, scale, bias, out, items, stride, width, number_stride, dim,
    STORAGE: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    """out[i] = the square of the length of item i, float64."""
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    there = row < items
    sums = tl.zeros((ROWS, COLUMNS), tl.float64)
    for first in range(0, dim, COLUMNS):
        values = elements_of(
            data, scale, bias, row, there, stride, width, number_stride, first, dim, COLUMNS,
            STORAGE,
        ).to(tl.float64)  # fmt: skip
        sums += values * values
    tl.store(out + row, tl.sum(sums, axis=1), mask=there)


@triton.jit(do_not_specialize=["items", "row_words"])
def pack_mask(mask, words, items, row_words, WORDS: tl.constexpr):
    """Bits of a bool mask [rows, items]: bit i % 32 of word i // 32 of a row."""
    row = tl.program_id(1).to(tl.int64)
    word = tl.program_id(0).to(tl.int64) * WORDS + tl.arange(0, WORDS)
    item = word[:, None] * 32 + tl.arange(0, 32)[None, :]
    allowed = tl.load(mask + row * items + item, mask=item < items, other=0).to(tl.int32)
    bits = tl.sum(allowed << tl.arange(0, 32)[None, :], axis=1)
    tl.store(words + row * row_words + word, bits, mask=word < row_words)


@triton.jit(do_not_specialize=["lists", "first_list", "entries", "items", "row_words", "rows",
                               "steps"])  # fmt: skip
def mark(
    ids, offsets, words, lists, first_list, entries, items, row_words, rows, steps,
    ALLOW: tl.constexpr, COUNT: tl.constexpr,
):  # fmt: skip
    """Sets (ALLOW) or clears the bits of listed ids; with no offsets, in the row of the program.

    List first_list + r is of row r of `words`. Ids that do not exist are passed over.
    """
    entry = tl.program_id(0).to(tl.int64) * COUNT + tl.arange(0, COUNT)
    inside = entry < entries
    item = tl.load(ids + entry, mask=inside, other=-1)
    if offsets is not None:
        row = owner_of(offsets, lists, entry, steps, COUNT) - first_list
    else:
        row = tl.zeros((COUNT,), tl.int64) + tl.program_id(1)
    real = (item >= 0) & (item < items) & (row >= 0) & (row < rows)
    place = words + row * row_words + item // 32
    bit = (1 << (item % 32)).to(tl.int32)
    if ALLOW:
        tl.atomic_or(place, bit, mask=real)
    else:
        tl.atomic_and(place, ~bit, mask=real)


@triton.jit
def permitted(words, query, item, real, word_stride):
    """Whether each query [M, 1] may have each item [1, N] (or [M, N]), where `real`."""
    word = tl.load(words + query * word_stride + item // 32, mask=real, other=0)
    return ((word >> (item % 32).to(tl.int32)) & 1) == 1


@triton.jit
def upper_bounds(product, weight, slack, bias, factor, relative):
    """What a score can reach: factor x weight x product + bias, and the error of all that.

    `slack` is the error of weight x product, inf where nothing is known of it. -inf where slack is
    negative: there is no such item. Estimates, where `relative` is 0, have no error; what is no
    number has none.
    """
    score = product * weight * factor + bias
    error = slack * factor + relative * (tl.abs(score) + tl.abs(bias)) + (relative > 0) * 1e-36
    bound = score + error
    unknown = tl.where(relative > 0, float("inf"), float("-inf"))
    return tl.where(slack >= 0, tl.where(bound == bound, bound, unknown), float("-inf"))


@triton.jit(do_not_specialize=["count", "items", "groups", "word_stride"])
def scan(
    queries, factor, data, scale, bias, inverse, weight, slack, item_bias, words, out,
    count, items, groups, stride, width, number_stride, dim, word_stride, relative,
    STORAGE: tl.constexpr, QUERIES: tl.constexpr, ITEMS: tl.constexpr, DIMS: tl.constexpr,
):  # fmt: skip
    """out[q, g] = the largest bound among the items of group g that query q may have.

    `queries` are unit vectors in float16, and items become such: products of tensor cores.
    """
    # Tiles of queries come one after the other, so that they find their items in the L2 cache.
    tiles = tl.cdiv(count, QUERIES)
    query = (tl.program_id(0) % tiles).to(tl.int64) * QUERIES + tl.arange(0, QUERIES)
    tile = (tl.program_id(0) // tiles).to(tl.int64)
    item = tile * ITEMS + tl.arange(0, ITEMS)
    is_query = query < count
    is_item = item < items
    unit = tl.load(inverse + item, mask=is_item, other=0.0)
    sums = tl.zeros((QUERIES, ITEMS), tl.float32)
    for first in range(0, dim, DIMS):
        columns = first + tl.arange(0, DIMS)
        mask = is_query[:, None] & (columns < dim)[None, :]
        q = tl.load(queries + query[:, None] * dim + columns[None, :], mask=mask, other=0.0)
        x = elements_of(
            data, scale, bias, item, is_item, stride, width, number_stride, first, dim, DIMS,
            STORAGE,
        )  # fmt: skip
        sums = tl.dot(q, tl.trans((x * unit[:, None]).to(tl.float16)), sums)
    by = tl.load(factor + query, mask=is_query, other=0.0)
    added = tl.zeros((ITEMS,), tl.float32)
    if item_bias is not None:
        added = tl.load(item_bias + item, mask=is_item, other=0.0)
    bounds = upper_bounds(
        sums, tl.load(weight + item, mask=is_item, other=0.0)[None, :],
        tl.load(slack + item, mask=is_item, other=-1.0)[None, :], added[None, :], by[:, None],
        relative,
    )  # fmt: skip
    if words is not None:
        real = is_query[:, None] & is_item[None, :]
        allowed = permitted(words, query[:, None], item[None, :], real, word_stride)
        bounds = tl.where(allowed, bounds, float("-inf"))
    largest = tl.max(tl.reshape(bounds, (QUERIES, ITEMS // GROUP, GROUP)), axis=2)
    group = tile * (ITEMS // GROUP) + tl.arange(0, ITEMS // GROUP)
    at = out + query[:, None] * groups + group[None, :]
    tl.store(at, largest, mask=is_query[:, None] & (group < groups)[None, :])


@triton.jit(do_not_specialize=["items", "chosen", "word_stride"])
def look_again(
    queries, factor, data, scale, bias, inverse, weight, slack, item_bias, words, groups, out,
    items, chosen, stride, width, number_stride, dim, word_stride, relative,
    STORAGE: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    """out[q, c, i] = the bound of item i of the c-th group chosen for query q, in float32."""
    query = tl.program_id(1).to(tl.int64)
    place = query * chosen + tl.program_id(0)
    group = tl.load(groups + place)
    item = group * GROUP + tl.arange(0, GROUP)
    real = item < items
    unit = tl.load(inverse + item, mask=real, other=0.0)
    sums = tl.zeros((GROUP, COLUMNS), tl.float32)
    for first in range(0, dim, COLUMNS):
        columns = first + tl.arange(0, COLUMNS)
        q = tl.load(queries + query * dim + columns, mask=columns < dim, other=0.0)
        x = elements_of(
            data, scale, bias, item, real, stride, width, number_stride, first, dim, COLUMNS,
            STORAGE,
        )  # fmt: skip
        sums += (x * unit[:, None]) * q.to(tl.float32)[None, :]
    added = tl.zeros((GROUP,), tl.float32)
    if item_bias is not None:
        added = tl.load(item_bias + item, mask=real, other=0.0)
    bounds = upper_bounds(
        tl.sum(sums, axis=1), tl.load(weight + item, mask=real, other=0.0),
        tl.load(slack + item, mask=real, other=-1.0), added, tl.load(factor + query), relative,
    )  # fmt: skip
    if words is not None:
        allowed = permitted(words, query, item, real, word_stride)
        bounds = tl.where(allowed, bounds, float("-inf"))
    tl.store(out + place * GROUP + tl.arange(0, GROUP), bounds)


@triton.jit(do_not_specialize=["items", "parts", "word_stride"])
def search_exactly(
    queries, data, scale, bias, inverse_norms, item_bias, item_scale, words, certain, below, best,
    items, parts, stride, width, number_stride, dim, word_stride,
    STORAGE: tl.constexpr, IS_COSINE: tl.constexpr, PAIRS: tl.constexpr, COLUMNS: tl.constexpr,
    KEPT: tl.constexpr,
):  # fmt: skip
    """best[q, p] = keys of the KEPT best items of part p, below a key, by the reference score.

    Where a query is certain nothing is read: this is what is left to queries that are not.
    """
    query = tl.program_id(0).to(tl.int64)
    part = tl.program_id(1)
    length = (items.to(tl.int64) + parts - 1) // parts
    first = part * length
    last = tl.minimum(items, first + length)
    last = tl.where(tl.load(certain + query) != 0, first, last)
    limit = tl.load(below + query)
    kept = tl.full((KEPT,), LOWEST, tl.int64)
    for start in range(first, last, PAIRS):
        item = start + tl.arange(0, PAIRS)
        real = item < last
        if words is not None:
            real = permitted(words, query, item, real, word_stride)
        score = reference_scores(
            queries, data, scale, bias, inverse_norms, None, item_bias, None, None, item_scale,
            tl.zeros((PAIRS,), tl.int64) + query, item, real, dim, stride, width, number_stride,
            STORAGE, IS_COSINE, PAIRS, COLUMNS,
        )  # fmt: skip
        keys = tl.where(score == score, key_of(score, item), LOWEST)
        keys = tl.where(keys < limit, keys, LOWEST)
        if tl.max(keys, axis=0) > tl.min(kept, axis=0):
            if KEPT > PAIRS:
                rank = tl.arange(0, KEPT // PAIRS)
                wide = tl.where(rank[:, None] == 0, keys[None, :], LOWEST)
                kept = better_keys(kept, tl.reshape(wide, (KEPT,)), KEPT)
            else:
                kept = better_keys(kept, keys, KEPT)
    tl.store(best + (query * parts + part) * KEPT + tl.arange(0, KEPT), kept)
