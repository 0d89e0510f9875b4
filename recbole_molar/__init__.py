"""Molar, a multimodal-LLM sequential recommender, as a plugin for RecBole."""
