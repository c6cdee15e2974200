"""Default settings of a run, worked out by hand for a machine of known speed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

import zoo
from zoo.config import RunConfig
from zoo.data.corpora import Corpus
from zoo.data.dataset import Dataset
from zoo.data.tokenizer import Tokenizer
from zoo.data.tokenizers import ByteTokenizer, CharTokenizer
from zoo.recipes import load_recipe
from zoo.training.defaults import choose_settings
from zoo.training.distributed import ALONE
from zoo.training.text_data import TextData

SIXTY_FIVE = CharTokenizer(characters="".join(map(chr, range(65, 65 + 64))))


@pytest.fixture(autouse=True)
def _machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """1e11 operations per second."""
    monkeypatch.setattr("zoo.training.defaults._product_rate", lambda device: 1e11)


def choose(
    train: int, held_out: int, tokenizer: Tokenizer = SIXTY_FIVE, recipe: str | None = None,
    **settings: object,
) -> RunConfig:  # fmt: skip
    tokens = np.zeros(train + held_out, np.int64)
    data = Dataset(Corpus("t", "", "char", ""), tokenizer, tokens[:train], tokens[train:])
    config = RunConfig.build(settings, recipe and load_recipe(recipe, zoo.load_registry()))
    return choose_settings(config, TextData(data), torch.device("cpu"), ALONE, zoo.load_registry())


def test_ten_minutes_on_a_million_characters() -> None:
    """Half of 6e13 operations are usable: 512 (3e13 / 1.4e13)^¼ = 619 units, at most ten times 64
    for such a text. A step of 640 units costs 6 · (4 · 640 · (640 + 65) + 640 · 65) operations,
    enough for 2.71 million tokens or epochs: the dropout is at its most, as log2(2.71 / 0.6) · 0.19
    is more, and that of recurrent weights log2(2.71 / 2.5) · 0.075."""
    config = choose(1_000_000, 110_000, minutes=10)
    assert config.model.hidden == 640
    assert (config.model.dropout, config.training.recurrent_dropout) == (0.3, 0.01)
    assert config.model.embedding is None
    assert (config.training.batch_size, config.training.steps) == (16, 16)
    assert config.training.learning_rate == 8e-3  # the cell lstm's default
    assert config.training.patience == 5  # the minimum: 0.4 of four reports would be fewer
    # evaluating 110,000 tokens costs a third of training on them: a twentieth of 733,333
    assert config.training.report_every == round(733_333 / 256)


def test_a_short_text_gets_fewer_units_and_more_dropout() -> None:
    """64 · 8^⅓ = 128 units; 3e13 / (6 · 128 · (4 · 193 + 65)) = 46.7 million tokens: thousands of
    times the text."""
    config = choose(8_000, 800, minutes=10)
    assert config.model.hidden == 128
    assert (config.model.dropout, config.training.recurrent_dropout) == (0.3, 0.4)
    assert config.training.steps == 32


def test_a_cell_without_recurrent_weights_gets_more_dropout_elsewhere() -> None:
    for given in ({"cell": "mingru"}, {"recurrent_dropout": 0.0}):
        config = choose(8_000, 800, minutes=10, **given)
        assert (config.model.dropout, config.training.recurrent_dropout) == (0.5, 0.0)


def test_a_vocabulary_of_many_tokens_costs_products_too() -> None:
    """The head of 80,000 tokens is most of the work: 3e13 / (6 · 256 · (8 · 256 + 80000))."""
    many = CharTokenizer(characters="".join(map(chr, range(0x10000, 0x10000 + 79_999))))
    tokens = 3e13 / (6 * 256 * (8 * 256 + 80_000))
    config = choose(10_000_000, 0, many, minutes=10, hidden=256)
    rate = 8e-3 * (5_000 / (tokens / 256)) ** 0.5
    assert config.training.learning_rate == pytest.approx(rate, rel=0.02)


def test_a_text_of_a_few_lines_gets_smaller_windows() -> None:
    """At least four windows: 300 / (4 · 32) = 2 rows, of 300 / (4 · 2) = 37 steps at most."""
    config = choose(300, 0, minutes=1)
    assert (config.training.batch_size, config.training.steps) == (2, 32)
    assert config.training.patience is None  # there is no validation text


def test_with_epochs_given_the_machines_speed_does_not_matter() -> None:
    config = choose(1_000_000, 0, epochs=4, cell="gru")
    assert config.model.hidden == 256
    # log2(4 / 0.6) · 0.19 is more than the most, 0.3; but the cell has 3 · 256 · (65 + 256 + 2)
    # parameters and the head 257 · 65: 264,769 for a million tokens
    assert config.model.dropout == round(0.3 * 0.264769, 2) == 0.08
    assert config.training.recurrent_dropout == 0.01
    assert config.training.learning_rate == 4e-3
    assert config.training.steps == 32


def test_accumulated_windows_make_fewer_updates() -> None:
    few = choose(153_600, 0, epochs=4, cell="gru", accumulate=4).training
    assert few.learning_rate == 0.0116  # as for one epoch without: 600 updates


def test_few_updates_get_a_higher_learning_rate() -> None:
    """153,600 tokens in windows of 256 are 600 updates: √(5000 / 600) = 2.9 times the cell's
    default of 4e-3; at most four times."""
    few = choose(153_600, 0, epochs=1, cell="gru").training
    assert (few.batch_size, few.steps, few.learning_rate) == (16, 16, 0.0116)
    assert choose(25_600, 0, epochs=1, cell="gru").training.learning_rate == 0.016
    given = choose(25_600, 0, epochs=1, cell="gru", learning_rate=0.5)
    assert given.training.learning_rate == 0.5


def test_patience_grows_with_the_number_of_epochs() -> None:
    """A report for each of 50 epochs, and two fifths of those."""
    assert choose(10_000, 1_000, epochs=50).training.patience == 20


def test_a_wide_vocabulary_gets_an_embedding() -> None:
    wide = CharTokenizer(characters="".join(map(chr, range(0x4E00, 0x4E00 + 600))))
    assert choose(100_000, 0, wide, hidden=300, epochs=1).model.embedding == 256
    assert choose(100_000, 0, wide, hidden=100, epochs=1).model.embedding == 100
    assert choose(100_000, 0, ByteTokenizer(), hidden=100, epochs=1).model.embedding is None


def test_given_settings_are_kept() -> None:
    given = {"hidden": 33, "dropout": 0.0, "batch_size": 7, "steps": 9, "learning_rate": 0.5,
             "report_every": 3, "patience": 2, "embedding": 11, "precision": "fp32",
             "recurrent_dropout": 0.6}  # fmt: skip
    config = choose(1_000_000, 1000, minutes=10, **given)
    for name, value in given.items():
        section = config.model if hasattr(config.model, name) else config.training
        assert getattr(section, name) == value


def test_with_a_recipe_no_defaults_are_chosen() -> None:
    recipe = "d2l-scratch"
    expected = RunConfig.build({}, load_recipe(recipe, zoo.load_registry()))
    assert choose(10_000, 0, recipe=recipe) == expected


def test_chosen_settings_are_saved(text_file: Path) -> None:
    run = zoo.train(str(text_file), epochs=1, out="r")
    assert zoo.load("r").config == run.config
    assert '"hidden": 256' in Path("r/config.json").read_text()
