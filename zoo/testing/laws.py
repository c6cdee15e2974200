"""The laws: what every cell must keep, whatever it computes. Each is a function that takes a
`Subject`, returns what it `Measured`, and raises `LawBroken` with what it found."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Callable
from copy import deepcopy
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load, save
from torch import Tensor

from zoo.config import ModelConfig
from zoo.errors import ContractError, UsageError, one_line
from zoo.inference.artifact import GENERATE, SEQUENCE, STEP
from zoo.introspection.state import match_meanings
from zoo.models.language_model import LanguageModel
from zoo.nn.state import flatten, map_leaves, named_leaves, unflatten
from zoo.registry.cell_spec import HINT
from zoo.registry.specs import FULL
from zoo.testing.subject import (
    EXACT,
    LawBroken,
    Measured,
    Subject,
    all_tensors,
    distance,
    form_of,
    require,
    require_close,
    require_own_tensors,
    step_through,
)

VOCABULARY = "abcdefghij"
LONG_RUN = 10_000


def methods_return_what_they_should(subject: Subject) -> Measured:
    """Each method takes and returns what `zoo.Cell` says: types, shapes, dtypes, in float32 and in
    float64, at the sizes of the other laws, with as many operations for a batch of five rows as for
    two. The other laws are only checked of a cell that keeps this one."""
    for small in (False, True):
        try:
            for dtype in (torch.float32, torch.float64):
                stack = subject.build(dtype=dtype, small=small)
                stack.check_contract(subject.spec, subject.registry)
        except ContractError as error:
            hint = HINT if small and HINT not in str(error) else ""
            raise LawBroken(f"{error}{hint}") from error
    return Measured()


def forward_is_repeated_step(subject: Subject) -> Measured:
    """A faster path over whole sequences computes what the equations say, step by step, outputs and
    state; else a model would be trained as one thing and used as another. Causal cells only."""
    stack, x = subject.build(), subject.inputs(33, 3)
    start = subject.reached_state(stack, 3)
    whole, end = stack(x, start)
    outputs, state = step_through(stack, x, start)
    return Measured(
        require_close("repeated step", (whole, *flatten(end)), (outputs, *flatten(state)))
    )


def chunks_equal_the_whole(subject: Subject) -> Measured:
    """A sequence read in pieces, each from the state of the one before, gives what it gives in one
    piece: what truncated backpropagation and streaming rest on. Causal cells only."""
    stack, x = subject.build(), subject.inputs(33, 2)
    outputs, state = [], stack.init_state(2)
    whole, end = stack(x, state)
    for piece in torch.split(x, [1, 7, 2, 23]):
        y, state = stack(piece, state)
        outputs.append(y)
    return Measured(
        require_close("pieces", (whole, *flatten(end)), (torch.cat(outputs), *flatten(state)))
    )


def outputs_are_causal(subject: Subject) -> Measured:
    """A change of the input at one time moves no output before it; otherwise the cell would be
    trained on the answer. Causal cells only."""
    stack, x = subject.build(), subject.inputs(24, 2)
    before, _ = stack(x)
    for time in (1, 11, 23):
        changed = x.clone()
        changed[time:] += 1 + torch.arange(24 - time, dtype=x.dtype).view(-1, 1, 1)
        after, _ = stack(changed)
        require_close(
            f"outputs before a change at time {time}", (before[:time],), (after[:time],), EXACT
        )
    return Measured()


def batch_rows_are_independent(subject: Subject) -> Measured:
    """Each row of a batch gives what it gives alone; NaN in one row stays in that row."""
    stack, x = subject.build(), subject.inputs(12, 4)
    start = subject.reached_state(stack, 4)
    together, end = stack(x, start)
    largest = 0.0
    for row in range(4):
        part = slice(row, row + 1)
        alone, alone_end = stack(x[:, part], map_leaves(lambda leaf, p=part: leaf[p], start))
        wanted = (together[:, part], *(leaf[part] for leaf in flatten(end)))
        largest = max(largest, require_close(f"row {row}", wanted, (alone, *flatten(alone_end))))
    poisoned = x.clone()
    poisoned[3:, 0] = math.nan
    beside, beside_end = stack(poisoned, start)
    wanted = (together[:, 1:], *(leaf[1:] for leaf in flatten(end)))
    require_close(
        "rows beside one of NaN", wanted, (beside[:, 1:], *(t[1:] for t in flatten(beside_end)))
    )
    return Measured(largest)


def the_state_keeps_its_form(subject: Subject) -> Measured:
    """Names, shapes and dtypes of the state never change, under autocast either; every leaf is
    batch-first and a tensor of its own; the state that was handed in is not modified. Everything
    that handles states (detaching, saving, exporting) rests on it. The card says what each leaf
    means, with the cell's default options, in their order, and of no other."""
    plain: Any = Subject(subject.spec, registry=subject.registry).build().cells[0]
    try:
        match_meanings(subject.spec, plain.init_state(1))
    except UsageError as error:
        raise LawBroken(str(error)) from None
    stack = subject.build(dtype=torch.float32)
    x = subject.inputs(6, 3, dtype=torch.float32)
    form = form_of(stack.init_state(3))
    for name, leaf in named_leaves(stack.init_state(3)):
        require(leaf.shape[:1] == (3,), f"{name} has shape {tuple(leaf.shape)} for a batch of 3")
    reached = subject.reached_state(stack, 3)
    for start in (stack.init_state(3), reached):
        kept = [leaf.clone() for leaf in flatten(start)]
        ends = {"forward": stack(x, start)[1]}
        with torch.autocast("cpu", torch.bfloat16):
            ends["forward under autocast"] = stack(x, start)[1]
        if subject.spec.causal:
            ends["step"] = stack.step(x[0], start)[1]
            with torch.autocast("cpu", torch.bfloat16):
                ends["step under autocast"] = stack.step(x[0], start)[1]
        for way, end in ends.items():
            require(form_of(end) == form, f"after {way} the state is {form_of(end)}, before {form}")
            require_own_tensors(end, way)
        require_own_tensors(start, "init_state")
        for (name, leaf), before in zip(named_leaves(start), kept, strict=True):
            require(torch.equal(leaf, before), f"{name} was changed in place")
    return Measured()


def every_parameter_learns(subject: Subject) -> Measured:
    """Every parameter that asks for a gradient gets a finite one, and on
    a tiny size all gradients (parameters', inputs', states') agree with finite differences."""
    stack, x = subject.build(), subject.inputs(7, 3)
    x.requires_grad_()  # there are cells in which nothing learns
    # from both: an initial state may be learned
    for start in (stack.init_state(3), subject.reached_state(stack, 3)):
        stack(x, start)[0].square().sum().backward()
    for name, parameter in stack.named_parameters():
        if parameter.requires_grad:
            gradient = parameter.grad
            require(gradient is not None, f"{name} gets no gradient")
            finite = gradient is not None and bool(torch.isfinite(gradient).all())
            require(finite, f"{name}'s gradient is not finite")
    tiny = subject.build(small=True)
    generator = torch.Generator().manual_seed(5)
    x = torch.randn(3, 2, 2, generator=generator, dtype=torch.float64)
    start = tiny(torch.randn(4, 2, 2, generator=generator, dtype=torch.float64))[1]
    names = [name for name, parameter in tiny.named_parameters() if parameter.requires_grad]
    leaves = [leaf.detach() for leaf in flatten(start)]

    def outputs(*values: Tensor) -> tuple[Tensor, ...]:
        parameters = dict(zip(names, values[: len(names)], strict=True))
        remaining = iter(values[len(names) + 1 :])
        state = map_leaves(
            lambda leaf: next(remaining) if leaf.is_floating_point() else leaf, start
        )
        y, end = torch.func.functional_call(tiny, parameters, (values[len(names)], state))
        return (y, *(leaf for leaf in flatten(end) if leaf.is_floating_point()))

    values = [tiny.get_parameter(name).detach() for name in names]
    values += [x, *(leaf for leaf in leaves if leaf.is_floating_point())]
    for value in values:
        value.requires_grad_()
    try:
        torch.autograd.gradcheck(outputs, values, eps=1e-6, atol=1e-5, rtol=1e-4)
    except RuntimeError as error:
        raise LawBroken(
            f"a gradient disagrees with finite differences: {one_line(error)}"
        ) from None
    return Measured()


def equal_inputs_give_equal_outputs(subject: Subject) -> Measured:
    """The same seed builds the same weights, and the same inputs give the same bits, again and
    again: nothing is remembered outside the state."""
    one, other = subject.build(), subject.build()
    for (name, a), b in zip(one.state_dict().items(), other.state_dict().values(), strict=True):
        require(torch.equal(a, b), f"{name} differs between two cells of one seed")
    x, start = subject.inputs(8, 2), subject.reached_state(one, 2)
    first = one(x, start)
    one(subject.inputs(5, 3, seed=9))
    for again in (one(x, start), other(x, start)):
        pairs = zip((first[0], *flatten(first[1])), (again[0], *flatten(again[1])), strict=True)
        require(all(torch.equal(a, b) for a, b in pairs), "the same inputs gave other outputs")
    return Measured()


def saved_and_loaded_is_the_same(subject: Subject) -> Measured:
    """The weights on disk are all there is: loaded into a cell of another seed, they compute the
    same bits."""
    stack, other = subject.build(), subject.build(seed=77)
    other.load_state_dict(load(save({k: v.contiguous() for k, v in stack.state_dict().items()})))
    x = subject.inputs(8, 2)
    one, two = stack(x), other(x)
    pairs = zip((one[0], *flatten(one[1])), (two[0], *flatten(two[1])), strict=True)
    require(all(torch.equal(a, b) for a, b in pairs), "loaded weights compute something else")
    return Measured()


def a_batch_of_one_is_a_batch(subject: Subject) -> Measured:
    """One row and one step keep their axes: nothing is squeezed away."""
    stack = subject.build()
    width = stack.output_size
    for steps in (1, 5):
        y, end = stack(subject.inputs(steps, 1))
        require(y.shape == (steps, 1, width), f"outputs are {tuple(y.shape)} for {steps} step(s)")
        require(form_of(end) == form_of(stack.init_state(1)), f"the state became {form_of(end)}")
    if subject.spec.causal:
        y, end = stack.step(subject.inputs(1, 1)[0], stack.init_state(1))
        require(y.shape == (1, width), f"a step's outputs are {tuple(y.shape)}")
        require(form_of(end) == form_of(stack.init_state(1)), f"the state became {form_of(end)}")
    return Measured()


def a_long_run_stays_finite(subject: Subject) -> Measured:
    """10,000 steps in float32 overflow nowhere. The figure is the largest value of the state."""
    stack = subject.build(dtype=torch.float32)
    state, largest = None, 0.0
    with torch.no_grad():
        for piece in range(10):
            x = subject.inputs(LONG_RUN // 10, 2, seed=piece, dtype=torch.float32)
            if not subject.spec.causal:
                state = None
            y, state = stack(x, state)
            for name, leaf in (("outputs", y), *named_leaves(state)):
                require(
                    bool(torch.isfinite(leaf.double()).all()),
                    f"{name} not finite within {(piece + 1) * LONG_RUN // 10} steps",
                )
            largest = max([largest, *(leaf.double().abs().max().item() for leaf in flatten(state))])
    return Measured(largest)


def the_given_state_is_used(subject: Subject) -> Measured:
    """Without a state a sequence starts from `init_state`, and with one from that: every leaf that
    is handed in, whatever it holds, moves what comes out. The figure is the least one moved."""
    stack, x = subject.build(), subject.inputs(5, 2)
    cell: Any = stack.cells[0]
    require_close("init_state", all_tensors(cell(x)), all_tensors(cell(x, cell.init_state(2))), 0.0)
    start = subject.reached_state(stack, 2)
    least = math.inf
    for index, (name, leaf) in enumerate(named_leaves(start)):
        other = subject.reached_state(stack, 2, seed=31)
        mixed = [
            theirs if place == index else ours
            for place, (ours, theirs) in enumerate(zip(flatten(start), flatten(other), strict=True))
        ]
        if torch.equal(mixed[index], leaf):
            continue  # a counter, the same after as many steps
        moved = distance(
            all_tensors(stack(x, start)), all_tensors(stack(x, unflatten(start, mixed)))
        )
        require(moved > EXACT, f"{name} that was handed in changes nothing")
        least = min(least, moved)
    return Measured(None if math.isinf(least) else least)


def the_state_keeps_its_bounds(subject: Subject) -> Measured:
    """No value of a state grows past what `state_bounds` declares, over 200 steps and more of
    inputs large and small, with weights as they are and thirty times as large. The figure is the
    largest share of a bound that was reached."""
    stack = subject.build()
    with torch.no_grad():
        wild = deepcopy(stack)
        for parameter in wild.parameters():
            parameter.mul_(30)
    names = {name for name, _ in named_leaves(stack.init_state(1))}
    bounds = stack.state_bounds()
    require(set(bounds) <= names, f"state_bounds names {set(bounds) - names}, which is no leaf")
    reached = 0.0
    for layers in (stack, wild):
        for scale in (0.1, 1.0, 100.0):
            x = subject.inputs(200, 3) * scale
            with torch.no_grad():
                _, state = layers(x, None)
            for name, leaf in [*named_leaves(layers.init_state(3)), *named_leaves(state)]:
                if name in bounds:
                    share = float(leaf.abs().max()) / bounds[name]
                    require(share <= 1 + EXACT, f"{name} reaches {share:.3g} times its bound")
                    reached = max(reached, share)
    return Measured(reached if bounds else None)


def the_exported_graphs_are_the_model(subject: Subject) -> Measured:
    """Each graph, exported by each exporter and opened by each runtime that can, equals PyTorch,
    states and logits or tokens: the step and the loop over 256 steps, whole sequences in pieces, at
    batch sizes 1 and 5, always from the same state. The figure is the largest difference; the free
    run's drift is shown beside it."""
    from zoo.data.tokenizers import CharTokenizer
    from zoo.exporting.export import describe
    from zoo.exporting.exporter import find_exporters
    from zoo.exporting.staging import ExportBuilder

    config = ModelConfig(
        cell=subject.spec.name,
        options=dict(subject.options),
        hidden=subject.hidden_size,
        layers=subject.layers,
        mask_token=not subject.spec.causal,
    )
    tokenizer = CharTokenizer(characters=VOCABULARY)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        model = LanguageModel(config, tokenizer.vocab_size, subject.registry).eval()
    graphs = (STEP, GENERATE, SEQUENCE) if subject.spec.causal else (SEQUENCE,)
    registry, proofs = subject.registry, []
    with tempfile.TemporaryDirectory() as folder:
        for name, spec in registry.exporters.items():
            if FULL not in spec.precisions:
                continue
            written = [graph for graph in graphs if graph in spec.graphs]
            exporters = find_exporters(written, FULL, registry, name)
            for runtime, opens in registry.runtimes.items():
                builder = ExportBuilder(model, Path(folder), registry, runtime=runtime)
                for graph, exporter in exporters.items():
                    if fnmatchcase(f"{graph}{exporter.suffix}", opens.files):
                        draft = builder.draft(exporter, describe(model, tokenizer, graph))
                        proofs.append(draft.info.proof)
    first = proofs[0]
    assert first is not None
    notes = [f"drift {first.drift:.1e} free-running"] if first.drift is not None else []
    notes += ["amplifies rounding"] if first.amplifies else []
    difference = max(proof.difference for proof in proofs if proof is not None)
    return Measured(difference, ", ".join(notes))


CAUSAL_LAWS: tuple[Callable[[Subject], Measured], ...] = (
    forward_is_repeated_step,
    chunks_equal_the_whole,
    outputs_are_causal,
)
LAWS: tuple[Callable[[Subject], Measured], ...] = (
    methods_return_what_they_should,
    forward_is_repeated_step,
    chunks_equal_the_whole,
    outputs_are_causal,
    batch_rows_are_independent,
    the_state_keeps_its_form,
    every_parameter_learns,
    equal_inputs_give_equal_outputs,
    saved_and_loaded_is_the_same,
    a_batch_of_one_is_a_batch,
    a_long_run_stays_finite,
    the_given_state_is_used,
    the_state_keeps_its_bounds,
    the_exported_graphs_are_the_model,
)
