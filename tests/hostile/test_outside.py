"""Nothing that a config leads to lies outside of its folder, whichever key names it and by whatever way."""

import os
import re
from pathlib import Path

import h5py
import numpy as np
import pytest

from jaxsci import runs, xpcs
from jaxsci.datasets import FileError, find_item
from jaxsci.runs import ConfigError

XPCS = 'task = "xpcs"\nfit = {}\nframe_time = 0.01\n'
FRAMES = '[[data]]\nframes = "bundled:xpcs/frames.h5"\ndataset = "/entry/data/data"\n'
RESULT = '[[data]]\nfile = "bundled:xpcs/diffusion.h5"\n'
GEOMETRY = "geometry = { energy = 10.9, centre = [19.5, -20.0], distance = 5000.0, pixel_size = 0.6 }\n"
PARTS = 'partition = { axes = [{ map = "q", bins = 3 }] }\n'
SKY = """task = "compsep"
[components.cmb]
type = "CMB"
[instrument]
frequency = [90.0]
depth_p = [1.0]
[sky]
"""
GAME = """task = "meanfield"
particles = 100
diffusion = 0.7
drift = { type = "OrnsteinUhlenbeck", theta = 1.0, mu = 1.0 }
box = { lower = -3.0, upper = 3.0, cells = 20 }
time = { end = 1.0, steps = 10, keep = 5 }
"""
START = 'start = { type = "Gaussian", mean = 0.5, sd = 0.2 }\n'
PULSAR = 'task = "timing"\n[[data]]\n'

KEYS = {
    "data[0].file": 'model = { type = "Linear" }\n[[data]]\nfile = "PATH"\n',
    "data[0].par": f'{PULSAR}par = "PATH"\ntim = "a.tim"\n',
    "data[0].par ": f'{PULSAR}par = "PATH"\nsimulate = {{ mjd = [54000, 54010], cadence = 5.0 }}\n',
    "data[0].tim": f'{PULSAR}par = "a.par"\ntim = "PATH"\n',
    "data[0].clock_dir": f'{PULSAR}par = "a.par"\ntim = "a.tim"\nclock_dir = "FOLDER"\n',
    "data[0].file ": f'{XPCS}[[data]]\nfile = "PATH"\n',
    "layout": f'layout = "PATH"\n{XPCS}{RESULT}',
    "saxs.background": f'{XPCS}saxs = {{ background = "PATH" }}\n{RESULT}',
    "data[0].frames": f'{XPCS}{GEOMETRY}{PARTS}[[data]]\nframes = "PATH"\n',
    "geometry": f'geometry = "PATH"\n{XPCS}{PARTS}{FRAMES}',
    "partition": f'partition = "PATH"\n{XPCS}{FRAMES}',
    "mask[0].path": f'mask = [{{ type = "Blemish", path = "PATH" }}]\n{XPCS}{GEOMETRY}{PARTS}{FRAMES}',
    "mask[0].of.masks[0].path": 'mask = [{ type = "Not", of = { type = "And", masks = [{ type = "Blemish",'
    f' path = "PATH" }}] }} }}]\n{XPCS}{GEOMETRY}{PARTS}{FRAMES}',
    "sky.maps[0]": f'{SKY}maps = ["PATH"]\n',
    "sky.mask": f'{SKY}maps = ["bundled:compsep/wmap_V.fits"]\nassume = "mK_CMB"\nmask = "PATH"\n',
    "sky.mask ": f'{SKY}templates = "bundled:compsep/sky16.npz"\nmask = "PATH"\n',
    "sky.templates": f'{SKY}templates = "PATH"\n',
    "start.file": f'{GAME}start = {{ file = "PATH" }}\n',
    "reference": f'{GAME}{START}reference = "PATH"\n',
    "reference.file": f'{GAME}{START}reference = {{ file = "PATH" }}\n',
    "calibrate.observed": 'task = "meanfield"\nparticles = 100\ndiffusion = 0.7\n'
    'drift = { type = "OrnsteinUhlenbeck", theta = 1.0, mu = 1.0 }\nbox = { lower = -3.0, upper = 3.0, cells = 20 }\n'
    f'{START}calibrate = {{ free = ["drift.theta"], observed = "PATH" }}\n',
}
"""A config for each key that names a file."""


@pytest.fixture
def inside(tmp_path):
    """A folder of a config beside one that is none of its affair, with a link to it."""
    folder, outside = tmp_path / "inside", tmp_path / "outside"
    folder.mkdir()
    outside.mkdir()
    (outside / "secret").write_text("3 1\n")
    (outside / "index.txt").write_text("a b\n")
    for name in ("a.par", "a.tim"):
        (folder / name).write_text("")
    (folder / "link").symlink_to(outside / "secret")
    (folder / "linked").symlink_to(outside)
    os.mkfifo(folder / "pipe")
    return folder


def refused(folder: Path, key: str, path: str, place: str = ".", allow_outside: bool = False) -> str:
    (folder / "fit.toml").write_text(KEYS[key].replace("PATH", path).replace("FOLDER", place))
    with pytest.raises(ConfigError) as caught:
        runs.load(str(folder / "fit.toml"), allow_outside=allow_outside)
    return str(caught.value)


@pytest.mark.parametrize("key", KEYS)
def test_no_key_leads_outside(inside, key):
    outside = inside.parent / "outside"
    ways = {"../outside/secret": "../outside", f"{outside}/secret": str(outside), "link": "linked"}
    for path, place in {**ways, "linked/secret": "./linked/../linked"}.items():
        said = refused(inside, key, path, place)
        assert f"fit.toml: {key.strip()}: " in said
        assert "lies outside the config's folder" in said
        assert "--allow-outside permits it" in said
    # it is what was named that is wrong, once it may lie there
    said = refused(inside, key, "../outside/secret", "../outside", True)
    assert "outside" not in said.replace(str(outside), "").replace(str(inside), "")


@pytest.mark.parametrize("key", [key for key in KEYS if "clock_dir" not in key])
def test_what_is_no_file_is_named(inside, key):
    for path, why in {
        "pipe": "pipe is a pipe or a device, not a file",
        ".": "inside is a folder: name a file in it",
        "no": "there is no file",
        "a\\u0000b": "is no name of a file: embedded null byte",
        "n" * 300: "cannot be read as a file: File name too long",
        "~nobody-of-that-name/x": "is no name of a file",
    }.items():
        said = refused(inside, key, path)
        assert f"fit.toml: {key.strip()}: " in said
        assert why in said


def test_the_table_above_has_every_key():
    """A key that names a file is resolved by its config: a new one should stand in the table."""
    package = Path(runs.__file__).parents[1]
    calls = [len(re.findall(r"config\.resolve\b", path.read_text())) for path in package.rglob("*.py")]
    assert sum(calls) == 17, "a key that names a file is new, or one is gone: look at KEYS"


def test_a_pulsar_includes_nothing_from_outside(inside):
    (inside / "a.par").write_text("PSR A\nRAJ 1:0:0\nDECJ 1:0:0\nF0 1\nPEPOCH 55000\nDM 1\n")
    (inside / "a.tim").write_text("FORMAT 1\nINCLUDE b.tim\n")
    (inside / "b.tim").symlink_to(inside.parent / "outside" / "secret")
    said = refused(inside, "data[0].tim", "a.tim")
    assert "a.tim:2: 'b.tim' lies outside of" in said
    assert "--allow-outside" in said


LINKS = {
    "external link": lambda file, other: file.__setitem__("x", h5py.ExternalLink(other, "/x")),
    "link within a group": lambda file, other: file.__setitem__("x", h5py.SoftLink("/group/y")),
    "virtual data set": lambda file, other: file.create_virtual_dataset("x", layout(other)),
    "external storage": lambda file, other: file.create_dataset("x", (3,), float, external=[(other, 0, 24)]),
}


def layout(other):
    found = h5py.VirtualLayout((3,), float)
    found[:] = h5py.VirtualSource(other, "/x", (3,))
    return found


@pytest.mark.parametrize("way", LINKS)
@pytest.mark.parametrize("absolute", [False, True])
def test_hdf5_files_lead_nowhere_else(inside, way, absolute):
    other = inside.parent / "outside" / "other.h5"
    with h5py.File(other, "w") as file:
        file["x"] = np.arange(3.0)
    name = str(other) if absolute else "../outside/other.h5"
    with h5py.File(inside / "a.h5", "w") as file:
        file.create_group("group")["y"] = h5py.ExternalLink(name, "/x")
        LINKS[way](file, name)
    with h5py.File(inside / "a.h5") as file:
        with pytest.raises(FileError, match=r"a\.h5.*(outside of|keeps its numbers in).*--allow-outside"):
            find_item(file, "/x", inside)
        if way != "external storage":
            np.testing.assert_array_equal(find_item(file, "/x")[()], np.arange(3.0))


def test_hdf5_links_are_followed_within_the_folder(inside):
    """As the masters of area detectors are written, whose frames lie in files beside them."""
    with h5py.File(inside / "b.h5", "w") as file:
        file["x"] = np.arange(3.0)
    with h5py.File(inside / "a.h5", "w") as file:
        file["link"] = h5py.ExternalLink("b.h5", "x")
        file["soft"] = h5py.SoftLink("/link")
        file.create_virtual_dataset("x", layout("b.h5"))
        file["a"], file["b"] = h5py.SoftLink("/b"), h5py.SoftLink("/a")
        file["gone"] = h5py.ExternalLink("c.h5", "x")
        file.create_virtual_dataset("hole", layout("c.h5"))
    with h5py.File(inside / "a.h5") as file:
        for name in ("link", "soft", "x"):
            np.testing.assert_array_equal(find_item(file, name, inside)[()], np.arange(3.0))
        assert find_item(file, "gone", inside) is None
        assert find_item(file, "no/such", inside) is None
        with pytest.raises(FileError, match="links in a circle"):
            find_item(file, "a", inside)
        with pytest.raises(FileError, match=r"takes numbers from .*c\.h5, which is not there"):
            find_item(file, "hole")


def test_results_and_tables_follow_no_link_outside(inside):
    data = Path(xpcs.__file__).parents[1] / "data" / "xpcs"
    (inside.parent / "outside" / "other.h5").write_bytes((data / "diffusion.h5").read_bytes())
    with h5py.File(inside / "a.h5", "w") as file:
        for name in ("xpcs", "entry"):
            file[name] = h5py.ExternalLink("../outside/other.h5", name)
    said = refused(inside, "data[0].file ", "a.h5")
    assert "leads to '../outside/other.h5', outside of" in said
    assert xpcs.read_result(inside / "a.h5").curves.q.size > 1
    with h5py.File(inside / "t.h5", "w") as file:
        file.create_virtual_dataset("x", layout("../outside/other.h5"))
    (inside / "s.toml").write_text('model = { type = "Linear" }\n[[data]]\nfile = "t.h5"\nstream = true\n')
    for key, name in (("data[0].file", "fit.toml"), ("", "s.toml")):
        said = refused(inside, key, "t.h5") if key else ""
        with pytest.raises(ConfigError, match="outside of"):
            runs.load(str(inside / name))
        assert not said or "outside of" in said
    with h5py.File(inside / "f.h5", "w") as file:
        file["frames"] = h5py.ExternalLink("../outside/other.h5", "/xpcs/qmap/mask")
    assert "outside of" in refused(inside, "data[0].frames", 'f.h5"\ndataset = "/frames')
