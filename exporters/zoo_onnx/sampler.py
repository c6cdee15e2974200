"""Sampling of the next token as a graph: `zoo.inference.sampling.choose`, operation by operation.

It computes in double precision from float32 logits, as there, so that equal logits give equal
tokens. Values that are the same for all tokens (`SETTINGS`) are computed once, outside the loop.

Each row has settings of its own. Three branches are taken by all rows together: no row is filtered
or greedy; all are greedy; and all others. In the last one each row gets the very numbers that it
gets alone: what only the others need is multiplied by 1, or has 0 added; and in a greedy row the
best tokens have all of the probability, and the draw is 0.

Branches have their constants within them, since each value that a branch takes from around it costs
time in every step.
"""

from __future__ import annotations

import onnx
from onnx import parser

# From the graph's inputs to the values that the loop uses: `draws` [steps, batch, 1], the least
# numbers in double precision above the uniform ones. `share` is -1 in a row that nothing filters.
# In a greedy row, at the temperature 2**-600, any two logits that differ are so far apart that the
# best ones have all of the probability.
SETTINGS = """
settings (float[steps, batch] uniform, float[batch] temperature, int64[batch] top_k,
          float[batch] top_p)
    => (double[steps, batch, 1] draws, double[batch, 1] heat, double[batch, 1] share,
        int64[batch, 1] last_kept, int64[1] most, bool plain, bool all_greedy)
<int64 zero = {0}, float cold = {0.0}, int64[1] columns = {2}, int64[1] column = {1},
 int64 vocab_size = {VOCAB}, int64 one_token = {1}, double frozen = {FROZEN},
 int64[1] all_rows = {0}, float all_of_it = {1.0}, float unfiltered = {-1.0},
 double last_bit = {LAST_BIT}, double least_draw = {LEAST_DRAW}>
{
    greedy = Equal (temperature, cold)
    used_uniform = Where (greedy, cold, uniform)
    wide_uniform = Cast <to = 11> (used_uniform)
    above = Mul (wide_uniform, last_bit)
    next_uniform = Add (wide_uniform, above)
    row_draws = Max (next_uniform, least_draw)
    draws = Unsqueeze (row_draws, columns)
    wide_temperature = Cast <to = 11> (temperature)
    row_heat = Max (wide_temperature, frozen)
    heat = Unsqueeze (row_heat, column)
    some = Greater (top_k, zero)
    fewer = Less (top_k, vocab_size)
    has_top_k = And (some, fewer)
    has_top_p = Less (top_p, all_of_it)
    has_either = Or (has_top_k, has_top_p)
    limit = Where (has_top_k, top_k, vocab_size)
    row_kept = Where (has_either, limit, one_token)
    kept = Unsqueeze (row_kept, column)
    last_kept = Sub (kept, one_token)
    most = ReduceMax (row_kept, all_rows)
    special = Or (has_either, greedy)
    row_share = Where (special, top_p, unfiltered)
    share_column = Unsqueeze (row_share, column)
    share = Cast <to = 11> (share_column)
    largest_share = ReduceMax <keepdims = 0> (row_share, all_rows)
    plain = Less (largest_share, cold)
    hottest = ReduceMax <keepdims = 0> (temperature, all_rows)
    all_greedy = Equal (hottest, cold)
}
"""
# A float32 number x has 24 bits, so that x + x LAST_BIT is rounded to the next above x of 53.
CONSTANTS = {
    "FROZEN": 2.0**-600,
    "LAST_BIT": 1.5 * 2.0**-53,
    "LEAST_DRAW": 2.0**-1074,
}

# From the step's `logits` [batch, vocab] and `draw` [batch, 1] to `chosen` [batch]. The first
# token at which the cumulative probability reaches the draw is the first largest, if none counts
# for more than the draw; or the first largest of flags. Flags are multiplied with, which takes half
# the time of a Where.
CHOICE = """
choice (float[batch, vocab] logits, double[batch, 1] draw) => (int64[batch] chosen)
{
    chosen = If (plain) <
        then_branch = drawn () => (int64[batch] drawn_token) <int64 axis_1 = {-1}> {
            wide = Cast <to = 11> (logits)
            scaled = Div (wide, heat)
            weights = Softmax <axis = -1> (scaled)
            mass = CumSum (weights, axis_1)
            passed = Min (mass, draw)
            drawn_token = ArgMax <axis = -1, keepdims = 0> (passed)
        },
        else_branch = otherwise () => (int64[batch] other_token) {
            other_token = If (all_greedy) <
                then_branch = best () => (int64[batch] best_token) {
                    best_token = ArgMax <axis = -1, keepdims = 0> (logits)
                },
                else_branch = among_few () => (int64[batch] few_token)
                <int64 axis_2 = {-1}, int64[1] last = {-1}, double nothing = {0.0},
                 double certain = {1.0}>
                {
                    is_filtered = GreaterOrEqual (share, nothing)
                    filtered = Cast <to = 11> (is_filtered)
                    unfiltered_total = Sub (certain, filtered)
                    few_wide = Cast <to = 11> (logits)
                    few_scaled = Div (few_wide, heat)
                    all_weights = Softmax <axis = -1> (few_scaled)
                    falling, order = TopK (all_weights, most)
                    least = GatherElements <axis = 1> (falling, last_kept)
                    are_best = GreaterOrEqual (all_weights, least)
                    best = Cast <to = 11> (are_best)
                    best_weights = Mul (all_weights, best)
                    best_mass = CumSum (best_weights, axis_2)
                    best_total = Gather <axis = -1> (best_mass, last)
                    enough = Mul (best_total, share)
                    before = CumSum <exclusive = 1> (falling, axis_2)
                    are_beyond = GreaterOrEqual (before, enough)
                    beyond = Cast <to = 11> (are_beyond)
                    inside_weights = Max (falling, beyond)
                    filtered_edge = ReduceMin <keepdims = 1> (inside_weights, last)
                    edge = Mul (filtered_edge, filtered)
                    are_few = GreaterOrEqual (best_weights, edge)
                    few = Cast <to = 11> (are_few)
                    few_weights = Mul (all_weights, few)
                    few_mass = CumSum (few_weights, axis_2)
                    few_total = Gather <axis = -1> (few_mass, last)
                    filtered_total = Mul (few_total, filtered)
                    factor = Add (filtered_total, unfiltered_total)
                    narrow_draw = Cast <to = 1> (draw)
                    own_draw = Cast <to = 11> (narrow_draw)
                    few_draw = Mul (factor, own_draw)
                    few_passed = Greater (few_mass, few_draw)
                    few_flags = Cast <to = 2> (few_passed)
                    few_token = ArgMax <axis = -1, keepdims = 0> (few_flags)
                }
            >
        }
    >
}
"""


def settings_graph(vocab_size: int) -> onnx.GraphProto:
    """The part computed once: its inputs are the graph's, its outputs are read by
    `choice_graph`."""
    text = SETTINGS.replace("VOCAB", str(vocab_size))
    for name, value in CONSTANTS.items():
        text = text.replace(name, repr(value))
    return parser.parse_graph(text)


def choice_graph() -> onnx.GraphProto:
    """The part computed for each token."""
    return parser.parse_graph(CHOICE)
