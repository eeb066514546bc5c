"""The peer's own law on its own latencies: one worker, and its grid without gaps.

Its estimator is called as it stands (``run_agg`` of aiconfigurator-core); its search is
replaced by trying every batch, so what it misses on its own objective shows.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from benchmarks.peer.cases import Answer, Worker
from shardwright.cost.aiconfigurator import measured_system, quiet
from shardwright.schema.instance import Instance

MODELS = Path(__file__).parents[2] / "models" / "llm"
DEGREES = (1, 2, 4, 8)
MOST_CONTEXT_TOKENS = 8192


@dataclass(frozen=True, eq=False)
class PeerLaw:
    """The peer's estimator for one instance."""

    instance: Instance
    formats: Mapping[str, str]

    def answer(self, worker: Worker) -> Answer | None:
        """What it says of a worker; None where it says that memory is short."""
        found = self._summary(worker)
        if found is None or found.check_oom() or found.check_kv_cache_oom():
            return None
        figures = found.get_result_dict()
        return Answer(
            float(figures["tokens/s/gpu"]),
            float(figures["ttft"]),
            float(figures["tpot"]),
        )

    def keeps(self, answer: Answer) -> bool:
        """Whether an answer keeps the limits on means."""
        limits = {t.metric: t.limit_ms for t in self.instance.slo}
        return answer.ttft_ms <= limits["ttft"] and answer.tpot_ms <= limits["tpot"]

    def best(self, gpus: int) -> tuple[Worker, Answer, int]:
        """The best worker over every batch, its answer, and how many were tried.

        Throughput is per GPU of the whole cluster: what workers leave over is idle.
        """
        found: list[tuple[float, Worker, Answer]] = []
        tried = 0
        for worker in self._grid():
            answer = self.answer(worker)
            tried += 1
            if answer is not None and self.keeps(answer):
                used = gpus // worker.gpus * worker.gpus / gpus
                found.append((answer.tokens_per_s_per_gpu * used, worker, answer))
        _, worker, answer = max(found, key=lambda entry: entry[0])
        return worker, answer, tried

    def _grid(self) -> Iterator[Worker]:
        prompt = int(self.instance.workload.input_tokens.constant or 0)
        context = range(prompt, MOST_CONTEXT_TOKENS + 1, prompt)
        for shape in self._shapes():
            for tokens in context:
                for batch in range(1, 513):
                    worker = Worker(*shape, batch, tokens)
                    if self.answer(worker) is None:
                        break
                    yield worker

    def _shapes(self) -> Iterator[tuple[int, int, int, int]]:
        if all(k.ffn is None or k.ffn.type == "dense" for k in self._kinds()):
            yield from ((tp, 1, 1, 1) for tp in DEGREES)
            return
        for tp in DEGREES:
            for dp in DEGREES:
                if tp * dp <= max(DEGREES) and not (tp > 1 and dp > 1):
                    for ep in (n for n in DEGREES if tp * dp % n == 0):
                        yield tp, dp, tp * dp // ep, ep

    def _kinds(self) -> Any:
        return self.instance.model.layer_kinds

    def _summary(self, worker: Worker) -> Any:
        [gpu] = self.instance.cluster.gpu_types.values()
        engine = self.instance.engine.name
        shape = (worker.tp, 1, worker.attn_dp, worker.moe_tp, worker.ep)
        name = self.instance.model.name
        formats = tuple(sorted(self.formats.items()))
        return _run(gpu.name, engine, name, shape, formats, worker)


@lru_cache(maxsize=100_000)
def _run(
    gpu: str,
    engine: str,
    name: str,
    shape: tuple[int, ...],
    formats: tuple[tuple[str, str], ...],
    worker: Worker,
) -> Any:
    with quiet():
        from aiconfigurator_core.sdk.config import RuntimeConfig

        backend, model = _model(engine, name, shape, formats)
        asked = RuntimeConfig(batch_size=worker.batch, isl=2048, osl=256)
        try:
            return backend.run_agg(
                model,
                measured_system(gpu, engine).database,
                asked,
                ctx_tokens=worker.context_tokens,
            )
        except Exception:  # no data for this shape: it is not among its candidates
            return None


@lru_cache(maxsize=64)
def _model(
    engine: str,
    name: str,
    shape: tuple[int, ...],
    formats: tuple[tuple[str, str], ...],
) -> Any:
    from aiconfigurator_core.sdk.backends.factory import get_backend
    from aiconfigurator_core.sdk.config_builders import build_model_config
    from aiconfigurator_core.sdk.models import get_model

    config = build_model_config(*shape, **dict(formats))
    with tempfile.TemporaryDirectory() as folder:
        # an id outside its list would be downloaded: it takes a folder as well
        source = MODELS / f"{name.replace('/', '--')}.json"
        shutil.copy(source, Path(folder) / "config.json")
        return get_backend(engine), get_model(folder, config, engine)
