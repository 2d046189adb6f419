"""Activation-aware SVD compression of language models (ASVD, arXiv:2312.05821)."""

from importlib.util import find_spec

from asvd.allocate import Allocation, allocate
from asvd.blocks import causal_loss
from asvd.decompose import Spectrum, factors, rank_for_ratio, spectrum
from asvd.layers import LowRankLinear, linear_layers, low_rank_layers, merge_to_dense
from asvd.perplexity import perplexity, windows
from asvd.pipeline import compress
from asvd.quantize import Quantized, quantize, quantize_factors
from asvd.report import CompressionReport, LayerReport, report
from asvd.search import RankList
from asvd.spill import StaleRunError
from asvd.statistics import GradientMoments, InputMoments, NonFiniteActivationError, scaling

if find_spec("transformers") is not None:
    # transformers finds a checkpoint's quantizer only when it was registered before.
    from asvd import hf as hf
    from asvd.checkpoint import load, load_gguf, load_official
    from asvd.kv_cache import LowRankCache

    __all__ = ["LowRankCache", "load", "load_gguf", "load_official"]
else:
    __all__ = []

__all__ += [
    "Allocation",
    "CompressionReport",
    "GradientMoments",
    "InputMoments",
    "LayerReport",
    "LowRankLinear",
    "NonFiniteActivationError",
    "Quantized",
    "RankList",
    "Spectrum",
    "StaleRunError",
    "allocate",
    "causal_loss",
    "compress",
    "factors",
    "linear_layers",
    "low_rank_layers",
    "merge_to_dense",
    "perplexity",
    "quantize",
    "quantize_factors",
    "rank_for_ratio",
    "report",
    "scaling",
    "spectrum",
    "windows",
]
