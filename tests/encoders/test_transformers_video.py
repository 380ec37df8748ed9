"""transformers_video: slots are means of the model's own tubelets, or clips of tracks; frames, checkpoints, errors."""

import json
import shutil

import pytest
import torch
import transformers
from media_checkpoints import FRAMES, MODELS, save
from torchvision.transforms.functional import normalize, to_tensor

from umie.encoders import registry
from umie.encoders.preprocessing import boxes_at
from umie.errors import UmieError
from umie.media import Clip, Sound
from umie.records import Track

SIDE = 32
KINDS = ("videomae", "vjepa2")
BOX, OTHER, SMALL = (0.0, 0.0, 0.8, 0.4), (0.4, 0.2, 1.0, 1.0), (0.71, 0.31, 0.73, 0.33)
TRACKS = [
    Track((0.0, 0.5, 0.7), (BOX, OTHER, OTHER)),
    Track((0.3, 0.4, 0.6), (OTHER, None, BOX)),
    Track((0.0, 0.7), (SMALL, SMALL)),
    Track((0.41, 0.42), (BOX, BOX)),  # at no time of a tubelet
]


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    return {kind: save(kind, tmp_path_factory.mktemp(kind)) for kind in (*KINDS, "pe_audio_video")}


@pytest.fixture(scope="module")
def encoders(folders):
    return {kind: registry.build("transformers_video", source=folder).eval() for kind, folder in folders.items()}


@pytest.fixture(scope="module")
def clip(noise):
    """Eight frames, of which the models see the first of each pair."""
    return Clip(tuple(noise(50, 40, seed) for seed in range(8)), tuple(step / 10 for step in range(8)), 0.8)


def encode(encoder, clips, tracks=None):
    with torch.no_grad():
        return encoder.encode(clips, tracks).features


def pixels_of(frames):
    """Return frames as the models take them, [1, T, 3, H, W], prepared by torchvision."""
    resized = [frame.resize((SIDE, SIDE), 2) for frame in frames]
    return torch.stack([normalize(to_tensor(one), FRAMES["image_mean"], FRAMES["image_std"]) for one in resized])[None]


def own_tubelets(kind, folder, frames):
    """Return the tubelets of a clip as transformers returns them, [T, rows, columns, D]."""
    model = transformers.AutoModel.from_pretrained(folder).eval()
    with torch.no_grad():
        if kind == "videomae":
            states = model(pixel_values=pixels_of(frames)).last_hidden_state
        else:
            states = model.get_vision_features(pixels_of(frames))
    return states.view(-1, 4, 4, states.shape[-1])


def seen_frames(clip, number=4):
    """Return the frames in the middle of equal parts of a clip, and their times."""
    chosen = [max(i for i, time in enumerate(clip.times) if time <= 0.1001 + 0.2 * step) for step in range(number)]
    return [clip.frames[i] for i in chosen], [clip.times[i] for i in chosen]


def mean_under(tubelets, times, track):
    """Loop over all tubelets, and average those whose center is under a track at their time."""
    inside = []
    for time, box, at_time in zip(times, boxes_at(track, times), tubelets, strict=True):
        assert box == track.box_at(time) or track is TRACKS[3]
        if box is None:
            continue
        centers = [(row, column, (column + 0.5) / 4, (row + 0.5) / 4) for row in range(4) for column in range(4)]
        own = [at_time[row, column] for row, column, x, y in centers if box[0] <= x <= box[2] and box[1] <= y <= box[3]]
        middle = (box[0] + box[2]) / 2, (box[1] + box[3]) / 2
        row, column, *_ = min(centers, key=lambda one: (one[2] - middle[0]) ** 2 + (one[3] - middle[1]) ** 2)
        inside += own or [at_time[row, column]]
    return sum(inside) / len(inside)


@pytest.mark.parametrize("kind", KINDS)
def test_slots_are_means_of_the_models_own_tubelets(encoders, folders, clip, kind):
    frames, times = seen_frames(clip)
    assert times == [0.1, 0.3, 0.5, 0.7]
    tubelets = own_tubelets(kind, folders[kind], frames)
    times = [(times[0] + times[1]) / 2, (times[2] + times[3]) / 2]
    found = encode(encoders[kind], [clip], [TRACKS])[0]
    torch.testing.assert_close(found[0], tubelets.mean((0, 1, 2)), atol=1e-5, rtol=1e-4)
    for slot, track in zip(found[1:], TRACKS, strict=True):
        torch.testing.assert_close(slot, mean_under(tubelets, times, track), atol=1e-5, rtol=1e-4)
    assert encoders[kind].feature_dim == tubelets.shape[-1]


@pytest.mark.parametrize("kind", KINDS)
def test_what_moves_is_in_its_track(encoders, noise, kind):
    """A bright square crosses a gray clip: the track that follows it differs most from that of a clip without it."""
    gray = noise(32, 32).point(lambda value: 128)
    frames, boxes = [], []
    for step in range(4):
        frame = gray.copy()
        frame.paste((255, 255, 255), (8 * step, 8, 8 * step + 8, 16))
        frames.append(frame)
        boxes.append((step / 4, 0.25, (step + 1) / 4, 0.5))
    times = (0.0, 0.25, 0.5, 0.75)
    follows = Track(times, tuple(boxes))
    below = Track(times, tuple((x1, 0.75, x2, 1.0) for x1, _, x2, _ in boxes))
    tracks = [[follows, below]] * 2
    moving, still = encode(encoders[kind], [Clip(tuple(frames), times, 1), Clip((gray,) * 4, times, 1)], tracks)
    change = (moving - still).norm(dim=1)
    assert change[1] > change[2]


# --- PE-AV: one space of sound and video


def pe_model(folder):
    return transformers.AutoModel.from_pretrained(folder).eval()


def test_a_track_is_the_clip_of_what_is_under_it(encoders, folders, clip):
    found = encode(encoders["pe_audio_video"], [clip], [TRACKS])[0]
    model = pe_model(folders["pe_audio_video"]).video_model
    frames, times = seen_frames(clip)
    assert len(found) == 1 + len(TRACKS)
    for slot, track in zip(found, [None, *TRACKS], strict=True):
        own = []
        for frame, box in zip(frames, [(0, 0, 1, 1)] * 4 if track is None else boxes_at(track, times), strict=True):
            if box is not None:
                left, top, right, bottom = (
                    round(box[0] * 50),
                    round(box[1] * 40),
                    round(box[2] * 50),
                    round(box[3] * 40),
                )
                own.append(frame.crop((left, top, max(right, left + 1), max(bottom, top + 1))))
        repeated = [own[step * len(own) // 4] for step in range(4)]
        with torch.no_grad():
            expected = model.video_head(model.video_encoder(pixels_of(repeated)).pooler_output)[0]
        torch.testing.assert_close(slot, expected, atol=1e-5, rtol=1e-4)


def test_sound_and_video_of_one_checkpoint_are_in_one_space(encoders, folders, clip, noise):
    """The vectors of whole sounds and clips are those that PE-AV compares."""
    folder = folders["pe_audio_video"]
    samples = torch.randn(12_800, generator=torch.Generator().manual_seed(0)).mul(0.1).clamp(-1, 1).numpy()
    audio = registry.build("transformers_audio", source=folder).eval()
    with torch.no_grad():
        model = pe_model(folder)
        sound = transformers.AutoFeatureExtractor.from_pretrained(folder)(
            samples, sampling_rate=16_000, return_tensors="pt"
        )
        found = model(input_values=sound["input_values"], pixel_values_videos=pixels_of(seen_frames(clip)[0]))
        heard, seen = audio.encode([Sound(samples, 16_000)]).features, encode(encoders["pe_audio_video"], [clip])
    torch.testing.assert_close(heard[0, :1], found.audio_embeds, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(seen[0, :1], found.video_embeds, atol=1e-5, rtol=1e-4)
    assert audio.feature_dim == encoders["pe_audio_video"].feature_dim == 16


def test_building_pe_av_prints_nothing(folders, capfd):
    registry.build("transformers_video", source=folders["pe_audio_video"])
    assert capfd.readouterr().out == ""


# --- frames


def test_frames_of_short_clips_are_repeated(encoders, noise):
    frames = tuple(noise(32, 32, seed) for seed in range(3))
    for encoder in encoders.values():
        few = encode(encoder, [Clip(frames, (0, 0.4, 0.8), 1)])
        shown = frames[:1] * 2 + frames[1:]
        many = encode(encoder, [Clip(shown, (0, 0.2, 0.4, 0.8), 1)])
        assert torch.equal(few, many)
        assert encode(encoder, [Clip(frames[:1], (0,), 1)]).isfinite().all()


def test_another_number_of_frames(folders, encoders, clip):
    for kind in ("vjepa2", "pe_audio_video"):
        few = registry.build("transformers_video", source=folders[kind], num_frames=2).eval()
        shown = Clip((clip.frames[2], clip.frames[6]), (0.2, 0.6), 0.8)
        assert torch.equal(encode(few, [clip]), encode(few, [shown]))
        assert not torch.allclose(encode(few, [clip]), encode(encoders[kind], [clip]))
        assert few.fingerprint() != encoders[kind].fingerprint()
    values = {**MODELS["vjepa2"][1], "model_type": "vjepa2", "frames_per_clip": 2}
    own = registry.build("transformers_video", config=values, preparation=FRAMES).eval()
    few = registry.build("transformers_video", source=folders["vjepa2"], num_frames=2).eval()
    own.load_state_dict(few.state_dict())
    assert torch.equal(encode(own, [clip], [TRACKS]), encode(few, [clip], [TRACKS]))
    odd = registry.build("transformers_video", source=folders["vjepa2"], num_frames=3).eval()
    late = Track((0.6, 0.7), (BOX, BOX))  # the third frame is in no tubelet
    assert encode(odd, [clip], [[late, TRACKS[0]]]).isfinite().all()
    assert odd.config.grid == (1, 4, 4)
    with pytest.raises(UmieError, match="num_frames is 2: videomae takes 4, leave it out"):
        registry.build("transformers_video", source=folders["videomae"], num_frames=2)


def test_colors_and_interpolation_are_those_of_the_checkpoint(folders, clip):
    folder = folders["videomae"]
    plain = registry.build("transformers_video", source=folder).eval()
    for changed in ({"image_mean": [0.1] * 3}, {"image_std": 0.5}, {"resample": 3}, {"do_normalize": False}):
        other = registry.build("transformers_video", source=folder, preparation={**FRAMES, **changed}).eval()
        assert not torch.allclose(encode(other, [clip]), encode(plain, [clip]))
        assert other.fingerprint() != plain.fingerprint()
    default = registry.build("transformers_video", source=folder, preparation={}).eval()
    stated = {"image_mean": [0.5] * 3, "image_std": [0.5] * 3}
    same = registry.build("transformers_video", source=folder, preparation=stated).eval()
    assert torch.equal(encode(default, [clip]), encode(same, [clip]))


def test_what_pads_a_batch_never_matters(encoders, clip, noise):
    other = Clip((noise(20, 30, 9),), (0.0,), 0.5)
    tracks = [TRACKS[:1], [Track((0.0, 0.4), (BOX, BOX))] * 3, []]
    for encoder in encoders.values():
        inputs = encoder.preprocess([clip, other, None], tracks)
        inputs["clips"][2] = 255
        if "tubelets" in inputs:
            inputs["tubelets"][~inputs["visual_mask"]] = True
        else:
            inputs["clips"][~inputs["visual_mask"]] = 255
        with torch.no_grad():
            found = encoder(**inputs).features
        for row, (one, own) in enumerate(((clip, tracks[0]), (other, tracks[1]))):
            alone = encode(encoder, [one], [own])[0]
            torch.testing.assert_close(found[row, : len(alone)], alone, atol=1e-5, rtol=1e-5)
        assert not found[2].any()


# --- checkpoints


def test_random_weights_need_a_configuration(encoders, clip):
    for encoder in encoders.values():
        options = json.loads(json.dumps(encoder.saved_options()))
        other = registry.build("transformers_video", **options).eval()
        assert other.config.has_random_weights and not encoder.config.has_random_weights
        other.load_state_dict(encoder.state_dict())
        assert torch.equal(encode(other, [clip]), encode(encoder, [clip]))
        assert other.fingerprint() == encoder.fingerprint()


def test_only_the_encoder_is_built(encoders):
    names = {name for encoder in encoders.values() for name in encoder.state_dict()}
    assert not [name for name in names if "predictor" in name or "text" in name or "classifier" in name]


SHAPE = {"model_type": "vjepa2", **MODELS["vjepa2"][1]}
PE = {"model_type": "pe_video", "video_config": MODELS["pe_audio_video"][1]["audio_video_config"]["video_config"]}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "source is not set"),
        ({"config": {"model_type": "whisper"}}, "of the kind 'whisper': use one of pe_audio_video, pe_video, videomae"),
        ({"config": {**SHAPE, "frames_per_clip": 0}}, "its number of frames is 0: use a whole number of at least 1"),
        ({"config": {**SHAPE, "frames_per_clip": 1}}, r"1 frames have \[0, 4, 4\] tubelets: use more frames"),
        ({"config": {**SHAPE, "crop_size": 100_000}}, r"its frames have \[100000, 100000\] pixels: correct them"),
        ({"config": SHAPE, "num_frames": 0}, "num_frames is 0: use a whole number"),
        ({"config": SHAPE, "preparation": {"image_std": [1, 0, 1]}}, r"image_std is \[1, 0, 1\]: use three numbers"),
        ({"config": SHAPE, "preparation": {"image_mean": [1, 1]}}, r"image_mean is \[1, 1\]: use three numbers"),
        ({"config": SHAPE, "preparation": {"image_mean": "no"}}, "image_mean is .*: use three numbers"),
        ({"config": PE}, "size is {} in the preparation of videos: set its height and its width"),
        ({"config": PE, "preparation": {"size": {"height": -1, "width": 8}}}, r"its frames have \[-1, 8\] pixels"),
        (
            {"config": {**PE, "video_config": {"vision_config": {"architecture": "hf-hub:someone/model"}}}},
            "architecture is 'hf-hub:someone/model': weights are read from the checkpoint itself: remove it",
        ),
        (
            {"config": {**PE, "video_config": {"vision_config": {"model_args": {"checkpoint_path": "a.pth"}}}}},
            "checkpoint_path is 'a.pth': weights are read from the checkpoint itself: remove it",
        ),
    ],
)
def test_bad_options_are_one_line(options, message):
    with pytest.raises(UmieError, match=message) as caught:
        registry.build("transformers_video", **options)
    assert "\n" not in str(caught.value)


def test_a_checkpoint_that_names_other_weights_is_refused(folders, tmp_path):
    shutil.copytree(folders["pe_audio_video"], tmp_path / "own")
    path = tmp_path / "own" / "config.json"
    path.write_text(path.read_text().replace('"test_vit"', '"local-dir:/somewhere"'))
    for name in ("transformers_audio", "transformers_video"):
        with pytest.raises(UmieError, match=r"config\.json: architecture is 'local-dir:/somewhere'"):
            registry.build(name, source=str(tmp_path / "own"))
