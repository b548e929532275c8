"""What scaling gives the searches, and how its table is read."""

import pandas as pd
import pytest
import torch
from toys import questions, tiny_vl

from mipnb import bench_scaling
from mipnb.attribution import attribute
from mipnb.bench_scaling import enlarged, growth, growth_sentence, lengthened, scaling


def rows(varied: str, times: tuple, sizes: tuple = (2, 4, 8)) -> list[tuple]:
    return [
        ("text", "greedy", varied, size, seconds, 0.1 * size)
        for size, seconds in zip(sizes, times, strict=True)
    ]


def table(*parts: list[tuple]) -> pd.DataFrame:
    columns = ["pair", "search", "varied", "size", "seconds", "peak_gb"]
    return pd.DataFrame([row for part in parts for row in part], columns=columns)


def test_longer_questions_are_longer_and_keep_their_answer():
    batch = questions([(4, 4), (2, 6)], [7, 9])
    longer = lengthened(batch, 3)
    width = batch["labels"].shape[1]
    assert longer["labels"].shape == (2, 3 * width)
    assert torch.equal(longer["labels"][:, -width:], batch["labels"])
    assert (longer["labels"][:, :-width] == -100).all()
    assert (longer["mm_token_type_ids"].sum(1) == batch["mm_token_type_ids"].sum(1)).all()
    del batch["mm_token_type_ids"]
    assert "mm_token_type_ids" not in lengthened(batch, 2), "some families take no token types"


def test_wider_pictures_have_their_patches_and_tokens_and_keep_their_answer():
    model, batch = tiny_vl(), questions([(4, 4), (2, 6)], [7, 9])
    picture = model.config.image_token_id
    wider = enlarged(batch, 2, picture)
    assert wider["image_grid_thw"].tolist() == [[1, 4, 8], [1, 2, 12]]
    assert torch.equal(wider["pixel_values"][:32], batch["pixel_values"][:16].repeat(2, 1))
    for key, kept in (("input_ids", lambda row: row != picture), ("labels", lambda row: row != -100)):
        for before, after in zip(batch[key], wider[key], strict=True):
            assert after[kept(after)].tolist()[: int(kept(before).sum())] == before[kept(before)].tolist()
    pieces = [(ids == picture).sum(1) for ids in (batch["input_ids"], wider["input_ids"])]
    assert torch.equal(pieces[1], 2 * pieces[0])
    assert torch.equal(wider["attention_mask"].sum(1), batch["attention_mask"].sum(1) + pieces[0])
    assert attribute(model, wider, "vision", top_k=2).values.isfinite().all()


@pytest.mark.parametrize("pair", ["text", "vision"])
def test_every_size_is_measured_and_patches_in_the_vision_branch_alone(pair, monkeypatch):
    monkeypatch.setattr(bench_scaling, "FEW", 2)
    grids = [(0, 0)] * 2 if pair == "text" else [(4, 4), (2, 6)]
    found = scaling(tiny_vl(), {pair: questions(grids, [7, 9])}, repeats=1, top_k=2)
    sizes = {"samples", "n_steps", "layers", "tokens"} | ({"patches"} if pair == "vision" else set())
    assert set(found.varied) == sizes
    assert (found[["seconds", "peak_gb"]] > 0).all(axis=None)
    assert (found.groupby(["search", "varied"])["size"].nunique() > 1).all()


def test_growth_has_exponents_and_the_distance_from_a_straight_line():
    found = growth(
        table(
            rows("samples", (1.0, 2.0, 4.0)),
            rows("tokens", (1.0, 4.0, 16.0)),
            rows("layers", (3.0, 4.0, 6.0)),
        )
    )
    exponents = found.droplevel(["pair", "search"])["seconds exponent"]
    assert exponents[["samples", "tokens"]].tolist() == pytest.approx([1, 2])
    assert 0.4 < exponents["layers"] < 0.6
    off = found.droplevel(["pair", "search"]).off_line
    assert off[["samples", "layers"]].tolist() == pytest.approx([0, 0], abs=1e-9), "a fixed part is no bend"
    assert off["tokens"] > 0.2


def test_what_bends_and_what_grows_too_fast_is_named():
    told = growth_sentence(table(rows("samples", (1.0, 2.0, 4.0)), rows("tokens", (1.0, 2.0, 4.0))))
    assert "at most 0% off it.\n" in told
    assert "(exponent above 1.15): nowhere" in told
    assert "exponent of at most 1.00" in told
    told = growth_sentence(table(rows("n_steps", (1.0, 4.0, 16.0)), rows("tokens", (1.0, 4.0, 16.0))))
    assert "**not within 15%**: text, greedy, n_steps (" in told
    assert "text, greedy, n_steps (2.00); text, greedy, tokens (2.00)" in told
