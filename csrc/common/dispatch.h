// SPDX-License-Identifier: Apache-2.0
#pragma once

// The dispatch keys of an op that has both a CPU and a CUDA function. In the emulated build (see
// tests/cuda_emulator) the CUDA functions answer for CPU tensors, and the CPU functions for a
// device that nobody has.
#ifdef LONGCLOCK_EMULATED
#define LONGCLOCK_CPU_KEY PrivateUse1
#define LONGCLOCK_CUDA_KEY CPU
#else
#define LONGCLOCK_CPU_KEY CPU
#define LONGCLOCK_CUDA_KEY CUDA
#endif
