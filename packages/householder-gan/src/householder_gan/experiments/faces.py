"""A trained generator of 64x64 faces: SeFa's directions beside the projector's, r = 10 to 100.

Quick: the projector nearest to the trained first layer, with the batch statistics as they were
and measured anew. Full: also after fine-tuning on the generator's own images, with a
discriminator on EfficientNet features (blocks 2, 4, 6; the Fréchet distance is of block 8), the
moments of those features matched and the directions' responses in them made even.
"""

import copy
from collections.abc import Iterator
from dataclasses import replace

import torch
from eigenworks import Bars, Claim, Experiment, Figure, Picture, Row, Size, Trial
from eigenworks.data import EFFICIENTNET_LITE0, FACES
from torch import Tensor
from torch.nn.functional import avg_pool2d

from householder_gan.batch_statistics import recalibrate
from householder_gan.directions import DirectionSet, directions, sefa
from householder_gan.features import EfficientNetLite0
from householder_gan.finetune import Recipe, finetune, of_images
from householder_gan.frechet import frechet_of_features, sampled_features, sampled_images
from householder_gan.generators.dcgan import DCGAN, load_dcgan
from householder_gan.generators.discriminator import ProjectedDiscriminator
from householder_gan.generators.protocol import codes, draw
from householder_gan.householderize import householderize
from householder_gan.path_length import pipl, ppl
from householder_gan.pictures import grid
from householder_gan.regularisers import EvenResponses, MomentMatching
from householder_gan.response import displacement, identifiability
from householder_gan.traverse import traverse

COUNT = 10
"""Directions compared, the paper's number."""


def first(found: DirectionSet) -> DirectionSet:
    """The first ten directions of each layer."""
    return DirectionSet(
        tuple(replace(d, vectors=d.vectors[:COUNT], sigma=d.sigma[:COUNT]) for d in found)
    )


def strips(generator: DCGAN, found: DirectionSet, seed: int) -> Tensor:
    """Pixels of three directions (rows) at five steps from -4 to 4, of one code, at 32x32."""
    ws = codes(generator, draw(generator, 1, torch.Generator().manual_seed(seed + 7)))
    steps = torch.linspace(-4, 4, 5)
    one = found.layers[0]
    rows = [avg_pool2d(traverse(generator, ws, one, j, steps)[0], 2) for j in range(3)]
    return grid(torch.stack(rows), gap=1)


def measures(
    name: str, generator: DCGAN, found: DirectionSet, net: EfficientNetLite0, real: Tensor,
    trial: Trial,
) -> Iterator[Row]:  # fmt: skip
    """Evenness and size of the directions' effect, path lengths, distance to the original."""
    ten = first(found)
    responses = displacement(
        generator, ten, net, samples=trial.parameters["codes"], seed=trial.seed
    )
    effect = responses[0]
    drawn = Picture(
        f"{name}: three directions, steps of -4 to 4", strips(generator, ten, trial.seed)
    )
    bars = Bars(
        f"{name}: displacement along each direction",
        "mean distance",
        [str(j) for j in range(len(effect.values))],
        (name,),
        [effect.values.tolist()],
    )
    yield Row(
        name, "spread of ten directions (CV)", effect.variation, better="lower", plots=(drawn, bars)
    )
    yield Row(name, "spread of ten directions (max/min)", effect.spread, better="lower")
    yield Row(name, "displacement by a unit step", float(effect.values.mean()))
    count = trial.parameters["pairs"]
    length = ppl(generator, net, samples=count, epsilon=1e-2, seed=trial.seed)
    yield Row(name, "PPL", length.value, better="lower")
    along = pipl(generator, ten, net, samples=count, per_sample=True, seed=trial.seed)
    yield Row(name, "PIPL", along.value)
    fake = sampled_features(generator, net, trial.parameters["images"], seed=1000 * trial.seed + 2)
    yield Row(name, "Fréchet distance", float(frechet_of_features(fake, real)), better="lower")


def tuned(generator: DCGAN, images: Tensor, net_state: dict[str, Tensor], trial: Trial) -> DCGAN:
    """The moving average after fine-tuning on images, statistics measured anew."""
    options = trial.parameters
    features = EfficientNetLite0(net_state, 64, (2, 4, 6))
    critic = ProjectedDiscriminator(features.maps, (24, 40, 80))
    first, steps = 50, 50 + options["steps"]
    recipe = Recipe(
        batch=32,
        rate=options["rate"],
        frame_rate=options["rate"],
        critic_rate=2.5 * options["rate"],
        critic_first=first,
        r1_every=0,
        path_every=0,
        average_images=3000.0,
        flip=False,
        falls_from=first + 3 * options["steps"] // 10,
        falls_to=steps,
        seed=trial.seed,
    )
    average = finetune(
        generator,
        critic,
        of_images(images, seed=trial.seed),
        steps,
        recipe,
        regularisers=(
            MomentMatching(features.maps, images),
            EvenResponses(features, weight=options["evenness"]),
        ),
        watch=lambda done, _losses: trial.progress(done / steps, "fine-tuning"),
    )
    assert isinstance(average, DCGAN)
    recalibrate(average, 1024, seed=trial.seed + 3)
    return average


def run(trial: Trial) -> Iterator[Row]:
    """Rows for the original, and for each rank the projector, recalibrated, fine-tuned."""
    state = EFFICIENTNET_LITE0.load()
    net = EfficientNetLite0(state)
    original = load_dcgan(FACES.load()).eval()
    images = trial.parameters["images"]
    real = sampled_features(original, net, images, seed=1000 * trial.seed + 1)
    teacher: Tensor | None = None
    by_sefa = sefa(original, count=COUNT)
    yield from measures("original, SeFa", original, by_sefa, net, real, trial)
    for done, rank in enumerate(trial.parameters["ranks"]):
        trial.progress(done / len(trial.parameters["ranks"]), f"rank {rank}")
        generator = copy.deepcopy(original)
        report = householderize(generator, rank=rank)
        yield Row(f"r = {rank}", "energy kept", 100 * report.layers[0].energy, unit="%")
        found = directions(generator)
        yield from measures(f"r = {rank}, nearest", generator, found, net, real, trial)
        if rank == COUNT:
            # Their span is SeFa's; singular vectors of the projector's weight are any basis of it.
            by_svd = sefa(generator, count=COUNT)
            generator.double()
            pairs = {
                "projector": (found, directions(generator)),
                "SVD": (by_svd, sefa(generator, count=COUNT)),
            }
            generator.float()
            for what, pair in pairs.items():
                one = identifiability(*pair)[0]
                label = f"r = {rank}, read out twice by {what}"
                yield Row(label, "mean |cos| of direction j with itself", one.matched)
                yield Row(label, "overlap of the spans", one.subspace)
        recalibrate(generator, 1024, seed=trial.seed + 3)
        yield from measures(f"r = {rank}, statistics anew", generator, found, net, real, trial)
        if rank in trial.parameters["tuned"]:
            if teacher is None:
                count = trial.parameters["teacher_images"]
                teacher = sampled_images(original, count, seed=trial.seed + 77)
            student = tuned(generator, teacher, state, trial)
            after = directions(student)
            yield from measures(f"r = {rank}, fine-tuned", student, after, net, real, trial)


_KNOWN = {
    "original, SeFa": (0.54, 42.9, 13.1),
    "r = 100, nearest": (0.36, 27.9, 55.3),
    "r = 50, nearest": (0.30, 31.3, 27.4),
    "r = 10, nearest": (0.18, 37.2, 108.2),
}
_METRICS = ("spread of ten directions (CV)", "PPL", "Fréchet distance")
_SOURCE = "prototype of this workspace, other samples of the same generator"

experiment = Experiment(
    name="householder-gan/faces",
    title="Directions of a generator of faces",
    claim=Claim(
        "Directions of a low-rank orthogonal projector change the image evenly, where those of "
        "SeFa are dominated by a few; fine-tuning restores the images",
        source="Song et al., Householder Projector, ICCV 2023, abstract",
    ),
    run=run,
    quick=Size(
        seconds=100,
        seeds=(0,),
        parameters={
            "ranks": (10, 20, 50, 100), "tuned": (), "codes": 24, "pairs": 64, "images": 384,
        },
    ),
    full=Size(
        seconds=1500,
        seeds=(0,),
        parameters={
            "ranks": (10, 20, 50, 100), "tuned": (10, 20, 50, 100), "codes": 24, "pairs": 96,
            "images": 384, "steps": 330, "rate": 2e-4, "teacher_images": 8192, "evenness": 8.0,
        },
    ),
    data=(FACES, EFFICIENTNET_LITE0),
    figures=tuple(
        Figure(name, metric, value, _SOURCE)
        for name, values in _KNOWN.items()
        for metric, value in zip(_METRICS, values, strict=True)
    ),
    headline=(("r = 10, nearest", _METRICS[0]),),
    notes="Distances are of EfficientNet-Lite0 features (blocks 2, 4, 8 at 96 px; Fréchet: channel "
    "means of block 8, 384 images a side) and compare with no published PPL, PIPL or FID. The "
    "original against itself with another seed is the noise floor of the Fréchet distance. "
    "'Statistics anew' measures the running means and variances of batch normalisation under the "
    "projector, which trains no weight. Fine-tuning is against a discriminator on blocks 2, 4 and "
    "6 of the same network at 64 px, matches the moments of their channel means and evens out "
    "responses in them, which may flatter distances in its block 8 and the spread. PIPL grows "
    "with the scale of the projector: read it with the displacement.",
)  # fmt: skip
