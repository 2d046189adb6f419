"""Householder projectors: disentangled low-rank orthogonal directions in generators."""

from householder_gan.batch_statistics import recalibrate
from householder_gan.browser import browse
from householder_gan.checkpoints import (
    export_reflectors,
    import_reflectors,
    load_generator,
    load_nvlabs,
    load_rosinality,
    nvlabs_to_rosinality,
    rosinality_to_nvlabs,
    save_generator,
)
from householder_gan.directions import (
    DirectionSet,
    LayerDirections,
    directions,
    ganspace,
    load_directions,
    sefa,
)
from householder_gan.features import Distance, EfficientNetLite0, Features, PixelDistance
from householder_gan.finetune import FineTuner, Recipe, finetune, of_generator, of_images
from householder_gan.frechet import Frechet, frechet
from householder_gan.generators.dcgan import DCGAN, load_dcgan
from householder_gan.generators.discriminator import Discriminator
from householder_gan.generators.protocol import (
    Adapter,
    Generator,
    adapt_nvlabs,
    adapt_rosinality,
    codes,
    mean_latent,
)
from householder_gan.generators.stylegan2 import StyleGAN2
from householder_gan.generators.stylegan3 import StyleGAN3
from householder_gan.householderize import (
    LayerReport,
    Report,
    fold,
    householderize,
    register_householder,
)
from householder_gan.path_length import PathLength, lerp, pipl, ppl, slerp, within_percentiles
from householder_gan.penalties import hessian_penalty, path_lengths, r1_penalty
from householder_gan.pictures import save_gif, save_grid
from householder_gan.projector import HouseholderProjector, PartialIsometry
from householder_gan.regularisers import EvenResponses, MomentMatching
from householder_gan.response import (
    Agreement,
    Response,
    displacement,
    identifiability,
    rank_directions,
)
from householder_gan.traverse import Projection, project, traverse

__all__ = [
    # projectors
    "HouseholderProjector", "PartialIsometry", "register_householder", "householderize", "fold",
    "recalibrate", "Report", "LayerReport",
    # directions
    "directions", "sefa", "ganspace", "DirectionSet", "LayerDirections", "load_directions",
    "rank_directions", "traverse", "project", "Projection",
    # measures
    "ppl", "pipl", "PathLength", "displacement", "Response", "identifiability", "Agreement",
    "frechet", "Frechet", "Distance", "Features", "PixelDistance", "EfficientNetLite0",
    "lerp", "slerp", "within_percentiles",
    # training
    "finetune", "FineTuner", "Recipe", "of_generator", "of_images",
    "MomentMatching", "EvenResponses", "hessian_penalty", "path_lengths", "r1_penalty",
    # pictures
    "browse", "save_gif", "save_grid",
    # generators and files
    "Generator", "Adapter", "adapt_nvlabs", "adapt_rosinality", "codes", "mean_latent",
    "DCGAN", "StyleGAN2", "StyleGAN3", "Discriminator", "load_dcgan", "load_generator",
    "save_generator", "load_rosinality", "load_nvlabs", "nvlabs_to_rosinality",
    "rosinality_to_nvlabs", "import_reflectors", "export_reflectors",
]  # fmt: skip
