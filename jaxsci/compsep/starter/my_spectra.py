"""Your own spectra. `jaxsci run ... --import my_spectra.py` gives each class its name in the config."""

import equinox as eqx

import jaxsci as js
from jaxsci import compsep


class Ageing(compsep.AbstractSED):
    """Synchrotron of electrons that lose energy: a power law that steepens above a frequency."""

    beta: js.Scalar = js.param(default=-3.0, bounds=(-5, -1), doc="spectral index of brightness temperature")
    steepening: js.Scalar = js.param(default=0.0, bounds=(-2, 2), doc="change of the index above nu_break")
    nu0: float = eqx.field(static=True, default=30.0)
    nu_break: float = eqx.field(static=True, default=60.0)

    def __call__(self, nu):
        """Values at nu (GHz), relative to the one at nu0, in the unit of the maps: K_CMB."""
        return self.brightness(nu) / self.brightness(self.nu0)

    def brightness(self, nu):
        power = (nu / self.nu_break) ** self.beta * (1 + (nu / self.nu_break) ** 2) ** (-self.steepening / 2)
        return power * compsep.conversion(nu, "K_RJ", "K_CMB")
