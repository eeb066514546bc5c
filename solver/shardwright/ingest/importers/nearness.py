"""From "how near are two devices" to the tree of switches, bridges and NUMA domains."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from shardwright.ingest.importers.facts import Group, NicFacts, PcieFacts

PIX, PXB, PHB, NODE, SYS = range(1, 6)
NAMES = {"PIX": PIX, "PXB": PXB, "PHB": PHB, "NODE": NODE, "SYS": SYS, "SOC": SYS}
"""What a path crosses at most: one bridge; several; the host bridge; the NUMA node's
own links; links between NUMA nodes (SOC in drivers of 2017)."""

Device = str | int
"""A GPU by its index, a NIC by its name."""


@dataclass
class _Sets:
    """Disjoint sets of devices."""

    parent: dict[Device, Device]

    def find(self, device: Device) -> Device:
        while self.parent[device] != device:
            self.parent[device] = self.parent[self.parent[device]]
            device = self.parent[device]
        return device

    def join(self, a: Device, b: Device) -> None:
        self.parent[self.find(a)] = self.find(b)

    def sets(self) -> list[frozenset[Device]]:
        found: dict[Device, set[Device]] = {}
        for device in self.parent:
            found.setdefault(self.find(device), set()).add(device)
        return [frozenset(members) for members in found.values()]


@dataclass(frozen=True)
class Nearness:
    """``level[a, b]`` for pairs whose path is known (NVLink hides the PCIe path);
    ``numa[g]`` the one NUMA node of a GPU, where it is printed."""

    devices: tuple[Device, ...]
    level: Mapping[tuple[Device, Device], int]
    numa: Mapping[int, int]

    def pcie(self) -> tuple[PcieFacts, list[str]]:
        """The groups, and warnings about what is no tree."""
        near, wide = self._within(PIX), self._within(PXB)
        bridges, domains = self._within(PHB), self._domains()
        crosses = {
            d for pair, level in self.level.items() if level == PHB for d in pair
        }
        switches = [s for s in {*near, *wide} if len(s) > 1 and _gpus(s)]
        held = [s for s in bridges if s & crosses and _gpus(s)]
        told = self._told([s for s in domains if _gpus(s)])
        nics = tuple(
            NicFacts(
                name,
                pcie_switch=_smallest(name, switches),
                host_bridge=_smallest(name, held),
                numa_domain=_smallest(name, told),
            )
            for name in self.devices
            if isinstance(name, str)
        )
        numa = {_gpus(s): self._number(s) for s in told}
        facts = PcieFacts(
            tuple(sorted({_gpus(s) for s in switches})),
            tuple(sorted({_gpus(s) for s in held})),
            numa,
            nics,
        )
        return facts, self._warnings(domains)

    def _within(self, level: int) -> list[frozenset[Device]]:
        sets = _Sets({device: device for device in self.devices})
        for (a, b), found in self.level.items():
            if found <= level:
                sets.join(a, b)
        return sets.sets()

    def _domains(self) -> list[frozenset[Device]]:
        sets = _Sets({device: device for device in self.devices})
        first: dict[int, int] = {}
        for gpu, number in sorted(self.numa.items()):
            sets.join(gpu, first.setdefault(number, gpu))
        for (a, b), found in self.level.items():
            if found <= NODE:
                sets.join(a, b)
        return sets.sets()

    def _told(self, domains: list[frozenset[Device]]) -> list[frozenset[Device]]:
        """Domains that are known to be apart from every other: NVLink hides whether
        two GPUs share one."""
        numbered = {s for s in domains if any(d in self.numa for d in s)}
        home = {d: s for s in domains for d in s}
        apart = {
            frozenset((home[a], home[b]))
            for (a, b), level in self.level.items()
            if level == SYS and a in home and b in home
        }
        return [
            s
            for s in domains
            if (s in numbered or len(domains) > 1)
            and all(
                t == s or {s, t} <= numbered or frozenset((s, t)) in apart
                for t in domains
            )
        ]

    def _number(self, devices: Iterable[Device]) -> int | None:
        numbers = {
            self.numa[d] for d in devices if isinstance(d, int) and d in self.numa
        }
        return numbers.pop() if len(numbers) == 1 else None

    def _warnings(self, domains: list[frozenset[Device]]) -> list[str]:
        found = []
        for devices in domains:
            numbers = {
                self.numa[d] for d in devices if isinstance(d, int) and d in self.numa
            }
            if len(numbers) > 1:
                gpus = ", ".join(map(str, _gpus(devices)))
                found.append(
                    f"GPUs {gpus} are as near as in one NUMA node (NODE or nearer), "
                    f"yet NUMA affinity prints {sorted(numbers)}: one domain is written"
                )
        if torn := self._torn(domains):
            found.append(
                f"{torn}: the matrix is no tree; each device is put with its nearest"
            )
        return found

    def _torn(self, domains: list[frozenset[Device]]) -> str:
        for wide, sets in ((PIX, self._within(PIX)), (PXB, self._within(PXB)),
                           (PHB, self._within(PHB)), (NODE, domains)):  # fmt: skip
            home = {d: s for s in sets for d in s}
            for (a, b), level in sorted(self.level.items(), key=str):
                if level > wide and home[a] == home[b]:
                    return f"{_shown(a)} and {_shown(b)} share a group and are apart"
        return ""


def _gpus(devices: Iterable[Device]) -> Group:
    return tuple(sorted(d for d in devices if isinstance(d, int)))


def _smallest(name: str, sets: Iterable[frozenset[Device]]) -> Group | None:
    holding = sorted((len(s), _gpus(s)) for s in sets if name in s)
    return holding[0][1] if holding else None


def _shown(device: Device) -> str:
    return f"GPU{device}" if isinstance(device, int) else device
