"""Curve fitting through the doors that users of scipy know, and a library of models."""

from ._curve_fit import curve_fit as curve_fit
