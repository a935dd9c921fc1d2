"""The two open places of a timing model: delays beyond the companion's, and turns beyond a steady spin-down.

Most components have a place of their own in the chain from the observatory to the pulsar, since one needs what another
gives. Others only add something: they see where a TOA is on its way and return seconds or turns. `TimingModel` holds
any number of these in its fields `delays` and `phases`, in the order of `COMPONENTS`, so that a new one touches its own
file and that tuple.
"""

import abc
from typing import NamedTuple

from jaxtyping import Array, Bool, Float

from ...core import Module


class Passage(NamedTuple):
    """What is known of n TOAs on their way, each of shape (n,).

    - `time`: s from PEPOCH, at the observatory. `delay`: all delays so far, s.
    - `log_frequency`: ln(nu / 1 GHz) at the barycentre. `far`: True at infinite frequency.
    - `masks`: 1 where an FDJUMP applies, shape (n, k), in the order of the par file's names; `None` without.
    """

    time: Float[Array, " n"]
    delay: Float[Array, " n"]
    log_frequency: Float[Array, " n"]
    far: Bool[Array, " n"]
    masks: Float[Array, "n k"] | None


class Rotation(NamedTuple):
    """What is known of n TOAs at the pulsar: `time`, `arrival` (at the observatory), shape (n,), s from PEPOCH.

    `frequency`: F0, Hz.
    """

    time: Float[Array, " n"]
    arrival: Float[Array, " n"]
    frequency: Float[Array, ""]


class AbstractDelay(Module):
    """A component that delays pulses after they have left the companion's field."""

    @abc.abstractmethod
    def delay(self, way: Passage) -> Float[Array, " n"]:
        """The delay of each TOA, s."""


class AbstractPhase(Module):
    """A component that turns the pulsar beyond F0, F1, ..., by numbers of turns that float64 can hold."""

    @abc.abstractmethod
    def phase(self, at: Rotation) -> Float[Array, " n"]:
        """The turns of each TOA."""
