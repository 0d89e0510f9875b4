"""Several models under one protocol: runs, tests of their differences, segments, cost, tables."""
