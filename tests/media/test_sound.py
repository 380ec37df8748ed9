import struct
import sys
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from media_files import DATA, needs_av, needs_data, tone, write_media, write_wav

from umie.errors import UmieError
from umie.media import Sound, media_digest, open_sound, sound


def loudest(opened):
    """Return the frequency with the most energy, in Hz."""
    energy = np.abs(np.fft.rfft(opened.samples * np.hanning(len(opened.samples))))
    return energy.argmax() * opened.rate / len(opened.samples)


@given(st.sampled_from([1, 2, 3, 4]), st.integers(1, 4), st.integers(1_000, 400_000), st.integers(1, 300), st.data())
def test_a_wav_file_is_read_back_within_its_quantization(tmp_path_factory, width, channels, rate, length, data):
    seed = data.draw(st.integers(0, 99))
    samples = np.random.default_rng(seed).uniform(-1, 1, (length, channels))
    opened = open_sound(write_wav(tmp_path_factory.getbasetemp() / "random.wav", samples, rate, width))
    assert (opened.rate, opened.samples.dtype, opened.samples.shape) == (rate, np.float32, (length,))
    assert opened.seconds == length / rate
    step = 2.0 ** (1 - 8 * width)
    assert np.abs(opened.samples - samples.mean(axis=1)).max() <= step + 1e-6  # a whole step at +1


def test_more_samples_than_are_read_at_once(tmp_path):
    samples = np.linspace(-1, 0.99, 2 * sound._BLOCK + 7)
    opened = open_sound(write_wav(tmp_path / "long.wav", samples))
    assert np.abs(opened.samples - samples).max() < 2**-15


@pytest.mark.parametrize(("rate", "other"), [(8000, 16000), (44100, 16000), (22050, 8000), (8000, 11025)])
def test_another_rate(tmp_path, rate, other):
    path = write_wav(tmp_path / "tone.wav", tone(440, rate), rate)
    opened = open_sound(path, other)
    assert (opened.rate, opened.seconds) == (other, pytest.approx(0.5, abs=1 / other))
    assert loudest(opened) == pytest.approx(440, abs=2)
    middle = slice(other // 8, -other // 8)
    expected = tone(440, other)[: len(opened.samples)]
    assert np.abs(opened.samples[: len(expected)] - expected)[middle].max() < 0.01
    assert open_sound(open_sound(path), other).samples.tobytes() == opened.samples.tobytes()


def test_resampling_does_not_leave_the_range(tmp_path):
    square = np.sign(tone(100)) * 1.0
    assert np.abs(open_sound(write_wav(tmp_path / "square.wav", square), 16000).samples).max() == 1


def test_a_sound_in_memory_is_itself():
    made = Sound(np.zeros(3, np.float32), 8000)
    assert open_sound(made) is made
    assert open_sound(made, 8000) is made
    assert made != Sound(made.samples, 8000)  # by identity, as it holds an array


@pytest.mark.parametrize(
    ("samples", "rate", "message"),
    [
        (np.zeros(0, np.float32), 8000, "no samples"),
        (np.zeros((2, 2), np.float32), 8000, r"samples is float32 \[2, 2\]: use"),
        (np.zeros(2), 8000, r"samples is float64 \[2\]: use"),
        ([0.0], 8000, "samples is list: use"),
        (np.float32([0, np.nan]), 8000, "samples are nan to nan"),
        (np.float32([0, np.inf]), 8000, "samples are 0 to inf"),
        (np.float32([-1.5, 0]), 8000, "samples are -1.5 to 0"),
        (np.zeros(2, np.float32), 999, "rate is 999: use a whole number of at least 1000"),
        (np.zeros(2, np.float32), 8000.0, "rate is 8000.0: use a whole number"),
        (np.zeros(2, np.float32), 400_001, "rate is 400001: use at most 400,000 Hz"),
        (np.broadcast_to(np.float32(0), 3_600_001), 1000, "3,600 seconds, and the limit is 3,600"),
        (np.broadcast_to(np.float32(0), 172_800_001), 400_000, "use a lower rate"),
    ],
)
def test_values_that_are_no_sound(samples, rate, message):
    with pytest.raises(UmieError, match=message):
        Sound(samples, rate)


def header(rate=8000, channels=1, bits=16, data=100, form=1):
    """Return the first 44 bytes of a WAV file."""
    size = channels * bits // 8
    return struct.pack("<4sI8sIHHIIHH4sI", b"RIFF", 36 + min(data, 2**31), b"WAVEfmt ", 16, form, channels, rate,
                       min(rate * size, 2**32 - 1), size % 2**16, bits, b"data", data)  # fmt: skip


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (header(data=4 * 3600 * 16_000), "14,400 seconds, and the limit is 3,600: cut it"),
        (header(rate=10**9), "rate is 1000000000: use at most 400,000 Hz"),
        (header(rate=0), "rate is 0: use a whole number of at least 1000"),
        (header(channels=65), "65 channels, and the limit is 64: mix"),
        (header(channels=0), ""),
        (header(data=0), "no samples"),
        (header(data=2**32 - 1), "seconds, and the limit"),
        (header(bits=64, data=800) + bytes(800), "64 bits: save it with 16"),
        (header() + bytes(99), "it is truncated: its header says 50 samples"),
        (header(data=2 * 10**8, rate=400_000), "it is truncated"),
        (header(data=10**9, rate=400_000), "500,000,000 samples, and the limit is 172,800,000: use a lower rate"),
        (header()[:30], "it is damaged"),
        (b"RIFF\0\0\0\0WAVE", "it is damaged"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:1\n", "Git LFS pointer"),
        (b"PK\x03\x04" + bytes(100), "a zip archive: unpack it"),
    ],
)
def test_bad_wav_files(tmp_path, content, message):
    needs_av()
    (tmp_path / "bad.wav").write_bytes(content)
    with pytest.raises(UmieError, match=rf"^.*bad\.wav: not a readable sound \(.*{message}") as caught:
        open_sound(tmp_path / "bad.wav")
    assert "\n" not in str(caught.value)


def test_a_file_that_is_too_large(tmp_path):
    with (tmp_path / "large.wav").open("wb") as file:
        file.write(header())
        file.truncate((4 << 30) + 1)  # takes no space
    with pytest.raises(UmieError, match="4,294,967,297 bytes, and the limit is 4,294,967,296: cut it"):
        open_sound(tmp_path / "large.wav")


def test_without_pyav(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "av", None)
    path = write_wav(tmp_path / "tone.wav", tone())
    assert open_sound(path).seconds == 0.5
    (tmp_path / "text.mp3").write_text("no sound")
    with pytest.raises(
        UmieError, match=r"text\.mp3: not a readable sound \(.* needs av: pip install 'umie\[media\]'\)$"
    ):
        open_sound(tmp_path / "text.mp3")


def test_floats_are_clipped_where_they_overshoot_and_refused_where_they_are_something_else(tmp_path):
    needs_av()
    path = tmp_path / "float.wav"

    def opened(values):
        data = np.float32(values).tobytes()
        path.write_bytes(header(bits=32, form=3, data=len(data)) + data)
        return open_sound(path).samples.tolist()

    assert opened([0.25, -0.5, 1.5, -3]) == [0.25, -0.5, 1, -1]
    for values in ([0, 32767], [0, np.nan], [-np.inf, 0]):
        with pytest.raises(UmieError, match=r"its samples are .*: save it with samples of -1 to 1"):
            opened(values)


@pytest.mark.parametrize(
    ("name", "audio", "rate", "lost"),
    [("a.mp3", "mp3", 16000, 0), ("a.flac", "flac", 16000, 0), ("a.ogg", "libopus", 48000, 2048),
     ("a.m4a", "aac", 16000, 2048), ("a.mkv", "pcm_s16le", 16000, 0), ("float.wav", "pcm_f32le", 16000, 0)],
)  # fmt: skip
def test_other_formats(tmp_path, name, audio, rate, lost):
    opened = open_sound(write_media(tmp_path / name, samples=tone(440, rate), audio=audio, rate=rate))
    assert opened.rate == rate
    assert 0 <= len(opened.samples) - rate // 2 <= lost  # blocks of a fixed size, where the format keeps no length
    assert loudest(opened) == pytest.approx(440, abs=3)
    assert np.sqrt((opened.samples**2).mean()) == pytest.approx(0.5 / 2**0.5, abs=0.03)
    if audio in ("flac", "pcm_s16le", "pcm_f32le"):
        assert np.abs(opened.samples - tone(440, rate)).max() < 2**-14


def test_the_sound_of_a_video_begins_where_the_video_begins(tmp_path):
    av = needs_av()
    path = tmp_path / "late.mkv"
    with av.open(str(path), "w") as file:
        stream = file.add_stream("mpeg4", rate=25)
        stream.width, stream.height, stream.pix_fmt = 16, 16, "yuv420p"
        voice = file.add_stream("pcm_s16le", rate=8000, layout="mono")
        for _ in range(20):
            file.mux(stream.encode(av.VideoFrame(16, 16, "yuv420p")))
        frame = av.AudioFrame.from_ndarray(np.full((1, 4000), 16384, np.int16), "s16", "mono")
        frame.rate, frame.pts, frame.time_base = 8000, 2000, Fraction(1, 8000)
        file.mux([*stream.encode(), *voice.encode(frame), *voice.encode()])
    samples = open_sound(path).samples
    assert len(samples) == 6000
    assert (samples[:2000] == 0).all()
    assert (samples[2000:] == 0.5).all()


@pytest.mark.parametrize("name", ["a.flac", "a.m4a", "a.mkv", "float.wav"])
def test_truncated_files(tmp_path, name):
    audio = {"a.flac": "flac", "float.wav": "pcm_f32le"}.get(name, "aac")
    options = {"options": {"movflags": "faststart"}} if name == "a.m4a" else {}
    path = write_media(tmp_path / name, samples=tone(440, 16000, 2), audio=audio, **options)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(UmieError, match=rf"{name}: not a readable sound \(.*(truncated|Invalid data)"):
        open_sound(path)


def test_digest(tmp_path):
    paths = [write_wav(tmp_path / f"{number}.wav", tone(400 + number)) for number in range(2)]
    opened = [open_sound(path) for path in paths]
    digests = {media_digest(source) for source in (*paths, *opened, Sound(opened[0].samples, 9000))}
    assert len(digests) == 5
    assert media_digest(open_sound(str(paths[0]))) == media_digest(opened[0])
    assert media_digest(str(paths[0])) == media_digest(paths[0])


@needs_data("fsdd")
def test_real_digits():
    seconds = [open_sound(path, 16000).seconds for path in sorted((DATA / "fsdd").glob("*_0.wav"))]
    assert len(seconds) == 60
    assert 0.1 < min(seconds) < max(seconds) < 3


@needs_data("speech_lhotse")
@pytest.mark.parametrize(
    ("name", "rate", "seconds"),
    [("2412-153948-0000.flac", 16000, 11.66), ("common_voice_en_651325.mp3", 48000, 2.376),
     ("big_buck_bunny_small.mp4", 48000, 5.312), ("LJ002-0020.wav", 22050, 1.54)],
)  # fmt: skip
def test_real_recordings(name, rate, seconds):
    needs_av()
    opened = open_sound(DATA / "speech_lhotse" / name)
    assert (opened.rate, opened.seconds) == (rate, pytest.approx(seconds, abs=0.001))


@needs_data("scaper_sed")
def test_real_soundscapes():
    for path in (DATA / "scaper_sed").glob("*soundscape*.wav"):
        assert open_sound(path).seconds == pytest.approx(10, abs=0.001)
