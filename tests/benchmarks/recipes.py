"""The three d2l recipes against the same experiments in a plain PyTorch loop, interleaved.

    python tests/benchmarks/recipes.py [--seeds 3] [--out FOLDER]

For each recipe and seed: the best and the worst training perplexity of the last 20 epochs, the wall
time of both, and its ratio. The trained runs are kept in FOLDER.
"""

from __future__ import annotations

import argparse
import statistics
import time
from pathlib import Path

import plain_loop

import zoo
from zoo.data.corpora import cache_folder


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--out", type=Path, default=Path("runs"))
    parser.add_argument("--recipes", nargs="*", default=list(plain_loop.EXPERIMENTS))
    arguments = parser.parse_args()
    text = cache_folder() / "timemachine.txt"
    for name in arguments.recipes:
        with_drawing, without = [], []
        for seed in range(arguments.seeds):
            plain, plain_seconds, drawing = plain_loop.train(name, text, seed)
            began = time.perf_counter()
            run = zoo.train(
                recipe=name, seed=seed, out=arguments.out / f"{name}-{seed}", overwrite=True
            )
            seconds = time.perf_counter() - began
            ours = [line["train_perplexity"] for line in run.metrics()][-20:]
            with_drawing.append(plain_seconds / seconds)
            without.append((plain_seconds - drawing) / seconds)
            print(
                f"{name} seed {seed}: last 20 epochs {min(ours):.3f} to {max(ours):.3f} (plain "
                f"loop {min(plain[-20:]):.3f} to {max(plain[-20:]):.3f}); {seconds:.1f} s, plain "
                f"loop {plain_seconds:.1f} s, of which {drawing:.1f} s on drawing",
                flush=True,
            )
        print(
            f"{name}: median {statistics.median(with_drawing):.2f} times as fast as the plain loop "
            f"({statistics.median(without):.2f} without its drawing)",
            flush=True,
        )


if __name__ == "__main__":
    main()
