"""Data sets in memory, ragged and streamed, and what is done to them: stack, pad, look for what is bad.

`AbstractDataset` is what a fit asks of data; a science whose observations have another form than rows of inputs and
observations brings a class of its own. `blocks` cuts batches into what compiled programs take, `Stream` is what they
see of data larger than memory, and `first_bad` names the row that spoiled a fit. Fits know nothing here of models.
`read_text`, `read_arrays`, `open_hdf5` and their like are how every science reads files that others wrote.
"""

from ._dataset import AbstractDataset as AbstractDataset, Dataset as Dataset, FreeModel as FreeModel, predict as predict
from ._files import (
    CONFIG_BYTES as CONFIG_BYTES,
    DAMAGED as DAMAGED,
    FileError as FileError,
    FilePath as FilePath,
    check_file as check_file,
    check_promise as check_promise,
    decoded as decoded,
    find_item as find_item,
    names_in as names_in,
    open_hdf5 as open_hdf5,
    open_unpacked as open_unpacked,
    parse_json as parse_json,
    parse_toml as parse_toml,
    read_array as read_array,
    read_arrays as read_arrays,
    read_bytes as read_bytes,
    read_dataset as read_dataset,
    read_text as read_text,
)
from ._first_bad import (
    Bad as Bad,
    Seen as Seen,
    finite_rows as finite_rows,
    first_bad as first_bad,
    pieces as pieces,
    row_arrays as row_arrays,
)
from ._pad import bucket as bucket, pad as pad
from ._ragged import Block as Block, RaggedDataset as RaggedDataset, blocks as blocks
from ._source import ArrayRows as ArrayRows
from ._stack import stack as stack
from ._stream import Sliced as Sliced, Stream as Stream, StreamedDataset as StreamedDataset
