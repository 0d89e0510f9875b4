"""Molar, a multimodal-LLM sequential recommender, as a plugin for RecBole."""

import os

# OpenMP reads this when PyTorch loads it. By default its threads wait for each other by spinning, for seconds: beside other work that takes twice the
# time, at a quiet machine it saves nothing that we could measure (tests/benchmarks/waiting.py). The user's own setting stands.
if "OMP_WAIT_POLICY" not in os.environ:
    os.environ.setdefault("GOMP_SPINCOUNT", "1000")
