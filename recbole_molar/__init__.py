"""Molar, a multimodal-LLM sequential recommender, as a plugin for RecBole."""

import os

# OpenMP reads this when PyTorch loads it. By default its threads wait for each other by spinning long: beside other work a run then takes two to five
# times as long, alone up to a tenth less (docs/speed.md). The user's own setting stands.
if "OMP_WAIT_POLICY" not in os.environ:
    os.environ.setdefault("GOMP_SPINCOUNT", "1000")
