"""How fast are the closed forms of a potential beside autograd?

One thread. The published sizes of the potential (all widths n), with the gradient of each loss
in the weights. "autograd" is what the functions do for a network of one's own, torch.func;
"row sums" is a step of the released code of Song et al. 2023, written anew: gradient of the
gradient's sum, log|1 + row sum| summed, which is no determinant of anything. Values of closed
forms and autograd are compared before anything is timed. Ratios of medians, in turns.
"""

from collections.abc import Callable, Sequence

import potential_flows as pf
import torch
from eigenworks.timing import arguments, in_turns, medians, write_rows
from torch import Tensor

QUESTION = "How fast are the closed forms of a potential beside autograd?"
BATCH = 32


def trained(value: Callable[[], Tensor], weights: Sequence[Tensor]) -> Callable[[], Tensor]:
    """The value, and its gradient in the weights."""

    def call() -> Tensor:
        total = value()
        torch.autograd.grad(total.sum(), weights, allow_unused=True)
        return total.detach()

    return call


def row_sums(u: pf.MLPPotential, z: Tensor) -> Tensor:
    """Σ_i log|1 + (H 1)_i| of each row."""
    z = z.detach().requires_grad_()
    slope = torch.autograd.grad(u(z, 1.0).sum(), z, create_graph=True)[0]
    rows = torch.autograd.grad(slope.sum(), z, create_graph=True)[0]
    return (1 + rows).abs().log().sum(-1)


def cases(n: int) -> dict[str, dict[str, Callable[[], Tensor]]]:
    """For each quantity the implementations, ours first."""
    torch.manual_seed(n)
    u = pf.MLPPotential(n, n, time_dim=n, output=torch.tanh)
    z = torch.randn(BATCH, n)
    weights = list(u.parameters())
    plain = lambda z, t: u(z, t)  # noqa: E731 - hides the closed forms
    both = {"ours": u, "autograd": plain}

    def of(f: Callable[[pf.Potential], Tensor]) -> dict[str, Callable[[], Tensor]]:
        return {name: trained(lambda p=p: f(p), weights) for name, p in both.items()}

    found = {
        "gradient": of(lambda u: pf.gradient(u, z, 1.0).square()),
        "laplacian": of(lambda u: pf.laplacian(u, z, 1.0)),
        "log|det(I + H)|": of(lambda u: pf.step_logabsdet(u, z, 1.0)),
    }
    found["log|det(I + H)|"]["row sums"] = trained(lambda: row_sums(u, z), weights)
    return found


def main() -> None:
    """Prints a table and writes rows."""
    parser = arguments(__doc__)
    parser.add_argument("--seconds", type=float, default=3.0, help="for each quantity and size")
    options = parser.parse_args()
    torch.set_num_threads(1)
    rows = []
    seconds, least = (0.0, 1) if options.quick else (options.seconds, 5)
    for n in (32,) if options.quick else (32, 64, 324):
        for quantity, calls in cases(n).items():
            values = {name: call() for name, call in calls.items()}
            difference = (values["autograd"] - values["ours"]).abs().max()
            difference = (difference / values["autograd"].abs().max()).item()
            if difference > 1e-3:
                raise SystemExit(f"{quantity}, n={n}: relative difference {difference:.1e}")
            took = medians(in_turns(calls, seconds, least=least))
            for name in list(took)[1:]:
                ratio = took[name] / took["ours"]
                print(
                    f"{quantity:16s} n={n:3d}  ours {1e3 * took['ours']:8.2f} ms  "
                    f"{name:9s} {ratio:6.2f}x  difference {difference:.0e}"
                )
                row = {
                    "label": f"{quantity}, n={n}",
                    "metric": f"speed over {name}",
                    "value": ratio,
                    "unit": "x",
                    "better": "higher",
                    "milliseconds": 1e3 * took["ours"],
                }
                if name == "autograd":
                    row["difference"] = difference
                rows.append(row)
    write_rows(options.out, QUESTION, rows)


if __name__ == "__main__":
    main()
