"""Names for what users of scipy hand to the doors of this room, where it may be one of many things.

scipy's calls take numbers, words, pairs, functions and objects for one and the same argument. The type of such an
argument is `object`, because its door looks at it, turns it into one thing or refuses it in words; its name says what
is looked for. `_options` and `_problem` do that for `curve_fit` and `least_squares`; what is behind them has types of
its own.
"""

from typing import TypeAlias

Numbers: TypeAlias = object
"""Real numbers of any origin: an array, a number, a list of them, a masked array, a Quantity without a unit."""

Bounds: TypeAlias = object
"""A pair (lower, upper), each a number, one for each parameter, or a tree like the start; an object with `lb` and `ub`;
or `{name: (lower, upper)}`."""

Method: TypeAlias = object
"""A word of scipy's for how to search, a solver, or `None`."""

Jacobian: TypeAlias = object
"""A function of the derivatives, a word of scipy's for how to take them, or `None` for exact ones."""

Loss: TypeAlias = object
"""A word of scipy's for a loss, or a loss Module."""

Ignored: TypeAlias = object
"""An option of scipy's that changes nothing here."""
