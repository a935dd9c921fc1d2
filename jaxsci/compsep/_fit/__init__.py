"""Fits of spectra to a checked sky, and the component maps that follow from them."""
