"""Sampling of the next token as a graph: `zoo.inference.sampling.choose`, operation by operation.

It computes in double precision from float32 logits, as there, so that equal logits give equal
tokens. Values that are the same for all tokens (`SETTINGS`) are computed once, outside the loop.

Each row has settings of its own. Three branches are taken by all rows together: no row is filtered
or greedy; all are greedy; and all others, where each row gets the very numbers that it gets alone:
what the others need is masked, or multiplied by one.
"""

from __future__ import annotations

import onnx
from onnx import parser

# From the graph's inputs to the values that the loop uses: `draws` [steps, batch, 1].
SETTINGS = """
settings (float[steps, batch] uniform, float[batch] temperature, int64[batch] top_k,
          float[batch] top_p)
    => (double[steps, batch, 1] draws, double[batch, 1] heat, double[batch, 1] share,
        int64[batch, 1] kept, int64[1] most, bool[batch, 1] filtered, bool[batch] greedy,
        bool plain, bool all_greedy)
<int64 zero = {0}, float cold = {0.0}, float whole = {1.0}, int64[1] columns = {2},
 int64[1] column = {1}, int64 vocab_size = {VOCAB}, int64 one_value = {1}, float lukewarm = {1.0},
 int64[1] all_rows = {0}>
{
    wide_uniform = Cast <to = 11> (uniform)
    draws = Unsqueeze (wide_uniform, columns)
    greedy = Equal (temperature, cold)
    warm = Where (greedy, lukewarm, temperature)
    warm_column = Unsqueeze (warm, column)
    heat = Cast <to = 11> (warm_column)
    share_column = Unsqueeze (top_p, column)
    share = Cast <to = 11> (share_column)
    some = Greater (top_k, zero)
    fewer = Less (top_k, vocab_size)
    has_top_k = And (some, fewer)
    limit = Where (has_top_k, top_k, vocab_size)
    has_top_p = Less (top_p, whole)
    has_either = Or (has_top_k, has_top_p)
    filtered = Unsqueeze (has_either, column)
    needed = Where (has_either, limit, one_value)
    kept = Unsqueeze (needed, column)
    most = ReduceMax <keepdims = 1> (needed, all_rows)
    some_cold = Cast <to = 6> (greedy)
    some_filtered = Cast <to = 6> (has_either)
    coldest = ReduceMax <keepdims = 0> (some_cold, all_rows)
    warmest = ReduceMin <keepdims = 0> (some_cold, all_rows)
    narrowest = ReduceMax <keepdims = 0> (some_filtered, all_rows)
    special = Max (coldest, narrowest)
    is_special = Cast <to = 9> (special)
    plain = Not (is_special)
    all_greedy = Cast <to = 9> (warmest)
}
"""

# From the step's `logits` [batch, vocab] and `draw` [batch, 1] to `chosen` [batch]. The first
# token at which the cumulative probability passes the draw is the first largest of the flags.
CHOICE = """
choice (float[batch, vocab] logits, double[batch, 1] draw) => (int64[batch] chosen)
<int64 last_axis = {-1}, int64[1] last = {-1}, int64[1] one = {1}, double nothing = {0.0},
 double certain = {1.0}>
{
    chosen = If (plain) <
        then_branch = drawn () => (int64[batch] drawn_token) {
            wide = Cast <to = 11> (logits)
            scaled = Div (wide, heat)
            weights = Softmax <axis = -1> (scaled)
            mass = CumSum (weights, last_axis)
            passed = Greater (mass, draw)
            flags = Cast <to = 2> (passed)
            drawn_token = ArgMax <axis = -1, keepdims = 0> (flags)
        },
        else_branch = otherwise () => (int64[batch] other_token) {
            other_token = If (all_greedy) <
                then_branch = best () => (int64[batch] best_token) {
                    best_token = ArgMax <axis = -1, keepdims = 0> (logits)
                },
                else_branch = among_few () => (int64[batch] few_token) {
                    few_wide = Cast <to = 11> (logits)
                    few_scaled = Div (few_wide, heat)
                    all_weights = Softmax <axis = -1> (few_scaled)
                    falling, order = TopK (all_weights, most)
                    kth = Sub (kept, one)
                    least = GatherElements <axis = 1> (falling, kth)
                    cutting = Where (filtered, least, nothing)
                    too_small = Less (all_weights, cutting)
                    best_weights = Where (too_small, nothing, all_weights)
                    best_mass = CumSum (best_weights, last_axis)
                    best_total = Gather <axis = -1> (best_mass, last)
                    enough = Mul (best_total, share)
                    before = CumSum <exclusive = 1> (falling, last_axis)
                    inside = Less (before, enough)
                    likely_weights = Where (inside, falling, certain)
                    inside_weights = Max (likely_weights, cutting)
                    edge = ReduceMin <keepdims = 1> (inside_weights, last)
                    cut_off = Where (filtered, edge, nothing)
                    outside = Less (best_weights, cut_off)
                    few_weights = Where (outside, nothing, best_weights)
                    few_mass = CumSum (few_weights, last_axis)
                    few_total = Gather <axis = -1> (few_mass, last)
                    factor = Where (filtered, few_total, certain)
                    few_draw = Mul (factor, draw)
                    few_passed = Greater (few_mass, few_draw)
                    few_flags = Cast <to = 2> (few_passed)
                    drawn_few = ArgMax <axis = -1, keepdims = 0> (few_flags)
                    best_few = ArgMax <axis = -1, keepdims = 0> (logits)
                    few_token = Where (greedy, best_few, drawn_few)
                }
            >
        }
    >
}
"""


def settings_graph(vocab_size: int) -> onnx.GraphProto:
    """The part computed once: its inputs are the graph's, its outputs are read by
    `choice_graph`."""
    return parser.parse_graph(SETTINGS.replace("VOCAB", str(vocab_size)))


def choice_graph() -> onnx.GraphProto:
    """The part computed for each token."""
    return parser.parse_graph(CHOICE)
