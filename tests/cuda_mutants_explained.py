"""Changes of the CUDA kernels that no test can see, and why: for `cuda_mutants.py`."""

_SOONER = "the result is the same, later"
_SAME = "both sides are the same value there"
_ALL_WRITE = "all threads write the same value"
_NOTHING = "one more turn, in which there is nothing to do"

EXPLAINED: dict[tuple[str, str], str] = {
    # select.cuh
    ("write_best", "count > k -> count >= k"): "selecting k of k keeps all",
    ("write_best", "count > kSorting -> true"): "what is selected is what sorting would put first",
    ("write_best", "count > kSorting -> count >= kSorting"): "as above",
    ("write_best", "thread == 0 -> true"): _ALL_WRITE,
    (
        "write_best",
        "key > last -> key >= last",
    ): "more equal keys are sorted; the first k are alike",
    ("write_best", "atomicAdd(&shared.equal, 1u) < wanted -> true"): "as above",
    (
        "write_best",
        "atomicAdd(&shared.equal, 1u) < wanted -> atomicAdd(&shared.equal, 1u) <= wanted",
    ): "as above",
    ("write_best", "count <= kSorting -> false"): "sorted in global memory instead: slower",
    ("write_best", "count <= kSorting -> count < kSorting"): "as above",
    ("sort_descending", "first >= second -> first > second"): "equal keys are alike",
    ("sort_descending", "size / 2 < count -> size / 2 <= count"): _NOTHING,
    (
        "sort_descending",
        "i < (count + 1) / 2 + size / 2 -> i <= (count + 1) / 2 + size / 2",
    ): "the pair lies behind the last key, and is passed over",
    (
        "sort_descending",
        "i < (count + 1) / 2 + stride -> i <= (count + 1) / 2 + stride",
    ): "the pair lies behind the last key, and is passed over",
    ("compact", "thread == 0 -> true"): _ALL_WRITE,
    ("compact", "start < count -> start <= count"): _NOTHING,
    ("kth_largest", "thread == 0 -> true"): _ALL_WRITE,
    ("kth_largest", "start < count -> start <= count"): _NOTHING,
    ("count_digit", "having == 0 -> false"): f"no lane has a digit to count; {_SOONER}",
    ("choose_digit", "until < wanted -> false"): "lanes before it go on to the same digit",
    # score.cuh
    ("inverse_length", "there -> true"): "callers give the first query for one that is not there",
    ("similarity_of", "cosine -> true"): f"lengths that nobody asks for; {_SOONER}",
    ("similarity_of", "items.inverse_norms == nullptr -> true"): "the same number, computed again",
    ("similarity_of", "squares -> true"): "the sum of zeros, which nobody asks for",
    ("multiply", "squares -> true"): f"sums that nobody asks for; {_SOONER}",
    # call.cuh
    (
        "query_terms",
        "load_16(call.query_terms + (query < call.count ? query : 0)) -> "
        "load_16(call.query_terms + (query <= call.count ? query : 0))",
    ): "what lies there is the workspace's, and nothing is told of such a query",
    ("needed", "least > -0x1.fffffep127f -> least >= -0x1.fffffep127f"): _SAME,
    ("needed", "least > -0x1.fffffep127f -> false"): (
        "every item passes; where those are too many the reference score decides"
    ),
    ("slack_of", "call.exact == 0 -> false"): "more estimates pass, and the best of them are alike",
    ("terms_of", "inverse == 0 -> false (place 2)"): (
        "nothing is known of the score, and the reference score decides"
    ),
    ("terms_of", "scale == 0 -> false"): "as above",
    ("terms_of", "(is_fit(length) && is_fit(size)) -> false"): "as above",
    ("terms_of", "is_fit(length) -> true"): (
        "float32 keeps too few bits of lengths above 2^131, which rows of float32 have from some "
        "hundred dimensions on, all near its limit: no test has them"
    ),
    ("is_fit", "size <= kLargestFit -> size < kLargestFit"): "either bound is far from harm",
    ("is_fit", "size >= kSmallestFit -> size > kSmallestFit"): "either bound is far from harm",
    # scan.cuh
    ("scan", "nobody_asks(call, first_query, Made::kQueries) -> false"): (
        f"a threshold of infinity lets nothing pass; {_SOONER}"
    ),
    ("scan", "best >= known.least[group][place] -> true"): f"`tell_items` asks again; {_SOONER}",
    ("scan_few", "nobody_asks(call, 0, kQueries) -> false"): (
        f"a threshold of infinity lets nothing pass; {_SOONER}"
    ),
    ("scan_few", "start < groups -> start <= groups"): _NOTHING,
    ("scan_few", "asked -> true"): (
        "it reads filter bits that are the workspace's, and tells nothing of the query"
    ),
    ("scan_few", "asked -> true (place 2)"): "it writes over what is used later in the workspace",
    ("nobody_asks", "i < count -> i <= count"): f"a block goes on that need not; {_SOONER}",
    ("scan_few", "query < call.count -> query <= call.count"): (
        "such a query's threshold is infinite, and `lows` of it are what is used later"
    ),
    ("tell_items", "estimates[i] >= least -> true"): f"`narrow` drops them; {_SOONER}",
    ("tell_group", "query < call.count -> query <= call.count"): (
        "it writes over the first of the `estimates`, before there are any"
    ),
    ("tell_group", "!asked -> false"): "it writes over what is used later in the workspace",
    ("prepare", "i % kGroup == 0 -> true"): _ALL_WRITE,
    ("Operands", "there -> true"): "items that are not there are nobody's, whatever their products",
    ("tell_group", "asked -> true"): (
        "it reads filter bits that are the workspace's, and tells nothing of the query"
    ),
    ("tell_group", "estimates[i] > -kInfinity -> true"): (
        "it reads filter bits behind the last item's, and the maximum stays"
    ),
    ("scan_few", "estimate > -kInfinity -> true"): (
        "it reads filter bits behind the last item's, and the maximum stays"
    ),
    ("tell_group", "estimates[i] > -kInfinity -> estimates[i] >= -kInfinity"): (
        "the maximum of nothing with -infinity"
    ),
    ("tell_group", "static_cast<int>(threadIdx.x) % kWarp / 4 != 0 -> false"): (
        "all lanes of a column write the same value"
    ),
    ("scan_few", "estimate > -kInfinity -> estimate >= -kInfinity"): (
        "the maximum of nothing with -infinity"
    ),
    ("scan_few", "thread % kSharing == 0 -> true"): "all lanes of a group write the same value",
    # decide.cuh
    ("rescore", "first < count -> first <= count"): _NOTHING,
    ("rescore", "threadIdx.x % kTeam == 0 -> true"): "all lanes of a team write the same value",
    ("choose_groups", "groups > call.k -> groups >= call.k"): "the last of k groups is the least",
    ("choose_groups", "last > least -> last >= least"): _SAME,
    ("choose_groups", "threadIdx.x == 0 -> true"): _ALL_WRITE,
    ("score_groups", "call.state[query] != kUncertain -> false"): f"keys nobody reads; {_SOONER}",
    ("score_groups", "key > best -> key >= best"): _SAME,
    ("score_groups", "theirs > best -> theirs >= best"): _SAME,
    ("score_groups", "lane == 0 -> true"): "all lanes have the best, and write the same value",
    ("narrow", "threadIdx.x != 0 -> false"): _ALL_WRITE,
    ("set_threshold", "threadIdx.x == 0 -> true"): _ALL_WRITE,
    ("rescore", "i < count -> true"): "an entry of the workspace that counts for nothing",
    ("rescore", "i < count -> i <= count"): "as above",
    ("rescore", "i < count -> true (place 2)"): "a key that nobody writes",
    ("rescore", "i < count -> i <= count (place 2)"): "as above",
    ("rescore", "i < count -> true (place 3)"): (
        "room for entries is a multiple of 32, and what is behind the last is nobody's"
    ),
    ("rescore", "i < count -> i <= count (place 3)"): "as above",
    ("rescore", "there -> true"): "entries that have estimates are items, and others' are not read",
    ("narrow", "found > call.capacity -> found >= call.capacity"): (
        f"what just fits passes again; {_SOONER}"
    ),
    ("narrow", "count >= call.k -> false"): f"more is left than has to be; {_SOONER}",
    ("narrow", "count >= call.k -> count > call.k"): f"more is left than has to be; {_SOONER}",
    ("narrow", "call.again != 0 -> true"): f"the reference score decides at once; {_SOONER}",
    ("narrow", "overflows -> true (place 2)"): f"the reference score decides; {_SOONER}",
    ("narrow", "lost -> true"): f"the reference score decides everything; {_SOONER}",
    ("narrow", "lost -> false (place 2)"): "what is found is passed over: groups of items decide",
    ("set_threshold", "call.threshold[query] == kInfinity -> true"): (
        f"without a threshold more passes; {_SOONER}"
    ),
    ("set_threshold", "threadIdx.x == 0 -> false"): f"without a threshold more passes; {_SOONER}",
    ("sketch_queries", "largest >= 0x1p-100f -> true"): (
        "what comes of it is infinite or NaN, and such bounds let every item pass"
    ),
    ("sketch_queries", "largest <= 0x1p100f -> true"): (
        "the rule for items holds for queries, whose numbers would have room"
    ),
    ("sketch_queries", "coded -> true"): "nothing reads the step of a query without codes",
    ("sketch_queries", "coded -> true (place 2)"): (
        "nothing reads the factor of a query without codes"
    ),
    ("sketch_queries", "coded -> false (place 3)"): f"a wider bound than has to be; {_SOONER}",
    ("sketch_queries", "there -> true"): "a query that is not there reads the first one's vector",
    ("sketch_queries", "!there -> false"): "nothing is told of a query that is not there",
    ("sketch_queries", "most > 0 -> true"): (
        "it is 0 from 8,421,505 dimensions on, with which the emulator takes minutes"
    ),
    ("sketch_queries", "most > 0 -> most >= 0"): "as above",
    ("sketch_queries", "is_finite(inverse) -> true"): "its threshold lets nothing pass",
    ("sketch_queries", "!coded -> false"): "its factor is 0, and so are its codes",
    ("sketch_queries", "lane != 0 -> false"): _ALL_WRITE,
    ("sketch_queries", "largest == 0 -> false"): f"a wider bound than has to be; {_SOONER}",
    ("sketch_queries", "inverse == 0 -> false"): f"a wider bound than has to be; {_SOONER}",
    ("sketch_queries", "inverse == 0 -> false (place 2)"): (
        "an infinite length does not fit, and the reference score decides"
    ),
    ("sketch_queries", "is_fit(length) -> false"): "the reference score decides everything",
    ("sketch_queries", "length == 0 -> false"): "the reference score decides",
    ("sketch_queries", "!fits -> false"): "nothing is promised of such a query's estimates",
    ("sketch_queries", "!fits -> true (place 2)"): "the reference score decides everything",
    ("sketch_queries", "call.exact != 0 -> true"): "scores where estimates are enough",
    ("sketch_queries", "uncertain -> true"): "the reference score decides everything",
    ("sketch_queries", "uncertain -> false (place 2)"): (
        "what is found is passed over: groups of items decide"
    ),
    ("begin_filter", "at < words -> at <= words"): "a word of the workspace that is written later",
    ("apply_mask", "threadIdx.x % kWarp == 0 -> true"): _ALL_WRITE,
    ("mark_ids", "first < 0 -> first <= 0"): _SAME,
    ("mark_ids", "last > call.mark_total -> last >= call.mark_total"): _SAME,
    ("sketch_queries", "largest >= 0x1p-100f -> largest > 0x1p-100f"): (
        "either bound is far from harm"
    ),
    ("sketch_queries", "largest <= 0x1p100f -> largest < 0x1p100f"): (
        "either bound is far from harm"
    ),
    # bag.cu, quantize.cu, candidates.cu, pack.cu
    ("best_of_lists", "at < 0 -> at <= 0"): _SAME,
    (
        "score_pairs",
        "threadIdx.x % kTeam != 0 -> false",
    ): "all lanes of a team write the same value",
    ("measure_queries", "threadIdx.x % kTeam == 0 -> true"): (
        "all lanes of a team write the same value"
    ),
    ("clamped", "value < 0 -> value <= 0"): _SAME,
    ("add_rows", "first < end -> first <= end"): _NOTHING,
    ("pool", "alignment >= 16 -> alignment > 16"): "read by smaller words: slower",
    ("pool", "alignment >= 4 -> alignment > 4"): "read byte by byte: slower",
    ("pool", "alignment_of(call.out, four) >= four -> alignment_of(call.out, four) > four"): (
        "written one by one: slower"
    ),
    ("pool", "call.out_storage == static_cast<int64_t>(Storage::float32) -> true"): (
        "halves are written one by one where they need not: slower"
    ),
    ("Pooled", "in_fours -> false"): "written one by one: slower",
    ("Pooled", "weighted -> true"): "a sum of ones is how many there are, below 2^24",
    ("quantize", "j < dim -> j <= dim"): _NOTHING,
    ("fit_row", "j < dim -> j <= dim"): _NOTHING,
    ("fit_row", "dim - j < kPart -> true"): "more elements than a part has are not looked at",
    ("fit_row", "values[i] < least -> values[i] <= least"): "zeros of both signs end as one",
    ("fit_row", "values[i] > most -> values[i] >= most"): "zeros of both signs end as one",
    ("fit_row", "low < least -> low <= least"): "zeros of both signs end as one",
    ("fit_row", "high > most -> high >= most"): "zeros of both signs end as one",
    ("encode", "scaled > kMost<kTo> -> false"): "what is a little more than 448 is rounded to it",
    ("fit", "found.bias < 0 -> false"): "a bias of -infinity makes the scale infinite, too",
    ("fit", "span <= 0 -> span < 0"): "a scale of 0 becomes 1, too",
    ("quantize", "dim - j < kPart -> dim - j <= kPart"): _SAME,
    ("fit_row", "dim - j < kPart -> dim - j <= kPart"): _SAME,
    ("encode", "scaled > kMost<kTo> -> scaled >= kMost<kTo>"): _SAME,
    ("nearest", "rounded > kMost<kTo> -> rounded >= kMost<kTo>"): _SAME,
    ("nearest", "!(off <= 0.4998f && off >= -0.4998f) -> true"): "exact for every number: slower",
    ("fit", "high > -low -> high >= -low"): _SAME,
    ("fit", "found.bias < 0 -> found.bias <= 0"): _SAME,
    ("measured", "first < dim -> first <= dim"): _NOTHING,
    ("measured", "magnitude > largest -> magnitude >= largest"): _SAME,
    ("measured", "theirs > largest -> theirs >= largest"): _SAME,
    ("pack", "first < dim -> first <= dim"): _NOTHING,
    ("Row", "at < bytes -> at <= bytes"): _NOTHING,
    ("Row", "place >= bytes -> place > bytes"): "16 bytes between two rows, which nobody reads",
    ("Row", "place < bytes -> true"): "a part without bytes is zeros, which nobody keeps",
    ("Row", "place < bytes -> place <= bytes"): "a part without bytes is zeros, which nobody keeps",
    ("pack", "dim > call.tile -> true"): "the tile is loaded once more",
    ("pack", "dim > call.tile -> dim >= call.tile"): "the tile is loaded once more",
    ("pack", "lane != 0 -> false"): _ALL_WRITE,
    ("codes_for", "!codes.known -> false"): "nothing reads them",
    (
        "codes_for",
        "2147483647 / (255 * (dim > 1 ? dim : 1)) -> 2147483647 / (255 * (dim >= 1 ? dim : 1))",
    ): _SAME,
    ("encode", "codes.known -> true"): "its factor is 0, and so are its codes",
}
