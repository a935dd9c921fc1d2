"""From a config to a report: checked jobs, outcomes, an output folder, an exit code. Knows no science.

A science brings an `AbstractTask`, found by its entry point in the group `jaxsci.sciences`, and outcomes. Reading the
config, the registry of names, running, and everything that is written are here; what is on the screen is `jaxsci.cli`.
Names are imported at their first use, because commands need `bad_input` before they need jax.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
