"""Models, parameters, data sets, noises, likelihoods: what a fit is about, before anything is fitted.

Every other room is built on the names below, and takes them from here: the files of this room are its own affair. Most
are a user's too and stand in `jaxsci` itself; the rest is what a domain of science needs to be written: how parameters
are named, freed and read, how what a user gave is checked, how data are cut into rows. Small linear algebra in plain
XLA is in `core.linalg`, and factorisations of structured matrices in `core.arrow` and `core.nested`.
"""

from ._errors import enable_x64 as enable_x64, place_of as place_of, require_x64 as require_x64, suggest as suggest
from ._expression import names_in as names_in, parse as parse, value_of as value_of
from ._given import (
    Plain as Plain,
    as_array as as_array,
    as_count as as_count,
    as_real as as_real,
    filled as filled,
    is_complex as is_complex,
    is_key as is_key,
    is_number as is_number,
    is_real_number as is_real_number,
    plain as plain,
    require_key as require_key,
    require_positive as require_positive,
    rows_hidden as rows_hidden,
    unit_of as unit_of,
    unmasked as unmasked,
)
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
from ._model import AbstractModel as AbstractModel, Product as Product, Sum as Sum, snake as snake
from ._module import Module as Module, describe as describe, require_kind as require_kind
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
    as_bounds as as_bounds,
    as_float as as_float,
    element_names as element_names,
    free_spec as free_spec,
    get as get,
    labelled as labelled,
    leaf_names as leaf_names,
    leaf_places as leaf_places,
    leaf_values as leaf_values,
    match as match,
    numbers as numbers,
    param as param,
    parameters as parameters,
    params as params,
    put as put,
    transparent as transparent,
)
from ._prior import (
    AbstractPrior as AbstractPrior,
    Beta as Beta,
    HalfNormal as HalfNormal,
    LogNormal as LogNormal,
    Normal as Normal,
    TruncatedNormal as TruncatedNormal,
    Uniform as Uniform,
)
from ._rows import (
    Pad as Pad,
    as_rows as as_rows,
    is_list as is_list,
    row_pads as row_pads,
    rows as rows,
    split_rows as split_rows,
)
from ._shown import (
    notebook_table as notebook_table,
    notebook_text as notebook_text,
    readable as readable,
    value_text as value_text,
)
from ._static import Static as Static, closed as closed, opened as opened
from ._tied import Tied as Tied, class_name as class_name, formulas as formulas, resolved as resolved
from ._traced import is_traced as is_traced, traced as traced, untraceable as untraceable
from ._transform import Transform as Transform
from ._typing import (
    AnyArray as AnyArray,
    Flag as Flag,
    Given as Given,
    Inputs as Inputs,
    Model as Model,
    Scalar as Scalar,
    Tree as Tree,
)
