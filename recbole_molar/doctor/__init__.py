"""The doctor: what a run would meet in the data and on this machine, before any time is spent."""
