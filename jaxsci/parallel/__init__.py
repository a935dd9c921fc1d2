"""Where it runs and how it is kept: devices that share work, memory, compiled programs, checkpoints of anything.

Nothing here knows what is computed. `Placement` is the meaning of `mesh=` everywhere; `Checkpoint` keeps named states
of a job in a file that belongs to that job alone; `write_framed` and `read_framed` are the files below it, which are
whole or absent and whose every bit is checked.
"""

from ._checkpoint import Checkpoint as Checkpoint, Kept as Kept, fingerprint as fingerprint
from ._compile_cache import use_compile_cache as use_compile_cache
from ._framed import read_framed as read_framed, write_atomic as write_atomic, write_framed as write_framed
from ._memory import free_memory as free_memory, in_words as in_words, require_memory as require_memory
from ._placement import Placement as Placement
