"""Where a benchmark lies: a folder, or a data set of the hub at a pinned commit; offline, gated, missing."""

from pathlib import Path
from types import SimpleNamespace

import huggingface_hub
import pytest
from huggingface_hub import constants, errors
from small_benchmarks import mllmu

from mipnb.benchmarks import benchmark_folder, benchmark_name, forget_ids
from mipnb.commands import run as running
from mipnb.params import Params

COMMIT = "0123456789abcdef0123456789abcdef01234567"
NAME = "MLLMMU/MLLMU-Bench"


def test_a_folder_is_taken_as_it_is(tmp_path):
    assert benchmark_folder(str(tmp_path)) == tmp_path
    assert benchmark_folder(str(tmp_path), COMMIT) == tmp_path


def test_a_missing_folder_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"there is no folder .*nowhere"):
        benchmark_folder(str(tmp_path / "nowhere"), COMMIT)


def test_a_data_set_of_the_hub_needs_a_pinned_commit():
    with pytest.raises(FileNotFoundError, match="needs its commit"):
        benchmark_folder(NAME)
    with pytest.raises(ValueError, match="revision 'main' of MLLMMU/MLLMU-Bench: expected a commit"):
        benchmark_folder(NAME, "main")


def test_offline_a_data_set_that_is_not_here_is_said_to_be_missing(tmp_path, monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(
        FileNotFoundError, match=f"{NAME} at {COMMIT} is not on this machine and the hub cannot be reached"
    ):
        benchmark_folder(NAME, COMMIT)


def test_offline_a_snapshot_that_was_fetched_is_used(tmp_path, monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    snapshot = mllmu(tmp_path / "datasets--MLLMMU--MLLMU-Bench" / "snapshots" / COMMIT)
    assert benchmark_folder(NAME, COMMIT) == snapshot
    assert forget_ids(benchmark_folder(NAME, COMMIT), 5) == ["000"]
    assert benchmark_name(snapshot) == "MLLMU-Bench"
    assert benchmark_name(snapshot.parent) == "snapshots"


def failing(error: type[Exception], **more):
    def snapshot_download(*_, **__):
        raise error("403 Client Error\nmore lines", **more)

    return snapshot_download


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (errors.GatedRepoError, "is gated: accept its terms"),
        (errors.RepositoryNotFoundError, f"the hub has no data set {NAME} at {COMMIT}"),
        (errors.RevisionNotFoundError, f"the hub has no data set {NAME} at {COMMIT}"),
    ],
)
def test_what_the_hub_refuses_is_explained(monkeypatch, error, words):
    response = SimpleNamespace(headers={}, request=None)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", failing(error, response=response))
    with pytest.raises(FileNotFoundError, match=words) as caught:
        benchmark_folder(NAME, COMMIT)
    assert "more lines" not in str(caught.value)


def test_the_commit_and_the_kind_of_repository_are_asked_for(monkeypatch, tmp_path):
    asked = {}
    monkeypatch.setattr(
        huggingface_hub,
        "snapshot_download",
        lambda name, **more: asked.update(more, name=name) or str(tmp_path),
    )
    assert benchmark_folder(NAME, COMMIT) == tmp_path
    assert (asked["name"], asked["repo_type"], asked["revision"]) == (NAME, "dataset", COMMIT)


def test_a_run_gets_the_folders_of_both_data_sets(monkeypatch, tmp_path):
    monkeypatch.setattr(
        huggingface_hub, "snapshot_download", lambda name, **_: str(tmp_path / Path(name).name)
    )
    params = Params(
        benchmark_dir=NAME,
        benchmark_revision=COMMIT,
        training_dir="MLLMMU/baseline_train_split",
        training_revision=COMMIT,
    )
    found = running.with_hub_data(params)
    assert found.benchmark_dir == str(tmp_path / "MLLMU-Bench")
    assert found.training_dir == str(tmp_path / "baseline_train_split")
    assert running.with_hub_data(Params()) == Params()
