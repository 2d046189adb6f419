"""Kernels for GPUs, one matrix a program: imported only where a tensor lies on one."""
