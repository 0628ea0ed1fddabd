"""All peers in one table: what they are, what they need, and how they load."""

from dataclasses import dataclass

OURS = "inkrun"
BASELINE = "Pillow, box"


@dataclass(frozen=True)
class MethodEntry:
    """A method of loading: a key of METHODS in its peer's module.

    `kinds` are the kinds of images that it loads. Methods with the same `files` share what they
    prepare; without a name they read the source itself. A method that is not `whole` decodes pages
    once, in its preparation, to a smaller size. Only `quick` ones are measured with --quick.
    """

    name: str
    kinds: tuple[str, ...]
    files: str = ""
    whole: bool = True
    quick: bool = True


@dataclass(frozen=True)
class Peer:
    """A library to compare with.

    `module` is its file in `pipeline.benchmarks.peers`. `requirements` are installed into an
    environment of the peer's own unless the main one has them; only what must differ from the main
    environment has a version. `system` is what pip cannot install.
    """

    name: str
    module: str
    methods: tuple[MethodEntry, ...]
    requirements: tuple[str, ...] = ()
    options: tuple[str, ...] = ()
    system: str = ""


PAGES, DIGITS, PHOTOS = ("pages",), ("digits",), ("photos",)

PEERS = {
    peer.name: peer
    for peer in (
        Peer(
            OURS,
            "inkrun",
            (
                MethodEntry("ink, all threads", PAGES, "ink"),
                MethodEntry("ink, 1 thread", PAGES, "ink"),
                MethodEntry("ink, torch tensors", PAGES, "ink", quick=False),
                MethodEntry("ink, decoded by torch", PAGES, "ink", quick=False),
                MethodEntry("raw, 1 thread", DIGITS, "raw"),  # threads do not speed this up
                MethodEntry("raw, all threads", DIGITS, "raw"),
                MethodEntry("raw pages, all threads", PAGES, "raw", quick=False),
                MethodEntry("raw, torch tensors", DIGITS, "raw", quick=False),
                MethodEntry("jpg, all threads", PHOTOS, "jpg"),
            ),
        ),
        Peer(
            "pillow",
            "files",
            (
                MethodEntry(BASELINE, PAGES),
                MethodEntry("Pillow, bilinear", PAGES, quick=False),
                MethodEntry("Pillow", PHOTOS),
                MethodEntry("Pillow", DIGITS, "png", quick=False),
            ),
        ),
        Peer(
            "torchvision",
            "files",
            (
                MethodEntry("torchvision", (*PAGES, *PHOTOS)),
                MethodEntry("torchvision", DIGITS, "png"),
            ),
        ),
        Peer(
            "opencv",
            "files",
            (MethodEntry("OpenCV, area", PAGES), MethodEntry("OpenCV, area", DIGITS, "png")),
            ("opencv-python-headless",),
        ),
        Peer(
            "ffcv",
            "ffcv",
            (
                MethodEntry("FFCV, jpg", (*PAGES, *PHOTOS), "jpg"),
                MethodEntry("FFCV, raw", PAGES, "raw"),
                MethodEntry("FFCV, raw, shrunk to 256", PAGES, "raw256", whole=False),
                MethodEntry("FFCV, jpg, shrunk to 256", PAGES, "jpg256", whole=False),
                MethodEntry("FFCV", DIGITS, "array"),
            ),
            ("setuptools>=77", "ffcv==1.0.2"),
            ("--no-build-isolation",),
            "libopencv-dev, libturbojpeg0-dev and pkg-config",
        ),
        Peer(
            "memory",
            "memory",
            (
                MethodEntry("DataLoader over tensors", (*PAGES, *DIGITS), "tensor", whole=False),
                MethodEntry("tensor[ids]", (*PAGES, *DIGITS), "tensor", whole=False, quick=False),
                MethodEntry(
                    "index_select, reused buffer", (*PAGES, *DIGITS), "tensor", whole=False
                ),
                MethodEntry("index_select of uint8, reused buffers", DIGITS, "tensor", quick=False),
            ),
        ),
        Peer(
            "webdataset",
            "webdataset",
            (MethodEntry("WebDataset", (*PAGES, *DIGITS), "tar"),),
            ("webdataset",),
        ),
        Peer(
            "litdata",
            "litdata",
            (MethodEntry("LitData", (*PAGES, *DIGITS), "chunks"),),
            ("litdata",),
        ),
        Peer(
            "mosaic",
            "mosaic",
            (MethodEntry("MosaicML Streaming", (*PAGES, *DIGITS), "shards"),),
            ("mosaicml-streaming", "numpy<2.2"),
        ),
        Peer(
            "datasets",
            "hugging_face",
            (MethodEntry("Hugging Face datasets", (*PAGES, *DIGITS), "table"),),
            ("datasets",),
        ),
        Peer(
            "tensordict",
            "memory",
            (MethodEntry("tensordict, mapped", (*PAGES, *DIGITS), "tensordict", whole=False),),
            ("tensordict",),
        ),
        Peer(
            "grain",
            "grain",
            (MethodEntry("Grain", (*PAGES, *DIGITS), "records"),),
            ("grain", "array_record"),
        ),
        Peer(
            "spdl",
            "spdl",
            (MethodEntry("SPDL", PAGES), MethodEntry("SPDL", DIGITS, "png")),
            ("spdl",),
            system="FFmpeg's libraries",
        ),
        Peer(
            "dali",
            "dali",
            (MethodEntry("DALI", PAGES), MethodEntry("DALI", DIGITS, "png")),
            ("nvidia-dali-cuda130",),
        ),
    )
}
