"""Benchmarks: raw corpora and evaluation sets in one shape."""
