"""The parameters of a run: types, defaults, bounds, meanings, for every notebook; the defaults are the pocket run.

`params` checks values against this table.
"""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

__all__ = ["Params"]

_INPUT = {
    "input": True
}  # marks a path whose files a notebook reads: they count when deciding what is up to date
_COMMIT = r"^([0-9a-f]{40})?$"


class Params(BaseModel):
    """Every parameter. Types are strict (no "5" for 5, no 1 for True) and unknown names are refused."""

    model_config = ConfigDict(
        extra="forbid", strict=True, frozen=True, allow_inf_nan=False, protected_namespaces=()
    )

    run_dir: str = Field(
        "runs/pocket", min_length=1, description="folder of the run, from the project's root"
    )
    seed: int = Field(42, ge=0, lt=2**31, description="seed of everything random")
    benchmark_dir: str = Field(
        "data/pocket", min_length=1, json_schema_extra=_INPUT, description="the benchmark's folder"
    )
    benchmark: Literal["auto", "mllmu", "clear", "custom"] = Field(
        "auto", description="what benchmark_dir has to hold; auto takes what is there"
    )
    benchmark_revision: str = Field(
        "",
        pattern=_COMMIT,
        description="commit of a data set of the hub, where benchmark_dir is its owner/name; empty for a folder",
    )
    training_dir: str = Field(
        "",
        json_schema_extra=_INPUT,
        description="unlearning rows as a data set of their own (forget_*, retain_*); empty: ft_Data of the benchmark",
    )
    training_revision: str = Field(
        "",
        pattern=_COMMIT,
        description="commit of a data set of the hub, where training_dir is its owner/name",
    )
    protocol: Literal["pocket", "benchmark", "paper"] = Field(
        "pocket", description="prompts and marks: plain, the benchmark's own, or those of the paper's tables"
    )
    n_shots: int = Field(
        0, ge=0, le=8, description="solved questions shown before each one in the evaluation"
    )
    judge_dir: str = Field("", description="folder of a chat model that grades free answers; empty: no judge")
    model_dir: str = Field(
        "data/pocket/vanilla",
        min_length=1,
        json_schema_extra=_INPUT,
        description="the vanilla model's folder",
    )
    base_dir: str = Field(
        "data/pocket/base",
        min_length=1,
        json_schema_extra=_INPUT,
        description="the model before it learned the people",
    )
    forget_ratio: int = Field(5, ge=1, le=99, description="how much of the people to forget, percent")
    retrain: bool = Field(
        False, description="train the vanilla model again in place of using the shipped one"
    )
    retrain_by: Literal["pocket", "lora"] = Field(
        "pocket", description="the pocket model's whole training, or LoRA of the base model on the benchmark"
    )
    model_revision: str = Field(
        "", description="commit, tag or branch of a hub model_dir; empty: its default"
    )
    base_revision: str = Field("", description="commit, tag or branch of a hub base_dir; empty: its default")
    lora_rank: int = Field(8, ge=1, description="rank of LoRA's updates (the paper's)")
    lora_alpha: int = Field(16, ge=1, description="LoRA's updates count alpha / rank times (the paper's)")
    lora_dropout: float = Field(0.1, ge=0, lt=1, description="dropout of LoRA's inputs (the paper's)")
    lora_learning_rate: float = Field(1e-4, gt=0, description="peak learning rate of the LoRA fine-tuning")
    lora_epochs: int = Field(5, ge=1, description="epochs of the LoRA fine-tuning")
    lora_batch_size: int = Field(4, ge=1, description="questions of each modality a LoRA step")
    lora_save_every: int = Field(100, ge=1, description="LoRA steps between two checkpoints")

    use_released_paths: str = Field(
        "",
        json_schema_extra=_INPUT,
        description="folder of the authors' score tensors (.pt), used in place of locating; empty: locate",
    )
    reuse_paths: str = Field(
        "",
        json_schema_extra=_INPUT | {"inside": "03_paths/paths"},
        description="a run's folder, or stored paths, edited in place of locating anew; empty: locate",
    )

    n_steps: int = Field(4, ge=1, le=1024, description="m, integration steps (Eq. 4)")
    rule: Literal["right", "midpoint", "gauss", "stieltjes"] = Field(
        "right", description="where the steps lie; right is the paper's k/m, stieltjes follows the value"
    )
    score: Literal["joint", "complete"] = Field(
        "complete", description="joint is Eq. 4 as printed, complete sums to F(w) - F(0)"
    )
    search: Literal["greedy", "exact", "one_pass", "tangent", "shortlist", "gradient", "relevance"] = Field(
        "greedy", description="how the path is searched (Algorithm 1); gradient and relevance only estimate"
    )
    ranking: Literal["forget", "difference", "contrast", "ratio", "projected"] = Field(
        "contrast", description="rank neurons by forget score, or set against the retain score"
    )
    aggregate: Literal["mean", "union", "vote", "people_vote", "people_turns"] = Field(
        "mean", description="how questions' scores make one path"
    )
    text_top_k: int = Field(48, ge=1, description="neurons kept per language layer")
    vision_top_k: int = Field(6, ge=1, description="neurons kept per vision block")
    n_locate_forget: int = Field(
        96, ge=1, description="training questions of the forget set, a modality, that locating looks at"
    )
    n_locate_retain: int = Field(96, ge=1, description="the same of the retain set, for contrast")
    check_dtypes: bool = Field(True, description="also locate in bfloat16, and compare the paths")
    vision_kind: Literal["ifi", "igi"] = Field(
        "ifi", description="vision scores: squared gradients (Eq. 6), or gradients as for text"
    )
    batch_size: int = Field(32, ge=1, description="questions at a time")

    layer_index: int = Field(3, ge=0, description="language layer that RMisU steers, counted from 0")
    forget_tokens: Literal["all", "answer", "prompt", "onset"] = Field(
        "onset",
        description="tokens at which RMisU misdirects forget questions; onset: the answer's, half the weight where it begins",
    )
    steering_direction: Literal["input", "shared", "end"] = Field(
        "end",
        description="a random direction for each forget input (Eq. 12), one for all (RMU), or where answers end",
    )
    steering_scale: float = Field(1.0, ge=0, description="lambda, length of the steering target (Eq. 12)")
    retain_tokens: Literal["all", "answer", "prompt"] = Field(
        "answer", description="tokens at which RMisU holds retain questions to their vanilla states"
    )
    retain_weight: float = Field(10.0, ge=0, description="gamma, weight of the retain loss (Eq. 16)")
    ce_weight: float = Field(3.0, ge=0, description="weight of the answer loss on the retain set (Eq. 11)")
    forget_weight: float = Field(1.0, ge=0, description="weight of the forget loss (Eq. 14)")
    learning_rate: float = Field(1e-2, gt=0, description="learning rate of the edit")
    edit_steps: int = Field(200, ge=0, description="training steps of the edit; 0 only prunes")
    forget_batch: int = Field(8, ge=1, description="forget questions a step; with pictures half as many")
    retain_batch: int = Field(12, ge=1, description="retain questions a step; with pictures half as many")
    neighbour_batch: int = Field(
        16,
        ge=0,
        description="questions a step under names close to a forgotten one, half as many under pictures; 0: none",
    )
    n_forget_batches: int = Field(
        80,
        ge=1,
        description="forget batches a modality, visited again and again; fewer if the steps are fewer",
    )
    n_retain_batches: int = Field(
        150, ge=1, description="the same of the retain set; each keeps its vanilla states once visited"
    )
    n_random_edits: int = Field(1, ge=1, description="how many of the seeds also edit random neurons")
    n_edit_seeds: int = Field(3, ge=1, description="how often the edit is repeated with another seed")

    methods: list[str] = Field(
        ["ga_diff", "kl_min", "npo", "idk", "rmu", "rmu_adaptive", "mmunlearner", "manu", "depn"],
        description="baselines that are trained beside ours (names of mipnb.baselines.METHODS)",
    )
    n_baseline_seeds: int = Field(3, ge=1, description="how often each baseline is trained with another seed")
    baseline_lora: bool = Field(
        False, description="baselines whose source trains LoRA's updates do so, in place of all weights"
    )
    other_ratios: list[int] = Field([10, 15], description="forget ratios of one more round of all methods")
    tuning: str = Field(
        "data/results/tuning.json", json_schema_extra=_INPUT,
        description="settings chosen on validation people (`mipnb tune`); empty: the sources' settings",
    )  # fmt: skip
    retrained_dir: str = Field(
        "data/pocket/retrained_{ratio}", json_schema_extra=_INPUT,
        description="model trained on the retain set only, a folder a {ratio}; trained anew where there is none",
    )  # fmt: skip

    trial_sets: int = Field(5, ge=1, description="forget sets of the trial, of other people each")
    trial_people: int = Field(10, ge=2, description="people of a forget set of the trial")
    trial_kept: int = Field(20, ge=2, description="people to keep who are asked in the trial")
    trial_questions: int = Field(3, ge=1, description="questions a person and modality in the trial")
    trial_draws: int = Field(20, ge=2, description="random draws that the path is held against in the trial")
    trial_locate_forget: int = Field(
        480,
        ge=1,
        description="text questions of a forget set that the trial locates on; a third as many with pictures",
    )
    trial_locate_retain: int = Field(1440, ge=1, description="the same of the retain set")
    trial_search: Literal["greedy", "exact", "one_pass"] = Field(
        "one_pass", description="how the trial's paths are searched"
    )
    trial_text_top_k: int = Field(
        128, ge=1, description="neurons per language layer at which the trial holds choices beside each other"
    )
    trial_vision_top_k: int = Field(384, ge=1, description="the same of a vision block")
    trial_gate_steps: int = Field(
        150, ge=1, description="steps in which the trial learns gates, a forget set and branch"
    )
    trial_edit_sets: int = Field(
        5,
        ge=1,
        description="forget sets of each vanilla model whose people the trial's edits forget, at most",
    )
    trial_edit_steps: int = Field(80, ge=0, description="training steps of the trial's edits")
    second_vanilla_dir: str = Field(
        "data/second_vanilla",
        json_schema_extra=_INPUT,
        description="another vanilla model, of another training seed; empty: one",
    )

    pointwise_top_k: int = Field(
        5,
        ge=1,
        description="neurons per layer that are silenced beside the run's own number (the paper's Fig. 5)",
    )
    curve_factor: int = Field(2, ge=2, description="factor from one number of neurons of a curve to the next")
    curve_draws: int = Field(3, ge=1, description="random draws beside paths and point-wise choices")
    curve_questions: int = Field(
        8, ge=1, description="questions a person and task that curves are made of, at most"
    )
    n_ablation_seeds: int = Field(3, ge=1, description="how often each row of the ablation is trained")
    full_learning_rate: float = Field(
        3e-4, gt=0, description="learning rate of RMisU where it trains the whole model"
    )
    n_permutations: int = Field(
        20, ge=1, description="permutations of the labels that a classifier is held against"
    )

    bench_samples: int = Field(32, ge=2, description="questions of a batch on which searches are timed")
    bench_compared: int = Field(6, ge=2, description="questions whose scores are held against exact ones")
    bench_repeats: int = Field(5, ge=1, description="rounds of the timing")

    n_eval_retain: int = Field(20, ge=1, description="retain people that are asked in the evaluation")
    eval_batch_size: int = Field(128, ge=1, description="questions answered at a time in the evaluation")
    max_new_tokens: int = Field(20, ge=1, description="tokens after which an answer is cut off")
    device: str = Field("cpu", pattern=r"^(cpu|mps|cuda(:\d+)?)$", description="cpu, mps, cuda or cuda:N")
    dtype: Literal["float32", "bfloat16", "float16"] = Field(
        "float32", description="number type of the weights"
    )
    device_map: Literal["one", "auto", "offload"] = Field(
        "one", description="weights on one device, over all GPUs, or in CPU memory (for evaluating)"
    )
    attention: Literal["", "sdpa", "eager", "flash_attention_2"] = Field(
        "", description="attention implementation; empty: transformers' choice"
    )
    processes: int = Field(
        2,
        ge=1,
        description="how many processes share what can be done side by side on a CPU, each with its model",
    )
    gradient_checkpointing: bool = Field(
        False, description="fine-tuning computes activations twice and keeps fewer"
    )
