"""The planner: shapes from configurations, passes counted exactly, memory measured, parameter files and their headers."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from small_benchmarks import PERTURBED, authors, clear, image_rows, mllmu, perturbed_row, write
from tiny_qwen import tiny_batch
from toys import tiny_vl
from transformers import AutoConfig

from mipnb import estimates, workload
from mipnb.artefacts import project_root
from mipnb.asking import one_view_each
from mipnb.attribution import MAX_ROWS
from mipnb.batches import encode, repeat_batch
from mipnb.benchmarks import (
    TASKS,
    draw_questions,
    evaluation_questions,
    forget_ids,
    load_training,
    retain_ids,
)
from mipnb.cli import main
from mipnb.comparing import compare, compare_editing, compare_locating
from mipnb.costs import Costs
from mipnb.locating import of_modality
from mipnb.measuring import LiveMemory, counted_passes
from mipnb.models import load_processor
from mipnb.param_files import read_parameters
from mipnb.params import Params
from mipnb.passes import Editing, Question, Visited, editing, evaluating, portions, totals
from mipnb.planner import GIB, GPUS, STEPS, USABLE, plan, read_plan, with_throughput
from mipnb.precision import _AT_ONCE
from mipnb.rmisu import unanswered
from mipnb.search_passes import Search, locating
from mipnb.shapes import find_config, known_models, read_shape
from mipnb.workload import read_workload

ROOT = project_root()
FULL_SIZE = sorted((ROOT / "params").glob("*_*.yaml"))
#: published: numbers in all; language layers x neurons; vision layers that an answer depends on x neurons
PUBLISHED = {
    "gemma-3-4b-it": (4_300_079_472, (34, 10240), (27, 4304)),
    "llava-1.5-13b-hf": (13_351_494_656, (40, 13824), (23, 4096)),
    "llava-1.5-7b-hf": (7_063_427_072, (32, 11008), (23, 4096)),
    "qwen2-vl-2b-instruct": (2_208_985_600, (28, 8960), (32, 5120)),
    "qwen2-vl-7b-instruct": (8_291_375_616, (28, 18944), (32, 5120)),
    "qwen2.5-vl-3b-instruct": (3_754_622_976, (36, 11008), (32, 3420)),
    "qwen2.5-vl-7b-instruct": (8_292_166_656, (28, 18944), (32, 3420)),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_models_have_their_published_sizes(name: str):
    shape = read_shape(*find_config(f"anybody/{name.upper()}"))
    found = (shape.text.layers, shape.text.neurons), (shape.vision.layers, shape.vision.neurons)
    assert (shape.weights, *found) == PUBLISHED[name]
    assert known_models() == sorted(PUBLISHED)


@pytest.mark.parametrize(
    ("name", "patches", "positions"),
    [("qwen2.5-vl-3b-instruct", 256, 64), ("llava-1.5-7b-hf", 576, 576), ("gemma-3-4b-it", 4096, 256)],
)
def test_a_picture_of_224_pixels_takes_what_its_family_makes_of_it(name: str, patches: int, positions: int):
    shape = read_shape(*find_config(name))
    assert (shape.patches(224), shape.positions(224)) == (patches, positions)


def test_a_folder_comes_before_a_published_model_and_another_name_is_refused(tmp_path: Path):
    folder = tmp_path / "qwen2.5-vl-3b-instruct"
    tiny_vl().config.save_pretrained(folder)
    assert find_config(str(folder))[1].text_config.hidden_size == 32
    assert find_config(str(tmp_path / "none"), str(folder))[0] == str(folder)
    with pytest.raises(ValueError, match=r"no configuration of none or nobody/nothing.*llava-1\.5-7b-hf"):
        find_config("none", "nobody/nothing")


@pytest.fixture(scope="module")
def tiny():
    """A tiny model and its shape."""
    model = tiny_vl()
    return model, read_shape("tiny", AutoConfig.for_model(**model.config.to_dict()))


ONE_SET, MANY_SETS = ("greedy", "one_pass"), ("exact", "tangent", "shortlist")
SEARCHED = [
    (search, score, rule)
    for search, score in [
        *((search, score) for search in (*ONE_SET, *MANY_SETS) for score in ("complete", "joint")),
        ("gradient", "complete"),
        ("relevance", "complete"),
    ]
    for rule in ("right", "gauss", "stieltjes")
    if not ((search in MANY_SETS or score == "joint") and rule == "stieltjes")  # refused
]


#: exact goes through the model for each neuron: pictures in fewer rows for it
LOADS = [
    (*searched, *load)
    for searched in SEARCHED
    for load in [
        ("text", 3, 4),
        ("text", 67, 2),
        ("text", 3, 1),
        ("vision", 2, 3) if searched[0] in MANY_SETS else ("vision", 5, 13),
    ]
]


@pytest.mark.parametrize(("search", "score", "rule", "branch", "rows", "n_steps"), LOADS)
def test_passes_of_locating_are_counted_exactly(tiny, search, score, rule, branch, rows, n_steps):
    model, shape = tiny
    batch = repeat_batch(tiny_batch(0, pictured=branch == "vision", size=1), rows)
    found = compare_locating(model, shape, batch, branch, search, score, n_steps, rule)
    assert found.planned == found.counted


def test_batches_and_their_rests_are_counted():
    assert portions(10, 4) == {4: 2, 2: 1}
    assert portions(0, 4) == {}
    search, question = Search("text", 3, 24, "one_pass", 4, joint=False), Question(9, 3)
    assert totals(locating(search, question, 10, 4)) == (6, 6)  # unscaled, then three points at once
    gap = Search("text", 3, 24, "greedy", 4, joint=False, gap=True)
    assert totals(locating(gap, question, 4, 4)) == (1 + 3 + 3, 1 + 3)
    by_sample = Search("text", 3, 24, "greedy", 4, joint=False, gap=True, rule="stieltjes")
    assert totals(locating(by_sample, question, 4, 4)) == (
        1 + 3 * (1 + 3),
        1 + 3 * 3,
    )  # the gap takes no pass
    assert totals(locating(search, question, MAX_ROWS + 1, 1000)) == (2 * 4, 2 * 4)  # parts of 21, 21, 21, 2


@pytest.mark.parametrize("n_steps", [2, 7])
@pytest.mark.parametrize("path", [(5, 4), (5, 0)])
def test_passes_of_editing_are_counted_exactly(tiny, n_steps: int, path: tuple[int, int]):
    model, shape = tiny
    forget = [tiny_batch(seed, pictured=seed > 1, size=1 if seed > 1 else 2) for seed in range(4)]
    retain = [tiny_batch(seed, pictured=seed > 12, size=2 if seed > 12 else 4) for seed in range(10, 15)]
    near = unanswered([tiny_batch(seed, pictured=seed > 23, size=3) for seed in range(20, 26)])
    visited = (
        Visited(2, 4),
        Visited(1, 2, 1),
        Visited(4, 12, 0, answered=True),
        Visited(2, 4, 1, answered=True),
        Visited(3, 12),
        Visited(3, 6, 1),
    )
    edit = Editing(n_steps, 1, visited, vision=path[1] > 0)
    found = compare_editing(model, shape, (forget, [*retain, *near]), edit, path)
    assert found.planned == found.counted


def test_vanilla_states_are_made_once_for_all_edits():
    questions, visited = (
        (Question(50, 10), Question(60, 10, 36)),
        (Visited(4, 40), Visited(2, 10, 1, True), Visited(3, 0)),
    )
    once, thrice = (totals(editing(Editing(20, 1, visited, n_edits=n), questions)) for n in (1, 3))
    assert once == (10 + 5 + 2 * 20, 2 * 20)
    assert thrice == (10 + 5 + 2 * 60, 2 * 60)


def test_prepared_batches_and_neighbours_are_planned_for():
    params = full_size(neighbour_batch=0, n_retain_batches=10)
    shape, work = read_plan(params)
    plain, near, more = (
        STEPS["editing"][0](params.model_copy(update=changed), shape, work, params.retain_batch)
        for changed in ({}, {"neighbour_batch": 8}, {"n_retain_batches": 20})
    )
    steps = params.edit_steps * (params.n_edit_seeds + params.n_random_edits)
    assert near.counts[0] == plain.counts[0] + 2 * min(params.n_retain_batches, steps)  # vanilla states
    assert near.counts[1] == plain.counts[1]  # they go through the passes of what is forgotten
    assert near.activations == plain.activations
    assert more.counts[0] == plain.counts[0] + 20
    state, rows = shape.text.hidden * 4, 10 * params.retain_batch
    pictures = work.questions[1].patches * shape.patch_width * 4
    added = rows * work.questions[0].positions * state
    added += rows // 2 * (work.questions[1].positions * state + pictures)
    assert more.prepared == plain.prepared + added


@pytest.fixture(scope="module", params=["float32", "bfloat16"])
def measured(request):
    """Every step on a few questions of pocket."""
    return compare(Params(dtype=request.param), n_questions=8)


def test_passes_on_pocket_are_counted_exactly(measured):
    assert [one.planned for one in measured] == [one.counted for one in measured]
    assert {one.name.split(",")[0] for one in measured} == {"text", "vision", "editing", "evaluating"}


def test_memory_on_pocket_is_planned_within_30_percent(measured):
    for one in measured:
        assert one.planned_bytes == pytest.approx(one.peak_bytes, rel=0.3), one


def test_a_product_in_float32_takes_a_copy_of_some_of_its_weights():
    """On layers of full width; those of pocket are too small to be seen."""
    shape, work = read_plan(full_size())
    one = locating(Search("text", 36, 11008, "one_pass", 4, joint=True), work.questions[0], 1, 1)[0]
    own, words = (Costs(shape, "text", size, arithmetic=4) for size in (4, 2)), one.columns * shape.vocabulary
    full, short = (costs.peak(one) for costs in own)
    assert short - full == 4 * min(_AT_ONCE, shape.text.hidden * shape.vocabulary) - words * (4 + 12 - 8)


def test_more_tokens_are_more_passes_of_evaluating():
    questions, numbers = (Question(50, 10), Question(60, 10, 36)), (10, 4)
    assert totals(evaluating(questions, numbers, 4, 5)) == (
        1 + 3 * 5 + 1 + 5,
        0,
    )  # what prompts share, then the answers
    assert totals(evaluating(questions, numbers, 4, 1)) == (1 + 3 + 1 + 1, 0)


def test_live_memory_counts_what_lives_and_not_the_weights():
    layer = torch.nn.Linear(256, 256)
    with LiveMemory(layer) as memory:
        first = torch.zeros(1000)
        shared = first[10:]
        del first
        second = torch.zeros(500) + 1  # two of 2000 bytes for a moment
        after = memory.now
        layer.weight.detach().t()
        del shared
    assert (after, memory.peak, memory.now) == (6000, 8000, 2000)
    assert len(second) == 500


def test_a_stopped_pass_and_a_nested_backward_count(tiny):
    model, _ = tiny
    value = torch.ones(2, requires_grad=True)
    with counted_passes(model) as seen:
        torch.autograd.grad(value.sum(), value)
        (value * 2).sum().backward()
    (value * 2).sum().backward()
    assert (seen.forward, seen.backward) == (0, 2)


def full_size(**changed) -> Params:
    """Qwen2.5-VL-3B on MLLMU-Bench, in bfloat16, by greedy, as its parameter file has it."""
    names = {
        "model_dir": "Qwen/Qwen2.5-VL-3B-Instruct",
        "benchmark_dir": "MLLMMU/MLLMU-Bench",
        "dtype": "bfloat16",
        "search": "greedy",
    }
    return Params(**names | changed)


@pytest.mark.parametrize("name", ["batch_size", "retain_batch", "eval_batch_size"])
def test_the_largest_batch_fits_and_its_double_does_not(name: str):
    shape, work = read_plan(full_size())
    asked = full_size(**{name: 256}, forget_batch=16 if name != "retain_batch" else 170, score="joint")
    step = next(step for step in plan(asked, shape, work, GPUS[:1]) if STEPS[step.name][1] == name)
    assert step.weights == 3_754_622_976 * 2
    assert step.peak <= USABLE * 24 * GIB
    if step.fits < 256:
        load = STEPS[step.name][0](asked, shape, work, 2 * step.fits)
        assert step.weights + load.optimiser + load.activations > USABLE * 24 * GIB


def test_what_does_not_fit_is_said(capsys: pytest.CaptureFixture):
    given = {"model_dir": "llava-1.5-13b-hf", "benchmark_dir": "clear", "dtype": "bfloat16"}
    options = [part for name, value in given.items() for part in ("-p", name, value)]
    assert main(["estimate", *options]) == 0
    rows = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert [row[-3:] for row in rows if row[:2] == ["locating", "24"]] == [["does", "not", "fit"]]
    assert "does not fit (24 GB)" in " ".join(" ".join(row) for row in rows)


def test_twice_the_throughput_is_half_the_time_of_locating():
    params = full_size()
    hours = []
    for tflops in (50, 100):
        steps = plan(params, *read_plan(params), with_throughput(GPUS[-1:], tflops))
        hours.append(next(step.hours for step in steps if step.name == "locating"))
    assert hours[0] == pytest.approx(2 * hours[1])
    with pytest.raises(ValueError, match="above 0"):
        with_throughput(GPUS, 0.0)


def test_exact_search_and_joint_scores_cost_more():
    shape, work = read_plan(full_size())

    def locate(**changed):
        found = plan(full_size(batch_size=2, **changed), shape, work, GPUS[-1:])
        return next(step for step in found if step.name == "locating")

    plain = locate()
    assert locate(search="exact").forward > 100 * plain.forward
    assert locate(search="one_pass").hours < plain.hours / 10
    assert locate(search="tangent").forward <= plain.forward
    few, more = (locate(search="shortlist", text_top_k=k, vision_top_k=k) for k in (8, 32))
    assert few.forward == more.forward, "as many candidates however many neurons a path takes"
    assert 2 * plain.forward < few.forward < locate(search="exact").forward / 100
    assert few.activations < 2 * plain.activations, "a pass holds no more than a batch at all grid points"
    assert locate(score="joint").activations > plain.activations
    assert locate(n_steps=8).hours == pytest.approx(7 / 3 * plain.hours, rel=0.1)  # point 1 is shared
    assert locate(rule="gauss").hours == pytest.approx(4 / 3 * plain.hours, rel=0.1)  # none of its points is
    times = locate(rule="stieltjes").hours / plain.hours
    assert 1.3 < times < 2  # every pass begins at the first layer


@pytest.mark.parametrize("name", ["reuse_paths", "use_released_paths"])
def test_given_paths_need_no_locating(name: str):
    params = full_size(**{name: "somewhere"})
    assert {step.name for step in plan(params, *read_plan(params))} == {"editing", "evaluating"}


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["-p", "benchmark_dir", "data/mine"], "has no 'mine', only pocket, mllmu-bench, clear"),
        (["-p", "model_dir", "a/b", "-p", "base_dir", "c/d"], "no configuration of a/b or c/d"),
        (["-p", "model_dir", "a/b"], "no configuration of a/b: "),
        (["-p", "search", "exact", "-p", "rule", "stieltjes"], "takes its points from one set a layer"),
        (["-p", "text_top_k", "50000"], "text_top_k = 50000: the model has 512 neurons"),
        (["-p", "layer_index", "99"], "layer_index = 99: the model has"),
        (["--utilisation", "2"], "--utilisation 2.0: expected a share"),
        (["--tflops", "-1"], "--tflops -1.0: expected a throughput above 0"),
    ],
)
def test_wrong_wishes_are_refused(options: list[str], words: str, capsys: pytest.CaptureFixture):
    assert main(["estimate", *options]) == 2
    assert words in capsys.readouterr().err


def test_the_assumptions_about_pocket_are_pocket():
    shape = read_shape(*find_config("data/pocket/vanilla"))
    work = read_workload("data/pocket", 5, shape)
    assert work.people == (len(forget_ids("data/pocket", 5)), len(retain_ids("data/pocket", 5)))
    training = load_training("data/pocket")
    groups = one_view_each(evaluation_questions("data/pocket", 5, 20, 42), "data/pocket")
    asked = [question for group in groups.values() for question in group]
    processor = load_processor("data/pocket/vanilla")
    for modality, name in enumerate(("text", "image_text")):
        assert sum(work.trained_on(modality)) == len(of_modality(training, name))
        assert work.asked(20)[modality] == len(of_modality(asked, name))
        drawn = of_modality(draw_questions(training, 64, 42), name)
        batch = encode(processor, drawn[-32:])
        assert work.questions[modality].positions == pytest.approx(batch["input_ids"].shape[1], rel=0.3)
        assert work.questions[modality].patches == len(batch.get("pixel_values", [])) // 32


SMALL = {
    "mllmu": {
        "people": 20, "test_set": True,
        "evaluation": dict.fromkeys(TASKS, 1), "others": dict.fromkeys(TASKS, 1),
    },
    "clear": {
        "people": 10, "test_set": False, "retain_people_who_choose": 3,
        "evaluation": {"VQA": 2, "VGEN": 2, "GEN": 2}, "others": {"VQA": 1, "QA": 1},
    },
}  # fmt: skip


@pytest.mark.parametrize("protocol", ["pocket", "benchmark", "paper"])
@pytest.mark.parametrize(("maker", "ratio"), [(mllmu, 10), (clear, 10), (mllmu, 5)])
def test_as_many_questions_are_planned_as_are_asked(tmp_path, monkeypatch, maker, ratio, protocol):
    root = maker(tmp_path / maker.__name__)
    if maker is clear:  # its 10 percent lack one perturbed row on purpose
        rows = [perturbed_row(name, row) for name in authors(2) for row in image_rows(name)]
        write(root, "forget10_perturbed", rows, PERTURBED)
    rest = {"training": {"text": 1, "image_text": 1}, "positions": {"text": 9, "image_text": 9}}
    table = {maker.__name__: SMALL[maker.__name__] | rest | {"answer": 3, "image_side": 28}}
    monkeypatch.setattr(workload, "read_json", lambda path: table)
    work = read_workload(str(root), ratio, read_shape(*find_config("qwen2.5-vl-3b-instruct")))
    work = replace(work, people=(len(forget_ids(root, ratio)), len(retain_ids(root, ratio))))
    for n_retain in (2, 5, 99):
        asked = one_view_each(evaluation_questions(root, ratio, n_retain, 1, protocol), root)
        found = [question for group in asked.values() for question in group]
        expected = tuple(len(of_modality(found, name)) for name in ("text", "image_text"))
        assert work.asked(n_retain, protocol) == expected


def test_there_is_a_file_for_each_model_and_benchmark():
    models, benchmarks = ("qwen2.5-vl-3b", "qwen2.5-vl-7b", "llava-1.5-7b"), ("mllmu", "clear")
    assert {file.stem for file in FULL_SIZE} == {
        f"{model}_{bench}" for model in models for bench in benchmarks
    }


@pytest.mark.parametrize("file", FULL_SIZE, ids=lambda file: file.stem)
class TestFullSizeFile:
    def test_its_header_is_what_the_planner_says(self, file: Path):
        assert file.read_text(encoding="utf-8").startswith(estimates.header(file) + "\n"), (
            "run `mipnb estimate --write --params " + file.stem + "`"
        )

    def test_it_is_valid_alone_and_with_our_profile(self, file: Path):
        paper, ours = read_parameters([file]), read_parameters([file, ROOT / "params" / "ours.yaml"])
        assert (paper.score, paper.aggregate, paper.ranking) == ("joint", "union", "forget")
        assert (paper.n_steps, paper.text_top_k, paper.layer_index, paper.learning_rate) == (4, 5, 7, 5e-4)
        assert (ours.score, ours.aggregate, ours.ranking) == ("complete", "mean", "contrast")
        assert (ours.base_dir, ours.benchmark_dir, ours.device) == (
            paper.base_dir,
            paper.benchmark_dir,
            "cuda",
        )
        assert paper.run_dir == f"runs/{file.stem}"


def test_a_header_is_written_at_the_top_and_replaced_there(tmp_path: Path):
    file = tmp_path / "mine.yaml"
    own = "# mine\nmodel_dir: qwen2-vl-2b-instruct\nbenchmark_dir: clear\ndtype: bfloat16\n"
    file.write_text(own)
    assert main(["estimate", "--write", "--params", str(file)]) == 0
    once = file.read_text()
    assert once.endswith(f"{estimates.END}\n{own}")
    assert read_parameters([file]).dtype == "bfloat16"
    estimates.write_header(file)
    assert file.read_text() == once
    file.write_text(once.replace("dtype: bfloat16", "dtype: float32"))
    estimates.write_header(file)
    assert file.read_text().count(estimates.BEGIN) == 1
    assert "in float32" in file.read_text()
