"""Items of a batch dealt to processes that were started together, as by `srun -n N jaxsci batch MANIFEST --spmd`.

For machines where one allocation of many processes is what one gets. Items go to the processes in turn, results come
back to process 0, which alone writes: to lead is its part (`lead`, `dismiss`), the others `follow`. The death of one
ends them all, as JAX's distributed runtime has it; then `--resume` goes on.
"""

import concurrent.futures
import dataclasses
import io
import json
import os
import shutil
import tarfile
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from ...parallel import Hosts, exchange
from .._errors import first_line
from .._output import Log
from .item import Order, make, put_into_place

_RESULT, _ERROR = b"r", b"e"


def lead(orders: Sequence[Order], retries: int, log: Log) -> Iterator[tuple[str, str]]:
    """Have all orders carried out by all processes; yields as `cluster.work` does."""
    exchange(json.dumps({"orders": [dataclasses.asdict(order) for order in orders], "retries": retries}).encode())
    for done, told in _rounds(orders, retries):
        for order, (kind, content) in zip(done, ((part[:1], part[1:]) for part in told), strict=False):
            if kind == _RESULT:
                _write(content, order)
                yield order.item, ""
            else:
                why = content.decode()
                log.say(f"{order.item}: given up after {retries + 1} tries. {why}")
                yield order.item, why


def dismiss(code: int) -> None:
    """Tell the others that there is no more to do, and the exit code."""
    exchange(json.dumps({"code": code}).encode())


def follow() -> int:
    """Carry out what process 0 says until it dismisses; returns the exit code."""
    while "code" not in (told := json.loads(exchange(b"")[0])):
        for _ in _rounds([Order(**order) for order in told["orders"]], told["retries"]):
            pass
    return int(told["code"])


def _rounds(orders: Sequence[Order], retries: int) -> Iterator[tuple[Sequence[Order], list[bytes]]]:
    """An order for each process at a time, and what all of them tell about theirs."""
    here = Hosts.here()
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        for at in range(0, len(orders), here.count):
            part = orders[at : at + here.count]
            told = b""
            if here.rank < len(part):
                for _ in range(retries + 1):
                    future = pool.submit(_packed, part[here.rank])
                    error = future.exception()  # whatever it is, it is the item's alone
                    told = future.result() if error is None else _said(error)
                    if error is None:
                        break
            yield part, exchange(told)


def _said(error: BaseException) -> bytes:
    return _ERROR + f"It raised {type(error).__name__}: {first_line(error)}.".encode()


def _packed(order: Order) -> bytes:
    """The folder of a result as bytes."""
    content = io.BytesIO()
    with tempfile.TemporaryDirectory() as folder:
        make(order, Path(folder))
        with tarfile.open(fileobj=content, mode="w") as archive:
            archive.add(folder, ".")
    return _RESULT + content.getvalue()


def _write(content: bytes, order: Order) -> None:
    place = Path(order.folder) / order.item
    aside = place.with_name(f".{order.item}~{os.getpid()}.tmp")
    try:
        with tarfile.open(fileobj=io.BytesIO(content)) as archive:
            archive.extractall(aside, filter="data")
        put_into_place(aside, place)
    finally:
        shutil.rmtree(aside, ignore_errors=True)
