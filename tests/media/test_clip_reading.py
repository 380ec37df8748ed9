import os
import sys
from random import Random

import numpy as np
import pytest
from media_files import DATA, gray, grays, needs_av, needs_data, tone, write_media, write_wav
from PIL import Image

from umie.errors import UmieError
from umie.media import Clip, media_digest, open_clip, open_sound
from umie.media.clip import _chosen


def clip(count, seconds=None):
    return Clip(tuple(grays(count)), tuple(i / 10 for i in range(count)), seconds or count / 10)


def animate(path, frames, durations, **options):
    frames[0].save(path, save_all=True, append_images=frames[1:], duration=durations, **options)
    return path


@pytest.mark.parametrize(
    ("count", "most", "expected"),
    [(1, 1, [0]), (3, 8, [0, 1, 2]), (8, 8, [*range(8)]), (8, 4, [1, 3, 5, 7]), (9, 3, [1, 4, 7]), (7, 1, [3]),
     (10, 3, [1, 5, 8])],
)  # fmt: skip
def test_frames_are_those_at_the_middles_of_equal_parts(count, most, expected):
    opened = open_clip(clip(count), most)
    assert [gray(frame) for frame in opened.frames] == expected
    assert opened.times == tuple(i / 10 for i in expected)
    assert opened.seconds == count / 10


def test_frames_are_spaced_by_time_and_taken_once():
    times = (0.0, 0.1, 0.2, 9.0)
    assert _chosen(times, 10.0, 3) == [2]
    assert _chosen(times, 10.0, 4) == [0, 1, 2, 3]
    assert _chosen((5.0, 6.0, 7.0, 8.0), 9.0, 2) == [1, 3]  # from the first frame on


@pytest.mark.parametrize("count", range(1, 60))
def test_a_frame_at_a_boundary_does_not_depend_on_rounding(count):
    times = [i / 29.97 for i in range(2 * count)]
    assert _chosen(times, 2 * count / 29.97, count) == [2 * i + 1 for i in range(count)]


@pytest.mark.parametrize("suffix", ["png", "gif", "webp"])
def test_animations_have_their_own_times(tmp_path, monkeypatch, suffix):
    options = {"lossless": True} if suffix == "webp" else {}
    path = animate(tmp_path / f"clip.{suffix}", grays(6), [100, 200, 300, 100, 100, 200], **options)
    opened = open_clip(path, 10)
    assert [gray(frame) for frame in opened.frames] == [*range(6)]
    assert opened.times == pytest.approx((0, 0.1, 0.3, 0.6, 0.7, 0.8))
    assert opened.seconds == pytest.approx(1)
    chosen = open_clip(str(path), 2)
    assert [gray(frame) for frame in chosen.frames] == [1, 4]
    assert chosen.times == pytest.approx((0.1, 0.7))
    monkeypatch.setattr("umie.media.clip._KEPT", 0)  # large ones are decoded twice
    for most in (10, 2):
        assert [gray(frame) for frame in open_clip(path, most).frames] == ([*range(6)] if most == 10 else [1, 4])


@pytest.mark.parametrize("kept", [0, 1 << 24])
def test_animations_are_turned_as_displayed(tmp_path, monkeypatch, kept):
    monkeypatch.setattr("umie.media.clip._KEPT", kept)
    exif = Image.Exif()
    exif[0x0112] = 6  # a quarter turn
    opened = open_clip(animate(tmp_path / "clip.png", grays(3), 100, exif=exif), 9)
    assert [frame.size for frame in opened.frames] == [(8, 16)] * 3


def test_a_png_whose_first_image_is_not_in_the_animation(tmp_path):
    opened = open_clip(animate(tmp_path / "clip.png", grays(4), [100] * 4, default_image=True), 9)
    assert [gray(frame) for frame in opened.frames] == [1, 2, 3]
    assert opened.times == pytest.approx((0, 0.1, 0.2))


def test_frames_without_a_duration_are_shown_as_in_browsers(tmp_path):
    assert open_clip(animate(tmp_path / "clip.gif", grays(3), 0), 9).times == pytest.approx((0, 0.1, 0.2))


def test_transparency_is_white(tmp_path):
    frames = [Image.new("RGBA", (4, 4), (0, 0, number, 0)) for number in range(2)]
    opened = open_clip(animate(tmp_path / "clip.png", frames, 100), 2)
    assert {frame.getpixel((0, 0)) for frame in opened.frames} == {(255, 255, 255)}


@pytest.mark.parametrize("name", ["still.png", "still.jpg", "pages.tiff", "still.wav"])
def test_a_still_image_is_one_frame(tmp_path, name):
    pages = grays(3) if name == "pages.tiff" else grays(1)
    form = "PNG" if name == "still.wav" else None
    options = {"save_all": True, "append_images": pages[1:]} if len(pages) > 1 else {}
    pages[0].save(tmp_path / name, format=form, **options)
    opened = open_clip(tmp_path / name, 4)
    assert (len(opened.frames), opened.times, opened.seconds) == (1, (0.0,), 0.04)


def test_a_folder_has_its_images_in_natural_order(tmp_path):
    for number, image in enumerate(grays(12), start=1):
        image.save(tmp_path / f"frame{number}.png")
    (tmp_path / "notes.txt").write_text("no frame")
    (tmp_path / ".frame0.png").write_text("not shown")
    opened = open_clip(tmp_path, 99)
    assert [gray(frame) for frame in opened.frames] == [*range(12)]
    assert (opened.times[:3], opened.seconds) == ((0, 0.04, 0.08), 0.48)
    assert open_clip(tmp_path, 4, frame_rate=10).times == (0.1, 0.4, 0.7, 1.0)


@pytest.mark.parametrize(
    ("frames", "times", "seconds", "message"),
    [
        ((), (), 1, "0 frames and 0 times"),
        (grays(2), (0.0,), 1, "2 frames and 1 times: use one time per frame"),
        (grays(2), (0.0, 0.0), 1, r"times\[0\] is 0, and what follows is 0: use ascending times"),
        (grays(2), (0.0, 0.5), 0.5, r"times\[1\] is 0.5, and what follows is 0.5"),
        (grays(1), (-1.0,), 1, "negative, NaN or infinite"),
        (grays(2), (0.0, float("nan")), 1, "negative, NaN or infinite"),
        (grays(1), (0.0,), float("inf"), "negative, NaN or infinite"),
        ((Image.new("L", (2, 2)),), (0.0,), 1, r"frames\[0\] is not an image in RGB"),
    ],
)
def test_values_that_are_no_clip(frames, times, seconds, message):
    with pytest.raises(UmieError, match=message):
        Clip(tuple(frames), times, seconds)


def test_options():
    with pytest.raises(UmieError, match="max_frames is 0: use a whole number of at least 1"):
        open_clip(clip(1), 0)
    with pytest.raises(UmieError, match="frame_rate is 0: use a number greater than 0"):
        open_clip(clip(1), 1, frame_rate=0)


VIDEOS = [("a.mp4", "libx264"), ("a.mkv", "libx264"), ("a.webm", "libvpx"), ("a.avi", "mpeg4"), ("a.ts", "libx264"),
          ("a.mpg", "mpeg2video"), ("a.wmv", "wmv2"), ("a.flv", "flv")]  # fmt: skip


@pytest.mark.parametrize(("name", "codec"), VIDEOS)
def test_videos(tmp_path, name, codec):
    path = write_media(tmp_path / name, grays(60, (64, 48)), video=codec)
    every = open_clip(path, 99)
    assert every.times == pytest.approx([i / 25 for i in range(60)], abs=0.001)
    assert every.seconds == pytest.approx(60 / 25, abs=0.001)
    assert [frame.size for frame in every.frames] == [(64, 48)] * 60
    assert max(abs(frame.getpixel((9, 9))[1] - 4 * i) for i, frame in enumerate(every.frames)) <= 9
    chosen = open_clip(path, 5)  # decoded from keyframes in between
    assert chosen.times == pytest.approx([i / 25 for i in (6, 18, 30, 42, 54)], abs=0.001)
    assert [frame.tobytes() for frame in chosen.frames] == [every.frames[i].tobytes() for i in (6, 18, 30, 42, 54)]


@pytest.mark.parametrize("turn", [90, 180, 270])
def test_videos_are_turned_as_displayed(tmp_path, turn):
    av = needs_av()
    if not hasattr(av.VideoStream, "set_display_rotation"):
        pytest.skip("this PyAV cannot write a rotation")
    image = Image.new("RGB", (64, 32), "blue")
    image.paste((255, 255, 0), (0, 0, 32, 16))
    frame = open_clip(write_media(tmp_path / "a.mp4", [image] * 3, turn=turn), 1).frames[0]
    expected = image.rotate(turn, expand=True)  # counterclockwise
    assert frame.size == expected.size
    assert np.abs(np.asarray(frame, int) - np.asarray(expected, int)).mean() < 6


def test_sound_and_frames_of_one_file(tmp_path):
    path = write_media(tmp_path / "a.mp4", grays(25, (32, 32)), tone(440, 16000, 1))
    assert open_clip(path, 5).seconds == pytest.approx(1)
    assert open_sound(path, 8000).seconds == pytest.approx(1, abs=0.1)


def test_the_cover_of_music_is_no_video(tmp_path):
    av = needs_av()
    write_media(tmp_path / "a.m4a", samples=tone(440, 16000))
    with av.open(str(tmp_path / "a.m4a")) as music, av.open(str(tmp_path / "cover.mp4"), "w") as file:
        sound = file.add_stream_from_template(music.streams.audio[0])
        cover = file.add_stream("png", rate=1)
        cover.width, cover.height, cover.pix_fmt = 16, 16, "rgb24"
        cover.disposition = av.stream.Disposition.attached_pic
        file.mux(cover.encode(av.VideoFrame.from_image(grays(1, (16, 16))[0])))
        for packet in music.demux():
            if packet.dts is not None:
                packet.stream = sound
                file.mux(packet)
    with pytest.raises(UmieError, match="it has no video"):
        open_clip(tmp_path / "cover.mp4", 4)
    assert open_sound(tmp_path / "cover.mp4").seconds > 0.4


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv", "a.avi"])
def test_truncated_videos(tmp_path, name):
    options = {"options": {"movflags": "faststart"}} if name == "a.mp4" else {}
    path = write_media(tmp_path / name, grays(60, (64, 48)), video="mpeg4", **options)
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 2 // 3])
    with pytest.raises(UmieError, match=rf"{name}: not a readable clip \(it is truncated: it ends after .* seconds"):
        open_clip(path, 4)


@pytest.mark.parametrize("suffix", ["png", "gif", "webp"])
def test_truncated_animations(tmp_path, suffix):
    noise = [Image.effect_noise((32, 32), 50).convert("RGB") for _ in range(4)]
    path = animate(tmp_path / f"clip.{suffix}", noise, 100)
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 2 // 3])
    with pytest.raises(UmieError, match=r"clip\.\w+: not a readable clip \(") as caught:
        open_clip(path, 4)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["clip.png", "clip.mp4"])
def test_the_limit_of_pixels(tmp_path, monkeypatch, name):
    frames = grays(3, (64, 48))
    path = write_media(tmp_path / name, frames) if name == "clip.mp4" else animate(tmp_path / name, frames, 100)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 3000)
    with pytest.raises(UmieError, match=rf"{name}: not a readable clip \(.*(64 x 48 pixels|3072 pixels).* limit"):
        open_clip(path, 2)


@pytest.mark.parametrize("name", ["folder", "clip.gif", "clip.mp4"])
def test_the_limit_of_frames(tmp_path, monkeypatch, name):
    path, frames = tmp_path / name, grays(4, (64, 48))
    if name == "folder":
        path.mkdir()
        for number, frame in enumerate(frames):
            frame.save(path / f"{number}.png")
    else:
        write_media(path, frames) if name == "clip.mp4" else animate(path, frames, 100)
    monkeypatch.setattr("umie.media.clip.MAX_FRAMES", 3)
    with pytest.raises(UmieError, match=rf"{name}: not a readable .*4 frames, and the limit is 3: cut it"):
        open_clip(path, 2)


BAD = {
    "empty.mp4": b"",
    "text.mp4": b"This is a text.\n" * 20,
    "pointer.mp4": b"version https://git-lfs.github.com/spec/v1\noid sha256:1\n",
    "zip.mp4": b"PK\x03\x04" + bytes(99),
    "concat.mp4": b"ffconcat version 1.0\nfile other.mp4\n",
    "list.m3u8": b"#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\nhttp://127.0.0.1:9/a.ts\n#EXT-X-ENDLIST\n",
    "session.sdp": b"v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=video 9 RTP/AVP 96\n",
    "dash.mpd": b'<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011" type="static"></MPD>',
    "image%03d.mp4": b"\0" * 300,
    "ftyp.mp4": b"\0\0\0\x18ftypisom\0\0\0\0isomiso2",
}


@pytest.mark.parametrize("name", BAD)
@pytest.mark.parametrize("call", [lambda path: open_clip(path, 4), open_sound])
def test_files_that_are_neither(tmp_path, name, call, capfd):
    needs_av()
    path = tmp_path / name
    path.write_bytes(BAD[name])
    with pytest.raises(UmieError) as caught:
        call(path)
    assert str(caught.value).startswith(f"{path}: not a readable ")
    assert "\n" not in str(caught.value)
    assert capfd.readouterr() == ("", "")


def test_a_file_of_the_other_kind(tmp_path):
    needs_av()
    wav = write_wav(tmp_path / "sound.mp4", tone())
    assert open_sound(wav).seconds == 0.5  # what a file is does not depend on its name
    with pytest.raises(UmieError, match=r"sound\.mp4: not a readable clip \(it has no video\)"):
        open_clip(wav, 4)
    grays(1)[0].save(tmp_path / "image.wav", format="PNG")
    with pytest.raises(UmieError, match=r"image\.wav: not a readable sound \(.* its format is not one of wav, "):
        open_sound(tmp_path / "image.wav")
    with pytest.raises(UmieError, match=r"a\.mp4: not a readable sound \(it has no sound\)"):
        open_sound(write_media(tmp_path / "a.mp4", grays(3, (32, 32))))


def test_a_video_that_refers_to_another_file(tmp_path):
    """FFmpeg would read the other file, whatever the name of the list."""
    needs_av()
    write_media(tmp_path / "other.mp4", grays(3, (32, 32)))
    path = tmp_path / "list.mp4"
    path.write_text("ffconcat version 1.0\nfile 'other.mp4'\n")
    with pytest.raises(UmieError, match=r"list\.mp4: not a readable clip"):
        open_clip(path, 4)


@pytest.mark.parametrize("call", [lambda path: open_clip(path, 4), open_sound, media_digest])
@pytest.mark.parametrize("name", ["absent.mp4", "nul\0.mp4", "n" * 300, "http://127.0.0.1:9/a.mp4"])
def test_paths_that_are_no_files(tmp_path, call, name):
    with pytest.raises(UmieError) as caught:
        call(name if "/" in name else tmp_path / name)
    assert "\n" not in str(caught.value)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no pipes")
@pytest.mark.parametrize("call", [lambda path: open_clip(path, 4), open_sound, media_digest])
def test_a_pipe(tmp_path, call):
    os.mkfifo(tmp_path / "pipe.mp4")
    with pytest.raises(UmieError, match=r"pipe\.mp4: not a readable .*is a pipe or a device, not a regular file"):
        call(tmp_path / "pipe.mp4")


def test_folders(tmp_path):
    with pytest.raises(UmieError, match="not a readable folder of frames .it has no frames"):
        open_clip(tmp_path, 4)
    with pytest.raises(UmieError, match=r"not a readable sound \(Is a directory, not a regular file\)"):
        open_sound(tmp_path)
    (tmp_path / "1.png").write_text("no image")
    with pytest.raises(UmieError, match=r"1\.png: not a readable image"):
        open_clip(tmp_path, 4)


def test_neither_clip_nor_path():
    with pytest.raises(UmieError, match="expected a clip in memory or a path, not bytes"):
        open_clip(b"a.mp4", 4)
    with pytest.raises(UmieError, match="expected a sound in memory or a path, not int"):
        open_sound(4)


def test_without_pyav(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "av", None)
    assert len(open_clip(animate(tmp_path / "clip.png", grays(3), 100), 9).frames) == 3
    (tmp_path / "a.mp4").write_bytes(bytes(100))
    with pytest.raises(UmieError, match=r"a\.mp4: not a readable clip \(.* needs av: pip install 'umie\[media\]'\)$"):
        open_clip(tmp_path / "a.mp4", 4)


def test_digest(tmp_path):
    made = clip(3)
    assert media_digest(made) == media_digest(clip(3))
    assert media_digest(made) != media_digest(clip(3, seconds=9))
    assert media_digest(made) != media_digest(Clip(tuple(reversed(made.frames)), made.times, made.seconds))
    for number, frame in enumerate(made.frames):
        frame.save(tmp_path / f"{number}.png")
    before = media_digest(tmp_path)
    (tmp_path / "notes.txt").write_text("no frame")
    assert media_digest(tmp_path) == before
    (tmp_path / "2.png").rename(tmp_path / "3.png")
    assert media_digest(tmp_path) != before


def check_damage(folder, name, seed):
    """Damage a file in many ways; it is sound or frames, or an error of one line."""
    options = {"frames": grays(20, (32, 32)), "video": "mpeg4"} if name in ("a.mp4", "a.avi") else {}
    audio = {"a.flac": "flac", "float.wav": "pcm_f32le", "a.ogg": "libopus"}.get(name, "mp3")
    path = folder / name
    if name == "pcm.wav":
        write_wav(path, tone(), width=3)
    elif name.startswith("clip."):
        animate(path, grays(4), 100)
    else:
        write_media(path, samples=tone(440, 48000, 0.2), rate=48000, audio=audio, **options)
    content, random = path.read_bytes(), Random(seed)
    for _ in range(30):
        data = bytearray(content)
        for _ in range(random.choice([1, 2, 9])):
            place = random.randrange(min(len(data), random.choice([64, 512, 10**9])))
            size = random.choice([0, 1, 4, 40])
            data[place : place + size] = random.choice([b"", b"\0" * size, b"\xff" * size, random.randbytes(size + 1)])
        path.write_bytes(data[: random.randrange(1, len(data))] if random.random() < 0.2 else data)
        for call in (lambda: open_sound(path, 16000), lambda: open_clip(path, 3)):
            try:
                call()
            except UmieError as error:
                assert "\n" not in str(error)


DAMAGED = ["pcm.wav", "float.wav", "a.mp3", "a.flac", "a.ogg", "a.mp4", "a.avi", "clip.png", "clip.gif", "clip.webp"]


@pytest.mark.parametrize("name", DAMAGED)
def test_damaged_files(tmp_path, name, capfd):
    needs_av()
    check_damage(tmp_path, name, seed=0)
    assert capfd.readouterr() == ("", "")


@pytest.mark.slow
@pytest.mark.parametrize("name", DAMAGED)
def test_many_damaged_files(tmp_path, name):
    needs_av()
    for seed in range(1, 40):
        check_damage(tmp_path, name, seed)


@needs_data("video_otb_crossing")
def test_a_real_folder():
    opened = open_clip(DATA / "video_otb_crossing" / "img", 6)
    assert opened.seconds == 4.8
    assert opened.times == pytest.approx([i / 25 for i in (10, 30, 50, 70, 90, 110)])
    assert {frame.size for frame in opened.frames} == {(360, 240)}


@needs_data("speech_lhotse")
def test_a_real_video():
    needs_av()
    path = DATA / "speech_lhotse" / "big_buck_bunny_small.mp4"
    every, chosen = open_clip(path, 999), open_clip(path, 4)
    assert (len(every.frames), every.seconds) == (132, 5.28)
    for time, frame in zip(chosen.times, chosen.frames, strict=True):
        assert frame.tobytes() == every.frames[every.times.index(time)].tobytes()
