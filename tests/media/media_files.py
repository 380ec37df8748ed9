"""Sound and video that the tests make."""

import wave
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

DATA = Path(__file__).resolve().parents[2].parent / "shared" / "data"
WIDTHS = {1: (np.uint8, 128), 2: (np.int16, 0), 3: (np.int32, 0), 4: (np.int32, 0)}


def needs_av():
    return pytest.importorskip("av", reason="PyAV is not installed")


def needs_data(name):
    return pytest.mark.skipif(not (DATA / name).exists(), reason=f"../shared/data/{name} is not there")


def write_wav(path, samples, rate=8000, width=2):
    """Write samples [N] or [N, channels] in -1..1 as PCM."""
    samples = np.asarray(samples, np.float64).reshape(len(samples), -1)
    kind, middle = WIDTHS[width]
    half = 2 ** (8 * width - 1)
    whole = (np.clip(np.round(samples * half), -half, half - 1) + middle).astype(kind)
    data = whole.tobytes()
    if width == 3:
        data = whole.reshape(-1, 1).view(np.uint8)[:, :3].tobytes()  # without the highest byte
    with wave.open(str(path), "wb") as file:
        file.setparams((samples.shape[1], width, rate, 0, "NONE", ""))
        file.writeframes(data)
    return path


def tone(hertz=440, rate=8000, seconds=0.5, loudness=0.5):
    return loudness * np.sin(2 * np.pi * hertz * np.arange(round(rate * seconds)) / rate)


def grays(count, size=(16, 8)):
    """Return frames that are told apart by their gray: 0, 4, 8, ..."""
    return [Image.new("RGB", size, (4 * number,) * 3) for number in range(count)]


def gray(image):
    return round(image.getpixel((0, 0))[0] / 4)


def write_media(path, frames=(), samples=None, *, video="libx264", audio="aac", rate=16000, turn=0, **options):
    """Write frames of 25 per second, a keyframe every 10, and samples [N], with PyAV."""
    av = needs_av()
    with av.open(str(path), "w", **options) as file:
        if frames:
            stream = file.add_stream(
                video, rate=25, options={"preset": "ultrafast", "qp": "1"} if "264" in video else {}
            )
            stream.width, stream.height = frames[0].size
            stream.pix_fmt, stream.codec_context.gop_size = "yuv420p", 10
            if turn:
                stream.set_display_rotation(turn)
        if samples is not None:
            sound = file.add_stream(audio, rate=rate, layout="mono")
        for image in frames:
            file.mux(stream.encode(av.VideoFrame.from_image(image)))
        if frames:
            file.mux(stream.encode())
        if samples is not None:
            frame = av.AudioFrame.from_ndarray(np.float32(samples)[None], "fltp", "mono")
            frame.rate = rate
            size = sound.codec_context.frame_size or None
            resampler = av.AudioResampler(sound.format, "mono", rate, size)
            for part in [*resampler.resample(frame), *resampler.resample(None)]:
                file.mux(sound.encode(part))
            file.mux(sound.encode())
    return path
