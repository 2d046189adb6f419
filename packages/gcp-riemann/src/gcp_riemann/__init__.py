"""Global covariance pooling and its Riemannian classifiers in PyTorch."""

from gcp_riemann.heads import LEMMLR, PEMMLR, ChoTMLR, LogEMLR, PowEMLR, PowTMLR, ScalePowEMLR
from gcp_riemann.log_cholesky import LogCholesky, log_cholesky
from gcp_riemann.network import GCPNetwork, gcp_head
from gcp_riemann.newton_schulz import newton_schulz_root, root_residual
from gcp_riemann.normalise import MatrixLog, MatrixPower, matrix_log, matrix_power
from gcp_riemann.pooling import CovariancePooling, covariance_pooling
from gcp_riemann.vectorise import unvectorise, vectorise

__all__ = [
    # pooling and normalisation
    "CovariancePooling", "covariance_pooling", "MatrixPower", "matrix_power", "MatrixLog",
    "matrix_log", "LogCholesky", "log_cholesky", "newton_schulz_root", "root_residual",
    "vectorise", "unvectorise",
    # heads
    "LogEMLR", "PowEMLR", "ScalePowEMLR", "PowTMLR", "ChoTMLR", "PEMMLR", "LEMMLR",
    # networks
    "GCPNetwork", "gcp_head",
]  # fmt: skip
