"""Registries: built-in modules, decorators and plugins; cheap imports."""

import importlib
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

import umie
from umie import fusion, registries
from umie.errors import UmieError, UnknownNameError

PACKAGE = Path(umie.__file__).parent


@pytest.fixture
def registry(tmp_path, monkeypatch):
    """A registry of its own package, with the modules ``round``, ``square``, and ``_hidden``."""
    name = f"shapes_{tmp_path.name}"
    folder = tmp_path / "site" / name
    folder.mkdir(parents=True)
    (folder / "__init__.py").write_text(
        "from umie.registry import Registry\nregistry = Registry('shape', __name__)\n", encoding="utf-8"
    )
    for part in ("round", "square"):
        (folder / f"{part}.py").write_text(
            f"from {name} import registry\n"
            f'@registry.register("{part}")\n'
            f"def build(size=1):\n"
            f"    return ({part!r}, size)\n"
        )
    (folder / "_hidden.py").write_text("raise RuntimeError('not a part')\n")
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    module = __import__(name)
    yield module.registry
    for loaded in [loaded for loaded in sys.modules if loaded.split(".")[0] == name]:
        del sys.modules[loaded]


def install(folder, group, **plugins):
    """Write the metadata of a distribution with entry points, like pip in a directory of sys.path."""
    info = folder / "some_plugin-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: some-plugin\nVersion: 1.0\n")
    lines = [f"[{group}]", *(f"{name} = {value}" for name, value in plugins.items())]
    (info / "entry_points.txt").write_text("\n".join(lines) + "\n")


def test_built_in_modules(registry):
    assert f"{registry.package}.square" not in sys.modules
    assert registry.build("round", size=3) == ("round", 3)
    assert f"{registry.package}.square" not in sys.modules  # only the requested one
    assert registry.names() == ["round", "square"]
    assert f"{registry.package}._hidden" not in sys.modules


def test_decorator(registry):
    @registry.register("star")
    def star(size=5):
        return ("star", size)

    assert registry.names() == ["round", "square", "star"]
    assert registry.get("star") is star
    assert registry.build("star") == ("star", 5)


def test_duplicates_raise(registry):
    registry.get("round")

    def other():
        return None

    with pytest.raises(UmieError) as error:
        registry.register("round")(other)
    message = str(error.value)
    assert f"The shape 'round' is already registered by {registry.package}.round.build" in message
    assert "test_registry" in message
    assert registry.build("round") == ("round", 1)
    again = registry.get("round")
    assert registry.register("round")(again) is again  # the same part again


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("squar", "Unknown shape 'squar'. Did you mean 'square'? Choices: round, square."),
        ("xyz", "Unknown shape 'xyz'. Choices: round, square."),
        ("", "Unknown shape ''. Choices: round, square."),
        ("_hidden", "Unknown shape '_hidden'. Choices: round, square."),
        (None, "Unknown shape None. Choices: round, square."),
        (["round"], "Unknown shape ['round']."),
    ],
)
def test_unknown_names(registry, name, message):
    for ask in (registry.get, registry.build, lambda name: registry.check(name, {})):
        with pytest.raises(UmieError) as error:
            ask(name)
        assert str(error.value).startswith(message)


def test_did_you_mean_of_the_fusions():
    with pytest.raises(UnknownNameError) as error:
        fusion.registry.build("gatd", d_model=8, num_heads=2)
    choices = ", ".join(fusion.registry.names())
    assert str(error.value) == f"Unknown fusion 'gatd'. Did you mean 'gated'? Choices: {choices}."
    assert isinstance(error.value, ValueError)


def test_options(registry):
    @dataclass(frozen=True, kw_only=True)
    class Config:
        size: int = 1

        def __post_init__(self):
            if self.size < 0:
                raise ValueError(f"size is {self.size}: use a whole number of at least 0")

    @registry.register("ring")
    class Ring:
        def __init__(self, config):
            self.size = config.size
            self.loaded = False

        def load_weights(self):
            self.loaded = True

    Ring.Config = Config
    assert registry.build("ring", size=4).size == 4
    assert registry.build("ring").loaded
    assert not registry.construct("ring", {}).loaded
    registry.check("ring", {"size": -1})  # checks names, not values
    for ask in (registry.check, registry.construct):
        with pytest.raises(UmieError) as error:
            ask("ring", {"sice": 4})
        assert str(error.value) == "Unknown option of shape 'ring': 'sice'. Did you mean 'size'? Choices: size."
    with pytest.raises(UmieError, match="Cannot build shape 'ring': size is -1: use a whole number of at least 0"):
        registry.build("ring", size=-1)
    with pytest.raises(UmieError, match="Cannot build shape 'round': .*unexpected keyword argument 'sice'"):
        registry.build("round", sice=3)


def test_plugins_are_loaded_when_asked_for(registry, tmp_path, monkeypatch):
    folder = tmp_path / "plugins"
    install(folder, registry.package, tilted="tilted_plugin:Tilted", bent="bent_plugin:Bent")
    (folder / "tilted_plugin.py").write_text("class Tilted:\n    angle = 30\n")
    (folder / "bent_plugin.py").write_text("raise RuntimeError('imported without being asked for')\n")
    monkeypatch.syspath_prepend(str(folder))
    assert registry.names() == ["bent", "round", "square", "tilted"]
    registry.build("round")
    with pytest.raises(UmieError, match="Choices: bent, round, square, tilted"):
        registry.get("zzz")
    assert "tilted_plugin" not in sys.modules
    assert registry.name_of(importlib.import_module("tilted_plugin").Tilted) == "tilted"
    assert registry.build("tilted").angle == 30
    assert registry.name_of(type(registry.build("tilted"))) == "tilted"
    assert registry.name_of(dict) is None
    assert "bent_plugin" not in sys.modules
    del sys.modules["tilted_plugin"]


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        ("import no_such_library\n", "ModuleNotFoundError: No module named 'no_such_library'"),
        ("raise RuntimeError('half done')\n", "RuntimeError: half done"),
        ("x = (\n", "SyntaxError: "),
        ("", "AttributeError: "),
        (None, "ModuleNotFoundError: No module named 'broken_plugin'"),
    ],
)
def test_a_broken_plugin_is_reported(registry, tmp_path, monkeypatch, code, reason):
    folder = tmp_path / "plugins"
    install(folder, registry.package, broken="broken_plugin:Part", fine="fine_plugin:Part")
    if code is not None:
        (folder / "broken_plugin.py").write_text(code)
    (folder / "fine_plugin.py").write_text("class Part:\n    pass\n")
    monkeypatch.syspath_prepend(str(folder))
    with pytest.raises(UmieError) as error:
        registry.build("broken")
    message = str(error.value)
    assert "The plugin 'broken_plugin:Part', which provides the shape 'broken', cannot be loaded: " in message
    assert reason in message
    assert registry.names() == ["broken", "fine", "round", "square"]  # the others still work
    assert type(registry.build("fine")).__name__ == "Part"
    for name in ("broken_plugin", "fine_plugin"):
        sys.modules.pop(name, None)


def test_a_plugin_does_not_replace_a_built_in_part(registry, tmp_path, monkeypatch):
    folder = tmp_path / "plugins"
    install(folder, registry.package, round="other_plugin:Part")
    (folder / "other_plugin.py").write_text("class Part:\n    pass\n")
    monkeypatch.syspath_prepend(str(folder))
    assert registry.names() == ["round", "square"]
    assert registry.build("round") == ("round", 1)
    assert "other_plugin" not in sys.modules
    assert registry.name_of(importlib.import_module("other_plugin").Part) is None
    del sys.modules["other_plugin"]


def test_a_plugin_fusion_in_a_variant(variant, embedded_records, tmp_path, monkeypatch):
    """In the real entry-point group, with a Config, composed by name."""
    monkeypatch.setattr(fusion.registry, "_parts", dict(fusion.registry._parts))
    install(tmp_path, "umie.fusion", halved="halved_plugin:Halved")
    (tmp_path / "halved_plugin.py").write_text(
        "from umie.fusion import FusedStates, Fusion\n"
        "class Halved(Fusion):\n"
        "    def forward(self, text, text_mask, visual, visual_mask, *, output_attention=False):\n"
        "        return FusedStates(text / 2, text_mask)\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    assert "halved" in fusion.registry.names()
    model, processor = variant(fusion={"name": "halved", "dropout": 0.0})
    output = model(**processor(embedded_records[0], "mner"))
    assert (output.fused_states == output.text_states / 2).all()
    del sys.modules["halved_plugin"]


def test_import_umie_is_cheap():
    """It imports neither torch nor transformers nor PIL; lazy names are still listed."""
    code = (
        "import sys, umie\n"
        "heavy = {'torch', 'transformers', 'PIL', 'numpy', 'open_clip', 'typer', 'matplotlib'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
        "assert {'compose', 'Record', 'UmieModel', 'UmieProcessor', 'fusion'} <= set(dir(umie))\n"
        "record = umie.Record('a text')\n"
        "assert umie.tasks.ordered() == ('mner', 'mre', 'med', 'meae')\n"
        "assert 'torch' not in sys.modules\n"
        "try:\n"
        "    umie.nothing\n"
        "except AttributeError as error:\n"
        "    assert 'nothing' in str(error)\n"
        "else:\n"
        "    raise AssertionError('umie.nothing')\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr


def test_public_names():
    for name in umie.__all__:
        assert getattr(umie, name) is not None


def test_a_plugin_cannot_take_the_name_of_a_built_in_part_that_is_not_imported_yet(tmp_path):
    """Otherwise it would depend on the order of imports which of the two is used."""
    (tmp_path / "mine.py").write_text(
        "from umie.fusion import Fusion, registry\n\n@registry.register('concat')\nclass Mine(Fusion): ...\n"
    )
    code = f"from umie.registry import load_plugins\nload_plugins([{str(tmp_path / 'mine.py')!r}])"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert run.returncode == 1
    assert "The fusion 'concat' is already registered by umie.fusion.concat; choose another name" in run.stderr


@pytest.mark.parametrize("kind", registries.ALL)
def test_a_package_shares_its_registry_and_every_name_can_be_listed(kind, umie):
    registry = registries.ALL[kind]
    assert importlib.import_module(registry.package).registry is registry
    for name in registry.known():
        assert umie("list", name)[0] == 0, name
