"""`mipnb check-data`: rows counted, every fault with file, row and ID; and what stops a run before it starts."""

import io
import shutil
import struct
import zlib

import pyarrow.parquet as pq
import pytest
from PIL import Image
from small_benchmarks import baseline, change, clear, custom, custom_rows, mllmu, picture

from mipnb.batches import decode_image
from mipnb.benchmarks.pictures import picture_problem
from mipnb.benchmarks.validation import SHOWN, Report, check_data
from mipnb.checks import check_inputs, check_rows
from mipnb.cli import main
from mipnb.params import Params

FILE = "train-00000-of-00001.parquet"
TAKEN = {"benchmark_dir", "forget_ratio", "training_dir"}


def bomb() -> bytes:
    """A PNG of a few bytes that says it has 30000 x 30000 pixels."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 30000, 30000, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


def large() -> bytes:
    """A picture above our limit and below the one at which the library itself refuses."""
    stream = io.BytesIO()
    Image.new("1", (8000, 8000)).save(stream, "PNG")
    return stream.getvalue()


def only_error(root, **choices) -> str:
    report = check_data(root, **choices)
    assert len(report.errors) == 1, report.text()
    return report.errors[0]


# Reports


def test_whole_benchmarks_have_no_faults(tmp_path):
    report = check_data(mllmu(tmp_path / "a"))
    assert (report.kind, report.errors, report.warnings) == ("mllmu", [], [])
    assert report.rows["Test_Set"] == 20
    assert report.rows["forget_10"] == 2
    assert check_data(baseline(tmp_path / "b")).errors == []
    assert check_data(clear(tmp_path / "c")).errors == []
    own = check_data(custom(tmp_path / "d"))
    assert (own.kind, own.rows, own.errors) == ("custom", {"forget": 5, "retain": 15}, [])


def test_an_image_row_without_perturbed_captions_is_a_warning(tmp_path):
    report = check_data(clear(tmp_path))
    (told,) = report.warnings
    assert "forget10+tofu" in told
    assert "row 3, Bnn AuthorB: no row of forget10_perturbed" in told


@pytest.mark.parametrize(
    ("split", "changes", "words"),
    [
        ("Full_Set", {"Mask_Task": {3: None}}, "row 3, 003: row '003' lacks field 'Mask_Task'"),
        ("Full_Set", {"ID": {3: None}}, "row 3, ?: row None lacks field 'ID'"),
        ("Full_Set", {"ID": {3: "001"}}, "row 3, 001: ID '001' stands in row 1"),
        ("ft_Data", {"metadata": {3: "{"}}, "row 3, 016: row '016': field 'metadata' is not JSON"),
        (
            "Full_Set",
            {"image": {3: {"bytes": picture(3)[:200]}}},
            "row 3, 003: 200 bytes do not decode as a picture",
        ),
        (
            "Full_Set",
            {"image": {3: {"bytes": b"no picture"}}},
            "row 3, 003: 10 bytes do not decode as a picture",
        ),
        ("Full_Set", {"image": {3: {"bytes": bomb()}}}, "row 3, 003: image bomb"),
    ],
)
def test_a_fault_is_told_with_file_row_and_id(tmp_path, split, changes, words):
    root = mllmu(tmp_path)
    change(root / split / FILE, **changes)
    error = only_error(root)
    assert error.startswith(f"{root / split / FILE}: ")
    assert words in error


def test_a_picture_above_the_limit_is_a_bomb_however_it_is_looked_at():
    for encoded in (bomb(), large()):
        for decode in (True, False):
            assert picture_problem(encoded, decode).startswith("image bomb")
    assert picture_problem(picture(1)) == ""
    assert picture_problem(b"") == "the picture has no bytes"
    with pytest.raises(ValueError, match="do not decode as a picture"):
        decode_image(bomb())


def test_a_person_in_both_sets_is_told(tmp_path):
    root = mllmu(tmp_path)
    change(root / "retain_95" / FILE, ID={0: "000"})
    error = only_error(root)
    assert "row 0, 000: the same person is in forget_5 and in retain_95" in error
    assert str(root / "retain_95" / FILE) in error


def test_the_same_picture_in_both_sets_is_told(tmp_path):
    root = mllmu(tmp_path)
    change(root / "retain_95" / FILE, image={4: {"bytes": picture(0)}})
    assert "row 0, 000: the same picture is in forget_5 and in retain_95" in only_error(root)
    assert "row 4, 015" in only_error(root)


@pytest.mark.parametrize("maker", [clear, custom])
def test_leaks_are_found_in_every_kind(tmp_path, maker):
    root = maker(tmp_path)
    if maker is clear:
        for split in ("retain95+tofu", "full"):
            at = 0 if split == "retain95+tofu" else 2
            change(root / split / FILE, image={at: {"bytes": picture(sum(b"Ann AuthorA") * 10)}})
    else:
        (root / "pictures" / "1.png").write_bytes(picture(0))
    assert any("the same picture is in forget" in error for error in check_data(root).errors)


def test_a_person_of_a_users_own_in_both_sets_is_told(tmp_path):
    rows = custom_rows()
    rows[-2]["person_id"] = "p0"
    assert "the same person is in forget and in retain" in only_error(custom(tmp_path, rows))


def test_an_empty_or_missing_set_is_told(tmp_path):
    root = mllmu(tmp_path / "a")
    table = pq.read_table(root / "forget_5" / FILE)
    pq.write_table(table.slice(0, 0), root / "forget_5" / FILE)
    assert "forget_5 has no rows: there is nobody to forget" in only_error(root)
    shutil.rmtree(root / "retain_95")
    assert "but not retain_95: ratio 5 needs both" in check_data(root).errors[-1]
    rows = [row for row in custom_rows() if row["set"] != "forget"]
    assert "nobody is in the set 'forget'" in only_error(custom(tmp_path / "b", rows))


def test_an_unknown_column_is_told_but_for_an_index(tmp_path):
    root = mllmu(tmp_path)
    file = root / "forget_5" / FILE
    table = pq.read_table(file)
    pq.write_table(table.append_column("__index_level_0__", [[0]]), file)
    assert check_data(root).errors == []
    pq.write_table(table.rename_columns(["picture", *table.column_names[1:]]), file)
    assert "has unknown columns ['picture']; expected some of" in only_error(root)


def test_a_file_that_is_no_parquet_is_told(tmp_path):
    root = mllmu(tmp_path)
    (root / "forget_5" / FILE).write_text("version https://git-lfs.github.com/spec/v1")
    assert f"{root / 'forget_5' / FILE} is not a parquet file" in check_data(root).errors[0]


def test_a_long_report_is_cut_and_counted(tmp_path):
    report = Report(tmp_path, "mllmu", {"Full_Set": 3}, [f"fault {i}" for i in range(SHOWN + 7)])
    text = report.text()
    assert "error: 7 more like these" in text
    assert text.endswith(f"{SHOWN + 7} errors, 0 warnings")
    assert text.count("error: fault") == SHOWN


# The command


def test_the_command_reports_and_exits_by_what_it_found(tmp_path, capsys):
    root = mllmu(tmp_path / "a")
    assert main(["check-data", str(root)]) == 0
    assert "Full_Set        20 rows" in capsys.readouterr().out
    change(root / "Full_Set" / FILE, image={3: {"bytes": b"x"}})
    assert main(["check-data", str(root)]) == 1
    assert "error: " in capsys.readouterr().out


@pytest.mark.parametrize(
    ("folder", "words"), [("none", "there is no folder"), ("empty", "is no benchmark: expected")]
)
def test_a_wrong_folder_is_wrong_input(tmp_path, capsys, folder, words):
    (tmp_path / "empty" / "holidays").mkdir(parents=True)
    assert main(["check-data", str(tmp_path / folder)]) == 2
    assert words in capsys.readouterr().err


# Before a run


def test_a_run_on_a_good_benchmark_starts(tmp_path):
    for ratio, root in (
        (5, mllmu(tmp_path / "a")),
        (10, clear(tmp_path / "b")),
        (25, custom(tmp_path / "c")),
    ):
        check_rows(Params(benchmark_dir=str(root), forget_ratio=ratio), TAKEN)
    other = str(baseline(tmp_path / "d"))
    check_rows(Params(benchmark_dir=str(tmp_path / "a"), forget_ratio=5, training_dir=other), TAKEN)


@pytest.mark.parametrize(
    ("split", "changes", "words"),
    [
        ("Test_Set", {"Mask_Task": {1: None}}, "lacks field 'Mask_Task'"),
        ("ft_Data", {"image": {1: {"bytes": bomb()}}}, "image bomb"),
        ("retain_95", {"ID": {1: "000"}}, "the same person"),
        ("Full_Set", {"ID": {0: "020"}}, "Full_Set lacks 1 people of both sets: ['000']"),
        ("ft_Data", {"ID": {19: "020"}}, "no training rows for ['000']"),
        ("ft_Data", {"image": {19: None}}, "no training question with a picture is about people to forget"),
        ("ft_Data", {"image": {0: None}}, "no training question without a picture is about people to forget"),
    ],
)
def test_a_run_on_faulty_rows_is_refused(tmp_path, split, changes, words):
    root = mllmu(tmp_path)
    file = next((root / split).glob("train-00000-of-*"))
    change(file, **changes)
    with pytest.raises(ValueError, match=r"\w") as caught:
        check_rows(Params(benchmark_dir=str(root)), TAKEN)
    assert words in str(caught.value)


def test_faults_of_ratios_that_are_not_run_do_not_stop_a_run(tmp_path):
    root = mllmu(tmp_path)
    change(root / "retain_90" / FILE, ID={1: "000"})
    check_rows(Params(benchmark_dir=str(root), forget_ratio=5), TAKEN)
    with pytest.raises(ValueError, match="the same person"):
        check_rows(Params(benchmark_dir=str(root), forget_ratio=10), TAKEN)


def test_separate_training_rows_are_looked_at(tmp_path):
    root, other = mllmu(tmp_path / "a"), baseline(tmp_path / "b")
    params = Params(benchmark_dir=str(root), training_dir=str(other))
    change(other / "retain_95" / FILE, metadata={2: None})
    with pytest.raises(ValueError, match="lacks field 'metadata'"):
        check_rows(params, TAKEN)
    check_rows(params, TAKEN - {"training_dir"})


def test_a_configuration_that_is_missing_is_told(tmp_path):
    root = clear(tmp_path)
    shutil.rmtree(root / "retain_perturbed")
    with pytest.raises(ValueError, match="has no configuration retain_perturbed"):
        check_rows(Params(benchmark_dir=str(root), forget_ratio=10), TAKEN)


def test_another_kind_than_asked_for_is_refused(tmp_path):
    root = str(clear(tmp_path))
    check_inputs(Params(benchmark_dir=root, benchmark="clear"), {"benchmark_dir", "forget_ratio"})
    with pytest.raises(ValueError, match=r"benchmark = mllmu: .* those of clear"):
        check_inputs(Params(benchmark_dir=root, benchmark="mllmu"), {"benchmark_dir"})
    with pytest.raises(ValueError, match=r"forget_ratio = 1: .* it has the ratios 5, 10"):
        check_inputs(Params(benchmark_dir=root, forget_ratio=1), {"benchmark_dir", "forget_ratio"})
    with pytest.raises(FileNotFoundError, match="training_dir = nowhere"):
        check_inputs(Params(benchmark_dir=root, training_dir="nowhere"), TAKEN)
