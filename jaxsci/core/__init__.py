"""What a model, a parameter, a data set and a noise are."""

from ._dataset import (
    AbstractDataset as AbstractDataset,
    Dataset as Dataset,
    bucket as bucket,
    pad as pad,
    stack as stack,
)
from ._errors import enable_x64 as enable_x64, require_x64 as require_x64, suggest as suggest
from ._given import Plain as Plain, plain as plain, rows_hidden as rows_hidden, unmasked as unmasked
from ._likelihood import (
    AbstractLikelihood as AbstractLikelihood,
    AbstractRowLikelihood as AbstractRowLikelihood,
    Linearisation as Linearisation,
    Poisson as Poisson,
    Robust as Robust,
)
from ._loss import (
    AbstractLoss as AbstractLoss,
    Arctan as Arctan,
    Cauchy as Cauchy,
    Huber as Huber,
    Linear as Linear,
    SoftL1 as SoftL1,
)
from ._model import AbstractModel as AbstractModel, Product as Product, Sum as Sum
from ._module import Module as Module, describe as describe
from ._noise import (
    AbstractNoise as AbstractNoise,
    AbstractPrepared as AbstractPrepared,
    Dense as Dense,
    Diagonal as Diagonal,
    LowRank as LowRank,
    Unit as Unit,
    White as White,
)
from ._parameter import (
    Parameter as Parameter,
    get as get,
    param as param,
    parameters as parameters,
    put as put,
)
from ._prior import Normal as Normal
from ._rows import rows as rows
from ._transform import Transform as Transform
from ._typing import Scalar as Scalar
