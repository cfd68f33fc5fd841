"""Engines by name, for scenarios that need one like it: two as measured, one as declared."""

from tidegate.core.step import StepTime
from tidegate.sim.engine import EngineProfile

PRESETS: dict[str, EngineProfile] = {
    # Declared: llama.cpp with 8 billion weights of 4 bits (4.7 GB) in memory of 120 GB/s, computing prompts at some
    # 4 TFLOP/s; 128 KiB of KV cache a token.
    "laptop-8b": EngineProfile(
        step=StepTime(
            base_s=0.04, per_token_s=0.004, per_sequence_s=0.001, per_context_token_s=1.1e-6, per_pair_s=3e-8
        ),
        slots=4,
        batch_tokens=512,
        kv_tokens=32_768,
    ),
    # Llama 3.1 8B in 16 bits on one RTX PRO 6000 (96 GB), and Qwen3 32B on two: vLLM 0.19, 300 requests at 10/s each
    # (LLMServingSim, MIT). What prompts share was not measured; what memory holds follows from the models' sizes.
    "gpu-8b": EngineProfile(
        step=StepTime(base_s=0.0111, per_token_s=3.06e-5, per_sequence_s=1.4e-5, per_context_token_s=9.2e-8),
        slots=128,
        batch_tokens=2048,
        kv_tokens=524_288,
    ),
    "two-gpus-32b": EngineProfile(
        step=StepTime(base_s=0.0296, per_token_s=1.3e-4, per_sequence_s=6.2e-5, per_context_token_s=7.0e-8),
        slots=128,
        batch_tokens=2048,
        kv_tokens=393_216,
    ),
}
