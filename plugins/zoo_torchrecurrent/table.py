"""All entries, by the names of the classes in torchrecurrent."""

from zoo_torchrecurrent import dynamics_cards, gated_cards, memory_cards, small_cards
from zoo_torchrecurrent.entry import Entry

ENTRIES: dict[str, Entry] = {
    entry.cell: entry
    for cards in (dynamics_cards, gated_cards, memory_cards, small_cards)
    for entry in cards.ENTRIES
}
