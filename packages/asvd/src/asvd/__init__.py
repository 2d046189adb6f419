"""Activation-aware SVD compression of language models (ASVD, arXiv:2312.05821)."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from asvd.allocate import Allocation, allocate
from asvd.blocks import causal_loss
from asvd.decompose import Spectrum, factors, rank_for_ratio, spectrum
from asvd.late import register_with_transformers
from asvd.layers import LowRankLinear, linear_layers, low_rank_layers, merge_to_dense
from asvd.perplexity import perplexity, windows
from asvd.pipeline import Point, compress, probe, sweep
from asvd.quantize import Quantized, quantize, quantize_factors
from asvd.report import CompressionReport, LayerReport, report
from asvd.roll_call import LostProcessError
from asvd.search import RankList
from asvd.spill import StaleRunError
from asvd.statistics import GradientMoments, InputMoments, NonFiniteActivationError, scaling

if TYPE_CHECKING:
    from asvd.checkpoint import load, load_gguf, load_official
    from asvd.kv_cache import LowRankCache

register_with_transformers()

__all__ = [
    "Allocation",
    "CompressionReport",
    "GradientMoments",
    "InputMoments",
    "LayerReport",
    "LostProcessError",
    "LowRankCache",
    "LowRankLinear",
    "NonFiniteActivationError",
    "Quantized",
    "Point",
    "RankList",
    "Spectrum",
    "StaleRunError",
    "allocate",
    "causal_loss",
    "compress",
    "factors",
    "linear_layers",
    "load",
    "load_gguf",
    "load_official",
    "low_rank_layers",
    "merge_to_dense",
    "perplexity",
    "probe",
    "quantize",
    "quantize_factors",
    "rank_for_ratio",
    "report",
    "scaling",
    "spectrum",
    "sweep",
    "windows",
]

# What needs transformers (the extra `hf`) is imported when it is first asked for.
_LATE = {
    "LowRankCache": "asvd.kv_cache",
    "load": "asvd.checkpoint",
    "load_gguf": "asvd.checkpoint",
    "load_official": "asvd.checkpoint",
}


def __getattr__(name: str) -> Any:
    if name in _LATE:
        return getattr(import_module(_LATE[name]), name)
    raise AttributeError(f"module 'asvd' has no attribute {name!r}")
