"""Every entry of the catalogue loads; unknown names are told their neighbours."""

from __future__ import annotations

import pytest

from shardwright.ingest import calibration, gpu, model, names
from shardwright.schema.errors import InvalidInstance
from shardwright.schema.workload import BYTES_PER_PARAMETER


def test_both_spellings_are_one_model() -> None:
    slash = model("meta-llama/Meta-Llama-3-70B-Instruct")
    assert slash == model("meta-llama--Meta-Llama-3-70B-Instruct")
    assert slash.name == "meta-llama/Meta-Llama-3-70B-Instruct"
    assert len(slash.layers) == 80


@pytest.mark.parametrize("name", names("gpu"))
def test_gpu_is_complete_and_physical(name: str) -> None:
    spec = gpu(name)
    assert spec.name == name
    assert spec.source
    assert (spec.price_usd_per_hour is None) == (not spec.price_source)
    assert {"bf16", "fp16"} <= spec.dense_tflops.keys() <= BYTES_PER_PARAMETER.keys()
    assert spec.dense_tflops.keys() <= spec.calibration.matmul_efficiency.keys()
    # every size of an island finds its start-up time
    assert spec.island_gpus <= max(spec.calibration.allreduce_latency_us)
    assert spec.network_gbyte_per_s <= spec.link_gbyte_per_s


@pytest.mark.parametrize("name", names("calibration"))
def test_calibration_is_physical(name: str) -> None:
    constants = calibration(name)
    assert constants.name == name
    assert constants.source
    assert constants.hbm_efficiency <= 0.92
    assert constants.kv_read_efficiency <= 0.92
    assert max(constants.matmul_efficiency.values()) <= 0.85
    latencies = [constants.allreduce_latency_us[n] for n in (2, 4, 8)]
    assert latencies == sorted(latencies)


def test_twenty_three_gpus_and_their_calibrations_are_there() -> None:
    assert len(names("gpu")) == 23
    assert {gpu(n).calibration.name for n in names("gpu")} == set(names("calibration"))


def test_nvlink_is_per_direction() -> None:
    assert gpu("H100-SXM").link_gbyte_per_s == 450
    assert gpu("H100-NVL").island_gpus == 2
    assert gpu("GB200").island_gpus == 72


@pytest.mark.parametrize(
    ("read", "asked", "hint"),
    [
        (gpu, "h100-sxm", "did you mean H100-SXM"),
        (gpu, "H100", "did you mean H100-NVL or H100-PCIe or H100-SXM?"),
        (calibration, "hoper", "did you mean hopper"),
        (model, "meta-llama/Llama-3-70B", "did you mean meta-llama/"),
        (model, "../../etc/passwd", "a model of the catalogue (one of "),
        (gpu, "", "a GPU type of the catalogue"),
    ],
)
def test_unknown_name_is_told_its_neighbours(read, asked, hint) -> None:
    with pytest.raises(InvalidInstance) as caught:
        read(asked, "here", "instance.yaml")
    [error] = caught.value.errors
    assert error.path == "here"
    assert asked in error.found
    assert error.allowed.startswith(hint)
    assert caught.value.source == "instance.yaml"
