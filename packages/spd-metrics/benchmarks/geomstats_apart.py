"""How fast are distances, means and maps beside geomstats, in an environment of its own?

geomstats 2.8 needs an older numpy than this workspace has. The script makes a virtual
environment with uv, starts itself there as a server that runs one call when told to and
answers with the seconds it took, and lets ours take turns with it. geomstats computes on its
torch backend, one thread, float64, B = 256. If the environment cannot be made, the only row
says so.
"""

import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

QUESTION = "How fast are distances, means and maps beside geomstats, in its own environment?"
BATCH = 256
ORDERS = (8, 32, 64)
REQUIREMENTS = ("geomstats==2.8.0", "numpy<2.4", f"torch=={torch.__version__.split('+')[0]}")

Call = Callable[[], torch.Tensor]


def distance_with_gradient(dist: Callable[..., torch.Tensor], P: torch.Tensor, Q: torch.Tensor):
    """Values of dist(P, Q), after the gradients of their sum."""

    def call() -> torch.Tensor:
        p, q = P.detach().requires_grad_(), Q.detach().requires_grad_()
        value = dist(p, q)
        value.sum().backward()
        return value.detach()

    return call


def serve(folder: Path) -> None:
    """In the other environment: runs the call named by each line, answers with its seconds."""
    from geomstats.geometry import spd_matrices as spd
    from geomstats.learning.frechet_mean import FrechetMean

    torch.set_num_threads(1)
    calls: dict[str, Call] = {}
    for n in ORDERS:
        P, Q = (torch.from_numpy(np.load(folder / f"{name}{n}.npy")) for name in "PQ")
        space = spd.SPDMatrices(n, equip=False)
        aim = spd.SPDAffineMetric(space)
        lem = spd.SPDLogEuclideanMetric(space)
        V = torch.from_numpy(np.load(folder / f"V{n}.npy"))
        space = spd.SPDMatrices(n)
        mean = FrechetMean(space)
        # It bounds the square of a step.
        mean.set(epsilon=1e-16)

        def estimate(mean: Any = mean, P: torch.Tensor = P) -> torch.Tensor:
            return mean.fit(P).estimate_

        calls |= {
            f"AIM distance, forward and backward, n={n}": distance_with_gradient(aim.dist, P, Q),
            f"LEM log, n={n}": lambda lem=lem, P=P, Q=Q: lem.log(Q, P[0]),
            f"LEM exp, n={n}": lambda lem=lem, P=P, V=V: lem.exp(V, P[0]),
            f"AIM mean to 1e-8, n={n}": estimate,
        }
    print(json.dumps(list(calls)), flush=True)
    for number, line in enumerate(sys.stdin):
        call = calls[line.strip()]
        begin = time.perf_counter()
        value = call()
        seconds = time.perf_counter() - begin
        path = folder / f"{number}.npy"
        np.save(path, np.asarray(value))
        print(json.dumps([seconds, str(path)]), flush=True)


def environment(folder: Path) -> Path:
    """The interpreter of a new environment that has geomstats. Raises OSError saying why not."""
    uv = shutil.which("uv")
    if uv is None:
        raise OSError("uv is not installed")
    python = folder / "venv" / "bin" / "python"
    steps = (
        [uv, "venv", "--quiet", "--python", sys.executable, str(folder / "venv")],
        [uv, "pip", "install", "--quiet", "--python", str(python), *REQUIREMENTS],
    )
    for step in steps:
        # Away from the workspace, whose configuration takes geomstats without requirements.
        done = subprocess.run(step, capture_output=True, text=True, check=False, cwd=folder)
        if done.returncode:
            raise OSError((done.stderr.strip() or "uv failed").splitlines()[-1])
    return python


def ours(n: int, P: torch.Tensor, Q: torch.Tensor, V: torch.Tensor) -> dict[str, Call]:
    """Our calls by the names of geomstats'."""
    from spd_metrics import AffineInvariant, LogEuclidean

    aim, lem = AffineInvariant(), LogEuclidean()
    return {
        f"AIM distance, forward and backward, n={n}": distance_with_gradient(aim.dist, P, Q),
        f"LEM log, n={n}": lambda: lem.log(P[0], Q),
        f"LEM exp, n={n}": lambda: lem.exp(P[0], V),
        f"AIM mean to 1e-8, n={n}": lambda: aim.mean(P, tol=1e-8),
    }


def compare(folder: Path, python: Path, seconds: float) -> list[dict[str, Any]]:
    """A row for each operation and order."""
    from linalg_kernels.testing import random_spd
    from spd_metrics import LogEuclidean

    torch.set_num_threads(1)
    mine: dict[str, Call] = {}
    for n in ORDERS:
        generator = torch.Generator().manual_seed(n)
        P, Q = (random_spd(BATCH, n, cond=100.0, generator=generator) for _ in range(2))
        V = LogEuclidean().log(P[0], Q)
        for name, T in (("P", P), ("Q", Q), ("V", V)):
            np.save(folder / f"{name}{n}.npy", T.numpy())
        mine |= ours(n, P, Q, V)
    log = folder / "errors"
    server = subprocess.Popen(
        [str(python), "-W", "ignore", __file__, "--serve", str(folder)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=log.open("w"),
        text=True,
        env=os.environ | {"GEOMSTATS_BACKEND": "pytorch", "OMP_NUM_THREADS": "1"},
    )
    to, answers = server.stdin, server.stdout
    assert to is not None
    assert answers is not None

    def ask(name: str) -> tuple[float, str]:
        print(name, file=to, flush=True)
        answer = answers.readline()
        if not answer:
            raise SystemExit(f"geomstats failed in {name}: {log.read_text().splitlines()[-1]}")
        taken, path = json.loads(answer)
        return taken, path

    rows = []
    try:
        answers.readline()
        for label, call in mine.items():
            value, theirs = np.asarray(call()), np.load(ask(label)[1])
            gap = float(np.linalg.norm(value - theirs) / np.linalg.norm(theirs))
            if gap > 1e-5:
                raise SystemExit(f"{label}: values differ by {gap:.1g}")
            times: tuple[list[float], list[float]] = [], []
            start = time.perf_counter()
            while len(times[0]) < 5 or time.perf_counter() - start < seconds:
                begin = time.perf_counter()
                call()
                times[0].append(time.perf_counter() - begin)
                taken, path = ask(label)
                times[1].append(taken)
                Path(path).unlink()
            own, other = map(statistics.median, times)
            print(f"{label:40s} {1e3 * own:8.2f} ms {other / own:5.1f}x, difference {gap:.0e}")
            rows.append({"label": label, "metric": "speed over geomstats", "value": other / own,
                         "unit": "x", "better": "higher", "milliseconds": 1e3 * own,
                         "difference": gap})  # fmt: skip
    finally:
        to.close()
        server.wait()
    return rows


def main() -> None:
    """Prints a table and writes rows."""
    if sys.argv[1:2] == ["--serve"]:
        serve(Path(sys.argv[2]))
        return
    # Not in the other environment, where this file runs too.
    from eigenworks.timing import arguments, write_rows, write_skipped

    parser = arguments(__doc__)
    parser.add_argument("--seconds", type=float, default=2.0, help="for each operation and order")
    options = parser.parse_args()
    if options.quick:
        write_skipped(options.out, QUESTION, "a quick run makes no environment of its own")
        return
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        try:
            python = environment(folder)
        except OSError as error:
            write_skipped(options.out, QUESTION, f"its environment could not be made: {error}")
            return
        write_rows(options.out, QUESTION, compare(folder, python, options.seconds))


if __name__ == "__main__":
    main()
