"""NCCL's topology XML: what ``NCCL_TOPO_DUMP_FILE`` writes and clouds ship."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NoReturn
from xml.parsers import expat

from shardwright.ingest.importers.facts import (
    Group,
    Kind,
    Link,
    NicFacts,
    NodeFacts,
    PcieFacts,
)
from shardwright.ingest.importers.products import by_pci_id
from shardwright.ingest.importers.text import SourceText
from shardwright.ingest.refuse import shown

MAX_ELEMENTS = 100_000
MAX_DEPTH = 64
_BUS = re.compile(r"([0-9a-fA-F]{1,8}):([0-9a-fA-F]{1,2}):([0-9a-fA-F]{1,2})\.([0-7])")
_SPEED = re.compile(r"\s*([0-9]{1,4}(?:\.[0-9]{1,4})?)\s*GT/s")
_GPU_CLASSES = ("0x0300", "0x0302")
_NIC_CLASSES = ("0x0200", "0x0207")
_NVSWITCH = "0x0680"
_SHARE_OF_PCIE = 128 / 130
"""128b/130b coding, from PCIe 3.0 on."""


@dataclass
class Element:
    """One element of the file, with its line."""

    tag: str
    attributes: dict[str, str]
    line: int
    children: list[Element] = field(default_factory=list)

    def walk(self) -> Iterator[Element]:
        """This element and all below it, in the order of the file."""
        stack = [self]
        while stack:
            element = stack.pop()
            yield element
            stack += reversed(element.children)

    def get(self, name: str) -> str:
        """An attribute, or nothing."""
        return self.attributes.get(name, "")


def is_xml(text: str) -> bool:
    """Whether the text is XML of any kind."""
    return text.lstrip("\ufeff \t\r\n").startswith("<")


def read_nccl(file: SourceText) -> NodeFacts:
    """The node of a topology file. Raises InvalidInstance with the line."""
    root = _tree(file)
    if root.tag != "system":
        file.refuse(root.line, f"the element <{root.tag}>", "<system> of NCCL")
    return _Reader(file, root).facts()


def _tree(file: SourceText) -> Element:
    """The elements; a document type is refused, so no entity can be declared."""
    parser = expat.ParserCreate()
    stack: list[Element] = []
    roots: list[Element] = []
    count = 0

    def start(tag: str, attributes: dict[str, str]) -> None:
        nonlocal count
        count += 1
        line = parser.CurrentLineNumber
        if count > MAX_ELEMENTS or len(stack) >= MAX_DEPTH:
            allowed = f"at most {MAX_ELEMENTS} elements, {MAX_DEPTH} deep"
            file.refuse(line, "a larger document", allowed)
        element = Element(tag, attributes, line)
        (stack[-1].children if stack else roots).append(element)
        stack.append(element)

    def refuse_type(*_: object) -> NoReturn:
        line = parser.CurrentLineNumber
        file.refuse(line, "a document type (DOCTYPE)", "elements only, no entities")

    parser.StartElementHandler = start
    parser.EndElementHandler = lambda _: stack.pop()
    parser.StartDoctypeDeclHandler = refuse_type
    parser.EntityDeclHandler = refuse_type
    try:
        # the text is decoded already, whatever encoding its head declares
        parser.Parse(re.sub(r"^\s*<\?xml[^>]*\?>", "", file.text).encode(), True)
    except expat.ExpatError as error:
        words = expat.ErrorString(error.code)
        file.refuse(error.lineno, f"broken XML: {words}", "well-formed XML")
    return roots[0]


@dataclass(frozen=True)
class _Reader:
    file: SourceText
    root: Element

    def facts(self) -> NodeFacts:
        gpus = self._gpus()
        index = {bus: i for i, bus in enumerate(sorted(gpus, key=_bus_key))}
        links, warnings = self._links(gpus, index)
        if (devices := self._device_numbers(gpus, index)) is not None:
            warnings.append(devices)
        pcie = self._pcie(index)
        return NodeFacts(
            name=self.file.node,
            source=self.file.source,
            kind=Kind.NCCL_XML,
            gpus=len(index),
            products=self._products(gpus, index),
            bus_ids=tuple(index),
            links=links,
            pcie=pcie,
            network_gbyte_per_s=_network(pcie, len(index)),
            warnings=tuple(warnings),
        )

    def _gpus(self) -> dict[str, Element]:
        found: dict[str, Element] = {}
        for element in self.root.walk():
            if element.tag != "pci" or not _is(element, _GPU_CLASSES):
                continue
            bus = self._bus(element, "busid")
            if bus in found:
                allowed = f"each GPU once; line {found[bus].line} has it"
                self.file.refuse(element.line, f"GPU {bus}", allowed)
            found[bus] = element
        if not found:
            allowed = "pci elements of class 0x030200 or 0x030000"
            self.file.refuse(self.root.line, "no GPU in <system>", allowed)
        return found

    def _bus(self, element: Element, name: str) -> str:
        bus = bus_id(element.get(name))
        if bus is None:
            found = f"{name}={shown(element.get(name))}"
            self.file.refuse(element.line, found, "a PCI address such as 0000:1b:00.0")
        return bus

    def _products(
        self, gpus: dict[str, Element], index: dict[str, int]
    ) -> tuple[str, ...] | None:
        ids = [(gpus[bus].get("vendor"), gpus[bus].get("device")) for bus in index]
        if not all(device for _, device in ids):
            return None
        return tuple(by_pci_id(vendor, device) for vendor, device in ids)

    def _device_numbers(
        self, gpus: dict[str, Element], index: dict[str, int]
    ) -> str | None:
        """NCCL numbers devices as CUDA does, nvidia-smi by PCI address."""
        numbers = {}
        for bus, element in gpus.items():
            for child in element.children:
                if (
                    child.tag == "gpu"
                    and child.get("dev").isascii()
                    and child.get("dev").isdigit()
                ):
                    numbers[bus] = int(child.get("dev"))
        if all(index[bus] == number for bus, number in numbers.items()):
            return None
        return (
            "GPUs are numbered by PCI address, as nvidia-smi does; the file's dev "
            "numbers differ: set CUDA_DEVICE_ORDER=PCI_BUS_ID when launching"
        )

    def _links(
        self, gpus: dict[str, Element], index: dict[str, int]
    ) -> tuple[tuple[Link, ...] | None, list[str]]:
        """NVLinks; None where no GPU has its <gpu> element (static files of clouds)."""
        inner = {
            bus: [c for c in e.children if c.tag == "gpu"] for bus, e in gpus.items()
        }
        if not any(inner.values()):
            return None, []
        switched: dict[int, int] = {}
        direct: dict[tuple[int, int], int] = {}
        selves: list[str] = []
        for bus, elements in inner.items():
            for link in (c for e in elements for c in e.children if c.tag == "nvlink"):
                count = self._count(link)
                target = bus_id(link.get("target"))
                if link.get("tclass").startswith(_NVSWITCH):
                    switched[index[bus]] = switched.get(index[bus], 0) + count
                elif target == bus:
                    selves.append(f"{index[bus]} (line {link.line})")
                elif target in index:
                    low, high = sorted((index[bus], index[target]))
                    direct[low, high] = max(direct.get((low, high), 0), count)
        pairs = [Link(a, b, "NVLink", n) for (a, b), n in direct.items()]
        for a in switched:
            pairs += [
                Link(a, b, "NVLink", min(switched[a], switched[b]))
                for b in switched
                if a < b and (a, b) not in direct
            ]
        if not selves:
            return tuple(sorted(pairs, key=lambda x: (x.a, x.b))), []
        warning = (
            f"NVLinks from a GPU to itself are left out: GPU {', '.join(selves)}; "
            "clouds write them to steer NCCL"
        )
        return tuple(sorted(pairs, key=lambda x: (x.a, x.b))) or None, [warning]

    def _count(self, link: Element) -> int:
        text = link.get("count")
        if not re.fullmatch(r"[1-9]\d{0,2}", text):
            found = f"count={shown(text)} of an nvlink"
            self.file.refuse(link.line, found, "the number of links, from 1")
        return int(text)

    def _pcie(self, index: dict[str, int]) -> PcieFacts:
        numa: dict[Group, int | None] = {}
        switches: set[Group] = set()
        nics: list[NicFacts] = []
        speeds: list[float] = []
        for cpu in (c for c in self.root.children if c.tag == "cpu"):
            held = self._below(cpu, index)
            if held:
                number = cpu.get("numaid")
                known = number.isascii() and number.isdigit() and len(number) < 5
                numa[held] = int(number) if known else None
            nics += self._nics(cpu, index, held)
            for bridge in (e for e in cpu.walk() if _is_switch(e)):
                below = self._below(bridge, index)
                if len(below) > 1 or (below and any(_is_nic(e) for e in bridge.walk())):
                    switches.add(below)
            speeds += [
                s for e in cpu.walk() if _is(e, _GPU_CLASSES) and (s := _pcie_speed(e))
            ]
        if any(number is None for number in numa.values()):
            numa = {}
        slowest = min(speeds, default=None)
        nics = _once(nics)
        return PcieFacts(
            tuple(sorted(switches)),
            (),
            numa,
            tuple(nics),
            slowest if switches else None,
        )

    def _below(self, element: Element, index: dict[str, int]) -> Group:
        buses = (e.get("busid") for e in element.walk() if _is(e, _GPU_CLASSES))
        return tuple(sorted(index[bus] for b in buses if (bus := bus_id(b)) in index))

    def _nics(
        self, cpu: Element, index: dict[str, int], numa: Group
    ) -> Iterator[NicFacts]:
        stack: list[tuple[Element, Group | None]] = [(cpu, None)]
        while stack:
            element, home = stack.pop()
            if _is_switch(element):
                home = self._below(element, index) or home
            named = [e for e in element.children if e.tag == "nic"]
            nets = [n for e in named for n in e.children if n.tag == "net"]
            for net in nets:
                yield NicFacts(
                    net.get("name") or f"net{net.get('dev')}",
                    _net_speed(net),
                    home,
                    numa_domain=numa or None,
                )
            if element.tag == "pci" and _is(element, _NIC_CLASSES) and not nets:
                yield NicFacts(
                    self._bus(element, "busid"), None, home, numa_domain=numa or None
                )
            stack += [(child, home) for child in reversed(element.children)]


def bus_id(text: str) -> str | None:
    """A PCI address in one spelling: lower case, a domain of four digits."""
    match = _BUS.fullmatch(text.strip())
    if match is None:
        return None
    domain, bus, device = (int(match[i], 16) for i in (1, 2, 3))
    return f"{domain:04x}:{bus:02x}:{device:02x}.{match[4]}"


def _bus_key(bus: str) -> tuple[int, ...]:
    return tuple(int(part, 16) for part in re.split(r"[:.]", bus))


def _is(element: Element, classes: tuple[str, ...]) -> bool:
    return element.get("class")[:6] in classes


def _is_nic(element: Element) -> bool:
    return element.tag == "nic" or (element.tag == "pci" and _is(element, _NIC_CLASSES))


def _is_switch(element: Element) -> bool:
    return element.tag == "pci" and _is(element, ("0x0604",))


def _pcie_speed(element: Element) -> float | None:
    """GB/s per direction of a link, rounded down to a tenth."""
    speed, width = _SPEED.match(element.get("link_speed")), element.get("link_width")
    if not speed or not re.fullmatch(r"[1-9][0-9]?", width):
        return None
    gigabytes = float(speed[1]) * int(width) * _SHARE_OF_PCIE / 8
    return int(gigabytes * 10) / 10 or None


def _net_speed(net: Element) -> float | None:
    """GB/s of a <net>, whose speed is printed in Mbit/s."""
    text = net.get("speed")
    known = text.isascii() and text.isdigit() and int(text[:9]) > 0
    return int(text[:9]) / 8000 if known else None


def _network(pcie: PcieFacts, gpus: int) -> float | None:
    """GB/s of the node's NICs per GPU: of those beside GPUs, where there are any."""
    near = [nic for nic in pcie.nics if nic.pcie_switch]
    speeds = [nic.gbyte_per_s for nic in near or pcie.nics]
    if not speeds or not all(speeds):
        return None
    return int(sum(s for s in speeds if s) / gpus * 1000) / 1000


def _once(nics: list[NicFacts]) -> list[NicFacts]:
    """A socket NIC is listed under every CPU: it is one, of no domain."""
    found: dict[str, NicFacts] = {}
    for nic in nics:
        twice = nic.name in found
        found[nic.name] = NicFacts(nic.name, nic.gbyte_per_s) if twice else nic
    return list(found.values())
