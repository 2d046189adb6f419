"""A small StyleGAN2 of handwritten digits, trained here, then fine-tuned with projectors.

The whole path of the paper in miniature: train from scratch, put projectors nearest to the
trained modulation weights into the up-convolutions, fine-tune with the discriminator that was
trained along, and compare with SeFa on the same generator trained for as many steps more.
"""

import copy
from collections.abc import Iterator

import torch
from eigenworks import Claim, Experiment, Picture, Row, Size, Trial
from eigenworks.data import DIGITS
from torch import Tensor
from torch.nn import functional

from householder_gan.directions import DirectionSet, directions, sefa
from householder_gan.features import PixelDistance
from householder_gan.finetune import FineTuner, Recipe, of_images
from householder_gan.frechet import frechet_of_features, sampled_images
from householder_gan.generators.discriminator import Discriminator
from householder_gan.generators.stylegan2 import StyleGAN2
from householder_gan.householderize import householderize
from householder_gan.path_length import pipl, ppl
from householder_gan.pictures import grid
from householder_gan.response import displacement

SIZE = 32
WIDTHS = {4: 48, 8: 48, 16: 32, 32: 16}
RANK = 10


def digits() -> Tensor:
    """The images at 32x32 in -1 (paper) .. 1 (ink)."""
    ink = torch.from_numpy(DIGITS.load().image).float()[:, None] / 8 - 1
    return functional.interpolate(ink, (SIZE, SIZE), mode="bilinear")


def small_pixels(images: Tensor) -> Tensor:
    """Feature vectors for the Fréchet distance: the images at 8x8."""
    return functional.avg_pool2d(images, SIZE // 8).flatten(1)


def measures(
    name: str, generator: StyleGAN2, found: DirectionSet, real: Tensor, trial: Trial
) -> Iterator[Row]:
    """Evenness for each layer, path lengths and the distance to the digits, all of pixels."""
    distance = PixelDistance()
    samples = trial.parameters["samples"]
    drawn = sampled_images(generator, 16, seed=trial.seed + 5).view(2, 8, 1, SIZE, SIZE)
    picture = Picture(f"{name}: images", grid(drawn))
    responses = displacement(generator, found, distance, samples=32, seed=trial.seed)
    for k, one in enumerate(responses):
        plots = () if k else (picture,)
        label = f"{name}, up-convolution to {8 * 2**k}"
        yield Row(
            label, "spread of ten directions (CV)", one.variation, better="lower", plots=plots
        )
    length = ppl(generator, distance, samples=samples, epsilon=1e-2, seed=trial.seed)
    yield Row(name, "PPL (squared pixels)", length.value, better="lower")
    along = pipl(
        generator, found, distance, samples=samples, slots="layer", per_sample=True, seed=trial.seed
    )
    yield Row(name, "PIPL (squared pixels)", along.value)
    fake = sampled_images(generator, len(real), seed=trial.seed + 6)
    value = frechet_of_features(small_pixels(fake), small_pixels(real))
    yield Row(name, "Fréchet distance (pixels at 8x8)", float(value), better="lower")


def run(trial: Trial) -> Iterator[Row]:
    """Rows for the generator as trained, with projectors before and after, and trained on."""
    options = trial.parameters
    torch.manual_seed(trial.seed)
    everything = digits()
    real = everything[: options["real"]]
    generator = StyleGAN2(SIZE, 32, 3, WIDTHS, image_channels=1)
    critic = Discriminator(SIZE, WIDTHS, image_channels=1)
    recipe = Recipe(
        batch=16, r1_weight=1.0, path_shrink=4, average_images=1000.0, flip=False, seed=trial.seed
    )
    base = FineTuner(generator, critic, recipe)
    data = of_images(everything, seed=trial.seed)
    total = options["steps"] + 2 * options["more"]
    for done in range(options["steps"]):
        base.step(data)
        trial.progress(done / total, "training")
    trained = base.average
    assert isinstance(trained, StyleGAN2)
    yield from measures("trained, SeFa", trained, sefa(trained, count=RANK), real, trial)
    for name in ("projector", "plain"):
        student, judge = copy.deepcopy(trained), copy.deepcopy(critic)
        student.requires_grad_()
        if name == "projector":
            report = householderize(student, rank=RANK)
            for k, layer in enumerate(report.layers):
                label = f"projector, up-convolution to {8 * 2**k}"
                yield Row(label, "energy kept", 100 * layer.energy, unit="%")
            found = directions(student)
            yield from measures("projector, nearest", student, found, real, trial)
        more = FineTuner(student, judge, recipe)
        for _ in range(options["more"]):
            more.step(data)
            trial.progress((options["steps"] + more.step_number) / total, f"fine-tuning, {name}")
        after = more.average
        assert isinstance(after, StyleGAN2)
        if name == "projector":
            found, label = directions(after), "projector, fine-tuned"
        else:
            found, label = sefa(after, count=RANK), "trained on, SeFa"
        yield from measures(label, after, found, real, trial)


experiment = Experiment(
    name="householder-gan/stylegan2",
    title="A small StyleGAN2 of digits with projectors",
    claim=Claim(
        "Fine-tuning for a small part of the training keeps the images and makes the directions "
        "of the projector even",
        source="Song et al., Householder Projector, ICCV 2023, abstract",
    ),
    run=run,
    quick=Size(
        seconds=30, seeds=(0,), parameters={"steps": 60, "more": 15, "samples": 64, "real": 256}
    ),
    full=Size(
        seconds=300,
        seeds=(0,),
        parameters={"steps": 1200, "more": 120, "samples": 512, "real": 1024},
    ),
    data=(DIGITS,),
    headline=(("projector, fine-tuned, up-convolution to 16", "spread of ten directions (CV)"),),
    notes="Our own generator of 32x32 images, 32 dimensions of style; the quick size stops long "
    "before the digits are any good and shows that the path runs. All distances are of pixels.",
)
