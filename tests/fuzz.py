"""Damage files and run the commands that read them: ``make fuzz`` (500 trials, a quarter of an
hour). Each trial must end in 20 s with a right result, or with a sentence that names the file.
"""

import argparse
import random
import shutil
import tempfile
from collections import Counter
from pathlib import Path

import torch

from warm import run_forked
from world import COMMANDS, READS, copy_world, find, make_world

LIMIT = 20.0


def damage(data: bytes, rng: random.Random) -> tuple[str, bytes]:
    """Return a kind of damage and the damaged bytes."""
    kind = rng.choice(["cut", "empty", "flip", "zeros", "noise", "twice", "text", "deep"])
    place = rng.randrange(len(data)) if data else 0
    length = rng.randrange(1, max(len(data) // 4, 2))
    if kind == "cut":
        return kind, data[:place]
    if kind == "empty":
        return kind, b""
    if kind == "flip":
        changed = bytearray(data)
        for _ in range(rng.randrange(1, 6)):
            changed[rng.randrange(len(changed))] ^= 1 << rng.randrange(8)
        return kind, bytes(changed)
    if kind == "zeros":
        return kind, data[:place] + bytes(length) + data[place + length :]
    if kind == "noise":
        return kind, data[:place] + rng.randbytes(length) + data[place + length :]
    if kind == "twice":
        return kind, data[:place] + data
    return kind, b"not what you expect\n" if kind == "text" else b"[" * 20_000


def judge(name: str, path: Path, code: int | None, output: str) -> str:
    """Say what is wrong with how a command ended; "" where nothing is."""
    if code is None:
        return f"did not end in {LIMIT:g} s"
    if code < 0:
        return f"was killed by signal {-code}"
    if "Traceback" in output:
        return "ended in a traceback"
    if code == 0:
        return ""  # Not every damage can be seen, such as that of a bitmap's pixels.
    # A run folder is named for its files, a cache for its parts, and the schema for its keys.
    names = {path.name, path.stem, path.parent.name, path.parents[1].name, path.parents[2].name}
    said = [line for line in output.splitlines() if "error: " in line or "BAD: " in line]
    if not said:
        return f"ended with {code} and no sentence"
    if not any(each in line for each in names for line in said) and "heckpoint" not in said[0]:
        return "names no file: " + said[0]
    return ""


def main() -> None:
    """Run the trials and print what went wrong."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trials", type=int, default=500)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    torch.set_num_threads(1)
    pairs = [(command, name) for command, names in READS.items() for name in names]
    ends: Counter[str] = Counter()
    wrong = []
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        world = make_world(root / "world")
        for number in range(options.trials):
            rng = random.Random(f"{options.seed} {number}")
            command, name = pairs[number % len(pairs)]
            trial = copy_world(world, root / "trial")
            path = find(trial, name)
            kind, data = damage(path.read_bytes(), rng)
            path.write_bytes(data)
            script, words = COMMANDS[command]
            code, output = run_forked(script, words, trial, LIMIT)
            ends[f"exit code {code}"] += 1
            if fault := judge(command, path, code, output):
                wrong.append(f"{number}: {command}, {name}, {kind}: {fault}")
                print(wrong[-1], output[-1500:], sep="\n", flush=True)
            shutil.rmtree(trial)
    print(", ".join(f"{count} with {end}" for end, count in sorted(ends.items())))
    print(f"{options.trials} damaged files, {len(wrong)} wrong ends")
    raise SystemExit(1 if wrong else 0)


if __name__ == "__main__":
    main()
