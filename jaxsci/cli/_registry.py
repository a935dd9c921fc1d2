"""The names that a config may use, each with its class. Nothing else can be built from a config."""

import dataclasses
import importlib.util
import inspect
import sys
import traceback
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import optimistix as optx

from .. import curvefit
from ..core import (
    AbstractLikelihood,
    AbstractLoss,
    AbstractModel,
    Arctan,
    Cauchy,
    Dense,
    Diagonal,
    Huber,
    Linear,
    LowRank,
    Normal,
    Poisson,
    Product,
    SoftL1,
    Sum,
    White,
    suggest,
)
from ..curvefit import _nist as nist
from ..fitting import TRF, Adam, GaussNewton
from ._errors import CLASS_ERRORS, ConfigError


@dataclasses.dataclass(frozen=True)
class Kind:
    """Classes of one kind by name, and the base that a researcher's own class of that kind has."""

    noun: str
    base: tuple[type, ...]
    classes: Mapping[str, type]

    def find(self, name: str, where: str) -> type:
        """The class of that name; raises `ConfigError` with the nearest name."""
        if name not in self.classes:
            known = f" ({', '.join(self.classes)})" if len(self.classes) <= 12 else ""
            raise ConfigError(where, f"no {self.noun} is called {name!r}{suggest(name, self.classes) or known}")
        return self.classes[name]


Registry = dict[str, Kind]

REGISTRY: Registry = {
    "models": Kind(
        "model",
        (AbstractModel,),
        {
            "Sum": Sum,
            "Product": Product,
            "Constant": curvefit.Constant,
            "Line": curvefit.Line,
            "Polynomial": curvefit.Polynomial,
            "Gaussian": curvefit.Gaussian,
            "Gaussian2D": curvefit.Gaussian2D,
            "Lorentzian": curvefit.Lorentzian,
            "Voigt": curvefit.Voigt,
            "Moffat": curvefit.Moffat,
            "Lognormal": curvefit.Lognormal,
            "Exponential": curvefit.Exponential,
            "BiExponential": curvefit.BiExponential,
            "StretchedExponential": curvefit.StretchedExponential,
            "PowerLaw": curvefit.PowerLaw,
            "Logistic": curvefit.Logistic,
            "Gompertz": curvefit.Gompertz,
            "MichaelisMenten": curvefit.MichaelisMenten,
            "Hill": curvefit.Hill,
            "Sinusoid": curvefit.Sinusoid,
            "nist.BoxBOD": nist.Misra1a,
            "nist.Chwirut2": nist.Chwirut,
            "nist.DanWood": nist.DanWood,
            "nist.ENSO": nist.Enso,
            "nist.Eckerle4": nist.Eckerle,
            "nist.Gauss1": nist.TwoGaussians,
            "nist.Gauss2": nist.TwoGaussians,
            "nist.Hahn1": nist.Hahn,
            "nist.Lanczos1": nist.Lanczos,
            "nist.Lanczos3": nist.Lanczos,
            "nist.MGH10": nist.Meyer,
            "nist.MGH17": nist.Osborne,
            "nist.Misra1a": nist.Misra1a,
            "nist.Misra1b": nist.Misra1b,
            "nist.Misra1d": nist.Misra1d,
            "nist.Rat42": nist.Rat42,
            "nist.Rat43": nist.Rat43,
            "nist.Roszman1": nist.Roszman,
        },
    ),
    "solvers": Kind(
        "solver",
        (optx.AbstractLeastSquaresSolver, optx.AbstractMinimiser),
        {"TRF": TRF, "GaussNewton": GaussNewton, "Adam": Adam},
    ),
    "losses": Kind(
        "loss",
        (AbstractLoss,),
        {"Linear": Linear, "SoftL1": SoftL1, "Huber": Huber, "Cauchy": Cauchy, "Arctan": Arctan},
    ),
    "noises": Kind(
        "noise",
        (AbstractLikelihood,),
        {"White": White, "Diagonal": Diagonal, "Dense": Dense, "LowRank": LowRank, "Poisson": Poisson},
    ),
    "priors": Kind("prior", (Normal,), {"Normal": Normal}),
}


def imported(registry: Registry, path: Path) -> Registry:
    """The registry with the models, losses, solvers, noises and priors that a researcher's own file defines.

    The file is run, so this is only ever done for a path given on the command line.

    **Raises:** `ConfigError` when the file is missing, fails, defines nothing of use, or takes a known name.
    """
    module = _run_file(path)
    classes = [cls for cls in vars(module).values() if inspect.isclass(cls) and cls.__module__ == module.__name__]
    found = dict(registry)
    new: list[str] = []
    for key, kind in registry.items():
        own = {cls.__name__: cls for cls in classes if issubclass(cls, kind.base) and not inspect.isabstract(cls)}
        for name in own:
            if name in kind.classes:
                raise ConfigError(path.name, f"there is a {kind.noun} called {name!r} already; give yours another name")
        found[key] = dataclasses.replace(kind, classes={**kind.classes, **own})
        new += own
    if not new:
        raise ConfigError(
            path.name,
            "it defines no class that a config could name: subclass jaxsci.AbstractModel and give it a __call__ "
            "(or a loss, a noise, a solver, or a jaxsci.Normal prior)",
        )
    return found


def _run_file(path: Path) -> Any:
    name = f"jaxsci_imported_{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path)
    if not path.is_file() or path.suffix != ".py" or spec is None or spec.loader is None:
        raise ConfigError(f"--import {path}", "there is no such Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses look their module up there
    try:
        spec.loader.exec_module(module)
    except (SyntaxError, ImportError, OSError, *CLASS_ERRORS) as error:
        lines = [
            frame.lineno
            for frame in traceback.extract_tb(error.__traceback__)
            if Path(frame.filename).name == path.name
        ]
        line = f", line {lines[-1]}" if lines else ""
        raise ConfigError(f"--import {path}{line}", f"{type(error).__name__}: {error}") from error
    return module


def describe(cls: type) -> tuple[str, str]:
    """(arguments, first sentence of the docstring) of a registered class, for `jaxsci list`."""
    arguments = []
    for name, parameter in inspect.signature(cls).parameters.items():
        if parameter.kind is parameter.VAR_KEYWORD:
            arguments.append("name = model, ...")
        elif name != "norm":  # a function, which no config can write
            default = parameter.default
            arguments.append(name if default is parameter.empty else f"{name} = {default}")
    text = " ".join((inspect.getdoc(cls) or "").split("\n\n")[0].split())
    return ", ".join(arguments), text
