"""Fits of spectra to a checked sky, and the component maps that follow from them.

`fit.fit_sky` decides what is fitted together; `pixels`, `nested` and `fit` do it in three ways, on the data set of
`dataset`, whose algebra is in `normal_equations`. All end in the `Fits` of `fits`, from which `amplitudes` makes maps.
`separate` and the blocks from disk are the callers.
"""
