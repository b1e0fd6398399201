"""Builds of packages that are known not to run on some devices, each with who saw it.

`edgekit.devices.compatibility` asks this table before anything of a bundle runs. What is "emulated" was
seen by edgekit itself, on QEMU's model of that core.
"""

from __future__ import annotations

from dataclasses import dataclass, field

ARM_32 = ("armv6l", "armv7l", "armv8l")
BITS_32 = (*ARM_32, "i686", "i386")


@dataclass(frozen=True, kw_only=True)
class KnownBad:
    """One build, and where it does not run. All conditions that are given must hold.

    Attributes:
        package, versions: which builds; versions as pip takes them.
        beside: other pins with which it does not run, by package.
        arch: of the userland, in Linux's words; any when empty.
        lacks: a flag of /proc/cpuinfo without which it dies.
        glibc_below: the glibc that its wheels ask for.
        board: how the board's name begins.
        what: what happens.
        instead: what to install.
        source: who saw it.
    """

    package: str
    versions: str
    beside: dict[str, str] = field(default_factory=dict)
    arch: tuple[str, ...] = ()
    lacks: str | None = None
    glibc_below: str | None = None
    board: str | None = None
    what: str
    instead: str
    source: str


TABLE: tuple[KnownBad, ...] = (
    KnownBad(
        package="onnxruntime",
        versions="==1.21.0",
        arch=("aarch64",),
        lacks="asimdhp",
        what="is compiled for Armv8.2 and dies of SIGILL at import",
        instead="onnxruntime 1.21.1 or newer",
        source="microsoft/onnxruntime#23957, #24112, #24512; emulated: 1.21.0 dies on a Cortex-A72 and runs "
        "on an A76, 1.21.1 and 1.22.0 run on both",
    ),
    KnownBad(
        package="onnxruntime",
        versions="<1.19",
        beside={"numpy": ">=2"},
        what="is compiled for numpy 1 and fails at import",
        instead="onnxruntime 1.19 or newer, or numpy below 2",
        source="microsoft/onnxruntime#21063",
    ),
    KnownBad(
        package="torch",
        versions="==1.13.0",
        arch=("aarch64",),
        lacks="atomics",
        what="dies of SIGILL in a convolution",
        instead="torch 2.11 or newer, or 1.13.1",
        source="pytorch/pytorch#90535; 1.13.1 runs for the reporters of #97226 and #100156",
    ),
    KnownBad(
        package="torch",
        versions="==2.0.0",
        arch=("aarch64",),
        lacks="atomics",
        what="dies of SIGILL at import",
        instead="torch 2.11 or newer, or 1.13.1",
        source="pytorch/pytorch#97226, #100156",
    ),
    KnownBad(
        package="torch",
        versions="==2.1.0",
        arch=("aarch64",),
        lacks="atomics",
        what="dies of SIGILL at import",
        instead="torch 2.11 or newer, or 2.3.1",
        source="pytorch/builder#1562",
    ),
    KnownBad(
        package="torch",
        versions="==2.4.0",
        arch=("aarch64",),
        lacks="atomics",
        what="dies of SIGILL at import, by LDADDAL of Armv8.1 in its Arm Compute Library",
        instead="torch 2.11 or newer, or 2.3.1",
        source="pytorch/pytorch#132032",
    ),
    KnownBad(
        package="torch",
        versions="==2.6.0",
        arch=("aarch64",),
        lacks="atomics",
        what="dies of SIGILL by LDADDAL of Armv8.1, where std::atomic was compiled for Armv8.2",
        instead="torch 2.11 or newer",
        source="pytorch/pytorch#146792, #146803",
    ),
    KnownBad(
        package="torch",
        versions=">=2.10,<2.11",
        arch=("aarch64",),
        lacks="atomics",
        what="dies of SIGILL at import, by LDADDAL of Armv8.1 in its mimalloc",
        instead="torch 2.11 or newer",
        source="pytorch/pytorch#176993; vectorize-io/hindsight#4201 has the instruction",
    ),
    KnownBad(
        package="openvino",
        versions=">=2026.0,<2026.3",
        arch=("aarch64",),
        lacks="sve",
        what="has SVE instructions outside of its SVE kernels and dies of SIGILL now and then",
        instead="openvino 2026.4 or newer",
        source="openvinotoolkit/openvino#33868 (January 2026), mended by #36453 and #36931 (July 2026)",
    ),
    KnownBad(
        package="openvino",
        versions=">=2025.3",
        arch=("aarch64",),
        glibc_below="2.35",
        what="has wheels for glibc 2.35 or newer",
        instead="openvino 2025.2, or a newer system on the device",
        source="names of the wheels in the index: 2025.2.0 is the newest that pip takes with glibc 2.31",
    ),
    KnownBad(
        package="tflite-runtime",
        versions="<=2.14",
        beside={"numpy": ">=2"},
        what="is compiled for numpy 1 and fails when the first interpreter is made",
        instead="ai-edge-litert, or numpy below 2",
        source="Nachtzuster/BirdNET-Pi#314, TexasInstruments/edgeai-tidl-tools#84, pharmpy/pharmpy#3268",
    ),
    KnownBad(
        package="tflite-runtime",
        versions="<=2.14",
        arch=("x86_64",),
        lacks="avx",
        what="is compiled for AVX and dies of SIGILL at import",
        instead="ai-edge-litert, which runs without AVX (emulated)",
        source="spupuz/VibeNVR#369, blakeblackshear/frigate#14712, #4195",
    ),
    KnownBad(
        package="numpy",
        versions=">=2.4",
        arch=("x86_64",),
        lacks="sse4_2",
        what="is compiled for x86-64-v2 and fails at import",
        instead="numpy 2.3",
        source="numpy/numpy#31073, NixOS/nixpkgs#504266, BETSRG/GHEDesigner#165; emulated: 2.4.6 dies on a "
        "Core 2 Duo and runs on a Nehalem",
    ),
    KnownBad(
        package="numpy",
        versions="==1.19.5",
        arch=("aarch64",),
        board="NVIDIA Jetson",
        what="mistakes the core for another one and dies of SIGILL at import",
        instead="numpy 1.20 or newer, or 1.19.4",
        source="numpy/numpy#18131, #18175, #18468",
    ),
    KnownBad(
        package="ai-edge-litert",
        versions=">=0",
        arch=ARM_32,
        what="has no build for a 32-bit userland",
        instead="the 64-bit edition of the device's system",
        source="google-ai-edge/LiteRT#6043",
    ),
    *(
        KnownBad(
            package=package,
            versions=">=0",
            arch=BITS_32,
            what="has no build for a 32-bit userland",
            instead="the 64-bit edition of the device's system",
            source="names of the wheels in the index",
        )
        for package in ("onnxruntime", "openvino", "executorch")
    ),
)
