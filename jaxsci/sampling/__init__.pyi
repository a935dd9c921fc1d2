from . import plot as plot
from ._batch import BatchPosterior as BatchPosterior
from ._check import Checked as Checked, Criteria as Criteria, Failure as Failure
from ._diagnostics import (
    bfmi as bfmi,
    ess_bulk as ess_bulk,
    ess_mean as ess_mean,
    ess_tail as ess_tail,
    hdi as hdi,
    r_hat as r_hat,
)
from ._evidence import Evidence as Evidence
from ._leave_one_out import Difference as Difference, LeaveOneOut as LeaveOneOut
from ._posterior import Posterior as Posterior
from ._sample import FitAndData as FitAndData, fit_of as fit_of, sample as sample
