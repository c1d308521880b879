"""Processors as real /proc/cpuinfo files describe them."""

from __future__ import annotations

import pytest

from afd_benchmark.processor import processor_features, processor_model

ROME = """\
processor	: 0
vendor_id	: AuthenticAMD
cpu family	: 23
model		: 49
model name	: AMD EPYC
stepping	: 0
flags		: fpu sse sse2 ssse3 fma cx16 sse4_1 avx f16c abm avx2 bmi2 clzero

processor	: 1
vendor_id	: AuthenticAMD
cpu family	: 23
model		: 49
model name	: AMD EPYC
stepping	: 0
flags		: fpu sse sse2 ssse3 fma cx16 sse4_1 avx f16c abm avx2 bmi2 clzero
"""
GENOA = (
    ROME.replace(": 23", ": 25")
    .replace(": 49", ": 17")
    .replace("avx2", "avx2 avx512f avx512bw avx512_vnni")
)
SAPPHIRE_RAPIDS = """\
model name	: Intel(R) Xeon(R) Processor
cpu family	: 6
model		: 143
stepping	: 8
flags		: fma f16c avx2 avx512f avx512_vnni avx_vnni avx512_fp16 amx_bf16 amx_tile amx_int8
"""
GRAVITON_3 = """\
processor	: 0
BogoMIPS	: 2100.00
Features	: fp asimd fphp asimdhp asimddp sve i8mm bf16 dgh
CPU implementer	: 0x41
CPU part	: 0xd40
"""
M4_LIKE = GRAVITON_3.replace("sve ", "sme ").replace("0x41", "0x61")
# A Cortex-A55 beside a Cortex-A53, which has no dot product.
MIXED = """\
processor	: 0
Features	: fp asimd crc32
processor	: 1
Features	: fp asimd asimdhp asimddp
"""


@pytest.mark.parametrize(
    ("cpuinfo", "features"),
    [
        (ROME, ["FMA", "F16C", "AVX2"]),
        (GENOA, ["FMA", "F16C", "AVX2", "AVX-512F", "AVX512-VNNI"]),
        (
            SAPPHIRE_RAPIDS,
            ["FMA", "F16C", "AVX2", "AVX-VNNI", "AVX-512F", "AVX512-VNNI", "AVX512-FP16",
             "AMX-INT8"],
        ),
        (GRAVITON_3, ["NEON", "FP16", "dot product", "I8MM", "BF16", "SVE"]),
        (M4_LIKE, ["NEON", "FP16", "dot product", "I8MM", "BF16", "SME"]),
        (MIXED, ["NEON"]),
        ("flags :\n", []),
        ("processor : 0\n", None),
        ("", None),
    ],
)  # fmt: skip
def test_features_are_what_every_core_has(cpuinfo: str, features: list[str] | None) -> None:
    assert processor_features(cpuinfo) == features


@pytest.mark.parametrize(
    ("cpuinfo", "model"),
    [
        (ROME, "AMD EPYC, family 23, model 49, stepping 0"),
        (GENOA, "AMD EPYC, family 25, model 17, stepping 0"),
        (SAPPHIRE_RAPIDS, "Intel(R) Xeon(R) Processor, family 6, model 143, stepping 8"),
        (GRAVITON_3, "implementer 0x41, part 0xd40"),
        ("model name\t:\n", None),
        ("", None),
    ],
)
def test_the_model_tells_processors_of_one_name_apart(cpuinfo: str, model: str | None) -> None:
    assert processor_model(cpuinfo) == model
