"""What locating costs, and what its estimators are worth: `mipnb bench locating`.

Prints ratios from one run, each timed beside what it is held against, and writes a table a question asked:

- cost: one_pass and the estimators against m bare passes forward and backward, greedy against the plain layer-by-layer search;
- scaling: seconds and peak memory against samples, steps, layers, tokens and patches;
- gap: completeness gap and error of the scores against steps, by rule;
- agreement: every estimator with `exact`, on the same questions, by the same rule.
"""

from __future__ import annotations

import statistics
from argparse import Namespace
from collections.abc import Callable, Iterable
from functools import partial

import pandas as pd
import torch
from torch import nn

from mipnb.artefacts import atomic_path, under_root
from mipnb.attribution import SEARCH, attribute
from mipnb.batches import IGNORED, Batch, encode
from mipnb.bench_scaling import growth_sentence, scaling
from mipnb.benchmarks import draw_questions, forget_ids, load_training
from mipnb.estimators import ESTIMATORS, OTHER_RULE, agreement_table, default_sentence, overlaps
from mipnb.integration_errors import error_table, gap_bar_sentence, gap_table, integration_errors
from mipnb.least_cost import least_cost_sentence
from mipnb.locating import PAIRS, of_modality
from mipnb.measuring import interleaved, peak_bytes, seconds_of
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
DEAR = ("shortlist", "exact")  # that are timed once
FEW = 2  # questions on which `exact` is timed
RULES = ("right", "gauss")  # by which estimators are held against `exact`
FIXED = (1, 2, 4, 8, 12, 16, 24, 32, 64)  # steps of the rules with fixed points
GAP_RULES = {"right": FIXED, "midpoint": FIXED, "gauss": FIXED, "stieltjes": (1, 2, 4, 8, 16)}


def cost(model: nn.Module, batches: dict[str, Batch], repeats: int) -> pd.DataFrame:
    """Seconds, peak memory and ratios; `shortlist` and `exact` (on a few questions) are timed once, beside all rounds.

    Returns:
        Columns pair, call, against, samples, seconds (median), ratio (median of the rounds), low, high (of the rounds),
        peak_gb.
    """
    rows = []
    for pair, batch in batches.items():
        calls = _calls(model, batch, PAIRS[pair][0])
        seconds = interleaved({name: call for name, call in calls.items() if name not in DEAR}, repeats)
        few = _calls(model, spread(batch, FEW), PAIRS[pair][0])
        for name, spent in seconds.items():
            against = "plain greedy" if name.startswith("greedy") else "bare passes"
            rows.append((pair, name, against, *_measured(model, batch, calls[name], spent, seconds[against])))
        for name, (part, own) in {"shortlist": (batch, calls), "exact": (spread(batch, FEW), few)}.items():
            bare = interleaved({"": own["bare passes"]}, repeats)[""]
            spent = [seconds_of(own[name])] * repeats
            rows.append((pair, name, "bare passes", *_measured(model, part, own[name], spent, bare)))
    columns = ["pair", "call", "against", "samples", "seconds", "ratio", "low", "high", "peak_gb"]
    return pd.DataFrame(rows, columns=columns)


def _measured(
    model: nn.Module, batch: Batch, call: Callable[[], object], spent: list[float], beside: list[float]
) -> tuple[float, ...]:
    """Samples, seconds, ratio to what was timed beside, its range, and peak memory (another call)."""
    ratios = [a / b for a, b in zip(spent, beside, strict=True)]
    middle = (statistics.median(spent), statistics.median(ratios))
    return len(batch["labels"]), *middle, min(ratios), max(ratios), peak_bytes(call, model) / 1e9


def _calls(model: nn.Module, batch: Batch, branch: str) -> dict[str, Callable[[], object]]:
    kind = "ifi" if branch == "vision" else "igi"
    target = "log_likelihood" if branch == "vision" else "probability"
    networks = ffns(model, branch)
    fixed = {
        "power": 2 if kind == "ifi" else 1,
        "target": target,
        "packed": branch == "vision" and "image_grid_thw" in batch,
        "top_k": TOP_K,
    }
    calls: dict[str, Callable[[], object]] = {
        "bare passes": partial(bare_passes, model, batch, networks, STEPS, target),
        "plain greedy": partial(plain_greedy, model, batch, networks, quadrature("right", STEPS), **fixed),
    }
    own = {"top_k": TOP_K, "n_steps": STEPS, "rule": "right", "completeness": False, "fingerprint": ""}
    named = ESTIMATORS | {
        "greedy, joint": {"search": "greedy", "score": "joint"},
        "exact": {"search": "exact"},
    }
    if kind == "igi":  # squared gradients add up to nothing known
        for search in ("greedy", "one_pass"):
            named |= {f"{search}, with gap": {"search": search, "completeness": True}}
    return calls | {
        name: partial(attribute, model, batch, branch, **own | choices) for name, choices in named.items()
    }


def spread(batch: Batch, size: int) -> Batch:
    """That many samples from all over a batch, at like distances; all of them if there are no more."""
    last = len(batch["labels"]) - 1
    return pick(batch, torch.linspace(0, last, min(size, last + 1)).round().long())


def gap(model: nn.Module, batches: dict[str, Batch], samples: int) -> pd.DataFrame:
    """`integration_errors` of both searches, a pair after the other, with a column pair."""
    parts = []
    for pair, batch in batches.items():
        for search in ("one_pass", "greedy"):
            part = spread(batch, samples)
            found = integration_errors(model, part, PAIRS[pair][0], search, GAP_RULES, top_k=TOP_K)
            parts.append(found.assign(pair=pair))
    return pd.concat(parts)


def agreement(model: nn.Module, batches: dict[str, Batch], samples: int) -> pd.DataFrame:
    """`estimators.agreement_table` of all estimators with `exact`, both by the same rule, with columns kind and rule.

    An estimator that names a rule of its own keeps it; "exact, other rule" is the reference of the other rule.
    """
    return pd.concat([agreement_of(model, batches, samples, which) for which in compared(batches)])


def compared(batches: Iterable[str]) -> list[tuple[str, str]]:
    """The pairs, with each kind of gradient that estimators are compared by."""
    return [(pair, kind) for pair in batches for kind in ("igi", "ifi") if kind == "igi" or pair == "vision"]


def agreement_of(
    model: nn.Module, batches: dict[str, Batch], samples: int, which: tuple[str, str]
) -> pd.DataFrame:
    """The same of one pair and kind."""
    pair, kind = which
    part, branch, parts = spread(batches[pair], samples), PAIRS[pair][0], []
    score = partial(attribute, model, part, branch, kind=kind, top_k=TOP_K, completeness=False)
    score = partial(score, fingerprint="", n_steps=STEPS)
    truths = {rule: score(search="exact", rule=rule) for rule in RULES}
    for rule, other in zip(RULES, reversed(RULES), strict=True):
        found = {name: score(**{"rule": rule} | choices) for name, choices in ESTIMATORS.items()}
        found[OTHER_RULE] = truths[other]
        parts.append(agreement_table(found, truths[rule], TOP_K, pair).assign(kind=kind, rule=rule))
    return pd.concat(parts)


def load_agreement(
    model_dir: str, benchmark: str, asked: int, dtype: str, samples: int
) -> Callable[[tuple[str, str]], pd.DataFrame]:
    """`agreement_of` of a model's folder, for a process of its own on a CPU; `asked`: questions of `bench_batches`."""
    batches = bench_batches(model_dir, benchmark, asked)
    return partial(agreement_of, load_model(under_root(model_dir), dtype), batches, samples)


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
        "scaling": lambda: scaling(model, batches, top_k=TOP_K),
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
    print("\n\n".join(_read_off(made, options.model, batches, model.config.image_token_id)))
    return 0


def _check_sizes(options: Namespace) -> None:
    """By the bounds of notebook 13's parameters."""
    sizes = {"samples": options.samples, "compared": options.compared, "repeats": options.repeats}
    subset({f"bench_{name}": value for name, value in sizes.items()})
    check_compared(options.samples, options.compared)


def check_compared(samples: int, compared: int) -> None:
    """ValueError if more questions are to be compared (bench_compared) than a batch has (bench_samples)."""
    if compared > samples:
        raise ValueError(
            f"{compared} questions are to be compared, of {samples} of a batch: those compared are among the batch's; "
            f"expected at most {samples} (bench_compared and bench_samples; --compared and --samples)"
        )


def _read_off(
    made: dict[str, pd.DataFrame], model_dir: str, batches: dict[str, Batch], picture: int
) -> list[str]:
    """What the tables say together, a sentence each."""
    told = [""]
    if {"cost", "agreement"} <= made.keys():
        told += [default_lines(made["cost"], made["agreement"])]
    if {"cost", "gap"} <= made.keys():
        told += [gap_bar_sentence(made["gap"], STEPS, times_as_long(made["cost"]))]
    if "scaling" in made:
        told += [growth_sentence(made["scaling"])]
    if "cost" in made and "vision" in batches:
        told += [least_cost(model_dir, batches["vision"], picture)]
    return told


def default_lines(cost: pd.DataFrame, agreement: pd.DataFrame) -> str:
    """`estimators.default_sentence`, a line a rule; of tables `cost` and `agreement`."""
    seconds = cost.groupby("call").seconds.sum()[list(ESTIMATORS)].to_dict()
    return "\n".join(f"- {default_sentence(agreement, seconds, rule, SEARCH)}" for rule in RULES)


def times_as_long(cost: pd.DataFrame) -> float:
    """How often as long as with the run's rule greedy takes with `stieltjes`, the median of pairs."""
    spent = cost.set_index(["call", "pair"]).seconds
    return (spent["greedy, stieltjes"] / spent["greedy"]).median()


def least_cost(model_dir: str, batch: Batch, picture: int) -> str:
    """`least_cost_sentence` of a model's folder and a batch with pictures, which that word stands for."""
    shape = read_shape(*find_config(model_dir))
    return least_cost_sentence({"this model": (shape, typical(batch), before_picture(batch, picture))}, STEPS)


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
    drawn = draw_questions(load_training(root, ids=forget_ids(root, 5)), 3 * samples, seed=1)
    found = {}
    for pair in pairs or PAIRS:
        asked = of_modality(drawn, PAIRS[pair][1])
        middle = asked[len(asked) // 3 : len(asked) // 3 + samples]
        found[pair] = encode(processor, middle, device=device)
    return found


def _shown(name: str, table: pd.DataFrame) -> str:
    """What a table says, in lines."""
    if name == "gap":
        parts = (gap_table(table).reset_index(), error_table(table, STEPS).reset_index())
        return "\n\n".join(_lines(part) for part in parts)
    return _lines(overlaps(table).drop(columns=["layer", "measure"]) if name == "agreement" else table)


def _lines(table: pd.DataFrame) -> str:
    return table.to_string(index=False, float_format=lambda value: f"{value:.3f}")
