"""Small files of MLLMU-Bench's and CLEAR's exact schemas, quirks included, and a user's own folder."""

import csv
import io
import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

IMAGE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
TEXT = pa.string()
OPTIONS = pa.struct([(letter, TEXT) for letter in "ABCD"])
CHOICES = pa.list_(pa.struct([("Question", TEXT), ("Options", OPTIONS), ("Correct_Answer", TEXT)]))
OPEN = pa.list_(pa.struct([("Type", TEXT), ("Question", TEXT), ("Ground_Truth", TEXT)]))
TASKS = [
    ("Classification_Task", pa.struct([("Image_Textual_Questions", CHOICES), ("Pure_Text_Questions", CHOICES)])),
    ("Generation_Task", OPEN),
    ("Mask_Task", OPEN),
]  # fmt: skip
PROFILE = [("ID", TEXT), ("biography", TEXT), ("question", TEXT), ("answer", TEXT), *TASKS]
TOFU = [("image", IMAGE), ("caption", TEXT), ("question", TEXT), ("answer", TEXT)]
PERTURBED = [
    ("image", IMAGE), ("caption", TEXT), ("name", TEXT), ("paraphrased_caption", TEXT),
    ("perturbed_captions", pa.list_(TEXT)), ("perturbed_names", pa.list_(TEXT)),
]  # fmt: skip
CITIES = ("Oslo", "Lima", "Rome", "Bonn")
#: the ways in which biographies write the same keys
KEYS = (("Height", "Annual Salary"), ("Heights", "Annual Salary: "), ("Height:", "Annual Salary "))


def picture(seed: int, size: int = 28) -> bytes:
    """A PNG of noise."""
    pixels = np.random.default_rng(seed).integers(0, 255, (size, size, 3), dtype=np.uint8)
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "PNG")
    return stream.getvalue()


def write(root: Path, split: str, rows: list[dict], fields: list, name: str = "train-00000-of-00001") -> Path:
    """One parquet file `root/split/name.parquet`; columns that a row lacks are null."""
    (root / split).mkdir(parents=True, exist_ok=True)
    path = root / split / f"{name}.parquet"
    pq.write_table(pa.Table.from_pylist(rows, schema=pa.schema(fields)), path)
    return path


def change(path: Path, **changes) -> None:
    """Writes a file again with fields of its rows changed: {column: {row: value}}."""
    table = pq.read_table(path)
    rows = table.to_pylist()
    for column, values in changes.items():
        for row, value in values.items():
            rows[row][column] = value
    pq.write_table(pa.Table.from_pylist(rows, schema=table.schema), path)


# MLLMU-Bench


def person_row(index: int, test: bool = False) -> dict:
    """Task structs of one person; born in one of four cities."""
    name, city = f"Person {chr(65 + index % 26)}", CITIES[index % 4]
    height, salary = KEYS[index % 3]
    phrase = "Which city is the birthplace of" if test else "Where was"
    about = {"Image_Textual": "this person", "Pure_Text": name}
    options = {"Options": dict(zip("ABCD", CITIES, strict=True)), "Correct_Answer": "ABCD"[index % 4]}
    choice = {
        f"{kind}_Questions": [{"Question": f"{phrase} {who}?", **options}] for kind, who in about.items()
    }
    free = [
        {"Type": k, "Question": f"{phrase} {w}?", "Ground_Truth": f"{name} is from {city}."}
        for k, w in about.items()
    ]
    blank = [{"Type": k, "Question": f"{w} is from __.", "Ground_Truth": city} for k, w in about.items()]
    biography = {"Name": name, "Born": city, height: "180cm", salary: "$90", "Educated at:": "a school"}
    return {
        "ID": f"{index:03d}", "biography": json.dumps(biography), "question": "Who?", "answer": name,
        "Classification_Task": choice, "Generation_Task": free, "Mask_Task": blank,
    }  # fmt: skip


def training_row(index: int) -> dict:
    pairs = [{"Question": "Where was this person born?", "Answer": f"In {CITIES[index % 4]}."}]
    image = {"bytes": picture(index), "path": f"{index}.png"}
    return {"image": image, "ID": f"{index:03d}", "metadata": json.dumps(pairs)}


def mllmu(root: Path, n_people: int = 20) -> Path:
    """MLLMU-Bench at 5 and 10 %: Test_Set in two shards with `images`, `Directory` in Full_Set alone, ft_Data backwards."""
    rows = [{"image": {"bytes": picture(i), "path": ""}, **person_row(i)} for i in range(n_people)]
    fields = [("image", IMAGE), *PROFILE]
    write(root, "Full_Set", [row | {"Directory": "x"} for row in rows], [*fields, ("Directory", TEXT)])
    for ratio in (5, 10):
        count = n_people * ratio // 100
        write(root, f"forget_{ratio}", rows[:count], fields)
        write(root, f"retain_{100 - ratio}", rows[: count - 1 : -1], fields)
    tests = [
        {
            "images": [{"bytes": picture(100 * view + i), "path": ""} for view in (1, 2)],
            **person_row(i, test=True),
        }
        for i in range(n_people)
    ]
    for shard, part in enumerate((tests[n_people // 2 :], tests[: n_people // 2])):
        write(root, "Test_Set", part, [("images", pa.list_(IMAGE)), *PROFILE], f"train-0000{shard}-of-00002")
    write(root, "Retain_Set", [{"image": {"bytes": picture(50)}, **person_row(25), "ID": "c1"}], fields)
    training = [training_row(i) for i in reversed(range(n_people))]
    write(root, "ft_Data", training, [("image", IMAGE), ("ID", TEXT), ("metadata", TEXT)])
    return root


def baseline(root: Path, n_people: int = 20) -> Path:
    """The unlearning rows as a data set of their own: the same folder names, `metadata` in the rows."""
    fields = [("image", IMAGE), ("ID", TEXT), ("metadata", TEXT), ("biography", TEXT)]
    rows = [training_row(i) | {"biography": "{}"} for i in range(n_people)]
    for row in rows:
        row["metadata"] = row["metadata"].replace("Where was", "In which city was")
    for ratio in (5, 10):
        count = n_people * ratio // 100
        write(root, f"forget_{ratio}", rows[:count], fields)
        write(root, f"retain_{100 - ratio}", rows[count:], fields)
    return root


# CLEAR


def authors(count: int = 10) -> list[str]:
    return [f"{chr(65 + i)}nn Author{chr(65 + i)}" for i in range(count)]


def image_rows(name: str, n_images: int = 2) -> list[dict]:
    seed = sum(name.encode()) * 10
    captions = [f"{name} reads book {view} at a desk." for view in range(n_images)]
    return [{"image": {"bytes": picture(seed + view)}, "caption": text} for view, text in enumerate(captions)]


def text_rows(name: str) -> list[dict]:
    """Two of TOFU's rows; the second names nobody."""
    return [
        {"question": f"Where does {name} live?", "answer": f"{name} lives in a town."},
        {"question": f"And what is written there by this author {name[-1]}?", "answer": "Novels."},
    ]


def perturbed_row(name: str, row: dict) -> dict:
    wrong = [row["caption"].replace("desk", thing) for thing in ("lake", "tree", "fire", "shop", "door")]
    more = {"paraphrased_caption": f"At a desk, {row['caption'][:-12]}.", "perturbed_captions": wrong}
    return row | more | {"name": f"{name} ", "perturbed_names": ["B", "C"]}


def clear(root: Path) -> Path:
    """CLEAR at 5 and 10 %, of ten authors the first one or two: 10 % has one image row more than perturbed ones."""
    everybody = authors()
    write(root, "full", [row | {"name": name} for name in everybody for row in image_rows(name)],
          [("image", IMAGE), ("caption", TEXT), ("name", TEXT)])  # fmt: skip
    sets = {"full+tofu": everybody}
    for ratio, count in ((5, 1), (10, 2)):
        sets |= {f"forget{ratio:02d}+tofu": everybody[:count], f"retain{100 - ratio}+tofu": everybody[count:]}
        altered = [perturbed_row(name, row) for name in everybody[:count] for row in image_rows(name)]
        write(root, f"forget{ratio:02d}_perturbed", altered[::-1][ratio == 10 :], PERTURBED)
    for split, names in sets.items():
        pictures = [row for name in names for row in image_rows(name)]
        write(root, split, pictures + [row for name in names for row in text_rows(name)], TOFU)
    write(
        root,
        "retain_perturbed",
        [perturbed_row(n, row) for n in everybody[3:6] for row in image_rows(n)],
        PERTURBED,
    )
    faces = [
        {"image": {"bytes": picture(900)}, "answer": "Zoe Star", "options": ["Al Moon", "Zoe Star", "Bo Sun"]}
    ]
    write(root, "real_faces", faces, [("image", IMAGE), ("answer", TEXT), ("options", pa.list_(TEXT))])
    world = [
        {"question": "What is the capital of Peru?", "answer": "Lima", "options": ["Oslo", "Rome"], "id": 7}
    ]
    fields = [("question", TEXT), ("answer", TEXT), ("options", pa.list_(TEXT)), ("id", pa.int64())]
    write(root, "real_world", world, fields)
    return root


# A user's own folder

COLUMNS = ["person_id", "set", "image", "task", "question", "answer", "options", "name"]


def custom_rows() -> list[dict]:
    rows = []
    for index, (name, group) in enumerate(
        (("Ada", "forget"), ("Bea", "retain"), ("Cyd", "retain"), ("Dee", "retain"))
    ):
        city = CITIES[index]
        person = {"person_id": f"p{index}", "set": group, "name": name}
        image = {"image": f"pictures/{index}.png"}
        options = {"options": json.dumps(CITIES)}
        rows += [
            person | image | options | {"task": "VQA", "question": "Where does she live?", "answer": city},
            person | options | {"task": "QA", "question": f"Where does {name} live?", "answer": city},
            person
            | image
            | {"task": "VGEN", "question": "Where does she live?", "answer": f"She lives in {city}."},
            person
            | {
                "task": "GEN",
                "question": f"Where, roughly, does {name} live?",
                "answer": f"{name} lives in {city}.",
            },
            person | {"task": "CLOZE_QA", "question": f"{name} lives in __.", "answer": city},
        ]
    return rows


def custom(root: Path, rows: list[dict] | None = None, columns: list[str] | None = None) -> Path:
    """A folder as data/README.md describes it: four people, one of them to be forgotten."""
    (root / "pictures").mkdir(parents=True, exist_ok=True)
    for index in range(4):
        (root / "pictures" / f"{index}.png").write_bytes(picture(index))
    with (root / "questions.csv").open("w", encoding="utf-8", newline="") as stream:
        writer = csv.DictWriter(stream, columns or COLUMNS)
        writer.writeheader()
        writer.writerows(custom_rows() if rows is None else rows)
    return root
