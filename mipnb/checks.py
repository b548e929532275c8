"""What can be known to be wrong before any long work: asked once, at the start of a run."""

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

from mipnb.artefacts import require, under_root
from mipnb.params import Params
from mipnb.stages import Stage
from mipnb.state import outputs

__all__ = ["check_artefacts", "check_inputs", "check_rows", "check_sizes"]


def check_inputs(params: Params, taken: Collection[str]) -> None:
    """Checks the data and models that the parameters name, without loading any.

    Args:
        params: The run's parameters.
        taken: The names that the notebooks to be run take; nothing else is looked at.

    Raises:
        FileNotFoundError: If a folder is missing.
        ValueError: If the forget ratio does not exist, a shipped model is damaged, or the model has fewer
            neurons or layers than the parameters ask for, given paths do not fit model or benchmark, the judge
            is no chat model, the second vanilla model is of another kind than the first, or nobody is left to show examples of.
    """
    if "benchmark_dir" in taken:
        _check_benchmark(params, taken)
    _check_choices(params, taken)
    if "n_shots" in taken and params.n_shots:
        _check_shots(params)
    if "training_dir" in taken and params.training_dir and not under_root(params.training_dir).is_dir():
        raise FileNotFoundError(f"training_dir = {params.training_dir}: there is no such folder")
    if "judge_dir" in taken and params.judge_dir:
        from mipnb.judge import judge_tokenizer

        judge_tokenizer(under_root(params.judge_dir))
    if "device" in taken:
        _check_device(params.device)
    if params.retrain:  # the vanilla model is about to be made from the base model, with the same layers
        params = params.model_copy(
            update={"model_dir": params.base_dir, "model_revision": params.base_revision}
        )
    from_scratch = params.retrain and params.retrain_by == "pocket"
    for name in () if from_scratch else ("base_dir", "model_dir"):
        if name in taken:
            _check_model(params, name)
    second = "second_vanilla_dir" in taken and params.second_vanilla_dir
    if second:
        _check_model(params, "second_vanilla_dir")
    if "model_dir" in taken and (not from_scratch or under_root(params.model_dir).is_dir()):
        _check_sizes(params, taken)
        if second:
            _check_second(params)
    if "reuse_paths" in taken and (params.reuse_paths or params.use_released_paths):
        from mipnb.reuse import check_given

        check_given(params)
    if "run_dir" in taken and "model_dir" in taken:
        _check_disk(params)


def _check_disk(params: Params) -> None:
    """Checks that the disk has room for the model that is trained anew and for the edited one, saved whole."""
    from mipnb import models

    weights = [path.stat().st_size for path in under_root(params.model_dir).glob("*.safetensors")]
    models.check_space(under_root(params.run_dir), sum(weights) * (2 if params.retrain else 1))


def _check_device(device: str) -> None:
    """Checks that a GPU asked for by name is there."""
    if device.startswith("cuda"):
        from mipnb.preconditions import check_device

        check_device(device)


def _check_benchmark(params: Params, taken: Collection[str]) -> None:
    """Checks that the benchmark is there, is of the kind asked for, and has the forget ratios."""
    from mipnb import benchmarks

    folder = under_root(params.benchmark_dir)
    if not folder.is_dir():
        raise FileNotFoundError(f"benchmark_dir = {params.benchmark_dir}: there is no folder {folder}")
    kind = benchmarks.benchmark_kind(folder)
    if params.benchmark not in ("auto", kind):
        raise ValueError(
            f"benchmark = {params.benchmark}: {folder} looks like {benchmarks.described(folder)}; expected "
            f"{benchmarks.LAYOUTS[params.benchmark]}; give such a folder as benchmark_dir, or set benchmark to auto"
        )
    there = benchmarks.forget_ratios(folder)
    asked = [("forget_ratio", params.forget_ratio)] if "forget_ratio" in taken else []
    asked += [("other_ratios", ratio) for ratio in params.other_ratios if "other_ratios" in taken]
    for name, ratio in asked:
        if ratio not in there:
            raise ValueError(
                f"{name} = {getattr(params, name)}: {folder} has no forget_{ratio}; "
                f"it has the ratios {', '.join(map(str, there)) or '(none)'}"
            )


def _check_choices(params: Params, taken: Collection[str]) -> None:
    """Checks what notebooks would find out late: baselines by name, and a search that a rule does not go with."""
    if "methods" in taken:
        from mipnb.results.unlearners import check_methods

        check_methods(params.methods)
    if {"search", "rule"} <= set(taken):
        from mipnb.rules import check_search

        check_search(params.search, params.rule, getattr(params, "score", "complete"))


def _check_shots(params: Params) -> None:
    """Checks that the evaluation has enough people to show examples of."""
    from mipnb.benchmarks import check_shots

    asked = params.forget_ratio, params.n_eval_retain, params.seed, params.protocol
    check_shots(under_root(params.benchmark_dir), *asked, params.n_shots)


def check_rows(params: Params, taken: Collection[str]) -> None:
    """Reads every row that the notebooks will read, so that a faulty one is told before any work.

    Raises:
        ValueError: Naming file, row, ID and what is wrong: a field, a picture, an empty set, a person in both sets.
    """
    if not {"benchmark_dir", "forget_ratio"} <= set(taken):
        return
    from mipnb.benchmarks.validation import check_data

    training = params.training_dir if "training_dir" in taken else ""
    report = check_data(params.benchmark_dir, params.forget_ratio, training, decode=False)
    if report.errors:
        more = (
            f"\n({len(report.errors) - 5} more: `mipnb check-data {report.folder}`)"
            if len(report.errors) > 5
            else ""
        )
        raise ValueError("\n".join(report.errors[:5]) + more)


def _check_model(params: Params, name: str) -> None:
    """Checks that a model can be had, is of a known family, and its files are as they were shipped."""
    from mipnb import models

    folder = getattr(params, name)
    try:
        models.check_model(folder, getattr(params, name.replace("_dir", "_revision"), ""))
    except (FileNotFoundError, ValueError) as error:
        raise type(error)(f"{name} = {folder}: {error}") from None


def _check_second(params: Params) -> None:
    """Checks that the second vanilla model is as large as the first one."""
    from mipnb import models

    first = models.ffn_sizes(params.model_dir, params.model_revision)
    second = models.ffn_sizes(params.second_vanilla_dir, "")
    if first != second:
        raise ValueError(
            f"second_vanilla_dir = {params.second_vanilla_dir}: its (layers, neurons) are {second}, those of model_dir = "
            f"{params.model_dir} are {first}; give the same model trained by another seed, or leave it empty"
        )


def _check_sizes(params: Params, taken: Collection[str]) -> None:
    """Checks numbers of neurons and layer_index against the model's configuration."""
    from mipnb import models

    check_sizes(params, taken, models.ffn_sizes(params.model_dir, params.model_revision))


def check_sizes(params: Params, taken: Collection[str], sizes: Mapping[str, tuple[int, int]]) -> None:
    """Checks numbers of neurons and layer_index.

    Args:
        params: The run's parameters.
        taken: The names of those that are looked at.
        sizes: Layers and neurons of each branch of the model.

    Raises:
        ValueError: If the model has fewer.
    """
    for branch, (layers, neurons) in sizes.items():
        for name in (f"{branch}_top_k", f"trial_{branch}_top_k", "pointwise_top_k"):
            if name in taken and getattr(params, name) > neurons:
                raise ValueError(
                    f"{name} = {getattr(params, name)}: the model has {neurons} neurons "
                    f"in each of its {layers} {branch} layers"
                )
    if "layer_index" in taken and params.layer_index >= sizes["text"][0]:
        raise ValueError(
            f"layer_index = {params.layer_index}: the model has {sizes['text'][0]} language layers, "
            "counted from 0"
        )


def check_artefacts(stage: Stage, stages: dict[str, Stage], run: Path) -> None:
    """Checks that what a notebook reads from earlier ones is there.

    Raises:
        FileNotFoundError: Naming what is missing and the notebook that makes it.
    """
    for name in stage.reads:
        for path in _expected(stages[name], run):
            require(path, made_by=name)


def _expected(stage: Stage, run: Path) -> Sequence[Path]:
    """Returns what a stage must have left: the files the table names, or else anything at all."""
    folder = run / stage.name
    if stage.writes:
        return [folder / name for name in stage.writes]
    return [] if outputs(stage, run) else [folder / "(its artefacts)"]
