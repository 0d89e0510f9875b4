"""The model's parts. Shape letters used everywhere: B users (rows of a batch), L history, N items, T tokens, D embedding dimension."""
