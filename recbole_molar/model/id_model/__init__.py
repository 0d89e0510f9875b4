"""The ID-based side of post-alignment."""
