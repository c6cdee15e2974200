"""What a person wants to know about these tasks before using them."""

from zoo.registry import TaskCard

PARITY = TaskCard(
    title="Parity",
    authors="Delétang, Ruoss, Grau-Moya, Genewein and others",
    year=2023,
    paper="Neural Networks and the Chomsky Hierarchy, ICLR 2023",
    definition="Reads bits; at each position, says whether the number of ones so far is odd.",
    measures="Whether a cell can follow a state of two values that an input flips, at any length.",
)
