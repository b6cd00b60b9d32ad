"""Benchmarks: our real code against a limit or against what one would use instead, in one run, arms taking turns.

No figure here is an assertion about absolute time: the machine is shared. Ratios and CPU are compared; see docs/benchmarks.md.
"""
