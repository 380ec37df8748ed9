"""Results of a grid in Python: its cells, predictions, and tidy rows, from its directory or from an archive."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from umie.errors import UmieError, check_keys, import_extra
from umie.experiments.archive import is_archive, read_archive
from umie.experiments.comparison import counts_in, options_by_slot
from umie.experiments.grid_file import GridCell, GridFile, Reference, read_grid_file
from umie.experiments.results import cell_folder, read_results, state_of
from umie.experiments.scored_tasks import ScoredTask
from umie.experiments.statistics import BySeed

if TYPE_CHECKING:
    import pandas

    from umie.records import Record

_CELL_FACTS = ("parameters", "trainable_parameters", "seconds", "memory", "disk", "health")  # of a result


@dataclass(frozen=True)
class GridResults:
    """The results of a grid.

    Attributes:
        path: its directory or archive.
        grid: its description.
        results: the newest result of each cell that has one, by hash: a mapping with ``status`` (ok or crashed),
            ``metrics`` by scored task, ``parameters``, ``seconds``, ``memory`` and so on.
        damage: sentences about damaged files, whose results are left out.
        archived: the counts of each cell, by hash, if the results are from an archive.
        others: the number of finished cells in the directory that the grid, as it last ran, does not have.
    """

    path: Path
    grid: GridFile
    results: Mapping[str, Mapping[str, Any]]
    damage: Sequence[str] = ()
    archived: Mapping[str, Mapping[str, Any]] | None = field(default=None, repr=False)
    others: int = 0

    @property
    def name(self) -> str:
        """The name of the grid."""
        return self.grid.name

    @property
    def cells(self) -> Sequence[GridCell]:
        """The planned cells."""
        return self.grid.cells

    @property
    def scored(self) -> Sequence[ScoredTask]:
        """The scored tasks."""
        return self.grid.scored

    @property
    def tasks(self) -> list[str]:
        """The keys of the scored tasks."""
        return [one.key for one in self.grid.scored]

    @property
    def mean_over(self) -> Sequence[str]:
        """The keys of the scored tasks that the mean averages."""
        return self.grid.mean_over

    @property
    def ceilings(self) -> Mapping[str, float]:
        """The best F1 without images, by key, if it is known."""
        return self.grid.ceilings

    @property
    def baselines(self) -> Mapping[str, tuple[str, float]]:
        """The baseline without a model, by key: what it answers, and its F1."""
        return self.grid.baselines

    @property
    def compare_with(self) -> str | None:
        """The variant that the others are compared with, if the grid names one."""
        return self.grid.compare_with

    @property
    def references(self) -> Sequence[Reference]:
        """Published scores."""
        return self.grid.references

    @cached_property
    def counts(self) -> Mapping[str, BySeed]:
        """Counts of correct, predicted and annotated items for each record, by variant, seed and scored task."""
        if self.archived is None:
            return counts_in(self, self.path)
        found: dict[str, dict[int, Mapping[str, Any]]] = {}
        for cell in self.cells:
            own = found.setdefault(cell.variant, {})
            if self.archived.get(cell.hash):
                own[cell.seed] = self.archived[cell.hash]
        return found

    def status(self, cell: GridCell) -> str:
        """Return ``ok``, ``failed`` or ``not run``."""
        return state_of(self.results.get(cell.hash))

    def cell(self, variant: str, seed: int) -> GridCell:
        """Return the cell of a variant and a seed; raise UmieError if there is none."""
        check_keys("variant", [variant], dict.fromkeys(cell.variant for cell in self.cells))
        for cell in self.cells:
            if (cell.variant, cell.seed) == (variant, seed):
                return cell
        seeds = ", ".join(str(cell.seed) for cell in self.cells if cell.variant == variant)
        raise UmieError(f"{self.path}: {variant!r} has no seed {seed}; its seeds are {seeds}")

    def predictions(self, cell: GridCell, task: str) -> list[Record]:
        """Return the predictions of a cell for a scored task, by its key, as records with what was extracted.

        Raises:
            UmieError: the cell has no result, or no predictions: they are not in archives.
        """
        from umie.records import read_jsonl

        check_keys("scored task", [task], self.tasks)
        name = f"{cell.variant}, seed {cell.seed}"
        if self.status(cell) != "ok":
            raise UmieError(f"{self.path}: {name} has no predictions: {self.status(cell)}")
        (scored,) = (one for one in self.scored if one.key == task)
        path = cell_folder(self.path, cell.hash) / f"{scored.file_name}.jsonl"
        if not path.is_file():
            raise UmieError(f"{path}: no such file: {name} was restored from an archive, which has no predictions")
        return list(read_jsonl(path))

    def rows(self) -> Iterator[dict[str, Any]]:
        """Yield tidy rows, one for each finished cell, scored task and metric.

        A row has ``cell`` (its hash), ``variant``, ``seed``, the label of each slot that varies, ``task``, ``metric``
        and ``value``. What a cell measures of itself, such as ``seconds.train``, has an empty ``task``.
        """
        slots = self.slots
        for cell in self.cells:
            line = self.results.get(cell.hash, {})
            if line.get("status") != "ok":
                continue
            varied = {slot: cell.options.get(slot, "") for slot in slots}
            head = {"cell": cell.hash, "variant": cell.variant, "seed": cell.seed, **varied}
            measured = [(task, line["metrics"][task]) for task in self.tasks]
            measured.append(("", {name: line[name] for name in _CELL_FACTS if name in line}))
            for task, values in measured:
                for metric, value in _numbers(values):
                    yield {**head, "task": task, "metric": metric, "value": value}

    @cached_property
    def slots(self) -> list[str]:
        """The slots with several options."""
        return list(options_by_slot(self.cells))

    @property
    def columns(self) -> list[str]:
        """The names of the values in tidy rows, in their order."""
        return ["cell", "variant", "seed", *self.slots, "task", "metric", "value"]

    def frame(self) -> pandas.DataFrame:
        """Return the tidy rows as a pandas DataFrame; see ``rows``.

        Raises:
            UmieError: pandas is not installed.
        """
        pandas = import_extra("pandas", "pandas", "a DataFrame (unlike rows())")
        return pandas.DataFrame.from_records(list(self.rows()), columns=self.columns)


def load(path: str | Path) -> GridResults:
    """Return the results in the directory of a grid, or in an archive of ``umie grid export --archive``.

    Only plain data is read: no plugin or part is imported.

    Raises:
        UmieError: it is neither, or its description is damaged; a damaged result is left out, see ``damage``.
    """
    path = Path(path)
    if path.is_file():
        if not is_archive(path):
            raise UmieError(f"{path}: not an archive of a grid: use one, or the output directory of a grid")
        grid, cells = read_archive(path)
        found = list(cells)
        counts = {one.line["hash"]: one.counts for one in found}
        return GridResults(path, grid, {one.line["hash"]: one.line for one in found}, archived=counts)
    grid = read_grid_file(path)
    damage: list[str] = []
    names = {cell.hash: f"{cell.variant}, seed {cell.seed}" for cell in grid.cells}
    keys = [one.key for one in grid.scored]
    others: list[int] = []
    results = read_results(path, names, keys, repair=False, on_damage=damage.append, on_others=others.append)
    return GridResults(path, grid, results, damage, others=sum(others))


def _numbers(value: Mapping[str, Any], name: str = "") -> Iterator[tuple[str, float]]:
    """Yield the numbers in nested mappings with their dotted names; an interval has a lower and an upper end."""
    for key, item in value.items():
        full = f"{name}.{key}" if name else key
        if isinstance(item, Mapping):
            yield from _numbers(item, full)
        elif isinstance(item, list) and name.endswith("groundings") and len(item) == 2:
            yield from zip((full, f"{full}.out_of"), (item[0] / item[1], item[1]), strict=True)
        elif isinstance(item, list) and key == "interval" and len(item) == 2:
            yield from zip((f"{full}_low", f"{full}_high"), item, strict=True)
        elif isinstance(item, int | float) and not isinstance(item, bool):
            yield full, item
