"""Batches of many independent items: a manifest in, workers of several kinds, one folder for each item, one report.

An item is a config with settings of its own, so that every science can be run in batches. `jaxsci batch` calls `batch`
and `follow`; nothing is imported before that, because workers import this package before they need jax.
"""
