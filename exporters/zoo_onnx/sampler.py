"""Sampling of the next token as a graph: `zoo.inference.sampling.choose`, operation by operation.

It computes in double precision from float32 logits, as there, so that equal logits give equal
tokens. Values that are the same for all tokens (`SETTINGS`) are computed once, outside the loop.
"""

from __future__ import annotations

import onnx
from onnx import parser

# From the graph's inputs to the values that the loop uses: `draws` [steps, batch, 1].
SETTINGS = """
settings (float[steps, batch] uniform, float temperature, int64 top_k, float top_p)
    => (double[steps, batch, 1] draws, double heat, double share, int64[1] kept, bool plain,
        bool greedy)
<int64 zero = {0}, float cold = {0.0}, float whole = {1.0}, int64[1] columns = {2},
 int64 vocab_size = {VOCAB}, int64[1] one_value = {1}>
{
    wide_uniform = Cast <to = 11> (uniform)
    draws = Unsqueeze (wide_uniform, columns)
    heat = Cast <to = 11> (temperature)
    share = Cast <to = 11> (top_p)
    greedy = Equal (temperature, cold)
    some = Greater (top_k, zero)
    fewer = Less (top_k, vocab_size)
    has_top_k = And (some, fewer)
    limit = Where (has_top_k, top_k, vocab_size)
    kept = Reshape (limit, one_value)
    has_top_p = Less (top_p, whole)
    filtered = Or (has_top_k, has_top_p)
    among_all = Not (filtered)
    warm = Not (greedy)
    plain = And (among_all, warm)
}
"""

# From the step's `logits` [batch, vocab] and `draw` [batch, 1] to `chosen` [batch]. The first
# token at which the cumulative probability passes the draw is the first largest of the flags.
CHOICE = """
choice (float[batch, vocab] logits, double[batch, 1] draw) => (int64[batch] chosen)
<int64 last_axis = {-1}, int64[1] last = {-1}, double nothing = {0.0}, double certain = {1.0}>
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
            other_token = If (greedy) <
                then_branch = best () => (int64[batch] best_token) {
                    best_token = ArgMax <axis = -1, keepdims = 0> (logits)
                },
                else_branch = among_few () => (int64[batch] few_token) {
                    few_wide = Cast <to = 11> (logits)
                    few_scaled = Div (few_wide, heat)
                    all_weights = Softmax <axis = -1> (few_scaled)
                    falling, order = TopK (all_weights, kept)
                    least = ReduceMin <keepdims = 1> (falling, last)
                    too_small = Less (all_weights, least)
                    best_weights = Where (too_small, nothing, all_weights)
                    best_mass = CumSum (best_weights, last_axis)
                    best_total = Gather <axis = -1> (best_mass, last)
                    enough = Mul (best_total, share)
                    before = CumSum <exclusive = 1> (falling, last_axis)
                    inside = Less (before, enough)
                    inside_weights = Where (inside, falling, certain)
                    edge = ReduceMin <keepdims = 1> (inside_weights, last)
                    outside = Less (best_weights, edge)
                    few_weights = Where (outside, nothing, best_weights)
                    few_mass = CumSum (few_weights, last_axis)
                    few_total = Gather <axis = -1> (few_mass, last)
                    few_draw = Mul (few_total, draw)
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
    return parser.parse_graph(SETTINGS.replace("VOCAB", str(vocab_size)))


def choice_graph() -> onnx.GraphProto:
    """The part computed for each token."""
    return parser.parse_graph(CHOICE)
