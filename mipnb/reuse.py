"""Paths that were located before: our own (`reuse_paths`), or by the paper's authors (`use_released_paths`).

Either takes the place of notebooks 02 and 03. With neither, notebook 03's paths of the same run are edited.
"""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel
from torch import nn

from mipnb import models
from mipnb.artefacts import stage_dir, under_root
from mipnb.paths import NeuronPath, random_path
from mipnb.released import (
    branch_of,
    branch_sizes,
    find_released,
    read_released,
    released_paths,
    write_released,
)
from mipnb.scores import Scores
from mipnb.sources import empty_model, model_source, read_config
from mipnb.trials import load_paths

BRANCHES = models.BRANCHES

_QUICKLY_READ = (
    2**30
)  # bytes of weights; those of a larger model are compared once it is loaded, in 04_editing


def edited_paths(params: BaseModel, model: nn.Module, index: int | None = None) -> list[NeuronPath]:
    """The paths that a run edits, text first: given ones, or those of its notebook 03.

    Args:
        params: run_dir, seed, benchmark_dir, forget_ratio, text_top_k, vision_top_k, use_released_paths, reuse_paths.
        model: the vanilla model.
        index: which random path in place of the located one: as many neurons in every layer, drawn by seed + index.

    Raises:
        FileNotFoundError: a path is missing.
        ValueError: paths given twice, or of another model.
    """
    located = given_paths(params, model)
    if not located:
        return load_paths(stage_dir(params.run_dir, "03_paths") / "paths", model, index)
    return located if index is None else [random_path(path, params.seed + index) for path in located]


def given_paths(params: BaseModel, model: nn.Module) -> list[NeuronPath]:
    """The paths that the parameters name, text first; none if they name none. Errors as `edited_paths`."""
    _check_one(params)
    if params.reuse_paths:
        return stored_paths(params.reuse_paths, model)
    if params.use_released_paths:
        top_k = {branch: getattr(params, f"{branch}_top_k") for branch in BRANCHES}
        where = (params.benchmark_dir, params.forget_ratio)
        return released_paths(params.use_released_paths, model, *where, top_k)
    return []


def _check_one(params: BaseModel) -> None:
    if params.reuse_paths and params.use_released_paths:
        raise ValueError(
            f"reuse_paths = {params.reuse_paths} and use_released_paths = {params.use_released_paths} are both given: "
            f"a run edits one pair of paths; leave one of the two empty"
        )


def stored_paths(place: str | Path, model: nn.Module) -> list[NeuronPath]:
    """Text and vision path from where they were stored, checked against the model by its fingerprint.

    Args:
        place: another run's folder, a folder with text.safetensors and vision.safetensors, or the file of one
            branch's path; then the other branch's path is empty, and that branch is not edited.
        model: the vanilla model.

    Raises:
        FileNotFoundError: nothing there.
        ValueError: no path file, or a path of another model.
    """
    found = {path.branch: path for path in (_stored(file, model) for file in stored_files(place))}
    return [found.get(branch) or _empty_path(branch, model) for branch in BRANCHES]


def _stored(file: Path, model: nn.Module | None = None) -> NeuronPath:
    """A path from a file, which is of the branch that the file is named after, if it is."""
    path = NeuronPath.load(file, model)
    if path.branch not in BRANCHES or (file.stem in BRANCHES and file.stem != path.branch):
        raise ValueError(
            f"reuse_paths: {file} holds a path of the {path.branch} branch; expected the {file.stem} branch's in a file of "
            f"that name, branches being {' and '.join(BRANCHES)}: rename it, or give the other file"
        )
    return path


def stored_files(place: str | Path) -> list[Path]:
    """The path files at a place, see `stored_paths`; FileNotFoundError if there are none."""
    place = under_root(place)
    if place.is_file():
        return [place]
    folder = place / "03_paths" / "paths" if (place / "03_paths").is_dir() else place
    files = [folder / f"{branch}.safetensors" for branch in BRANCHES]
    if missing := [file for file in files if not file.is_file()]:
        raise FileNotFoundError(
            f"reuse_paths: there is no {missing[0]}; expected a run's folder, a folder with text.safetensors and "
            f"vision.safetensors, or one such file"
        )
    return files


def _empty_path(branch: str, model: nn.Module) -> NeuronPath:
    networks = models.ffns(model, branch)
    none = tuple(() for _ in networks)
    return NeuronPath(branch, none, networks[0].n_neurons, models.fingerprint(model))


def check_given(params: BaseModel) -> None:
    """What can be known of given paths at once: files, shapes, numbers of samples; of a small model also whose they are.

    Raises:
        FileNotFoundError, ValueError: see `stored_paths` and `released.find_released`.
    """
    _check_one(params)
    if not params.reuse_paths and not params.use_released_paths:
        return
    sizes = branch_sizes(empty_model(read_config(params.model_dir, params.model_revision)))
    if params.use_released_paths:
        find_released(params.use_released_paths, sizes, params.benchmark_dir, params.forget_ratio)
        return
    for file in stored_files(params.reuse_paths):
        path = _stored(file)
        size = sizes[path.branch]
        if (len(path.layers), path.n_neurons) != (size.layers, size.neurons):
            raise ValueError(
                f"{file} has {len(path.layers)} layers of {path.n_neurons} neurons; the model's {path.branch} branch "
                f"has {size.layers} of {size.neurons}: it is of another model, locate anew"
            )
    _check_fingerprints(params)


def _check_fingerprints(params: BaseModel) -> None:
    """Refuses paths of another model of the same shape, where the model is there and small enough to be read for this."""
    weights = sum(path.stat().st_size for path in under_root(params.model_dir).glob("*.safetensors"))
    if 0 < weights < _QUICKLY_READ and not params.retrain:
        stored_paths(params.reuse_paths, models.load_model(params.model_dir, revision=params.model_revision))


def convert(source: str | Path, target: str | Path, params: BaseModel, as_path: bool = False) -> str:
    """A released score tensor (.pt) as our file (.safetensors), or our scores as a released tensor.

    Args:
        source: scores, .pt or .safetensors.
        target: the file to write; it has the other ending.
        params: model_dir and benchmark_dir say which model and questions a released file is of; forget_ratio and
            the branch's top_k count for a path.
        as_path: write the forget set's path (top_k a sample and layer, united), ready for `reuse_paths`, rather
            than the scores.

    Returns:
        A sentence that says what was written, and what the format could not hold.

    Raises:
        FileNotFoundError, ValueError: see `released.read_released`; endings that are not one of each kind.
    """
    kinds = (Path(source).suffix, Path(target).suffix)
    if kinds == (".safetensors", ".pt") and not as_path:
        exact = write_released(Scores.load(source), target)
        lost = "no score was rounded" if exact else "scores were rounded to bfloat16"
        return f"wrote {target}: {lost}; names and fingerprint have no place in this format"
    if kinds != (".pt", ".safetensors"):
        raise ValueError(
            f"cannot make {target} of {source}: expected .pt and .safetensors, or scores .safetensors and .pt"
        )
    branch = branch_of(source)
    sizes = branch_sizes(empty_model(read_config(params.model_dir, params.model_revision)))
    released = read_released(source, branch, sizes, params.benchmark_dir, params.forget_ratio)
    fingerprint = models.fingerprint(
        models.load_model(model_source(params.model_dir), revision=params.model_revision)
    )
    if as_path:
        path = released.path(fingerprint, getattr(params, f"{branch}_top_k"), params.benchmark_dir)
        path.save(target)
        return f"wrote {target}: {sum(path.sizes)} neurons of the {branch} branch, of {len(released.forget_rows)} samples"
    released.scores(fingerprint).save(target)
    return f"wrote {target}: scores of the {branch} branch, {len(released.names)} samples"
