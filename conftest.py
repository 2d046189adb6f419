"""One thread a test process: pytest-xdist already fills the cores."""

import os

for variable in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ[variable] = "1"

import torch  # noqa: E402  (the variables are read when torch is loaded)

torch.set_num_threads(1)
