"""The NIST StRD problems of nonlinear regression: files with certified answers, a reader of them, and their models."""

from ._files import NIST as NIST, NistProblem as NistProblem, parse_nist as parse_nist
from ._models import MODELS as MODELS
