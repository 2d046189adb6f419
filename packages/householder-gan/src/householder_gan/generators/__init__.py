"""Generators, their discriminator, and what is asked of a generator."""
