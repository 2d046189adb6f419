"""Implementations of the primitives: `torch` is the definition, the others are held to it."""
