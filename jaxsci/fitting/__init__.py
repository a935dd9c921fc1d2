"""How a fit is made."""

from ._adjoint import KKTAdjoint as KKTAdjoint
from ._batch import BatchSolution as BatchSolution, fit_batch as fit_batch
from ._fit import fit as fit
from ._objective import Objective as Objective
from ._problem import Choices as Choices, Problem as Problem
from ._ragged import RaggedDataset as RaggedDataset
from ._shared import SharedSolution as SharedSolution
from ._solution import RESULTS as RESULTS, Solution as Solution
from ._solver.adam import Adam as Adam
from ._solver.gauss_newton import GaussNewton as GaussNewton
from ._solver.trf import TRF as TRF
from ._stream import StreamedDataset as StreamedDataset
from ._terms import Fitted as Fitted, Terms as Terms
