"""Where it runs and how it is kept: devices and processes that share work, memory, compiled programs, checkpoints.

Nothing here knows what is computed. `Placement` is the meaning of `mesh=` everywhere, and `start_hosts`, `mesh` and
`exchange` are how several processes work together. `Checkpoint` keeps named states of a job in a file that belongs to
that job alone; `write_framed` and `read_framed` are the files below it, which are whole or absent and whose every bit
is checked; a `Lock` keeps a second process out. `require_memory` is asked before much is taken, and `use_compile_cache`
keeps programs between processes.
"""

from ._checkpoint import (
    Checkpoint as Checkpoint,
    Kept as Kept,
    made_here as made_here,
    remove_checkpoint as remove_checkpoint,
)
from ._compile_cache import use_compile_cache as use_compile_cache
from ._fingerprint import fingerprint as fingerprint
from ._framed import (
    WriteError as WriteError,
    read_framed as read_framed,
    remove_leftovers as remove_leftovers,
    write_atomic as write_atomic,
    write_framed as write_framed,
)
from ._hosts import (
    Hosts as Hosts,
    brought_home as brought_home,
    exchange as exchange,
    laid_out as laid_out,
    mesh as mesh,
    start_hosts as start_hosts,
    together as together,
)
from ._lock import InUseError as InUseError, Lock as Lock
from ._memory import free_memory as free_memory, in_words as in_words, require_memory as require_memory
from ._placement import Placement as Placement
from ._programs import give_back_programs as give_back_programs
