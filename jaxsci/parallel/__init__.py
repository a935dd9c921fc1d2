"""Where it runs: devices, hosts, checkpoints."""

from ._checkpoint import read_framed as read_framed, write_framed as write_framed
