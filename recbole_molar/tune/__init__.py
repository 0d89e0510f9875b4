"""`tune`: search for better properties, by validation alone."""
