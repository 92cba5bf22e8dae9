"""The command line: what it prints, what it writes, what it refuses, and how it ends."""

import csv
import json
import os
import re
import shlex
import signal
import subprocess
import sys
import tempfile
import threading
from configparser import ConfigParser
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import ganlens as gl
from ganlens import Dissection, Generator, Segmenter, __version__, benchmark, cli, command_parser
from ganlens.dissection import dissect as matching
from ganlens.files import with_header
from ganlens.images import grid
from ganlens.models import list_models, load_generator
from ganlens.segmenters import list_segmenters, load_segmenter

ROOT = Path(__file__).parent.parent
N = 16


@pytest.fixture(scope="module")
def dissection():
    return matching.dissect(load_generator(), load_segmenter(), "layer4", n=N, progress=False)


@pytest.fixture
def file(dissection, tmp_path):
    path = tmp_path / "layer4.npz"
    dissection.save(path)
    return path


@pytest.fixture
def ganlens(capsys):
    """Run a command in this process: exit status, stdout, stderr."""

    def run(*argv):
        capsys.readouterr()
        try:
            status = cli.main([str(word) for word in argv])
        except SystemExit as end:
            status = end.code
        return status, *capsys.readouterr()

    return run


@pytest.fixture
def no_work(monkeypatch):
    """Fail if a dissection begins."""
    monkeypatch.setattr(matching, "dissect", lambda *_, **__: pytest.fail("the work began"))


@pytest.fixture
def hello(monkeypatch):
    """Add a command that calls the given function."""

    def add(function):
        monkeypatch.setattr(command_parser, "COMMANDS", dict(command_parser.COMMANDS))

        @command_parser.command(
            command_parser.argument("--name", default="you", help="whom"),
            examples=["ganlens hello", "ganlens hello -h"],
        )
        def hello(args):
            """Say hello."""
            return function(args)

    return add


def start(*argv, **options) -> subprocess.Popen:
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    options = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "env": environment, "cwd": ROOT} | options
    return subprocess.Popen([sys.executable, "-m", "ganlens", *map(str, argv)], **options)


def tiny(concepts=("bright",), label=None, name="mine"):
    """A dissection of three units of a small network; every pixel has the given label, or the bright ones have 1."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(8, 48), nn.Unflatten(1, (3, 4, 4)), nn.Tanh())
    function = (lambda x: (x.mean(1) > 0).int()) if label is None else (lambda x: torch.full_like(x[:, 0], label).int())
    segmenter = Segmenter.wrap(function, concepts, "labels")
    return matching.dissect(Generator.wrap(net, 8, name), segmenter, "1", n=N, progress=False)


def columns(text: str) -> list[list[str]]:
    """The words of the table that follows a title and an empty line, without its heads."""
    return [line.split() for line in text.splitlines()[3:]]


class TestHelp:
    def test_starts_without_heavy_packages(self):
        code = """if True:
            import sys
            from ganlens.cli import main
            try:
                main(sys.argv[1:])
            finally:
                print(*{"torch", "numpy", "tqdm", "PIL"} & set(sys.modules), file=sys.stderr)
        """
        for argv in (["--version"], ["--help"], ["dissect", "--help"]):
            done = subprocess.run([sys.executable, "-c", code, *argv], cwd=ROOT, capture_output=True, text=True)
            assert (done.returncode, done.stderr) == (0, "\n")

    def test_version_by_module(self):
        out, err = (pipe := start("--version")).communicate()
        assert (pipe.returncode, out.decode().strip(), err) == (0, f"ganlens {__version__}", b"")

    def test_entry_point_is_main(self):
        config = ConfigParser()
        config.read(ROOT / "setup.cfg", encoding="utf-8")
        assert "ganlens = ganlens.cli:main" in config["options.entry_points"]["console_scripts"]

    def test_lists_commands(self, ganlens):
        status, out, err = ganlens("--help")
        assert (status, err) == (0, "")
        assert re.findall(r"^    (\w+) ", out, re.MULTILINE) == list(command_parser.COMMANDS)

    @pytest.mark.parametrize("name", command_parser.COMMANDS)
    def test_explains_every_argument(self, name, ganlens):
        status, out, _ = ganlens(name, "--help")
        assert status == 0
        for names, options in command_parser.COMMANDS[name].arguments:
            assert all(word in out for word in names if word.startswith("-")), names
            assert " ".join(options["help"].split()[:3]) in " ".join(out.split())
        assert [word for word in ("layer", "unit", "concept", "IoU") if not re.search(rf"^  {word} ", out, re.M)] == []
        assert max(map(len, out.splitlines())) <= 80

    @pytest.mark.parametrize("name", command_parser.COMMANDS)
    def test_examples_are_right(self, name):
        examples = command_parser.COMMANDS[name].examples
        assert len(examples) >= 2
        for example in examples:
            program, *argv = shlex.split(example)
            assert (program, command_parser.build_parser().parse_args(argv).command) == ("ganlens", name)

    def test_without_command_shows_help(self, ganlens):
        status, out, err = ganlens()
        assert (status, out) == (2, "")
        assert err.startswith("usage: ganlens")

    def test_rules_are_those_of_the_library(self):
        assert cli.RULES == matching.RULES


class TestLists:
    def test_models(self, ganlens):
        status, out, err = ganlens("models")
        assert (status, err) == (0, "")
        assert out.startswith(repr(list_models()))
        for name, about in list_segmenters().items():
            assert re.search(rf"^{re.escape(name)}  +{re.escape(about)}$", out, re.MULTILINE)

    def test_models_json(self, ganlens):
        found = json.loads(ganlens("models", "--json")[1])
        assert found == {"generators": list_models().rows(), "segmenters": list_segmenters()}

    def test_layers(self, ganlens):
        status, out, err = ganlens("layers")
        assert (status, err) == (0, "")
        rows = [line.replace(" x ", " ").split() for line in out.splitlines()[1:]]
        assert {name: tuple(map(int, shape)) for name, *shape in rows} == load_generator().layers

    def test_layers_json(self, ganlens):
        found = json.loads(ganlens("layers", "scenes", "--json")[1])
        assert found["generator"] == "scenes"
        shapes = {row["layer"]: (row["units"], row["height"], row["width"]) for row in found["layers"]}
        assert list(shapes.items()) == list(load_generator().layers.items())


class TestDissect:
    def test_prints_the_dissection(self, dissection, ganlens):
        status, out, err = ganlens("dissect", "layer4", "-n", N)
        assert (status, out) == (0, repr(dissection) + "\n")
        assert f"{N}/{N}" in err
        assert "not saved" in err

    def test_saves_and_prints_json(self, dissection, ganlens, tmp_path):
        targets = ["-o", tmp_path / "a.npz", "--csv", tmp_path / "a.csv"]
        status, out, err = ganlens("dissect", "layer4", "-n", N, *targets, "--json", "--quiet")
        assert (status, err) == (0, "")
        assert json.loads(out) == json.loads(dissection.to_json())
        assert Dissection.load(tmp_path / "a.npz").to_json() == dissection.to_json()
        dissection.to_csv(tmp_path / "b.csv")
        assert (tmp_path / "a.csv").read_bytes() == (tmp_path / "b.csv").read_bytes()

    def test_several_layers_have_a_file_each(self, dissection, ganlens, tmp_path):
        target = tmp_path / "run.v1.npz"
        status, out, err = ganlens("dissect", "layer1", "layer4", "layer1", "-n", N, "-o", target, "--json")
        assert status == 0
        names = {layer: tmp_path / f"run.v1-{layer}.npz" for layer in ("layer1", "layer4")}
        assert set(tmp_path.iterdir()) == set(names.values())
        assert re.findall(r"saved (\w+) in (.*)$", err, re.M) == [(layer, str(path)) for layer, path in names.items()]
        found = json.loads(out)
        assert found == {layer: json.loads(Dissection.load(path).to_json()) for layer, path in names.items()}
        assert found["layer4"] == json.loads(dissection.to_json())

    def test_options_reach_the_library(self, ganlens, monkeypatch, dissection):
        calls = []
        monkeypatch.setattr(matching, "dissect", lambda *a, **k: calls.append((a, k)) or {"layer4": dissection})
        words = "-n 50 --rule iqr --quantile 0.02 --sample 3 --batch-size 16 --within-category --quiet --half"
        words += " --checkpoint some.npz"
        assert ganlens("dissect", "layer4", *words.split())[0] == 0
        (generator, segmenter, layers), options = calls[0]
        assert (generator.name, segmenter.name, layers) == ("scenes", "scenes", ["layer4"])
        expected = {"n": 50, "rule": "iqr", "quantile": 0.02, "sample": 3, "batch_size": 16, "within_category": True}
        expected |= {"half": True, "checkpoint": Path("some.npz"), "executor": None}
        assert options == expected | {"progress": False}

    @pytest.mark.parametrize("option", ["-o", "--csv"])
    def test_leaves_existing_files_alone(self, option, ganlens, tmp_path, no_work):
        target = tmp_path / "kept"
        target.write_text("old")
        status, out, err = ganlens("dissect", "layer4", option, target)
        assert (status, out, err.count("\n")) == (1, "", 1)
        assert "--force" in err
        assert target.read_text() == "old"

    def test_force_replaces(self, dissection, ganlens, tmp_path):
        target = tmp_path / "kept"
        target.write_text("old")
        assert ganlens("dissect", "layer4", "-n", N, "-o", target, "--force")[0] == 0
        assert Dissection.load(target).to_json() == dissection.to_json()

    @pytest.mark.parametrize("name", ["missing/a.npz", "file/a.npz", "folder", "pipe", "dangling/", "x" * 250])
    def test_finds_bad_targets_first(self, name, ganlens, tmp_path, no_work):
        (tmp_path / "file").touch()
        (tmp_path / "folder").mkdir()
        (tmp_path / "dangling").symlink_to("nowhere")
        os.mkfifo(tmp_path / "pipe")
        before = sorted(tmp_path.iterdir())
        status, out, err = ganlens("dissect", "layer4", "--force", "-o", f"{tmp_path}/{name}")
        assert (status, out, err.count("\n")) == (1, "", 1)
        assert name.rstrip("/") in err
        assert sorted(tmp_path.iterdir()) == before

    def test_finds_forbidden_folders_first(self, ganlens, tmp_path, no_work, monkeypatch):
        def forbid(**_):
            raise PermissionError(13, "Permission denied")

        monkeypatch.setattr(tempfile, "NamedTemporaryFile", forbid)
        status, _, err = ganlens("dissect", "layer4", "-o", tmp_path / "a.npz")
        assert status == 1
        assert f"{tmp_path}/a.npz cannot be written: Permission denied" in err

    def test_one_name_for_two_files(self, ganlens, tmp_path, no_work):
        status, _, err = ganlens("dissect", "layer4", "-o", tmp_path / "a", "--csv", f"{tmp_path}/../{tmp_path.name}/a")
        assert status == 2
        assert "given twice" in err

    def test_prints_what_it_cannot_save(self, dissection, ganlens, tmp_path, monkeypatch):
        def fail(path, content):
            raise OSError(28, f"{path} was not written: No space left on device; nothing was changed")

        monkeypatch.setattr("ganlens.dissection.saved.write_atomically", fail)
        status, out, err = ganlens("dissect", "layer4", "-n", N, "-o", tmp_path / "a.npz", "--quiet")
        assert (status, out) == (1, repr(dissection) + "\n")
        assert err.startswith("ganlens dissect: error: ")
        assert "No space left" in err

    def test_interrupt_saves_what_was_seen(self, tmp_path):
        target = tmp_path / "a.npz"
        process = start("dissect", "layer1", "-n", 100_000, "-o", target, "--json")
        watchdog = threading.Timer(120, process.kill)
        watchdog.start()
        told = b""
        while not re.search(rb"\| [1-9]\d*/100000", told) and (some := os.read(process.stderr.fileno(), 4096)):
            told += some
        process.send_signal(signal.SIGINT)
        out, err = process.communicate()
        watchdog.cancel()
        found = Dissection.load(target)
        assert process.returncode == 130, told + err
        assert 0 < found.n < 100_000
        assert not found.complete
        assert json.loads(out) == json.loads(found.to_json())
        assert f"saved layer1 (incomplete) in {target}" in err.decode()
        assert f"interrupted after {found.n} of 100000 images" in err.decode()
        assert "Traceback" not in err.decode()
        assert list(tmp_path.iterdir()) == [target]

    @pytest.mark.slow
    def test_workers_and_checkpoint(self, tmp_path):
        """Ctrl-C reaches all processes of a terminal; the same command goes on, to what one process finds."""
        run = "dissect", "layer1", "-n", 512, "--checkpoint", tmp_path / "run.npz", "-o", tmp_path / "a.npz"
        process = start(*run, "--workers", 2, start_new_session=True)
        watchdog = threading.Timer(240, process.kill)
        watchdog.start()
        told = b""
        while not re.search(rb"\| [1-9]\d{2}/512", told) and (some := os.read(process.stderr.fileno(), 4096)):
            told += some
        os.killpg(process.pid, signal.SIGINT)
        _, err = process.communicate()
        assert process.returncode == 130, told + err
        seen = re.search(
            r"interrupted after (\d+) of 512 images; the same command goes on, with .*run.npz", err.decode()
        )
        assert 64 < int(seen[1]) < 512
        assert b"Traceback" not in told + err
        assert not (tmp_path / "a.npz").exists()
        process = start(*run)
        _, err = process.communicate()
        watchdog.cancel()
        assert process.returncode == 0
        begun = re.search(r"\| ([1-9]\d*)/512", err.decode())
        assert int(begun[1]) >= int(seen[1])
        whole = matching.dissect(load_generator(), load_segmenter(), "layer1", n=512, progress=False)
        assert Dissection.load(tmp_path / "a.npz").to_json() == whole.to_json()

    def test_checkpoint_is_no_result(self, ganlens, tmp_path, no_work):
        status, _, err = ganlens("dissect", "layer1", "-o", tmp_path / "a.npz", "--checkpoint", tmp_path / "a.npz")
        assert status == 2
        assert "given twice" in err

    def test_foreign_checkpoint(self, ganlens, tmp_path):
        (tmp_path / "a.npz").write_text("something else")
        status, out, err = ganlens("dissect", "layer1", "-n", N, "--checkpoint", tmp_path / "a.npz")
        assert (status, out) == (1, "")
        assert "a.npz is damaged or no checkpoint of a dissection" in err
        assert (tmp_path / "a.npz").read_text() == "something else"

    def test_interrupt_at_the_end_comes_after_saving(self, dissection, ganlens, tmp_path, monkeypatch):
        def late(*_, **__):
            signal.raise_signal(signal.SIGINT)
            return {"layer4": dissection}

        monkeypatch.setattr(matching, "dissect", late)
        assert ganlens("dissect", "layer4", "-o", tmp_path / "a.npz")[0] == 130
        assert Dissection.load(tmp_path / "a.npz").complete


class TestShow:
    def test_lists_the_best_units(self, dissection, file, ganlens):
        status, out, err = ganlens("show", file, "-k", 5)
        assert (status, err) == (0, "")
        assert out.splitlines()[0] == repr(dissection).splitlines()[0]
        best = dissection.best_labels(5)
        assert [row[:3] for row in columns(out)] == [[str(b.unit), b.concept.name, f"{b.iou:.3f}"] for b in best]

    def test_ranks_for_a_concept(self, dissection, file, ganlens):
        status, out, err = ganlens("show", file, "--concept", "tree")
        assert (status, err) == (0, "")
        assert [int(row[0]) for row in columns(out)] == dissection.units("tree")
        iou = dissection.iou[:, [str(c) for c in dissection.concepts].index("tree")]
        assert [row[1] for row in columns(out)] == [f"{iou[unit]:.3f}" for unit in dissection.units("tree")]

    def test_json_is_the_whole_dissection(self, dissection, file, ganlens):
        assert json.loads(ganlens("show", file, "--json")[1]) == json.loads(dissection.to_json())

    def test_json_of_a_concept(self, dissection, file, ganlens):
        concept = dissection.labels[0].concept
        rows = json.loads(ganlens("show", file, "--json", "--concept", concept.name)[1])["units"]
        assert [row["unit"] for row in rows] == dissection.units(concept, None)
        for row in rows:
            label = dissection.labels[row["unit"]]
            assert row["draws"] == (label.concept.name if label.interpretable else "")
            if label.concept == concept:
                numbers = [row["iou"], row["iqr"], row["chance"]]
                assert numbers == pytest.approx([label.iou, label.iqr, label.chance], abs=1e-6)

    def test_csv(self, dissection, file, ganlens, tmp_path):
        status, _, err = ganlens("show", file, "--csv", tmp_path / "all.csv")
        assert (status, err) == (0, f"saved {len(dissection.iou)} units in {tmp_path}/all.csv\n")
        dissection.to_csv(tmp_path / "expected.csv")
        assert (tmp_path / "all.csv").read_bytes() == (tmp_path / "expected.csv").read_bytes()

    def test_csv_of_a_concept(self, dissection, file, ganlens, tmp_path):
        status, _, err = ganlens("show", file, "--concept", "tree", "-k", 3, "--csv", tmp_path / "a.csv", "--quiet")
        assert (status, err) == (0, "")
        with open(tmp_path / "a.csv", newline="") as lines:
            assert [int(row["unit"]) for row in csv.DictReader(lines)] == dissection.units("tree", 3)

    def test_picture(self, file, ganlens, tmp_path):
        target = tmp_path / "a.png"
        status, out, err = ganlens("show", file, "--concept", "tree", "-k", 2, "--picture", target)
        assert status == 0
        units = [int(row[0]) for row in columns(out)]
        assert err == f"saved units {units[0]}, {units[1]}, from top to bottom, in {target}\n"
        found = Dissection.load(file, generator=load_generator())
        first, second = (found.strip(unit) for unit in units)
        picture = np.asarray(Image.open(target))
        np.testing.assert_array_equal(picture[: len(first)], first)
        np.testing.assert_array_equal(picture[-len(second) :], second)

    def test_picture_needs_the_generator_of_the_file(self, ganlens, tmp_path):
        for name, said in (
            ("mine", "cannot be loaded by name"),
            ("scenes", "the embedded generator has changed since"),
        ):
            tiny(name=name).save(tmp_path / f"{name}.npz")
            argv = ["show", tmp_path / f"{name}.npz", "--concept", "bright", "--picture", tmp_path / "a.png"]
            status, _, err = ganlens(*argv)
            assert (status, err.count("\n")) == (1, 1)
            assert said in err
        assert not (tmp_path / "a.png").exists()

    def test_nothing_found(self, ganlens, tmp_path):
        tiny(label=0).save(tmp_path / "a.npz")
        status, out, _ = ganlens("show", tmp_path / "a.npz")
        assert (status, "no unit matches a concept clearly" in out) == (0, True)
        status, out, _ = ganlens("show", tmp_path / "a.npz", "--concept", "bright", "-k", 99)
        assert (status, len(columns(out))) == (0, 3)

    def test_ambiguous_concept(self, ganlens, tmp_path):
        found = tiny(concepts=[("glass", "object"), ("glass", "material")], label=2)
        found.save(tmp_path / "a.npz")
        status, _, err = ganlens("show", tmp_path / "a.npz", "--concept", "glass")
        assert (status, "ambiguous" in err) == (2, True)
        status, out, _ = ganlens("show", tmp_path / "a.npz", "--concept", "glass:material", "--json")
        assert status == 0
        numbers = {row["unit"]: row["iou"] for row in json.loads(out)["units"]}
        assert numbers == pytest.approx(dict(enumerate(found.iou[:, 1])), abs=1e-6)
        assert max(numbers.values()) > 0

    @pytest.mark.parametrize("option", ["--csv", "--picture"])
    def test_leaves_existing_files_alone(self, option, file, ganlens, tmp_path):
        target = tmp_path / "kept.png"
        target.write_text("old")
        assert ganlens("show", file, option, target)[0] == 1
        assert target.read_text() == "old"
        assert ganlens("show", file, option, target, "--force")[0] == 0
        assert target.read_bytes() != b"old"

    def test_never_overwrites_what_it_reads(self, file, ganlens):
        before = file.read_bytes()
        assert ganlens("show", file, "--csv", file, "--force")[0] == 2
        assert file.read_bytes() == before

    def test_damaged_files(self, file, ganlens):
        whole = file.read_bytes()
        np.save(file.with_suffix(".npy"), np.arange(3))
        single = file.with_suffix(".npy").read_bytes()
        middle = len(whole) // 2
        torn = whole[:middle] + bytes(64) + whole[middle + 64 :]
        for content in (b"", b"no archive", whole[:middle], torn, single):
            file.write_bytes(content)
            status, out, err = ganlens("show", file)
            assert (status, out, err.count("\n")) == (1, "", 1)
            assert f"{file} is damaged or no dissection" in err

    def test_file_without_all_its_parts(self, file, ganlens):
        with np.load(file) as archive:
            arrays = dict(archive)
        header = json.loads(str(arrays.pop("header")))
        del header["origin"]["generator_fingerprint"], header["rule"]
        header.pop("digest")
        np.savez(file, **with_header(header, arrays))
        status, out, err = ganlens("show", file)
        lacks = "rule, origin.generator_fingerprint"
        assert (status, out, err) == (1, "", f"ganlens show: error: {file} is incomplete: it lacks {lacks}\n")

    def test_no_such_file(self, ganlens, tmp_path):
        status, _, err = ganlens("show", tmp_path / "none.npz")
        assert (status, err) == (1, f"ganlens show: error: {tmp_path}/none.npz: No such file or directory\n")


class TestReport:
    def test_is_that_of_the_library(self, file, ganlens, tmp_path):
        status, out, err = ganlens("report", file, tmp_path / "a.html", "--quiet")
        assert (status, out, err) == (0, "", "")
        dissection = Dissection.load(file, generator=load_generator())
        (tmp_path / "library").mkdir()
        gl.report(dissection, tmp_path / "library" / "a.html", progress=False)
        for path in (tmp_path / "library").iterdir():
            assert (tmp_path / path.name).read_bytes() == path.read_bytes()

    def test_several_files(self, file, ganlens, tmp_path):
        tiny(name="not known").save(tmp_path / "mine.npz")
        tiny(name="not known").save(tmp_path / "other.npz")
        files = [tmp_path / "mine.npz", tmp_path / "other.npz"]
        status, out, err = ganlens("report", *files, tmp_path / "both.html")
        assert (status, out, err.count("--generator gives it")) == (0, "", 2)
        text = (tmp_path / "both.html").read_text()
        assert "<h2>mine</h2>" in text
        assert "<h2>other</h2>" in text
        assert "<img" not in text
        assert {path.name for path in tmp_path.glob("both-*.csv")} == {"both-mine.csv", "both-other.csv"}
        (tmp_path / "folder").mkdir()
        files[1] = files[1].rename(tmp_path / "folder" / "mine.npz")
        assert ganlens("report", *files, tmp_path / "paths.html", "--quiet") == (0, "", "")
        text = (tmp_path / "paths.html").read_text()
        assert all(f"<h2>{path}</h2>" in text for path in files)

    def test_leaves_existing_files_alone(self, tmp_path, ganlens):
        tiny(name="not known").save(tmp_path / "a.npz")
        for name in ("a.html", "a.csv", "a.json"):
            (tmp_path / name).write_text("old")
            status, out, err = ganlens("report", tmp_path / "a.npz", tmp_path / "a.html")
            assert (status, out) == (1, "")
            assert f"{name} exists and was left as it is; --force replaces it" in err
            assert ganlens("report", tmp_path / "a.npz", tmp_path / "a.html", "--force", "--quiet") == (0, "", "")
            assert (tmp_path / name).read_text() != "old"
            for written in ("a.html", "a.csv", "a.json"):
                (tmp_path / written).unlink()

    def test_another_generator(self, tmp_path, ganlens):
        tiny(name="not known").save(tmp_path / "a.npz")
        status, _, err = ganlens("report", tmp_path / "a.npz", tmp_path / "a.html", "--generator", "scenes")
        assert status == 2
        assert "was made with the generator not known" in err
        assert not (tmp_path / "a.html").exists()

    def test_changed_generator_of_that_name(self, tmp_path, ganlens):
        tiny(name="scenes").save(tmp_path / "a.npz")
        status, _, err = ganlens("report", tmp_path / "a.npz", tmp_path / "a.html")
        assert status == 0
        assert "no images" in err


class TestPage:
    def test_is_that_of_the_library(self, file, ganlens, tmp_path):
        assert ganlens("page", file, tmp_path / "a.html", "--seed", 33, "--quiet") == (0, "", "")
        D = Dissection.load(file, generator=load_generator(), segmenter=gl.load_segmenter())
        gl.painting_page(D, tmp_path / "b.html", seed=33, progress=False)
        assert (tmp_path / "a.html").read_bytes() == (tmp_path / "b.html").read_bytes()
        status, _, err = ganlens("page", file, tmp_path / "a.html")
        assert status == 1
        assert "--force replaces it" in err
        assert ganlens("page", file, tmp_path / "c.html", "--no-readout", "--quiet") == (0, "", "")
        assert (tmp_path / "c.html").stat().st_size < (tmp_path / "a.html").stat().st_size

    def test_a_report_that_paints(self, file, ganlens, tmp_path):
        assert ganlens("report", file, tmp_path / "live.html", "--live", "--quiet") == (0, "", "")
        assert "<iframe srcdoc=" in (tmp_path / "live.html").read_text()

    def test_without_a_generator(self, tmp_path, ganlens):
        tiny(name="not known").save(tmp_path / "a.npz")
        status, _, err = ganlens("page", tmp_path / "a.npz", tmp_path / "a.html")
        assert status != 0
        assert "--generator gives it" in err
        assert not (tmp_path / "a.html").exists()


class TestGenerate:
    def test_a_sheet_of_seeds(self, ganlens, tmp_path):
        status, out, err = ganlens("generate", "3", "0-9", "-o", tmp_path / "a.png")
        assert (status, out) == (0, "")
        assert f"saved 10 images in {tmp_path / 'a.png'}" in err
        found = np.asarray(Image.open(tmp_path / "a.png"))
        expected = np.stack([gl.replay(gl.Recipe.of(load_generator(), seed)) for seed in (3, 0, 1, 2, *range(4, 10))])
        assert np.array_equal(found, grid(expected, 8, 2))

    def test_edits_by_words_and_by_a_recipe_are_what_the_recipe_shows(self, ganlens, tmp_path):
        G = load_generator()
        edits = [gl.ablate("layer4", [3, 17, 40, 41]), gl.insert("layer5", [2], "q0.9"), gl.insert("layer5", [3], 1.5)]
        gl.Recipe.of(G, 5, edits).save(tmp_path / "r.json")
        words = [word for text in ("layer4:3,17,40-41", "layer5:2=q0.9", "layer5:3=1.5") for word in ("--edit", text)]
        assert ganlens("generate", 5, "-o", tmp_path / "a.png", *words)[0] == 0
        assert ganlens("generate", 5, "-o", tmp_path / "b.png", "--edit", tmp_path / "r.json")[0] == 0
        assert ganlens("replay", tmp_path / "r.json", "-o", tmp_path / "c.png")[0] == 0
        expected = gl.replay(tmp_path / "r.json")
        for name in ("a.png", "b.png", "c.png"):
            assert np.array_equal(np.asarray(Image.open(tmp_path / name)), expected)
        assert not np.array_equal(expected, gl.replay(gl.Recipe.of(G, 5)))

    def test_files_that_exist_are_left_alone(self, ganlens, tmp_path):
        gl.Recipe.of(load_generator(), 5).save(tmp_path / "r.json")
        (tmp_path / "a.png").write_bytes(b"mine")
        for words in (["generate", 0], ["replay", tmp_path / "r.json"]):
            status, _, err = ganlens(*words, "-o", tmp_path / "a.png")
            assert (status, "--force" in err) == (1, True)
        assert (tmp_path / "a.png").read_bytes() == b"mine"

    def test_a_recipe_of_a_generator_without_a_name(self, ganlens, tmp_path):
        net = nn.Sequential(nn.Linear(4, 48), nn.Unflatten(1, (3, 4, 4)), nn.Tanh())
        gl.Recipe.of(Generator.wrap(net, 4, "mine"), 5).save(tmp_path / "r.json")
        status, _, err = ganlens("replay", tmp_path / "r.json", "-o", tmp_path / "a.png")
        assert status == 2
        assert "mine is not known by name" in err


class TestBench:
    ROW: ClassVar = {"case": "layer4", "ms_per_image": 1.25, "ratio": 1.5}

    @pytest.fixture
    def calls(self, monkeypatch):
        calls = []
        monkeypatch.setattr(benchmark, "measure", lambda *arguments: calls.append(arguments) or [self.ROW])
        return calls

    def test_by_default(self, ganlens, calls):
        status, out, err = ganlens("bench")
        assert (status, err) == (0, "")
        assert out.splitlines() == ["dissection", "case    ms_per_image  ratio", "layer4         1.250  1.500", ""]
        assert calls == [("dissection", None, 3, True)]

    def test_several(self, ganlens, calls):
        status, out, err = ganlens("bench", "shards", "causal", "-n", 50, "--rounds", 2, "--json", "--quiet")
        assert (status, json.loads(out), err) == (0, {"shards": [self.ROW], "causal": [self.ROW]}, "")
        assert calls == [("shards", 50, 2, False), ("causal", 50, 2, False)]


class TestWrongUsage:
    @pytest.mark.parametrize(
        ("argv", "hint"),
        [
            ("layers scens", "did you mean 'scenes'"),
            ("dissect layer44", "did you mean 'layer4'"),
            ("dissect layer4 --generator scens", "did you mean 'scenes'"),
            ("dissect layer4 --segmenter scens", "did you mean 'scenes'"),
            ("dissect layer4 --quantile 2", "between 0 and 1"),
            ("dissect layer4 --sample -1", "sample=-1"),
            ("dissect layer4 -n 2000000", "n=2000000"),
            ("dissect layer4 -n 0", "1 or more"),
            ("dissect layer4 --batch-size many", "whole number"),
            ("dissect layer4 --rule best", "invalid choice"),
            ("dissect", "required"),
            ("show FILE --concept tre", "did you mean 'tree'"),
            ("show FILE --picture a.gif", ".png"),
            ("show FILE -k 0", "1 or more"),
            ("report FILE a.pdf", "ends in .html"),
            ("report a.html", "required"),
            ("report FILE a.html --generator scens", "did you mean 'scenes'"),
            ("show FILE --js", "unrecognized"),
            ("dance", "invalid choice"),
            ("shwo", "did you mean 'show'"),
            ("dissect layer4 --rule iq", "did you mean 'iqr'"),
            ("layers nosuchmodel", "`ganlens models`"),
            ("generate x -o a.png", "such as 3, 17, 40-43"),
            ("generate 0-2000 -o a.png", "at most 1024"),
            ("generate 0 -o a.gif", ".png"),
            ("generate 0 -o a.png --edit layer44:1", "did you mean 'layer4'"),
            ("generate 0 -o a.png --edit layer4", "such as layer4:3,17"),
            ("generate 0 -o a.png --edit layer4:999", "units 0 … 191"),
            ("generate 0 -o a.png --edit layer4:1=often", "often"),
            ("generate 0 -o a.png --generator scens", "did you mean 'scenes'"),
            ("replay FILE -o a.png", "not a recipe"),
        ],
    )
    def test_ends_with_2_and_a_hint(self, argv, hint, ganlens, file, no_work):
        status, out, err = ganlens(*argv.replace("FILE", str(file)).split())
        assert (status, out) == (2, "")
        assert hint in err
        assert "Traceback" not in err


class TestEnds:
    def test_adding_a_command_touches_one_place(self, hello, ganlens):
        hello(lambda args: cli.emit(f"hello {args.name}"))
        assert ganlens("hello", "--name", "unit") == (0, "hello unit\n", "")
        assert "Say hello." in ganlens("--help")[1]
        assert "whom (default: you)" in ganlens("hello", "--help")[1]

    def test_failure_is_one_line(self, hello, ganlens):
        def fail(args):
            raise RuntimeError("it broke\n  in two")

        hello(fail)
        assert ganlens("hello") == (
            1,
            "",
            "ganlens hello: error: RuntimeError: it broke in two (--debug shows where)\n",
        )
        status, out, err = ganlens("hello", "--debug")
        assert (status, out) == (1, "")
        assert "Traceback" in err
        assert "in fail" in err

    def test_interrupt(self, hello, ganlens):
        hello(lambda args: signal.raise_signal(signal.SIGINT))
        assert ganlens("hello") == (130, "", "interrupted\n")

    def test_closed_pipe_is_silent(self, file):
        for argv in (["--help"], ["show", file, "--json"]):
            process = start(*argv)
            process.stdout.close()
            err = process.stderr.read()
            process.stderr.close()
            assert (process.wait(), err) == (0, b"")

    @pytest.mark.skipif(not Path("/dev/full").exists(), reason="no device that is always full")
    def test_full_disk_behind_stdout(self, file):
        with open("/dev/full", "w") as full:
            process = start("show", file, stdout=full)
            _, err = process.communicate()
        assert process.returncode == 1
        assert err == b"ganlens show: error: No space left on device\n"
