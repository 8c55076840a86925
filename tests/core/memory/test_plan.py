"""The memory plan: what it chooses, and that full-size models come out as they are known."""

from dataclasses import replace

import pytest

from ttvcli.core.memory.footprint import (
    Clip,
    transformer_activations,
    transformer_calls,
    transformer_flops,
)
from ttvcli.core.memory.plan import (
    Limits,
    NetworkBytes,
    place_weights,
    plan_transformer,
    plan_vae,
    ways,
)
from ttvcli.core.memory.vae_footprint import decode_flops, decode_footprint
from ttvcli.core.models.cogvideox.config import CogVideoXConfig
from ttvcli.core.models.vae.config import VAEConfig
from ttvcli.core.models.vae.tiles import Tiling

GIB = 2**30
FIVE_B = CogVideoXConfig(
    num_attention_heads=48, num_layers=42, use_rotary_positional_embeddings=True
)
FIVE_B_BYTES = NetworkBytes(2 * 17_982_528, (2 * 132_197_632,) * 42)
TTT = CogVideoXConfig(
    num_attention_heads=48, num_layers=42, use_rotary_positional_embeddings=True, ssm="ttt_mlp"
)
TTT_BYTES = NetworkBytes(2 * 17_982_528, (2 * (132_197_632 + 39_521_328),) * 42)
CHUNKS = replace(TTT, ssm="ttt_large_chunk")
CHUNKS_BYTES = NetworkBytes(2 * 17_982_528, (2 * (132_197_632 + 40_578_192),) * 42)
THREE_SECONDS = Clip(rows=2, segments=1, text=226, frames=13, frame=1350)
MINUTE = Clip(rows=2, segments=21, text=226, frames=253, frame=1350)


def gpu(gigabytes: float) -> Limits:
    return Limits(int(gigabytes * GIB), 64 * GIB, gpu=True)


def cpu(gigabytes: float) -> Limits:
    return Limits(int(gigabytes * GIB), int(gigabytes * GIB), gpu=False)


def test_operations_are_those_that_were_counted() -> None:
    one_row = Clip(rows=1, segments=1, text=226, frames=13, frame=1350)
    assert transformer_flops(FIVE_B, one_row) == pytest.approx(332e12, rel=0.01)
    assert decode_flops(VAEConfig(), (13, 60, 90)) == pytest.approx(315e12, rel=0.05)


def test_with_room_for_everything_nothing_is_offloaded() -> None:
    stage = plan_transformer(FIVE_B, FIVE_B_BYTES, THREE_SECONDS, 2, gpu(80), "auto")
    assert (stage.offload, stage.resident, stage.weights) == ("none", 42, FIVE_B_BYTES.total)


def test_a_minute_of_the_ttt_model_fits_a_card_of_24_gigabytes() -> None:
    stage = plan_transformer(TTT, TTT_BYTES, MINUTE, 2, gpu(24), "auto")
    assert stage.peak <= gpu(24).room
    assert stage.weights + stage.host >= TTT_BYTES.total


def test_large_chunks_are_counted() -> None:
    once = replace(THREE_SECONDS, rows=1)
    added = transformer_flops(CHUNKS, once) - transformer_flops(FIVE_B, once)
    # both directions: four projections, then 18 K F operations a head
    assert added == 42 * 2 * once.length * (4 * 2 * 3072**2 + 48 * 18 * 64 * 256)
    assert transformer_calls(CHUNKS, once, 0) < transformer_calls(TTT, once, 0) / 4
    longer = replace(CHUNKS, ttt_chunk_tokens=8192)
    for tile in (0, 8192):
        grown = [transformer_activations(c, once, 2, tile) for c in (CHUNKS, longer)]
        assert grown[1] > grown[0]
    # beyond the length of the clip there is nothing to hold
    whole = [replace(CHUNKS, ttt_chunk_tokens=n) for n in (once.length, 10 * once.length)]
    assert len({transformer_activations(c, once, 2, 0) for c in whole}) == 1


def test_a_minute_with_large_chunks_fits_a_card_of_24_gigabytes() -> None:
    stage = plan_transformer(CHUNKS, CHUNKS_BYTES, MINUTE, 2, gpu(24), "auto")
    assert stage.peak <= gpu(24).room
    assert stage.weights + stage.host >= CHUNKS_BYTES.total


def test_less_memory_keeps_fewer_blocks_resident() -> None:
    kept = [
        plan_transformer(TTT, TTT_BYTES, MINUTE, 2, gpu(limit), "auto") for limit in (24, 16, 12)
    ]
    assert [stage.offload for stage in kept[1:]] == ["cpu", "cpu"]
    assert kept[0].resident > kept[1].resident > kept[2].resident
    assert all(
        stage.peak <= gpu(limit).room for stage, limit in zip(kept, (24, 16, 12), strict=True)
    )


def test_what_the_host_cannot_hold_stays_on_disk() -> None:
    small_host = Limits(6 * GIB, 4 * GIB, gpu=True)
    stage = plan_transformer(TTT, TTT_BYTES, THREE_SECONDS, 2, small_host, "auto")
    assert stage.offload == "disk"
    assert stage.host <= small_host.host


def test_from_disk_the_peak_does_not_depend_on_the_size_of_the_model() -> None:
    clip = Clip(rows=2, segments=1, text=226, frames=13, frame=150)
    peaks = []
    for layers in (42, 420):
        network = NetworkBytes(TTT_BYTES.outside, TTT_BYTES.blocks[:1] * layers)
        peaks.append(plan_transformer(TTT, network, clip, 2, cpu(24), "disk", fill=False).peak)
    assert peaks[0] == peaks[1] < 3 * GIB


def test_on_a_cpu_there_is_nothing_between_memory_and_disk() -> None:
    assert ways("auto", gpu=False) == ("none", "disk")
    assert ways("cpu", gpu=False) == ("none",)
    assert ways("auto", gpu=True) == ("none", "cpu", "disk")


def test_a_ring_that_saves_nothing_is_not_used() -> None:
    network = NetworkBytes(0, (10,) * 4)
    limits = Limits(2**40, 2**40, gpu=True)
    stage = place_weights("x", network, 0, "cpu", limits)
    assert (stage.offload, stage.weights, stage.host) == ("none", 40, 0)


@pytest.mark.parametrize("room", range(30, 100, 5))
def test_streamed_weights_are_all_somewhere_and_within_the_limit(room: int) -> None:
    network = NetworkBytes(5, (10,) * 8)
    limits = Limits(room, 2**40, gpu=True)
    limits = Limits(room + limits.device - limits.room, 2**40, gpu=True)
    stage = place_weights("x", network, 3, "cpu", limits)
    assert stage.peak <= room
    ring = 0 if stage.offload == "none" else 20
    assert stage.weights - ring + stage.host == network.total


def test_smaller_tiles_need_less_and_length_costs_only_whole_arrays() -> None:
    needs = [transformer_activations(TTT, MINUTE, 2, tile) for tile in (8192, 2048, 512)]
    assert needs == sorted(needs, reverse=True)
    array = MINUTE.length * TTT.width * 2
    assert needs[0] < 3 * array + 2 * GIB


def test_decoding_does_not_grow_with_length() -> None:
    def bytes_of(frames: int) -> list[tuple[int, int, int]]:
        latents = (frames, 60, 90)
        return [
            decode_footprint(VAEConfig(), latents, 2, first=first, gpu=True)
            for first in (True, False)
        ]

    assert bytes_of(13) == bytes_of(253)
    # decoder caches at 480 x 720 in bf16: the counted 2.81 GB
    assert bytes_of(13)[0][1] == pytest.approx(2.81e9, rel=0.02)
    assert plan_vae(VAEConfig(), 431_167_814, (253, 60, 90), 2, gpu=True).peak < 12 * GIB


def test_tiles_bound_the_memory_of_a_large_picture() -> None:
    large = (22, 96, 170)  # CogVideoX-1.5: 1360 x 768
    whole = plan_vae(VAEConfig(), 431_167_814, large, 2, gpu=True)
    tiled = plan_vae(VAEConfig(), 431_167_814, large, 2, gpu=True, tiling=Tiling())
    assert whole.peak > 20 * GIB
    assert tiled.peak < 14 * GIB
    assert tiled.activations < whole.activations / 5
    # Every tile keeps its caches: with the overlap they are more than those of the whole.
    assert whole.caches < tiled.caches < 2 * whole.caches
    small = (13, 28, 40)  # no larger than a tile
    assert plan_vae(VAEConfig(), 1, small, 2, True, Tiling()) == plan_vae(
        VAEConfig(), 1, small, 2, True
    )


def test_short_passes_are_left_whole_and_long_ones_are_not() -> None:
    clip = Clip(rows=2, segments=1, text=226, frames=5, frame=60)
    short = plan_transformer(TTT, TTT_BYTES, clip, 2, gpu(80), "auto")
    long = plan_transformer(TTT, TTT_BYTES, THREE_SECONDS, 2, gpu(80), "auto")
    assert (short.tile, long.tile) == (0, 8192)
