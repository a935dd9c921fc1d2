"""Fits: of one data set, of many at once, of data too long for memory, of several with parameters in common.

A user meets `fit`, `fit_batch`, the solvers and the solutions, which stand in `jaxsci` itself. A domain of science also
finds here what it needs to bring a likelihood of its own to the same end as any other fit: `Problem` and `Choices`
(what is to be fitted, and how), `make_plan` (which parameters are free, under which names), `search`, `uncertainty` and
`ending_of` (the solver's loop, what the curvature at its answer says, and what the answer may call itself), `compiled` (programs that are kept), `remarks` and `verdict_of` (what
deserves a look). Its files are its own affair. The engine for many small fits is `fitting.small_fits`.
"""

from ._adjoint import KKTAdjoint as KKTAdjoint
from ._batch import BatchSolution as BatchSolution, fit_batch as fit_batch
from ._checks import check_same_rows as check_same_rows, check_search as check_search
from ._diagnose import explain as explain, explain_result as explain_result, judge as judge, report as report
from ._ending import at_bound as at_bound, ending_of as ending_of, recalled as recalled
from ._fit import (
    Ready as Ready,
    check as check,
    fit as fit,
    fit_once as fit_once,
    make_ready as make_ready,
    search as search,
    unused as unused,
)
from ._foresee import foresee as foresee, foresee_one as foresee_one
from ._fresh import Found as Found, Traced as Traced, freshly as freshly
from ._lean import Flags as Flags, lean_first as lean_first
from ._objective import Objective as Objective, jacobian_t as jacobian_t
from ._plan import (
    Plan as Plan,
    Priors as Priors,
    as_names as as_names,
    flat_bounds as flat_bounds,
    flat_priors as flat_priors,
    make_plan as make_plan,
    terms_of as terms_of,
)
from ._problem import Choices as Choices, Problem as Problem, Solver as Solver
from ._program import compiled as compiled, compiler_options as compiler_options, seeing as seeing, state_of as state_of
from ._rounds import (
    each_lane as each_lane,
    in_chunks as in_chunks,
    lane_count as lane_count,
    progress_bar as progress_bar,
)
from ._seen import roots_of as roots_of
from ._shared import SharedSolution as SharedSolution
from ._solution import RESULTS as RESULTS, Solution as Solution
from ._solver._trust_region import AbstractTrustSolver as AbstractTrustSolver
from ._solver.adam import Adam as Adam
from ._solver.gauss_newton import GaussNewton as GaussNewton
from ._solver.trf import TRF as TRF
from ._starts import best_start as best_start, fill_box as fill_box, sobol as sobol
from ._summary import DataFrame as DataFrame, format_pm as format_pm, frame as frame
from ._terms import (
    ROBUST_CHI2 as ROBUST_CHI2,
    Fitted as Fitted,
    ShapedPrior as ShapedPrior,
    Terms as Terms,
    loss_text as loss_text,
    prior_texts as prior_texts,
)
from ._uncertainty import Rows as Rows, scaled_by_scatter as scaled_by_scatter, uncertainty as uncertainty
from ._verdict import (
    CONVERGED as CONVERGED,
    FAILED as FAILED,
    LOOK as LOOK,
    Facts as Facts,
    facts_of as facts_of,
    remarks as remarks,
    verdict_of as verdict_of,
)
