"""`drawn_image`, `drawn_sound`, `drawn_video`: rules that know what the embedded media set draws.

They carry out calls on that set without an error of a detector, so that what remains is that of the answers. The
phrases are the labels that the set gives to places with ``labels: true``: an icon or a sound by its name, "left person"
and "right person", "first speaker" and "second speaker", "acting person", "idle person" and "object".
"""

from __future__ import annotations

import functools
import random
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from umie.data.drawing import ICONS, visible_box
from umie.data.sounds import RATE, TIMBRES, VOICES, draw_sound
from umie.encoders.blobs import BlobConfig
from umie.encoders.regions.blobs import BlobProposer
from umie.encoders.segments.energy import EnergyProposer, EnergyProposerConfig
from umie.encoders.tracks.blobs import BlobTrackConfig, BlobTrackProposer
from umie.grounders import registry
from umie.grounders.base import Grounder
from umie.images import ImageSource, open_image
from umie.media import ClipSource, SoundSource, open_clip, open_sound
from umie.records import Box, Region, Segment, Track

_SIDE = 12  # pixels of an icon that is compared
_GROUND = (215, 215, 215)
_BANDS = 128
_WINDOW = 512  # samples of a spectrum
_DRAWS = 24  # sounds of four for each timbre

P = TypeVar("P", Region, Segment)
Features = NDArray[np.float64]
Prototypes = tuple[list[str], Features]  # names, and the features of each


@registry.register("drawn_image")
class DrawnImageGrounder(Grounder):
    """The icons of an image by name; of the people, the one on the left or on the right."""

    medium = "image"

    def find(self, source: ImageSource, phrases: Sequence[str], known: Sequence[Region] = ()) -> list[list[Region]]:
        """Return the regions that show each phrase, from the left; ``known`` is not used."""
        image = open_image(source).convert("RGB")
        (proposals,) = BlobProposer(BlobConfig()).propose([image])
        regions = [Region(box) for box in sorted(one.box for one in proposals)]
        names = [_icon_in(image, region.box) for region in regions]
        people = [region for region, name in zip(regions, names, strict=True) if name == "person"]
        named = {"left person": people[:1], "right person": people[-1:], **_by_name(names, regions)}
        return [named.get(phrase, [])[: self.config.top] for phrase in phrases]


@registry.register("drawn_sound")
class DrawnSoundGrounder(Grounder):
    """The timbres of a sound by name; of the two speakers, the first or the second."""

    medium = "audio"

    def find(self, source: SoundSource, phrases: Sequence[str], known: Sequence[Segment] = ()) -> list[list[Segment]]:
        """Return the segments in which each phrase is heard, by time; ``known`` is not used."""
        sound = open_sound(source, RATE)
        segments = sorted(EnergyProposer(EnergyProposerConfig()).propose(source), key=lambda segment: segment.interval)
        names = []
        for segment in segments:
            first, end = (round(second * RATE) for second in segment.interval)
            names.append(_nearest(_spectrum(sound.samples[first:end]), _timbres()))
        speakers = [segment for segment, name in zip(segments, names, strict=True) if name in VOICES]
        named = {"first speaker": speakers[:1], "second speaker": speakers[1:2], **_by_name(names, segments)}
        return [named.get(phrase, [])[: self.config.top] for phrase in phrases]


@registry.register("drawn_video")
class DrawnVideoGrounder(Grounder):
    """The two people of a clip, of whom one acts and the other one drifts, and the object between them."""

    medium = "video"

    def find(self, source: ClipSource, phrases: Sequence[str], known: Sequence[Track] = ()) -> list[list[Track]]:
        """Return the track that shows each phrase; ``known`` is not used."""
        tracks = BlobTrackProposer(BlobTrackConfig()).propose(source)
        clip = open_clip(source, BlobTrackConfig().num_frames)
        people: list[Track] = []
        named: dict[str, list[Track]] = {"object": []}
        for track in tracks:
            steps = zip(track.times, track.boxes, strict=True)
            time, box = next((time, box) for time, box in steps if box is not None)
            frame = clip.frames[clip.times.index(time)].convert("RGB")
            (people if _icon_in(frame, box) == "person" else named["object"]).append(track)
        people.sort(key=_extent, reverse=True)
        named |= {"acting person": people[:1], "idle person": people[1:]}
        return [named.get(phrase, [])[: self.config.top] for phrase in phrases]


def _by_name(names: Sequence[str], places: Sequence[P]) -> dict[str, list[P]]:
    found: dict[str, list[P]] = {}
    for name, place in zip(names, places, strict=True):
        found.setdefault(name, []).append(place)
    return found


def _icon_in(image: Image.Image, box: Box) -> str:
    """Return the name of the icon in a box of an image."""
    edges = [round(edge * image.size[index % 2]) for index, edge in enumerate(box)]
    return _nearest(_pixels(image.crop((edges[0], edges[1], edges[2], edges[3]))), _icons())


@functools.cache
def _icons() -> Prototypes:
    found: dict[str, list[Features]] = {}
    for name, paint in ICONS.items():
        image = Image.new("RGB", (48, 36), _GROUND)
        paint(ImageDraw.Draw(image), (0, 0, 47, 35))
        found[name] = [_pixels(image.crop(visible_box(image, _GROUND)))]
    return _stacked(found)


def _pixels(image: Image.Image) -> Features:
    return np.asarray(image.resize((_SIDE, _SIDE), Image.Resampling.BILINEAR), dtype=float).ravel() / 255


@functools.cache
def _timbres() -> Prototypes:
    found: dict[str, list[Features]] = {}
    for name in TIMBRES:
        drawn = [draw_sound(random.Random(seed), [name] * 4) for seed in range(_DRAWS)]
        found[name] = [
            _spectrum(sound.samples[round(first * RATE) : round(end * RATE)])
            for sound, intervals in drawn
            for first, end in intervals
        ]
    return _stacked(found)


def _stacked(found: Mapping[str, Sequence[Features]]) -> Prototypes:
    return [name for name, own in found.items() for _ in own], np.stack([one for own in found.values() for one in own])


def _spectrum(samples: Any) -> Features:
    """Return the mean level of each band of a sound, and how much it changes, without the volume."""
    padded = np.pad(np.asarray(samples, dtype=float), (0, max(0, _WINDOW - len(samples))))
    starts = range(0, len(padded) - _WINDOW + 1, _WINDOW // 2)
    windows = np.stack([padded[start : start + _WINDOW] for start in starts]) * np.hanning(_WINDOW)
    power = np.abs(np.fft.rfft(windows, axis=1))[:, :-1].reshape(len(windows), _BANDS, -1).mean(axis=2)
    shares = power.mean(axis=0) / max(power.sum(), 1e-12) * len(power)
    loudness = power.sum(axis=1)
    return np.concatenate([np.sqrt(shares), [loudness.std() / max(loudness.mean(), 1e-12)]])


def _nearest(features: Features, prototypes: Prototypes) -> str:
    names, known = prototypes
    return names[int(np.square(known - features).sum(axis=1).argmin())]


def _extent(track: Track) -> float:
    """Return how far the center of a track is from where it began, at most."""
    boxes = np.array([box for box in track.boxes if box is not None])
    centers = (boxes[:, :2] + boxes[:, 2:]) / 2
    return float(np.linalg.norm(centers - centers[0], axis=1).max())
