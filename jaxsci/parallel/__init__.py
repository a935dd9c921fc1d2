"""Where it runs and how it is kept: devices that share work, and checkpoints of anything in progress.

Nothing here knows what is computed. `Placement` is the meaning of `mesh=` everywhere; `Checkpoint` keeps named states
of a job in a file that belongs to that job alone; `write_framed` and `read_framed` are the files below it, which are
whole or absent and whose every bit is checked; a `Lock` keeps a second process out.
"""

from ._checkpoint import (
    Checkpoint as Checkpoint,
    Kept as Kept,
    made_here as made_here,
    remove_checkpoint as remove_checkpoint,
)
from ._fingerprint import fingerprint as fingerprint
from ._framed import (
    WriteError as WriteError,
    read_framed as read_framed,
    remove_leftovers as remove_leftovers,
    write_atomic as write_atomic,
    write_framed as write_framed,
)
from ._lock import InUseError as InUseError, Lock as Lock
from ._placement import Placement as Placement
