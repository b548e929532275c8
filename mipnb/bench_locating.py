"""What locating costs, and what its estimators are worth: `mipnb bench locating`.

Prints ratios from one run, each timed beside what it is held against, and writes a table a question asked:

- cost: one_pass and the estimators against m bare passes forward and backward, greedy against the plain layer-by-layer search;
- scaling: seconds and peak memory against samples, steps, layers and tokens;
- gap: completeness gap and error of the scores against steps, by rule;
- agreement: every estimator with `exact`, on the same questions.
"""

from __future__ import annotations

import statistics
from argparse import Namespace
from collections.abc import Callable
from functools import partial
from typing import Any

import pandas as pd
import torch
from torch import nn

from mipnb.artefacts import atomic_path, under_root
from mipnb.attribution import attribute
from mipnb.batches import IGNORED, Batch, encode
from mipnb.benchmarks import draw_questions, forget_ids, load_training
from mipnb.estimators import (
    ESTIMATORS,
    agreement_table,
    cheapest_that_agrees,
    gap_bar_sentence,
    integration_errors,
)
from mipnb.least_cost import least_cost_sentence
from mipnb.locating import PAIRS, of_modality
from mipnb.measuring import interleaved, peak_bytes
from mipnb.models import ffns, load_model, load_processor
from mipnb.params import subset
from mipnb.parts import pick
from mipnb.passes import Question
from mipnb.plain import bare_passes, plain_greedy
from mipnb.rules import quadrature
from mipnb.shapes import find_config, read_shape

QUESTIONS = ("cost", "scaling", "gap", "agreement")
STEPS = 4  # m, but where it varies
TOP_K = 5
DEAR = ("shortlist",)  # estimators that are timed in one round only
FIXED = (1, 2, 4, 8, 12, 16, 24, 32)  # steps of the rules with fixed points
GAP_RULES = {"right": (*FIXED, 64), "midpoint": FIXED, "gauss": FIXED, "stieltjes": (1, 2, 4, 8, 16)}


def cost(model: nn.Module, batches: dict[str, Batch], repeats: int) -> pd.DataFrame:
    """Seconds, peak memory and ratios.

    Returns:
        Columns pair, call, against, seconds (median), ratio (median of the rounds), low, high (of the rounds), peak_gb.
    """
    rows = []
    for pair, batch in batches.items():
        calls = _calls(model, batch, PAIRS[pair][0])
        seconds = interleaved({name: call for name, call in calls.items() if name not in DEAR}, repeats)
        seconds |= interleaved({name: calls[name] for name in DEAR}, 1)
        for name, spent in seconds.items():
            against = "plain greedy" if name.startswith("greedy") else "bare passes"
            beside = seconds[against][-len(spent) :]
            ratios = [a / b for a, b in zip(spent, beside, strict=True)]
            median = statistics.median
            measured = (
                median(spent),
                median(ratios),
                min(ratios),
                max(ratios),
                peak_bytes(calls[name], model) / 1e9,
            )
            rows.append((pair, name, against, *measured))
    return pd.DataFrame(
        rows, columns=["pair", "call", "against", "seconds", "ratio", "low", "high", "peak_gb"]
    )


def _calls(model: nn.Module, batch: Batch, branch: str) -> dict[str, Callable[[], object]]:
    kind = "ifi" if branch == "vision" else "igi"
    target = "log_likelihood" if branch == "vision" else "probability"
    networks = ffns(model, branch)
    fixed = {
        "power": 2 if kind == "ifi" else 1,
        "target": target,
        "packed": branch == "vision",
        "top_k": TOP_K,
    }
    calls: dict[str, Callable[[], object]] = {
        "bare passes": partial(bare_passes, model, batch, networks, STEPS, target),
        "plain greedy": partial(plain_greedy, model, batch, networks, quadrature("right", STEPS), **fixed),
    }
    own = {"top_k": TOP_K, "n_steps": STEPS, "completeness": False, "fingerprint": ""}
    named = ESTIMATORS | {"greedy, joint": {"search": "greedy", "score": "joint"}}
    return calls | {
        name: partial(attribute, model, batch, branch, **own | choices) for name, choices in named.items()
    }


def scaling(model: nn.Module, batches: dict[str, Batch]) -> pd.DataFrame:
    """Time and memory against one size at a time.

    Layers are the first so many of the branch: passes can begin in the middle of those only (`replay.layout`).

    Returns:
        Columns pair, search, varied (samples, n_steps, layers, tokens), size, seconds, peak_gb.
    """
    rows = []
    for pair, batch in batches.items():
        branch = PAIRS[pair][0]
        networks = ffns(model, branch)
        base = {"top_k": TOP_K, "completeness": False, "fingerprint": "", "max_rows": 32}
        for search in ("greedy", "one_pass"):
            asked: dict[tuple[str, int], tuple[Batch, dict[str, Any]]] = {}
            for size in (2, 4, 8, 16):
                asked["samples", size] = (_first(batch, size), {})
                asked["n_steps", size] = (_first(batch, 8), {"n_steps": size})
            for size in range(1, len(networks) + 1):
                asked["layers", size] = (_first(batch, 8), {"ffns": networks[:size]})
            for size in (1, 2, 4):
                longer = _lengthened(_first(batch, 8), size)
                asked["tokens", longer["labels"].shape[1]] = (longer, {})
            for (varied, size), (part, changed) in asked.items():
                call = partial(attribute, model, part, branch, search=search, **base | changed)
                seconds = statistics.median(interleaved({"": call}, 3)[""])
                rows.append((pair, search, varied, size, seconds, peak_bytes(call, model) / 1e9))
    return pd.DataFrame(rows, columns=["pair", "search", "varied", "size", "seconds", "peak_gb"])


def _first(batch: Batch, size: int) -> Batch:
    """That many samples, the batch from the beginning again where it ends."""
    return pick(batch, torch.arange(size) % len(batch["labels"]))


def _lengthened(batch: Batch, times: int) -> Batch:
    """The same samples with `times` as many tokens: words in front that nobody asks about."""
    shape = (len(batch["labels"]), (times - 1) * batch["labels"].shape[1])
    word = int(batch["labels"].max())  # of an answer, so no special token
    front = {"input_ids": word, "attention_mask": 1, "mm_token_type_ids": 0, "labels": IGNORED}
    return batch | {
        key: torch.cat([batch[key].new_full(shape, fill), batch[key]], dim=1) for key, fill in front.items()
    }


def gap(model: nn.Module, batches: dict[str, Batch], samples: int) -> pd.DataFrame:
    """`estimators.integration_errors` of both searches and branches, with the pair in front."""
    parts = []
    for pair, batch in batches.items():
        for search in ("one_pass", "greedy"):
            part = _first(batch, samples)
            found = integration_errors(model, part, PAIRS[pair][0], search, GAP_RULES, top_k=TOP_K)
            parts.append(found.assign(pair=pair))
    return pd.concat(parts)


def agreement(model: nn.Module, batches: dict[str, Batch], samples: int) -> pd.DataFrame:
    """`estimators.agreement_table` of all estimators with `exact` (Gauss-Legendre, m = 4), by pair and kind of gradient."""
    parts = []
    for pair, batch in batches.items():
        part, branch = _first(batch, samples), PAIRS[pair][0]
        own = {"top_k": TOP_K, "completeness": False, "fingerprint": ""}
        for kind in ("igi", "ifi") if branch == "vision" else ("igi",):
            truth = attribute(
                model, part, branch, kind=kind, search="exact", rule="gauss", n_steps=STEPS, **own
            )
            found = {
                name: attribute(model, part, branch, kind=kind, **own | {"n_steps": STEPS} | choices)
                for name, choices in ESTIMATORS.items()
            }
            parts.append(agreement_table(found, truth, TOP_K, pair).assign(kind=kind))
    return pd.concat(parts)


def run(options: Namespace) -> int:
    """Measures, prints and writes the tables asked for.

    Raises:
        ValueError: fewer questions than there have to be, or more compared than there are; told before anything is measured.
    """
    _check_sizes(options)
    model = load_model(under_root(options.model), options.dtype, options.device)
    batches = bench_batches(options.model, options.benchmark, options.samples, options.pairs, options.device)
    tables: dict[str, Callable[[], pd.DataFrame]] = {
        "cost": lambda: cost(model, batches, options.repeats),
        "scaling": lambda: scaling(model, batches),
        "gap": lambda: gap(model, batches, options.compared),
        "agreement": lambda: agreement(model, batches, options.compared),
    }
    made = {}
    for name in options.only or QUESTIONS:
        made[name] = tables[name]()
        path = under_root(options.out) / f"{name}.csv"
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_path(path) as temporary:
            made[name].to_csv(temporary, index=False, float_format="%.6g")
        print(f"\n{name} ({path})\n{_shown(name, made[name])}", flush=True)
    print("\n".join(_read_off(made, options.model, batches, model.config.image_token_id)))
    return 0


def _check_sizes(options: Namespace) -> None:
    """By the bounds of notebook 13's parameters."""
    sizes = {"samples": options.samples, "compared": options.compared, "repeats": options.repeats}
    subset({f"bench_{name}": value for name, value in sizes.items()})
    if options.compared > options.samples:
        raise ValueError(
            f"--compared is {options.compared}, --samples {options.samples}: those compared are among the "
            f"batch's questions; expected at most {options.samples}"
        )


def _read_off(
    made: dict[str, pd.DataFrame], model_dir: str, batches: dict[str, Batch], picture: int
) -> list[str]:
    """What the tables say together, a sentence each."""
    told = []
    if {"cost", "agreement"} <= made.keys():
        best = cheapest(made) or "none"
        told.append(f"\ncheapest estimator with a top-{TOP_K} overlap of 0.9 with exact: {best}")
    if {"cost", "gap"} <= made.keys():
        spent = made["cost"].set_index(["call", "pair"]).seconds
        times = (spent["greedy, stieltjes"] / spent["greedy"]).median()
        told.append(f"\n{gap_bar_sentence(made['gap'], STEPS, times)}")
    if "cost" in made and "vision" in batches:
        batch = batches["vision"]
        shapes = {
            "this model": (
                read_shape(*find_config(model_dir)),
                typical(batch),
                before_picture(batch, picture),
            )
        }
        told.append(f"\n{least_cost_sentence(shapes, STEPS)}")
    return told


def typical(batch: Batch) -> Question:
    """The size of a batch's questions, pictured and with answers, for counting operations."""
    answer = int((batch["labels"] != IGNORED).sum(1).float().mean().round())
    return Question(batch["labels"].shape[1], answer, len(batch["pixel_values"]) // len(batch["labels"]))


def before_picture(batch: Batch, picture: int) -> int:
    """Tokens before the first one that stands for the picture (that word), the fewest of a batch's questions."""
    return int((batch["input_ids"] == picture).int().argmax(1).min())


def bench_batches(
    model_dir: str, benchmark: str, samples: int, pairs: list[str] | None = None, device: str = "cpu"
) -> dict[str, Batch]:
    """By pair the middle third, by length, of three times as many training questions of the people to forget."""
    processor, root = load_processor(under_root(model_dir)), under_root(benchmark)
    drawn = draw_questions(load_training(root, ids=forget_ids(root, 5)), 3 * samples, seed=0)
    found = {}
    for pair in pairs or PAIRS:
        asked = of_modality(drawn, PAIRS[pair][1])
        middle = asked[len(asked) // 3 : len(asked) // 3 + samples]
        found[pair] = encode(processor, middle, device=device)
    return found


def _shown(name: str, table: pd.DataFrame) -> str:
    """What a table says, in lines."""
    if name == "gap":
        table["set"] = table.layer.map(lambda layer: "jointly" if layer < 0 else "a layer")
        groups = table.groupby(["pair", "set", "rule", "n_steps"], sort=False)
        table = groups.agg(
            gap=("gap", "median"), gap_90=("gap", lambda x: x.quantile(0.9)),
            within_1_percent=("gap", lambda x: (x <= 0.01).mean()), error=("error", "median"),
        ).reset_index()  # fmt: skip
    if name == "agreement":
        table = table[table.layer == "all"].drop(columns="layer")
    return table.to_string(index=False, float_format=lambda value: f"{value:.3f}")


def cheapest(made: dict[str, pd.DataFrame]) -> str | None:
    """The cheapest estimator whose top-k overlap with exact is at least 0.9 everywhere; made: tables cost, agreement."""
    seconds = made["cost"].groupby("call").seconds.sum().to_dict()
    return cheapest_that_agrees(made["agreement"], {name: seconds[name] for name in ESTIMATORS})
