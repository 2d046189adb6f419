"""Does the memory of a walk of 1,000 steps from 800 codes stay flat?

The tiny preset and a surrogate, neither trained, as memory does not depend on weights: the codes
are moved by the surrogate's gradient and by Adam, and decoded every 50 steps. Resident memory is
read every 100 steps. For comparison the same walk with codes that keep their graph, as in the
released code, for a hundredth of the steps.
"""

import gc
import time
from pathlib import Path

import torch
from chemflow.navigators import AdamAscent, GradientFlow
from chemflow.pace import Pace
from chemflow.protocol import Navigator
from chemflow.surrogate import Config, Surrogate
from chemflow.vae import MoleculeVAE, preset
from chemflow.vocabulary import Vocabulary
from eigenworks.timing import arguments, write_rows

QUESTION = "Does the memory of a walk of 1,000 steps from 800 codes stay flat?"
TOKENS = ("[C]", "[=C]", "[N]", "[O]", "[=O]", "[F]", "[Branch1]", "[Ring1]", "[=Branch1]")


def resident() -> float:
    """Megabytes of this process in memory (Linux)."""
    gc.collect()
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmRSS"):
            return int(line.split()[1]) / 1024
    raise RuntimeError("VmRSS is not in /proc/self/status: this benchmark needs Linux")


def walk(
    model: MoleculeVAE, navigator: Navigator, z: torch.Tensor, steps: int
) -> tuple[list[float], float]:
    """Memory after a tenth, two tenths … of the steps, and seconds."""
    seen = []
    begin = time.perf_counter()
    for t in range(steps):
        z = navigator.step(z, t)
        if t % 50 == 0:
            model.decode_smiles(z)
        if (t + 1) % max(1, steps // 10) == 0:
            seen.append(resident())
    return seen, time.perf_counter() - begin


def with_graph(surrogate: Surrogate, z: torch.Tensor, steps: int) -> list[float]:
    """The same steps, each on the graph of those before."""
    z = z.requires_grad_()
    seen = []
    for t in range(steps):
        slope = torch.autograd.grad(surrogate.predict(z).sum(), z, create_graph=True)[0]
        z = z + 0.1 * slope / slope.norm(dim=-1, keepdim=True)
        if (t + 1) % max(1, steps // 5) == 0:
            seen.append(resident())
    return seen


def main() -> None:
    """Prints a table and writes rows."""
    parser = arguments(__doc__)
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--codes", type=int, default=800)
    options = parser.parse_args()
    if options.quick:
        options.steps, options.codes = 20, 50
    torch.set_num_threads(1)
    torch.manual_seed(0)
    model = MoleculeVAE(preset("tiny", 49), Vocabulary.of(TOKENS)).eval().requires_grad_(False)
    surrogate = Surrogate(model, Config("any", members=1, width=8, depth=1), (49, 10)).eval()
    surrogate.requires_grad_(False)
    codes = torch.randn(options.codes, model.latent_size)
    rows = []
    for name, navigator in (
        ("gradient", GradientFlow(surrogate, Pace(0.1))),
        ("Adam", AdamAscent(surrogate, Pace(0.1))),
    ):
        seen, seconds = walk(model, navigator, codes, options.steps)
        growth = seen[-1] - seen[0]
        print(
            f"{name:10s} {options.steps} steps in {seconds:.0f} s, "
            f"{seen[0]:.0f} MB after a tenth, {seen[-1]:.0f} MB at the end"
        )
        rows.append(
            {
                "label": f"{name}, {options.steps} steps from {options.codes} codes",
                "metric": "growth of memory from a tenth to the end",
                "value": growth,
                "unit": "MB",
                "better": "lower",
                "seconds": seconds,
            }
        )
    few = max(5, options.steps // 100)
    seen = with_graph(surrogate, codes, few)
    rate = (seen[-1] - seen[0]) / (few * 0.8)
    print(f"with a graph {rate:.1f} MB a step, measured over {few} steps")
    rows.append(
        {
            "label": f"steps on one graph, {options.codes} codes",
            "metric": "growth of memory a step",
            "value": rate,
            "unit": "MB",
        }
    )
    write_rows(options.out, QUESTION, rows)


if __name__ == "__main__":
    main()
