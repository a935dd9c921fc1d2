"""Tables of text, as instruments, spreadsheets and `numpy.savetxt` write them: what is read, and what is refused."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import assume, given, settings, strategies as st

from jaxsci.curvefit._task.tables import read_table
from jaxsci.runs import ConfigError

NAMES = ("x", "y", "sigma")
SEPARATORS = {",": ",", ";": ";", "\t": "\t", " ": None}
cheap = settings(max_examples=60, deadline=None, derandomize=True)


def read(path: Path, wanted=NAMES, texts=()):
    return read_table(path, "data[0].file", wanted, texts)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return tmp_path_factory.mktemp("tables") / "table.txt"


@st.composite
def written(draw):
    """(numbers, text of a table with them, line of each row from 1, how to name the columns)."""
    numbers = draw(st.lists(st.tuples(*[st.floats(allow_subnormal=False)] * 3), min_size=1, max_size=6))
    mark = draw(st.sampled_from(sorted(SEPARATORS)))
    between = draw(st.sampled_from([" ", "   "])) if mark == " " else mark
    heading = draw(st.sampled_from(["line", "comment", "none"]))
    header = draw(st.sampled_from([mark, " ", ", "])) if heading == "comment" else mark
    lines = draw(st.lists(st.sampled_from(["# taken at 20 °C", "", "#"]), max_size=2))
    lines += {"line": [mark.join(NAMES)], "comment": ["# " + header.join(NAMES)], "none": []}[heading]
    places = []
    for row in numbers:
        if draw(st.booleans()) and (heading != "comment" or places):
            lines.append(draw(st.sampled_from(["", "  ", "# a pause", "\t# another"])))
        places.append(len(lines) + 1)
        lines.append(between.join(map(repr, row)))
    end = draw(st.sampled_from(["\n", "\r\n"]))
    return (
        numbers,
        end.join(lines) + draw(st.sampled_from(["", end])),
        places,
        ("0", "1", "2") if heading == "none" else NAMES,
    )


@cheap
@given(table=written(), encoding=st.sampled_from(["utf-8", "utf-8-sig", "latin-1", "utf-16"]))
def test_every_way_of_writing_gives_the_same_bits(place, table, encoding):
    numbers, text, _, names = table
    place.write_bytes(text.encode(encoding))
    found = read(place, names)
    for k, name in enumerate(names):
        np.testing.assert_array_equal(found.column(name, ""), np.array([row[k] for row in numbers]))


@cheap
@given(table=written(), data=st.data())
def test_the_first_bad_row_is_named_whatever_stands_around_it(place, table, data):
    numbers, text, places, names = table
    lines = text.splitlines()
    # without a line of names the first row shows the columns
    first = 0 if any(line[:1] == "x" for line in lines) else 1
    assume(first < len(numbers))
    k = data.draw(st.integers(first, len(numbers) - 1))
    mark = next((mark for mark in "\t;," if mark in lines[places[k] - 1]), None)
    cells = lines[places[k] - 1].split(mark)
    short = data.draw(st.booleans())
    cells = cells[:-1] if short else [cells[0], data.draw(st.sampled_from(["a", "1.5.2", "1_0", "2.0D+00"])), cells[2]]
    lines[places[k] - 1] = (mark or " ").join(cells)
    place.write_text("\n".join(lines), encoding="utf-8")
    with pytest.raises(ConfigError) as error:
        read(place, names)
    what = "2 cells for 3 columns" if short else f"column {names[1]!r}: {cells[1]!r} is not a number"
    assert f"table.txt, line {places[k]}" in str(error.value)
    assert what in str(error.value)


def test_savetxt_with_its_header(tmp_path):
    rows = np.random.default_rng(0).normal(size=(5, 3))
    for name, words in {"a.dat": {}, "b.csv": {"delimiter": ","}, "c.txt": {"delimiter": ";"}}.items():
        np.savetxt(tmp_path / name, rows, header="taken on 3 June\nx y sigma", **words)
        found = read(tmp_path / name)
        assert found.names == NAMES
        np.testing.assert_array_equal([found.column(n, "") for n in NAMES], rows.T)


def test_columns_that_do_not_matter_may_hold_anything(tmp_path):
    (tmp_path / "a.csv").write_text('when,x,note,y\n12:30,1.5,"wet, cold",2\n12:40,2.5,-,3\n')
    found = read(tmp_path / "a.csv", ("x", "y", "sigma"))
    assert found.column("x", "").tolist() == [1.5, 2.5]
    assert found.column("y", "").tolist() == [2.0, 3.0]
    assert found.names == ("when", "x", "note", "y")


def test_members_are_told_apart_by_all_of_their_name(tmp_path):
    (tmp_path / "a.csv").write_text("x,y,run\n1,2, run#1 \n2,3,run#2\n3,4,run#1\n")
    found = read(tmp_path / "a.csv", ("x", "y", "run"), ("run",))
    assert found.column("run", "").tolist() == ["run#1", "run#2", "run#1"]


REFUSED = {
    "decimal commas": (
        "a.csv",
        "x;y\n1,5;2\n",
        "line 2, column 'x': '1,5' is not a number, with its comma; write decimal points",
    ),
    "decimal commas, blanks": ("a.txt", "x y\n1,5 2,5\n", "line 2, column 'x': '1,5' is not a number, with its comma"),
    "decimal commas and commas": (
        "a.csv",
        "x,y\n1,5,2,5\n",
        "4 cells for 2 columns: if these are decimal commas, write decimal points",
    ),
    "decimal commas, no names": ("a.csv", "1,5;2,5\n2,5;3,5\n", "line 1: '1,5;2,5' has decimal commas; write decimal"),
    "no names": ("a.csv", "1,2\n3,4\n", "columns = { x = 0, y = 1 }"),
    "empty": ("a.csv", "x,y\n1,2\n3,\n", "line 3, column 'y': '' is not a number: leave the row out, or write nan"),
    "Fortran": ("a.txt", "x y\n1.0D+00 2\n", "'1.0D+00' is not a number: write its exponent with e"),
    "alike": ("a.csv", "x,x\n1,2\n", "which names two alike"),
    "spreadsheet": ("a.xlsx", "PK", "a.xlsx is a spreadsheet, which is not read: save its sheet as CSV"),
    "binary": ("a.txt", "\x00\x01", "a.txt is no text: save it as CSV"),
    ".dat": ("a.dat", "x y\n1 2\n3 b\n", "a.dat: this is no NIST StRD file; as a table a.dat, line 3, column 'y'"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_refused_names_the_place_and_the_remedy(tmp_path, case):
    name, text, message = REFUSED[case]
    (tmp_path / name).write_text(text)
    with pytest.raises(ConfigError) as error:
        read(tmp_path / name)
    assert message in str(error.value)
    assert "\n" not in str(error.value)
