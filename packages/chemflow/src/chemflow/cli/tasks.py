"""The commands `chemflow optimize` and `chemflow manipulate`."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
import typer
from torch import Tensor

from chemflow.by_name import NAVIGATORS, make_navigator
from chemflow.cli.common import (
    Batch,
    Device,
    Out,
    Seed,
    bar,
    console,
    cores,
    device_of,
    processes,
)
from chemflow.directions import ridge_direction
from chemflow.docking import BOXES, Box, Docking
from chemflow.draw import chosen
from chemflow.files import read_smiles, write_text
from chemflow.manipulation import manipulate, tolerance
from chemflow.multi_objective import MinNorm, Sequential, Weighted
from chemflow.objective import weighted
from chemflow.oracles import Oracle, named
from chemflow.pace import Norm
from chemflow.protocol import LatentModel, Navigator, Surrogate
from chemflow.scoring import Scorer
from chemflow.starts import Prior, Starts
from chemflow.statistics import over_seeds
from chemflow.surrogate import load_surrogate
from chemflow.tally import THRESHOLDS
from chemflow.tasks import optimize
from chemflow.trajectory import Point, read
from chemflow.vae import load_model

commands = typer.Typer()

Model = Annotated[Path, typer.Argument(help="Folder of a trained model.", exists=True)]
Name = Annotated[str, typer.Option("--navigator", help=f"{', '.join(NAVIGATORS)}.")]
Surrogates = Annotated[
    list[Path] | None,
    typer.Option("--surrogate", help="Folder of a trained surrogate; repeatable.", exists=True),
]
Flow = Annotated[Path | None, typer.Option(help="Folder of a trained flow.", exists=True)]
StepSize = Annotated[float, typer.Option(min=0.0, help="Length of a step.")]
NormName = Annotated[Norm, typer.Option(help="Whether a step has that length, or is scaled by it.")]
Radius = Annotated[
    float | None, typer.Option(min=0.0, help="Codes are kept in a ball of this radius.")
]
Molecules = Annotated[
    Path | None,
    typer.Option("--molecules", help="Start from these SMILES, not from the prior.", exists=True),
]
Count = Annotated[int, typer.Option("--count", min=1, help="Codes of the prior to start from.")]
PriorName = Annotated[Prior, typer.Option(help="The model's own prior, or N(0, I).")]
Labels = Annotated[
    int, typer.Option(min=20, help="Codes that the oracle labels for a linear direction.")
]
WorkersOption = Annotated[int | None, typer.Option("--workers", min=1, max=1024, help="Processes.")]
Receptor = Annotated[
    Path | None, typer.Option(help="PDBQT, for the property docking.", exists=True)
]
BoxOption = Annotated[
    str | None, typer.Option("--box", help="x,y,z,dx,dy,dz in Å, or 1ERR or 2IIK, for docking.")
]


@dataclass
class _Setting:
    """What the options name, loaded."""

    model: LatentModel
    surrogates: dict[str, Surrogate]
    device: torch.device
    name: str
    flow: Path | None
    step_size: float
    norm: Norm
    radius: float | None
    labels: int
    prior: Prior
    workers: int

    def navigator(self, oracle: Oracle, seed: int) -> Navigator:
        """That follows one property."""
        direction = None
        if self.name == "linear":
            direction = self._direction(oracle, seed)
        return make_navigator(
            self.name, model=self.model, surrogate=self.surrogates.get(oracle.name),
            flow=self.flow, step_size=self.step_size, norm=self.norm, radius=self.radius, seed=seed,
            minimise=not oracle.maximise, direction=direction, oracle=_Values(oracle),
        )  # fmt: skip

    def _direction(self, oracle: Oracle, seed: int) -> Tensor:
        # Codes of their own, not those that the walks start from.
        z = Starts(self.model, self.labels, seed + 1_000_003, self.prior, self.device).batch(
            0, self.labels
        ).z  # fmt: skip
        with torch.no_grad(), Scorer([oracle], self.workers) as scorer:
            smiles = [one for part in z.split(512) for one in self.model.decode_smiles(part)]
            values = torch.from_numpy(scorer(smiles).values[:, 0])
        valid = values.isfinite().to(z.device)
        return ridge_direction(z[valid], values.to(z)[valid])


class _Values:
    """An oracle as evolution asks it."""

    def __init__(self, oracle: Oracle) -> None:
        self._scorer = Scorer([oracle])

    def __call__(self, smiles: Sequence[str]) -> Any:
        return self._scorer(smiles).values[:, 0]


def _oracle(name: str, receptor: Path | None, box: str | None, out: Path) -> Oracle:
    if name != "docking":
        return named(name)
    if receptor is None or box is None:
        raise ValueError("the property docking needs --receptor and --box")
    if box in BOXES:
        place = BOXES[box]
    else:
        try:
            x, y, z, dx, dy, dz = (float(one) for one in box.split(","))
        except ValueError:
            raise ValueError(f"--box must be six numbers with commas, got {box!r}") from None
        place = Box((x, y, z), (dx, dy, dz))
    return Docking(str(receptor), place, cache=str(out / "docked"), failures="nan")


def _load(
    model: Path, surrogates: Sequence[Path], oracles: Sequence[Oracle], names: Sequence[str],
    device: str, **others: Any,
) -> _Setting:  # fmt: skip
    place = device_of(device)
    decoder = load_model(model, place)
    # A surrogate knows the name that it was trained by, as qed or plogp.
    by_name = dict(zip(names, (oracle.name for oracle in oracles), strict=True))
    loaded = {}
    for folder in surrogates:
        one = load_surrogate(folder, decoder, place)
        if one.config.property not in by_name:
            raise ValueError(f"{folder} is of {one.config.property!r}, no --property asks for it")
        loaded[by_name[one.config.property]] = one
    return _Setting(decoder, loaded, place, **others)


def _starts(molecules: Path | None, count: int) -> int | list[str]:
    return count if molecules is None else list(read_smiles(molecules))


@commands.command("optimize")
def optimize_command(
    model: Model,
    out: Out,
    property_: Annotated[
        list[str],
        typer.Option("--property", help="qed, sa, logp, logp-sa, plogp, similarity:SMILES, "
                     "docking, …; several for several objectives."),
    ],
    navigator: Name = "gradient",
    surrogate: Surrogates = None,
    flow: Flow = None,
    weight: Annotated[list[float] | None, typer.Option(help="Of each property.")] = None,
    low_high: Annotated[
        list[str] | None, typer.Option("--range", help="LOW,HIGH of each property, for its scale.")
    ] = None,
    combine: Annotated[
        Literal["weighted", "sequential", "min-norm"], typer.Option(help="Steps of several.")
    ] = "weighted",
    also: Annotated[list[str] | None, typer.Option(help="Property to measure only.")] = None,
    molecules: Molecules = None,
    count: Count = 1000,
    prior: PriorName = "model",
    steps: Annotated[int, typer.Option(min=0)] = 10,
    step_size: StepSize = 0.1,
    norm: NormName = "unit",
    radius: Radius = None,
    threshold: Annotated[list[float] | None, typer.Option(help="Similarity δ.")] = None,
    top: Annotated[int, typer.Option(min=1, help="Best molecules to keep.")] = 100,
    rows: Annotated[bool, typer.Option(help="Keep a record of every row.")] = True,
    trajectories: Annotated[bool, typer.Option(help="Keep every step, to be drawn.")] = False,
    seeds: Annotated[int, typer.Option(min=1, help="Runs, for intervals.")] = 1,
    seed: Seed = 0,
    labels: Labels = 5000,
    receptor: Receptor = None,
    box: BoxOption = None,
    batch: Batch = 256,
    workers: WorkersOption = None,
    device: Device = "cpu",
) -> None:  # fmt: skip
    """Walk uphill from codes or molecules; report what the oracles find best on the way."""
    chosen_workers = workers or cores()
    oracles = [_oracle(name, receptor, box, out) for name in property_]
    goal = weighted(oracles, weight, [_range(one) for one in low_high] if low_high else None)
    with processes(device) as speaks:
        setting = _load(
            model, surrogate or (), oracles, property_, device, name=navigator, flow=flow,
            step_size=step_size, norm=norm, radius=radius, labels=labels, prior=prior,
            workers=chosen_workers,
        )  # fmt: skip
        figures = []
        for number in range(seed, seed + seeds):
            folder = out if seeds == 1 else out / f"seed-{number}"
            single = [setting.navigator(oracle, number) for oracle in oracles]
            walker = single[0]
            if len(single) > 1:
                length = step_size if norm == "unit" else None
                walker = {"weighted": Weighted, "sequential": Sequential, "min-norm": MinNorm}[
                    combine
                ](single, length)
                if isinstance(walker, Weighted) and weight:
                    walker.weights = tuple(weight)
            with bar(f"seed {number}", "steps") as report:
                found = optimize(
                    setting.model, walker, goal, start=_starts(molecules, count), steps=steps,
                    seed=number, prior=prior, also=[named(one) for one in also or ()],
                    surrogates=setting.surrogates, thresholds=threshold or THRESHOLDS, top=top,
                    batch=batch, workers=chosen_workers, keep_rows=rows, folder=folder,
                    trajectories=trajectories, device=device, progress=report,
                )  # fmt: skip
            figures.append(found.figures())
            if speaks:
                console.print(found.table(), markup=False)
                _page(folder, found)
        if speaks and seeds > 1:
            for name, interval in over_seeds(figures).items():
                console.print(f"{name}: {interval} over {seeds} seeds", markup=False)


def _range(text: str) -> tuple[float, float]:
    try:
        low, high = (float(one) for one in text.split(","))
    except ValueError:
        raise ValueError(f"--range must be LOW,HIGH, got {text!r}") from None
    return low, high


def _page(folder: Path, found: Any) -> None:
    try:
        from chemflow.report import write_report

        write_report(folder / "report.html", found, paths(folder, found))
    except ModuleNotFoundError as error:
        console.print(f"no report: {error.name} is not installed: pip install 'chemflow[draw]'")
        return
    console.print(f"report: {folder / 'report.html'}", markup=False)


def paths(folder: Path, found: Any, count: int = 6) -> list[list[Point]]:
    """The trajectories of the rows of the best molecules, where they were kept."""
    wanted = list(dict.fromkeys(one.row for one in found.best))[:count]
    kept: dict[int, list[Point]] = {row: [] for row in wanted}
    for point in read(*sorted(folder.glob("trajectories-*.jsonl"))):
        if point.row in kept:
            kept[point.row].append(point)
    return [points for points in kept.values() if chosen(points)]


@commands.command("manipulate")
def manipulate_command(
    model: Model,
    out: Out,
    property_: Annotated[str, typer.Option("--property", help="qed, sa, logp, logp-sa, plogp, …")],
    navigator: Name = "gradient",
    surrogate: Surrogates = None,
    flow: Flow = None,
    epsilon: Annotated[
        float | None, typer.Option(min=0.0, help="Of relaxed success, in units of the property.")
    ] = None,
    reference: Annotated[
        Path | None,
        typer.Option(
            help="Training molecules: ε is 5 % of their range, if not given.", exists=True
        ),
    ] = None,
    gamma: Annotated[float, typer.Option(min=0.0, help="Similarity may rise by so much.")] = 0.1,
    molecules: Molecules = None,
    count: Count = 1000,
    prior: PriorName = "model",
    steps: Annotated[int, typer.Option(min=1)] = 9,
    step_size: StepSize = 0.1,
    norm: NormName = "unit",
    radius: Radius = None,
    trajectories: Annotated[bool, typer.Option(help="Keep every step, to be drawn.")] = False,
    seed: Seed = 0,
    labels: Labels = 5000,
    batch: Batch = 256,
    workers: WorkersOption = None,
    device: Device = "cpu",
) -> None:
    """Ask whether a property changes steadily along paths: strict and relaxed success."""
    chosen_workers = workers or cores()
    oracle = named(property_)
    if (epsilon is None) == (reference is None):
        raise ValueError("say one of --epsilon and --reference")
    if reference is not None:
        with Scorer([oracle], chosen_workers) as scorer:
            epsilon = tolerance(scorer(list(read_smiles(reference))).values[:, 0])
    with processes(device) as speaks:
        setting = _load(
            model, surrogate or (), [oracle], [property_], device, name=navigator, flow=flow,
            step_size=step_size, norm=norm, radius=radius, labels=labels, prior=prior,
            workers=chosen_workers,
        )  # fmt: skip
        with bar("paths", "steps") as report:
            found = manipulate(
                setting.model, setting.navigator(oracle, seed), oracle, epsilon=epsilon or 0.0,
                start=_starts(molecules, count), steps=steps, seed=seed, prior=prior, gamma=gamma,
                surrogate=setting.surrogates.get(oracle.name), batch=batch, workers=chosen_workers,
                folder=out, trajectories=trajectories, device=device, progress=report,
            )  # fmt: skip
        if speaks:
            write_text(out / "manipulation.json", found.to_text())
            console.print(found.table(), markup=False)
