"""`headstart doctor` tells before a run what would be wrong with it, and what it would do and take."""

import re
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

import flows.server
from flows.__main__ import main
from flows.study import load_study
from tasks.core import samples
from tasks.core.backbones import Backbone
from tasks.core.choice import Measured, Memory

STUDY = """
name = "checked"
[data]
{data}
[backbones.small]
network = "lite0"
resize = 48
crop = 48
{backbone}
[[splits]]
name = "random"
seeds = [0, 1]
{split}
[[experiments]]
name = "early"
taps = ["{tap}"]
{experiment}
"""

Doctor = Callable[..., tuple[int, list[str], str]]


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    """Trials end at once, the GPU is not asked, and files are remembered however lately they changed."""
    monkeypatch.setattr("tasks.core.estimates.PATIENCE", 0.0)
    monkeypatch.setattr("tasks.core.digest.RACY_NS", -(10**15))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)


@pytest.fixture
def write(tmp_path, pictures) -> Callable[..., Path]:
    """Write a study of the pictures."""

    def to(data: str = "", tap: str = "blocks.1:mean", **parts: str) -> Path:
        fields = {"backbone": "", "split": "", "experiment": "strengths = [1.0]"} | parts
        place = tmp_path / "study.toml"
        place.write_text(STUDY.format(data=data or f'folder = "{pictures}"', tap=tap, **fields))
        return place

    return to


@pytest.fixture
def listed(tmp_path, pictures) -> Callable[[pd.DataFrame], str]:
    """Write a manifest; give the study's `data`."""

    def to(table: pd.DataFrame) -> str:
        table.to_csv(tmp_path / "manifest.csv", index=False)
        return f'manifest = "{tmp_path / "manifest.csv"}"\ntarget = "class"'

    return to


@pytest.fixture
def table(pictures) -> pd.DataFrame:
    """All pictures and their classes."""
    rows = [(str(path), path.parent.name) for path in sorted(pictures.rglob("*.png"))]
    return pd.DataFrame(rows, columns=["path", "class"])


@pytest.fixture
def doctor(tmp_path, capsys) -> Doctor:
    """Run the command; give the exit code, the lines with spaces squeezed, and what stands on stderr."""

    def go(study: Path, *words: str) -> tuple[int, list[str], str]:
        capsys.readouterr()
        code = main(["doctor", str(study), "--artifacts", str(tmp_path / "artifacts"), *words])
        told = capsys.readouterr()
        return code, [" ".join(line.split()) for line in told.out.splitlines()], told.err

    return go


def about(lines: list[str], name: str) -> list[str]:
    """The lines of a check, without its name."""
    return [
        f"{line.split()[1]} {line.split(name, 1)[1].strip()}" for line in lines if line.split()[2:3] == [name]
    ]


def test_a_sound_study_is_told_line_by_line_and_ends_with_0(write, doctor):
    code, lines, errors = doctor(write())
    assert (code, errors) == (0, "")
    assert lines[-1] == "a run can go"
    assert {line.split()[1] for line in lines[:-1]} <= {"ok", "note"}
    assert about(lines, "files") == ["ok 24 listed, all usable"]
    assert about(lines, "labels") == ["ok 2 classes: 'lying' 12, 'upright' 12"]
    assert about(lines, "duplicates") == ["ok no two files hold the same bytes"]
    assert about(lines, "split") == ["ok random: 18 to train on, 6 to test on, 2 seeds"]
    assert about(lines, "network") == ["ok small: rows of blocks.1:mean 24"]
    assert about(lines, "work") == ["ok 24 passes of small (centre), 2 heads to train"]
    assert about(lines, "disk")[0].startswith("ok features take 1.2 KB; ")  # 24 rows of 24 float16
    assert about(lines, "memory")[0].startswith("ok training takes at most 13.8 KB")
    [time] = about(lines, "time")
    assert "24 passes of small about" in time
    assert "at most: tried in plain torch" in time
    assert "2 heads about" in time


def test_the_run_does_not_read_the_files_again_and_does_what_was_told(write, doctor, run, monkeypatch):
    study = write()
    doctor(study)

    def read(path: str) -> None:
        raise AssertionError(f"{path} is read again")

    monkeypatch.setattr(samples, "_read", read)
    done = run(load_study(study))
    assert (len(done.forwarded), done.trained) == (24, 2)
    code, lines, _ = doctor(study)
    assert code == 0
    assert about(lines, "work") == ["ok nothing to do: a run would reuse everything"]
    assert about(lines, "time") == []


def test_what_is_there_is_not_counted(write, doctor, run, painter, pictures):
    run(load_study(write()))
    painter(pictures / "lying" / "new.png", 1000, 1.57)
    _, lines, _ = doctor(write())
    assert about(lines, "work") == ["ok 1 passes of small (centre), 2 heads to train"]
    _, lines, _ = doctor(write(experiment='strengths = [0.1, 1.0]\nviews = ["centre", "hflip"]'))
    assert about(lines, "work") == [
        "ok 1 passes of small (centre), 25 passes of small (hflip), 4 heads to train"
    ]
    (pictures / "lying" / "new.png").unlink()
    _, lines, _ = doctor(write(experiment="strengths = [0.1, 1.0]"))
    assert about(lines, "work") == ["ok 2 heads to train"]
    assert "from fits on 24 rows" in about(lines, "time")[0], "of the features that are there"


def test_a_wrong_study_is_the_same_one_line_as_for_a_run(write, doctor, tmp_path):
    place = write(experiment="strengthz = [1.0]")
    code, lines, errors = doctor(place)
    assert (code, lines) == (2, [])
    assert main(["run", str(place), "--artifacts", str(tmp_path / "artifacts")]) == 2
    assert "unknown key 'strengthz'; did you mean 'strengths'?" in errors
    assert len(errors.splitlines()) == 1


def test_reading_is_counted_in_a_terminal_alone(write, doctor, monkeypatch):
    monkeypatch.setattr("flows.doctor.EVERY", 0.0)
    assert doctor(write())[2] == ""
    shutil.rmtree(write().parent / "artifacts")
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    _, _, errors = doctor(write())
    assert "24 of at most 24 files read" in errors
    assert errors.endswith("\r\x1b[K")


# Layers and the verdict

LATE = 'name = "late"\ndepth = "suffix"\ncut = "blocks.5"\nepochs = [1]\nlearning_rates = [1e-3]\nbatch = 8'
EVERYTHING = (
    'name = "all"\ndepth = "everything"\nepochs = [1]\nlearning_rates = [1e-3]\nbatch = 8\n'
    'views = ["centre", "crop"]'
)
VERDICT = (
    '[verdict]\nminutes = {minutes}\nshares = [0.5, 1.0]\nseeds = 2\ndepths = ["head", '
    '{{ name = "late", depth = "suffix", cut = "blocks.5", epochs = [1], learning_rates = [1e-3], batch = 8 }}]'
)


def more(*experiments: str, verdict: str = "") -> str:
    """The first experiment's strengths, and others behind it."""
    return "\n".join(["strengths = [1.0]", *(f"[[experiments]]\n{each}" for each in experiments), verdict])


def test_layers_are_searches_with_their_room_memory_and_time(write, doctor):
    code, lines, _ = doctor(write(experiment=more(LATE, EVERYTHING)))
    assert code == 0
    assert about(lines, "network") == ["ok small: rows of blocks.1:mean 24, blocks.5:none 192 x 2 x 2"]
    assert about(lines, "work") == ["ok 24 passes of small (centre), 2 heads to train, 4 searches of layers"]
    assert "trained layers and their checkpoints" in about(lines, "disk")[0]
    heads, steps = about(lines, "memory")
    assert heads.startswith("ok training takes at most 13.8 KB"), "activations are read batch by batch"
    assert steps.startswith("ok a step of layers takes about ")
    [time] = about(lines, "time")
    assert "2 heads about" in time
    for name in ("late", "all"):
        assert re.search(rf"2 searches of {name} about .* \([\d.]+ ms a sample, tried for a moment\)", time)


def test_a_study_that_trains_all_layers_keeps_rows_for_near_copies_alone(write, doctor, tmp_path):
    study = tmp_path / "study.toml"
    write()
    study.write_text(study.read_text().split("[[experiments]]")[0] + f"[[experiments]]\n{EVERYTHING}\n")
    code, lines, _ = doctor(study)
    assert code == 0
    assert about(lines, "network") == ["ok small: rows of bn2:mean 1,280"]
    assert about(lines, "work") == ["ok 24 passes of small (centre), 2 searches of layers"]
    [memory] = about(lines, "memory")
    assert memory.startswith("ok a step of layers takes about")


def test_of_a_second_network_that_is_trained_whole_no_rows_are_kept(write, doctor):
    backbone = '[backbones.other]\nnetwork = "lite0"\nresize = 32\ncrop = 32'
    study = write(backbone=backbone, experiment=more(f'{EVERYTHING}\nbackbone = "other"'))
    study.write_text(study.read_text().replace('taps = ["blocks', 'backbone = "small"\ntaps = ["blocks'))
    code, lines, _ = doctor(study)
    assert code == 0
    assert about(lines, "network") == [
        "ok small: rows of blocks.1:mean 24",
        "ok other: no rows are kept, all of it is trained",
    ]
    assert about(lines, "work") == ["ok 24 passes of small (centre), 2 heads to train, 2 searches of layers"]


def test_layers_that_are_there_are_not_counted_and_a_run_does_what_was_told(write, doctor, run):
    study = write(experiment=more(LATE, EVERYTHING))
    assert run(load_study(study)).summary["experiments"]["trained"] == 6
    _, lines, _ = doctor(study)
    assert about(lines, "work") == ["ok nothing to do: a run would reuse everything"]
    assert about(lines, "disk")[0].startswith("ok features take 0 B; ")
    assert about(lines, "time") == []
    _, lines, _ = doctor(write(experiment=more(LATE, EVERYTHING.replace("1e-3", "1e-2"))))
    assert about(lines, "work") == ["ok 2 searches of layers"]
    assert "late" not in about(lines, "time")[0]


def test_the_verdict_takes_no_more_than_its_minutes(write, doctor, monkeypatch):
    monkeypatch.setattr("tasks.core.layer_estimates.seconds_a_sample", lambda source, network: 1.0)
    _, lines, _ = doctor(write(experiment=more(verdict=VERDICT.format(minutes=60))))
    assert about(lines, "work")[0].endswith("2 heads to train, 8 cells of the verdict")
    # two thirds of 10 and of 18 samples, for 3 folds and 2 seeds, at a second each, and 15 % on top: 129 seconds;
    # and 2 seconds for each of 4 cells of heads
    assert about(lines, "verdict") == [
        "ok 8 cells; 8 to measure in about 2 minutes; a run gives them 60 minutes"
    ]
    assert "verdict about 2 minutes" in about(lines, "time")[0]
    code, lines, _ = doctor(write(experiment=more(verdict=VERDICT.format(minutes=0.5))))
    assert code == 0
    [told] = about(lines, "verdict")
    assert told.startswith("note 8 cells; 8 to measure in about 2 minutes; a run gives them 0.5 minutes")
    assert "enough for 4 of them; 2 take longer by themselves, and are never measured; raise" in told
    assert "verdict about 30 seconds" in about(lines, "time")[0]


def test_cells_that_experiments_train_are_not_told_twice(write, doctor):
    _, lines, _ = doctor(write(experiment=more(LATE, verdict=VERDICT.format(minutes=60))))
    assert about(lines, "work")[0].endswith("2 searches of layers, 6 cells of the verdict")
    assert about(lines, "verdict")[0].startswith("ok 8 cells; 6 to measure")


def test_a_cut_that_is_none_is_wrong_and_the_near_ones_are_told(write, doctor):
    place = write(experiment=more(LATE.replace("blocks.5", "blocks.4.1.conv_pw")))
    told = refused(doctor(place), "network")
    assert told.startswith("wrong small: cut 'blocks.4.1.conv_pw': the network does not fall in two there")
    assert "choose from blocks.4.0, blocks.4.1 (headstart cuts lists all)" in told


def test_a_cut_of_a_verdicts_depth_is_looked_at_likewise(write, doctor):
    place = write(experiment=more(verdict=VERDICT.format(minutes=5).replace("blocks.5", "blocks.55")))
    assert "the network has no module of that name; choose from blocks.5" in refused(doctor(place), "network")


def test_a_view_that_is_none_is_the_same_one_line_as_for_a_run(write, doctor, tmp_path):
    place = write(experiment='strengths = [1.0]\nviews = ["crop"]')
    code, _, errors = doctor(place)
    assert code == 2
    assert main(["run", str(place), "--artifacts", str(tmp_path / "artifacts")]) == 2
    assert "headstart: view 'crop': " in errors
    assert len(errors.splitlines()) == 1


def test_a_step_that_is_too_large_for_the_memory_is_noted(write, doctor, monkeypatch):
    monkeypatch.setattr("tasks.core.resources.machine_memory", lambda: 10**6)
    code, lines, _ = doctor(write(experiment=more(LATE)))
    assert code == 0
    assert any(
        line.startswith("note late: a step of 8 samples takes about") for line in about(lines, "memory")
    )


def test_layers_are_estimated_though_the_weights_are_not_here(write, doctor, monkeypatch):
    monkeypatch.setattr(Backbone, "lacks_weights", lambda backbone: True)
    monkeypatch.setattr(Backbone, "weights_file", lambda backbone: pytest.fail("is downloaded"))
    code, lines, _ = doctor(write(experiment=more(LATE)))
    assert code == 0
    assert about(lines, "work") == ["ok 24 passes of small (centre), 2 heads to train, 2 searches of layers"]
    assert "2 searches of late about" in about(lines, "time")[0]


# What is wrong


def refused(told: tuple[int, list[str], str], name: str) -> str:
    """Hold that exactly this check is wrong; give what it says."""
    code, lines, errors = told
    assert code == 2
    [line] = errors.splitlines()
    assert line.startswith(f"headstart: a run would be refused or fail: {name}: ")
    assert lines[-1] != "a run can go"
    assert {each.split()[2] for each in lines if each.split()[1] == "wrong"} == {name}
    assert all(each.startswith("✗ wrong") for each in lines if each.split()[1] == "wrong")
    return next(each for each in about(lines, name) if each.startswith("wrong"))


def test_files_that_cannot_be_used_are_noted_or_wrong_as_the_study_allows(write, doctor, pictures):
    (pictures / "lying" / "0.png").write_text("no picture")
    told = refused(doctor(write(), "--set", "data.max_bad=0.01"), "files")
    assert "more than max_bad = 0.01 allows; mend the files or raise data.max_bad" in told
    assert "24 listed, 1 to be set aside, 0 of them unreadable (lying/0.png: " in told
    code, lines, _ = doctor(write())
    assert code == 0
    assert about(lines, "files")[0].startswith("note 24 listed, 1 to be set aside")
    assert about(lines, "work") == ["ok 23 passes of small (centre), 2 heads to train"]


def test_a_file_that_is_gone_is_unreadable(write, doctor, listed, table):
    table.loc[24] = ["gone.png", "lying"]
    told = refused(doctor(write(listed(table)), "--set", "data.max_bad=0.01"), "files")
    assert "25 listed, 1 to be set aside, 1 of them unreadable (gone.png: no such file" in told


def test_a_class_of_one_sample_is_wrong_and_nothing_is_told_of_what_hangs_on_it(write, doctor, listed, table):
    told = doctor(write(listed(table.iloc[11:])))
    assert "class 'lying' has one usable sample" in refused(told, "labels")
    assert about(told[1], "split") == []
    assert about(told[1], "work") == ["note not told; mend what is wrong first"]
    assert about(told[1], "device"), "the machine is looked at all the same"


def test_copies_and_contradictions_are_noted(write, doctor, pictures, painter):
    shutil.copy(pictures / "lying" / "0.png", pictures / "lying" / "again.png")
    shutil.copy(pictures / "lying" / "1.png", pictures / "upright" / "other.png")
    code, lines, _ = doctor(write(), "--set", "data.max_bad=0.2")
    assert code == 0
    torn, whole = about(lines, "duplicates")
    assert (
        "note 1 pictures stand under several names with contradicting labels (lying/1.png, upright/other.png)"
        in torn
    )
    assert "note 1 pictures stand under several names (lying/0.png, lying/again.png)" in whole


def test_unlabelled_samples_and_probable_typos_are_noted(write, doctor, listed, table):
    table.loc[[0, 1], "class"] = "?"
    table.loc[[2, 3], "class"] = "Lying"
    code, lines, _ = doctor(write(listed(table)))
    assert code == 0
    assert any(line.startswith("note 2 of 24 samples have no label") for line in about(lines, "labels"))
    assert any("'Lying' and 'lying' differ only by case" in line for line in about(lines, "labels"))
    assert any("inner folds" in line for line in about(lines, "split")), (
        "two pictures of a class make no five folds"
    )


def test_weights_of_zero_are_wrong(write, doctor, listed, table):
    data = listed(table.assign(sure=0)) + '\nweight = "sure"'
    code, lines, _ = doctor(write(data))
    assert code == 2
    assert about(lines, "weights")[0].startswith(
        "wrong column 'sure': no labelled sample weighs more than zero"
    )


def test_one_group_is_wrong_and_a_group_for_each_sample_is_noted(write, doctor, listed, table):
    data = listed(table.assign(day="monday", number=np.arange(24)))
    told = refused(doctor(write(data, split='group = "day"')), "split")
    assert "random: class 'lying' has all its samples in one group (monday)" in told
    code, lines, _ = doctor(write(data, split='group = "number"'))
    assert code == 0
    assert "has as many groups as samples" in about(lines, "split")[1]


def test_an_operating_point_of_no_class_is_wrong(write, doctor):
    place = write(experiment='[[operating_points]]\nlabel = "standing"\nrecall = 0.9')
    assert "standing" in refused(doctor(place), "wishes")


def test_a_tap_that_the_network_lacks_is_wrong(write, doctor):
    told = refused(doctor(write(tap="blockz.1:mean")), "network")
    assert "small: tap 'blockz.1:mean': the network has no module 'blockz.1'" in told


def test_weights_that_are_not_the_networks_are_wrong(write, doctor, tmp_path):
    torch.save({"a": torch.zeros(1)}, tmp_path / "odd.pth")
    told = refused(doctor(write(backbone=f'weights = "{tmp_path / "odd.pth"}"')), "work")
    assert "odd.pth: not the weights of" in told


def test_weights_that_are_not_here_are_noted_and_nothing_is_downloaded(write, doctor, monkeypatch):
    monkeypatch.setattr(Backbone, "lacks_weights", lambda backbone: True)
    monkeypatch.setattr(Backbone, "weights_file", lambda backbone: pytest.fail("is downloaded"))
    code, lines, _ = doctor(write())
    assert code == 0
    [network] = about(lines, "network")
    assert network.startswith("note small: rows of blocks.1:mean 24; its weights are not on this machine")
    assert about(lines, "work") == ["ok 24 passes of small (centre), 2 heads to train"]
    assert about(lines, "disk")[0].startswith("ok features take 1.2 KB")
    assert "24 passes of small not estimated, its weights are not here" in about(lines, "time")[0]


def test_features_that_do_not_fit_on_the_disk_are_wrong(write, doctor, monkeypatch):
    monkeypatch.setattr(
        "shutil.disk_usage", lambda place: shutil._ntuple_diskusage(10**6, 10**6 - 1000, 1000)
    )
    told = refused(doctor(write()), "disk")
    assert told.startswith("wrong features take 1.2 KB; 1.0 KB are free; free some")


def test_features_that_do_not_fit_in_memory_are_wrong_for_heads_that_do_not_stream(
    write, doctor, monkeypatch
):
    for place in ("tasks.core.stored", "tasks.core.resources"):
        monkeypatch.setattr(f"{place}.machine_memory", lambda: 30_000)
    # of the 24 columns: fewer rows are held in any case, so there must be more
    views = 'views = ["centre", "hflip"]'
    code, lines, _ = doctor(write(experiment=views))
    assert code == 0
    assert about(lines, "memory")[0].startswith(
        "note early: training on 48 rows of 24 features takes 27.6 KB"
    )
    told = refused(doctor(write(experiment=f'{views}\nhead = "ridge"')), "memory")
    assert "head ridge needs that" in told


def test_an_engine_that_cannot_be_had_is_wrong_if_it_is_pinned(write, doctor, monkeypatch):
    monkeypatch.setattr("flows.doctor.find_spec", lambda name: None)
    code, lines, _ = doctor(write())
    assert code == 0
    [device] = about(lines, "device")
    assert device.startswith("note no GPU")
    assert "pip install 'headstart[cpu]'" in device
    told = refused(doctor(write(backbone='engine = "openvino"')), "device")
    assert told.startswith('wrong small: engine = "openvino": openvino is not installed')


@pytest.mark.parametrize(
    ("api", "state"),
    [(None, "ok none is running"), ("http://127.0.0.1:9/api", "wrong no Prefect server answers")],
)
def test_the_server_is_told(write, doctor, monkeypatch, api, state):
    monkeypatch.setattr(flows.server, "find_server", lambda: api)
    _, lines, _ = doctor(write())
    assert about(lines, "server")[0].startswith(state)


def test_a_server_that_answers_is_fine(write, doctor):
    _, lines, _ = doctor(write())  # the tests' own
    assert about(lines, "server")[0].startswith("ok Prefect at http")


def test_versions_that_do_not_go_together_are_wrong(write, doctor, monkeypatch):
    plain = flows.doctor.library_version
    monkeypatch.setattr(
        "flows.doctor.library_version", lambda name: "0.151.0" if name == "fastapi" else plain(name)
    )
    told = refused(doctor(write()), "versions")
    assert "headstart needs fastapi<0.151, 0.151.0 is installed; pip install 'fastapi<0.151'" in told


def test_a_rate_that_was_measured_before_is_remembered(write, doctor, monkeypatch):
    monkeypatch.setattr(Memory, "recall", lambda memory: {"openvino": Measured(startup=100.0, rate=0.5)})
    _, lines, _ = doctor(write())
    [time] = about(lines, "time")
    assert "24 passes of small about 2 minutes (by openvino, as measured before)" in time
    _, lines, _ = doctor(write(backbone='engine = "eager"'))
    assert "at most: tried in plain torch" in about(lines, "time")[0]


def test_the_rate_is_looked_up_where_a_run_remembers_it(write, doctor, run, monkeypatch, painter, pictures):
    monkeypatch.setattr("tasks.core.choice.FEW", 0)  # so that a run measures
    run(load_study(write()))
    painter(pictures / "lying" / "new.png", 1000, 1.57)
    _, lines, _ = doctor(write())
    assert "as measured before" in about(lines, "time")[0]
