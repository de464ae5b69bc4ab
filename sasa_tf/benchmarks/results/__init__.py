"""Results of the benchmarks: files, tables, comparisons and plots."""
