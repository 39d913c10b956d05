"""Real parts that the tests, the demo and the benchmarks start for themselves."""
