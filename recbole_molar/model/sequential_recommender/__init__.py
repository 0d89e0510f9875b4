"""Sequential recommenders of ours: Molar, and baselines that RecBole lacks."""
