"""From a config to a report: checked jobs, outcomes, an output folder, an exit code. Knows no science."""

from . import fits as fits
from ._bad_input import BAD_INPUT as BAD_INPUT, CANNOT_WRITE as CANNOT_WRITE, bad_input as bad_input
from ._batch.batch import SPMD as SPMD, Shared as Shared, batch as batch
from ._batch.cluster import EXECUTORS as EXECUTORS, Workers as Workers
from ._batch.together import follow as follow
from ._bundled import bundled_configs as bundled_configs, bundled_files as bundled_files
from ._config import (
    BUNDLED as BUNDLED,
    Config as Config,
    bundled as bundled,
    check_keys as check_keys,
    flatten as flatten,
    read_config as read_config,
    shown as shown,
    take as take,
)
from ._construct import construct as construct
from ._entry_points import commands as commands, sciences as sciences
from ._errors import CLASS_ERRORS as CLASS_ERRORS, ConfigError as ConfigError, first_line as first_line
from ._figures import can_draw as can_draw
from ._files import write_whole as write_whole
from ._interactive import MOST_CELLS as MOST_CELLS
from ._interrupt import STOPPED as STOPPED
from ._records import (
    BAD as BAD,
    GOOD as GOOD,
    LOOK as LOOK,
    OFF as OFF,
    as_json as as_json,
    label as label,
    looked_at as looked_at,
    plural as plural,
    present as present,
    state as state,
)
from ._registry import (
    Kind as Kind,
    Registry as Registry,
    describe as describe,
    extended as extended,
)
from ._report import NO_FIGURES as NO_FIGURES
from ._run import (
    FAILED as FAILED,
    FINE as FINE,
    Loaded as Loaded,
    Ran as Ran,
    Unwatched as Unwatched,
    Watch as Watch,
    exit_code as exit_code,
    load as load,
    run as run,
)
from ._sciences import task_named as task_named
from ._session import prepare as prepare, versions as versions
from ._task import (
    NOT_RUN as NOT_RUN,
    REFUSED as REFUSED,
    SUCCESSFUL as SUCCESSFUL,
    AbstractOutcome as AbstractOutcome,
    AbstractTask as AbstractTask,
    Column as Column,
    Image as Image,
    Job as Job,
    Member as Member,
    Record as Record,
    Refusal as Refusal,
    Report as Report,
    Savable as Savable,
    Scatter as Scatter,
    Series as Series,
    Tile as Tile,
    Untried as Untried,
    Words as Words,
)
