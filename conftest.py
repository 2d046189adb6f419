"""One thread a test process, as pytest-xdist already fills the cores, and Triton without a GPU."""

import os

for variable in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ[variable] = "1"

import torch  # noqa: E402  (the variables are read when torch is loaded)

torch.set_num_threads(1)

# Read when Triton is first imported: where there is no GPU it runs kernels in Python.
if not torch.cuda.is_available():
    os.environ.setdefault("TRITON_INTERPRET", "1")
