"""The vanilla model of a run: the shipped one or one trained anew, its parts, and the note by which others find it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
from pydantic import BaseModel
from torch import nn

from mipnb.artefacts import project_root, under_root, write_json
from mipnb.benchmarks import load_training, retain_ids
from mipnb.lora import PAPER, LoraRecipe, tune_lora
from mipnb.models import BRANCHES, family, ffns, fingerprint, load_model, load_processor, save_model
from mipnb.pocket.recipe import RECIPE, make_base, make_vanilla
from mipnb.sources import ffn_sizes

#: parameter of a run -> field of LoraRecipe, with `lora_` before it
_LORA = ("rank", "alpha", "dropout", "learning_rate", "epochs", "batch_size", "save_every")


def remake(
    root: str | Path, folder: str | Path, seed: int, recipe: dict = RECIPE, report: Callable | None = print
) -> tuple[Path, pd.DataFrame]:
    """Train base and then vanilla into `folder`/base and `folder`/vanilla.

    Args:
        root: the pocket benchmark.
        folder: of the notebook.
        seed: of weights and order.
        recipe: see `pocket.recipe.RECIPE`.
        report: told a line every 100 steps.

    Returns:
        The vanilla model's folder; the losses: phase (tower, base, vanilla), step, loss.
    """
    folder = Path(folder)
    base, vanilla = folder / "base", folder / "vanilla"
    losses = make_base(root, base, seed, recipe, _every_100("base", report))
    tower, rest = losses[: recipe["tower_steps"]], losses[recipe["tower_steps"] :]
    tuned = make_vanilla(root, base, vanilla, seed, recipe, _every_100("vanilla", report))
    phases = {"tower": tower, "base": rest, "vanilla": tuned}
    rows = [(phase, step, loss) for phase, curve in phases.items() for step, loss in enumerate(curve)]
    return vanilla, pd.DataFrame(rows, columns=["phase", "step", "loss"])


def remake_by_lora(
    root: str | Path,
    base: str | Path,
    folder: str | Path,
    seed: int,
    recipe: LoraRecipe = PAPER,
    report: Callable | None = print,
    **loading: Any,
) -> tuple[Path, pd.DataFrame]:
    """Fine-tune a base model on the benchmark's ft_Data by LoRA, into `folder`/vanilla; resumable.

    Args:
        root: the benchmark.
        base: the base model, a folder or a hub id.
        folder: of the notebook; an interrupted call leaves lora.safetensors there, and the next one goes on from it.
        seed: of weights, dropout and order.
        recipe: see `lora.LoraRecipe`.
        report: told a line every 100 steps.
        **loading: of `load_model`: dtype, device, revision, ...

    Returns:
        The vanilla model's folder; the losses: phase (lora), step, loss.
    """
    folder = Path(folder)
    model = load_model(base, **loading)
    processor = load_processor(base, loading.get("revision", ""))
    questions, checkpoint = load_training(root, "ft_Data"), folder / "lora.safetensors"
    curve = tune_lora(model, processor, questions, checkpoint, recipe, seed, _every_100("lora", report))
    vanilla = save_model(model, processor, folder / "vanilla")
    checkpoint.unlink()
    return vanilla, pd.DataFrame({"phase": "lora", "step": range(len(curve)), "loss": curve})


def retrained(params: BaseModel, ratio: int, folder: str | Path) -> Path:
    """The model trained on the retain set only: the shipped one (retrained_dir), or one trained into a folder.

    Args:
        params: of a run: retrained_dir, benchmark_dir, base_dir, seed, retrain_by and what `remake_by_lora` takes.
        ratio: forget ratio, percent.
        folder: where one that is not shipped goes, as retrained_<ratio>; one that is there is taken.

    Returns:
        The model's folder.

    Raises:
        ValueError: the model in retrained_dir has other layers or neurons than base_dir: it is another model's reference.
    """
    shipped = under_root(params.retrained_dir.format(ratio=ratio))
    made = Path(folder) / f"retrained_{ratio}"
    if not shipped.is_dir() and not made.is_dir():
        make_retrained(params, ratio, made)
    if not shipped.is_dir():
        return made
    found, expected = ffn_sizes(shipped), ffn_sizes(params.base_dir, params.base_revision)
    if found != expected:
        raise ValueError(
            f"retrained_dir = {shipped} has (layers, neurons) {found}, base_dir = {params.base_dir} {expected}: it is no "
            "reference for this model. Name its own, or a folder that does not exist, and it is trained"
        )
    return shipped


def make_retrained(params: BaseModel, ratio: int, out: str | Path, report: Callable | None = print) -> Path:
    """Train the base model on the retain set only, as the vanilla model was trained on everybody.

    Args:
        params, ratio: see `retrained`.
        out: the folder to write, whole or not at all.
        report: told a line every 100 steps.
    """
    root, ids, tell = (
        params.benchmark_dir,
        retain_ids(params.benchmark_dir, ratio),
        _every_100("retrained", report),
    )
    if params.retrain_by == "pocket":
        make_vanilla(root, under_root(params.base_dir), out, params.seed, report=tell, ids=ids)
        return Path(out)
    loading = {name: getattr(params, name) for name in ("dtype", "device", "attention")}
    model = load_model(params.base_dir, revision=params.base_revision, **loading)
    processor, checkpoint = (
        load_processor(params.base_dir, params.base_revision),
        Path(f"{out}.lora.safetensors"),
    )
    recipe = LoraRecipe(**{name: getattr(params, f"lora_{name}") for name in _LORA})
    tune_lora(model, processor, load_training(root, ids=ids), checkpoint, recipe, params.seed, tell)
    save_model(model, processor, out)
    checkpoint.unlink()
    return Path(out)


def remake_as_told(root: str | Path, folder: str | Path, params: BaseModel) -> tuple[Path, pd.DataFrame]:
    """`remake` or `remake_by_lora`, as a run's parameters say (retrain_by)."""
    if params.retrain_by == "pocket":
        return remake(root, folder, params.seed)
    recipe = LoraRecipe(**{name: getattr(params, f"lora_{name}") for name in _LORA})
    loading = {
        name: getattr(params, name) for name in ("dtype", "device", "attention", "gradient_checkpointing")
    }
    return remake_by_lora(
        root, params.base_dir, folder, params.seed, recipe, revision=params.base_revision, **loading
    )


def _every_100(phase: str, report: Callable | None) -> Callable:
    def tell(step: int, loss: float) -> None:
        if report and step % 100 == 0:
            report(f"{phase} step {step}: loss {loss:.3f}")

    return tell


def record_model(stage: str | Path, folder: str | Path, model: nn.Module) -> Path:
    """Write model.json, from which `models.run_model` reads where the run's vanilla model is."""
    folder, root = Path(folder).resolve(), project_root().resolve()
    place = folder.relative_to(root) if folder.is_relative_to(root) else folder
    return write_json(
        Path(stage) / "model.json", {"folder": place.as_posix(), "fingerprint": fingerprint(model)}
    )


def anatomy(model: nn.Module) -> pd.DataFrame:
    """What a model consists of: a row a branch, one for all else, and the total.

    Returns:
        Index part; columns layers, neurons_a_layer, neurons, parameters, in_FFNs (parameters).
    """
    counts = {name: parameter.numel() for name, parameter in model.named_parameters()}
    rows = {}
    for branch in BRANCHES:
        nets = ffns(model, branch)
        prefix = family(model.config.model_type).branch(branch).layers + "."
        weights = tuple(f"{name}." for net in nets for name in (*net.input_names, net.output_name))
        rows[f"{branch} branch"] = {
            "layers": len(nets), "neurons_a_layer": nets[0].n_neurons, "neurons": sum(net.n_neurons for net in nets),
            "parameters": sum(count for name, count in counts.items() if name.startswith(prefix)),
            "in_FFNs": sum(count for name, count in counts.items() if name.startswith(weights)),
        }  # fmt: skip
    rest = sum(counts.values()) - sum(row["parameters"] for row in rows.values())
    rows["embeddings, connector, norms"] = {"parameters": rest, "in_FFNs": 0}
    table = pd.DataFrame(rows).T
    table.loc["all"] = table.sum().where(table.columns != "neurons_a_layer")
    return table.astype("Int64").rename_axis("part")
