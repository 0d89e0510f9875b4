"""Trainers: one for fine-tuning MIRM (stage 1), one for every sequential model (stage 2 and the baselines)."""
