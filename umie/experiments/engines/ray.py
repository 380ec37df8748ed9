"""The engine ``ray``: each job is a Ray task, on this machine or a cluster, whose nodes need no common file system.

What jobs read (records and the media that they name, warm starts, stored features, local weights, plugins) is put into
Ray's object store once, and written to a folder of each node once. The files that a job writes come back as bytes.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
import uuid
from collections import deque
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import FileLock

import umie
from umie.errors import UmieError, import_extra, one_line
from umie.experiments.config import PARTS
from umie.experiments.data_sets import DataSet
from umie.experiments.engines.base import NO_RESULT, Job, Watcher
from umie.experiments.engines.processes import num_processors, run_here
from umie.experiments.limits import Limits
from umie.experiments.results import RESULT
from umie.files import atomic_write, inside, json_text
from umie.records import MEDIA

if TYPE_CHECKING:
    from umie.experiments.engines import Ray

POLL_S = 0.2
CLEAN_S = 10.0
CHUNK = 1 << 26  # bytes of files in one object

Files = list[tuple[str, bytes]]  # names relative to a folder, and contents


class RayEngine:
    """Run each job as a Ray task, which Ray retries if its node is lost; see ``Engine``.

    On its node, a job runs as with the engine ``processes``: with the limits of a grid, and with a log of its own.

    Args:
        options: of the engine.
        workers: number of jobs at the same time; by default one for every two processors of this machine, or as many
            as a cluster has room for.
        limits: of a job.

    Raises:
        UmieError: ray is not installed.
    """

    def __init__(self, options: Ray, workers: int | None, limits: Limits) -> None:
        import_extra("ray", "ray", "engine ray")
        self.options, self.limits = options, limits
        is_local = options.address is None
        self.window = workers or (max(1, num_processors() // 2) if is_local else None)
        self.workers = self.window or 1
        share = max(1, num_processors() // self.workers) if is_local else 1
        self.num_cpus = options.num_cpus or share

    def run(self, jobs: Sequence[Job], watcher: Watcher) -> Generator[tuple[Job, str]]:
        """Run jobs as tasks."""
        import ray
        from ray.util.queue import Queue

        is_own = not ray.is_initialized()
        if is_own:
            self._connect(ray)
        running: dict[Any, int] = {}  # by the task, the number of its job
        inputs: _Inputs | None = None
        try:
            here = _on(ray.get_runtime_context().get_node_id())  # another node may be lost
            events = Queue(actor_options={"num_cpus": 0, "scheduling_strategy": here})
            memory = {} if self.limits.memory_bytes is None else {"memory": self.limits.memory_bytes}
            num_gpus = self.options.num_gpus
            if num_gpus is None:
                num_gpus = 1.0 if ray.cluster_resources().get("GPU") else 0.0
            task = ray.remote(_task).options(
                num_cpus=self.num_cpus, num_gpus=num_gpus, max_retries=self.options.retries, **memory
            )
            inputs = _Inputs(ray)
            threads = max(1, int(self.num_cpus))
            waiting = deque(range(len(jobs)))
            unseen = set(waiting)
            while waiting or running:
                while waiting and (self.window is None or len(running) < self.window):
                    number = waiting.popleft()
                    jobs[number].folder.mkdir(parents=True, exist_ok=True)
                    (jobs[number].folder / RESULT).unlink(missing_ok=True)
                    sent = inputs.sent(number, jobs[number])
                    running[task.remote(sent, self.limits, threads, events, umie.__version__)] = number
                ready, _ = ray.wait(list(running), timeout=POLL_S)
                told = events.get_nowait_batch(events.qsize())
                for number, phase, share in [*told, *((running[one], "", 0.0) for one in ready)]:
                    if number in unseen:
                        unseen.remove(number)
                        watcher.started(jobs[number])
                    if phase and number in running.values():
                        watcher.advanced(jobs[number], phase, share)
                for reference in ready:
                    job = jobs[running.pop(reference)]
                    yield job, self._finish(ray, reference, job)
        finally:
            for reference in running:
                ray.cancel(reference, force=True)
            if inputs is not None:
                _clean_nodes(ray, inputs.run)
            if is_own:
                ray.shutdown()

    def _connect(self, ray: Any) -> None:
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        quiet = {"log_to_driver": False, "logging_level": "ERROR", "include_dashboard": False}
        if self.options.address is None:
            ray.init(num_cpus=max(num_processors(), int(self.workers * self.num_cpus)), **quiet)
            return
        del quiet["include_dashboard"]  # an option of a new cluster
        try:
            ray.init(address=self.options.address, **quiet)
        except (ConnectionError, ValueError, RuntimeError) as error:
            raise UmieError(f"engine ray: no cluster at {self.options.address}: {one_line(error)}") from error

    def _finish(self, ray: Any, reference: Any, job: Job) -> str:
        """Write the files of a job that ended; return how it ended if it has no result."""
        try:
            found = ray.get(reference)
        except ray.exceptions.RayError as error:
            return f"its Ray task failed: {one_line(getattr(error, 'cause', None) or error)}"
        folders = _outputs(job)
        for place, files in found.items():
            for name, content in sorted(files, key=lambda file: file[0] == RESULT):  # the result comes last
                with atomic_write(inside(folders[place], name), "wb") as file:
                    file.write(content)
        return NO_RESULT


def _outputs(job: Job) -> dict[str, Path]:
    """Return the folders that a job writes, by what they are; its own, with the result, is the last one."""
    folders = {}
    if Path(job.values.get("folder", job.folder)) != job.folder:
        folders["written"] = Path(job.values["folder"])
    if "trackers" in job.values:
        folders["trackers"] = Path(job.values["trackers"]["folder"])
    return {**folders, "job": job.folder}


@dataclass(frozen=True)
class _Sent:
    """A job as it is sent: in its values, tokens are in place of paths.

    Args:
        number: of the job.
        run: a name of the run of the engine.
        name: of the job.
        text: its values as JSON.
        inputs: by token, the objects with the files of a folder.
        outputs: by what it is, the token of a folder that it writes.
    """

    number: int
    run: str
    name: str
    text: str
    inputs: Mapping[str, list[Any]]
    outputs: Mapping[str, str]


class _Inputs:
    """The files that jobs read, which are put into the object store once."""

    def __init__(self, ray: Any) -> None:
        self.ray = ray
        self.run = uuid.uuid4().hex
        self.media: dict[str, Mapping[str, Sequence[str]]] = {}  # by data
        self.known: dict[str, tuple[str, list[Any], str]] = {}  # by path: its token, objects, file

    def sent(self, number: int, job: Job) -> _Sent:
        """Return a job whose files were put into the object store."""
        values: dict[str, Any] = json.loads(json_text(job.values, default=list))
        used: dict[str, list[Any]] = {}

        def place(path: str | None, names: Sequence[str] | None = None) -> str | None:
            if path is None:
                return None
            if path not in self.known:
                self.known[path] = (f"<{self.run}-{len(self.known)}>", *self._put(Path(path), names))
            token, objects, file = self.known[path]
            used[token] = objects
            return f"{token}/{file}" if file else token

        sets = values.get("data", {}).get("sets", {})
        media = self._media(sets)
        for one in sets.values():
            one["files"] = {split: place(path) for split, path in one["files"].items()}
            one["images"] = {split: place(path, media.get(path or "", ())) for split, path in one["images"].items()}
        for key in ("warm_start", "store"):
            if key in values:
                values[key] = place(values[key])
        config = values.get("config", {})
        config["plugins"] = [place(path) for path in config.get("plugins", ())]
        if "start_from" in config:
            config["start_from"] = place(config["start_from"])
        if "features" in config:
            config["features"]["folder"] = place(config["features"]["folder"])
        for slot in set(PARTS) & set(config):
            for key, value in (config[slot] or {}).items():
                if key != "name" and isinstance(value, str) and Path(value).exists():
                    config[slot][key] = place(value)
        outputs = {name: f"<{self.run}-{name}>" for name in _outputs(job)}
        values["folder"] = outputs.get("written", outputs["job"])
        if "trackers" in values:
            values["trackers"]["folder"] = outputs["trackers"]
        return _Sent(number, self.run, job.name, json_text(values), used, outputs)

    def _media(self, sets: Mapping[str, Any]) -> Mapping[str, Sequence[str]]:
        """Return the media that the records of data sets name, by their folder."""
        key = json_text(sets)
        if key not in self.media:
            found: dict[str, dict[str, None]] = {}
            for one in sets.values():
                for split, folder in one["images"].items():
                    names = found.setdefault(folder or "", {})
                    for record in DataSet(**one).read(split) if folder and split in one["files"] else ():
                        for medium in MEDIA:
                            for number in range(len(record.of(medium))):
                                with suppress(UmieError):  # a path that leaves its folder
                                    path = record.path(medium, number)
                                    if path is not None:
                                        names[Path(os.path.relpath(path, folder)).as_posix()] = None
            self.media[key] = {folder: list(names) for folder, names in found.items()}
        return self.media[key]

    def _put(self, path: Path, names: Sequence[str] | None) -> tuple[list[Any], str]:
        if path.is_file():
            return [self.ray.put([(path.name, path.read_bytes())])], path.name
        if names is None:
            names = [one.relative_to(path).as_posix() for one in sorted(path.rglob("*")) if one.is_file()]
        return [self.ray.put(chunk) for chunk in _chunks(path, names)], ""


def _chunks(folder: Path, names: Sequence[str]) -> Iterator[Files]:
    """Yield the files of a folder, not much more than CHUNK bytes at a time."""
    chunk: Files = []
    size = 0
    for name in names:
        with suppress(OSError):  # a file that is missing here is missing there
            content = (folder / name).read_bytes()
            chunk.append((name, content))
            size += len(content)
        if size >= CHUNK:
            yield chunk
            chunk, size = [], 0
    if chunk:
        yield chunk


class _Reporter:
    """A watcher on a node, which tells the driver what happens."""

    def __init__(self, number: int, events: Any) -> None:
        self.number, self.events = number, events

    def started(self, job: Job) -> None:
        """Tell that the job started."""
        self.events.put((self.number, "", 0.0))

    def advanced(self, job: Job, phase: str, share: float) -> None:
        """Tell the phase of the job."""
        self.events.put((self.number, phase, share))


def _task(sent: _Sent, limits: Limits, num_threads: int, events: Any, version: str) -> dict[str, Files]:
    """Run a job on a node; return the files that it wrote."""
    import ray

    if umie.__version__ != version:
        raise UmieError(f"the node has umie {umie.__version__}, not {version}: install the same version on all nodes")
    node = Path(tempfile.gettempdir()) / f"umie-{sent.run}-{ray.get_runtime_context().get_node_id()}"
    text = sent.text
    for token, objects in sent.inputs.items():
        text = text.replace(token, _quoted(_placed(ray, node, token, objects)))
    work = node / "jobs" / uuid.uuid4().hex
    folders = {name: work / name for name in sent.outputs}
    for name, token in sent.outputs.items():
        text = text.replace(token, _quoted(folders[name]))
    try:
        job = Job(sent.name, folders["job"], json.loads(text))
        run_here(job, limits, num_threads, _Reporter(sent.number, events), keeps_server=True)
        return {name: list(_all_files(folder)) for name, folder in folders.items()}
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _clean_nodes(ray: Any, run: str) -> None:
    """Remove what the tasks of a run left on the nodes."""
    clean = ray.remote(_clean)
    places = [_on(node["NodeID"]) for node in ray.nodes() if node["Alive"]]
    tasks = [clean.options(num_cpus=0, max_retries=0, scheduling_strategy=place).remote(run) for place in places]
    ray.wait(tasks, num_returns=len(tasks), timeout=CLEAN_S)


def _on(node: str) -> Any:
    """Return the scheduling strategy that runs a task or an actor on a node."""
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    return NodeAffinitySchedulingStrategy(node_id=node, soft=False)


def _clean(run: str) -> None:
    for folder in Path(tempfile.gettempdir()).glob(f"umie-{run}-*"):
        shutil.rmtree(folder, ignore_errors=True)


def _placed(ray: Any, node: Path, token: str, objects: Sequence[Any]) -> Path:
    """Return a folder with the files of an input, which the first task on a node writes."""
    folder = node / token.strip("<>").rpartition("-")[2]
    if not (node / f"{folder.name}.done").exists():
        node.mkdir(parents=True, exist_ok=True)
        with FileLock(node / f"{folder.name}.lock"):
            if not (node / f"{folder.name}.done").exists():
                folder.mkdir(exist_ok=True)
                for reference in objects:
                    for name, content in ray.get(reference):
                        path = inside(folder, name)
                        path.parent.mkdir(parents=True, exist_ok=True)
                        path.write_bytes(content)
                (node / f"{folder.name}.done").touch()
    return folder


def _all_files(folder: Path) -> Iterator[tuple[str, bytes]]:
    for path in sorted(folder.rglob("*")):
        if path.is_file() and not path.is_symlink():
            yield path.relative_to(folder).as_posix(), path.read_bytes()


def _quoted(path: Path) -> str:
    return json.dumps(str(path))[1:-1]
