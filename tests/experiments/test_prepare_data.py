"""Several data sets in one corpus: each keeps its schema; texts that occur in two splits are counted or excluded."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from umie.configs import errors_of
from umie.data.synthetic_media import SyntheticMediaConfig, text_only_ceilings
from umie.errors import UmieError
from umie.experiments.data_config import read_data_config
from umie.experiments.data_sets import Corpus
from umie.experiments.prepare_data import _image_folder, prepare_corpus
from umie.records import Record
from umie.training import Sampling

REAL = Path(__file__).parents[3] / "shared" / "data"
TASKS = {"mner": {}, "mre": {}}


def line(text, **annotation):
    return {"text": text, **annotation}


def names(text, kind):
    return line(text, tasks=["mner"], entities=[{"type": kind, "span": [0, len(text.split()[0])]}])


def pair(text, kind):
    first, second, *_ = text.split()
    head, tail = [0, len(first)], [len(first) + 1, len(first) + 1 + len(second)]
    return line(text, tasks=["mre"], relations=[{"type": kind, "head": head, "tail": tail}])


@pytest.fixture
def two(tmp_path):
    """Prepare two sets, names with train and test, and pairs with all splits: ``two(**keys)``."""
    files = {
        "a/train": [names("Ann sings .", "person"), names("Rome burns .", "place")],
        "a/test": [names("Bob sings .", "person")],
        "b/train": [pair("Ann Bob met", "peer"), pair("Bob  sings .", "none")],
        "b/dev": [pair("Ann Bob left", "peer")],
        "b/test": [pair("Eve Bob met", "peer")],
    }

    def prepare(*, tasks=TASKS, sets=None, changed=None, **keys):
        for name, lines in {**files, **(changed or {})}.items():
            path = tmp_path / f"{name}.jsonl"
            path.parent.mkdir(exist_ok=True)
            path.write_text("".join(json.dumps(item) + "\n" for item in lines))
        given = {
            "a": {"format": "jsonl", "train": "a/train.jsonl", "test": "a/test.jsonl"},
            "b": {"format": "jsonl", **{split: f"b/{split}.jsonl" for split in ("train", "dev", "test")}},
        }
        for name, options in (sets or {}).items():
            given[name] = {key: value for key, value in {**given.get(name, {}), **options}.items() if value is not ...}
        used = keys.pop("splits", ("train", "test"))
        return prepare_corpus(
            read_data_config({"sets": given, **keys}, tasks),
            root=tmp_path,
            output=tmp_path / "run",
            splits=used,
            encoders=["tiny"],
        )

    return prepare


def error_of(prepare, **changes):
    with pytest.raises(UmieError) as caught:
        prepare(**changes)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_each_set_has_the_tasks_of_its_annotation(two):
    corpus = two()
    assert {name: dict(one.tasks) for name, one in corpus.sets.items()} == {
        "a": {"mner": {"labels": ["person", "place"]}},
        "b": {"mre": {"labels": ["peer", "none"]}},
    }
    assert [key for key, _, _ in corpus.scored("test")] == ["a mner", "b mre"]
    assert [key for key, _, _ in corpus.scored("dev")] == ["b mre"]
    assert corpus.sets["b"].num_queries == {"train": {"mre": 2}, "dev": {"mre": 1}, "test": {"mre": 1}}
    assert [one.name for one in corpus.training_sets(["b"])] == ["b"]
    assert [record.text for record in corpus.sets["a"].read("train")] == ["Ann sings .", "Rome burns ."]


def test_a_task_keeps_a_schema_for_each_set(two):
    changed = {"b/train": [names("Ann met .", "human")], "b/dev": [], "b/test": [names("Eve met .", "human")]}
    corpus = two(tasks={"mner": {"variant": "I1"}}, changed=changed)
    built = {name: one.built()["mner"] for name, one in corpus.sets.items()}
    assert {name: task.labels for name, task in built.items()} == {"a": ("person", "place"), "b": ("human",)}
    assert built["a"].config.variant == built["b"].config.variant == "I1"
    assert corpus.sets["a"].built({"mner": {"variant": "I2"}})["mner"].config.variant == "I2"
    assert corpus.task_options == {"mner": {"variant": "I1", "labels": ["person", "place", "human"]}}


def test_a_corpus_can_be_restored_from_json(two):
    corpus = two(sampling={"strategy": "temperature", "temperature": 3}, sets={"b": {"weight": 0.5}})
    again = Corpus.from_json(json.loads(json.dumps(corpus.to_json())))
    assert again == corpus
    assert again.sampling == Sampling(strategy="temperature", temperature=3)
    assert again.weights == {"a": 1.0, "b": 0.5}
    assert again.fingerprint == corpus.fingerprint


def test_the_fingerprint_covers_weights_sampling_and_tasks(two):
    prints = [
        two(**changes).fingerprint
        for changes in (
            {},
            {"sets": {"a": {"weight": 2}}},
            {"sampling": {"strategy": "equal"}},
            {"sets": {"a": {"tasks": {"mner": {"variant": "I0"}}}}},
            {"sets": {"a": {"test": ...}}},
        )
    ]
    assert len(set(prints)) == len(prints)


def test_a_set_without_the_scored_split_is_used_in_training_only(two):
    corpus = two(sets={"a": {"test": ...}})
    assert [key for key, _, _ in corpus.scored("test")] == ["b mre"]
    assert [one.name for one in corpus.training_sets()] == ["a", "b"]


def test_a_set_without_training_is_scored_with_the_schema_in_its_records(two):
    record = names("Bob sings .", "person") | {"labels": {"mner": ["place", "person"]}}
    corpus = two(sets={"a": {"train": ...}}, changed={"a/test": [record]})
    assert corpus.sets["a"].tasks == {"mner": {"labels": ["place", "person"]}}
    assert [one.name for one in corpus.training_sets()] == ["b"]
    assert [key for key, _, _ in corpus.scored("test")] == ["a mner", "b mre"]


def test_texts_are_compared_across_sets_ignoring_spaces(two):
    corpus = two()
    assert corpus.sets["a"].num_seen == {"test": 1}  # "Bob  sings ." is in the training split of b
    assert [one.num_excluded for one in corpus.sets.values()] == [0, 0]
    cleaned = two(exclude_overlap=True)
    assert cleaned.sets["a"].num_seen == {"test": 0}
    assert [one.num_excluded for one in cleaned.sets.values()] == [0, 1]
    assert [record.text for record in cleaned.sets["b"].read("train")] == ["Ann Bob met"]
    assert cleaned.sets["b"].tasks["mre"]["labels"] == ["peer", "none"]  # the schema includes excluded records
    assert cleaned.fingerprint != corpus.fingerprint
    assert two(exclude_overlap=["dev"]).sets["b"].num_excluded == 0
    other_way = two(exclude_overlap=True, changed={"b/test": [pair("Ann sings .", "peer")]})
    assert [one.num_excluded for one in other_way.sets.values()] == [1, 1]  # a text of b's test split, in a


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"sets": {"a": {"format": "jsnl"}}}, "data set 'a': Unknown data format 'jsnl'. Did you mean 'jsonl'?"),
        ({"sets": {"a": {"tain": "x"}}}, "data set 'a': Unknown data key 'tain'. Did you mean 'train'?"),
        ({"sets": {"a": {"tasks": "mre"}, "b": {"tasks": "mre"}}}, "no data set has the task 'mner'"),
        ({"tasks": {**TASKS, "med": {}}}, "no data set is annotated for the task 'med': remove it from `tasks`"),
        ({"sets": {"a": {"tasks": ["mner", "mre"]}}}, "data set 'a': no training record has a relation"),
        ({"sets": {"a": {"tasks": []}}}, "data set 'a': tasks is empty"),
        ({"sets": {"a": {"weight": 0}}}, "data set 'a': weight is 0: "),
        ({"sets": {"a": {"train": "no.jsonl"}}}, "no.jsonl: cannot read"),
        ({"sets": {"a b": {"format": "jsonl"}}}, "data set 'a b': its name is 'a b'"),
        ({"sets": {"../c": {"format": "jsonl"}}}, "its name is '../c'"),
        ({"sets": {"c": {"format": "jsonl"}}}, "data set 'c': it has no files: set at least one of train, dev, test"),
        ({"sampling": {"strategy": "equl"}}, "data: sampling: strategy is 'equl'"),
        ({"sampling": {"temperature": 0}}, "data: sampling: temperature is 0"),
        ({"sampling": {"temprature": 1}}, "Did you mean 'temperature'?"),
        ({"exclude_overlap": ["train"]}, "Unknown split in exclude_overlap: 'train'. Choices: dev, test."),
        ({"exclude_overlap": "yes"}, "exclude_overlap is 'yes': use true or false"),
        ({"sample": 1}, "Unknown data key 'sample'. Did you mean 'sampling'?"),
        ({"sets": {"b": {"dev": ...}}, "splits": ("train", "dev")}, "no data set has records for 'dev'"),
        ({"tasks": {"med": {}}}, "data set 'a': none of its records is annotated for any of the tasks med"),
    ],
    ids=lambda value: "" if isinstance(value, str) else str(value)[:40],
)
def test_errors_name_the_data_set(two, changes, expected):
    assert expected in error_of(two, **changes)


def test_empty_sets_are_rejected():
    with pytest.raises(UmieError, match="sets is empty"):
        read_data_config({"sets": {}}, TASKS)


def test_there_can_be_several_embedded_sets(tmp_path):
    sizes = {"format": "synthetic", "train": 6, "dev": 3, "test": 3}
    data = {"sets": {"names": {**sizes, "tasks": ["mner"]}, "more": {**sizes, "seed": 1}}}
    corpus = prepare_corpus(
        read_data_config(data, {"mner": {}, "med": {}}), root=tmp_path, output=tmp_path, splits=("train", "test")
    )
    assert [key for key, _, _ in corpus.scored("test")] == ["names mner", "more mner", "more med"]
    assert corpus.sets["names"].fingerprint != corpus.sets["more"].fingerprint
    assert all(one.ceilings.keys() == one.tasks.keys() for one in corpus.sets.values())


def test_the_embedded_media_set(tmp_path):
    data = {"format": "synthetic_media", "train": 2, "dev": 0, "test": 2, "combinations": ["T+I+A", "I", "V+A"]}
    grounded = {"grounded": True}
    corpus = prepare_corpus(
        read_data_config(data, {"mner": grounded, "mre": {}, "med": grounded, "meae": grounded}),
        root=tmp_path,
        output=tmp_path,
    )
    (one,) = corpus.sets.values()
    assert one.format == "synthetic_media"
    assert one.num_records == {"train": 6, "dev": 0, "test": 6}
    assert one.num_images == {"train": 4, "dev": 0, "test": 4}
    assert one.num_queries["test"] == {"mner": 2, "mre": 2, "med": 2, "meae": 2}
    assert list(one.tasks["meae"]["labels"]) == ["Agent", "Target"]
    known = text_only_ceilings(SyntheticMediaConfig(combinations=("T+I+A", "I", "A+V")))
    assert one.ceilings["mner"] == known["mner"].grounded < known["mner"].typed
    assert one.ceilings["mre"] == known["mre"].typed
    for record in one.read("test"):
        assert all(record.path(medium).exists() for medium in record.media)
    assert not read_data_config(data, {"mner": {}}).is_embedded  # a warm start has no more texts like these


def test_the_embedded_media_set_has_the_tasks_of_its_combinations(tmp_path):
    data = {"format": "synthetic_media", "train": 2, "test": 2, "combinations": ["V"]}
    with pytest.raises(UmieError, match="annotated for the task 'mner'"):
        prepare_corpus(read_data_config(data, {"mner": {}, "med": {}}), root=tmp_path, output=tmp_path)
    names = {**data, "combinations": ["T+I"]}
    sets = read_data_config({"sets": {"names": names, "events": data}}, {"mner": {}, "med": {}})
    corpus = prepare_corpus(sets, root=tmp_path, output=tmp_path)
    assert [key for key, _, _ in corpus.scored("test")] == ["names mner", "events med"]
    one = read_data_config({**data, "train": 1}, {"med": {}})
    with pytest.raises(UmieError, match="at least 2 records of each combination"):
        prepare_corpus(one, root=tmp_path, output=tmp_path)


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(),
        lambda inner: st.dictionaries(
            st.sampled_from(
                ["sets", "format", "train", "sampling", "exclude_overlap", "weight", "tasks", "a", "synthetic"]
            ),
            inner | st.lists(inner, max_size=2) | st.sampled_from(["jsonl", "synthetic", "synthetic_media", "mner"]),
            max_size=4,
        ),
    )
)
def test_any_value_is_read_or_rejected(value):
    try:
        read_data_config(value, TASKS)
    except UmieError as error:
        assert all("\n" not in line for line in errors_of(error))


def test_options_of_a_format_reach_its_reader(tmp_path):
    image = {
        "verb": "arresting",
        "width": 100,
        "height": 50,
        "bb": {"agent": [10, 5, 50, 45]},
        "frames": [{"agent": "n10448983"}],
    }
    for split, name in (("train", "arresting_1.png"), ("test", "arresting_2.png")):
        Image.new("RGB", (100, 50)).save(tmp_path / name)
        (tmp_path / f"{split}.json").write_text(json.dumps({name: image}))
    (tmp_path / "elsewhere.txt").write_text("arresting\tagent\tJustice||Arrest-Jail\tAgent\n")
    data = {"format": "swig", "images": ".", "train": "train.json", "test": "test.json", "mapping": "elsewhere.txt"}
    config = read_data_config(data, {"med": {}})
    corpus = prepare_corpus(config, root=tmp_path, output=tmp_path / "run", encoders=["tiny"])
    (one,) = corpus.sets.values()
    assert one.tasks["med"]["labels"] == ["arrest jail"]
    with pytest.raises(UmieError, match="Unknown data key 'mappin'"):
        read_data_config({**data, "mappin": "x"}, {"med": {}})


@pytest.mark.slow
def test_the_published_tweets_as_one_corpus(tmp_path):
    if not REAL.is_dir():
        pytest.skip("the published data is not available")
    data = {
        "sets": {
            "twitter17": {
                "format": "twitter",
                **{split: f"twitter2017/{file}.txt" for split, file in (("train", "train"), ("test", "test"))},
            },
            "gmner": {"format": "gmner", "train": "gmner/txt/train.txt"},
        },
        "exclude_overlap": True,
    }
    corpus = prepare_corpus(
        read_data_config(data, {"mner": {}}),
        root=REAL,
        output=tmp_path,
        splits=("train", "test"),
        missing_images="text_only",
    )
    assert corpus.sets["gmner"].num_excluded > 400
    assert corpus.sets["twitter17"].num_seen == {"test": 0}
    assert corpus.sets["gmner"].num_records == {"train": 7000 - corpus.sets["gmner"].num_excluded}


@pytest.mark.parametrize("folders", [(None,), ("a", "b"), ("a", None)], ids=["no folder", "two", "one of two"])
def test_the_images_of_a_split_need_one_folder(folders):
    records = [Record("Ann", image="1.png", image_folder=folder) for folder in folders]
    with pytest.raises(UmieError, match="the records of 'dev' need one image_folder"):
        _image_folder("dev", [Record("Bob"), *records])
    assert _image_folder("dev", [Record("Bob")]) is None
    assert _image_folder("dev", [Record("Ann", image="1.png", image_folder="a")]) == "a"


def test_each_of_several_images_is_checked(tmp_path, noise):
    noise(8, 8).save(tmp_path / "a.png")
    noise(8, 8, 1).save(tmp_path / "b.png")
    base = {"text": "Ann", "entities": [{"type": "person", "span": [0, 3]}]}
    pairs = [["a.png", "b.png"], ["a.png", "none.png"], ["none.png", "no.png"]]
    for split in ("train", "test"):
        lines = [json.dumps({**base, "text": f"Ann {split} {n}", "images": own}) for n, own in enumerate(pairs)]
        (tmp_path / f"{split}.jsonl").write_text("\n".join(lines))
    data = {"format": "jsonl", "train": "train.jsonl", "test": "test.jsonl"}

    def prepared(policy):
        config = read_data_config(data, {"mner": {}})
        corpus = prepare_corpus(config, root=tmp_path, output=tmp_path / policy, missing_images=policy)
        (one,) = corpus.sets.values()
        return one

    with pytest.raises(UmieError, match="none.png"):
        prepared("error")
    kept = prepared("text_only")
    assert (kept.num_records["train"], kept.num_images["train"]) == (3, 2)
    assert sorted(kept.unreadable["train"]) == ["no.png", "none.png"]
    assert [record.images for record in kept.read("train")] == [tuple(own) for own in pairs]
    assert prepared("skip").num_records["train"] == 1
