"""Fit, sample and evolve models over thousands of data sets, in JAX."""

from .core import (
    AbstractLikelihood as AbstractLikelihood,
    AbstractLoss as AbstractLoss,
    AbstractModel as AbstractModel,
    AbstractNoise as AbstractNoise,
    AbstractPrior as AbstractPrior,
    AbstractRowLikelihood as AbstractRowLikelihood,
    Arctan as Arctan,
    Beta as Beta,
    Cauchy as Cauchy,
    Dense as Dense,
    Diagonal as Diagonal,
    HalfNormal as HalfNormal,
    Huber as Huber,
    Linear as Linear,
    Linearisation as Linearisation,
    LogNormal as LogNormal,
    LowRank as LowRank,
    Module as Module,
    Normal as Normal,
    Parameter as Parameter,
    Poisson as Poisson,
    Product as Product,
    Robust as Robust,
    Scalar as Scalar,
    SoftL1 as SoftL1,
    Sum as Sum,
    Transform as Transform,
    TruncatedNormal as TruncatedNormal,
    Uniform as Uniform,
    Unit as Unit,
    White as White,
    enable_x64 as enable_x64,
    get as get,
    param as param,
    parameters as parameters,
    put as put,
    rows as rows,
)
from .datasets import (
    AbstractDataset as AbstractDataset,
    Dataset as Dataset,
    RaggedDataset as RaggedDataset,
    StreamedDataset as StreamedDataset,
    bucket as bucket,
    pad as pad,
    stack as stack,
)
from .fitting import (
    RESULTS as RESULTS,
    TRF as TRF,
    Adam as Adam,
    BatchSolution as BatchSolution,
    GaussNewton as GaussNewton,
    KKTAdjoint as KKTAdjoint,
    Solution as Solution,
    compiler_options as compiler_options,
    fit as fit,
    fit_batch as fit_batch,
)
from .parallel import (
    mesh as mesh,
    start_hosts as start_hosts,
)
from .sampling import (
    BatchPosterior as BatchPosterior,
    Criteria as Criteria,
    Posterior as Posterior,
    sample as sample,
)

__version__: str
