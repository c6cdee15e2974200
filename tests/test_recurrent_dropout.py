"""Dropout of the state's units where the recurrent weights read them."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

import zoo
from zoo.config import ModelConfig
from zoo.errors import ContractError, UsageError
from zoo.models.language_model import LanguageModel
from zoo.training.recurrent_dropout import RecurrentDropout

REGISTRY = zoo.load_registry()
VOCAB, HIDDEN, SHARE = 7, 64, 0.25
NAMED = [
    name
    for name, spec in REGISTRY.cells.items()
    if spec.build(3, 8, registry=REGISTRY).recurrent_weights()
]
SIZES = {"hidden": 12, "batch_size": 2, "steps": 8, "epochs": 3}


def model_of(cell: str, layers: int = 1) -> LanguageModel:
    torch.manual_seed(0)
    config = ModelConfig(cell=cell, hidden=HIDDEN, layers=layers)
    return LanguageModel(config, VOCAB, REGISTRY)


def dropout_of(model: LanguageModel, seed: int = 0) -> RecurrentDropout:
    return RecurrentDropout(model, SHARE, torch.Generator().manual_seed(seed))


def test_the_cells_of_torch_and_those_from_the_equations_have_it() -> None:
    assert {"rnn", "gru", "lstm", "rnn-scratch", "gru-scratch", "lstm-scratch"} <= set(NAMED)


@pytest.mark.parametrize("cell", NAMED)
def test_what_is_dropped_is_the_state(cell: str) -> None:
    """With every unit but one dropped, the units that are dropped reach the next output through
    no product: those of the state h change it by no more than through what the cell carries on."""
    model = model_of(cell)
    layer = model.stack.cells[0]
    weights = [layer.get_parameter(name) for name in layer.recurrent_weights()]  # type: ignore[operator]
    axes = list(layer.recurrent_weights().values())  # type: ignore[operator]
    assert {weight.shape[axis] for weight, axis in zip(weights, axes, strict=True)} == {HIDDEN}
    x, state = torch.randn(5, layer.input_size), layer.init_state(5)  # type: ignore[operator, arg-type]
    state = type(state)(*(0.1 * torch.randn_like(leaf) for leaf in state))
    unit = 3

    def reach() -> torch.Tensor:
        """How much each output changes with the unit of all leaves."""
        jacobian = torch.autograd.functional.jacobian(
            lambda delta: layer.step(  # type: ignore[operator]
                x, type(state)(*(leaf + torch.eye(HIDDEN)[unit] * delta for leaf in state))
            )[0].sum(0),
            torch.zeros(()),
        )
        return jacobian.abs()

    before = reach()
    with torch.no_grad():
        for weight, axis in zip(weights, axes, strict=True):
            weight.select(axis, unit).zero_()
    after = reach()
    others = torch.arange(HIDDEN) != unit
    assert float(before[others].min()) > 0
    assert float(after[others].max()) == 0


@pytest.mark.parametrize("kind", [nn.RNN, nn.GRU, nn.LSTM])
def test_gradients_are_those_of_a_layer_with_masked_weights(kind: type[nn.RNNBase]) -> None:
    model = model_of(kind.__name__.lower(), layers=2)
    own = {name: leaf.clone() for name, leaf in model.state_dict().items()}
    dropout = dropout_of(model)
    tokens = torch.randint(VOCAB, (9, 3))
    with dropout.dropped():
        seen = [
            cell.get_parameter("rnn.weight_hh_l0").detach().clone() for cell in model.stack.cells
        ]
        model(tokens, model.init_state(3))[0].logsumexp(-1).sum().backward()
    assert all(torch.equal(leaf, own[name]) for name, leaf in model.state_dict().items())

    plain: nn.RNNBase = kind(VOCAB, HIDDEN, num_layers=2)  # type: ignore[arg-type]
    masks = []
    for index, masked in enumerate(seen):
        cell = model.stack.cells[index]
        for name in ("weight_ih", "bias_ih", "bias_hh"):
            given = own[f"stack.cells.{index}.rnn.{name}_l0"]
            getattr(plain, f"{name}_l{index}").data.copy_(given)
        weight = own[f"stack.cells.{index}.rnn.weight_hh_l0"]
        mask = (masked != 0).all(0).float() / (1 - SHARE)  # of the units, for all gates
        torch.testing.assert_close(weight * mask, masked)
        masks.append(mask)
        getattr(plain, f"weight_hh_l{index}").data.copy_(weight)
        assert cell.get_parameter("rnn.weight_hh_l0").grad is not None
    leaves = [getattr(plain, f"weight_hh_l{index}") for index in (0, 1)]
    masked_weights = {
        f"weight_hh_l{index}": leaf * masks[index] for index, leaf in enumerate(leaves)
    }
    y = nn.functional.one_hot(tokens, VOCAB).float()
    for index in (0, 1):  # layer by layer, with the masked weight as a function of the plain one
        single: nn.RNNBase = kind(y.shape[-1], HIDDEN)  # type: ignore[arg-type]
        for name in ("weight_ih", "bias_ih", "bias_hh"):
            getattr(single, f"{name}_l0").data.copy_(getattr(plain, f"{name}_l{index}"))
        del single.weight_hh_l0
        y = _run(single, y, masked_weights[f"weight_hh_l{index}"])
    logits = y @ own["head.weight"].T + own["head.bias"]
    logits.logsumexp(-1).sum().backward()
    for index, leaf in enumerate(leaves):
        found = model.stack.cells[index].get_parameter("rnn.weight_hh_l0").grad
        torch.testing.assert_close(found, leaf.grad, rtol=1e-4, atol=1e-5)
    kept = torch.stack(masks) > 0
    assert 0.5 < float(kept.float().mean()) < 0.95
    assert not torch.equal(kept[0], kept[1])


def _run(layer: nn.RNNBase, x: torch.Tensor, weight_hh: torch.Tensor) -> torch.Tensor:
    """A layer whose recurrent weights are the result of a computation."""
    h, c = torch.zeros(2, x.shape[1], HIDDEN)
    outputs = []
    for step in x:
        given = step, h, layer.weight_ih_l0, weight_hh, layer.bias_ih_l0, layer.bias_hh_l0
        if isinstance(layer, nn.LSTM):
            h, c = torch._VF.lstm_cell(step, (h, c), *given[2:])  # type: ignore[attr-defined]
        elif isinstance(layer, nn.GRU):
            h = torch._VF.gru_cell(*given)  # type: ignore[attr-defined]
        else:
            h = torch._VF.rnn_tanh_cell(*given)  # type: ignore[attr-defined]
        outputs.append(h)
    return torch.stack(outputs)


def test_each_update_drops_other_units_and_all_processes_the_same() -> None:
    first, second = model_of("lstm"), model_of("lstm")
    both = dropout_of(first), dropout_of(second)
    seen = []
    for _ in range(3):
        for dropout in both:
            dropout.draw()
            dropout.drop()
        weights = [
            model.state_dict()["stack.cells.0.rnn.weight_hh_l0"] for model in (first, second)
        ]
        assert torch.equal(*weights)
        seen.append(weights[0].clone() != 0)
        for dropout in both:
            dropout.restore()
    assert not torch.equal(seen[0], seen[1])


def test_an_error_leaves_the_weights_as_they_were() -> None:
    model = model_of("gru")
    own = {name: leaf.clone() for name, leaf in model.state_dict().items()}
    with pytest.raises(KeyboardInterrupt), dropout_of(model).dropped():
        raise KeyboardInterrupt
    assert all(torch.equal(leaf, own[name]) for name, leaf in model.state_dict().items())


def test_a_training_with_it_is_resumed_bit_for_bit(text_file: Path) -> None:
    given = {"cell": "gru", "recurrent_dropout": 0.4, "accumulate": 2, "report_every": 2, **SIZES}
    whole = zoo.train(str(text_file), out="whole", **given)
    events = zoo.train_events(str(text_file), out="parts", **given)
    for count, _ in enumerate(events):
        if count == 9:
            break
    events.close()  # type: ignore[attr-defined]
    parts = zoo.resume("parts")
    assert whole.metrics() != []
    for name, leaf in whole.model.state_dict().items():
        assert torch.equal(leaf, parts.model.state_dict()[name])
    without = zoo.train(str(text_file), out="without", **{**given, "recurrent_dropout": 0})
    assert (
        without.metrics()[-1]["train_bits_per_token"] < whole.metrics()[-1]["train_bits_per_token"]
    )


def test_a_cell_without_recurrent_weights_is_refused(text_file: Path) -> None:
    with pytest.raises(UsageError, match="'mingru' has no recurrent weights to drop; leave out"):
        zoo.train(str(text_file), cell="mingru", recurrent_dropout=0.1, **SIZES)
    assert not list(Path("runs").glob("*"))


@pytest.mark.parametrize(
    ("named", "said"),
    [
        (["W_hh"], "returned a list"),
        ({"W_hx": 0}, "names 'W_hx', no parameter"),
        ({"W_hh": 2}, "gives 2 as the axis of W_hh, which has 2"),
    ],
)
def test_what_a_cell_names_wrongly(
    named: object, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from zoo_elman.scratch import RNNScratch

    monkeypatch.setattr(RNNScratch, "recurrent_weights", lambda self: named)
    with pytest.raises(ContractError, match=f"recurrent_weights {said}"):
        model_of("rnn-scratch").stack.check_contract(REGISTRY.cells["rnn-scratch"], REGISTRY)
