"""From what tools print for a GPU to the catalogue's name for it."""

from __future__ import annotations

import re
from dataclasses import dataclass

from shardwright.ingest import catalogue
from shardwright.ingest.refuse import nearest


@dataclass(frozen=True)
class Product:
    """A GPU type of the catalogue as tools print it, and its link ports.

    ``pattern`` is matched against the whole folded name (``folded``). ``links`` is
    how many NVLinks one GPU has and ``link_gbyte_per_s`` what each carries per
    direction; ``pcie_gbyte_per_s`` is the slot's nominal speed, the catalogue's way.
    """

    catalogue: str
    pattern: str
    pcie_gbyte_per_s: float
    technology: str = ""
    links: int = 0
    link_gbyte_per_s: float = 0.0


_PRODUCTS = (
    Product("A100-40", r"a100 sxm4? ?40 ?gb", 32, "NVLink3", 12, 25),
    Product("A100-80", r"a100 sxm4? ?80 ?gb", 32, "NVLink3", 12, 25),
    Product("A100-PCIe-80", r"a100 (80 ?gb pcie|pcie 80 ?gb)", 32, "NVLink3", 12, 25),
    Product("A10G", r"a10g", 32),
    Product("Ascend-910B", r"(ascend )?910b[0-9]?", 32),
    Product("B200", r"b200( sxm6?)?( 1?8\d ?gb)?", 64, "NVLink5", 18, 50),
    Product("B300", r"b300( sxm6?( ac)?)?", 64, "NVLink5", 18, 50),
    Product("GB200", r"gb200", 64, "NVLink5", 18, 50),
    Product("GB300", r"gb300", 64, "NVLink5", 18, 50),
    Product("GH200-96", r"gh200 (480 ?gb|96 ?gb)", 64, "NVLink4", 18, 25),
    Product("H100-NVL", r"h100 nvl", 64, "NVLink4", 12, 25),
    Product("H100-PCIe", r"h100 (pcie|80 ?gb pcie|pcie 80 ?gb)", 64, "NVLink4", 12, 25),
    Product(
        "H100-SXM",
        r"h100 (80 ?gb hbm3|sxm5?( 80 ?gb)?|80 ?gb|mega 80 ?gb)",
        64,
        "NVLink4",
        18,
        25,
    ),
    Product("H20", r"h20( 96 ?gb)?", 64, "NVLink4", 18, 25),
    Product("H200", r"h200( sxm5?)?( 141 ?gb)?", 64, "NVLink4", 18, 25),
    Product("H800", r"h800( sxm5?)?( 80 ?gb)?", 64, "NVLink4", 8, 25),
    Product("L4", r"l4", 32),
    Product("L40S", r"l40s", 32),
    Product("MI300X", r"mi300x( oam)?( 192 ?gb?)?( hf)?", 64, "xGMI"),
    Product("MI325X", r"mi325x?( oam)?( 256 ?gb?)?", 64, "xGMI"),
    Product("MI355X", r"mi355x( oam)?( 288 ?gb?)?", 64, "xGMI"),
    Product("RTX-PRO-6000-SE", r"rtx pro 6000 blackwell server edition", 64),
    Product("RTX4090", r"(geforce )?rtx 4090", 32),
)
_BY_NAME = {product.catalogue: product for product in _PRODUCTS}
_MAKERS = re.compile(r"^(nvidia|amd|instinct|tesla|huawei|geforce)\s+")

_PCI_IDS = {
    "20b0": "A100-SXM4-40GB",
    "20b2": "A100-SXM4-80GB",
    "20b5": "A100 80GB PCIe",
    "2330": "H100 80GB HBM3",
    "2331": "H100 PCIe",
    "2335": "H200",
    "26b9": "L40S",
    "2684": "GeForce RTX 4090",
    "2901": "B200",
    "2bb5": "RTX PRO 6000 Blackwell Server Edition",
}


def by_pci_id(vendor: str, device: str) -> str:
    """The printed name of a PCI device, or a text that no catalogue entry matches."""
    number = device.lower().removeprefix("0x")
    if vendor.lower() in ("0x10de", "10de", "") and number in _PCI_IDS:
        return _PCI_IDS[number]
    return f"PCI device {vendor or 'of unknown vendor'}:{device}"


def folded(text: str) -> str:
    """Lower case, one space between words, without makers' names."""
    words = " ".join(re.split(r"[\s_-]+", text.strip().lower()))
    while (shorter := _MAKERS.sub("", words)) != words:
        words = shorter
    return words


def product_of(text: str) -> Product | None:
    """The product of a printed or catalogue name; None for an unknown one."""
    if text in _BY_NAME:
        return _BY_NAME[text]
    if text in catalogue.names("gpu"):
        return Product(text, "", 32)
    words = folded(text)
    return next((p for p in _PRODUCTS if re.fullmatch(p.pattern, words)), None)


def near_names(text: str) -> str:
    """``did you mean X or Y? `` of catalogue names, else an empty string."""
    known = catalogue.names("gpu")
    words = folded(text)
    first = words.split(" ")[0] if words else ""
    alike = [name for name in known if first and folded(name).split(" ")[0] == first]
    return f"did you mean {' or '.join(alike)}? " if alike else nearest(words, known)
