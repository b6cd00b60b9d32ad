"""What the benchmarks stand on: turns and targets, meters, processes and databases. No benchmark is in here."""
