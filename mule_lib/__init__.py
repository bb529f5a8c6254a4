"""Reproduction library of MULE (arXiv 2604.15482); the notebooks call it and hold no logic of their own."""
