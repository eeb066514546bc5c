"""What each claim of the five reports is: every verdict was derived by hand first.

``FALLEN`` has the right figure of each claim that is wrong or contradicted.
"""

from __future__ import annotations

REPORTS = {
    "llama3-70b-module-division": "llama3-70b-8xh100",
    "llama3-70b-deployment-plan": "llama3-70b-8xh100-fp16",
    "llama3-70b-verification": "llama3-70b-8xh100-fp16",
    "moe-10b-512gpu-validation": "moe-10b-512gpu",
    "moe-30b-16gpu-analysis": "moe-30b-16gpu",
}
"""Claims file: the instance that it is judged against."""

FALLEN: dict[str, dict[str, tuple[str, str]]] = {
    "llama3-70b-module-division": {
        "nvlink": ("wrong", "3,600 Gbps"),
        "decode-compute": ("wrong", ">= 20.75 ms"),
        "recovery-load": ("contradicted", "6 GPUs"),
        "below-limit": ("wrong", "85%"),
        "twice-better": ("contradicted", "1.25x"),
    },
    "llama3-70b-deployment-plan": {
        "nvlink": ("wrong", "3,600 Gbps"),
        "pure-tp-weights": ("wrong", "17.5 GB"),
        "pure-tp-infeasible": ("wrong", "feasible"),
        "kv-per-gpu": ("contradicted", "20 GB"),
        "memory-per-gpu": ("contradicted", "37.5 GB"),
        "nvlink-bandwidth": ("wrong", "3,600 Gbps"),
        "bubble": ("wrong", "42.86%"),
        "concurrency": ("contradicted", "64 requests"),
        "nvlink-again": ("wrong", "3,600 Gbps"),
        "kv-bytes": ("wrong", "40.96 KB"),
        "kv-tokens": ("wrong", "488,281 tokens"),
        "kv-arithmetic": ("contradicted", "20,000,000 tokens"),
    },
    "llama3-70b-verification": {
        "gpu-weights": ("wrong", "17.5 GB"),
        "gpu-weights-share": ("wrong", "21.88%"),
        "memory-usage": ("contradicted", "85%"),
        "nvlink-share": ("contradicted", "<= 1.777%"),
        "allreduce-bytes": ("wrong", "32,768 bytes"),
        "hop-bytes": ("wrong", "16,384 bytes"),
        "flag-sequences": ("contradicted", "at most 64"),
        "all-flags": ("contradicted", "8 of 9"),
        "memory-usage-again": ("contradicted", "85%"),
        "nvlink-share-again": ("contradicted", "<= 1.777%"),
        "rate-headroom": ("contradicted", "6.25%"),
        "spare-memory": ("contradicted", "4.5 GPUs"),
        "calculations": ("contradicted", "5 of 8"),
    },
    "moe-10b-512gpu-validation": {
        "gpus-required": ("wrong", "256 GPUs"),
        "gpus-per-stage": ("wrong", "32 GPUs"),
        "theoretical-rate": ("wrong", "480 tokens/ms"),
        "practical-rate": ("wrong", "120 tokens/ms"),
        "product-of-degrees": ("wrong", "256 GPUs"),
        "gpus-per-stage-again": ("wrong", "32 GPUs"),
    },
    "moe-30b-16gpu-analysis": {
        "gpus-now": ("contradicted", "16 GPUs"),
        "gpus-by-earlier-count": ("contradicted", "32 GPUs"),
        "replicas": ("contradicted", "1 replica"),
        "headroom": ("wrong", "48.44%"),
    },
}

UNDECIDABLE: dict[str, str] = {
    "llama3-70b-module-division": """
        compute-balance kv-allocation activations buffers overhead intra-node
        stage-transfer bubble prefill-compute prefill-communication prefill-bubble
        prefill-latency decode-communication decode-transfer decode-latency
        batch-tokens throughput scaled-throughput sequence-parallelism optimal
    """,
    "llama3-70b-deployment-plan": """
        host-memory cores intra-node micro-batches sequence-parallelism batch-tokens
        prefill-range decode-range sustained-rate kv-reserved micro-batch-decode
        micro-batch-prefill prefill-p50 prefill-p99 decode-p50 decode-p99
        expected-rate slo-compliance gpu-utilization balance-again optimal
    """,
    "llama3-70b-verification": """
        pcie host-memory cores intra-node prefill-p50 prefill-p99 decode-p50
        decode-p99 ttft-p99 rate target-utilization utilization tokens-per-s bubble
        bubble-again target-utilization-again utilization-again checkpoint data-loss
        ray-gpus targets-exceeded score optimal
    """,
    "moe-10b-512gpu-validation": """
        expert-flop rate-target achieved-rate stage-latency ttft memory-per-gpu
    """,
    "moe-30b-16gpu-analysis": """
        memory-per-gpu latency throughput-target throughput communication
        memory-distribution conflicting-strategies all-targets
    """,
}

HOLDS: dict[str, str] = {
    "llama3-70b-module-division": """
        gpus pp tp partitions layers-total weights-total layers-per-stage
        stage-0-layers stage-0-weights stage-1-layers stage-1-weights stage-2-layers
        stage-2-weights stage-3-layers stage-3-weights tensor-share weights-per-gpu
        gpu-0-layers gpu-0-weights gpu-1-layers gpu-1-weights gpu-2-layers
        gpu-2-weights gpu-3-layers gpu-3-weights gpu-4-layers gpu-4-weights
        gpu-5-layers gpu-5-weights gpu-6-layers gpu-6-weights gpu-7-layers
        gpu-7-weights stages-identical tensor-share-again weights-share kv-share
        activations-share buffers-share overhead-share memory-total memory-share
        gpu-memory stage-transfer-time allreduce-size allreduce-time weights-fit
        kv-fits memory-limit memory-balance prefill-tokens prefill-total
        prefill-target decode-total decode-target max-batch pipeline-efficiency
        rate-target failed-group failed-stages failed-compute survivors recovery
        one-node two-nodes scaled-strategy parameters larger-models gpu-match
        balance-again throughput-headroom eight-partitions partitions-again
        balance-concluded memory-efficiency
    """,
    "llama3-70b-deployment-plan": """
        gpus nodes gpu-memory inter-node layers-total hidden heads kv-heads
        weights-fp16 positions target-prefill-p50 target-prefill-p99 target-tpot-p50
        target-tpot-p99 target-ttft-p99 target-rate max-batch memory-fraction
        weights-total layer-weights usable-memory pure-pp stage-weights gpu-weights
        below-limit balanced-gpus stages layers-per-stage tp stage-gpus stage-0
        stage-1 stage-2 stage-3 hbm batch-sequences utilization-target memory-balance
        allreduce-ranks pp-degree tp-degree max-length batch-limit usable-again
        host-share cores-per-gpu peak-memory gpus-in-all distributed-weights
    """,
    "llama3-70b-verification": """
        strategy-fits gpus gpu-memory cluster-memory nvlink inter-node parameters
        layers-total hidden heads kv-heads vocabulary positions bytes-per-parameter
        weights-total tp pp dp ep gpus-required gpus-available gpus-used weights-again
        tp-group-weights layers-again stages layers-per-stage target-prefill-p50
        target-prefill-p99 target-decode-p50 target-decode-p99 target-ttft-p99
        max-batch target-rate memory-limit tokens-per-gpu network-share
        stage-0-weights stage-1-weights stage-2-weights stage-3-weights memory-epsilon
        replicas dp-again flag-tp flag-pp flag-length flag-tokens flag-memory
        flag-dtype flag-all-reduce flag-eager flag-memory-again gpus-used-again dp2
    """,
    "moe-10b-512gpu-validation": """
        layers experts instances experts-distributed expert-per-gpu expert-parts
        expert-split parts-per-expert tensor-parts stage-split stages layers-per-stage
        instances-again tensor-factor gpus tensor-groups stage-groups expert-groups
        gpus-per-expert gpus-per-layer utilization compute peak pipeline-stages
        max-length ttft-sum ttft-target ttft-held parameters weights gpus-again
        weights-share gpu-memory memory-share expert-parts-again tensor-parts-again
        stage-parts primary-parts parts-per-gpu none-idle gpus-per-layer-again
        gpus-per-expert-again layers-per-stage-again parts-in-all instances-per-gpu
        shard-per-gpu stage-per-gpu
    """,
    "moe-30b-16gpu-analysis": """
        gpus-earlier gpus gpus-available gpu-memory gpus-used gpus-used-share
        parameters weights memory-share tp two-way memory-factor ep experts
        experts-per-gpu expert-gpus experts-per-gpu-2 pp stages layers-per-stage
        layers stage-0 stage-1 dp batch sequences latency-target latency-ratio
        throughput-ratio concurrent memory-target memory-again communication-target
        communication-ratio expert-distribution expert-validation layer-validation
        layer-distribution batch-distribution batch-validation memory-validation
        modules modules-per-gpu modules-match stage-0-modules stage-1-modules
        expert-module-0 expert-module-1 expert-module-2 expert-module-3 previous-gpus
        spare-gpus hardware strength-experts strength-layers strength-batch
        strength-memory redundancy latency-better throughput-better efficiency
        efficiency-spare
    """,
}
