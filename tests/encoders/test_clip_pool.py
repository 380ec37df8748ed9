"""`clip`, mode "pool": one pass over the whole image, regions from its map; small towers of every kind."""

import copy
import dataclasses
import json

import pytest
import torch
from clip_samples import Holder
from torch import nn
from torch.func import functional_call
from transformers import PreTrainedConfig

from umie.encoders import registry
from umie.encoders.clip.pool import resized, spatial

WHOLE, LEFT, CORNER = (0.0, 0.0, 1.0, 1.0), (0.0, 0.0, 0.5, 1.0), (0.6, 0.7, 1.0, 1.0)
REGIONS = [[LEFT, CORNER], [CORNER], []]
TEXT = {"context_length": 4, "vocab_size": 8, "width": 8, "heads": 1, "layers": 1}
VIT = {"image_size": 32, "layers": 2, "width": 64, "head_width": 32, "patch_size": 8}
TIMM = {"image_size": 80, "timm_proj": "linear"}
MODELS = {
    "umie-pool-token": VIT,
    "umie-pool-average": {**VIT, "pool_type": "avg", "final_ln_after_pool": True, "no_ln_pre": True},
    "umie-pool-average-late": {**VIT, "pool_type": "avg"},
    "umie-pool-coca": {**VIT, "attentional_pool": True, "attn_pooler_queries": 5, "attn_pooler_heads": 4},
    "umie-pool-resnet": {"image_size": 64, "layers": [1, 1, 1, 1], "width": 16, "head_width": 32},
    "umie-pool-convnext": {**TIMM, "timm_model_name": "test_convnext", "timm_pool": "", "timm_proj": "mlp"},
    "umie-pool-timm-token": {**TIMM, "timm_model_name": "umie_small_vit", "timm_pool": "token"},
    "umie-pool-timm-average": {**TIMM, "timm_model_name": "umie_small_vit", "timm_pool": "avg"},
    "umie-pool-timm-dynamic": {**TIMM, "timm_model_name": "umie_small_dynamic", "timm_pool": "avg"},
    "umie-pool-siglip": {**TIMM, "timm_model_name": "umie_small_siglip", "timm_pool": "map", "timm_proj": None},
    # rotary positions
    "umie-pool-eva": {**TIMM, "timm_model_name": "umie_small_eva", "timm_pool": "token", "timm_proj": None},
}
AVERAGING = ["umie-pool-average", "umie-pool-average-late", "umie-pool-convnext", "umie-pool-timm-average"]
AVERAGING += ["umie-pool-timm-dynamic"]
models = pytest.mark.parametrize("model", MODELS)


def umie_small_vit(pretrained=False, **options):
    import timm

    return timm.create_model("test_vit", **{"img_size": 80, "depth": 2, "dynamic_img_size": False, **options})


def umie_small_dynamic(pretrained=False, **options):
    return umie_small_vit(dynamic_img_size=True, **options)


def umie_small_siglip(pretrained=False, **options):
    return umie_small_vit(class_token=False, **options)


def umie_small_eva(pretrained=False, **options):
    import timm

    sizes = {"img_size": 80, "patch_size": 16, "embed_dim": 64, "depth": 2, "num_heads": 2, "ref_feat_shape": (5, 5)}
    return timm.create_model("eva02_tiny_patch14_224", **sizes, **options)


@pytest.fixture(scope="session")
def open_clip(tmp_path_factory):
    import open_clip
    import timm

    for build in (umie_small_vit, umie_small_dynamic, umie_small_siglip, umie_small_eva):
        timm.models.register_model(build)
    folder = tmp_path_factory.mktemp("models")
    for name, vision in MODELS.items():
        (folder / f"{name}.json").write_text(json.dumps({"embed_dim": 24, "vision_cfg": vision, "text_cfg": TEXT}))
    open_clip.add_model_config(folder)
    return open_clip


@pytest.fixture(scope="session")
def encoders(open_clip):
    torch.manual_seed(0)
    return {name: randomized(registry.build("clip", model=name, mode="pool").eval()) for name in MODELS}


@pytest.fixture(scope="module")
def images(noise):
    return [noise(120, 80), noise(50, 90, 1), None]


def randomized(encoder):
    """Set weights apart from zero that start there: positions, biases and scales would have no effect."""
    with torch.no_grad():
        for parameter in encoder.parameters():
            if len(parameter.unique()) == 1:
                parameter.add_(0.2 * torch.randn_like(parameter))
    return encoder


def own_size(encoder):
    return encoder.preprocess.own_size


def close(actual, expected):
    scale = float(expected.abs().max())
    assert scale > 1e-3
    torch.testing.assert_close(actual, expected, atol=1e-5 * scale, rtol=0)


@models
def test_a_square_image_at_the_own_size_is_open_clips(open_clip, encoders, noise, model):
    encoder = encoders[model]
    whole = open_clip.create_model(model).eval()
    whole.visual.load_state_dict(encoder.tower.state_dict(), strict=False)
    prepare = open_clip.transform.image_transform_v2(
        open_clip.transform.PreprocessCfg(**whole.visual.preprocess_cfg), is_train=False
    )
    image = noise(150, 150)
    found = encoder.encode([image, noise(90, 60)], [[CORNER], [LEFT]]).features[0, 0]
    with torch.no_grad():
        close(found, whole.encode_image(prepare(image)[None])[0])


def test_vit_at_another_size_is_open_clips_tower_of_that_size(open_clip, encoders, noise):
    encoder = encoders["umie-pool-token"]
    found = encoder.encode([noise(96, 64)]).features[0]
    other = open_clip.create_model("umie-pool-token", force_image_size=(32, 48))
    state = {f"visual.{name}": value.clone() for name, value in encoder.tower.state_dict().items()}
    open_clip.model.resize_pos_embed(state, other)
    other.load_state_dict(state, strict=False)
    pixels = encoder.preprocess([noise(96, 64)])["pixels"]
    assert pixels.shape == (1, 3, 32, 48)
    with torch.no_grad():
        close(found, other.eval().encode_image(pixels))


def test_timm_at_another_size_is_timms_dynamic_tower(encoders, noise):
    import timm

    encoder = encoders["umie-pool-timm-token"]
    dynamic = timm.create_model("umie_small_dynamic", num_classes=0, global_pool="token").eval()
    dynamic.load_state_dict(encoder.tower.trunk.state_dict())
    pixels = encoder.preprocess([noise(96, 64)])["pixels"]
    assert pixels.shape == (1, 3, 80, 128)
    with torch.no_grad():
        close(encoder.encode([noise(96, 64)]).features[0], encoder.tower.head(dynamic(pixels)))


def test_rotary_positions_are_timms_at_that_size(encoders, noise):
    encoder = encoders["umie-pool-eva"]
    other = copy.deepcopy(encoder.tower)
    other.trunk.set_input_size((80, 128))
    pixels = encoder.preprocess([noise(96, 64)])["pixels"]
    with torch.no_grad():
        close(encoder.encode([noise(96, 64)]).features[0], other(pixels))


@models
def test_batches_of_different_sizes_leave_the_tower_as_it_was(encoders, noise, model):
    encoder = encoders[model]
    square, wide, high = noise(60, 60), noise(90, 40, 1), noise(40, 120, 2)
    before = {name: value.clone() for name, value in encoder.tower.state_dict().items()}
    first = encoder.encode([square], [[LEFT, CORNER]]).features[0]
    together = encoder.encode([wide, square, None, high, wide], [[], [LEFT, CORNER], [], [LEFT], [CORNER]]).features
    single = encoder.encode([high], [[LEFT]]).features[0]
    close(together[1], first)
    close(together[3, :2], single)
    assert torch.equal(encoder.encode([square], [[LEFT, CORNER]]).features[0], first)
    after = encoder.tower.state_dict()
    assert list(after) == list(before)
    assert all(torch.equal(after[name], value) for name, value in before.items())


@pytest.mark.parametrize("model", AVERAGING)
def test_a_region_around_the_image_is_the_image_where_the_tower_averages(encoders, images, model):
    whole, region = encoders[model].encode(images[:1], [[WHOLE]]).features[0]
    close(region, whole)


def test_a_region_is_the_pooled_patches_as_the_token_is_taken(encoders, images):
    """Where the class token represents the image, the tower's end is written out: normalized, projected."""
    ends = {
        "umie-pool-token": lambda tower, token: tower.ln_post(token) @ tower.proj,
        "umie-pool-timm-token": lambda tower, token: tower.head(tower.trunk.norm(token)),
        "umie-pool-eva": lambda tower, token: tower.trunk.head(tower.trunk.norm(token)),
    }
    for model, end in ends.items():
        encoder, kept = encoders[model], []
        blocks = encoder.tower.transformer.resblocks if model == "umie-pool-token" else encoder.tower.trunk.blocks
        handle = blocks[-1].register_forward_hook(lambda module, inputs, output, kept=kept: kept.append(output))
        found = encoder.encode(images[:1], [[WHOLE]]).features[0]
        handle.remove()
        ((tokens,),) = kept
        close(found[0], end(encoder.tower, tokens[0]).detach())
        close(found[1], end(encoder.tower, tokens[1:].mean(0)).detach())


def test_a_region_of_a_resnet_is_its_attention_pool_over_equal_cells(encoders):
    parts = spatial(encoders["umie-pool-resnet"].tower)
    cells, place = torch.randn(3, 512), torch.randn(512)
    pool = parts.tower.attnpool
    with torch.no_grad():
        spread = cells[:, :, None, None].expand(-1, -1, 2, 3)
        expected = functional_call(pool, {"positional_embedding": place.expand(7, -1)}, (spread,))
        close(parts.head(cells + place), expected)


def test_a_region_around_the_image_is_the_image_where_a_resnet_attends_evenly(encoders, noise):
    encoder = copy.deepcopy(encoders["umie-pool-resnet"])
    pool = encoder.tower.attnpool
    with torch.no_grad():
        pool.q_proj.weight.zero_()
        pool.q_proj.bias.zero_()
        pool.positional_embedding[0] = pool.positional_embedding[1:].mean(0)
    whole, region = encoder.encode([noise(70, 70)], [[WHOLE]]).features[0]
    close(region, whole)


def test_positions_of_a_resnet_stand_at_their_cells(encoders, noise):
    """Where the map is empty, a region is nothing but the positions of its cells."""
    encoder = copy.deepcopy(encoders["umie-pool-resnet"])
    pool = encoder.tower.attnpool
    with torch.no_grad():
        for parameter in encoder.tower.layer4.parameters():
            parameter.zero_()
        corners = [(0.2, 0.2, 0.25, 0.25), (0.75, 0.2, 0.8, 0.25), (0.2, 0.75, 0.25, 0.8), (0.75, 0.75, 0.8, 0.8)]
        found = encoder.encode([noise(70, 70)], [corners]).features[0, 1:]
        close(found, pool.c_proj(pool.v_proj(pool.positional_embedding[1:])))


def test_a_region_of_coca_is_its_attention_pool_over_equal_cells(encoders):
    parts = spatial(encoders["umie-pool-coca"].tower)
    cells = torch.randn(3, 64)
    with torch.no_grad():
        pooled, _ = parts.tower._pool(cells[:, None].expand(-1, 7, -1))
        close(parts.head(cells), pooled @ parts.tower.proj)


def test_one_cell_is_the_whole_image_for_a_latent_attention(encoders, noise):
    """SigLIP's pool over a map of one cell sees what a region sees, its norm included."""
    encoder = copy.deepcopy(encoders["umie-pool-siglip"])
    encoder.preprocess = type(encoder.preprocess)(dataclasses.replace(encoder.config, short_side=16))
    assert encoder.preprocess([noise(80, 80)])["pixels"].shape == (1, 3, 16, 16)
    whole, region = encoder.encode([noise(80, 80)], [[CORNER]]).features[0]
    close(region, whole)


@models
def test_a_box_inside_a_cell_is_that_cell(encoders, noise, model):
    encoder = encoders[model]
    parts = spatial(encoder.tower)
    inputs = encoder.preprocess([noise(160, 80)])
    with torch.no_grad():
        _, maps = parts.whole_and_map(inputs["pixels"])
    height, width = maps.shape[2:]
    assert width > height > 1
    row, column = height - 1, 1
    x, y = (column + 0.5) / width, (row + 0.5) / height
    found = encoder.encode([noise(160, 80)], [[(x - 1e-4, y - 1e-4, x + 1e-4, y + 1e-4)]]).features[0, 1]
    scale = float(found.abs().max())
    torch.testing.assert_close(found, parts.head(maps[:, :, row, column])[0].detach(), atol=1e-3 * scale, rtol=0)


@models
def test_a_region_is_about_its_own_place(encoders, noise, model):
    """What is inside a box changes its features more than what is at the other end of the image."""
    encoder = encoders[model]
    image = noise(240, 80)
    boxes = [(0.75, 0.0, 1.0, 0.5), (0.0, 0.5, 0.25, 1.0)]
    features = encoder.encode([image], [boxes]).features[0, 1:]
    places = [(180, 0, 240, 40), (0, 40, 60, 80)]
    for own, other in [(0, 1), (1, 0)]:
        changed = [image.copy(), image.copy()]
        changed[0].paste(noise(60, 40, 7), places[own])
        changed[1].paste(noise(60, 40, 7), places[other])
        moved = [encoder.encode([each], [boxes]).features[0, 1 + own] - features[own] for each in changed]
        assert moved[0].norm() > 2 * moved[1].norm()


@models
def test_layout_of_the_pixels_does_not_matter(encoders, images, model):
    encoder = copy.deepcopy(encoders[model])
    encoder.config = dataclasses.replace(encoder.config, channels_last=False)
    close(encoder.encode(images, REGIONS).features, encoders[model].encode(images, REGIONS).features)


@pytest.mark.parametrize("own", [(7, 7), (3, 5)])
def test_positions_are_resized_as_timm_resizes_them(own):
    from timm.layers import resample_abs_pos_embed

    positions = torch.randn(2 + own[0] * own[1], 8)
    expected = resample_abs_pos_embed(positions[None], new_size=[4, 9], old_size=list(own), num_prefix_tokens=2)[0]
    assert torch.equal(resized(positions, own, (4, 9)), expected)


@models
@pytest.mark.parametrize("precision", [None, "bfloat16"])
def test_saved_model_loads_again(encoders, images, tmp_path, model, precision):
    options = {"model": model, "mode": "pool", "short_side": None, "precision": precision}
    holder = Holder(PreTrainedConfig(encoder=options)).eval()
    holder.encoder.load_state_dict(encoders[model].state_dict())
    expected = holder.encoder.encode(images, REGIONS).features
    assert expected.dtype == (torch.bfloat16 if precision else torch.float32)
    scale = float(expected.abs().max())
    torch.testing.assert_close(
        expected.float(), encoders[model].encode(images, REGIONS).features, atol=0.05 * scale, rtol=0
    )
    holder.save_pretrained(tmp_path)
    dirt = [torch.full((1 << size,), torch.nan) for size in range(8, 20)]
    del dirt
    loaded = Holder.from_pretrained(tmp_path)
    assert {parameter.dtype for parameter in loaded.encoder.parameters()} == {expected.dtype}
    close(loaded.encoder.encode(images, REGIONS).features.float(), expected.float())


def test_a_trainable_tower_learns_its_positions_at_every_size(open_clip, noise):
    encoder = registry.build("clip", model="umie-pool-token", mode="pool", trainable=True)
    encoder.train()
    encoder.encode([noise(96, 64)], [[LEFT]]).features.square().sum().backward()
    gradient = encoder.tower.positional_embedding.grad
    assert gradient.isfinite().all()
    assert gradient.any(dim=1).all()
    assert isinstance(encoder.tower.positional_embedding, nn.Parameter)
