"""Loading instances and plans; the path of every refused field, word for word."""

from __future__ import annotations

import hashlib
import json
import pickle
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from shardwright.ingest import gpu, instance_sha256, load, load_plan
from shardwright.ingest.catalogue import root
from shardwright.ingest.load import canonical_json, load_bytes
from shardwright.ingest.references import plain
from shardwright.schema import InstanceFile
from shardwright.schema.errors import InvalidInstance

H100 = "cluster.gpu_types.h100"


def test_load_resolves_everything(tmp_path: Path, instance_text: str) -> None:
    path = tmp_path / "instance.yaml"
    path.write_text(instance_text)
    instance = load(path)
    spec = instance.cluster.gpu_types["h100"]
    assert spec.memory_bytes == 80 * 10**9
    assert spec.hbm_gbyte_per_s == gpu("H100-SXM").hbm_gbyte_per_s
    assert spec.calibration.name == "hopper"
    assert spec.name == "H100-SXM"
    assert len(instance.model.layers) == 80
    assert instance.limits.memory_fraction == 0.85
    assert instance == load(str(path))


def test_yaml_and_json_are_one_instance(document, instance_text, tmp_path) -> None:
    from_yaml = load_bytes(instance_text.encode(), "i.yaml", tmp_path)
    from_json = load_bytes(json.dumps(document).encode(), "i.json", tmp_path)
    assert from_yaml == from_json
    assert instance_sha256(from_yaml) == instance_sha256(from_json)


def test_the_resolved_instance_is_a_file_of_its_own(instance_text, tmp_path) -> None:
    """The canonical JSON loads without the catalogue, to the same hash."""
    instance = load_bytes(instance_text.encode(), "i.yaml", tmp_path)
    text = canonical_json(instance)
    assert hashlib.sha256(text.encode()).hexdigest() == instance_sha256(instance)
    again = load_bytes(text.encode(), "i.json", tmp_path)
    assert again == instance
    assert instance_sha256(again) == instance_sha256(instance)


def test_hash_depends_on_every_figure_and_on_no_spelling(
    document, changed, tmp_path
) -> None:
    def digest(raw: dict[str, Any]) -> str:
        return instance_sha256(load_bytes(json.dumps(raw).encode(), "i.json", tmp_path))

    base = digest(document)
    assert digest(dict(reversed(document.items()))) == base
    assert digest(changed({"workload.request_rate_per_s": 4.0})) == base
    assert digest(changed({"limits.memory_fraction": 0.85})) == base
    assert digest(changed({f"{H100}.memory": "80000 MB"})) == base
    assert digest(changed({f"{H100}.memory": "80 GiB"})) != base
    assert digest(changed({f"{H100}.calibration": "ampere"})) != base
    assert digest(changed({"workload.max_batch": 65})) != base


def test_files_that_load_are_instance_files(document, changed) -> None:
    """The published schema class and the loader agree."""
    inline = plain(gpu("A100-80"))
    for raw in (document, changed({H100: inline})):
        read = InstanceFile.model_validate_json(json.dumps(raw))
        assert read.name == document["name"]


def test_gpu_types_may_be_inline_or_overridden(changed, tmp_path) -> None:
    inline = {**plain(gpu("A100-80")), "name": "mine", "island_gpus": 4}
    raw = changed({"cluster.gpu_types.h100": inline})
    instance = load_bytes(json.dumps(raw).encode(), "i.json", tmp_path)
    assert instance.cluster.gpu_types["h100"].name == "mine"
    raw = changed({f"{H100}.calibration": "hopper-pcie", f"{H100}.island_gpus": 4})
    instance = load_bytes(json.dumps(raw).encode(), "i.json", tmp_path)
    assert instance.cluster.gpu_types["h100"].calibration.name == "hopper-pcie"
    assert instance.cluster.island_size(instance.cluster.nodes[0]) == 4


def test_model_may_be_a_file_a_folder_or_inline(changed, tmp_path) -> None:
    folder = tmp_path / "my--model"
    folder.mkdir()
    source = root() / "llm" / "meta-llama--Meta-Llama-3-70B-Instruct.json"
    shutil.copy(source, folder / "config.json")
    shutil.copy(source, tmp_path / "other.json")

    def model_of(value: Any) -> Any:
        raw = changed({"model": value})
        return load_bytes(json.dumps(raw).encode(), "i.json", tmp_path).model

    by_file = model_of("my--model/config.json")
    assert by_file.name == "my/model"
    assert model_of("./my--model") == by_file
    assert model_of("other.json").name == "other"
    assert model_of("other.json").layers == by_file.layers
    assert model_of(plain(by_file)) == by_file


def test_errors_of_a_model_file_name_file_and_field(changed, refused, tmp_path) -> None:
    path = tmp_path / "moe.json"
    path.write_text('{"architectures": ["LlamaForCausalLM"], "ssm_state_size": 8}')
    found, allowed = refused(changed({"model": "moe.json"}))["model"]
    assert found == f"{path}: ssm_state_size is 8"
    assert "state-space layers" in allowed
    found, allowed = refused(changed({"model": "./nowhere.json"}))["model"]
    assert found == f"{tmp_path}/nowhere.json: no such file"
    path.write_text("{")
    assert "broken JSON" in refused(changed({"model": "moe.json"}))["model"][0]


REFUSED = [
    # (changes, path, found, allowed starts with)
    ({"workload.max_batch": "12"}, "workload.max_batch", '"12"', "a whole number"),
    ({"workload.max_batch": 1e3}, "workload.max_batch", "1000.0", "a whole number"),
    ({"workload.max_batch": True}, "workload.max_batch", "true", "a whole number"),
    ({"workload.max_batch": 0}, "workload.max_batch", "0", "at least 1"),
    ({"workload.max_batch": 10**6}, "workload.max_batch", "1000000", "at most 65536"),
    ({"workload.request_rate_per_s": 0}, "workload.request_rate_per_s", "0",
     "a number above 0"),
    ({"workload.request_rate_per_s": 10**400}, "workload.request_rate_per_s",
     "a whole number of more than 80 digits", "whole numbers"),
    ({"workload.kv_reserve": "p95"}, "workload.kv_reserve", '"p95"',
     "one of 'p99' or 'max_context'"),
    ({"workload.input_tokens": 5}, "workload.input_tokens", "5", "a mapping"),
    ({"workload.input_tokens": {}}, "workload.input_tokens",
     "a mapping with no keys", "exactly one of constant, mean, histogram"),
    ({"workload.input_tokens": {"mean": 5}}, "workload.input_tokens",
     "a mapping with mean", "mean and cv belong together"),
    ({"workload.input_tokens": {"histogram": [[1]]}},
     "workload.input_tokens.histogram.0.1", "nothing", "this field is required"),
    ({"clutser": 1}, "clutser", "1", "did you mean cluster? fields here are"),
    ({"workload.max_bacth": 1}, "workload.max_bacth", "1", "did you mean max_batch?"),
    ({"cluster.nodes.0.gpu_type": "h100"}, "cluster.nodes.0.gpu_type", '"h100"',
     "fields here are name, gpu, gpus"),
    ({f"{H100}.memory_gb": 80}, f"{H100}.memory_gb", "80", "did you mean memory"),
    ({f"{H100}.memory": 80}, f"{H100}.memory", "80", "a size with its unit"),
    ({f"{H100}.memory": "80"}, f"{H100}.memory", '"80"', "a size with its unit"),
    ({f"{H100}.memory": "80 Gb"}, f"{H100}.memory", '"80 Gb"', "a size with its unit"),
    ({f"{H100}.memory": "0 GB"}, f"{H100}.memory", '"0 GB"', "a number above 0"),
    ({f"{H100}.memory": "9000 TiB"}, f"{H100}.memory", '"9000 TiB"', "at most 1048576"),
    ({f"{H100}.calibration": "hoper"}, f"{H100}.calibration", '"hoper"',
     "did you mean hopper"),
    ({f"{H100}.catalogue": "H1000"}, f"{H100}.catalogue", '"H1000"', "did you mean"),
    ({H100: "H100-SXM"}, H100, '"H100-SXM"', "a mapping, such as {catalogue:"),
    ({"cluster.gpu_types": {}}, "cluster.gpu_types", "a mapping with no keys",
     "at least one entry"),
    ({"cluster": []}, "cluster", "a list of 0", "a mapping"),
    ({"cluster.nodes": None}, "cluster.nodes", "null", "a list"),
    ({"cluster.nodes": []}, "cluster.nodes", "a list of 0", "at least one entry"),
    ({"cluster.nodes.0": 3}, "cluster.nodes.0", "3", "a mapping"),
    ({"cluster.nodes.0.gpu": "h200"}, "cluster.nodes.0.gpu", '"h200"',
     "did you mean h100? one of h100"),
    ({"cluster.nodes.0.failed": [1, 8]}, "cluster.nodes.0.failed.1", "8",
     "a GPU of this node, 0 to 7"),
    ({"cluster.nodes.0.reserved": [-1]}, "cluster.nodes.0.reserved.0", "-1",
     "at least 0"),
    ({"cluster.nodes.0.count": 90_000}, "cluster.nodes", "720000 GPUs",
     "at most 200000 GPUs"),
    ({"model": "meta-llama/Llama-3-70B"}, "model", '"meta-llama/Llama-3-70B"',
     "did you mean meta-llama/"),
    ({"model": 7}, "model", "7", "a catalogue name"),
    ({"slo": {}}, "slo", "a mapping with no keys", "a list"),
    ({"slo.0.metric": "p99"}, "slo.0.metric", '"p99"', "one of 'ttft'"),
    ({"slo.0.percentile": 100}, "slo.0.percentile", "100",
     "a number below 100, or 'mean'"),
    ({"slo.0.percentile": "p99"}, "slo.0.percentile", '"p99"', "a number, or 'mean'"),
    ({"limits.memory_fraction": "85"}, "limits.memory_fraction", '"85"', "a number"),
    ({"limits.memory_fraction": "x%"}, "limits.memory_fraction", '"x%"',
     "a number or a percentage"),
    ({"limits.memory_fraction": "nan%"}, "limits.memory_fraction", '"nan%"',
     "numbers are finite"),
    ({"limits.memory_fraction": 85}, "limits.memory_fraction", "85", "at most 1"),
    ({"precision.weights": "fp6"}, "precision.weights", '"fp6"', "one of 'bf16'"),
    ({"objective": ["speed"]}, "objective.0", '"speed"', "one of 'gpus'"),
    ({"objective": []}, "objective", "a list of 0", "at least one entry"),
    ({"schema_version": "2.0"}, "schema_version", '"2.0"', "'1.0'"),
    ({"schema_version": 1.0}, "schema_version", "1.0", "'1.0'"),
    ({"name": ""}, "name", '""', "text that is not empty"),
    ({"name": "x" * 201}, "name", '"xxx', "at most 200 characters"),
    ({"name": "a\x00"}, "name", '"a\\u0000"', "text has no control characters"),
    ({"fix": None}, "fix", "null", "a mapping"),
    # between fields
    ({"workload.max_context_tokens": 2303}, "workload.max_context_tokens", "2303",
     "at least the 2048 input and 256 output tokens"),
    ({"workload.max_context_tokens": 8193}, "workload.max_context_tokens", "8193",
     "at most the 8192 positions of meta-llama/Meta-Llama-3-70B-Instruct"),
    ({"fix.layers": [40, 40]}, "fix.layers", "2 stages", "one entry per stage"),
    ({"fix.layers": [20, 20, 20, 21]}, "fix.layers", "81 layers in 4 stages",
     "they add up to 80 layers"),
    ({"fix": {"layers": [5] * 16 + [0]}}, "fix.layers.16", "0", "at least 1"),
    ({"fix": {"layers": [4] * 20}}, "fix.layers", "20",
     "at most 16 (limits.max_pipeline_stages)"),
    ({"fix": {"pp": 20}}, "fix.pp", "20", "at most 16 (limits.max_pipeline_stages)"),
    ({"fix": {"pp": 90}, "limits.max_pipeline_stages": 128}, "fix.pp", "90",
     "at most 80 (layers of the model)"),
    ({"fix": {"tp": 8}, "limits.max_tensor_parallel": 4}, "fix.tp", "8",
     "at most 4 (limits.max_tensor_parallel)"),
    ({"fix": {"sequences": 65}}, "fix.sequences", "65", "at most 64 (workload"),
    ({H100: {"catalogue": "H20"}, "objective": ["cost"]},
     f"{H100}.price_usd_per_hour", "nothing", "a price is needed for the goal cost"),
    ({H100: {"catalogue": "H20"}, "limits.max_cost_usd_per_hour": 9},
     f"{H100}.price_usd_per_hour", "nothing",
     "a price is needed for limits.max_cost_usd_per_hour"),
    ({f"{H100}.dense_tflops": {"fp8": 1979}}, f"{H100}.dense_tflops", "fp8",
     "bf16 is needed (precision.activations)"),
    ({f"{H100}.dense_tflops": {"bf16": 989, "b16": 1}}, f"{H100}.dense_tflops.b16",
     "1.0", "did you mean"),
    ({f"{H100}.calibration": "mi300", f"{H100}.dense_tflops": {"bf16": 1, "int8": 2},
      "precision": {"weights": "int8"}}, f"{H100}.calibration.matmul_efficiency",
     "bf16, fp16, fp8", "int8 is needed"),
]  # fmt: skip


@pytest.mark.parametrize(("changes", "path", "found", "allowed"), REFUSED)
def test_refused_by_path(changed, refused, changes, path, found, allowed) -> None:
    errors = refused(changed(changes))
    assert list(errors) == [path]
    assert errors[path][0].startswith(found)
    assert errors[path][1].startswith(allowed)


@pytest.mark.parametrize(
    "path",
    ["name", "model", "cluster", "workload", "cluster.nodes", "cluster.gpu_types",
     "workload.input_tokens", "workload.max_context_tokens"],
)  # fmt: skip
def test_a_missing_field_is_named(changed, refused, missing, path) -> None:
    assert refused(changed({path: missing})) == {
        path: ("nothing", "this field is required")
    }


def test_all_errors_come_at_once(changed, refused) -> None:
    errors = refused(
        changed(
            {
                "model": "llama",
                f"{H100}.memory": 80,
                "cluster.nodes.0.gpu": "h200",
                "workload.max_batch": 0,
                "objetive": ["cost"],
            }
        )
    )
    assert set(errors) == {
        "model", f"{H100}.memory", "cluster.nodes.0.gpu", "workload.max_batch",
        "objetive",
    }  # fmt: skip


def test_no_word_of_the_validator_is_shown(changed, refused) -> None:
    words = ("input should", "extra inputs", "value error", "pydantic", "validat")
    for changes, *_ in REFUSED:
        for found, allowed in refused(changed(changes)).values():
            assert not any(word in (found + allowed).lower() for word in words)


def test_weights_that_are_not_computed_natively_are_allowed(changed, tmp_path) -> None:
    raw = changed({"precision.weights": "int4", f"{H100}.catalogue": "A100-80"})
    instance = load_bytes(json.dumps(raw).encode(), "i.json", tmp_path)
    assert instance.precision.weights == "int4"


def node(name: str, count: int = 1) -> dict[str, Any]:
    return {"name": name, "gpu": "h100", "gpus": 1, "count": count}


@pytest.mark.parametrize(
    ("nodes", "wrong"),
    [
        ([node("a"), node("a")], 1),
        ([node("a", 3), node("a-2")], 1),
        ([node("a-0"), node("a", 2)], 0),
        ([node("a", 3), node("a-3")], None),
        ([node("a"), node("a-0")], None),
        ([node("a", 3), node("a-02")], None),
        ([node("a", 3), node("a-1", 2)], None),
    ],
)
def test_node_names_are_unique_when_written_out(
    changed, refused, tmp_path, nodes, wrong
) -> None:
    raw = changed({"cluster.nodes": nodes})
    if wrong is None:
        cluster = load_bytes(json.dumps(raw).encode(), "i.json", tmp_path).cluster
        written = [n for group in cluster.nodes for n in group.node_names()]
        assert len(set(written)) == len(written)
    else:
        assert list(refused(raw)) == [f"cluster.nodes.{wrong}.name"]


def test_a_billion_gpus_are_refused_at_once(changed, refused) -> None:
    before = time.process_time()
    errors = refused(changed({"cluster.nodes.0.count": 10**9 // 8}))
    assert errors["cluster.nodes"][0] == "1000000000 GPUs"
    assert errors["cluster.nodes.0.count"] == ("125000000", "at most 100000")
    errors = refused(changed({"cluster.nodes.0.gpus": 10**9}))
    assert errors["cluster.nodes.0.gpus"] == ("1000000000", "at most 1024")
    many = [node(f"n{i}", 100_000) | {"gpus": 1000} for i in range(10)]
    assert refused(changed({"cluster.nodes": many}))["cluster.nodes"] == (
        "1000000000 GPUs",
        "at most 200000 GPUs (count times gpus over all nodes)",
    )
    assert time.process_time() - before < 1


def test_a_huge_model_is_refused_before_it_is_built(changed, refused, tmp_path) -> None:
    raw = json.loads((root() / "llm" / "meta-llama--Llama-2-7b-hf.json").read_text())
    raw["num_hidden_layers"] = 10**9
    (tmp_path / "huge.json").write_text(json.dumps(raw))
    found, _ = refused(changed({"model": "huge.json"}))["model"]
    assert found.endswith("num_hidden_layers is 1000000000")


def test_errors_survive_processes(tmp_path: Path) -> None:
    with pytest.raises(InvalidInstance) as caught:
        load(tmp_path / "nowhere.yaml")
    copy = pickle.loads(pickle.dumps(caught.value))
    assert copy.errors == caught.value.errors


@pytest.mark.parametrize(("count", "outcome"), [(1, "loaded"), (10**8, "refused")])
def test_loading_is_quick_and_light(tmp_path, document, count, outcome) -> None:
    """No solver and no numpy: the whole command line has two seconds to start."""
    document["cluster"]["nodes"][0]["count"] = count
    path = tmp_path / "instance.json"
    path.write_text(json.dumps(document))
    run = subprocess.run(
        [sys.executable, "-c", PROBE, str(path)],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    said, modules, kib, seconds = run.stdout.splitlines()
    assert (said, modules) == (outcome, "[]")
    assert int(kib) < 200 * 1024
    assert float(seconds) < 2


PROBE = """
import resource, sys
from shardwright.ingest import load
from shardwright.schema.errors import InvalidInstance
try:
    load(sys.argv[1])
    print("loaded")
except InvalidInstance:
    print("refused")
unwanted = {"numpy", "ortools", "pandas", "pulp"}
print(sorted(unwanted & set(sys.modules)))
usage = resource.getrusage(resource.RUSAGE_SELF)
# ru_maxrss of a child starts at its parent's; the peak of its own memory does not
with open("/proc/self/status") as status:
    print(next(line.split()[1] for line in status if line.startswith("VmHWM")))
print(usage.ru_utime + usage.ru_stime)
"""


def plan_document(sha: str) -> dict[str, Any]:
    point = {
        "sequences": 8, "micro_batches": 1, "micro_batch_sequences": 8,
        "prefill_chunk_tokens": 512, "prompt_tokens": 64, "chunk_count": 4,
    }  # fmt: skip
    parts = ("weights", "kv_cache", "activations", "communication", "framework")
    stage = {
        "layers": [0, 80], "shape": {"tp": 1, "moe_tp": 1}, "gpu_type": "h100",
        "gpus": [{"node": "node", "gpu": 0, "rank": 0}],
        "memory_bytes": dict.fromkeys(parts, 1),
        "decode_time_ns": 1, "prefill_time_ns": 1,
    }  # fmt: skip
    latency = {"tpot_ns": 1, "ttft_ns": 1, "prefill_ns": 1, "rate_mtok_per_s": 1}
    replica = {"operating_point": point, "stages": [stage], "latency": latency}
    return {
        "instance_name": "llama-70b", "instance_sha256": sha,
        "pools": [{"replicas": [replica]}],
    }  # fmt: skip


def test_plans_are_read_bare_or_in_a_result(tmp_path: Path) -> None:
    raw = plan_document("0" * 64)
    bare, result = tmp_path / "plan.json", tmp_path / "result.json"
    bare.write_text(json.dumps(raw))
    result.write_text(json.dumps({"status": "OPTIMAL", "plan": raw}))
    assert load_plan(bare) == load_plan(result)
    raw["pools"][0]["replicas"][0]["stages"][0]["layers"] = [0]
    result.write_text(json.dumps({"status": "OPTIMAL", "plan": raw}))
    with pytest.raises(InvalidInstance) as caught:
        load_plan(result)
    [error] = caught.value.errors
    assert error.path == "plan.pools.0.replicas.0.stages.0.layers.1"
    result.write_text('{"status": "INFEASIBLE", "plan": null}')
    with pytest.raises(InvalidInstance, match="plan: found null"):
        load_plan(result)
