"""How a fit is made."""

from ._adjoint import KKTAdjoint as KKTAdjoint
from ._fit import fit as fit
from ._objective import Objective as Objective
from ._solution import RESULTS as RESULTS, Fitted as Fitted, Solution as Solution
from ._solver.adam import Adam as Adam
from ._solver.gauss_newton import GaussNewton as GaussNewton
from ._solver.trf import TRF as TRF
