"""Messages, transfers, link shares and bubbles."""

from __future__ import annotations

from fractions import Fraction

from shardwright.audit.case import Case, printed
from shardwright.audit.evidence import Evidence, Reading, Undecidable
from shardwright.audit.figures import activation_bytes, gpu_type, number
from shardwright.cost.lengths import exact
from shardwright.schema.claims import (
    BubbleClaim,
    LinkShareClaim,
    MessageClaim,
    TransferClaim,
)
from shardwright.schema.instance import Instance
from shardwright.schema.printed import BANDWIDTH, BYTE, COUNT, RATE, SECOND
from shardwright.schema.strategy_name import Strategy, parse_strategy

_ACTIVATIONS = frozenset({"widths", "formats"})


def bubble(case: Case, claim: BubbleClaim) -> Evidence:
    """(p - 1)/(q + p - 1) of the time, or (p - 1)/q of the work, of p stages and q
    micro-batches in one flush."""
    stages = case.sized(claim, "stages", claim.stages, COUNT)
    if claim.micro_batches is None:
        raise Undecidable(_needed_micro_batches(stages, printed(claim).low))
    q = case.sized(claim, "micro_batches", claim.micro_batches, COUNT)
    idle = stages - 1
    readings = (
        Reading(idle / (q + idle), "of the time"),
        Reading(idle / q, "of the work"),
    )
    text = (
        f"(p - 1)/(q + p - 1) = {idle}/{q + idle} with p = {stages} stages, q = {q} "
        f"micro-batches; as a share of the work {idle}/{q} = {float(idle / q):.4g}"
    )
    return Evidence(COUNT, text, readings)


def _needed_micro_batches(stages: Fraction, share: Fraction) -> str:
    idle = stages - 1
    if not 0 < share < 1:
        return "the micro-batches"
    q = idle * (1 - share) / share
    return (
        f"the micro-batches: a bubble of {float(share):.4g} of {stages} stages takes "
        f"{float(q):.4g} of them by (p - 1)/(q + p - 1)"
    )


def token_bytes(instance: Instance) -> Fraction:
    """One token's hidden state."""
    return instance.model.hidden * activation_bytes(instance)


def message(case: Case, claim: MessageClaim) -> Evidence:
    """Hidden states of the tokens: once per all-reduce, two all-reduces per layer, one
    or two tensors per hop (with the residual)."""
    one, claimed = token_bytes(case.instance), printed(claim)
    each = 2 * one if claim.of == "layer" else one
    words = {"allreduce": "an all-reduce", "layer": "two all-reduces", "hop": "a hop"}
    text = f"{words[claim.of]} of one token: {float(each):,.0f} B"
    hidden = case.instance.model.hidden
    text += f" (hidden {hidden} x {float(one / hidden):g} B)"
    if claim.tokens is None:
        if claimed.low + claimed.half < each:
            only = (Reading(each),)
            return Evidence(BYTE, text, only, _ACTIVATIONS, counted=True)
        count, binary = claimed.low / each, claimed.unit.binary
        size = f"{float(count):,.0f} tokens"
        if binary is not None:
            size += f", or {float(count * binary / claimed.unit.factor):,.0f} with "
            size += "powers of 1024"
        raise Undecidable(f"the tokens of a message: {text}; the figure is {size}")
    tokens = case.sized(claim, "tokens", claim.tokens, COUNT)
    readings = [Reading(tokens * each)]
    if claim.of == "hop":
        readings.append(Reading(2 * tokens * each, "hidden state and residual"))
    text = f"{float(tokens):,.0f} tokens, {text}"
    return Evidence(BYTE, text, tuple(readings), _ACTIVATIONS, counted=True)


def transfer(case: Case, claim: TransferClaim) -> Evidence:
    """Bytes over bandwidth; a ring all-reduce of t ranks sends 2(t - 1)/t of them."""
    size = case.sized(claim, "bytes", claim.bytes, BYTE)
    speed = case.sized(claim, "bandwidth", claim.bandwidth, BANDWIDTH)
    factor, words = Fraction(1), ""
    if claim.ranks is not None:
        factor = Fraction(2 * (claim.ranks - 1), claim.ranks)
        words = f"2(t - 1)/t = {float(factor):g} times "
    text = (
        f"{words}{case.shown(claim.bytes)} / {case.shown(claim.bandwidth)}, without "
        "start-up time"
    )
    hardware = exact(gpu_type(case.instance).link_gbyte_per_s) * 10**9
    if hardware != speed:
        on_link = factor * size / hardware
        text += (
            f"; {float(on_link) * 1e3:.3g} ms at the {float(hardware) / 1e9:g} GB/s of "
            f"{gpu_type(case.instance).link_technology}"
        )
    return Evidence(SECOND, text, (Reading(factor * size / speed),))


def link_share(case: Case, claim: LinkShareClaim) -> Evidence:
    """Everything that a GPU sends per token, times the token rate, over its link.

    Two all-reduces in each layer of its stage (2(t - 1)/t of a hidden state each),
    one of the embedding, a hop with hidden state and residual, and the gathered
    logits of every token: an upper figure.
    """
    strategy = parse_strategy(claim.strategy)
    rate = case.sized(claim, "tokens_per_s", claim.tokens_per_s, RATE)
    each = _sent_per_token(case.instance, strategy)
    link = number(case.instance, "link_bandwidth")
    text = (
        f"at most {float(each):,.0f} B sent by a GPU per token (all-reduces, hop, "
        f"logits) x {case.shown(claim.tokens_per_s)} / {float(link) / 1e9:g} GB/s each "
        "way"
    )
    most = each * rate / link
    return Evidence(COUNT, text, needs=_ACTIVATIONS | {"link"}, bound=("<=", most))


def _sent_per_token(instance: Instance, strategy: Strategy) -> Fraction:
    model, tp = instance.model, strategy.degree("tp")
    layers = -(-len(model.layers) // strategy.degree("pp"))
    reduced = 2 * Fraction(tp - 1, tp) * token_bytes(instance) * (2 * layers + 1)
    hop = 2 * token_bytes(instance) if strategy.degree("pp") > 1 else Fraction(0)
    logits = Fraction(tp - 1, tp) * model.vocabulary * activation_bytes(instance)
    return reduced + hop + logits
