"""The three d2l recipes against the same experiments in a plain PyTorch loop, in turn.

    python tests/benchmarks/recipes.py [--seeds 3] [--out FOLDER]

For each recipe and seed: the best and the worst training perplexity of the last 20 epochs, the wall
time of both, and its ratio. The trained runs stay in FOLDER.
"""

from __future__ import annotations

import argparse
import statistics
import time
from pathlib import Path

import plain_loop

import zoo
from zoo.corpora import cache_folder


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--out", type=Path, default=Path("runs"))
    parser.add_argument("--recipes", nargs="*", default=list(plain_loop.EXPERIMENTS))
    arguments = parser.parse_args()
    text = cache_folder() / "timemachine.txt"
    for name in arguments.recipes:
        ratios = []
        for seed in range(arguments.seeds):
            plain, plain_seconds = plain_loop.train(name, text, seed)
            began = time.perf_counter()
            run = zoo.train(
                recipe=name, seed=seed, out=arguments.out / f"{name}-{seed}", overwrite=True
            )
            seconds = time.perf_counter() - began
            ours = [line["train_perplexity"] for line in run.metrics()]
            ratios.append(plain_seconds / seconds)
            print(
                f"{name} seed {seed}: last 20 epochs {min(ours[-20:]):.3f} to "
                f"{max(ours[-20:]):.3f} (plain loop {min(plain[-20:]):.3f} to "
                f"{max(plain[-20:]):.3f}); {seconds:.1f} s, plain loop {plain_seconds:.1f} s, "
                f"{ratios[-1]:.2f} times as fast",
                flush=True,
            )
        print(f"{name}: median {statistics.median(ratios):.2f} times as fast as the plain loop")


if __name__ == "__main__":
    main()
