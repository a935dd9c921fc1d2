"""The solvers, one a file: what `fit` runs on an `Objective`.

`TRF` and `GaussNewton` share their loop, `Adam` is a minimiser with an end, and `_foreign` runs those of optimistix.
They follow optimistix's interface, so that each of them also serves `optimistix.least_squares` or `minimise`.
"""
